"""The page of finite-size scaling: values, fits, crossings, curves and collapse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..reports.html import Fact, Picture, Row, Table, facts_table, png_of, write_page
from ..reports.numbers import value_with_error

__all__ = ["write_scaling"]

MEANING = {
    "binder_cumulant*": "U₄ at the critical point", "correlation_length_ratio*": "ξ/L at the critical point",
    "nu": "ν", "gamma/nu": "γ/ν", "beta/nu": "β/ν", "omega": "ω, of corrections to scaling",
}  # fmt: skip
TITLES = {
    "binder_cumulant": "U₄", "correlation_length_ratio": "ξ/L",
}  # fmt: skip
ERRORS = (
    "Errors are standard errors in units of the last digits. They know autocorrelation, and that points of one size are "
    "correlated. An average weighs fits by exp(−AIC/2), and its error includes how they differ."
)


def write_scaling(
    result,
    path,
    facts: dict | None = None,
    heading: str | None = None,
    words: Callable[[str], str] = str,
) -> Path:
    """Write the page of a `FiniteSizeScaling`; ``facts`` are rows of its provenance, and ``words`` translates advice."""
    name, model = result.table.coupling, result.models[max(result.models)]
    averages = result.averages
    heading = heading or f"Critical point in {name}"
    best = result.fits.best
    keys = [(f"{name}_c", "critical coupling"), ("nu", "ν"), ("gamma/nu", "γ/ν"), ("beta/nu", "β/ν")]
    content = {
        "title": f"{heading} · phi4ppl scan",
        "heading": heading,
        "lines": [model.describe().splitlines()[0], str(result.table)],
        "outcome": "passed" if result.reliable else "failed",
        "verdict": f"Fits describe the curves (best: p = {best.p_value:.2g})" if result.reliable else "Not reliable",
        "keys": [Fact(meaning, value_with_error(*averages[key])) for key, meaning in keys if key in averages],
        "warnings": [words(text) for text in result.warnings],
        "values": Table(
            ("", "value", ""),
            [Row((key, value_with_error(*pair), MEANING.get(key, ""))) for key, pair in averages.items()],
        ),
        "errors_are": ERRORS,
        "picture": Picture("Curves of all sizes with the best fit, and the points scaled", (png_of(result.plot_scaling()),)),
        "fits": _fits(result.fits),
        "crossings": [
            {"name": TITLES[key], "table": _crossings(found)} for key, found in result.crossings.items() if len(found.pairs)
        ],
        "collapse": str(result.collapse),
        "model": model.describe(),
        "facts": facts_table({"sizes": ", ".join(map(str, result.models))} | (facts or {})),
    }  # fmt: skip
    return write_page(path, "scan", content)


def _fits(fits) -> Table:
    shared = list(fits.average())
    head = ("smallest size", "degree", "corrections", *shared, "χ²/dof", "p", "weight")
    rows = []
    for fit, weight in zip(fits, fits.weights, strict=True):
        cells = [value_with_error(fit.values[key], fit.errors[key]) for key in shared]
        ends = (f"{fit.chi2:.1f}/{fit.dof}", f"{fit.p_value:.2g}", f"{weight:.2f}")
        rows.append(Row((f"{fit.smallest:g}", str(fit.degree), str(fit.corrections), *cells, *ends)))
    rows.append(Row(("average", "", "", *(value_with_error(*pair) for pair in fits.average().values()), "", "", "")))
    return Table(head, rows)


def _crossings(found) -> Table:
    each = zip(found.pairs, found.position, found.position_error, found.value, found.value_error, strict=True)
    rows = [
        Row((f"{one:g}, {two:g}", value_with_error(y, dy), value_with_error(u, du)))
        for (one, two), y, dy, u, du in each
    ]
    return Table(("sizes", found.coupling, "value"), rows)
