"""The curvature of NumPyro models with fields, and NUTS with a mass matrix from it, against closed forms."""

from __future__ import annotations

import blackjax
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from scipy import sparse, stats
from scipy.sparse.linalg import ArpackNoConvergence

import phi4ppl as p4
from phi4ppl.analysis.gamma_method import gamma_method
from phi4ppl.errors import ArgumentError, SamplingError
from phi4ppl.kernels import latent_factors, latent_nuts, resolve
from phi4ppl.kernels.adaptation import Tuning
from phi4ppl.kernels.latent_coordinates import LatentCoordinates
from phi4ppl.kernels.target import Target
from phi4ppl.numpyro_plugin.curvature import curvature_of

GRAPH = p4.lattice.from_networkx(nx.random_geometric_graph(40, 0.25, seed=3))
FIELD = p4.gaussian(GRAPH, w=1.0, a=np.bincount(GRAPH.edges.ravel(), minlength=40) / 2 + 0.1)
SMALL = p4.gaussian(p4.lattice.chain(8), w=1.0, a=1.2)


def precision_of_field() -> np.ndarray:
    """Of FIELD, from its edges alone: S = Σ (φ_i − φ_j)²/2 + 0.1 Σ φ²."""
    matrix = 0.2 * np.eye(40)
    for i, j in GRAPH.edges:
        matrix[[i, j], [i, j]] += 1
        matrix[[i, j], [j, i]] -= 1
    return matrix


def counts(y, x):
    """Field, effects of the same size, intercept, slope and two scales under Poisson counts."""
    level = numpyro.sample("level", dist.Normal(0, 2))
    slope = numpyro.sample("slope", dist.Normal(0, 1))
    scale = numpyro.sample("scale", dist.HalfNormal(1))
    spread = numpyro.sample("spread", dist.HalfNormal(1))
    phi = numpyro.sample("phi", p4.GibbsField(FIELD))
    with numpyro.plate("site", 40):
        effect = numpyro.sample("effect", dist.Normal(0, 1))
    numpyro.sample("y", dist.Poisson(jnp.exp(level + slope * x + scale * phi + spread * effect)), obs=y)


def normal_data(y):
    level = numpyro.sample("level", dist.Normal(0, 3))
    scale = numpyro.sample("scale", dist.HalfNormal(1))
    phi = numpyro.sample("phi", p4.GibbsField(FIELD))
    numpyro.sample("y", dist.Normal(level + scale * phi, 0.5), obs=y)


def some_counts():
    random = np.random.default_rng(1)
    return random.poisson(2.0, 40), random.normal(size=40)


def some_data():
    draw = np.linalg.cholesky(np.linalg.inv(precision_of_field())) @ np.random.default_rng(2).normal(size=40)
    return 1 + 0.8 * draw + 0.5 * np.random.default_rng(4).normal(size=40)


def dense(curvature, theta, x):
    def potential(y):
        return curvature.compiled.potential_fn(curvature.position(jnp.asarray(theta, y.dtype), y))

    return np.asarray(jax.hessian(potential)(jnp.asarray(x, jnp.result_type(float))))


def test_the_sparse_hessian_is_that_of_jax():
    """To rounding, from fewer than 30 products instead of 82 columns."""
    curvature = curvature_of(p4.compile(counts, *some_counts()))
    assert set(curvature.hyper) == {"scale", "spread"} and curvature.num_latent == 82
    x, theta = np.random.default_rng(5).normal(size=82) / 3, np.array([0.3, -0.2])
    found = curvature.hessian(theta, x)
    np.testing.assert_allclose(found.toarray(), dense(curvature, theta, x), atol=1e-4)
    assert len(curvature._probes.seeds) < 30


def smeared(y):
    """Every datum sees three sites, which the cliques of the field do not tell."""
    phi = numpyro.sample("phi", p4.GibbsField(FIELD))
    numpyro.sample("y", dist.Normal(phi + jnp.roll(phi, 7) + jnp.roll(phi, 15), 1.0), obs=y)


def test_interactions_beyond_the_cliques_are_noticed(monkeypatch):
    """Products with random vectors see them: all columns are taken then, or the model is refused if they are too many."""
    curvature = curvature_of(p4.compile(smeared, some_data()))
    found = curvature.hessian(np.zeros(0), np.zeros(40)).toarray()
    np.testing.assert_allclose(found, dense(curvature, np.zeros(0), np.zeros(40)), atol=1e-4)
    assert len(curvature._probes.seeds) == 40
    monkeypatch.setattr("phi4ppl.numpyro_plugin.sparse_hessian.MAX_DENSE", 20)
    with pytest.raises(SamplingError, match="interact beyond the cliques"):
        curvature_of(p4.compile(smeared, some_data())).hessian(np.zeros(0), np.zeros(40))


def test_the_laplace_marginal_is_exact_for_normal_data():
    """log p(scale, y) in closed form: y is normal with covariance 9 11ᵀ + scale² G + 1/4. Planted: without log det H."""
    y = some_data()
    curvature = curvature_of(p4.compile(normal_data, y))
    green = np.linalg.inv(precision_of_field())

    def exact(t):  # of t = log scale, whose Jacobian is the scale
        scale = np.exp(t)
        covariance = 9 * np.ones((40, 40)) + scale**2 * green + np.eye(40) / 4
        return stats.multivariate_normal(np.zeros(40), covariance).logpdf(y) - scale**2 / 2 + t

    at = np.array([-1.5, -0.5, 0.0, 0.7])
    modes = [curvature.mode(np.array([t])) for t in at]
    found = np.array([mode.log_marginal for mode in modes])
    expected = np.array([exact(t) for t in at])
    np.testing.assert_allclose(np.diff(found), np.diff(expected), atol=2e-3)
    log_dets = np.array([np.linalg.slogdet(mode.hessian.toarray())[1] for mode in modes])
    assert np.abs(np.diff(found + log_dets / 2) - np.diff(expected)).max() > 0.5
    theta, covariance, _ = curvature.peak
    grid = np.linspace(-3, 2, 2001)
    best = grid[np.argmax([exact(t) for t in grid])]
    assert abs(theta[0] - best) < 0.2 * np.sqrt(covariance[0, 0])


def test_soft_directions_are_found():
    """By inverse iteration on a large matrix as by a decomposition; what is left is conditioned a hundred times better."""
    n = 300
    chain = sparse.diags([np.full(n - 1, -1.0), np.full(n, 2.001), np.full(n - 1, -1.0)], [-1, 0, 1], format="csc")
    vectors = latent_factors.soft_directions(chain)
    scaled = chain.toarray() / 2.001
    values = np.linalg.eigvalsh(scaled)
    found = np.sum(vectors * (scaled @ vectors), axis=0)
    np.testing.assert_allclose(np.sort(found), values[values < 0.5][: latent_factors.NUM_DIRECTIONS], rtol=1e-6)
    white = np.eye(n) + (vectors * (found**-0.5 - 1)) @ vectors.T
    rest = np.linalg.eigvalsh(white @ scaled @ white)
    assert rest.max() / rest.min() < values.max() / values.min() / 100


def test_models_that_it_does_not_suit_are_refused():
    def many(y):
        scales = numpyro.sample("scales", dist.HalfNormal(1).expand([9]).to_event(1))
        phi = numpyro.sample("phi", p4.GibbsField(FIELD))
        numpyro.sample("y", dist.Normal(phi * scales.sum(), 0.5), obs=y)

    with pytest.raises(SamplingError, match="9 constrained latent variables"):
        resolve("nuts_curvature", p4.compile(many, some_data()))
    wells = p4.GibbsField(p4.phi4(GRAPH, w=1.0, a=0.1, b=0.3))
    two_modes = lambda: numpyro.sample("phi", wells)  # noqa: E731
    with pytest.raises(SamplingError, match="several modes.*kernel='nuts'"):
        resolve("nuts_curvature", p4.compile(two_modes))
    constrained = lambda: numpyro.sample("scale", dist.HalfNormal(1))  # noqa: E731
    with pytest.raises(SamplingError, match="all latent variables are constrained"):
        resolve("nuts_curvature", p4.compile(constrained))
    with pytest.raises(ArgumentError, match="is for NumPyro models"):
        resolve("nuts_curvature", p4.compile(FIELD))


def test_a_singular_curvature_is_refused_in_words(monkeypatch):
    """Not with an error of NumPy or SciPy: by name with a SamplingError, and `auto` takes NUTS."""
    compiled = p4.compile(normal_data, some_data())
    for error in (np.linalg.LinAlgError("Singular matrix"), ArpackNoConvergence("none", [], [])):

        def fails(*args, error=error):
            raise error

        monkeypatch.setattr("phi4ppl.kernels.latent_coordinates.factor_of", fails)
        with pytest.raises(SamplingError, match="too close to singular.*kernel='nuts'"):
            resolve("nuts_curvature", compiled)
        kernel, reason = resolve("auto", compiled)
        assert kernel.name == "nuts" and "too close to singular" in reason


def test_chains_start_where_the_density_is_finite_and_not_far_below_the_mode():
    """Where log p falls like −e^t from −300 on the other side: no start has a log density of −∞ or of less than −400.

    Planted: draws of the normal law of the coordinates have.
    """

    def model(y):
        numpyro.sample("shape", dist.Gamma(0.01, 0.01))
        numpyro.sample("y", dist.Normal(numpyro.sample("phi", p4.GibbsField(FIELD)), 0.5), obs=y)

    compiled = p4.compile(model, some_data())
    kernel, _ = resolve("nuts_curvature", compiled)
    starts = jax.jit(jax.vmap(kernel.start))(jax.random.split(jax.random.key(0), 2000))
    densities = jax.vmap(compiled.logdensity_fn)(starts)
    assert densities.min() > -400
    coordinates = LatentCoordinates.of(curvature_of(compiled))
    plain = jax.vmap(coordinates.color)(jax.random.normal(jax.random.key(0), (2000, 41)))
    unravel = ravel_pytree(jax.tree.map(lambda x: x[0], starts))[1]
    assert not jax.vmap(lambda x: compiled.logdensity_fn(unravel(x)))(plain).min() > -400


def test_auto_takes_it_where_it_is_sure_and_says_why_not_otherwise():
    """Fields under data; not: several modes, few variables."""
    kernel, reason = resolve("auto", p4.compile(normal_data, some_data()))
    assert kernel.name == "nuts_curvature" and "whitened" in reason
    wells = p4.GibbsField(p4.phi4(GRAPH, w=1.0, a=0.1, b=0.3))

    def few(y):
        numpyro.sample("y", dist.Normal(numpyro.sample("phi", p4.GibbsField(SMALL)), 0.5), obs=y)

    refused = {
        "several modes": (lambda: numpyro.sample("phi", wells),),
        "8 variables": (few, np.zeros(8)),
    }
    for why, (model, *args) in refused.items():
        kernel, reason = resolve("auto", p4.compile(model, *args))
        assert kernel.name == "nuts" and why in reason, reason
        assert "kernel=" not in reason


def test_draws_under_normal_data_are_those_of_the_closed_form():
    """Means and variances of intercept and field given the scale, which is fixed: z within 4.5 of 82 (false alarms 6e-4).

    Planted: the same with a precision of the field that is 10 % too large must fail.
    """
    y = some_data()

    def model(y):
        level = numpyro.sample("level", dist.Normal(0, 3))
        phi = numpyro.sample("phi", p4.GibbsField(FIELD))
        numpyro.sample("y", dist.Normal(level + phi, 0.5), obs=y)

    tree = p4.sample(model, y, kernel="nuts_curvature", num_warmup=300, num_samples=2000, seed=3, progress=False)
    draws = np.concatenate(
        [tree["posterior"]["level"].values[..., None], tree["posterior"]["phi"].values.reshape(4, 2000, 40)], axis=-1
    )

    def worst(of_field):
        joint = np.zeros((41, 41))
        joint[0, 0], joint[1:, 1:] = 1 / 9, of_field
        design = np.hstack([np.ones((40, 1)), np.eye(40)])
        joint += design.T @ design / 0.25
        covariance = np.linalg.inv(joint)
        mean = covariance @ design.T @ y / 0.25
        z = []
        for series, exact in ((draws, mean), ((draws - mean) ** 2, np.diag(covariance))):
            found = gamma_method(series)
            z.append((found.mean - exact) / found.error)
        return np.abs(z).max()

    assert worst(precision_of_field()) < 4.5
    assert worst(1.1 * precision_of_field()) > 4.5


def test_steps_of_resonant_trees_are_avoided():
    """Trees of 7 or 15 rotations that do not see their U-turn: of draws of N(0, 1) of 50 dimensions, none takes more than 15.

    Planted: the step in the middle of the gap, which takes more than 30.
    """

    def most(step_size):
        target = Target(lambda x: -x @ x / 2, None)
        kernel = blackjax.nuts.build_kernel(latent_nuts.rotation)

        def step(state, key):
            state, info = kernel(key, state, target.logdensity_fn, step_size, jnp.ones(50))
            return state, info.num_integration_steps

        start = blackjax.hmc.init(jax.random.normal(jax.random.key(0), (50,)), target.logdensity_fn)
        return int(jnp.max(jax.jit(lambda s: jax.lax.scan(step, s, jax.random.split(jax.random.key(1), 50))[1])(start)))

    for tried in (0.415, 0.43, 0.45, 0.5):
        assert most(latent_nuts._off_resonance(jnp.asarray(tried))) <= 15
    assert most(jnp.asarray(0.435)) > 30


class _Same:
    """Coordinates that are the position itself."""

    color = whiten = staticmethod(lambda x: x)
    log_det = staticmethod(lambda x: 0.0)


def test_adapted_variances_leave_the_posterior_as_it_is():
    """One step of 20,000 chains from N(0, 1), with variances far from 1: means and squares within 4.5 errors (6 tests: 4e-5).

    Planted: gradients that are not those of the white coordinates must fail.
    """
    variances = jnp.array([4.0, 0.25, 1.0])
    algorithm = latent_nuts._Algorithm(
        Target(lambda x: -x @ x / 2, None), _Same, lambda x: x, Tuning(jnp.asarray(0.5), variances, jnp.ones(()))
    )

    def worst(factor):
        def step(key, x):
            state = algorithm.init(x)
            white = state.white._replace(logdensity_grad=state.white.logdensity_grad * factor)
            return algorithm.step(key, state._replace(white=white))[0].position

        keys = jax.random.split(jax.random.key(1), 20_000)
        x = np.asarray(jax.jit(jax.vmap(step))(keys, jax.random.normal(jax.random.key(0), (20_000, 3))), float)
        means, squares = x.mean(axis=0) * 20_000**0.5, (np.square(x).mean(axis=0) - 1) * 10_000**0.5
        return np.abs([means, squares]).max()

    assert worst(jnp.ones(3)) < 4.5
    assert worst(1 / variances) > 4.5
