"""The law by which eigenvalues fall with rank: a power, an exponential, a stretched exponential, or none.

With i = 1, 2, … the rank: log λ = c − α log i, log λ = c − β i, log λ = c − β i^γ. Each is fitted by least squares in
log λ over
windows of ranks. AIC is χ² + 2 (parameters) + 2 (values left out), so that windows compare (W. I. Jay and E. T. Neil,
Phys. Rev. D
103 (2021) 114502); weights are exp(−AIC/2). A window holds at least half of the ranks that are above rounding and error: a law
that holds for fewer is none. The error of a value of log λ is that of λ, and a floor of 2 %, which is
what a law means by a spectrum that follows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import numpy as np
from scipy.optimize import minimize_scalar

from ..analysis.least_squares import aic_weights, p_value_of
from ..errors import ArgumentError
from ..errors.arguments import one_of
from ..reports.numbers import value_with_error
from .subsamples import eigenvalue_errors

__all__ = ["LAWS", "Decay", "fit_decay"]

FLOOR = 0.02  # of log λ
MIN_POINTS = 6
MIN_SIGNAL = 1.0  # errors by which an eigenvalue exceeds zero, bias included
MIN_P = 0.01
NO_FIT = 1e9  # added to χ²
GAMMAS = np.geomspace(0.05, 3.0, 40)  # powers of the rank in a stretched exponential
LAWS = {"power": ("i^−α", ("alpha",)), "exponential": ("exp(−β i)", ("beta",)),
        "stretched exponential": ("exp(−β i^γ)", ("beta", "gamma"))}  # fmt: skip


@dataclass(frozen=True)
class Decay:
    """What describes the decay best.

    Attributes
    ----------
    law : str or None
        The name of the law of the largest weight; None if none fits.
    parameters : dict
        By name value and error: of sub-samples, and of the windows.
    weights : dict
        Of each law, summed over windows.
    window : (int, int)
        First and last rank of the best fit.
    p_value : float
        Of the best fit.
    level : float
        c of the best fit.
    """

    law: str | None
    parameters: dict[str, tuple[float, float]]
    weights: dict[str, float]
    window: tuple[int, int]
    p_value: float
    level: float
    nearest: str = ""

    def __call__(self, rank) -> np.ndarray:
        """The eigenvalue at a rank, by the best fit."""
        if not self.weights:
            raise ArgumentError("rank", "a spectrum with a law", self.line())
        values = [value for value, _ in self.parameters.values()]
        return np.exp(_curve(self.law or self.nearest, np.asarray(rank, float), [self.level, *values]))

    def line(self) -> str:
        """The answer in one line."""
        if not self.weights:
            return f"too few eigenvalues for a law (at least {MIN_POINTS} above rounding and error)"
        where = f"ranks {self.window[0]} to {self.window[1]}"
        if self.law is None:
            return f"no law fits (nearest: {self.nearest}, {where}, p = {self.p_value:.1g})"
        shown = ", ".join(f"{name} = {value_with_error(*pair)}" for name, pair in self.parameters.items())
        return f"{self.law} {LAWS[self.law][0]}, {shown} ({where}, weight {self.weights[self.law]:.2f})"


def _curve(law: str, rank: np.ndarray, p) -> np.ndarray:
    if law == "power":
        return p[0] - p[1] * np.log(rank)
    return p[0] - p[1] * rank ** (p[2] if law == "stretched exponential" else 1.0)


def _fit(law: str, rank: np.ndarray, logs: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, float]:
    """Parameters and χ²."""
    if law != "stretched exponential":
        level, slope, chi2 = _line(np.log(rank) if law == "power" else rank, logs, sigma)
        return np.array([level, slope]), float(chi2)

    def squares(gamma):  # level and slope are those of a line in i^γ, so that only γ is searched for
        return _line(rank ** np.asarray(gamma)[..., None], logs, sigma)[2]

    start = int(np.clip(np.argmin(squares(GAMMAS)), 1, len(GAMMAS) - 2))
    best = minimize_scalar(
        squares, bounds=(GAMMAS[start - 1], GAMMAS[start + 1]), method="bounded", options={"xatol": 1e-9}
    )
    level, slope, chi2 = _line(rank**best.x, logs, sigma)
    if not 1.01 * GAMMAS[0] < best.x < 0.99 * GAMMAS[-1]:  # a power, or a cut-off
        chi2 += NO_FIT
    return np.array([level, slope, best.x]), float(chi2)


def _line(x: np.ndarray, logs: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Level c, slope s ≥ 0 and χ² of log λ = c − s x, along the last axis of x."""
    share = sigma**-2 / np.sum(sigma**-2)
    dx, dy = x - (x @ share)[..., None], logs - logs @ share
    slope = np.maximum(-((dx * dy) @ share) / (dx**2 @ share), 0.0)
    level = logs @ share + slope * (x @ share)
    return level, slope, np.sum(((dy + slope[..., None] * dx) / sigma) ** 2, axis=-1)


def _windows(number: int) -> list[tuple[int, int]]:
    firsts = sorted({0, 1, 2, 4, 8, *(int(number * share) for share in (0.05, 0.1, 0.2))})
    lasts = sorted({int(round(number * share)) for share in (0.35, 0.5, 0.7, 0.85, 1.0)})
    shortest = max(MIN_POINTS, (number + 1) // 2)
    return [(a, b) for a in firsts for b in lasts if b - a >= shortest and a <= number // 4]


def _is_window(window) -> bool:
    whole = isinstance(window, tuple | list) and len(window) == 2 and all(isinstance(k, Integral) for k in window)
    return whole and 1 <= window[0] <= window[1] - MIN_POINTS + 1


def fit_decay(spectrum, window: tuple[int, int] | None = None, laws: tuple[str, ...] = tuple(LAWS)) -> Decay:
    """The law of the decay of a spectrum.

    Parameters
    ----------
    spectrum : Spectrum
    window : (int, int), optional
        First and last rank, both counted from 1; otherwise windows are scanned.
    laws : tuple of str
        Among ``"power"``, ``"exponential"`` and ``"stretched exponential"``.

    Returns
    -------
    Decay

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> exact = p4.spectral.spectrum(np.diag(0.5 ** np.arange(20.0)), sampled=False)
    >>> exact.decay.law, round(exact.decay.parameters["beta"][0], 4)  # log 2
    ('exponential', 0.6931)
    """
    if not hasattr(spectrum, "resolved"):
        raise ArgumentError("spectrum", "a Spectrum", f"a {type(spectrum).__name__}", "Make one by spectrum(…).")
    if not isinstance(laws, tuple | list) or not laws:
        raise ArgumentError("laws", f"a tuple of some of {', '.join(LAWS)}", repr(laws))
    if window is not None and not _is_window(window):
        raise ArgumentError("window", f"first and last rank, from 1, with at least {MIN_POINTS} ranks", repr(window))
    values, errors = spectrum.resolved, np.nan_to_num(spectrum.errors, nan=np.inf)
    good = (values > 0) & (values > MIN_SIGNAL * errors)
    good &= values > 10 * spectrum.num_points * spectrum.epsilon * values[0]  # above what rounding has changed
    number = len(values) if good.all() else int(np.argmin(good))
    if number - (0 if window is None else window[0] - 1) < MIN_POINTS:
        return Decay(None, {}, {}, (1, number), float("nan"), float("nan"))
    rank, logs = np.arange(1, number + 1.0), np.log(values[:number])
    sigma = np.hypot(errors[:number] / values[:number], FLOOR)
    windows = _windows(number) if window is None else [(window[0] - 1, min(window[1], number))]
    fits = []
    for law in (one_of("laws", each, LAWS) for each in laws):
        names = LAWS[law][1]
        for a, b in windows:
            found, chi2 = _fit(law, rank[a:b], logs[a:b], sigma[a:b])
            aic = chi2 + 2 * (len(names) + 1) + 2 * (number - (b - a))
            fits.append((aic, law, (a, b), found, p_value_of(chi2, b - a - len(names) - 1)))
    return _chosen(spectrum, fits, sigma)


def _chosen(spectrum, fits: list, sigma: np.ndarray) -> Decay:
    weights = aic_weights([fit[0] for fit in fits])
    by_law = {law: float(sum(w for w, fit in zip(weights, fits, strict=True) if fit[1] == law)) for law in LAWS}
    best_law = max(by_law, key=lambda law: by_law[law])
    _, law, (a, b), found, p_value = min((fit for fit in fits if fit[1] == best_law), key=lambda fit: fit[0])
    names = LAWS[law][1]
    spread = _spread_of_windows(law, fits, weights)
    noise = _error_of_points(spectrum, law, (a, b), sigma, found[1:])
    errors = np.hypot(spread, noise)
    parameters = {n: (float(v), float(e)) for n, v, e in zip(names, found[1:], errors, strict=True)}
    fitting = p_value >= MIN_P
    return Decay(law if fitting else None, parameters, by_law, (a + 1, b), p_value, float(found[0]), law)


def _spread_of_windows(law: str, fits: list, weights: np.ndarray) -> np.ndarray:
    some = [(w, fit[3][1:]) for w, fit in zip(weights, fits, strict=True) if fit[1] == law]
    share = np.array([w for w, _ in some])
    each = np.array([p for _, p in some])
    if not share.sum() > 0:
        return np.zeros(each.shape[1])
    mean = share @ each / share.sum()
    return np.sqrt(share @ (each - mean) ** 2 / share.sum())


def _error_of_points(spectrum, law: str, window: tuple[int, int], sigma: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Scatter and bias from sub-samples: few points make spectra steeper. Without them, what errors of λ allow."""
    a, b = window
    rank = np.arange(a + 1, b + 1.0)
    if spectrum.replicas is None:
        return np.zeros(len(LAWS[law][1])) if not spectrum.sampled else _of_values(spectrum, law, window, sigma)
    b = min(b, spectrum.replicas.shape[1])
    each = [_fit(law, rank[: b - a], np.log(np.maximum(r[a:b], 1e-300)), sigma[a:b])[0][1:] for r in spectrum.replicas]
    return eigenvalue_errors(found, np.array(each), spectrum.replica_factor)[0]


def _of_values(spectrum, law: str, window: tuple[int, int], sigma: np.ndarray) -> np.ndarray:
    a, b = window
    rank, values = np.arange(a + 1, b + 1.0), spectrum.eigenvalues[a:b]
    random = np.random.default_rng(0)
    noise = random.normal(size=(16, b - a)) * spectrum.errors[a:b] / values
    return np.std([_fit(law, rank, np.log(values) + each, sigma[a:b])[0][1:] for each in noise], axis=0)
