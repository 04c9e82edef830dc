"""Where a noisy curve passes a level.

A cubic through the points around, with the error of noise, of the level and of the cubic (by the
change when it is a quintic)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.polynomial import polynomial
from scipy.stats import chi2, norm, t

__all__ = ["Ends", "Passage", "ends_of", "passage_of", "passage_of_replicas"]

NEAR = 4  # points on either side of the first look
PROBABILITY = 0.95
ROUGH = 0.02  # residuals in units of the change within a window
SHARE = 20  # the first and the last 1/20 of a curve are its ends


class Ends(NamedTuple):
    """What a curve starts from and ends at, and the errors."""

    start: float
    start_error: float
    end: float
    end_error: float

    @property
    def middle(self) -> tuple[float, float]:
        """Half way, and its error."""
        return (self.start + self.end) / 2, float(np.hypot(self.start_error, self.end_error) / 2)


class Passage(NamedTuple):
    """Where a curve first passes a level; ``rise_time`` is the change between the ends over the slope there.

    ``value`` is nan where it does not.
    """

    level: float
    value: float
    error: float
    interval: tuple[float, float]
    rise_time: float


def ends_of(axis: np.ndarray, curve: np.ndarray, noise: float) -> Ends:
    """The ends, as means over a twentieth of the points; what still moves there is part of the error."""
    number = max(3, len(axis) // SHARE)
    found = []
    for part in (slice(None, number), slice(-number, None)):
        drift = np.polyfit(np.arange(number), curve[part], 1)[0] * number / 2
        drift = max(0.0, abs(drift) - 2 * noise / np.sqrt(number))
        found += [float(curve[part].mean()), float(np.hypot(noise / np.sqrt(number), drift))]
    return Ends(*found)


def passage_of(
    axis: np.ndarray, curve: np.ndarray, level: float, level_error: float, noise: float, correlation: float, ends: Ends
) -> Passage:
    """The first passage of the level."""
    smooth = np.array([_cubic(axis, curve, k, NEAR, 2)[0][0] for k in range(len(axis))]) - level
    changes = np.flatnonzero(smooth[:-1] * smooth[1:] <= 0)
    changes = changes[smooth[changes] != smooth[changes + 1]]
    if not len(changes):
        return Passage(level, np.nan, np.nan, (np.nan, np.nan), np.nan)
    cluster = changes[: 1 + int(np.argmax(np.append(np.diff(changes) > 2 * NEAR, True)))]
    middle = int(cluster[len(cluster) // 2])
    half = _widest(axis, curve, middle, noise)
    value, slope, share = _root(axis, curve, middle, half, 3, level)
    other = _root(axis, curve, middle, half, 5, level)[0]
    spread = noise * share * np.sqrt((1 + correlation) / (1 - correlation))
    error = float(np.hypot(np.hypot(spread, level_error) / abs(slope), value - other))
    reach = max(norm.ppf((1 + PROBABILITY) / 2) * error, (axis[cluster[-1]] - axis[cluster[0]]) / 2)
    if _unresolved(axis, curve, middle, noise):
        reach = max(reach, np.diff(axis)[max(0, middle - 1) : middle + 2].max())
    return Passage(level, value, error, (value - reach, value + reach), abs((ends.end - ends.start) / slope))


def passage_of_replicas(each: list[Passage]) -> Passage:
    """The mean over replicas, with Student's interval; nan if one of them does not pass."""
    values = np.array([one.value for one in each])
    error = float(values.std(ddof=1) / np.sqrt(len(values)))
    reach = t.ppf((1 + PROBABILITY) / 2, len(values) - 1) * error
    value = float(values.mean())
    rise = float(np.mean([one.rise_time for one in each]))
    return Passage(each[0].level, value, error, (value - reach, value + reach), rise)


def _cubic(axis, curve, middle: int, half: int, degree: int):
    """Coefficients, from the constant, of a polynomial around a point, in units of its window; and the design."""
    rows = slice(max(0, middle - half), middle + half + 1)
    x = axis[rows] - axis[middle]
    unit = np.abs(x).max()
    design = polynomial.polyvander(x / unit, min(degree, len(x) - 2))
    inverse = np.linalg.pinv(design)
    return inverse @ curve[rows], inverse, unit, design, curve[rows]


def _widest(axis, curve, middle: int, noise: float) -> int:
    """The most points on either side that a cubic describes within the noise."""
    half = NEAR
    while 2 * half < min(middle, len(axis) - 1 - middle) + NEAR:
        wider = int(half * 1.5)
        coefficients, _, _, design, y = _cubic(axis, curve, middle, wider, 3)
        squares = float(((y - design @ coefficients) ** 2).sum())
        if squares > noise**2 * chi2.ppf(0.9, max(len(y) - 4, 1)):
            break
        half = wider
    return half


def _unresolved(axis, curve, middle: int, noise: float) -> bool:
    """Whether the curve jumps between neighbors there: no polynomial goes through them."""
    coefficients, _, _, design, y = _cubic(axis, curve, middle, NEAR, 5)
    return bool(np.abs(y - design @ coefficients).max() > max(ROUGH * np.ptp(y), 4 * noise))


def _root(axis, curve, middle: int, half: int, degree: int, level: float) -> tuple[float, float, float]:
    """Where a polynomial passes the level nearest to a point, its slope there, and its error in units of the noise."""
    coefficients, inverse, unit, *_ = _cubic(axis, curve, middle, half, degree)
    roots = polynomial.polyroots(coefficients - np.eye(1, len(coefficients))[0] * level)
    real = roots[np.abs(roots.imag) < 1e-9].real
    at = float(real[np.argmin(np.abs(real))]) if len(real) else 0.0
    slope = float(polynomial.polyval(at, polynomial.polyder(coefficients))) / unit
    share = float(np.linalg.norm(polynomial.polyvander(np.array([at]), len(coefficients) - 1)[0] @ inverse))
    return float(axis[middle] + at * unit), slope or np.nan, share
