"""Pieces of a self-contained HTML page, and the page."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

from matplotlib.figure import Figure

from ..errors import path_of, writing

__all__ = [
    "advice", "checks_table", "estimates_table", "numbers", "page", "picture", "png_of", "rows_table", "verdict_line",
    "write_page",
]  # fmt: skip

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


def page(title: str, parts: list[str]) -> str:
    """One self-contained page from pieces of HTML."""
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{html.escape(title)}</title>"
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )


def write_page(path, title: str, parts: list[str]) -> Path:
    path = path_of("path", path)
    with writing("path", path):
        path.write_text(page(title, parts), encoding="utf-8")
    return path


def verdict_line(good: bool | None, text: str) -> str:
    """The outcome in one line: green, red, or, where there is no decision (None), neither."""
    kind = {True: "passed", False: "failed", None: "undecided"}[good]
    return f"<p class='verdict {kind}'>{html.escape(text)}</p>"


def advice(text: str) -> str:
    """A note below the outcome."""
    return f"<p class='advice'>{html.escape(text)}</p>"


def numbers(*values: str) -> str:
    """Cells of numbers."""
    return "".join(f"<td class='number'>{value}</td>" for value in values)


def png_of(figure: Figure) -> bytes:
    """A matplotlib figure as it stands in a report."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()


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
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in table.attrs.get("warnings", ()))
    return f"<table>{''.join(rows)}</table>{notes}"
