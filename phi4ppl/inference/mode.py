"""Couplings at which data are most probable, without log Z: natural-gradient steps with expectations from Markov chains."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..learning.expectation import expectation
from ..sampling.engine import Engine
from ..streams import stream_key
from .coupling_problem import CouplingProblem

__all__ = ["NUM_CHAINS", "Mode", "find_mode"]

SEARCH_STEPS, SEARCH_DRAWS, NUM_CHAINS = 30, 200, 8
LATE_STEPS = 6  # limited by noise, which are averaged
FARTHEST = 1.0  # nats per field, of one step


class Mode(NamedTuple):
    """Where the posterior has its maximum, its covariance there, and whether the search found it."""

    theta: np.ndarray
    covariance: np.ndarray
    found: bool

    @property
    def warnings(self) -> tuple[str, ...]:
        if self.found:
            return ()
        return (
            f"the search for the most probable couplings ran out of its {SEARCH_STEPS} steps, so they are not known. Start "
            "from a model nearer to the data (phi4ppl.fit_likelihood finds one), and use priors that contain it.",
        )


def find_mode(problem: CouplingProblem, start, seed: int) -> Mode:
    """Mode of the posterior from couplings ``start``: Newton's method with noise, and the average of its last steps."""
    theta, observed, count = np.asarray(start, float), problem.statistics.mean(axis=0), problem.count
    ensemble = Engine(problem.model, num_chains=NUM_CHAINS, key=stream_key(seed, "mode search"))
    ensemble.warm_up(problem.at(theta), 200)
    late = []
    for _ in range(SEARCH_STEPS):
        drawn = expectation(ensemble, problem.at(theta), SEARCH_DRAWS, problem.statistics_of)
        fisher = drawn.fisher
        slope, curvature = problem.prior_slope(theta)
        precision = count * fisher + np.diag(curvature)
        step = np.linalg.solve(precision, count * (drawn.mean - observed) + slope)
        length = step @ fisher @ step / 2
        theta = problem.inside(theta, step * min(1.0, np.sqrt(FARTHEST / max(length, 1e-300))))
        noise = (0.25 + 4 * count / (NUM_CHAINS * SEARCH_DRAWS)) * len(
            theta
        )  # of a step at the mode, squared, generously
        if late or step @ precision @ step < noise:
            late.append((theta, precision))
        if len(late) == LATE_STEPS:
            break
    found = len(late) == LATE_STEPS
    late = late or [(theta, precision)]
    mode = np.mean([t for t, _ in late], axis=0)
    return Mode(mode, np.linalg.inv(np.mean([p for _, p in late], axis=0)), found)
