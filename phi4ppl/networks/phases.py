"""Phase transitions of machines and of lattice fields along an axis: `phases`.

Read `mean_field` first (where modes condense), then `phase_chains` (what is measured) and `phase_detection` (where the
transition is).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, positive_int, seed_within
from ..errors.streams import stream_key, stream_seed
from ..kernels.kernel import Kernel
from ..model.field import MarkovRandomField
from ..model.pytree import replaced
from ..results.ensemble_run import sample_ensemble
from ..sampling.progress import Progress
from .machine import RestrictedBoltzmannMachine
from .mean_field import MeanField, heated, mean_field, scaled, where_critical
from .normalizer import annealed, is_summable
from .phase_chains import Series, as_points, hysteresis, measured, sampled, susceptibilities_without_each
from .phase_detection import (  # fmt: skip
    LATTICE_OMEGA,
    MACHINE_OMEGA,
    cascade_of,
    first_of,
    from_peak,
    from_sizes,
    require_axis,
)
from .phases_result import Phases
from .training import TrainingState

__all__ = ["phases"]

AXES = ("weights", "beta")
CHAINS = 64  # of annealing
SIGMAS = 5.0  # between the curvature of the free energy and the variance, beyond which a warning is due


class Curves(NamedTuple):
    """All of one size: the axis, quantities as (axes, values, errors, reliable), and replicas of the susceptibility."""

    axis: np.ndarray
    found: dict
    without_each: np.ndarray
    strengths: np.ndarray | None
    mean_field: float
    units: int


class Effort(NamedTuple):
    """How long chains are, and what is left out."""

    num_modes: int
    num_chains: int
    num_warmup: int
    num_samples: int
    sweeps: int
    annealing_steps: int
    kernel: Kernel | str
    progress: bool | None


@call_checked
def phases(
    source, axis: Mapping | None = None, *, sizes: Iterable[int] | None = None, data=None, num_modes: int = 3,
    num_chains: int = 16, num_warmup: int = 200, num_samples: int = 1000, sweeps: int = 20, annealing_steps: int = 200,
    kernel: Kernel | str = "auto", seed: int = 0, progress: bool | None = None,
) -> Phases:  # fmt: skip
    """The phases of a machine along a scale of its weights, an inverse temperature, or a training, and the transitions between.

    Modes are the singular vectors u_α, z_α of the weights. Their projections m_α = u_α·(v − μ)/N_v^½ are measured by block
    Gibbs chains, all points of the axis in one program.

    Parameters
    ----------
    source : RestrictedBoltzmannMachine, list, callable or MarkovRandomField
        A machine; the machines or `TrainingState` s of a training, in order; or a family, a function from a size to a machine
        or to a model on a lattice of that side, whose one mode is the mean of the field.
    axis : dict, optional
        ``{"weights": values}``: W → sW, around means (μ, λ) that stay; see `Notes`. ``{"beta": values}``: S → βS. Of a model
        the name of a coupling that is one number. Of a training ``{"epoch": values}``, by default the epochs of the states, or
        0, 1, …. Values ascend; in a family they may be a function of the size, as many values for each.
    sizes : iterable of ints, optional
        Of a family. From two the transition is where curves of U₄ cross, from three the crossings are extrapolated.
    data : array, shape (n, visible.size), optional
        Data whose means are μ, in place of the symmetric mean-field state.
    num_modes : int
    num_chains, num_warmup, num_samples : int
        Chains at every point, half of which start on either side of the first mode; sweeps that are not kept; draws of each.
    sweeps : int
        Of the runs up and down the axis, at every point; 0 leaves them out.
    annealing_steps : int
        Of log Z, where it is not exact; 0 leaves the free energy out. Lattices have none.
    kernel : str or Kernel
        For lattices, as in `phi4ppl.sample_ensemble`.
    seed : int
    progress : bool, optional

    Returns
    -------
    Phases
        ``print`` it for the transition; ``.data`` has all quantities with errors, ``.plot()`` draws them.

    Raises
    ------
    ArgumentError
        For a source, an axis or sizes that do not go together.
    SamplingError
        If a machine has no symmetric mean-field state; give ``data``.

    Notes
    -----
    In mean field mode α condenses where σ_α, the singular value of D_v^½ W D_h^½, is 1, D the variances of single units
    (`critical_scale`). The transition of one size is the maximum of the susceptibility, a *pseudo-critical* point, which moves
    with the size. Along a training it is where σ₁ crosses 1, without finite-size scaling.

    The cascade of transitions in a training: D. Bachtis, G. Biroli, A. Decelle and B. Seoane, arXiv:2405.14689.
    Crossings: K. Binder, Z. Phys. B 43 (1981) 119. In machines corrections fall with N^{−1/2}, ω = 0.5 ± 0.2 in the fits.

    Examples
    --------
    >>> import jax.numpy as jnp, numpy as np
    >>> from phi4ppl.networks import RestrictedBoltzmannMachine, SpinUnits, phases
    >>> spins = SpinUnits(jnp.zeros(16))
    >>> machine = RestrictedBoltzmannMachine(spins, spins, jnp.full((16, 16), 1 / 16))
    >>> found = phases(machine, {"weights": [0.5, 1.0, 1.5]}, num_modes=1, num_samples=100, sweeps=0)
    >>> found.mean_field
    1.0
    """
    counts = {"num_modes": num_modes, "num_chains": num_chains, "num_warmup": num_warmup, "num_samples": num_samples}
    least = {"num_chains": 2, "num_warmup": 20, "num_samples": 100}
    for name, value in counts.items():
        positive_int(name, value, minimum=least.get(name, 1))
    for name, value in {"sweeps": sweeps, "annealing_steps": annealing_steps}.items():
        positive_int(name, value, minimum=0)
    effort = Effort(num_modes, num_chains, num_warmup, num_samples, sweeps, annealing_steps, kernel, progress)
    seed = seed_within(seed)
    if isinstance(source, Sequence):
        if sizes is not None:
            raise ArgumentError("sizes", "None for a training", repr(sizes)[:80], reason="unused")
        return _along_training(list(source), axis, data, effort, seed)
    if not isinstance(axis, Mapping) or len(axis) != 1:
        fix = "For example {'weights': np.linspace(0.5, 1.5, 9)}."
        raise ArgumentError("axis", "a dict of one name", repr(axis)[:80], fix)
    name, values = next(iter(axis.items()))
    family = _family(source, sizes)
    curves, lattices = {}, False
    for size, member in family.items():
        points = finite_array("axis", values(size) if callable(values) else values).astype(float)
        require_axis(name, points)
        lattices = isinstance(member, MarkovRandomField)
        run = _of_lattice if lattices else _of_machine
        with Progress(None, progress) as bar:
            bar.message(f"size {size}: {len(points)} values of {name}")
        curves[size] = run(member, name, points, data, effort, stream_seed(seed, "size", size))
    return _joined(curves, name, LATTICE_OMEGA if lattices else MACHINE_OMEGA)


def _family(source, sizes) -> dict:
    """Members by size; a single machine or model has the size of its visible layer or its sites."""
    if isinstance(source, RestrictedBoltzmannMachine | MarkovRandomField):
        if sizes is not None:
            fix = "Pass a function from a size to a machine."
            raise ArgumentError("sizes", "None for one machine", repr(sizes)[:80], fix, reason="unused")
        return {source.lattice.num_sites if isinstance(source, MarkovRandomField) else source.visible.size: source}
    if not callable(source):
        expected = "a machine, a list of machines, a model, or a function from a size to one of these"
        raise ArgumentError("source", expected, type(source).__name__)
    if sizes is None:
        raise ArgumentError("sizes", "the sizes of the family", "None", "For example sizes=(32, 64, 128).")
    family = {size: source(size) for size in sorted({positive_int("sizes", size) for size in sizes})}
    kinds = {type(member) for member in family.values()}
    if len(kinds) != 1 or not kinds <= {RestrictedBoltzmannMachine, MarkovRandomField}:
        got = ", ".join(sorted(kind.__name__ for kind in kinds)) or "no size"
        raise ArgumentError("source", "a family of machines or of models", got, reason="returns")
    return family


def _of_machine(machine: RestrictedBoltzmannMachine, name: str, values, data, effort: Effort, seed: int) -> Curves:
    if name not in AXES:
        raise ArgumentError("axis", f"one of {', '.join(AXES)} for a machine", repr(name), reason="name")
    center = _state(machine, data)
    if name == "weights":
        machines = [scaled(machine, scale, center) for scale in values]
        means = center.visible_mean, center.hidden_mean
        states = [mean_field(each, means) for each in machines]
        slope = _scale_slope(machine, center)
        critical = float(center.critical_scales[0])
    else:
        machines = [heated(machine, beta) for beta in values]
        states = [_state(each, data) for each in machines]
        slope = machine
        critical = where_critical(lambda b: _state(heated(machine, b), data).strengths[0], values[0], values[-1])
    return _of_points(machines, [slope] * len(values), states, values, critical, effort, seed)


def _state(machine, data) -> MeanField:
    if data is None:
        return mean_field(machine)
    below = jnp.mean(jnp.asarray(finite_array("data", data), machine.weights.dtype), axis=0)
    return mean_field(machine, (np.asarray(below), np.asarray(machine.hidden_mean(below))))


def _scale_slope(machine, center: MeanField) -> RestrictedBoltzmannMachine:
    """The couplings of ∂S/∂s, in the form of a machine, of `scaled`."""
    zero = jax.tree.map(jnp.zeros_like, machine)
    below, above = (jnp.asarray(part, machine.weights.dtype) for part in (center.visible_mean, center.hidden_mean))
    visible = replaced(zero.visible, linear=machine.weights @ above)
    hidden = replaced(zero.hidden, linear=below @ machine.weights)
    return replaced(machine, visible=visible, hidden=hidden)


def _of_points(machines, slopes, states, values, critical: float, effort: Effort, seed: int) -> Curves:
    """Everything about machines of one shape, in the order of the axis."""
    visible, hidden = machines[0].weights.shape
    points, singular = as_points(machines, slopes, states, min(effort.num_modes, visible, hidden))
    modes = singular.shape[1]
    strengths = np.stack([state.strengths[:modes] for state in states])
    series, ends = sampled(points, stream_key(seed, "chains"), effort.num_chains, effort.num_warmup, effort.num_samples)
    found = measured(series)
    for label, exact in (("singular_value", singular), ("strength", strengths)):
        found[label] = (("point", "mode"), exact, None, None)
    if effort.annealing_steps:
        found |= _free_energies(machines, ends, values, effort, seed)
    if effort.sweeps:
        up, down = hysteresis(points, stream_key(seed, "hysteresis"), effort.num_chains, effort.sweeps)
        area = np.trapezoid(down - up, values, axis=1)
        for label, runs, dims in (("up", up, ("point",)), ("down", down, ("point",)), ("hysteresis", area, ())):
            found[label] = (dims, runs.mean(axis=0), runs.std(axis=0, ddof=1) / np.sqrt(len(runs)), None)
    return Curves(values, found, susceptibilities_without_each(series), strengths, critical, visible)


def _free_energies(machines, ends, values, effort: Effort, seed: int) -> dict:
    """F = −log Z at every point, and −F″ from its second differences."""
    energy, error = [], []
    for k, machine in enumerate(machines):
        if is_summable(machine):
            log_z = machine.log_partition()
        else:
            settings = {
                "num_chains": CHAINS,
                "num_steps": effort.annealing_steps,
                "seed": stream_seed(seed, "log Z", k),
            }
            log_z = annealed(machine, start=ends[k], **settings)
        energy.append(-log_z.value)
        error.append(log_z.error)
    energy, error = np.array(energy), np.array(error)
    left, right = np.diff(values)[:-1], np.diff(values)[1:]
    weights = 2 * np.stack([1 / (left * (left + right)), -1 / (left * right), 1 / (right * (left + right))])
    windows = np.stack([np.arange(len(left)), np.arange(len(left)) + 1, np.arange(len(left)) + 2])
    ends_too = [np.pad(part, 1, constant_values=np.nan) for part in (
        -np.sum(weights * energy[windows], axis=0), np.sqrt(np.sum((weights * error[windows]) ** 2, axis=0)))]  # fmt: skip
    return {
        "free_energy": (("point",), energy, error, None),
        "curvature_of_free_energy": (("point",), *ends_too, None),
    }


def _of_lattice(model: MarkovRandomField, name: str, values, data, effort: Effort, seed: int) -> Curves:
    if data is not None:
        raise ArgumentError("data", "None for a model on a lattice", type(data).__name__, reason="unused")
    if name not in model.couplings or np.ndim(model.couplings[name]):
        numbers = [each for each, value in model.couplings.items() if not np.ndim(value)]
        raise ArgumentError(
            "axis", f"a coupling that is one number, of {', '.join(numbers)}", repr(name), reason="name"
        )
    alone = model.select(lambda form: form.name == name).replace(**{name: 1.0})
    slope = lambda phi: alone.energy(phi)  # noqa: E731
    slope.coupling_free = True  # type: ignore[attr-defined]  # one program serves all couplings
    tree = sample_ensemble(
        model, {name: values}, num_warmup=effort.num_warmup, num_samples=effort.num_samples, num_chains=effort.num_chains,
        observables={"slope": slope}, keep_field=False, kernel=effort.kernel, seed=seed, progress=effort.progress,
    )  # fmt: skip
    m, slopes = (
        tree["posterior"][each].transpose("chain", "draw", "member").values for each in ("magnetization", "slope")
    )
    sites = model.lattice.num_sites
    series = Series({"visible": m.astype(float)[..., None]}, slopes.astype(float), {"visible": sites})
    return Curves(values, measured(series), susceptibilities_without_each(series), None, np.nan, sites)


def _along_training(records: list, axis, data, effort: Effort, seed: int) -> Phases:
    if len(records) < 3 or not all(isinstance(each, RestrictedBoltzmannMachine | TrainingState) for each in records):
        expected = "three machines or TrainingStates of a training, or more, in order"
        fix = "Collect them with train(…, on_epoch=lambda record, state: states.append(state))."
        raise ArgumentError("source", expected, f"{len(records)} {type(records[0]).__name__ if records else ''}", fix)
    machines = [each.machine if isinstance(each, TrainingState) else each for each in records]
    if len({each.weights.shape for each in machines}) > 1 or len({repr(each) for each in machines}) > 1:
        raise ArgumentError("source", "machines of one shape and one kind of units", "several", reason="shape")
    epochs = [each.epoch if isinstance(each, TrainingState) else k for k, each in enumerate(records)]
    if axis is not None and (not isinstance(axis, Mapping) or len(axis) != 1):
        raise ArgumentError("axis", "a dict of one name", repr(axis)[:80], "For example {'epoch': [0, 1, 2, 4]}.")
    name, values = next(iter((axis or {"epoch": epochs}).items()))
    values = finite_array("axis", values).astype(float)
    require_axis(name, values)
    if len(values) != len(records):
        raise ArgumentError("axis", f"{len(records)} values, one per machine", f"{len(values)}", reason="count")
    states = [_state(each, data) for each in machines]
    slopes = [_scale_slope(*each) for each in zip(machines, states, strict=True)]
    curves = _of_points(machines, slopes, states, values, np.nan, effort, seed)
    curves.found.pop("curvature_of_free_energy", None)  # by the epoch, while curvature is by the scale of the weights
    return _joined({machines[0].visible.size: curves}, name, MACHINE_OMEGA, training=True)


def _joined(curves: dict, name: str, omega, training: bool = False) -> Phases:
    sizes = np.array(list(curves))
    if len({len(each.axis) for each in curves.values()}) > 1:
        raise ArgumentError("axis", "as many values for each size", "different numbers", reason="count")
    data = _dataset(curves, name)
    last = curves[int(sizes[-1])]
    crossings = fits = None
    cascade = cascade_of(last.axis, last.strengths) if training else ()
    if training:
        transition = first_of(cascade)
    elif len(sizes) > 1:
        cumulant, error = (data[each].values[..., 0] for each in ("binder_cumulant", "binder_cumulant_error"))
        transition, crossings, fits = from_sizes(name, sizes, data[name].values, cumulant, error, omega)
    else:
        transition = from_peak(last.axis, data["susceptibility"].values[0, :, 0], last.without_each, int(sizes[0]))
    warnings = (*transition.warnings, *_unreliable(data), *_curvature_warnings(data, name))
    return Phases(data, name, transition, last.mean_field, cascade, crossings, fits, warnings)


def _dataset(curves: dict, name: str) -> xr.Dataset:
    modes = min(each.found["magnetization"][1].shape[1] for each in curves.values())
    columns: dict = {name: (("size", "point"), np.stack([each.axis for each in curves.values()]))}
    columns["units"] = (("size",), np.array([each.units for each in curves.values()]))
    for label, (dims, *_) in next(iter(curves.values())).found.items():
        for part, suffix in enumerate(("", "_error", "_reliable"), start=1):
            arrays = [each.found[label][part] for each in curves.values()]
            if arrays[0] is not None:
                cut = [array[..., :modes] if "mode" in dims else array for array in arrays]
                columns[label + suffix] = (("size", *dims), np.stack(cut))
    coords = {"size": list(curves), "mode": np.arange(1, modes + 1)}
    return xr.Dataset(columns, coords=coords)


def _unreliable(data: xr.Dataset) -> list[str]:
    """One sentence for points at which chains are too short for what the transition is found from."""
    poor = ~data["binder_cumulant_reliable"].values[..., 0]
    if not poor.any():
        return []
    where = f"{int(poor.sum())} of {poor.size} points"
    return [f"Chains are too short for errors of U4 at {where}, or they disagree. Increase num_samples or num_chains."]


def _curvature_warnings(data: xr.Dataset, name: str) -> list[str]:
    """Whether −F″ from free energies and the variance of ∂S/∂x agree: second differences average F″ over a hat."""
    if "curvature_of_free_energy" not in data:
        return []
    x = data[name].values
    left, right = np.diff(x)[:, :-1], np.diff(x)[:, 1:]
    hat = np.stack([left / (left + right) / 3, np.full(left.shape, 2 / 3), right / (left + right) / 3])
    value, error = (data[each].values for each in ("curvature", "curvature_error"))
    mean = sum(w * value[:, k : k + w.shape[1]] for k, w in enumerate(hat))
    spread = np.sqrt(sum((w * error[:, k : k + w.shape[1]]) ** 2 for k, w in enumerate(hat)))
    other, other_error = (data[f"curvature_of_free_energy{each}"].values[:, 1:-1] for each in ("", "_error"))
    coarse = np.abs(mean - value[:, 1:-1])  # how far the curvature is from a straight line between points
    far = np.abs(other - mean) > SIGMAS * np.hypot(spread, other_error) + coarse
    if not far.any():
        return []
    text = f"The free energy and the variance of its slope disagree at {int(far.sum())} points. "
    return [text + "Increase num_samples and annealing_steps, or scan more points."]
