"""One call from a process and a field to all that happens: the loops, checkpoints and devices of `phi4ppl.sample`."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from .._typing import PathLike
from ..errors import ArgumentError
from ..errors.arguments import call_checked, path_of, positive_int, seed_within
from ..kernels.kernel import Kernel
from ..lattice.labels import aligned_fields, field_dims, is_labeled
from ..results.evolution_tree import evolution_frame, evolution_tree
from ..sampling.chains import Watch, run_program
from ..sampling.devices import placement
from ..sampling.harvest import Harvest
from ..sampling.identity import array_digest, function_digest
from ..sampling.memory import readable
from ..sampling.program import Program, like
from .driven import Driven
from .process import Process
from .recorded import recorded
from .time_grid import TimeGrid, time_grid

__all__ = ["evolve"]

ENERGIES = ("energy", "energy_density")  # names of what the line of progress shows


class _Motion(NamedTuple):
    """The argument of the program."""

    process: Process
    step_size: Any
    fused: Any  # steps between two records, or a part of them


class _Moving(NamedTuple):
    """One replica."""

    position: Any  # the state of the process
    count: Any  # steps made


class _Fixed:
    """In place of a warm-up: the step size is what it is."""

    def begin(self, motion: _Motion, position):
        return jnp.asarray(motion.step_size)

    def update(self, motion, state, stage, is_window_end, chain_state, statistics):
        return state

    def tuning(self, state):
        return _StepSize(state)

    final = tuning


class _StepSize(NamedTuple):
    step_size: Any


def _steps(motion: _Motion, tuning):
    """A kernel whose one iteration is ``fused`` steps of the process, none of which is measured."""
    from blackjax.base import SamplingAlgorithm

    def init(position, key=None):
        return _Moving(position, jnp.zeros((), jnp.int32))

    def step(key, moving: _Moving):
        advance = motion.process.prepare(motion.step_size)

        def body(k, state):
            time = (moving.count + k) * motion.step_size
            return like(advance(state, jax.random.fold_in(key, k), time), state)

        return _Moving(jax.lax.fori_loop(0, motion.fused, body, moving.position), moving.count + motion.fused), {}

    return SamplingAlgorithm(init, step)


KERNEL = Kernel("evolution", "steps of a process in time", _steps, lambda info: {}, _Fixed())  # type: ignore[arg-type]


@functools.lru_cache(maxsize=32)
def _program(observables: tuple) -> Program:
    """The program of all processes of which the same is recorded; other couplings, step sizes and times compile nothing."""
    return Program(
        lambda motion: motion, lambda state: {}, (), KERNEL, observables, lambda name: False, False, None,
        observe=lambda f, motion, state: f(motion.process, state), lean=True,
    )  # fmt: skip


class _Watch(Watch):
    phase = "evolving"
    too_many_fix = "Use a larger step size, or continue from the last field in another call."
    memory_advice = (
        "Record less often (a larger every), keep observables only (keep_field=False), or evolve fewer replicas."
    )

    def __init__(self, process: Process, grid: TimeGrid):
        self.process, self.grid, self.runner, self.scale = process, grid, "replica", grid.fused

    def compiling(self, name: str, needed: int) -> str:
        return f"compiling {type(self.process).__name__} … (what is recorded will take {readable(needed)})"

    def started(self, state) -> None:
        self.drawn(state, 0)

    def drawn(self, state, kept: int) -> None:
        steps = int(np.asarray(state.count).ravel()[0])
        self.process.check(jax.tree.map(np.asarray, state.position), steps * self.grid.step_size)

    def energy(self, harvest: Harvest) -> float | None:
        if not harvest.kept:
            return None
        found = [harvest.storage[name] for name in map("observables/{}".format, ENERGIES) if name in harvest.storage]
        return float(np.mean(found[0][:, harvest.kept - 1])) if found else None

    def interrupted(self, kept: int, asked: int, how: str) -> str:
        end, whole = (n * self.grid.every for n in (kept, asked))
        return f"interrupted: the evolution up to time {end:g} of {whole:g} is returned{how}."


@call_checked
def evolve(
    process: Process, start: Any, *, time: float, step_size: float | None = None, every: float | None = None,
    observables: dict | list[str] | None = None, num_replicas: int | None = None, seed: int = 0, keep_field: bool = True,
    progress: bool | None = None, checkpoint: PathLike | None = None, devices: dict | None = None,
    protocol: dict[str, Any] | None = None,
) -> xr.DataTree:  # fmt: skip
    """Move a field in time by a process, record it, and measure it on the way.

    All replicas run in one compiled program, in chunks between which progress is drawn (with the energy, where the process has
    one) and records are handed to the host. Steps between two records are fused and measure nothing. The same seed gives the
    same numbers, bit for bit, on the same machine.

    Parameters
    ----------
    process : Process
        What moves the field: `Diffusion`, `GradientFlow`, `Hamiltonian`, `DriveTo`, `NeuralField`, or `Drift` of any function.
    start : array
        The field at time 0, of shape ``process.lattice.field_shape``, or one field per replica with a leading axis. Labeled
        data are put in the order of the lattice.
    time : float
        How long; in the units of the process.
    step_size : float, optional
        By default the process's own (most take a quarter of their limit of stability). A step past the limit is refused.
    every : float, optional
        Time between two records, a multiple of ``step_size``. By default about a hundredth of ``time``.
    observables : list of str, or dict of callables, optional
        Recorded at every time in addition to the mean field (``magnetization``), the mean square (``phi_squared``) and what the
        process measures itself: names such as ``["structure_factor"]`` (see `phi4ppl.analysis.quantity_names`), or functions
        of one field.
    num_replicas : int, optional
        Copies that move by themselves; by default as many as ``start`` has, or one.
    seed : int, default 0
        Of the noise, from 0 to 2³² − 1; without effect on a process without noise.
    keep_field : bool, default True
        Record the field itself, or observables only.
    progress : bool, optional
        Show a line on standard error; by default only in a terminal.
    checkpoint : path-like, optional
        A directory for the state of the run, as that of `phi4ppl.sample`: the repeated call resumes, bit for bit.
    devices : dict, optional
        How many devices each dimension is spread over: ``{"replica": 4}``, or lattice dimensions by name.
    protocol : dict, optional
        Couplings that change in time while `Langevin` moves the field: by name of a coupling a JAX function of time, or a pair
        ``(times, values)`` that covers the run. ``work`` is recorded; `free_energy_difference` takes the tree. See `Driven`.

    Returns
    -------
    xarray.DataTree
        Group ``evolution`` with ``phi`` and all observables, of dimensions ``(replica, time, …)``; ``constant_data`` with edges
        and positions. `phi4ppl.settings` reads its settings, `phi4ppl.save_run` writes it. After Ctrl-C it ends early, with a
        warning.

    Raises
    ------
    EvolutionError
        If a field is no longer finite, or a law of the process is broken.
    MemoryLimitError, CheckpointError, ArgumentError

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> ring = p4.lattice.chain(12)
    >>> tree = p4.dynamics.evolve(p4.dynamics.Diffusion(ring), np.eye(12)[0], time=2.0, every=0.5)
    >>> dict(tree["evolution"]["phi"].sizes)
    {'replica': 1, 'time': 5, 'site': 12}
    >>> tree["evolution"]["phi"].sum("site").values.round(5)
    array([[1., 1., 1., 1., 1.]], dtype=float32)
    """
    if not isinstance(process, Process):
        fix = "A function (phi, t) → dφ/dt becomes one by phi4ppl.dynamics.Drift(lattice, function)."
        raise ArgumentError("process", "a process of phi4ppl.dynamics", repr(process)[:80], fix)
    if protocol is not None:
        process = Driven(process, protocol)  # type: ignore[call-arg]  # the decorator hides the fields
    grid, seed = time_grid(process, time, step_size, every), seed_within(seed)
    process.require_time(grid.time)
    for name, flag in (("keep_field", keep_field), ("progress", bool(progress) if progress is None else progress)):
        if not isinstance(flag, bool):
            raise ArgumentError(name, "True or False", repr(flag))
    fields = _starts(process, start, num_replicas)
    checkpoint = None if checkpoint is None else path_of("checkpoint", checkpoint)
    lattice, number = process.lattice, len(fields)
    if isinstance(devices, dict):
        devices = {"chain" if name == "replica" else name: count for name, count in devices.items()}
    spread = placement(devices, number, dict(zip(field_dims(lattice)[0], lattice.field_shape, strict=True)))
    start_key, *keys = jax.random.split(jax.random.key(seed), 3)
    state = jax.vmap(process.start)(fields, jax.random.split(start_key, number))
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), state)
    functions, dims, coords = recorded(process, one, observables, keep_field)
    program = _program(functions)
    real = jnp.result_type(float)
    argument = _Motion(process, np.asarray(grid.step_size, real), np.asarray(grid.fused, np.int32))
    first = program.measure(jax.tree.map(jnp.asarray, argument), state).observables
    settings = {
        "process": type(process).__name__, "time": grid.time, "step_size": grid.step_size, "every": grid.every, "seed": seed,
        "num_replicas": number, "num_warmup": 0, "num_samples": grid.records, "num_chains": number,
        "thinning": grid.thinning, "dtype": str(real),
    }  # fmt: skip
    facts = {"process": repr(process)[:2000]}
    frame = evolution_frame(lattice, {n: np.asarray(v) for n, v in first.items()}, dims, coords, facts, settings)

    def identity() -> dict:
        digests = {name: function_digest(f, process, one) for name, f in functions}
        return {"lattice": lattice.digest, "process_values": array_digest(process), "observables": digests}

    result = run_program(
        program, argument, state, keys, settings=settings, identity=identity, watch=_Watch(process, grid),
        progress=progress, checkpoint=checkpoint, frame=frame, spread=spread,
    )  # fmt: skip
    return evolution_tree(result, frame)


def _starts(process: Process, start, num_replicas: int | None) -> jax.Array:
    """One field per replica."""
    lattice = process.lattice
    shape = lattice.field_shape
    if num_replicas is not None:
        num_replicas = positive_int("num_replicas", num_replicas)
    if np.iscomplexobj(start) and not process.is_complex:
        fix = f"{type(process).__name__} moves real ones: give start.real."
        raise ArgumentError("start", "real numbers", "complex ones", fix, reason="complex")
    if np.iscomplexobj(start) and not is_labeled(start):
        fields = np.asarray(start)
    else:
        fields = aligned_fields("start", start, lattice)
    if fields.shape == shape:
        fields = np.broadcast_to(fields, (num_replicas or 1, *shape))
    if fields.shape[1:] != shape or not len(fields):
        expected = f"a field of shape {shape}, or several with a leading axis"
        raise ArgumentError("start", expected, f"shape {fields.shape}", reason="shape")
    if num_replicas is not None and len(fields) != num_replicas:
        raise ArgumentError("num_replicas", f"{len(fields)}, as start has fields", f"{num_replicas}", reason="conflict")
    kind = complex if np.iscomplexobj(fields) else float
    if not np.isfinite(fields).all() or math.prod(shape) == 0:
        raise ArgumentError("start", "finite numbers", "others", reason="finite")
    return jnp.asarray(fields, jnp.result_type(kind))
