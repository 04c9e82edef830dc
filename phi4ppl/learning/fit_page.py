"""The report of ``phi4ppl fit``."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from ..reports.html import advice, numbers, picture, png_of, rows_table, verdict_line, write_page
from .likelihood import LikelihoodFit
from .variational_result import VariationalFit

__all__ = ["ERROR_IS", "write_fit"]

ERROR_IS = {  # what the error of a coupling is the error of
    "data": "Standard error (±): the standard deviation of the fitted coupling over repeated data sets of this size.",
    "target": "MC error: the Monte Carlo error of the fit alone. There are no data, so no uncertainty from data.",
}


def write_fit(
    result: LikelihoodFit | VariationalFit, table: pd.DataFrame, path, facts: dict, words: Callable[[str], str] = str
) -> Path:
    """Write the report of a fit to ``path``.

    Parameters
    ----------
    result : LikelihoodFit or VariationalFit
    table : pandas.DataFrame
        A row a coupling: ``term``, ``sites``, ``value`` and its error.
    facts : dict
        For the table of provenance.
    words : callable, optional
        Puts advice into other words.
    """
    to_data = isinstance(result, LikelihoodFit)
    what = f"{result.num_fields} fields, method {result.method}" if to_data else "target: the action of another model"
    parts = [
        "<h1>phi4ppl fit: couplings of a model</h1>",
        f"<p>{html.escape(result.model.describe().splitlines()[0])}<br>{html.escape(what)}</p>",
        verdict_line(result.converged, words(str(result.status))), *(advice(words(note)) for note in result.warnings),
        "<h2>Couplings</h2>", _couplings(table, "standard error" if to_data else "MC error"),
        f"<p>{ERROR_IS['data' if to_data else 'target']}</p>",
    ]  # fmt: skip
    if not to_data:
        parts += ["<h2>Distance from the target</h2>", _distance(result)]
    if result.history.sizes.get("step"):
        parts += ["<h2>History</h2>", picture("Numbers of every step of the fit", png_of(result.plot()))]
    else:
        parts += ["<h2>History</h2>", "<p>No steps.</p>"]
    parts += ["<h2>Model</h2>", f"<pre>{html.escape(result.model.describe())}</pre>"]
    return write_page(path, "phi4ppl fit", [*parts, "<h2>Provenance</h2>", rows_table(facts)])


def _couplings(table: pd.DataFrame, error: str) -> str:
    """A row a term: its coupling, or mean and spread of those of its cliques with their typical error."""
    rows = [f"<tr><th></th><th>couplings</th><th>value</th><th>spread over cliques</th><th>{error}</th></tr>"]
    for name, of in table.groupby("term", sort=False):
        values, errors = of["value"].to_numpy(), of.iloc[:, 3].to_numpy(float)
        known = errors[np.isfinite(errors)]
        typical = f"{np.sqrt(np.mean(known**2)):.2g}" if known.size else "not estimated"
        spread = f"{values.std():.2g}" if len(of) > 1 else ""
        cells = numbers(str(len(of)), f"{values.mean():.6g}", spread, typical)
        rows.append(f"<tr><td>{html.escape(str(name))}</td>{cells}</tr>")
    many = "" if len(rows) > len(table) else "<p>Mean and typical error of each term; couplings.csv has them all.</p>"
    return f"<table>{''.join(rows)}</table>{many}"


def _distance(result: VariationalFit) -> str:
    rows = ["<tr><th></th><th>value</th><th>MC error</th></tr>"]
    for name, value, error in (
        ("bound 𝓕 ≥ −log Z of the target", result.bound, result.bound_error),
        ("−log Z of the target, reweighted", result.free_energy, result.free_energy_error),
        ("Kullback–Leibler divergence", result.kl_divergence, result.kl_error),
    ):
        cells = (f"{value:.6g}", f"{error:.2g}") if np.isfinite(value) else ("not available", "")
        rows.append(f"<tr><td>{name}</td>{numbers(*cells)}</tr>")
    rows.append(f"<tr><td>left to gain by another step</td>{numbers(f'{result.remaining:.2g}', '')}</tr>")
    return f"<table>{''.join(rows)}</table>"
