"""Crossings of curves that belong to two sizes, with errors that know how the points of a curve are correlated.

A dimensionless observable such as U₄ or ξ/L does not depend on the size at a critical point, apart from corrections to scaling:
its curves for two sizes cross there. Each curve is a polynomial, fitted by correlated least squares. A crossing y solves
p_L(y) = p_L'(y), and moves with the coefficients c by δy = −(δp_L − δp_L')/(p'_L − p'_L').
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import polynomial

from ..errors import ArgumentError
from ..errors.arguments import call_checked, positive_int
from ..reports.numbers import value_with_error
from .least_squares import p_value_of, whitening
from .scaling_table import ScalingTable

__all__ = ["Crossings", "find_crossings"]

MIN_P = 1e-3  # of the polynomial through a curve


@dataclass(frozen=True)
class Crossings:
    """Where the curves of pairs of sizes cross.

    Attributes
    ----------
    name, coupling : str
        The observable, and the coupling.
    pairs : array, shape (num_crossings, 2)
        The two sizes.
    position, position_error, value, value_error : arrays, shape (num_crossings,)
        The coupling and the observable at the crossing.
    inverse_nu, inverse_nu_error : arrays, shape (num_crossings,)
        1/ν = ln(p'_L'/p'_L) / ln(L'/L) from the slopes of the two curves where they cross; nan if these have different signs.
    covariance : array, shape (3 num_crossings, 3 num_crossings)
        Of all positions, then all values, then all 1/ν: crossings that share a curve are correlated.
    jacobian : array, shape (3 num_crossings, num_rows)
        Derivatives of these by the values of the table: with its covariance, crossings of several observables go together.
    p_values : dict
        By size, how well the polynomial fits its curve.
    misfits : tuple of str
        Warnings of curves that their polynomial does not fit.
    missing : tuple of pairs
        Sizes whose curves do not cross inside the couplings of both.
    """

    name: str
    coupling: str
    pairs: np.ndarray
    position: np.ndarray
    value: np.ndarray
    inverse_nu: np.ndarray
    covariance: np.ndarray
    jacobian: np.ndarray
    p_values: dict[float, float]
    misfits: tuple[str, ...] = ()
    missing: tuple[tuple[float, float], ...] = ()

    @property
    def position_error(self) -> np.ndarray:
        return np.sqrt(np.diag(self.covariance))[: len(self.position)]

    @property
    def value_error(self) -> np.ndarray:
        return np.sqrt(np.diag(self.covariance))[len(self.position) : 2 * len(self.position)]

    @property
    def inverse_nu_error(self) -> np.ndarray:
        return np.sqrt(np.diag(self.covariance))[2 * len(self.position) :]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of curves that do not cross, or that their polynomial does not fit."""
        text = "The curves of sizes {:g} and {:g} do not cross in the range scanned. Scan a wider one."
        return (*self.misfits, *(text.format(*pair) for pair in self.missing))

    def __str__(self) -> str:
        rows = [("sizes", self.coupling, self.name)]
        found = zip(self.pairs, self.position, self.position_error, self.value, self.value_error, strict=True)
        for (one, two), y, dy, u, du in found:
            rows.append((f"{one:g}, {two:g}", value_with_error(y, dy), value_with_error(u, du)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join(lines + [f"  NOT RELIABLE: {text}" for text in self.warnings])

    __repr__ = __str__


@call_checked
def find_crossings(table: ScalingTable, name: str, *, degree: int = 3) -> Crossings:
    """Where the curves of neighboring sizes cross.

    Parameters
    ----------
    table : ScalingTable
    name : str
        A dimensionless observable of the table, such as U₄ or ξ/L.
    degree : int, default 3
        Of the polynomials; a size with fewer couplings gets a lower one.

    Returns
    -------
    Crossings
        A pair whose curves do not cross inside the couplings of both is left out, with a warning.

    Raises
    ------
    ArgumentError
        If the table has one size only, or a size has one coupling only.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> L, y = np.repeat([8.0, 16.0], 3), np.tile([0.9, 1.0, 1.1], 2)
    >>> columns = {"L": L, "y": y, "U4": 0.6 + 0.05 * (y - 1.02) * L, "U4_error": np.full(6, 0.002)}
    >>> print(p4.analysis.find_crossings(p4.analysis.from_table(columns, coupling="y"), "U4", degree=1))
    sizes  y           U4
    8, 16  1.0200(42)  0.6000(27)
    """
    degree, table = positive_int("degree", degree), table.select([name])
    sizes = np.unique(table.sizes)
    if len(sizes) < 2:
        raise ArgumentError("table", "at least two sizes", f"{len(sizes)}", reason="sizes")
    center, width = np.mean(table.couplings), max(np.ptp(table.couplings) / 2, 1e-300)
    curves, p_values, misfits, first = {}, {}, [], 0
    maps = []  # from the values of the table to the coefficients of all curves
    for size in sizes:
        rows = np.flatnonzero(table.sizes == size)
        if len(np.unique(table.couplings[rows])) < 2:
            raise ArgumentError(
                "table", "two couplings or more of every size", f"one of size {size:g}", reason="couplings"
            )
        scaled = (table.couplings[rows] - center) / width
        white = whitening(table.covariance[np.ix_(rows, rows)])
        powers = np.vander(scaled, 1 + min(degree, len(white) - 1), increasing=True)
        inverse = np.linalg.pinv(white @ powers) @ white
        coefficients = inverse @ table.values[name][rows]
        chi2 = float(np.sum((white @ (powers @ coefficients - table.values[name][rows])) ** 2))
        p_values[float(size)] = p_value_of(chi2, len(white) - powers.shape[1])
        if p_values[float(size)] < MIN_P:
            text = f"A polynomial of degree {powers.shape[1] - 1} does not fit the curve of size {size:g} (p = "
            misfits.append(f"{text}{p_values[float(size)]:.1g}). Scan a narrower range, or increase degree.")
        maps.append(np.zeros((powers.shape[1], len(table.sizes))))
        maps[-1][:, rows] = inverse
        curves[size] = (coefficients, first, scaled.min(), scaled.max())
        first += powers.shape[1]
    spread = np.concatenate(maps) @ table.covariance @ np.concatenate(maps).T
    found, missing = [], []
    for one, two in zip(sizes[:-1], sizes[1:], strict=True):
        row = _crossing(curves[one], curves[two], first)
        if row is None:
            missing.append((float(one), float(two)))
        else:
            found.append(((one, two), *row))
    logs = [np.log(two / one) for (one, two), *_ in found]
    slopes = [f[6] / log for f, log in zip(found, logs, strict=True)]
    jacobian = np.array([[width * f[3] for f in found], [f[4] for f in found], slopes]).reshape(-1, first)
    return Crossings(
        name, table.coupling, np.array([f[0] for f in found]).reshape(-1, 2),
        np.array([center + width * f[1] for f in found]), np.array([f[2] for f in found]),
        np.array([f[5] / log for f, log in zip(found, logs, strict=True)]), jacobian @ spread @ jacobian.T,
        jacobian @ np.concatenate(maps), p_values, tuple(misfits), tuple(missing),
    )  # fmt: skip


def _crossing(one, two, number: int):
    """Position, value and log of the ratio of slopes where two curves cross, with derivatives by all coefficients.

    None where they do not cross.
    """
    low, high = max(one[2], two[2]), min(one[3], two[3])
    apart = polynomial.polysub(one[0], two[0])
    roots = polynomial.polyroots(apart)
    roots = np.real(roots[(np.abs(np.imag(roots)) < 1e-9) & (np.real(roots) >= low) & (np.real(roots) <= high)])
    if not len(roots):
        return None
    slopes = polynomial.polyval(roots, polynomial.polyder(apart))
    y, slope = roots[np.argmax(np.abs(slopes))], np.max(np.abs(slopes)) * np.sign(slopes[np.argmax(np.abs(slopes))])
    moves = np.zeros((2, number))
    for k, (coefficients, start, *_) in enumerate((one, two)):
        moves[k, start : start + len(coefficients)] = y ** np.arange(len(coefficients))
    position = -(moves[0] - moves[1]) / slope
    value = moves[0] + polynomial.polyval(y, polynomial.polyder(one[0])) * position
    steep, bends = [], []  # p'(y) of the two, and how it moves with the coefficients
    for coefficients, start, *_ in (one, two):
        steep.append(polynomial.polyval(y, polynomial.polyder(coefficients)))
        bend = polynomial.polyval(y, polynomial.polyder(coefficients, 2)) * position
        powers = np.arange(1, len(coefficients))
        bend[start + powers] += powers * y ** (powers - 1)
        bends.append(bend / steep[-1])
    ratio = np.log(steep[1] / steep[0]) if steep[1] * steep[0] > 0 else np.nan
    return y, polynomial.polyval(y, one[0]), position, value, ratio, bends[1] - bends[0]
