"""Pictures of correlators, structure factors and masses, with their errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import call_checked
from ..reports.style import GRAY, OKABE_ITO, panels
from .correlator_fit import MassFit
from .correlators import Correlator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_correlation", "plot_mass", "plot_structure_factor"]

MARKERS = ("o", "s", "^", "D", "v")
MAX_WINDOWS = 12


@call_checked
def plot_correlation(correlators: Correlator | dict[str, Correlator]) -> Figure:
    """A correlator with its errors, or several by label, on a logarithmic axis where all values are positive.

    Raises
    ------
    ArgumentError
        If there is none, or they are not along the same axis.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> c = p4.analysis.Correlator(np.arange(3), 2.0 ** -np.arange(3), 1e-4 * np.eye(3))
    >>> p4.analysis.plot_correlation(c).axes[0].get_yscale()
    'log'
    """
    return _drawn(correlators, {"t": "C(t)", "λ": "⟨(u·φ)²⟩"})


@call_checked
def plot_structure_factor(correlators: Correlator | dict[str, Correlator]) -> Figure:
    """A structure factor with its errors, or several by label, by lattice momentum k̂.

    Raises
    ------
    ArgumentError
        As of `plot_correlation`.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> s = p4.analysis.Correlator(np.arange(3), 1 / (1.0 + np.arange(3)), 1e-4 * np.eye(3), label="k̂")
    >>> p4.analysis.plot_structure_factor(s).axes[0].get_ylabel()
    'S(k̂)'
    """
    return _drawn(correlators, {"k̂": "S(k̂)"})


def _drawn(correlators, symbols: dict[str, str]) -> Figure:
    many = correlators if isinstance(correlators, dict) else {"": correlators}
    if not many or not all(isinstance(each, Correlator) for each in many.values()):
        raise ArgumentError("correlators", "a Correlator, or a dict of them by label", type(correlators).__name__)
    labels = {each.label for each in many.values()}
    if len(labels) > 1:
        raise ArgumentError("correlators", "correlators along one axis", ", ".join(sorted(labels)), reason="axes")
    figure, (axes,) = panels(1, width=5.0, height=3.2)
    for number, (name, each) in enumerate(many.items()):
        color, marker = OKABE_ITO[number % len(OKABE_ITO)], MARKERS[number % len(MARKERS)]
        axes.plot(each.x, each.value, color=color, lw=0.7, alpha=0.5)
        axes.errorbar(each.x, each.value, each.error, fmt=marker, ms=4, capsize=2, lw=1, color=color, label=name)
    (label,) = labels
    axes.set_xlabel(label)
    axes.set_ylabel(symbols.get(label, f"G({label})"))
    if label in ("t", "r", "d"):
        axes.locator_params(axis="x", integer=True)
    if all(np.all(each.value > 0) for each in many.values()):
        axes.set_yscale("log")
        axes.tick_params(which="both", labelsize=8)
        lowest = min(float(each.value.min()) for each in many.values())
        axes.set_ylim(bottom=max(axes.get_ylim()[0], lowest / 5))  # a bar that reaches zero would take the whole axis
    else:
        axes.axhline(0, color=GRAY, lw=0.8)
    if any(many):
        axes.legend(frameon=False, fontsize=8)
    return figure


@call_checked
def plot_mass(masses: Correlator, fit: MassFit | None = None) -> Figure:
    """Effective masses with their errors; with a fit also its mass as a band, and beside them the masses of its windows.

    Parameters
    ----------
    masses : Correlator
        `effective_mass` of a run.
    fit : MassFit, optional
        `fit_mass` of its correlator. The band is its mass and error; the darker part is its best window.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> m = p4.analysis.Correlator(np.arange(3), np.full(3, 0.4), 1e-4 * np.eye(3), name="effective mass")
    >>> len(p4.analysis.plot_mass(m).axes)
    1
    """
    figure, places = panels(1 if fit is None else 2, width=4.6, height=3.2)
    axes = places[0]
    if fit is not None:
        right = max(float(masses.x[-1]), fit.best.last)
        for start, end in ((float(masses.x[0]), right), (fit.best.first, fit.best.last)):
            band = [fit.value - fit.error] * 2, [fit.value + fit.error] * 2
            axes.fill_between([start, end], *band, color=OKABE_ITO[1], alpha=0.25, lw=0)
        axes.plot(
            [float(masses.x[0]), right], [fit.value] * 2, color=OKABE_ITO[1], lw=1, label="fit, average of windows"
        )
        _windows(places[1], fit)
    axes.errorbar(
        masses.x, masses.value, masses.error, fmt="o", ms=4, capsize=2, lw=1, color=OKABE_ITO[0], label="effective mass"
    )
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel(masses.label)
    axes.set_ylabel("M(t)")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _windows(axes, fit: MassFit) -> None:
    """Masses of the heaviest windows, from the top, with their weights."""
    shown = fit.windows[:MAX_WINDOWS]
    places = -np.arange(len(shown))
    axes.axvspan(fit.value - fit.error, fit.value + fit.error, color=OKABE_ITO[1], alpha=0.25, lw=0)
    axes.errorbar(
        [w.value for w in shown],
        places,
        xerr=[w.error for w in shown],
        fmt="s",
        ms=4,
        capsize=2,
        lw=1,
        color=OKABE_ITO[0],
    )
    axes.set_yticks(places, [f"{w.first:g}–{w.last:g}" for w in shown], fontsize=7)
    for place, window in zip(places, shown, strict=True):
        text = f"{100 * window.weight:.0f} %, p = {window.p:.2g}"
        axes.annotate(text, (1.0, place), xycoords=("axes fraction", "data"), fontsize=6.5, va="center", ha="right")
    low, high = axes.get_xlim()
    axes.set_xlim(low, high + 0.45 * (high - low))
    axes.set_xlabel("M by window of t: weight, p-value")
