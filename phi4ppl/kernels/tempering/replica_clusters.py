"""Houdayer's move for continuous fields: two replicas exchange the values on clusters where their signs differ.

Of two fields a and b of one action take s = a + b and d = a − b. To exchange the values of a site changes the sign of d there
and leaves s as it is. Terms of single sites do not notice, and of the hopping terms

    −w_ij (a_i a_j + b_i b_j) = −½ w_ij (s_i s_j + d_i d_j),

so that an exchange on a set C of sites costs ΔS_C = Σ_{i∈C, j∉C} w_ij d_i d_j, terms of its boundary alone. The clusters are
those of sites with a_i b_i < 0, connected by edges with w ≠ 0. An exchange does not change a_i b_i: it leads to the same
clusters. No two of them are neighbors, so their costs do not depend on each other, and each is exchanged with probability
1/(1 + exp(ΔS_C)): a heat bath, which nothing can reject. Where all |φ_i| are one (Ising spins), d = 0 outside the clusters and
ΔS_C = 0, which is the move of J. Houdayer, Eur. Phys. J. B 22 (2001) 479, for any graph and any signs of w.

Where S(−φ) = S(φ), b and −b are as good, and the clusters are those of the rarer sign of a_i b_i: the others would mostly be
one large cluster, whose exchange amounts to giving the replicas each other's names.

The move helps as long as no cluster percolates. On a square lattice half of the sites are not enough to do so (threshold
0.593). On a cubic lattice (0.312), on random graphs of many neighbors and on complete ones they are: one cluster then takes
nearly all sites of the rarer sign.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ..bonds import EdgeBonds, labels_of
from ..noise import random_words, uniform
from ..target import Target

__all__ = ["exchange_clusters"]


def _is_even(model) -> bool:
    return all(form.built_in and form.built_in.is_even for form in model.forms)


def exchange_clusters(target: Target, key, first, second):
    """Both replicas after the exchange of clusters, and the share of sites in the largest cluster."""
    hopping = [(form, jnp.asarray(value)) for form, value in target.model.interactions if form.is_hopping]
    edges = np.concatenate([form.cliques for form, _ in hopping])
    w = jnp.concatenate([jnp.broadcast_to(v, (len(form.cliques),)) for form, v in hopping]).astype(first.dtype)
    a, b = first.reshape(-1), second.reshape(-1)
    opposite = a * b < 0
    turn = jnp.ones_like(a[:1])  # −1 to look at −b
    if _is_even(target.model):
        often = 2 * jnp.sum(opposite) > a.size
        opposite, turn = opposite ^ often, jnp.where(often, -turn, turn)
    d = a - turn * b
    here, there = edges.T
    bonds = -(opposite[here] & opposite[there] & (w != 0)).astype(jnp.int32)
    labels = labels_of(EdgeBonds(edges, w), bonds[None], (a.size,))
    cost = w * d[here] * d[there]
    total = jnp.zeros_like(a)
    for inside, outside in ((here, there), (there, here)):
        total = total.at[labels[inside]].add(jnp.where(opposite[inside] & ~opposite[outside], cost, 0))
    flips = uniform(random_words(key, 1, a.shape)[0], a.dtype) < jax.nn.sigmoid(-total)
    swap = opposite & flips[labels]
    sizes = jnp.zeros_like(a).at[labels].add(opposite)
    one, other = jnp.where(swap, turn * b, a), jnp.where(swap, turn * a, b)
    return one.reshape(first.shape), other.reshape(first.shape), sizes.max() / a.size
