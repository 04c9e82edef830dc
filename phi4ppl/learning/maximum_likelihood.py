"""Maximum likelihood: couplings under which the model has the statistics of the data, ⟨T⟩_θ = T̄.

The mean log-likelihood −θ·T̄ − log Z(θ) has the gradient ⟨T⟩_θ − T̄ and the Hessian −G, G = Cov_θ(T) the Fisher matrix, so a step
of the natural gradient, θ ← θ + G⁻¹(⟨T⟩_θ − T̄), is one of Newton's method. Expectations come from chains that persist.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ..errors import ArgumentError, SamplingError, stream_key
from ..model.coupling_vector import CouplingVector, statistics_matrix
from ..sampling.engine import Engine
from ..sampling.interrupt import Interrupts
from .expectation import BLOCK, Expectation, expectation
from .history import FitStatus
from .methods import MaximumLikelihood
from .problem import Estimate, Problem
from .ridge import Solved, cross_validated, penalty, solve
from .score_matching import starting_point

__all__ = [
    "DataStatistics",
    "fit_maximum_likelihood",
    "keep_normalizable",
]

MAX_COUPLINGS = 3000  # the Fisher matrix is dense
WARM_UP = 200
FIRST_DRAWS, MAX_UNSETTLED, MAX_DRAWS = 50, 400, 20_000  # of a chain, in one step
DRAWS_A_COUPLING = 5
MAX_STEP = 4.0  # δᵀGδ of a step without damping, twice its Kullback-Leibler divergence
SHORT_STEP = 0.1  # δᵀGδ of a step that may reach the bound of a coupling
BETTER = 0.8  # share of the misfit that a step with enough draws leaves
WORSE = 1.5  # growth of the misfit after which a damped step is taken back
WITHIN_NOISE = 4.0  # mean square of a step in units of its Monte Carlo error; the last step adds its own noise
SHARE_OF_NOISE = 0.3  # Monte Carlo error in units of the standard error, at most, of a converged fit


def fit_maximum_likelihood(problem: Problem, method: MaximumLikelihood, seed: int) -> Estimate:
    """Damped natural-gradient steps; see `phi4ppl.fit_likelihood`."""
    vector = problem.vector
    if vector.size > MAX_COUPLINGS:
        mend = "Use method='persistent_cd', or 'score_matching'."
        raise ArgumentError(
            "model", f"at most {MAX_COUPLINGS} couplings for maximum likelihood", str(vector.size), mend
        )
    data = DataStatistics(problem)
    theta, centre = starting_point(problem)
    strength, notes = problem.ridge or 0.0, []
    with Interrupts() as interrupts:
        short = problem.ridge is None and problem.is_short
        begin = vector.model(centre if short else theta)
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
        steps = _Steps(problem, data, ensemble, pull, centre)
        theta, errors, status = steps.run(theta, draws, method.num_steps, interrupts)
    return Estimate(theta, errors, status, float(strength), (*notes, *steps.notes))


class DataStatistics:
    """Of T over the data: ``mean``, means of the ``halves``, and ``spread``, its variance."""

    def __init__(self, problem: Problem):
        model, number = problem.vector.template, problem.num_samples
        block = max(1, BLOCK // problem.vector.size)
        sums, squares = [], 0.0
        shift = statistics_matrix(model, problem.data[:1].reshape(-1, *model.field_shape))[
            0
        ]  # squares keep their digits
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


class _Steps:
    """The loop of a fit: ``pull`` is the matrix of the ridge towards ``centre``."""

    def __init__(self, problem: Problem, data: DataStatistics, ensemble: Engine, pull, centre):
        self.problem, self.ensemble = problem, ensemble
        self.data_mean, self.data_variance = data.mean, data.spread
        self.pull, self.centre = pull, centre
        self.notes: list[str] = []

    def run(self, theta, draws: int, num_steps: int, interrupts):
        """Couplings, standard errors and status."""
        problem, status = self.problem, FitStatus.MAX_STEPS
        errors, damping, best = np.full(len(theta), np.nan), None, (np.inf, theta)
        for step in range(1, num_steps + 1):
            try:
                found = expectation(self.ensemble, problem.vector.model(theta), draws)
            except SamplingError as error:
                self.notes.append(f"Sampling failed: {error}")
                return best[1], errors, FitStatus.DIVERGED
            misfit = self._misfit(found, theta)
            damping = self._damping(found, theta, damping, misfit, best[0])
            if misfit > BETTER * best[0] and step > 1:  # no progress: expectations are too noisy for this step
                draws = max(draws, min(MAX_UNSETTLED, 2 * draws))
            if damping and misfit > WORSE * best[0]:
                theta, best = best[1], (WORSE * best[0], best[1])
                self.ensemble.warm_up(problem.vector.model(theta), WARM_UP)
                continue
            best = min(best, (misfit, theta), key=lambda pair: pair[0])
            solved = self._solve(found, theta, damping)
            move = self._shortened(found, theta, solved.theta - theta)
            statistical, monte_carlo = self._errors(found, solved)
            free = solved.free & (monte_carlo > 0)
            distance = float(np.mean((move[free] / monte_carlo[free]) ** 2)) if free.any() else 0.0
            share = float(np.sqrt(np.mean((monte_carlo[free] / statistical[free]) ** 2))) if free.any() else 0.0
            errors = np.where(solved.free, np.hypot(statistical, monte_carlo), np.nan)
            theta = keep_normalizable(problem.vector, theta, move)
            numbers = {"misfit": misfit, "step_over_noise": np.sqrt(distance), "noise_over_error": share}
            problem.history.add(theta, numbers | {"damping": damping, "draws": draws * self.ensemble.num_chains})
            problem.tell(step, num_steps, f"maximum likelihood, step {np.sqrt(distance):.2g} of its noise")
            settled = damping == 0 and distance <= WITHIN_NOISE
            if settled and share <= SHARE_OF_NOISE:
                return theta, errors, FitStatus.CONVERGED
            if interrupts.asked:
                return theta, errors, FitStatus.INTERRUPTED
            if settled:  # the noise falls as 1/√draws
                draws = int(min(MAX_DRAWS, draws * np.clip((1.2 * share / SHARE_OF_NOISE) ** 2, 1, 8)))
        return theta, errors, status

    def _slope(self, found: Expectation, theta) -> np.ndarray:
        return self.data_mean - found.mean + self.pull @ (theta - self.centre)

    def _misfit(self, found: Expectation, theta) -> float:
        """Root mean square gradient in units of the spread of the statistics in the data."""
        held = self.problem.bounded & (theta == 0) & (self._slope(found, theta) > 0)
        return float(np.sqrt(np.mean(np.where(held, 0, self._slope(found, theta) ** 2 / self.data_variance))))

    def _damping(self, found: Expectation, theta, before: float | None, misfit: float, best: float) -> float:
        """μ of a step with G + μ Var_data(T): none where Newton's step is short, less after success, more after failure."""
        move = self._solve(found, theta, 0.0).theta - theta
        if move @ (found.fisher @ move) <= MAX_STEP and misfit <= best * WORSE:
            return 0.0
        if before is None:
            return 1.0
        return max(before, 1e-3) * 4 if misfit > WORSE * best else max(before / 2, 1e-3)

    def _solve(self, found: Expectation, theta, damping: float) -> Solved:
        """The minimum of the quadratic model of minus the log-likelihood, under bounds."""
        hessian = sparse.csc_matrix(found.fisher + damping * np.diag(self.data_variance)) + self.pull
        solved = solve(hessian, hessian @ theta - self._slope(found, theta), self.problem.bounded)
        if damping == 0 and solved.singular and not self.notes:
            self.notes.append("The Fisher matrix was singular in a step: a ridge of 1e-8 was added.")
        return solved

    def _shortened(self, found: Expectation, theta, move) -> np.ndarray:
        """The move; a long one may halve a quartic coupling but not bring it to 0: fields spread out, steps lead nowhere."""
        falling = self.problem.bounded & (move < -theta / 2) & (theta > 0)
        if not falling.any() or move @ (found.fisher @ move) <= SHORT_STEP:
            return move
        return move * np.min(-theta[falling] / (2 * move[falling]))

    def _errors(self, found: Expectation, solved: Solved) -> tuple[np.ndarray, np.ndarray]:
        """Standard errors √diag(H⁻¹GH⁻¹/N) and Monte Carlo errors of the solution, from the spread of the chains."""
        half = np.linalg.cholesky(
            found.fisher + 1e-12 * np.diag(np.diag(found.fisher)) + 1e-300 * np.eye(len(found.mean))
        )
        statistical = np.sqrt((solved.inverse(half) ** 2).sum(axis=1) / self.problem.num_samples)
        moved = solved.inverse(found.chain_deviations.T)
        chains = moved.shape[1]
        return statistical, np.sqrt((moved**2).sum(axis=1) / (chains * (chains - 1)))


def keep_normalizable(vector: CouplingVector, theta, move) -> np.ndarray:
    """θ + move, with the move halved until the couplings make a density; only built-in terms can be looked at quickly."""
    if vector.template.structure.is_built_in:
        for _ in range(20):
            if vector.model(theta + move).check().is_normalizable:
                break
            move = move / 2
    return theta + move
