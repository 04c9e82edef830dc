"""A quenched run as figures and as a page: P(q), observables of the realisations, averages, and the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..reports.html import Fact, Picture, Row, Table, facts_table, png_of, write_page
from ..reports.style import OKABE_ITO, panels
from ..results.settings import metadata
from ..results.verdict import Check

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_quenched", "write_quenched"]

MAX_LINES = 8  # realisations whose own P(q) is drawn
ERRORS = (
    "Errors are standard errors over the realisations, in units of the last digits; the thermal noise of the chains is part of "
    "them. [·] is the average over realisations, ⟨·⟩ that over the field of one. R_O = ([⟨O⟩²] − [⟨O⟩]²)/[⟨O⟩]² falls as 1/V "
    "where O is self-averaging."
)


def plot_quenched(result) -> Figure:
    """P(q) with its errors beside single realisations, and ⟨m⟩ of every realisation with its thermal error."""
    figure, axes = panels(1 + (result.overlaps is not None), width=4.2, height=3.0)
    if result.overlaps is not None:
        _plot_overlaps(axes[0], result)
    _plot_realizations(axes[-1], result)
    return figure


def _plot_overlaps(axis, result) -> None:
    found = result.overlap_distribution()
    q = found["q"].values
    for k, own in enumerate(found["by_realization"].values[:MAX_LINES]):
        axis.plot(q, own, color="0.8", lw=0.8, label="single realisations" if k == 0 else None)
    mean, error = found["density"].values, found["error"].values
    axis.plot(q, mean, color=OKABE_ITO[0], label=f"P(q) of {result.num_realizations}")
    axis.fill_between(q, mean - error, mean + error, color=OKABE_ITO[0], alpha=0.3, lw=0)
    axis.set(xlabel="overlap q", ylabel="P(q)", ylim=(0, None))
    axis.legend(frameon=False, fontsize=8)


def _plot_realizations(axis, result) -> None:
    values = result.realizations["magnetization"]
    budget = result.budget("magnetization")
    thermal = np.sqrt(budget.thermal / (result.num_replicas * budget.present))
    order = np.argsort(values)
    failed = np.isin(order, result.verdict.failed)
    for where, color, label in ((~failed, OKABE_ITO[0], "⟨m⟩"), (failed, OKABE_ITO[1], "⟨m⟩, chains fail")):
        if where.any():
            at = np.flatnonzero(where)
            axis.errorbar(at, values[order][where], thermal, fmt="o", ms=2.5, lw=0.8, color=color, label=label)
    axis.axhline(0, color="0.8", lw=0.8, zorder=0)
    axis.set(xlabel="realisation, in order", ylabel="magnetization ⟨m⟩")
    axis.legend(frameon=False, fontsize=8)


def write_quenched(result, path, name: str | None, facts: dict) -> Path:
    """Write the page to ``path``."""
    made = metadata(result.tree)["settings"]
    numbers = result.numbers()
    verdict = result.verdict
    drawn = ", ".join(f"{n}: {text}" for n, text in made.get("disorder", {}).items())
    heading = name or "Quenched disorder"
    caption = "P(q) over realisations with bands of one error, and ⟨m⟩ of every realisation with its thermal error"
    content = {
        "title": f"{heading} · phi4ppl run",
        "heading": heading,
        "lines": [
            f"{result.num_realizations} realisations × {result.num_replicas} replicas × {made['num_samples']} draws after "
            f"{made['num_warmup']} of warm-up, kernel {made['kernel']}",
            drawn,
        ],
        "outcome": "passed" if result.passed else "failed",
        "verdict": f"Chains {verdict.outcome}",
        "keys": [Fact(label, value, meaning) for label, value, meaning in numbers[:3]],
        "warnings": list(result.warnings),
        "averages": Table(("observable", "[⟨O⟩]", "[⟨O⟩²]", "[⟨O²⟩]", "R_O"), [Row(cells) for cells in result.rows()]),
        "numbers": Table(
            ("quantity", "meaning", "value"), [Row((n, meaning, value)) for n, value, meaning in numbers], texts=2
        ),
        "errors_are": ERRORS,
        "picture": Picture(caption if result.overlaps is not None else "⟨m⟩ of every realisation", (png_of(result.plot()),)),
        "checks": Table(("check", "", "value", "threshold"), [_row(check) for check in verdict.checks], texts=4),
        "budget": [f"{result.budget(each)}." for each in ("magnetization", "phi_squared") if each in result.observables],
        "improper": f"Realisations without a finite Z: probability {result.improper} "
        f"({result.improper.how}).",
        "model": result.model.describe(),
        "facts": facts_table({k: v for k, v in made.items() if k != "disorder"} | facts),
    }  # fmt: skip
    return write_page(path, "quenched", content)


def _row(check: Check) -> Row:
    cells = (check.name, "pass" if check.passed else "FAIL", check.value, check.threshold)
    return Row(cells, "" if check.passed else "fail", "" if check.passed else check.advice)
