"""Factors of sparse symmetric positive definite matrices: solutions, determinants, and draws of the normal law.

By CHOLMOD where scikit-sparse is installed (the extra ``phi4ppl[sparse]``), otherwise by SuperLU, which SciPy has. The order of
elimination depends on the pattern alone: matrices of one pattern share it.
"""

from __future__ import annotations

import abc
import functools
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

__all__ = ["BACK_ENDS", "Factors", "Forgotten", "Order", "factors_of"]

COLUMNS = 4  # right-hand sides solved at once: more are handed to threads by SuperLU, which costs more than it saves
LARGE = 5_000  # rows above which SuperLU is told the order: below, finding it takes no time
DENSE = 10.0  # times √n are the entries above which a row is eliminated last
BACK_ENDS = ("cholmod", "superlu")


class Factors(abc.ABC):
    """Triangular factors of a positive definite H.

    Attributes
    ----------
    log_det : float
        log det H.
    size : int
        Numbers in one triangular factor.
    """

    log_det: float
    size: int

    @abc.abstractmethod
    def solve(self, right: np.ndarray) -> np.ndarray:
        """H⁻¹ times a vector, or every column of a matrix."""

    @abc.abstractmethod
    def draw(self, white: np.ndarray) -> np.ndarray:
        """Draws of N(0, H⁻¹), one a row, from standard normal numbers of the same shape."""


class Forgotten(Factors):
    """What remains of factors that would take too much memory."""

    def __init__(self, factors: Factors):
        self.log_det, self.size = factors.log_det, factors.size

    def solve(self, right):
        raise NotImplementedError("factors were forgotten: Curvature.whole(mode) makes them again")

    draw = solve


class _SuperLU(Factors):
    """P H Pᵀ = L D Lᵀ without pivoting, which a positive definite matrix does not need."""

    def __init__(self, lu, diagonal: np.ndarray, places: np.ndarray | None):
        self._lu, self._places = lu, places
        self.log_det, self.size = float(np.sum(np.log(diagonal))), lu.nnz // 2
        self._scale = np.sqrt(diagonal)
        self._root: sparse.csr_matrix | None = None

    def solve(self, right):
        right = np.asarray(right, float)
        if self._places is None:
            return self._solved(right)
        found = np.empty_like(right)
        found[self._places] = self._solved(right[self._places])
        return found

    def _solved(self, right):
        if right.ndim == 1:
            return self._lu.solve(right)
        found = np.empty_like(right, order="F")
        for first in range(0, right.shape[1], COLUMNS):
            part = slice(first, first + COLUMNS)
            found[:, part] = self._lu.solve(np.asfortranarray(right[:, part]))
        return found

    def draw(self, white):
        """H⁻¹ B z with B Bᵀ = H."""
        if self._root is None:
            self._root = (self._lu.L @ sparse.diags(self._scale)).tocsr()[self._lu.perm_r]
        found = self._solved(self._root @ np.asarray(white, float).T).T
        if self._places is not None:
            found = found[:, np.argsort(self._places)]
        return found


class _Cholmod(Factors):
    """P H Pᵀ = L Lᵀ."""

    def __init__(self, factor, size: int):
        self._factor, self.size = factor, size
        self.log_det = float(factor.logdet())

    def solve(self, right):
        return self._factor(np.asarray(right, float))

    def draw(self, white):
        """Pᵀ L⁻ᵀ z."""
        half = self._factor.solve_Lt(np.asarray(white, float).T, use_LDLt_decomposition=False)
        return self._factor.apply_Pt(half).T


class Order:
    """An order in which little of a pattern fills in, for all matrices that have it.

    Parameters
    ----------
    pattern : csc_matrix
        Symmetric, with a full diagonal.
    back_end : str, optional
        One of `BACK_ENDS`; by default the first that is installed.
    """

    def __init__(self, pattern: sparse.csc_matrix, back_end: str | None = None):
        self.back_end = back_end or ("cholmod" if _cholmod() else "superlu")
        self._size: int | None = None
        if self.back_end == "cholmod":
            self._symbolic = _cholmod().analyze(_dominant(pattern), mode="supernodal")
        else:
            self._places = _minimum_degree(pattern) if pattern.shape[0] > LARGE else None

    def factors(self, matrix: sparse.csc_matrix) -> Factors | None:
        """Of a matrix with no entries outside the pattern; None if it is not positive definite."""
        return self._by_cholmod(matrix) if self.back_end == "cholmod" else self._by_superlu(matrix)

    def _by_cholmod(self, matrix):
        refused = _cholmod().CholmodNotPositiveDefiniteError
        try:
            factor = self._symbolic.cholesky(matrix)
        except refused:
            return None
        if self._size is None:
            self._size = factor.L().nnz
        return _Cholmod(factor, self._size)

    def _by_superlu(self, matrix):
        if self._places is None:
            spec, matrix = "MMD_AT_PLUS_A", matrix.copy()
        else:
            spec, matrix = "NATURAL", matrix[self._places][:, self._places].tocsc()
        matrix.eliminate_zeros()
        try:
            lu = splu(matrix, permc_spec=spec, diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        except RuntimeError:  # exactly singular
            return None
        diagonal = lu.U.diagonal()
        pivoted = not np.array_equal(lu.perm_r, lu.perm_c)  # around a zero on the diagonal
        return None if pivoted or not np.all(diagonal > 0) else _SuperLU(lu, diagonal, self._places)


def factors_of(matrix: sparse.csc_matrix) -> Factors | None:
    """The factors of a symmetric matrix; None if it is not positive definite."""
    return Order(matrix).factors(matrix)


@functools.cache
def _cholmod() -> Any:
    try:
        from sksparse import cholmod
    except ImportError:
        return None
    return cholmod


def _dominant(pattern: sparse.csc_matrix) -> sparse.csc_matrix:
    """A positive definite matrix of the same pattern."""
    ones = sparse.csc_matrix((np.ones(pattern.nnz), pattern.indices, pattern.indptr), shape=pattern.shape)
    return (ones + sparse.diags(2.0 * np.diff(pattern.indptr))).tocsc()


def _minimum_degree(pattern: sparse.csc_matrix) -> np.ndarray:
    """Rows in the order of elimination: by minimum degree, those with very many entries last.

    With them among the others, finding the order takes longer than the factors.
    """
    count = np.diff(pattern.indptr)
    last = np.flatnonzero(count > DENSE * np.sqrt(len(count)))
    others = np.setdiff1d(np.arange(len(count)), last)
    inner = _dominant(pattern[others][:, others].tocsc())
    lu = splu(inner, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    return np.concatenate([others[np.argsort(lu.perm_c)], last])
