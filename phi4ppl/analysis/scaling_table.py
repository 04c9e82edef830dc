"""What finite-size scaling starts from: observables at several sizes and couplings, with the covariance of their errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .._typing import ArrayLike, Labeled
from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array

__all__ = ["ScalingTable", "from_table"]

ROUNDING = 1e-6  # of eigenvalues of a correlation matrix in single precision, for each of its rows


@dataclass(frozen=True)
class ScalingTable:
    """Observables at several sizes and couplings; see `from_table`.

    Attributes
    ----------
    sizes, couplings : arrays, shape (num_rows,)
        L and y of each row.
    values : dict of arrays, shape (num_rows,)
        By name of the observable.
    covariance : array, shape (num_values, num_values)
        Of all values, one observable after the other.
    coupling : str
        The name of y.
    """

    sizes: np.ndarray
    couplings: np.ndarray
    values: dict[str, np.ndarray]
    covariance: np.ndarray
    coupling: str = "coupling"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.values)

    @property
    def errors(self) -> dict[str, np.ndarray]:
        """Standard errors, by name."""
        each = np.sqrt(np.diag(self.covariance)).reshape(len(self.values), -1)
        return dict(zip(self.values, each, strict=True))

    def select(self, names=None, *, smallest: float = 0, largest: float = np.inf) -> ScalingTable:
        """The observables ``names`` (all by default) of the sizes from ``smallest`` to ``largest``.

        Raises
        ------
        ArgumentError
            For an unknown name, or if no row is left.
        """
        names = self.names if names is None else (names,) if isinstance(names, str) else tuple(names)
        for name in names:
            if name not in self.values:
                raise ArgumentError("names", f"some of {', '.join(self.names)}", repr(name), reason="name")
        rows = np.flatnonzero((self.sizes >= smallest) & (self.sizes <= largest))
        if not len(rows) or not names:
            shown = f"{smallest:g} to {largest:g}"
            raise ArgumentError("smallest", f"sizes among {sorted(set(self.sizes))}", shown, reason="empty")
        places = np.concatenate([self.names.index(name) * len(self.sizes) + rows for name in names])
        return ScalingTable(
            self.sizes[rows], self.couplings[rows], {name: self.values[name][rows] for name in names},
            self.covariance[np.ix_(places, places)], self.coupling,
        )  # fmt: skip

    def __str__(self) -> str:
        sizes = ", ".join(f"{size:g}" for size in np.unique(self.sizes))
        low, high = self.couplings.min(), self.couplings.max()
        return f"{', '.join(self.names)} at sizes {sizes}, {self.coupling} from {low:.6g} to {high:.6g}: {len(self.sizes)} rows"

    __repr__ = __str__


@call_checked
def from_table(
    table: Labeled,
    *,
    coupling: str,
    size: str = "L",
    names: tuple[str, ...] | None = None,
    covariance: ArrayLike | None = None,
) -> ScalingTable:
    """Observables measured anywhere, ready for `find_crossings`, `fit_scaling` and `collapse`.

    Parameters
    ----------
    table : DataFrame, or dict of arrays
        One row for each size and coupling: columns ``size`` and ``coupling``, and for every observable NAME and NAME_error.
    coupling : str
        The column of the coupling that is scanned.
    size : str, default "L"
        The column of the linear size.
    names : tuple of str, optional
        The observables; by default every column that has a NAME_error beside it.
    covariance : array, shape (num_values, num_values), optional
        Of all values: those of the first observable in the order of the rows, then those of the second, and so on. Without it
        errors are independent; points of one reweighted curve, or several observables of one run, are not.

    Returns
    -------
    ScalingTable

    Raises
    ------
    ArgumentError
        If a column is missing or not finite, an error is not positive, or the covariance is not a covariance.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> columns = {"L": [8, 8, 16, 16], "w": [0.6, 0.7, 0.6, 0.7], "U4": [0.3, 0.6, 0.2, 0.64], "U4_error": [0.01] * 4}
    >>> print(p4.analysis.from_table(columns, coupling="w"))
    U4 at sizes 8, 16, w from 0.6 to 0.7: 4 rows
    """
    if not isinstance(table, Mapping) and not hasattr(table, "columns"):
        raise ArgumentError("table", "a DataFrame, or a dict of columns", type(table).__name__)
    known = [str(name) for name in table]
    if names is None:
        names = tuple(name for name in known if f"{name}_error" in known)
    needed = [size, coupling, *names, *(f"{name}_error" for name in names)]
    missing = [name for name in needed if name not in known]
    if missing or not names:
        got = f"no column {missing[0]!r}" if missing else "no observable"
        fix = "An observable is a column NAME with a column NAME_error beside it."
        raise ArgumentError("table", f"the columns {', '.join(needed)}", got, fix, reason="columns")
    columns = {name: finite_array(f"column {name!r}", np.asarray(table[name])).astype(float) for name in needed}
    shapes = {column.shape for column in columns.values()}
    if len(shapes) > 1 or len(shapes.pop()) != 1:
        raise ArgumentError("table", "columns of one length", "different shapes", reason="shape")
    errors = np.concatenate([columns[f"{name}_error"] for name in names])
    if np.any(errors <= 0) or np.any(columns[size] <= 0):
        raise ArgumentError("table", "positive sizes and errors", "one that is not positive", reason="positive")
    matrix = np.diag(errors**2) if covariance is None else finite_array("covariance", covariance)
    if matrix.shape != (len(errors),) * 2 or not np.allclose(matrix, matrix.T):
        expected = f"a symmetric matrix of shape {(len(errors),) * 2}"
        raise ArgumentError(
            "covariance", expected, f"shape {matrix.shape}", "Its order is that of the observables, then rows."
        )
    if not np.allclose(np.sqrt(np.maximum(np.diag(matrix), 0)), errors, rtol=0.01):
        fix = "Its order is one observable after the other, each in the order of the rows."
        raise ArgumentError("covariance", "the squared errors on the diagonal", "others", fix, reason="diagonal")
    spread = np.sqrt(np.diag(matrix))
    lowest = float(np.linalg.eigvalsh(matrix / np.outer(spread, spread))[0])
    if lowest < -ROUNDING * len(errors):
        got = f"a correlation matrix with the eigenvalue {lowest:.2g}"
        fix = "Estimate all of it from the same blocks of draws, or repeats: separate or rounded entries need not fit together."
        raise ArgumentError("covariance", "a positive semidefinite matrix", got, fix, reason="definite")
    return ScalingTable(columns[size], columns[coupling], {name: columns[name] for name in names}, matrix, coupling)
