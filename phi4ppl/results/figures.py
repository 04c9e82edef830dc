"""Pictures of a run, as PNG panels."""

from __future__ import annotations

import warnings

import numpy as np
import xarray as xr

from ..analysis.gamma_method import normalized_autocorrelation
from ..lattice.frozen import Lattice
from ..reports.html import Picture, png_of
from ..reports.style import GRAY, LINE_STYLES, OKABE_ITO, panels
from .contents import element_names, facts_of, scalar_names, series, spacing, statistics_of
from .maps import field_map, height_for, site_maps
from .ranks import rank_band, rank_differences

__all__ = ["SYMBOLS", "figures"]

MAX_VARIABLES = 6
MAX_LAG = 100
MAX_RANKED = 500  # draws of a chain whose ranks are drawn, evenly spaced
MAX_BINS = 60  # of a trace: as many points a chain as the eye can follow
MAX_CHAINS = 8  # that are drawn one by one
FIRST = ("abs_magnetization", "energy_density", "magnetization")
SYMBOLS = {  # means over draws; the same without brackets are the values of single fields
    "magnetization": "⟨m⟩",
    "abs_magnetization": "⟨|m|⟩",
    "energy_density": "⟨S⟩/V",
    "phi_squared": "⟨φ²⟩",
    "phi_fourth": "⟨φ⁴⟩",
    "neighbor_correlation": "⟨φφ′⟩",
}
TITLES = {
    "trace": "Trace: blocks of draws, their means (lines) and range (shades); chains should overlap and move up and down often",
    "rank": "Ranks, difference of their distribution from uniform: chains that agree stay inside the band",
    "autocorrelation": "Autocorrelation ρ(t) with its error: should fall to zero quickly",
    "energy": "Energy: the two distributions should have the same width",
    "graph": "The graph",
    "fields": "The field: mean over all draws and last draw of each chain, in one scale of colors; standard deviation",
}


def figures(tree: xr.DataTree) -> dict[str, Picture]:
    """Every picture that can be made of the run, by name."""
    facts, statistics = facts_of(tree), statistics_of(tree)
    shown = _shown(tree, facts)
    names, made = list(shown.data_vars), {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # layout advice of plotting libraries is not for readers of a report
        made |= _maps(tree, facts)
        if names:
            made["trace"] = [_trace(shown[name], name) for name in names]
            made["autocorrelation"] = _autocorrelations(shown)
            if shown.sizes["chain"] > 1:
                made["rank"] = [_rank(shown[name], name) for name in names]
        if "energy" in statistics:  # of kernels with momenta
            made["energy"] = [_energy(statistics["energy"])]
        made |= _graphs(tree, facts)
    titles = dict(TITLES)
    if (iterations := spacing(tree, facts)) is None:
        titles["autocorrelation"] += "; draws are not all the same number of iterations apart"
    elif iterations > 1:
        titles["autocorrelation"] += f"; a lag of one is {iterations} iterations"
    return {
        key: found if isinstance(found, Picture) else Picture(titles[key.partition("_")[0]], tuple(found))
        for key, found in made.items() if found
    }  # fmt: skip


def _shown(tree: xr.DataTree, facts: dict) -> xr.Dataset:
    """The series that are drawn, by name: scalars that move first, then elements of arrays by their labels."""
    posterior, chosen = tree["posterior"].to_dataset(), {}
    names = scalar_names(tree, facts)
    order = {name: k for k, name in enumerate(FIRST)}
    for name in sorted(names, key=lambda n: (posterior[n].ndim > 2, order.get(n, len(order)))):
        variable, values = posterior[name].transpose("chain", "draw", ...), series(tree, name)
        for element, label in zip(np.ndindex(values.shape[2:]), element_names(variable), strict=True):
            if len(chosen) < MAX_VARIABLES and values[(..., *element)].std() > 0:
                place = dict(zip(variable.dims[2:], element, strict=True))
                # a name with / would be a path
                chosen[label.replace("/", "∕")] = variable.isel(place, drop=True) if element else variable
    return xr.Dataset(chosen)


def _label(name: str) -> str:
    """What is drawn of single draws, as it stands on an axis; names of variables are no formulas of matplotlib."""
    symbol = SYMBOLS.get(name, name).replace("⟨", "").replace("⟩", "")
    return symbol.replace("$", r"\$")


def _trace(variable: xr.DataArray, name: str) -> bytes:
    """Blocks of draws of every chain: mean and range; beside them the distribution of each chain."""
    values = variable.transpose("chain", "draw").values[:MAX_CHAINS].astype(float)
    figure, (axes, side) = panels(2, width=2.1, height=2.4)
    axes.get_gridspec().set_width_ratios([3.2, 1])
    edges = np.unique(np.linspace(0, values.shape[1], min(MAX_BINS, max(2, values.shape[1] // 4)) + 1).astype(int))
    draws = 0.5 * (edges[:-1] + edges[1:] - 1)
    finite = values[np.isfinite(values)]
    bins = np.linspace(finite.min(), finite.max(), 31)
    for chain, row in enumerate(values):
        color, style = OKABE_ITO[chain % len(OKABE_ITO)], LINE_STYLES[chain % len(LINE_STYLES)]
        blocks = [row[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)]
        low, mean, high = ([function(block) for block in blocks] for function in (np.min, np.mean, np.max))
        axes.fill_between(draws, low, high, color=color, alpha=0.08, lw=0)
        axes.plot(draws, mean, color=color, ls=style, lw=1.2, label=f"chain {chain}")
        side.hist(row, bins=bins, orientation="horizontal", histtype="step", color=color, ls=style, lw=1.0)
    axes.set_xlabel("draw", fontsize=8)
    axes.set_ylabel(_label(name), fontsize=9)
    side.set(xticks=[], yticks=[], ylim=axes.get_ylim())
    side.spines[["bottom", "left"]].set_visible(False)
    _legend_above(figure, axes)
    return png_of(figure)


def _autocorrelations(shown: xr.Dataset) -> list[bytes]:
    """ρ(t) of the first variables, over all chains."""
    longest, names = min(MAX_LAG, shown.sizes["draw"] // 2 - 1), list(shown.data_vars)
    if FIRST[0] in names:  # the sign of m may change in every draw, which says nothing
        names = [name for name in names if name != "magnetization"]
    return [_autocorrelation(shown[name], name, longest) for name in names[:3] if longest >= 1]


def _autocorrelation(variable: xr.DataArray, name: str, longest: int) -> bytes:
    values = variable.transpose("chain", "draw").values.astype(float)
    rho, error = normalized_autocorrelation(np.where(np.isfinite(values), values, 0), longest)
    gone = np.flatnonzero(rho <= error)  # three times as far as the first lag at which nothing is left
    lags = np.arange(min(longest, max(10, 3 * int(gone[0]) if len(gone) else longest)) + 1)
    figure, (axes,) = panels(1, width=4.2, height=2.4)
    axes.axhline(0, color=GRAY, lw=0.8)
    axes.errorbar(lags, rho[lags], error[lags], fmt=".-", ms=4, lw=0.9, elinewidth=0.7, color=OKABE_ITO[0])
    axes.set_xlabel("lag t", fontsize=8)
    axes.locator_params(axis="x", integer=True)
    axes.set_ylabel(f"ρ(t) of {_label(name)}", fontsize=9)
    axes.set_ylim(min(-0.1, 1.1 * float(np.nanmin(rho[lags]))), 1.05)
    return png_of(figure)


def _rank(variable: xr.DataArray, name: str) -> bytes:
    values = variable.transpose("chain", "draw").values
    values = values[:, :: -(-values.shape[1] // MAX_RANKED)]
    z, differences = rank_differences(values)
    figure, (axes,) = panels(1, width=4.2, height=2.4)
    axes.fill_between(z, *rank_band(*values.shape), color="0.9", lw=0, label="99 % band")
    axes.axhline(0, color=GRAY, lw=0.6)
    for chain, difference in enumerate(differences[:MAX_CHAINS]):
        color, style = OKABE_ITO[chain % len(OKABE_ITO)], LINE_STYLES[chain % len(LINE_STYLES)]
        axes.plot(z, difference, color=color, ls=style, lw=1.1, label=f"chain {chain}")
    axes.set_xlabel(f"rank of {_label(name)} among the draws of all chains", fontsize=8)
    axes.set_ylabel("share of draws below, less the rank", fontsize=7)
    _legend_above(figure, axes)
    return png_of(figure)


def _energy(energy: xr.DataArray) -> bytes:
    """Energies about their mean, and their changes between draws, which should reach as far."""
    values = energy.transpose("chain", "draw").values.astype(float)
    series = {"energy about its mean": values - values.mean(), "change between two draws": np.diff(values, axis=1)}
    bins = np.histogram_bin_edges(np.concatenate([v.ravel() for v in series.values()]), 60)
    figure, (axes,) = panels(1, width=4.2, height=2.4)
    for k, (label, part) in enumerate(series.items()):
        line = {"color": OKABE_ITO[k], "ls": LINE_STYLES[k], "lw": 1.3, "histtype": "step"}
        axes.hist(part.ravel(), bins=bins, density=True, label=label, **line)
    axes.set(yticks=[])
    axes.set_xlabel("energy", fontsize=8)
    axes.set_ylabel("density", fontsize=8)
    _legend_above(figure, axes)
    return png_of(figure)


def _legend_above(figure, axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, fontsize=7, frameon=False)


def _lattices(tree: xr.DataTree, facts: dict) -> dict[str, Lattice | None]:
    """The graphs of the fields, rebuilt from stored edges and positions; None for one that was too large to be drawn."""
    found: dict[str, Lattice | None] = {}
    constant = tree["constant_data"] if "constant_data" in tree.children else xr.Dataset()
    for name, field in facts["fields"].items():
        suffix = "" if len(facts["fields"]) == 1 else f"_{name}"
        if "positions" + suffix not in constant.data_vars:
            found[name] = None
            continue
        edges = constant["edges" + suffix].values if "edges" + suffix in constant.data_vars else np.zeros((0, 2))
        found[name] = Lattice(
            name=field["lattice"], num_sites=field["num_sites"], edges=edges,
            shape=field["shape"] and tuple(field["shape"]), periodic=field["periodic"] and tuple(field["periodic"]),
            positions=constant["positions" + suffix].values,
            outlines=constant["outlines" + suffix].values if "outlines" + suffix in constant.data_vars else None,
        )  # fmt: skip
    return found


def _graphs(tree: xr.DataTree, facts: dict) -> dict[str, list[bytes]]:
    made = {}
    for name, lattice in _lattices(tree, facts).items():
        if lattice is not None:
            figure, (axes,) = panels(1, width=4.2, height=height_for(lattice, 4.2))
            lattice.draw(ax=axes)
            axes.axis("off")
            made["graph" if len(facts["fields"]) == 1 else f"graph_{name}"] = [png_of(figure)]
    return made


def _maps(tree: xr.DataTree, facts: dict) -> dict[str, Picture]:
    """Fields, and other variables with one element a site of the only graph there is."""
    made, lattices = {}, _lattices(tree, facts)
    for name, lattice in lattices.items():
        if name in tree["posterior"].data_vars:
            key = "fields" if len(lattices) == 1 else f"fields_{name}"
            made[key] = field_map(TITLES["fields"], series(tree, name), lattice)
    drawn = [lattice for lattice in lattices.values() if lattice is not None]
    if len(drawn) == 1:
        others = [name for name in scalar_names(tree, facts) if name not in lattices]
        values = {name: series(tree, name) for name in others}
        values = {name: v for name, v in values.items() if v.ndim == 3 and v.shape[2] == drawn[0].num_sites > 1}
        made |= {f"map_{name}": site_maps(f"{name}: mean and standard deviation at the sites of {drawn[0].name}", v, drawn[0])
                 for name, v in list(values.items())[:MAX_VARIABLES]}  # fmt: skip
    return made
