"""Gibbs chains of training, and their copies at smaller weights, which exchange states with them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from .._typing import Levels, Scalar
from ..kernels.tempering import partners
from .machine import RestrictedBoltzmannMachine

__all__ = ["advance", "gaussian_draws"]


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
