"""Maximum likelihood: couplings under which the model has the statistics of the data, ⟨T⟩_θ = T̄.

Chains are set up, short data get a ridge, and `natural_steps` climbs.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ..errors import ArgumentError
from ..errors.streams import stream_key
from ..model.coupling_vector import CouplingVector, statistics_matrix
from ..sampling.engine import Engine
from ..sampling.interrupt import Interrupts
from .expectation import BLOCK, expectation
from .methods import MaximumLikelihood
from .natural_steps import WARM_UP, Objective, climb
from .problem import Estimate, Problem
from .ridge import cross_validated, penalty
from .score_matching import starting_point

__all__ = [
    "DataStatistics",
    "fit_maximum_likelihood",
    "keep_normalizable",
]

MAX_COUPLINGS = 3000  # the Fisher matrix is dense
FIRST_DRAWS = 50  # of a chain, in one step
DRAWS_A_COUPLING = 5


def fit_maximum_likelihood(problem: Problem, method: MaximumLikelihood, seed: int) -> Estimate:
    """Damped natural-gradient steps; see `phi4ppl.fit_likelihood`."""
    vector = problem.vector
    if vector.size > MAX_COUPLINGS:
        fix = "Use method='persistent_cd', or 'score_matching'."
        raise ArgumentError(
            "model",
            f"at most {MAX_COUPLINGS} couplings for maximum likelihood",
            str(vector.size),
            fix,
            reason="too_large",
        )
    data = DataStatistics(problem)
    theta, center = starting_point(problem)
    strength, notes = problem.ridge or 0.0, []
    with Interrupts() as interrupts:
        short = problem.ridge is None and problem.is_short
        begin = vector.model(center if short else theta)
        key = stream_key(seed, "maximum likelihood")
        ensemble = Engine(begin, kernel=method.kernel, num_chains=method.num_chains, key=key)
        ensemble.warm_up(begin, WARM_UP)
        draws = max(FIRST_DRAWS, -(-DRAWS_A_COUPLING * vector.size // method.num_chains))
        pull = sparse.csc_matrix((vector.size,) * 2)
        if short or strength:
            found = expectation(ensemble, begin, draws)
            fisher = sparse.csc_matrix(found.fisher)
            if short:
                strength = cross_validated([(fisher, half - found.mean) for half in data.halves], problem.wide)
                notes.append(problem.ridge_note(strength))
            pull = penalty(fisher, strength, problem.wide)
        objective = Objective(
            vector.model, data.mean, data.spread, problem.num_samples, problem.bounded,
            penalty=lambda theta: (pull @ (theta - center), pull),
            inside=lambda theta, move: keep_normalizable(vector, theta, move),
        )  # fmt: skip

        def record(step, theta, numbers):
            problem.history.add(theta, numbers)
            text = f"maximum likelihood, step {numbers['step_over_noise']:.2g} of its noise"
            problem.tell(step, method.num_steps, text)

        end = climb(objective, ensemble, theta, draws, method.num_steps, interrupts=interrupts, record=record)
    failed = [f"Sampling failed: {end.failure}"] if end.failure else []
    return Estimate(end.theta, end.errors, end.status, float(strength), (*notes, *end.notes, *failed))


class DataStatistics:
    """Statistics T over the data: ``mean``, means of the ``halves``, and ``spread``, its variance."""

    def __init__(self, problem: Problem):
        model, number = problem.vector.template, problem.num_samples
        block = max(1, BLOCK // problem.vector.size)
        sums, squares = [], 0.0
        shift = statistics_matrix(model, problem.data[:1].reshape(-1, *model.field_shape))[
            0
        ]  # centered, to avoid cancellation in the squares
        for start, stop in ((0, number // 2), (number // 2, number)):
            total = np.zeros(problem.vector.size)
            for k in range(start, stop, block):
                fields = problem.data[k : min(k + block, stop)].reshape(-1, *model.field_shape)
                away = statistics_matrix(model, fields) - shift
                total, squares = total + away.sum(axis=0), squares + (away**2).sum(axis=0)
            sums.append(total)
        self.halves = sums[0] / (number // 2) + shift, sums[1] / (number - number // 2) + shift
        mean = (sums[0] + sums[1]) / number
        variance = squares / number - mean**2
        self.mean, self.spread = mean + shift, np.maximum(variance, 1e-12 * variance.max())


def keep_normalizable(vector: CouplingVector, theta, move) -> np.ndarray:
    """θ + move, with the move halved until the couplings make a density; only built-in terms can be looked at quickly."""
    if vector.template.structure.is_built_in:
        for _ in range(20):
            if vector.model(theta + move).check().is_normalizable:
                break
            move = move / 2
    return theta + move
