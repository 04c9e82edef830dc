"""An estimate of log Z: its value, error, method and provenance."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors.arguments import call_checked
from ..reports.card import card
from ..reports.numbers import value_with_error

__all__ = ["PartitionEstimate"]


@call_checked
@dataclass(frozen=True, repr=False)
class PartitionEstimate:
    """log Z of a model, with its error.

    Attributes
    ----------
    value : float
        log Z, Z = ∫ exp(−S) dφ with the Lebesgue measure on all sites.
    error : float
        One standard error where the method samples (quadrature errors included); for ``"exact"`` a bound on rounding and
        discretization.
    method : str
    how : str
        What was done, in one line.
    bracket : tuple of float, or None
        Lower and upper bound, each of which holds with probability 0.97 or more (``"ais"``): estimates that are biased down
        and up, less and plus two of their errors.
    parts : tuple of PartitionEstimate
        The estimates that the value combines, one per method.
    warnings : tuple of str
        Reasons to distrust the number; each was also given as a Python warning.
    """

    value: float
    error: float
    method: str
    how: str = ""
    bracket: tuple[float, float] | None = None
    parts: tuple[PartitionEstimate, ...] = ()
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"log Z = {value_with_error(self.value, self.error)}  ({self.method}: {self.how})"]
        if self.bracket is not None:
            lines.append(f"  bracket [{self.bracket[0]:.8g}, {self.bracket[1]:.8g}]")
        for part in self.parts:
            lines += ["  " + line for line in str(part).splitlines()]
        lines += [f"  warning: {text}" for text in self.warnings]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        parts = self.parts or (self,)
        rows = [(part.method, value_with_error(part.value, part.error), part.how) for part in parts]
        title = f"log Z = {value_with_error(self.value, self.error)}"
        return card(
            title, ("method", "log Z", "how"), rows, outcome=self.how if self.parts else "", warnings=self.warnings
        )
