"""The pseudo-likelihood in place of the likelihood, uncorrected or with the mode and curvature of the likelihood.

log PL(θ) = Σ_n Σ_i log p(φ_i | rest of φ_n; θ) needs no log Z, and is not the likelihood: sites are not independent data,
so its maximum differs and its width is too small or too large. The corrected form is PL(θ̂_PL + W(θ − θ̂)), with θ̂_PL and
H_PL its mode and curvature, θ̂ and H those of the likelihood, which a simulation gives, and WᵀH_PL W = H.

Source: L. Bouranis, N. Friel and F. Maire, J. Comput. Graph. Stat. 27 (2018) 516. Of the matrices W the symmetric one is taken.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..errors import ArgumentError
from ..learning.history import FitStatus
from ..learning.pseudolikelihood import SMALL_STEP, Objective, newton
from ..model.coupling_vector import CouplingVector
from .coupling_problem import CouplingProblem
from .mode import find_mode
from .polynomial import LocalPolynomial

__all__ = ["PseudoLikelihood", "Quadratic", "affine_map", "simulated_likelihood"]

RADII = (6.0, 5.0, 4.0, 3.0)  # standard deviations over which log PL is interpolated, as far as it can be
TOLERANCE = 0.02  # of the interpolated log pseudo-likelihood
NEWTON_STEPS = 50
MAX_DRAWS = 16_000  # per chain in one step of the simulation that corrects
MAX_NOISE = 0.05  # posterior standard deviations, of the mode that it finds


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
        """The minimum, which must be interior: not at the bound of a quartic coupling."""
        small = SMALL_STEP * len(self._free)
        theta, solved, status = newton(self.derivatives, self._start, self._bounded, small, NEWTON_STEPS)
        if status is FitStatus.CONVERGED and solved.free.all() and not solved.singular:
            hessian = self.derivatives(theta)[2]
            if np.linalg.eigvalsh(hessian)[0] > 0:
                return Quadratic(theta, hessian)
        fix = "The data do not determine these couplings without log Z: normalizer='surface' or 'exchange' needs no maximum."
        got = "none, or one where a quartic coupling is zero"
        raise ArgumentError("data", "fields whose pseudo-likelihood has a maximum", got, fix, reason="no_maximum")

    def around(self, mode: Quadratic) -> tuple[LocalPolynomial, np.ndarray]:
        """cost(z) = −log PL(θ̂_PL + Lz) up to a constant, for JAX, and L: in z the curvature at the mode is one."""
        scale = np.linalg.inv(np.linalg.cholesky(mode.precision)).T
        self.derivatives(mode.theta)  # fixes the nodes of quadratures
        lowest = self._objective.value(self._full(mode.theta))

        def cost(z) -> float:
            return self.count * (self._objective.value(self._full(mode.theta + scale @ z)) - lowest)

        for radius in RADII:
            found = LocalPolynomial(cost, len(self._free), radius)
            if found.error < TOLERANCE:
                return found, scale
        fix = "Use more fields, or normalizer='surface' or 'exchange'."
        got = "a pseudo-likelihood that is far from a Gaussian"
        raise ArgumentError("data", "fields that determine the couplings", got, fix, reason="undetermined")


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
    found = find_mode(problem.flat, start, seed, noise=MAX_NOISE, most_draws=MAX_DRAWS)
    return Quadratic(found.theta, np.linalg.inv(found.covariance)), found.noise, found.warnings
