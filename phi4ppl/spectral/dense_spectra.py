"""All eigenvalues of a stored matrix, with errors from sub-samples; negative ones are clipped, or refused."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from ..errors import ArgumentError
from ..errors.arguments import finite_array
from .effective_ranks import entropy_rank, resolved
from .gram import Gram
from .matrices import require_bytes
from .spectrum_result import SHOWN, Spectrum
from .subsamples import eigenvalue_errors, pair_ratio, subset_spectra

__all__ = ["FEW_POINTS", "clipped", "dense_spectrum"]

FEW_POINTS = 100
SMALLER = "Take method='lanczos' or 'nystrom', or fewer points."


def dense_spectrum(gram: Gram, label: str, sampled: bool, jitter: float, seed: int, limit: int | None) -> Spectrum:
    """All eigenvalues, with errors from sub-samples."""
    n = gram.num_points
    require_bytes(5 * 8 * n**2, limit, f"the decomposition of a {n}×{n} matrix", SMALLER)
    matrix = finite_array("source", gram.full())
    notes = []
    if jitter:
        matrix = matrix + jitter * np.trace(matrix) / n * np.eye(n)
        inputs, gram = gram.inputs, Gram(matrix, gram.points, epsilon=gram.epsilon)
        gram.inputs = inputs
        notes.append(f"jitter: {jitter:g} of the mean of the diagonal was added to it.")
    values, vectors = scipy.linalg.eigh(matrix, check_finite=False)
    values, told = clipped(values[::-1], gram.epsilon)
    notes += told
    errors, replicas, factor, ratio = np.zeros(n), None, 1.0, None
    if sampled and n >= 8:
        replicas, factor = subset_spectra(gram, seed)
        errors = np.full(n, np.nan)
        known = replicas.shape[1]
        errors[:known], split = eigenvalue_errors(values[:known], replicas, factor)
        notes += split_note(resolved(values[:known], gram.epsilon, n), split)
        ratio, told = _unbiased(matrix, seed)
        plain = entropy_rank(resolved(values, gram.epsilon))
        notes += [
            *told,
            f"entropy_rank is extrapolated to many points; the plain form is {plain:.4g}.",
            *sample_notes(n),
        ]
    return Spectrum(
        values, errors, float(np.trace(matrix)), n, label, np.ascontiguousarray(vectors[:, ::-1]),
        (float(np.sum(values**2)), 0.0), ratio, replicas, factor, sampled, gram.epsilon, tuple(notes), gram=gram, seed=seed,
    )  # fmt: skip


def _unbiased(matrix: np.ndarray, seed: int) -> tuple[tuple[float, float] | None, list[str]]:
    plain = float(np.trace(matrix) ** 2 / np.sum(matrix**2))
    value, error = pair_ratio(matrix, seed)
    if not np.isfinite(value) or not error < value:
        text = "pairs of different points have too small a kernel for a participation ratio without bias"
        return None, [f"{text}: the plain form, {plain:.4g}, is a lower bound."]
    return (value, error), [f"participation_ratio is from pairs of different points; the plain form is {plain:.4g}."]


def split_note(values: np.ndarray, split: np.ndarray) -> list[str]:
    leading = np.flatnonzero(split[:SHOWN] & (values[:SHOWN] > 0)) + 1
    if not len(leading):
        return []
    which = ", ".join(map(str, leading))
    return [f"errors of eigenvalues {which} are mostly bias: a sample splits eigenvalues that are equal, or nearly."]


def sample_notes(number: int) -> list[str]:
    if number >= FEW_POINTS:
        return []
    return [
        f"{number} points are few (below {FEW_POINTS}): small eigenvalues are noise; cross-validate what you conclude."
    ]


def clipped(values: np.ndarray, epsilon: float) -> tuple[np.ndarray, list[str]]:
    """Descending eigenvalues without negative ones, and what was done.

    Raises
    ------
    ArgumentError
        If one is below −N ε λ₁, which rounding does not explain.
    """
    tolerance = len(values) * epsilon * max(float(values[0]), 0.0)
    number = int(np.count_nonzero(values < 0))
    if not values[0] > 0:
        raise ArgumentError("source", "a matrix with a positive eigenvalue", f"{values[0]:.3g} as the largest")
    if values[-1] < -tolerance:
        got = f"the eigenvalue {values[-1]:.3g} beside λ₁ = {values[0]:.3g} (rounding explains {tolerance:.1g})"
        fix = (
            "Usual causes: the function is no kernel (a sigmoid, or a distance that is not Euclidean); entries were "
            "computed in lower precision than the matrix is stored in (give them as float32); entries were changed one by "
            "one (a threshold, missing pairs, averages over different data). jitter= hides the last two only."
        )
        raise ArgumentError("source", "a positive semidefinite matrix", got, fix, reason="negative")
    told = [f"{number} negative eigenvalues within rounding (above −{tolerance:.1g}) were set to 0."] if number else []
    return np.maximum(values, 0.0), told
