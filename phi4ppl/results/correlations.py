"""Order in fields of a regular lattice, for the report: χ, U₄, ξ, the structure factor and the correlation function."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import xarray as xr

from ..analysis.correlator_plots import plot_correlation, plot_structure_factor
from ..analysis.correlators import SYMBOLS, Correlator
from ..analysis.derived import derive
from ..analysis.named import QUANTITIES
from ..analysis.primaries import as_runs, lattice_of_run
from ..analysis.two_point import two_point
from ..errors import ArgumentError
from ..reports.html import Picture, Row, Table, png_of
from ..reports.numbers import value_with_error

__all__ = ["correlations_part"]

NUMBERS = {
    "susceptibility": "χ",
    "connected_susceptibility": "connected χ",
    "binder_cumulant": "Binder cumulant",
    "specific_heat": "specific heat",
    "second_moment_correlation_length": "ξ (second moment)",
    "correlation_length_ratio": "ξ/L",
}
CURVES = {"structure_factor": plot_structure_factor, "axis_correlation_function": plot_correlation}
CAPTION = (
    "Structure factor S by lattice momentum k̂, and correlation function G by distance r along the axes, with errors"
)


def correlations_part(tree: xr.DataTree) -> dict | None:
    """Numbers and pictures with errors for a template; None for what is no field on a regular lattice.

    All are one derived quantity, an array, so that its derivatives compile once.
    """
    lattice = lattice_of_run(tree)
    posterior = tree["posterior"].data_vars
    if lattice is None or lattice.shape is None or lattice.num_sites < 2 or "magnetization" not in posterior:
        return None
    pieces = {
        name: function for name in (*NUMBERS, *CURVES) if (function := _function(name, lattice, tree)) is not None
    }
    try:
        found = derive(tree, {"all": lambda m: jnp.concatenate([jnp.ravel(f(m)) for f in pieces.values()])})["all"]
    except ArgumentError as error:  # too few draws, or draws that never move: the checks of the report say more
        return {"table": None, "picture": None, "notes": [f"Not computed: {error}"]}
    rows, drawn, start = [], [], 0
    for name in pieces:
        size = len(two_point(name, lattice).points[0]) if name in CURVES else 1
        here = slice(start, start + size)
        value, error, start = found.value[here], found.error[here], start + size
        if name in CURVES:
            measured = two_point(name, lattice)
            label = SYMBOLS[measured.dims[0]]
            curve = Correlator(measured.points[0], value, np.diag(error**2), measured.period, label=label)
            drawn.append(png_of(CURVES[name](curve)))
        else:
            good = bool(found.reliable[here][0])
            cells = (NUMBERS[name], QUANTITIES[name].formula, value_with_error(float(value[0]), float(error[0])))
            rows.append(Row((*cells, "" if good else "not reliable"), "" if good else "fail"))
    notes = (
        [] if drawn else ["Structure factor and correlation function need kept fields, or observables= by these names."]
    )
    table = Table(("", "", "value(error)", ""), rows, texts=2)
    return {"table": table, "picture": Picture(CAPTION, tuple(drawn)) if drawn else None, "notes": notes}


def _function(name: str, lattice, tree) -> Callable | None:
    """The quantity as a function of the means; None where this lattice or run has none, or its value is not a number."""
    needed, posterior = QUANTITIES[name].measured, tree["posterior"].data_vars
    if needed and "phi" not in posterior and not set(needed) <= set(posterior):
        return None
    try:
        for each in needed:
            two_point(each, lattice)
    except ArgumentError:
        return None

    def function(m):
        return QUANTITIES[name].function(m, lattice)

    if name in CURVES or np.isfinite(function(as_runs(tree).runs[0])):  # ξ² of few or disordered draws may be negative
        return function
    return None
