"""Sufficient statistics of several ensembles of one family, and log Z between and around them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .._typing import PerPoint, Statistics, Theta
from ..analysis.gamma_method import gamma_method
from ..analysis.mbar import MbarSolution, solve_mbar

__all__ = ["Pool"]

IN_CACHE = 2**16  # numbers
MIN_TAUS = 20  # autocorrelation times per chain; with so many, errors come out too small by a third at most


@dataclass(frozen=True, eq=False)
class Pool:
    """Draws of K ensembles at couplings θ_k, reduced to the statistics T conjugate to the couplings.

    Attributes
    ----------
    couplings : array, shape (ensembles, dimensions)
    statistics : sequence of arrays, one per ensemble, each of shape (chains, draws, dimensions)
        One array with a leading axis where all ensembles are of the same size.
    """

    couplings: np.ndarray
    statistics: Sequence[np.ndarray] | np.ndarray

    def with_ensemble(self, theta, statistics) -> Pool:
        """The pool with one more ensemble of the same size."""
        return Pool(np.vstack([self.couplings, theta]), np.concatenate([self.statistics, statistics[None]]))

    def joined(self, other: Pool) -> Pool:
        """The ensembles of both pools, those of this one first."""
        return Pool(np.vstack([self.couplings, other.couplings]), [*self.statistics, *other.statistics])

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """Draws of every ensemble, those of all chains together."""
        return np.array([each.shape[0] * each.shape[1] for each in self.statistics], float)

    @functools.cached_property
    def flat(self) -> Statistics:
        """All statistics, shape (samples, dimensions)."""
        return np.concatenate([each.reshape(-1, each.shape[-1]) for each in self.statistics])

    @functools.cached_property
    def solution(self) -> MbarSolution:
        """log Z of the ensembles relative to the first, and the mixture that the samples come from."""
        return solve_mbar(self.couplings @ self.flat.T, self.counts)

    def log_partition(self, thetas: Theta) -> PerPoint:
        """log Z(θ) − log Z(θ_1) for every row of ``thetas``."""
        return np.concatenate([top + np.log(weights.sum(axis=1)) for top, weights in self._weights(thetas)])

    def overlap(self, thetas: Theta) -> PerPoint:
        """Effective samples that the pool has for each θ, as a fraction of the draws of the smallest ensemble."""
        effective = [w.sum(axis=1) ** 2 / np.einsum("ij,ij->i", w, w) for _, w in self._weights(thetas)]
        return np.concatenate(effective) / self.counts.min()

    def _weights(self, thetas):
        """Largest log weight of all samples at each θ, and their weights relative to it; a few θ at a time, as fit a cache."""
        thetas = np.atleast_2d(thetas)
        rows = max(1, IN_CACHE // len(self.flat))
        for start in range(0, len(thetas), rows):
            log_weights = -thetas[start : start + rows] @ self.flat.T - self.solution.log_mixture
            top = log_weights.max(axis=1)
            log_weights -= top[:, None]
            yield top, np.exp(log_weights, out=log_weights)

    def error(self, theta, other=None) -> float:
        """Standard error of log Z(θ) − log Z(other), by default to the first ensemble's θ_1."""
        ends = np.stack([theta, self.couplings[0] if other is None else other])
        return float(self.errors(ends, [[1.0, -1.0]])[0])

    def errors(self, thetas, coefficients) -> np.ndarray:
        """Standard errors of Σ_j c_ij (log Z(θ_j) − log Z(θ_1)), one per row of ``coefficients``, shape (sums, thetas).

        To first order in their noise these sums are Σ_n ψ_i(φ_n) over the pooled samples. With w_θ(n) = exp(−θ·T_n)/(Z(θ) D_n)
        the weight of a sample, D_n the mixture, N_k the draws of ensemble k and O = Σ_n w_θ(n) w_k(n),

            ψ_i(n) = Σ_j c_ij w_j(n) + Σ_k v_ik w_k(n),   v (1 − O N) = c O N,

        the second sum from the noise of the log Z_k. The variance of ψ in each ensemble is that of the Γ-method, so
        autocorrelation of the draws is in the error.
        """
        series = self._influence(np.atleast_2d(thetas), np.atleast_2d(np.asarray(coefficients, float)))
        total, first = 0.0, 0
        for each, count in zip(self.statistics, self.counts, strict=True):
            own = series[first : first + int(count)].reshape(*each.shape[:2], -1)
            total = total + (count * gamma_method(own).error) ** 2
            first += int(count)
        return np.sqrt(total)

    def _influence(self, thetas, coefficients) -> np.ndarray:
        """ψ_i(n) of `errors` up to a constant for each ensemble, shape (samples, sums)."""
        direct = np.zeros((len(self.flat), len(coefficients)))
        shared = np.zeros((len(coefficients), len(self.couplings)))
        own, first = self._own_weights, 0
        for _, weights in self._weights(thetas):
            weights /= weights.sum(axis=1, keepdims=True)
            part = coefficients[:, first : first + len(weights)]
            direct += weights.T @ part.T
            shared = shared + part @ (weights @ own)
            first += len(weights)
        if len(self.couplings) == 1:
            return direct
        # log Z_1 is zero by definition: the equations of the others
        weighted = self.counts[1:]
        response = np.eye(len(weighted)) - (own[:, 1:].T @ own[:, 1:]) * weighted
        return direct + own[:, 1:] @ np.linalg.solve(response.T, (shared[:, 1:] * weighted).T)

    @functools.cached_property
    def _own_weights(self) -> np.ndarray:
        """w_k(n) of the ensembles themselves, shape (samples, ensembles)."""
        exponent = self.flat @ self.couplings.T + self.solution.log_partition + self.solution.log_mixture[:, None]
        return np.exp(-exponent)

    @functools.cached_property
    def tau_int(self) -> float:
        """The longest integrated autocorrelation time of any statistic in any ensemble, in draws."""
        return float(self._taus.max())

    @functools.cached_property
    def _taus(self) -> np.ndarray:
        """Those of the slowest statistic of every ensemble."""
        return np.array([gamma_method(each).tau_int.max() for each in self.statistics])

    @property
    def complaints(self) -> tuple[str, ...]:
        """A sentence if chains are too short for the errors of `errors` to be right."""
        draws = np.array([each.shape[1] for each in self.statistics])
        worst = np.argmin(draws / self._taus)
        if draws[worst] >= MIN_TAUS * self._taus[worst]:
            return ()
        return (
            f"chains of {draws[worst]} draws are {draws[worst] / self._taus[worst]:.2g} autocorrelation times long, less than "
            f"{MIN_TAUS}, so the errors of log Z are too small",
        )
