"""Errors over examples: groups of them are left out in turn (delete-a-group jackknife).

Examples are independent, so that `analysis.blocks` needs no autocorrelation time here. Groups are random: the order of a data
set, by class for example, must not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..analysis.blocks import Blocks, jackknife_bias, jackknife_error
from ..errors import ArgumentError
from ..errors.streams import stream_rng
from ..reports.numbers import value_with_error

__all__ = [
    "NUM_GROUPS",
    "Measured",
    "aligned",
    "groups_of",
    "measured",
    "measured_of_sums",
    "require_examples",
    "sums_by_group",
]

NUM_GROUPS = 20
INDEPENDENT = Blocks(np.arange(1), 1.0, 0.5)
NOTHING = 1e-12  # relative errors below it are those of rounding


class Measured(NamedTuple):
    """A number and its standard error; prints as 0.648(44)."""

    value: float
    error: float

    def __str__(self) -> str:
        return "-" if np.isnan(self.value) else value_with_error(self.value, self.error)


def aligned(rows) -> list[str]:
    """Rows of texts as lines of columns, indented."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def require_examples(number: int, least: int, name: str = "data") -> None:
    """Raise `ArgumentError` if there are fewer examples than errors need."""
    if number < least:
        fix = "Errors leave out groups of examples."
        raise ArgumentError(name, f"at least {least} examples", str(number), fix, reason="small")


def groups_of(number: int, seed: int, most: int = NUM_GROUPS) -> np.ndarray:
    """The group of every example, in random order and of nearly equal sizes."""
    return stream_rng(seed, "groups of examples").permutation(np.arange(number) % min(number, most))


def measured(statistic: Callable, group: np.ndarray, *arrays: np.ndarray, corrected: bool = False):
    """``statistic(*arrays)`` and its errors; with ``corrected``, without the bias that the jackknife sees.

    Returns
    -------
    values, errors : float arrays, of the shape of the statistic
    """
    value = np.asarray(statistic(*arrays), float)
    without = np.array([statistic(*(a[group != g] for a in arrays)) for g in range(group.max() + 1)], float)
    return _judged(value, without, corrected)


def sums_by_group(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Sums of ``values``, shape ``(examples, …)``, over each group."""
    inside = np.zeros((group.max() + 1, len(group)))
    inside[group, np.arange(len(group))] = 1.0
    return (inside @ values.reshape(len(values), -1)).reshape(-1, *values.shape[1:])


def measured_of_sums(function: Callable, sums: list[np.ndarray], *, corrected: bool = False):
    """A function of sums over all examples, and its errors, from the sums over each group.

    ``function`` takes sums of shape ``(…)`` each and is mapped over sums without one group each.
    """
    totals = [each.sum(axis=0) for each in sums]
    value = np.asarray(function(*totals), float)
    number = len(sums[0])
    without = np.array([function(*(t - each[g] for t, each in zip(totals, sums, strict=True))) for g in range(number)])
    return _judged(value, np.asarray(without, float), corrected)


def _judged(value: np.ndarray, without: np.ndarray, corrected: bool):
    error = np.asarray(jackknife_error(INDEPENDENT, without))
    if corrected:
        value = value - jackknife_bias(INDEPENDENT, without, value)
    return value, np.where(error <= NOTHING * np.abs(value), 0.0, error)
