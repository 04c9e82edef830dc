"""Score matching: couplings from data by one linear solve, without Z.

The objective (A. Hyvärinen, J. Mach. Learn. Res. 6 (2005) 695)

    J(θ) = E_data[½|∇S|² − ΔS] = ½ θᵀAθ − bᵀθ,    A = E[Σ_i g_i g_iᵀ],    b = E[Σ_i ∂²T/∂φ_i²],    g_i = ∂T/∂φ_i,

has its minimum, for plenty of data from the family, at the true couplings. A couples only cliques that share a site.
"""

from __future__ import annotations

import numpy as np

from .._typing import FlatFields, OneTheta, PerSample
from ..model.coupling_vector import CouplingVector
from .history import FitStatus
from .local import LocalStructure
from .methods import ScoreMatching
from .problem import Estimate, Problem
from .ridge import Solved, cross_validated, penalty, sandwich_errors, solve, tie

__all__ = ["fit_score_matching", "hyvarinen_scores", "starting_point"]


def fit_score_matching(problem: Problem, method: ScoreMatching, seed: int) -> Estimate:
    """The minimum of J with its sandwich errors; see `phi4ppl.fit_likelihood`."""
    equations = _Equations(problem)
    center = equations.homogeneous()
    problem.history.add(center, {"objective": equations.objective(center)})
    strength = equations.strength(center)
    solved = equations.solve(strength, center)
    theta = solved.theta
    problem.history.add(theta, {"objective": equations.objective(theta)})
    structure = equations.structure
    scores = (_scores(structure, problem.data[part], theta) for part in structure.chunks(problem.num_samples))
    errors = sandwich_errors(solved.inverse, solved.free, scores, problem.num_samples)
    notes = [problem.ridge_note(strength)] if strength and problem.ridge is None else []
    if solved.singular:
        notes.append(
            "The data do not determine all couplings: the normal equations are singular, and a ridge of 1e-8 was added."
        )
    return Estimate(theta, errors, FitStatus.CONVERGED, float(strength), tuple(notes))


def starting_point(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Where other methods start, and the homogeneous couplings of its ridge: both by score matching.

    Couplings that make no density are replaced by homogeneous ones, and these by those of the user's model.
    """
    equations = _Equations(problem)
    center = equations.homogeneous()
    if problem.start is not None:
        return problem.start, center
    own = problem.vector.flatten(problem.vector.template.couplings)
    for theta in (equations.solve(equations.strength(center), center).theta, center, own):
        if problem.vector.model(theta).check().is_normalizable:
            return theta, center
    return own, center


class _Equations:
    """The normal equations Aθ = b of each half of the data."""

    def __init__(self, problem: Problem):
        self.problem, self.structure = problem, LocalStructure(problem.vector)
        self.halves = _normal_equations(self.structure, problem.data)
        self.matrix = sum(a for a, _ in self.halves) / problem.num_samples
        self.right = sum(b for _, b in self.halves) / problem.num_samples

    def objective(self, theta) -> float:
        return 0.5 * theta @ (self.matrix @ theta) - self.right @ theta

    def homogeneous(self) -> np.ndarray:
        """The best couplings that are equal in every term."""
        tied = tie(self.problem.vector)
        found = solve(tied.T @ self.matrix @ tied, tied.T @ self.right, (tied.T @ self.problem.bounded) > 0)
        return tied @ found.theta

    def strength(self, center) -> float:
        """The ridge: as asked for; else none for enough samples, or the one with the best score on the other half."""
        problem = self.problem
        if problem.ridge is not None or not problem.is_short:
            return problem.ridge or 0.0
        counts = problem.num_samples // 2, problem.num_samples - problem.num_samples // 2
        quadratic = [(a / n, (a @ center - b) / n) for (a, b), n in zip(self.halves, counts, strict=True)]
        return cross_validated(quadratic, problem.wide)

    def solve(self, strength: float, center) -> Solved:
        pull = penalty(self.matrix, strength, self.problem.wide)
        return solve(self.matrix + pull, self.right + pull @ center, self.problem.bounded)


def hyvarinen_scores(vector: CouplingVector, data: FlatFields, theta: OneTheta) -> PerSample:
    """½|∇S|² − ΔS of every field; ``data`` has shape ``(num_samples, num_sites)``."""
    structure = LocalStructure(vector)
    found = []
    for part in structure.chunks(len(data)):
        first, second = structure.derivatives(data[part])
        force = structure.on_sites(first * theta[structure.coupling, None])
        found.append(0.5 * (force**2).sum(axis=0) - theta[structure.coupling] @ second)
    return np.concatenate(found)


def _normal_equations(structure: LocalStructure, data) -> list[tuple]:
    """Σ over samples of Σ_i g_i g_iᵀ and of Σ_i ∂²T/∂φ_i², of the first and the second half of the data."""
    half = len(data) // 2
    halves = []
    for inside in (lambda part: part.stop <= half, lambda part: part.start >= half):
        blocks, right = None, np.zeros(structure.vector.size)
        for part in filter(inside, structure.chunks(len(data))):
            first, second = structure.derivatives(data[part])
            new = structure.products(first)
            blocks = new if blocks is None else [a + b for a, b in zip(blocks, new, strict=True)]
            right += structure.on_couplings(second.sum(axis=1))
        halves.append((structure.matrix(blocks), right))
    return halves


def _scores(structure: LocalStructure, data, theta) -> np.ndarray:
    """Gradient of ½|∇S|² − ΔS by the couplings, of every sample, shape ``(size, num_samples)``."""
    first, second = structure.derivatives(data)
    force = structure.on_sites(first * theta[structure.coupling, None])
    return structure.on_couplings(first * force[structure.site] - second)
