"""Maps of fields: mean and standard deviation over the draws, and single draws, on the lattice as it is."""

from __future__ import annotations

import numpy as np

from ..lattice.frozen import Lattice
from ..lattice.regular import square
from ..reports.html import Picture, png_of
from ..reports.style import DIVERGING, GRAY, LINE_STYLES, OKABE_ITO, SEQUENTIAL, panels

__all__ = ["field_map", "height_for", "single_fields", "site_maps"]

MAX_DRAWS = 4  # chains of which a draw is shown
SIZE = 2.9  # of a map, in inches
TITLE = 0.25  # room above a map


def field_map(caption: str, values: np.ndarray, lattice: Lattice | None) -> Picture:
    """Mean, standard deviation and the last draw of every chain of a field with values of shape (chain, draw, *lattice)."""
    mean, spread, last = values.mean(axis=(0, 1)), values.std(axis=(0, 1)), values[:MAX_DRAWS, -1]
    if mean.ndim == 1 and (lattice is None or lattice.shape is not None):
        return Picture(caption, (_lines(mean, spread, last),))
    note = ""
    if mean.ndim > 2:
        middle = tuple(n // 2 for n in mean.shape[2:])
        note = f" (slice at {', '.join(map(str, middle))} along the other axes)"
        mean, spread, last = (v[(..., *middle)] for v in (mean, spread, last))
    if lattice is None or mean.ndim != len(lattice.shape or (1,)):
        lattice = square(*mean.shape, periodic=False)
    return _on_lattice(caption + note, lattice, mean, spread, last)


def site_maps(caption: str, values: np.ndarray, lattice: Lattice) -> Picture:
    """Mean and standard deviation of values of shape (chain, draw, site)."""
    return _on_lattice(caption, lattice, values.mean(axis=(0, 1)), values.std(axis=(0, 1)), [])


def single_fields(caption: str, label: str, fields: list[tuple[str, np.ndarray, Lattice]]) -> Picture:
    """Fields of lattices of one dimension beside each other, each with its title, in the same colors.

    Of more than two dimensions the middle plane of the others is shown, and of one dimension a row of sites.
    """
    shown, note = [], ""
    for title, phi, lattice in fields:
        if phi.ndim > 2:
            phi, note = phi[(..., *(n // 2 for n in phi.shape[2:]))], " (the middle plane of the other axes)"
        if phi.ndim != len(lattice.shape or (1,)):
            lattice = square(*phi.shape, periodic=False)
        shown.append((title, phi, lattice))
    limit = max(float(np.max(np.abs(phi))) for _, phi, _ in shown) or 1.0
    scale = {"vmin": -limit, "vmax": limit, "cmap": DIVERGING}
    made = tuple(_map(lattice, title, phi, scale, None) for title, phi, lattice in shown)
    return Picture(caption + note, made, _bar(label, scale))


def _on_lattice(caption, lattice, mean, spread, draws) -> Picture:
    everything = np.concatenate([np.ravel(v) for v in (mean, *draws)])
    largest, smallest = float(np.nanmax(everything)), float(np.nanmin(everything))
    scale = {"vmin": smallest, "vmax": largest, "cmap": SEQUENTIAL}
    if smallest < 0:
        limit = max(largest, -smallest)
        scale = {"vmin": -limit, "vmax": limit, "cmap": DIVERGING}
    bar = {"vmin": 0.0, "vmax": float(np.nanmax(spread)) or 1.0, "cmap": SEQUENTIAL}
    shown = [("mean", mean, scale), ("standard deviation", spread, bar)]
    shown += [(f"chain {chain}, last draw", phi, scale) for chain, phi in enumerate(draws)]
    shared = len(draws) > 0
    made = tuple(_map(lattice, title, field, options, options is bar or not shared) for title, field, options in shown)
    return Picture(caption, made, _bar("mean and draws", scale) if shared else None)


def _map(lattice, title, field, scale, own: bool | None) -> bytes:
    """One map; ``own``: with a color bar of its own below it, or only with the room of one; None for neither."""
    figure, (axes,) = panels(1, width=SIZE, height=height_for(lattice, SIZE) + (0.2 if own is None else 0.35))
    lattice.draw(field, ax=axes, colorbar=False, **scale)
    axes.set_title(title, fontsize=9)
    axes.axis("off")
    if own is None:
        return png_of(figure)
    bar = figure.colorbar(axes.collections[-1], ax=axes, location="bottom", shrink=0.8, aspect=30, pad=0.02)
    bar.ax.tick_params(labelsize=7)
    if not own:
        bar.ax.set_visible(False)
    return png_of(figure)


def height_for(lattice: Lattice, width: float) -> float:
    """Height of a figure of this width that a regular lattice or a map of areas fills; other graphs fill a square one."""
    if lattice.outlines is not None:
        across, up = np.ptp(lattice.outlines[:, :2], axis=0)
        return width * float(np.clip(up / max(across, 1e-300), 0.25, 2.0)) + TITLE
    across, up = np.ptp(lattice.positions, axis=0) + 1
    return width * float(np.clip(up / across, 0.25, 2.0)) if lattice.shape is not None else width


def _bar(label: str, scale: dict) -> bytes:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 0.55), layout="constrained")
    colors = ScalarMappable(Normalize(scale["vmin"], scale["vmax"]), scale["cmap"])
    bar = figure.colorbar(colors, cax=figure.subplots(), orientation="horizontal")
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return png_of(figure)


def _lines(mean, spread, draws) -> bytes:
    """A field along a line: mean with a band of one standard deviation, and draws."""
    figure, (axes,) = panels(1, width=6.4, height=2.8)
    sites = np.arange(len(mean))
    for chain, phi in enumerate(draws):
        color = OKABE_ITO[chain % len(OKABE_ITO)]
        axes.plot(sites, phi, color=color, ls=LINE_STYLES[chain % 4], lw=0.8, label=f"chain {chain}, last draw")
    axes.fill_between(
        sites, mean - spread, mean + spread, color=GRAY, alpha=0.3, lw=0, label="mean ± standard deviation"
    )
    axes.plot(sites, mean, color="black", lw=1.6)
    axes.set_xlabel("site", fontsize=8)
    axes.set_ylabel("φ", fontsize=9)
    axes.legend(fontsize=7, ncols=3, frameon=False)
    return png_of(figure)
