"""Whether the posterior of latent fields has modes beside the one that Newton's method found.

A log-concave posterior has none, and its slope along any line rises. Lines through the mode, far beyond what draws reach, show
cheaply where it does not; from there, and from points a few standard deviations away, the potential is descended. What
counts is whether a descent ends elsewhere, at a mode with a share of the probability that is not negligible.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import scipy.optimize

from ..errors import SamplingError
from .modes import Mode

__all__ = ["doubt_of", "doubt_of_peak"]

FAR = 3.0  # standard deviations from the mode, from where it is searched for again, on both sides
NUM_STARTS, NUM_RAYS, NUM_COORDINATES = 2, 2, 8
LARGE = 20_000  # latent variables above which once has to do
RAY = np.sinh(np.linspace(-4.8, 4.8, 97))  # standard deviations along a line, to ±60
ROUNDING = 100.0  # roundings by which a slope may fall
NEGLIGIBLE = 7.0  # log of the ratio of probabilities, from which other modes do not count; those of every site add up
MAX_DESCENTS = 8
OUTWARD, RISE = (3.0, 6.0, 12.0), 1.0  # standard deviations of θ from its peak, and of log p there
SEVERAL = "the posterior of the fields has several modes"
UNCLEAR = "the posterior of the fields is not log-concave: it may have other modes"


class Search(Protocol):
    """What is needed of `Curvature`."""

    @property
    def epsilon(self) -> float: ...

    @property
    def peak(self) -> tuple[np.ndarray, np.ndarray, Mode]: ...

    def mode(self, theta, start=None) -> Mode: ...

    def value_and_slope(self, theta, x) -> tuple[float, np.ndarray]: ...

    def values_and_slopes(self, theta, xs) -> tuple[np.ndarray, np.ndarray]: ...


def doubt_of(curvature: Search, theta, mode: Mode) -> str:
    """Why there may be modes beside this one; empty if every descent returns to it."""
    size, random = len(mode.x), np.random.default_rng(0)
    noise = random.normal(size=(1 if size > LARGE else NUM_STARTS, size))
    noise *= np.sqrt(size) / np.linalg.norm(noise, axis=1, keepdims=True)
    away = mode.factors.draw(noise)
    starts = [-mode.x, *(mode.x + FAR * away), *(mode.x - FAR * away)]
    bent = [_bent(curvature, theta, mode.x, line) for line in _lines(mode, away)]
    for start in (*starts, *[x for x in bent if x is not None][:MAX_DESCENTS]):
        other = _ended(curvature, theta, start)
        if other is None:
            return UNCLEAR
        between = other.x - mode.x
        apart = between @ (mode.hessian @ between) > 1.0
        if apart and other.log_marginal > mode.log_marginal - NEGLIGIBLE - np.log(size):
            return SEVERAL
    return ""


def _lines(mode: Mode, away: np.ndarray):
    """Directions of one standard deviation: random ones, towards −x*, and of single variables given the others."""
    yield from away[:NUM_RAYS]
    if (length := mode.x @ (mode.hessian @ mode.x)) > 0:
        yield mode.x / np.sqrt(length)
    size = len(mode.x)
    for k in np.unique(np.linspace(0, size - 1, min(size, NUM_COORDINATES)).astype(int)):
        yield np.eye(1, size, k)[0] / np.sqrt(mode.hessian[k, k])


def _bent(curvature: Search, theta, x: np.ndarray, line: np.ndarray) -> np.ndarray | None:
    """A point on the line from which the potential may fall to another mode; None if its slope rises throughout."""
    with np.errstate(invalid="ignore"):  # where the potential overflows
        slopes = curvature.values_and_slopes(theta, x + RAY[:, None] * line)[1] * line
        along, rounding = slopes.sum(axis=1), ROUNDING * curvature.epsilon * np.abs(slopes).sum(axis=1)
    middle, finite = len(RAY) // 2, np.isfinite(along)
    first = middle - np.argmin(np.r_[finite[middle::-1], False]) + 1
    last = middle + np.argmin(np.r_[finite[middle:], False]) - 1
    places = np.arange(first, last)
    falls = places[along[places + 1] < along[places] - rounding[places] - rounding[places + 1]]
    if not len(falls):
        return None
    minima = places[(along[places] < 0) & (along[places + 1] > 0) & (np.abs(RAY[places]) > 1)]
    nearest = falls[np.argmin(np.abs(RAY[falls]))]
    chosen = minima[np.argmin(np.abs(RAY[minima]))] if len(minima) else nearest + (RAY[nearest] > 0)
    return x + RAY[chosen] * line


def _ended(curvature: Search, theta, start: np.ndarray) -> Mode | None:
    """The mode where a descent from a point ends, by Newton's method if that works; None if nothing is found."""
    try:
        return curvature.mode(theta, start)
    except SamplingError:
        pass
    found = scipy.optimize.minimize(
        lambda x: curvature.value_and_slope(theta, x), start, jac=True, method="L-BFGS-B", options={"maxiter": 500}
    )
    try:
        return curvature.mode(theta, found.x)
    except SamplingError:
        return None


def doubt_of_peak(curvature: Search) -> str:
    """Why the Laplace marginal of θ may have peaks beside the one that was found; empty if it falls along all its axes."""
    theta, covariance, mode = curvature.peak
    lengths, axes = np.linalg.eigh(covariance)
    for axis in np.concatenate([(axes * np.sqrt(lengths)).T, -(axes * np.sqrt(lengths)).T]):
        last, start = mode.log_marginal, mode.x
        for far in OUTWARD:
            try:
                found = curvature.mode(theta + far * axis, start)
            except SamplingError:
                break
            if found.log_marginal > max(last + RISE, mode.log_marginal - NEGLIGIBLE):
                return "the posterior of the constrained variables has several peaks"
            last, start = found.log_marginal, found.x
    return ""
