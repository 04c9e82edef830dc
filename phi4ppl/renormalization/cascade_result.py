"""What `cascade` returns: the levels with their checks, exponents with errors, and a verdict."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..analysis.least_squares import LeastSquares, correlated_fit
from ..errors import ArgumentError
from ..errors.arguments import call_checked, positive_int
from ..reports.card import card
from ..reports.numbers import value_with_error
from ..results.correction import Corrected
from .blocking import alignment
from .blocks_of_sites import BlocksOfSites
from .lifts import scale_of

__all__ = ["Back", "Cascade", "Level", "blocked_back"]

SHOWN = {
    "energy_density": "S/V", "phi_squared": "⟨φ²⟩", "susceptibility": "χ", "binder_cumulant": "U₄",
    "correlation_length_ratio": "ξ/L",
}  # fmt: skip
IN_WORDS = {
    "schwinger_dyson": "⟨φ ∂S/∂φ⟩", "schwinger_dyson_cubed": "⟨φ³ ∂S/∂φ − 3φ²⟩",
    "schwinger_dyson_neighbors": "⟨Σ_j φ_j ∂S/∂φ⟩",
}  # fmt: skip
ERRORS = 4.0  # standard errors: 6e-5 false alarms a check
FALSE_ALARM = 6e-5
ETA_TOLERANCE = 0.1  # corrections to scaling on the smallest lattices move η by half of this
SUBLATTICES = 0.1  # relative differences of ⟨φ²⟩ between the corners of blocks that a lift may have
SIZE_TOLERANCE = 0.1  # of the slope of blocked-back fields against coarse ones


@dataclass(frozen=True)
class Back:
    """A proposal, blocked again, beside the coarse field that it was made of.

    Attributes
    ----------
    shift : tuple of int
        By how many fine sites the blocks are shifted; zeros if they are in place.
    slope : float
        Of s times the mean of the proposal against the mean of its coarse field: whether long waves keep their size.
    correlation : float
        Of s φ̄ with φ', over all blocks; noise of the blocking lowers it.
    corners : tuple of float
        ⟨φ²⟩ of every corner of the blocks over that of all sites.
    """

    shift: tuple[int, ...]
    slope: float
    correlation: float
    corners: tuple[float, ...]


def blocked_back(fine: np.ndarray, coarse: np.ndarray, blocks: BlocksOfSites, eta: float) -> Back:
    """Compare block means of a proposal with the coarse field."""
    few = max(8, (1 << 20) // blocks.fine.num_sites)
    fine, coarse = np.asarray(fine[:few], float), np.asarray(coarse[:few], float)
    means = scale_of(eta, coarse.ndim - 1) * blocks.mean(fine)
    axes = tuple(range(1, coarse.ndim))
    slope = float(means.mean(axis=axes) @ coarse.mean(axis=axes) / np.sum(coarse.mean(axis=axes) ** 2))
    correlation = float(np.corrcoef(means.ravel(), coarse.ravel())[0, 1])
    return Back(alignment(fine, coarse, blocks), slope, correlation, corners_of(fine))


def corners_of(fields: np.ndarray) -> tuple[float, ...]:
    """⟨φ²⟩ of every corner of the blocks over that of all sites."""
    corners = itertools.product((0, 1), repeat=fields.ndim - 1)
    squares = [np.mean(fields[(slice(None), *(slice(k, None, 2) for k in corner))] ** 2) for corner in corners]
    return tuple(float(x / np.mean(squares)) for x in squares)


@dataclass(frozen=True, eq=False)
class Level:
    """Fields of one size; see `InverseRenormalization`.

    Attributes
    ----------
    side : int
    corrected : Corrected
        ``before`` and ``after`` the correction, ``sweeps``, ``history``.
    back : Back or None
        None at the start.
    lift : str
    eta : float
    seconds : float
        Of processors, lift and correction of all fields, compilation included.
    """

    side: int
    shape: tuple[int, ...]
    corrected: Corrected
    back: Back | None
    lift: str
    eta: float
    seconds: float

    @property
    def fields(self) -> np.ndarray:
        """Shape ``(n, *shape)``."""
        if not self.corrected.fields.size:
            fix = "Call cascade with keep_fields=True."
            raise ArgumentError("level", "a level whose fields were kept", f"{self.side}", fix, reason="fields")
        return self.corrected.fields

    def without_fields(self) -> Level:
        empty = np.zeros((0, *self.shape), np.float32)
        return dataclasses.replace(self, corrected=dataclasses.replace(self.corrected, fields=empty))

    @cached_property
    def number(self) -> int:
        return len(self.corrected.after.influence["susceptibility"])

    @property
    def doubts(self) -> list[str]:
        """What is wrong with this level by itself."""
        after, back, found, name = self.corrected.after, self.back, [], f"{self.side}"
        if (p := after.p_value()) < FALSE_ALARM:
            parts = (f"{words} = {value_with_error(*after.pair(of))}" for of, words in IN_WORDS.items())
            found.append(
                f"{name}: {', '.join(parts)}, where they should be 1, 0 and 0 (p = {p:.1g}): the fields are not those of this "
                "action. Either they were swept with other couplings, or not enough."
            )
        if not self.corrected.converged:
            found.append(f"{name}: observables still moved in the second half of {self.corrected.sweeps} sweeps.")
        if back is None:
            return found
        if any(back.shift):
            found.append(
                f"{name}: the blocks of the lift are shifted by {back.shift} sites against those of the coarse field."
            )
        elif abs(back.slope - 1) > SIZE_TOLERANCE:
            found.append(f"{name}: blocked back, the proposal is {back.slope:.3f} times the coarse field.")
        if max(abs(x - 1) for x in back.corners) > SUBLATTICES:
            worst = " ".join(f"{x:.2f}" for x in back.corners)
            found.append(
                f"{name}: the lift treats the corners of a block differently, ⟨φ²⟩ by corner: {worst} of the mean."
            )
        return found


@call_checked
@dataclass(frozen=True, eq=False, repr=False)
class Cascade:
    """Fields at every level; see `cascade`.

    Attributes
    ----------
    levels : tuple of Level
        ``levels[0]`` is the start. ``level.corrected.before.pair("susceptibility")`` is a value with its error.
    """

    levels: tuple[Level, ...]

    @property
    def fields(self) -> np.ndarray:
        """Of the last level, ``(n, *shape)``: independent configurations."""
        return self.levels[-1].fields

    def eta_between(self, level: int) -> tuple[float, float]:
        """η from χ of a level and the one before, χ ∝ L^{2−η}, with its error; their fields are one another's descendants."""
        one, two = (self.levels[k].corrected.after for k in (level - 1, level))
        moves = two.influence["susceptibility"] / two.values["susceptibility"]
        moves = moves - one.influence["susceptibility"] / one.values["susceptibility"]
        ratio = two.values["susceptibility"] / one.values["susceptibility"]
        return 2 - math.log2(ratio), float(np.std(moves, ddof=1) / math.sqrt(len(moves)) / math.log(2))

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to distrust the fields."""
        found = []
        for k, level in enumerate(self.levels):
            found += level.doubts
            if k:
                eta, error = self.eta_between(k)
                if abs(eta - level.eta) > ETA_TOLERANCE + ERRORS * error:
                    found.append(
                        f"{level.side}: χ grows as if eta were {value_with_error(eta, error)}, and the lift took "
                        f"{level.eta:g}. Either that is wrong, or the model is not critical."
                    )
        return tuple(found)

    @property
    def passed(self) -> bool:
        return not self.warnings

    @property
    def verdict(self) -> str:
        """One line."""
        if self.passed:
            return "passed: nothing moves, Schwinger–Dyson equations hold, blocks are in place, and χ grows as assumed"
        return f"NOT RELIABLE: {len(self.warnings)} reasons"

    def exponents(self, smallest: int | None = None) -> dict[str, tuple[float, float]]:
        """γ/ν from χ ∝ L^{γ/ν} and β/ν from ``⟨|m|⟩`` ∝ L^{−β/ν}, with errors that know which fields descend from which.

        Parameters
        ----------
        smallest : int, optional
            Side of the smallest lattice of the fit; by default twice that of the start, if this leaves two.
        """
        sides = [level.side for level in self.levels]
        smallest = positive_int("smallest", smallest or sides[min(1, len(sides) - 2)])
        levels = [level for level in self.levels if level.side >= smallest]
        if len(levels) < 2:
            raise ArgumentError(
                "smallest", f"at most {sides[-2]}, which leaves two sizes", str(smallest), reason="count"
            )
        pairs = (("gamma/nu", "susceptibility", 1), ("beta/nu", "abs_m", -1))
        found = {}
        for name, of, sign in pairs:
            fit = _power(levels, of)
            found[name] = sign * float(fit.parameters[1]), float(math.sqrt(fit.covariance[1, 1]))
        return found

    def cost(self, smallest: int = 64) -> tuple[float, float]:
        """The power of L that processor time per field follows, with the error of the fit; from ``smallest`` on."""
        levels = [level for level in self.levels[1:] if level.side >= smallest]
        if len(levels) < 3:
            raise ArgumentError("smallest", "a side that leaves three levels", str(smallest), reason="count")
        x = np.log([level.side for level in levels])
        y = np.log([level.seconds / level.number for level in levels])
        line = np.polyfit(x, y, 1)
        rest = y - np.polyval(line, x)
        return float(line[0]), float(math.sqrt(np.sum(rest**2) / (len(x) - 2) / np.sum((x - x.mean()) ** 2)))

    def _rows(self) -> list[tuple[str, ...]]:
        rows = []
        for level in self.levels:
            stages = [("before", level.corrected.before), ("after", level.corrected.after)][level.back is None :]
            for stage, summary in stages:
                last = str(level.corrected.sweeps) if stage == "after" else ""
                cells = (value_with_error(*summary.pair(name)) for name in SHOWN)
                virial = value_with_error(*summary.pair("schwinger_dyson"))
                rows.append((str(level.side), level.lift if level.back is None else stage, *cells, virial, last))
        return rows

    _HEAD = ("L", "", *SHOWN.values(), "⟨φ∂S⟩", "sweeps")

    def __str__(self) -> str:
        first, last = self.levels[0], self.levels[-1]
        rows = [self._HEAD, *self._rows()]
        widths = [max(len(row[k]) for row in rows) for k in range(len(self._HEAD))]
        lines = [f"{last.number} fields from {first.side} to {last.side} by {last.lift}"]
        lines += ["  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        if len(self.levels) > 1:
            found = self.exponents()
            lines.append("  " + ", ".join(f"{name} = {value_with_error(*pair)}" for name, pair in found.items()))
        return "\n".join([*lines, self.verdict, *(f"  {text}" for text in self.warnings)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return card("Cascade", self._HEAD, self._rows(), good=self.passed, outcome=self.verdict, warnings=self.warnings)


def _power(levels: list[Level], name: str) -> LeastSquares:
    """ln A and p of A L^p, from values of all levels with their covariance over fields."""
    x = np.log([level.side for level in levels])
    y = np.log([level.corrected.after.values[name] for level in levels])
    moves = np.stack([level.corrected.after.influence[name] / level.corrected.after.values[name] for level in levels])
    covariance = moves @ moves.T / moves.shape[1] ** 2
    return correlated_fit(lambda p: p[0] + p[1] * x, y, covariance, np.array([y[0], (y[-1] - y[0]) / (x[-1] - x[0])]))
