"""What goes into every way of fitting data, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .history import FitStatus, History
from .parameters import CouplingVector

__all__ = ["Estimate", "Problem"]


@dataclass(frozen=True)
class Problem:
    """Checked data and the family that is fitted to them.

    Attributes
    ----------
    vector : CouplingVector
    data : array, shape (num_samples, num_sites), double precision
    ridge : float or None
        Relative strength of the pull towards homogeneous couplings; None leaves it to the method.
    start : array or None
        Couplings to start from: those of the result that is continued.
    history : History
    """

    vector: CouplingVector
    data: np.ndarray
    ridge: float | None
    start: np.ndarray | None
    history: History

    @property
    def num_samples(self) -> int:
        return len(self.data)

    @property
    def wide(self) -> np.ndarray:
        """Which couplings belong to inhomogeneous terms."""
        wide = np.zeros(self.vector.size, bool)
        for name, part in self.vector.slices.items():
            wide[part] = self.vector.is_inhomogeneous(name)
        return wide

    @property
    def bounded(self) -> np.ndarray:
        """Which couplings cannot be negative: quartic ones, where no own term could hold the field."""
        bounded = np.zeros(self.vector.size, bool)
        forms = [term.form for term in self.vector.template.terms]
        if all(form.built_in for form in forms):
            for form in forms:
                bounded[self.vector.slices[form.name]] = form.built_in == "quartic"
        return bounded


@dataclass(frozen=True)
class Estimate:
    """Couplings with standard errors; ``ridge`` is the relative strength that was used, ``notes`` what was done and why."""

    theta: np.ndarray
    errors: np.ndarray
    status: FitStatus
    ridge: float
    notes: tuple[str, ...] = field(default=())
