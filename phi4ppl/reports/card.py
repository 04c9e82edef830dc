"""Results as notebooks show them: a title, the outcome, a short table, and warnings."""

from __future__ import annotations

import html

__all__ = ["card"]

COLORS = {True: "#117733", False: "#aa3300"}  # readable on light and on dark, and for the color-blind


def card(title: str, head: tuple = (), rows=(), *, good: bool | None = None, outcome: str = "", warnings=()) -> str:
    """HTML for ``_repr_html_``; everything is escaped.

    Parameters
    ----------
    title : str
    head : tuple of str
        Titles of the columns; none for a table without them.
    rows : iterable of tuples
        Cells of each row, as text.
    good : bool, optional
        Colors ``outcome``.
    outcome : str
        One line below the title.
    warnings : iterable of str

    Examples
    --------
    >>> card("log Z", rows=[("value", "<1.2(3)>")])
    "<div class='phi4ppl'><div><b>log Z</b></div><table><tr><td>value</td><td>&lt;1.2(3)&gt;</td></tr></table></div>"
    """
    parts = [f"<div><b>{html.escape(title)}</b></div>"]
    if outcome:
        color = f" style='color:{COLORS[good]}'" if good is not None else ""
        parts.append(f"<div{color}>{html.escape(outcome)}</div>")
    body = [_row("th", head)] if head else []
    body += [_row("td", row) for row in rows]
    if body:
        parts.append(f"<table>{''.join(body)}</table>")
    parts += [f"<div>⚠ {html.escape(text)}</div>" for text in warnings]
    return f"<div class='phi4ppl'>{''.join(parts)}</div>"


def _row(tag: str, cells) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"
