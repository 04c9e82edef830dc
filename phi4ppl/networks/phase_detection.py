"""Where the transition is: from curves of several sizes, from the peak of one, or from singular values along a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.polynomial import polynomial

from ..analysis.crossings import Crossings, find_crossings
from ..analysis.scaling_scan import ScalingFits, scan_fits
from ..analysis.scaling_table import from_table
from ..errors import ArgumentError
from ..errors.arguments import call_checked
from ..reports.numbers import value_with_error

__all__ = ["CascadeStep", "Transition", "cascade_of", "from_peak", "from_sizes"]

NEAR = 3  # points on either side of a maximum that its polynomial goes through
MIN_P = 1e-3
LATTICE_OMEGA, MACHINE_OMEGA = (
    (1.3, 0.5),
    (0.5, 0.2),
)  # of corrections N^{-ω}; mean field has ω = ½ in the number of units


@call_checked
@dataclass(frozen=True, repr=False)
class Transition:
    """Where a transition is.

    Attributes
    ----------
    value, error : float
        On the axis; nan where none was found.
    interval : tuple of floats
        Two standard errors on either side; along a training the two records between which it is.
    how : str
        What it was found from.
    pseudo_critical : bool
        Whether it belongs to one finite size, at which the transition is rounded and displaced.
    warnings : tuple of str
    """

    value: float
    error: float
    interval: tuple[float, float]
    how: str
    pseudo_critical: bool
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        kind = "pseudo-critical point" if self.pseudo_critical else "critical point"
        if not np.isfinite(self.value):
            return f"no transition found ({self.how})"
        low, high = self.interval
        number = value_with_error(self.value, self.error) if np.isfinite(self.error) else f"{self.value:.6g}"
        return f"{kind} {number}, from {low:.6g} to {high:.6g} ({self.how})"

    __repr__ = __str__


@call_checked
class CascadeStep(NamedTuple):
    """A mode that condenses in a training: its number from 1, the records between which σ passes 1, and where in between."""

    mode: int
    interval: tuple[float, float]
    value: float


def _two_errors(value: float, error: float) -> tuple[float, float]:
    return value - 2 * error, value + 2 * error


def from_sizes(
    name: str, sizes: np.ndarray, axis: np.ndarray, cumulant: np.ndarray, error: np.ndarray, omega
) -> tuple[Transition, Crossings, ScalingFits | None]:
    """The critical point from U₄ of several sizes, arrays of shape (size, point).

    Two sizes: where the curves cross. Three or more: fits of finite-size scaling with corrections N^{-ω}, averaged, which
    extrapolate the crossings to infinite size.
    """
    rows = {"L": np.repeat(sizes.astype(float), axis.shape[1]), name: axis.ravel(), "U4": cumulant.ravel()}
    table = from_table(rows | {"U4_error": np.maximum(error.ravel(), 1e-9)}, coupling=name)
    most = axis.shape[1] - 1
    crossings = find_crossings(table, "U4", degree=min(4, most))
    if len(sizes) > 2:
        degrees = tuple(degree for degree in (3, 4, 5) if degree < most) or (most - 1,)
        fits = scan_fits(
            table, degrees=degrees, corrections=(1, 2), omega=omega, smallest=sizes[: max(1, len(sizes) - 2)]
        )
        value, spread = fits.average()[f"{name}_c"]
        how = f"finite-size scaling of U4 at {len(sizes)} sizes"
        return Transition(value, spread, _two_errors(value, spread), how, False, fits.best.warnings), crossings, fits
    if not len(crossings.position):
        return Transition(np.nan, np.nan, (np.nan, np.nan), "crossing of U4", True, crossings.warnings), crossings, None
    value, spread = float(crossings.position[-1]), float(crossings.position_error[-1])
    how = f"crossing of U4 at sizes {sizes[0]:g} and {sizes[1]:g}, without extrapolation"
    return Transition(value, spread, _two_errors(value, spread), how, True, crossings.warnings), crossings, None


def from_peak(axis: np.ndarray, susceptibility: np.ndarray, without_each: np.ndarray, size: int) -> Transition:
    """The maximum of the susceptibility of one size, with a jackknife over chains; a pseudo-critical point.

    ``without_each`` has the shape (chain, point). The error joins that of the jackknife and the change when the polynomial goes
    through fewer points.
    """
    how = f"maximum of the susceptibility of the first mode at size {size}"
    top = int(np.argmax(susceptibility))
    if top in (0, len(axis) - 1):
        text = f"The susceptibility is largest at the end of the range, {axis[top]:.6g}. Scan a wider one."
        return Transition(np.nan, np.nan, (np.nan, np.nan), how, True, (text,))
    value, narrow = (_peak(axis, susceptibility, top, near) for near in (NEAR, NEAR - 1))
    replicas = np.array([_peak(axis, each, top, NEAR) for each in without_each])
    number = len(replicas)
    squared = (number - 1) / number * np.sum((replicas - replicas.mean()) ** 2)
    spread = float(np.sqrt(squared + (value - narrow) ** 2))
    return Transition(value, spread, _two_errors(value, spread), how, True)


def _peak(axis, values, top: int, near: int) -> float:
    """Maximum of a cubic (a parabola through fewer than five points) of log χ around a point, kept between its neighbors."""
    rows = slice(max(0, top - near), top + near + 1)
    x, low, high = axis[rows] - axis[top], axis[top - 1] - axis[top], axis[top + 1] - axis[top]
    degree = 3 if len(x) > 4 else 2
    curve = polynomial.polyfit(x / high, np.log(np.maximum(values[rows], 1e-300)), degree)
    grid = np.linspace(low, high, 2001)
    return float(axis[top] + grid[np.argmax(polynomial.polyval(grid / high, curve))])


def cascade_of(axis: np.ndarray, strengths: np.ndarray) -> tuple[CascadeStep, ...]:
    """The first record at which each σ_α, shape (record, mode), is above 1 after being below."""
    found = []
    for mode, sigma in enumerate(strengths.T):
        rises = np.flatnonzero((sigma[:-1] < 1) & (sigma[1:] >= 1))
        if len(rises):
            k = int(rises[0])
            share = (1 - sigma[k]) / (sigma[k + 1] - sigma[k])
            step = float(axis[k] + share * (axis[k + 1] - axis[k]))
            found.append(CascadeStep(mode + 1, (float(axis[k]), float(axis[k + 1])), step))
    return tuple(sorted(found, key=lambda step: step.value))


def first_of(cascade: tuple[CascadeStep, ...]) -> Transition:
    """The first step of the cascade as a transition: mean field between two records of a training."""
    how = "first singular value of D_v^1/2 W D_h^1/2 that crosses 1, mean field"
    if not cascade:
        return Transition(np.nan, np.nan, (np.nan, np.nan), how, True)
    step = cascade[0]
    return Transition(step.value, np.nan, step.interval, how, True)


def require_axis(name: str, values: np.ndarray) -> None:
    """Reject an axis of fewer than three points, or one that does not ascend."""
    if values.ndim != 1 or len(values) < 3 or np.any(np.diff(values) <= 0):
        fix = f"For example {{{name!r}: np.linspace(0.5, 1.5, 9)}}."
        raise ArgumentError("axis", "at least three values in ascending order", repr(values)[:80], fix, reason="order")
