"""Sufficient statistics of several ensembles of one family, and log Z between and around them."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from ..reweighting import MbarSolution, log_mixture, solve_mbar

__all__ = ["Pool"]

IN_CACHE = 2**16  # numbers
SEGMENTS = 5  # of every chain: with the chains, the blocks of the jackknife


@dataclass(frozen=True, eq=False)
class Pool:
    """Draws of K ensembles at couplings θ_k, reduced to the statistics T conjugate to the couplings.

    Attributes
    ----------
    couplings : array, shape (ensembles, dimensions)
    statistics : array, shape (ensembles, chains, draws, dimensions)
    """

    couplings: np.ndarray
    statistics: np.ndarray

    def with_ensemble(self, theta, statistics) -> Pool:
        """The pool with one more ensemble."""
        return Pool(np.vstack([self.couplings, theta]), np.concatenate([self.statistics, statistics[None]]))

    @property
    def draws(self) -> int:
        """Draws of one ensemble."""
        return self.statistics.shape[1] * self.statistics.shape[2]

    @functools.cached_property
    def flat(self) -> np.ndarray:
        """All statistics, shape (samples, dimensions)."""
        return self.statistics.reshape(-1, self.statistics.shape[-1])

    @functools.cached_property
    def solution(self) -> MbarSolution:
        """log Z of the ensembles relative to the first, and the mixture that the samples come from."""
        return solve_mbar(self.couplings @ self.flat.T, np.full(len(self.couplings), float(self.draws)))

    def log_partition(self, thetas) -> np.ndarray:
        """log Z(θ) − log Z(θ_1) for every row of ``thetas``."""
        return np.concatenate([top + np.log(weights.sum(axis=1)) for top, weights in self._weights(thetas)])

    def overlap(self, thetas) -> np.ndarray:
        """Effective samples that the pool has for each θ, as a fraction of the draws of one ensemble: about one at each θ_k."""
        effective = [w.sum(axis=1) ** 2 / np.einsum("ij,ij->i", w, w) for _, w in self._weights(thetas)]
        return np.concatenate(effective) / self.draws

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
        """Jackknife error of log Z(θ) − log Z(other), by default to the first ensemble's θ_1.

        Blocks are segments of chains, left out of all ensembles together.
        """
        ends = np.stack([theta, self.couplings[0] if other is None else other])
        energies, differences = ends @ self.flat.T, []
        for each, mixture in self._blocks:
            with np.errstate(divide="ignore"):
                value = logsumexp(np.log(each) - energies - mixture, axis=1)
            differences.append(value[0] - value[1])
        return float(np.sqrt((len(differences) - 1) * np.var(differences)))

    @functools.cached_property
    def _blocks(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For every block: which samples are left, and their mixture without it."""
        number, chains, draws, _ = self.statistics.shape
        segment = np.minimum(np.arange(draws) * SEGMENTS // draws, SEGMENTS - 1)
        label = np.broadcast_to(np.arange(chains)[:, None] * SEGMENTS + segment, (number, chains, draws)).reshape(-1)
        energies, found = self.couplings @ self.flat.T, []
        for block in range(chains * SEGMENTS):
            each = (label != block).astype(float)
            counts = np.full(number, each.sum() / number)
            solution = solve_mbar(energies, counts, self.solution.log_partition, weights=each)
            found.append((each, log_mixture(energies, counts, solution.log_partition)))
        return found
