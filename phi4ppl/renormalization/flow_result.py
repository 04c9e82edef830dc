"""What `flow` returns: couplings by level, their fixed point, and the tangent of the critical surface."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .._typing import Series
from ..analysis.blocks import Blocks, jackknife_error
from ..analysis.derived import derive
from ..errors import ArgumentError
from ..errors.arguments import call_checked
from ..learning.likelihood import LikelihoodFit, fit_likelihood
from ..model.field import MarkovRandomField
from ..reports.card import card
from ..reports.numbers import value_with_error
from ..reports.style import OKABE_ITO, panels
from .basis import basis_model, sign_of, wraps_of
from .blocking import Blocked
from .operators import Operator, measure_operators, operator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Comparison", "FixedPoint", "Flow"]

GROUPS = 8  # of fields that the jackknife of a fixed point leaves out one after the other
FALSE_ALARM = 0.01  # of the comparison at one level, shared among its operators
CUT = 0.05  # singular values of 1 − T below it are directions in which the flow stands still anyway


class Comparison(NamedTuple):
    """One operator of the blocked fields, and of the fitted model sampled again."""

    data: float
    data_error: float
    model: float
    model_error: float

    @property
    def z(self) -> float:
        return (self.model - self.data) / math.hypot(self.data_error, self.model_error)


class FixedPoint(NamedTuple):
    """Couplings g* with errors, T there with its eigenvalues, the largest first, and the model; see `Flow.fixed_point`.

    ``speed`` is how far the step of blocking that it was found from moved the couplings, relative to their length.
    """

    couplings: dict[str, float]
    errors: dict[str, float]
    matrix: np.ndarray
    eigenvalues: np.ndarray
    model: MarkovRandomField
    speed: float


@call_checked
@dataclass(frozen=True, repr=False)
class Flow:
    """Couplings of a basis at every level of blocking; see `flow`.

    Attributes
    ----------
    blocked : Blocked
    basis : dict
        Name → Operator.
    fits : tuple of LikelihoodFit
        By level.
    comparisons : tuple of dict
        By level: held-out operator → Comparison of the blocked fields with the fitted model sampled again, with ``z``.
    step : int
        One draw in ``step`` was taken for the fits.
    inflation : float
        √(2 τ_int) of these draws: errors are larger by it than those of the fits, which take them for independent.
    """

    blocked: Blocked
    basis: dict[str, Operator]
    fits: tuple[LikelihoodFit, ...]
    comparisons: tuple[dict[str, Comparison], ...]
    step: int
    inflation: float = 1.0

    @property
    def couplings(self) -> dict[str, np.ndarray]:
        """Name → values by level."""
        return {name: np.array([float(fit.model.couplings[name]) for fit in self.fits]) for name in self.basis}

    @property
    def errors(self) -> dict[str, np.ndarray]:
        """Standard errors; nan where a coupling is at its bound 0."""
        found = {name: np.array([float(fit.standard_errors[name]) for fit in self.fits]) for name in self.basis}
        return {name: error * self.inflation for name, error in found.items()}

    @property
    def models(self) -> tuple[MarkovRandomField, ...]:
        return tuple(fit.model for fit in self.fits)

    @property
    def z_scores(self) -> tuple[dict[str, float], ...]:
        """Of every level the held-out operators, (model − data)/error."""
        return tuple({name: each.z for name, each in found.items()} for found in self.comparisons)

    @property
    def truncations(self) -> dict[int, str]:
        """Level → what the fitted model misses, where the terms of the basis are not enough.

        Below level 0 that is a result of blocking, which makes terms of all kinds; at level 0 the fit or its fields are wrong,
        or the model has other terms.
        """
        from scipy.stats import norm

        found = {}
        for level, scores in enumerate(self.z_scores):
            name = max(scores, key=lambda key: abs(scores[key]), default="")
            if scores and abs(scores[name]) > norm.isf(FALSE_ALARM / 2 / len(scores)):
                found[level] = (
                    f"Level {level}: the terms {', '.join(self.basis)} are not enough. The fitted model has {name!r} "
                    f"{abs(scores[name]):.1f} errors away from the blocked fields."
                )
        return found

    @property
    def warnings(self) -> tuple[str, ...]:
        """Levels at which the basis is not enough, fits without a density, and doubts about the blocking."""
        found = list(self.blocked.warnings)
        for level, fit in enumerate(self.fits):
            if not fit.converged:
                found.append(f"Level {level}: {fit.status}")
            found += [text for place, text in self.truncations.items() if place == level]
        return tuple(dict.fromkeys(found))

    @property
    def reliable(self) -> bool:
        return not self.warnings

    @property
    def speed(self) -> np.ndarray:
        """How far each step goes, the length of the change of the couplings over that of the couplings: 0 at a fixed point."""
        table = np.array(list(self.couplings.values())).T
        return np.linalg.norm(np.diff(table, axis=0), axis=1) / np.linalg.norm(table[:-1], axis=1)

    def plot(self) -> Figure:
        """The flow in the planes of two couplings, an arrow a step, with errors; and all couplings by level."""
        names = list(self.basis)
        pairs = list(zip(names[:-1], names[1:], strict=True))[:2]
        figure, axes = panels(len(pairs) + 1, width=3.6, height=3.2)
        values, errors = self.couplings, {name: np.nan_to_num(error) for name, error in self.errors.items()}
        levels = np.arange(len(self.fits))
        for place, (x, y) in zip(axes, pairs, strict=False):
            for k in levels[:-1]:
                ends = {"xy": (values[x][k + 1], values[y][k + 1]), "xytext": (values[x][k], values[y][k])}
                place.annotate("", **ends, arrowprops={"arrowstyle": "->", "color": OKABE_ITO[0], "lw": 1.5})
            place.errorbar(values[x], values[y], errors[y], errors[x], fmt="o", ms=4, color=OKABE_ITO[1], capsize=2)
            for k in levels:
                place.annotate(str(k), (values[x][k], values[y][k]), (5, 5), textcoords="offset points", fontsize=8)
            place.set(xlabel=f"${x}$" if len(x) == 1 else x, ylabel=f"${y}$" if len(y) == 1 else y)
            place.margins(0.15)
        for k, name in enumerate(names):
            style = {"fmt": "os^Dv"[k % 5] + "-", "ms": 4, "lw": 1, "capsize": 2, "color": OKABE_ITO[k % 8]}
            axes[-1].errorbar(levels, values[name], errors[name], label=name, **style)
        axes[-1].set(xlabel="level", ylabel="coupling", xticks=levels)
        axes[-1].legend(frameon=False, fontsize=8)
        return figure

    def fixed_point(self) -> FixedPoint:
        """Where the flow would stand still: a step of Newton's method from the last two levels.

        With g' = g* + T (g − g*) near the fixed point, (1 − T) (g* − g) = g' − g. T = ∂g'/∂g is Swendsen's matrix of the basis
        between the two levels. Singular values of 1 − T below 0.05 are left out: along them, such as a change of the scale of
        the field under a linear rule, all points are fixed. Errors are those of a jackknife over 8 groups of fields.

        Raises
        ------
        ArgumentError
            If one of the two fits has no density.
        """
        last = len(self.fits) - 1
        if not (self.fits[last].converged and self.fits[last - 1].converged):
            fix = "Take another basis or another rule."
            raise ArgumentError("flow", "two last levels with a density", "a fit without one", fix, reason="fit")
        statistics = [self._statistics(level) for level in (last - 1, last)]
        g = [np.array([float(self.fits[k].model.couplings[name]) for name in self.basis]) for k in (last - 1, last)]
        value, matrix = _newton(*g, *statistics)
        keep = np.array_split(np.arange(statistics[0].shape[0] * statistics[0].shape[1]), GROUPS)
        replicas = []
        for out in keep:
            parts = [np.delete(each.reshape(-1, len(self.basis)), out, axis=0) for each in statistics]
            own = [self._fitted(level, out) for level in (last - 1, last)]
            replicas.append(_newton(*own, *parts)[0])
        groups = Blocks(np.array([out[0] for out in keep]), len(keep[0]), 0.5)
        errors = np.asarray(jackknife_error(groups, np.array(replicas)))
        found = np.linalg.eigvals(matrix)
        names, lattice = list(self.basis), self.blocked.lattices[last - 1]
        couplings = dict(zip(names, value.tolist(), strict=True))
        model = basis_model(self.basis, lattice.field_shape, couplings, wraps_of(lattice))
        return FixedPoint(
            couplings,
            dict(zip(names, errors.tolist(), strict=True)),
            matrix,
            found[np.argsort(-np.abs(found))],
            model,
            float(self.speed[-1]),
        )

    @property
    def _wraps(self) -> tuple[bool, ...]:
        return wraps_of(self.blocked.lattices[0])

    def _statistics(self, level: int) -> Series:
        signs = np.array([sign_of(name, each) for name, each in self.basis.items()])
        return measure_operators(self.blocked[level], tuple(self.basis.values()), self._wraps) * signs

    def _fitted(self, level: int, left_out: np.ndarray) -> np.ndarray:
        """Couplings of a fit without some of the fields."""
        fields = self.blocked[level]
        keep = np.zeros(fields.shape[:2], bool)
        keep[:, :: self.step] = True
        keep.reshape(-1)[left_out] = False
        fit = fit_likelihood(self.fits[level].model, fields[keep], self.fits[level].method)
        return np.array([float(fit.model.couplings[name]) for name in self.basis])

    def critical_tangent(self, along: str | None = None) -> dict[str, tuple[float, float]]:
        """Slopes of the critical surface at the couplings of level 0: d``along``/dθ for every other coupling θ, with errors.

        Far down, only the distance from the critical surface is left of a change of couplings. With R = ⟨E⟩/⟨Φ⟩ of the last
        level, E the sum of products of neighbors and Φ that of φ², ∂R/∂θ is proportional to the normal of the surface, which
        gives the slopes −(∂R/∂θ)/(∂R/∂along). R does not change with the scale of the field, so that the direction of such a
        change, each coupling times its degree, is a tangent exactly.

        Parameters
        ----------
        along : str, optional
            By default the first term of the basis.

        Raises
        ------
        ArgumentError
            If the basis has no such term.
        """
        along = next(iter(self.basis)) if along is None else along
        if along not in self.basis:
            raise ArgumentError("along", f"one of {', '.join(self.basis)}", repr(along), reason="name")
        dimension, last = self.blocked[0].ndim - 2, len(self.fits) - 1
        deep = (operator("E", ((0,), (1,)), dimension), operator("Phi", ((0,),) * 2, dimension))
        statistics, found = self._statistics(0), measure_operators(self.blocked[last], deep, self._wraps)
        run = {"E": found[..., 0], "Phi": found[..., 1]}
        for k, name in enumerate(self.basis):
            own = statistics[..., k] - statistics[..., k].mean()
            run |= {f"T {name}": own, f"E {name}": found[..., 0] * own, f"Phi {name}": found[..., 1] * own}

        def slope(m, name):  # ∂R/∂θ times ⟨Φ⟩², as ∂⟨O⟩/∂θ = −Cov(O, T)
            changes = [m[o] * m[f"T {name}"] - m[f"{o} {name}"] for o in ("E", "Phi")]
            return changes[0] * m["Phi"] - changes[1] * m["E"]

        others = [name for name in self.basis if name != along]
        asked = {name: lambda m, name=name: -slope(m, name) / slope(m, along) for name in others}
        result = derive(run, asked)
        return {name: (float(result[name].value), float(result[name].error)) for name in others}

    def _row(self, level: int) -> list[str]:
        return [value_with_error(self.couplings[name][level], self.errors[name][level]) for name in self.basis]

    def __str__(self) -> str:
        chains, draws = self.blocked[0].shape[:2]
        rules = ", ".join(dict.fromkeys(map(repr, self.blocked.rules)))
        lines = [f"flow of {chains * draws} fields by {rules}"]
        cells = [["level", *self.basis, "largest z of held-out operators"]]
        for level, scores in enumerate(self.z_scores):
            row = self._row(level)
            name = max(scores, key=lambda key: abs(scores[key])) if scores else ""
            cells.append([str(level), *row, f"{scores[name]:.1f} ({name})" if scores else "not compared"])
        widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
        lines += ["  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
        if self.step > 1 or self.inflation > 1:
            lines.append(f"  fits of one draw in {self.step}; errors times {self.inflation:.2f}, for autocorrelation")
        return "\n".join([*lines, *(f"  NOT RELIABLE: {text}" for text in self.warnings)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = []
        for level, scores in enumerate(self.z_scores):
            rows.append((level, *self._row(level), f"{max(map(abs, scores.values())):.1f}" if scores else ""))
        return card("Flow of couplings", ("level", *self.basis, "largest |z|"), rows, warnings=self.warnings)


def _newton(fine: np.ndarray, coarse: np.ndarray, before: Series, after: Series) -> tuple[np.ndarray, np.ndarray]:
    """g* and T from couplings and statistics of two levels."""
    number = len(fine)
    draws = np.concatenate([after.reshape(-1, number), before.reshape(-1, number)], axis=1)
    draws = draws - draws.mean(axis=0)
    products = draws[:, :number].T @ draws
    matrix = np.linalg.solve(products[:, :number], products[:, number:])
    return fine + np.linalg.pinv(np.eye(number) - matrix, rcond=CUT) @ (coarse - fine), matrix
