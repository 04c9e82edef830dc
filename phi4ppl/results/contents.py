"""The contents of a tree: its draws, the names of their elements, and their provenance if this library made it."""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..errors import ArgumentError
from .datatree import draws_digest
from .settings import metadata

__all__ = ["element_names", "facts_of", "holds_run", "scalar_names", "series", "spacing", "statistics_of"]

MAX_ELEMENTS = 500  # of a variable that is shown by default
FOREIGN = {"fields": {}, "checks": {}, "settings": {"thinning": 1, "even": False, "layout": "numpyro"}}


def facts_of(tree) -> dict:
    """The provenance of a run; of a tree that something else made, only what the checks need.

    Raises
    ------
    ArgumentError
        If there are no draws with dimensions chain and draw.
    """
    sizes = tree["posterior"].sizes if isinstance(tree, xr.DataTree) and "posterior" in tree.children else {}
    if not {"chain", "draw"} <= set(sizes):
        got = type(tree).__name__ if not isinstance(tree, xr.DataTree) else "one without a group posterior"
        got = f"a posterior with dimensions {', '.join(map(str, sizes)) or 'none'}" if sizes else got
        selected = "Select chains with a list, tree.sel(chain=[0]), so that the dimension stays."
        fix = selected if sizes else "Pass the result of phi4ppl.sample."
        raise ArgumentError("tree", "a DataTree with a group posterior of dimensions chain and draw", got, fix)
    return metadata(tree) if "phi4ppl" in tree.attrs else FOREIGN


def statistics_of(tree: xr.DataTree) -> xr.Dataset:
    """The sample statistics, one value per draw; empty if there are none."""
    if "sample_stats" not in tree.children:
        return xr.Dataset()
    statistics = tree["sample_stats"].to_dataset()
    return statistics[[name for name, v in statistics.data_vars.items() if {"chain", "draw"} <= set(v.dims)]]


def holds_run(tree: xr.DataTree, facts: dict) -> bool:
    """Whether the draws are those of the run that ``facts`` describes: all of them, in order, and no others."""
    statistics, settings = statistics_of(tree), facts["settings"]
    sizes = tree["posterior"].sizes
    if any(statistics.sizes.get(dim, sizes[dim]) != sizes[dim] for dim in ("chain", "draw")):
        return False
    if (sizes["chain"], sizes["draw"]) != (settings.get("num_chains"), settings.get("num_samples")):
        return False
    return "lp" not in statistics or facts.get("draws") in (None, draws_digest(statistics["lp"]))


def spacing(tree: xr.DataTree, facts: dict) -> int | None:
    """Iterations from one draw of the tree to the next; None if they are not equally many."""
    draws, thinning = tree["posterior"]["draw"].values, facts["settings"]["thinning"]
    steps = np.unique(np.diff(draws)) if draws.dtype.kind in "iu" else np.ones(1, int)
    return thinning if not len(steps) else int(steps[0]) * thinning if len(steps) == 1 and steps[0] > 0 else None


def series(tree: xr.DataTree, name: str) -> np.ndarray:
    """A variable of the posterior as an array of shape (chain, draw, *element)."""
    known = [str(n) for n, v in tree["posterior"].data_vars.items() if {"chain", "draw"} <= set(v.dims)]
    if name not in known:
        raise ArgumentError(
            "names", f"variables of the posterior: {', '.join(map(repr, known))}", repr(name), reason="name"
        )
    return tree["posterior"][name].transpose("chain", "draw", ...).values


def element_names(variable: xr.DataArray) -> list[str]:
    """Names of the elements of a variable of draws, in the order of ``numpy.ndindex``.

    Elements have the labels of their coordinates, ``f[Orkney]``; where there are none, or some are equal, their places.
    """
    shown = [dim for dim in variable.dims if dim not in ("chain", "draw")]
    labels = [_labels(variable, dim) for dim in shown]
    elements = np.ndindex(*(len(values) for values in labels))
    inside = (",".join(values[k] for values, k in zip(labels, element, strict=True)) for element in elements)
    return [f"{variable.name}[{text}]" for text in inside] if shown else [str(variable.name)]


def _labels(variable: xr.DataArray, dim: str) -> list[str]:
    places = [str(k) for k in range(variable.sizes[dim])]
    if dim not in variable.coords:
        return places
    labels = [str(value) for value in variable.coords[dim].values]
    return labels if len(set(labels)) == len(labels) else places


def scalar_names(tree: xr.DataTree, facts: dict | None = None) -> list[str]:
    """Variables that a table shows by default: all real ones but fields (unless there is nothing else) and large arrays."""
    fields = (facts_of(tree) if facts is None else facts)["fields"]
    variables = {
        str(n): v for n, v in tree["posterior"].data_vars.items()
        if v.size and v.dtype.kind in "fiub" and {"chain", "draw"} <= set(v.dims)
    }  # fmt: skip
    sizes = {n: v.size // (v.sizes["chain"] * v.sizes["draw"]) for n, v in variables.items()}
    small = [n for n, size in sizes.items() if size <= MAX_ELEMENTS]
    return [n for n in small if n not in fields] or small
