"""Embedded Ising clusters: signs of whole clusters flip at once, on any graph.

With φ_i = σ_i |φ_i| the hopping term is an Ising model of couplings w_ij |φ_i| |φ_j|, of any sign. A bond between sites of a
satisfied edge (w_ij φ_i φ_j > 0) is set with probability 1 − exp(−2 w_ij φ_i φ_j). Given the bonds, the clusters C that they
make have independent signs of odds exp(−ΔU_C), where ΔU_C = Σ_{i∈C} [U_i(−φ_i) − U_i(φ_i)] of the terms of single sites.

* Where these are even, ΔU_C = 0 and any choice of clusters that depends on the bonds alone is exact. The largest cluster
  always flips: this reverses the correlations of all others with it (an antithetic move), which a flip with probability ½ would
  only erase. Each of the others flips with probability ½ (1 − x)⁴, x being the share of sites in the largest one. On square
  lattices one cluster is found much faster than all are labeled: that of a site with many bonds, nearly always the largest,
  flips alone, and occasionally that of a random site.
* With sources every cluster flips with probability 1/(1 + exp(ΔU_C)).

Colored sweeps move the moduli.

Sources: R. H. Swendsen and J.-S. Wang, Phys. Rev. Lett. 58 (1987) 86; R. C. Brower and P. Tamayo, Phys. Rev. Lett. 62 (1989)
1087; U. Wolff, Phys. Rev. Lett. 62 (1989) 361.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from ..energy.compiled import CompiledModel
from .bonds import EdgeBonds, ShiftBonds, bonds_of, labels_of
from .flood import large_cluster
from .kernel import Kernel, fields_only
from .local_hmc import NUM_STEPS, LocalSteps, SiteAdaptation, finish, site_energy, statistics, sweeps
from .noise import random_words, uniform
from .target import Target

if TYPE_CHECKING:
    from blackjax.base import SamplingAlgorithm

__all__ = ["CLUSTER", "cluster", "cluster_labels", "flip_clusters"]

NUM_SWEEPS = 2
CLUSTER_COST = 2  # a cluster update, counted in gradients
ANYWHERE = 1 / 8  # of the flips on square lattices: the cluster of any site, large or not, so that all signs can change
SMALL = 0.05  # of all sites: another cluster is looked for, and in the end all are labeled


def flip_clusters(target: Target, key, phi):
    """Set bonds, find clusters and flip some of them; exact for any couplings and any terms of single sites."""
    bonds_key, flip_key = jax.random.split(key)
    graph = bonds_of(target)
    bonds = graph.set(bonds_key, phi)
    if all(form.built_in and form.built_in.is_even for form in target.model.forms):
        return jnp.where(_chosen(graph, flip_key, bonds, phi.shape), -phi, phi)
    labels, energy = cluster_labels(graph, bonds, phi.shape), site_energy(target)
    gain = jax.ops.segment_sum((energy(-phi) - energy(phi)).reshape(-1), labels.reshape(-1), phi.size)
    flips = uniform(random_words(flip_key, 1, gain.shape)[0], phi.dtype) < jax.nn.sigmoid(-gain)
    return jnp.where(flips[labels], -phi, phi)


def _together(function, *arguments):
    """``function`` of arrays with a leading axis of fields, for one field; fields that are mapped over share one call.

    XLA runs plain gathers, scatters and loops much faster than batched ones.
    """

    @jax.custom_batching.custom_vmap
    def call(*arguments):
        return function(*arguments)

    @call.def_vmap
    def call_batch(axis_size, in_batched, *arguments):
        spread = [
            x if batched else jnp.broadcast_to(x, (axis_size, *x.shape))
            for x, batched in zip(arguments, in_batched, strict=True)
        ]
        found = call(*[x.reshape(-1, *x.shape[2:]) for x in spread])
        return found.reshape(axis_size, -1, *found.shape[1:]), True

    return call(*[x[None] for x in arguments])[0]


def cluster_labels(graph: ShiftBonds | EdgeBonds, bonds, shape: tuple):
    """The lowest site number of every site's cluster, in the shape of the field, from the bonds of one field."""
    num_sites = math.prod(shape)
    return _together(lambda bonds: (labels_of(graph, bonds, shape) % num_sites).reshape(-1, *shape), bonds)


def _chosen(graph: ShiftBonds | EdgeBonds, key, bonds, shape: tuple):
    """Whether every site flips, by a choice that looks at the bonds alone."""
    num_sites = math.prod(shape)

    def by_labels(keys, bonds):
        number = jnp.arange(num_sites, dtype=jnp.int32)[None]
        labels = labels_of(graph, bonds, shape)
        sizes = jnp.zeros(labels.size, jnp.int32).at[labels].add(1, mode="promise_in_bounds").reshape(len(bonds), -1)
        most = sizes.max(axis=1, keepdims=True)
        largest = number == jnp.where(sizes == most, number, num_sites).min(axis=1, keepdims=True)
        drawn = uniform(jax.vmap(lambda key: random_words(key, 1, (num_sites,))[0])(keys))
        flips = largest | (drawn < 0.5 * (1 - most / num_sites) ** 4)
        return flips.reshape(-1).at[labels].get(mode="promise_in_bounds").reshape(-1, *shape)

    def by_flood(keys, bonds):
        words = jax.vmap(lambda key: jnp.concatenate(random_words(key, 3, (1,))))(keys)
        anywhere = uniform(words[:, 2]) < ANYWHERE
        across, down = (-(bonds >> k & 1) for k in graph.nearest)  # type: ignore[union-attr]
        enough = jnp.where(anywhere, 1, math.ceil(SMALL * num_sites))
        mask, sizes = large_cluster(graph.blocks, across, down, words[:, :2], anywhere, enough)
        found = (sizes >= enough)[:, None, None]
        return jax.lax.cond(jnp.all(found), lambda: mask, lambda: jnp.where(found, mask, by_labels(keys, bonds)))

    return _together(by_flood if graph.blocks else by_labels, key, bonds)


def cluster(target: Target, tuning: LocalSteps) -> SamplingAlgorithm:
    """One cluster update of the signs, then two sweeps over all sites."""
    from blackjax.base import SamplingAlgorithm

    def init(position, key=None):
        return finish(target, position, jnp.zeros_like(position), 0)[0]

    def step(key, state):
        cluster_key, sweep_key = jax.random.split(key)
        phi = flip_clusters(target, cluster_key, state.position)
        phi, acceptance = sweeps(target, sweep_key, phi, tuning.step_size, NUM_SWEEPS)
        return finish(target, phi, acceptance, CLUSTER_COST + NUM_SWEEPS * (NUM_STEPS + 1))

    return SamplingAlgorithm(init, step)


def _objection(compiled: CompiledModel) -> str | None:
    if (reason := fields_only(compiled)) is not None:
        return reason
    forms = compiled.model.forms
    if not any(form.is_hopping for form in forms):
        return "needs a hopping term: without one there are no clusters (local_hmc samples such a model)"
    own = [form.name for form in forms if form.cliques.shape[1] > 1 and not form.is_hopping]
    if own:
        return f"cannot build clusters through the custom term {own[0]!r} of several sites"
    return None


CLUSTER = Kernel(
    "cluster",
    "clusters for the signs, colored sweeps for the moduli",
    cluster,
    statistics,
    SiteAdaptation(),
    _objection,
    changes_signs=True,
)  # fmt: skip
