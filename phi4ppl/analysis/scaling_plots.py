"""Curves of all sizes beside their collapse: `plot_scaling`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors.arguments import call_checked
from ..reports.style import GRAY, OKABE_ITO, panels
from .scaling_fit import ScalingFit
from .scaling_table import ScalingTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_scaling"]

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
SYMBOLS = {
    "U4": "$U_4$", "binder_cumulant": "$U_4$", "xi_over_L": r"$\xi/L$", "correlation_length_ratio": r"$\xi/L$",
    "chi": r"$\chi$", "susceptibility": r"$\chi$", "abs_m": r"$\langle |m| \rangle$", "m2": r"$\langle m^2 \rangle$",
}  # fmt: skip
EXPONENTS = {"gamma/nu": r"\gamma/\nu", "-beta/nu": r"-\beta/\nu", "-2 beta/nu": r"-2\beta/\nu"}


@call_checked
def plot_scaling(fits: ScalingFit | Sequence[ScalingFit], table: ScalingTable) -> Figure:
    """Observables of all sizes with their fitted curves, and the same points scaled onto one curve.

    Parameters
    ----------
    fits : ScalingFit, or several
        Each observable is shown with the first fit that has it: y_c and exponents scale its points, and the gray band is y_c
        with one standard error.
    table : ScalingTable
        The points, also of sizes that a fit left out, which are hollow.

    Returns
    -------
    matplotlib.figure.Figure
        Two panels for each observable.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> L, y = np.repeat([8.0, 16.0], 4), np.concatenate([1 + np.linspace(-1, 1, 4) / L for L in (8, 16)])
    >>> columns = {"L": L, "y": y, "U4": 0.6 + 0.2 * (y - 1) * L, "U4_error": np.full(8, 0.002)}
    >>> table = p4.analysis.from_table(columns, coupling="y")
    >>> figure = p4.analysis.plot_scaling(p4.analysis.fit_scaling(table, degree=1), table)
    >>> len(figure.axes)
    2
    """
    fits = [fits] if isinstance(fits, ScalingFit) else fits
    fit_of = {name: fit for fit in reversed(fits) for name in fit.names}
    names = [name for name in table.names if name in fit_of]
    figure, axes = panels(2 * len(names), width=4.6, height=3.4, columns=2)
    for row, name in enumerate(names):
        fit, (left, right) = fit_of[name], axes[2 * row : 2 * row + 2]
        y_c, error = (d[f"{table.coupling}_c"] for d in (fit.values, fit.errors))
        left.axvspan(y_c - error, y_c + error, color=GRAY, alpha=0.35, lw=0)
        power = fit.power(name)
        for k, size in enumerate(np.unique(table.sizes)):
            rows, color = table.sizes == size, OKABE_ITO[k % len(OKABE_ITO)]
            couplings, values, errors = table.couplings[rows], table.values[name][rows], table.errors[name][rows]
            style = {
                "fmt": MARKERS[k % len(MARKERS)],
                "ms": 3.5,
                "capsize": 2,
                "lw": 0,
                "elinewidth": 1,
                "color": color,
            }
            left.errorbar(couplings, values, errors, label=f"L = {size:g}", **style)
            kept = size >= fit.smallest
            if kept:
                fine = np.linspace(couplings.min(), couplings.max(), 100)
                left.plot(fine, fit.predict(name, size, fine), color=color, lw=1)
            scale, x = size**-power, (couplings - y_c) * size ** (1 / fit.values["nu"])
            right.errorbar(x, values * scale, errors * scale, mfc=color if kept else "none", **style)
        right.plot(
            (fine - y_c) * size ** (1 / fit.values["nu"]), fit.predict(name, size, fine) * scale, color=GRAY, zorder=0
        )
        symbol, exponent = SYMBOLS.get(name, name), fit.form.powers.get(name)
        left.set(xlabel=f"${table.coupling}$" if table.coupling.isalpha() else table.coupling, ylabel=symbol)
        sign = {"g": "-", "-": ""}[exponent[0]] if exponent else ""
        label = f"$L^{{{sign}{EXPONENTS[exponent].lstrip('-')}}}$ " if exponent else ""
        right.set(xlabel=rf"$({table.coupling} - {table.coupling}_c)\, L^{{1/\nu}}$", ylabel=f"{label}{symbol}")
        left.legend(frameon=False, fontsize=8)
    return figure
