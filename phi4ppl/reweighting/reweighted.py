"""The result of reweighting, and when it should not be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import OverlapError, Phi4pplWarning, warn
from ..reports.card import card
from ..reports.numbers import value_with_error

__all__ = ["Divergence", "Reweighted", "warnings_of"]

MIN_EFFECTIVE_SAMPLES = 100
MAX_PARETO_K = 0.7


class Divergence(NamedTuple):
    """How far a sampled density p = exp(−S)/Z is from exp(−A)/Z_A; see `Ensembles.divergence`.

    Attributes
    ----------
    value, error : float
        KL(p ‖ exp(−A)/Z_A).
    excess, excess_error : float
        ⟨A − S⟩ in p.
    log_partition_ratio, log_partition_ratio_error : float
        log Z_A/Z.
    carriers, excess_carriers : float
        (Σu²)²/Σu⁴ of what single draws u add to the divergence and to ⟨A − S⟩: how many of them carry the variance. The
        error itself is known to a relative 1/(2 √carriers) at best; with a few it is too small more often than too large.
    """

    value: float
    error: float
    excess: float
    excess_error: float
    log_partition_ratio: float
    log_partition_ratio_error: float
    carriers: float
    excess_carriers: float

    def __str__(self) -> str:
        excess = value_with_error(self.excess, self.excess_error)
        return f"divergence {value_with_error(self.value, self.error)}, ⟨A − S⟩ {excess}"

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True, repr=False)
class Reweighted:
    """Expectations under an action that was not sampled.

    Attributes
    ----------
    mean, error : dict
        By name of the observable, numbers or arrays. For a complex target the real part of an error belongs to the real
        part of the mean, the imaginary part to the imaginary part.
    log_partition_ratio, log_partition_ratio_error : float or complex
        log Z_A/Z_S; an imaginary part lies in (−π, π].
    overlap : float
        ``(Σ|w|)²/(N Σ|w|²)``: the share of the samples that carries the weight, 1 for equal weights.
    effective_sample_size : float
        Independent samples with equal weights that would be worth as much: N · overlap / (2 τ_int).
    pareto_k : float
        k̂ of the tail of the weights; above 0.7 means cannot be trusted.
    average_phase, average_phase_error : float or complex
        ``Σw/Σ|w|``; 1 for a real target, and small in modulus where phases cancel (sign problem).
    num_fields : int
        Draws of all ensembles together.
    tau_int, block_length : float
        The longest integrated autocorrelation time of the weighted series, and the draws per jackknife block.
    warnings : tuple of str
        Reasons to distrust these numbers; empty if there are none.
    replicas : object
        What `phi4ppl.analysis.derive` finds the errors of functions from: the means, and ``log_partition_ratio``, without one
        block of draws each.
    """

    mean: dict
    error: dict
    effective_sample_size: float
    overlap: float
    pareto_k: float
    average_phase: float | complex
    average_phase_error: float | complex
    log_partition_ratio: float | complex
    log_partition_ratio_error: float | complex
    num_fields: int
    tau_int: float
    block_length: float
    warnings: tuple[str, ...] = ()
    replicas: object = None

    @property
    def reliable(self) -> bool:
        return not self.warnings

    def accept(self, on_poor_overlap: str) -> Reweighted:
        """The result if there is no reason to distrust it; otherwise an error, or a warning."""
        if self.warnings and on_poor_overlap == "raise":
            fix = "Sample closer to the target, or add intermediate ensembles (phi4ppl.combine_ensembles)"
            raise OverlapError(
                "poor", f"{' '.join(self.warnings)} {fix}; on_poor_overlap='warn' returns the numbers anyway."
            )
        if self.warnings:
            warn(Phi4pplWarning("overlap.poor", " ".join(self.warnings)))
        return self

    def __str__(self) -> str:
        phase = f", average phase {abs(self.average_phase):.3g}" if isinstance(self.average_phase, complex) else ""
        lines = [
            f"reweighted from {self.num_fields} samples: {self.effective_sample_size:.0f} effective, "
            f"overlap {self.overlap:.3g}, Pareto k̂ {self.pareto_k:.2f}{phase}",
            f"  log Z ratio  {_shown(self.log_partition_ratio, self.log_partition_ratio_error)}",
        ]
        for name, mean in self.mean.items():
            shown = _shown(mean, self.error[name]) if np.ndim(mean) == 0 else f"array of shape {np.shape(mean)}"
            lines.append(f"  {name}  {shown}")
        return "\n".join(lines + [f"  NOT RELIABLE: {text}" for text in self.warnings])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [("log Z ratio", _shown(self.log_partition_ratio, self.log_partition_ratio_error))]
        for name, mean in self.mean.items():
            rows.append(
                (name, _shown(mean, self.error[name]) if np.ndim(mean) == 0 else f"array of shape {np.shape(mean)}")
            )
        outcome = f"{self.effective_sample_size:.0f} effective of {self.num_fields} draws, Pareto k̂ {self.pareto_k:.2f}"
        return card("Reweighted", (), rows, good=self.reliable, outcome=outcome, warnings=self.warnings)


def warnings_of(result: Reweighted, blocks_are_long_enough: bool) -> tuple[str, ...]:
    """One sentence for each reason not to trust a result."""
    found = []
    size, phase = result.effective_sample_size, abs(result.average_phase)
    if size < MIN_EFFECTIVE_SAMPLES:
        found.append(
            f"The weights leave {size:.3g} effective of {result.num_fields} samples, and {MIN_EFFECTIVE_SAMPLES} are "
            "required: source and target hardly overlap."
        )
    elif size * phase**2 < MIN_EFFECTIVE_SAMPLES:
        found.append(
            f"The phases cancel: an average phase of {phase:.2g} leaves {size * phase**2:.3g} of {size:.3g} effective samples."
        )
    if result.pareto_k > MAX_PARETO_K:
        found.append(
            f"Pareto k̂ = {result.pareto_k:.2f} > {MAX_PARETO_K}: a few samples carry the weights, and larger ones are missing."
        )
    if not blocks_are_long_enough:
        found.append(
            f"The chains are too short for errors: τ_int is about {result.tau_int:.3g} draws, and 32 blocks of twice that "
            "do not fit."
        )
    return tuple(found)


def _shown(mean, error) -> str:
    if isinstance(mean, complex) or isinstance(error, complex):
        mean, error = complex(mean), complex(error)
        return f"{value_with_error(mean.real, error.real)} + i {value_with_error(mean.imag, error.imag)}"
    return value_with_error(mean, error)
