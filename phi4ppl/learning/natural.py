"""The natural-gradient step of a variational fit: regression of the target's action on the statistics of the model.

With p = exp(−S)/Z and S = Σ θ T, the gradient of 𝓕(θ) = ⟨A − S⟩ + F is −Cov(T, A − S) and the Fisher matrix is G = Cov(T, T).
The step G⁻¹ Cov(T, A − S) is the least-squares regression of A − S on T, so that nothing of the size of G is needed: with
fewer samples than couplings the sample Gram matrix takes its place.

Outside the family the residual r = A − S − T·Δθ does not vanish, and the Hessian of 𝓕 at its minimum is G + ⟨r T Tᵀ⟩, which
may exceed 2 G: unit steps then overshoot by more than they correct. `Regression.curved` is the step with that Hessian, and
`Trial` compares what a step was to bring with what it brought.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Regression", "Trial", "regress"]

DAMPINGS = np.concatenate([[0.0], 10.0 ** np.arange(-12, 2.1, 0.5)])  # in units of the variance of one statistic
STILL = 1e-12  # statistics that vary less than this, relative to their size, are constant
RANK = 1e-13
AS_GOOD = 1.05
MIN_CURVATURE = 0.2  # of the Hessian over the Fisher matrix: no direction gets more than five natural steps
OVERSHOT = 0.7  # slope at the end of a step, over the one at its start
SUFFICIENT = 0.1  # of the predicted improvement
SHARES = 0.1, 0.6  # of a step that is taken back


class Regression(NamedTuple):
    """A − S regressed on T over samples of the model.

    Attributes
    ----------
    step : array, shape (num_couplings,)
        Δθ of the full step.
    improvement : float
        ½ Var(T·Δθ): how far the bound falls if A − S is as linear in T as it looks.
    residual : float
        Var(A − S − T·Δθ).
    damping : float
        λ in (G + λ diag G) Δθ = Cov(T, A − S), chosen by generalised cross-validation; 0 if the samples settle every
        direction by themselves.
    rank : float
        Directions that the samples settle, Σ s/(s + λ) over the eigenvalues of the scaled Fisher matrix.
    noise : float
        What ``improvement`` is on average at the minimum, from noise alone: ½ ⟨r² Tᵀ G⁻¹ T⟩/N.
    curved : array, shape (num_couplings,)
        Δθ with the Hessian G + ⟨r T Tᵀ⟩ in place of G, as far as the samples tell the two apart; ``step`` where r = 0.
    lowest : float
        The smallest eigenvalue of G⁻¹ (G + ⟨r T Tᵀ⟩) that the samples tell from 1, or 1: negative at a saddle of the bound.
    """

    step: np.ndarray
    improvement: float
    residual: float
    damping: float
    rank: float
    noise: float
    curved: np.ndarray
    lowest: float


def regress(statistics: np.ndarray, values: np.ndarray, correlation: float = 1.0) -> Regression:
    """Least squares with as much damping as cross-validation asks for.

    Parameters
    ----------
    statistics : array, shape (num_samples, num_couplings)
        T at every sample; it is overwritten.
    values : array, shape (num_samples,)
        A − S at every sample.
    correlation : float
        2 τ_int: samples for one that is independent.

    Returns
    -------
    Regression

    Notes
    -----
    Statistics are scaled to unit variance, so that the damping does not depend on their units. Generalised cross-validation:
    P. Craven and G. Wahba, Numer. Math. 31 (1979) 377.

    Examples
    --------
    >>> import numpy as np
    >>> t = np.random.default_rng(0).normal(size=(200, 3))
    >>> regress(t.copy(), t @ [1.0, 2.0, 3.0]).step.round(6).tolist()
    [1.0, 2.0, 3.0]
    """
    number = len(values)
    y = np.asarray(values, float) - np.mean(values)
    size = np.abs(statistics).max(axis=0)
    statistics -= statistics.mean(axis=0)
    spread = np.sqrt(np.mean(statistics**2, axis=0))
    moves = spread > STILL * size
    statistics /= np.where(moves, spread, np.inf)
    few = number <= statistics.shape[1]
    if few:
        eigenvalues, basis = np.linalg.eigh(statistics @ statistics.T / number)
        along = basis.T @ y
    else:
        eigenvalues, basis = np.linalg.eigh(statistics.T @ statistics / number)
        along = basis.T @ (statistics.T @ y) / number
        scores = statistics @ basis
    eigenvalues = np.maximum(eigenvalues, 0.0)
    settled = eigenvalues > RANK * max(eigenvalues.max(initial=0.0), 1e-300)

    def solved(damping):
        return np.where(settled, along / np.where(settled, eigenvalues + damping, 1.0), 0.0)

    def fitted(damping):
        c = solved(damping)
        return basis @ (eigenvalues * c) if few else scores @ c

    def left(damping):
        """Mean squared residual and freedom used."""
        freedom = np.sum(eigenvalues[settled] / (eigenvalues[settled] + damping)) + 1  # one for the mean
        return np.mean((y - fitted(damping)) ** 2), freedom

    tried = [(damping, *left(damping)) for damping in DAMPINGS]
    safe = [(d, r, f) for d, r, f in tried if f < 0.98 * number] or tried[-1:]
    scores_of = [(r + 1e-30) / (1 - f / number) ** 2 for _, r, f in safe]
    # the least damping that is about as good as the best: damping slows the fit down
    best = next(k for k, score in enumerate(scores_of) if score <= AS_GOOD * min(scores_of))
    damping, residual, freedom = safe[best]
    c = solved(damping)
    step = statistics.T @ (basis @ c) / number if few else basis @ c
    explained, rank = float(np.mean(fitted(damping) ** 2)), float(freedom - 1)
    noise, curved, lowest = rank * residual / 2, step, 1.0
    if not few:
        roots = np.sqrt(np.where(settled, eigenvalues, np.inf))
        white = scores / roots
        noise, bent, lowest = _curved(white, c * eigenvalues / roots, y - fitted(damping), correlation)
        curved = basis @ (bent / roots)
    noise *= correlation / max(number - rank, 1)
    scale = np.where(moves, spread, 1.0)
    return Regression(step / scale, explained / 2, residual, float(damping), rank, float(noise), curved / scale, lowest)


def _curved(white: np.ndarray, step: np.ndarray, residual: np.ndarray, correlation: float):
    """N times the noise, the step with the Hessian, and its lowest eigenvalue, all for statistics of unit covariance.

    ⟨r T Tᵀ⟩ of noise alone has its eigenvalues in a semicircle of radius R = 2 √(p v/N), v the variance of r T_i T_j. An
    eigenvalue k beyond it stands for √(k² − R²) or so, one inside it for nothing.
    """
    number = len(white)
    size = np.sum(white**2, axis=1)
    noise = float(np.mean(residual**2 * size) / 2)
    found, axes = np.linalg.eigh((white * residual[:, None]).T @ white / number)
    wide = max(white.shape[1], 1)
    radius = 2 * np.sqrt(wide * np.mean((residual * size) ** 2) / wide**2 * correlation / number)
    beyond = np.sign(found) * np.sqrt(np.maximum(found**2 - radius**2, 0.0))
    hessian = 1 + beyond
    bent = axes @ ((axes.T @ step) / np.maximum(hessian, MIN_CURVATURE))
    return noise, bent, float(hessian.min(initial=1.0))


class Trial:
    """A step Δθ from couplings whose samples are known, judged by the samples of those at its end.

    𝓕(s) along θ + s Δθ has the slope −Cov_s(T·Δθ, A − S_s), known at both ends, and log Z changes by −∫⟨T·Δθ⟩_s ds, by the
    trapezoidal rule with its Euler–Maclaurin correction, whose size is taken for its error.

    Parameters
    ----------
    theta, change : arrays, shape (num_couplings,)
        Where the step starts, and the step.
    along, excess : arrays, shape (num_samples,)
        T·Δθ and A − S of the samples at its start.
    predicted : float
        Improvement that the step was to bring.
    correlation : float
        2 τ_int of the samples.
    """

    def __init__(self, theta, change, along, excess, predicted: float, correlation: float):
        self.theta, self.change, self.along, self.excess = theta, change, along, excess
        self.predicted, self.correlation, self.share = predicted, correlation, 1.0

    @property
    def end(self) -> np.ndarray:
        return self.theta + self.share * self.change

    def shorten(self, statistics: np.ndarray, excess: np.ndarray, correlation: float) -> bool:
        """Whether samples at `end` speak against the step, which is then shortened."""
        before, after = self.share * self.along, statistics @ (self.share * self.change)
        start, end = _covariance(before, self.excess), -_covariance(after, excess)
        slope_error = _error((after - after.mean()) * (excess - excess.mean()), correlation)
        correction = (np.var(after) - np.var(before)) / 12
        gain = np.mean(self.excess - before / 2) - np.mean(excess + after / 2) - correction
        error = np.hypot(_error(self.excess - before / 2, self.correlation), _error(excess + after / 2, correlation))
        margin = 3 * np.hypot(error, correction)
        if gain - margin > SUFFICIENT * self.share * self.predicted:
            return False
        if gain + margin >= 0 and end - 3 * slope_error <= OVERSHOT * start:
            return False
        # where the slope vanishes if it changes linearly
        self.share *= float(np.clip(start / (start + end) if end > 0 else 0.5, *SHARES))
        return True


def _covariance(x, y) -> float:
    return float(np.mean((x - x.mean()) * (y - y.mean())))


def _error(values, correlation: float) -> float:
    return float(np.std(values) * np.sqrt(correlation / len(values)))
