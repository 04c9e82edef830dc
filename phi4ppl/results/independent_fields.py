"""Fields of a run as independent data: one draw in 2 τ_int of every chain."""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..analysis.gamma_method import gamma_method
from ..errors import ArgumentError
from ..lattice.labels import MISSING_FIELDS, aligned_fields
from ..model.field import MarkovRandomField

__all__ = ["independent_fields", "independent_step", "note_of"]

MIN_DRAWS = 8  # of a chain, for an autocorrelation time
BLOCK = 1000  # fields at once, so that statistics of all cliques fit in memory


def independent_fields(data, *models: MarkovRandomField) -> tuple:
    """``data`` as fits take them: chains of a run thinned to independent fields, anything else as it is.

    Fits assume independent fields; correlated ones would give errors that are too small.

    Parameters
    ----------
    data : DataTree of `phi4ppl.sample`, or anything else
    *models : MarkovRandomField
        The slowest of their statistics and energies, of m² and of φ² sets the spacing.

    Returns
    -------
    data
        Of a DataTree the thinned field, with its labels.
    note : str
        What was done; empty if nothing was.
    """
    if not isinstance(data, xr.DataTree) or "posterior" not in data.children:
        return data, ""
    if "phi" not in data["posterior"]:
        got = f"one with {', '.join(map(str, data['posterior'].data_vars)) or 'nothing'}"
        raise ArgumentError("data", "a DataTree of a run whose posterior has the field 'phi'", got)
    field = data["posterior"]["phi"]
    if not {"chain", "draw"} <= set(field.dims):
        return field, ""
    if "member" in field.dims:
        raise ArgumentError(
            "data", "one member of an ensemble", "all of them", "Select one: tree.isel(member=0).", reason="ensemble"
        )
    step = independent_step(aligned_fields("data", field, models[0].lattice, MISSING_FIELDS), *models)
    return field.isel(draw=slice(None, None, step)), note_of(step, "data")


def independent_step(chains: np.ndarray, *models: MarkovRandomField) -> int:
    """Draws from one independent field to the next, about 2 τ_int, in chains of shape ``(chains, draws, *field_shape)``."""
    if chains.shape[1] < MIN_DRAWS:
        return 1
    same = [model for model in models if model.field_shape == chains.shape[2:]]
    taus = gamma_method(_series(chains, same)).tau_int
    step = int(np.ceil(2 * np.max(taus) - 0.2))  # estimates for independent draws are near 1/2
    return min(max(1, step), chains.shape[1])


def note_of(step: int, name: str) -> str:
    """What was done to the fields, or nothing."""
    return f"{name}: one draw in {step} of every chain, about 2 τ_int, as independent fields." if step > 1 else ""


def _series(chains: np.ndarray, models) -> np.ndarray:
    """m², φ², and Σ T of every term and the energy of every model, shape (chains, draws, number)."""
    flat = chains.reshape(-1, *chains.shape[2:])
    found = [_measured(flat[k : k + BLOCK], models) for k in range(0, len(flat), BLOCK)]
    return np.concatenate(found).reshape(*chains.shape[:2], -1)


def _measured(fields: np.ndarray, models) -> np.ndarray:
    sites = fields.reshape(len(fields), -1).astype(float)
    columns = [sites.mean(axis=1) ** 2, (sites**2).mean(axis=1)]
    for model in models:
        statistics, energy = {k: np.asarray(v, float) for k, v in model.statistics(fields).items()}, 0.0
        for name, values in statistics.items():
            values, coupling = values.reshape(len(fields), -1), np.asarray(model.couplings[name], float).reshape(1, -1)
            columns.append(values.sum(axis=1))
            energy = energy + (values * coupling).sum(axis=1)
        columns.append(energy)
    return np.stack(columns, axis=1)
