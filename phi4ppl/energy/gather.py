"""Gather layout: on any graph the neighbor sum reads padded neighbor lists, one slot of all sites at a time.

Slot k of site i holds its k-th neighbor, and the edge that leads there. Sites of like degree share a table of lists, as
wide as the largest degree among them, so that a hub does not make every site pay for it.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from .hopping import Hopping

__all__ = ["gather_hopping"]

UNROLLED = 32  # up to this width every slot is a separate gather, which the compiler fuses with the rest
WASTE = 1.3  # how much larger one table may be than one a class of degrees


def gather_hopping(num_sites: int, shape: tuple[int, ...], edges) -> Hopping:
    """Hopping along any edges, an int array of shape ``(num_edges, 2)``; ``shape`` is that of a field."""
    tables, place = _tables(num_sites, edges)
    absent = [edge == len(edges) for _, edge in tables]
    first, second = np.ascontiguousarray(edges.T)

    def in_order(parts):
        return (parts[0] if place is None else _read(jnp.concatenate(parts), place)).reshape(shape)

    def plain(phi):
        flat = phi.reshape(-1)

        def one(at, free):
            return jnp.where(free, jnp.zeros((), flat.dtype), _read(flat, at)) if free.any() else _read(flat, at)

        return in_order([_over_slots(one, at, free) for (at, _), free in zip(tables, absent, strict=True)])

    def weighted(w, phi):
        flat = phi.reshape(-1)
        w = jnp.concatenate([w, jnp.zeros(1, w.dtype)])  # the coupling of a free slot
        return in_order([_over_slots(lambda at, via: _read(w, via) * _read(flat, at), *table) for table in tables])

    def products(phi):
        flat = phi.reshape(-1)
        return _read(flat, first) * _read(flat, second)

    return Hopping("gather", plain, weighted, products)


def _tables(num_sites: int, edges) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray | None]:
    """Neighbors and edge numbers of each class of sites, both ``(width, sites)``, and where each site stands in the classes.

    In a free slot stand the site itself and the number of edges. Classes are degrees up to 4, 8, 16 and so on, unless one
    table of all sites, which stand in order then, is hardly larger.
    """
    both = np.concatenate([edges, edges[:, ::-1]])
    number = np.tile(np.arange(len(edges), dtype=np.int32), 2)
    order = np.lexsort((both[:, 1], both[:, 0]))
    to, number = both[order, 1], number[order]
    degree = np.bincount(both[:, 0], minlength=num_sites)
    start = np.cumsum(degree) - degree
    kind = np.ceil(np.log2(np.maximum(degree, 4))).astype(int)
    classes = [np.flatnonzero(kind == k) for k in np.unique(kind)]
    if num_sites * degree.max() <= WASTE * sum(len(sites) * degree[sites].max() for sites in classes):
        classes = [np.arange(num_sites)]
    tables = []
    for sites in classes:
        slot = np.arange(max(1, degree[sites].max()))[:, None]
        taken = slot < degree[sites]
        at = np.where(taken, start[sites] + slot, 0)
        tables.append((np.where(taken, to[at], sites).astype(np.int32), np.where(taken, number[at], len(edges))))
    place = np.argsort(np.concatenate(classes)).astype(np.int32)
    return tables, place if len(classes) > 1 else None


def _read(values, at):
    return values.at[at].get(mode="promise_in_bounds")


def _over_slots(term, *lists):
    """Σ_k term(slot k of each list), shape ``(num_sites,)``."""
    if len(lists[0]) > UNROLLED:
        return jnp.sum(term(*lists), axis=0)
    total = term(*(rows[0] for rows in lists))
    for slot in zip(*(rows[1:] for rows in lists), strict=True):
        total += term(*slot)
    return total
