"""Embedded Ising clusters: signs of whole clusters flip at once, on any graph.

With φ_i = σ_i |φ_i| the hopping term is an Ising model of couplings w_ij |φ_i| |φ_j|, of any sign. A bond between sites of a
satisfied edge (w_ij φ_i φ_j > 0) is set with probability 1 − exp(−2 w_ij φ_i φ_j); a cluster C of bonds then flips with
probability 1/(1 + exp(ΔU_C)), where ΔU_C = Σ_{i∈C} [U_i(−φ_i) − U_i(φ_i)] of the terms of single sites (zero when these are
even, so that sources cost nothing but a sum). A coloured sweep moves the moduli.

Sources: R. H. Swendsen and J.-S. Wang, Phys. Rev. Lett. 58 (1987) 86; R. C. Brower and P. Tamayo, Phys. Rev. Lett. 62 (1989)
1087; labels by minima hooked onto roots and shortcut, Y. Zhang, A. Azad and Z. Hu, FastSV, SIAM PP20 (2020).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from ..lattice import Lattice
from ..potential import CompiledModel
from .kernels import Kernel, fields_only
from .noise import random_bits, uniform
from .sites import NUM_STEPS, LocalSteps, SiteAdaptation, finish, site_energy, statistics, sweep
from .target import Target

if TYPE_CHECKING:
    from blackjax.base import SamplingAlgorithm

__all__ = ["CLUSTER", "cluster", "cluster_labels", "flip_clusters"]

NUM_SWEEPS = 2
CLUSTER_COST = 2  # a cluster update, counted in gradients


NOWHERE = np.int32(2**31 - 1)


class _Shifts:
    """Bonds of a regular lattice: one array of the shape of the field for every offset d, from i to i + d."""

    def __init__(self, target: Target, plans: list):
        shape = target.lattice.shape
        self.shape = shape
        coupling: dict[tuple, jax.Array] = {}
        for plan, value in plans:
            for offset, inside, start in plan:
                if jnp.ndim(value):
                    number = np.where(inside, start + np.cumsum(inside) - 1, 0)
                    here = jnp.where(inside, value[number], 0).reshape(shape)
                else:
                    here = value if inside.all() else jnp.where(inside.reshape(shape), value, 0)
                coupling[offset] = coupling.get(offset, 0) + here
        self.coupling = coupling
        self.axes = tuple(range(-len(shape), 0))

    def _from(self, phi, offset, sign=1):
        """φ at i + sign·offset, for every i."""
        moved = [axis for axis, d in zip(self.axes, offset, strict=True) if d]
        return jnp.roll(phi, [-sign * d for d in offset if d], axis=moved)

    def set(self, key, phi):
        """Bonds that are set, shape ``(num_offsets, *shape)``, and one random bit a site that nothing else uses."""
        bits = random_bits(key, (len(self.coupling), *self.shape))
        bonds = [
            uniform(bits[k], phi.dtype) > jnp.exp(-2 * w.astype(phi.dtype) * phi * self._from(phi, offset))
            for k, (offset, w) in enumerate(self.coupling.items())
        ]
        return jnp.stack(bonds), (bits[0] & 1).astype(bool).reshape(-1)

    def lowest(self, bonds, labels):
        """Lowest label among the sites bonded to each site, for several fields (leading axis)."""
        labels = labels.reshape(-1, *self.shape)
        lowest = jnp.full_like(labels, NOWHERE)
        for k, offset in enumerate(self.coupling):
            bond = bonds[:, k]
            lowest = jnp.minimum(lowest, jnp.where(bond, self._from(labels, offset), NOWHERE))
            back = jnp.where(self._from(bond, offset, -1), self._from(labels, offset, -1), NOWHERE)
            lowest = jnp.minimum(lowest, back)
        return lowest.reshape(len(labels), -1)


class _Edges:
    """Bonds of any graph, one an edge; a site of many neighbours costs no more than its edges."""

    def __init__(self, edges: np.ndarray, coupling):
        self.edges, self.coupling = edges, coupling

    def set(self, key, phi):
        """As `_Shifts.set`: bonds by edge."""
        flat = phi.reshape(-1)
        bits = random_bits(key, (len(self.edges) + flat.size,))
        drawn = uniform(bits[flat.size :], phi.dtype)
        aligned = self.coupling.astype(phi.dtype) * flat[self.edges[:, 0]] * flat[self.edges[:, 1]]
        return drawn > jnp.exp(-2 * aligned), (bits[: flat.size] & 1).astype(bool)

    def lowest(self, bonds, labels):
        """As `_Shifts.lowest`."""
        num_fields, num_sites = labels.shape
        shift = num_sites * jnp.arange(num_fields, dtype=jnp.int32)[:, None]
        ends = [shift + jnp.asarray(end, jnp.int32)[None] for end in self.edges.T]
        lowest, flat = jnp.full(labels.size, NOWHERE), labels.reshape(-1)
        for here, there in (ends, ends[::-1]):
            seen = jnp.where(bonds, flat[there], NOWHERE)
            lowest = lowest.at[here].min(seen, mode="promise_in_bounds")
        return lowest.reshape(labels.shape)


def _translations(lattice: Lattice, edges: np.ndarray) -> list | None:
    """Edges of a regular lattice as (offset, sites that have it, number of the first edge); None for other edges."""
    if lattice.offsets is None:
        return None
    if np.array_equal(edges, lattice.edges):
        kinds = lattice.kinds
    else:
        kinds = [k for k in lattice.kinds if np.array_equal(edges, lattice.edges_of(k))]
    size = np.array(lattice.shape)[:, None]
    sites = np.indices(lattice.shape).reshape(len(lattice.shape), -1)
    plan, start = [], 0
    for kind in kinds:
        for offset in lattice.offsets[kind]:
            at = sites + np.array(offset)[:, None]
            inside = np.all(np.array(lattice.periodic)[:, None] | ((at >= 0) & (at < size)), axis=0)
            plan.append((offset, inside, start))
            start += int(inside.sum())
    return plan if start == len(edges) else None  # fewer edges: some coincide on a tiny torus


def _bonds(target: Target) -> _Shifts | _Edges:
    terms = zip(target.forms, target.values, strict=True)
    hopping = [(form, jnp.asarray(value)) for form, value in terms if form.built_in == "hopping"]
    plans = [(_translations(target.lattice, form.cliques), value) for form, value in hopping]
    if all(plan for plan, _ in plans):
        return _Shifts(target, plans)
    edges = np.concatenate([form.cliques for form, _ in hopping])
    coupling = jnp.concatenate([jnp.broadcast_to(value, (len(form.cliques),)) for form, value in hopping])
    return _Edges(edges, coupling)


def cluster_labels(graph: _Shifts | _Edges, bonds, num_sites: int):
    """The lowest site number of every site's cluster, shape ``(num_sites,)``, from the bonds of one field.

    Fields that are mapped over are labelled together, as one graph of many parts: XLA runs plain gathers and scatters much
    faster than batched ones.
    """

    @jax.custom_batching.custom_vmap
    def label(bonds):
        return _label_fields(graph, bonds, num_sites)

    @label.def_vmap
    def label_batch(axis_size, in_batched, bonds):
        labels = label(bonds.reshape(-1, *bonds.shape[2:]))
        return labels.reshape(axis_size, -1, num_sites), True

    return label(bonds[None])[0]


def _label_fields(graph: _Shifts | _Edges, bonds, num_sites: int):
    """Labels of several fields, shape ``(num_fields, num_sites)``; bonds with a leading axis of fields."""
    num_fields = len(bonds)

    def improve(carry):
        parent, grandparent, _ = carry
        lowest = graph.lowest(bonds, grandparent.reshape(num_fields, num_sites)).reshape(-1)
        # hook the root onto the lowest label seen by any of its sites, and every site too; then halve the paths
        hooked = parent.at[parent].min(lowest, mode="promise_in_bounds")
        parent = jnp.minimum(jnp.minimum(hooked, lowest), grandparent)
        shorter = parent.at[parent].get(mode="promise_in_bounds")
        return parent, shorter, jnp.any(shorter != grandparent)

    start = jnp.arange(num_fields * num_sites, dtype=jnp.int32)
    labels = jax.lax.while_loop(lambda carry: carry[2], improve, (start, start, jnp.array(True)))[1]
    return labels.reshape(num_fields, num_sites) - num_sites * jnp.arange(num_fields, dtype=jnp.int32)[:, None]


def flip_clusters(target: Target, key, phi):
    """Set bonds, find clusters and flip each by a heat bath; exact for any couplings and any terms of single sites."""
    bonds_key, flip_key = jax.random.split(key)
    graph = _bonds(target)
    bonds, free_bit = graph.set(bonds_key, phi)
    labels = cluster_labels(graph, bonds, target.lattice.num_sites)
    if all(form.built_in in ("hopping", "mass", "quartic") for form in target.forms):
        flips = free_bit
    else:
        energy = site_energy(target)
        gain = jax.ops.segment_sum((energy(-phi) - energy(phi)).reshape(-1), labels, target.lattice.num_sites)
        flips = uniform(random_bits(flip_key, gain.shape), phi.dtype) < jax.nn.sigmoid(-gain)
    return jnp.where(flips[labels].reshape(phi.shape), -phi, phi)


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
