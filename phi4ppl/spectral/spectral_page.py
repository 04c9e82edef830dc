"""The checklist as a page: spectrum with baseline, cumulative trace, ranks, decay, learnability, and a verdict in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from .._typing import Labeled, PathLike
from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, present
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
    "blocks of draws of a run. They say what other points of the same kind, or more of them, would change: the bias is part of "
    "them. That of the entropy rank is taken out, and a quarter of it is in the error."
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


def _target(target, number: int) -> tuple[np.ndarray, int | None]:
    """Columns to learn of a target, shape ``(n, outputs)``, and the number of classes if it has any.

    Raises
    ------
    ArgumentError
        If values are missing, all the same, or neither numbers nor names; if there are as many names as points, nearly.
    """
    values = np.asarray(present("target", target))
    if values.ndim not in (1, 2) or len(values) != number:
        got = f"{len(values)} values beside {number} points" if values.ndim else "a single value"
        raise ArgumentError("target", "one value a point", got, reason="shape")
    if values.dtype.kind in "OUSb":
        missing = np.array([v is None or v != v for v in values.ravel()])
        if missing.any():
            fix = "Leave these points out, or give the missing class a name."
            got = f"none at {np.count_nonzero(missing)} of them, first at {np.argmax(missing)}"
            raise ArgumentError("target", "a value at every point", got, fix, reason="missing")
        names = values.astype(str)
        if values.ndim == 2 or len(np.unique(names)) > max(FEW_CLASSES, number // 2):
            got = f"shape {values.shape}" if values.ndim == 2 else f"{len(np.unique(names))} names for {number} points"
            fix = "Is it an identifier? Take another column."
            raise ArgumentError("target", "one name a point, of a few classes", got, fix, reason="classes")
        values = names
    else:
        values = finite_array("target", values)
    different = np.unique(values)
    if len(different) < 2 or (values.ndim == 2 and (np.ptp(values, axis=0) == 0).all()):
        raise ArgumentError("target", "values that differ", f"{different[0]!s} at every point", reason="constant")
    if values.ndim == 2:
        one_hot = np.isin(different, (0, 1)).all() and (values.sum(axis=1) == 1).all()
        return values.astype(float), values.shape[1] if one_hot else None
    is_name = values.dtype.kind == "U"
    if is_name or (np.array_equal(values, np.rint(values)) and len(different) <= FEW_CLASSES):
        return (values[:, None] == different).astype(float), len(different)
    return values.astype(float)[:, None], None


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
    target : array_like, shape ``(n,)`` or ``(n, outputs)``, optional
        Classes (words, at most 20 different whole numbers, or columns of zeros and ones), or real values. What a
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

    Raises
    ------
    ArgumentError
        As of `spectrum`; if the target has missing values, or one value everywhere.

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
        values, classes = _target(target, found.num_points)
    has_points = getattr(found.gram, "inputs", None) is not None
    if baseline == "auto":
        baseline = "laplace" if found.label.lower().startswith("rbf") else "rbf"
    beside = compare_baseline(found, baseline) if baseline is not None and has_points else None
    if values is not None and found.complete and found.vectors is not None:
        columns = values
        ridge = found.trace / found.num_points / 100 if ridge is None else ridge
        learned = learnability(found, columns - columns.mean(axis=0), ridge=ridge, seed=seed)
    verdict = findings(found, beside, classes)
    if values is not None and learned is None:
        verdict.append(
            Finding(
                "What a regression learns of the target is not worked out.",
                "not all eigenvectors are known",
                "Give fewer points, or method='dense'.",
                False,
            )
        )
    if learned is not None and not learned.holds:
        verdict.append(
            Finding(
                "What is predicted to be learned of the target is not what is measured: the error on points left out is "
                f"{_shown(learned.measured_error, learned.measured_error_error)}, predicted {learned.predicted_error:.3g}.",
                "prediction and splits differ by three errors and 5 %, in the error or in a leading mode",
                "Believe what is measured: the features of these points have structure.",
                False,
            )
        )
    made = SpectralReport(found, beside, verdict, learned)
    if path is not None:
        made.to_html(path)
    return made
