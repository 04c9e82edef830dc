"""The pseudo-likelihood in place of the likelihood, as it stands or with mode and curvature of the likelihood.

log PL(θ) = Σ_n Σ_i log p(φ_i | rest of φ_n; θ) needs no log Z, and is not the likelihood: sites are not independent data,
so its maximum is another one and its width too small or too large. Corrected is PL(θ̂_PL + W(θ − θ̂)), with θ̂_PL and H_PL its own
mode and curvature, θ̂ and H those of the likelihood, which a simulation gives, and WᵀH_PL W = H.

Source: L. Bouranis, N. Friel and F. Maire, J. Comput. Graph. Stat. 27 (2018) 516. Of the matrices W the symmetric one is taken.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..errors import ArgumentError, stream_key
from ..learning.expectation import Expectation, expectation
from ..learning.history import FitStatus
from ..learning.pseudolikelihood import SMALL_STEP, Objective, newton
from ..model.coupling_vector import CouplingVector
from ..sampling.engine import Engine
from .coupling_problem import CouplingProblem
from .mode import NUM_CHAINS, find_mode
from .polynomial import LocalPolynomial

__all__ = ["PseudoLikelihood", "Quadratic", "affine_map", "simulated_likelihood"]

RADII = (6.0, 5.0, 4.0, 3.0)  # standard deviations over which log PL is interpolated, as far as it can be
TOLERANCE = 0.02  # of the interpolated log pseudo-likelihood
NEWTON_STEPS = 50
DRAWS, MAX_DRAWS = 400, 16_000  # of a chain in the simulation that corrects
MAX_NOISE = 0.05  # posterior standard deviations, of the mode that it finds
MAX_FAR = 1.0  # of these from the point of the simulation to that mode
MAX_SIMULATIONS = 4


class Quadratic(NamedTuple):
    """The maximum of a log likelihood and minus its second derivatives there."""

    theta: np.ndarray
    precision: np.ndarray


class PseudoLikelihood:
    """−log PL of the couplings of a problem, its priors aside."""

    def __init__(self, problem: CouplingProblem):
        vector = CouplingVector.of(problem.model)
        self.count, self._start, self._bounded = problem.count, problem.start, problem.vector.bounded
        self._all = vector.flatten(problem.model.couplings)
        self._free = [vector.slices[name].start for name in problem.names]
        self._objective = Objective(vector, np.asarray(problem.data, float).reshape(problem.count, -1))

    def derivatives(self, theta) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, gradient and matrix of second derivatives."""
        value, slope, hessian = self._objective(self._full(theta))
        block = hessian.tocsc()[self._free][:, self._free].toarray()
        return self.count * value, self.count * slope[self._free], self.count * block

    def _full(self, theta) -> np.ndarray:
        full = self._all.copy()
        full[self._free] = theta
        return full

    def mode(self) -> Quadratic:
        """The minimum, which has to be one of a smooth function: not at the bound of a quartic coupling."""
        small = SMALL_STEP * len(self._free)
        theta, solved, status = newton(self.derivatives, self._start, self._bounded, small, NEWTON_STEPS)
        if status is FitStatus.CONVERGED and solved.free.all() and not solved.singular:
            hessian = self.derivatives(theta)[2]
            if np.linalg.eigvalsh(hessian)[0] > 0:
                return Quadratic(theta, hessian)
        mend = (
            "The data do not settle these couplings without log Z: normalizer='surface' or 'exchange' needs no maximum."
        )
        got = "none, or one where a quartic coupling is zero"
        raise ArgumentError("data", "fields whose pseudo-likelihood has a maximum", got, mend)

    def around(self, mode: Quadratic) -> tuple[LocalPolynomial, np.ndarray]:
        """cost(z) = −log PL(θ̂_PL + Lz) up to a constant, for JAX, and L: in z the curvature at the mode is one."""
        scale = np.linalg.inv(np.linalg.cholesky(mode.precision)).T
        self.derivatives(mode.theta)  # settles the nodes of quadratures
        lowest = self._objective.value(self._full(mode.theta))

        def cost(z) -> float:
            return self.count * (self._objective.value(self._full(mode.theta + scale @ z)) - lowest)

        for radius in RADII:
            found = LocalPolynomial(cost, len(self._free), radius)
            if found.error < TOLERANCE:
                return found, scale
        mend = "Use more fields, or normalizer='surface' or 'exchange'."
        got = "a pseudo-likelihood that is far from a Gaussian"
        raise ArgumentError("data", "fields that settle the couplings", got, mend)


def affine_map(own: Quadratic, other: Quadratic) -> np.ndarray:
    """The symmetric W with WᵀH W = H′, H of ``own`` and H′ of ``other``.

    Examples
    --------
    >>> import numpy as np
    >>> own, other = Quadratic(np.zeros(2), np.diag([4.0, 1.0])), Quadratic(np.zeros(2), np.eye(2))
    >>> affine_map(own, other).tolist()
    [[0.5, 0.0], [0.0, 1.0]]
    """
    half = _root(own.precision)
    back = np.linalg.inv(half)
    return back @ _root(half @ other.precision @ half) @ back


def _root(matrix) -> np.ndarray:
    values, basis = np.linalg.eigh((matrix + matrix.T) / 2)
    return basis * np.sqrt(np.maximum(values, 0.0)) @ basis.T


def simulated_likelihood(problem: CouplingProblem, start, seed: int) -> tuple[Quadratic, float, tuple[str, ...]]:
    """Mode and curvature of the likelihood by simulation, from couplings ``start``; its noise; and warnings.

    The noise is a standard error of the mode in posterior standard deviations, the largest along any direction.
    """
    problem = problem.flat
    found = find_mode(problem, start, seed)
    theta = found.theta
    ensemble = Engine(problem.at(theta), num_chains=NUM_CHAINS, key=stream_key(seed, "simulated likelihood"))
    ensemble.warm_up(problem.at(theta), 300)
    for _ in range(MAX_SIMULATIONS):
        drawn = _precise_expectation(problem, ensemble, theta)
        move = np.linalg.solve(drawn.fisher, drawn.mean - problem.statistics.mean(axis=0))
        theta = problem.inside(theta, move)
        if problem.count * move @ drawn.fisher @ move < MAX_FAR**2:
            break
    return Quadratic(theta, problem.count * drawn.fisher), _noise(problem, drawn), found.warnings


def _precise_expectation(problem: CouplingProblem, engine: Engine, theta) -> Expectation:
    """From as many draws as the noise asks for."""
    model, found = problem.at(theta), None
    while found is None or (found.num_draws < MAX_DRAWS and _noise(problem, found) >= MAX_NOISE):
        new = expectation(engine, model, DRAWS, problem.statistics_of)
        found = new if found is None else found.joined(new)
    return found


def _noise(problem: CouplingProblem, found: Expectation) -> float:
    """Of the mode, from the spread of the chains: in units where the posterior's covariance, (n G)⁻¹, is one."""
    scaled = np.linalg.solve(np.linalg.cholesky(found.fisher), found.chain_deviations.T)
    spread = problem.count * scaled @ scaled.T / (NUM_CHAINS * (NUM_CHAINS - 1))
    return float(np.sqrt(np.linalg.eigvalsh(spread)[-1]))
