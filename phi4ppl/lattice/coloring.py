"""Colour the sites of a field so that sites of one colour do not interact: given the others, they are independent."""

from __future__ import annotations

import functools
import itertools

import numpy as np

from .frozen import Lattice

__all__ = ["colours"]


@functools.lru_cache(maxsize=16)
def colours(lattice: Lattice, forms: tuple) -> np.ndarray:
    """Colour of every site, shape ``(num_sites,)``, from 0; no two sites of one clique share a colour.

    Chessboards on regular lattices where they fit, otherwise greedily, sites of most neighbours first (D. J. A. Welsh and
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
    start = np.searchsorted(both[:, 0], np.arange(num_sites + 1))
    neighbours = both[:, 1]
    colour = np.full(num_sites, -1, np.int32)
    for site in np.argsort(-np.diff(start), kind="stable"):
        taken = set(colour[neighbours[start[site] : start[site + 1]]].tolist())
        colour[site] = next(c for c in itertools.count() if c not in taken)
    return colour
