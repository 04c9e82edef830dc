"""What kernel regression learns of each mode of a target, its test error, and whether the theory holds for these points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, positive_int, seed_within
from ..errors.streams import stream_rng
from ..reports.numbers import value_with_error
from .matrices import checked_targets, eigensystem, one_number, require_scale

__all__ = ["Learnability", "ModeLearnability", "learnability", "mode_learnability"]

ERRORS = 3.0  # of the measurement, by which a prediction may be off
SHARE = 0.05  # of a prediction, or of a learnability of 1, that counts as nothing
MODES = 12  # leading ones, whose learnability is compared


class ModeLearnability(NamedTuple):
    """L_i = λ_i/(λ_i + κ), with κ; ``overfitting`` is E₀ = n/(n − Σ L_i²), by which noise is amplified."""

    learnabilities: np.ndarray
    kappa: float
    overfitting: float

    @property
    def degrees_of_freedom(self) -> float:
        """Σ L_i."""
        return float(self.learnabilities.sum())

    def test_error(self, coefficients, noise: float = 0.0) -> float:
        """E₀ (Σ (1 − L_i)² v_i² + σ²), with v_i the coefficients of the target and σ² the variance of its noise."""
        v = finite_array("coefficients", coefficients).astype(float)
        if v.shape != self.learnabilities.shape:
            expected = f"shape {self.learnabilities.shape}, one a mode"
            raise ArgumentError("coefficients", expected, f"shape {v.shape}", reason="shape")
        return float(self.overfitting * (((1 - self.learnabilities) ** 2 * v**2).sum() + noise))


def _root(values: np.ndarray, raised: np.ndarray, num_train: int, rest: float) -> float:
    """κ > 0 of Σ raised_i/(values_i + κ) + rest/κ = n: the left side falls from above n to 0, in log κ."""

    def excess(log):
        kappa = np.exp(log)
        return float((raised / (values + kappa)).sum() + rest / kappa) - num_train

    high = np.log((raised.sum() + rest) / num_train)
    low = high
    while excess(low) <= 0:
        high, low = low, low - 3.0
        if low < -700:
            return 0.0
    return float(np.exp(brentq(excess, low, high + 1e-9, xtol=1e-13, rtol=8.9e-16)))


@call_checked
def mode_learnability(eigenvalues, num_train: int, ridge: float = 0.0) -> ModeLearnability:
    """Learnabilities of the modes of a kernel under a distribution of inputs, from n independent examples.

    κ solves Σ_i λ_i/(λ_i + κ) + δ/κ = n. Without a ridge, the learnabilities add up to n.

    Parameters
    ----------
    eigenvalues : array, shape ``(modes,)``
        λ_i of the kernel operator under the distribution of inputs; those of a matrix of N points are N times as large.
    num_train : int
        n.
    ridge : float
        δ, added to the diagonal of the n × n kernel matrix.

    Raises
    ------
    ArgumentError

    Notes
    -----
    Source: J. B. Simon, M. Dickens, D. Karkada and M. R. DeWeese, arXiv:2110.03922. The features are taken for Gaussian.

    Examples
    --------
    >>> import numpy as np
    >>> from phi4ppl.spectral.learnability import mode_learnability
    >>> found = mode_learnability(np.arange(1.0, 501.0) ** -2, 20)
    >>> round(float(found.learnabilities[9]), 3), round(found.degrees_of_freedom, 6)
    (0.638, 20.0)
    """
    values = finite_array("eigenvalues", eigenvalues).astype(float).ravel()
    if not values.size:
        raise ArgumentError("eigenvalues", "at least one", "none", reason="shape")
    num_train, ridge = positive_int("num_train", num_train), _checked_ridge(ridge)
    if not (values > 0).any() or (values < 0).any():
        raise ArgumentError("eigenvalues", "values that are not negative, some of them positive", f"{values.min():.3g}")
    if ridge == 0 and (values > 0).sum() <= num_train:
        learned, kappa = (values > 0).astype(float), 0.0  # every feature is known
    else:
        kappa = _root(values, values, num_train, ridge)
        learned = values / (values + kappa)
    left = num_train - (learned**2).sum()
    return ModeLearnability(learned, kappa, num_train / left if left > 1e-12 * num_train else np.inf)


def _checked_ridge(ridge) -> float:
    value = one_number("ridge", ridge)
    if value < 0:
        raise ArgumentError("ridge", "a number that is not negative", repr(ridge))
    return value


@dataclass(frozen=True)
class Learnability:
    """What regression with a kernel learns of a target from n of N points: predicted, and measured on the other points.

    ``predicted_error`` and ``measured_error`` are mean squared errors on points that are left out (summed over outputs),
    ``measured_error_error`` is the standard error over the splits, which share the N points. ``reference_error`` is the mean
    square of the target: the error of the prediction zero. ``measured_learnabilities`` are of the leading modes.
    """

    learnabilities: np.ndarray
    kappa: float
    num_train: int
    ridge: float
    coefficients: np.ndarray
    predicted_error: float
    measured_error: float
    measured_error_error: float
    reference_error: float
    measured_learnabilities: np.ndarray
    measured_learnability_errors: np.ndarray
    num_splits: int
    warnings: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether the theory agrees with what is measured."""
        return not self.warnings

    @property
    def degrees_of_freedom(self) -> float:
        """Σ L_i."""
        return float(self.learnabilities.sum())

    @property
    def learned_share(self) -> float:
        """Σ L_i v_i² / Σ v_i²: the share of the target that is learned, by the theory."""
        power = self.coefficients**2
        return float((self.learnabilities * power).sum() / power.sum()) if power.any() else float("nan")

    def __str__(self) -> str:
        measured = value_with_error(self.measured_error, self.measured_error_error)
        lines = [
            f"kernel regression from {self.num_train} of {len(self.learnabilities)} points, ridge {self.ridge:.3g}",
            f"  degrees of freedom {self.degrees_of_freedom:.4g}, share of the target that is learned {self.learned_share:.3g}",
            f"  error on points left out: predicted {self.predicted_error:.4g}, measured {measured}"
            f" ({self.num_splits} splits); of the prediction zero {self.reference_error:.4g}",
            "  the theory holds here" if self.holds else "  the theory does NOT hold here",
        ]
        return "\n".join([*lines, *(f"  {warning}" for warning in self.warnings)])


@call_checked
def learnability(
    kernel, targets, num_train: int | None = None, *, ridge: float = 0.0, num_splits: int = 50, seed: int = 0
) -> Learnability:
    """What kernel regression learns of a target from n of N points, and a check on the points that are left out.

    Parameters
    ----------
    kernel : array, shape ``(N, N)``, or a spectrum with all its vectors
    targets : array, shape ``(N,)`` or ``(N, outputs)``
        Center them, unless the kernel has a constant feature.
    num_train : int, optional
        n, by default N/2.
    ridge : float
        δ, added to the diagonal of the n × n kernel of the training points.
    num_splits : int
        Random splits, each without replacement, on which the theory is checked.
    seed : int

    Returns
    -------
    Learnability

    Raises
    ------
    ArgumentError

    Notes
    -----
    With Λ_i the eigenvalues of the N × N matrix, κ solves Σ_i (Λ_i + δ)/(Λ_i + κ) = n, and L_i = Λ_i/(Λ_i + κ). This is
    arXiv:2110.03922 (`mode_learnability`) for points that are drawn from N without replacement, with δ/κ (N − Σ L_i) in
    place of its N δ/κ. The error on the points left out is (dκ/dδ) n Σ y_i²/(Λ_i + κ)² / (Σ 1/(Λ_i + κ))², with y_i the
    coefficients of the target: the squared leave-one-out residual. At δ = 0 it is the E₀ Σ (1 − L_i)² v_i² of that paper,
    less the part of the training points, whose error is zero there. Both are for eigenvectors without structure; sinusoids on a
    circle have some, and then the theory fails.

    Examples
    --------
    >>> import numpy as np
    >>> from phi4ppl.spectral.learnability import learnability
    >>> features = np.random.default_rng(0).normal(size=(300, 300)) / np.arange(1, 301)
    >>> found = learnability(features @ features.T, 5 * features[:, 4], 50)
    >>> found.holds, round(found.degrees_of_freedom, 6)
    (True, 50.0)
    """
    values, vectors = eigensystem("kernel", kernel)
    size = len(values)
    y = checked_targets(targets, size)
    if not y.any():
        raise ArgumentError("targets", "values that are not all 0", "0 at every point", "Nothing is to be learned.")
    require_scale("targets", np.abs(y).max())
    num_train = size // 2 if num_train is None else positive_int("num_train", num_train)
    if not 1 <= num_train < size:
        raise ArgumentError(
            "num_train", f"fewer than the {size} points", str(num_train), "Leave points out for the check."
        )
    positive_int("num_splits", num_splits, minimum=2), seed_within(seed)
    ridge = _checked_ridge(ridge)
    if ridge == 0 and (values > size * np.finfo(float).eps * values[0]).sum() <= num_train:
        got = f"a kernel of rank {(values > size * np.finfo(float).eps * values[0]).sum()} and {num_train} training points"
        fix = "Give a ridge, or fewer training points."
        raise ArgumentError("ridge", "a positive ridge where the kernel has no more features than points", got, fix)
    kappa = _root(values, values + ridge, num_train, 0.0)
    learned = values / (values + kappa)
    coefficients = vectors.T @ y
    predicted = _left_out_error(values, learned, kappa, ridge, num_train, coefficients)
    errors, modes = _measured(values, vectors, y, num_train, ridge, num_splits, seed)
    mean, error = errors.mean(), errors.std(ddof=1) / np.sqrt(num_splits)
    mode_means, mode_errors = modes.mean(axis=0), modes.std(axis=0, ddof=1) / np.sqrt(num_splits)
    warnings = _disagreements(predicted, mean, error, learned[: modes.shape[1]], mode_means, mode_errors)
    return Learnability(
        learned, kappa, num_train, ridge, np.sqrt((coefficients**2).sum(axis=1) / size), predicted, float(mean), float(error),
        float((y**2).sum() / size), mode_means, mode_errors, num_splits, warnings,
    )  # fmt: skip


def _left_out_error(values, learned, kappa, ridge, num_train, coefficients) -> float:
    inverse = 1 / (values / kappa + 1)  # 1 − L, in units in which nothing overflows
    slope = inverse.sum() / ((values + ridge) / kappa * inverse**2).sum()  # dκ/dδ
    return float(slope * num_train * (inverse[:, None] ** 2 * coefficients**2).sum() / inverse.sum() ** 2)


def _measured(values, vectors, y, num_train, ridge, num_splits, seed) -> tuple[np.ndarray, np.ndarray]:
    """Errors on the points left out, and u_iᵀ f̂ for f = u_i of the leading modes, by split."""
    rng, size = stream_rng(seed, "learnability"), len(values)
    kernel = (vectors * values) @ vectors.T
    lead = min(MODES, size)
    errors, modes = [], []
    for _ in range(num_splits):
        order = rng.permutation(size)
        seen, left = order[:num_train], order[num_train:]
        trained = kernel[np.ix_(seen, seen)] + ridge * np.eye(num_train)
        both = np.linalg.lstsq(trained, np.hstack([y[seen], vectors[seen, :lead]]), rcond=None)[0]
        errors.append(((kernel[np.ix_(left, seen)] @ both[:, : y.shape[1]] - y[left]) ** 2).sum() / len(left))
        modes.append(values[:lead] * (vectors[seen, :lead] * both[:, y.shape[1] :]).sum(axis=0))
    return np.array(errors), np.array(modes)


def _disagreements(predicted, mean, error, learned, mode_means, mode_errors) -> tuple[str, ...]:
    found = []
    if abs(mean - predicted) > max(ERRORS * error, SHARE * max(mean, predicted)):
        told = value_with_error(mean, error)
        found.append(f"The error on points left out is predicted to be {predicted:.3g}, but measured to be {told}.")
    off = np.abs(mode_means - learned)
    wrong = off > np.maximum(ERRORS * mode_errors, SHARE)
    if wrong.any():
        worst = int(np.argmax(np.where(wrong, off, 0)))
        told = value_with_error(mode_means[worst], mode_errors[worst])
        found.append(
            f"{wrong.sum()} of the {len(learned)} leading modes are off; of number {worst} the learnability is predicted to "
            f"be {learned[worst]:.3f}, but measured to be {told}."
        )
    return tuple(found)
