"""White coordinates of latent fields: factors, axes and the whole map against dense matrices, Jacobians and closed forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from scipy import sparse
from test_latent_nuts import FIELD, counts

import phi4ppl as p4
from phi4ppl.kernels import latent_factors
from phi4ppl.kernels.latent_coordinates import LatentCoordinates
from phi4ppl.kernels.latent_factors import BlockFactor, LowRankFactor, factor_of, powers
from phi4ppl.kernels.latent_nuts import rotation
from phi4ppl.numpyro_plugin.axes import NODES, Axes
from phi4ppl.numpyro_plugin.curvature import curvature_of


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def precision(z: float) -> sparse.csc_matrix:
    """Of a planar graph of 90 vertices, with data on each whose weight grows with z."""
    graph = nx.random_geometric_graph(90, 0.18, seed=1)
    data = np.random.default_rng(0).uniform(0.2, 2.0, 90)
    laplacian = nx.laplacian_matrix(graph).astype(float)
    return (laplacian + sparse.diags(0.1 + np.exp(2 * z) * data)).tocsc()


def dense_of(factor, z) -> np.ndarray:
    return np.asarray(jax.jacfwd(lambda y: factor.color(y, powers(jnp.asarray(z))))(jnp.zeros(90)))


@pytest.mark.parametrize("kind", ["blocks", "low rank"])
def test_factors_are_those_of_the_inverse(kind, monkeypatch):
    """C Cᵀ = H⁻¹ in the order of the factor, in six blocks or with all directions kept; away from 0 what is interpolated."""
    monkeypatch.setattr(latent_factors, "MIN_BLOCK", 16)
    monkeypatch.setattr(latent_factors, "SOFT", np.inf)
    monkeypatch.setattr(latent_factors, "NUM_DIRECTIONS", 90)
    monkeypatch.setattr(latent_factors, "MAX_DENSE", 100)
    if kind == "low rank":
        monkeypatch.setattr(latent_factors, "MAX_NUMBERS", 0)
    width = 0.2  # the weight of the data changes by a factor of 5 between the outer nodes
    order, factor = factor_of(precision(0.0), [[precision(width * z) for z in NODES]], NODES[None])
    assert isinstance(factor, BlockFactor if kind == "blocks" else LowRankFactor)
    assert kind == "low rank" or len(factor.inner) > 2
    for z, tolerance in ((0.0, 1e-10), (1.0, 0.02), (-1.5, 0.05)):
        c = dense_of(factor, [z])
        exact = precision(width * z).toarray()[np.ix_(order, order)]
        root = np.linalg.cholesky(exact)
        off = np.linalg.norm(root.T @ c @ c.T @ root - np.eye(90), 2)
        assert off < tolerance * (1 if kind == "blocks" else 10), (z, off)
        weights = powers(jnp.asarray([z]))
        x = jnp.asarray(np.random.default_rng(2).normal(size=90))
        np.testing.assert_allclose(factor.whiten(factor.color(x, weights), weights), x, atol=1e-9)
        assert float(factor.log_det(weights)) == pytest.approx(np.linalg.slogdet(c)[1], abs=1e-9)


def test_a_scale_of_the_whole_field_is_followed_exactly():
    """H(z) = e^(0.6 z) H: C(z) = e^(−0.3 z) C(0), also between the nodes and for the border."""
    h = precision(0.0)
    order, factor = factor_of(h, [[np.exp(0.6 * z) * h for z in NODES]], NODES[None])
    for z in (-3.7, 0.4, 2.9):
        np.testing.assert_allclose(
            dense_of(factor, [z]), np.exp(-0.3 * z) * dense_of(factor, [0.0]), rtol=1e-9, atol=1e-12
        )


def test_axes_are_found_from_their_nodes():
    """The straight one of a normal marginal, and one with skewness and long tails; log g′ by autodiff; inverse to rounding."""
    tailed = Axes(np.array([0.8]), np.array([-0.6]), np.array([1.4]))
    values = np.array([float(tailed(jnp.asarray([z]))[0][0]) for z in NODES])
    axes = Axes.of([NODES, values])
    np.testing.assert_allclose([axes.width, axes.skewness, axes.tails], [[1, 0.8], [0, -0.6], [1, 1.4]], atol=1e-5)
    for z in (-6.0, -0.3, 0.0, 2.2, 7.0):
        at = jnp.full(2, z)
        slope = jax.jacfwd(lambda z: axes(z)[0])(at)
        np.testing.assert_allclose(np.exp(axes(at)[1]), np.diag(slope), rtol=1e-9)
        np.testing.assert_allclose(axes.inverse(axes(at)[0]), at, atol=1e-8)


@pytest.mark.parametrize("at", [[-12, -12, 12, 12], [-2.8, -2.8, 0.19, 0.24], [-4, -3.9, 0.01, 0.02], [-4, -2, 2, 4]])
def test_nodes_that_coincide_lower_the_degree(at):
    """A line is met everywhere between the nodes, whichever they are; with four apart, a polynomial of fourth degree is.

    Noise of 10⁻³ at nodes that almost coincide must not be enlarged by their difference.
    """
    at = np.array([at], float)
    noise = 1e-3 * np.array([1.0, -1.0, 1.0, -1.0])
    found = latent_factors.interpolated(2.0, [list(2 + 0.5 * at[0] + noise)], at)
    for z in np.linspace(1.1 * at[0, 0], 1.1 * at[0, -1], 9):
        assert float(powers(jnp.asarray([z])) @ found) == pytest.approx(2 + 0.5 * z, abs=0.01)
    if at[0, 0] == -4 and at[0, 1] == -2:
        found = latent_factors.interpolated(1.0, [list(1 + at[0] ** 4 / 100)], at)
        assert float(powers(jnp.asarray([3.0])) @ found) == pytest.approx(1.81)


def unused(y):
    """A variance of which the data say nothing, with so long a tail that no node reaches its end."""
    numpyro.sample("unused", dist.Pareto(1.0, 0.05))
    scale = numpyro.sample("scale", dist.HalfNormal(1))
    numpyro.sample("y", dist.Normal(scale * numpyro.sample("phi", p4.GibbsField(FIELD)), 0.5), obs=y)


def test_flat_tails_have_coordinates_that_stay_finite():
    """Also in single precision and very far out, where powers would overflow, with gradients."""
    with jax.enable_x64(False):
        found, potential = coordinates_of(unused, np.random.default_rng(2).normal(size=40))
        for z in (0.0, -3.0, 3.0, 8.0, 3e3):
            white = jnp.zeros(42).at[:2].set(jnp.asarray([z, -z]))
            weights, *_ = found._parts(white[:2])
            slopes = jax.jacfwd(lambda z: found._parts(z)[0])(white[:2])
            assert jnp.all(jnp.isfinite(weights)) and jnp.all(jnp.isfinite(slopes)), z
        reached = np.abs(np.asarray(found._parts(jnp.asarray([3e3, -3e3]))[0][1:3]))
        np.testing.assert_allclose(reached, np.abs(found.ends[[1, 0], [0, 1]]), rtol=1e-3)
        assert np.isfinite(float(potential(jnp.zeros(42))))


def coordinates_of(model, *args):
    compiled = p4.compile(model, *args)
    curvature = curvature_of(compiled)
    template, unravel = ravel_pytree(curvature.template)
    found = LatentCoordinates.of(curvature)

    def potential(white):
        return compiled.potential_fn(unravel(found.color(white))) - found.log_det(white)

    return found, jax.jit(potential)


def test_the_map_is_one_to_one_and_its_volume_is_known():
    """Two scales, an intercept and a slope on the border, two fields: whiten(color(z)) = z, log det by autodiff.

    Up to a constant: differences between points. Planted: without the border or the axes it is off.
    """
    random = np.random.default_rng(1)
    found, _ = coordinates_of(counts, random.poisson(2.0, 40), random.normal(size=40))
    assert found.size == 84 and found.num_leading == 4 and len(found.peak) == 2
    color, whiten = jax.jit(found.color), jax.jit(found.whiten)
    jacobian = jax.jit(jax.jacfwd(found.color))
    volumes, exact, borders = [], [], []
    for z in [np.zeros(84), random.normal(size=84), 2 * random.normal(size=84)]:
        z = jnp.asarray(z)
        np.testing.assert_allclose(whiten(color(z)), z, atol=1e-6)
        volumes.append(float(found.log_det(z)))
        borders.append(float(found.factor.log_det(found._parts(z[:2])[0])))
        exact.append(np.linalg.slogdet(jacobian(z))[1])
    np.testing.assert_allclose(np.diff(volumes), np.diff(exact), atol=1e-8)
    assert np.abs(np.diff(borders) - np.diff(exact)).min() > 0.01


def normal_data(y, scaled):
    level = numpyro.sample("level", dist.Normal(0, 3))
    scale = numpyro.sample("scale", dist.HalfNormal(1)) if scaled else 1.0
    phi = numpyro.sample("phi", p4.GibbsField(FIELD))
    numpyro.sample("y", dist.Normal(level + scale * phi, 0.5), obs=y)


def test_the_posterior_is_standard_normal_in_them():
    """Exactly for normal data with a fixed scale; with a free one, nearly so for the field at any z of the scale.

    Planted: the same potential without the volume is not.
    """
    y = np.random.default_rng(2).normal(size=40)
    found, potential = coordinates_of(normal_data, y, False)
    hessian = jax.hessian(potential)(jnp.zeros(41))
    np.testing.assert_allclose(hessian, np.eye(41), atol=1e-5)
    np.testing.assert_allclose(jax.grad(potential)(jnp.zeros(41)), np.zeros(41), atol=1e-2)
    found, potential = coordinates_of(normal_data, y, True)
    at = [-2.0, -1.0, 0.0, 1.0, 2.0]
    points = jnp.asarray(np.random.default_rng(3).normal(size=(50, 42)))

    def away(function):
        rest = [[float(function(p.at[0].set(z)) - p[1:] @ p[1:] / 2) for p in points] for z in at]
        return np.std(rest, axis=1).max(), np.ptp(np.mean(rest, axis=1) - np.square(at) / 2)

    volume = jax.jit(found.log_det)
    spread, marginal = away(potential)
    assert spread < 0.3 and marginal < 0.5, (spread, marginal)
    assert away(lambda z: potential(z) + volume(z))[1] > 5


def test_rotations_are_exact_for_the_normal_law_and_of_second_order_beside_it():
    """The energy of 20 steps of 0.5 is kept to rounding; with a quartic term the error falls fourfold as steps are halved."""
    from blackjax.mcmc.integrators import IntegratorState

    def error(logdensity, step_size):
        step = jax.jit(rotation(logdensity, None))
        start = jnp.asarray([0.7, -1.1])
        state = IntegratorState(start, jnp.asarray([1.2, 0.4]), *jax.value_and_grad(logdensity)(start))

        def energy(state):
            return float(-state.logdensity + state.momentum @ state.momentum / 2)

        first, worst = energy(state), 0.0
        for _ in range(round(10 / step_size)):
            state = step(state, step_size)
            worst = max(worst, abs(energy(state) - first))
        return worst

    def quartic(x):
        return -x @ x / 2 - jnp.sum(x**4) / 10

    assert error(lambda x: -x @ x / 2, 0.5) < 1e-12
    assert 3.5 < error(quartic, 0.2) / error(quartic, 0.1) < 4.5
