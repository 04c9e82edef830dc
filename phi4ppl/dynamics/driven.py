"""Couplings that change in time, the work that this takes, and the free-energy difference that follows from it (Jarzynski)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ..energy.functions import energy, energy_change
from ..errors import ArgumentError, OverlapError, Phi4pplWarning, warn
from ..errors.arguments import call_checked, finite_array, one_of
from ..lattice.frozen import Lattice
from ..model.field import MarkovRandomField
from ..partition.annealing import combine_directions, one_sided
from ..reports.numbers import value_with_error
from ..results.evolution_tree import GROUP
from ..results.tails import pareto_k
from ..reweighting.reweighted import MAX_PARETO_K, MIN_EFFECTIVE_SAMPLES
from .langevin import Langevin, LangevinState
from .process import CLOSE, Process, process

__all__ = ["Driven", "DrivenState", "WorkEstimate", "free_energy_difference"]


class DrivenState(NamedTuple):
    """A field under way, and the work done on it so far."""

    inner: LangevinState
    work: jax.Array


@call_checked
@process
class Driven(Process):
    """Langevin dynamics of a model whose couplings change in time by a protocol, with the work W that this takes.

    ``evolve(Langevin(model), start, protocol={"a": …})`` is this process.

    In every step the couplings are switched from θ(t) to θ(t + ε) and the field then makes one step at θ(t + ε):

        W = Σ_steps [S(φ; θ(t + ε)) − S(φ; θ(t))] + [S(φ′; θ) − S(φ; θ) + ln T(φ → φ′) − ln T(φ′ → φ)].

    The second bracket is 0 for steps in detailed balance (``"mala"``). For ``"euler"`` and ``"exponential"`` it is the work
    of the finite step itself, T its Gaussian density (J. P. Nilmeier, G. E. Crooks, D. D. L. Minh and J. D. Chodera, PNAS 108
    (2011) E1009), so that

        ⟨exp(−W)⟩ = Z(θ_end)/Z(θ_start)

    holds exactly at every step size and every speed, for starts in equilibrium at θ(0) (C. Jarzynski, Phys. Rev. Lett. 78
    (1997) 2690).

    Parameters
    ----------
    langevin : Langevin
        With any step but ``"heun"``, whose density is not known. Couplings that are not in the protocol are those of its model.
    protocol : dict
        By name of a coupling: a function t → coupling in JAX, or a pair ``(times, values)`` between which it is linear. The
        times have to cover those of the run. Starts belong to the couplings of the protocol at time 0.

    Raises
    ------
    ArgumentError
        Also if couplings at the start or the end of the run are not finite, or make no density.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> from phi4ppl.dynamics import Langevin, evolve, free_energy_difference
    >>> model = p4.gaussian(p4.lattice.chain(1), w=0.0, a=0.5)  # S = ½ ωφ², ω from 1 to 4
    >>> start = np.random.default_rng(0).normal(size=(2000, 1))
    >>> protocol = {"a": ([0.0, 2.0], [0.5, 2.0])}
    >>> tree = evolve(Langevin(model, "exponential"), start, time=2.0, step_size=0.1, every=0.5, protocol=protocol)
    >>> found = free_energy_difference(tree)
    >>> bool(abs(found.value - 0.5 * np.log(4)) < 4 * found.error), bool(found.work > found.value)
    (True, True)
    """

    langevin: Langevin
    protocol: Any
    _schedules: Any = field(default=(), repr=False, metadata={"static": True})

    def __post_init__(self):
        if not isinstance(self.langevin, Langevin) or self.langevin.step == "heun":
            fix = "Works belong to steps of known density, which a Heun step and a process without noise do not have."
            expected = "Langevin(model, step) with 'mala', 'euler' or 'exponential' for a protocol"
            raise ArgumentError("langevin", expected, repr(self.langevin)[:80], fix)
        if not isinstance(self.protocol, Mapping) or not self.protocol:
            raise ArgumentError("protocol", "a dict of schedules by name of a coupling", repr(self.protocol)[:80])
        model, tables, functions = self.langevin.model, {}, []
        for name, schedule in self.protocol.items():
            if name not in model.couplings:
                known = ", ".join(map(repr, model.couplings))
                raise ArgumentError("protocol", f"names among {known}", repr(name), reason="name")
            if callable(schedule):
                _require_coupling(name, schedule, np.shape(model.couplings[name]))
                functions.append((name, schedule))
            else:
                tables[name] = _table(name, schedule)
                if np.ndim(model.couplings[name]):
                    fix = "A coupling with one number per clique takes a function t → array."
                    raise ArgumentError("protocol", "a function of time", f"a table for {name!r}", fix, reason="shape")
        vars(self).update(protocol=tables, _schedules=tuple(functions))

    @property
    def lattice(self) -> Lattice:  # type: ignore[override]
        return self.langevin.lattice

    @property
    def model(self) -> MarkovRandomField:
        """At the start of the protocol."""
        return self.at(jnp.zeros(()))

    @property
    def max_step_size(self) -> float | None:
        return self.langevin.max_step_size

    @property
    def default_step_size(self) -> float:
        return self.langevin.default_step_size

    def at(self, time) -> MarkovRandomField:
        """The model at this time."""
        model = self.langevin.model
        now = {name: jnp.interp(time, times, values) for name, (times, values) in self.protocol.items()}
        now |= {name: schedule(time) for name, schedule in self._schedules}
        return model.structure.at(jnp.asarray(now.get(name, value)) for name, value in model.couplings.items())

    def require_time(self, time: float) -> None:
        for name, (times, _) in self.protocol.items():
            if times[0] > 0 or times[-1] < time * (1 - CLOSE):
                got = f"{times[0]:g} to {times[-1]:g}"
                expected = f"for {name!r} times from 0 to {time:g}, those of the run"
                raise ArgumentError("protocol", expected, got, reason="range")
        for when in (0.0, time):
            self._require_density(when)

    def _require_density(self, time: float) -> None:
        model = self.at(jnp.asarray(time))
        values = {name: np.asarray(value) for name, value in model.couplings.items()}
        bad = [name for name, value in values.items() if not np.isfinite(value).all()]
        if bad:
            got = f"{values[bad[0]]!r} at time {time:g}"[:80]
            raise ArgumentError("protocol", f"finite values of {bad[0]!r}", got, reason="finite")
        report = self.langevin.model.replace(**values).check()
        if not report.is_normalizable:
            expected = f"couplings at time {time:g} that make a density"
            fix = "Works compare the free energies of both ends, which have to exist."
            raise ArgumentError("protocol", expected, report.normalizable_reason, fix, reason="not_normalizable")

    def start(self, field, key) -> DrivenState:
        value, force = self.langevin.force_of(field, self.at(jnp.zeros(())))
        one = jnp.ones((), field.dtype)
        return DrivenState(LangevinState(field, value, force, one), jnp.zeros((), field.dtype))

    def prepare(self, step_size) -> Callable:
        move = self.langevin.move(step_size)

        def advance(state, key, time):
            before, after = self.at(time), self.at(time + step_size)
            difference = jax.tree.map(jnp.subtract, after, before)
            phi = state.inner.field
            work = state.work + energy(difference, phi)
            value, force = self.langevin.force_of(phi, after)
            switched = state.inner._replace(energy=value, force=force)
            inner, ratio = self.langevin.advance(switched, key, move, after)
            if not self.langevin.is_exact:
                work += energy_change(after, inner.field, phi) + ratio
            return DrivenState(inner, work)

        return advance

    def observe(self, state):
        return state.inner.field

    def measured(self, state):
        return self.langevin.measured(state.inner) | {"work": state.work}


def _table(name: str, schedule) -> tuple[np.ndarray, np.ndarray]:
    try:
        times, values = (finite_array("protocol", part) for part in schedule)
    except (TypeError, ValueError) as error:
        expected = f"for {name!r} a function of time, or a pair (times, values)"
        raise ArgumentError("protocol", expected, repr(schedule)[:80]) from error
    if times.ndim != 1 or times.shape != values.shape or len(times) < 2 or np.any(np.diff(times) <= 0):
        raise ArgumentError(
            "protocol", f"for {name!r} rising times and as many values", repr(schedule)[:80], reason="shape"
        )
    return times, values


def _require_coupling(name: str, schedule: Callable, shape: tuple[int, ...]) -> None:
    expected = f"for {name!r} a JAX function of time that returns a coupling of shape {shape}"
    try:
        found = jax.eval_shape(lambda t: jnp.asarray(schedule(t)), jax.ShapeDtypeStruct((), jnp.result_type(float)))
    except Exception as error:  # the user should read whatever the function raises under tracing
        raise ArgumentError("protocol", expected, f"{type(error).__name__}: {error}"[:300], reason="raises") from error
    if found.shape != shape:
        raise ArgumentError("protocol", expected, f"shape {found.shape}", reason="returns")


@dataclass(frozen=True, repr=False)
class WorkEstimate:
    """A free-energy difference from works.

    Attributes
    ----------
    value, error : float
        ΔF = F_end − F_start = −log Z_end/Z_start, with its standard error.
    work, work_error : float
        ⟨W⟩, never below ΔF (second law); the rest is dissipated.
    effective_sample_size, pareto_k : float
        Of the weights exp(−W), of the direction where they are worse.
    bracket : tuple of float, or None
        With works of both directions: ends between which ΔF lies, as one direction errs up and the other down.
    warnings : tuple of str
    """

    value: float
    error: float
    work: float
    work_error: float
    effective_sample_size: float
    pareto_k: float
    bracket: tuple[float, float] | None = None
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = value_with_error(self.value, self.error)
        work, number = value_with_error(self.work, self.work_error), f"{self.effective_sample_size:.0f} effective works"
        text = f"ΔF = {shown}, ⟨W⟩ = {work}, {number}"
        return "\n".join([text, *(f"  NOT RELIABLE: {each}" for each in self.warnings)])

    __repr__ = __str__


@call_checked
def free_energy_difference(
    tree: xr.DataTree, backward: xr.DataTree | None = None, *, time: float | None = None, on_poor_overlap: str = "raise"
) -> WorkEstimate:
    """ΔF = −log⟨exp(−W)⟩ from the works of an evolution with a protocol, with its error.

    Parameters
    ----------
    tree : DataTree
        Of `evolve` with ``protocol=``, one replica per start in equilibrium.
    backward : DataTree, optional
        The same protocol run backward from equilibrium at its end. The two estimates are biased in opposite directions and are
        averaged; see `phi4ppl.partition`.
    time : float, optional
        Up to here, by default to the end. (Not with ``backward``.)
    on_poor_overlap : str
        ``"raise"``, or ``"warn"`` to get the numbers anyway.

    Raises
    ------
    OverlapError
        If exp(−W) leaves less than 100 effective works, or has k̂ > 0.7: a few works carry the average, and lower ones are
        missing. Drive more slowly, or take more replicas.
    ArgumentError
    """
    one_of("on_poor_overlap", on_poor_overlap, ("raise", "warn"))
    if backward is not None and time is not None:
        raise ArgumentError("time", "None together with backward", repr(time))
    works = [_works("tree", tree, time)] + ([] if backward is None else [_works("backward", backward, None)])
    sizes, tails = zip(*(_weights(work) for work in works), strict=True)
    forward, bracket, notes = works[0], None, ()
    if backward is None:
        log_ratio, error = one_sided(forward)
    else:
        log_ratio, error, bracket, notes = combine_directions(forward, -works[1])
        bracket = (-bracket[1], -bracket[0])
    found, work_error = list(notes), float(np.std(forward, ddof=1) / np.sqrt(len(forward)))
    if min(sizes) < MIN_EFFECTIVE_SAMPLES or max(tails) > MAX_PARETO_K:
        found.append(
            f"The weights exp(−W) leave {min(sizes):.3g} effective of {len(forward)} works ({MIN_EFFECTIVE_SAMPLES} are "
            f"required), Pareto k̂ = {max(tails):.2f} (at most {MAX_PARETO_K}). Drive more slowly, or take more replicas."
        )
        if on_poor_overlap == "raise":
            raise OverlapError("work", f"{found[-1]} on_poor_overlap='warn' returns the numbers anyway.")
        warn(Phi4pplWarning("overlap.work", found[-1]))
    return WorkEstimate(
        -log_ratio, error, float(forward.mean()), work_error, min(sizes), max(tails), bracket, tuple(found)
    )


def _works(name: str, tree, time: float | None) -> np.ndarray:
    if not isinstance(tree, xr.DataTree) or GROUP not in tree.children or "work" not in tree[GROUP]:
        raise ArgumentError(name, "the result of evolve with protocol=", type(tree).__name__)
    works = tree[GROUP]["work"]
    last = works.isel(time=-1) if time is None else works.sel(time=time, method="nearest")
    if last.size < 2:
        raise ArgumentError(name, "at least two replicas", str(last.size), "Give evolve one start per replica.")
    return last.values.astype(float)


def _weights(work: np.ndarray) -> tuple[float, float]:
    """Effective number and tail of the weights exp(−W)."""
    weights = np.exp(work.min() - work)
    return float(weights.sum() ** 2 / (weights**2).sum()), pareto_k(-work)
