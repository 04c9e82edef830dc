"""Averages of couplings over the last steps of a fit, in which the noise of single steps cancels."""

from __future__ import annotations

import numbers

import numpy as np

from .._typing import OneTheta
from ..errors import ArgumentError

__all__ = ["TailAverage", "checked_share"]

BATCHES = 8  # of the steps that are averaged: their means say how noisy the average is


def checked_share(value) -> float:
    """``average_last`` of a fit: a share of its steps."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= float(value) <= 1:
        raise ArgumentError("average_last", "a share of the steps, 0 (no average) to 1", repr(value))
    return float(value)


class TailAverage:
    """The mean of the couplings after each of the last ``share`` of ``num_steps`` steps (stochastic weight averaging).

    B. T. Polyak and A. B. Juditsky, SIAM J. Control Optim. 30 (1992) 838; P. Izmailov et al., UAI 2018.

    Examples
    --------
    >>> import numpy as np
    >>> tail = TailAverage(100, 0.5)
    >>> for step in range(1, 101):
    ...     tail.add(step, np.array([step % 2, 3.0]))
    >>> tail.of(None).tolist(), tail.notes
    ([0.5, 3.0], ['Couplings averaged over the last 50 of 100 steps.'])
    """

    def __init__(self, num_steps: int, share: float):
        self.num_steps, self.window = num_steps, int(np.ceil(share * num_steps))
        self._batches: list[tuple[np.ndarray, int]] = []  # sums of couplings over parts of the window

    @property
    def notes(self) -> list[str]:
        """Status of a fit that was not interrupted."""
        return [f"Couplings averaged over the last {self.window} of {self.num_steps} steps."] if self.window else []

    def add(self, step: int, theta: OneTheta) -> None:
        """The couplings after a step, counted from 1."""
        done = step - (self.num_steps - self.window)
        if done < 1:
            return
        if len(self._batches) <= (done - 1) * BATCHES // self.window:
            self._batches.append((np.zeros_like(theta, dtype=float), 0))
        total, number = self._batches[-1]
        self._batches[-1] = total + theta, number + 1

    def of(self, theta) -> np.ndarray:
        """The average, or ``theta`` where there is none yet."""
        if not self._batches:
            return theta
        return np.sum([total for total, _ in self._batches], axis=0) / sum(number for _, number in self._batches)

    @property
    def _means(self) -> np.ndarray:
        return np.array([total / number for total, number in self._batches])

    def noise(self) -> np.ndarray | None:
        """Monte Carlo error of the average, from the means of parts of the window; None without them."""
        if len(self._batches) < 2:
            return None
        return self._means.std(axis=0, ddof=1) / np.sqrt(len(self._batches))

    def drift(self, errors) -> float:
        """Root mean square change between the halves of the window, in units of the errors."""
        half = len(self._batches) // 2
        if not half:
            return 0.0
        change = (self._means[half:].mean(axis=0) - self._means[:half].mean(axis=0)) / errors
        return float(np.sqrt(np.nanmean(change**2)))
