"""Where log Z has to be known: a finite box of couplings around the posterior, for priors that are not on one."""

from __future__ import annotations

import itertools

import jax
import numpy as np

from ..errors import ArgumentError
from .coupling_problem import CouplingProblem
from .interpolated import InterpolatedLikelihood
from .mode import find_mode

__all__ = ["improper_share", "located", "widened"]

RADIUS = 9.0  # standard deviations from the mode to the faces of the box
NEAREST = 3.0  # and at least, where Z is infinite beyond
SHRINK = 0.85
TOUCHING = 14.0  # nats below the mode: what a face may cut off
DRAWS = 200  # of the priors, to see how much of them has no density
GROWTH = 0.6  # of the width of a box that touches the posterior, at that side


def located(problem: CouplingProblem, seed: int) -> CouplingProblem:
    """The problem with a box that log Z can be computed on.

    If all priors end and Z is finite between their ends, that is the box. Otherwise it reaches a number of standard deviations
    from the mode of the posterior, which natural-gradient steps find without log Z, as far as priors and normalizability
    allow.

    Raises
    ------
    ArgumentError
        If Z is infinite within a few standard deviations of the mode, along the axes.
    """
    problem.require_few()
    low, high = problem.ends
    if np.all(np.isfinite([low, high])) and _improper_corner(problem, low, high) is None:
        return problem.within(low, high)
    mode = find_mode(problem, problem.start, seed)
    width = np.sqrt(np.diag(mode.covariance))
    reach = np.full((2, len(width)), RADIUS)
    while np.all(reach >= NEAREST):
        left = np.maximum(mode.theta - reach[0] * width, low)
        right = np.minimum(mode.theta + reach[1] * width, high)
        corner = _improper_corner(problem, left, right)
        if corner is None:
            return problem.within(left, right)
        reach[corner, np.arange(len(width))] *= SHRINK
    at = ", ".join(f"{n} = {t:.4g} ± {s:.2g}" for n, t, s in zip(problem.names, mode.theta, width, strict=True))
    raise ArgumentError(
        "priors",
        "a posterior around which Z is finite",
        f"one at {at}, with couplings nearby at which it is infinite",
        "Use more fields, or priors on an interval on which Z is finite. For a Gaussian field, a NumPyro model that observes a "
        "GibbsField with log_partition=phi4ppl.exact.gaussian_log_partition takes any prior.",
        reason="improper",
    )


def improper_share(problem: CouplingProblem) -> float:
    """The share of the priors of a problem, about, where Z is infinite, from a few hundred draws of them."""
    low, high = problem.ends
    if problem.is_always_proper or (np.all(np.isfinite([low, high])) and _improper_corner(problem, low, high) is None):
        return 0.0
    keys = jax.random.split(jax.random.key(0), len(problem.names))
    columns = [np.asarray(p.sample(k, (DRAWS,)), float) for p, k in zip(problem.priors.values(), keys, strict=True)]
    return float(np.mean([not problem.at(theta).check().is_normalizable for theta in np.stack(columns, axis=1)]))


def _improper_corner(problem: CouplingProblem, low, high) -> np.ndarray | None:
    """The first corner of a box at which Z is infinite, as 0 and 1 for low and high; None if there is none.

    Z is log-convex in the couplings: finite at all corners, it is finite in the box.
    """
    for corner in itertools.product((0, 1), repeat=len(low)):
        if not problem.at(np.where(corner, high, low)).check().is_normalizable:
            return np.array(corner)
    return None


def widened(problem: CouplingProblem, found: InterpolatedLikelihood) -> CouplingProblem | None:
    """The problem with a larger box, if the posterior reaches a face that is no end of a prior; None if it does not."""
    low, high = (end.copy() for end in problem.box)
    ends, width = problem.ends, high - low
    depth = -np.log(np.maximum(found.weights, 1e-300) / found.weights.max())
    points = found.points[depth < TOUCHING]
    step = 0.02 * width
    below = (points.min(axis=0) < low + step) & (low > ends[0])
    above = (points.max(axis=0) > high - step) & (high < ends[1])
    if not np.any(below | above):
        return None
    new = np.maximum(low - GROWTH * width * below, ends[0]), np.minimum(high + GROWTH * width * above, ends[1])
    return problem.within(*new) if _improper_corner(problem, *new) is None else None
