"""Two kernels of the same points compared, such as tangent kernels before and after training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh, subspace_angles

from ..errors import ArgumentError
from ..errors.arguments import call_checked, positive_int, seed_within
from ..errors.streams import stream_rng
from ..reports.numbers import value_with_error
from .matrices import centered, checked_targets, eigensystem, kernel_matrix

__all__ = ["KernelComparison", "TargetAlignment", "compare_kernels"]

GROUPS = 20  # of points, left out in turn
NOTHING = 1e-14  # share of a kernel that is left of it by rounding, when it is centered


@dataclass(frozen=True)
class TargetAlignment:
    """Centered alignment with the targets; beside it, with targets that are shuffled among the points.

    ``shuffled_mean`` is exact: ``tr(K) tr(YYᵀ)/((n−1) |K| |YYᵀ|)``, both centered.
    ``shuffled_sd`` is that of the shuffles drawn.
    """

    value: float
    error: float
    shuffled_mean: float
    shuffled_sd: float

    @property
    def z(self) -> float:
        """How many standard deviations the alignment lies above that of shuffled targets."""
        return (self.value - self.shuffled_mean) / self.shuffled_sd if self.shuffled_sd > 0 else float("nan")

    def __str__(self) -> str:
        shuffled = f"{self.shuffled_mean:.3g}, sd {self.shuffled_sd:.2g}"
        return f"{value_with_error(self.value, self.error)} (shuffled targets {shuffled}; {self.z:.1f} sd above)"


@dataclass(frozen=True)
class KernelComparison:
    """``ratios`` are λ_i(after)/λ_i(before) of the leading eigenvalues, ``alignment`` is the centered one, ``angles`` the
    principal angles between the leading eigenspaces in radians, smallest first. Errors are those of a jackknife over groups of
    points.
    """

    ratios: np.ndarray
    ratio_errors: np.ndarray
    trace_ratio: float
    trace_ratio_error: float
    alignment: float
    alignment_error: float
    angles: np.ndarray
    before: TargetAlignment | None
    after: TargetAlignment | None
    num_points: int

    def __str__(self) -> str:
        pairs = zip(self.ratios, self.ratio_errors, strict=True)
        lines = [
            f"two kernels of {self.num_points} points",
            f"  trace after/before {value_with_error(self.trace_ratio, self.trace_ratio_error)}",
            "  eigenvalues after/before " + "  ".join(value_with_error(*pair) for pair in pairs),
            f"  centered alignment {value_with_error(self.alignment, self.alignment_error)}",
            "  principal angles of the leading eigenspaces, degrees "
            + "  ".join(f"{np.degrees(a):.1f}" for a in self.angles),
        ]
        if self.before is not None:
            lines += [
                f"  alignment with the targets before {self.before}",
                f"  alignment with the targets after {self.after}",
            ]
        return "\n".join(lines)


def _alignment(one: np.ndarray, two: np.ndarray) -> float:
    """⟨K, K′⟩/(|K| |K′|) of centered kernels."""
    return float((one * two).sum() / (np.linalg.norm(one) * np.linalg.norm(two)))


def _leading(kernel: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = eigh(kernel, subset_by_index=(len(kernel) - number, len(kernel) - 1))
    return values[::-1], vectors[:, ::-1]


def _numbers(before, after, targets, number: int) -> np.ndarray:
    """All that has an error: ratios, ratio of traces, alignment, alignments with the targets."""
    ratios = _leading(after, number)[0] / _leading(before, number)[0]
    one, two = centered(before), centered(after)
    found = [*ratios, np.trace(after) / np.trace(before), _alignment(one, two)]
    if targets is not None:
        wanted = centered(targets @ targets.T)
        found += [_alignment(one, wanted), _alignment(two, wanted)]
    return np.array(found)


@call_checked
def compare_kernels(
    before, after, targets=None, *, num_eigenvalues: int = 5, num_shuffles: int = 200, seed: int = 0
) -> KernelComparison:
    """Compare two kernels of the same points in the same order, such as tangent kernels before and after training.

    Parameters
    ----------
    before, after : array, shape ``(n, n)``, or spectra with all their vectors
    targets : array, shape ``(n,)`` or ``(n, outputs)``, optional
        Alignment with them is given beside that with shuffled targets: at a finite number of points, it is not zero either.
    num_eigenvalues : int
        Leading eigenvalues and eigenvectors that are compared.
    num_shuffles, seed : int
        Random orders of the targets.

    Returns
    -------
    KernelComparison

    Raises
    ------
    ArgumentError
        If the kernels are of different sizes, or one of them has fewer eigenvalues than are compared, or nothing but a mean.

    Notes
    -----
    Centered alignment is ``⟨HKH, HK′H⟩/(|HKH| |HK′H|)``: C. Cortes, M. Mohri and A. Rostamizadeh, arXiv:1203.0550. Errors are
    square roots of (g−1)/g Σ (θ_g − θ̄)² over g = 20 groups of points that are left out in turn, and call for at least 40
    points.

    Examples
    --------
    >>> import numpy as np
    >>> from phi4ppl.spectral.comparison import compare_kernels
    >>> x = np.random.default_rng(0).normal(size=(60, 3))
    >>> found = compare_kernels(x @ x.T, 2 * x @ x.T, num_eigenvalues=3)
    >>> found.ratios.round(9), round(found.alignment, 9)
    (array([2., 2., 2.]), 1.0)
    """
    one, two = kernel_matrix("before", before), kernel_matrix("after", after)
    size = len(one)
    positive_int("num_eigenvalues", num_eigenvalues), positive_int("num_shuffles", num_shuffles, minimum=2)
    seed_within(seed)
    if len(two) != size:
        raise ArgumentError("after", f"shape ({size}, {size}), as before", f"shape {two.shape}", reason="shape")
    if size < 2 * GROUPS:
        raise ArgumentError(
            "before", f"at least {2 * GROUPS} points", f"{size}", "Errors need groups of points.", reason="small"
        )
    smallest = size - -(-size // GROUPS)
    if num_eigenvalues > smallest:
        got, fix = str(num_eigenvalues), "Errors leave out groups of points."
        raise ArgumentError("num_eigenvalues", f"at most {smallest} of {size} points", got, fix, reason="too_large")
    y = None if targets is None else checked_targets(targets, size)
    for name, given, kernel in (("before", before, one), ("after", after, two)):
        _require_features(name, kernel, num_eigenvalues)
        eigensystem(name, given)  # refuses negative eigenvalues
    if y is not None and np.ptp(y, axis=0).max() == 0:
        raise ArgumentError("targets", "values that differ", "one value at all points", reason="constant")
    found = _numbers(one, two, y, num_eigenvalues)
    order, leaveouts = stream_rng(seed, "groups").permutation(size), []
    for group in np.array_split(order, GROUPS):
        kept = np.setdiff1d(np.arange(size), group)
        part = np.ix_(kept, kept)
        leaveouts.append(_numbers(one[part], two[part], None if y is None else y[kept], num_eigenvalues))
    errors = np.sqrt((GROUPS - 1) * np.var(leaveouts, axis=0))
    errors[errors < 1e-12 * np.abs(found)] = 0.0
    angles = np.sort(subspace_angles(_leading(one, num_eigenvalues)[1], _leading(two, num_eigenvalues)[1]))
    first = second = None
    if y is not None:
        rng = stream_rng(seed, "shuffles")
        first = _beside_shuffled(one, y, found[-2], errors[-2], num_shuffles, rng)
        second = _beside_shuffled(two, y, found[-1], errors[-1], num_shuffles, rng)
    r = num_eigenvalues
    return KernelComparison(
        found[:r], errors[:r], float(found[r]), float(errors[r]), float(found[r + 1]), float(errors[r + 1]), angles,
        first, second, size,
    )  # fmt: skip


def _require_features(name: str, kernel: np.ndarray, number: int) -> None:
    """Raise `ArgumentError` if a kernel is constant, or has fewer eigenvalues above rounding than are compared."""
    if np.linalg.norm(centered(kernel)) <= NOTHING * len(kernel) * np.linalg.norm(kernel):
        raise ArgumentError(name, "a kernel that tells points apart", "a constant", reason="constant")
    number = min(number, len(kernel))
    values = _leading(kernel, number)[0]
    rank = int((values > len(kernel) * np.finfo(float).eps * values[0]).sum())
    if rank < number:
        fix = f"Compare num_eigenvalues={rank}."
        raise ArgumentError(name, f"a kernel with {number} eigenvalues above rounding", f"{rank}", fix, reason="rank")


def _beside_shuffled(kernel, targets, value, error, num_shuffles, rng) -> TargetAlignment:
    kernel, y = centered(kernel), targets - targets.mean(axis=0)
    norm = np.linalg.norm(kernel) * np.linalg.norm(y.T @ y)  # |Y Yᵀ| = |Yᵀ Y|
    drawn = [_quadratic(kernel, y[rng.permutation(len(y))]) / norm for _ in range(num_shuffles)]
    mean = np.trace(kernel) * (y**2).sum() / ((len(y) - 1) * norm)
    return TargetAlignment(float(value), float(error), float(mean), float(np.std(drawn, ddof=1)))


def _quadratic(kernel: np.ndarray, y: np.ndarray) -> float:
    return float(((kernel @ y) * y).sum())
