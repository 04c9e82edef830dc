"""Natural-gradient steps to the maximum of a likelihood, with or without a log prior: for every fit that simulates it.

The mean log-likelihood of the data −θ·T̄ − log Z(θ), less a penalty R(θ), has the gradient ⟨T⟩_θ − T̄ − ∇R and the Hessian
−G − ∇²R, G = Cov_θ(T) the Fisher matrix, so a step of the natural gradient, θ ← θ + (G + ∇²R)⁻¹(⟨T⟩_θ − T̄ − ∇R), is one of
Newton's method. Expectations come from chains that persist, with more draws until noise is small against the standard error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ..errors import SamplingError
from ..model.field import MarkovRandomField
from ..sampling.engine import Engine
from ..sampling.interrupt import Interrupts
from .expectation import Expectation, expectation
from .history import FitStatus
from .ridge import Solved, solve

__all__ = ["WARM_UP", "Climb", "Objective", "climb"]

WARM_UP = 200
MAX_UNSETTLED = 400  # draws per chain in a step that is not yet limited by noise
MAX_DRAWS = 20_000  # per chain in one step
MAX_STEP = 4.0  # δᵀGδ of a step without damping, twice its Kullback-Leibler divergence
SHORT_STEP = 0.1  # δᵀGδ of a step that may reach the bound of a coupling
BETTER = 0.8  # share of the misfit that a step with enough draws leaves
WORSE = 1.5  # growth of the misfit after which a damped step is taken back
WITHIN_NOISE = 4.0  # mean square of a step in units of its Monte Carlo error; the last step adds its own noise
SHARE_OF_NOISE = 0.3  # Monte Carlo error in units of the standard error, at most, of a converged fit


@dataclass(frozen=True)
class Objective:
    """What is maximized.

    Attributes
    ----------
    model : callable
        The model at couplings θ.
    mean, scale : arrays, shape (num_couplings,)
        T̄, and variances of the statistics, which make damping and misfit independent of units.
    num_data : int
    bounded : bool array, shape (num_couplings,)
        Which couplings cannot be negative.
    penalty : callable
        Gradient of R at θ, and its Hessian as a sparse matrix.
    inside : callable
        ``inside(theta, move)``: θ + move, or as much of the move as keeps a density.
    statistics : callable or None
        Rows T of fields; None for all couplings of the model.
    """

    model: Callable[[np.ndarray], MarkovRandomField]
    mean: np.ndarray
    scale: np.ndarray
    num_data: int
    bounded: np.ndarray
    penalty: Callable
    inside: Callable
    statistics: Callable | None = None

    def slope(self, found: Expectation, theta) -> np.ndarray:
        """Gradient of minus the objective."""
        return self.mean - found.mean + self.penalty(theta)[0]

    def misfit(self, found: Expectation, theta) -> float:
        """Root mean square gradient in units of the spread of the statistics; a coupling held at its bound has none."""
        slope = self.slope(found, theta)
        held = self.bounded & (theta == 0) & (slope > 0)
        return float(np.sqrt(np.mean(np.where(held, 0, slope**2 / self.scale))))

    def solve(self, found: Expectation, theta, damping: float) -> Solved:
        """The minimum of the quadratic model of minus the objective, under bounds."""
        hessian = sparse.csc_matrix(found.fisher + damping * np.diag(self.scale)) + self.penalty(theta)[1]
        return solve(hessian, hessian @ theta - self.slope(found, theta), self.bounded)

    def errors(self, found: Expectation, solved: Solved) -> tuple[np.ndarray, np.ndarray]:
        """Standard errors √diag(H⁻¹GH⁻¹/N) and Monte Carlo errors of the solution, from the spread of the chains."""
        half = np.linalg.cholesky(
            found.fisher + 1e-12 * np.diag(np.diag(found.fisher)) + 1e-300 * np.eye(len(found.mean))
        )
        statistical = np.sqrt((solved.inverse(half) ** 2).sum(axis=1) / self.num_data)
        moved = solved.inverse(found.chain_deviations.T)
        chains = moved.shape[1]
        return statistical, np.sqrt((moved**2).sum(axis=1) / (chains * (chains - 1)))


@dataclass(frozen=True)
class Climb:
    """Where the steps ended.

    Attributes
    ----------
    theta, errors : arrays, shape (num_couplings,)
        Couplings, and standard errors that include the Monte Carlo error.
    status : FitStatus
    settled : bool
        Whether the last step was within its Monte Carlo error.
    found : Expectation or None
        At the couplings before the last step.
    notes : tuple of str
    failure : SamplingError or None
        Why sampling failed, where ``status`` is ``DIVERGED``.
    """

    theta: np.ndarray
    errors: np.ndarray
    status: FitStatus
    settled: bool
    found: Expectation | None
    notes: tuple[str, ...]
    failure: SamplingError | None = None


def climb(
    objective: Objective, engine: Engine, theta: np.ndarray, draws: int, num_steps: int, *,
    interrupts: Interrupts | None = None, record: Callable | None = None, noise: float = SHARE_OF_NOISE,
    most_draws: int = MAX_DRAWS,
) -> Climb:  # fmt: skip
    """Damped steps from ``theta`` with ``draws`` per chain at first, until one is within noise and noise is small.

    ``noise`` is the Monte Carlo error to reach, in units of the standard error; ``record(step, theta, numbers)`` is called
    after each step. Each step compares its misfit with the smallest so far, the best:

    ================================================  ==========================================================
    if                                                then
    ================================================  ==========================================================
    sampling fails                                    return the best couplings, ``DIVERGED``
    the misfit is more than 0.8 of the best           twice the draws, up to 400: they may be too noisy
    it is more than 1.5 of the best, and damped       back to the best couplings, damping × 4; the best misfit is
                                                      raised by 1.5, so that a lucky one does not reject forever
    Newton's step is short and the misfit is not      no damping
    above 1.5 of the best
    it is long                                        damping starts at 1, and is halved after every success
    an undamped step is within its noise              ``CONVERGED`` if the Monte Carlo error is at most ``noise``,
                                                      otherwise more draws
    ================================================  ==========================================================
    """

    def end(status: FitStatus, theta, failure: SamplingError | None = None) -> Climb:
        return Climb(theta, errors, status, settled, found, tuple(dict.fromkeys(notes)), failure)

    errors, damping, best, notes = np.full(len(theta), np.nan), None, (np.inf, theta), []
    settled, found = False, None
    for step in range(1, num_steps + 1):
        try:
            found = expectation(engine, objective.model(theta), draws, objective.statistics)
        except SamplingError as error:
            settled = False
            return end(FitStatus.DIVERGED, best[1], error)
        misfit = objective.misfit(found, theta)
        damping = _damping(objective, found, theta, damping, misfit, best[0])
        if misfit > BETTER * best[0] and step > 1:  # no progress: expectations are too noisy for this step
            draws = max(draws, min(MAX_UNSETTLED, 2 * draws))
        if damping and misfit > WORSE * best[0]:
            theta, best = best[1], (WORSE * best[0], best[1])
            engine.warm_up(objective.model(theta), WARM_UP)
            continue
        best = min(best, (misfit, theta), key=lambda pair: pair[0])
        solved = objective.solve(found, theta, damping)
        if damping == 0 and solved.singular:
            notes.append("The Fisher matrix was singular in a step: a ridge of 1e-8 was added.")
        move = _shortened(objective, found, theta, solved.theta - theta)
        statistical, monte_carlo = objective.errors(found, solved)
        free = solved.free & (monte_carlo > 0)
        distance = float(np.mean((move[free] / monte_carlo[free]) ** 2)) if free.any() else 0.0
        share = float(np.sqrt(np.mean((monte_carlo[free] / statistical[free]) ** 2))) if free.any() else 0.0
        errors = np.where(solved.free, np.hypot(statistical, monte_carlo), np.nan)
        theta = objective.inside(theta, move)
        numbers = {"misfit": misfit, "step_over_noise": np.sqrt(distance), "noise_over_error": share}
        if record is not None:
            record(step, theta, numbers | {"damping": damping, "draws": draws * engine.num_chains})
        settled = damping == 0 and distance <= WITHIN_NOISE
        if settled and share <= noise:
            return end(FitStatus.CONVERGED, theta)
        if interrupts is not None and interrupts.asked:
            return end(FitStatus.INTERRUPTED, theta)
        if settled:  # the noise falls as 1/√draws
            draws = int(min(most_draws, draws * np.clip((1.2 * share / noise) ** 2, 1, 8)))
    return end(FitStatus.MAX_STEPS, theta)


def _damping(
    objective: Objective, found: Expectation, theta, before: float | None, misfit: float, best: float
) -> float:
    """μ of a step with G + μ Var(T): none where Newton's step is short, less after success, more after failure."""
    move = objective.solve(found, theta, 0.0).theta - theta
    if move @ (found.fisher @ move) <= MAX_STEP and misfit <= best * WORSE:
        return 0.0
    if before is None:
        return 1.0
    return max(before, 1e-3) * 4 if misfit > WORSE * best else max(before / 2, 1e-3)


def _shortened(objective: Objective, found: Expectation, theta, move) -> np.ndarray:
    """The move; a long one may halve a quartic coupling but not bring it to 0: fields spread out, steps lead nowhere."""
    falling = objective.bounded & (move < -theta / 2) & (theta > 0)
    if not falling.any() or move @ (found.fisher @ move) <= SHORT_STEP:
        return move
    return move * np.min(-theta[falling] / (2 * move[falling]))
