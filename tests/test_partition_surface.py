"""log Z as a function of couplings: values, derivatives and posteriors against exact ones; regions, files, refusals."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from raising import raises, warns
from scipy.special import logsumexp

import phi4ppl as p4
from phi4ppl.analysis.gamma_method import gamma_method
from phi4ppl.partition import surface as partition_surface
from phi4ppl.partition.pool import Pool
from phi4ppl.reweighting import log_mixture, solve_mbar

pytestmark = pytest.mark.compile_quickly

MODEL = p4.phi4(p4.lattice.chain(8), w=0.8, a=1.4, b=0.2)
REGION = {"w": (0.4, 1.1), "a": (1.1, 1.8)}
POINTS = [{"w": w, "a": a} for w in (0.4, 0.75, 1.1) for a in (1.1, 1.3, 1.8)]


@functools.cache
def exact(**couplings) -> float:
    return p4.log_partition(MODEL.replace(**couplings), method="exact").value


@pytest.fixture(scope="module")
def surface():
    return p4.PartitionSurface(MODEL, REGION, min_overlap=0.5)


def scores(surface) -> np.ndarray:
    estimates = [(surface.estimate(point), exact(**point)) for point in POINTS]
    return np.array([(estimate.value - truth) / max(estimate.error, 1e-6) for estimate, truth in estimates])


def test_values_lie_within_their_errors(surface):
    """Nine correlated scores, each beyond four with probability 6e-5."""
    assert np.abs(scores(surface)).max() < 4
    assert max(surface.estimate(point).error for point in POINTS) < 0.05


def test_planted_wrong_statistics_are_found(surface):
    wrong = object.__new__(p4.PartitionSurface)
    pool = Pool(surface.ensembles, 1.05 * surface._pool.statistics)
    wrong._set(surface.model, surface._names, surface._low, surface._high, pool, surface.anchor)
    assert np.abs(scores(wrong)).max() > 6


# --- errors: log Z of Gaussian variables, S = θx²/2, from chains whose autocorrelation is known

GAUSSIAN = np.array([[1.0], [2.0], [3.5]])
ENDS = np.array([[0.9], [1.5], [3.0], [4.0]])
DIFFERENCES = np.array([[1, -1, 0, 0], [0, 1, -1, 0], [1, 0, 0, -1], [0.3, 0.2, -0.1, -0.4]])


def chains(rng, shape, rho: float, theta: float) -> np.ndarray:
    """x²/2 along chains of x with autocorrelation rho^t, each from a draw of its ensemble."""
    x = rng.normal(size=shape)
    for t in range(1, shape[1]):
        x[:, t] = rho * x[:, t - 1] + np.sqrt(1 - rho**2) * x[:, t]
    return (x**2 / 2 / theta)[..., None]


def pools(rho: float, number: int):
    """Pools of ensembles of different sizes, and the same draws in another order within every chain."""
    rng = np.random.default_rng(3)
    for _ in range(number):
        sizes = [(4, 300), (4, 300), (2, 1000)]
        found = [chains(rng, size, rho, theta) for size, (theta,) in zip(sizes, GAUSSIAN, strict=True)]
        yield Pool(GAUSSIAN, found), Pool(GAUSSIAN, [rng.permutation(each, axis=1) for each in found])


def test_errors_know_the_autocorrelation_of_the_draws():
    """150 pools of chains with τ_int = 2.3, four sums of log Z each.

    z has unit variance within 0.15 and 95 % intervals cover 92 to 98 % (150 values of each sum: 6 and 1.8 % are one standard
    deviation, of the mean over four correlated sums about half; false alarm below 0.5 %). Errors from the same draws in random
    order, which have no autocorrelation, are the planted fault: too small by 2.1.
    """
    exact = -np.log(ENDS[:, 0]) / 2
    z, without = [], []
    for pool, shuffled in pools(0.8, 150):
        off = DIFFERENCES @ (pool.log_partition(ENDS) - exact)
        z.append(off / pool.errors(ENDS, DIFFERENCES))
        without.append(off / shuffled.errors(ENDS, DIFFERENCES))
    z, without = np.array(z), np.array(without)
    assert 0.85 < np.sqrt(np.mean(z**2)) < 1.15 and 0.92 < np.mean(np.abs(z) < 1.96) < 0.98
    assert np.sqrt(np.mean(without**2)) > 1.6 and np.mean(np.abs(without) < 1.96) < 0.8


def test_chains_too_short_for_their_errors_are_told():
    """Twelve draws are 5 τ_int: errors too small by a factor of 1.75 (measured over 150 pools), and 300 draws are 130."""
    rng = np.random.default_rng(3)
    exact, scores, told = -np.log(ENDS[:, 0]) / 2, [], []
    for _ in range(50):
        pool = Pool(GAUSSIAN, [chains(rng, (4, 12), 0.8, theta) for (theta,) in GAUSSIAN])
        scores.append(DIFFERENCES @ (pool.log_partition(ENDS) - exact) / pool.errors(ENDS, DIFFERENCES))
        told.append(len(pool.complaints))
    assert np.sqrt(np.mean(np.square(scores))) > 1.3 and np.mean(told) > 0.95
    assert all(pool.complaints == shuffled.complaints == () for pool, shuffled in pools(0.8, 20))


def test_surface_of_short_chains_warns(monkeypatch):
    """With a threshold that no chain of 100 draws meets."""
    monkeypatch.setattr("phi4ppl.partition.pool.MIN_TAUS", 10_000)
    with warns("partition_surface.doubtful", "100 draws", "num_samples"):
        p4.PartitionSurface(MODEL, {"w": (0.75, 0.85)}, num_samples=100)


def test_influence_of_a_sample_is_the_derivative_by_its_weight():
    """Exactly: more weight on one draw, less on the others of its ensemble, and the equations of all ensembles solved anew."""
    rng = np.random.default_rng(0)
    pool = Pool(GAUSSIAN, [chains(rng, (2, n), 0.0, theta) for n, (theta,) in zip((30, 30, 80), GAUSSIAN, strict=True)])
    influence = pool._influence(ENDS, DIFFERENCES)
    energies, step = pool.couplings @ pool.flat.T, 1e-4

    def sums(weights):
        solution = solve_mbar(energies, pool.counts, weights=weights)
        mixture = log_mixture(energies, pool.counts, solution.log_partition)
        return DIFFERENCES @ logsumexp(np.log(weights) - ENDS @ pool.flat.T - mixture, axis=1)

    edges = np.append(0, np.cumsum(pool.counts)).astype(int)
    for sample, ensemble in ((3, 0), (70, 1), (200, 2)):
        own = slice(edges[ensemble], edges[ensemble + 1])
        weights = np.ones(len(pool.flat))
        weights[own] -= step / (pool.counts[ensemble] - 1)
        weights[sample] = 1 + step
        others = (influence[own].sum(axis=0) - influence[sample]) / (pool.counts[ensemble] - 1)
        change = (sums(weights) - sums(np.ones(len(pool.flat)))) / step
        assert change == pytest.approx(influence[sample] - others, rel=1e-4, abs=1e-8)


def differences(surface) -> np.ndarray:
    """How far log Z at the points, less its value at the middle, is off, and its error; shape (2, points)."""
    middle = {name: sum(bounds) / 2 for name, bounds in surface.region.items()}
    found = [surface.estimate(point) for point in POINTS]
    truth = np.array([exact(**point) - exact(**middle) for point in POINTS])
    return np.array([[f.value - surface.anchor.value for f in found] - truth, [f.difference_error for f in found]])


def bias(off) -> float:
    """The largest mean over seeds in standard errors."""
    return np.abs(off.mean(axis=0) / off.std(axis=0, ddof=1)).max() * np.sqrt(len(off))


@pytest.mark.slow
def test_errors_are_calibrated_and_values_unbiased(monkeypatch):
    """Differences of log Z at nine points for 200 seeds, on a ring.

    The nine are correlated, so that at least 400 independent ones are left: rms 1 within 4 % and coverage 95 % within 1.1 %,
    one standard deviation each; false alarm of the four bounds below 1e-2, with keys fixed. The mean of each is off by less
    than 3.5 standard errors with a probability of 5e-4. It is not if the draws that placed the ensembles are kept: placing
    ends where large weights happen to be missing.
    """
    seeds = range(20_000, 20_200)
    off, error = np.array(
        [differences(p4.PartitionSurface(MODEL, REGION, seed=seed, num_samples=300)) for seed in seeds]
    ).swapaxes(0, 1)
    z = off / error
    assert 0.85 < np.sqrt(np.mean(z**2)) < 1.15 and 0.92 < np.mean(np.abs(z) < 1.96) < 0.98
    assert bias(off) < 3.5
    monkeypatch.setattr("phi4ppl.partition.surface._simulated", partition_surface._explore)
    kept = [differences(p4.PartitionSurface(MODEL, REGION, seed=seed, num_samples=300))[0] for seed in seeds]
    assert bias(np.array(kept)) > 3.5


def test_overlap_is_what_was_asked_for(surface):
    assert surface.min_overlap >= 0.5
    assert (
        min(surface.estimate(point).overlap for point in POINTS) >= 0.45
    )  # these are not on the grid that was searched


def test_derivatives_are_those_of_log_z(surface):
    def value(couplings):
        return surface.log_partition(couplings)

    middle, step = {"w": 0.75, "a": 1.4}, 1e-3
    slope, curve = jax.grad(value)(middle), jax.hessian(value)(middle)
    for name in middle:
        up, down = (exact(**middle | {name: middle[name] + s}) for s in (step, -step))
        # errors of ⟨T⟩ and of its variance from some 10⁴ draws are below one and three per cent; four of them
        assert float(slope[name]) == pytest.approx((up - down) / (2 * step), rel=0.04)
        assert float(curve[name][name]) == pytest.approx((up - 2 * exact(**middle) + down) / step**2, rel=0.12)


def test_function_and_estimate_are_the_same(surface):
    for point in POINTS:
        assert float(jax.jit(surface)(point)) == pytest.approx(surface.estimate(point).value, abs=1e-5)


def test_large_lattice_keeps_its_digits_in_single_precision(surface):
    # statistics of a million: the middle is taken out before anything is rounded to seven digits
    shifted = object.__new__(p4.PartitionSurface)
    pool = Pool(surface.ensembles, surface._pool.statistics + 1e6)
    shifted._set(surface.model, surface._names, surface._low, surface._high, pool, surface.anchor)
    moved, plain = ({"w": jnp.float32(0.76), "a": jnp.float32(1.45)}, {"w": 0.76, "a": 1.45})
    expected = shifted._pool.log_partition(np.array([np.float32(0.76), np.float32(1.45)], float))[0]
    offset = shifted.log_partition(moved) - shifted.anchor.value
    assert float(offset) == pytest.approx(expected, rel=1e-6)
    assert np.isfinite(shifted.estimate(plain).value)


# --- in a NumPyro model

DATA_FIELDS = 20


@pytest.fixture(scope="module")
def data():
    tree = p4.sample(MODEL, num_warmup=100, num_samples=100, num_chains=2, seed=5, thinning=5)
    return tree["posterior"]["phi"].values.reshape(-1, 8)[:: 200 // DATA_FIELDS]


def test_posterior_of_couplings_is_that_of_quadrature(surface, data):
    """Mean and variance of w against a grid with the exact log Z: two scores at 1e-4, errors of the surface aside."""

    def model(fields):
        w = numpyro.sample("w", dist.Uniform(0.4, 1.1))
        a = numpyro.sample("a", dist.Uniform(1.1, 1.8))
        field = p4.GibbsField(MODEL.replace(w=w, a=a), log_partition=surface)
        with numpyro.plate("draws", len(fields)):
            numpyro.sample("phi", field, obs=fields)

    tree = p4.sample(model, data, num_warmup=300, num_samples=1000, seed=1)
    w = tree["posterior"]["w"].values.astype(float)
    total = {name: float(jnp.sum(t)) for name, t in MODEL.statistics(data).items()}
    nodes, weights = np.polynomial.legendre.leggauss(10)
    ws, values_a = 0.75 + 0.35 * nodes, 1.45 + 0.35 * nodes
    log_p = np.array([
        [-total["w"] * x - total["a"] * y - DATA_FIELDS * exact(w=x, a=y) for y in values_a] for x in ws
    ])  # fmt: skip
    p = np.exp(log_p - log_p.max()) @ weights * weights
    mean = p @ ws / p.sum()
    spread = p @ (ws - mean) ** 2 / p.sum()
    assert tree["sample_stats"]["diverging"].values.mean() < 0.01
    for series, truth in ((w, mean), ((w - mean) ** 2, spread)):
        estimate = gamma_method(series)
        # the surface's own error moves the posterior by a small part of its width
        assert abs(estimate.mean - truth) < 3.9 * estimate.error + 0.03 * np.sqrt(spread) * (
            1 if truth is mean else 0.1
        )


def test_random_coupling_outside_the_surface_is_refused(surface):
    def model():
        b = numpyro.sample("b", dist.Uniform(0.1, 0.3))
        numpyro.sample("phi", p4.GibbsField(MODEL.replace(b=b), log_partition=surface), obs=jnp.zeros(8))

    with raises("doubly_intractable.random_coupling", "'b'", "PartitionSurface", "'w'", "'a'"):
        p4.compile(model)


def test_surface_of_another_lattice_is_refused(surface):
    other = p4.phi4(p4.lattice.chain(9), w=0.8, a=1.4, b=0.2)
    with raises("argument.log_partition.mismatch", "PartitionSurface", "9"):
        p4.GibbsField(other, log_partition=surface)


# --- regions and files


def test_outside_is_refused(surface):
    with raises("overlap.outside_region", "'w'", "1.2", "[0.4, 1.1]"):
        surface({"w": 1.2, "a": 1.4})
    inside, outside = (jax.jit(surface)({"w": w, "a": 1.4}) for w in (1.1, 1.2))
    assert np.isfinite(inside) and np.isnan(outside)


def test_extension_keeps_what_was_simulated(surface):
    larger = surface.extend({"w": (0.2, 0.5)})
    assert larger.region == {"w": (0.2, 1.1), "a": (1.1, 1.8)}
    number = len(surface.ensembles)
    assert np.array_equal(larger.ensembles[:number], surface.ensembles)
    assert np.array_equal(larger._pool.statistics[:number], surface._pool.statistics)
    estimate = larger.estimate({"w": 0.2, "a": 1.5})
    assert abs(estimate.value - exact(w=0.2, a=1.5)) < 4 * estimate.error < 0.2
    assert surface.region["w"] == (0.4, 1.1)


def test_files(surface, tmp_path):
    path = surface.save(tmp_path / "surface.npz")
    loaded = p4.PartitionSurface.load(path, MODEL.replace(w=0.5))
    assert loaded.estimate(POINTS[0]) == surface.estimate(POINTS[0]) and repr(loaded) == repr(surface)
    with raises("argument.model.mismatch"):
        p4.PartitionSurface.load(path, MODEL.replace(b=0.3))
    with raises("argument.path.missing", "PartitionSurface", "got no file"):
        p4.PartitionSurface.load(tmp_path / "none.npz", MODEL)
    (tmp_path / "text").write_text("no surface")
    with raises("argument.path.unreadable", "PartitionSurface"):
        p4.PartitionSurface.load(tmp_path / "text", MODEL)


# --- arguments


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ({}, ("argument.region", "3")),
        ({"c": (0, 1)}, ("argument.region.name", "'w'", "'a'", "'b'", "got 'c'")),
        ({"w": (1.0, 0.5)}, ("argument.region.order", "region of 'w'")),
        ({"w": (0.5, np.inf)}, ("argument.region.finite", "region of 'w'")),
    ],
)
def test_wrong_regions(region, message):
    with raises(*message):
        p4.PartitionSurface(MODEL, region)


def test_infinite_z_in_the_region_is_refused():
    with raises("hammersley_clifford.not_normalizable"):
        p4.PartitionSurface(MODEL, {"b": (-0.1, 0.2)})


def test_region_too_wide_for_the_ensembles_is_refused():
    with raises("overlap.too_many_ensembles", "1"):
        p4.PartitionSurface(MODEL, {"a": (0.5, 4.0)}, max_ensembles=1, num_samples=100)


@pytest.mark.parametrize(
    ("couplings", "message"),
    [
        ({"w": 0.5}, ("argument.couplings", "'a'", "got 'w'")),
        ({"w": 0.5, "a": 1.2, "b": 0.3}, ("argument.coupling.fixed", "coupling 'b'")),
        ({"w": 0.5, "a": 1.2, "c": 0.3}, ("argument.couplings.name",)),
        ({"w": np.ones(2), "a": 1.2}, ("argument.coupling.shape", "coupling 'w'")),
    ],
)
def test_wrong_couplings(surface, couplings, message):
    with raises(*message):
        surface.log_partition(couplings)


def test_wrong_settings():
    with raises("argument.min_overlap", "0.05", "0.9"):
        p4.PartitionSurface(MODEL, REGION, min_overlap=1.0)
