"""Couplings at which a posterior has its maximum, without log Z: natural-gradient steps with the slope of the log prior."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse

from ..errors.streams import stream_key
from ..learning.expectation import expectation
from ..learning.natural_steps import SHARE_OF_NOISE, WARM_UP, Objective, climb
from ..sampling.engine import Engine
from .coupling_problem import CouplingProblem

__all__ = ["NUM_CHAINS", "Mode", "find_mode"]

SEARCH_STEPS, NUM_CHAINS = 30, 8
DRAWS, MAX_DRAWS = 200, 2000  # per chain in one step


class Mode(NamedTuple):
    """The maximum of a posterior, its covariance there, whether the search found it, and the noise of the search.

    ``noise`` is the standard error of ``theta`` in posterior standard deviations, the largest along any direction.
    """

    theta: np.ndarray
    covariance: np.ndarray
    found: bool
    noise: float

    @property
    def warnings(self) -> tuple[str, ...]:
        if self.found:
            return ()
        return (
            f"the search for the most probable couplings ran out of its {SEARCH_STEPS} steps, so they are not known. Start "
            "from a model nearer to the data (phi4ppl.fit_likelihood finds one), and use priors that contain it.",
        )


def find_mode(
    problem: CouplingProblem, start, seed: int, *, noise: float | None = None, most_draws: int = MAX_DRAWS
) -> Mode:
    """Mode of the posterior from couplings ``start``.

    ``noise`` is the Monte Carlo error to reach, in posterior standard deviations; by default what ``most_draws`` give for
    chains with 2 τ_int = 4, which is enough to place ensembles around the mode.

    Raises
    ------
    SamplingError
        If the model cannot be sampled at couplings on the way.
    """
    theta, count, vector = np.asarray(start, float), problem.count, problem.vector
    engine = Engine(problem.model, num_chains=NUM_CHAINS, key=stream_key(seed, "mode search"))
    engine.warm_up(problem.at(theta), WARM_UP)
    first = expectation(engine, problem.at(theta), DRAWS, problem.statistics_of)

    def penalty(theta):
        slope, curvature = problem.prior_slope(theta)
        return -slope / count, sparse.csc_matrix(np.diag(curvature / count))

    objective = Objective(
        problem.at, problem.statistics.mean(axis=0), np.diag(first.fisher), count, np.zeros(vector.size, bool),
        penalty=penalty, inside=problem.inside, statistics=problem.statistics_of,
    )  # fmt: skip
    reach = max(SHARE_OF_NOISE, 2 * np.sqrt(count / (NUM_CHAINS * most_draws))) if noise is None else noise
    end = climb(objective, engine, theta, DRAWS, SEARCH_STEPS, noise=reach, most_draws=most_draws)
    if end.failure is not None:
        raise end.failure
    drawn = first if end.found is None else end.found
    precision = count * (drawn.fisher + penalty(end.theta)[1].toarray())
    scaled = np.linalg.solve(np.linalg.cholesky(precision), count * drawn.chain_deviations.T)
    spread = scaled @ scaled.T / (NUM_CHAINS * (NUM_CHAINS - 1))
    return Mode(end.theta, np.linalg.inv(precision), end.settled, float(np.sqrt(np.linalg.eigvalsh(spread)[-1])))
