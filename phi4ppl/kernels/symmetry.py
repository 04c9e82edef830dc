"""The global sign flip φ → −φ: when a model allows it, and the exact move."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ..energy.compiled import CompiledModel
from ..model.field import MarkovRandomField
from .target import Target

__all__ = ["flipped", "is_even", "sign_flip"]

_NUM_POINTS = 64


def is_even(model: MarkovRandomField | CompiledModel) -> bool:
    """Whether the density is the same at φ and −φ.

    For a field term by term: built-in terms by their parity, custom terms at random points. For a compiled NumPyro model by
    the density at random positions, with the signs of all its fields changed together. A wrong guess costs efficiency,
    never correctness: the move carries its own accept step.
    """
    if isinstance(model, CompiledModel):
        if model.model is None:
            return bool(model.fields) and _is_even_at_random_positions(model)
        model = model.model
    return all(_term_is_even(f, v) for f, v in model.interactions)


def flipped(position, names: tuple[str, ...] | None):
    """−φ for a field (``names`` None); for a NumPyro position the named fields change sign and the rest stays."""
    if names is None:
        return jax.tree.map(jnp.negative, position)
    return {name: -value if name in names else value for name, value in position.items()}


def _is_even_at_random_positions(compiled: CompiledModel) -> bool:
    start, names = compiled.initial_position(jax.random.key(0)), tuple(compiled.fields)
    flat, unravel = ravel_pytree(start)
    noise = np.random.default_rng(0).standard_normal((4, flat.size)) * np.array([[0.0], [0.1], [0.5], [1.0]])
    compared = 0
    for shift in noise:
        position = unravel(flat + jnp.asarray(shift, flat.dtype))
        there, back = (float(compiled.potential_fn(p)) for p in (position, flipped(position, names)))
        if np.isfinite(there) and abs(there - back) > 1e-4 * (1 + abs(there)):
            return False
        compared += np.isfinite(there)
    return bool(compared)


def _term_is_even(form, value) -> bool:
    if not np.any(np.asarray(value)):
        return True
    if form.built_in:
        return form.built_in.is_even
    points = np.random.default_rng(0).standard_normal((_NUM_POINTS, form.cliques.shape[1]))
    there, back = (jax.vmap(lambda p: form.statistic(*p))(jnp.asarray(sign * points)) for sign in (1, -1))
    scale = np.abs(there).max() + np.abs(back).max()
    return bool(np.abs(there - back).max() <= 1e-5 * scale)


def sign_flip(target: Target, key, state, allowed, names: tuple[str, ...] | None = None, surely_even: bool = False):
    """Propose −φ with probability ½ and accept it by Metropolis; returns the state and whether the sign changed.

    ``allowed`` (a scalar) switches the move off; ``names`` as in `flipped`; ``surely_even`` skips the evaluation at −φ.
    """
    choose, accept = jax.random.split(key)
    position = flipped(state.position, names)
    take = allowed & jax.random.bernoulli(choose)
    if surely_even:
        logdensity, gradient = state.logdensity, flipped(state.logdensity_grad, names)
    else:
        logdensity, gradient = target.init(position)
        log_ratio = logdensity - state.logdensity
        log_uniform = jnp.log1p(-jax.random.uniform(accept, (), log_ratio.dtype))  # in (−∞, 0]
        take &= log_uniform <= log_ratio
    other = state._replace(position=position, logdensity=logdensity, logdensity_grad=gradient)
    return jax.tree.map(lambda new, old: jnp.where(take, new, old), other, state), take
