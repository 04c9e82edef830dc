"""Lifts of images compared on images that they were not trained on: squared errors, their paired differences, and who wins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from .._typing import ArrayLike
from ..errors import ArgumentError
from ..errors.arguments import call_checked, seed_within
from ..errors.streams import stream_key, stream_seed
from ..reports.card import card
from ..reports.numbers import value_with_error
from .blocking import alignment
from .blocks_of_sites import cubes, regular
from .conditional_field import ConditionalField
from .lifts import Lift, as_pairs

__all__ = ["HeldOutErrors", "HeldOutRow", "held_out_errors"]

ENOUGH = 3.0  # standard errors by which the winner has to win


class HeldOutRow(NamedTuple):
    """One way up: mean squared error with its standard error, PSNR in decibels, and its excess over the best."""

    mse: float
    error: float
    psnr: float
    difference: float
    difference_error: float


@call_checked
@dataclass(frozen=True, repr=False)
class HeldOutErrors:
    """Squared errors of several ways up; see `held_out_errors`.

    Attributes
    ----------
    squared : dict
        Name → mean squared error of every field, shape ``(n,)``.
    groups : int array, shape (n,)
        Fields of one group may depend on each other.
    peak : float
        Of PSNR = 10 log₁₀(peak²/MSE).
    estimates : dict
        Name → fine fields, ``(n, 2X, 2Y, …)``.
    warnings : tuple of str
    """

    squared: dict[str, np.ndarray]
    groups: np.ndarray
    peak: float
    estimates: dict[str, np.ndarray]
    warnings: tuple[str, ...] = ()

    @property
    def best(self) -> str:
        """The name with the smallest mean squared error."""
        return min(self.squared, key=lambda name: float(self.squared[name].mean()))

    def difference(self, one: str, two: str) -> tuple[float, float]:
        """Mean squared error of ``one`` less that of ``two``, field by field, with its standard error over groups."""
        return self._mean(self.squared[one] - self.squared[two])

    @property
    def rows(self) -> dict[str, HeldOutRow]:
        found = {}
        for name, each in self.squared.items():
            mse, error = self._mean(each)
            psnr = 10 * math.log10(self.peak**2 / mse) if mse > 0 else math.inf
            found[name] = HeldOutRow(mse, error, psnr, *self.difference(name, self.best))
        return found

    @property
    def verdict(self) -> str:
        """Who wins: the best, if every other one is more than three standard errors of the paired difference behind."""
        best, rows = self.best, self.rows
        others = [name for name in rows if name != best]
        level = [n for n in others if not rows[n].difference > ENOUGH * rows[n].difference_error]
        if level:
            return f"No winner: {', '.join([best, *level])} differ by less than {ENOUGH:g} errors."
        if not others:
            return f"{best} has no rival."
        second = min(others, key=lambda name: rows[name].mse)
        apart = value_with_error(*self.difference(second, best))
        share = 100 * rows[second].difference / rows[second].mse
        return f"{best} wins: its mean squared error is {apart}, {share:.1f} %, below that of {second}, the next."

    def _mean(self, each: np.ndarray) -> tuple[float, float]:
        """Mean over fields, and its standard error from the sums over groups."""
        number = len(each)
        sums = np.bincount(self.groups, each - each.mean())
        own = sums[np.bincount(self.groups) > 0]
        return float(each.mean()), float(np.sqrt(np.sum(own**2) * len(own) / (len(own) - 1)) / number)

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (name, value_with_error(row.mse, row.error), f"{row.psnr:.2f}", self._behind(name, row))
            for name, row in sorted(self.rows.items(), key=lambda item: item[1].mse)
        ]

    def _behind(self, name: str, row: HeldOutRow) -> str:
        return "" if name == self.best else value_with_error(row.difference, row.difference_error)

    def __str__(self) -> str:
        cells = [("", "squared error", "PSNR, dB", "more than the best"), *self._cells()]
        widths = [max(len(row[k]) for row in cells) for k in range(4)]
        number, groups = len(self.groups), len(np.unique(self.groups))
        lines = [f"{number} held-out fields" + (f" in {groups} groups" if groups < number else "")]
        lines += ["  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
        return "\n".join([*lines, f"  {self.verdict}", *(f"  NOT RELIABLE: {text}" for text in self.warnings)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        columns = ("", "squared error", "PSNR, dB", "more than the best")
        return card("Held-out errors", columns, self._cells(), outcome=self.verdict, warnings=self.warnings)


@call_checked
def held_out_errors(
    lifts: Mapping[str, Lift], coarse: ArrayLike, fine: ArrayLike, *, groups: ArrayLike | None = None,
    peak: float | None = None, seed: int = 0,
) -> HeldOutErrors:  # fmt: skip
    """How far the fine fields that lifts make of coarse ones are from the true ones.

    With m(φ') what a lift makes of φ', the mean squared error is the mean of (φ − m(φ'))² over sites and fields. All lifts see
    the same fields, so that differences are made field by field. Of a `ConditionalField` m is the conditional mean; one draw of
    it, a field that looks like the others, has a line of its own, and a larger error.

    Parameters
    ----------
    lifts : dict of Lift
        By name.
    coarse, fine : arrays, shape ``(n, X, Y, …)`` and ``(n, 2X, 2Y, …)``
        Pairs that no lift was trained on.
    groups : int array, shape ``(n,)``, optional
        The group 0, 1, … of every field, if fields are not independent, such as images of one person or patches of one
        photograph: errors are then those over groups.
    peak : float, optional
        Of PSNR; by default the range of ``fine``.
    seed : int
        Of draws.

    Returns
    -------
    HeldOutErrors
        ``print`` it for the table and the winner. ``warnings`` name coarse fields that are not block means of the fine ones
        beside them, but of others some sites away.

    Raises
    ------
    ArgumentError
        If fields do not fit each other, or there are fewer than two groups.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> rg = p4.renormalization
    >>> x = np.arange(16)[:, None] + np.arange(16)
    >>> fine = np.sin(x / 3 + np.arange(10)[:, None, None])
    >>> coarse = rg.block(fine, lattice=p4.lattice.square(16, periodic=False))[1][0]
    >>> rg.held_out_errors({"copy": rg.Copy(eta=0.0), "bicubic": rg.Bicubic(eta=0.0)}, coarse, fine).best
    'bicubic'
    """
    coarse, fine = as_pairs(coarse, fine)
    number, seed = len(fine), seed_within(seed)
    labels = np.arange(number) if groups is None else np.asarray(groups)
    if labels.shape != (number,) or labels.dtype.kind not in "iu" or labels.min() < 0 or len(np.unique(labels)) < 2:
        got = f"dtype {labels.dtype} and shape {labels.shape}"
        raise ArgumentError("groups", f"{number} integers of at least 0, two or more different ones", got)
    if not lifts or not all(isinstance(lift, Lift) for lift in lifts.values()):
        fix = "FunctionLift makes one of a function."
        raise ArgumentError("lifts", "lifts of phi4ppl.renormalization by name", repr(lifts)[:80], fix)
    estimates, squared = {}, {}
    for place, (name, lift) in enumerate(lifts.items()):
        drawn = np.asarray(lift(stream_key(seed, "lift", place), jnp.asarray(coarse, float)), float)
        noise: float | np.ndarray = 0.0
        if isinstance(lift, ConditionalField):
            own = name + ", one draw"
            estimates[own], squared[own] = drawn, _per_field((drawn - fine) ** 2)
            found = lift.mean(coarse, seed=stream_seed(seed, "means", place))
            drawn, noise = found.value, _per_field(found.error**2)  # a mean of draws is off by its own error
        estimates[name], squared[name] = drawn, _per_field((drawn - fine) ** 2) - noise
    scale = float(np.ptp(fine)) if peak is None else float(peak)
    return HeldOutErrors(squared, labels, scale, estimates, _doubts(coarse, fine))


def _per_field(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).mean(axis=1)


def _doubts(coarse: np.ndarray, fine: np.ndarray) -> tuple[str, ...]:
    blocks = cubes(regular(fine.shape[1:]), 2)
    shift = alignment(fine - fine.mean(), coarse - coarse.mean(), blocks)
    if not any(shift):
        return ()
    return (f"The coarse fields are block means of fine ones {shift} sites away: the blocks are not in place.",)
