"""The global sign flip φ → −φ: when a model allows it, and the exact move."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ..model import MarkovRandomField

__all__ = ["is_even", "sign_flip"]

_EVEN = ("hopping", "mass", "quartic")
_NUM_POINTS = 64


def is_even(model: MarkovRandomField | None) -> bool:
    """Whether S(−φ) = S(φ), term by term: built-in terms by what they are, own terms at random points.

    A wrong guess about an own term costs efficiency, never correctness: the move carries its own accept step.
    """
    return model is not None and all(_term_is_even(f, v) for f, v in zip(model._forms, model._values, strict=True))


def _term_is_even(form, value) -> bool:
    if form.built_in in _EVEN or not np.any(np.asarray(value)):
        return True
    if form.built_in == "source":
        return False
    points = np.random.default_rng(0).standard_normal((_NUM_POINTS, form.cliques.shape[1]))
    there, back = (jax.vmap(lambda p: form.statistic(*p))(jnp.asarray(sign * points)) for sign in (1, -1))
    scale = np.abs(there).max() + np.abs(back).max()
    return bool(np.abs(there - back).max() <= 1e-5 * scale)


def sign_flip(algorithm, key, state, allowed):
    """Propose −φ with probability ½ and accept it by Metropolis; returns the state and whether the sign changed.

    ``allowed`` (a scalar) switches the move off.
    """
    choose, accept = jax.random.split(key)
    flipped = algorithm.init(jax.tree.map(jnp.negative, state.position))
    log_ratio = flipped.logdensity - state.logdensity
    log_uniform = jnp.log1p(-jax.random.uniform(accept, (), log_ratio.dtype))  # in (−∞, 0]
    take = allowed & jax.random.bernoulli(choose) & (log_uniform <= log_ratio)
    return jax.tree.map(lambda new, old: jnp.where(take, new, old), flipped, state), take
