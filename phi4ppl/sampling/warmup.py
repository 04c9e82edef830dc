"""Window adaptation (Stan's schedule) from BlackJAX's parts, one step at a time so that it can run in chunks.

BlackJAX is imported where it is used: its import creates JAX arrays, which importing this package must not do.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

__all__ = ["Adaptation", "adapted", "begin", "schedule", "update"]

INITIAL_STEP_SIZE = 0.1


class Adaptation(NamedTuple):
    """State of the warm-up of one chain."""

    step_size_state: object
    mass_state: object

    @property
    def step_size(self):
        return jnp.exp(self.step_size_state.log_step_size)

    @property
    def inverse_mass_matrix(self):
        return self.mass_state.inverse_mass_matrix


def schedule(num_warmup: int) -> np.ndarray:
    """Stage (0 fast, 1 slow) and end-of-window flag of every warm-up step, shape ``(num_warmup, 2)``."""
    from blackjax.adaptation.staged_adaptation import build_schedule

    return np.asarray(build_schedule(num_warmup), int).reshape(-1, 2)


def begin(position, target: float) -> Adaptation:
    """Start with unit mass and a small step, which dual averaging enlarges at once if it can."""
    (mass_init, _, _), (step_init, _, _) = _parts(target)
    flat, _ = ravel_pytree(position)
    return Adaptation(step_init(jnp.asarray(INITIAL_STEP_SIZE, flat.dtype)), mass_init(flat.size))


def update(adaptation: Adaptation, target, stage, is_window_end, position, acceptance_rate) -> Adaptation:
    """One step: step size always; mass matrix statistics in slow windows, and a new mass matrix at the end of each."""
    (_, mass_update, mass_final), (step_init, step_update, step_final) = _parts(target)
    step_state = step_update(adaptation.step_size_state, acceptance_rate)
    mass_state = jax.lax.cond(
        stage == 1, lambda state: mass_update(state, position), lambda state: state, adaptation.mass_state
    )

    def close_window(states):
        step_state, mass_state = states
        return step_init(step_final(step_state)), mass_final(mass_state)

    states = jax.lax.cond(is_window_end == 1, close_window, lambda states: states, (step_state, mass_state))
    return Adaptation(*states)


def adapted(adaptation: Adaptation):
    """Step size (averaged) and inverse mass matrix to sample with."""
    return jnp.exp(adaptation.step_size_state.log_step_size_avg), adaptation.inverse_mass_matrix


def _parts(target: float):
    """BlackJAX's (init, update, final) for a diagonal mass matrix, and for the step size."""
    from blackjax.adaptation.mass_matrix import mass_matrix_adaptation
    from blackjax.adaptation.step_size import dual_averaging_adaptation

    return mass_matrix_adaptation(True), dual_averaging_adaptation(target)
