"""Pictures of a run, as PNG bytes."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import arviz_plots
import matplotlib
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ..lattice.frozen import Lattice
from ..reports.html import png_of
from .contents import element_names, facts_of, scalar_names, series, spacing, statistics_of

__all__ = ["figures"]

MAX_VARIABLES = 6
MAX_LAG = 100
MAX_RANKED = 500  # draws of a chain whose ranks are drawn: the band is simulated, at a cost that grows with them
BAND = {"ecdf_pit": {"n_simulations": 200}}  # its probability is then right within 0.02
TITLES = {
    "trace": "Trace: chains should overlap and move up and down many times",
    "rank": "Ranks, difference of their distribution from uniform: chains that agree stay inside the band",
    "autocorrelation": "Autocorrelation: should fall into the grey band quickly",
    "energy": "Energy: the two distributions should have the same width",
    "graph": "The graph",
    "fields": "Last fields of the chains",
}


def figures(tree: xr.DataTree) -> dict[str, tuple[str, bytes]]:
    """Title and PNG of every picture that can be made of the run, by name."""
    facts, statistics = facts_of(tree), statistics_of(tree)
    shown = _shown(tree, facts)
    names, drawn = list(shown.data_vars), xr.DataTree(children={"posterior": xr.DataTree(shown)})
    pictures = {}
    with matplotlib.rc_context({"figure.max_open_warning": 0}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # layout advice of plotting libraries is not for readers of a report
        if names:
            grid = {"col_wrap": 3, "figure_kwargs": {"figsize": (10.5, 3.0 * ((len(names) + 2) // 3))}}
            pictures["trace"] = _arviz(arviz_plots.plot_trace, drawn, var_names=names, **grid)
            spread_out = slice(None, None, -(-shown.sizes["draw"] // MAX_RANKED))
            ranked = xr.DataTree(children={"posterior": xr.DataTree(shown.isel(draw=spread_out))})
            pictures["rank"] = _arviz(arviz_plots.plot_rank, ranked, var_names=names, stats=BAND, **grid)
            lags = min(MAX_LAG, shown.sizes["draw"] // 2)
            lagged = xr.DataTree(
                children={"posterior": xr.DataTree(shown.drop_vars("draw", errors="ignore"))}
            )  # lags from 0
            pictures["autocorrelation"] = _arviz(arviz_plots.plot_autocorr, lagged, var_names=names[:2], max_lag=lags)
        if "energy" in statistics:  # of kernels with momenta
            pictures["energy"] = _arviz(arviz_plots.plot_energy, tree)
        for name, field in facts["fields"].items():
            suffix = "" if len(facts["fields"]) == 1 else f"_{name}"
            lattice = _lattice(tree, field, suffix)
            if lattice is not None:
                pictures["graph" + suffix] = _graph(lattice)
            if name in tree["posterior"].data_vars:
                pictures["fields" + suffix] = _fields(series(tree, name), lattice)
    titles = dict(TITLES)
    if (iterations := spacing(tree, facts)) is None:
        titles["autocorrelation"] += "; draws are not all the same number of iterations apart"
    elif iterations > 1:
        titles["autocorrelation"] += f"; a lag of one is {iterations} iterations"
    return {key: (titles[key.split("_")[0]], png) for key, png in pictures.items()}


def _shown(tree: xr.DataTree, facts: dict) -> xr.Dataset:
    """The series that are drawn, by name: scalars that move first, then elements of arrays by their labels."""
    posterior, chosen = tree["posterior"].to_dataset(), {}
    names = scalar_names(tree, facts)
    for name in sorted(names, key=lambda n: (n != "magnetization", posterior[n].ndim > 2)):
        variable, values = posterior[name].transpose("chain", "draw", ...), series(tree, name)
        for element, label in zip(np.ndindex(values.shape[2:]), element_names(variable), strict=True):
            if len(chosen) < MAX_VARIABLES and values[(..., *element)].std() > 0:
                place = dict(zip(variable.dims[2:], element, strict=True))
                # a name with / would be a path
                chosen[label.replace("/", "∕")] = variable.isel(place, drop=True) if element else variable
    return xr.Dataset(chosen)


def _arviz(plot, tree, **options) -> bytes:
    import matplotlib.pyplot as plt

    collection = plot(tree, backend="matplotlib", **options)
    plt.gcf().set_layout_engine("constrained")  # titles of one row must not meet the labels of the row above
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figure.png"
        collection.savefig(path, dpi=90)
        plt.close("all")
        return path.read_bytes()


def _lattice(tree: xr.DataTree, facts: dict, suffix: str) -> Lattice | None:
    """The graph of a field, rebuilt from the stored edges and positions; None if it was too large to be drawn."""
    if "constant_data" not in tree.children:
        return None
    constant = tree["constant_data"]
    if "positions" + suffix not in constant.data_vars:
        return None
    edges = constant["edges" + suffix].values if "edges" + suffix in constant.data_vars else np.zeros((0, 2))
    return Lattice(
        name=facts["lattice"], num_sites=facts["num_sites"], edges=edges, shape=facts["shape"] and tuple(facts["shape"]),
        periodic=facts["periodic"] and tuple(facts["periodic"]), positions=constant["positions" + suffix].values,
    )  # fmt: skip


def _graph(lattice: Lattice) -> bytes:
    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    lattice.draw(ax=figure.subplots())
    return png_of(figure)


def _fields(fields: np.ndarray, lattice: Lattice | None) -> bytes:
    """Last field of up to four chains, as images, lines, or coloured sites."""
    last = fields[:4, -1]
    limit = float(np.abs(last).max()) or 1.0
    figure = Figure(figsize=(3.2 * len(last), 3.1), layout="constrained")
    all_axes = np.atleast_1d(figure.subplots(1, len(last)))
    for chain, (axes, phi) in enumerate(zip(all_axes, last, strict=True)):
        title = f"chain {chain}"
        if phi.ndim == 1 and lattice is not None and lattice.shape is None:
            lattice.draw(phi, ax=axes)
        elif phi.ndim == 1:
            axes.plot(phi, ".-", lw=0.8)
            axes.set(xlabel="site", ylim=(-1.05 * limit, 1.05 * limit))
        else:
            while phi.ndim > 2:
                title, phi = f"chain {chain}, middle slice", phi[..., phi.shape[-1] // 2]
            image = axes.imshow(phi.T, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit)
            axes.set(xlabel="x", ylabel="y")
        axes.set_title(title, fontsize=9)
    if last.ndim > 2:
        figure.colorbar(image, ax=list(all_axes), shrink=0.8, label="φ")
    return png_of(figure)
