"""Kernels as sums over particle numbers: what share of a point's feature vector lies in each sector of Fock space."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln, xlogy
from scipy.stats import binom, poisson

from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, one_of, positive_int
from .matrices import require_scale

__all__ = ["FockWeights", "fock_kernel", "fock_rank", "fock_weights"]

KERNELS = ("rbf", "polynomial")


class FockWeights(NamedTuple):
    """Shares of k(x, x) by sector, shape ``(points, max_particles + 1)``, and those above, shape ``(points,)``."""

    weights: np.ndarray
    remainder: np.ndarray

    @property
    def mean_particles(self) -> np.ndarray:
        """Mean particle number of the sectors that are kept."""
        return self.weights @ np.arange(self.weights.shape[1]) / self.weights.sum(axis=1)


def _points(name: str, x) -> np.ndarray:
    points = finite_array(name, x).astype(float)
    if points.ndim != 2:
        raise ArgumentError(
            name, "points of shape (n, d)", f"shape {points.shape}", "Use x[None] for one point.", reason="shape"
        )
    return points


def _positive(name: str, value) -> float:
    number = finite_array(name, value)
    if number.ndim or not number > 0:
        raise ArgumentError(name, "one positive number", repr(value))
    return float(number)


def _checked(kernel, max_particles, length_scale, degree, offset):
    if isinstance(kernel, str):
        one_of("kernel", kernel, KERNELS)
        for name, value in (("length_scale", length_scale), ("offset", offset)):
            _positive(name, value)
        positive_int("degree", degree)
        return kernel
    coefficients = finite_array("kernel", kernel).astype(float)
    if coefficients.ndim != 1 or not coefficients.size or (coefficients < 0).any() or not coefficients.any():
        expected = "'rbf', 'polynomial', or coefficients of powers of x·y, none of them negative"
        raise ArgumentError("kernel", expected, str(coefficients)[:80])
    return coefficients


@call_checked
def fock_weights(
    x, kernel="rbf", *, max_particles: int = 20, length_scale: float = 1.0, degree: int = 2, offset: float = 1.0
) -> FockWeights:
    """Shares of the sectors of n particles in the feature vector of each point, k(x, x) = Σ_n k_n(x, x).

    Parameters
    ----------
    x : array, shape ``(points, d)``
    kernel : str or array
        ``"rbf"``: ``exp(−|x − y|²/2ℓ²) = e^(−|x|²/2ℓ²) e^(−|y|²/2ℓ²) Σ_n (x·y)ⁿ/(ℓ²ⁿ n!)``; the shares are
        Poisson of mean ``|x|²/ℓ²``.
        ``"polynomial"``: (c + x·y)^p; Binomial of p trials with ``|x|²/(c + |x|²)``. Or a_n ≥ 0 of
        Σ_n a_n (x·y)ⁿ, such as those of a dual activation on the sphere.
    max_particles : int
        Sectors 0, …, max_particles are given, the rest as ``remainder``.
    length_scale, degree, offset : float, int, float
        ℓ of ``"rbf"``; p and c of ``"polynomial"``.

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> from phi4ppl.spectral.fock import fock_weights
    >>> fock_weights([[1.0, 1.0]], max_particles=2).weights.round(4)  # Poisson of mean 2
    array([[0.1353, 0.2707, 0.2707]])
    """
    points = _points("x", x)
    positive_int("max_particles", max_particles, minimum=0)
    kernel = _checked(kernel, max_particles, length_scale, degree, offset)
    square, number = (points**2).sum(axis=1)[:, None], np.arange(max_particles + 1)
    if isinstance(kernel, str) and kernel == "rbf":
        require_scale("x", np.abs(points).max(initial=0.0) / length_scale)
        law = poisson(square / length_scale**2)
    elif isinstance(kernel, str):
        law = binom(degree, square / (offset + square))
    else:
        with np.errstate(divide="ignore"):
            logs = np.log(kernel) + xlogy(np.arange(len(kernel)), square)
        if np.isneginf(logs.max(axis=1)).any():
            got = "k(x, x) = 0 at one of them"
            raise ArgumentError("x", "points with a feature vector", got, reason="zero")
        terms = np.exp(logs - logs.max(axis=1, keepdims=True))
        total = terms.sum(axis=1, keepdims=True)
        shares = np.pad(terms / total, ((0, 0), (0, max(max_particles + 1 - len(kernel), 0))))
        return FockWeights(shares[:, : max_particles + 1], shares[:, max_particles + 1 :].sum(axis=1))
    return FockWeights(law.pmf(number[None, :]), law.sf(max_particles)[:, 0])


@call_checked
def fock_kernel(x, max_particles: int, *, length_scale: float = 1.0) -> np.ndarray:
    """The RBF kernel of the sectors up to n particles, whose rank is `fock_rank`.

    Examples
    --------
    >>> import numpy as np
    >>> from phi4ppl.spectral.fock import fock_kernel, fock_rank
    >>> kernel = fock_kernel(np.random.default_rng(0).normal(size=(40, 2)), 3)
    >>> int(np.linalg.matrix_rank(kernel)), fock_rank(3, 2)
    (10, 10)
    """
    points = _points("x", x) / _positive("length_scale", length_scale)
    require_scale("x", np.abs(points).max(initial=0.0))
    positive_int("max_particles", max_particles, minimum=0)
    number = np.arange(max_particles + 1)
    products, squares = (points @ points.T)[..., None], (points**2).sum(axis=1)
    envelope = (squares[:, None] + squares[None, :])[..., None] / 2
    logs = xlogy(number, np.abs(products)) - gammaln(number + 1) - envelope  # none is above 0
    return (np.where((products < 0) & (number % 2 == 1), -1.0, 1.0) * np.exp(logs)).sum(axis=-1)


@call_checked
def fock_rank(max_particles: int, dimensions: int) -> int:
    """The number of states of at most n bosons in d modes, C(n + d, d): the rank of a polynomial kernel of degree n."""
    positive_int("max_particles", max_particles, minimum=0), positive_int("dimensions", dimensions)
    return math.comb(max_particles + dimensions, dimensions)
