"""Lattices as matplotlib draws them: sites and edges of graphs, and the cells of regular lattices in two dimensions."""

from __future__ import annotations

import numpy as np

__all__ = ["draw_lattice"]

WIDTHS = (1.0, 0.5, 0.4, 0.3)  # of edges, by the number of their kind
FAR = 2.5  # median lengths of an edge beyond which it goes around a periodic boundary


def draw_lattice(lattice, field, ax, limits: tuple, cmap: str, colorbar: bool):
    """What `Lattice.draw` does, for a field that has been checked."""
    import matplotlib.pyplot as plt  # only figures need it

    if ax is None:
        ax = plt.subplots(figsize=(4, 4), layout="constrained")[1]
    values = None if field is None else np.ravel(np.asarray(field, float))
    if values is not None and lattice.shape is not None and len(lattice.shape) == 2:
        colors, hidden = _cells(lattice, values, ax), 0
    elif values is not None and lattice.outlines is not None:
        colors, hidden = _areas(lattice, values, ax), 0
    else:
        hidden = _edges(lattice, ax)
        colors = _sites(lattice, values, ax)
    if values is not None:
        largest = np.abs(values[np.isfinite(values)]).max(initial=0) or 1.0
        colors.set(
            cmap=cmap,
            clim=tuple(default if v is None else v for v, default in zip(limits, (-largest, largest), strict=True)),
        )
        if colorbar:
            ax.figure.colorbar(colors, ax=ax, shrink=0.7, label="φ")
    free = lattice.shape is None and lattice.outlines is None
    ax.set(aspect="auto" if free else "equal", xticks=[], yticks=[])
    ax.set_title(lattice.name, fontsize=9, wrap=True)
    if hidden:
        ax.set_xlabel(f"{hidden} edges around the boundary are not drawn", fontsize=7)
    return ax


def _edges(lattice, ax) -> int:
    """Draw the edges, and return the number of those that are left out, which go around the boundary."""
    at, kinds = lattice.positions, lattice._edge_kinds
    span = np.linalg.norm(at[lattice.edges[:, 0]] - at[lattice.edges[:, 1]], axis=1)
    wraps = np.zeros(len(span), bool)
    if lattice.periodic and any(lattice.periodic) and len(span):
        wraps = span > FAR * np.median(span)
    for kind in range(len(lattice.kinds)):
        segments = at[lattice.edges[(kinds == kind) & ~wraps]]
        line = np.insert(segments, 2, np.nan, axis=1).reshape(-1, 2).T
        ax.plot(*line, color="0.6", lw=WIDTHS[min(kind, len(WIDTHS) - 1)], zorder=1)
    return int(wraps.sum())


def _sites(lattice, values, ax):
    size = float(np.clip(4000 / lattice.num_sites, 4, 120))
    colors = {"color": "0.85"} if values is None else {"c": values}
    return ax.scatter(*lattice.positions.T, s=size, edgecolors="0.2", linewidths=0.4, zorder=2, **colors)


def _areas(lattice, values, ax):
    """A choropleth: the outlines of every area filled, with their holes."""
    from matplotlib.collections import PathCollection
    from matplotlib.path import Path

    corners, site, ring = lattice.outlines[:, :2], lattice.outlines[:, 2].astype(int), lattice.outlines[:, 3]
    starts = np.flatnonzero(np.r_[True, (np.diff(site) != 0) | (np.diff(ring) != 0)])
    parts: list[list] = [[] for _ in range(lattice.num_sites)]
    for first, last in zip(starts, np.r_[starts[1:], len(site)], strict=True):
        parts[site[first]].append(Path(np.vstack([corners[first:last], corners[first]]), closed=True))
    paths = [Path.make_compound_path(*outlines) for outlines in parts]
    areas = PathCollection(paths, array=values, linewidths=0.4, edgecolors="0.35")
    ax.add_collection(areas)
    ax.autoscale_view()
    ax.axis("off")
    return areas


def _cells(lattice, values, ax):
    """The points nearer to each site than to any other, filled: squares, or the hexagons of the triangular lattice."""
    from matplotlib.collections import PolyCollection

    at = lattice.positions
    corners = _corners(at.reshape(*lattice.shape, 2))
    if corners is None:
        (nx, ny), (x, y) = lattice.shape, at[0]
        return ax.pcolormesh(x - 0.5 + np.arange(nx + 1), y - 0.5 + np.arange(ny + 1), values.reshape(nx, ny).T)
    cells = PolyCollection(at[:, None] + corners, array=values, linewidths=0.2, edgecolors="face")
    ax.add_collection(cells)
    ax.autoscale_view()
    ax.axis("off")
    return cells


def _corners(grid) -> np.ndarray | None:
    """Corners of the cell around the origin for basis vectors e₁, e₂ at an angle of 120°; None where they are at 90°."""
    nx, ny = grid.shape[:2]
    if nx < 2 or ny < 2 or abs((grid[1, 0] - grid[0, 0]) @ (grid[0, 1] - grid[0, 0])) < 1e-9:
        return None
    angle = np.pi / 6 + np.pi / 3 * np.arange(6)  # neighbors at distance 1 in the directions 0°, 60°, …
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) / np.sqrt(3)
