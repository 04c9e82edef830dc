"""Correlated least squares: parameters of a curve through values whose errors are correlated, χ², p-value, and AIC weights.

χ² = (y − f)ᵀ C⁻¹ (y − f). Values that are all but linear functions of each other, such as neighboring points of one reweighted
curve, leave directions in which C is nearly singular and, being estimated itself, not known. These are left out: what they say
is lost, and errors stay honest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares
from scipy.special import gammaincc

__all__ = ["LeastSquares", "aic_weights", "correlated_fit", "p_value_of", "whitening"]

CUT = 1e-4  # of the largest eigenvalue of the correlation matrix: directions below it are left out


class LeastSquares(NamedTuple):
    """Parameters with their covariance; ``dof`` counts the directions kept less the parameters.

    ``aic`` = χ² + 2 (number of parameters): smaller is better among fits of the same values.
    """

    parameters: np.ndarray
    covariance: np.ndarray
    chi2: float
    dof: int
    p_value: float
    aic: float


def whitening(covariance: np.ndarray, cut: float = CUT) -> np.ndarray:
    """W with W C Wᵀ = 1 on the directions whose eigenvalue of the correlation matrix exceeds ``cut`` times the largest."""
    spread = np.sqrt(np.diag(covariance))
    found, vectors = np.linalg.eigh(covariance / np.outer(spread, spread))
    kept = found > cut * found[-1]
    return (vectors[:, kept] / np.sqrt(found[kept])).T / spread


def p_value_of(chi2: float, dof: int) -> float:
    """The probability of a larger χ²; nan without degrees of freedom."""
    return float(gammaincc(dof / 2, chi2 / 2)) if dof > 0 else float("nan")


def correlated_fit(
    function: Callable, values: np.ndarray, covariance: np.ndarray, start: np.ndarray, *, cut: float = CUT
) -> LeastSquares:
    """The parameters p that minimize (y − f(p))ᵀ C⁻¹ (y − f(p)), found by Levenberg–Marquardt (MINPACK) from ``start``."""
    white = whitening(covariance, cut)
    found = least_squares(lambda p: white @ (function(p) - values), start, jac="3-point", x_scale="jac", max_nfev=200)
    chi2, number = float(2 * found.cost), len(start)
    dof = len(white) - number
    inverse = np.linalg.pinv(found.jac.T @ found.jac)
    return LeastSquares(found.x, inverse, chi2, dof, p_value_of(chi2, dof), chi2 + 2 * number)


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
