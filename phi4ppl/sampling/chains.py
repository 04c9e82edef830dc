"""Run many chains of one kernel, chunk by chunk: draws to the host, progress, checkpoints and Ctrl-C between the chunks."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ..energy.compiled import CompiledModel
from ..errors import ArgumentError, Phi4pplWarning, SamplingError, warn
from ..errors.arguments import call_checked
from ..kernels import adaptation as warmup
from ..kernels.kernel import Kernel
from ..kernels.symmetry import flipped
from .checkpoint import Store, pack, unpack
from .devices import OneDevice, Spread
from .harvest import Harvest, RunResult
from .identity import array_digest, model_identity, version_identity
from .interrupt import Interrupts
from .memory import ADVICE, readable, record_bytes, require_memory
from .program import PLAN_LENGTH, Chain, Program, like, program_of, require_finite
from .progress import Progress

__all__ = ["Watch", "run_chains", "run_program"]

BUFFER_BYTES = 64_000_000  # draws held on the device before they are handed to the host
SECONDS_PER_CHUNK = 0.7
SECONDS_PER_CHECKPOINT = 60.0
MAX_ITERATIONS = 2**31 - 1  # their numbers make the keys
CHAINS = "chains"  # prefix of the names of the state of the chains in a checkpoint


@call_checked
def run_chains(
    compiled: CompiledModel, kernel: Kernel, *, num_warmup: int, num_samples: int, num_chains: int, seed: int,
    observables: dict[str, Callable], keep: Callable[[str], bool], thinning: int, flip_signs: bool,
    progress: bool | None, even: bool = False, memory_limit: int | None = None, checkpoint=None,
    frame: tuple[dict, dict] = ({}, {}), spread: OneDevice | Spread | None = None, place: Callable | None = None,
) -> RunResult:  # fmt: skip
    """Warm up and sample; see `phi4ppl.sample` for the arguments.

    ``keep(name)`` selects the constrained values that are kept; ``even`` means that the density is the same at φ and −φ;
    ``frame`` is stored with a checkpoint, for those who read it without the model; ``place(positions)`` changes where the
    chains begin. Every iteration has its own key, folded
    from the seed, the chain and its number, so the numbers do not depend on how the run is cut into chunks, nor on where it
    was stopped and resumed.
    """
    start_key, *keys = jax.random.split(jax.random.key(seed), 3)
    begun = compiled if kernel.start is None else replace(compiled, initial_position=jax.vmap(kernel.start))
    position = _starts(begun, jax.random.split(start_key, num_chains), even)
    position = position if place is None else place(position)
    program = program_of(compiled, kernel, tuple(observables.items()), keep, flip_signs, even)
    settings = {
        "kernel": kernel.name, "num_warmup": num_warmup, "num_samples": num_samples, "num_chains": num_chains,
        "seed": seed, "thinning": thinning, "even": even, "sign_moves": flip_signs,
        "dtype": str(ravel_pytree(position)[0].dtype), "layout": compiled.layout,
    }  # fmt: skip

    def identity() -> dict:
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), position)
        return model_identity(compiled, tuple(observables.items()), one)

    return run_program(
        program, compiled.model, position, keys, settings=settings, identity=identity, watch=Watch(), progress=progress,
        memory_limit=memory_limit, checkpoint=checkpoint, frame=frame, spread=spread,
    )  # fmt: skip


class Watch:
    """What a run says of itself and what it looks at between chunks; this is how draws are watched."""

    phase, runner, scale = "sampling", "chain", 1  # words for progress, and the steps in one iteration
    too_many_fix = "Use more chains."
    memory_advice = ADVICE

    def compiling(self, name: str, needed: int) -> str:
        return f"compiling {name} … (the draws will take {readable(needed)})"

    def started(self, state) -> None:
        require_finite(state, "at its start", "The action is not finite there: check data and couplings.")

    def drawn(self, state, kept: int) -> None:
        """Raise an error if what has been drawn cannot be used."""
        require_finite(state, f"at draw {kept}", "The action is not finite everywhere: see model.check().")

    def energy(self, harvest: Harvest) -> float | None:
        """What the line of progress shows as the energy; None for no such part."""
        return None

    def interrupted(self, kept: int, asked: int, how: str) -> str:
        return f"interrupted: {kept} of {asked} draws per chain are returned{how}."


def run_program(
    program: Program, argument, position, keys, *, settings: dict, identity: Callable[[], dict], watch: Watch,
    progress: bool | None, memory_limit: int | None = None, checkpoint=None, frame: tuple[dict, dict] = ({}, {}),
    spread: OneDevice | Spread | None = None,
) -> RunResult:  # fmt: skip
    """Run the chains of a program to their end, from ``position`` on.

    Parameters
    ----------
    program : Program
    argument : pytree
        What the program is a program of: a model with its couplings.
    position : pytree
        One position per chain.
    keys : two JAX random keys
        Of warm-up and of what follows.
    settings : dict
        With ``num_warmup``, ``num_samples``, ``num_chains`` and ``thinning``; a checkpoint is of a run of these settings.
    identity : callable
        Digests of the model and of what is measured; asked for where there is a checkpoint.
    watch : Watch
    """
    spread = spread or OneDevice()
    with Interrupts() as interrupts:
        placed = _Placed(program, argument, position, spread, settings["num_warmup"], checkpoint is not None)
        chains = placed.begin(spread.place(position))
        watch.started(spread.fetch(chains.state))
        settings = settings | {
            "devices": spread.shape, "num_processes": None if spread.shape is None else jax.process_count(),
        }  # fmt: skip
        same = dict(settings)
        progress = progress if spread.is_first else False
        run = _Run(placed, chains, keys, settings, watch, interrupts, progress, memory_limit)
        try:
            if checkpoint is not None:
                same |= identity() | version_identity()
                same["steps"] = placed.digest
                # what the chains begin with is a second witness of the model
                same |= {"kept": sorted(run.harvest.storage), "start": array_digest(spread.fetch(chains))}
                run.open(checkpoint, same, frame)
            return run.go()
        finally:
            run.close()


class _Placed:
    """The program of a run on its devices, at its couplings and for its warm-up."""

    def __init__(self, program: Program, argument, position, spread, num_warmup: int, wants_digest: bool):
        self.program, self.adaptation, self.spread = program, program.kernel.adaptation, spread
        model = jax.tree.map(jnp.asarray, argument)
        chains = jax.eval_shape(program.begin, model, position)
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), chains)
        self.record = program.record_of(model, one)
        self.digest = program.digest_of(model, one) if wants_digest else None
        self.model = spread.copied(model)
        begin, self.flushed, self._advance = spread.functions(program, chains, self.record)
        self.begin = functools.partial(begin, self.model)
        # plans of few lengths, so that another num_warmup does not mean another program
        stages = warmup.schedule(num_warmup) if num_warmup else np.zeros((1, 2), int)
        plan = np.pad(stages, ((0, -len(stages) % PLAN_LENGTH), (0, 0)))
        self.plan = spread.copied(plan)

    def advance(self, chains, keys, first, count, thinning, buffer, warming):
        return self._advance(self.model, chains, keys, first, count, thinning, buffer, self.plan, warming)


class _Run:
    """A run between chunks.

    Attributes
    ----------
    warmed : int
        Iterations of warm-up that are done; of sampling, ``harvest.done`` are.
    unsaved : float
        Seconds since the last checkpoint.
    """

    def __init__(
        self, placed: _Placed, chains: Chain, keys, settings, watch: Watch, interrupts, progress, memory_limit
    ):
        self.placed, self.chains, self.settings = placed, chains, settings
        self.watch, self.interrupts = watch, interrupts
        spread, record = placed.spread, placed.record
        self.fetch = spread.fetch
        self.num_warmup, self.num_samples, num_chains, self.thinning = (
            settings[name] for name in ("num_warmup", "num_samples", "num_chains", "thinning")
        )
        kept = record._replace(streamed={})
        needed = require_memory(kept, num_chains, self.num_samples, memory_limit, watch.memory_advice)
        if self.num_samples * self.thinning > MAX_ITERATIONS:
            got = f"{self.num_samples} draws of {self.thinning} iterations"
            raise ArgumentError(
                "num_samples",
                f"at most {MAX_ITERATIONS} iterations per chain",
                got,
                watch.too_many_fix,
                reason="too_large",
            )
        self.settings["memory_bytes"] = needed
        self.capacity = int(np.clip(BUFFER_BYTES // max(1, num_chains * record_bytes(record)), 1, 1000))
        self.harvest = Harvest(record, chains.sums, self.num_samples, self.thinning, self.fetch)
        room = (num_chains, self.capacity)
        self.buffer = spread.zeros(jax.tree.map(lambda s: jax.ShapeDtypeStruct((*room, *s.shape), s.dtype), record))
        self.warm_keys, self.draw_keys = (spread.place(jax.random.split(key, num_chains)) for key in keys)
        self.bar = Progress(self.num_warmup + self.num_samples * self.thinning, progress)
        self.bar.runner, self.bar.scale = watch.runner, watch.scale
        self.message = watch.compiling(placed.program.kernel.name, needed)
        self.total = self.num_samples * self.thinning
        self.warmed, self.is_warm, self.is_compiled, self.interrupted, self.divergences = 0, False, False, False, 0
        self.store, self.path, self.saved, self.saved_draws, self.seconds_warmup = None, None, None, 0, 0.0
        self.asked_somewhere, self.unsaved = False, 0.0
        self.began = self.saved_at = time.monotonic()

    # --- checkpoints

    def open(self, path, identity: dict, frame: tuple[dict, dict]) -> None:
        """Resume from the state in a directory, or start there."""
        spread, self.path = self.placed.spread, path
        self.store = spread.on_first(lambda: Store(path, identity, frame), path)
        self.saved = self.store.saved if self.store is not None else None
        if not spread.agree(self.saved is not None)[0, 0]:
            self.save()
            return
        self.saved = saved = spread.seen_by_all(self.saved, path)
        chains = {name.removeprefix(CHAINS): leaf for name, leaf in saved.state.items() if name.startswith(CHAINS)}
        self.chains = self.placed.spread.place(unpack(self.chains, chains, saved.path))
        self.harvest.restore(saved)
        for name in ("warmed", "is_warm", "divergences", "seconds_warmup"):
            setattr(self, name, saved.progress[name])
        self.began, self.saved_draws = self.began - saved.progress["seconds"], self.harvest.kept
        self.bar.resume(self.warmed + self.harvest.done)

    def save(self, settings: dict | None = None) -> None:
        """Write a checkpoint, if the run has one."""
        if self.path is None:
            return
        state = {CHAINS + name: leaf for name, leaf in pack(self.fetch(self.chains)).items()} | self.harvest.state()
        progress = {
            "warmed": self.warmed, "is_warm": self.is_warm, "divergences": self.divergences, "seconds": self.seconds,
            "seconds_warmup": self.seconds_warmup, "settings": settings or self.settings_so_far(),
        }  # fmt: skip
        first, stop = self.saved_draws, self.harvest.kept
        draws = self.harvest.draws(first, stop)
        self.placed.spread.on_first(lambda: self.store.save(progress, state, first, stop, draws), self.path)
        self.saved_at, self.saved_draws = time.monotonic(), stop

    def pause(self) -> None:
        """Between two chunks: a checkpoint from time to time."""
        if self.unsaved >= SECONDS_PER_CHECKPOINT:
            self.save()

    @property
    def asked(self) -> bool:
        """Whether Ctrl-C has been pressed in any of the processes; all of them agree on it."""
        return self.asked_somewhere if self.placed.spread.several else self.interrupts.asked

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    # --- the run

    def go(self) -> RunResult:
        if self.harvest.done == self.total:
            return self.harvest.result(self.chains.sums, self.saved.progress["settings"])  # type: ignore[attr-defined]
        self.bar.message(self.message)
        if not self.is_warm:
            self.warm_up()
        self.draw()
        settings = self.settings_so_far()
        self.save(settings)
        if self.interrupted:
            how = "" if self.path is None else "; repeat the call to resume from its checkpoint"
            text = self.watch.interrupted(self.harvest.kept, self.num_samples, how)
            values = {"kept": self.harvest.kept, "num_samples": self.num_samples}
            warn(Phi4pplWarning("sampling.interrupted", text, values))
        return self.harvest.result(self.chains.sums, settings)

    def close(self) -> None:
        self.bar.close()
        if self.store is not None:
            self.store.close()

    def warm_up(self) -> None:
        chunks = _Chunks(self.capacity)
        while self.warmed < self.num_warmup:
            count, started = chunks.next(self.num_warmup - self.warmed), time.monotonic()
            self.chains, self.buffer = self.placed.advance(
                self.chains, self.warm_keys, self.warmed, count, 1, self.buffer, True
            )
            require_finite(
                self.fetch(self.chains.state), "during warm-up", "S may be unbounded below: see model.check()."
            )
            self.warmed += count
            rate = np.asarray(self.fetch(self.buffer.statistics["acceptance_rate"]))[:, :count]
            self._tell(chunks, count, started, "warm-up", rate, None)
            if self.asked:
                self.save()
                raise KeyboardInterrupt  # there are no draws to return
            self.pause()
        adaptation = self.placed.adaptation
        tuning = like(jax.vmap(adaptation.final)(self.chains.adaptation), self.chains.tuning)
        if not all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(self.fetch(tuning))):
            raise SamplingError(
                "no_step_size",
                "warm-up found no step size at which the kernel moves; check the couplings, and see model.check().",
            )
        self.chains = self.placed.flushed(self.chains._replace(tuning=tuning))
        self.harvest.step_size[:] = _by_chain(self.fetch(tuning.step_size)).mean(axis=1)
        self.is_warm, self.seconds_warmup = True, round(self.seconds, 3)
        self.save()

    def draw(self) -> None:
        harvest, chunks = self.harvest, _Chunks(self.capacity)
        while harvest.done < self.total:
            count, started = chunks.next(harvest.next_flush - harvest.done), time.monotonic()
            self.chains, self.buffer = self.placed.advance(
                self.chains, self.draw_keys, harvest.done, count, self.thinning, self.buffer, False
            )
            self.watch.drawn(self.fetch(self.chains.state), harvest.kept)
            statistics = harvest.take(count, self.buffer)
            if harvest.done == harvest.next_flush:
                harvest.flush(self.chains.sums)
                self.chains = self.placed.flushed(self.chains)
            rate, diverging = (statistics.get(name) for name in ("acceptance_rate", "diverging"))
            self.divergences += 0 if diverging is None else int(diverging.sum())
            divergences = None if diverging is None else self.divergences
            self._tell(chunks, count, started, self.watch.phase, rate, divergences)
            self.interrupted = self.asked and harvest.done < self.total
            if self.interrupted and not harvest.kept:
                self.save()
                raise KeyboardInterrupt  # there are no draws to return
            if self.interrupted:
                return
            self.pause()

    def _tell(self, chunks: _Chunks, count: int, started: float, phase: str, rate, divergences: int | None) -> None:
        now = time.monotonic()
        acceptance = float(rate.mean()) if rate is not None and rate.size else None
        self.bar.advance(count, phase, acceptance, divergences, self.watch.energy(self.harvest))
        # all processes continue in step with the first, until one of them is interrupted
        told = self.placed.spread.agree(now - started, self.interrupts.asked, now - self.saved_at)
        seconds, self.asked_somewhere, self.unsaved = float(told[0, 0]), bool(told[:, 1].any()), float(told[0, 2])
        if self.is_compiled:  # the time of the first chunk, which includes compilation, does not show the speed
            chunks.tell(count, seconds)
        self.is_compiled = True

    def settings_so_far(self) -> dict:
        """The settings, with how far the run is."""
        return self.settings | {
            "num_samples": self.harvest.kept, "num_samples_asked": self.num_samples, "interrupted": self.interrupted,
            "incomplete": self.harvest.done < self.total, "seconds_warmup": self.seconds_warmup,
            "seconds": round(self.seconds, 3),
        }  # fmt: skip


def _starts(compiled: CompiledModel, keys, even: bool = False):
    """One start per chain; means of the fields of neighboring chains start with opposite signs."""
    position = compiled.initial_position(keys)
    if compiled.model is None and not even:
        return position
    names = None if compiled.model is not None else tuple(compiled.fields)

    def with_sign(position, wanted):
        field, _ = ravel_pytree(position if names is None else {name: position[name] for name in names})
        turn = jnp.where(field.mean() < 0, -1, 1) != wanted
        return jax.tree.map(lambda new, old: jnp.where(turn, new, old), flipped(position, names), position)

    return jax.vmap(with_sign)(position, jnp.where(jnp.arange(len(keys)) % 2 == 0, 1, -1))


def _by_chain(values) -> np.ndarray:
    return np.asarray(values).reshape(len(values), -1)


class _Chunks:
    """Sizes of chunks, chosen so that each takes about the same time."""

    def __init__(self, capacity: int):
        self.capacity, self.size = capacity, min(10, capacity)

    def next(self, most: int) -> int:
        return min(self.size, most)

    def tell(self, count: int, seconds: float) -> None:
        if count >= min(self.size, 5):
            self.size = int(np.clip(count * SECONDS_PER_CHUNK / max(seconds, 1e-6), 1, self.capacity))
