"""The report of ``phi4ppl fit``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from ..reports.html import Picture, Row, Table, facts_table, png_of, write_page
from ..reports.numbers import rounded, value_with_error
from ..reports.style import GRAY, OKABE_ITO, panels
from .likelihood import LikelihoodFit
from .variational_result import VariationalFit

__all__ = ["ERROR_IS", "coefficients_figure", "write_fit"]

ERROR_IS = {  # what the error of a coupling is the error of
    "data": "Standard error (±): the standard deviation of the fitted coupling over repeated data sets of this size.",
    "target": "MC error: the Monte Carlo error of the fit alone. There are no data, so no uncertainty from data.",
}
PARENTHESES = " In parentheses, in units of the last digits."
MAX_LABELS = 30  # of couplings, beyond which they are numbered on the axis


def write_fit(
    result: LikelihoodFit | VariationalFit, table: pd.DataFrame, path, facts: dict, words: Callable[[str], str] = str
) -> Path:
    """Write the report of a fit to ``path``.

    Parameters
    ----------
    result : LikelihoodFit or VariationalFit
    table : pandas.DataFrame
        A row per coupling: ``term``, ``sites``, ``value`` and its error.
    facts : dict
        Rows of the table of provenance.
    words : callable, optional
        Translates advice, for example to command-line options.
    """
    to_data = isinstance(result, LikelihoodFit)
    what = "target: the action of another model"
    if isinstance(result, LikelihoodFit):
        what = f"{result.num_fields} fields, method {result.method}"
    error, steps = "standard error" if to_data else "MC error", result.history.sizes.get("step", 0)
    heading = f"Couplings of a field on {result.model.lattice.name}"
    couplings = _couplings(table, error)
    content = {
        "title": f"{heading}: {result.status.name.replace('_', ' ').lower()} · phi4ppl fit",
        "heading": heading,
        "lines": [result.model.describe().splitlines()[0], what],
        "outcome": "passed" if result.converged else "failed",
        "verdict": words(str(result.status)),
        "notes": [words(note) for note in result.warnings],
        "couplings": couplings,
        "folded": len(couplings.rows) < len(table),
        "error_is": ERROR_IS["data" if to_data else "target"] + PARENTHESES,
        "coefficients": Picture(f"Fitted couplings with one {error}", (png_of(coefficients_figure(table, error)),)),
        "distance": _distance(result) if isinstance(result, VariationalFit) else None,
        # two points of a method that solves once show nothing that the couplings do not
        "history": Picture("Steps of the fit", (png_of(result.plot()),)) if steps > 2 else None,
        "no_history": f"{steps or 'No'} step{'' if steps == 1 else 's'}: nothing to draw that the couplings do not show.",
        "model": result.model.describe(),
        "facts": facts_table(facts),
    }
    return write_page(path, "fit", content)


def coefficients_figure(table: pd.DataFrame, error: str):
    """Every coupling with its error bar, one panel a term; terms of one coupling each share the first panel."""
    alone = {name: len(of) == 1 for name, of in table.groupby("term", sort=False)}
    groups = {"couplings": table[table["term"].map(alone)]} if any(alone.values()) else {}
    groups |= {name: table[table["term"] == name] for name, single in alone.items() if not single}
    figure, places = panels(len(groups), width=4.2, height=3.0, columns=2)
    for axes, (name, rows) in zip(places, groups.items(), strict=True):
        values, errors = rows["value"].to_numpy(float), rows.iloc[:, 3].to_numpy(float)
        at = np.arange(len(rows))
        axes.axhline(0, color=GRAY, lw=0.8)
        axes.errorbar(at, values, np.where(np.isfinite(errors), errors, 0), fmt="o", ms=4 if len(rows) < 100 else 2,
                      capsize=3 if len(rows) <= MAX_LABELS else 0, lw=1.0, color=OKABE_ITO[0])  # fmt: skip
        labels = rows["term"] if name == "couplings" else rows["sites"]
        axes.set_title(name.replace("$", r"\$") if name != "couplings" else "", fontsize=9)
        axes.set_ylabel("value" if np.isfinite(errors).any() else f"value ({error} not estimated)", fontsize=8)
        if len(rows) <= MAX_LABELS:
            turn = 90 if len(rows) > 6 else 0
            axes.set_xticks(at, [str(text).replace("$", r"\$") for text in labels], rotation=turn, fontsize=7)
            axes.set_xlim(-0.7, len(rows) - 0.3)
        else:
            axes.set_xlabel("number of the clique", fontsize=8)
    return figure


def _couplings(table: pd.DataFrame, error: str) -> Table:
    """A row per term: its coupling, or mean and spread of those of its cliques with their typical error."""
    rows = []
    for name, of in table.groupby("term", sort=False):
        values, errors = of["value"].to_numpy(), of.iloc[:, 3].to_numpy(float)
        known = errors[np.isfinite(errors)]
        if len(of) == 1:
            value = value_with_error(values[0], errors[0]) if known.size else f"{values[0]:.6g}"
            typical = f"{errors[0]:.2g}" if known.size else "not estimated"
            rows.append(Row((str(name), "1", value, "", typical)))
            continue
        spread = values.std()
        typical = f"{np.sqrt(np.mean(known**2)):.2g}" if known.size else "not estimated"
        rows.append(Row((str(name), str(len(of)), rounded(values.mean(), spread), f"{spread:.2g}", typical)))
    return Table(("", "couplings", f"value({error})", "spread over cliques", error), rows)


def _distance(result: VariationalFit) -> Table:
    rows = []
    for name, value, error in (
        ("bound 𝓕 ≥ −log Z of the target", result.bound, result.bound_error),
        ("−log Z of the target, reweighted", result.free_energy, result.free_energy_error),
        ("Kullback–Leibler divergence", result.kl_divergence, result.kl_error),
    ):
        rows.append(Row((name, value_with_error(value, error) if np.isfinite(value) else "not available")))
    rows.append(Row(("left to gain by another step", f"{result.remaining:.2g}")))
    return Table(("", "value(MC error)"), rows)
