"""Self-contained HTML pages: templates with autoescape, and what is put into them.

The pages are the templates in ``templates/``. Every text reaches them as it is and is escaped there, so that the name of a
model, a variable or a site can hold any character.
"""

from __future__ import annotations

import base64
import functools
import io
from pathlib import Path
from typing import NamedTuple

from ..errors.arguments import path_of, writing

__all__ = ["Fact", "Picture", "Row", "Table", "facts_table", "png_of", "render", "write_page"]

DPI, CSS_DPI = 144, 96  # pixels an inch of a figure, and of the page: sharp on small screens, and small files


class Row(NamedTuple):
    """Cells of one row of a table; ``kind`` is its CSS class, and ``note`` stands below it."""

    cells: tuple[str, ...]
    kind: str = ""
    note: str = ""


class Table(NamedTuple):
    """Head and rows of a table: the first ``texts`` columns are words, all others numbers."""

    head: tuple[str, ...]
    rows: list[Row]
    texts: int = 1


class Fact(NamedTuple):
    """A number that matters: its name, its value, and a remark in small print."""

    name: str
    value: str
    remark: str = ""


class Picture(NamedTuple):
    """A caption and PNG panels, each of which a narrow screen shows below the one before; ``bar`` serves all of them."""

    caption: str
    panels: tuple[bytes, ...]
    bar: bytes | None = None


def png_of(figure) -> bytes:
    """A matplotlib figure as it stands in a report."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def facts_table(facts: dict) -> Table:
    """Names beside values."""
    return Table((), [Row((str(name), str(value))) for name, value in facts.items()], texts=2)


def render(template: str, content: dict) -> str:
    """The page of ``templates/TEMPLATE.html.j2`` with its content."""
    return _environment().get_template(f"{template}.html.j2").render(content)


def write_page(path, template: str, content: dict) -> Path:
    """Write a page to ``path``.

    Raises
    ------
    ArgumentError
        If ``path`` cannot be written.
    """
    path, text = path_of("path", path), render(template, content)
    with writing("path", path):
        path.write_text(text, encoding="utf-8")
    return path


@functools.cache
def _environment():
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("phi4ppl.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["width"] = lambda png: int.from_bytes(png[16:20], "big") * CSS_DPI // DPI  # as the PNG says
    environment.filters["data"] = lambda png: f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return environment
