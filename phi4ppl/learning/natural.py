"""The natural-gradient step of a variational fit: regression of the target's action on the statistics of the model.

With p = exp(−S)/Z and S = Σ θ T, the gradient of 𝓕(θ) = ⟨A − S⟩ + F is −Cov(T, A − S) and the Fisher matrix is G = Cov(T, T).
The step G⁻¹ Cov(T, A − S) is the least-squares regression of A − S on T, so that nothing of the size of G is needed: with
fewer samples than couplings the sample Gram matrix takes its place.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Regression", "regress"]

DAMPINGS = np.concatenate([[0.0], 10.0 ** np.arange(-12, 2.1, 0.5)])  # in units of the variance of one statistic
STILL = 1e-12  # statistics that vary less than this, relative to their size, are constant
RANK = 1e-13
AS_GOOD = 1.05


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
    """

    step: np.ndarray
    improvement: float
    residual: float
    damping: float
    rank: float


def regress(statistics: np.ndarray, values: np.ndarray) -> Regression:
    """Least squares with as much damping as cross-validation asks for.

    Parameters
    ----------
    statistics : array, shape (num_samples, num_couplings)
        T at every sample; it is overwritten.
    values : array, shape (num_samples,)
        A − S at every sample.

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
    step = step / np.where(moves, spread, 1.0)
    explained = float(np.mean(fitted(damping) ** 2))
    return Regression(step, explained / 2, float(residual), float(damping), float(freedom - 1))
