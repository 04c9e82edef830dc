"""The report of a run as one self-contained HTML file."""

from __future__ import annotations

import base64
import html
from pathlib import Path

from ..errors import path_of, writing
from .contents import facts_of
from .figures import figures

__all__ = ["checks_table", "estimates_table", "page", "picture", "rows_table", "write_html"]

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1.5rem }
body { color: #1a1a1a; background: #fff }
h1 { font-size: 1.5rem; margin-bottom: .3rem } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #ddd }
.verdict { padding: .7rem 1rem; border-radius: .4rem; font-weight: 600 }
.passed { background: #e3f4e6; color: #14532d } .failed { background: #fde7e7; color: #7f1d1d }
.undecided { background: #fdf3d7; color: #713f12 } .neutral { background: #eef1f5; color: #1f2937 }
table { border-collapse: collapse; font-size: .9rem; display: block; overflow-x: auto }
td, th { padding: .25rem .7rem; text-align: left; vertical-align: top }
th { border-bottom: 2px solid #999 } td { border-bottom: 1px solid #eee }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
tr.fail td { background: #fdf0f0 } .advice { color: #7f1d1d; font-size: .85rem }
figure { margin: 1.2rem 0 } figcaption { color: #555; font-size: .9rem } img { max-width: 100% }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: .82rem; line-height: 1.4 }
"""


def write_html(report, path) -> Path:
    """Write the report of `phi4ppl.diagnose` to ``path``."""
    path = path_of("path", path)
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
        f"<p class='verdict {'passed' if report.passed else 'failed'}'>{html.escape(report.verdict)}</p>",
        "<h2>Checks</h2>",
        checks_table(report.checks),
        *(f"<p>Note: {html.escape(note)}.</p>" for note in report.notes),
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
    with writing("path", path):
        path.write_text(page("phi4ppl run", parts), encoding="utf-8")
    return path


def page(title: str, parts: list[str]) -> str:
    """One self-contained page from pieces of HTML."""
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{html.escape(title)}</title>"
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )


def picture(title: str, png: bytes) -> str:
    """A picture inside the page, with its caption."""
    data, caption = base64.b64encode(png).decode(), html.escape(title)
    return (
        f"<figure><figcaption>{caption}</figcaption><img alt='{caption}' src='data:image/png;base64,{data}'></figure>"
    )


def rows_table(rows: dict) -> str:
    """Names beside values."""
    cells = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(str(v))}</td></tr>" for k, v in rows.items())
    return f"<table>{cells}</table>"


def checks_table(checks) -> str:
    """The checks of a verdict, with advice where they failed."""
    rows = ["<tr><th></th><th>check</th><th>value</th><th>threshold</th></tr>"]
    for check in checks:
        advice = "" if check.passed else f"<div class='advice'>{html.escape(check.advice)}</div>"
        rows.append(
            f"<tr class='{'pass' if check.passed else 'fail'}'><td>{'✓' if check.passed else '✗'}</td>"
            f"<td>{html.escape(check.name)}</td><td>{html.escape(check.value)}{advice}</td>"
            f"<td>{html.escape(check.threshold)}</td></tr>"
        )
    return f"<table>{''.join(rows)}</table>"


def estimates_table(table) -> str:
    """The table of `phi4ppl.estimate`."""
    head = ("", "mean", "standard deviation", "94 % interval", "Monte Carlo error", "τ<sub>int</sub>", "± ",
            "effective draws", "")  # fmt: skip
    rows = ["<tr>" + "".join(f"<th>{h}</th>" for h in head) + "</tr>"]
    for name, row in table.iterrows():
        shown = [f"{row[name]:.4g}" for name in ("mean", "sd", "error", "tau_int", "tau_int_error")]
        shown.insert(2, f"{row['3%']:.4g} to {row['97%']:.4g}")
        shown.append(f"{row['effective_sample_size']:.0f}")
        numbers = "".join(f"<td class='number'>{value}</td>" for value in shown)
        rows.append(
            f"<tr><td>{html.escape(str(name))}</td>{numbers}<td>{'' if row['reliable'] else 'not reliable'}</td></tr>"
        )
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in table.attrs.get("notes", ()))
    return f"<table>{''.join(rows)}</table>{notes}"
