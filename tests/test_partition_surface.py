"""log Z as a function of couplings: values, derivatives and posteriors against exact ones; regions, files, refusals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import phi4ppl as p4
from phi4ppl.autocorrelation import gamma_method
from phi4ppl.partition.pool import Pool

pytestmark = pytest.mark.compile_quickly

MODEL = p4.phi4(p4.lattice.chain(8), w=0.8, a=1.4, b=0.2)
REGION = {"w": (0.4, 1.1), "a": (1.1, 1.8)}
POINTS = [{"w": w, "a": a} for w in (0.4, 0.75, 1.1) for a in (1.1, 1.3, 1.8)]


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


@pytest.mark.slow
def test_errors_are_calibrated():
    """Scores at a corner for 60 seeds have the variance of standard normal ones (10 % of it are jackknife noise)."""
    corner, truth = {"w": 1.1, "a": 1.1}, exact(w=1.1, a=1.1)
    options = {"num_samples": 500, "min_overlap": 0.3}
    estimates = [p4.PartitionSurface(MODEL, REGION, seed=seed, **options).estimate(corner) for seed in range(60)]
    values = np.array([(estimate.value - truth) / estimate.error for estimate in estimates])
    assert abs(values.mean()) < 4 / np.sqrt(60) and 0.6 < values.std() < 1.5


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

    with pytest.raises(
        p4.DoublyIntractableError, match="coupling 'b' is random, but the PartitionSurface covers 'w', 'a'"
    ):
        p4.compile(model)


def test_surface_of_another_lattice_is_refused(surface):
    other = p4.phi4(p4.lattice.chain(9), w=0.8, a=1.4, b=0.2)
    with pytest.raises(p4.ArgumentError, match="log_partition: expected a PartitionSurface of .*chain of 9"):
        p4.GibbsField(other, log_partition=surface)


# --- regions and files


def test_outside_is_refused(surface):
    with pytest.raises(p4.OverlapError, match=r"coupling 'w' = 1.2 is outside the region \[0.4, 1.1\]"):
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
    with pytest.raises(p4.ArgumentError, match="model: expected the model of the surface in"):
        p4.PartitionSurface.load(path, MODEL.replace(b=0.3))
    with pytest.raises(p4.ArgumentError, match="path: expected a file written by PartitionSurface.save, got no file"):
        p4.PartitionSurface.load(tmp_path / "none.npz", MODEL)
    (tmp_path / "text").write_text("no surface")
    with pytest.raises(p4.ArgumentError, match="path: expected a file written by PartitionSurface.save"):
        p4.PartitionSurface.load(tmp_path / "text", MODEL)


# --- arguments


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ({}, "region: expected a dict .* of one to 3 couplings"),
        ({"c": (0, 1)}, "region: expected homogeneous couplings of the model: 'w', 'a', 'b', got 'c'"),
        ({"w": (1.0, 0.5)}, "region of 'w': expected .low, high. with low < high"),
        ({"w": (0.5, np.inf)}, "region of 'w': expected finite numbers"),
    ],
)
def test_wrong_regions(region, message):
    with pytest.raises(p4.ArgumentError, match=message):
        p4.PartitionSurface(MODEL, region)


def test_infinite_z_in_the_region_is_refused():
    with pytest.raises(p4.HammersleyCliffordError, match="normalizable +NO"):
        p4.PartitionSurface(MODEL, {"b": (-0.1, 0.2)})


def test_region_too_wide_for_the_ensembles_is_refused():
    with pytest.raises(p4.OverlapError, match="1 ensembles leave an overlap of .* Take a smaller region"):
        p4.PartitionSurface(MODEL, {"a": (0.5, 4.0)}, max_ensembles=1, num_samples=100)


@pytest.mark.parametrize(
    ("couplings", "message"),
    [
        ({"w": 0.5}, "couplings: expected a dict with 'w', 'a', got 'w'"),
        ({"w": 0.5, "a": 1.2, "b": 0.3}, "coupling 'b': expected the value of the surface's model"),
        ({"w": 0.5, "a": 1.2, "c": 0.3}, "couplings: expected names of"),
        ({"w": np.ones(2), "a": 1.2}, "coupling 'w': expected one number"),
    ],
)
def test_wrong_couplings(surface, couplings, message):
    with pytest.raises(p4.ArgumentError, match=message):
        surface.log_partition(couplings)


def test_wrong_settings():
    with pytest.raises(p4.ArgumentError, match="min_overlap: expected a number from 0.05 to 0.9"):
        p4.PartitionSurface(MODEL, REGION, min_overlap=1.0)
