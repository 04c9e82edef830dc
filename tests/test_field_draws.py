"""Independent draws of a `GibbsField`, as `numpyro.infer.Predictive` makes them, against quadrature and closed forms.

Draws are independent, so means are compared by plain z-scores. False alarms: ``ALARM`` = 1e-5 for each comparison; keys are
fixed. Each has a planted fault that it must reject.
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import Predictive
from raising import raises
from scipy import stats
from test_numpyro_plugin import covariance_p_value

import phi4ppl as p4
from phi4ppl.numpyro_plugin import draw_check, field_draws

pytestmark = [pytest.mark.rank_promotion, pytest.mark.compile_quickly]

ALARM = 1e-5
MAX_Z = stats.norm.isf(ALARM / 2)
RING = p4.lattice.chain(4)
PATH = p4.lattice.chain(3, periodic=False)
OBSERVABLES = {
    "mean": lambda phi: phi.mean(),
    "square": lambda phi: (phi**2).mean(),
    "fourth": lambda phi: (phi**4).mean(),
    "neighbors": lambda phi: (phi[1:] * phi[:-1]).mean(),
}


def z_scores(draws, model, **grid):
    exact = p4.exact.quadrature(model, OBSERVABLES, **grid)
    values = {name: np.asarray(jax.vmap(f)(draws), float) for name, f in OBSERVABLES.items()}
    return {n: (v.mean() - exact[n]) / (v.std() / np.sqrt(len(v))) for n, v in values.items()}


def largest(scores) -> float:
    return max(map(abs, scores.values()))


def test_chains_have_the_moments_of_phi4_on_a_ring(monkeypatch):
    """τ is about two sweeps, so 40 leave a bias of exp(−20). Planted fault: neighbors that move at the same time."""
    model = p4.phi4(RING, w=0.8, a=0.9, b=0.2)
    grid = {"half_width": 4.5, "points": 32}
    draw = p4.GibbsField(model, num_sweeps=40).sample
    assert largest(z_scores(draw(jax.random.key(0), (6000,)), model, **grid)) < MAX_Z
    monkeypatch.setattr(field_draws, "colors", lambda lattice, forms: np.zeros(lattice.num_sites, int))
    assert largest(z_scores(draw(jax.random.key(0), (6000,)), model, **grid)) > MAX_Z


def test_other_terms_are_kept_by_metropolis_and_sources_choose_the_sign():
    """φ⁶, an own term of two sites and a source. Planted faults: no Metropolis, and a sign that is never proposed."""

    def own(x, y):
        return jnp.cos(2 * x) * y**2

    terms = [
        *p4.phi4(PATH, w=0.9, a=-0.2, b=0.2, r=0.15, c=0.02).terms,
        p4.Term("own", PATH.edges, own, [0.3, 0.2]),
    ]
    model = p4.MarkovRandomField(PATH, terms)
    grid = {"half_width": 4.5, "points": 80}
    draws = p4.GibbsField(model, num_sweeps=60).sample(jax.random.key(1), (6000,))
    scores = z_scores(draws, model, **grid)
    assert largest(scores) < MAX_Z
    plain = model.select(lambda form: form.name not in ("own", "c"))
    assert (
        largest(z_scores(p4.GibbsField(plain, num_sweeps=60).sample(jax.random.key(1), (6000,)), model, **grid)) > MAX_Z
    )
    assert abs(z_scores(jnp.abs(draws), model, **grid)["mean"]) > MAX_Z


def test_sites_that_do_not_interact_are_drawn_exactly():
    """No sweep is made. Planted fault: without the sources."""
    model = p4.MarkovRandomField(RING, p4.phi4(RING, w=0.0, a=-1.0, b=0.5, r=0.3).terms[1:])
    assert "w" not in model.couplings
    grid = {"half_width": 4.0, "points": 32}
    draws = p4.GibbsField(model, num_sweeps=1).sample(jax.random.key(2), (20, 300)).reshape(-1, 4)
    assert largest(z_scores(draws, model, **grid)) < MAX_Z
    assert largest(z_scores(draws, model.replace(r=0.0), **grid)) > MAX_Z


@pytest.mark.parametrize("way", ["_by_fourier", "_by_sparse_factor"])
def test_large_gaussian_fields_have_the_covariance_of_small_ones(way, monkeypatch):
    """By Fourier modes and by a sparse factor, as beyond 4096 sites. Planted faults: 4 % too wide, no mean."""
    monkeypatch.setattr(field_draws, "DENSE_LIMIT", 0)
    lattice = p4.lattice.square(3, 4)
    uneven = np.linspace(0.9, 1.5, 12) if way == "_by_sparse_factor" else 1.2
    model = p4.gaussian(lattice, w=0.5, a=uneven, r=0.4)
    called = []
    exact = getattr(field_draws, way)
    monkeypatch.setattr(field_draws, way, lambda *given: called.append(way) or exact(*given))
    draws = np.asarray(p4.GibbsField(model).sample(jax.random.key(3), (8000,)), float).reshape(-1, 12)
    covariance = np.linalg.inv(np.asarray(p4.exact.gaussian_precision(model), float))
    mean = np.asarray(p4.exact.gaussian_mean(model), float)
    assert called and covariance_p_value(draws - mean, covariance) > ALARM
    assert covariance_p_value(1.04 * (draws - mean), covariance) < ALARM
    away = (draws.mean(axis=0) - mean) / np.sqrt(np.diag(covariance) / len(draws))
    assert np.abs(away).max() < MAX_Z < np.abs(away + mean / np.sqrt(np.diag(covariance) / len(draws))).max()


def test_predictive_draws_priors_of_fields_with_random_couplings():
    """A one-site marginal: p(φ) = ∫p(w)p(φ|w)dw, its ⟨φ²⟩ by quadrature over w. Planted fault: w at its mean.

    False alarm 1e-5; the posterior predictive data are the field plus noise.
    """
    pair = p4.phi4(p4.lattice.chain(2, periodic=False), w=0.0, a=0.9, b=0.2)

    def model(y=None):
        w = numpyro.sample("w", dist.Uniform(0.0, 2.5))
        field = p4.GibbsField(pair.replace(w=w), log_partition=lambda couplings: 0.0, num_sweeps=40)
        phi = numpyro.sample("phi", field)
        numpyro.sample("y", dist.Normal(phi, 0.1).to_event(1), obs=y)

    prior = Predictive(model, num_samples=4000)(jax.random.key(4))
    square = lambda w: p4.exact.quadrature(  # noqa: E731
        pair.replace(w=w), {"f": lambda phi: (phi**2).mean()}, half_width=6
    )["f"]
    nodes, weights = np.polynomial.legendre.leggauss(8)
    exact = sum(k / 2 * square(1.25 * (1 + x)) for x, k in zip(nodes, weights, strict=True))
    found = np.asarray(prior["phi"] ** 2, float).mean(axis=1)
    error = found.std() / np.sqrt(len(found))
    assert abs(found.mean() - exact) < MAX_Z * error < abs(found.mean() - square(1.25))
    noise = np.asarray(prior["y"] - prior["phi"]).ravel()
    assert stats.kstest(noise / 0.1, "norm").pvalue > ALARM > stats.kstest(noise / 0.11, "norm").pvalue
    np.testing.assert_array_equal(prior["phi"], Predictive(model, num_samples=4000)(jax.random.key(4))["phi"])
    assert not np.array_equal(prior["phi"], Predictive(model, num_samples=4000)(jax.random.key(5))["phi"])


# --- chains that are too short

CRITICAL = p4.phi4(p4.lattice.square(8), w=1.0, a=1.52425, b=0.175)  # of the infinite lattice; τ is some 20 sweeps here
GLASS = p4.phi4(p4.lattice.square(4, diagonals=True), w=-4.0, a=-4.0, b=1.0)
ORDINARY = {
    "disordered": CRITICAL.replace(a=2.5),
    "ordered": CRITICAL.replace(a=0.5),
    "weakly frustrated": GLASS.replace(w=-0.1, a=1.0),
    "small": p4.phi4(RING, w=0.8, a=0.9, b=0.2),
}


def codes(told):
    return [warning.message.code for warning in told if isinstance(warning.message, p4.errors.Phi4pplWarning)]


@pytest.mark.parametrize("chains", [1, 16])
def test_memory_tells_long_chains_from_short_ones(chains):
    """AR(1) series of 100 records: chains of 100 and 40 τ are long enough, and those of 5 τ are not, of which 16 tell surely.

    False alarms: fewer than 1e-3 of the calls at 100 τ, and 2 % at 40 τ.
    """
    rng = np.random.default_rng(0)
    bound = np.exp(-1) + draw_check.SLACK / np.sqrt(chains)

    def alarms(taus, calls=4000 if chains == 1 else 1000):
        decay = np.exp(-taus / 100)
        series = np.empty((100, calls, chains, 1))
        series[0] = rng.normal(size=(calls, chains, 1))
        for k in range(1, 100):
            series[k] = decay * series[k - 1] + np.sqrt(1 - decay**2) * rng.normal(size=(calls, chains, 1))
        found = jax.vmap(lambda x: draw_check._memory(x, 5), in_axes=1)(jnp.asarray(series, jnp.float32))
        return float(np.mean(np.asarray(found) > bound))

    assert alarms(100) < 1e-3 and alarms(40) < 0.02
    assert alarms(5) > (0.99 if chains == 16 else 0.1)


@pytest.mark.parametrize("way", ["at once", "one by one"])
def test_chains_that_are_too_short_are_told(way):
    """Of critical and frustrated fields, by `sample` itself and inside a compiled program, at the line of the user."""

    def draw(model, num_sweeps=60):
        field = p4.GibbsField(model, log_partition=lambda couplings: 0.0, num_sweeps=num_sweeps)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            if way == "at once":
                field.sample(jax.random.key(0), (32,))
            else:
                Predictive(lambda: numpyro.sample("phi", field), num_samples=100)(jax.random.key(0))
            jax.effects_barrier()
        assert {warning.filename for warning in told} <= {__file__}
        return codes(told)

    assert draw(CRITICAL) == ["gibbs_field.short_chains"]
    assert draw(GLASS, num_sweeps=5) == ["gibbs_field.frustrated"]
    assert {name: draw(model) for name, model in ORDINARY.items()} == dict.fromkeys(ORDINARY, [])


def test_frustration_of_random_couplings_is_told_when_the_program_runs():
    def model(scale):
        w = numpyro.sample("w", dist.Uniform(scale, 1.1 * scale))
        numpyro.sample("phi", p4.GibbsField(GLASS.replace(w=-w), log_partition=lambda couplings: 0.0, num_sweeps=5))

    predict = Predictive(model, num_samples=3)
    with pytest.warns(p4.errors.Phi4pplWarning, match="frustrated") as told:
        predict(jax.random.key(0), 4.0)
        jax.effects_barrier()
    assert codes(told) == ["gibbs_field.frustrated"]
    predict(jax.random.key(0), 0.05)  # a warning would be an error
    jax.effects_barrier()


def test_what_cannot_be_drawn_says_so():
    first_order = p4.phi4(RING, w=0.1, a=1.0, b=-0.5, c=0.1)
    with raises("draw_not_available.no_proposal", "posterior_samples", "quartic"):
        p4.GibbsField(first_order).sample(jax.random.key(0))
    with raises("argument.num_sweeps*"):
        p4.GibbsField(first_order, num_sweeps=0)
