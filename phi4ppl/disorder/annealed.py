"""Annealed averages, in which realisations count with their Z: what sampling fields and couplings together would give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np

from ..analysis.derived import derive
from ..analysis.derived_result import Part
from ..energy.exact.exact_log_z import exact_log_partition
from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array
from ..partition.log_partition import log_partition
from ..reweighting.ensembles import combine_ensembles
from .realizations import jackknifed

__all__ = ["Annealed", "annealed_averages", "log_z_of"]

MIN_CARRIERS = 10  # realisations that carry the weight
MAX_LOG_Z_ERROR = 0.1
MAX_POOLED = 20_000  # fields of all realisations from which log Z ratios are found


@call_checked
@dataclass(frozen=True, repr=False)
class Annealed:
    """Annealed beside quenched averages.

    Attributes
    ----------
    averages : dict of Part
        [Z⟨O⟩]/[Z] by name of the observable, with errors over realisations.
    log_partition, log_partition_error : arrays, shape ``(num_realizations,)``
        log Z of each realisation, or log Z relative to the first where ``absolute`` is False.
    absolute : bool
    quenched_free_energy, annealed_free_energy : Part
        −[log Z] and −log [Z].
    difference : Part
        The first minus the second, which is not negative (Jensen).
    carriers : float
        ([Z])²/[Z²] R: how many realisations carry the annealed averages.
    warnings : tuple of str
    """

    averages: dict[str, Part]
    quenched: dict[str, Part]
    log_partition: np.ndarray
    log_partition_error: np.ndarray
    absolute: bool
    quenched_free_energy: Part
    annealed_free_energy: Part
    difference: Part
    carriers: float
    warnings: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        relative = "" if self.absolute else ", relative to the first realisation"
        width = max(map(len, self.averages))
        lines = [f"{'':{width}}  {'quenched':<16} annealed"]
        lines += [f"{n:{width}}  {self.quenched[n]!s:<16} {part}" for n, part in self.averages.items()]
        lines.append(
            f"F = −[log Z] = {self.quenched_free_energy} quenched, −log [Z] = {self.annealed_free_energy} annealed{relative}; "
            f"difference {self.difference}; {self.carriers:.3g} of {len(self.log_partition)} realisations carry the "
            "annealed average"
        )
        return "\n".join([*lines, *(f"  NOT RELIABLE: {text}" for text in self.warnings)])

    __repr__ = __str__


def log_z_of(models: list, fields, method, seed: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """log Z of every realisation with its error, and whether it is absolute."""
    if not isinstance(method, str):
        values = finite_array("method", method)
        if values.shape != (len(models),):
            raise ArgumentError("method", f"{len(models)} log Z, or a method", f"shape {values.shape}", reason="shape")
        return values, np.zeros(len(models)), True
    if method == "auto":
        first = exact_log_partition(models[0])
        method = "exact" if first is not None else "reweighting"
    if method != "reweighting":
        found = [log_partition(model, method=method, seed=seed) for model in models]
        return np.array([each.value for each in found]), np.array([each.error for each in found]), True
    if fields is None:
        fix = "Run quenched(..., overlaps=True), which keeps fields, or give another method."
        raise ArgumentError("method", "a method other than 'reweighting'", repr(method), fix, reason="fields")
    every = -(
        -fields.shape[0] * fields.shape[1] * len(models) // MAX_POOLED
    )  # thinning: the jackknife solves for all log Z
    pool = combine_ensembles([fields[:, ::every, k] for k in range(len(models))], models)
    return pool.log_partition, pool.log_partition_error, False


def annealed_averages(
    primaries: dict, names: list[str], log_z: np.ndarray, error: np.ndarray, absolute: bool
) -> Annealed:
    """Averages with weights Z_r/ΣZ; errors by leaving out one realisation at a time."""
    top = float(log_z.max())
    weight = np.exp(log_z - top)
    values = {"Z": weight, "log_Z": log_z} | {name: primaries[name] for name in names}
    values |= {f"Z_{name}": weight * primaries[name] for name in names}

    quantities: dict[str, Callable] = {f"annealed {n}": (lambda m, n=n: m[f"Z_{n}"] / m["Z"]) for n in names}
    quantities |= {f"quenched {n}": (lambda m, n=n: m[n] * 1.0) for n in names}
    quantities["F"] = lambda m: -m["log_Z"]
    quantities["F_annealed"] = lambda m: -jnp.log(m["Z"]) - top
    quantities["difference"] = lambda m: jnp.log(m["Z"]) + top - m["log_Z"]
    carriers = float(weight.sum() ** 2 / (weight**2).sum())
    notes = []
    if carriers < MIN_CARRIERS:
        notes.append(
            f"{carriers:.3g} realisations carry the weight Z, and {MIN_CARRIERS} are required: the typical realisation is not "
            "the one that dominates [Z], and more realisations will change the annealed averages."
        )
    if error.max() > MAX_LOG_Z_ERROR:
        notes.append(
            f"log Z is known to {error.max():.2g} only, in realisation {int(np.argmax(error))}: Z is biased by half the square."
        )
    found = derive(jackknifed(values, not notes), quantities)
    return Annealed(
        {n: found[f"annealed {n}"] for n in names}, {n: found[f"quenched {n}"] for n in names}, log_z, error, absolute,
        found["F"], found["F_annealed"], found["difference"], carriers, tuple(notes),
    )  # fmt: skip
