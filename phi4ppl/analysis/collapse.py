"""Data collapse by Bayesian scaling analysis: no polynomial, and errors of y_c, ν and the exponent from the posterior.

Scaled points X = (y − y_c) L^{1/ν}, Y = O L^{−p} of all sizes lie on one unknown smooth function if y_c, ν and p are right. The
function is a Gaussian process with covariance θ₀² exp(−(X − X')²/(2θ₁²)) beside the covariance of the data and an independent
scatter θ₂², which takes up small corrections to scaling. Likelihood times weak priors of θ is maximized, and errors come from
its curvature (K. Harada, Phys. Rev. E 84 (2011) 056704). A Gaussian process is used, and not local polynomials, because it has
no neighborhood to choose, and a likelihood has errors without resampling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

from ..errors import ArgumentError
from ..errors.arguments import call_checked
from ..reports.numbers import value_with_error
from .scaling_fit import EXPONENTS, fit_scaling, powers_of
from .scaling_table import ScalingTable

__all__ = ["Collapse", "collapse"]

MIDDLE = np.array([0.5, 0.0, -4.0])  # of ln θ, in units of the spreads of Y and X
PRIOR = 1.5  # standard deviation of ln θ around the scales of the data: weak, and it keeps the maximum in reach
MAX_RESIDUAL = 2.0
STEP = 1e-4  # of parameters, for the curvature from differences of the slope


@dataclass(frozen=True)
class Collapse:
    """The scaling that puts the curves of all sizes onto one.

    Attributes
    ----------
    values, errors : dict
        By name: ``y_c`` (y the name of the coupling), ``nu``, and ``gamma/nu`` or ``beta/nu`` where the observable has it.
    covariance : array
        In the order of ``values``.
    residual : float
        Mean squared distance of each scaled point from the curve through all others, in units of its error: near 1 where the
        collapse is perfect, and larger where there are corrections to scaling.
    scatter : float
        θ₂ as a share of the spread of Y.
    name : str
        The observable.
    smallest : float
        The smallest size kept.
    warnings : tuple of str
    """

    values: dict[str, float]
    errors: dict[str, float]
    covariance: np.ndarray
    residual: float
    scatter: float
    name: str
    smallest: float
    power: float
    coupling: str = "coupling"
    warnings: tuple[str, ...] = ()

    def scaled(self, table: ScalingTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """X, Y and the error of Y of the rows of a table."""
        x = (table.couplings - self.values[f"{self.coupling}_c"]) * table.sizes ** (1 / self.values["nu"])
        factor = table.sizes**-self.power
        return x, table.values[self.name] * factor, table.errors[self.name] * factor

    def __str__(self) -> str:
        lines = [f"collapse of {self.name}: sizes from {self.smallest:g}"]
        width = max(map(len, self.values))
        lines += [f"  {n.ljust(width)}  {value_with_error(v, self.errors[n])}" for n, v in self.values.items()]
        lines.append(f"  residual {self.residual:.2f} (1 for a perfect collapse)")
        return "\n".join(lines + [f"  NOT RELIABLE: {text}" for text in self.warnings])

    __repr__ = __str__


@call_checked
def collapse(
    table: ScalingTable, name: str, *, smallest: float = 0, powers: Mapping | None = None, start: float | None = None
) -> Collapse:
    """Critical coupling and exponents from the collapse of one observable.

    Parameters
    ----------
    table : ScalingTable
    name : str
        The observable.
    smallest : float
        The smallest size kept.
    powers, start
        As in `fit_scaling`.

    Returns
    -------
    Collapse

    Raises
    ------
    ArgumentError
        If there are fewer than two sizes, or fewer than eight values.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> L, y = np.repeat([8.0, 16.0, 32.0], 5), np.concatenate([1 + np.linspace(-1, 1, 5) / L for L in (8, 16, 32)])
    >>> noise = np.random.default_rng(0).normal(size=15) * 0.002
    >>> columns = {"L": L, "y": y, "U4": 0.4 + 0.2 * np.tanh((y - 1) * L) + noise, "U4_error": np.full(15, 0.002)}
    >>> found = p4.analysis.collapse(p4.analysis.from_table(columns, coupling="y"), "U4")
    >>> bool(abs(found.values["y_c"] - 1) < 3 * found.errors["y_c"]), bool(abs(found.values["nu"] - 1) < 3 * found.errors["nu"])
    (True, True)
    """
    table = table.select([name], smallest=smallest)
    if len(np.unique(table.sizes)) < 2 or len(table.sizes) < 8:
        got = f"{len(np.unique(table.sizes))} sizes and {len(table.sizes)} values"
        raise ArgumentError("table", "at least two sizes and eight values", got, reason="values")
    exponent = powers_of([name], powers)[name]
    factor, label = EXPONENTS[exponent] if exponent else (0.0, "")
    first = fit_scaling(table, degree=2, powers=powers, start=start)
    names = [f"{table.coupling}_c", "nu", *([label] if label else [])]
    middle = float(np.exp(np.log(table.sizes).mean()))
    scale, center = float(np.ptp(table.couplings)) / 2 or 1.0, first.values[names[0]]
    begin = np.array([0.0, *(first.values[n] for n in names[1:]), *MIDDLE])
    ratio, couplings = table.sizes / middle, (table.couplings - center) / scale
    spreads = (
        np.std(table.values[name] * ratio ** -(factor * first.values.get(label, 0.0))),
        2 * np.std(couplings * ratio ** (1 / first.values["nu"])),
    )
    with jax.enable_x64(True):
        data = tuple(map(jnp.asarray, (ratio, couplings, table.values[name], table.covariance, *spreads)))

        def slope(p):
            return tuple(np.asarray(x, float) for x in _slope(jnp.asarray(p), data, factor))

        # the bounds of `fit_scaling`: curves that do not collapse can drive ν to infinity
        bounds = [(-3.0, 3.0), (0.1, 5.0), *[(-5.0, 5.0)] * (len(names) - 2), *[(None, None)] * len(MIDDLE)]
        options = {"gtol": 1e-4, "ftol": 1e-13, "maxiter": 300}
        found = minimize(slope, begin, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        steps = STEP * np.eye(len(begin))
        curvature = np.array([slope(found.x + step)[1] - slope(found.x - step)[1] for step in steps]) / (2 * STEP)
        residual = float(np.mean(np.asarray(_left_out(jnp.asarray(found.x), data, factor)) ** 2))
    inverse = np.linalg.pinv((curvature + curvature.T) / 2)[: len(names), : len(names)]
    units = np.array([scale, *[1.0] * (len(names) - 1)])
    covariance = inverse * np.outer(units, units)
    values = dict(zip(names, map(float, found.x[: len(names)] * units + np.eye(len(names))[0] * center), strict=True))
    warnings = []
    if np.any(np.linalg.eigvalsh(curvature) <= 0):
        warnings.append("The posterior has no maximum here. Scan more couplings on both sides of the critical one.")
    if residual > MAX_RESIDUAL:
        warnings.append(f"The curves do not collapse (residual {residual:.1f}). Leave out small sizes: smallest=…")
    return Collapse(
        values, dict(zip(names, map(float, np.sqrt(np.abs(np.diag(covariance)))), strict=True)), covariance, residual,
        float(np.exp(found.x[-1])), name, float(table.sizes.min()), factor * values.get(label, 0.0), table.coupling,
        tuple(warnings),
    )  # fmt: skip


def _process(parameters, data, factor: float):
    """Scaled values less their weighted mean, the covariance of the process, and that of the data, in units of the spread."""
    ratio, couplings, values, covariance, spread, width = data
    y_c, nu, log_height, log_length, log_scatter = parameters[jnp.array([0, 1, -3, -2, -1])]
    x = (couplings - y_c) * ratio ** (1 / nu)
    scaling = ratio ** -(factor * parameters[2]) / spread
    y, noise = values * scaling, covariance * jnp.outer(scaling, scaling)
    smooth = jnp.exp(2 * log_height - ((x[:, None] - x[None, :]) / (width * jnp.exp(log_length))) ** 2 / 2)
    jacobian = jnp.sum(jnp.log(scaling))  # of Y by O: the likelihood is one of the data
    return y - jnp.mean(y), smooth, noise, jnp.exp(2 * log_scatter), jacobian


def _cost(parameters, data, factor: float):
    """Minus the logarithm of likelihood times priors."""
    y, smooth, noise, scatter, jacobian = _process(parameters, data, factor)
    root = jnp.linalg.cholesky(smooth + noise + (scatter + 1e-10) * jnp.eye(len(y)))
    solved = jax.scipy.linalg.solve_triangular(root, y, lower=True)
    prior = jnp.sum(((parameters[-3:] - MIDDLE) / PRIOR) ** 2) / 2
    return jnp.sum(solved**2) / 2 + jnp.sum(jnp.log(jnp.diag(root))) - jacobian + prior


_slope = jax.jit(jax.value_and_grad(_cost), static_argnums=2)


@partial(jax.jit, static_argnums=2)
def _left_out(parameters, data, factor: float):
    """Standardized distance of each value from its prediction by all others, without the scatter."""
    y, smooth, noise, _, _ = _process(parameters, data, factor)
    inverse = jnp.linalg.inv(smooth + noise + 1e-10 * jnp.eye(len(y)))
    return (inverse @ y) / jnp.sqrt(jnp.diag(inverse))
