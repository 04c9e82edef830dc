"""Fields from elsewhere become fields of a model: by sweeps of an exact kernel, until no observable moves.

Sweeps are asymptotically exact: what is left of the start falls with their number, and `by_sweeps` doubles it until no
observable moves. Fields are independent configurations, not draws of one chain: errors are those of independent numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..analysis.two_point import smallest_lattice_momentum, two_point
from ..energy.compiled import compile_field
from ..energy.functions import energy, log_density
from ..errors import ArgumentError
from ..errors.streams import stream_key
from ..kernels.choose import resolve
from ..kernels.local_hmc import LocalSteps
from ..lattice.frozen import Lattice
from ..model.field import MarkovRandomField
from ..sampling.engine import Engine

__all__ = ["Corrected", "Summary", "by_sweeps", "local_kernel", "measure", "moved", "summary_of", "tuned_step_size"]

BATCH_SITES = 1 << 18  # of fields that sweep together: clusters of what a cache holds are found twice as fast
FIRST = 8  # sweeps of single sites before clusters: these see large ones in fields that are too smooth, and turn them
MAX_SWEEPS = 512
TOLERANCE = 2.0  # errors
DRIFT = 3.0  # errors of a drift since the first sweeps that has to be shown to slow down
TUNED, TUNING = 256, 100  # fields and iterations that find a step size
CLUSTER_SWEEPS = 2  # an iteration of the kernel "cluster" has two


# ⟨Σ_i f_i ∂S/∂φ_i⟩ = ⟨Σ_i ∂f_i/∂φ_i⟩ per site, for f_i = φ_i, φ_i³ and Σ_{j~i} φ_j. These f are the gradients of Σ φ²,
# Σ φ⁴ and Σ φφ: together the equations see each of the three couplings, as score matching does.
EQUATIONS = {"schwinger_dyson": 1.0, "schwinger_dyson_cubed": 0.0, "schwinger_dyson_neighbors": 0.0}


class Summary(NamedTuple):
    """Values with errors of independent fields, and how every field moves each value, shape (n,), the sum of which is zero."""

    values: dict[str, float]
    errors: dict[str, float]
    influence: dict[str, np.ndarray]

    def pair(self, name: str) -> tuple[float, float]:
        return self.values[name], self.errors[name]

    def p_value(self) -> float:
        """Of all `EQUATIONS` together: how often fields of the action are as far from them, by Hotelling's T²."""
        from scipy.stats import f

        away = np.array([self.values[name] - exact for name, exact in EQUATIONS.items()])
        moves = np.stack([self.influence[name] for name in EQUATIONS])
        size = np.linalg.norm(moves, axis=1)
        if not size.all():
            return 0.0 if np.any(away) else 1.0
        n, k, correlations = moves.shape[1], len(away), (moves / size[:, None]) @ (moves / size[:, None]).T
        t2 = n * (n - 1) * float(away / size @ np.linalg.pinv(correlations, rcond=1e-10) @ (away / size))
        return float(f.sf(t2 * (n - k) / (k * (n - 1)), k, n - k))


def summary_of(series: Mapping[str, np.ndarray], lattice: Lattice) -> Summary:
    """S/V, ⟨φ²⟩, χ = V⟨m²⟩, U₄, ξ/L, ⟨|m|⟩ and ⟨φ ∂S/∂φ⟩ of independent fields, errors by the delta method.

    ``series`` has ``energy_density``, ``phi_squared``, ``magnetization``, ``smallest_momentum`` and the `EQUATIONS`.
    """
    volume, side = lattice.num_sites, max(lattice.field_shape)
    m = series["magnetization"]
    away = {name: x - x.mean() for name, x in (("m2", m**2), ("m4", m**4), ("f", series["smallest_momentum"]))}
    m2, m4, f = (m**2).mean(), (m**4).mean(), series["smallest_momentum"].mean()
    values = {"energy_density": series["energy_density"].mean(), "phi_squared": series["phi_squared"].mean()}
    influence = {name: series[name] - values[name] for name in values}
    values["susceptibility"], influence["susceptibility"] = volume * m2, volume * away["m2"]
    values["binder_cumulant"] = 1 - m4 / (3 * m2**2)
    influence["binder_cumulant"] = -away["m4"] / (3 * m2**2) + 2 * m4 * away["m2"] / (3 * m2**3)
    ratio, unit = max(volume * m2 / f - 1, 1e-9), side * smallest_lattice_momentum(lattice)
    values["correlation_length_ratio"] = math.sqrt(ratio) / unit
    slope = 1 / (2 * math.sqrt(ratio) * unit)
    influence["correlation_length_ratio"] = slope * volume * (away["m2"] / f - m2 * away["f"] / f**2)
    for name, x in (("abs_m", np.abs(m)), *((name, series[name]) for name in EQUATIONS)):
        values[name], influence[name] = x.mean(), x - x.mean()
    errors = {name: float(np.std(x, ddof=1) / math.sqrt(len(x))) for name, x in influence.items()}
    return Summary({name: float(value) for name, value in values.items()}, errors, influence)


WATCHED = ("energy_density", "phi_squared", "susceptibility", "binder_cumulant", "correlation_length_ratio")


def moved(before: Summary, after: Summary, tolerance: float = TOLERANCE) -> list[str]:
    """Observables that differ by more than ``tolerance`` errors of their difference, which is paired field by field."""
    changes = {name: _change(before, after, name) for name in WATCHED}
    return [name for name, (change, error) in changes.items() if abs(change) > tolerance * error]


def relaxing(history: list[tuple[int, Summary]]) -> list[str]:
    """Observables that have drifted since the first sweeps, and may have far to go.

    The last doubling alone sees little where long waves relax slowly: fields differ more by chance than by their drift. Means
    relax at the pace at which fields forget. So with r the correlation of fields before and after the last doubling, in which
    an observable changed by d ± e, at most (|d| + 2e) r/(1 − r) is left, which has to be below half of the drift since the
    first sweeps, if that is above three of its errors.
    """
    (_, first), (_, before), (_, last) = history[1], history[-2], history[-1]
    found = []
    for name in WATCHED:
        (whole, error), (late, noise) = (_change(each, last, name) for each in (first, before))
        memory = float(np.corrcoef(before.influence[name], last.influence[name])[0, 1])
        left = (abs(late) + TOLERANCE * noise) * max(memory, 0.0)
        if abs(whole) > DRIFT * error and left > (1 - memory) * abs(whole) / 2:
            found.append(name)
    return found


def _change(before: Summary, after: Summary, name: str) -> tuple[float, float]:
    apart = after.influence[name] - before.influence[name]
    return after.values[name] - before.values[name], float(np.std(apart, ddof=1) / math.sqrt(len(apart)))


def _energy_density(model, phi):
    return energy(model, phi) / phi.size


def _phi_squared(model, phi):
    return jnp.mean(phi**2)


def _magnetization(model, phi):
    return jnp.mean(phi)


def _smallest_momentum(model, phi):
    return two_point("smallest_momentum", model.lattice).measure(phi)


def _slope(model, phi):
    return -jax.grad(log_density, argnums=1)(model, phi)


def _schwinger_dyson(model, phi):
    return jnp.mean(phi * _slope(model, phi))


def _schwinger_dyson_cubed(model, phi):
    return jnp.mean(phi**3 * _slope(model, phi) - 3 * phi**2)


def _schwinger_dyson_neighbors(model, phi):
    one, two = np.asarray(model.lattice.edges).T
    flat, slope = phi.reshape(-1), _slope(model, phi).reshape(-1)
    return jnp.sum(flat[one] * slope[two] + flat[two] * slope[one]) / phi.size


OBSERVABLES = (
    ("energy_density", _energy_density), ("phi_squared", _phi_squared), ("magnetization", _magnetization),
    ("smallest_momentum", _smallest_momentum), ("schwinger_dyson", _schwinger_dyson),
    ("schwinger_dyson_cubed", _schwinger_dyson_cubed), ("schwinger_dyson_neighbors", _schwinger_dyson_neighbors),
)  # fmt: skip


@jax.jit
def _measured(model, fields):
    return jax.lax.map(lambda phi: {name: f(model, phi) for name, f in OBSERVABLES}, fields)


def measure(model: MarkovRandomField, fields: np.ndarray) -> Summary:
    """The summary of fields ``(n, *shape)`` under the action of a model, whether or not they are its own."""
    found = _measured(jax.tree.map(jnp.asarray, model), jnp.asarray(fields))
    return summary_of({name: np.asarray(x, float) for name, x in found.items()}, model.lattice)


@dataclass(frozen=True, repr=False)
class Corrected:
    """Fields after a correction.

    Attributes
    ----------
    fields : array, shape ``(n, *shape)``
    before, after : Summary
        Under the action of the model.
    sweeps : int
    history : list of (int, Summary)
        After so many sweeps.
    converged : bool
        Whether nothing moved by more than two errors in the second half of the sweeps, and what drifted has slowed down.
    figures : dict
        What a correction says of itself, such as rates of acceptance.
    """

    fields: np.ndarray
    before: Summary
    after: Summary
    sweeps: int
    history: list[tuple[int, Summary]] = field(default_factory=list)
    converged: bool = True
    figures: dict[str, float] = field(default_factory=dict)


def local_kernel(model: MarkovRandomField, kernel: str = "auto") -> str:
    """``"cluster"`` or ``"local_hmc"``: kernels that one step size tunes on lattices of every size."""
    name = resolve(kernel, compile_field(model))[0].name
    if name not in ("cluster", "local_hmc"):
        fix = "The kernel is tuned once, at the start."
        raise ArgumentError("kernel", "'cluster', 'local_hmc', or 'auto' that chooses one of them", repr(name), fix)
    return name


def tuned_step_size(model: MarkovRandomField, fields: np.ndarray, kernel: str = "auto", *, seed: int = 0) -> float:
    """The step size of `by_sweeps`, by a warm-up of copies of a few hundred of the fields, which are not used themselves."""
    start = np.resize(fields, (min(len(fields), TUNED), *fields.shape[1:]))
    engine = Engine(
        model, kernel=local_kernel(model, kernel), num_chains=len(start), key=stream_key(seed, "tuning"), start=start,
        keep_field=False, observables=OBSERVABLES,
    )  # fmt: skip
    engine.warm_up(model, TUNING)
    return float(np.mean(np.asarray(engine.tuning.step_size)))


class _Sweeper:
    """Sweeps of fields in batches of one size, so that one program serves all."""

    def __init__(self, model: MarkovRandomField, number: int, step_size: float, seed: int):
        self.model, self.number, self.step_size, self.seed, self.calls = model, number, step_size, seed, 0
        batches = math.ceil(number * model.lattice.num_sites / BATCH_SITES)
        self.batch = math.ceil(number / batches)

    def __call__(self, fields: np.ndarray, kernel: str, iterations: int) -> tuple[np.ndarray, Summary, float]:
        """Fields after iterations of a kernel, their summary, and the mean rate of acceptance."""
        self.calls += 1
        out, series, rates = np.empty_like(fields), [], []
        for first in range(0, self.number, self.batch):
            count = min(self.batch, self.number - first)
            rows = (first + np.arange(self.batch)) % self.number  # the last batch is filled up, and the rest forgotten
            key = stream_key(self.seed, "sweeps", self.calls, first)
            engine = Engine(
                self.model, kernel=kernel, num_chains=self.batch, key=key, start=fields[rows], keep_field=False,
                observables=OBSERVABLES,
            )  # fmt: skip
            engine.use(LocalSteps(jnp.asarray(self.step_size)))
            draws = engine.draw(self.model, 1, iterations, burn_in=False)
            out[first : first + count] = engine.fields[:count]
            series.append({name: x[:count, 0].astype(float) for name, x in draws.observables.items()})
            rates.append(float(np.mean(engine.acceptance[:count])))
        joined = {name: np.concatenate([part[name] for part in series]) for name in series[0]}
        return out, summary_of(joined, self.model.lattice), float(np.mean(rates))


def by_sweeps(
    model: MarkovRandomField, fields: np.ndarray, *, step_size: float, kernel: str = "auto", sweeps: int | None = None,
    max_sweeps: int = MAX_SWEEPS, seed: int = 0,
) -> Corrected:  # fmt: skip
    """Sweeps over all sites: first of single sites, then with clusters where the kernel has them.

    Without ``sweeps`` their number is doubled until no observable of the second half differs from that of the first by more
    than two errors of the paired difference, and none that drifted may still drift (`relaxing`). Clusters change the long
    waves of which χ consists, so that what is left of the lift is not seen at once: there are 32 sweeps or more.
    """
    kernel, sweeper = local_kernel(model, kernel), _Sweeper(model, len(fields), step_size, seed)
    before = measure(model, fields)
    history, done, converged, rate = [(0, before)], 0, False, math.nan
    fewest = 3 if kernel == "cluster" else 2
    while not converged and done < (sweeps or max_sweeps):
        more = done or (min(FIRST, max(1, sweeps // 2)) if sweeps else FIRST)
        more = min(more, sweeps - done) if sweeps else more
        clusters = kernel == "cluster" and done > 0
        iterations = max(1, more // CLUSTER_SWEEPS) if clusters else more
        fields, now, rate = sweeper(fields, kernel if clusters else "local_hmc", iterations)
        done += CLUSTER_SWEEPS * iterations if clusters else iterations
        history.append((done, now))
        converged = not sweeps and len(history) > fewest and not (moved(history[-2][1], now) or relaxing(history))
    if sweeps:
        converged = len(history) > 2 and not (moved(history[-2][1], history[-1][1]) or relaxing(history))
    return Corrected(fields, before, history[-1][1], done, history, converged, {"acceptance": rate})
