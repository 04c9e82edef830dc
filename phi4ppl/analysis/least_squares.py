"""Correlated least squares: parameters of a curve through values whose errors are correlated, χ², p-value, and AIC weights.

χ² = (y − f)ᵀ C⁻¹ (y − f). Neighboring points of one reweighted curve are all but linear functions of each other: there are
directions in which C is nearly singular and, being estimated itself, hardly known, and in which no truncated series f is exact.
Eigenvalues of the correlation matrix are raised to a floor there, as if each point had a small error of its own: errors of
parameters grow a little, and χ² does not follow the last digits of the shape of a curve.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares
from scipy.special import gammaincc

__all__ = ["LeastSquares", "aic_weights", "correlated_fit", "p_value_of", "whitening"]

FLOOR = 2e-4  # of eigenvalues of the correlation matrix, whose mean is 1

SMALLEST = 1e-12  # singular value of a Jacobian of unit columns, relative to the largest one


class LeastSquares(NamedTuple):
    """Parameters with their covariance; ``dof`` counts values less parameters.

    ``aic`` = χ² + 2 (number of parameters): smaller is better among fits of the same values. ``success`` is False if the search
    for the minimum stopped before it.
    """

    parameters: np.ndarray
    covariance: np.ndarray
    chi2: float
    dof: int
    p_value: float
    aic: float
    success: bool = True


def whitening(covariance: np.ndarray, floor: float = FLOOR) -> np.ndarray:
    """W with W C Wᵀ = 1; eigenvalues of the correlation matrix are at least ``floor``.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the floor is 0 and the matrix is singular.
    """
    spread = np.sqrt(np.diag(covariance))
    found, vectors = np.linalg.eigh(covariance / np.outer(spread, spread))
    if not floor and not found[0] > len(found) * np.finfo(float).eps:
        raise np.linalg.LinAlgError("singular covariance")
    return (vectors / np.sqrt(np.maximum(found, floor))).T / spread


def p_value_of(chi2: float, dof: int) -> float:
    """The probability of a larger χ²; nan without degrees of freedom."""
    return float(gammaincc(dof / 2, chi2 / 2)) if dof > 0 else float("nan")


def correlated_fit(
    function: Callable, values: np.ndarray, covariance: np.ndarray, start: np.ndarray, *, floor: float = FLOOR,
    jacobian: Callable | None = None,
) -> LeastSquares:  # fmt: skip
    """The parameters p that minimize (y − f(p))ᵀ C⁻¹ (y − f(p)), found in trust regions from ``start``.

    ``jacobian(p)`` is ∂f/∂p, by default from differences.
    """
    white = whitening(covariance, floor)
    jac = "3-point" if jacobian is None else (lambda p: white @ jacobian(p))
    found = least_squares(lambda p: white @ (function(p) - values), start, jac=jac, x_scale="jac", max_nfev=200)
    chi2, number = float(2 * found.cost), len(start)
    dof = len(white) - number
    covered = _inverse_of_square(found.jac)
    return LeastSquares(
        found.x, covered, chi2, dof, p_value_of(chi2, dof), chi2 + 2 * number, success=bool(found.success)
    )


def _inverse_of_square(jacobian: np.ndarray) -> np.ndarray:
    """(JᵀJ)⁻¹. A combination of parameters that no value depends on gets an enormous variance: a pseudoinverse gives none."""
    spread = np.linalg.norm(jacobian, axis=0)
    spread = np.where(spread > 0, spread, max(1.0, float(spread.max())))
    _, singular, right = np.linalg.svd(jacobian / spread, full_matrices=False)
    root = right.T / np.maximum(singular, SMALLEST * singular.max()) / spread[:, None]
    return root @ root.T


def aic_weights(aic) -> np.ndarray:
    """Weights ∝ exp(−AIC/2) of fits, which add up to 1.

    For fits of different values AIC includes 2 for each value left out (W. I. Jay and E. T. Neil, Phys. Rev. D 103 (2021)
    114502).

    Examples
    --------
    >>> aic_weights([10.0, 10.0, 40.0]).round(3)
    array([0.5, 0.5, 0. ])
    """
    aic = np.asarray(aic, float)
    weights = np.exp(-(aic - aic.min()) / 2)
    return weights / weights.sum()
