"""Stencil layout: on a regular lattice the neighbor sum is a sum of shifted copies of the whole field.

The field is copied once, widened by a halo that holds the far side where the axis is periodic and zeros where it is open.
Every shift is then a slice of that copy. The barrier keeps the copy from being fused into the sum, where every element would
have to ask on which side of the boundary it lies.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator

import jax
import jax.numpy as jnp
from jax import lax

from ..lattice.frozen import Lattice
from .hopping import Hopping

__all__ = ["coupling_fields", "offsets_of", "shifts", "stencil_hopping"]


def stencil_hopping(lattice: Lattice, edges) -> Hopping | None:
    """Hopping along all edges, or all edges of one kind, of a regular lattice; None for other edges.

    Also None on tori so small that two translations lead to the same edge.
    """
    offsets = offsets_of(lattice, edges)
    if not offsets:
        return None
    boxes = [_box(lattice, offset) for offset in offsets]

    def plain(phi):
        ahead, behind = shifts(lattice, phi, offsets)
        return functools.reduce(operator.add, [shift for pair in zip(ahead, behind, strict=True) for shift in pair])

    def weighted(w, phi):
        ahead, behind = shifts(lattice, phi, offsets)
        parts = []
        for k, (offset, weight) in enumerate(zip(offsets, coupling_fields(lattice, w, offsets), strict=True)):
            _, (weight_behind,) = shifts(lattice, weight, [offset])
            parts += [weight * ahead[k], weight_behind * behind[k]]
        return functools.reduce(operator.add, parts)

    def products(phi):
        ahead, _ = shifts(lattice, phi, offsets)
        return jnp.concatenate([_cut(phi * a, *box).reshape(-1) for a, box in zip(ahead, boxes, strict=True)])

    return Hopping("stencil", plain, weighted, products)


def offsets_of(lattice: Lattice, edges) -> list:
    """Translations d that make all the edges, in their order, from x to x + d; empty for other edges."""
    if lattice.offsets is None:
        return []
    if edges.shape == lattice.edges.shape and (edges == lattice.edges).all():
        kinds = lattice.kinds
    else:
        same = (
            k for k in lattice.kinds if len(lattice.edges_of(k)) == len(edges) and (edges == lattice.edges_of(k)).all()
        )
        kinds = tuple(same)[:1]
    offsets = [offset for kind in kinds for offset in lattice.offsets[kind]]
    offsets = [offset for offset in offsets if 0 not in _box(lattice, offset)[1]]
    # fewer edges: on a tiny torus two translations lead to the same one
    return offsets if sum(_numbers(lattice, offsets)) == len(edges) else []


def coupling_fields(lattice: Lattice, w, offsets) -> list:
    """For every offset d the coupling of x and x + d, zero where there is no such edge; from one number, or one per edge.

    One number stays a number where every site has that edge.
    """
    if not jnp.ndim(w):
        boxes = [_box(lattice, offset) for offset in offsets]
        everywhere = [math.prod(size) == lattice.num_sites for _, size in boxes]
        return [
            w if whole else _spread(lattice, jnp.broadcast_to(w, math.prod(box[1])), *box)
            for box, whole in zip(boxes, everywhere, strict=True)
        ]
    ends = [0, *itertools.accumulate(_numbers(lattice, offsets))]
    values = [w[start:end] for start, end in itertools.pairwise(ends)]
    return [_spread(lattice, v, *_box(lattice, d)) for v, d in zip(values, offsets, strict=True)]


def _numbers(lattice: Lattice, offsets) -> list[int]:
    """How many edges every offset makes."""
    return [math.prod(_box(lattice, offset)[1]) for offset in offsets]


def _box(lattice: Lattice, offset) -> tuple[list[int], list[int]]:
    """Start and size of the box of sites x for which x + offset is on the lattice too."""
    cut = [0 if p else d for d, p in zip(offset, lattice.periodic, strict=True)]
    return [max(0, -d) for d in cut], [max(0, n - abs(d)) for n, d in zip(lattice.shape, cut, strict=True)]


def _cut(field, start, size):
    return lax.slice(field, start, [s + n for s, n in zip(start, size, strict=True)])


def _spread(lattice: Lattice, values, start, size):
    """One value per site of a box → a field that is zero elsewhere."""
    margins = [(s, n - s - k, 0) for s, k, n in zip(start, size, lattice.shape, strict=True)]
    values = values.reshape(size)
    return lax.pad(values, jnp.zeros((), values.dtype), margins) if any(map(any, margins)) else values


def shifts(lattice: Lattice, field, offsets) -> tuple[list, list]:
    """φ(x + d) and φ(x − d) for every offset d, zero beyond an open boundary."""
    width = [max(abs(offset[axis]) for offset in offsets) for axis in range(field.ndim)]
    wide = field
    for axis, periodic in enumerate(lattice.periodic):
        wide = _widen(wide, axis, width[axis], periodic)
    wide = lax.optimization_barrier(wide)

    def shift(offset):
        return _cut(wide, [w + d for w, d in zip(width, offset, strict=True)], field.shape)

    return [shift(d) for d in offsets], [shift([-k for k in d]) for d in offsets]


def _widen(field, axis: int, width: int, periodic: bool) -> jax.Array:
    """``field`` with a halo of ``width`` on both sides of one axis."""
    if not width:
        return field
    if periodic:
        size = field.shape[axis]
        last = lax.slice_in_dim(field, size - width, size, axis=axis)
        return lax.concatenate([last, field, lax.slice_in_dim(field, 0, width, axis=axis)], axis)
    margins = [(width, width, 0) if k == axis else (0, 0, 0) for k in range(field.ndim)]
    return lax.pad(field, jnp.zeros((), field.dtype), margins)
