"""Pictures of fields that moved: snapshots with one color scale, and space and time in one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xarray as xr

from ..errors import ArgumentError
from ..errors.arguments import call_checked, positive_int
from ..lattice.frozen import Lattice
from ..reports.style import panels
from ..results.evolution_tree import GROUP
from ..results.settings import metadata

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Recorded", "plot", "recorded_field"]

LONG = 3  # sites from which on a one-dimensional lattice is a line


class Recorded(NamedTuple):
    """One replica of a tree of `evolve`.

    Attributes
    ----------
    fields : array
        Of shape ``(times, *field_shape)``.
    is_line : bool
        Whether the sites stand in a row.
    """

    fields: np.ndarray
    times: np.ndarray
    lattice: Lattice
    is_line: bool
    limits: tuple[float, float]
    cmap: str


def recorded_field(tree: xr.DataTree, replica: int = 0) -> Recorded:
    """The field in a tree of `evolve`, its lattice, and one color scale for all times.

    Raises
    ------
    ArgumentError
        If the tree is of another kind, or holds no real field.
    """
    facts = metadata(tree)
    if GROUP not in tree.children or "phi" not in tree[GROUP]:
        fix = "Call it with keep_field=True."
        raise ArgumentError("tree", "a tree of phi4ppl.dynamics.evolve with the field", "another one", fix)
    phi, there = tree[GROUP]["phi"], facts["lattice"]
    if not isinstance(replica, int) or not 0 <= replica < phi.sizes["replica"]:
        raise ArgumentError("replica", f"a number from 0 to {phi.sizes['replica'] - 1}", repr(replica), reason="choice")
    fields, constants = phi.values[replica], tree["constant_data"]
    if np.iscomplexobj(fields):
        fields = fields.real
    shape = None if there["shape"] is None else tuple(there["shape"])
    edges = constants["edges"].values if "edges" in constants else np.zeros((0, 2), int)
    lattice = Lattice(
        name=there["name"], num_sites=there["num_sites"], edges=edges, shape=shape,
        periodic=None if there["periodic"] is None else tuple(there["periodic"]),
        positions=constants["positions"].values if "positions" in constants else None,
    )  # fmt: skip
    low, high = float(fields.min()), float(fields.max())
    both = low < 0 < high and min(-low, high) > 0.05 * max(-low, high)
    limits = (-max(-low, high), max(-low, high)) if both else (low, high if high > low else low + 1)
    is_line = shape is not None and len(shape) == 1 and shape[0] >= LONG
    return Recorded(fields, tree[GROUP]["time"].values, lattice, is_line, limits, "RdBu_r" if both else "viridis")


@call_checked
def plot(tree: xr.DataTree, *, snapshots: int = 6, replica: int = 0) -> Figure:
    """Draw what `evolve` recorded of one replica.

    Parameters
    ----------
    tree : xarray.DataTree
        Of `evolve`, with the field.
    snapshots : int, default 6
        Fields to show of a lattice that is not one-dimensional, evenly spaced in time, with one color scale. Graphs are drawn
        on their positions. A one-dimensional field is shown whole: space to the right, time upward.
    replica : int, default 0

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> process = p4.dynamics.Diffusion(p4.lattice.chain(20))
    >>> figure = p4.dynamics.plot(p4.dynamics.evolve(process, np.eye(20)[10], time=10, every=1))
    >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
    ('site', 'time')
    """
    shown = recorded_field(tree, replica)
    low, high = shown.limits
    if shown.is_line:
        figure, axes = panels(1, width=5.0, height=3.6, columns=1)
        half = (shown.times[-1] - shown.times[0]) / max(1, len(shown.times) - 1) / 2 or 0.5
        extent = (-0.5, shown.fields.shape[1] - 0.5, shown.times[0] - half, shown.times[-1] + half)
        style = {"aspect": "auto", "origin": "lower", "interpolation": "nearest", "cmap": shown.cmap}
        colors = axes[0].imshow(shown.fields, extent=extent, vmin=low, vmax=high, **style)
        axes[0].set(xlabel="site", ylabel="time")
        figure.colorbar(colors, ax=axes[0], label="φ")
        return figure
    number = min(positive_int("snapshots", snapshots), len(shown.times))
    chosen = np.linspace(0, len(shown.times) - 1, number).round().astype(int)
    figure, axes = panels(number, width=2.4, height=2.5, columns=min(number, 6))
    for ax, k in zip(axes, chosen, strict=True):
        shown.lattice.draw(shown.fields[k], ax=ax, vmin=low, vmax=high, cmap=shown.cmap, colorbar=False)
        ax.set(title=f"t = {shown.times[k]:.4g}", xlabel="")
        ax.set_axis_off()
    colors = axes[-1].collections[-1]
    figure.colorbar(colors, ax=list(axes), shrink=0.8, label="φ")
    return figure
