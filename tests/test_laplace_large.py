"""Laplace approximations of large fields: sparse factors, conjugate gradients, double precision, and what a run keeps.

The large field itself is a slow test; what is done only for large ones is done here to small ones.
"""

from __future__ import annotations

import sys

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from raising import warns
from scipy import sparse
from scipy.special import gammaln, logsumexp

import phi4ppl as p4
from phi4ppl.energy.factors import BACK_ENDS, Order, factors_of
from phi4ppl.inference import laplace_nodes
from phi4ppl.numpyro_plugin import curvature as curvatures
from phi4ppl.numpyro_plugin.curvature import curvature_of
from phi4ppl.numpyro_plugin.modes import conjugate_gradients

pytestmark = pytest.mark.compile_quickly

SIDE = 12
MASS = 0.125


def counts_of(side, offset=0.5):
    field = p4.gaussian(p4.lattice.square(side), w=1.0, a=(4 + MASS) / 2)
    wave = np.fft.fftfreq(side)
    eigenvalues = 4 + MASS - 2 * np.cos(2 * np.pi * wave)[:, None] - 2 * np.cos(2 * np.pi * wave)
    random = np.random.default_rng(1)
    phi = np.fft.ifft2(np.fft.fft2(random.normal(size=(side, side))) / np.sqrt(eigenvalues)).real
    y = random.poisson(np.exp(offset + 0.7 * phi))

    def model(y):
        level = numpyro.sample("level", dist.Normal(0, 5))
        scale = numpyro.sample("scale", dist.HalfNormal(1))
        value = numpyro.sample("phi", p4.GibbsField(field))
        numpyro.sample("y", dist.Poisson(jnp.exp(level + scale * value)), obs=y)

    return model, y


def matrix_of(side, random):
    """A torus with random masses, and one row full of entries."""
    sites = np.arange(side**2).reshape(side, side)
    pairs = [np.stack([sites.ravel(), np.roll(sites, -1, axis).ravel()]) for axis in (0, 1)]
    rows, columns = np.concatenate(pairs, axis=1)
    hopping = sparse.coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(side**2, side**2))
    masses = random.uniform(0.5, 2, side**2)
    inner = sparse.diags(4 + masses) - hopping - hopping.T
    column = sparse.csc_matrix(masses[:, None] / 2)
    return sparse.bmat([[sparse.csc_matrix([[masses.sum()]]), column.T], [column, inner]], format="csc")


@pytest.fixture(params=BACK_ENDS)
def back_end(request):
    if request.param == "cholmod":
        pytest.importorskip("sksparse.cholmod")
    return request.param


@pytest.mark.parametrize("large", [False, True])
def test_both_back_ends_solve_and_draw(back_end, large, monkeypatch):
    """log det and solutions are those of NumPy; draws M z have (M z)ᵀ H M z = zᵀz, thus M Mᵀ = H⁻¹."""
    monkeypatch.setattr("phi4ppl.energy.factors.LARGE", 10 if large else 10**6)
    random = np.random.default_rng(0)
    matrix = matrix_of(15, random)
    order = Order(matrix, back_end)
    for h in (matrix, matrix + sparse.diags(random.uniform(0, 3, matrix.shape[0]), format="csc")):
        factors = order.factors(h)
        assert factors.log_det == pytest.approx(np.linalg.slogdet(h.toarray())[1], abs=1e-9)
        right, white = random.normal(size=(h.shape[0], 9)), random.normal(size=(9, h.shape[0]))
        np.testing.assert_allclose(h @ factors.solve(right), right, atol=1e-10)
        np.testing.assert_allclose(h @ factors.solve(right[:, 0]), right[:, 0], atol=1e-10)
        away = factors.draw(white)
        products = white @ white.T
        np.testing.assert_allclose(away @ (h @ away.T), products, atol=1e-9)
    assert 2 * matrix.shape[0] < factors.size < matrix.shape[0] ** 2 / 2
    assert order.factors(matrix - 3 * sparse.eye(matrix.shape[0], format="csc")) is None


def test_a_zero_on_the_diagonal_is_not_pivoted_around(back_end):
    """[[0, 1], [1, 0]] has factors with a positive diagonal after a permutation of rows, but it is not positive definite."""
    swap = sparse.csc_matrix(np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert Order(swap + sparse.eye(2, format="csc"), back_end).factors(swap) is None


def test_conjugate_gradients_use_other_factors():
    """To three digits with the factors of a matrix nearby; nothing where there is negative curvature."""
    random = np.random.default_rng(0)
    matrix = matrix_of(10, random)
    near = factors_of((matrix + sparse.eye(101, format="csc")).tocsc())
    right = random.normal(size=101)
    found = conjugate_gradients(matrix, right, near.solve)
    exact = np.linalg.solve(matrix.toarray(), right)
    assert np.linalg.norm(found - exact) < 0.01 * np.linalg.norm(exact)
    assert conjugate_gradients(matrix - 9 * sparse.eye(101, format="csc"), right, near.solve) is None


def dense_log_marginal(theta, y, x):
    """log p(θ, y) by Laplace and the mode, by Newton's method with dense matrices of NumPy."""
    n, scale = y.size, np.exp(theta)
    sites = np.arange(n).reshape(y.shape)
    precision = (4 + MASS) * np.eye(n)
    for axis in (0, 1):
        there = np.roll(sites, -1, axis).ravel()
        precision[sites.ravel(), there] -= 1
        precision[there, sites.ravel()] -= 1
    prior = np.zeros((n + 1, n + 1))
    prior[0, 0], prior[1:, 1:] = 1 / 25, precision
    design = np.hstack([np.ones((n, 1)), scale * np.eye(n)])
    for _ in range(20):
        rate = np.exp(design @ x)
        slope = prior @ x + design.T @ (rate - y.ravel())
        hessian = prior + design.T @ (rate[:, None] * design)
        step = np.linalg.solve(hessian, slope)
        x = x - step * min(1.0, 1 / np.abs(step).max())
    log_p = (y.ravel() * (design @ x) - rate - gammaln(y.ravel() + 1)).sum() - x @ prior @ x / 2
    log_p += -np.log(5 * np.sqrt(2 * np.pi)) + np.log(2 / np.sqrt(2 * np.pi)) - scale**2 / 2 + theta
    return log_p - np.linalg.slogdet(hessian)[1] / 2 + (n + 1) / 2 * np.log(2 * np.pi), x


@pytest.fixture
def large(monkeypatch):
    """All that is done for large fields is done for small ones."""
    for name in ("LARGE", "LIGHT"):
        monkeypatch.setattr(curvatures, name, 10)
    monkeypatch.setattr(curvatures, "COARSE", 0.0)
    monkeypatch.setattr("phi4ppl.energy.factors.LARGE", 10)
    monkeypatch.setattr(laplace_nodes, "NO_AXES", 10)


def test_shortcuts_of_large_fields_lead_to_the_same_marginal(large):
    """That of dense matrices at the peak and beside it, to 1e-5; float32 is off by more than 1e-4."""
    model, y = counts_of(SIDE, 4.0)
    curvature = curvature_of(p4.compile(model, y))
    theta, covariance, mode = curvature.peak
    width = np.sqrt(covariance[0, 0])
    away = [dense_log_marginal(theta[0] + k * width, y, mode.x) for k in (-1, 0, 1)]
    for k, (value, x) in zip((-1, 0, 1), away, strict=True):
        found = curvature.mode(theta + k * width, mode.x, near=True)
        assert abs(found.log_marginal - value) < 1e-5
        assert np.abs(found.x - x).max() < 1e-5
    values = np.array([value for value, _ in away])
    assert values[1] - values.min() == pytest.approx(0.5, abs=0.15) and np.ptp(values[[0, 2]]) < 0.2
    curvatures.COARSE = np.inf
    single = curvature_of(p4.compile(model, y))
    assert not single._doubles and abs(single.mode(theta, mode.x).log_marginal - values[1]) > 1e-4


def test_a_run_of_a_large_field(large, monkeypatch, capsys):
    """The evidence of the approximation is that of dense matrices on a grid, to 0.05; progress is shown."""
    module = sys.modules["phi4ppl.inference.laplace"]
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    monkeypatch.setattr(module, "SIZES", ((np.inf, 16, 512),))
    model, y = counts_of(SIDE)
    found = p4.laplace(model, y, progress=True, seed=1, anneal=False)
    facts = p4.settings(found.tree)
    assert "16 values of scale" in facts["kernel_reason"] and facts["num_anneal"] == 0 and len(found.draws) == 512
    assert "laplace: peak of scale: value 1" in capsys.readouterr().err
    grid, start, values = np.linspace(-2.5, 1.0, 36), np.zeros(SIDE**2 + 1), []
    for theta in grid:
        value, start = dense_log_marginal(theta, y, start)
        values.append(value)
    field = found.problem.compiled.fields["phi"]
    exact = logsumexp(values) + np.log(grid[1] - grid[0]) - p4.log_partition(field).value
    assert abs(facts["log_evidence_laplace"] - exact) < 0.05


@pytest.mark.slow
def test_a_field_of_a_hundred_thousand_sites():
    """Scale and level are near those of the data, but for a bias of the approximation, and k̂ says not to trust weights."""
    model, y = counts_of(320)
    with warns("laplace.doubtful", "Pareto"):
        found = p4.laplace(model, y, seed=1)
    mean = p4.estimate(found)["mean"]
    assert abs(mean["level"] - 0.5) < 0.15 and abs(mean["scale"] - 0.7) < 0.03
    assert found.pareto_k > 0.7 and found.log_evidence is None
