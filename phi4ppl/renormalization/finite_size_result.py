"""What `finite_size_scaling` returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .._typing import PathLike
from ..analysis.collapse import Collapse
from ..analysis.crossings import Crossings
from ..analysis.scaling_plots import plot_scaling
from ..analysis.scaling_scan import ScalingFits
from ..analysis.scaling_table import ScalingTable
from ..errors.arguments import call_checked
from ..reports.numbers import value_with_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FiniteSizeScaling"]

MIN_P = 0.01


@call_checked
@dataclass(frozen=True, repr=False)
class FiniteSizeScaling:
    """Critical coupling and exponents; see `finite_size_scaling`.

    Attributes
    ----------
    table : ScalingTable
        Every observable at every size and coupling, with the covariance of all.
    crossings : dict
        `Crossings` of ``binder_cumulant`` and ``correlation_length_ratio``.
    fits : ScalingFits
        Of all four observables together, in several ways.
    collapse : Collapse
        Of U₄.
    runs : dict
        The tree of each size.
    models : dict
        The model of each size.
    """

    table: ScalingTable
    crossings: dict[str, Crossings]
    fits: ScalingFits
    collapse: Collapse
    runs: Mapping = field(repr=False)
    models: Mapping = field(repr=False)
    run_warnings: tuple[str, ...] = ()

    @cached_property
    def averages(self) -> dict[str, tuple[float, float]]:
        """Value and error of each quantity, averaged over fits."""
        return self.fits.average()

    @property
    def values(self) -> dict[str, float]:
        """By name: ``y_c`` (y the name of the coupling), ``nu``, ``binder_cumulant*``, ``correlation_length_ratio*``,
        ``gamma/nu`` and ``beta/nu``."""
        return {name: value for name, (value, _) in self.averages.items()}

    @property
    def errors(self) -> dict[str, float]:
        """Standard errors, by the names of ``values``."""
        return {name: error for name, (_, error) in self.averages.items()}

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to distrust the values: of runs, of curves, and where no fit describes them.

        Corrections may move the crossings of one observable out of the windows, but not of both, for the largest sizes.
        """
        found = [*self.run_warnings, *(text for each in self.crossings.values() for text in each.misfits)]
        largest = tuple(map(float, sorted(self.models)[-2:]))
        if all(largest in each.missing for each in self.crossings.values()):
            found += [text for each in self.crossings.values() for text in each.warnings]
        if (p := self.fits.best.p_value) < MIN_P:
            found.append(
                f"The best fit does not describe the curves (p = {p:.1g}). Add larger sizes, or scan a narrower range."
            )
        return tuple(dict.fromkeys(found))

    @property
    def reliable(self) -> bool:
        return not self.warnings

    def plot_scaling(self) -> Figure:
        """Curves of all sizes with the fit of the largest weight, and the points scaled onto one curve."""
        return plot_scaling(self.fits.best, self.table)

    def to_html(self, path: PathLike) -> Path:
        """Write values, fits, crossings, curves and collapse as one self-contained page."""
        from .scaling_page import write_scaling

        return write_scaling(self, path)

    def __str__(self) -> str:
        sizes = sorted(self.models)
        lines = [f"finite-size scaling in {self.table.coupling}, sizes {', '.join(map(str, sizes))}"]
        width = max(map(len, self.averages))
        lines += [f"  {name.ljust(width)}  {value_with_error(*pair)}" for name, pair in self.averages.items()]
        best = self.fits.best
        lines.append(
            f"averages over {len(self.fits.averaged)} of {len(self.fits)} fits; best: sizes from {best.smallest:g}, "
            f"{best.corrections or 'no'} correction terms, chi2 {best.chi2:.1f} with {best.dof} degrees of freedom, "
            f"p = {best.p_value:.2g}"
        )
        return "\n".join(lines + [f"  NOT RELIABLE: {text}" for text in self.warnings])

    __repr__ = __str__
