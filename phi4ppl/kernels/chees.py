"""HMC with one step size, mass matrix and trajectory length, tuned by all chains together.

The trajectory length T ascends C/T with C = ¼ E[(‖φ′ − μ‖² − ‖φ − μ‖²)²], the change in the estimator of the expected square
(ChEES), norms in the metric of the mass matrix: the largest change per gradient. A single chain has one noisy estimate of
it per step, all chains together have many. Each trajectory is T times a number between ½ and 3/2 of a low-discrepancy
sequence long, the same for all chains, which would otherwise wait for the longest.

Source: M. D. Hoffman, A. Radul and P. Sountsov, An adaptive-MCMC scheme for setting trajectory lengths in Hamiltonian Monte
Carlo, AISTATS (2021).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from .adaptation import INITIAL_STEP_SIZE, Diagonal, dual_averaging, over_chains
from .gradient import MAX_STEPS, careful_proposal, hmc_statistics
from .kernel import Kernel
from .metrics import metric_of
from .target import Target

if TYPE_CHECKING:
    from blackjax.base import SamplingAlgorithm

__all__ = ["CHEES", "PooledAdaptation", "chees"]

DELAY = 20  # of the decay of the steps of log T
MAX_SLOPE = 1.0  # of the derivative of log(C/T) in log T, of which a few chains have a noisy estimate
BITS = 16  # of the low-discrepancy sequence


class _Tuning(NamedTuple):
    """``center`` μ is a flat position, from which distances are measured."""

    step_size: jax.Array
    inverse_mass_matrix: jax.Array
    length: jax.Array
    center: jax.Array


class _State(NamedTuple):
    """A position after a path, and of that path: its acceptance, C and the derivative of C in log T."""

    position: Any
    logdensity: jax.Array
    logdensity_grad: Any
    number: jax.Array
    acceptance: jax.Array
    change: jax.Array
    slope: jax.Array


def chees(target: Target, tuning: _Tuning) -> SamplingAlgorithm:
    """Hamiltonian Monte Carlo with paths of length T times a number between ½ and 3/2."""
    import blackjax
    from blackjax.base import SamplingAlgorithm
    from blackjax.mcmc.dynamic_hmc import DynamicHMCState, build_kernel, halton_sequence

    metric = metric_of(tuning.inverse_mass_matrix, target.lattice)

    def steps_of(number):
        time = tuning.length * (0.5 + halton_sequence(number, BITS))
        return jnp.clip(jnp.ceil(time / tuning.step_size), 1, MAX_STEPS).astype(jnp.int32)

    kernel = build_kernel(
        next_random_arg_fn=lambda number: (number + 1) % 2**BITS,
        integration_steps_fn=steps_of,
        build_proposal=functools.partial(careful_proposal, target),
    )

    def init(position, key=None):
        first = blackjax.hmc.init(position, target.logdensity_fn)
        zero = jnp.zeros_like(first.logdensity)
        return _State(*first, jnp.zeros((), jnp.int32), zero, zero, zero)  # type: ignore[call-arg]

    def away(position):
        return jax.tree.map(jnp.subtract, position, ravel_pytree(position)[1](tuning.center))

    def squared(displacement):
        white, _ = ravel_pytree(metric.scale(displacement, displacement, inv=False, trans=False))
        return jnp.sum(white * white)

    def step(key, state):
        here = DynamicHMCState(*state[:3], state.number)
        there, info = kernel(key, here, target.logdensity_fn, tuning.step_size, metric)
        end, _ = ravel_pytree(away(info.proposal.position))
        momentum = -ravel_pytree(info.proposal.momentum)[0]  # BlackJAX turns it round at the end of a path
        distance = squared(away(info.proposal.position)) - squared(away(state.position))
        slope = distance * jnp.sum(end * momentum) * tuning.step_size * info.num_integration_steps
        return _State(*there, info.acceptance_rate, distance**2 / 4, slope), info  # type: ignore[call-arg]

    return SamplingAlgorithm(init, step)


def rescaled(log_length, change, width):
    """The log length of paths and the ChEES criterion C in a metric in which every coordinate has variance one.

    In the old metric coordinate i has variance ``width[i]`` = w_i and oscillates with frequency w_i^−½. Its share of
    C = ¼ ⟨(‖z′‖² − ‖z‖²)²⟩ after a path of length T is w_i² g(T w_i^−½) with one function g. The length was therefore tuned
    for the mean of w with weights w², W = Σ w³/Σ w²; the same phase is reached in the new metric by the length T W^−½, and the
    mean weight of g falls from ⟨w²⟩ to 1.

    Examples
    --------
    >>> length, change = rescaled(jnp.log(6.0), 32.0, jnp.full(5, 4.0))  # standard deviations of 2 everywhere
    >>> float(jnp.exp(length)), float(change)
    (3.0, 2.0)
    """
    return log_length - jnp.log(jnp.sum(width**3) / jnp.sum(width**2)) / 2, change / jnp.mean(width**2)


class _Pooled(NamedTuple):
    """What all chains share, but for the statistics of ``mass`` and the ``center``, which are of one."""

    step_size: Any
    mass: Any
    center: jax.Array
    log_length: jax.Array
    average: jax.Array
    change: jax.Array
    count: jax.Array  # type: ignore[assignment]


@dataclass(frozen=True)
class PooledAdaptation:
    """One step size, one diagonal mass matrix and one length of paths for all chains."""

    target_acceptance: float = 0.7

    def begin(self, target: Target, position) -> _Pooled:
        flat, _ = ravel_pytree(position)
        start = jnp.asarray(INITIAL_STEP_SIZE, flat.dtype)
        log_length, zero = jnp.log(start), jnp.zeros((), flat.dtype)
        step_size = dual_averaging(self.target_acceptance)[0](start)
        return _Pooled(step_size, Diagonal.begin(target, position), flat, log_length, log_length, zero, zero)

    def update(self, target: Target, state: _Pooled, stage, is_window_end, chain_state: _State, statistics) -> _Pooled:
        init, update, final = dual_averaging(self.target_acceptance)
        weight = jnp.where(statistics["diverging"], 0, chain_state.acceptance)
        used = (weight > 0) & jnp.isfinite(chain_state.change) & jnp.isfinite(chain_state.slope)
        slope, change = (over_chains(jnp.where(used, weight * x, 0)) for x in (chain_state.slope, chain_state.change))
        count = state.count + 1
        share = 1 / jnp.maximum(count / 2, 1)  # averages that favor the end
        usual = state.change + share * (change - state.change)
        gradient = jnp.clip((slope - change) / jnp.maximum(usual, 1e-30), -MAX_SLOPE, MAX_SLOPE)
        step_size = update(state.step_size, over_chains(statistics["acceptance_rate"]))
        # the step size of the moment overshoots: it must not take the length along
        shortest = jnp.minimum(step_size.log_step_size, step_size.log_step_size_avg).astype(state.log_length.dtype)
        longest = shortest + jnp.log(MAX_STEPS / 1.5)
        log_length = jnp.clip(state.log_length + (count + DELAY) ** -0.6 * gradient, shortest, longest)
        flat, _ = ravel_pytree(chain_state.position)
        state = _Pooled(
            step_size, state.mass, state.center + share * (flat - state.center), log_length,
            state.average + share * (log_length - state.average), usual, count,
        )  # fmt: skip

        def observe(state):
            return state._replace(mass=Diagonal.update(target, state.mass, chain_state.position))

        def close_window(state):
            old, mass = Diagonal.value(state.mass), Diagonal.close(target, state.mass)
            new = over_chains(Diagonal.value(mass))
            length, change = rescaled(state.average, state.change, new / old)
            return state._replace(
                step_size=init(final(state.step_size)), mass=mass._replace(inverse_mass_matrix=new),
                log_length=length, average=length, change=change,
            )  # fmt: skip

        state = jax.lax.cond(stage == 1, observe, lambda s: s, state)
        return jax.lax.cond(is_window_end == 1, close_window, lambda s: s, state)

    def tuning(self, state: _Pooled) -> _Tuning:
        return self._tuning(state, state.step_size.log_step_size, state.log_length)

    def final(self, state: _Pooled) -> _Tuning:
        return self._tuning(state, state.step_size.log_step_size_avg, state.average)

    def _tuning(self, state: _Pooled, log_step_size, log_length) -> _Tuning:
        step_size = jnp.exp(log_step_size).astype(state.center.dtype)
        return _Tuning(step_size, Diagonal.value(state.mass), jnp.exp(log_length), state.center)


CHEES = Kernel(
    "chees",
    "Hamiltonian Monte Carlo, tuned by all chains together; trajectory length by ChEES",
    chees,
    hmc_statistics,
    PooledAdaptation(),
)
