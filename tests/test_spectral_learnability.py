"""What kernel regression learns, against the published figures and against regressions; occupation of Fock sectors."""

from __future__ import annotations

from math import factorial

import numpy as np
import pytest
from scipy.special import erf
from scipy.stats import poisson

from phi4ppl.errors import ArgumentError
from phi4ppl.spectral.fock import fock_kernel, fock_rank, fock_weights
from phi4ppl.spectral.learnability import learnability, mode_learnability


def gaussian_features(number=500, modes=500, seed=0):
    """Features of variance k⁻² at each of some points, as a kernel, and the target: mode 10."""
    features = np.random.default_rng(seed).normal(size=(number, modes)) / np.arange(1, modes + 1)
    return features @ features.T, 10 * features[:, 9]


def circle(number=500, seed=0, degrees=200):
    """A constant, and sinusoids of variance k⁻², at random points of the circle, and the target of degree 5."""
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, number)
    degree = np.arange(1, degrees + 1)
    waves = np.hstack([np.cos(angle[:, None] * degree) / degree, np.sin(angle[:, None] * degree) / degree])
    return 1 + 2 * waves @ waves.T, np.sqrt(2) * np.cos(5 * angle)


def test_learnabilities_of_a_power_law_are_the_published_ones_and_add_up_to_n():
    found = mode_learnability(np.arange(1.0, 501) ** -2, 20)
    assert found.learnabilities[9] == pytest.approx(0.638, abs=5e-4)
    assert found.degrees_of_freedom == pytest.approx(20, abs=1e-6)
    lacking = mode_learnability(np.arange(2.0, 501) ** -2, 20)  # a multiplicity that is wrong by one
    assert abs(lacking.learnabilities[8] - 0.638) > 5e-3


@pytest.mark.parametrize("ridge", [0.0, 1e-9, 0.3, 1e6])
def test_the_sum_rule_holds_at_every_ridge(ridge):
    values = np.exp(-0.3 * np.arange(200.0))
    found = mode_learnability(values, 17, ridge)
    assert found.degrees_of_freedom + (ridge / found.kappa if ridge else 0.0) == pytest.approx(17, abs=1e-6)


def test_equal_modes_have_closed_forms():
    """m modes of λ at ridge 0: L = n/m, and the error of a target is 1 − n/m of its square."""
    found = mode_learnability(np.full(50, 0.7), 20)
    np.testing.assert_allclose(found.learnabilities, 0.4, rtol=1e-10)
    assert found.test_error(np.eye(50)[0]) == pytest.approx(1 - 20 / 50)
    known = mode_learnability(np.full(5, 0.7), 20)
    assert known.test_error(np.ones(5), noise=0.3) == pytest.approx(0.3 * 20 / 15)


@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_a_diagonal_kernel_is_predicted_exactly(ridge):
    """Points that say nothing about each other: the error is the mean square of the target, at every split."""
    y = np.resize([1.0, -1.0], 40)
    found = learnability(2 * np.eye(40), y, 10, ridge=ridge)
    assert found.predicted_error == pytest.approx(1.0) and found.measured_error == pytest.approx(1.0)
    np.testing.assert_allclose(found.learnabilities, 2 / (2 + ridge) * 10 / 40, rtol=1e-9)


@pytest.mark.parametrize("ridge", [0.0, 0.05, 2.0])
def test_gaussian_features_agree_with_regressions(ridge):
    """The theory is for them: agreement within 3 errors or 5 % of a hundred splits, at a fixed seed."""
    kernel, y = gaussian_features()
    found = learnability(kernel, y, 20, ridge=ridge, num_splits=100)
    assert found.holds, str(found)
    assert ridge or found.degrees_of_freedom == pytest.approx(20, abs=1e-6)


def test_points_on_a_circle_are_flagged():
    """Degree 5 from 20 points: 0.63 predicted; 0.525(5) in an independent calculation. Its sine and cosine are among the 12
    leading modes, for all of which the two are compared: 100 splits have errors of 0.02, and the gap is 0.1."""
    kernel, y = circle()
    found = learnability(kernel, y, 20, num_splits=100)
    assert not found.holds and "does NOT hold" in str(found)
    predicted, measured = found.learnabilities[9:11].mean(), found.measured_learnabilities[9:11].mean()
    assert predicted == pytest.approx(0.63, abs=0.02) and measured == pytest.approx(0.525, abs=0.04)


def test_what_cannot_be_predicted_is_refused():
    kernel, y = gaussian_features(40, 10)
    negative, lopsided = kernel - 1e3 * np.eye(40), kernel + np.triu(kernel)
    for arguments, code in [
        ((kernel, y, 20), "argument.ridge"),
        ((kernel, y, 40), "argument.num_train"),
        ((kernel, y[:9]), "argument.targets.shape"),
        ((negative, y), "argument.kernel.negative"),
        ((lopsided, y), "argument.kernel.symmetric"),
    ]:
        with pytest.raises(ArgumentError) as caught:
            learnability(*arguments)
        assert caught.value.code == code


def test_occupation_of_a_point_is_poisson_and_sectors_add_up_to_the_kernel():
    x = np.random.default_rng(0).normal(size=(30, 3))
    found = fock_weights(x, max_particles=60)
    np.testing.assert_allclose(found.weights, poisson.pmf(np.arange(61), (x**2).sum(axis=1)[:, None]), rtol=1e-12)
    np.testing.assert_allclose(found.mean_particles, (x**2).sum(axis=1), rtol=1e-9)
    rbf = np.exp(-((x[:, None] - x) ** 2).sum(axis=2) / 2)
    np.testing.assert_allclose(fock_kernel(x, 80), rbf, atol=1e-12)
    for top in (0, 2, 5):  # the diagonal of the truncated kernel is the weight of its sectors
        np.testing.assert_allclose(np.diag(fock_kernel(x, top)), found.weights[:, : top + 1].sum(axis=1), rtol=1e-12)


@pytest.mark.parametrize(("top", "dimensions"), [(0, 3), (2, 1), (3, 2), (2, 4)])
def test_sectors_up_to_n_have_the_rank_of_n_bosons(top, dimensions):
    x = np.random.default_rng(1).normal(size=(40, dimensions))
    assert np.linalg.matrix_rank(fock_kernel(x, top)) == fock_rank(top, dimensions)
    assert np.linalg.matrix_rank((1 + x @ x.T) ** top) == fock_rank(top, dimensions)


def test_dual_activations_are_occupations_on_the_sphere():
    """Σ μ_n² ρⁿ of √2 ReLU: 1/π, 1/2, 1/(2π), 0, 1/(24π), and of erf: 0, 0.42441318, 0, 0.03143801, by quadrature of Hermite
    coefficients; the shares of a unit vector are those of the arc-cosine kernel, whose value at ρ they sum to."""
    t, weights = np.polynomial.legendre.leggauss(400)
    t, weights = 7 * (t + 1), 7 * weights  # ReLU has its kink at the end, and erf is odd
    weights = weights * np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi)
    hermite = [np.polynomial.hermite_e.HermiteE.basis(n)(t) / np.sqrt(float(factorial(n))) for n in range(24)]
    relu = np.array([(weights @ (np.sqrt(2) * t * h)) ** 2 for h in hermite])
    odd = np.array([(2 * (n % 2) * weights @ (erf(t) * h)) ** 2 for n, h in enumerate(hermite)])
    np.testing.assert_allclose(relu[:5], [1 / np.pi, 1 / 2, 1 / (2 * np.pi), 0, 1 / (24 * np.pi)], atol=1e-9)
    np.testing.assert_allclose(odd[:4], [0, 0.42441318, 0, 0.03143801], atol=5e-9)
    found = fock_weights([[0.6, 0.8]], relu, max_particles=23).weights[0]
    np.testing.assert_allclose(found, relu / relu.sum(), atol=1e-12)
    angle = np.arccos(0.5)
    arc = (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / np.pi
    assert relu.sum() * (found @ 0.5 ** np.arange(24)) == pytest.approx(arc, abs=1e-8)


def test_other_kernels_have_other_occupations():
    x = np.array([[1.0, 2.0], [0.5, 0.0]])
    cubic = fock_weights(x, "polynomial", degree=3, offset=2.0, max_particles=3)
    by_powers = fock_weights(x, [8.0, 12.0, 6.0, 1.0], max_particles=3)  # (2 + x·y)³
    np.testing.assert_allclose(cubic.weights, by_powers.weights, rtol=1e-12)
    np.testing.assert_allclose(cubic.weights.sum(axis=1), 1.0)
    np.testing.assert_allclose(
        fock_weights(x, [8.0, 12.0, 6.0, 1.0], max_particles=1).remainder, cubic.weights[:, 2:].sum(axis=1)
    )
    with pytest.raises(ArgumentError, match="none of them negative"):
        fock_weights(x, [1.0, -1.0])
