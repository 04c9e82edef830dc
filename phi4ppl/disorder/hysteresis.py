"""Hysteresis: the field goes down and up again at a stated rate, and the magnetization lags behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, positive_int
from ..errors.streams import stream_key
from ..kernels.kernel import Kernel
from ..model.field import MarkovRandomField
from ..reports.numbers import value_with_error
from ..reports.style import OKABE_ITO, panels
from ..sampling.engine import Engine
from ..sampling.progress import Progress
from .machine_source import MachineSource, driven_magnetizations, require_gibbs
from .sources import EXTERNAL, Source

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Hysteresis", "driven_loop"]

LOCAL = "local_hmc"
ACCEPTED = ("local_hmc", "hmc", "nuts", "chees", "adjusted_mclmc")  # dynamics that moves a field by little at a time


@call_checked
@dataclass(frozen=True, repr=False)
class Hysteresis:
    """A loop of the field h: from H down to −H and back.

    Attributes
    ----------
    field : array, shape ``(num_points,)``
        h along the loop; the first and the last are H.
    magnetization : array, shape ``(num_realizations, num_replicas, num_points)``
        m = (1/V) Σ ξ_i φ_i after the iterations at each field; the first is in equilibrium.
    rate : float
        Change of h per iteration of the kernel.
    area, area_error : float
        ∮ m dh, by trapezoids: 0 in equilibrium, and positive where m lags behind h. Its error is over replicas, and over
        realisations where there are several.
    work : array, shape ``(num_realizations, num_replicas)``
        W = −V Σ (h_{k+1} − h_k) m_k, done on the field in one loop. It begins in equilibrium and ends at the same h, so that
        ⟨exp(−W)⟩ = 1 exactly, at every rate (C. Jarzynski, Phys. Rev. Lett. 78 (1997) 2690).
    coercive_field, coercive_field_error : float
        Half the distance between the fields at which the two branches of the mean m cross 0; nan where one does not.
    """

    field: np.ndarray
    magnetization: np.ndarray
    rate: float
    iterations: int
    area: float
    area_error: float
    work: np.ndarray
    coercive_field: float
    coercive_field_error: float

    @property
    def mean(self) -> np.ndarray:
        """m along the loop, averaged over replicas and realisations."""
        return self.magnetization.mean(axis=(0, 1))

    @property
    def error(self) -> np.ndarray:
        """Of `mean`."""
        return _error(_independent(self.magnetization))

    def __str__(self) -> str:
        members, replicas, points = self.magnetization.shape
        several = f"{members} realisations × " if members > 1 else ""
        coercive = value_with_error(self.coercive_field, self.coercive_field_error)
        return (
            f"hysteresis of {several}{replicas} replicas, h = {self.field[0]:g} → {self.field.min():g} → {self.field[-1]:g} in "
            f"{points - 1} steps of {self.iterations} iterations (rate {self.rate:.3g} per iteration): area "
            f"{value_with_error(self.area, self.area_error)}, coercive field {coercive}"
        )

    __repr__ = __str__

    def plot(self) -> Figure:
        """m against h, down and up, with bands of one error."""
        figure, (axes,) = panels(1, width=4.6, height=3.4)
        half = len(self.field) // 2
        for part, label, color in (
            (slice(0, half + 1), "down", OKABE_ITO[0]), (slice(half, None), "up", OKABE_ITO[1]),
        ):  # fmt: skip
            h, m, error = self.field[part], self.mean[part], self.error[part]
            axes.plot(h, m, color=color, label=label)
            axes.fill_between(h, m - error, m + error, color=color, alpha=0.3, lw=0)
        axes.axhline(0, color="0.8", lw=0.8, zorder=0)
        axes.axvline(0, color="0.8", lw=0.8, zorder=0)
        axes.set(xlabel="external field h", ylabel="magnetization m")
        axes.set_title(f"area {value_with_error(self.area, self.area_error)}, rate {self.rate:.3g}", fontsize=9)
        axes.legend(frameon=False)
        return figure


def _independent(values: np.ndarray) -> np.ndarray:
    """One row per independent sample: a realisation where there are several, else a replica."""
    return values.mean(axis=1) if len(values) > 1 else values[0]


def _error(rows: np.ndarray) -> np.ndarray:
    return rows.std(axis=0, ddof=1) / np.sqrt(len(rows))


def driven_loop(
    source: Source | MachineSource, amplitude: float, rate: float, *, num_steps: int, num_replicas: int, num_warmup: int,
    kernel: Kernel | str | None, couplings: dict | None, seed: int, progress: bool | None,
) -> Hysteresis:  # fmt: skip
    """The loop; see `Response.hysteresis`."""
    num_steps = positive_int("num_steps", num_steps, minimum=2)
    num_replicas = positive_int("num_replicas", num_replicas, minimum=2, fix="The error of the area is over replicas.")
    num_warmup = positive_int("num_warmup", num_warmup, minimum=20)
    for name, value in (("amplitude", amplitude), ("rate", rate)):
        if finite_array(name, value).shape != () or not value > 0:
            raise ArgumentError(name, "a positive number", repr(value))
    if isinstance(source, MachineSource):
        require_gibbs(kernel, couplings)
    else:
        _require_local(kernel or LOCAL)
    step = 2 * amplitude / num_steps
    iterations = _iterations(amplitude, rate, step)
    down = np.linspace(amplitude, -amplitude, num_steps + 1)
    fields = np.concatenate([down, down[-2::-1]])
    key, lengths = stream_key(seed, "hysteresis"), {"num_replicas": num_replicas, "num_warmup": num_warmup}
    if isinstance(source, MachineSource):
        m = driven_magnetizations(source, fields, iterations, key, **lengths)
    else:
        m = _driven_by_kernel(
            source, fields, iterations, key, kernel=kernel or LOCAL, couplings=couplings, progress=progress, **lengths
        )
    return _loop(fields, m, step / iterations, iterations, source.volume)


def _require_local(kernel: Kernel | str) -> None:
    named = kernel if isinstance(kernel, str) else kernel.name
    if named.removesuffix("_fourier") not in ACCEPTED:
        fix = "Clusters, exchanges and sign flips jump between the phases, where a loop is about staying in one."
        raise ArgumentError("kernel", f"one of {', '.join(ACCEPTED)}", repr(named), fix, reason="choice")


def _iterations(amplitude: float, rate: float, step: float) -> int:
    """Iterations of the kernel at each field: a whole number, close to the rate that is asked for."""
    iterations = round(step / rate)
    if iterations < 1 or abs(iterations * rate / step - 1) > 0.25:
        best = max(2, int(2 * amplitude / (rate * max(iterations, 1))))
        got = f"{rate:g}, while a step of {step:g} would have {step / rate:.3g} iterations"
        raise ArgumentError(
            "rate", "a whole number of iterations per step", got, f"Try num_steps={best}.", reason="steps"
        )
    return iterations


def _driven_by_kernel(
    source: Source, fields: np.ndarray, iterations: int, key, *, num_replicas: int, num_warmup: int,
    kernel: Kernel | str, couplings: dict | None, progress: bool | None,
) -> np.ndarray:  # fmt: skip
    """m of every replica of every realisation after the iterations at each field, ``(members, replicas, fields)``."""
    members = 1 if not couplings else len(next(iter(couplings.values())))
    at = _models(source, couplings, members)
    magnetization = (("m", _magnetization_of(source)),)
    engine = Engine(
        at(fields[0]), kernel=kernel, num_chains=num_replicas, key=key, num_members=members,
        keep_field=False, observables=magnetization,
    )  # fmt: skip
    found = []
    with Progress(num_warmup + iterations * (len(fields) - 1), progress) as bar:
        engine.warm_up(at(fields[0]), num_warmup, progress=bar)
        for k, field in enumerate(fields):
            here = at(field)
            draws = engine.draw(here, 1, 1 if k == 0 else iterations, burn_in=False, progress=bar)
            found.append(draws.observables["m"][..., 0])
    return np.stack(found, axis=-1).astype(float)


def _magnetization_of(source: Source):
    return lambda model, phi: source.magnetization(phi)


def _models(source: Source, couplings: dict | None, members: int):
    """h → the models of all realisations at that field, with a leading axis."""
    base = source.model
    each = [base.replace(**{n: v[k] for n, v in (couplings or {}).items()}) for k in range(members)]
    for one in each if couplings else ():
        one.check().raise_if_violated()
    stacked = jax.tree.map(lambda *values: jnp.stack([jnp.asarray(v) for v in values]), *each)
    names = [form.name for form in stacked.forms]

    def at(field) -> MarkovRandomField:
        now = np.broadcast_to(source.couplings_at(field), (members, source.volume))
        values = stacked.couplings | {EXTERNAL: jnp.asarray(now, jnp.result_type(float))}
        return stacked.structure.at([values[name] for name in names])

    return at


def _loop(fields, m, rate: float, iterations: int, volume: int) -> Hysteresis:
    steps = np.diff(fields)
    area = -np.sum((m[..., 1:] + m[..., :-1]) / 2 * steps, axis=-1)
    work = -volume * np.sum(m[..., :-1] * steps, axis=-1)
    rows = _independent(m)
    half = len(fields) // 2
    crossing = _coercive(fields, rows.mean(axis=0), half)
    rest = (rows.sum(axis=0) - rows) / (len(rows) - 1)
    without = np.array([_coercive(fields, each, half) for each in rest])
    spread = np.sqrt((len(rows) - 1) / len(rows) * np.sum((without - without.mean()) ** 2))
    independent = _independent(area)
    return Hysteresis(
        fields, m, rate, iterations, float(independent.mean()), float(_error(independent)), work, float(crossing),
        float(spread),
    )  # fmt: skip


def _coercive(fields, m, half: int) -> float:
    """Half the distance between the zeros of both branches."""
    zeros = []
    for part in (slice(0, half + 1), slice(half, None)):
        h, values = fields[part], m[part]
        at = np.flatnonzero(np.sign(values[1:]) != np.sign(values[:-1]))
        if not len(at):
            return float("nan")
        k = at[0]
        zeros.append(h[k] - values[k] * (h[k + 1] - h[k]) / (values[k + 1] - values[k]))
    return (zeros[1] - zeros[0]) / 2
