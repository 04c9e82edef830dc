"""Color the sites of a field so that sites of one color do not interact: given the others, they are independent."""

from __future__ import annotations

import functools
import itertools

import numpy as np

from .frozen import Lattice

__all__ = ["colors", "greedy_colors"]


@functools.lru_cache(maxsize=16)
def colors(lattice: Lattice, forms: tuple) -> np.ndarray:
    """Color of every site, shape ``(num_sites,)``, from 0; no two sites of one clique share a color.

    Chessboards on regular lattices where they fit, otherwise greedily, sites of most neighbors first (D. J. A. Welsh and
    M. B. Powell, Comput. J. 10 (1967) 85).
    """
    pairs = [
        form.cliques[:, [i, j]] for form in forms for i, j in itertools.combinations(range(form.cliques.shape[1]), 2)
    ]
    edges = np.concatenate([np.zeros((0, 2), int), *pairs])
    for board in _chessboards(lattice):
        if np.all(board[edges[:, 0]] != board[edges[:, 1]]):
            return np.unique(board, return_inverse=True)[1].astype(np.int32)
    return _greedy(lattice.num_sites, edges)


def _chessboards(lattice: Lattice):
    yield np.zeros(lattice.num_sites, int)
    if lattice.shape is not None and lattice.offsets is not None:
        at = np.indices(lattice.shape).reshape(len(lattice.shape), -1)
        yield at.sum(axis=0) % 2
        yield at.sum(axis=0) % 3
        yield (at % 2 * 2 ** np.arange(len(at))[:, None]).sum(axis=0)


def _greedy(num_sites: int, edges: np.ndarray) -> np.ndarray:
    both = np.concatenate([edges, edges[:, ::-1]])
    both = both[np.argsort(both[:, 0], kind="stable")]
    return greedy_colors(np.searchsorted(both[:, 0], np.arange(num_sites + 1)), both[:, 1], distance=1)


def greedy_colors(start: np.ndarray, neighbors: np.ndarray, *, distance: int) -> np.ndarray:
    """Color of every site, such that sites up to ``distance`` (1 or 2) edges apart differ; sites of most neighbors first.

    The neighbors of site i are ``neighbors[start[i]:start[i + 1]]``.
    """
    order = np.argsort(-np.diff(start), kind="stable").tolist()
    start, neighbors = start.tolist(), neighbors.tolist()
    color = [-1] * (len(start) - 1)
    for site in order:
        near = neighbors[start[site] : start[site + 1]]
        taken = {color[other] for other in near}
        for other in near if distance == 2 else ():
            taken.update([color[far] for far in neighbors[start[other] : start[other + 1]]])
        color[site] = next(c for c in itertools.count() if c not in taken)
    return np.array(color, np.int32)
