"""Eigenvalues with errors, effective ranks, decay and notes: what `spectrum` returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import call_checked
from ..reports.numbers import value_with_error
from . import effective_ranks as ranks_of
from .decay import Decay, fit_decay
from .gram import Gram
from .matrices import told
from .spectral_plots import plot_spectrum
from .subsamples import root_extrapolation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Spectrum"]

MAX_RELATIVE = 0.9  # error of a share λ₁/Σλ
SHOWN = 8  # eigenvalues that are printed


@call_checked
@dataclass(frozen=True, repr=False, eq=False)
class Spectrum:
    """A spectrum; see `spectrum`.

    Attributes
    ----------
    eigenvalues : float array, descending
        Of the kernel matrix itself, or of the covariance of a field. Divided by ``num_points`` they estimate those of
        the kernel as an integral operator.
    errors : float array
        One standard error each; zero where the matrix is all there is, nan where the points do not tell.
    trace : float
        Of the whole matrix, also where only some eigenvalues are known.
    num_points : int
        Its size.
    label : str
        What it is the spectrum of.
    vectors : array or None
        Eigenvectors as columns, in the order of the eigenvalues.
    square_norm : (float, float)
        ‖K‖² = Σλ² and its error.
    unbiased_ratio : (float, float) or None
        The participation ratio from pairs of different points or draws.
    replicas : float array, shape (S, m), or None
        Eigenvalues of sub-samples, in the same units.
    replica_factor : float
        Variance of a function of the spectrum over its variance among replicas.
    sampled : bool
        Whether points or draws are a sample, so that there are errors.
    epsilon : float
        Relative precision of the matrix.
    notes : tuple of str
    momenta : float array or None
        k̂ of each eigenvalue, of a field on a torus.
    gram : Gram or None
        The matrix by blocks, with its points.
    seed : int
        Of the sub-samples.
    baseline : Baseline or None
        A standard kernel on the same points.
    trace_error : float
        Where the trace is estimated by random probes.
    """

    eigenvalues: np.ndarray
    errors: np.ndarray
    trace: float
    num_points: int
    label: str = "kernel"
    vectors: np.ndarray | None = field(default=None)
    square_norm: tuple[float, float] | None = None
    unbiased_ratio: tuple[float, float] | None = None
    replicas: np.ndarray | None = None
    replica_factor: float = 1.0
    sampled: bool = True
    epsilon: float = ranks_of.EPSILON
    notes: tuple[str, ...] = ()
    momenta: np.ndarray | None = None
    gram: Gram | None = None
    seed: int = 0
    baseline: Any = None
    trace_error: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether all eigenvalues are known."""
        return len(self.eigenvalues) == self.num_points

    @cached_property
    def resolved(self) -> np.ndarray:
        """Eigenvalues, zero where they are within rounding of it: N ε λ₁ or less."""
        return ranks_of.resolved(self.eigenvalues, self.epsilon, self.num_points)

    def estimate(self, function: Callable[[np.ndarray], float]) -> tuple[float, float]:
        """A function of all eigenvalues, and its standard error from the sub-samples.

        The error is that of the scatter and of the bias: what fewer points change, extrapolated.

        Examples
        --------
        >>> import numpy as np, phi4ppl as p4
        >>> p4.spectral.spectrum(np.diag([3.0, 1.0]), sampled=False).estimate(lambda values: values[0])
        (3.0, 0.0)
        """
        if not self.complete:
            return float("nan"), float("nan")
        with told("function", "a function of an array of eigenvalues that returns one number"):
            value, spread, bias = self._scatter(function)
        return value, float(np.hypot(spread, bias))

    def _scatter(self, function: Callable[[np.ndarray], float]) -> tuple[float, float, float]:
        """A function of the eigenvalues, its standard deviation, and its bias if that is of order 1/n."""
        value = float(function(self.resolved))
        if self.replicas is None:
            return value, float("nan") if self.sampled else 0.0, 0.0
        each = [float(function(r)) for r in ranks_of.resolved(self.replicas, self.epsilon, self.num_points)]
        factor = self.replica_factor
        return value, float(np.sqrt(factor * np.var(each))), float(factor * (np.mean(each) - value))

    def _extrapolated(self, function: Callable[[np.ndarray], float]) -> tuple[float, float]:
        """A positive function of all eigenvalues without the bias of its logarithm (M. H. Quenouille, 1956).

        Higher orders are left: a quarter of what is taken out is part of the error.
        """
        value, spread, bias = self._scatter(lambda values: float(np.log(function(values))))
        return float(np.exp(value - bias)), float(np.exp(value - bias) * np.hypot(spread, bias / 4))

    def _of_sorted(self, function: Callable[[np.ndarray], float]) -> tuple[float, float]:
        """A function of few sorted eigenvalues; their bias is of order n^−1/2 where others are near."""
        value, spread, bias = self._scatter(function)
        return value, float(np.hypot(spread, bias * root_extrapolation(self.replica_factor)))

    @cached_property
    def plain_ranks(self) -> dict[str, float]:
        """The ranks of these eigenvalues as they stand, without a correction for the number of points: each ≤ the next."""
        if not self.complete:
            return {}
        return {name: function(self.resolved) for name, function in ranks_of.RANKS.items()}

    @cached_property
    def ranks(self) -> dict[str, tuple[float, float]]:
        """Every effective rank by name, with its error: nan where the known eigenvalues do not tell."""
        found = {name: self.estimate(function) for name, function in ranks_of.RANKS.items()}
        if self.complete:
            found["entropy_rank"] = self._extrapolated(ranks_of.entropy_rank)
            share, error = self._of_sorted(lambda values: 1 / ranks_of.trace_over_max(values))
            relative = min(error / share, MAX_RELATIVE)
            found["trace_over_max"] = (
                1 / share,
                relative / (1 - relative) / share,
            )  # of the far end: λ₁ comes out too large
            found["numerical_rank"] = self._scatter(ranks_of.numerical_rank)[:2]  # of this matrix
        else:
            top = float(self.eigenvalues[0])
            found["trace_over_max"] = (
                self.trace / top,
                float(np.hypot(self.errors[0] * self.trace / top**2, self.trace_error / top)),
            )
            if self.square_norm is not None:
                value = self.trace**2 / self.square_norm[0]
                shares = (2 * self.trace_error / self.trace, self.square_norm[1] / self.square_norm[0])
                found["participation_ratio"] = (value, value * float(np.hypot(*shares)))
        if self.unbiased_ratio is not None:
            found["participation_ratio"] = self.unbiased_ratio
        found["rank_fraction(0.9)"] = self._fraction(0.9)
        found["stable_rank"] = found["trace_over_max"]
        return found

    def _fraction(self, fraction: float) -> tuple[float, float]:
        if self.complete:
            value = ranks_of.rank_fraction(self.resolved, fraction)
            return value, self._of_sorted(lambda values: ranks_of.rank_of_share(values, fraction))[1]
        known = ranks_of.rank_fraction(self.resolved, fraction, self.trace)
        ends = (self.trace - self.trace_error, self.trace + self.trace_error)
        least, most = (ranks_of.rank_fraction(self.resolved, fraction, trace) for trace in ends)
        return known, float("nan") if self.sampled or np.isnan(known) else max(known - least, most - known)

    @property
    def trace_over_max(self) -> float:
        """Σλ/λ₁."""
        return self.ranks["trace_over_max"][0]

    @property
    def stable_rank(self) -> float:
        """‖A‖²_F/‖A‖² of a factor A with K = AᵀA, which is Σλ/λ₁."""
        return self.trace_over_max

    @property
    def participation_ratio(self) -> float:
        """(Σλ)²/Σλ², of a sample from pairs of different points; ``plain_ranks`` has the plain form."""
        return self.ranks["participation_ratio"][0]

    @property
    def entropy_rank(self) -> float:
        """exp(−Σ p log p), p = λ/Σλ, of a sample extrapolated to many points; ``plain_ranks`` has the plain form."""
        return self.ranks["entropy_rank"][0]

    @property
    def numerical_rank(self) -> float:
        """The number of eigenvalues above N ε λ₁."""
        return self.ranks["numerical_rank"][0]

    def rank_fraction(self, fraction: float) -> float:
        """The number of leading eigenvalues that hold this fraction of the trace."""
        return self._fraction(fraction)[0]

    def degrees_of_freedom(self, ridge: float) -> float:
        """Σ λ/(λ + ridge), with the ridge that is added to the diagonal of the matrix (``alpha`` of scikit-learn)."""
        if not self.complete:
            got = f"the first {len(self.eigenvalues)} of {self.num_points}"
            raise ArgumentError("degrees_of_freedom", "a spectrum with all eigenvalues", got, "Take method='dense'.")
        return ranks_of.degrees_of_freedom(self.resolved, ridge)

    @cached_property
    def decay(self) -> Decay:
        """The law by which the eigenvalues fall."""
        return fit_decay(self)

    def plot(self) -> Figure:
        """The eigenvalues on log–log axes with errors, the law of their decay, and the baseline."""
        return plot_spectrum(self, self.baseline)

    def rows(self) -> list[tuple[str, str]]:
        """Names and values of the ranks, as a table shows them."""
        return [
            (name, "not known from these eigenvalues" if np.isnan(value) else _shown(value, error))
            for name, (value, error) in self.ranks.items()
        ]

    def __str__(self) -> str:
        known = f"{len(self.eigenvalues)} of {self.num_points}" if not self.complete else f"{self.num_points}"
        shown = slice(max(1, min(SHOWN, np.count_nonzero(self.resolved))))  # none of rounding
        first = zip(self.eigenvalues[shown], self.errors[shown], strict=True)
        lines = [f"{self.label}: {known} eigenvalues, trace {self.trace:.6g}"]
        lines.append(
            "  " + "  ".join(_shown(*pair) for pair in first) + ("  …" if len(self.eigenvalues) > SHOWN else "")
        )
        width = max(len(name) for name in self.ranks)
        lines += [f"  {name.ljust(width)}  {value}" for name, value in self.rows()]
        lines.append(f"  decay: {self.decay.line()}")
        lines += [f"  {self.baseline}"] if self.baseline is not None else []
        return "\n".join([*lines, *(f"  note: {text}" for text in self.notes)])

    __repr__ = __str__


def _shown(value: float, error: float) -> str:
    return f"{value:.4g}" if np.isnan(error) else value_with_error(float(value), float(error))
