"""Masses from correlators: correlated least squares in every window of times, and the average over windows.

In a window of p points, Σ_k A_k (e^{−M_k t} + e^{−M_k (T−t)}) (open axes: Σ_k A_k e^{−M_k t}) with 2s parameters of s states is
fitted with χ² = δᵀ C⁻¹ δ and the full covariance C, which is itself estimated, from n independent samples. Then not χ² but
χ² (n − ν)/(ν (n − 1)), ν = p − 2s, has a known law: F with ν and n − ν degrees of freedom, which gives p-values. Variances of
parameters are larger by (n + ν)/(n − ν), to first order in ν/n. Windows of more than n/10 points are left out. The average
weighs windows by exp(−½ (χ² + 2·2s + 2 N_cut)), N_cut being the points outside the window, and its variance includes that
between windows. A second state needs early times, where it is strong; the lightest mass then takes less from late ones.

Sources: D. Toussaint and W. Freeman, arXiv:0808.2211; W. I. Jay and E. T. Neil, Phys. Rev. D 103 (2021) 114502.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import fdtrc

from ..errors import ArgumentError
from ..errors.arguments import call_checked, positive_int
from ..reports.numbers import value_with_error
from .correlators import Correlator
from .least_squares import aic_weights, correlated_fit

__all__ = ["MassFit", "WindowFit", "fit_mass"]

SPARE_POINTS = 2  # beyond the number of parameters
SAMPLES_PER_POINT = 10
LARGEST_GAP = 20.0  # between masses: a heavier state is zero from the second point on
MIN_PROBABILITY = 1e-3


@dataclass(frozen=True)
class WindowFit:
    """The fit in one window.

    Attributes
    ----------
    first, last : float
        Ends of the window.
    value, error : float
        The smallest mass.
    amplitude : float
        Of its state.
    chi2, dof, p : float
        χ², its degrees of freedom, and the probability of a larger one.
    weight : float
        In the average over windows.
    masses, mass_errors, amplitudes : tuple of float
        Of all states that were fitted, the lightest first.
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
    masses: tuple[float, ...] = ()
    mass_errors: tuple[float, ...] = ()
    amplitudes: tuple[float, ...] = ()


@dataclass(frozen=True)
class MassFit:
    """A mass averaged over windows; see `fit_mass`.

    Attributes
    ----------
    value, error : float
        The smallest mass: average over the windows by their weights; the error includes how much they differ.
    windows : tuple of WindowFit
        That of the largest weight first.
    warnings : tuple of str
    masses, mass_errors : tuple of float
        The same averages of the masses of all states, the lightest first.
    """

    value: float
    error: float
    windows: tuple[WindowFit, ...]
    warnings: tuple[str, ...] = ()
    masses: tuple[float, ...] = ()
    mass_errors: tuple[float, ...] = ()

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
        found = ", ".join(value_with_error(*pair) for pair in zip(self.masses, self.mass_errors, strict=True))
        words = f"mass {found}" if len(self.masses) == 1 else f"masses {found}"
        lines = [f"{words}, average over {len(self.windows)} windows"]
        lines.append(
            f"best window {best.first:g} … {best.last:g}: {value_with_error(best.value, best.error)}, "
            f"χ² = {best.chi2:.2f} with {best.dof} degrees of freedom, p = {best.p:.2g}, weight {best.weight:.2f}"
        )
        return "\n".join([*lines, *(f"  NOT RELIABLE: {text}" for text in self.warnings)])


@call_checked
def fit_mass(correlator: Correlator, *, states: int = 1, windows: list[tuple[float, float]] | None = None) -> MassFit:
    """Masses of the lightest states of a correlator, by fits of exponentials, or cosh, in windows of times.

    Parameters
    ----------
    correlator : Correlator
        `time_slice_correlator` of a run, or one of plain arrays.
    states : int
        How many exponentials: one (the default) where early times are left out, two to use those as well.
    windows : list of pairs, optional
        First and last time of each; by default all with at least two points more than parameters (two for each state), and
        of no more than a tenth of ``correlator.samples``.

    Returns
    -------
    MassFit
        ``value``, ``error``, ``chi2``, ``p`` (of the best window), ``masses`` and ``mass_errors`` of all states, ``windows``;
        ``print`` it for a summary.

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
    states = positive_int("states", states)
    x, most, number = correlator.x, correlator.samples / SAMPLES_PER_POINT, 2 * states
    least = number + SPARE_POINTS
    if most < least:
        expected = f"at least {SAMPLES_PER_POINT * least} independent samples, {SAMPLES_PER_POINT} per point"
        fix = "The covariance is too noisy: draw more."
        raise ArgumentError("correlator", expected, f"{correlator.samples:.0f}", fix, reason="noisy")
    chosen = [
        np.arange(i, j) for i in range(len(x)) for j in range(i + least, len(x) + 1)
    ] if windows is None else [np.flatnonzero((x >= a) & (x <= b)) for a, b in windows]  # fmt: skip
    if windows is not None and any(len(w) <= number or len(w) > most for w in chosen):
        expected = f"windows of {number + 1} to {most:.0f} points, a tenth of the independent samples"
        raise ArgumentError("windows", expected, f"{sorted({len(w) for w in chosen})} points", reason="size")
    found = [fit for w in chosen if len(w) <= most and (fit := _fit(correlator, w, states)) is not None]
    if not found:
        what = "a falling exponential fits" if states == 1 else f"{states} falling exponentials of different masses fit"
        fix = "Draw more, or look at plot_correlation: is there a signal, and does it fall?"
        raise ArgumentError("correlator", f"one that {what} in some window", "none", fix, reason="fit")
    weights = aic_weights([fit.chi2 + 2 * number + 2 * (len(x) - fit.dof - number) for fit in found])
    values, errors = (np.array([getattr(fit, key) for fit in found]) for key in ("masses", "mass_errors"))
    mean = weights @ values
    error = np.sqrt(weights @ (errors**2 + (values - mean) ** 2))
    order = np.argsort(-weights)
    ranked = tuple(WindowFit(**(vars(found[k]) | {"weight": float(weights[k])})) for k in order)
    bad = ranked[0].p < MIN_PROBABILITY
    few = "one state does" if states == 1 else f"{states} states do"
    text = f"even the best window has p = {ranked[0].p:.1g}: {few} not describe the correlator."
    masses, spreads = tuple(mean.tolist()), tuple(error.tolist())
    return MassFit(masses[0], spreads[0], ranked, (text,) if bad else (), masses, spreads)


def _fit(correlator: Correlator, window: np.ndarray, states: int) -> WindowFit | None:
    """Least squares in one window, in units of the value at its beginning; None unless all masses are positive and differ.

    Parameters are the amplitudes, the smallest mass, and logarithms of the gaps between masses.
    """
    t, value = correlator.x[window], correlator.value[window]
    if not np.all(value[:2] > 0):
        return None
    unit, start, period = value[0], t[0], correlator.period

    def masses_of(p):
        return np.cumsum([p[states], *np.exp(np.minimum(p[states + 1 :], np.log(LARGEST_GAP)))])

    def falls(mass):
        """The fall from the beginning of the window, and its derivative in the mass."""
        near, far = np.exp(-mass * (t - start)), np.zeros_like(t, float)
        if period is not None:
            far = np.exp(-mass * (period - t - start))
        return near + far, -(t - start) * near - (0 if period is None else period - t - start) * far

    def curve(p):
        return unit * sum(a * falls(m)[0] for a, m in zip(p[:states], masses_of(p), strict=True))

    def slopes(p):
        shapes, derivatives = zip(*map(falls, masses_of(p)), strict=True)
        by_mass = unit * p[:states] * np.stack(derivatives, axis=1)
        of_gaps = np.cumsum(by_mass[:, ::-1], axis=1)[:, ::-1]  # a gap moves all heavier masses
        return np.hstack([unit * np.stack(shapes, axis=1), of_gaps[:, :1], of_gaps[:, 1:] * np.exp(p[states + 1 :])])

    late = len(t) // 2 if states > 1 else 0  # where the lightest state is alone
    guess = np.log(max(value[late] / max(value[late + 1], 1e-3 * value[late]), 1.0)) / (t[late + 1] - t[late])
    guess = max(guess, 0.05)
    first = [1.0 if period is None else 0.9, *[0.1] * (states - 1), guess, *np.log([2 * guess] * (states - 1))]
    try:
        solved = correlated_fit(
            curve, value, correlator.covariance[np.ix_(window, window)], np.array(first), floor=0.0, jacobian=slopes
        )
    except np.linalg.LinAlgError:  # as many equal points as a noiseless covariance cannot have
        return None
    masses, gaps = masses_of(solved.parameters), np.exp(solved.parameters[states + 1 :])
    by_parameter = np.tril(np.ones((states, states))) * np.append(1.0, gaps)
    n, dof = correlator.samples, solved.dof
    inflation, probability = 1.0, solved.p_value
    if np.isfinite(n):
        inflation = (n + dof) / (n - dof)
        probability = float(fdtrc(dof, n - dof, solved.chi2 * (n - dof) / (n - 1) / dof))
    variance = by_parameter @ solved.covariance[states:, states:] @ by_parameter.T
    errors = np.sqrt(inflation * np.diag(variance))
    separate = np.all(gaps < LARGEST_GAP) and np.all(errors[1:] < masses[1:])  # else this window does not show them all
    if not (solved.success and masses[0] > 0 and separate):
        return None
    amplitudes = unit * solved.parameters[:states] * np.exp(masses * start)
    return WindowFit(
        float(start), float(t[-1]), float(masses[0]), float(errors[0]), float(amplitudes[0]), solved.chi2, dof, probability,
        0.0, tuple(masses.tolist()), tuple(errors.tolist()), tuple(amplitudes.tolist()),
    )  # fmt: skip
