"""A lattice as a small inline picture for notebooks: sites as dots, edges as lines."""

from __future__ import annotations

import html

import numpy as np

__all__ = ["crosses_boundary", "lattice_html"]

MAX_SITES, MAX_EDGES = 256, 1500  # of a picture; of larger regular lattices a corner is drawn
CORNER = 8  # sites along each axis of that corner
SIZE, MARGIN = 150, 8  # in pixels


def lattice_html(lattice) -> str:
    """Name, sizes and picture, for ``_repr_html_`` of a lattice."""
    text = html.escape(repr(lattice))
    drawn, caption = _picture(lattice)
    below = f"<div style='font-size:smaller'>{html.escape(caption)}</div>" if caption else ""
    return f"<div class='phi4ppl'><div><b>{text}</b></div>{drawn}{below}</div>"


def crosses_boundary(at: np.ndarray, edges: np.ndarray, periodic) -> np.ndarray:
    """Which edges close a periodic boundary and would cross the picture; ``at`` are positions of the sites."""
    span = np.linalg.norm(at[edges[:, 0]] - at[edges[:, 1]], axis=1)
    if not len(span) or not periodic or not any(periodic):
        return np.zeros(len(span), bool)
    return span > 2.5 * np.median(span)


def _picture(lattice) -> tuple[str, str]:
    """The SVG and what to say below it; no SVG of a large graph, whose sites have no places of their own."""
    sites, edges, caption = np.arange(lattice.num_sites), lattice.edges, ""
    if len(sites) > MAX_SITES or len(edges) > MAX_EDGES:
        if lattice.shape is None or len(lattice.shape) < 2:
            return "", "too large to draw here; lattice.draw() draws it"
        grid = np.indices(lattice.shape).reshape(len(lattice.shape), -1)
        sites = np.flatnonzero((grid[:2] < CORNER).all(axis=0) & (grid[2:] == 0).all(axis=0))
        edges = edges[np.isin(edges, sites).all(axis=1)]
        caption = f"a corner of {' × '.join(str(min(n, CORNER)) for n in lattice.shape[:2])} sites"
    at = np.asarray(lattice.positions, float)
    wraps = crosses_boundary(at, edges, lattice.periodic)
    if wraps.any():
        caption = ", ".join(filter(None, [caption, "edges around the boundary not drawn"]))
    low, high = at[sites].min(axis=0), at[sites].max(axis=0)
    scale = (SIZE - 2 * MARGIN) / max(float((high - low).max()), 1e-9)
    x, y = ((at - low) * scale + MARGIN).T
    wide, tall = np.ceil((high - low) * scale + 2 * MARGIN).astype(int) if len(sites) > 1 else (2 * MARGIN, 2 * MARGIN)
    lines = "".join(f"M{x[i]:.1f} {y[i]:.1f}L{x[j]:.1f} {y[j]:.1f}" for i, j in edges[~wraps])
    radius = 3.0 if len(sites) <= 64 else 2.0
    dots = "".join(f"<circle cx='{x[i]:.1f}' cy='{y[i]:.1f}' r='{radius}'/>" for i in sites)
    label = html.escape(lattice.name, quote=True)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' role='img' aria-label='{label}' width='{wide}' height='{tall}'>"
        f"<path d='{lines}' stroke='#888888' stroke-width='1' fill='none'/><g fill='#0072B2'>{dots}</g></svg>"
    ), caption
