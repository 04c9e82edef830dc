"""Transitions in curves: kinks, jumps and passages of training curves and order parameters, with intervals of confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, positive_int, seed_within
from ..networks.phases_result import Phases
from ..networks.training_log import Epoch
from ..reports.card import card
from ..reports.numbers import rounded
from ..reports.style import GRAY, OKABE_ITO, panels
from .breaks import SMALLEST, Break, breaks_of, noise_level, noise_of
from .passages import Passage, ends_of, passage_of, passage_of_replicas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CurveTransitions", "Transitions", "transitions"]

NULL, EVERY, MOST = 799, 4, 8  # noise curves; as many for every four curves, up to eight times
OF_TRAINING = {
    "log_likelihood": "log_likelihood_error"
}  # columns of `Epoch` that are errors, by what they are errors of
CRITICAL = {"strength": 1.0}  # where a mode condenses in mean field
HEAD = ("curve", "what", "where", "95 % interval", "size", "p")


@dataclass(frozen=True, repr=False, eq=False)
class CurveTransitions:
    """What `transitions` finds in one curve.

    Attributes
    ----------
    name : str
    axis, curve : arrays, shape ``(points,)``
        The curve is the mean over replicas if there are several.
    breaks : tuple of Break
        Kinks and jumps, the surest first: ``kind``, ``value`` on the axis, ``interval``, ``change`` (of the slope at a kink,
        of the value at a jump), ``change_error``, and ``p``, an upper bound for the probability that a smooth curve has one
        anywhere.
    passage : Passage
        Where the curve first passes ``level``: ``value``, ``error``, ``interval``; ``rise_time`` is the change between its
        ends over the slope there.
    noise, correlation : float
        Standard deviation of the noise, and its correlation between neighbors.
    replicas : int
    """

    name: str
    axis: np.ndarray
    curve: np.ndarray
    breaks: tuple[Break, ...]
    passage: Passage
    noise: float
    correlation: float
    replicas: int

    @property
    def resolved(self) -> bool:
        """Whether the change at the passage takes at least ten points: a smooth crossover on this axis."""
        return bool(self.passage.rise_time >= 10 * np.median(np.diff(self.axis)))

    def rows(self) -> list[tuple[str, ...]]:
        """Cells of a table, one row a kink, jump or passage."""
        found: list[tuple[str, ...]] = []
        for one in self.breaks:
            size = f"{one.change:.3g} ± {one.change_error:.2g}"
            found.append(
                (self.name, one.kind, _near(one.value, one.interval), _interval(one.interval), size, f"{one.p:.2g}")
            )
        if np.isfinite(self.passage.value):
            what = f"passes {self.passage.level:.4g}"
            size = f"rise time {self.passage.rise_time:.3g}" if self.resolved else "sharp at this resolution"
            found.append(
                (
                    self.name,
                    what,
                    _near(self.passage.value, self.passage.interval),
                    _interval(self.passage.interval),
                    size,
                    "",
                )
            )
        return found


@dataclass(frozen=True, repr=False, eq=False)
class Transitions(Mapping):
    """What `transitions` finds: a mapping from the name of a curve to its `CurveTransitions`; prints as a table."""

    curves: dict[str, CurveTransitions]
    axis: str
    false_alarm: float

    def __getitem__(self, name: str) -> CurveTransitions:
        return self.curves[name]

    def __iter__(self):
        return iter(self.curves)

    def __len__(self) -> int:
        return len(self.curves)

    @property
    def num_breaks(self) -> int:
        """Kinks and jumps in all curves together."""
        return sum(len(each.breaks) for each in self.curves.values())

    def rows(self) -> list[tuple[str, ...]]:
        """Cells of the table, in the order of `HEAD`."""
        return [row for each in self.curves.values() for row in each.rows()]

    def _outcome(self) -> str:
        what = f"{len(self)} smooth curves have one" if len(self) > 1 else "a smooth curve has one"
        number = {0: "no kink or jump", 1: "1 kink or jump"}.get(self.num_breaks, f"{self.num_breaks} kinks or jumps")
        return f"{number} along {self.axis}; {what} with a probability of at most {self.false_alarm:g}"

    def __str__(self) -> str:
        rows = [HEAD, *self.rows()]
        widths = [max(len(row[k]) for row in rows) for k in range(len(HEAD))]
        lines = ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join([self._outcome(), *(line.rstrip() for line in lines if len(rows) > 1)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return card("Transitions", HEAD, self.rows(), outcome=self._outcome())

    def plot(self) -> Figure:
        """Every curve, with kinks and jumps as colored bands and the passage as a gray one."""
        figure, places = panels(len(self), columns=2, width=4.0)
        for axes, each in zip(places, self.curves.values(), strict=True):
            axes.plot(each.axis, each.curve, color=OKABE_ITO[0], lw=1)
            for one in each.breaks:
                axes.axvspan(*one.interval, color=OKABE_ITO[1], alpha=0.35, lw=0)
                axes.axvline(one.value, color=OKABE_ITO[1], lw=0.8)
            if np.isfinite(each.passage.value):
                axes.axvspan(*each.passage.interval, color=GRAY, alpha=0.35, lw=0)
                axes.axvline(each.passage.value, color="k", ls=":", lw=0.8)
            axes.set_title(each.name, fontsize=9)
            axes.set_xlabel(self.axis, fontsize=8)
        return figure


def _near(value: float, interval) -> str:
    return rounded(value, (interval[1] - interval[0]) / 4)


def _interval(interval) -> str:
    low, high = interval
    return f"{rounded(low, (high - low) / 4)} to {rounded(high, (high - low) / 4)}"


@call_checked
def transitions(
    curves,
    axis=None,
    *,
    level: float | Mapping | None = None,
    false_alarm: float = 0.05,
    max_breaks: int = 5,
    seed: int = 0,
) -> Transitions:
    """Kinks, jumps and passages of curves against training time or a control parameter.

    A *kink* is a change of slope, a *jump* one of the value, that no smooth curve explains. Apart from them, a curve that
    rises or falls smoothly has a *passage*: where it is half way between its ends, or at a level that is given.

    Parameters
    ----------
    curves : array, dict, list of Epoch, or Phases
        One curve of shape ``(points,)``, or several replicas of it, ``(replicas, points)``; or a dict of such, by name. The
        log of a training as `phi4ppl.networks.train` returns it: every column that was measured in every epoch. The result of
        `phi4ppl.networks.phases`: strengths of the modes, magnetizations and singular values.
    axis : array, shape ``(points,)``, optional
        Ascending; by default 0, 1, …, or the epochs, or the axis of the phases.
    level : float or dict, optional
        Where passages are looked for; by default half way between the ends, and at 1 for ``strength`` (a mode condenses).
    false_alarm : float
        Largest probability that a kink or jump is found in any of the curves, if all are smooth.
    max_breaks : int
        Kinks and jumps that are looked for in each curve.
    seed : int
        Of the noise curves.

    Returns
    -------
    Transitions

    Raises
    ------
    ArgumentError
        If a curve has fewer than 17 points.

    Notes
    -----
    Smooth means: described by polynomials of degree 8 in every window. A bend within fewer than ten points is a kink on this
    axis: record more often, or say "sharp at this resolution". The rate is that of independent noise. Noise that is
    correlated between neighbors is measured and allowed for; with a correlation of 0.5 the rate was 4 to 8 % where 5 % were
    asked for. See `phi4ppl.lens.breaks` for the statistic.

    Passages: a cubic through as many points as it fits; the interval covers noise, the error of the level, and the change
    of the passage when a quintic takes its place. Over replicas it is Student's interval of their mean, and kinks are those
    of the mean curve.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> t = np.linspace(0, 1, 101)
    >>> noise = 0.01 * np.random.default_rng(0).normal(size=101)
    >>> found = p4.lens.transitions({"kink": np.maximum(t - 0.4, 0) + 0.2 * noise, "smooth": np.tanh(4 * t - 2) + noise}, t)
    >>> [(one.kind, round(one.value, 2)) for one in found["kink"].breaks], found["smooth"].breaks
    ([('kink', 0.4)], ())
    >>> low, high = found["smooth"].passage.interval
    >>> bool(low < 0.5 < high)
    True
    """
    name, axis, given = _curves_of(curves, axis)
    positive_int("max_breaks", max_breaks), seed_within(seed)
    rate = finite_array("false_alarm", false_alarm)
    if rate.ndim or not 0.005 <= rate <= 0.5:
        raise ArgumentError("false_alarm", "a probability from 0.005 to 0.5", repr(false_alarm))
    if isinstance(level, Mapping) and (unknown := set(level) - set(given)):
        raise ArgumentError("level", f"names among {', '.join(given)}", repr(sorted(unknown)), reason="name")
    num_null = NULL * min(MOST, -(-len(given) // EVERY))
    found = {}
    for label, rows in given.items():
        wanted = level.get(label) if isinstance(level, Mapping) else level
        if wanted is None:
            wanted = CRITICAL.get(label.partition(" ")[0])
        elif finite_array("level", wanted).ndim:
            raise ArgumentError("level", "one number, or a dict of one for each curve", repr(level)[:80])
        found[label] = _of_curve(label, axis, rows, wanted, float(rate) / len(given), max_breaks, num_null, seed)
    return Transitions(found, name, float(rate))


def _of_curve(
    label: str, axis, rows, level, false_alarm: float, most: int, num_null: int, seed: int
) -> CurveTransitions:
    mean = rows.mean(axis=0)
    breaks, correlation = breaks_of(axis, mean, false_alarm, most, num_null, seed)
    passages, noise = [], noise_level(axis, mean)
    overall = ends_of(axis, mean, noise)
    for curve in rows:
        own = noise_level(axis, curve)
        ends = ends_of(axis, curve, own)
        at, error = overall.middle if level is None else (float(level), 0.0)
        passages.append(passage_of(axis, curve, at, error, own, noise_of(axis, curve), ends))
    passage = passages[0] if len(rows) == 1 else passage_of_replicas(passages)
    return CurveTransitions(label, axis, mean, tuple(breaks), passage, noise, correlation, len(rows))


def _curves_of(curves, axis) -> tuple[str, np.ndarray, dict[str, np.ndarray]]:
    """The name of the axis, its values, and curves of shape (replicas, points) by name."""
    name, columns = "step" if axis is None else "axis", curves
    if isinstance(curves, Phases):
        name = curves.axis
        axis = curves.data[name].values[-1] if axis is None else axis
        columns = {
            f"{label} {mode}": curves.data[label].sel(mode=mode).values[-1]
            for label in ("strength", "magnetization", "singular_value") if label in curves.data
            for mode in curves.data["mode"].values
        }  # fmt: skip
        columns = {label: values for label, values in columns.items() if np.isfinite(values).all()}
    elif isinstance(curves, Sequence) and len(curves) and all(isinstance(each, Epoch) for each in curves):
        name, table = "epoch", np.array(curves, float).T
        columns = dict(zip(Epoch._fields, table, strict=True))
        axis = columns.pop("number") if axis is None else axis
        constant = [label for label, values in columns.items() if label in OF_TRAINING.values() or _still(values)]
        columns = {label: values for label, values in columns.items() if label not in {*constant, "number"}}
    elif not isinstance(curves, Mapping):
        columns = {"curve": curves}
    if not columns:
        raise ArgumentError("curves", "at least one curve", "none")
    found = {str(label): np.atleast_2d(finite_array(f"curves[{label!r}]", values)).astype(float)
             for label, values in columns.items()}  # fmt: skip
    number = next(iter(found.values())).shape[-1]
    axis = np.arange(number, dtype=float) if axis is None else finite_array("axis", axis).astype(float)
    if axis.ndim != 1 or np.any(np.diff(axis) <= 0):
        raise ArgumentError(
            "axis", "values in ascending order", f"shape {axis.shape}", "Sort the points.", reason="order"
        )
    for label, rows in found.items():
        if rows.ndim != 2 or rows.shape[1] != len(axis):
            expected = f"shape ({len(axis)},) or (replicas, {len(axis)})"
            raise ArgumentError(f"curves[{label!r}]", expected, f"shape {rows.shape}", reason="shape")
    if len(axis) < SMALLEST:
        fix = "Record more often."
        raise ArgumentError("curves", f"at least {SMALLEST} points", str(len(axis)), fix, reason="small")
    return name, axis, found


def _still(values: np.ndarray) -> bool:
    """Whether a column was not measured everywhere, or never changes."""
    return not np.isfinite(values).all() or np.ptp(values) == 0
