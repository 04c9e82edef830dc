"""Run many chains of one kernel in one compiled program, chunk by chunk."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ..errors import SamplingError
from ..potential import CompiledModel
from . import warmup
from .kernels import Kernel
from .memory import record_bytes, require_memory
from .progress import Progress
from .symmetry import sign_flip

__all__ = ["RunResult", "run_chains"]

NUM_BLOCKS = 20  # blocks a chain for per-site means
BUFFER_BYTES = 64_000_000  # draws held on the device before they are handed to the host
SECONDS_PER_CHUNK = 0.7


@dataclass(frozen=True)
class RunResult:
    """What the chains left: arrays with leading axes (chain, draw)."""

    values: dict[str, np.ndarray]
    observables: dict[str, np.ndarray]
    statistics: dict[str, np.ndarray]
    schwinger_dyson_blocks: np.ndarray  # (chain, block, dimension): block means of φ_i ∂S/∂φ_i
    inverse_mass_matrix: np.ndarray
    settings: dict = field(default_factory=dict)


class _Chain(NamedTuple):
    """One chain between chunks."""

    state: object
    step_size: jax.Array
    inverse_mass_matrix: jax.Array
    virial_sum: jax.Array


def run_chains(
    compiled: CompiledModel, kernel: Kernel, *, num_warmup: int, num_samples: int, num_chains: int, seed: int,
    observables: dict[str, Callable], keep: Callable[[str], bool], thinning: int, flip_signs: bool, progress: bool | None,
    memory_limit: int | None = None,
) -> RunResult:  # fmt: skip
    """Warm up and sample; see `phi4ppl.sample` for the arguments.

    ``keep(name)`` says which of the constrained values are kept. Every draw has its own key, folded from the seed, the
    chain and the iteration, so the numbers do not depend on how the run is cut into chunks.
    """
    start_key, warm_key, draw_key = jax.random.split(jax.random.key(seed), 3)
    position = _starts(compiled, jax.random.split(start_key, num_chains))
    program = _Program(compiled, kernel, observables, keep, thinning, flip_signs)
    chains = program.begin(position)
    _require_finite(chains.state, "at its start", "The action is not finite there: check data and couplings.")
    record = jax.eval_shape(program.record, jax.tree.map(lambda x: x[0], chains), program.empty_statistics(chains))
    needed = require_memory(record, num_chains, num_samples, memory_limit)
    bar = Progress(num_warmup + num_samples * thinning, progress)
    began = time.monotonic()
    bar.message("compiling …")
    chains, warm_seconds = _warm_up(program, chains, jax.random.split(warm_key, num_chains), num_warmup, bar)
    draws, blocks = _draw(program, chains, jax.random.split(draw_key, num_chains), num_samples, bar, record)
    bar.close()
    values, measured, statistics = draws
    statistics["step_size"] = np.broadcast_to(np.asarray(chains.step_size)[:, None], (num_chains, num_samples)).copy()
    settings = {
        "kernel": kernel.name, "num_warmup": num_warmup, "num_samples": num_samples, "num_chains": num_chains,
        "seed": seed, "thinning": thinning, "sign_moves": flip_signs, "memory_bytes": needed,
        "dtype": str(ravel_pytree(position)[0].dtype), "layout": compiled.layout,
        "seconds_warmup": round(warm_seconds, 3), "seconds": round(time.monotonic() - began, 3),
    }  # fmt: skip
    return RunResult(values, measured, statistics, blocks, np.asarray(chains.inverse_mass_matrix), settings)


class _Program:
    """The compiled pieces: begin, warm up for some steps, draw for some steps."""

    def __init__(self, compiled, kernel, observables, keep, thinning, flip_signs):
        self.compiled, self.kernel, self.observables, self.keep = compiled, kernel, observables, keep
        self.thinning, self.flip_signs = thinning, flip_signs
        self.begin = jax.jit(jax.vmap(self._begin))
        self.warm = jax.jit(self._warm)
        self.draw = jax.jit(self._draw, static_argnames="capacity")

    def algorithm(self, step_size, inverse_mass_matrix):
        return self.kernel.build(self.compiled.logdensity_fn, step_size, inverse_mass_matrix)

    def _begin(self, position) -> _Chain:
        flat, _ = ravel_pytree(position)
        one = jnp.ones((), flat.dtype)
        state = self.algorithm(one, jnp.ones_like(flat)).init(position)
        return _Chain(state, one, jnp.ones_like(flat), jnp.zeros_like(flat))

    def _warm(self, states, adaptations, keys, plan, first, count):
        """Warm-up steps ``first … first+count-1`` of all chains; also returns the mean acceptance."""

        def step(carry, key, number):
            state, adaptation, accepted = carry
            algorithm = self.algorithm(adaptation.step_size, adaptation.inverse_mass_matrix)
            state, info = algorithm.step(jax.random.fold_in(key, number), state)
            rate = self.kernel.statistics(info)["acceptance_rate"]
            stage, is_end = plan[number]
            target = self.kernel.target_acceptance
            adaptation = warmup.update(adaptation, target, stage, is_end, state.position, rate)
            return state, adaptation, accepted + rate

        def body(k, carry):
            return jax.vmap(step, in_axes=(0, 0, None))(carry, keys, first + k)

        accepted = jnp.zeros(keys.shape[0], states.logdensity.dtype)
        states, adaptations, accepted = jax.lax.fori_loop(0, count, body, (states, adaptations, accepted))
        return states, adaptations, accepted.mean() / count

    def iterate(self, chain: _Chain, key):
        """One iteration of the kernel, with the sign move; returns the chain and the statistics of the step."""
        step_key, flip_key = jax.random.split(key)
        algorithm = self.algorithm(chain.step_size, chain.inverse_mass_matrix)
        state, info = algorithm.step(step_key, chain.state)
        statistics = self.kernel.statistics(info)
        if self.flip_signs:
            state, statistics["sign_flipped"] = sign_flip(algorithm, flip_key, state)
        return chain._replace(state=state), statistics

    def record(self, chain: _Chain, statistics: dict):
        """What is kept of one draw: position, observables, statistics."""
        position = chain.state.position
        measured = {name: jnp.asarray(f(position)) for name, f in self.observables.items()}
        gradient, _ = ravel_pytree(chain.state.logdensity_grad)
        flat, _ = ravel_pytree(position)
        extra = {"lp": chain.state.logdensity, "schwinger_dyson": -jnp.mean(flat * gradient)}
        kept = {name: value for name, value in self.compiled.constrain(position).items() if self.keep(name)}
        return kept, measured, statistics | extra

    def empty_statistics(self, chains: _Chain) -> dict:
        one = jax.tree.map(lambda x: x[0], chains)
        return jax.eval_shape(lambda c: self.iterate(c, jax.random.key(0))[1], one)

    def _draw_one(self, chain: _Chain, key, number):
        def inner(k, carry):
            chain, total = carry
            chain, statistics = self.iterate(chain, jax.random.fold_in(key, number * self.thinning + k))
            return chain, {name: _merge(name, total[name], value) for name, value in statistics.items()}

        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(lambda: self.iterate(chain, key)[1]))
        chain, statistics = jax.lax.fori_loop(0, self.thinning, inner, (chain, zero))
        statistics["acceptance_rate"] = statistics["acceptance_rate"] / self.thinning
        gradient, _ = ravel_pytree(chain.state.logdensity_grad)
        flat, _ = ravel_pytree(chain.state.position)
        return chain._replace(virial_sum=chain.virial_sum - flat * gradient), statistics

    def _draw(self, chains, keys, first, count, *, capacity):
        """``count`` draws of all chains into a buffer of ``capacity``; axes (chain, draw)."""

        def body(k, carry):
            chains, buffer = carry
            chains, statistics = jax.vmap(self._draw_one, in_axes=(0, 0, None))(chains, keys, first + k)
            new = jax.vmap(self.record)(chains, statistics)
            return chains, jax.tree.map(lambda b, x: b.at[:, k].set(x), buffer, new)

        shapes = jax.eval_shape(
            lambda c: jax.vmap(self.record)(*jax.vmap(self._draw_one, in_axes=(0, 0, None))(c, keys, 0)), chains
        )
        buffer = jax.tree.map(lambda s: jnp.zeros((s.shape[0], capacity, *s.shape[1:]), s.dtype), shapes)
        return jax.lax.fori_loop(0, count, body, (chains, buffer))


def _merge(name, total, value):
    """Combine the statistics of the iterations between two kept draws."""
    if name in ("n_steps", "acceptance_rate"):
        return total + value
    if jnp.issubdtype(value.dtype, jnp.bool_):
        return total | value
    return jnp.maximum(total, value) if name == "tree_depth" else value


def _starts(compiled: CompiledModel, keys):
    """One start a chain; fields of neighbouring chains start with opposite signs of the mean."""
    position = compiled.initial_position(keys)
    if compiled.model is None:
        return position
    axes = tuple(range(1, position.ndim))
    wanted = jnp.where(jnp.arange(len(keys)) % 2 == 0, 1, -1)
    sign = jnp.where(position.mean(axis=axes) < 0, -1, 1) * wanted
    return position * sign.reshape(-1, *(1,) * len(axes)).astype(position.dtype)


def _require_finite(state, when: str, advice: str) -> None:
    density = np.asarray(state.logdensity)
    gradient = [
        np.isfinite(np.asarray(g)).reshape(len(density), -1).all(axis=1) for g in jax.tree.leaves(state.logdensity_grad)
    ]
    good = np.isfinite(density) & functools.reduce(np.logical_and, gradient)
    if not good.all():
        chain = int(np.flatnonzero(~good)[0])
        raise SamplingError(
            f"chain {chain} has log density {density[chain]} (or a non-finite gradient) {when}. {advice}"
        )


class _Chunks:
    """Sizes of chunks, aimed at a steady rhythm; a chunk never crosses one of the given boundaries."""

    def __init__(self, boundaries, capacity: int):
        self.boundaries, self.capacity, self.size = list(boundaries), capacity, min(10, capacity)

    def next(self, first: int) -> int:
        end = next(b for b in self.boundaries if b > first)
        return min(self.size, end - first)

    def tell(self, count: int, seconds: float) -> None:
        if count >= min(self.size, 5):
            self.size = int(np.clip(count * SECONDS_PER_CHUNK / max(seconds, 1e-6), 1, self.capacity))


def _warm_up(program: _Program, chains: _Chain, keys, num_warmup: int, bar: Progress):
    began = time.monotonic()
    plan = jnp.asarray(warmup.schedule(num_warmup))
    states, adaptations = chains.state, jax.jit(jax.vmap(warmup.begin))(chains.state.position)
    chunks, first = _Chunks([num_warmup], num_warmup), 0
    while first < num_warmup:
        count, started = chunks.next(first), time.monotonic()
        states, adaptations, acceptance = program.warm(states, adaptations, keys, plan, first, count)
        acceptance = float(acceptance)
        if first:  # the first chunk compiles
            chunks.tell(count, time.monotonic() - started)
        first += count
        _require_finite(states, "during warm-up", "S may be unbounded below: see model.check().")
        bar.advance(count, "warm-up", acceptance, None)
    step_size, inverse_mass_matrix = warmup.adapted(adaptations)
    if not np.all(np.isfinite(step_size)):
        raise SamplingError(
            "warm-up found no step size at which the kernel moves; see model.check() and the couplings."
        )
    chains = chains._replace(state=states, step_size=step_size, inverse_mass_matrix=inverse_mass_matrix)
    return chains, time.monotonic() - began


def _draw(program: _Program, chains: _Chain, keys, num_samples: int, bar: Progress, record):
    num_chains = keys.shape[0]
    capacity = int(np.clip(BUFFER_BYTES // max(1, num_chains * record_bytes(record)), 1, min(num_samples, 1000)))
    num_blocks = max(1, min(NUM_BLOCKS, num_samples // 5))
    boundaries = [num_samples * (k + 1) // num_blocks for k in range(num_blocks)]
    chunks, first, block_start = _Chunks(boundaries, capacity), 0, 0
    storage, blocks, divergences = None, [], 0
    while first < num_samples:
        count, started = chunks.next(first), time.monotonic()
        chains, buffer = program.draw(chains, keys, first, count, capacity=capacity)
        piece = jax.tree.map(lambda b, n=count: np.asarray(b[:, :n]), buffer)
        if first:
            chunks.tell(count, time.monotonic() - started)
        if storage is None:
            storage = jax.tree.map(lambda p: np.empty((num_chains, num_samples, *p.shape[2:]), p.dtype), piece)
        for whole, part in zip(jax.tree.leaves(storage), jax.tree.leaves(piece), strict=True):
            whole[:, first : first + count] = part
        first += count
        _require_finite(chains.state, f"at draw {first - 1}", "The action is not finite everywhere: see model.check().")
        if first in boundaries:
            blocks.append(np.asarray(chains.virial_sum) / (first - block_start))
            chains, block_start = chains._replace(virial_sum=jnp.zeros_like(chains.virial_sum)), first
        divergences += int(piece[2]["diverging"].sum())
        bar.advance(count * program.thinning, "sampling", float(piece[2]["acceptance_rate"].mean()), divergences)
    return storage, np.stack(blocks, axis=1)
