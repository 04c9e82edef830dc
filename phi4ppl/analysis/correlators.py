"""Correlators with their errors and covariance: of a run by name, and effective masses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from unicodedata import combining

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, one_of
from ..reports.numbers import value_with_error
from .derived import derive
from .derived_result import Derived
from .named import CONSTANT
from .primaries import lattice_of_run
from .two_point import two_point

__all__ = [
    "Correlator", "correlation_function", "cosh_mass", "effective_mass", "structure_factor", "time_slice_correlator",
]  # fmt: skip

ALONG = {
    "axis": "axis_correlation_function",
    "radius": "radial_correlation_function",
    "graph_distance": "graph_distance_correlation",
    "mode": "laplacian_mode_correlation",
}
SYMBOLS = {"momentum": "k̂", "distance": "r", "radius": "|r|", "time": "t", "graph_distance": "d", "eigenvalue": "λ"}
MIN_SIGNAL = 3  # errors by which a correlator must fall from one time to the next for its effective mass
OVERLAP = 1.5  # independent estimates per sum of consecutive draws, where these overlap


@call_checked
@dataclass(frozen=True)
class Correlator:
    """Values along an axis with their covariance: of a run, or from plain arrays.

    Attributes
    ----------
    x, value : float arrays, shape ``(num_points,)``
    covariance : float array, shape ``(num_points, num_points)``
        Of the values, that is of means.
    period : int, optional
        Of x, where the correlator is periodic.
    samples : float
        Number of independent samples from which the covariance is estimated; infinite if it is known.
    name, label : str
        What it is, and the symbol of x.

    Raises
    ------
    ArgumentError
        If shapes do not fit, or numbers are not finite.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> print(p4.analysis.Correlator(np.arange(3), 2.0 ** -np.arange(3), 1e-4 * np.eye(3)))
    t  correlator
    0  1.000(10)
    1  0.500(10)
    2  0.250(10)
    """

    x: np.ndarray
    value: np.ndarray
    covariance: np.ndarray
    period: int | None = None
    samples: float = np.inf
    name: str = "correlator"
    label: str = "t"

    def __post_init__(self):
        for name in ("x", "value", "covariance"):
            object.__setattr__(self, name, finite_array(name, getattr(self, name)).astype(float))
        n = len(self.x)
        if self.x.ndim != 1 or self.value.shape != (n,) or self.covariance.shape != (n, n):
            got = f"{self.x.shape}, {self.value.shape} and {self.covariance.shape}"
            raise ArgumentError("x, value, covariance", "shapes (n,), (n,) and (n, n)", got, reason="shape")

    @classmethod
    def from_derived(cls, derived: Derived, name: str, x, *, period: int | None = None, label: str = "t") -> Correlator:
        """A quantity of `derive` whose value is an array along ``x``."""
        part = derived[name]
        if np.ndim(part.value) != 1:
            fix = "Select one member of an ensemble: tree.isel(member=0)."
            raise ArgumentError(name, "values along one axis", f"shape {np.shape(part.value)}", fix, reason="shape")
        length = 2 * int(np.max(part.window)) + 1  # of the sums of draws from which `covariance` comes
        samples = sum(
            len(s.series) if s.series.ndim == 2 else OVERLAP * s.series.shape[0] * s.series.shape[1] / length
            for s in part.shares
        )
        return cls(x, part.value, derived.covariance(name), period, samples, name, label)

    @property
    def error(self) -> np.ndarray:
        """Standard errors of the values."""
        return np.sqrt(np.diag(self.covariance))

    def __str__(self) -> str:
        rows = [(self.label, self.name)]
        for x, value, error in zip(self.x, self.value, self.error, strict=True):
            rows.append((f"{x:.4g}", value_with_error(float(value), float(error))))
        width = max(len(first) for first, _ in rows)
        accents = [sum(map(combining, first)) > 0 for first, _ in rows]  # of k̂: a character without a width
        return "\n".join(f"{a.ljust(width + more)}  {b}" for (a, b), more in zip(rows, accents, strict=True))


def _of_run(run, name: str, connected: bool) -> Correlator:
    lattice = lattice_of_run(run)
    if lattice is None:
        fix = "For arrays: Correlator.from_derived(derive(…), name, x)."
        raise ArgumentError("run", "the tree of phi4ppl.sample", type(run).__name__, fix)
    if connected and name not in CONSTANT:
        raise ArgumentError("connected", "False for modes of the Laplacian", "True")
    found, asked = two_point(name, lattice), f"connected_{name}" if connected else name
    return Correlator.from_derived(
        derive(run, [asked]), asked, found.points[0], period=found.period, label=SYMBOLS[found.dims[0]]
    )


@call_checked
def structure_factor(run, *, connected: bool = False) -> Correlator:
    """The structure factor with its error, over shells of the lattice momentum k̂ = (Σ_μ 4 sin²(k_μ/2))^½.

    It is ``S(k) = ⟨|Σ_x φ(x) e^{−ikx}|²⟩/V``, on a lattice that is periodic along all axes.

    Parameters
    ----------
    run : DataTree
        With kept fields, or with ``observables=["structure_factor"]``.
    connected : bool
        Subtract ``V⟨|m|⟩²`` at k = 0.

    Raises
    ------
    ArgumentError
        If the run holds neither, or the lattice is no torus with orthogonal axes.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> tree = p4.sample(p4.gaussian(p4.lattice.square(4), w=1.0, a=2.5), num_warmup=100, num_samples=500)
    >>> found = p4.analysis.structure_factor(tree)
    >>> bool(abs(found.value[0] - 1) < 5 * found.error[0])  # 1/(m² + k̂²), m² = 2a − 4
    True
    """
    return _of_run(run, "structure_factor", connected)


@call_checked
def correlation_function(run, *, along: str = "axis", connected: bool = False) -> Correlator:
    """G(r) = ⟨φ(x) φ(x + r)⟩ with its error, along the longest axes, by radius, or on any graph.

    Parameters
    ----------
    run : DataTree
        With kept fields, or with the observable of this name.
    along : str
        ``"axis"`` (`axis_correlation_function`), ``"radius"`` (`radial_correlation_function`: shells of distance),
        ``"graph_distance"`` (`graph_distance_correlation`), or ``"mode"`` (`laplacian_mode_correlation`: ⟨(u·φ)²⟩ of the
        eigenvectors u of the graph Laplacian, by eigenvalue).
    connected : bool
        Subtract ``⟨|m|⟩²``.

    Raises
    ------
    ArgumentError
        If the run does not hold it, or the lattice does not have it.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> tree = p4.sample(p4.gaussian(p4.lattice.square(4), w=1.0, a=2.5), num_warmup=100, num_samples=500)
    >>> p4.analysis.correlation_function(tree).x.tolist()
    [0.0, 1.0, 2.0]
    """
    return _of_run(run, ALONG[one_of("along", along, tuple(ALONG))], connected)


@call_checked
def time_slice_correlator(run, *, connected: bool = False) -> Correlator:
    """C(t) = Σ_x ⟨φ(0, 0) φ(t, x)⟩ with its error: the correlator of time slices at zero momentum.

    Its sum over all t is χ = V⟨m²⟩. Time runs along the longest axis; several of the same length are averaged.

    Parameters
    ----------
    run : DataTree
        With kept fields, or with ``observables=["time_slice_correlator"]``.
    connected : bool
        Subtract ``A⟨|m|⟩²``, A being the sites of a slice, so that the sum is ``V(⟨m²⟩ − ⟨|m|⟩²)``.

    Raises
    ------
    ArgumentError
        If the run does not hold it, or the lattice is not regular.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> tree = p4.sample(p4.gaussian(p4.lattice.chain(8), w=1.0, a=1.5), num_warmup=100, num_samples=500)
    >>> p4.analysis.time_slice_correlator(tree).period
    8
    """
    return _of_run(run, "time_slice_correlator", connected)


@call_checked
def effective_mass(run, *, connected: bool = False) -> Correlator:
    """The mass M(t) at which the correlator of one state falls from t to t + 1 as the time-slice correlator does.

    On a periodic axis of length T it solves C(t)/C(t+1) = cosh M(T/2 − t)/cosh M(T/2 − t − 1) exactly, on an open one
    M = log C(t)/C(t+1). A plateau is the mass. Errors are those of `derive`.

    Parameters
    ----------
    run : DataTree
    connected : bool
        As of `time_slice_correlator`.

    Returns
    -------
    Correlator
        Up to the last time from which the correlator falls by three errors or more.

    Raises
    ------
    ArgumentError
        As of `time_slice_correlator`, or if the correlator does not fall at all.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> tree = p4.sample(p4.gaussian(p4.lattice.chain(8), w=1.0, a=1.5), num_warmup=100, num_samples=500)
    >>> mass = p4.analysis.effective_mass(tree)
    >>> bool(abs(mass.value[0] - np.arccosh(1.5)) < 5 * mass.error[0])  # arcosh(1 + m²/2), m² = 2a − 2
    True
    """
    correlator = time_slice_correlator(run, connected=connected)
    value, covariance = correlator.value, correlator.covariance
    differs = np.sqrt(np.diag(covariance)[:-1] + np.diag(covariance)[1:] - 2 * np.diag(covariance, 1))
    falls = (value[:-1] - value[1:] > MIN_SIGNAL * differs) & (value[1:] > MIN_SIGNAL * correlator.error[1:])
    number = int(np.argmin(np.r_[falls, False]))
    if not number:
        got = f"{value[0]:.3g} at t = 0 and {value[1]:.3g} at t = 1" if len(value) > 1 else "a single time"
        fix = "Draw more; in a phase with ⟨|m|⟩ > 0 take connected=True."
        raise ArgumentError("run", "a correlator that falls by three errors", got, fix, reason="no_signal")
    function = _mass_of(correlator.name, lattice_of_run(run), number, correlator.period)
    return Correlator.from_derived(derive(run, {"effective mass": function}), "effective mass", correlator.x[:number])


def _mass_of(name: str, lattice, number: int, period: int | None) -> Callable:
    from .named import QUANTITIES

    return lambda m: cosh_mass(QUANTITIES[name].function(m, lattice)[: number + 1], period)


def cosh_mass(correlator, period: int | None):
    """Effective masses of a correlator at 0, 1, 2, …, one fewer than its values, as a differentiable JAX function.

    The root is bracketed by the masses of an infinite and of the shortest possible period, and found by bisection; a last step
    of Newton's method, the only one that is differentiated, carries the exact derivative.
    """
    log_ratio = jnp.log(correlator[:-1] / correlator[1:])
    if period is None:
        return log_ratio
    half = period / 2 - jnp.arange(len(correlator) - 1)

    def excess(mass):
        return _log_cosh(mass * half) - _log_cosh(mass * (half - 1)) - log_ratio

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        below = excess(middle) < 0
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low = jax.lax.stop_gradient(log_ratio)
    _, mass = jax.lax.stop_gradient(jax.lax.fori_loop(0, 60, halve, (low, jnp.arccosh(jnp.exp(low)))))
    mass = jax.lax.stop_gradient(mass)
    slope = half * jnp.tanh(mass * half) - (half - 1) * jnp.tanh(mass * (half - 1))
    return mass - excess(mass) / slope


def _log_cosh(x):
    return jnp.abs(x) + jnp.log1p(jnp.exp(-2 * jnp.abs(x))) - jnp.log(2.0)
