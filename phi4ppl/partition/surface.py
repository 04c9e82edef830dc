"""log Z as a differentiable function of a few couplings, from ensembles placed where they are needed."""

from __future__ import annotations

import itertools
from pathlib import Path as FilePath
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._typing import PathLike
from ..errors import ArgumentError, DoublyIntractableError, OverlapError, Phi4pplWarning, warn
from ..errors.arguments import call_checked, finite_array, positive_int, seed_within
from ..errors.streams import stream_seed
from ..model.array_file import read_arrays, write_arrays
from ..model.coupling_vector import CouplingVector
from ..model.field import MarkovRandomField
from ..model.term import is_concrete
from ..reports.numbers import value_with_error
from ..sampling.progress import Progress
from .log_partition import log_partition
from .log_z_methods import Auto
from .partition_estimate import PartitionEstimate
from .pool import Pool
from .simulation import simulate

__all__ = ["MAX_DIMENSIONS", "PartitionSurface", "SurfaceEstimate", "require_normalizable"]

FORMAT = "phi4ppl-surface-1"
MAX_DIMENSIONS = 3
CANDIDATES = {1: 41, 2: 15, 3: 8}  # points per dimension at which overlap is looked at
REACH = 0.03  # overlap at which a new ensemble is still tied to the others
MARGIN = 1.2  # of the overlap of pilot draws, over the one that is asked for


class SurfaceEstimate(NamedTuple):
    """log Z at one point of a surface.

    ``error`` is the standard error of ``value``; ``difference_error`` that of log Z less its value at the middle of the region,
    which is what matters for a posterior of couplings; ``overlap``, the effective number of samples behind the value as a
    fraction of the draws of one ensemble.
    """

    value: float
    error: float
    difference_error: float
    overlap: float

    def __str__(self) -> str:
        return f"log Z = {value_with_error(self.value, self.error)}, overlap {self.overlap:.2g}"

    def __repr__(self) -> str:
        return str(self)


@call_checked
class PartitionSurface:
    """log Z(θ) over a box of one to three homogeneous couplings, differentiable by JAX.

    Ensembles are placed first in the middle of the box and then wherever the pool of samples carries too little
    information, until the effective sample size is well above ``min_overlap`` of one ensemble's draws everywhere. Then all
    are simulated again, since the draws that decided where to stop would make log Z too low. With T the statistics
    conjugate to θ (their sums over all cliques, kept for every draw),

        log Z(θ) = log Z(θ_1) + log Σ_n exp(−θ·T_n) / Σ_k N_k exp(−θ_k·T_n)/Z_k ,

    the Z_k by multistate reweighting (MBAR), log Z(θ_1) in the middle by `phi4ppl.log_partition`.

    Parameters
    ----------
    model : MarkovRandomField
        Couplings that are not in ``region`` stay as they are.
    region : dict
        ``{name: (low, high)}`` for one to three couplings, each one number for its term.
    num_samples : int, default 1000
        Kept draws per chain of every ensemble.
    num_chains : int, default 4
        Chains of every ensemble.
    min_overlap : float
        The overlap aimed at, between 0.05 and 0.9; the one that is reached is an attribute of the same name.
    max_ensembles : int
    seed : int
    progress : bool, optional

    Attributes
    ----------
    region : dict
    ensembles : array, shape (num_ensembles, num_couplings)
        The simulated couplings, in the order of the names in ``region``.
    anchor : PartitionEstimate
        log Z in the middle.
    min_overlap : float
        The smallest overlap that was measured on a grid over the region.

    Raises
    ------
    HammersleyCliffordError
        If Z is infinite at a corner of the region.
    OverlapError
        If ``max_ensembles`` do not cover the region.
    ArgumentError

    Notes
    -----
    The surface is the function that `GibbsField` takes: ``GibbsField(model, log_partition=surface)``. Outside the
    region it raises `OverlapError`, and inside a JAX trace, where nothing can be raised, it is NaN: a sampler reports
    divergences. Choose priors that end where the region ends.

    Examples
    --------
    >>> import jax, phi4ppl as p4
    >>> model = p4.phi4(p4.lattice.chain(8), w=0.8, a=1.4, b=0.2)
    >>> surface = p4.PartitionSurface(model, {"w": (0.6, 1.0)}, num_samples=300)
    >>> surface.estimate({"w": 0.7}).error < 0.05
    True
    >>> slope = jax.grad(lambda w: surface.log_partition({"w": w}))(0.8)  # −⟨T_w⟩ = ⟨Σ φφ⟩
    >>> bool(abs(slope - 8 * 0.07825872) < 0.1)
    True
    """

    def __init__(
        self, model: MarkovRandomField, region: dict, *, num_samples: int = 1000, num_chains: int = 4,
        min_overlap: float = 0.3, max_ensembles: int = 64, seed: int = 0, progress: bool | None = None,
    ):  # fmt: skip
        num_samples = positive_int("num_samples", num_samples, minimum=100)
        num_chains = positive_int("num_chains", num_chains, minimum=2)
        max_ensembles, seed = positive_int("max_ensembles", max_ensembles), seed_within(seed)
        if not 0.05 <= min_overlap <= 0.9:
            raise ArgumentError("min_overlap", "a number from 0.05 to 0.9", repr(min_overlap))
        names, low, high = _checked(model, region)
        middle = (low + high) / 2
        self._settings: dict = {
            "num_samples": num_samples, "num_chains": num_chains, "min_overlap": float(min_overlap),
            "max_ensembles": max_ensembles, "seed": seed,
        }  # fmt: skip
        anchor = log_partition(
            _at(model, names, middle), method=Auto(num_chains=num_chains), seed=seed, progress=progress
        )
        pool = _simulated(model, names, low, high, None, self._settings, progress)
        for text in pool.complaints:
            warn(Phi4pplWarning("partition_surface.doubtful", f"PartitionSurface: {text}. Increase num_samples."))
        self._set(model, names, low, high, pool, anchor)

    def _set(self, model, names, low, high, pool: Pool, anchor: PartitionEstimate) -> None:
        self.model, self._names, self._low, self._high = model, names, low, high
        self.anchor, self._pool, self.ensembles = anchor, pool, pool.couplings
        self.min_overlap = float(pool.overlap(_grid(low, high)).min())
        # statistics and couplings about their middles, and that of the couplings a single-precision number, so that single
        # precision is enough
        self._center, self._mean = pool.couplings[0].astype(np.float32).astype(float), pool.flat.mean(axis=0)
        self._statistics = pool.flat - self._mean
        self._offset = -pool.solution.log_mixture - pool.flat @ self._center

    @property
    def region(self) -> dict[str, tuple[float, float]]:
        bounds = zip(self._names, self._low.tolist(), self._high.tolist(), strict=True)
        return {name: (low, high) for name, low, high in bounds}

    def __repr__(self) -> str:
        box = ", ".join(f"{name} in [{low:.6g}, {high:.6g}]" for name, (low, high) in self.region.items())
        return f"PartitionSurface({box}; {len(self.ensembles)} ensembles, overlap at least {self.min_overlap:.2f})"

    def __call__(self, couplings: dict):
        """The same as `log_partition`."""
        return self.log_partition(couplings)

    def log_partition(self, couplings: dict) -> jax.Array:
        """log Z, a scalar JAX array, differentiable in the couplings of the region.

        Parameters
        ----------
        couplings : dict
            The couplings of the region, as numbers or in a JAX trace. Others are allowed if they equal those of the model.

        Raises
        ------
        OverlapError
            Outside the region (in a trace: NaN).
        DoublyIntractableError
            If a random coupling is not covered by the surface.
        ArgumentError
            For missing, unknown or different couplings.
        """
        values = self._checked_couplings(couplings)
        dtype = jnp.result_type(float)
        theta = jnp.stack([jnp.asarray(v, dtype) for v in values])
        low, high, mean = (jnp.asarray(x, dtype) for x in (self._low, self._high, self._mean))
        away, excess = self._excess(theta)
        value = self.anchor.value - mean @ away + excess
        slack = 1e-6 * (high - low)  # the ends themselves, rounded
        return jnp.where(jnp.all((theta >= low - slack) & (theta <= high + slack)), value, jnp.nan)

    def estimate(self, couplings: dict) -> SurfaceEstimate:
        """log Z at one point with its error (of the samples by the Γ-method, and that of the anchor) and overlap.

        Arguments and errors as for `log_partition`; the couplings are numbers.
        """
        values = self._checked_couplings(couplings)
        if not all(map(is_concrete, values)):
            raise ArgumentError(
                "couplings", "numbers", "couplings inside a JAX trace", "log_partition takes them.", reason="traced"
            )
        theta = np.array([float(v) for v in values])
        value = self.anchor.value + float(self._pool.log_partition(theta)[0])
        difference_error = self._pool.error(theta)
        error = float(np.hypot(difference_error, self.anchor.error))
        return SurfaceEstimate(value, error, difference_error, float(self._pool.overlap(theta)[0]))

    def _checked_couplings(self, couplings: dict) -> list:
        if not isinstance(couplings, dict) or any(name not in couplings for name in self._names):
            got = ", ".join(map(repr, couplings)) if isinstance(couplings, dict) else repr(couplings)
            raise ArgumentError("couplings", f"a dict with {', '.join(map(repr, self._names))}", got or "none")
        for name, value in couplings.items():
            if name in self._names:
                continue
            if name not in self.model.couplings:
                raise ArgumentError("couplings", f"names of {self.model!r}", repr(name), reason="name")
            if not is_concrete(value):
                raise DoublyIntractableError(
                    "random_coupling",
                    f"coupling {name!r} is random, but the PartitionSurface covers {', '.join(map(repr, self._names))} only, "
                    f"with {name!r} as in its model. Fix it, or build a surface with {name!r} in its region.",
                )
            if not np.array_equal(np.asarray(value, np.float32), np.asarray(self.model.couplings[name], np.float32)):
                fix = "A surface is valid only at the other couplings of its model; build one for these."
                raise ArgumentError(
                    f"coupling {name!r}", "the value of the surface's model", repr(value), fix, reason="fixed"
                )
        values = [couplings[name] for name in self._names]
        for name, value, low, high in zip(self._names, values, self._low, self._high, strict=True):
            if np.ndim(value) != 0:
                raise ArgumentError(f"coupling {name!r}", "one number", f"shape {np.shape(value)}", reason="shape")
            slack = 1e-6 * (high - low)
            if is_concrete(value) and not low - slack <= float(value) <= high + slack:
                raise OverlapError(
                    "outside_region",
                    f"coupling {name!r} = {float(value):.6g} is outside the region [{low:.6g}, {high:.6g}] of the "
                    "PartitionSurface, about which its samples carry no information. Extend it with surface.extend({…}).",
                    {name: float(value), "low": low, "high": high},
                )
        return values

    def pool_of(self, names) -> Pool:
        """The simulated statistics with the couplings in the order of ``names``."""
        order = [self._names.index(name) for name in names]
        return Pool(self._pool.couplings[:, order], [each[..., order] for each in self._pool.statistics])

    def _excess(self, theta):
        """θ − θ_c about the center c, and log Z(θ) − log Z(c) + (θ − θ_c)·⟨T⟩ with the mean of T over the pool."""
        dtype = theta.dtype
        away = theta - jnp.asarray(self._center, dtype)
        exponent = jnp.asarray(self._offset, dtype) - jnp.asarray(self._statistics, dtype) @ away
        return away, jax.scipy.special.logsumexp(exponent)

    def check_model(self, model: MarkovRandomField) -> None:
        """Raise `ArgumentError` unless a model differs from the surface's in its couplings only."""
        if model.structure != self.model.structure:
            expected = f"a PartitionSurface of {model!r}"
            raise ArgumentError(
                "log_partition",
                expected,
                f"one of {self.model!r}",
                "Lattice and terms must be the same.",
                reason="mismatch",
            )

    def extend(self, region: dict, *, progress: bool | None = None) -> PartitionSurface:
        """A new surface over the smallest box that holds the old region and ``region``; what was simulated is kept.

        ``region`` has the same names, or some of them.
        """
        if not isinstance(region, dict) or not set(region) <= set(self._names):
            raise ArgumentError(
                "region", f"a dict with names among {', '.join(map(repr, self._names))}", repr(region), reason="name"
            )
        names, low, high = _checked(self.model, self.region | region)
        low, high = np.minimum(low, self._low), np.maximum(high, self._high)
        require_normalizable(self.model, names, low, high)
        surface = object.__new__(PartitionSurface)
        surface._settings = self._settings | {
            "seed": stream_seed(self._settings["seed"], "extension", len(self.ensembles))
        }
        pool = _simulated(self.model, names, low, high, self._pool, surface._settings, progress)
        surface._set(self.model, names, low, high, pool, self.anchor)
        return surface

    def save(self, path: PathLike) -> FilePath:
        """Write the statistics and settings to one file (not the model); returns the path."""
        header = {
            "format": FORMAT, "names": self._names, "settings": self._settings, "model": _identity(self.model, self._names),
            "anchor": [self.anchor.value, self.anchor.error, self.anchor.method, self.anchor.how],
        }  # fmt: skip
        arrays = {
            "low": self._low,
            "high": self._high,
            "couplings": self.ensembles,
            "statistics": self._pool.statistics,
        }
        return write_arrays(path, header, arrays)

    @classmethod
    def load(cls, path: PathLike, model: MarkovRandomField) -> PartitionSurface:
        """Read what `save` wrote; ``model`` must be the model of that surface (the couplings of the region aside).

        Raises
        ------
        ArgumentError
            If there is no such file, it is something else, or belongs to another model.
        """
        header, arrays = read_arrays(path, FORMAT, "PartitionSurface.save")
        if header["model"] != _identity(model, header["names"]):
            fix = "Lattice, terms and the couplings that are not in the region must be the same."
            raise ArgumentError("model", f"the model of the surface in {path}", repr(model), fix, reason="mismatch")
        surface = object.__new__(cls)
        surface._settings = header["settings"]
        pool = Pool(arrays["couplings"], arrays["statistics"])
        surface._set(model, header["names"], arrays["low"], arrays["high"], pool, PartitionEstimate(*header["anchor"]))
        return surface


def _identity(model: MarkovRandomField, names) -> list:
    """What must be the same for a surface to be valid: lattice, terms, and couplings that are not in its region."""
    terms = []
    for form, value in model.interactions:
        statistic = str(form.built_in or getattr(form.statistic, "__qualname__", "own"))  # type: ignore[arg-type]
        coupling = None if form.name in names else np.asarray(value, np.float32).tolist()
        terms.append([form.name, statistic, form.cliques.tolist(), coupling])
    return [model.lattice.digest, terms]


def _checked(model, region) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names, lower and upper ends of a region in which the model is normalizable."""
    if not isinstance(model, MarkovRandomField):
        raise ArgumentError("model", "a MarkovRandomField", type(model).__name__, "Build one with phi4ppl.phi4(…).")
    if not isinstance(region, dict) or not 1 <= len(region) <= MAX_DIMENSIONS:
        expected = f"a dict {{name: (low, high)}} of one to {MAX_DIMENSIONS} couplings"
        raise ArgumentError(
            "region", expected, repr(region), "For more, infer_couplings(…, normalizer='exchange') needs no surface."
        )
    for name, bounds in region.items():
        if name not in model.couplings or np.ndim(model.couplings[name]) != 0:
            known = ", ".join(repr(n) for n, v in model.couplings.items() if np.ndim(v) == 0)
            raise ArgumentError(
                "region", f"homogeneous couplings of the model: {known or 'it has none'}", repr(name), reason="name"
            )
        ends = finite_array(f"region of {name!r}", bounds)
        if ends.shape != (2,) or not ends[0] < ends[1]:
            raise ArgumentError(f"region of {name!r}", "(low, high) with low < high", repr(bounds), reason="order")
    names = list(region)
    low, high = (np.array([float(region[name][k]) for name in names]) for k in (0, 1))
    require_normalizable(model, names, low, high)
    return names, low, high


def require_normalizable(model, names, low, high) -> None:
    """Z is log-convex in the couplings: finite at the corners, it is finite in the box."""
    for corner in itertools.product(*zip(low, high, strict=True)):
        _at(model, names, corner).check().raise_if_violated()


def _at(model, names, theta) -> MarkovRandomField:
    return CouplingVector.of(model, names).model(theta)


def _grid(low, high) -> np.ndarray:
    axes = [np.linspace(a, b, CANDIDATES[len(low)]) for a, b in zip(low, high, strict=True)]
    return np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1)


def _simulated(model, names, low, high, pool: Pool | None, settings: dict, progress) -> Pool:
    """Ensembles placed by the overlap of pilot draws, then drawn again.

    The pilot draws themselves would be biased: placing ends when the overlap seems large enough, which is more likely where
    large weights happen to be missing, so that log Z comes out low (by 0.4 of its error at a corner of a box).
    """
    known, turn = 0 if pool is None else len(pool.couplings), 0
    candidates = _grid(low, high)
    sizes = {name: settings[name] for name in ("num_chains", "num_samples", "seed")}
    while True:
        pool, turn = _explore(model, names, low, high, pool, settings, progress), turn + 1
        draws = [
            simulate(model, names, pool.couplings[k], stream=("surface", turn, k), **sizes)[0]
            for k in range(known, len(pool.couplings))
        ]
        pool = Pool(pool.couplings, np.stack([*pool.statistics[:known], *draws]))
        if pool.overlap(candidates).min() >= settings["min_overlap"] / 2:  # to refuse more would be to choose again
            return pool


def _explore(model, names, low, high, pool: Pool | None, settings: dict, progress) -> Pool:
    """Add ensembles until the overlap is large enough at all candidates: the next one where it is lowest but not yet lost."""
    candidates, wanted = _grid(low, high), min(MARGIN * settings["min_overlap"], 0.95)
    theta = (low + high) / 2 if pool is None else None
    with Progress(None, progress) as bar:
        while True:
            if theta is None:
                overlap = pool.overlap(candidates)
                missing = np.flatnonzero(overlap < wanted)
                if not len(missing):
                    return pool
                if len(pool.couplings) >= settings["max_ensembles"]:
                    raise OverlapError(
                        "too_many_ensembles",
                        f"{len(pool.couplings)} ensembles leave an overlap of {overlap.min():.2g} in the region, less than "
                        f"{wanted:g}. Use a smaller region, or a larger max_ensembles.",
                    )
                tied = missing[overlap[missing] >= REACH]
                best = tied[overlap[tied].argmin()] if len(tied) else missing[overlap[missing].argmax()]
                theta = candidates[best]
            number = 0 if pool is None else len(pool.couplings)
            bar.message(
                f"partition surface: ensemble {number + 1} at {dict(zip(names, theta.round(4).tolist(), strict=True))}"
            )
            sizes = {name: settings[name] for name in ("num_chains", "num_samples", "seed")}
            (statistics,) = simulate(model, names, theta, stream=("pilot of a surface", number), **sizes)
            pool = Pool(theta[None], statistics[None]) if pool is None else pool.with_ensemble(theta, statistics)
            theta = None
