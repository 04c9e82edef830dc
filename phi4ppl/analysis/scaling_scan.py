"""Fits of one table in several ways, and their average: `scan_fits`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, positive_int
from ..reports.numbers import value_with_error
from .least_squares import aic_weights
from .scaling_fit import OMEGA, Omega, ScalingFit, fitted, warn_of_omega
from .scaling_table import ScalingTable

__all__ = ["ScalingFits", "scan_fits"]

ENOUGH = 2
"""Terms of corrections from which on fits are averaged. A correction that is too small to lower AIC is there all the same, and
shifts amplitudes by up to an error: with fits of fewer terms in the average, errors of U₄ and ξ/L were 20 % too small."""


class ScalingFits(tuple):
    """Fits of the same values in several ways, and their average; see `scan_fits`."""

    __slots__ = ()

    @property
    def averaged(self) -> tuple[ScalingFit, ...]:
        """Those with two correction terms or more, or all if there are none."""
        return tuple(fit for fit in self if fit.corrections >= ENOUGH) or tuple(self)

    @property
    def weights(self) -> np.ndarray:
        """∝ exp(−AIC/2) among those that are averaged; 0 of all others."""
        weights, kept = np.zeros(len(self)), [any(fit is one for one in self.averaged) for fit in self]
        weights[kept] = aic_weights([fit.aic for fit in self.averaged])
        return weights

    @property
    def best(self) -> ScalingFit:
        """The fit of the largest weight."""
        return self[int(np.argmax(self.weights))]

    def average(self) -> dict[str, tuple[float, float]]:
        """Value and error of every quantity that all fits have, averaged over the fits.

        The squared error is Σ w σ² + Σ w v² − (Σ w v)²: within the fits, and between them.
        """
        found = {}
        for name in (n for n in self[0].values if all(n in fit.values for fit in self)):
            values, errors = (np.array([getattr(fit, kind)[name] for fit in self]) for kind in ("values", "errors"))
            mean = float(self.weights @ values)
            variance = self.weights @ errors**2 + self.weights @ (values - mean) ** 2
            found[name] = (mean, float(np.sqrt(variance)))
        return found

    def __str__(self) -> str:
        shared = self.average()
        rows = [("L_min", "degree", "corrections", *shared, "chi2/dof", "p", "weight")]
        for fit, weight in zip(self, self.weights, strict=True):
            cells = [value_with_error(fit.values[name], fit.errors[name]) for name in shared]
            ends = (f"{fit.chi2:.1f}/{fit.dof}", f"{fit.p_value:.2g}", f"{weight:.2f}")
            rows.append((f"{fit.smallest:g}", str(fit.degree), str(fit.corrections), *cells, *ends))
        rows.append(("average", "", "", *(value_with_error(*pair) for pair in shared.values()), "", "", ""))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)

    __repr__ = __str__


@call_checked
def scan_fits(
    table: ScalingTable, names=None, *, smallest=None, degrees=(3, 4), corrections=(0, 1, 2, 3), omega: Omega = OMEGA,
    powers: Mapping | None = None,
) -> ScalingFits:  # fmt: skip
    """`fit_scaling` for every smallest size, degree and number of corrections that leaves degrees of freedom.

    Parameters
    ----------
    table, names, omega, powers
        As in `fit_scaling`.
    smallest : sequence of floats, optional
        Smallest sizes; by default each that leaves three sizes, or two if there are no more.
    degrees, corrections : sequences of int

    Returns
    -------
    ScalingFits
        A tuple of `ScalingFit`; ``print`` it for a table, ``average()`` weighs those with two correction terms
        or more by exp(−AIC/2), and all if there are none.

    Raises
    ------
    ArgumentError
        If no fit is possible.

    Warns
    -----
    Phi4pplWarning
        ``scaling.omega``, as in `fit_scaling`, for the fit of the largest weight.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> L, y = np.repeat([8.0, 16.0, 32.0, 64.0], 4), np.concatenate([1 + np.linspace(-1, 1, 4) / L for L in (8, 16, 32, 64)])
    >>> noise = np.random.default_rng(0).normal(size=16) * 0.002
    >>> columns = {"L": L, "y": y, "U4": 0.6 + 0.2 * (y - 1) * L + noise, "U4_error": np.full(16, 0.002)}
    >>> fits = p4.analysis.scan_fits(p4.analysis.from_table(columns, coupling="y"), degrees=(1, 2), corrections=(0,))
    >>> sorted(fits.average()), len(fits)
    (['U4*', 'nu', 'y_c'], 4)
    """
    sizes = np.unique(table.sizes)
    smallest = (
        sizes[: max(1, len(sizes) - 2)] if smallest is None else np.atleast_1d(finite_array("smallest", smallest))
    )
    degrees = [positive_int("degrees", each) for each in np.atleast_1d(degrees).tolist()]
    corrections = [positive_int("corrections", each, minimum=0) for each in np.atleast_1d(corrections).tolist()]
    fits, refusal = [], None
    for size in smallest:
        for degree in degrees:
            for number in corrections:
                try:
                    fits.append(fitted(table, names, size, degree, number, omega, powers))
                except ArgumentError as error:
                    refusal = error
    if not fits:
        raise refusal or ArgumentError("smallest", "at least one size", "none")
    found = ScalingFits(fits)
    warn_of_omega(found.best)
    return found
