"""Block Gibbs chains: sweeps of both layers, and those of training with copies at smaller weights that exchange states."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from .._typing import HiddenLayer, Levels, Scalar, VisibleLayer
from ..kernels.tempering import partners
from .machine import RestrictedBoltzmannMachine

__all__ = ["advance", "draws_of", "gaussian_draws", "sweep"]


def sweep(machine: RestrictedBoltzmannMachine, key: jax.Array, h: HiddenLayer) -> tuple[VisibleLayer, HiddenLayer]:
    """One sweep that keeps both layers: v given h, then h given v."""
    below, above = jax.random.split(key)
    v = machine.draw_visible(below, h)
    return v, machine.draw_hidden(above, v)


@functools.partial(jax.jit, static_argnames=("num_chains", "num_warmup", "num_draws", "thinning"))
def draws_of(machines, key: jax.Array, num_chains: int, num_warmup: int, num_draws: int, thinning: int = 1):
    """Draws of both layers at many machines of one shape, whose couplings have a leading axis.

    Chains start from units without weights. Returns v and h of shape ``(machine, chain, draw, units)``.
    """
    number = machines.weights.shape[0]
    first, later = jax.random.split(key)

    def start(machine, key):
        return machine.hidden.draw(key, jnp.zeros((num_chains, machine.hidden.size), machine.weights.dtype))

    def step(h, count):
        keys = jax.random.split(jax.random.fold_in(later, count), number)
        v, h = jax.vmap(sweep)(machines, keys, h)
        return h, v

    def draw(h, count):
        h, v = jax.lax.scan(step, h, num_warmup + count * thinning + jnp.arange(thinning))
        return h, (v[-1], h)

    h = jax.vmap(start)(machines, jax.random.split(first, number))
    h, _ = jax.lax.scan(lambda h, count: (step(h, count)[0], None), h, jnp.arange(num_warmup))
    _, (v, h) = jax.lax.scan(draw, h, jnp.arange(num_draws))
    return jnp.moveaxis(v, 0, 2), jnp.moveaxis(h, 0, 2)


def advance(machine: RestrictedBoltzmannMachine, key: jax.Array, states: Levels, sweeps: int) -> tuple[Levels, Scalar]:
    """Block Gibbs sweeps of chains at the weights βw, β = 0, …, 1 in equal steps, and exchanges between neighbors.

    Parameters
    ----------
    states : array, shape (levels, chains, visible.size)
        The last level has the weights of the machine; with one level there is nothing to exchange.
    sweeps : int
        Sweeps of every chain; an exchange follows each of them.

    Returns
    -------
    states, rate
        ``rate`` is the share of exchanges that were accepted, nan with one level.

    Notes
    -----
    Two neighbors exchange v with probability min(1, p_β(v′) p_β′(v)/p_β(v) p_β′(v′)), p the marginals of v, of which only
    the hidden log-normalizers differ. All p_β stay as they are.
    """
    levels = states.shape[0]
    scale = np.linspace(0, 1, levels) if levels > 1 else np.ones(1)
    scale = jnp.asarray(scale, states.dtype)[:, None, None]

    # a random first pair: a training calls this for one sweep per update, and would never exchange levels 1 and 2 otherwise
    first = jax.random.randint(jax.random.fold_in(key, sweeps), (), 0, 2)

    def sweep(number, carry):
        v, accepted = carry
        above, below, swap = jax.random.split(jax.random.fold_in(key, number), 3)
        h = machine.hidden.draw(above, scale * (v @ machine.weights))
        v = machine.visible.draw(below, scale * (h @ machine.weights.T))
        if levels == 1:
            return v, accepted
        v, new = _exchange(machine, swap, v, scale, (number + first) % 2)
        return v, accepted + new

    states, accepted = jax.lax.fori_loop(0, sweeps, sweep, (states, jnp.zeros((), states.dtype)))
    return states, accepted / sweeps if levels > 1 else jnp.asarray(jnp.nan, states.dtype)


def _exchange(machine, key, v, scale, parity):
    """Levels 0 and 1, 2 and 3, … exchange where the parity is 0, levels 1 and 2, … where it is 1."""
    levels = v.shape[0]
    field = v @ machine.weights

    def normalizer(scale, field):
        return jnp.sum(machine.hidden.log_normalizer(scale * field), axis=-1)

    own = normalizer(scale, field)
    change = normalizer(scale[1:], field[:-1]) + normalizer(scale[:-1], field[1:]) - own[:-1] - own[1:]
    uniform = jax.random.uniform(key, change.shape, v.dtype)
    turn = (jnp.arange(levels - 1) % 2 == parity % 2)[:, None] | (levels == 2)
    accepted = (jnp.log(uniform) < change) & turn
    rate = jnp.sum(accepted) / jnp.sum(jnp.broadcast_to(turn, accepted.shape))
    return jnp.take_along_axis(v, partners(accepted)[..., None], axis=0), rate.astype(v.dtype)


def gaussian_draws(machine: RestrictedBoltzmannMachine, key: jax.Array, states: Levels) -> Levels:
    """Independent draws of v at the weights βw, in place of the chains ``states``, for two Gaussian layers.

    The precision of p(v) is 2A − w(2M)⁻¹wᵀ, A and M the diagonals of the quadratic couplings.
    """
    levels = states.shape[0]
    scale = jnp.asarray(np.linspace(0, 1, levels) if levels > 1 else np.ones(1), states.dtype)
    visible, hidden = machine.visible, machine.hidden

    def at(scale, noise):
        weights = scale * machine.weights
        share = weights / (2 * hidden.quadratic)[None]  # type: ignore[attr-defined]
        root = jnp.linalg.cholesky(jnp.diag(2 * visible.quadratic) - share @ weights.T)  # type: ignore[attr-defined]
        mean = -jax.scipy.linalg.cho_solve((root, True), visible.linear + share @ hidden.linear)
        return mean[None] + jax.scipy.linalg.solve_triangular(root, noise.T, lower=True, trans=1).T

    return jax.vmap(at)(scale, jax.random.normal(key, states.shape, states.dtype))
