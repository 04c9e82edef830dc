"""Where Z is finite, to which priors are cut; and a finite box around the posterior on which log Z has to be known."""

from __future__ import annotations

import itertools

import jax
import numpy as np

from ..errors import ArgumentError
from ..model.field import MarkovRandomField
from ..partition.surface import MAX_DIMENSIONS
from .coupling_problem import CouplingProblem
from .interpolated import InterpolatedLikelihood
from .mode import find_mode
from .prior_models import cut_priors

__all__ = ["cut_problem", "fits_its_priors", "located", "where_finite", "widened"]

RADIUS = 9.0  # standard deviations from the mode to the faces of the box
NEAREST = 3.0  # and at least, where Z is infinite beyond
SHRINK = 0.85
TOUCHING = 14.0  # nats below the mode: what a face may cut off
DRAWS, DRAWS_OF_ONE = (
    1000,
    100_000,
)  # of the priors of several couplings, or of one, to see how much of them has a density
GROWTH = 0.6  # of the width of a box that touches the posterior, at that side
STEPS = 1 << 24  # of that way, at which to look whether Z is infinite
NEAR_MODE = 2.0  # nats below the mode: if the density at such an end is higher, the box ends too early


def located(problem: CouplingProblem, seed: int) -> CouplingProblem:
    """The problem with a box that log Z can be computed on.

    If all priors end and Z is finite between their ends, that is the box. Otherwise it reaches a number of standard deviations
    from the mode of the posterior, which natural-gradient steps find without log Z, as far as priors and normalizability
    allow. The likelihood vanishes where Z diverges, so for one coupling the box may end shortly before that.

    Raises
    ------
    ArgumentError
        For several couplings, if Z is infinite within a few standard deviations of the mode, along the axes.
    """
    problem.require_few()
    low, high = problem.ends
    if fits_its_priors(problem):
        return problem.within(low, high)
    mode = find_mode(problem, problem.start, seed)
    width = np.sqrt(np.diag(mode.covariance))
    reach = np.full((2, len(width)), RADIUS)
    if len(width) == 1:
        ends = np.maximum(mode.theta - RADIUS * width, low), np.minimum(mode.theta + RADIUS * width, high)
        return _short_of_infinite(problem, mode.theta, *ends)
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
        "Use more fields, or priors on an interval on which Z is finite. For a Gaussian field, normalizer='exact' and "
        "'exchange' take any prior.",
        reason="improper",
    )


def fits_its_priors(problem: CouplingProblem) -> bool:
    """Whether all priors end, and Z is finite between their ends."""
    return bool(np.all(np.isfinite(problem.ends))) and _improper_corner(problem, *problem.ends) is None


def cut_problem(
    model: MarkovRandomField, data: np.ndarray, priors: dict, who: str = "the model"
) -> tuple[CouplingProblem, list[str]]:
    """The problem under the part of its priors where Z is finite, normalized there; and notes on what was cut.

    Every posterior of couplings, and every evidence, is made of it.

    Raises
    ------
    ArgumentError
        If next to nothing is left, and as `CouplingProblem` does.
    """
    priors, notes = cut_priors(model, priors)
    problem = CouplingProblem(model, data, priors, who)
    share, error = _kept_share(problem)
    if not share:
        expected, got = "priors with some of their mass where Z is finite", f"none in {DRAWS} draws"
        raise ArgumentError("priors", expected, got, "Narrow them around couplings of a field.", reason="improper")
    if share < 1:
        problem.kept = share, error
        notes.append(f"about {1 - share:.2g} of the priors has no density (Z is infinite), and was cut")
    return problem, notes


def _kept_share(problem: CouplingProblem) -> tuple[float, float]:
    """The share of the priors where Z is finite, and its standard error, from draws of them."""
    if not problem.names or problem.is_always_proper:
        return 1.0, 0.0
    if fits_its_priors(problem):
        return 1.0, 0.0
    few_looks = len(problem.names) == 1 and problem.has_density(problem.start)
    number = DRAWS_OF_ONE if few_looks else DRAWS
    keys = jax.random.split(jax.random.key(0), len(problem.names))
    columns = [np.asarray(p.sample(k, (number,)), float) for p, k in zip(problem.priors.values(), keys, strict=True)]
    share = float(np.mean(where_finite(problem, np.stack(columns, axis=1))))
    return share, float(np.sqrt(share * (1 - share) / number))


def where_finite(problem: CouplingProblem, thetas: np.ndarray) -> np.ndarray:
    """Whether Z is finite at every row of ``thetas``, shape (num_thetas,).

    Z is log-convex in the couplings, so it is finite on a convex set, and few points have to be looked at. Of one coupling the
    ends are found by bisection; of up to three, points in the largest box around their middle whose corners are in the set are
    in it, and the others are looked at.
    """
    found = np.ones(len(thetas), bool)
    if not len(thetas) or problem.is_always_proper:
        return found
    inside = next((c for c in (np.median(thetas, axis=0), problem.start) if problem.has_density(c)), None)
    if thetas.shape[1] > MAX_DIMENSIONS or inside is None:
        return np.array([problem.has_density(theta) for theta in thetas])
    away = thetas - inside
    if thetas.shape[1] == 1:
        for side in (away[:, 0] < 0, away[:, 0] > 0):
            outward = np.flatnonzero(side)[np.argsort(np.abs(away[side, 0]))]
            found[outward[_first(lambda k, o=outward: not problem.has_density(thetas[o[k]]), len(outward)) :]] = False
        return found
    outward = np.argsort(np.max(np.abs(away) / (np.abs(away).mean(axis=0) + 1e-300), axis=1))

    def leaves(k):
        box = np.vstack([inside, thetas[outward[: k + 1]]])
        return _improper_corner(problem, box.min(axis=0), box.max(axis=0)) is not None

    for k in outward[_first(leaves, len(outward)) :]:
        found[k] = problem.has_density(thetas[k])
    return found


def _first(condition, number: int) -> int:
    """The first of 0 … number − 1 for which a condition holds that holds for all later ones; ``number`` if for none."""
    low, high = 0, number
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if condition(middle) else (middle + 1, high)
    return low


def _improper_corner(problem: CouplingProblem, low, high) -> np.ndarray | None:
    """The first corner of a box at which Z is infinite, as 0 and 1 for low and high; None if there is none.

    Z is log-convex in the couplings: finite at all corners, it is finite in the box.
    """
    for corner in itertools.product((0, 1), repeat=len(low)):
        if not problem.has_density(np.where(corner, high, low)):
            return np.array(corner)
    return None


def _short_of_infinite(problem: CouplingProblem, inside: np.ndarray, low, high, most=np.inf) -> CouplingProblem:
    """The problem of one coupling between two ends, or shortly before Z becomes infinite on the way there from ``inside``.

    ``most`` is how far from infinite Z the ends may be.
    """
    ends, room = [low, high], np.full((2, 1), np.inf)
    for side, end in enumerate((low, high)):
        if not problem.has_density(end):
            way = (end - inside) / STEPS
            last = _first(lambda k, way=way: not problem.has_density(inside + k * way), STEPS) - 1
            room[side] = np.minimum(problem.clearance * last * np.abs(way), np.broadcast_to(most, room.shape)[side])
            ends[side] = inside + last * way - np.sign(way) * room[side]
    return problem.within(ends[0], ends[1], room)


def widened(problem: CouplingProblem, found: InterpolatedLikelihood) -> CouplingProblem | None:
    """The problem with a larger box, if the posterior reaches a face that is no end of a prior; None if it does not.

    At a face shortly before infinite Z, where the density must have fallen but need not vanish, the box comes nearer to it.
    """
    low, high = (end.copy() for end in problem.box)
    ends, width, room = problem.ends, high - low, problem.room
    depth = -np.log(np.maximum(found.weights, 1e-300) / found.weights.max())
    limit = np.where(np.isfinite(room), NEAR_MODE, TOUCHING)
    step = np.minimum(0.02 * width, room)
    near = found.points < low + step[0], found.points > high - step[1]
    below, above = (np.any(n & (depth[:, None] < d), axis=0) for n, d in zip(near, limit, strict=True))
    below, above = below & (low > ends[0]), above & (high < ends[1])
    if not np.any(below | above):
        return None
    new = np.maximum(low - GROWTH * width * below, ends[0]), np.minimum(high + GROWTH * width * above, ends[1])
    if _improper_corner(problem, *new) is None:
        return problem.within(*new)
    if len(low) > 1:
        return None
    return _short_of_infinite(problem, found.mean, *new, np.where([below, above], 0.1, 1.0) * room)
