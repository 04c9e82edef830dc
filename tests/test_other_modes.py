"""Posteriors of several modes get a warning or an error from `phi4ppl.laplace`, or weights that are right by quadrature.

Statistical tests: at most 5 standard errors of six numbers, false alarms 4e-6; seeds are fixed.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from raising import raises, warns
from scipy import stats
from scipy.special import logsumexp

import phi4ppl as p4
from phi4ppl.numpyro_plugin import other_modes
from phi4ppl.numpyro_plugin.curvature import curvature_of

pytestmark = [pytest.mark.compile_quickly, pytest.mark.rank_promotion]

BOUND = 5.0


def chain(n, a, w=0.3, b=None):
    lattice = p4.lattice.chain(n, periodic=False) if n > 1 else p4.lattice.chain(1)
    return p4.gaussian(lattice, w=w, a=a) if b is None else p4.phi4(lattice, w=w, a=a, b=b)


def observed(field, likelihood, y):
    """A NumPyro model of a field, and data with a law given the field."""

    def model(y):
        phi = numpyro.sample("phi", p4.GibbsField(field))
        numpyro.sample("y", likelihood(phi), obs=y)

    return model, np.asarray(y)


def lobes(n, apart, share=0.5, a=0.01):
    """0 and ``apart`` explain y = 0, at every site."""
    shares = jnp.array([1 - share, share])
    return observed(
        chain(n, a, w=0.005 if n > 1 else 0.0),
        lambda phi: dist.MixtureSameFamily(
            dist.Categorical(shares), dist.Normal(jnp.stack([phi, phi - apart], axis=-1), 1.0)
        ),
        np.zeros(n),
    )


def wells(y, sd):
    return observed(chain(len(y), -0.5, w=0.5, b=0.25), lambda phi: dist.Normal(phi, sd), y)


def squared(y, sd):
    return observed(chain(len(y), 0.5), lambda phi: dist.Normal(phi**2, sd), y)


def outlier():
    return observed(chain(3, 0.5), lambda phi: dist.StudentT(3.0, phi, 0.5), [0.0, 0.5, 9.0])


def scaled(y, sd):
    """The sign of a real scale is that of the field."""

    def model(y):
        scale = numpyro.sample("scale", dist.Normal(0, 1))
        phi = numpyro.sample("phi", p4.GibbsField(chain(len(y), 0.8)))
        numpyro.sample("y", dist.Normal(scale * phi, sd), obs=y)

    return model, np.asarray(y)


def doubt(model, y):
    curvature = curvature_of(p4.compile(model, y))
    theta, _, mode = curvature.peak
    return curvature.doubt(theta, mode)


@pytest.mark.parametrize(
    "case", [lobes(1, 4.0), lobes(1, 10.0), lobes(1, 30.0, a=1e-3), lobes(3, 6.0, 0.001), lobes(80, 9.0, 0.01)]
)
def test_modes_near_and_far_are_found(case):
    """Of one site, of every site, and of rare ones whose weight still counts."""
    assert "several modes" in doubt(*case)


@pytest.mark.parametrize(
    "case",
    [wells([0.0], 2.0), wells([0.3, 0.2, 0.1], 1.5), squared([1.0, 2.0, 0.5], 0.3), scaled([1.0, 1.2, -0.8], 0.3)],
)
def test_a_start_between_the_modes_is_an_error(case):
    """Broken phases under weak data, and symmetries of sign."""
    with raises("sampling.no_mode", "several modes"):
        p4.laplace(*case)


def counts(y):
    def model(y):
        level = numpyro.sample("level", dist.Normal(0, 3))
        scale = numpyro.sample("scale", dist.HalfNormal(1))
        phi = numpyro.sample("phi", p4.GibbsField(chain(len(y), 0.5)))
        numpyro.sample("y", dist.Poisson(jnp.exp(level + scale * phi)), obs=y)

    return model, np.asarray(y)


LOG_CONCAVE = [
    counts([0, 0, 0]), counts([0, 300, 1000]), counts(np.random.default_rng(0).poisson(3.0, 60)),
    observed(chain(4, 0.5), lambda phi: dist.Bernoulli(logits=phi), [1, 1, 1, 1]),
    observed(chain(40, 0.5), lambda phi: dist.Bernoulli(logits=phi), np.arange(40) % 2),
    observed(chain(3, 1.0, b=0.3), lambda phi: dist.Poisson(jnp.exp(phi)), [0, 2, 8]),
]  # fmt: skip


@pytest.mark.parametrize("case", LOG_CONCAVE)
def test_no_false_alarms(case):
    """Log-concave given the scale: never a doubt."""
    assert doubt(*case) == ""


def test_planted_fault_without_lines_far_modes_go_unnoticed(monkeypatch):
    monkeypatch.setattr(other_modes, "RAY", np.linspace(-1, 1, 3))
    assert doubt(*lobes(1, 30.0, a=1e-3)) == ""


def grid_of(n, low, high, number):
    axis = np.linspace(low, high, number)
    points = np.stack(np.meshgrid(*[axis] * n, indexing="ij"), axis=-1).reshape(-1, n)
    return points, n * np.log(axis[1] - axis[0])


def action(phi, a, w=0.3, b=0.0):
    return a * (phi**2).sum(-1) + b * (phi**4).sum(-1) - w * (phi[:, 1:] * phi[:, :-1]).sum(-1)


RIGHT = {
    "outlier": (outlier(), lambda x: (-action(x, 0.5), stats.t(3, x, 0.5).logpdf([0.0, 0.5, 9.0]))),
    "squared": (
        squared([-1.0, -2.0, -0.5], 1.0), lambda x: (-action(x, 0.5), stats.norm(x**2, 1.0).logpdf([-1.0, -2.0, -0.5]))
    ),
    "wells": (
        wells([1.0, 1.2, 0.9], 0.3), lambda x: (-action(x, -0.5, 0.5, 0.25), stats.norm(x, 0.3).logpdf([1.0, 1.2, 0.9]))
    ),
}  # fmt: skip


@pytest.mark.parametrize(("case", "exact"), RIGHT.values(), ids=RIGHT)
def test_without_a_doubt_the_weights_are_right(case, exact):
    """Not log-concave, but of one mode: evidence and means are those of quadrature."""
    found = p4.laplace(*case, num_draws=8192, seed=1)
    points, cell = grid_of(3, -4.0, 6.0, 101)
    prior, likelihood = exact(points)
    log_p = prior + likelihood.sum(axis=-1)
    log_z = logsumexp(prior) + cell
    assert found.warnings == () and found.log_evidence_error < 0.05
    assert abs(found.log_evidence - (logsumexp(log_p) + cell - log_z)) < BOUND * found.log_evidence_error + 1e-4
    weights, drawn = np.exp(log_p - logsumexp(log_p)), np.exp(found.log_weights)
    center = drawn @ found.draws
    error = np.sqrt(drawn**2 @ (found.draws - center) ** 2)
    assert np.abs((center - weights @ points) / error).max() < BOUND


def test_a_mode_that_does_not_count_is_no_doubt():
    """Of relative weight 10⁻⁷: evidence that of the closed form of the other one."""
    found = p4.laplace(*lobes(1, 6.0, 1e-7), seed=1)
    assert found.warnings == ()
    exact = stats.norm(0, np.sqrt(1 + 1 / 0.02)).logpdf(0.0)
    assert abs(found.log_evidence - exact) < 1e-3


def test_two_peaks_of_a_scale_are_noticed():
    """A prior of two narrow lobes; the data say little. Its quadrature has both."""

    def model(y):
        lobes = dist.LogNormal(jnp.array([-2.0, 2.0]), 0.3)
        scale = numpyro.sample("scale", dist.MixtureSameFamily(dist.Categorical(jnp.ones(2) / 2), lobes))
        phi = numpyro.sample("phi", p4.GibbsField(chain(1, 0.5, w=0.0)))
        numpyro.sample("y", dist.Normal(phi * scale, 1.0), obs=y)

    theta = np.linspace(-4, 4, 801)
    prior = logsumexp([stats.norm(m, 0.3).logpdf(theta) for m in (-2, 2)], axis=0)
    posterior = np.exp(prior + stats.norm(0, np.sqrt(1 + np.exp(2 * theta))).logpdf(0.5))
    share = posterior[theta < 0].sum() / posterior.sum()
    assert 0.1 < share < 0.9
    with warns("laplace.doubtful", "several peaks"):
        p4.laplace(model, np.array([0.5]), num_draws=400)
