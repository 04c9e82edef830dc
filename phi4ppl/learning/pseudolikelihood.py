"""Pseudo-likelihood: couplings under which every site is likely given the rest.

The objective (J. Besag, J. R. Stat. Soc. B 36 (1974) 192)

    J(θ) = −E_data Σ_i log p(φ_i | rest; θ) = E_data Σ_i [Σ_k θ_k t_k(φ_i) + log ∫ exp(−Σ_k θ_k t_k(x)) dx]

is convex: its gradient has t_k(φ_i) − ⟨t_k⟩_i and its Hessian the covariances of the t_k, both by one-dimensional quadrature.
Newton's method needs a few steps; its matrix couples only cliques that share a site.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..model.coupling_vector import CouplingVector
from ..sampling.interrupt import Interrupts
from .conditionals import conditional_of
from .history import FitStatus
from .local import LocalStructure
from .methods import PseudoLikelihood
from .problem import Estimate, Problem
from .ridge import Solved, cross_validated, penalty, sandwich_errors, solve
from .score_matching import starting_point

__all__ = ["SMALL_STEP", "Objective", "fit_pseudolikelihood", "newton"]

SMALL_STEP = 1e-6  # of Newton's method: its square in units of standard errors, a coupling
MAX_HALVINGS = 30
ROUNDING = 1e-6  # of J in single precision


class Objective:
    """J and its derivatives."""

    def __init__(self, vector: CouplingVector, data):
        self.structure, self.data = LocalStructure(vector), data
        self.conditional = conditional_of(self.structure, data)

    def _pieces(self):
        half, size = len(self.data) // 2, self.conditional.chunk
        for number, (start, stop) in enumerate(((0, half), (half, len(self.data)))):
            for first in range(start, stop, size):
                yield number, self.data[first : min(first + size, stop)]

    def halves(self, theta) -> list[list]:
        """Value, gradient and Hessian of each half of the data, summed over its samples."""
        sums = self._pass(theta)
        while self.conditional.refined():
            sums = self._pass(theta)
        return sums

    def _pass(self, theta) -> list[list]:
        self.conditional.forget()
        sums, self._observed = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], 0.0
        for number, fields in self._pieces():
            found = self.conditional(fields, theta)
            observed = self.structure.on_couplings(found.observed.sum(axis=1))
            slope = observed - self.structure.on_couplings(found.mean.sum(axis=1))
            new = theta @ observed + found.log_normalizer.sum(), slope, self.structure.matrix(found.covariance)
            self._observed = self._observed + observed  # type: ignore[assignment]
            sums[number] = [old + more for old, more in zip(sums[number], new, strict=True)]
        return sums

    def __call__(self, theta) -> tuple:
        """Value, gradient and Hessian, averaged over all samples."""
        return tuple((one + two) / len(self.data) for one, two in zip(*self.halves(theta), strict=True))

    def value(self, theta) -> float:
        """J alone, much faster; it uses the nodes of the last call for derivatives."""
        normalizers = sum(self.conditional.log_normalizer(fields, theta).sum() for _, fields in self._pieces())
        return float(theta @ self._observed + normalizers) / len(self.data)

    def scores(self, theta):
        """Gradients of single samples, in pieces ``(size, samples)``."""
        for _, fields in self._pieces():
            found = self.conditional(fields, theta)
            yield self.structure.on_couplings(found.observed - found.mean)


def fit_pseudolikelihood(problem: Problem, method: PseudoLikelihood, seed: int) -> Estimate:
    """The minimum of J with its sandwich errors; see `phi4ppl.fit_likelihood`."""
    objective = Objective(problem.vector, problem.data)
    theta, center = starting_point(problem)
    strength, notes = problem.ridge, []
    with Interrupts() as interrupts:
        if strength is None and problem.is_short:
            strength = _automatic(problem, objective, center)
            notes.append(problem.ridge_note(strength))
        strength = strength or 0.0
        pull = penalty(objective(center)[2], strength, problem.wide) if strength else None

        def pulled(theta):
            value, slope, hessian = objective(theta)
            if pull is None:
                return value, slope, hessian
            away = theta - center
            return value + 0.5 * away @ (pull @ away), slope + pull @ away, hessian + pull

        def report(step, theta, value, decrement) -> bool:
            problem.tell(step, method.num_steps, f"pseudo-likelihood, Newton decrement {decrement:.2g}")
            problem.history.add(theta, {"objective": value, "newton_decrement": decrement})
            return interrupts.asked

        small = SMALL_STEP * problem.vector.size / problem.num_samples
        theta, solved, status = newton(pulled, theta, problem.bounded, small, method.num_steps, report)
    errors = sandwich_errors(solved.inverse, solved.free, objective.scores(theta), problem.num_samples)
    if solved.singular:
        notes.append("The data do not determine all couplings: the Hessian is singular, and a ridge of 1e-8 was added.")
    return Estimate(theta, errors, status, float(strength), tuple(notes))


def _automatic(problem: Problem, objective: Objective, center) -> float:
    counts = problem.num_samples // 2, problem.num_samples - problem.num_samples // 2
    halves = objective.halves(center)
    quadratic = [(hessian / n, slope / n) for (_, slope, hessian), n in zip(halves, counts, strict=True)]
    return cross_validated(quadratic, problem.wide)


def newton(
    function: Callable, theta, bounded, small: float, num_steps: int, report: Callable | None = None
) -> tuple[np.ndarray, Solved, FitStatus]:
    """Minimum of a convex function with θ ≥ 0 where ``bounded``: Newton's method, with steps halved while it would rise.

    Parameters
    ----------
    function : callable
        ``function(theta)``: value, gradient and Hessian.
    theta : array, shape (size,)
        Where to start.
    bounded : bool array, shape (size,)
    small : float
        The Newton decrement −gᵀΔθ at which the search has converged.
    num_steps : int
    report : callable, optional
        ``report(step, theta, value, decrement)``, called before every step; the search stops where it returns True.

    Returns
    -------
    theta : array
    solved : Solved
        Of the last step: which couplings are not at their bound, and the inverse of the Hessian on these.
    status : FitStatus
    """
    value, slope, hessian = function(theta)
    for step in range(1, num_steps + 1):
        solved = solve(hessian, hessian @ theta - slope, bounded)
        move = solved.theta - theta
        decrement = max(-slope @ move, 0.0)
        stop = report is not None and report(step, theta, value, decrement)
        if decrement <= small:
            return solved.theta, solved, FitStatus.CONVERGED
        if stop:
            return theta, solved, FitStatus.INTERRUPTED
        for halvings in range(MAX_HALVINGS):
            trial = theta + 0.5**halvings * move
            found = function(trial)
            if found[0] <= value + ROUNDING * abs(value):
                break
        else:
            return theta, solved, FitStatus.DIVERGED
        theta, (value, slope, hessian) = trial, found
    return theta, solved, FitStatus.MAX_STEPS
