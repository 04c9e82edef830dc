"""The report of a run as one self-contained HTML file."""

from __future__ import annotations

import html
from pathlib import Path

from ..reports.html import checks_table, estimates_table, picture, rows_table, verdict_line, write_page
from .contents import facts_of
from .figures import figures

__all__ = ["write_html"]


def write_html(report, path) -> Path:
    """Write the report of `phi4ppl.diagnose` to ``path``."""
    tree = report.tree
    facts = facts_of(tree)
    settings, known = facts["settings"], "model" in facts
    run = report.run
    if known:
        run += f", seed {settings['seed']}, {settings['dtype']}, {settings['seconds']:.1f} s"
    model = facts["model"] if known else "Draws that were not made by phi4ppl"
    parts = [
        "<h1>phi4ppl run</h1>",
        f"<p>{html.escape(model.splitlines()[0])}<br>{html.escape(run)}</p>",
        verdict_line(report.passed, report.verdict),
        "<h2>Checks</h2>",
        checks_table(report.checks),
        *(f"<p>Note: {html.escape(note)}.</p>" for note in report.warnings),
        "<h2>Estimates</h2>",
        estimates_table(report.estimates),
        "<p>Standard deviation and interval: how far the quantity itself spreads. Monte Carlo error: one standard error of the "
        "mean, how well this run knows it. τ<sub>int</sub>: ½ for independent draws. “not reliable”: chains too short for "
        "their τ<sub>int</sub>, or in disagreement.</p>",
        "<h2>Pictures</h2>",
    ]
    parts += [picture(title, png) for title, png in figures(tree).values()]
    if known:
        parts += ["<h2>Model</h2>", f"<pre>{html.escape(model)}</pre>"]
    for name, text in facts["checks"].items():
        parts.append(f"<pre>{html.escape(f'{name}: ' if len(facts['checks']) > 1 else '')}{html.escape(text)}</pre>")
    if known:
        rows = settings | facts["versions"] | {k: facts[k] for k in ("python", "machine", "created")}
        parts += ["<h2>Provenance of the run</h2>", rows_table(rows)]
    return write_page(path, "phi4ppl run", parts)
