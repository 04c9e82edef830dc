"""The checklist as a page: spectrum with baseline, cumulative trace, ranks, decay, learnability, and a verdict in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from .._typing import Labeled, PathLike
from ..errors import ArgumentError
from ..errors.arguments import call_checked
from ..reports.html import Fact, Picture, Row, Table, facts_table, png_of, write_page
from ..reports.numbers import value_with_error
from .baselines import Baseline, compare_baseline
from .learnability import Learnability, learnability
from .spectra import spectrum
from .spectral_plots import plot_cumulative, plot_spectrum
from .spectral_verdict import LIMITS, Finding, findings
from .spectrum_result import Spectrum

__all__ = ["SpectralReport", "report"]

MEANING = {
    "trace_over_max": "Σλ/λ₁: at least this many", "participation_ratio": "(Σλ)²/Σλ²: as if so many were equal",
    "entropy_rank": "exp of the entropy of the shares", "numerical_rank": "eigenvalues above rounding",
    "rank_fraction(0.9)": "leading ones that hold 90 % of the trace", "stable_rank": "of a factor A of K = AᵀA",
}  # fmt: skip
FEW_CLASSES = 20
ERRORS = (
    "Errors are standard errors in units of the last digits, from sub-samples of the points without replacement, or from "
    "blocks of draws of a run. They say what other points of the same kind would change."
)


class SpectralReport:
    """What `report` finds: ``spectrum``, ``baseline``, ``findings`` (of text, rule, advice), ``learnability``; prints as text.

    ``passed`` is False where a finding is a reason to act.
    """

    def __init__(
        self, found: Spectrum, baseline: Baseline | None, verdict: list[Finding], learned: Learnability | None
    ):
        self.spectrum, self.baseline, self.findings, self.learnability = found, baseline, verdict, learned

    @property
    def passed(self) -> bool:
        return not any(finding.concern for finding in self.findings)

    def __str__(self) -> str:
        lines = [str(self.spectrum)]
        lines += [f"{f.text} {f.advice} (rule: {f.rule})" for f in self.findings]
        lines += [str(self.learnability)] if self.learnability is not None else []
        return "\n".join([*lines, LIMITS])

    __repr__ = __str__

    def to_html(self, path: PathLike, *, heading: str | None = None, facts: dict | None = None) -> Path:
        """Write one self-contained page."""
        found, ranks = self.spectrum, self.spectrum.ranks
        keys = [
            Fact(name.replace("_", " "), _shown(*ranks[name]), MEANING[name])
            for name in ("participation_ratio", "entropy_rank", "trace_over_max")
            if not np.isnan(ranks[name][0])
        ]
        heading = heading or f"Spectrum of a {found.label}"
        panels = (png_of(plot_spectrum(found, self.baseline)), png_of(plot_cumulative(found, self.baseline)))
        content = {
            "title": f"{heading} · phi4ppl spectrum",
            "heading": heading,
            "lines": [f"{found.num_points} {'sites' if found.gram is None else 'points'}, trace {found.trace:.6g}"],
            "outcome": "passed" if self.passed else "failed",
            "verdict": self.findings[0].text,
            "keys": keys,
            "warnings": [f"{f.text} {f.advice}" for f in self.findings if f.concern],
            "findings": Table(("finding", "rule", "advice"), [Row((f.text, f.rule, f.advice)) for f in self.findings], texts=3),
            "limits": LIMITS,
            "ranks": Table(
                ("rank", "", "value"),
                [Row((name, MEANING.get(name, ""), value)) for name, value in found.rows()],
                texts=2,
            ),
            "errors_are": ERRORS,
            "picture": Picture("Eigenvalues with bands of one error, and the cumulative trace", panels),
            "decay": found.decay.line(),
            "baseline": "" if self.baseline is None else str(self.baseline),
            "learnability": "" if self.learnability is None else str(self.learnability),
            "notes": found.notes,
            "facts": facts_table({"points": found.num_points} | (facts or {})),
        }  # fmt: skip
        return write_page(path, "spectrum", content)


def _shown(value: float, error: float) -> str:
    return f"{value:.4g}" if np.isnan(error) else value_with_error(value, error)


@call_checked
def report(
    source: Labeled | Callable | str | Spectrum,
    points: Labeled = None,
    *,
    target: Labeled = None,
    baseline: str | None = "auto",
    path: PathLike | None = None,
    ridge: float | None = None,
    seed: int = 0,
) -> SpectralReport:
    """The checklist for a kernel, a network or a run: how many features it has, and what to do about it.

    Parameters
    ----------
    source : as of `spectrum`, or a Spectrum
    points : array_like, shape ``(n, …)``, optional
    target : array_like, shape ``(n,)``, optional
        Classes (words, or at most 20 different whole numbers; one column of zeros and ones each), or real values. What a
        regression with the kernel learns of it is predicted, and measured on points left out, if all eigenvectors are known.
    baseline : str or None
        A kernel of `compare_baseline`; left out where there are no points. ``"auto"`` is ``"rbf"``, or ``"laplace"`` beside an
        RBF kernel.
    path : path-like, optional
        Of a page to write.
    ridge : float, optional
        Added to the diagonal where the learnability of the target is worked out; by default a hundredth of its mean.
    seed : int

    Returns
    -------
    SpectralReport

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> x = np.random.default_rng(0).normal(size=(60, 2))
    >>> print(p4.spectral.report("rbf", x).findings[0].text)
    Too few points: 60.
    """
    found = source if isinstance(source, Spectrum) else spectrum(source, points, seed=seed)
    classes, values, learned = None, None, None
    if target is not None:
        values = np.asarray(target)
        if len(values) != found.num_points:
            got = f"{len(values)} values beside {found.num_points} points"
            raise ArgumentError("target", "one value a point", got, reason="shape")
        different = np.unique(values)
        whole = values.dtype.kind not in "f" or np.array_equal(values, np.rint(values))
        classes = len(different) if whole and len(different) <= FEW_CLASSES else None
    has_points = getattr(found.gram, "points", None) is not None
    if baseline == "auto":
        baseline = "laplace" if found.label.lower().startswith("rbf") else "rbf"
    beside = compare_baseline(found, baseline) if baseline is not None and has_points else None
    if values is not None and found.complete and found.vectors is not None:
        columns = values if classes is None else values[:, None] == np.unique(values)
        columns = np.asarray(columns, float).reshape(len(values), -1)
        ridge = found.trace / found.num_points / 100 if ridge is None else ridge
        learned = learnability(found, columns - columns.mean(axis=0), ridge=ridge, seed=seed)
    made = SpectralReport(found, beside, findings(found, beside, classes), learned)
    if path is not None:
        made.to_html(path)
    return made
