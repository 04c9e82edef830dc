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
from ..observables import is_standard
from ..potential import CompiledModel
from . import warmup
from .kernels import Kernel
from .memory import readable, record_bytes, require_memory
from .progress import Progress
from .symmetry import flipped, sign_flip
from .target import Target, field_target, target_of

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
    settings: dict = field(default_factory=dict)


class _Chain(NamedTuple):
    """One chain between chunks."""

    state: object
    adaptation: object  # state of the kernel's warm-up
    tuning: object  # what the kernel is built with
    virial_sum: jax.Array  # Σ φ_i ∂S/∂φ_i over the draws of the present block


def run_chains(
    compiled: CompiledModel, kernel: Kernel, *, num_warmup: int, num_samples: int, num_chains: int, seed: int,
    observables: dict[str, Callable], keep: Callable[[str], bool], thinning: int, flip_signs: bool,
    progress: bool | None, even: bool = False, memory_limit: int | None = None,
) -> RunResult:  # fmt: skip
    """Warm up and sample; see `phi4ppl.sample` for the arguments.

    ``keep(name)`` says which of the constrained values are kept; ``even``, whether the density is the same at φ and −φ.
    Every iteration has its own key, folded from the seed, the chain and its number, so the numbers do not depend on how the
    run is cut into chunks.
    """
    start_key, warm_key, draw_key = jax.random.split(jax.random.key(seed), 3)
    position = _starts(compiled, jax.random.split(start_key, num_chains), even)
    program = _program(compiled, kernel, tuple(observables.items()), keep, flip_signs, even)
    parameters = jax.tree.map(jnp.asarray, compiled.parameters)
    chains = program.begin(parameters, position)
    _require_finite(chains.state, "at its start", "The action is not finite there: check data and couplings.")
    record = program.record_of_one_draw(parameters, chains)
    needed = require_memory(record, num_chains, num_samples, memory_limit)
    capacity = int(np.clip(BUFFER_BYTES // max(1, num_chains * record_bytes(record)), 1, 1000))
    buffer = jax.tree.map(lambda s: jnp.zeros((num_chains, capacity, *s.shape), s.dtype), record)
    bar = Progress(num_warmup + num_samples * thinning, progress)
    bar.message(f"compiling {kernel.name} … (the draws will take {readable(needed)})")
    began = time.monotonic()
    plan = warmup.schedule(num_warmup)
    # plans of few lengths, so that another num_warmup does not mean another program
    plan = jnp.asarray(np.pad(plan, ((0, -num_warmup % 4096), (0, 0))))
    advance = functools.partial(program.advance, parameters, plan=plan)
    chains, buffer = _warm_up(advance, kernel, chains, jax.random.split(warm_key, num_chains), num_warmup, bar, buffer)
    warmed = time.monotonic()
    keys = jax.random.split(draw_key, num_chains)
    (values, measured, statistics), blocks = _draw(advance, chains, keys, num_samples, thinning, bar, buffer, record)
    bar.close()
    step_size = np.asarray(chains.tuning.step_size).reshape(num_chains, -1).mean(axis=1)
    statistics["step_size"] = np.broadcast_to(step_size[:, None], (num_chains, num_samples)).copy()
    settings = {
        "kernel": kernel.name, "num_warmup": num_warmup, "num_samples": num_samples, "num_chains": num_chains,
        "seed": seed, "thinning": thinning, "even": even, "sign_moves": flip_signs, "memory_bytes": needed,
        "dtype": str(ravel_pytree(position)[0].dtype), "layout": compiled.layout,
        "seconds_warmup": round(warmed - began, 3), "seconds": round(time.monotonic() - began, 3),
    }  # fmt: skip
    return RunResult(values, measured, statistics, blocks, settings)


def _program(
    compiled: CompiledModel, kernel: Kernel, observables: tuple, keep, flip_signs: bool, even: bool
) -> _Program:
    """The program of this run; fields that differ in their couplings only share one, already compiled.

    Functions of the user's own are traced anew in every run: they may read values that have changed since.
    """
    if compiled.signature is not None and is_standard(compiled.model, observables):
        kept = tuple(name for name in compiled.fields if keep(name))
        return _cached_program(compiled.signature, kernel, observables, kept, flip_signs, even)
    names = None if compiled.model is not None else tuple(compiled.fields) if even else ()
    make = functools.partial(target_of, compiled)
    return _Program(make, compiled.constrain, kernel, observables, keep, flip_signs, names)


@functools.lru_cache(maxsize=32)
def _cached_program(
    signature, kernel: Kernel, observables: tuple, kept: tuple[str, ...], flip_signs: bool, even: bool
) -> _Program:
    make = functools.partial(field_target, signature)
    return _Program(
        make, lambda phi: {"phi": phi}, kernel, observables, kept.__contains__, flip_signs, None, surely_even=even
    )


class _Program:
    """Warm-up and sampling share one compiled loop: compiling a kernel such as NUTS twice would double the wait."""

    def __init__(
        self, make_target, constrain, kernel: Kernel, observables, keep, flip_signs, names, surely_even: bool = False
    ):
        self.make_target, self.constrain, self.kernel = make_target, constrain, kernel
        self.observables, self.keep, self.flip_signs = observables, keep, flip_signs
        self.names = names  # of the fields that change sign together; None if the position is one field
        self.surely_even = surely_even  # an even density then needs no second look
        self.begin = jax.jit(jax.vmap(self._begin, in_axes=(None, 0)))
        self.advance = jax.jit(self._advance, donate_argnames="buffer")

    def _begin(self, parameters, position) -> _Chain:
        flat, _ = ravel_pytree(position)
        target = self.make_target(parameters)
        adaptation = self.kernel.adaptation.begin(target, position)
        tuning = self.kernel.adaptation.tuning(adaptation)
        state = self.kernel.build(target, tuning).init(position)
        return _Chain(state, adaptation, tuning, jnp.zeros_like(flat))

    def record_of_one_draw(self, parameters, chains: _Chain):
        """Shapes and dtypes of what one chain keeps of one draw."""
        one, plan = jax.tree.map(lambda x: x[0], chains), jnp.zeros((1, 2), int)
        return jax.eval_shape(lambda chain: self._iterate(parameters, chain, jax.random.key(0), 0, plan, False)[1], one)

    def _iterate(self, parameters, chain: _Chain, key, number, plan, warming):
        """One iteration of the kernel, and what would be kept of it: positions, observables, statistics."""
        step_key, flip_key = jax.random.split(jax.random.fold_in(key, number))
        target = self.make_target(parameters)
        state, info = self.kernel.build(target, chain.tuning).step(step_key, chain.state)
        statistics = self.kernel.statistics(info)
        chain = chain._replace(state=state)
        chain = jax.lax.cond(warming, lambda c: self._adapt(target, c, *plan[number], statistics), lambda c: c, chain)
        if self.flip_signs and not self.kernel.changes_signs:
            # not during warm-up: the mass matrix is to learn the spread within a phase, not between the phases
            allowed = ~jnp.asarray(warming)
            state, statistics["sign_flipped"] = sign_flip(
                target, flip_key, state, allowed, self.names, self.surely_even
            )
            chain = chain._replace(state=state)
        measured = {name: jnp.asarray(f(state.position)) for name, f in self.observables}
        gradient, _ = ravel_pytree(state.logdensity_grad)
        flat, _ = ravel_pytree(state.position)
        statistics |= {"lp": state.logdensity, "schwinger_dyson": -jnp.mean(flat * gradient)}
        if self.names:
            statistics["field_mean"] = ravel_pytree({name: state.position[name] for name in self.names})[0].mean()
        kept = {name: value for name, value in self.constrain(state.position).items() if self.keep(name)}
        return chain._replace(virial_sum=chain.virial_sum - flat * gradient), (kept, measured, statistics)

    def _adapt(self, target: Target, chain: _Chain, stage, is_window_end, statistics) -> _Chain:
        adaptation = self.kernel.adaptation
        new = adaptation.update(target, chain.adaptation, stage, is_window_end, chain.state, statistics)
        return chain._replace(adaptation=new, tuning=_like(adaptation.tuning(new), chain.tuning))

    def _advance(self, parameters, chains, keys, first, count, thinning, buffer, plan, warming):
        """``count`` draws of ``thinning`` iterations each, for all chains, into the head of ``buffer``.

        While ``warming``, every iteration also adapts its chain as ``plan`` (stage, end of window) says.
        """

        def body(k, carry):
            chains, buffer = carry
            iterate = jax.vmap(self._iterate, in_axes=(None, 0, 0, None, None, None))
            number = first * thinning + k
            chains, (kept, measured, statistics) = iterate(parameters, chains, keys, number, plan, warming)
            slot, part = k // thinning, k % thinning
            before = {name: buffer[2][name][:, slot] for name in statistics}
            statistics = {name: _merge(name, before[name], new, part) for name, new in statistics.items()}
            new = (kept, measured, statistics)
            return chains, jax.tree.map(lambda b, x: b.at[:, slot].set(x), buffer, new)

        return jax.lax.fori_loop(0, count * thinning, body, (chains, buffer))


def _like(new, old):
    """``new`` with the dtypes of ``old``: a weakly typed number would be another program to the compiler."""
    return jax.tree.map(lambda a, b: jnp.asarray(a).astype(b.dtype), new, old)


def _merge(name, before, new, part):
    """A statistic over the iterations between two kept draws; ``part`` of them have been merged into ``before``."""
    if name == "n_steps":
        merged = before + new
    elif name == "acceptance_rate":
        merged = (before * part + new) / (part + 1)
    elif new.dtype == bool:
        merged = before | new
    else:
        merged = jnp.maximum(before, new) if name == "tree_depth" else new
    return jnp.where(part == 0, new, merged).astype(new.dtype)


def _starts(compiled: CompiledModel, keys, even: bool = False):
    """One start a chain; means of the fields of neighbouring chains start with opposite signs."""
    position = compiled.initial_position(keys)
    if compiled.model is None and not even:
        return position
    names = None if compiled.model is not None else tuple(compiled.fields)

    def with_sign(position, wanted):
        field, _ = ravel_pytree(position if names is None else {name: position[name] for name in names})
        turn = jnp.where(field.mean() < 0, -1, 1) != wanted
        return jax.tree.map(lambda new, old: jnp.where(turn, new, old), flipped(position, names), position)

    return jax.vmap(with_sign)(position, jnp.where(jnp.arange(len(keys)) % 2 == 0, 1, -1))


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


def _warm_up(advance: Callable, kernel: Kernel, chains: _Chain, keys, num_warmup: int, bar: Progress, buffer):
    capacity = jax.tree.leaves(buffer)[0].shape[1]
    chunks, first = _Chunks([num_warmup], capacity), 0
    while first < num_warmup:
        count, started = chunks.next(first), time.monotonic()
        chains, buffer = advance(chains, keys, first, count, 1, buffer, warming=True)
        _require_finite(chains.state, "during warm-up", "S may be unbounded below: see model.check().")
        if first:  # the first chunk compiles: its time says nothing about speed
            chunks.tell(count, time.monotonic() - started)
        else:
            bar.start()
        first += count
        bar.advance(count, "warm-up", float(buffer[2]["acceptance_rate"][:, :count].mean()), None)
    tuning = _like(jax.vmap(kernel.adaptation.final)(chains.adaptation), chains.tuning)
    if not all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(tuning)):
        raise SamplingError(
            "warm-up found no step size at which the kernel moves; see model.check() and the couplings."
        )
    chains = chains._replace(tuning=tuning)
    return chains._replace(virial_sum=jnp.zeros_like(chains.virial_sum)), buffer


def _draw(advance: Callable, chains: _Chain, keys, num_samples: int, thinning: int, bar: Progress, buffer, record):
    capacity = jax.tree.leaves(buffer)[0].shape[1]
    num_blocks = max(1, min(NUM_BLOCKS, num_samples // 5))
    boundaries = [num_samples * (k + 1) // num_blocks for k in range(num_blocks)]
    storage = jax.tree.map(lambda s: np.empty((len(keys), num_samples, *s.shape), s.dtype), record)
    chunks, blocks = _Chunks(boundaries, capacity), []
    first = since_boundary = divergences = 0
    while first < num_samples:
        count, started = chunks.next(first), time.monotonic()
        chains, buffer = advance(chains, keys, first, count, thinning, buffer, warming=False)
        for whole, part in zip(jax.tree.leaves(storage), jax.tree.leaves(buffer), strict=True):
            whole[:, first : first + count] = np.asarray(part)[:, :count]  # slices on the device are compiled
        chunks.tell(count, time.monotonic() - started)
        statistics = {name: values[:, first : first + count] for name, values in storage[2].items()}
        first += count
        since_boundary += count * thinning
        _require_finite(chains.state, f"at draw {first - 1}", "The action is not finite everywhere: see model.check().")
        if first in boundaries:
            blocks.append(np.asarray(chains.virial_sum) / since_boundary)
            chains, since_boundary = chains._replace(virial_sum=jnp.zeros_like(chains.virial_sum)), 0
        divergences += int(statistics["diverging"].sum())
        bar.advance(count * thinning, "sampling", float(statistics["acceptance_rate"].mean()), divergences)
    return storage, np.stack(blocks, axis=1)
