"""What a spectrum says in words: a finding, the rule behind it, and what to do."""

from __future__ import annotations

from dataclasses import dataclass

from .baselines import Baseline
from .dense_spectra import FEW_POINTS
from .spectrum_result import Spectrum

__all__ = ["LIMITS", "Finding", "findings"]

ONE_FEATURE = 1.5  # of trace_over_max
SATURATED = 0.25  # of the number of points, by the entropy rank
LIMITS = (
    "These rules read the kernel, not the task: a spectrum tells how many features there are, not whether they are "
    "the right ones. They are rules of thumb with the thresholds that are printed; a held-out split decides."
)


@dataclass(frozen=True)
class Finding:
    """``text`` is what was found, ``rule`` why, ``advice`` what to do; ``concern`` tells whether it is a reason to act."""

    text: str
    rule: str
    advice: str
    concern: bool = True


def findings(spectrum: Spectrum, baseline: Baseline | None = None, classes: int | None = None) -> list[Finding]:
    """Everything that the rules find, the gravest first; never empty."""
    found = []
    n, kernel = spectrum.num_points, spectrum.momenta is None and spectrum.gram is not None
    if kernel and spectrum.sampled and n < FEW_POINTS:
        found.append(
            Finding(
                f"Too few points: {n}.",
                f"fewer than {FEW_POINTS} points",
                "Cross-validate; small eigenvalues are noise.",
            )
        )
    top = spectrum.trace_over_max
    if top < ONE_FEATURE:
        found.append(
            Finding(
                f"One feature holds {1 / top:.0%} of the trace.", f"trace_over_max below {ONE_FEATURE:g}",
                "It is often the mean: center the data or the kernel, then look again.",
            )
        )  # fmt: skip
    kept = spectrum.rank_fraction(0.9)
    if classes is not None and kept < classes - 1:
        found.append(
            Finding(
                f"{kept:.0f} features hold 90 % of the trace, for {classes} classes.",
                "rank_fraction(0.9) below the number of classes less one",
                "Underfitting is likely: a wider network, another kernel, or interactions of the features.",
            )
        )
    entropy = spectrum.ranks["entropy_rank"][0]
    if kernel and spectrum.complete and entropy > SATURATED * n:
        found.append(
            Finding(
                f"The spectrum is cut off by the number of points: {entropy:.3g} features of {n} points.",
                f"entropy_rank above {SATURATED:g} n",
                "The kernel sees every point as a feature of its own, so that overfitting is likely: regularize, "
                "take a longer length scale, or more points.",
            )
        )  # fmt: skip
    if baseline is not None:
        found.append(_beside(baseline))
    if not any(f.concern for f in found):
        found.insert(
            0, Finding("No rule finds too few or too many features.", "all rules of this page", "Keep it.", False)
        )
    return sorted(found, key=lambda f: not f.concern)


def _beside(baseline: Baseline) -> Finding:
    advice = {
        "faster": "Fewer features than a standard kernel: if it underfits, a wider network, another kernel or interactions.",
        "slower": "More features than a standard kernel: if it overfits, regularize.",
        "alike": "As many features as a standard kernel.",
    }
    return Finding(
        str(baseline), "entropy ranks on the same points differ by two errors and 5 %", advice[baseline.outcome], False
    )
