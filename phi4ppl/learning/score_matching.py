"""Score matching: couplings from data by one linear solve, without Z.

The objective (A. Hyvärinen, J. Mach. Learn. Res. 6 (2005) 695)

    J(θ) = E_data[½|∇S|² − ΔS] = ½ θᵀAθ − bᵀθ,    A = E[Σ_i g_i g_iᵀ],    b = E[Σ_i ∂²T/∂φ_i²],    g_i = ∂T/∂φ_i,

has its minimum, for plenty of data from the family, at the true couplings. A couples only cliques that share a site.
"""

from __future__ import annotations

import numpy as np

from .estimate import Estimate, Problem
from .history import FitStatus
from .local import LocalStructure
from .ridge import cross_validated, penalty, sandwich_errors, solve, tie

__all__ = ["fit_score_matching", "hyvarinen_scores"]


def fit_score_matching(problem: Problem) -> Estimate:
    """The minimum of J with its sandwich errors; see `phi4ppl.fit_likelihood`."""
    structure = LocalStructure(problem.vector)
    halves = _normal_equations(structure, problem.data)
    num_samples = problem.num_samples
    matrix = sum(a for a, _ in halves) / num_samples
    right = sum(b for _, b in halves) / num_samples
    tied, wide, bounded = tie(problem.vector), problem.wide, problem.bounded
    one_a_term = solve(tied.T @ matrix @ tied, tied.T @ right, (tied.T @ bounded) > 0)
    centre = tied @ one_a_term.theta
    problem.history.add(centre, _numbers(matrix, right, centre))
    strength, notes = problem.ridge, []
    if strength is None:
        strength, notes = _automatic(problem, halves, centre)
    regularised = matrix + penalty(matrix, strength, wide)
    solved = solve(regularised, right + penalty(matrix, strength, wide) @ centre, bounded)
    theta = solved.theta
    problem.history.add(theta, _numbers(matrix, right, theta))
    scores = (_scores(structure, problem.data[part], theta) for part in structure.chunks(num_samples))
    errors = sandwich_errors(solved.inverse, solved.free, scores, num_samples)
    if solved.singular:
        notes.append(
            "The data do not determine all couplings: the normal equations are singular, and a ridge of 1e-8 was added."
        )
    return Estimate(theta, errors, FitStatus.CONVERGED, float(strength), tuple(notes))


def hyvarinen_scores(vector, data, theta) -> np.ndarray:
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


def _automatic(problem: Problem, halves, centre) -> tuple[float, list[str]]:
    """No ridge for more samples than couplings; else the one with the best score on the other half of the data."""
    if problem.num_samples >= problem.vector.size or not problem.wide.any():
        return 0.0, []
    counts = problem.num_samples // 2, problem.num_samples - problem.num_samples // 2
    quadratic = [(a / n, (a @ centre - b) / n) for (a, b), n in zip(halves, counts, strict=True)]
    strength = cross_validated(quadratic, problem.wide)
    note = (
        f"{problem.num_samples} samples for {problem.vector.size} couplings: a ridge towards homogeneous couplings of "
        f"relative strength {strength:.2g}, chosen by the score of each half of the data on the other."
    )
    return strength, [note]


def _scores(structure: LocalStructure, data, theta) -> np.ndarray:
    """Gradient of ½|∇S|² − ΔS by the couplings, of every sample, shape ``(size, num_samples)``."""
    first, second = structure.derivatives(data)
    force = structure.on_sites(first * theta[structure.coupling, None])
    return structure.on_couplings(first * force[structure.site] - second)


def _numbers(matrix, right, theta) -> dict:
    return {"objective": 0.5 * theta @ (matrix @ theta) - right @ theta}
