"""Where the Hessian of latent fields may differ from zero, and the few products with it that tell its entries apart."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ..energy.factors import Order
from ..lattice.coloring import greedy_colors

__all__ = ["MAX_DENSE", "Probes", "probes_of"]

MAX_DENSE = 2000  # latent variables whose Hessian is found column by column where its graph is not known
PROBE = 1e3  # roundings by which two products with the Hessian that are the same may differ


@dataclass(frozen=True)
class Probes:
    """Vectors of zeros and ones, and for every entry of H that may differ from zero the product and the place that hold it."""

    seeds: np.ndarray  # (products, n)
    pattern: sparse.csc_matrix
    product: np.ndarray
    place: np.ndarray
    mirrored: np.ndarray  # for every entry, where its mirror image is

    @classmethod
    def of(cls, pattern: sparse.csc_matrix, groups: list[np.ndarray], wide: np.ndarray) -> Probes:
        n = pattern.shape[0]
        seeds, color = np.zeros((len(groups), n)), np.empty(n, int)
        for k, group in enumerate(groups):
            seeds[k, group], color[group] = 1.0, k
        pattern.sort_indices()
        rows, columns = pattern.indices, np.repeat(np.arange(n), np.diff(pattern.indptr))
        turned = np.isin(rows, wide)  # such rows get something of every column: read by symmetry
        product, place = np.where(turned, color[rows], color[columns]), np.where(turned, columns, rows)
        return cls(seeds, pattern, product, place, np.lexsort((columns, rows)))

    def matrix(self, products: np.ndarray) -> sparse.csc_matrix:
        """H, symmetric exactly, with an entry wherever the pattern has one."""
        entries = products[self.product, self.place]
        data = (entries + entries[self.mirrored]) / 2
        return sparse.csc_matrix((data, self.pattern.indices, self.pattern.indptr), shape=self.pattern.shape)

    @functools.cached_property
    def order(self) -> Order:
        """In which H is eliminated."""
        return Order(self.pattern)


def probes_of(sizes: dict[str, int], fields: dict, products: Callable, epsilon: float) -> Probes | None:
    """Where H may differ from zero, and vectors whose products with it tell its entries apart.

    Assumed are the cliques of every field, equal places of sites of equal size, and scalars with everything; products
    with random vectors decide whether that is all. Where it is not, every column is its own group; None if H is too large.

    Parameters
    ----------
    sizes : dict of int
        Site → number of variables, in their order.
    fields : dict of MarkovRandomField
    products : callable
        H V of the rows of V.
    epsilon : float
        The relative rounding of the products.
    """
    n = sum(sizes.values())
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    wide = np.array([starts[name] for name, size in sizes.items() if size == 1], int)  # may interact with everything
    pattern = _assumed(sizes, starts, fields, wide)
    groups = [np.array([k]) for k in wide]
    groups += [np.flatnonzero(of) for of in _told_apart(pattern, wide)]
    found = Probes.of(pattern, groups, wide)
    random = np.random.default_rng(0).normal(size=(2, n))
    exact = products(random)
    away = found.matrix(products(found.seeds)) @ random.T - exact.T
    if np.abs(away).max() < PROBE * epsilon * np.abs(exact).max():
        return found
    if n > MAX_DENSE:
        return None
    return Probes.of(sparse.csc_matrix(np.ones((n, n))), [np.array([k]) for k in range(n)], wide)


def _assumed(sizes: dict[str, int], starts: dict[str, int], fields: dict, wide: np.ndarray) -> sparse.csc_matrix:
    n = sum(sizes.values())
    pairs = [np.stack([np.arange(n)] * 2)]
    for name, model in fields.items():
        if name not in starts or sizes[name] != model.lattice.num_sites:
            continue  # copies of a field under a plate: left to the probes
        for form in model.forms:
            for i, j in itertools.combinations(range(form.cliques.shape[1]), 2):
                pairs.append(starts[name] + form.cliques[:, [i, j]].T)
    for one, two in itertools.combinations(sizes, 2):
        if sizes[one] == sizes[two] > 1:
            each = np.arange(sizes[one])
            pairs.append(np.stack([starts[one] + each, starts[two] + each]))
    for k in wide:
        pairs.append(np.stack([np.full(n, k), np.arange(n)]))
    rows, columns = np.concatenate(pairs, axis=1)
    ones = np.ones(2 * len(rows))
    both = sparse.csc_matrix((ones, (np.r_[rows, columns], np.r_[columns, rows])), shape=(n, n))
    both.data[:] = 1.0
    return both


def _told_apart(pattern: sparse.csc_matrix, wide: np.ndarray) -> list[np.ndarray]:
    """Masks of columns of one color: no two of them share a row, but for the rows of ``wide``, which are known by symmetry."""
    n = pattern.shape[0]
    narrow = np.setdiff1d(np.arange(n), wide)
    inner = pattern[narrow][:, narrow].tocsr()
    inner.setdiag(0)
    inner.eliminate_zeros()
    color = greedy_colors(inner.indptr, inner.indices, distance=2)
    masks = []
    for k in range(color.max(initial=-1) + 1):
        mask = np.zeros(n, bool)
        mask[narrow[color == k]] = True
        masks.append(mask)
    return masks
