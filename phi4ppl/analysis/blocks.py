"""Jackknife over blocks of draws, corrected for the autocorrelation that is left between blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._typing import Element, PerBlock, PerDraw, Series
from .gamma_method import gamma_method

__all__ = ["Blocks", "Replicas", "blocks_for", "jackknife_bias", "jackknife_error"]

TAUS_PER_BLOCK = 10
MIN_BLOCKS = 32


@dataclass(frozen=True)
class Blocks:
    """Consecutive draws of one chain, and how much the variance between them falls short.

    Attributes
    ----------
    starts : int array, shape (num_blocks,)
        First draw of every block among the draws of all chains one after the other.
    length : float
        Mean number of draws.
    tau_int : float, or array
        The longest integrated autocorrelation time among the series that the blocks are for; or that of each estimate.
    """

    starts: np.ndarray
    length: float
    tau_int: float | np.ndarray

    @property
    def inflation(self) -> float | np.ndarray:
        """True variance of a mean over its estimate from the blocks, 1/(1 − (τ² − ¼)/(τ B)) for exponential decay."""
        tau = np.maximum(self.tau_int, 0.5)
        return 1 / np.maximum(1 - (tau**2 - 0.25) / (tau * self.length), 0.1)

    @property
    def long_enough(self) -> bool:
        """Whether blocks of more than two autocorrelation times were possible."""
        return bool(np.all(self.length > 2 * self.tau_int))

    def sums(self, values: PerDraw) -> PerBlock:
        """Sums over each block of ``values``, shape ``(num_draws, …)``."""
        return np.add.reduceat(values, self.starts, axis=0)


@dataclass(frozen=True, eq=False)
class Replicas:
    """Means of pooled samples that are no plain averages over draws, with their jackknife replicas.

    Attributes
    ----------
    means : dict of arrays
        By name.
    without_each : tuple of (Blocks, dict of arrays)
        For each independent ensemble its blocks, and the means without one block each, shape ``(num_blocks, *shape)``.
    reliable : bool, or bool array over the first axis of all means
        Whether the samples carry enough information.
    pool : str
        Digest of the samples: means of one pool are not independent.
    """

    means: dict[str, np.ndarray]
    without_each: tuple[tuple[Blocks, dict[str, np.ndarray]], ...]
    reliable: np.ndarray | bool
    pool: str

    def at(self, index) -> Replicas:
        """One element along the first axis of all means."""
        without = tuple((b, {name: r[:, index] for name, r in found.items()}) for b, found in self.without_each)
        means = {name: mean[index] for name, mean in self.means.items()}
        return Replicas(means, without, np.asarray(self.reliable)[index], self.pool)


def blocks_for(series: Series, *, most: int | None = None) -> Blocks:
    """Blocks of ten autocorrelation times of the slowest of ``series``, but at least 32 of them.

    Parameters
    ----------
    series : array, shape (num_chains, num_draws, num_series)
    most : int, optional
        Number of blocks at most.
    """
    num_chains, num_draws = series.shape[:2]
    tau = float(np.max(gamma_method(series).tau_int))
    length = max(1, min(int(np.ceil(TAUS_PER_BLOCK * tau)), num_chains * num_draws // MIN_BLOCKS))
    if most is not None:
        length = max(length, int(np.ceil(num_chains * num_draws / most)))
    in_chain = max(1, num_draws // length)
    ends = np.arange(in_chain) * num_draws // in_chain
    starts = (np.arange(num_chains)[:, None] * num_draws + ends).reshape(-1)
    return Blocks(starts, num_draws / in_chain, tau)


def jackknife_error(blocks: Blocks, estimates: PerBlock) -> Element:
    """Standard error from estimates without one block each, shape ``(num_blocks, …)``; complex ones part by part.

    It is infinite where one of them is not finite: that block has all the weight.
    """
    if np.iscomplexobj(estimates):
        return jackknife_error(blocks, estimates.real) + 1j * jackknife_error(blocks, estimates.imag)
    number = len(estimates)
    finite = np.all(np.isfinite(estimates), axis=0)
    estimates = np.where(finite, estimates, 0.0)
    spread = np.where(finite, np.sum((estimates - estimates.mean(axis=0)) ** 2, axis=0), np.inf)
    return np.sqrt((number - 1) / number * spread * blocks.inflation)


def jackknife_bias(blocks: Blocks, estimates: PerBlock, value: Element) -> Element:
    """Bias of ``value`` from its estimates without one block each, (B − 1) (mean of them − value)."""
    return (len(estimates) - 1) * (estimates.mean(axis=0) - value) * blocks.inflation
