"""Posteriors of couplings under priors as users write them, against quadrature on the ring of four.

log Z of the ring is that of a transfer matrix, log tr T⁴, on nodes of its own. False alarms: scores of means and standard
deviations beyond 3.9 with probability 1e-4 each; keys are fixed. Planted faults: without log Z, and without the prior.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from raising import raises
from scipy import stats
from scipy.special import logsumexp

import phi4ppl as p4
from phi4ppl.analysis.gamma_method import gamma_method
from phi4ppl.inference.coupling_problem import CouplingProblem
from phi4ppl.inference.couplings import _placed_log_z
from phi4ppl.inference.determinants import Determinants
from phi4ppl.inference.log_z import Unaffordable
from phi4ppl.inference.prior_models import Positive, cut_priors
from phi4ppl.inference.region import cut_problem, where_finite

pytestmark = [pytest.mark.compile_quickly, pytest.mark.rank_promotion]

RING = p4.phi4(p4.lattice.chain(4), w=0.5, a=1.0, b=0.2)
NODES = np.linspace(-6, 6, 97)
RUN = {"num_warmup": 300, "num_samples": 1000, "progress": False}


def log_z(w, a, b, ring=True):
    """log tr T⁴ with T(x, y) = exp(wxy − (s(x) + s(y))/2), of arrays of one shape; ``a`` and ``b`` may be one for each site."""
    w, a, b = np.broadcast_arrays(w, a, b)
    found = np.empty(w.shape)
    step = NODES[1] - NODES[0]
    for k in np.ndindex(w.shape):
        on_site = a[k] * NODES**2 + b[k] * NODES**4
        matrix = np.exp(w[k] * np.outer(NODES, NODES) - (on_site[:, None] + on_site) / 2) * step
        found[k] = np.log(np.trace(np.linalg.matrix_power(matrix, 4)))
    return found


@functools.lru_cache
def fields(number=5, seed=0):
    """Independent fields of the ring at its couplings, by Gibbs sampling on the nodes."""
    rng = np.random.default_rng(seed)
    phi = rng.normal(size=(number, 4))
    for _ in range(60):
        for site in range(4):
            pull = 0.5 * (phi[:, site - 1] + phi[:, (site + 1) % 4])
            log_p = pull[:, None] * NODES - NODES**2 - 0.2 * NODES**4
            p = np.exp(log_p - log_p.max(axis=1, keepdims=True)).cumsum(axis=1)
            phi[:, site] = [np.interp(u, c / c[-1], NODES) for u, c in zip(rng.random(number), p, strict=True)]
    return phi


def posterior_on(axes, log_prior, data, couplings=lambda *grid: grid, z=True):
    """Means and standard deviations of parameters on the tensor grid ``axes``; ``couplings`` of parameters are (w, a, b)."""
    grid = np.meshgrid(*axes, indexing="ij")
    w, a, b = couplings(*grid)
    total = -w * np.sum(data * np.roll(data, 1, axis=1)) + a * np.sum(data**2) + b * np.sum(data**4)
    log_p = log_prior(*grid) - total - (len(data) * log_z(w, a, b) if z else 0)
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    means = [float(np.sum(p * g)) for g in grid]
    return means, [float(np.sqrt(np.sum(p * (g - m) ** 2))) for g, m in zip(grid, means, strict=True)]


def scores(found, names, truth, shift=0.0):
    """Of means and variances; ``shift`` standard deviations are the error of a simulated log Z."""
    result = []
    for name, mean, sd in zip(names, *truth, strict=True):
        values = found["posterior"][name].values.astype(float)
        first, second = gamma_method(values), gamma_method((values - mean) ** 2)
        result.append((first.mean - mean) / np.hypot(first.error, shift * sd))
        result.append((second.mean - sd**2) / np.hypot(second.error, shift * sd**2))
    return np.abs(result).max()


def normal(w, a):
    return stats.norm.logpdf(w, 0.3, 0.3) + stats.norm.logpdf(a, 1.2, 0.5)


NORMAL = {"w": dist.Normal(0.3, 0.3), "a": dist.Normal(1.2, 0.5)}
AXES = (np.linspace(-1.2, 1.8, 61), np.linspace(-0.6, 3.6, 61))
W_A = lambda w, a: (w, a, 0.2 + 0 * w)  # noqa: E731


@pytest.mark.slow
def test_normal_priors_with_exact_log_z():
    found = p4.infer_couplings(RING, fields(), NORMAL, normalizer="exact", **RUN)
    truth = posterior_on(AXES, normal, fields(), W_A)
    assert scores(found, "wa", truth) < 3.9
    assert scores(found, "wa", posterior_on(AXES, normal, fields(), W_A, z=False)) > 6
    assert scores(found, "wa", posterior_on(AXES, lambda w, a: 0 * w, fields(), W_A)) > 6
    assert found.warnings == () and p4.settings(found)["notes"] == []
    grid = np.meshgrid(*AXES, indexing="ij")
    # the evidence too: an integral over the grid
    w, a = grid
    data = fields()
    total = -w * np.sum(data * np.roll(data, 1, axis=1)) + a * np.sum(data**2) + 0.2 * np.sum(data**4)
    log_p = normal(w, a) - total - len(data) * log_z(w, a, 0.2)
    exact = logsumexp(log_p) + np.log((AXES[0][1] - AXES[0][0]) * (AXES[1][1] - AXES[1][0]))
    assert abs(found.log_evidence - exact) < 4 * found.log_evidence_error + 0.02


def test_what_a_prior_has_where_z_is_infinite_is_cut_and_said():
    found = p4.infer_couplings(RING, fields(), {"b": dist.Normal(0.1, 0.2)}, normalizer="exact", **RUN)
    axis = (np.linspace(1e-6, 1.6, 400),)
    truth = posterior_on(
        axis, lambda b: stats.norm.logpdf(b, 0.1, 0.2), fields(), lambda b: (0.5 + 0 * b, 1 + 0 * b, b)
    )
    assert scores(found, "b", truth) < 3.9
    (note,) = p4.settings(found)["notes"]
    share = stats.norm.cdf(-0.5)
    assert "'b'" in note and note.startswith(f"{share:.2g} ") and found["posterior"]["b"].min() > 0
    (cut,) = cut_priors(RING, {"b": dist.Normal(0.1, 0.2)})[0].values()
    assert isinstance(cut, Positive)
    np.testing.assert_allclose(cut.log_prob(0.3), stats.norm.logpdf(0.3, 0.1, 0.2) - np.log(1 - share), rtol=1e-5)


def test_evidence_is_that_of_the_prior_where_z_is_finite():
    """Of `compare` and `infer_couplings` under one cut prior, against quadrature.

    Scores at 3.9 errors, a false alarm in 1e-4 each. Planted fault: the whole prior, whose evidence is lower by 0.37.
    """
    data, prior = fields(20), {"b": dist.Normal(0.1, 0.2)}
    result = p4.compare({"cut": RING}, data, prior, num_draws=500, progress=False)
    inferred = p4.infer_couplings(RING, data, prior, normalizer="exact", **RUN)
    x, weights = np.polynomial.legendre.leggauss(60)
    b, weights = 0.75 * (1 + x), 0.75 * weights
    total = 0.5 * np.sum(data * np.roll(data, 1, axis=1)) - np.sum(data**2) - b * np.sum(data**4)
    log_p = stats.norm.logpdf(b, 0.1, 0.2) + total - len(data) * log_z(0.5, 1.0, b)
    kept = np.log(stats.norm.sf(-0.5))
    exact = logsumexp(log_p, b=weights) - kept
    for found in (result.posteriors["cut"], inferred):
        assert abs(found.log_evidence - exact) < 3.9 * found.log_evidence_error and found.log_evidence_error < 0.06
        assert abs(found.log_evidence - exact - kept) > 3.9 * found.log_evidence_error
    (note,) = result.notes
    assert note == f"cut: {p4.settings(inferred)['notes'][0]}" and f"Note: {note}" in str(result)
    assert note in result._repr_html_().replace("&#x27;", "'")


def test_lognormal_and_gamma_priors_with_a_surface():
    priors = {"w": dist.LogNormal(-1.0, 0.6), "a": dist.Gamma(4.0, 3.0)}
    found = p4.infer_couplings(RING, fields(), priors, normalizer="surface", **RUN)
    axes = (np.linspace(1e-3, 2.4, 80), np.linspace(1e-3, 4.5, 80))
    log_prior = lambda w, a: stats.lognorm.logpdf(w, 0.6, scale=np.exp(-1)) + stats.gamma.logpdf(a, 4, scale=1 / 3)  # noqa: E731
    truth = posterior_on(axes, log_prior, fields(), W_A)
    shift = p4.settings(found)["normalizer_shift"]
    assert scores(found, "wa", truth, shift) < 3.9 and found.warnings == ()
    assert scores(found, "wa", posterior_on(axes, log_prior, fields(), W_A, z=False), shift) > 6


def test_a_surface_is_extended_when_the_posterior_reaches_its_edge():
    """A region on one side of the posterior. Planted fault: the surface as it is, on a prior that ends with it."""
    surface = p4.PartitionSurface(RING, {"w": (0.0, 0.25)}, num_samples=4000)
    found = p4.infer_couplings(RING, fields(20), {"w": dist.Normal(0.3, 0.5)}, normalizer=surface, **RUN)
    axis = (np.linspace(-2.0, 2.0, 400),)
    log_prior = lambda w: stats.norm.logpdf(w, 0.3, 0.5)  # noqa: E731
    truth = posterior_on(axis, log_prior, fields(20), lambda w: (w, 1 + 0 * w, 0.2 + 0 * w))
    shift = p4.settings(found)["normalizer_shift"]
    assert scores(found, "w", truth, shift) < 3.9
    short = p4.infer_couplings(RING, fields(20), {"w": dist.Uniform(0.0, 0.25)}, normalizer=surface, **RUN)
    assert scores(short, "w", truth, shift) > 6


def hierarchy():
    scale = numpyro.sample("scale", dist.HalfNormal(0.5))
    amount = numpyro.sample("amount", dist.Normal(0.0, 1.0))
    return {"w": scale * amount}


def test_hierarchical_priors_are_numpyro_models():
    """Quadrature over scale and w ~ N(0, scale). Planted fault: a fixed scale."""
    found = p4.infer_couplings(RING, fields(), hierarchy, normalizer="exact", **RUN)
    scale, w = np.meshgrid(np.linspace(5e-3, 2.4, 240), np.linspace(-1.5, 2.0, 701), indexing="ij")
    table, data = log_z(w[0], 1.0, 0.2), fields()

    def truth(log_scale):
        log_p = log_scale + stats.norm.logpdf(w, 0, scale) + w * np.sum(data * np.roll(data, 1, axis=1))
        log_p -= len(data) * table[None]
        p = np.exp(log_p - log_p.max())
        p /= p.sum()
        means = [float(np.sum(p * v)) for v in (scale, w)]
        return means, [float(np.sqrt(np.sum(p * (v - m) ** 2))) for v, m in zip((scale, w), means, strict=True)]

    assert scores(found, ("scale", "w"), truth(stats.halfnorm.logpdf(scale, scale=0.5))) < 3.9
    assert scores(found, ("scale", "w"), truth(np.where(scale < 0.15, 0.0, -np.inf))) > 6
    assert found.log_evidence is None and found.names == ("w",) and "scale" in str(found)


@pytest.mark.slow
def test_couplings_of_own_terms_have_priors_too():
    def own(x, y):
        return jnp.cos(x - y)

    ring = p4.MarkovRandomField(RING.lattice, [*RING.terms, p4.Term("pull", RING.lattice.edges, own, 0.0)])
    found = p4.infer_couplings(ring, fields(), {"pull": dist.Normal(0.0, 0.2)}, normalizer="exact", **RUN)
    pulls, data = np.linspace(-1.5, 1.5, 121), fields()
    on_site, step = NODES**2 + 0.2 * NODES**4, NODES[1] - NODES[0]
    kernel = 0.5 * np.outer(NODES, NODES) - (on_site[:, None] + on_site) / 2
    bend = np.cos(NODES[:, None] - NODES)
    z = [np.log(np.trace(np.linalg.matrix_power(np.exp(kernel - p * bend) * step, 4))) for p in pulls]
    total = np.sum(np.cos(data - np.roll(data, 1, axis=1)))
    log_p = stats.norm.logpdf(pulls, 0, 0.2) - pulls * total - len(data) * np.array(z)
    p = np.exp(log_p - log_p.max()) / np.exp(log_p - log_p.max()).sum()
    mean = p @ pulls
    truth = [mean], [np.sqrt(p @ (pulls - mean) ** 2)]
    assert scores(found, ["pull"], truth) < 3.9
    assert scores(found, ["pull"], ([0.0], [0.2])) > 6


@pytest.mark.parametrize(
    ("priors", "code", "says"),
    [
        ({"b": dist.Normal(-5.0, 0.1)}, "argument.prior.positive", ("'b'", "HalfNormal")),
        ({"b": dist.Uniform(-2.0, -1.0)}, "argument.prior.positive", ("'b'",)),
        (lambda: None, "argument.priors", ("dict", "return")),
        (lambda: {"q": 1.0}, "argument.priors.name", ("'q'", "'w'")),
        (lambda: {"w": 1.0}, "argument.priors.no_sites", ("replace",)),
        ({"w": None}, "argument.prior", ("'w'", "None")),
        ({"w": dist.ImproperUniform(dist.constraints.real, (), ())}, "argument.prior.improper", ("Uniform",)),
        (lambda: {"a": jnp.ones(3)}, "argument.coupling.shape", ("'a'", "4", "(3,)")),
        (lambda: {"w": 2 * numpyro.sample("w", dist.Normal())}, "argument.coupling.site", ("'w'",)),
        (lambda: {"w": numpyro.sample("y", dist.Normal(), obs=1.0)}, "argument.priors.observed", ("data",)),
    ],
)
def test_priors_that_cannot_be_are_refused(priors, code, says):
    with raises(code, *says):
        p4.infer_couplings(RING, fields(), priors)


def test_fields_on_another_scale_are_refused_in_words():
    with np.errstate(all="ignore"), raises("argument.data.degenerate", "rescale"):
        p4.infer_couplings(RING, 1e6 * np.ones((5, 4)), {"w": dist.Uniform(0.4, 1.0)}, normalizer="exact")


def test_priors_over_infinite_z_are_located_or_refused():
    """A Gaussian triangle: Z is infinite from w = 1 on, which is 0.5/1.5 of the prior; the posterior is far from there."""
    triangle = p4.gaussian(p4.lattice.complete(3), w=0.3, a=1.0)
    data = np.asarray(p4.GibbsField(triangle).sample(jax.random.key(0), (60,)), float)
    found = p4.infer_couplings(triangle, data, {"w": dist.Uniform(0.0, 1.5)}, normalizer="exact", **RUN)
    ws = np.linspace(0, 0.9999, 4000)
    eigen = np.stack([2 - 2 * ws, 2 + ws, 2 + ws])
    total = -np.sum(data[:, 0] * data[:, 1] + data[:, 1] * data[:, 2] + data[:, 0] * data[:, 2])
    log_p = -ws * total + len(data) / 2 * np.log(eigen).sum(axis=0)
    p = np.exp(log_p - log_p.max()) / np.exp(log_p - log_p.max()).sum()
    mean = p @ ws
    assert scores(found, "w", ([mean], [np.sqrt(p @ (ws - mean) ** 2)])) < 3.9
    (note,) = p4.settings(found)["notes"]
    assert 0.2 < float(note.split()[1]) < 0.45
    # the evidence under the prior on 0 < w < 1; planted fault: the prior on 0 < w < 1.5
    exact = logsumexp(log_p - len(data) / 2 * (3 * np.log(2 * np.pi)) - np.sum(data**2)) + np.log(ws[1])
    compared = p4.compare({"triangle": triangle}, data, {"w": dist.Uniform(0.0, 1.5)}, num_draws=1000, progress=False)
    for each in (found, compared.posteriors["triangle"]):
        assert abs(each.log_evidence - exact) < 3.9 * each.log_evidence_error and each.log_evidence_error < 0.1
        assert abs(each.log_evidence - exact + np.log(1.5)) > 3.9 * each.log_evidence_error
    assert len(compared.notes) == 1 and compared.posteriors["triangle"].warnings == ()
    with raises("argument.priors.improper", "some of their mass where Z is finite"):
        p4.infer_couplings(triangle, data, {"w": dist.Uniform(1.5, 2.0)})
    both = {"w": dist.Uniform(0.0, 1.5), "a": dist.Normal(1.0, 0.1)}  # no box is free of infinite Z
    with raises("argument.priors.improper", "normalizer='exact'"):
        p4.infer_couplings(triangle, 10 * np.ones((1, 3)), both, normalizer="surface")


def test_where_z_is_finite_is_found_with_few_looks(monkeypatch):
    """|w| < a on an even ring, of w alone and with a; without a coupling inside, every one is looked at."""
    ring, looks, rng = p4.gaussian(p4.lattice.chain(6), w=0.3, a=1.6), [], np.random.default_rng(0)
    look = CouplingProblem.has_density
    monkeypatch.setattr(CouplingProblem, "has_density", lambda self, theta: looks.append(1) or look(self, theta))
    couplings = rng.normal([0.0, 1.6], [1.0, 0.3], (200, 2))
    for priors, names in (({"w": dist.Normal()}, 1), ({"w": dist.Normal(), "a": dist.Normal()}, 2)):
        looks.clear()
        problem = CouplingProblem(ring, np.zeros((5, 6)), priors)
        found = where_finite(problem, couplings[:, :names])
        np.testing.assert_array_equal(found, np.abs(couplings[:, 0]) < (1.6 if names == 1 else couplings[:, 1]))
        assert 0.05 < np.mean(~found) < 0.5 and len(looks) < (20 if names == 1 else 150)
    assert not where_finite(
        CouplingProblem(ring.replace(w=2.0), np.zeros((5, 6)), {"w": dist.Normal()}), np.full((3, 1), 2.0)
    ).any()


# --- couplings of single sites as functions of few parameters

COVARIATE = np.array([-1.0, 0.0, 0.5, 1.5])


def regression():
    intercept = numpyro.sample("intercept", dist.Normal(1.0, 0.5))
    slope = numpyro.sample("slope", dist.Normal(0.0, 0.5))
    return {"a": intercept + slope * jnp.asarray(COVARIATE)}


def site_log_z(intercept, slope):
    """log tr of the product of four different transfer matrices."""
    found, step = np.empty(intercept.shape), NODES[1] - NODES[0]
    hop = 0.5 * np.outer(NODES, NODES)
    for k in np.ndindex(intercept.shape):
        product = np.eye(len(NODES))
        for x in COVARIATE:
            on_site = (intercept[k] + slope[k] * x) * NODES**2 + 0.2 * NODES**4
            product = product @ (np.exp(hop - on_site[None]) * step)
        found[k] = np.log(np.trace(product))
    return found


def test_a_regression_of_site_couplings_by_exchange_is_that_of_quadrature():
    """a_i = intercept + slope x_i given 8 fields. Planted faults: without log Z; covariates in the opposite order."""
    rng = np.random.default_rng(3)
    data = fields(8, seed=1) * np.exp(-0.3 * COVARIATE) + 0.05 * rng.normal(size=(8, 4))  # narrower where x is large
    options = RUN | {"num_samples": 4000, "num_warmup": 500}
    found = p4.infer_couplings(RING, data, regression, normalizer="exchange", num_auxiliary=15, **options)
    grid = np.meshgrid(np.linspace(-1.0, 3.5, 61), np.linspace(-1.6, 2.2, 61), indexing="ij")
    table = site_log_z(*grid)

    def truth(z=1.0, order=1):
        log_p = stats.norm.logpdf(grid[0], 1.0, 0.5) + stats.norm.logpdf(grid[1], 0.0, 0.5) - z * len(data) * table
        log_p -= grid[0] * np.sum(data**2) + grid[1] * np.sum(COVARIATE[::order] * data**2)
        p = np.exp(log_p - log_p.max())
        p /= p.sum()
        means = [float(np.sum(p * g)) for g in grid]
        return means, [float(np.sqrt(np.sum(p * (g - m) ** 2))) for g, m in zip(grid, means, strict=True)]

    names = ("intercept", "slope")
    assert scores(found, names, truth()) < 3.9 and found.warnings == ()
    assert scores(found, names, truth(z=0.0)) > 6 and scores(found, names, truth(order=-1)) > 6
    assert found["posterior"]["a"].sizes["chain"] == 4 and found.at(0).couplings["a"].shape == (4,)
    assert "intercept" in str(found) and "log evidence" not in str(found)
    with raises("argument.priors.wide", "'a'", "exchange"):
        p4.infer_couplings(RING, data, regression, normalizer="exact")


# --- Gaussian rings, whose log Z is a determinant, under priors that reach where it is infinite: |w| >= a


def gaussian_fields(number):
    """Independent fields of the Gaussian ring of four at w = 0.8, a = 1."""
    pairs = np.roll(np.eye(4), 1, axis=1)
    covariance = np.linalg.inv(2 * np.eye(4) - 0.8 * (pairs + pairs.T))
    return np.random.default_rng(0).multivariate_normal(np.zeros(4), covariance, number)


def gaussian_truth(data, a, log_prior, z=True):
    """Means and standard deviations of w and a, and the log evidence, by quadrature over w/a and a where Z is finite."""
    x = (np.arange(1500) + 0.5) / 750 - 1
    share, a = np.meshgrid(x, a, indexing="ij")
    w = share * a
    log_p = log_prior(w, a) + w * np.sum(data * np.roll(data, 1, axis=1)) - a * np.sum(data**2)
    levels = 2 * np.log(2 * a) + np.log(2 * a - 2 * w) + np.log(2 * a + 2 * w)
    log_p = log_p + z * len(data) * (levels / 2 - 2 * np.log(2 * np.pi)) + np.log(a)  # the Jacobian of w/a
    p = np.exp(log_p - log_p.max()) / np.exp(log_p - log_p.max()).sum()
    means = [float(np.sum(p * g)) for g in (w, a)]
    sds = [float(np.sqrt(np.sum(p * (g - m) ** 2))) for g, m in zip((w, a), means, strict=True)]
    return means, sds, float(logsumexp(log_p) + np.log(x[1] - x[0]))


GAUSSIAN = p4.gaussian(p4.lattice.chain(4), w=0.8, a=1.0)


@pytest.mark.parametrize(("normalizer", "number"), [("auto", 3), ("auto", 1), ("surface", 3)])
def test_a_normal_prior_over_infinite_z_is_cut_there(normalizer, number):
    """Planted faults: without log Z; and the posterior of a box that ends at three quarters of the way."""
    data, log_prior = gaussian_fields(number), lambda w, a: stats.norm.logpdf(w, 0.3, 0.5)
    found = p4.infer_couplings(GAUSSIAN, data, {"w": dist.Normal(0.3, 0.5)}, normalizer=normalizer, **RUN)
    shift = p4.settings(found)["normalizer_shift"]

    def score(log_prior, z=True):
        means, sds, _ = gaussian_truth(data, np.ones(1), log_prior, z=z)
        return scores(found, "w", (means[:1], sds[:1]), shift)

    assert score(log_prior) < 3.9 and found.warnings == ()
    assert score(log_prior, z=False) > 6
    assert score(lambda w, a: np.where(w < 0.75, log_prior(w, a), -np.inf)) > 3.9
    evidence = gaussian_truth(data, np.ones(1), log_prior)[2]
    (note,) = p4.settings(found)["notes"]
    cut = stats.norm.cdf(-1, 0.3, 0.5) + stats.norm.sf(1, 0.3, 0.5)
    assert abs(float(note.split()[1]) - cut) < 0.006  # 100,000 draws, two digits
    assert np.mean(np.abs(found["posterior"]["w"].values) > 1) < 1e-3
    assert found["sample_stats"]["diverging"].values.mean() < 0.05
    assert abs(found.log_evidence - evidence + np.log(1 - cut)) < 4 * found.log_evidence_error + 0.02


@pytest.mark.parametrize(("number", "center", "width"), [(1, 0.3, 0.5), (3, 1.0, 0.02)])
def test_the_density_is_that_of_quadrature_up_to_infinite_z(number, center, width):
    """On a grid, without draws: moments within 1e-3 standard deviations. Planted fault: no wall at the end of the box."""
    data, log_prior = gaussian_fields(number), lambda w, a: stats.norm.logpdf(w, center, width)
    problem, _ = cut_problem(GAUSSIAN, data, {"w": dist.Normal(center, width)})
    log_z = _placed_log_z(problem, "exact", {"seed": 0, "progress": None})
    grid = np.linspace(-1.5, 1.5, 60_001)
    costs = [f(jnp.asarray(grid)) for f in map(jax.jit, map(jax.vmap, (
        lambda w: log_z.likelihood.cost(w[None]), lambda w: log_z.problem.wall(w[None]))))]  # fmt: skip
    cost, wall = (np.asarray(each, float) for each in costs)
    (mean, _), (sd, _), _ = gaussian_truth(data, np.ones(1), log_prior)
    for walled in (True, False):
        log_p = log_prior(grid, 1.0) - cost - walled * wall
        p = np.exp(log_p - log_p.max()) / np.exp(log_p - log_p.max()).sum()
        beyond = p[np.abs(grid) > 1].sum()
        if walled:
            kept = beyond
            assert beyond < 2e-4 and abs(p @ grid - mean) < 1e-3 * sd
            assert abs(np.sqrt(p @ (grid - p @ grid) ** 2) / sd - 1) < 1e-3
        else:
            assert beyond > 8e-4 and beyond > 10 * kept


def test_normal_priors_of_two_couplings_over_infinite_z():
    """The surface |w| = a is no box. Planted faults: without log Z; another prior of a."""
    data, priors = gaussian_fields(3), {"w": dist.Normal(0.3, 0.5), "a": dist.Normal(1.2, 0.5)}
    found = p4.infer_couplings(GAUSSIAN, data, priors, **RUN)
    axis = np.linspace(2e-3, 4, 1000)

    def truth(center=1.2, z=True):
        log_prior = lambda w, a: stats.norm.logpdf(w, 0.3, 0.5) + stats.norm.logpdf(a, center, 0.5)  # noqa: E731
        return gaussian_truth(data, axis, log_prior, z=z)

    means, sds, evidence = truth()
    assert scores(found, "wa", (means, sds)) < 3.9 and found.warnings == ()
    assert scores(found, "wa", truth(z=False)[:2]) > 6 and scores(found, "wa", truth(center=0.9)[:2]) > 6
    assert p4.settings(found)["normalizer"] == "exact"
    draws = np.random.default_rng(1).normal([0.3, 1.2], 0.5, (400_000, 2))
    kept = np.log(np.mean(np.abs(draws[:, 0]) < draws[:, 1]))
    assert abs(found.log_evidence - evidence - np.log(axis[1] - axis[0]) + kept) < 4 * found.log_evidence_error


def test_log_z_in_a_common_basis_is_that_of_the_model():
    """With a source; and terms without such a basis are refused."""
    lattice = p4.lattice.chain(5)
    model = p4.gaussian(lattice, w=0.3, a=1.0, r=np.arange(5.0))
    problem = CouplingProblem(model, np.ones((4, 5)), {"w": dist.Normal(0.0, 1.0), "a": dist.Normal(1.0, 1.0)})
    log_z = Determinants(problem)
    thetas = np.array([[0.3, 1.0], [-0.2, 0.7], [0.9, 0.8]])
    exact = [float(p4.exact.gaussian_log_partition(problem.at(theta))) for theta in thetas[:2]]
    np.testing.assert_allclose(log_z(thetas)[0], [*exact, np.inf], rtol=1e-4)
    costs = np.array([float(log_z.cost(jnp.asarray(theta))) for theta in thetas[:2]])
    whole = 4 * (thetas[:2] @ problem.statistics.mean(axis=0) + exact)
    np.testing.assert_allclose(np.diff(costs), np.diff(whole), rtol=1e-3)
    uneven = p4.gaussian(lattice, w=0.1, a=np.arange(1.0, 6.0))
    with pytest.raises(Unaffordable):
        Determinants(CouplingProblem(uneven, np.ones((4, 5)), {"w": dist.Normal()}))
