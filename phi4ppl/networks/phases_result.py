"""What `phases` returns: quantities along the axis, the transition, and the phase picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from ..analysis.crossings import Crossings
from ..analysis.scaling_scan import ScalingFits
from ..errors.arguments import call_checked
from ..reports.numbers import value_with_error
from ..reports.style import GRAY, LINE_STYLES, OKABE_ITO, panels
from .phase_detection import CascadeStep, Transition

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Phases"]

TITLES = {
    "strength": "singular values of $D_v^{1/2}WD_h^{1/2}$",
    "magnetization": r"$\langle|m|\rangle$",
    "susceptibility": "susceptibility",
    "binder_cumulant": "$U_4$",
    "symmetry_breaking": "symmetry breaking",
    "relaxation_time": "relaxation time in sweeps",
    "curvature": r"$-\partial^2F$",
}
FEW = 4  # sizes or modes that are drawn


@call_checked
@dataclass(frozen=True, repr=False)
class Phases:
    """The phases of a machine along an axis; see `phases`.

    Attributes
    ----------
    data : xarray.Dataset
        Dimensions ``size``, ``point`` and ``mode`` (from 1); the axis by its name, shape (size, point). Every NAME has a
        NAME_error, and NAME_reliable tells whether the chains are long enough for it.

        Of each mode: ``singular_value`` of w and ``strength``, that of D_v^½ W D_h^½ (exact, without errors); of the visible
        projection m ``magnetization`` ``⟨|m|⟩``, ``susceptibility`` ``N(⟨m²⟩ − ⟨|m|⟩²)``, ``full_susceptibility`` N⟨m²⟩ and
        ``binder_cumulant`` U₄ = 1 − ⟨m⁴⟩/3⟨m²⟩²; the same of the hidden one with ``hidden_`` before the name;
        ``relaxation_time``, τ_int of m in sweeps; ``symmetry_breaking``, the mean over chains of (mean of m in a chain)² over
        ⟨m²⟩, from 0 where chains cross between the signs to 1 where none does in its time.

        Of each point: ``free_energy`` F = −log Z, ``slope`` ∂F/∂x = ⟨∂S/∂x⟩, ``curvature`` −∂²F/∂x² = Var ∂S/∂x, and
        ``curvature_of_free_energy``, the same from second differences of F; ``up`` and ``down``, ``⟨|m₁|⟩`` as the machine is
        driven up and down the axis. Of each size ``hysteresis``, the area between the two.
    axis : str
        Name of the axis.
    transition : Transition
    mean_field : float
        Where the first mode condenses in mean field; nan if outside the axis, and for lattices.
    cascade : tuple of CascadeStep
        Along a training, each mode that condenses.
    crossings : Crossings or None
        Of U₄ of neighboring sizes.
    fits : ScalingFits or None
        Of finite-size scaling, from three sizes.
    warnings : tuple of str
    """

    data: xr.Dataset
    axis: str
    transition: Transition
    mean_field: float
    cascade: tuple[CascadeStep, ...] = ()
    crossings: Crossings | None = None
    fits: ScalingFits | None = None
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        sizes = ", ".join(f"{size:g}" for size in self.data["size"].values)
        lines = [f"phases along {self.axis}: size {sizes}, {self.data.sizes['point']} points, {self._modes} modes"]
        lines.append(f"  {self.transition}")
        if np.isfinite(self.mean_field):
            lines.append(f"  mean field {self.mean_field:.6g}")
        if self.crossings is not None and len(self.crossings.position):
            pairs = zip(self.crossings.pairs, self.crossings.position, self.crossings.position_error, strict=True)
            shown = ", ".join(f"{value_with_error(y, dy)} ({a:g}, {b:g})" for (a, b), y, dy in pairs)
            lines.append(f"  crossings of U4 (sizes): {shown}")
        for step in self.cascade:
            low, high = step.interval
            lines.append(f"  mode {step.mode} condenses at {self.axis} {step.value:.4g}, between {low:g} and {high:g}")
        if "hysteresis" in self.data:
            areas = zip(self.data["hysteresis"].values, self.data["hysteresis_error"].values, strict=True)
            lines.append("  area of hysteresis " + ", ".join(value_with_error(*pair) for pair in areas))
        return "\n".join(lines + [f"  NOT RELIABLE: {text}" for text in self.warnings])

    __repr__ = __str__

    @property
    def _modes(self) -> int:
        return self.data.sizes["mode"]

    def plot(self) -> Figure:
        """The phase picture: one panel per quantity along the axis.

        Lines are sizes, each of its first mode; for one size they are modes. The transition and its interval are a gray band,
        the mean-field value a dotted line. Dots on thin lines are runs up and down the axis.

        Returns
        -------
        matplotlib.figure.Figure
        """
        names = [name for name in TITLES if name in self.data and np.isfinite(self.data[name]).any()]
        if "free_energy" in self.data:
            names.append("free_energy")
        figure, places = panels(len(names), columns=min(4, len(names)), width=3.1)
        for axes, name in zip(places, names, strict=True):
            self._panel(axes, name)
            axes.set_title(
                TITLES.get(name, "free energy per visible unit" if name == "free_energy" else name), fontsize=9
            )
            axes.set_xlabel(self.axis, fontsize=8)
            self._mark(axes)
        if places[0].get_legend_handles_labels()[1]:
            places[0].legend(fontsize=7, frameon=False)
        return figure

    def _panel(self, axes, name: str) -> None:
        several = self.data.sizes["size"] > 1
        values, errors = self.data[name], self.data.get(f"{name}_error")
        lines = (
            [(k, 0) for k in range(min(FEW, self.data.sizes["size"]))]
            if several
            else [(0, m) for m in range(self._modes)]
        )
        for number, (size, mode) in enumerate(lines if "mode" in values.dims else lines[: None if several else 1]):
            pick = {"size": size, "mode": mode} if "mode" in values.dims else {"size": size}
            share = float(self.data["units"][size]) if name in ("free_energy", "curvature") else 1.0
            x, y = self.data[self.axis].isel(size=size).values, values.isel(pick).values / share
            dy = None if errors is None else np.nan_to_num(errors.isel(pick).values / share)
            color, style = OKABE_ITO[number % len(OKABE_ITO)], LINE_STYLES[number % len(LINE_STYLES)]
            label = f"size {self.data['size'].values[size]:g}" if several else f"mode {mode + 1}"
            axes.errorbar(x, y, dy, color=color, ls=style, marker=".", lw=1, ms=3, label=label)
            if name == "magnetization" and mode == 0 and "up" in self.data:
                for way, marker in (("up", "^"), ("down", "v")):
                    axes.plot(x, self.data[way].isel(size=size), marker=marker, ms=3, lw=0.4, color=color, mfc="none")
        if name == "strength":
            axes.axhline(1, color="k", lw=0.7)
        if name == "relaxation_time":
            axes.set_yscale("log")

    def _mark(self, axes) -> None:
        low, high = axes.get_xlim()
        if np.isfinite(self.transition.value):
            axes.axvspan(*self.transition.interval, color=GRAY, alpha=0.35, lw=0)
        if np.isfinite(self.mean_field):
            axes.axvline(self.mean_field, color="k", ls=":", lw=1)
        for step in self.cascade:
            axes.axvline(step.value, color=OKABE_ITO[(step.mode - 1) % len(OKABE_ITO)], ls=":", lw=0.8)
        axes.set_xlim(low, high)
