"""Errors of spectra whose points are a sample: sub-samples without replacement, and pairs of different points.

A statistic of n points is compared with the same statistic of S random subsets of b of them (the delete-d jackknife, d = n − b;
J. Shao and C. F. J. Wu, Ann. Statist. 17 (1989) 1176): its variance is b/(n − b) times the variance among the
subsets. A bootstrap
with replacement will not do: repeated points make repeated rows, which are features that nobody has.

The plain participation ratio counts K(x, x)² of each point with itself among the products of two points, which makes
it too small by
O(PR/n). Products of two different points in numerator and denominator, Σ_{i≠j} K_ii K_jj / Σ_{i≠j} K_ij², are unbiased each
(arXiv:2509.26560).
"""

from __future__ import annotations

import numpy as np

from ..errors.streams import stream_rng
from .gram import Gram

__all__ = ["NUM_SUBSETS", "block_ratio", "eigenvalue_errors", "pair_ratio", "root_extrapolation", "subset_spectra"]

NUM_SUBSETS = 20
SHARE = 0.75  # of the points in each subset
LARGEST = 500  # points in a subset
MAX_GROUPS = 50


def subset_spectra(gram: Gram, seed: int, number: int = NUM_SUBSETS) -> tuple[np.ndarray, float]:
    """Eigenvalues of subsets of b of n points, in units of those of all points, and b/(n − b).

    Disjoint parts are left out in turn, so that what is linear in the points cancels in the mean over the subsets.
    """
    n = gram.num_points
    size = min(n - int((1 - SHARE) * n), LARGEST)
    random = stream_rng(seed, "sub-samples")
    found = []
    while len(found) < number:
        order = random.permutation(n)
        for part in range(min(max(n // (n - size), 1), number - len(found))):
            some = np.sort(np.roll(order, part * (n - size))[n - size :])
            found.append(np.linalg.eigvalsh(gram.block(some, some))[::-1] * (n / size))
    return np.maximum(found, 0.0), size / (n - size)


def eigenvalue_errors(values: np.ndarray, replicas: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Errors of sorted eigenvalues, and which of them are mostly bias; ``factor`` is b/(n − b).

    A sample splits eigenvalues that are equal, or nearly: the largest come out too large, by O(n^−1/2). What fewer points
    add to that, extrapolated, is part of the error.
    """
    spread = np.sqrt(factor * np.var(replicas, axis=0))
    bias = factor * np.abs(values - replicas.mean(axis=0)) * root_extrapolation(factor)
    return np.hypot(spread, bias), bias > spread


def root_extrapolation(factor: float) -> float:
    """How much larger a bias is that falls as n^−1/2 than one that falls as 1/n, for the same change from b to n points."""
    return float(1 / (factor * (np.sqrt(1 + 1 / factor) - 1)))


def pair_ratio(matrix: np.ndarray, seed: int, groups: int = MAX_GROUPS) -> tuple[float, float]:
    """The participation ratio from pairs of different points, with its error by leaving out groups of points."""
    n = len(matrix)
    group = stream_rng(seed, "groups").permutation(np.arange(n) % min(n, groups))
    inside = np.zeros((n, group.max() + 1))
    inside[np.arange(n), group] = 1.0
    squares = np.array(matrix, float) ** 2
    np.fill_diagonal(squares, 0.0)
    diagonal = inside.T @ np.diag(matrix)
    traces = np.outer(diagonal, diagonal) - np.diag(inside.T @ np.diag(matrix) ** 2)
    return block_ratio(traces, inside.T @ squares @ inside)


def block_ratio(traces: np.ndarray, squares: np.ndarray) -> tuple[float, float]:
    """ΣT/ΣQ of sums over pairs from two blocks each, and its jackknife error: one block is left out at a time."""

    def without_each(sums):
        return sums.sum() - sums.sum(axis=0) - sums.sum(axis=1) + np.diag(sums)

    with np.errstate(divide="ignore", invalid="ignore"):
        value = traces.sum() / squares.sum()
        replicas = without_each(traces) / without_each(squares)
    number = len(traces)
    return float(value), float(np.sqrt((number - 1) * np.var(replicas)))
