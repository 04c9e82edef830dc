"""The means that a derived quantity is a function of: of the draws of one run or several, or reweighted ones."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ArgumentError
from ..lattice.frozen import Lattice
from .blocks import Blocks, Replicas
from .two_point import TWO_POINT
from .walls import WALLS, function_of_field

__all__ = ["MOMENTS", "Pooled", "Run", "Runs", "as_runs", "lattice_of_run"]

MOMENTS: dict[str, tuple[str, Callable]] = {
    "m": ("magnetization", lambda m: m),
    "abs_m": ("magnetization", np.abs),
    "m2": ("magnetization", lambda m: m**2),
    "m4": ("magnetization", lambda m: m**4),
    "m6": ("magnetization", lambda m: m**6),
    "e": ("energy_density", lambda e: e),
    "e2": ("energy_density", lambda e: e**2),
}
"""Moments by name: the recorded variable, and what is done to it in each draw."""

BATCH_NUMBERS = 2_000_000  # numbers of fields that one compiled call works on


class Means:
    """Means of one run by name, and as one vector of real numbers; `Run` and `Pooled` say where they come from.

    Attributes
    ----------
    label : str
        What messages call it.
    lattice : Lattice or None
        Of its field, if the run tells.
    used : dict
        The means that have been asked for, in order.
    """

    def __init__(self, label: str, lattice: Lattice | None = None):
        self.label, self.used, self.lattice = label, {}, lattice

    def lattice_for(self, name: str) -> Lattice:
        """The lattice, which the quantity ``name`` needs."""
        if self.lattice is None:
            fix = "Hand in the tree of phi4ppl.sample; for others give a function of the means."
            raise ArgumentError(
                f"quantity {name!r}", f"{self.label} with its lattice", "one without", fix, reason="lattice"
            )
        return self.lattice

    @property
    def mean(self) -> np.ndarray:
        """All used means as real numbers."""
        return _flat(self.used.values(), 0)

    @property
    def size(self) -> int:
        return len(self.mean)

    def unflatten(self, vector) -> dict:
        """Means by name from the real numbers of `mean`."""
        found, start = {}, 0
        for name, mean in self.used.items():
            number = np.size(mean)
            part, start = vector[start : start + number], start + number
            if np.iscomplexobj(mean):
                part, start = part + 1j * vector[start : start + number], start + number
            found[name] = part.reshape(np.shape(mean))
        return found


def _flat(arrays, leading: int) -> np.ndarray:
    """Arrays as real numbers along one axis, after their leading axes."""
    flat = [np.reshape(a, (*np.shape(a)[:leading], -1)) for a in arrays]
    return np.concatenate([p for a in flat for p in ((a.real, a.imag) if np.iscomplexobj(a) else (a,))], axis=-1)


class Pooled(Means):
    """Reweighted means, whose errors come from jackknife replicas."""

    def __init__(self, label: str, replicas: Replicas):
        super().__init__(label)
        self.replicas = replicas

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.replicas.means:
            expected = f"one of {', '.join(self.replicas.means)}"
            fix = "Reweight it with observables=: moments of an observable are observables of their own."
            raise ArgumentError(f"mean of {self.label}", expected, repr(name), fix, reason="name")
        return self.used.setdefault(name, self.replicas.means[name])

    def without_each(self) -> list[tuple[Blocks, np.ndarray]]:
        """For each ensemble the blocks, and the means without one of them each, (blocks, size)."""
        return [(b, _flat([found[name] for name in self.used], 1)) for b, found in self.replicas.without_each]

    @property
    def reliable(self) -> np.ndarray:
        """Whether the weights leave enough samples for each of the numbers of `mean`."""
        flags = []
        for mean in self.used.values():
            flag = np.asarray(self.replicas.reliable, float)
            flag = flag.reshape(flag.shape + (1,) * (np.ndim(mean) - flag.ndim)) * np.ones(np.shape(mean))
            flags.append(flag * (1 + 1j) if np.iscomplexobj(mean) else flag)
        return _flat(flags, 0) > 0


class Run(Means):
    """The draws of one run, by name."""

    def __init__(self, label: str, variables: Mapping, lattice: Lattice | None = None):
        super().__init__(label, lattice)
        self._variables, self._found = variables, {}

    def series(self, name: str) -> np.ndarray:
        """Draws of ``name``, in double precision, shape ``(num_chains, num_draws, *element_shape)``."""
        if name not in self._found:
            self._found[name] = self._read(name)
        return self._found[name]

    def _read(self, name: str) -> np.ndarray:
        if name in self._variables:
            values = self._variables[name]
            if {"chain", "draw"} <= set(getattr(values, "dims", ())):
                values = values.transpose("chain", "draw", ...)
            values = np.asarray(values)
        elif name in MOMENTS and MOMENTS[name][0] in self._variables:
            variable, function = MOMENTS[name]
            values = function(self.series(variable))
        elif name in TWO_POINT.keys() | WALLS and self.lattice is not None and "phi" in self._variables:
            values = _of_fields(name, self.lattice, self._variables["phi"])
        else:
            derived = [n for n, (variable, _) in MOMENTS.items() if variable in self._variables]
            known = ", ".join(dict.fromkeys([*map(str, self._variables), *derived]))
            how = f"observables=[{name!r}]" if name in TWO_POINT.keys() | WALLS else "observables="
            fix = f"Record it with {how} of phi4ppl.sample, or hand in a dict of arrays."
            fix += " The field is there with keep_field=True only." if name == "phi" else ""
            raise ArgumentError(f"mean of {self.label}", f"one of {known}", repr(name), fix, reason="name")
        if values.ndim < 2 or values.dtype.kind not in "fiubc":
            got = f"shape {values.shape} of {values.dtype}"
            raise ArgumentError(name, "numbers of shape (num_chains, num_draws, ...)", got, "One chain is x[None, :].")
        if not np.all(np.isfinite(values)):
            fix = "Leave those draws out of all series, or look for a divergence in the chain."
            raise ArgumentError(name, "finite draws", "some that are not", fix, reason="finite")
        return values.astype(complex if values.dtype.kind == "c" else float)

    def __getitem__(self, name: str) -> np.ndarray:
        """The mean, which marks the series as used."""
        draws, first = self.series(name).shape[:2], next(iter(self.used), name)
        if draws != self.series(first).shape[:2]:
            expected = f"{self.series(first).shape[:2]} chains and draws, as of {first!r}"
            raise ArgumentError(name, expected, str(draws), "Means of one run come from the same draws.")
        return self.used.setdefault(name, self.series(name).mean(axis=(0, 1)))

    @property
    def _matrix(self) -> np.ndarray:
        """All used series as real numbers, (chains, draws, size)."""
        return _flat([self.series(name) for name in self.used], 2)

    def project(self, slopes: np.ndarray) -> np.ndarray:
        """Σ_α (∂f/∂a_α) a_α(i), shape (chains, draws, outputs)."""
        return self._matrix @ slopes.T

    def without_each(self, blocks: Blocks) -> np.ndarray:
        """Means without one block each, (blocks, size)."""
        matrix = self._matrix
        flat = matrix.reshape(-1, matrix.shape[2])
        lengths = np.diff([*blocks.starts, len(flat)])[:, None]
        return (flat.sum(axis=0) - blocks.sums(flat)) / (len(flat) - lengths)


class Runs:
    """One run, or several under labels or numbers."""

    def __init__(self, keys: list | None, runs: list[Run | Pooled]):
        self.keys, self.runs = keys, runs

    def means(self, replaced: dict | None = None, *, recording: bool = False):
        """What a quantity is a function of: the runs themselves while recording, otherwise dicts of means."""

        def of(run: Means):
            if recording:
                return run
            if replaced is None:
                return {name: jnp.asarray(mean) for name, mean in run.used.items()}
            return run.unflatten(replaced[id(run)]) if id(run) in replaced else {}

        if self.keys is None:
            return of(self.runs[0])
        return dict(zip(self.keys, map(of, self.runs), strict=True))


def as_runs(runs) -> Runs:
    """Runs from what users have."""
    if isinstance(runs, (list, tuple)):
        if not runs:
            raise ArgumentError("runs", "at least one run", "none")
        runs = dict(enumerate(runs))
    elif not (isinstance(runs, dict) and runs and all(map(_is_run, runs.values()))):
        return Runs(None, [_one("the run", runs)])
    found = [_one(f"run {key!r}", run) for key, run in runs.items()]
    pools = [
        run.replicas.pool if isinstance(run, Pooled) else id(runs[key]) for key, run in zip(runs, found, strict=True)
    ]
    if len(set(pools)) < len(runs):
        fix = "Give a run once, and use its means twice. For the means of one pool at several couplings there is "
        fix += "phi4ppl.scan_reweighting(...).derive."
        raise ArgumentError("runs", "independent runs", "the same draws twice", fix, reason="duplicate")
    return Runs(list(runs), found)


def _one(label: str, run) -> Run | Pooled:
    replicas = _replicas(run)
    return Run(label, _variables(run), lattice_of_run(run)) if replicas is None else Pooled(label, replicas)


def _replicas(run) -> Replicas | None:
    """Those of a reweighted result."""
    found = run if isinstance(run, Replicas) else getattr(run, "replicas", None)
    return found if isinstance(found, Replicas) else None


def _is_run(value) -> bool:
    return isinstance(value, Mapping) or hasattr(value, "data_vars") or _replicas(value) is not None


def _variables(run) -> Mapping:
    """Series by name: of the posterior group of a tree, of a dataset, or of a dict."""
    if hasattr(run, "children"):
        if "posterior" not in run.children:
            raise ArgumentError("runs", "a tree with a group 'posterior'", f"groups {list(run.children)}")
        settings = json.loads(run.attrs.get("phi4ppl", "{}")).get("settings", {})
        if any(settings.get("normalizer_error", {}).values()):
            got = "a posterior of couplings whose means also have the error of a simulated log Z"
            fix = "phi4ppl.estimate adds it; normalizer='exact' of phi4ppl.infer_couplings has none."
            raise ArgumentError("runs", "runs with no other error than that of the draws", got, fix, reason="log_z")
        run = run["posterior"]
    variables = dict(getattr(run, "data_vars", run) if _is_run(run) or hasattr(run, "data_vars") else {})
    if not variables:
        expected = "the tree of a run, a dataset, or a dict of arrays by name"
        raise ArgumentError("runs", expected, type(run).__name__)
    return variables


def lattice_of_run(run) -> Lattice | None:
    """The graph of the only field of a run's tree, as far as two-point functions need it; None if there is none."""
    fields = (
        json.loads(getattr(run, "attrs", {}).get("phi4ppl", "{}")).get("fields", {}) if hasattr(run, "children") else {}
    )
    if len(fields) != 1:
        return None
    (field,) = fields.values()
    constant = run["constant_data"] if "constant_data" in run.children else {}
    edges = constant["edges"].values if "edges" in constant else np.zeros((0, 2))
    shape, periodic = (None if field[key] is None else tuple(field[key]) for key in ("shape", "periodic"))
    return Lattice(name=field["lattice"], num_sites=field["num_sites"], edges=edges, shape=shape, periodic=periodic)


def _of_fields(name: str, lattice: Lattice, fields) -> np.ndarray:
    """A two-point function, or one of walls, of kept fields, whose last axes are those of the lattice, in double precision."""
    if {"chain", "draw"} <= set(getattr(fields, "dims", ())):
        fields = fields.transpose("chain", "draw", ...)
    fields, shape, measure = np.asarray(fields), lattice.field_shape, function_of_field(name, lattice)
    leading = fields.shape[: fields.ndim - len(shape)]
    if fields.shape[len(leading) :] != shape:
        raise ArgumentError(name, f"whole fields of shape {shape}", f"shape {fields.shape}", reason="fields")
    flat, step = fields.reshape(-1, *shape), max(1, BATCH_NUMBERS // lattice.num_sites)
    with jax.enable_x64(True):
        parts = [np.asarray(_mapped(measure)(flat[k : k + step].astype(float))) for k in range(0, len(flat), step)]
    values = np.concatenate(parts)
    return values.reshape(*leading, *values.shape[1:])


@functools.lru_cache(maxsize=64)
def _mapped(measure: Callable) -> Callable:
    """Compiled once for all fields of a lattice."""
    return jax.jit(jax.vmap(measure))
