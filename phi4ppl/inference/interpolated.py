"""The likelihood of couplings as polynomials over the part of the priors' box in which the posterior lives."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..partition.chebyshev import CHECKS, Interpolant

__all__ = ["InterpolatedLikelihood", "interpolate_likelihood"]

DEPTH = 20.0  # nats below the mode: exp(−20) = 2e-9 is what is left out
TOLERANCE = 0.01  # of the log posterior, in units of 1 + how far it is below its maximum
FIRST = {1: 12, 2: 9, 3: 7}  # nodes in each of so many dimensions
GRID = {1: 401, 2: 41, 3: 19}  # points in each dimension of the posterior
MAX_ROUNDS = 40
PASSES = 8  # over which that grid adapts to the posterior
NEAR = 20  # further checks, at points of the posterior
SLACK = 0.02  # of the box of nodes, by which the posterior may stick out


class InterpolatedLikelihood(NamedTuple):
    """−log p(data | θ) + log p(data | mode), and the posterior as points with weights.

    ``cost`` is a function for JAX. ``error`` is its largest deviation in units of 1 + how far the log posterior is below its
    maximum; ``evaluations`` counts values of the function that was interpolated; ``lowest`` is what was subtracted of
    ``count`` times that function.
    """

    cost: Interpolant
    error: float
    points: np.ndarray
    weights: np.ndarray
    evaluations: int
    lowest: float

    @property
    def mean(self) -> np.ndarray:
        return self.weights @ self.points

    @property
    def covariance(self) -> np.ndarray:
        away = self.points - self.mean
        return (self.weights[:, None] * away).T @ away

    @property
    def good(self) -> bool:
        return self.error <= TOLERANCE


def interpolate_likelihood(
    function: Callable, count: int, log_prior: Callable, low, high, most: float, start: InterpolatedLikelihood | None = None
) -> InterpolatedLikelihood:  # fmt: skip
    """Interpolate ``count`` times a convex function over as much of a box as the posterior needs.

    The posterior exp(−count · function(θ)) p(θ) is looked for with the interpolant of few nodes; then the nodes move to where
    it can be within the error of that interpolant, or more of them are taken, until the error is small where the posterior
    lives. Beyond the nodes the cost continues along rays from the mode, below a convex function and still rising: what lies
    there has exp(−20) of the density at the mode, or less.

    Parameters
    ----------
    function : callable
        θ·T̄ + log Z(θ), of shape (points, dimensions) to (points,).
    count : int
        Number of fields.
    log_prior : callable
        log p(θ), of shape (points, dimensions) to (points,).
    low, high : arrays
        The box.
    most : float
        Values of the function that may be computed. With more needed, the best there is comes back, not ``good``.
    start : InterpolatedLikelihood, optional
        Of a similar function: where its nodes are is tried first.
    """
    low, high = np.asarray(low, float), np.asarray(high, float)
    number = FIRST[len(low)] if start is None else start.cost.coefficients.shape[0]
    left, right = (low, high) if start is None else (start.cost.low, start.cost.high)
    used, found = 0, None
    for _ in range(MAX_ROUNDS):
        if used + (next_cost := number ** len(low) + 2 ** len(low) + CHECKS + NEAR) > most:
            break
        used += next_cost
        fit = Interpolant(function, left, right, number).shifted(0.0, count)
        # the fit is known inside its box only, until it is good
        points, energies, mode = _posterior(fit, log_prior, left, right, DEPTH + 2 * fit.error)
        error = _relative_error(fit, lambda t: count * function(t), log_prior, points, energies)
        if good := error <= TOLERANCE:
            fit = fit.shifted(0.0, 1.0, mode)
            points, energies, mode = _posterior(fit, log_prior, low, high, DEPTH)
        weights = np.exp(energies.min() - energies)
        lowest = float(fit.values(mode[None])[0])
        cost = fit.shifted(lowest, 1.0, mode)
        found = InterpolatedLikelihood(cost, error, points, weights / weights.sum(), used, lowest)
        first, last = points.min(axis=0), points.max(axis=0)
        width = right - left
        below, above = first < left - SLACK * width, last > right + SLACK * width
        if good and not np.any(below | above):
            return found
        if not good:  # at a face, and not at one of the box of the priors, there may be more of it beyond
            below, above = (
                (first < left + SLACK * width) & (left > low),
                (last > right - SLACK * width) & (right < high),
            )
            first, last = first - width * below / 2, last + width * above / 2
        more = 0.05 * (last - first) + 1e-6 * (high - low)
        new_left, new_right = np.maximum(first - more, low), np.minimum(last + more, high)
        if np.any(below | above) or np.prod((new_right - new_left) / width) < 0.5:
            left, right = new_left, new_right
        else:
            number = int(np.ceil(1.2 * number)) + 1
    if found is None:
        raise ValueError(f"{most:g} values do not suffice for the first {next_cost} nodes")
    return found._replace(error=max(found.error, 2 * TOLERANCE))


def _relative_error(fit: Interpolant, function, log_prior, points, energies) -> float:
    """The largest deviation at the checks of the fit and at some points of the posterior, in units of 1 + depth."""
    tempered = np.exp((energies.min() - energies) / 4)
    chosen = np.random.default_rng(1).choice(len(points), NEAR, p=tempered / tempered.sum())
    near = points[chosen]
    deviations = np.abs(function(near) - fit.values(near))
    depth = fit.values(fit.checked) - log_prior(fit.checked) - energies.min()
    far = fit.deviations / (1 + np.maximum(depth, 0.0))
    return float(max(far.max(), np.max(deviations / (1 + energies[chosen] - energies.min()))))


def _posterior(fit: Interpolant, log_prior, low, high, depth: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of a grid over the posterior down to ``depth`` nats below its maximum, −log of it there, and the mode.

    The grid is turned to the principal axes of these points, and stretched to hold them, a few times over.
    """

    def energy(thetas):
        value = fit.values(thetas) - log_prior(thetas)
        return np.where(np.isfinite(value), value, np.inf)

    middle, half = (low + high) / 2, (high - low) / 2
    mode, lowest = _minimum(lambda x: energy(middle + half * x), len(low))
    axes = _first_axes(lambda x: energy(middle + half * x), mode, depth)
    center = mode
    ticks = np.linspace(-1, 1, GRID[len(low)])
    grid = np.stack([axis.ravel() for axis in np.meshgrid(*[ticks] * len(low), indexing="ij")], axis=1)
    edge = np.abs(grid).max(axis=1) == 1
    for _ in range(PASSES):
        x = center + grid @ axes.T
        inside = np.all(np.abs(x) <= 1, axis=1)
        x, at_edge = x[inside], edge[inside]
        values = energy(middle + half * x)
        kept = values <= min(lowest, values.min(initial=np.inf)) + depth
        cell = np.sqrt(np.sum(axes**2, axis=1)) * (ticks[1] - ticks[0])
        touching, some = bool(np.any(kept & at_edge)), np.vstack([x[kept], mode])
        if not touching and kept.sum() > 0.02 * len(grid):
            break
        center, axes = _new_axes(some, cell, 2.0 if touching else 1.2)
    points, values = np.vstack([x[kept], mode]), np.append(values[kept], lowest)
    return middle + half * points, values, middle + half * mode


def _minimum(energy: Callable, dimensions: int) -> tuple[np.ndarray, float]:
    """Of a function over the cube [−1, 1]^d, from the best of many points."""
    from scipy.optimize import minimize

    starts = np.random.default_rng(2).uniform(-0.98, 0.98, (500, dimensions))
    best = starts[np.argsort(energy(starts))[:3]]
    bounds, options = [(-1 + 1e-6, 1 - 1e-6)] * dimensions, {"eps": 1e-6, "maxiter": 200, "ftol": 1e-12}
    runs = [
        minimize(lambda x: float(energy(x[None])[0]), x, method="L-BFGS-B", bounds=bounds, options=options)
        for x in best
    ]
    run = min(runs, key=lambda run: run.fun)
    return np.asarray(run.x), float(run.fun)


def _first_axes(energy: Callable, mode, depth: float) -> np.ndarray:
    """Half-lengths times directions of a grid, from the curvature at the mode."""
    dimensions, step = len(mode), 1e-3
    at = np.clip(mode, -1 + 2 * step, 1 - 2 * step)
    shifts = step * np.eye(dimensions)
    stencil = [at + a + b for i, s in enumerate(shifts) for t in shifts[i:] for a in (s, -s) for b in (t, -t)]
    values = iter(energy(np.array(stencil)).reshape(-1, 4))
    hessian = np.zeros((dimensions, dimensions))
    center = float(energy(at[None])[0])
    for i in range(dimensions):
        for j in range(i, dimensions):
            up, mixed, other, down = next(values)
            second = (up - 2 * center + down) if i == j else (up - mixed - other + down)
            hessian[i, j] = hessian[j, i] = second / (4 * step**2)
    curvature, directions = np.linalg.eigh(np.where(np.isfinite(hessian), hessian, 0.0))
    lengths = 1.3 * np.sqrt(2 * depth / np.maximum(curvature, 1e-3))
    return directions * np.minimum(lengths, 2 * np.sqrt(dimensions))


def _new_axes(points, cell, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """The center of points, and a frame along their principal axes that encloses them."""
    center = points.mean(axis=0)
    away = points - center
    _, directions = np.linalg.eigh(away.T @ away / len(points) + np.diag(cell**2))
    projected = away @ directions
    center = center + directions @ ((projected.max(axis=0) + projected.min(axis=0)) / 2)
    lengths = (projected.max(axis=0) - projected.min(axis=0)) / 2
    return center, directions * (factor * lengths + np.sqrt(directions.T**2 @ cell**2))
