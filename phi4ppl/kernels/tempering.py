"""Parallel tempering: copies at inverse temperatures 1 = β_0 > β_1 > … exchange fields, so that chains can go around barriers.

S is linear in its couplings, so copy r is the same model with all couplings times β_r. Neighbors on the ladder exchange with
probability min(1, exp[(β_r − β_s)(S(φ_r) − S(φ_s))]); even and odd pairs take turns, which carries fields along the ladder
faster than pairs at random (S. Syed et al., J. R. Stat. Soc. B 84 (2022) 321).

Sources: R. H. Swendsen and J.-S. Wang, Phys. Rev. Lett. 57 (1986) 2607; C. J. Geyer (1991).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from ..errors.arguments import call_checked, positive_int
from .gradient import KERNELS
from .kernel import Kernel
from .local_hmc import LOCAL_HMC
from .target import Target

if TYPE_CHECKING:
    from blackjax.base import SamplingAlgorithm

__all__ = ["TEMPERING", "partners", "tempering"]

NUM_RUNGS = 8
TARGET_EXCHANGE = 0.4
FIRST_SPACING = 0.1  # of log β


class _Tuning(NamedTuple):
    inner: Any  # of every copy
    inverse_temperature: jax.Array

    @property
    def step_size(self):
        return self.inner.step_size


class _State(NamedTuple):
    """The field at β = 1, as every kernel's state has it; then all copies and what the last step did to them."""

    position: Any
    logdensity: jax.Array
    logdensity_grad: Any
    copies: Any
    acceptance: jax.Array  # of every copy
    exchange: jax.Array  # probability of every pair at the last step
    odd: jax.Array  # whether odd pairs are next


class _Info(NamedTuple):
    acceptance_rate: jax.Array
    diverging: jax.Array
    n_steps: jax.Array
    exchange_rate: jax.Array
    inverse_temperature: jax.Array


HMC = next(kernel for kernel in KERNELS if kernel.name == "hmc")


def _inner(target: Target) -> Kernel:
    """What moves each copy: colored sweeps of a field, HMC for anything else."""
    return LOCAL_HMC if target.lattice is not None else HMC


def _at(target: Target, beta) -> Target:
    """The target at inverse temperature β: all couplings times β."""
    return Target(
        lambda x: beta * target.logdensity_fn(x), lambda new, old: beta * target.energy_change(new, old),
        jax.tree.map(lambda value: beta * value, target.model),
    )  # fmt: skip


def _exchange(target: Target, key, copies, beta, odd):
    """Exchange neighboring copies, pair by pair of one parity.

    Returns the copies, and for all pairs the probability that they exchange, or would if it were their turn.
    """
    number = len(beta)
    lower, upper = jax.tree.map(lambda x: x[:-1], copies), jax.tree.map(lambda x: x[1:], copies)
    gain = (beta[:-1] - beta[1:]) * jax.vmap(target.energy_change)(lower, upper)
    rate = jnp.exp(jnp.minimum(gain, 0))
    tried = jnp.arange(number - 1) % 2 == odd
    swap = tried & (jax.random.uniform(key, (number - 1,), rate.dtype) < rate)
    source = partners(swap)
    return jax.tree.map(lambda x: x[source], copies), rate


def partners(swap):
    """The origin of every copy after exchanges of neighbors: ``swap`` marks which pairs of the leading axis exchange.

    No two pairs that share a copy may exchange. Shape ``(number, …)`` for ``swap`` of shape ``(number − 1, …)``.
    """
    none = jnp.zeros((1, *swap.shape[1:]), bool)
    number = jnp.arange(len(swap) + 1).reshape(-1, *[1] * (swap.ndim - 1))
    return number + jnp.concatenate([swap, none]) - jnp.concatenate([none, swap])


def _build(num_rungs: int, target: Target, tuning: _Tuning) -> SamplingAlgorithm:
    from blackjax.base import SamplingAlgorithm

    beta = tuning.inverse_temperature
    kernel = _inner(target)

    def init(position, key=None):
        copies = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_rungs, *x.shape)), position)
        logdensity, gradient = target.init(position)
        field = jnp.shape(position) if target.lattice is not None else ()
        rates = jnp.zeros((num_rungs, *field), logdensity.dtype)
        return _State(position, logdensity, gradient, copies, rates, jnp.zeros_like(beta[1:]), jnp.zeros((), bool))

    def move(key, position, beta, inner):
        algorithm = kernel.build(_at(target, beta), inner)
        state, info = algorithm.step(key, algorithm.init(position))
        return state, kernel.statistics(info)

    def step(key, state):
        move_key, exchange_key = jax.random.split(key)
        # the field may have changed sign since
        copies = jax.tree.map(lambda all_, mine: all_.at[0].set(mine), state.copies, state.position)
        moved, did = jax.vmap(move)(jax.random.split(move_key, num_rungs), copies, beta, tuning.inner)
        copies, exchange = _exchange(target, exchange_key, moved.position, beta, state.odd)
        position = jax.tree.map(lambda x: x[0], copies)
        logdensity, gradient = target.init(position)
        rates = getattr(moved, "acceptance", did["acceptance_rate"])  # by site, where sites have their own
        info = _Info(did["acceptance_rate"][0], jnp.any(did["diverging"]), jnp.sum(did["n_steps"]), exchange, beta)
        return _State(position, logdensity, gradient, copies, rates, exchange, ~state.odd), info

    return SamplingAlgorithm(init, step)


def _adaptation_of(state):
    """The adaptation that a state belongs to."""
    return (LOCAL_HMC if hasattr(state, "log_step") else HMC).adaptation


class _Seen(NamedTuple):
    """What the adaptation of one copy looks at."""

    position: Any
    acceptance: jax.Array


class _Ladder(NamedTuple):
    inner: Any
    log_spacing: jax.Array
    count: jax.Array  # type: ignore[assignment]


@dataclass(frozen=True)
class _LadderAdaptation:
    """Every copy adapts as its own kernel does; the spacings of log β are moved until neighbors exchange at equal rates."""

    num_rungs: int

    def begin(self, target: Target, position) -> _Ladder:
        dtype = jax.eval_shape(target.logdensity_fn, position).dtype
        inner = _inner(target).adaptation.begin(target, position)
        inner = jax.tree.map(lambda x: jnp.broadcast_to(x, (self.num_rungs, *jnp.shape(x))), inner)
        spacing = jnp.full((self.num_rungs - 1,), math.log(FIRST_SPACING), dtype)
        return _Ladder(inner, spacing, jnp.zeros((), dtype))

    def update(self, target: Target, state: _Ladder, stage, is_window_end, chain_state: _State, statistics) -> _Ladder:
        beta = self.tuning(state).inverse_temperature

        def update_copy(inner, beta, position, acceptance):
            seen = _Seen(position, acceptance)
            rate = {"acceptance_rate": jnp.mean(acceptance)}
            return _inner(target).adaptation.update(_at(target, beta), inner, stage, is_window_end, seen, rate)

        inner = jax.vmap(update_copy)(state.inner, beta, chain_state.copies, chain_state.acceptance)
        # Robbins-Monro
        move = (chain_state.exchange - TARGET_EXCHANGE) * (1 + state.count) ** -0.6
        spacing = jnp.clip(state.log_spacing + move, math.log(1e-4), math.log(2.0))
        return state._replace(inner=inner, log_spacing=spacing, count=state.count + 1)

    def tuning(self, state: _Ladder) -> _Tuning:
        return self._tuning(state, "tuning")

    def final(self, state: _Ladder) -> _Tuning:
        return self._tuning(state, "final")

    def _tuning(self, state: _Ladder, which: str) -> _Tuning:
        steps = jnp.append(jnp.zeros((1,), state.log_spacing.dtype), jnp.cumsum(jnp.exp(state.log_spacing)))
        return _Tuning(jax.vmap(getattr(_adaptation_of(state.inner), which))(state.inner), jnp.exp(-steps))


@call_checked
def tempering(num_rungs: int = NUM_RUNGS) -> Kernel:
    """Parallel tempering with ``num_rungs`` copies of the model at rising temperatures.

    Warm-up spaces the temperatures so that neighbors exchange in 40 % of the tries; more rungs then reach hotter. The
    statistics ``exchange_rate`` (of every pair) and ``inverse_temperature`` (of every copy) show how it went: the
    hottest copy should be hot enough to cross the barriers by itself.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> model = p4.phi4(p4.lattice.chain(3), w=0.1, a=-8.0, b=2.0)  # deep wells
    >>> tree = p4.sample(model, kernel=p4.sampling.tempering(6), num_warmup=300, num_samples=300)
    >>> tree["sample_stats"]["exchange_rate"].sizes["pair"]
    5
    """
    number = positive_int("num_rungs", num_rungs, minimum=2, fix="A single copy has no other to exchange with.")
    summary = f"parallel tempering: {number} copies from cold to hot that exchange fields, for rugged landscapes"
    build = functools.partial(_build, number)
    return Kernel("tempering", summary, build, lambda info: info._asdict(), _LadderAdaptation(number))


TEMPERING = tempering()
