"""Fits of critical couplings and exponents to observables at several sizes: `fit_scaling`.

Near a critical point an observable is O(y, L) = L^p [Σ_k a_k x^k + L^{−ω} Σ_k b_k x^k + (y − y_c)(c₁ x + c₀)] with
x = (y − y_c) L^{1/ν}: p = 0 for U₄ and ξ/L, γ/ν for χ and −β/ν for |m|. The b_k are corrections to scaling; c₁ and c₀ are
analytic: the scaling field is not exactly y − y_c, and amplitudes of powers depend on y. Without them, windows of a few
per cent of y_c shift exponents by several errors. Amplitudes enter linearly, so that only y_c, ν, p and ω are searched for,
and the amplitudes solved for at each of them; errors are those of all parameters together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import block_diag
from scipy.optimize import least_squares

from .._typing import ArrayLike
from ..errors import ArgumentError, Phi4pplWarning, warn
from ..errors.arguments import call_checked, positive_int
from ..reports.numbers import value_with_error
from .crossings import find_crossings
from .least_squares import LeastSquares, correlated_fit, whitening
from .scaling_table import ScalingTable

__all__ = ["EXPONENTS", "POWERS", "ScalingFit", "fit_scaling", "fitted", "powers_of", "warn_of_omega"]

POWERS = {"susceptibility": "gamma/nu", "chi": "gamma/nu", "m2": "-2 beta/nu", "abs_m": "-beta/nu"}
"""Observables that go with a power of the size at the critical point, by name; all others do not depend on the size there."""
EXPONENTS = {
    "gamma/nu": (1.0, "gamma/nu"),
    "-beta/nu": (-1.0, "beta/nu"),
    "-2 beta/nu": (-2.0, "beta/nu"),
}  # factor, label
OMEGA = (1.3, 0.5)
"""Prior mean and standard deviation of exponents of corrections: 0.8 in three dimensions, 7/4 to 2 in two."""
Omega = float | tuple[float, float]
GUESS = {"gamma/nu": 1.75, "beta/nu": 0.125}
MIN_P = 0.01
MOVED = 0.25  # of the error of ω, from which on its prior matters
TENSION = 2.0  # standard deviations between the prior of an ω and the values, from which on a warning is due


@dataclass(frozen=True)
class ScalingFit:
    """Critical coupling and exponents from one fit.

    Attributes
    ----------
    values, errors : dict
        By name: the critical coupling ``y_c`` (y the name of the coupling), ``nu``, ``gamma/nu`` or ``beta/nu`` where an
        observable has them, ``omega`` if it was fitted, and for each dimensionless observable ``NAME*``, its value at y_c.
    covariance : array
        In the order of ``values``.
    chi2, dof, p_value, aic : numbers
        ``aic`` includes 2 for each value that was left out, so that fits with different smallest sizes can be compared.
    names : tuple of str
        The observables.
    smallest : float
        The smallest size kept.
    degree, corrections : int
        Degree of the scaling function, and number of terms b_k.
    warnings : tuple of str
    """

    values: dict[str, float]
    errors: dict[str, float]
    covariance: np.ndarray
    chi2: float
    dof: int
    p_value: float
    aic: float
    names: tuple[str, ...]
    smallest: float
    degree: int
    corrections: int
    omega: Omega
    warnings: tuple[str, ...] = ()
    coupling: str = "coupling"
    form: _Form = field(repr=False, default=None)
    parameters: np.ndarray = field(repr=False, default=None)

    @property
    def tensions(self) -> dict[str, float]:
        """By the name of each fitted ω, how far values and its prior are apart, in standard deviations of the two.

        Values alone have ω_v ± σ_v, and the fit combines them with the prior μ ± s: 1/σ² = 1/σ_v² + 1/s². Then
        (ω_v − μ)/√(σ_v² + s²) = (ω − μ)/√(s² − σ²).
        """
        if not isinstance(self.omega, tuple):
            return {}
        (mean, width), names = self.omega, [name for name in self.values if name.startswith("omega")]
        spread = {name: max(width**2 - self.errors[name] ** 2, 1e-4 * width**2) for name in names}
        return {name: (self.values[name] - mean) / float(np.sqrt(spread[name])) for name in names}

    def power(self, name: str) -> float:
        """p of an observable: it is L^p times a function of x at the critical point."""
        factor, label = EXPONENTS.get(self.form.powers.get(name), (0.0, "nu"))
        return factor * self.values[label]

    def predict(self, name: str, sizes: ArrayLike, couplings: ArrayLike) -> np.ndarray:
        """The fitted curve of an observable at sizes and couplings of one shape."""
        sizes, couplings = np.broadcast_arrays(np.asarray(sizes, float), np.asarray(couplings, float))
        rows = ScalingTable(sizes.ravel(), couplings.ravel(), {name: np.zeros(sizes.size)}, np.zeros((0, 0)))
        columns = self.form.columns(name, rows, self.parameters)
        return (columns @ self.form.amplitudes(name, self.parameters)).reshape(sizes.shape)

    def __str__(self) -> str:
        terms = "no corrections" if not self.corrections else f"{self.corrections} correction term"
        terms += "s" * (self.corrections > 1)
        lines = [
            f"finite-size scaling of {', '.join(self.names)}: sizes from {self.smallest:g}, degree {self.degree}, {terms}"
        ]
        width = max(map(len, self.values))
        lines += [f"  {n.ljust(width)}  {value_with_error(v, self.errors[n])}" for n, v in self.values.items()]
        lines.append(f"  chi2 {self.chi2:.1f} with {self.dof} degrees of freedom, p = {self.p_value:.2g}")
        return "\n".join(lines + [f"  NOT RELIABLE: {text}" for text in self.warnings])

    __repr__ = __str__


class _Form:
    """The columns of a fit: nonlinear parameters first, then the amplitudes of each observable."""

    def __init__(self, table: ScalingTable, powers: Mapping, degree: int, corrections: int, omega, start: float):
        self.names, self.powers = table.names, powers
        self.degree, self.corrections, self.omega = degree, corrections, omega
        exponents = dict.fromkeys(EXPONENTS[p][1] for p in map(powers.get, self.names) if p)
        self.scale = max(np.ptp(table.couplings) / 2, 1e-300)  # of y_c, so that parameters are of order one
        self.center, self.middle = start, float(np.exp(np.log(table.sizes).mean()))
        fitted = [self._omega_of(name) for name in self.names] if corrections and np.ndim(omega) else []
        self.nonlinear = ["y_c", "nu", *exponents, *fitted]
        self.start = np.array([0.0, 1.0, *(GUESS[name] for name in exponents), *[omega[0] for _ in fitted]])
        self.num_priors = len(fitted)
        widths = [degree + 1 + corrections + self._num_analytic(name) for name in self.names]
        ends = np.cumsum([0, *widths])
        self.places = {name: (ends[k], ends[k + 1]) for k, name in enumerate(self.names)}
        self.count = len(self.nonlinear) + sum(widths)

    def _omega_of(self, name: str) -> str:
        return f"omega[{name}]" if len(self.names) > 1 else "omega"

    def _num_analytic(self, name: str) -> int:
        """They are of second order: a straight line goes without."""
        return 0 if self.degree < 2 else 1 + (self.powers.get(name) is not None)

    def columns(self, name: str, rows: ScalingTable, parameters) -> np.ndarray:
        known = dict(zip(self.nonlinear, parameters, strict=False))
        ratio = rows.sizes / self.middle  # amplitudes are those at the middle size
        away = (rows.couplings - self.center - self.scale * known["y_c"]) / self.scale
        x = away * ratio ** (1 / known["nu"])
        exponent = self.powers.get(name)
        factor, label = EXPONENTS.get(exponent, (0.0, "nu"))
        omega = known.get(self._omega_of(name), self.omega)
        powers = np.vander(x, self.degree + 1, increasing=True)
        falling = [ratio ** (-omega) * x**k for k in range(self.corrections)]
        analytic = [away * x, away][: self._num_analytic(name)]
        return (ratio ** (factor * known[label]))[:, None] * np.column_stack([powers, *falling, *analytic])

    def matrix(self, table: ScalingTable, parameters) -> np.ndarray:
        """From all amplitudes to all values."""
        whole = np.zeros((len(self.names) * len(table.sizes), self.count - len(self.nonlinear)))
        for k, (name, (first, stop)) in enumerate(self.places.items()):
            whole[k * len(table.sizes) : (k + 1) * len(table.sizes), first:stop] = self.columns(name, table, parameters)
        return whole

    def amplitudes(self, name: str, parameters) -> np.ndarray:
        first, stop = (len(self.nonlinear) + place for place in self.places[name])
        return parameters[first:stop]

    def solve(self, table: ScalingTable) -> LeastSquares:
        """The fit, with the prior of each fitted ω as one more value."""
        count, priors = len(self.nonlinear), self.num_priors
        mean, width = self.omega if priors else (0.0, 1.0)
        values = np.concatenate([*(table.values[name] for name in self.names), np.full(priors, mean)])
        white = whitening(table.covariance)
        low, high = np.array([-3.0, 0.1] + [-5.0] * (count - 2)), np.array([3.0] + [5.0] * (count - 1))
        low[count - priors :] = 0.1

        def amplitudes(nonlinear):
            return np.linalg.lstsq(white @ self.matrix(table, nonlinear), white @ values[: len(white)], rcond=1e-12)[0]

        def residual(nonlinear):
            away = self.matrix(table, nonlinear) @ amplitudes(nonlinear) - values[: len(white)]
            return np.append(white @ away, (nonlinear[count - priors :] - mean) / width)

        def curves_and_priors(p):
            return np.append(self.matrix(table, p[:count]) @ p[count:], p[count - priors : count])

        scales = [0.1, 0.1] + [0.05] * (count - 2)
        near = least_squares(residual, self.start, bounds=(low, high), x_scale=scales).x
        covariance = block_diag(table.covariance, width**2 * np.eye(priors))
        return correlated_fit(curves_and_priors, values, covariance, np.append(near, amplitudes(near)))

    def results(self, found: LeastSquares, coupling: str):
        """What is reported, as numbers and a Jacobian by all parameters."""
        p, number = found.parameters, len(found.parameters)
        names, values, rows = [], [], []
        for k, name in enumerate(self.nonlinear):
            names.append(f"{coupling}_c" if name == "y_c" else name)
            scale = self.scale if name == "y_c" else 1.0
            values.append(self.center + scale * p[k] if name == "y_c" else p[k])
            rows.append(scale * np.eye(number)[k])
        for name in self.names:
            if self.powers.get(name) is None:
                place = len(self.nonlinear) + self.places[name][0]
                names.append(f"{name}*")
                values.append(p[place])
                rows.append(np.eye(number)[place])
        return names, values, np.array(rows)


def powers_of(names, powers: Mapping | None) -> dict:
    found = {name: POWERS.get(name) for name in names} | dict(powers or {})
    for name, power in found.items():
        if name not in names:
            raise ArgumentError("powers", f"observables among {', '.join(names)}", repr(name), reason="name")
        if power is not None and power not in EXPONENTS:
            raise ArgumentError("powers", f"None or one of {', '.join(EXPONENTS)}", repr(power), reason="exponent")
    return found


@call_checked
def fit_scaling(
    table: ScalingTable, names=None, *, smallest: float = 0, degree: int = 3, corrections: int = 0, omega: Omega = OMEGA,
    powers: Mapping | None = None, start: float | None = None,
) -> ScalingFit:  # fmt: skip
    """Critical coupling and exponents of observables at several sizes, by correlated least squares.

    O(y, L) = L^p [Σ_{k ≤ d} a_k x^k + L^{−ω} Σ_{k < c} b_k x^k + (y − y_c) (c₁ x + c₀)] with x = (y − y_c) L^{1/ν}. The
    last terms are analytic: the scaling field is y − y_c only to first order, and the amplitude of what has a power depends on
    y (c₀, absent where p = 0); straight lines (d = 1) go without them. Several observables are fitted together, with the same
    y_c and ν; each has an ω of its own, because their leading corrections differ.

    Parameters
    ----------
    table : ScalingTable
    names : str or tuple of str, optional
        The observables; all by default.
    smallest : float
        The smallest size kept.
    degree : int, default 3
        d, of the scaling functions.
    corrections : int, default 0
        c, the number of terms that fall with L^{−ω}.
    omega : float or pair of floats
        ω, where there are corrections. A pair is the mean and the standard deviation of a Gaussian prior for the ω of each
        observable, which is then fitted: 1.3 ± 0.5 by default. Without a prior, a small ω would make a correction all but equal
        to the leading term. A number fixes ω: errors are much smaller, and wrong where other corrections are not small yet.
    powers : dict, optional
        By observable ``None`` (dimensionless), ``"gamma/nu"``, ``"-beta/nu"`` or ``"-2 beta/nu"``. By default ``"gamma/nu"``
        of ``susceptibility`` and ``chi``, ``"-2 beta/nu"`` of ``m2``, ``"-beta/nu"`` of ``abs_m``, None of all others.
    start : float, optional
        First guess of y_c; by default where the curves of the largest sizes cross, or the middle of the couplings.

    Returns
    -------
    ScalingFit

    Raises
    ------
    ArgumentError
        If there are fewer than two sizes, not more values than parameters, or not more couplings of any size than ``degree``.

    Warns
    -----
    Phi4pplWarning
        ``scaling.omega``, if values prefer an ω more than two standard deviations from its prior (`ScalingFit.tensions`), and
        are not precise enough to overrule it.

    Notes
    -----
    K. Binder, Z. Phys. B 43 (1981) 119; corrections as in M. Hasenbusch, J. Phys. A 32 (1999) 4851; priors of parameters as
    one more value each in χ²: G. P. Lepage et al., Nucl. Phys. B Proc. Suppl. 106 (2002) 12.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> L, y = np.repeat([8.0, 16.0, 32.0], 5), np.concatenate([1 + np.linspace(-1, 1, 5) / L for L in (8, 16, 32)])
    >>> noise = np.random.default_rng(0).normal(size=15) * 0.002
    >>> columns = {"L": L, "y": y, "U4": 0.6 + 0.2 * (y - 1) * L + noise, "U4_error": np.full(15, 0.002)}
    >>> print(p4.analysis.fit_scaling(p4.analysis.from_table(columns, coupling="y"), "U4", degree=1))
    finite-size scaling of U4: sizes from 8, degree 1, no corrections
      y_c  1.00042(26)
      nu   1.0006(65)
      U4*  0.6011(11)
      chi2 7.5 with 11 degrees of freedom, p = 0.76
    """
    found = fitted(table, names, smallest, degree, corrections, omega, powers, start)
    warn_of_omega(found)
    return found


def warn_of_omega(fit: ScalingFit) -> None:
    """One warning for all ω whose prior the values contradict."""
    if not isinstance(fit.omega, tuple):
        return
    mean, width = fit.omega
    far = [  # and the prior moves ω by more than a share of its error, which it does not where values fix it closely
        name
        for name, tension in fit.tensions.items()
        if abs(tension) > TENSION and abs(tension) * fit.errors[name] > MOVED * width
    ]
    if far:
        shown = ", ".join(f"{name} = {value_with_error(fit.values[name], fit.errors[name])}" for name in far)
        text = (
            f"Values and the prior of omega, {mean:g} ± {width:g}, disagree: the fit found {shown}, pulled by the prior. "
            "Leave out small sizes, or give omega= another mean and a larger width."
        )
        warn(Phi4pplWarning("scaling.omega", text, {name: fit.tensions[name] for name in far}))


def fitted(
    table: ScalingTable, names, smallest, degree, corrections, omega, powers, start: float | None = None
) -> ScalingFit:
    """`fit_scaling` without its warning of ω."""
    whole = table.select(names)
    kept, powers = whole.select(smallest=smallest), powers_of(whole.names, powers)
    degree, corrections = positive_int("degree", degree), positive_int("corrections", corrections, minimum=0)
    omega = _checked_omega(omega)
    if len(np.unique(kept.sizes)) < 2:
        raise ArgumentError("smallest", "at least two sizes kept", f"{len(np.unique(kept.sizes))}", reason="sizes")
    most = int(np.unique(kept.sizes, return_counts=True)[1].max())
    if degree >= most:
        fix = "Scan more couplings."
        raise ArgumentError(
            "degree", f"at most {most - 1}, for {most} couplings of one size", f"{degree}", fix, reason="degree"
        )
    form = _Form(kept, powers, degree, corrections, omega, _first_guess(kept, powers) if start is None else start)
    count, number = form.count, len(kept.covariance)
    if number <= count:
        fix = "Scan more couplings or sizes, or lower degree and corrections."
        raise ArgumentError("table", f"more than {count} values", f"{number}", fix, reason="values")
    found = form.solve(kept)
    labels, values, rows = form.results(found, table.coupling)
    covariance = rows @ found.covariance @ rows.T
    warnings = []
    if found.p_value < MIN_P:
        warnings.append(
            f"The fit does not describe the values (p = {found.p_value:.1g}). Leave out small sizes, add a correction term, "
            "or scan a narrower range."
        )
    if not kept.couplings.min() <= values[0] <= kept.couplings.max():
        warnings.append(f"{labels[0]} is outside the couplings scanned, an extrapolation: scan around {values[0]:.6g}.")
    left_out = len(whole.values) * (len(whole.sizes) - len(kept.sizes))
    return ScalingFit(
        dict(zip(labels, map(float, values), strict=True)),
        dict(zip(labels, map(float, np.sqrt(np.diag(covariance))), strict=True)), covariance, found.chi2, found.dof,
        found.p_value, found.aic + 2 * left_out, kept.names, float(kept.sizes.min()), degree, corrections, omega,
        tuple(warnings), table.coupling, form, found.parameters,
    )  # fmt: skip


def _checked_omega(omega) -> Omega:
    try:
        numbers = np.asarray(omega, float)
    except (TypeError, ValueError):
        numbers = np.array(np.nan)
    if numbers.shape not in ((), (2,)) or not np.all(np.isfinite(numbers)) or np.any(numbers <= 0):
        fix = "A positive number fixes ω; a pair such as (1.3, 0.5) is the mean and standard deviation of its prior."
        raise ArgumentError("omega", "a positive number or a pair of them", repr(omega), fix)
    return (float(numbers[0]), float(numbers[1])) if numbers.ndim else float(numbers)


def _first_guess(table: ScalingTable, powers: Mapping) -> float:
    for name in (name for name in table.names if powers.get(name) is None):
        found = find_crossings(table, name).position
        if len(found):
            return float(found[-1])
    return float(np.mean(table.couplings))
