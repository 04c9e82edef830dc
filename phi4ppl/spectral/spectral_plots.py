"""Pictures of spectra: eigenvalues on log–log axes with errors, law and baseline; the cumulative trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..reports.style import GRAY, OKABE_ITO, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_cumulative", "plot_spectrum"]


def plot_spectrum(spectrum, baseline=None) -> Figure:
    """Eigenvalues by rank, with bands of one standard error."""
    figure, (axes,) = panels(1, width=5.0, height=3.6)
    _band(axes, spectrum, OKABE_ITO[0], spectrum.label)
    if baseline is not None:
        _band(axes, baseline.spectrum, OKABE_ITO[1], f"{baseline.name} baseline", "--")
    law = spectrum.decay
    if law.law is not None:
        rank = np.geomspace(law.window[0], law.window[1], 80)
        axes.plot(rank, law(rank), color=OKABE_ITO[6], lw=1.6, ls=":", label=law.law)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("rank i")
    axes.set_ylabel("eigenvalue λ")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _band(axes, spectrum, color: str, label: str, style: str = "-") -> None:
    values, errors = spectrum.resolved, np.nan_to_num(spectrum.errors)
    some = values > 0
    rank, values, errors = np.arange(1, len(values) + 1)[some], values[some], errors[some]
    marker = "o" if len(values) <= 60 and style == "-" else ""
    axes.plot(rank, values, color=color, lw=1.2, ls=style, marker=marker, ms=3, label=label)
    low = np.maximum(values - errors, values / 30)  # a band that reaches zero would take the whole axis
    axes.fill_between(rank, low, values + errors, color=color, alpha=0.25, lw=0)


def plot_cumulative(spectrum, baseline=None) -> Figure:
    """The share of the trace that the leading eigenvalues hold."""
    figure, (axes,) = panels(1, width=5.0, height=3.6)
    pairs = [(spectrum, OKABE_ITO[0], spectrum.label, "-")]
    if baseline is not None:
        pairs.append((baseline.spectrum, OKABE_ITO[1], f"{baseline.name} baseline", "--"))
    for each, color, label, style in pairs:
        shares = np.cumsum(each.eigenvalues) / each.trace
        axes.plot(np.arange(1, len(shares) + 1), shares, color=color, ls=style, lw=1.2, label=label)
    axes.axhline(0.9, color=GRAY, lw=0.8)
    axes.annotate("90 %", (1, 0.9), xytext=(2, 2), textcoords="offset points", fontsize=8, color=GRAY)
    axes.set_xscale("log")
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("number of leading eigenvalues")
    axes.set_ylabel("share of the trace")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure
