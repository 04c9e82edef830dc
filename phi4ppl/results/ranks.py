"""Ranks of draws among those of all chains: does each chain have its share of small, middling and large values?"""

from __future__ import annotations

import functools

import numpy as np
from scipy.stats import hypergeom, rankdata

__all__ = ["rank_band", "rank_differences"]

POINTS = 100
SIMULATIONS = 20_000
OUTSIDE = 0.01  # probability that any chain of a run of independent draws leaves its band


def rank_differences(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """F_c(z) − z, where F_c(z) is the share of the draws of chain c among the fraction z of the smallest draws of all chains.

    Parameters
    ----------
    values : array, shape ``(chain, draw)``

    Returns
    -------
    z : array, shape ``(point,)``
    differences : array, shape ``(chain, point)``
    """
    chains, draws = values.shape
    ranks = rankdata(values, method="ordinal").reshape(values.shape)
    below = _numbers(chains, draws)
    counts = (ranks[:, :, None] <= below).sum(axis=1)
    z = below / values.size
    return z, counts / draws - z


@functools.lru_cache(maxsize=32)
def rank_band(chains: int, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the band that all chains of independent draws of one distribution stay in, with probability 0.99 or more.

    The number of draws of one chain among the R smallest of all is hypergeometric. The band has pointwise the same probability
    γ; γ is so that a chain leaves it somewhere with probability 0.01/chains, from 20,000 simulated chains.

    Returns
    -------
    lower, upper : arrays, shape ``(point,)``
        In the units of `rank_differences`.

    Notes
    -----
    Source: T. Säilynoja, P.-C. Bürkner and A. Vehtari, Statistics and Computing 32 (2022) 32.
    """
    total, below = chains * draws, _numbers(chains, draws)
    bins = np.diff([0, *below, total])
    rng = np.random.default_rng(0)
    counts = rng.multivariate_hypergeometric(bins, draws, size=SIMULATIONS, method="marginals")[:, :-1].cumsum(axis=1)
    least = np.ones(SIMULATIONS)
    for column, number in zip(counts.T, below, strict=True):
        possible = np.arange(draws + 1)
        low = hypergeom.cdf(possible, total, number, draws)
        high = hypergeom.sf(possible - 1, total, number, draws)
        least = np.minimum(least, 2 * np.minimum(low, high)[column])
    gamma = np.quantile(least, OUTSIDE / chains, method="lower")
    z = below / total
    # counts as unlikely as γ are still inside
    lower = hypergeom.ppf(gamma / 2 * (1 - 1e-9), total, below, draws) / draws - z
    upper = hypergeom.isf(gamma / 2 * (1 - 1e-9), total, below, draws) / draws - z
    return lower, upper


def _numbers(chains: int, draws: int) -> np.ndarray:
    """Numbers R of smallest draws at which chains are compared."""
    points = min(POINTS, draws)
    return np.unique(np.round(chains * draws * np.arange(1, points) / points).astype(int))
