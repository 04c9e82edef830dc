"""Factors of sparse symmetric positive definite matrices: solutions, determinants, and draws of the normal law."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

__all__ = ["Factors", "factors_of"]

COLUMNS = 8  # right-hand sides solved at once: SuperLU hands wider ones to threads, which costs more than it saves


class Factors:
    """H = Pᵀ L D Lᵀ P of a positive definite H, by SuperLU without pivoting, which such a matrix does not need.

    Attributes
    ----------
    log_det : float
        log det H.
    """

    def __init__(self, lu):
        self._lu, diagonal = lu, lu.U.diagonal()
        self.log_det = float(np.sum(np.log(diagonal)))
        self._root: sparse.csr_matrix | None = None
        self._scale = np.sqrt(diagonal)

    @property
    def size(self) -> int:
        """Numbers in the triangular factor."""
        return self._lu.nnz // 2

    def solve(self, right: np.ndarray) -> np.ndarray:
        """H⁻¹ times a vector, or every column of a matrix."""
        right = np.asarray(right, float)
        if right.ndim == 1:
            return self._lu.solve(right)
        found = np.empty_like(right, order="F")
        for first in range(0, right.shape[1], COLUMNS):
            part = slice(first, first + COLUMNS)
            found[:, part] = self._lu.solve(np.asfortranarray(right[:, part]))
        return found

    def draw(self, white: np.ndarray) -> np.ndarray:
        """Draws of N(0, H⁻¹), one a row, from standard normal numbers of the same shape: H⁻¹ B z with B Bᵀ = H."""
        if self._root is None:
            self._root = (self._lu.L @ sparse.diags(self._scale)).tocsr()[self._lu.perm_r]
        return self.solve(self._root @ np.asarray(white, float).T).T


def factors_of(matrix: sparse.csc_matrix) -> Factors | None:
    """The factors of a symmetric matrix; None if it is not positive definite."""
    try:
        lu = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    except RuntimeError:  # exactly singular
        return None
    return Factors(lu) if np.all(lu.U.diagonal() > 0) else None
