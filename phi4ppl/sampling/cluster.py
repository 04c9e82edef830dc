"""Embedded Ising clusters: signs of whole clusters flip at once, on any graph.

With φ_i = σ_i |φ_i| the hopping term is an Ising model of couplings w_ij |φ_i| |φ_j|, of any sign. A bond between sites of a
satisfied edge (w_ij φ_i φ_j > 0) is set with probability 1 − exp(−2 w_ij φ_i φ_j); a cluster C of bonds then flips with
probability 1/(1 + exp(ΔU_C)), where ΔU_C = Σ_{i∈C} [U_i(−φ_i) − U_i(φ_i)] of the terms of single sites (zero when these are
even, so that sources cost nothing but a sum). A coloured sweep moves the moduli.

Sources: R. H. Swendsen and J.-S. Wang, Phys. Rev. Lett. 58 (1987) 86; R. C. Brower and P. Tamayo, Phys. Rev. Lett. 62 (1989)
1087; labels by minima hooked onto roots and shortcut, Y. Zhang, A. Azad and Z. Hu, FastSV, SIAM PP20 (2020).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from ..lattice import Lattice
from ..potential import CompiledModel
from ..potential.stencil import coupling_fields, offsets_of, shifts
from .kernels import Kernel, fields_only
from .noise import random_bits, uniform
from .sites import NUM_STEPS, LocalSteps, SiteAdaptation, finish, site_energy, statistics, sweep
from .target import Target

if TYPE_CHECKING:
    from blackjax.base import SamplingAlgorithm

__all__ = ["CLUSTER", "cluster", "cluster_labels", "flip_clusters"]

NUM_SWEEPS = 2
CLUSTER_COST = 2  # a cluster update, counted in gradients
NOWHERE = np.int32(2**31 - 1)  # a label beyond all others, and all bits that a label may have


class _Shifts:
    """Bonds of a regular lattice: one array of the shape of the field for every offset d, from x to x + d."""

    passes = 2  # of `lowest` between two hooks, which cost more

    def __init__(self, lattice: Lattice, translations: list):
        """``translations``: the offsets of every hopping term, and its coupling."""
        self.lattice = lattice
        self.coupling: dict[tuple, jax.Array] = {}
        for offsets, value in translations:
            for offset, field in zip(offsets, coupling_fields(lattice, value, offsets), strict=True):
                self.coupling[offset] = self.coupling.get(offset, 0) + field

    def set(self, key, phi):
        """Bonds, −1 where set and else 0, shape ``(num_offsets, *shape)``; a random bit a site that nothing else uses."""
        bits = random_bits(key, (len(self.coupling), *phi.shape))
        ahead, _ = shifts(self.lattice, phi, list(self.coupling))
        bonds = [
            uniform(bits[k], phi.dtype) > jnp.exp(-2 * w.astype(phi.dtype) * phi * ahead[k])
            for k, w in enumerate(self.coupling.values())
        ]
        return _finished((-jnp.stack(bonds).astype(jnp.int32), bits[0] & 1))

    def walls(self, bonds):
        """Of several fields (leading axis): all bits of a label where no bond leads to that neighbour, 0 where one does."""
        ahead, behind = list(jnp.moveaxis(bonds, 1, 0)), []
        for offset, bond in zip(self.coupling, ahead, strict=True):
            behind += jax.vmap(lambda field, d=offset: shifts(self.lattice, field, [d])[1])(bond)
        return [~bond & NOWHERE for bond in ahead + behind]

    def lowest(self, walls, labels):
        """Lowest label among a site and those bonded to it, for several fields (leading axis)."""
        ahead, behind = jax.vmap(lambda x: shifts(self.lattice, x, list(self.coupling)))(labels)
        for neighbour, wall in zip((*ahead, *behind), walls, strict=True):
            labels = jnp.minimum(labels, neighbour | wall)
        return labels


class _Edges:
    """Bonds of any graph, one an edge; a site of many neighbours costs no more than its edges."""

    passes = 1

    def __init__(self, edges: np.ndarray, coupling):
        self.edges, self.coupling = edges, coupling

    def set(self, key, phi):
        """As `_Shifts.set`: bonds by edge."""
        flat = phi.reshape(-1)
        bits = random_bits(key, (len(self.edges) + flat.size,))
        drawn = uniform(bits[flat.size :], phi.dtype)
        aligned = self.coupling.astype(phi.dtype) * flat[self.edges[:, 0]] * flat[self.edges[:, 1]]
        return -(drawn > jnp.exp(-2 * aligned)).astype(jnp.int32), (bits[: flat.size] & 1).reshape(phi.shape)

    def walls(self, bonds):
        """As `_Shifts.walls`, by edge."""
        return ~bonds & NOWHERE

    def lowest(self, walls, labels):
        """As `_Shifts.lowest`."""
        num_fields, num_sites = len(labels), labels[0].size
        shift = num_sites * jnp.arange(num_fields, dtype=jnp.int32)[:, None]
        ends = [shift + jnp.asarray(end, jnp.int32)[None] for end in self.edges.T]
        lowest = flat = labels.reshape(-1)
        for here, there in (ends, ends[::-1]):
            lowest = lowest.at[here].min(flat[there] | walls, mode="promise_in_bounds")
        return lowest.reshape(labels.shape)


def _finished(tree):
    """The same numbers, but XLA computes them before they are used: it would compute them anew for every use on the CPU.

    No pass of the compiler looks through two rounds of a loop; they cost less than a tenth of a nanosecond a number.
    """
    return jax.lax.fori_loop(0, 2, lambda k, x: jax.tree.map(lambda leaf: leaf ^ (k >> 1).astype(leaf.dtype), x), tree)


def _bonds(target: Target) -> _Shifts | _Edges:
    terms = zip(target.forms, target.values, strict=True)
    hopping = [(form, jnp.asarray(value)) for form, value in terms if form.built_in == "hopping"]
    translations = [(offsets_of(target.lattice, form.cliques), value) for form, value in hopping]
    if all(offsets for offsets, _ in translations):
        return _Shifts(target.lattice, translations)
    edges = np.concatenate([form.cliques for form, _ in hopping])
    coupling = jnp.concatenate([jnp.broadcast_to(value, (len(form.cliques),)) for form, value in hopping])
    return _Edges(edges, coupling)


def cluster_labels(graph: _Shifts | _Edges, bonds, shape: tuple):
    """The lowest site number of every site's cluster, in the shape of the field, from the bonds of one field.

    Fields that are mapped over are labelled together, as one graph of many parts: XLA runs plain gathers and scatters much
    faster than batched ones.
    """

    @jax.custom_batching.custom_vmap
    def label(bonds):
        return _label_fields(graph, bonds, shape)

    @label.def_vmap
    def label_batch(axis_size, in_batched, bonds):
        labels = label(bonds.reshape(-1, *bonds.shape[2:]))
        return labels.reshape(axis_size, -1, *shape), True

    return label(bonds[None])[0]


def _label_fields(graph: _Shifts | _Edges, bonds, shape: tuple):
    """Labels of several fields, shape ``(num_fields, *shape)``; bonds with a leading axis of fields."""
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
    first = num_sites * jnp.arange(num_fields, dtype=jnp.int32)
    return labels.reshape(num_fields, *shape) - first.reshape(-1, *[1] * len(shape))


def flip_clusters(target: Target, key, phi):
    """Set bonds, find clusters and flip each by a heat bath; exact for any couplings and any terms of single sites."""
    bonds_key, flip_key = jax.random.split(key)
    graph = _bonds(target)
    bonds, free_bit = graph.set(bonds_key, phi)
    labels = cluster_labels(graph, bonds, phi.shape)
    if all(form.built_in in ("hopping", "mass", "quartic") for form in target.forms):
        flips = free_bit.reshape(-1) != 0
    else:
        energy = site_energy(target)
        gain = jax.ops.segment_sum((energy(-phi) - energy(phi)).reshape(-1), labels.reshape(-1), phi.size)
        flips = uniform(random_bits(flip_key, gain.shape), phi.dtype) < jax.nn.sigmoid(-gain)
    return jnp.where(flips[labels], -phi, phi)


def cluster(target: Target, tuning: LocalSteps) -> SamplingAlgorithm:
    """One cluster update of the signs, then two sweeps over all sites, which cost less than the clusters."""
    from blackjax.base import SamplingAlgorithm

    def init(position, key=None):
        return finish(target, position, jnp.zeros_like(position), 0)[0]

    def step(key, state):
        cluster_key, sweep_key = jax.random.split(key)
        phi = flip_clusters(target, cluster_key, state.position)
        # a loop, because two copies of a sweep in a row are fused into one slow program
        phi, acceptance = jax.lax.fori_loop(
            0, NUM_SWEEPS, lambda k, now: sweep(target, jax.random.fold_in(sweep_key, k), now[0], tuning.step_size),
            (phi, jnp.zeros_like(phi)),
        )  # fmt: skip
        return finish(target, phi, acceptance, CLUSTER_COST + NUM_SWEEPS * (NUM_STEPS + 1))

    return SamplingAlgorithm(init, step)


def _objection(compiled: CompiledModel) -> str | None:
    if (reason := fields_only(compiled)) is not None:
        return reason
    forms = compiled.model._forms
    if not any(form.built_in == "hopping" for form in forms):
        return "needs a hopping term: without one there are no clusters (metropolis samples such a model)"
    own = [form.name for form in forms if form.cliques.shape[1] > 1 and form.built_in != "hopping"]
    if own:
        return f"cannot build clusters through the own term {own[0]!r} of several sites"
    return None


CLUSTER = Kernel(
    "cluster",
    "Swendsen-Wang clusters for the signs, coloured sweeps for the moduli",
    cluster,
    statistics,
    SiteAdaptation(),
    _objection,
    changes_signs=True,
)  # fmt: skip
