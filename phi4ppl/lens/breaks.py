"""Kinks and jumps of a noisy curve: two smooth pieces against one, in windows of every size, at a calibrated false-alarm rate.

In a window around a point the curve is fitted twice: by one polynomial, and by two pieces that meet there with another slope
(a kink) or do not meet (a jump). The score of a window is m log(s₁²/s₂²)
with m points and s² the variances of the residuals, of the best polynomial of degrees up to 8 and of two pieces that are
parabolas (lines at a jump). A smooth curve favors the one polynomial as soon as the window
shows its curvature, so that noise around a parabola is the hardest smooth curve. The largest score over all windows of such
curves, with the noise's own correlation, is the null distribution.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.polynomial import legendre
from scipy.stats import f as f_distribution

from ..errors.streams import stream_rng

__all__ = ["SMALLEST", "Break", "breaks_of", "noise_level", "noise_of"]

HALF = 8  # points on either side of the smallest window
GROWTH = 1.5
MAX_DEGREE = 8  # of the one polynomial; the best of all degrees from 4 is taken
PRICE = 1.0  # of a coefficient, in units of the score
CAUTION = 2.5  # smooth curves that bend within ten points score higher than noise around a parabola
SMALLEST = 2 * HALF + 1  # points of a curve
ADEQUATE, DECISIVE = 2.5, 100.0  # correlation of residuals in standard errors, and ratio of sums of squares
CLEAR = 4.0  # standard errors of its change, for a jump that is none by the choice of its place
CHUNK = 128  # null curves at a time
CORRELATIONS = np.arange(0.0, 0.95, 0.1)
UNSURE = 0.2  # of a correlation, which is taken to be larger by so much
FLAT = 1e-13  # residuals in units of the range of the curve, which are rounding


class Break(NamedTuple):
    """A kink (``kind`` "kink" or "jump") of one curve: where, with an interval of confidence, and how large.

    ``change`` is that of the slope at a kink, that of the value at a jump; ``p`` is the probability that a smooth curve with
    this noise has a break of this score anywhere.
    """

    kind: str
    value: float
    interval: tuple[float, float]
    change: float
    change_error: float
    p: float


def _sizes(number: int) -> list[int]:
    """Points on either side of windows."""
    sizes = [HALF]
    while int(sizes[-1] * GROWTH) <= (number - 1) // 2:
        sizes.append(int(sizes[-1] * GROWTH))
    return sizes


def _rows(kind: str, number: int, half: int) -> np.ndarray:
    """Indices of the points of each window, shape (window, m)."""
    step = max(1, half // 5)
    first, length = (half, 2 * half + 1) if kind == "kink" else (half - 1, 2 * half)
    centers = np.arange(first, number - half, step)
    return centers[:, None] - first + np.arange(length)


def _bases(kind: str, x: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What both fits have in common, the rest of the one, and the rest of the other, shape (window, m, columns)."""
    u = x - at[:, None]
    u = u / np.abs(u).max(axis=1, keepdims=True)
    right = (u > 0).astype(float)
    if kind == "kink":
        return _powers(u, 0, 3), _powers(u, 3, _degree(x.shape[1]) + 1), _columns(right * u, right * u**2)
    return _powers(u, 0, 2), _powers(u, 2, _degree(x.shape[1]) + 1), _columns(right, right * u)


def _degree(points: int) -> int:
    """Of the polynomials that a window of so many points is fitted with."""
    return min(MAX_DEGREE, points // 2)


def _powers(u: np.ndarray, first: int, last: int) -> np.ndarray:
    """Legendre polynomials, of which those below each degree span the powers."""
    return legendre.legvander(u, last - 1)[..., first:]


def _columns(*parts) -> np.ndarray:
    return np.stack(parts, axis=-1)


def _orthonormal(common: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """An orthonormal basis of what ``extra`` adds to an orthonormal ``common``."""
    for _ in range(2):
        extra = extra - common @ (np.swapaxes(common, 1, 2) @ extra)
    return np.linalg.qr(extra)[0]


class Windows(NamedTuple):
    """Windows of one size and one kind: indices of their points, and orthonormal bases."""

    kind: str
    half: int
    rows: np.ndarray
    common: np.ndarray
    one: np.ndarray
    two: np.ndarray
    at: np.ndarray

    @property
    def left(self) -> int:
        """Degrees of freedom that are left."""
        return self.rows.shape[1] - self.common.shape[2] - 2


@functools.lru_cache(maxsize=8)
def _windows(axis: tuple[float, ...]) -> tuple[Windows, ...]:
    x, found = np.array(axis), []
    for kind in ("kink", "jump"):
        for half in _sizes(len(x)):
            rows = _rows(kind, len(x), half)
            at = x[rows[:, half]] if kind == "kink" else (x[rows[:, half - 1]] + x[rows[:, half]]) / 2
            common, one, two = _bases(kind, x[rows], at)
            common = np.linalg.qr(common)[0]
            found.append(Windows(kind, half, rows, common, _orthonormal(common, one), _orthonormal(common, two), at))
    return tuple(found)


def _scores(windows: Windows, curves: np.ndarray) -> np.ndarray:
    """Scores, shape (window, curve), of curves of shape (curve, point); zero where two pieces do not fit either."""
    y = np.swapaxes(curves[:, windows.rows], 0, 1)  # (window, curve, m)
    y = y - (y @ windows.common) @ np.swapaxes(windows.common, 1, 2)
    weights = y @ windows.one
    rest = y - weights @ np.swapaxes(windows.one, 1, 2)
    pieces = y - (y @ windows.two) @ np.swapaxes(windows.two, 1, 2)
    rounding = (FLAT * (np.abs(curves).max(axis=1) + 1e-100))[None] ** 2 * windows.rows.shape[1]
    least = np.concatenate([weights**2, (rest**2).sum(axis=-1)[..., None]], axis=-1)
    least = np.cumsum(least[..., ::-1], axis=-1)[..., ::-1][..., 1:]  # RSS of polynomials with 1, 2, … of these columns
    points, known = windows.rows.shape[1], windows.common.shape[2]
    freedom = points - known - np.arange(1, least.shape[-1] + 1)
    price = np.exp(PRICE / points * np.arange(least.shape[-1] - 1))
    one = ((np.maximum(least, rounding[..., None]) / freedom)[..., 1:] * price).min(axis=-1)
    two = np.maximum((pieces**2).sum(axis=-1), rounding) / windows.left
    score = points * np.log(one / two)
    return np.where(_fits(pieces, two * windows.left, one * windows.left), score, 0.0)


def _fits(residuals: np.ndarray, squares: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether residuals of two pieces look like noise: no correlation of neighbors; or the other fit is far worse."""
    correlation = (residuals[..., 1:] * residuals[..., :-1]).sum(axis=-1) / np.maximum(squares, 1e-300)
    return (correlation < ADEQUATE / np.sqrt(residuals.shape[-1])) | (others > DECISIVE * squares)


def _noise(rng, correlation: float, shape: tuple[int, int]) -> np.ndarray:
    """Stationary noise of variance one whose neighbors have this correlation (autoregressive of order one)."""
    found = rng.standard_normal(shape)
    for k in range(1, shape[1] if correlation else 0):
        found[:, k] = correlation * found[:, k - 1] + np.sqrt(1 - correlation**2) * found[:, k]
    return found


def _neighbors(axis: tuple[float, ...], curves: np.ndarray) -> np.ndarray:
    """Correlation of neighboring residuals of one polynomial in the smallest windows, all of a curve together."""
    windows = _windows(axis)[0]
    y = np.swapaxes(curves[:, windows.rows], 0, 1)
    for basis in (windows.common, windows.one):
        y = y - (y @ basis) @ np.swapaxes(basis, 1, 2)
    scale = (y**2).sum(axis=-1)
    return np.median((y[..., 1:] * y[..., :-1]).sum(axis=-1) / np.maximum(scale, 1e-300), axis=0)


@functools.lru_cache(maxsize=8)
def _table(axis: tuple[float, ...]) -> np.ndarray:
    """What `_neighbors` finds on average, by the correlation of the noise."""
    rng = stream_rng(0, "lens", "noise")
    return np.array([_neighbors(axis, _noise(rng, rho, (60, len(axis)))).mean() for rho in CORRELATIONS])


def noise_level(axis: np.ndarray, curve: np.ndarray) -> float:
    """Standard deviation of the noise: of residuals of one polynomial in the smallest windows, the median of them."""
    windows = _windows(tuple(axis))[0]
    y = curve[windows.rows][:, None]
    for basis in (windows.common, windows.one):
        y = y - (y @ basis) @ np.swapaxes(basis, 1, 2)
    left = windows.rows.shape[1] - windows.common.shape[2] - windows.one.shape[2]
    return float(np.sqrt(np.median((y**2).sum(axis=(1, 2))) / (left - 2 / 3)))


def noise_of(axis: np.ndarray, curve: np.ndarray) -> float:
    """The correlation of neighboring noise, from 0 to 0.9."""
    key = tuple(axis)
    return float(np.interp(_neighbors(key, curve[None])[0], _table(key), CORRELATIONS))


@functools.lru_cache(maxsize=16)
def _null(axis: tuple[float, ...], correlation: float, number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest scores of noise curves for kinks and for jumps, in descending order of neither: shape (curve,)."""
    rng = stream_rng(seed, "lens", "kinks")
    largest: dict[str, list] = {"kink": [], "jump": []}
    for start in range(0, number, CHUNK):
        curves = _noise(rng, correlation, (min(CHUNK, number - start), len(axis)))
        scores: dict[str, list] = {"kink": [], "jump": []}
        for windows in _windows(axis):
            scores[windows.kind].append(_scores(windows, curves).max(axis=0))
        for kind, found in scores.items():
            largest[kind].append(np.max(found, axis=0))
    return np.concatenate(largest["kink"]), np.concatenate(largest["jump"])


def breaks_of(
    axis: np.ndarray, curve: np.ndarray, false_alarm: float, most: int, num_null: int, seed: int
) -> tuple[list[Break], float]:
    """Breaks of one curve, the surest first, and the correlation of its noise.

    The next one is looked for in windows without those that are found.
    """
    key, measured = tuple(axis), noise_of(axis, curve)
    rho = 0.0 if measured < UNSURE / 2 else min(np.ceil(10 * (measured + UNSURE)) / 10, CORRELATIONS[-1])
    null = dict(zip(("kink", "jump"), _null(key, rho, num_null, seed), strict=True))
    typical = {kind: np.quantile(values, 0.95) for kind, values in null.items()}
    together = np.maximum(*(values / typical[kind] for kind, values in null.items()))
    table = []
    for windows in _windows(key):
        for k, score in enumerate(_scores(windows, curve[None])[:, 0] / typical[windows.kind]):
            table.append((score, windows, k))
    found: list[Break] = []
    points: list[tuple[int, int]] = []
    for score, windows, k in sorted(table, key=lambda row: -row[0]):
        p = min(1.0, CAUTION * (1 + np.count_nonzero(together >= score)) / (num_null + 1))
        if p > false_alarm or len(found) == most:
            break
        rows = windows.rows[k]
        if any(low <= rows[-1] and high >= rows[0] for low, high in points):
            continue
        made, place = _located(windows, k, axis, curve, p)
        points.append(place)
        found.append(made)
    return found, measured


def _located(windows: Windows, k: int, axis, curve, p: float) -> tuple[Break, tuple[int, int]]:
    """A break with its interval, and the points around it. Two lines that meet are a kink, even if they score as a jump."""
    rows = windows.rows[k]
    found = _placed(windows.kind, windows.left, axis[rows], curve[rows], p)
    if windows.kind == "jump" and abs(found.change) < CLEAR * found.change_error:
        found = _placed("kink", windows.left - 1, axis[rows], curve[rows], p)
    low, high = found.interval
    return found, (int(np.searchsorted(axis, low)) - 1, int(np.searchsorted(axis, high)))


def _placed(kind: str, left: int, x, y, p: float) -> Break:
    """The break in a window: its interval is all places at which two pieces fit nearly as well."""
    inside = slice(3, len(x) - 3)
    at = np.linspace(x[inside][0], x[inside][-1], 400) if kind == "kink" else (x[inside][1:] + x[inside][:-1]) / 2
    squares = np.maximum(_squares(kind, x, y, at), 1e-300)
    best, left = int(np.argmin(squares)), left - 1
    near = squares <= squares[best] * (1 + f_distribution.ppf(0.95, 1, left) / left) + 1e-300
    low, high = at[near].min(), at[near].max()
    pad = (at[1] - at[0]) / 2 if kind == "kink" else 0.0
    if kind == "jump":  # between two points, wherever they are
        low, high = x[x < low].max(), x[x > high].min()
    change, error = _fit(kind, x, y, at[best], squares[best])
    return Break(kind, float(at[best]), (float(low - pad), float(high + pad)), change, error, float(p))


def _design(kind: str, x, at: np.ndarray) -> np.ndarray:
    common, _, two = _bases(kind, np.broadcast_to(x, (len(at), len(x))), at)
    return np.concatenate([common, two], axis=-1)


def _squares(kind: str, x, y, at: np.ndarray) -> np.ndarray:
    """Sums of squares of two pieces that part at each of these places."""
    basis = np.linalg.qr(_design(kind, x, at))[0]
    rest = y - (basis @ (np.swapaxes(basis, 1, 2) @ y)[..., None])[..., 0]
    return (rest**2).sum(axis=1)


def _fit(kind: str, x, y, at: float, squares: float) -> tuple[float, float]:
    """The change of slope or value at a place, and its error."""
    design = _design(kind, x, np.array([at]))[0]
    inverse = np.linalg.pinv(design)
    which = design.shape[1] - 2
    unit = np.abs(x - at).max() if kind == "kink" else 1.0
    error = np.sqrt(squares / max(len(x) - design.shape[1] - 1, 1) * (inverse[which] ** 2).sum())
    return float((inverse @ y)[which] / unit), float(error / unit)
