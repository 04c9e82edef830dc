"""Posteriors of couplings against brute-force quadrature, and their calibration by simulation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from raising import raises, warns
from scipy import stats

import phi4ppl as p4
from phi4ppl.analysis.gamma_method import gamma_method
from phi4ppl.inference.exchange import exchange, tuned
from phi4ppl.partition.chebyshev import Interpolant
from phi4ppl.partition.coupling_ensembles import sample_energies
from phi4ppl.results.datatree import metadata
from phi4ppl.sampling import Target, Tuning

pytestmark = pytest.mark.compile_quickly

TRIANGLE = p4.phi4(p4.lattice.complete(3), w=0.6, a=1.2, b=0.3)
RING = p4.phi4(p4.lattice.chain(8), w=0.8, a=1.4, b=0.2)
PRIOR = {"w": dist.Uniform(0.0, 1.2)}


def fields_at(model, values, num_fields, seed=0) -> np.ndarray:
    """Independent fields of many ensembles at once, shape (len(values), num_fields, *field_shape); ``values`` are w."""
    models = model.structure.at(
        jnp.asarray(values if name == "w" else np.full(len(values), value), jnp.float32)
        for name, value in model.couplings.items()
    )
    start = np.random.default_rng(seed).normal(size=(len(values), num_fields, *model.field_shape))
    _, engine = sample_energies(
        models, jax.tree.map(lambda value: 0.0, model), jnp.asarray(start, jnp.float32), num_warmup=200, num_samples=50,
        key=jax.random.key(seed),
    )  # fmt: skip
    return np.asarray(engine.fields, float)


# --- against quadrature


@pytest.fixture(scope="module")
def data():
    return fields_at(TRIANGLE, [0.6], 15)[0]


def truth(data) -> np.ndarray:
    """Mean and variance of w by quadrature over w and, for log Z at each of its nodes, over all three sites."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    ws = 0.6 + 0.6 * nodes
    log_z = [p4.exact.quadrature(TRIANGLE.replace(w=w), half_width=5.0)["log_partition"] for w in ws]
    total = float(np.sum(np.asarray(TRIANGLE.statistics(jnp.asarray(data))["w"])))
    log_p = -ws * total - len(data) * np.array(log_z)
    p = np.exp(log_p - log_p.max()) * weights
    mean = p @ ws / p.sum()
    return np.array([mean, p @ (ws - mean) ** 2 / p.sum()])


def off(tree, truth, shift=0.0) -> np.ndarray:
    """Scores of mean and variance of w; ``shift`` posterior standard deviations are the normalizer's own error."""
    mean, variance = truth
    w = tree["posterior"]["w"].values.astype(float)
    first, second = gamma_method(w), gamma_method((w - mean) ** 2)
    allowed = np.array([shift * np.sqrt(variance), shift * variance])
    errors = np.hypot([first.error, second.error], allowed)
    return (np.array([first.mean, second.mean]) - truth) / errors


def test_exact_posterior_is_that_of_quadrature(data):
    """Two scores beyond 3.9 with probability 1e-4 each; a posterior of other data is found."""
    tree = p4.infer_couplings(TRIANGLE, data, PRIOR, normalizer="exact")
    assert np.abs(off(tree, truth(data))).max() < 3.9
    assert np.abs(off(tree, truth(2.0 * data))).max() > 6
    assert metadata(tree)["settings"]["normalizer"] == "exact" and p4.diagnose(tree).passed


def test_surface_posterior_is_that_of_quadrature(data):
    tree = p4.infer_couplings(TRIANGLE, data, PRIOR, normalizer="surface")
    settings = metadata(tree)["settings"]
    assert settings["normalizer"] == "surface" and 0 < settings["normalizer_shift"] < 0.05
    assert np.abs(off(tree, truth(data), settings["normalizer_shift"])).max() < 3.9


def test_exchange_posterior_is_that_of_quadrature(data):
    """Two scores as above."""
    options = {"normalizer": "exchange", "num_samples": 3000, "num_warmup": 300}
    tree = p4.infer_couplings(TRIANGLE, data, PRIOR, num_auxiliary=20, **options)
    settings = metadata(tree)["settings"]
    assert settings["kernel"] == "exchange" and settings["num_auxiliary"] == 20 and settings["auxiliary_tau"] < 1.5
    assert np.abs(off(tree, truth(data))).max() < 3.9
    assert p4.diagnose(tree).passed


@pytest.mark.slow
def test_short_auxiliary_chains_are_told(data):
    with warns("infer_couplings.doubtful", "chains of 1 iterations"):
        p4.infer_couplings(TRIANGLE, data, PRIOR, normalizer="exchange", num_auxiliary=1, num_samples=100)


@pytest.mark.slow
def test_noisy_surface_is_told(data):
    surface = p4.PartitionSurface(TRIANGLE, {"w": (0.0, 1.2)}, num_samples=100, num_chains=2, min_overlap=0.05)
    with warns("infer_couplings.doubtful", "error of log Z"):
        p4.infer_couplings(TRIANGLE, np.tile(data, (20, 1)), PRIOR, normalizer=surface, num_samples=100)


# --- calibration by simulation

REPEATS, FIELDS, DRAWS = 200, 20, 99
GRID = np.linspace(0.4, 1.1, 141)


def prior_predictive(rng, num_fields) -> tuple[np.ndarray, np.ndarray]:
    """Couplings from the prior, uniform over ``GRID``, and fields at each."""
    w = rng.uniform(GRID[0], GRID[-1], REPEATS)
    return w, fields_at(RING, w, num_fields)


def ranks(log_z: np.ndarray) -> np.ndarray:
    """Ranks of the w that made the data among posterior draws, by ``log_z`` at the nodes of ``GRID``."""
    rng = np.random.default_rng(0)
    w, fields = prior_predictive(rng, FIELDS)
    total = np.asarray(RING.statistics(jnp.asarray(fields))["w"], float).sum(axis=1)
    log_p = -total[:, None] * GRID - FIELDS * log_z
    density = np.exp(log_p - log_p.max(axis=1, keepdims=True))
    cumulative = np.concatenate([np.zeros((REPEATS, 1)), np.cumsum(density[:, 1:] + density[:, :-1], axis=1)], axis=1)
    cumulative /= cumulative[:, -1:]
    draws = np.array([np.interp(rng.random(DRAWS), c, GRID) for c in cumulative])
    return np.sum(draws < w[:, None], axis=1)


def exchange_ranks(model, num_fields: int = 5, thinning: int = 6) -> np.ndarray:
    """The same ranks from the exchange kernel itself with auxiliary fields of ``model``, for all data sets side by side."""
    w, fields = prior_predictive(np.random.default_rng(1), num_fields)
    tuning, low, width = tuned(RING, fields[0], 0), GRID[0], GRID[-1] - GRID[0]

    def chain(data, key):
        total = jnp.sum(RING.statistics(data)["w"])

        def couplings_of(position):
            return {"w": low + width * jax.nn.sigmoid(position["w"])}

        def logdensity(position):  # the uniform prior in the unconstrained coupling, and the likelihood without Z
            z = position["w"]
            return jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z) - total * couplings_of(position)["w"]

        kernel = exchange(model, ["w"], data, couplings_of, num_auxiliary=10, tuning=tuning)
        target = Target(logdensity, lambda new, old: logdensity(old) - logdensity(new))
        algorithm = kernel.build(target, Tuning(jnp.float32(2.0), jnp.ones(1), jnp.float32(1.0)))

        def body(state, k):
            step = lambda j, s: algorithm.step(jax.random.fold_in(jax.random.fold_in(key, k), j), s)[0]  # noqa: E731
            state = jax.lax.fori_loop(0, thinning, step, state)
            return state, couplings_of(state.position)["w"]

        return jax.lax.scan(body, algorithm.init({"w": jnp.float32(0.0)}), jnp.arange(DRAWS + 11))[1][11:]

    keys = jax.random.split(jax.random.key(2), REPEATS)
    draws = np.asarray(jax.jit(jax.vmap(chain))(jnp.asarray(fields, jnp.float32), keys))
    return np.sum(draws < w[:, None], axis=1)


def uniformity(ranks: np.ndarray) -> float:
    """p-value of χ² of ten bins."""
    return stats.chisquare(np.bincount(ranks // 10, minlength=10)).pvalue


def test_posterior_is_calibrated_with_a_surface_and_not_without_log_z():
    """χ² of ten bins of ranks: a calibrated posterior fails with probability 1e-4."""
    surface = p4.PartitionSurface(RING, {"w": (0.4, 1.1)})
    log_z = np.asarray(jax.vmap(lambda w: surface.log_partition({"w": w}))(jnp.asarray(GRID)), float)
    assert uniformity(ranks(log_z)) > 1e-4
    assert uniformity(ranks(np.zeros_like(GRID))) < 1e-20


@pytest.mark.slow
def test_exchange_is_calibrated_and_not_with_auxiliary_fields_of_another_model():
    """As above; auxiliary fields of a model whose other coupling differs are the planted fault."""
    assert uniformity(exchange_ranks(RING)) > 1e-4
    assert uniformity(exchange_ranks(RING.replace(a=0.7))) < 1e-6


# --- interpolation


def test_interpolant_is_exact_for_polynomials_and_knows_its_error():
    low, high = [0.0, -2.0], [1.0, 3.0]
    cubic = Interpolant(lambda x: 1 + x[:, 0] ** 3 * x[:, 1] - x[:, 1] ** 2, low, high)
    point = jnp.array([0.3, 2.5])
    assert float(cubic(point)) == pytest.approx(1 + 0.3**3 * 2.5 - 6.25, rel=1e-6) and cubic.error < 1e-12
    slope = jax.grad(cubic)(point)
    assert slope.tolist() == pytest.approx([3 * 0.3**2 * 2.5, 0.3**3 - 5.0], rel=1e-5)
    corner = Interpolant(lambda x: abs(x[:, 0] - 0.37), [0.0], [1.0])
    assert corner.error > 1e-4


def test_interpolant_continues_along_rays_and_stays_below_a_convex_function():
    """f(c) + t (f(x) − f(c)) at c + t (x − c), x on a face; the same for JAX and for arrays, inside too."""
    low, high, center = np.array([0.0, -2.0]), np.array([1.0, 3.0]), np.array([0.4, 0.5])
    valley = np.array([[40.0, -8.0], [-8.0, 2.0]])  # along its walls, tangents at the faces lead down without end

    def function(x):
        return np.einsum("pi,ij,pj->p", x - center, valley, x - center) + 1

    plain = Interpolant(function, low, high)
    found = plain.shifted(0.0, 1.0, center)
    points = np.array([[1.6, 0.5], [0.4, 5.5], [-0.4, -4.5], [2.2, 8.0], [0.2, 0.3]])
    stretch = np.array([2.0, 2.0, 2.0, 3.0, 1.0])
    face = center + (points - center) / stretch[:, None]
    assert found.values(points) == pytest.approx(1 + stretch * (function(face) - 1), rel=1e-9)
    assert [float(found(jnp.asarray(p, jnp.float32))) for p in points] == pytest.approx(found.values(points), rel=1e-4)
    far = np.random.default_rng(0).uniform(-20, 20, (500, 2))
    assert np.all(found.values(far) <= function(far) + 1e-6) and np.all(found.values(far) >= 1)


# --- arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": np.zeros(3)}, ("argument.data.shape", "num_fields", "3", "(3,)")),
        ({"priors": {}}, ("argument.priors", "NumPyro")),
        (
            {"priors": {"c": dist.Uniform(0, 1)}},
            ("argument.priors.name", "'w'", "'a'", "'b'", "got 'c'"),
        ),
        ({"num_auxiliary": 0}, ("argument.num_auxiliary", "1")),
        ({"priors": {"w": 1.0}}, ("argument.prior", "NumPyro", "prior of 'w'")),
        (
            {"priors": {"w": dist.Delta(0.5)}},
            ("argument.prior.density", "prior of 'w'"),
        ),
        ({"priors": {"w": dist.Poisson(1.0)}}, ("argument.prior.density", "got Poisson", "prior of 'w'")),
        ({"priors": {"w": dist.Uniform(1.0, 0.0)}}, ("argument.prior.order", "(1, 0)", "prior of 'w'")),
        (
            {"priors": {"b": dist.Normal(-9.0, 1.0)}, "normalizer": "exchange"},
            ("argument.prior.positive", "HalfNormal", "prior of 'b'"),
        ),
        ({"normalizer": "guess"}, ("argument.normalizer", "'auto'", "'surface'", "'exact'")),
    ],
)
def test_wrong_arguments(arguments, message):
    arguments = {"data": np.zeros((2, 3)), "priors": PRIOR} | arguments
    with raises(*message):
        p4.infer_couplings(TRIANGLE, **arguments)


def test_model_without_exact_log_z_is_refused():
    torus = p4.phi4(p4.lattice.square(8), w=0.5, a=2.0, b=0.2)
    with raises("argument.model.too_large", "normalizer='surface'"):
        p4.infer_couplings(torus, np.zeros((1, 8, 8)), {"w": dist.Uniform(0.4, 0.6)}, normalizer="exact")


def test_prior_beyond_the_surface_is_refused():
    surface = p4.PartitionSurface(RING, {"w": (0.4, 1.1)}, num_samples=100)
    with raises("overlap.prior", "'w'", "[0, 1.2]", "PartitionSurface"):
        p4.infer_couplings(RING, np.zeros((1, 8)), PRIOR, normalizer=surface)
    with raises("argument.normalizer", "PartitionSurface", "'a'"):
        p4.infer_couplings(RING, np.zeros((1, 8)), {"a": dist.Uniform(1.0, 2.0)}, normalizer=surface)
