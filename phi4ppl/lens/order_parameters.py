"""An order parameter of several replicas along an axis: susceptibility, Binder cumulant, and hysteresis, with errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..analysis.blocks import Blocks, jackknife_bias, jackknife_error
from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, positive_int
from ..networks.phase_chains import QUANTITIES
from ..networks.phase_detection import Transition, from_peak
from ..reports.card import card
from ..reports.numbers import value_with_error

__all__ = ["OrderParameter", "order_parameter"]

FEWEST = 8  # replicas, for errors of fourth moments
HEAD = ("", "magnetization", "susceptibility", "binder_cumulant")


@dataclass(frozen=True, repr=False, eq=False)
class OrderParameter:
    """What `order_parameter` finds.

    Attributes
    ----------
    axis : array, shape ``(points,)``
    values, errors : dict of arrays, shape ``(points,)``
        ``magnetization`` ``⟨|m|⟩``, ``susceptibility`` ``N(⟨m²⟩ − ⟨|m|⟩²)``, ``full_susceptibility`` ``N⟨m²⟩`` and
        ``binder_cumulant`` ``1 − ⟨m⁴⟩/3⟨m²⟩²``, means over replicas; errors by a jackknife over replicas.
    transition : Transition
        The maximum of the susceptibility, which is a pseudo-critical point.
    hysteresis, hysteresis_error : float
        Area between the ways down and up the axis; nan for one way.
    replicas : int
    """

    axis: np.ndarray
    values: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    transition: Transition
    hysteresis: float
    hysteresis_error: float
    replicas: int

    def rows(self) -> list[tuple[str, ...]]:
        """Cells of a table, one row a point of the axis."""
        names = HEAD[1:]
        return [
            (f"{x:.4g}", *(value_with_error(self.values[name][k], self.errors[name][k]) for name in names))
            for k, x in enumerate(self.axis)
        ]

    def _outcome(self) -> str:
        text = f"{self.replicas} replicas: {self.transition}"
        if np.isfinite(self.hysteresis):
            text += f"; area of hysteresis {value_with_error(self.hysteresis, self.hysteresis_error)}"
        return text

    def __str__(self) -> str:
        rows = [HEAD, *self.rows()]
        widths = [max(len(row[k]) for row in rows) for k in range(len(HEAD))]
        lines = ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join([self._outcome(), *(line.rstrip() for line in lines)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return card("Order parameter", HEAD, self.rows(), outcome=self._outcome(), warnings=self.transition.warnings)


@call_checked
def order_parameter(values, axis, *, size: int = 1, down=None) -> OrderParameter:
    """Fluctuations of an order parameter over independent replicas: trainings with other seeds, or chains.

    Parameters
    ----------
    values : array, shape ``(replicas, points)``
        m of every replica at every point of the axis, from at least 8 replicas. If replicas are driven along the axis: on
        the way up.
    axis : array, shape ``(points,)``
        Time of training or a control parameter, ascending.
    size : int
        N, the number of units that m is a mean over; a factor of the susceptibility.
    down : array, shape ``(replicas, points)``, optional
        The same on the way down, in the order of ``axis``.

    Returns
    -------
    OrderParameter

    Raises
    ------
    ArgumentError

    Notes
    -----
    U₄ is 2/3 where ``|m|`` is the same in all replicas, and 0 where m is Gaussian around 0. The area of hysteresis is
    ``∫ (|m_down| − |m_up|) dx`` by trapezoids, and its error is over replicas. Replicas of one machine at several values of
    a coupling: `phi4ppl.networks.phases`, which runs the chains too.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> m = np.where(np.arange(20)[:, None] % 2, 1.0, -1.0) * np.array([0.5, 1.0, 2.0])
    >>> found = p4.lens.order_parameter(m, [0.0, 1.0, 2.0])
    >>> found.values["binder_cumulant"].round(6)
    array([0.666667, 0.666667, 0.666667])
    """
    m, x = finite_array("values", values).astype(float), finite_array("axis", axis).astype(float)
    size = positive_int("size", size)
    if m.ndim != 2 or m.shape[1] != len(np.atleast_1d(x)):
        got = f"shape {m.shape} beside an axis of shape {x.shape}"
        raise ArgumentError("values", "shape (replicas, points)", got, reason="shape")
    if len(m) < FEWEST:
        fix = "Train again with other seeds."
        raise ArgumentError("values", f"at least {FEWEST} replicas", str(len(m)), fix, reason="small")
    if x.ndim != 1 or len(x) < 3 or np.any(np.diff(x) <= 0):
        raise ArgumentError("axis", "at least three values in ascending order", repr(axis)[:80], reason="order")
    unit = np.sqrt(np.mean(m**2, axis=0))
    unit[unit == 0] = 1.0
    powers = {"abs_m": np.abs(m / unit), "m2": (m / unit) ** 2, "m4": (m / unit) ** 4}
    number = len(m)
    means = {name: each.mean(axis=0) for name, each in powers.items()}
    without = {name: (each.sum(axis=0) - each) / (number - 1) for name, each in powers.items()}
    blocks = Blocks(np.arange(number), 1.0, 0.5)
    factors = {"magnetization": unit, "susceptibility": size * unit**2, "full_susceptibility": size * unit**2}
    found: dict[str, np.ndarray] = {}
    errors: dict[str, np.ndarray] = {}
    each: dict[str, np.ndarray] = {}
    with np.errstate(invalid="ignore"):
        for name, function in QUANTITIES.items():
            each[name] = factors.get(name, 1.0) * function(without)
            value = factors.get(name, 1.0) * function(means)
            found[name] = np.asarray(value - jackknife_bias(blocks, each[name], value))
            errors[name] = np.asarray(jackknife_error(blocks, each[name]))
    area, area_error = _hysteresis(m, down, x)
    transition = from_peak(x, found["susceptibility"], each["susceptibility"], size)
    return OrderParameter(x, found, errors, transition, area, area_error, number)


def _hysteresis(up: np.ndarray, down, axis: np.ndarray) -> tuple[float, float]:
    if down is None:
        return float("nan"), float("nan")
    other = finite_array("down", down).astype(float)
    if other.shape != up.shape:
        raise ArgumentError("down", f"shape {up.shape}, as values", f"shape {other.shape}", reason="shape")
    areas = np.trapezoid(np.abs(other) - np.abs(up), axis, axis=1)
    return float(areas.mean()), float(areas.std(ddof=1) / np.sqrt(len(areas)))
