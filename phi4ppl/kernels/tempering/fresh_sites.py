"""Independent sites drawn afresh: an independence sampler whose proposal is a table of every site's density.

x = s sinh t is cut into cells of equal width in t, fine near zero and wide far out. A cell is proposed with its probability
at the center, a point in it uniformly in t; accept/reject at every site corrects what the table misses, so that the move is
exact for any one-site terms, of any number of wells.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..local_hmc import site_energy
from ..target import Target

__all__ = ["SiteTables", "fresh_sites", "site_tables"]

CELLS = 1024
SCALE, REACH = 0.05, 10.0  # up to 0.05 sinh(10) = 550
FLOOR = -60.0  # of the logarithm of a cell's probability


class SiteTables(NamedTuple):
    """``cumulative`` and ``log_weight`` of the cells, shape (sites or 1, cells)."""

    cumulative: jax.Array
    log_weight: jax.Array


def _x(t):
    return SCALE * jnp.sinh(t), jnp.log(SCALE * jnp.cosh(t))


def site_tables(target: Target, dtype) -> SiteTables:
    """Tables of exp(−u_i) of the terms of single sites; one row for all sites where couplings and cliques do not differ."""
    energy, shape = site_energy(target), target.lattice.field_shape
    t = -REACH + 2 * REACH * (jnp.arange(CELLS, dtype=dtype) + 0.5) / CELLS
    x, log_slope = _x(t)
    own = [(form, value) for form, value in target.model.interactions if form.cliques.shape[1] == 1]
    same = all(jnp.ndim(value) == 0 and len(form.cliques) == math.prod(shape) for form, value in own)
    rows = slice(0, 1) if same else slice(None)
    u = jax.lax.map(lambda at: energy(jnp.full(shape, at, dtype)).reshape(-1)[rows], x).T
    log_weight = jnp.where(jnp.isnan(u), -jnp.inf, log_slope[None] - u)
    log_weight = jnp.maximum(log_weight - log_weight.max(axis=1, keepdims=True), FLOOR)
    weight = jnp.cumsum(jnp.exp(log_weight), axis=1)
    return SiteTables(weight / weight[:, -1:], log_weight)


def fresh_sites(target: Target, tables: SiteTables, key, phi):
    """A field after a proposal of a new value at every site; ``target`` has no terms of several sites, or none that count."""
    cell_key, within_key, accept_key = jax.random.split(key, 3)
    energy, flat = site_energy(target), phi.reshape(-1)
    drawn = jax.random.uniform(cell_key, flat.shape, phi.dtype)
    rows = jnp.broadcast_to(tables.cumulative, (flat.size, CELLS))
    cell = jnp.minimum(jax.vmap(jnp.searchsorted)(rows, drawn), CELLS - 1)
    within = jax.random.uniform(within_key, flat.shape, phi.dtype)
    t = -REACH + 2 * REACH * (cell + within) / CELLS
    new, log_slope = _x(t)

    def log_importance(field, t, log_slope, cell):
        """log of density over proposal, by site."""
        row = jnp.arange(flat.size) if len(tables.log_weight) > 1 else 0
        return log_slope - energy(field.reshape(phi.shape)).reshape(-1) - tables.log_weight[row, cell]

    t_old = jnp.arcsinh(flat / SCALE)
    place = (t_old + REACH) * CELLS / (2 * REACH)
    cell_old = jnp.clip(place.astype(jnp.int32), 0, CELLS - 1)
    gain = log_importance(new, t, log_slope, cell) - log_importance(flat, t_old, _x(t_old)[1], cell_old)
    inside = jnp.abs(t_old) < REACH  # elsewhere the way back is closed
    moves = inside & (jnp.log1p(-jax.random.uniform(accept_key, flat.shape, phi.dtype)) <= gain)
    return jnp.where(moves, new, flat).reshape(phi.shape)
