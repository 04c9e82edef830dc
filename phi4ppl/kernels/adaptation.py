"""Window adaptation (Stan's schedule), one step at a time so that it can run in chunks.

Step sizes come from BlackJAX's dual averaging, diagonal mass matrices from its Welford estimate; free-field masses are
fitted to the measured propagator. BlackJAX is imported where it is used: its import creates JAX arrays, which importing
this package must not do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ..errors.arguments import call_checked
from .metrics import FreeField, fit_free_field, metric_of, spectrum
from .target import Target

__all__ = [
    "CHAIN_DEVICES",
    "MAPPED_CHAINS",
    "Adaptation",
    "Diagonal",
    "Tuning",
    "WindowAdaptation",
    "all_chains",
    "dual_averaging",
    "over_chains",
    "schedule",
]

MAPPED_CHAINS, CHAIN_DEVICES = "chains", "chain"  # axes over chains: of `jax.vmap`, and of the devices around it
INITIAL_STEP_SIZE = 0.1
MAX_SPREAD = 1e4  # of the slowest direction: trajectories are at most a hundred times longer than without correlation


def schedule(num_warmup: int) -> np.ndarray:
    """Stage (0 fast, 1 slow) and end-of-window flag of every warm-up step, shape ``(num_warmup, 2)``."""
    from blackjax.adaptation.staged_adaptation import build_schedule

    return np.asarray(build_schedule(num_warmup), int).reshape(-1, 2)


class Adaptation(Protocol):
    """How warm-up finds the ``tuning`` (any pytree) that a kernel is built with; every chain has its own.

    ``begin(target, position)`` makes a state, ``update(target, state, stage, is_window_end, chain_state, statistics)`` the
    next one from what the kernel just did, with a row of `schedule`; ``tuning(state)`` reads what the next step of warm-up
    runs with and ``final(state)`` what sampling runs with.
    """

    def begin(self, target: Target, position) -> Any: ...

    def update(self, target: Target, state, stage, is_window_end, chain_state, statistics: dict) -> Any: ...

    def tuning(self, state) -> Any: ...

    def final(self, state) -> Any: ...


@call_checked
class Tuning(NamedTuple):
    """The tuning that a gradient-based kernel is built with.

    ``inverse_mass_matrix`` is an array (diagonal), a `FreeField` or a `Factored` one; ``spread`` is the standard deviation
    along the slowest direction, in units of the metric: trajectories should take about π/2 times as long.
    """

    step_size: jax.Array
    inverse_mass_matrix: Any
    spread: jax.Array


class _State(NamedTuple):
    step_size: Any
    mass: Any
    slowest: Any
    spread: jax.Array


@call_checked
@dataclass(frozen=True)
class WindowAdaptation:
    """Step size to a target acceptance; mass matrix and length of trajectories from the draws of growing windows.

    Attributes
    ----------
    target_acceptance : float
    mass : str or an estimate of the mass matrix
        ``"diagonal"``; ``"fourier"``: that of a free field with fitted mass, see `phi4ppl.kernels.metrics`; or an object
        with ``begin``, ``update``, ``close`` and ``value``, such as `LearnedMass`.
    """

    target_acceptance: float = 0.8
    mass: Any = "diagonal"

    @property
    def _mass(self):
        return {"diagonal": Diagonal, "fourier": _Fourier}[self.mass] if isinstance(self.mass, str) else self.mass

    def begin(self, target: Target, position) -> _State:
        """Start with unit mass and a small step, which dual averaging enlarges at once if it can."""
        flat, _ = ravel_pytree(position)
        one = jnp.ones((), flat.dtype)
        init, _, _ = dual_averaging(self.target_acceptance)
        return _State(init(INITIAL_STEP_SIZE * one), self._mass.begin(target, position), _Slowest.begin(flat), one)

    def update(self, target: Target, state: _State, stage, is_window_end, chain_state, statistics: dict) -> _State:
        """One step: step size always; statistics in slow windows; mass and length at the end of each."""
        init, update, final = dual_averaging(self.target_acceptance)
        mass, position = self._mass, chain_state.position

        def observe(state):
            white = metric_of(mass.value(state.mass), target.lattice).scale(position, position, inv=False, trans=False)
            return state._replace(
                mass=mass.update(target, state.mass, position, chain_state.logdensity_grad),
                slowest=state.slowest.update(ravel_pytree(white)[0]),
            )

        def close_window(state):
            step_size = init(final(state.step_size))
            spread = state.slowest.spread().astype(state.spread.dtype)
            return _State(step_size, mass.close(target, state.mass), state.slowest.restart(), spread)

        state = state._replace(step_size=update(state.step_size, statistics["acceptance_rate"]))
        state = jax.lax.cond(stage == 1, observe, lambda s: s, state)
        return jax.lax.cond(is_window_end == 1, close_window, lambda s: s, state)

    def tuning(self, state: _State) -> Tuning:
        return self._tuning(state, state.step_size.log_step_size)

    def final(self, state: _State) -> Tuning:
        """The tuning with the averaged step size."""
        return self._tuning(state, state.step_size.log_step_size_avg)

    def _tuning(self, state: _State, log_step_size) -> Tuning:
        return Tuning(jnp.exp(log_step_size).astype(state.spread.dtype), self._mass.value(state.mass), state.spread)


def over_chains(value):
    """Mean over all chains of a run, in the same order on one device and on several; of a chain alone the value itself."""
    return all_chains(value).mean(axis=0)


def all_chains(value):
    """The values of all chains of a run, with a leading axis for them; of a chain alone its value."""
    values = jnp.asarray(value)[None]
    for axis in (MAPPED_CHAINS, CHAIN_DEVICES):
        if _is_mapped(axis):
            values = jax.lax.all_gather(values, axis, tiled=True)
    return values


def _is_mapped(axis: str) -> bool:
    try:
        jax.lax.axis_size(axis)
    except NameError:
        return False
    return True


def dual_averaging(target_acceptance: float):
    """BlackJAX's adaptation of a step size: ``init``, ``update`` and ``final``."""
    from blackjax.adaptation.step_size import dual_averaging_adaptation

    return dual_averaging_adaptation(target_acceptance)


class Diagonal:
    """Variance of every coordinate."""

    @staticmethod
    def begin(target: Target, position):
        return Diagonal._parts()[0](ravel_pytree(position)[0].size)

    @staticmethod
    def update(target: Target, state, position, gradient=None):
        return Diagonal._parts()[1](state, position)

    @staticmethod
    def close(target: Target, state):
        return Diagonal._parts()[2](state)

    @staticmethod
    def value(state):
        return state.inverse_mass_matrix

    @staticmethod
    def _parts():
        from blackjax.adaptation.mass_matrix import mass_matrix_adaptation

        return mass_matrix_adaptation(True)


class _Fourier(NamedTuple):
    """Sums of the modes of the field and of their squares, and the free field fitted in the last window."""

    fitted: FreeField
    count: jax.Array  # type: ignore[assignment]
    total: jax.Array
    square: jax.Array

    @staticmethod
    def begin(target: Target, position) -> _Fourier:
        modes = jnp.zeros_like(spectrum(target.lattice).forward(position))
        square = jnp.zeros_like(modes.real)
        one = jnp.ones((), square.dtype)
        largest = float(spectrum(target.lattice).laplacian.max()) or 1.0
        return _Fourier(FreeField(100 * largest * one, 100 * largest * one), 0 * one, modes, square)

    @staticmethod
    def update(target: Target, state: _Fourier, position, gradient) -> _Fourier:
        modes = spectrum(target.lattice).forward(position)
        return state._replace(
            count=state.count + 1, total=state.total + modes, square=state.square + jnp.abs(modes) ** 2
        )

    @staticmethod
    def close(target: Target, state: _Fourier) -> _Fourier:
        variance = (state.square - jnp.abs(state.total) ** 2 / state.count) / (state.count - 1)
        fitted = fit_free_field(spectrum(target.lattice), variance, state.fitted)
        return _Fourier(fitted, 0 * state.count, jnp.zeros_like(state.total), jnp.zeros_like(state.square))

    @staticmethod
    def value(state: _Fourier) -> FreeField:
        return state.fitted


class _Slowest(NamedTuple):
    """Oja's rule for the direction of largest variance, with the variance along it and the mean variance."""

    direction: jax.Array
    mean: jax.Array
    along: jax.Array
    overall: jax.Array
    count: jax.Array  # type: ignore[assignment]

    @staticmethod
    def begin(flat) -> _Slowest:
        zero = jnp.zeros((), flat.dtype)
        return _Slowest(jnp.full_like(flat, flat.size**-0.5), jnp.zeros_like(flat), zero, zero, zero)

    def update(self, flat) -> _Slowest:
        count = self.count + 1
        deviation = flat - self.mean  # from the mean of the draws before: its square is unbiased up to 1 + 1/n
        share = jnp.where(count > 1, self.count / count, 0)
        projection = jnp.sum(self.direction * deviation)
        overall = self.overall + share * jnp.mean(deviation**2)
        along = self.along + share * projection**2
        # Oja's step, at most as long as the direction itself
        rate = jnp.where(count > 1, 1 / jnp.maximum(jnp.sum(deviation**2), 1e-30), 0)
        direction = self.direction + rate * projection * deviation
        direction = direction / jnp.linalg.norm(direction)
        return _Slowest(direction, self.mean + deviation / count, along, overall, count)

    def spread(self):
        ratio = self.along / jnp.maximum(self.overall, 1e-30)
        return jnp.sqrt(jnp.clip(jnp.where(jnp.isfinite(ratio), ratio, 1), 1, MAX_SPREAD))

    def restart(self) -> _Slowest:
        zero = jnp.zeros_like(self.count)
        return self._replace(mean=jnp.zeros_like(self.mean), along=zero, overall=zero, count=zero)
