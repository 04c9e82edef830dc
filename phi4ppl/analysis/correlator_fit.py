"""Masses from correlators: correlated least squares in every window of times, and the average over windows.

In a window of p points, A(e^{−Mt} + e^{−M(T−t)}) (open axes: A e^{−Mt}) is fitted with χ² = δᵀ C⁻¹ δ and the full covariance
C, which is itself estimated, from n independent samples. Then not χ² but χ² (n − ν)/(ν (n − 1)), ν = p − 2, has a known law: F
with ν and n − ν degrees of freedom, which gives p-values. Variances of parameters are larger by (n + ν)/(n − ν), to first order
in ν/n. Windows of more than n/10 points are left out. The average weighs windows by exp(−½ (χ² + 2·2 + 2 N_cut)), N_cut being
the points outside the window, and its variance includes that between windows.

Sources: D. Toussaint and W. Freeman, arXiv:0808.2211; W. I. Jay and E. T. Neil, Phys. Rev. D 103 (2021) 114502.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import least_squares
from scipy.special import fdtrc, gammaincc

from ..errors import ArgumentError
from ..errors.arguments import call_checked
from ..reports.numbers import value_with_error
from .correlators import Correlator
from .least_squares import aic_weights

__all__ = ["MassFit", "WindowFit", "fit_mass"]

NUM_PARAMETERS = 2
MIN_POINTS = 4
SAMPLES_PER_POINT = 10
MIN_PROBABILITY = 1e-3


@dataclass(frozen=True)
class WindowFit:
    """The fit in one window.

    Attributes
    ----------
    first, last : float
        Ends of the window.
    value, error : float
        The mass.
    amplitude : float
    chi2, dof, p : float
        χ², its degrees of freedom, and the probability of a larger one.
    weight : float
        In the average over windows.
    """

    first: float
    last: float
    value: float
    error: float
    amplitude: float
    chi2: float
    dof: int
    p: float
    weight: float = 0.0


@dataclass(frozen=True)
class MassFit:
    """A mass averaged over windows; see `fit_mass`.

    Attributes
    ----------
    value, error : float
        Average over the windows by their weights; the error includes how much they differ.
    windows : tuple of WindowFit
        The heaviest first.
    warnings : tuple of str
    """

    value: float
    error: float
    windows: tuple[WindowFit, ...]
    warnings: tuple[str, ...] = ()

    @property
    def best(self) -> WindowFit:
        """The window of the largest weight."""
        return self.windows[0]

    @property
    def chi2(self) -> float:
        return self.best.chi2

    @property
    def p(self) -> float:
        return self.best.p

    def __str__(self) -> str:
        best = self.best
        lines = [f"mass {value_with_error(self.value, self.error)}, average over {len(self.windows)} windows"]
        lines.append(
            f"best window {best.first:g} … {best.last:g}: {value_with_error(best.value, best.error)}, "
            f"χ² = {best.chi2:.2f} with {best.dof} degrees of freedom, p = {best.p:.2g}, weight {best.weight:.2f}"
        )
        return "\n".join([*lines, *(f"  NOT RELIABLE: {text}" for text in self.warnings)])


@call_checked
def fit_mass(correlator: Correlator, *, windows: list[tuple[float, float]] | None = None) -> MassFit:
    """The mass of the lightest state of a correlator, by fits of one exponential, or cosh, in windows of times.

    Parameters
    ----------
    correlator : Correlator
        `time_slice_correlator` of a run, or one of plain arrays.
    windows : list of pairs, optional
        First and last time of each; by default all of at least four points, of no more than a tenth of ``correlator.samples``.

    Returns
    -------
    MassFit
        ``value``, ``error``, ``chi2``, ``p`` (of the best window), ``windows``; ``print`` it for a summary.

    Raises
    ------
    ArgumentError
        If the covariance is too noisy for any window, or none can be fitted.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> t = np.arange(9)
    >>> exact = np.exp(-0.5 * t) + np.exp(-0.5 * (16 - t))
    >>> fit = p4.analysis.fit_mass(p4.analysis.Correlator(t, exact, 1e-8 * np.eye(9), period=16))
    >>> round(fit.value, 6), len(fit.windows)
    (0.5, 21)
    """
    x, most = correlator.x, correlator.samples / SAMPLES_PER_POINT
    if most < MIN_POINTS:
        expected = f"at least {SAMPLES_PER_POINT * MIN_POINTS} independent samples, {SAMPLES_PER_POINT} per point"
        fix = "The covariance is too noisy: draw more."
        raise ArgumentError("correlator", expected, f"{correlator.samples:.0f}", fix, reason="noisy")
    chosen = [
        np.arange(i, j) for i in range(len(x)) for j in range(i + MIN_POINTS, len(x) + 1)
    ] if windows is None else [np.flatnonzero((x >= a) & (x <= b)) for a, b in windows]  # fmt: skip
    if windows is not None and any(len(w) <= NUM_PARAMETERS or len(w) > most for w in chosen):
        expected = f"windows of {NUM_PARAMETERS + 1} to {most:.0f} points, a tenth of the independent samples"
        raise ArgumentError("windows", expected, f"{sorted({len(w) for w in chosen})} points", reason="size")
    found = [fit for w in chosen if len(w) <= most and (fit := _fit(correlator, w)) is not None]
    if not found:
        fix = "Draw more, or look at plot_correlation: is there a signal, and does it fall?"
        raise ArgumentError(
            "correlator", "one that a falling exponential fits in some window", "none", fix, reason="fit"
        )
    scores = np.array([fit.chi2 + 2 * NUM_PARAMETERS + 2 * (len(x) - fit.dof - NUM_PARAMETERS) for fit in found])
    weights = aic_weights(scores)
    values, errors = (np.array([getattr(fit, key) for fit in found]) for key in ("value", "error"))
    mean = float(weights @ values)
    error = float(np.sqrt(weights @ (errors**2 + (values - mean) ** 2)))
    order = np.argsort(-weights)
    ranked = tuple(WindowFit(**(vars(found[k]) | {"weight": float(weights[k])})) for k in order)
    bad = ranked[0].p < MIN_PROBABILITY
    text = f"even the best window has p = {ranked[0].p:.1g}: one state does not describe the correlator."
    return MassFit(mean, error, ranked, (text,) if bad else ())


def _fit(correlator: Correlator, window: np.ndarray) -> WindowFit | None:
    """Least squares in one window, in units of the value at its beginning; None if the mass is not positive."""
    t, value = correlator.x[window], correlator.value[window]
    if not np.all(value[:2] > 0):
        return None
    unit, start, period = value[0], t[0], correlator.period
    errors = correlator.error[window]
    unit_covariance = correlator.covariance[np.ix_(window, window)] / np.outer(errors, errors)
    try:
        factor = np.linalg.cholesky(unit_covariance)
    except np.linalg.LinAlgError:  # as many equal points as a noiseless covariance cannot have
        return None

    def white(columns):
        return solve_triangular(factor, (columns.T / errors).T, lower=True)

    def shape(mass):
        """The fall from the beginning of the window, and its derivative in the mass."""
        near, far = np.exp(-mass * (t - start)), np.zeros_like(t)
        if period is not None:
            far = np.exp(-mass * (period - t - start))
        return near + far, -(t - start) * near - (0 if period is None else period - t - start) * far

    def residual(p):
        return white(unit * p[0] * shape(p[1])[0] - value)

    def slopes(p):
        fall, derivative = shape(p[1])
        return white(unit * np.stack([fall, p[0] * derivative], axis=1))

    guess = max(np.log(value[0] / value[1]) / (t[1] - t[0]), 0.05)
    solved = least_squares(residual, [1.0 if period is None else 0.9, guess], jac=slopes, method="lm")
    amplitude, mass = solved.x
    if not solved.success or not mass > 0:
        return None
    n, dof = correlator.samples, len(t) - NUM_PARAMETERS
    chi2 = float(np.sum(solved.fun**2))
    jacobian = slopes(solved.x)
    variance = np.linalg.inv(jacobian.T @ jacobian)[1, 1]
    if np.isfinite(n):
        inflation, probability = (n + dof) / (n - dof), fdtrc(dof, n - dof, chi2 * (n - dof) / (n - 1) / dof)
    else:
        inflation, probability = 1.0, gammaincc(dof / 2, chi2 / 2)
    amplitude = float(unit * amplitude * np.exp(mass * start))
    return WindowFit(
        float(start),
        float(t[-1]),
        float(mass),
        float(np.sqrt(variance * inflation)),
        amplitude,
        chi2,
        dof,
        float(probability),
    )
