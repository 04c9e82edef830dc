"""A ladder of temperatures: the target on every rung, exchanges between neighbors, and rungs at equal rejection.

On rung k the action is S_k = S₀ + β_k V, 1 = β₀ > β₁ > …. Along the path ``"temperature"`` S₀ = 0 and V = S: all couplings
times β. Along the path ``"interactions"`` V holds the terms of several sites and S₀ those of single ones, so that β = 0 are
independent sites. Two neighbors exchange with probability min(1, exp[(β_k − β_l)(V(φ_k) − V(φ_l))]). Even and odd pairs take
turns (non-reversible exchanges): fields drift along the ladder, where pairs at random would let them diffuse.

With r_k the share of exchanges that are rejected between k and k + 1, Λ(β) = Σ r_k up to β hardly depends on the rungs. Λ of
the whole ladder is its barrier. Round trips are most frequent where all r_k are equal. A ladder of 2Λ + 1 rungs makes most of
them for its cost where fields forget between two exchanges (S. Syed, A. Bouchard-Côté, G. Deligiannidis and A. Doucet, J. R.
Stat. Soc. B 84 (2022) 321). On spin glasses they do not: from 2Λ + 1 to 5Λ + 1 rungs make equally many for their cost.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from ...energy.functions import energy_change
from ..target import Target, target_of

__all__ = ["PATHS", "at", "exchange", "partners", "respaced", "scaled", "start_of", "tempered_change"]

PATHS = ("temperature", "interactions")
LEAST_REJECTION = 0.01  # of a pair: no stretch of the ladder is without rungs


def _is_tempered(form) -> bool:
    return form.cliques.shape[1] > 1


def at(target: Target, beta, path: str) -> Target:
    """The target at β along a path."""
    if path == "interactions":
        return scaled(target, 1.0, beta)
    return Target(
        lambda x: beta * target.logdensity_fn(x), lambda new, old: beta * target.energy_change(new, old),
        jax.tree.map(lambda value: beta * value, target.model),
    )  # fmt: skip


def scaled(target: Target, own, beta) -> Target:
    """The target with its terms of single sites times ``own`` and all others times β; of a NumPyro model, S times β."""
    if target.model is None:
        return at(target, beta, "temperature")
    values = [(beta if _is_tempered(form) else own) * value for form, value in target.model.interactions]
    return target_of(target.model.structure.at(tuple(values)))


def tempered_change(target: Target, path: str):
    """``change(new, old)`` = V(new) − V(old), summed site by site."""
    if path == "temperature":
        return target.energy_change
    part = target.model.select(_is_tempered)
    return lambda new, old: energy_change(part, new, old)


def start_of(num_rungs: int, path: str, hottest: float, dtype) -> jax.Array:
    """β of all rungs before anything is known: evenly spaced, by their logarithms if these exist."""
    if hottest > 0:
        return jnp.exp(jnp.linspace(0, math.log(hottest), num_rungs, dtype=dtype))
    return jnp.linspace(1, 0, num_rungs, dtype=dtype)


def exchange(key, tempered, beta, odd, swaps: int):
    """Exchange neighbors ``swaps`` times, pairs of one parity after the other.

    Parameters
    ----------
    tempered : array, shape (num_rungs, num_replicas)
        V of every field, up to a constant per replica: exchanges do not change it, so they are cheap.
    odd : array
        Whether odd pairs are first.

    Returns
    -------
    origin : int array
        Which rung every field comes from, shape as ``tempered``.
    rate : array, shape (num_rungs − 1, num_replicas)
        Probability that a pair exchanges, or would if it were its turn, at the first time.
    odd : array
        Whether odd pairs are next.
    """
    number, replicas = tempered.shape
    drawn = jax.random.uniform(key, (swaps, number - 1, replicas), tempered.dtype)
    pairs = jnp.arange(number - 1)[:, None] % 2
    spacing, none = (beta[:-1] - beta[1:])[:, None], jnp.zeros((1, replicas), bool)

    def rate_of(tempered):
        return jnp.exp(jnp.minimum(spacing * (tempered[:-1] - tempered[1:]), 0))

    def one_swap(carry, uniform):
        origin, now, odd = carry
        swap = (pairs == odd) & (uniform < rate_of(now))
        up, down = jnp.concatenate([swap, none]), jnp.concatenate([none, swap])

        def exchanged(x):  # choices between shifted arrays fuse into one loop, where gathers do not
            return jnp.where(up, jnp.roll(x, -1, axis=0), jnp.where(down, jnp.roll(x, 1, axis=0), x))

        return (exchanged(origin), exchanged(now), ~odd), None

    start = jnp.broadcast_to(jnp.arange(number)[:, None], tempered.shape), tempered, odd
    (origin, _, odd), _ = jax.lax.scan(one_swap, start, drawn)
    return origin, rate_of(tempered), odd


def partners(swap):
    """The origin of every copy after exchanges of neighbors: ``swap`` marks which pairs of the leading axis exchange.

    No two pairs that share a copy may exchange. Shape ``(number, …)`` for ``swap`` of shape ``(number − 1, …)``.
    """
    none = jnp.zeros((1, *swap.shape[1:]), bool)
    number = jnp.arange(len(swap) + 1).reshape(-1, *[1] * (swap.ndim - 1))
    return number + jnp.concatenate([swap, none]) - jnp.concatenate([none, swap])


def respaced(beta, rejection):
    """Rungs between the same ends at equal shares of the barrier, from the rejection of every pair of the present ones.

    Λ(β) is interpolated linearly between the present rungs.
    """
    barrier = jnp.cumsum(jnp.maximum(rejection, LEAST_REJECTION))
    barrier = jnp.concatenate([jnp.zeros_like(barrier[:1]), barrier])
    even = jnp.linspace(0, 1, len(beta), dtype=beta.dtype) * barrier[-1]
    inner = jnp.interp(even, barrier, beta)
    return inner.at[0].set(beta[0]).at[-1].set(beta[-1])
