"""The input and output of every method that fits data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from ..model.coupling_vector import CouplingVector
from ..sampling.progress import Progress
from .history import FitStatus, History

__all__ = ["Estimate", "Problem"]


@dataclass(frozen=True)
class Problem:
    """Checked data and the family that is fitted to them.

    Attributes
    ----------
    vector : CouplingVector
    data : array, shape (num_samples, num_sites), double precision
    ridge : float or None
        Relative strength of the pull toward homogeneous couplings; None leaves it to the method.
    start : array or None
        Couplings to start from: those of the result that is continued.
    history : History
    bar : Progress
    """

    vector: CouplingVector
    data: np.ndarray
    ridge: float | None
    start: np.ndarray | None
    history: History
    bar: Progress

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
    def is_short(self) -> bool:
        """Whether there are fewer samples than couplings, some of which could be pulled together."""
        return self.num_samples < self.vector.size and bool(self.wide.any())

    @property
    def bounded(self) -> np.ndarray:
        """Which couplings cannot be negative."""
        return self.vector.bounded

    def homogeneous(self) -> Problem:
        """The same data for the family with one coupling per term, with its own history."""
        template = self.vector.template
        model = template.replace(**{name: float(np.mean(value)) for name, value in template.couplings.items()})
        vector = CouplingVector.of(model)
        return replace(self, vector=vector, ridge=0.0, start=None, history=History(vector))

    def spread_out(self, means) -> np.ndarray:
        """Couplings of the homogeneous family as couplings of this one."""
        return np.repeat(means, [part.stop - part.start for part in self.vector.slices.values()])

    def ridge_note(self, strength: float) -> str:
        return (
            f"{self.num_samples} samples for {self.vector.size} couplings: a ridge toward homogeneous couplings of relative "
            f"strength {strength:.2g}, chosen by how well each half of the data predicts the other."
        )

    def tell(self, step: int, num_steps: int, text: str) -> None:
        """A line of progress."""
        if self.bar.is_due or step == num_steps:
            self.bar.message(f"step {step} of at most {num_steps} · {text}")


@dataclass(frozen=True)
class Estimate:
    """Couplings with standard errors; ``ridge`` is the relative strength used, ``notes`` lists automatic choices."""

    theta: np.ndarray
    errors: np.ndarray
    status: FitStatus
    ridge: float
    notes: tuple[str, ...] = field(default=())
