"""Bonds between the sites of a field, on any graph, and labels of the clusters that they make.

Source of the labels, minima hooked onto roots and shortcut: Y. Zhang, A. Azad and Z. Hu, FastSV, SIAM PP20 (2020).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from .._typing import Bonds, Field, SiteLabels
from ..energy.stencil import coupling_fields, offsets_of, shifts
from ..lattice.frozen import Lattice
from .flood import blocks_of
from .noise import finished, random_words, uniform
from .target import Target

__all__ = ["EdgeBonds", "ShiftBonds", "bonds_of", "labels_of"]

MAX_OFFSETS = 31  # bits of a whole number
NOWHERE = np.int32(2**31 - 1)  # a label beyond all others, and all bits that a label may have


class ShiftBonds:
    """Bonds of a regular lattice, as one whole number per site: bit k for the bond from x to x + d of the k-th offset d."""

    passes = 2  # of `lowest` between two hooks, which cost more

    def __init__(self, lattice: Lattice, translations: list):
        """``translations``: the offsets of every hopping term, and its coupling."""
        self.lattice = lattice
        self.coupling: dict[tuple, jax.Array] = {}
        for offsets, value in translations:
            for offset, field in zip(offsets, coupling_fields(lattice, value, offsets), strict=True):
                self.coupling[offset] = self.coupling.get(offset, 0) + field
        self.blocks = blocks_of(lattice, self.coupling)
        self.nearest = [list(self.coupling).index(offset) for offset in ((0, 1), (1, 0))] if self.blocks else []

    def set(self, key: jax.Array, phi: Field) -> Bonds:
        """Bonds of one field."""
        bits = random_words(key, len(self.coupling), phi.shape)
        ahead, _ = shifts(self.lattice, phi, list(self.coupling))
        bonds = jnp.zeros(phi.shape, jnp.int32)
        for k, w in enumerate(self.coupling.values()):
            kept = uniform(bits[k], phi.dtype) > jnp.exp(-2 * w.astype(phi.dtype) * phi * ahead[k])
            bonds |= kept.astype(jnp.int32) << k
        return finished(bonds)

    def walls(self, bonds):
        """Of several fields (leading axis): all bits of a label where no bond leads to that neighbor, 0 where one does."""
        behind = jax.vmap(lambda field: shifts(self.lattice, field, list(self.coupling))[1])(bonds)
        both = (*[bonds] * len(behind), *behind)
        return [((bond >> k % len(behind) & 1) - 1) & NOWHERE for k, bond in enumerate(both)]

    def lowest(self, walls, labels):
        """Lowest label among a site and those bonded to it, for several fields (leading axis)."""
        ahead, behind = jax.vmap(lambda x: shifts(self.lattice, x, list(self.coupling)))(labels)
        for neighbor, wall in zip((*ahead, *behind), walls, strict=True):
            labels = jnp.minimum(labels, neighbor | wall)
        return labels


class EdgeBonds:
    """Bonds of any graph, one per edge; a site of many neighbors costs no more than its edges."""

    passes = 1
    blocks = None

    def __init__(self, edges: np.ndarray, coupling):
        self.edges, self.coupling = edges, coupling

    def set(self, key: jax.Array, phi: Field) -> Bonds:
        """Bonds of one field by edge: −1 where a bond is set, else 0."""
        flat, (bits,) = phi.reshape(-1), random_words(key, 1, (len(self.edges),))
        aligned = self.coupling.astype(phi.dtype) * flat[self.edges[:, 0]] * flat[self.edges[:, 1]]
        return -(uniform(bits, phi.dtype) > jnp.exp(-2 * aligned)).astype(jnp.int32)

    def walls(self, bonds):
        """All bits of a label for edges without a bond, 0 for edges with one."""
        return ~bonds & NOWHERE

    def lowest(self, walls, labels):
        """Lowest label among a site and those bonded to it, for several fields (leading axis)."""
        num_fields, num_sites = len(labels), labels[0].size
        shift = num_sites * jnp.arange(num_fields, dtype=jnp.int32)[:, None]
        ends = [shift + jnp.asarray(end, jnp.int32)[None] for end in self.edges.T]
        lowest = flat = labels.reshape(-1)
        for here, there in (ends, ends[::-1]):
            lowest = lowest.at[here].min(flat[there] | walls, mode="promise_in_bounds")
        return lowest.reshape(labels.shape)


def bonds_of(target: Target) -> ShiftBonds | EdgeBonds:
    """How the bonds of all hopping terms are kept."""
    hopping = [(form, jnp.asarray(value)) for form, value in target.model.interactions if form.is_hopping]
    translations = [(offsets_of(target.lattice, form.cliques), value) for form, value in hopping]
    number = sum(len(offsets) for offsets, _ in translations)
    if all(offsets for offsets, _ in translations) and number <= MAX_OFFSETS:
        return ShiftBonds(target.lattice, translations)
    edges = np.concatenate([form.cliques for form, _ in hopping])
    coupling = jnp.concatenate([jnp.broadcast_to(value, (len(form.cliques),)) for form, value in hopping])
    return EdgeBonds(edges, coupling)


def labels_of(graph: ShiftBonds | EdgeBonds, bonds: Bonds, shape: tuple[int, ...]) -> SiteLabels:
    """Labels of all sites of several fields, bonds with a leading axis of fields: the number of a site of the same cluster.

    Sites are numbered through all fields, so that labels tell fields apart too.
    """
    num_fields, num_sites = len(bonds), math.prod(shape)
    walls = graph.walls(bonds)

    def improve(carry):
        labels, _ = carry
        nearby = labels.reshape(num_fields, *shape)
        lowest = jax.lax.fori_loop(0, graph.passes, lambda _, now: graph.lowest(walls, now), nearby).reshape(-1)
        # hook the old root of every site onto what the site has found, then halve the paths
        hooked = lowest.at[labels].min(lowest, mode="promise_in_bounds")
        shorter = hooked.at[hooked].get(mode="promise_in_bounds")
        return shorter, jnp.any(shorter != labels)

    start = jnp.arange(num_fields * num_sites, dtype=jnp.int32)
    labels, _ = jax.lax.while_loop(lambda carry: carry[1], improve, (start, jnp.array(True)))
    return labels
