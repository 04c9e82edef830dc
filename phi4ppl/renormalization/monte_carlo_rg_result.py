"""What `monte_carlo_rg` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors.arguments import call_checked
from ..reports.card import card
from ..reports.numbers import value_with_error
from ..reports.style import GRAY, OKABE_ITO, panels
from .blocking import Blocked
from .matching import Matching

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Recommendation", "MonteCarloRG", "ExponentRow"]

MARKERS = ("o", "s", "^", "D", "v")
EXPONENT = {"even": "y_t", "odd": "y_h"}
AGREE = 4.0  # two levels, or two ways, differ by fewer errors


class ExponentRow(NamedTuple):
    """The leading exponent of one sector, from some operators at one step and one cut.

    Attributes
    ----------
    sector : str
        ``"even"`` or ``"odd"``.
    step : int
        From level ``step`` to ``step + 1``, of sides ``sides``.
    names : tuple of str
        The operators kept.
    cut : float
        Singular values of B below it, relative to the largest, are left out; ``rank`` are used.
    condition : float
        Condition number of B, scaled to a unit diagonal, before the cut.
    eigenvalue, exponent, error, bias : float
        λ, y = ln λ/ln b, its standard error and jackknife bias.
    """

    sector: str
    step: int
    sides: tuple[int, int]
    names: tuple[str, ...]
    cut: float
    rank: int
    condition: float
    eigenvalue: float
    exponent: float
    error: float
    bias: float


class Recommendation(NamedTuple):
    """A recommended row, why, and how many errors it is away from the level before."""

    row: ExponentRow
    reason: str
    drift: float | None


@call_checked
@dataclass(frozen=True, repr=False)
class MonteCarloRG:
    """Exponents by Monte Carlo renormalization; see `monte_carlo_rg`.

    Attributes
    ----------
    rows : tuple of ExponentRow
        Sectors × levels × operators kept × cuts.
    best : dict
        ``"y_t"``, ``"y_h"`` → the recommended row with the reason.
    inputs : dict
        Exponents that the rule fixes identically → value, and the message. They are not among ``values``.
    blocked : Blocked
        The fields by level.
    operators : tuple of str
    matching : Matching or None
        Of two lattices, the second way.
    values, errors : dict
        ``y_t``, ``nu`` = 1/y_t, ``y_h`` and ``eta`` = d + 2 − 2 y_h, as far as they are measured, and their standard errors.
    """

    rows: tuple[ExponentRow, ...]
    best: dict[str, Recommendation]
    inputs: dict[str, tuple[float, str]]
    blocked: Blocked
    operators: tuple[str, ...]
    matching: Matching | None = None

    @property
    def values(self) -> dict[str, float]:
        """``y_t``, ``nu`` = 1/y_t, ``y_h``, ``eta`` = d + 2 − 2 y_h, as far as they are measured."""
        return {name: value for name, (value, _) in self._pairs.items()}

    @property
    def errors(self) -> dict[str, float]:
        """Standard errors by the same names; they are statistical, and know nothing of operators that were left out."""
        return {name: error for name, (_, error) in self._pairs.items()}

    @property
    def _pairs(self) -> dict[str, tuple[float, float]]:
        found = {}
        for name, choice in self.best.items():
            y, error = choice.row.exponent, choice.row.error
            found[name] = (y, error)
            if name == "y_t":
                found["nu"] = (1 / y, error / y**2)
            else:
                found["eta"] = (len(self.blocked.lattices[0].field_shape) + 2 - 2 * y, 2 * error)
        return found

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to distrust the values, and what is an input instead."""
        found = [*(text for _, text in self.inputs.values()), *self.blocked.warnings]
        for name, choice in self.best.items():
            row = choice.row
            if choice.drift is not None and abs(choice.drift) > AGREE:
                found.append(
                    f"{name} still changes by {abs(choice.drift):.1f} errors from the level before: "
                    "block further, from a larger lattice."
                )
            if abs(row.bias) > row.error / 2:
                found.append(f"{name} has a bias of {row.bias:.2g}, from too few draws.")
            if self.matching and getattr(self.matching, name):
                other, error = self.matching.best(name)
                apart = abs(other - row.exponent) / np.hypot(error, row.error)
                if apart > AGREE:
                    found.append(
                        f"{name} is {value_with_error(other, error)} by matching two lattices, {apart:.1f} errors away."
                    )
        if self.matching and self.matching.distance:
            distance, error = self.matching.best("distance")
            if abs(distance) > AGREE * error:
                found.append(f"The model is not critical: w - w_c = {value_with_error(distance, error)}.")
        return tuple(dict.fromkeys(found))

    @property
    def reliable(self) -> bool:
        return not self.warnings

    def table(self, sector: str = "even", cut: float | None = None) -> list[ExponentRow]:
        """The rows of one sector, with one cut or all of them."""
        return [row for row in self.rows if row.sector == sector and (cut is None or row.cut == cut)]

    def plot(self) -> Figure:
        """Exponents by the number of operators kept, a line for each level; the recommended row has a ring."""
        sectors = list(dict.fromkeys(row.sector for row in self.rows))
        figure, axes = panels(len(sectors), width=4.6, height=3.4, columns=2)
        for place, sector in zip(axes, sectors, strict=True):
            name, own = EXPONENT[sector], [row for row in self.table(sector) if row.rank == len(row.names)]
            for k, step in enumerate(dict.fromkeys(row.step for row in own)):
                level = [row for row in own if row.step == step]
                x = np.array([len(row.names) for row in level]) + 0.08 * k
                place.errorbar(
                    x, [row.exponent for row in level], [row.error for row in level], fmt=MARKERS[k % len(MARKERS)] + "-",
                    ms=4, lw=1, capsize=2, color=OKABE_ITO[k % len(OKABE_ITO)],
                    label=f"{level[0].sides[0]} → {level[0].sides[1]}",
                )  # fmt: skip
                if name in self.best and (row := self.best[name].row) in level:
                    place.plot(x[level.index(row)], row.exponent, "o", ms=11, mfc="none", color=GRAY)
            if name in self.inputs:
                place.set_title("an input of the rule, not measured", fontsize=9)
            place.xaxis.get_major_locator().set_params(integer=True)
            place.set(xlabel="operators kept", ylabel=f"${name[0]}_{name[2]}$")
            place.legend(frameon=False, fontsize=8)
        return figure

    def __str__(self) -> str:
        chains, draws = self.blocked[0].shape[:2]
        sides = " → ".join(str(lattice.field_shape[0]) for lattice in self.blocked.lattices)
        lines = [f"Monte Carlo renormalization of {chains * draws} fields, {sides}"]
        for name, choice in self.best.items():
            row = choice.row
            lines.append(f"  {name} = {value_with_error(row.exponent, row.error)}   ({choice.reason})")
        for sector in dict.fromkeys(row.sector for row in self.rows):
            for step in dict.fromkeys(row.step for row in self.table(sector)):
                own = [row for row in self.table(sector) if row.step == step and row.rank == len(row.names)]
                values = "  ".join(value_with_error(row.exponent, row.error) for row in own)
                one, two = own[0].sides
                lines.append(f"  {EXPONENT[sector]} {one}→{two} with 1 to {len(own)} operators: {values}")
        if self.matching:
            lines.append(f"  {self.matching}")
        lines += [f"  INPUT {name} = {value:.6g}: {text}" for name, (value, text) in self.inputs.items()]
        told = {text for _, text in self.inputs.values()}
        return "\n".join([*lines, *(f"  NOT RELIABLE: {text}" for text in self.warnings if text not in told)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [(n, value_with_error(c.row.exponent, c.row.error), c.reason) for n, c in self.best.items()]
        rows += [(name, f"{value:.6g}", "input") for name, (value, _) in self.inputs.items()]
        return card("Monte Carlo renormalization", ("exponent", "value", ""), rows, warnings=self.warnings)
