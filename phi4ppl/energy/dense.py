"""Dense layout: where every site of one layer, or of the whole graph, meets every other, W is stored as a matrix.

With one coupling for all edges no matrix is needed: Σ_{j≠i} φ_j = Σφ − φ_i, and between two layers it is the sum of the
other layer.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax

from .hopping import Hopping

__all__ = ["DENSE_LIMIT", "dense_hopping"]

DENSE_LIMIT = 2**15  # sites of a complete graph: its matrix takes 4 GiB in float32, and edge numbers still fit in int32


def dense_hopping(num_sites: int, shape: tuple[int, ...], edges) -> Hopping | None:
    """Hopping along all edges of a complete bipartite graph, or of a complete graph of at most ``DENSE_LIMIT`` sites.

    None for other edges. The order of the edges is that of `phi4ppl.lattice.bipartite` and `complete`.
    """
    if shape != (num_sites,) or not len(edges):
        return None
    visible = int(edges[0, 1])
    if len(edges) == visible * (num_sites - visible) and np.array_equal(edges, _bipartite_edges(visible, num_sites)):
        return _bipartite(visible, num_sites - visible)
    pairs = num_sites * (num_sites - 1) // 2
    if len(edges) == pairs and num_sites <= DENSE_LIMIT and np.array_equal(edges, _complete_edges(num_sites)):
        return _complete(num_sites, edges)
    return None


def _bipartite_edges(visible: int, num_sites: int):
    return np.stack(
        [np.repeat(np.arange(visible), num_sites - visible), np.tile(np.arange(visible, num_sites), visible)], 1
    )


def _complete_edges(num_sites: int):
    return np.stack(np.triu_indices(num_sites, 1), axis=1)


def _bipartite(visible: int, hidden: int) -> Hopping:
    """W = [[0, B], [Bᵀ, 0]] with the block B of shape (visible, hidden): the couplings as they come."""

    def plain(phi):
        sums = jnp.sum(phi[visible:]), jnp.sum(phi[:visible])
        return jnp.concatenate([jnp.full(n, s) for n, s in zip((visible, hidden), sums, strict=True)])

    def weighted(w, phi):
        block = w.reshape(visible, hidden)
        return jnp.concatenate([block @ phi[visible:], phi[:visible] @ block])

    def products(phi):
        return jnp.outer(phi[:visible], phi[visible:]).reshape(-1)

    return Hopping("dense", plain, weighted, products)


def _complete(num_sites: int, edges) -> Hopping:
    """W_ij from the couplings of the upper triangle, where edge ij has number i(2n − i − 1)/2 + j − i − 1."""
    first, second = np.ascontiguousarray(edges.T)

    def plain(phi):
        return jnp.sum(phi) - phi

    def weighted(w, phi):
        row, column = (lax.broadcasted_iota(jnp.int32, (num_sites, num_sites), axis) for axis in (0, 1))
        low, high = jnp.minimum(row, column), jnp.maximum(row, column)
        number = jnp.clip(low * (2 * num_sites - low - 1) // 2 + high - low - 1, 0, len(edges) - 1)
        entry = w.at[number].get(mode="promise_in_bounds")
        return jnp.where(row == column, jnp.zeros((), w.dtype), entry) @ phi

    def products(phi):
        return phi[first] * phi[second]

    return Hopping("dense", plain, weighted, products)
