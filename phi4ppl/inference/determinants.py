"""log Z of a Gaussian field at every step of NUTS, for priors of several couplings that reach where Z is infinite."""

from __future__ import annotations

from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from ..energy.exact.gaussian import sparse_gaussian
from ..errors.streams import stream_key
from .coupling_problem import CouplingProblem, slope
from .log_z import LogZ, Unaffordable

__all__ = ["Determinants"]

LARGEST = 2048  # sites, of which the matrices are diagonalized within seconds
COMMUTING = 1e-9  # of the largest entry: what may be left beside the diagonals
DRAWS = 300  # of the priors, among which the search for the mode starts


class Determinants(LogZ):
    """log Z = Σ_k (log 2π − log λ_k + s_k²/λ_k)/2 in a basis that diagonalizes the precision at all couplings.

    λ_k and s_k, the eigenvalues and the source in that basis, are linear in the couplings. No box around the posterior is
    needed, so the couplings may lie next to a surface of any direction at which Z is infinite. The likelihood vanishes there
    like λ_k to half the number of fields; below a share of λ_k at the mode that has next to no mass, the less steep `slope`
    stands in its place, which turns trajectories of NUTS around.

    Attributes
    ----------
    mean, covariance : arrays
        The mode of the posterior, and its covariance there.

    Raises
    ------
    Unaffordable
        If the field is not Gaussian, too large, or has no such basis.
    """

    name, how = "exact", "exact log Z of a Gaussian field, at every step"
    numerical, stopped, surface = 0.0, "", None

    def __init__(self, problem: CouplingProblem):
        n, number = problem.model.lattice.num_sites, len(problem.names)
        if not all(form.is_gaussian for form in problem.model.forms) or n > LARGEST:
            raise Unaffordable("model", f"a Gaussian field of at most {LARGEST} sites", repr(problem.model))
        self.problem, self._mean = problem, problem.statistics.mean(axis=0)
        parts = [sparse_gaussian(problem.at(theta)) for theta in np.vstack([np.zeros(number), np.eye(number)])]
        matrices = [parts[0][0].toarray(), *((matrix - parts[0][0]).toarray() for matrix, _ in parts[1:])]
        sources = np.array([parts[0][1], *(source - parts[0][1] for _, source in parts[1:])])
        _, axes = np.linalg.eigh(sum(np.cos(k) * matrix for k, matrix in enumerate(matrices)))  # of any combination
        turned = np.array([axes.T @ matrix @ axes for matrix in matrices])
        self._levels, self._sources = np.diagonal(turned, axis1=1, axis2=2).copy(), sources @ axes
        left = turned - self._levels[:, None] * np.eye(n)
        if np.abs(left).max() > COMMUTING * np.abs(turned).max():
            raise Unaffordable("model", "terms whose matrices commute", repr(problem.model))
        self.mean = self._mode()

    @property
    def likelihood(self) -> Determinants:
        return self

    def __call__(self, thetas):
        thetas = np.asarray(thetas, float)
        levels, sources = (rows[0] + thetas @ rows[1:] for rows in (self._levels, self._sources))
        finite = np.all(levels > 0, axis=1)
        safe = np.where(finite[:, None], levels, 1.0)
        values = 0.5 * np.sum(np.log(2 * np.pi) - np.log(safe) + sources**2 / safe, axis=1)
        return np.where(finite, values, np.inf), 0.0

    def _energy(self, thetas: np.ndarray) -> np.ndarray:
        """−log posterior up to a constant."""
        likelihood = self.problem.count * (thetas @ self._mean + self(thetas)[0])
        return likelihood - self.problem.log_prior(thetas)

    def _mode(self) -> np.ndarray:
        from scipy.optimize import minimize

        problem = self.problem
        keys = jax.random.split(stream_key(0, "starts"), len(problem.names))
        draws = [np.asarray(p.sample(k, (DRAWS,)), float) for p, k in zip(problem.priors.values(), keys, strict=True)]
        starts = np.vstack([problem.start, np.stack(draws, axis=1)])
        energies = self._energy(starts)
        spread = np.std(starts[np.isfinite(energies)], axis=0) + 1e-3 * (1 + np.abs(problem.start))
        best = starts[np.argsort(energies)[0]]
        for _ in range(3):  # a simplex may collapse at a surface of infinite energy
            simplex = np.vstack([best, best + 0.1 * np.diag(spread)])
            options = {"initial_simplex": simplex, "xatol": 1e-6, "fatol": 1e-6, "maxiter": 1000}
            best = minimize(lambda x: float(self._energy(x[None])[0]), best, method="Nelder-Mead", options=options).x
        return best

    @cached_property
    def covariance(self) -> np.ndarray:
        with jax.enable_x64(True):
            curvature = np.asarray(jax.hessian(self.cost)(jnp.asarray(self.mean)), float)
        return np.linalg.inv(curvature + np.diag(self.problem.prior_slope(self.mean)[1]))

    def cost(self, theta):
        """−log p(data | θ) + log p(data | mode) for JAX."""
        at_mode = self._levels[0] + self.mean @ self._levels[1:]
        source = self._sources[0] + self.mean @ self._sources[1:]
        rates, rows, squares = self._levels[1:] / at_mode, self._sources[1:], source**2 / at_mode
        constants = (self.mean, rates, rows, source, at_mode, squares, self._mean)
        mean, rates, rows, source, at_mode, squares, pull = (jnp.asarray(each, theta.dtype) for each in constants)
        away = theta - mean
        ratio = 1 + away @ rates
        room = self.problem.clearance
        near = jnp.maximum(ratio, room)
        log_ratio = jnp.log(near) - slope((near - ratio) / room)
        from_source = (source + away @ rows) ** 2 / (near * at_mode) - squares
        return self.problem.count * (pull @ away + 0.5 * jnp.sum(from_source - log_ratio))
