"""Convex fits of many couplings: a ridge toward homogeneous ones, bounds, and errors that do not trust the model.

With an objective J(θ) of mean gradient g and Hessian A (score matching, pseudo-likelihood, likelihood) the regularized fit
minimizes J(θ) + ½ λ Σ_c A_cc (θ_c − θ̄_c)², the sum over couplings of inhomogeneous terms and θ̄ the best homogeneous ones. λ
has no unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse.linalg import LinearOperator, onenormest, splu

from ..model.coupling_vector import CouplingVector

__all__ = ["Solved", "cross_validated", "sandwich_errors", "solve", "tie"]

STRENGTHS = np.geomspace(1e-3, 1e2, 11)
FLOOR = 1e-8  # λ of a matrix that has lost its rank
MAX_CONDITION = 1e11
MAX_PIVOTS = 50
FULL = 0.2  # share of non-zeros from which on a matrix is not sparse


def tie(vector: CouplingVector) -> sparse.csr_matrix:
    """θ = tie @ κ for homogeneous couplings κ, one per term; shape ``(size, num_terms)``."""
    columns = np.concatenate([np.full(s.stop - s.start, k) for k, s in enumerate(vector.slices.values())])
    rows = np.arange(vector.size)
    return sparse.csr_matrix((np.ones(vector.size), (rows, columns)), shape=(vector.size, len(vector.slices)))


@dataclass(frozen=True)
class Solved:
    """The minimum of a quadratic form under bounds.

    Attributes
    ----------
    theta : array
    free : bool array
        False where a coupling is at its bound, 0.
    inverse : callable
        ``inverse(right)``: A⁻¹ applied to columns, on the free couplings; 0 elsewhere.
    singular : bool
        Whether the matrix had lost its rank, and a ridge of 1e-8 was added.
    """

    theta: np.ndarray
    free: np.ndarray
    inverse: Callable
    singular: bool


def solve(matrix, right, bounded) -> Solved:
    """Minimum of ½ θᵀAθ − rᵀθ with θ ≥ 0 where ``bounded``, by block pivoting (J. J. Júdice and F. M. Pires, 1994)."""
    scale = _scale(matrix)
    free = np.ones(len(right), bool)
    singular, fewest, patience = False, np.inf, 3
    for _ in range(MAX_PIVOTS):
        inverse, lost = _factorized(matrix, scale, free)
        singular |= lost
        theta = inverse(right)
        slope = matrix @ theta - right
        tolerance = 1e-12 * (np.abs(right) + np.abs(matrix.diagonal() * theta) + 1e-300)
        wrong = bounded & ((free & (theta < 0)) | (~free & (slope < -tolerance)))
        if not wrong.any():
            break
        if wrong.sum() < fewest:
            fewest, patience = wrong.sum(), 3
        elif patience:
            patience -= 1
        else:  # one at a time cannot go round in circles
            wrong &= np.arange(len(wrong)) == np.flatnonzero(wrong)[-1]
        free ^= wrong
    return Solved(np.where(free | ~bounded, theta, 0.0), free, inverse, singular)


def _scale(matrix) -> np.ndarray:
    diagonal = matrix.diagonal()
    return 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))


def _factorized(matrix, scale, free) -> tuple[Callable, bool]:
    """Solver on the free couplings, of the matrix with unit diagonal; and whether it needed the floor."""
    unit = sparse.diags(scale[free])
    block = (unit @ sparse.csc_matrix(matrix)[free][:, free] @ unit).tocsc()
    factor, lost = _factor(block), False
    if factor is None or _condition(block, factor) > MAX_CONDITION:
        factor, lost = _factor(block + FLOOR * sparse.eye(block.shape[0], format="csc")), True

    def inverse(right):
        right = np.asarray(right, float)
        columns = right.reshape(len(right), -1)
        out = np.zeros_like(columns)
        if free.any():
            out[free] = scale[free, None] * factor.solve(scale[free, None] * columns[free])
        return out.reshape(right.shape)

    return inverse, lost


class _Dense:
    """Factors of a full matrix."""

    def __init__(self, block):
        self.factors = cho_factor(block.toarray())

    def solve(self, right):
        return cho_solve(self.factors, right)


def _factor(block):
    if block.nnz > FULL * block.shape[0] ** 2:
        try:
            return _Dense(block)
        except np.linalg.LinAlgError:  # not positive definite
            return None
    options = {"SymmetricMode": True}
    try:
        return splu(block, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
    except RuntimeError:  # exactly singular
        return None


def _condition(block, factor) -> float:
    """Estimate of the condition number in the 1-norm."""
    if block.shape[0] == 0:
        return 1.0
    if block.shape[0] <= 8:
        return float(np.linalg.cond(block.toarray()))
    inverse = LinearOperator(block.shape, matvec=factor.solve, rmatvec=factor.solve, matmat=factor.solve, dtype=float)
    return float(onenormest(inverse, t=1) * abs(block).sum(axis=0).max())


def cross_validated(halves: list[tuple], wide: np.ndarray) -> float:
    """λ with the best objective on the other half of the data, times ½ because all data have twice as many samples.

    ``halves`` are (A, g): Hessian and gradient at the best homogeneous couplings, of the first and the second half. The
    objective is taken as quadratic there: J(θ̄ + δ) = g·δ + ½ δᵀAδ.
    """
    unbounded = np.zeros(len(wide), bool)
    scores = np.zeros(len(STRENGTHS))
    for (own, slope), (other, other_slope) in (halves, halves[::-1]):
        weight = np.where(wide, _ridge_weights(own), 0.0)
        for k, strength in enumerate(STRENGTHS):
            shift = solve(own + sparse.diags(strength * weight, format="csc"), -slope, unbounded).theta
            scores[k] += other_slope @ shift + 0.5 * shift @ (other @ shift)
    return float(STRENGTHS[np.argmin(scores)]) / 2


def penalty(matrix, strength: float, wide: np.ndarray):
    """λ A_cc on the diagonal of the inhomogeneous couplings, as a sparse matrix."""
    return sparse.diags(np.where(wide, strength * _ridge_weights(matrix), 0.0), format="csc")


def _ridge_weights(matrix) -> np.ndarray:
    diagonal = matrix.diagonal()
    return np.where(diagonal > 0, diagonal, diagonal[diagonal > 0].min(initial=1.0))


def sandwich_errors(inverse: Callable, free, scores: Iterable[np.ndarray], num_samples: int) -> np.ndarray:
    """Standard errors √diag(A⁻¹BA⁻¹/N), B the covariance of the gradients of single samples; nan at a bound.

    ``scores`` gives gradients of the samples in pieces ``(size, samples)``; they add up to about zero.
    """
    total, mean = 0.0, 0.0
    for piece in scores:
        moved = inverse(piece)
        total = total + (moved**2).sum(axis=1)
        mean = mean + moved.sum(axis=1)
    variance = (total - mean**2 / num_samples) / (num_samples - 1) / num_samples
    return np.where(free, np.sqrt(np.maximum(variance, 0.0)), np.nan)
