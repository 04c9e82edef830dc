"""How many features a list of eigenvalues holds, each count under its own name.

With λ₁ ≥ λ₂ ≥ … and shares p_i = λ_i/Σλ:

* ``trace_over_max`` = Σλ/λ₁, also the stable rank ‖A‖²_F/‖A‖² of a factor A with K = AᵀA;
* ``participation_ratio`` = (Σλ)²/Σλ²;
* ``entropy_rank`` = exp(−Σ p log p);
* ``numerical_rank``: how many exceed N ε λ₁, ε the precision of the matrix.

They are 1/p₁ and the Rényi numbers of order 2, 1 and 0 (A. Rényi, 1961): each is at most the next. Eigenvalues of N ε
λ₁ or less are rounding, and zero in all of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import ArgumentError
from .matrices import one_number

__all__ = ["RANKS", "degrees_of_freedom", "rank_fraction", "resolved"]

EPSILON = float(np.finfo(float).eps)


def resolved(eigenvalues, epsilon: float = EPSILON, size: int | None = None) -> np.ndarray:
    """The eigenvalues along the last axis that exceed N ε λ₁, zero in place of the others."""
    values = np.asarray(eigenvalues, float)
    number = values.shape[-1] if size is None else size
    return np.where(values > number * epsilon * values.max(axis=-1, keepdims=True), values, 0.0)


def trace_over_max(values: np.ndarray) -> float:
    return float(values.sum() / values.max())


def participation_ratio(values: np.ndarray) -> float:
    shares = values / values.sum()
    return float(1 / (shares**2).sum())


def entropy_rank(values: np.ndarray) -> float:
    shares = values[values > 0] / values.sum()
    return float(np.exp(-np.sum(shares * np.log(shares))))


def numerical_rank(values: np.ndarray) -> float:
    return float(np.count_nonzero(values))


def rank_fraction(values: np.ndarray, fraction: float, total: float | None = None) -> float:
    """The smallest number of leading eigenvalues that hold this fraction of the trace; nan if all together do not."""
    if not 0 < one_number("fraction", fraction) <= 1:
        raise ArgumentError("fraction", "a number above 0 and at most 1", repr(fraction), "For 90 % of the trace 0.9.")
    total = values.sum() if total is None else total
    sums = np.cumsum(values) / total
    reached = np.flatnonzero(sums >= fraction * (1 - 1e-12))
    return float(reached[0] + 1) if len(reached) else float("nan")


def rank_of_share(values: np.ndarray, fraction: float) -> float:
    """`rank_fraction` between whole numbers: its error is not zero where all sub-samples have the same whole one."""
    sums = np.concatenate([[0.0], np.cumsum(values) / values.sum()])
    above = int(np.searchsorted(sums, fraction * (1 - 1e-12)))
    return float(above - 1 + (fraction - sums[above - 1]) / (sums[above] - sums[above - 1]))


def degrees_of_freedom(values: np.ndarray, ridge: float) -> float:
    """Σ λ/(λ + ridge): the trace of the smoother K (K + ridge)⁻¹."""
    if one_number("ridge", ridge) < 0:
        raise ArgumentError(
            "ridge", "a finite number of at least 0", repr(ridge), "It is what is added to the diagonal."
        )
    some = values[values > 0]
    return float(np.sum(some / (some + ridge)))


RANKS: dict[str, Callable[[np.ndarray], float]] = {
    "trace_over_max": trace_over_max,
    "participation_ratio": participation_ratio,
    "entropy_rank": entropy_rank,
    "numerical_rank": numerical_rank,
}
