"""Draws that no Markov chain made, as a `DataTree` with the groups of a run."""

from __future__ import annotations

import arviz_base
import numpy as np
import xarray as xr

from .datatree import add_group
from .settings import mark_groups, write_metadata

__all__ = ["independent_tree"]


def independent_tree(
    values: dict, log_likelihood: dict, statistics: dict, frame: tuple[dict, dict], settings: dict
) -> xr.DataTree:
    """One chain of independent draws of a NumPyro model; arrays by name with a leading axis of draws, and its frame.

    Groups are ``posterior``, ``sample_stats``, ``constant_data``, and ``log_likelihood`` with ``observed_data``.
    """
    facts, arrays = frame
    number = len(next(iter(values.values())))
    settings = {
        "num_warmup": 0, "num_chains": 1, "num_samples": number, "thinning": 1, "even": False, "layout": "numpyro",
        "dtype": str(np.result_type(*(np.asarray(v) for v in statistics.values()))),
    } | settings  # fmt: skip
    tree = arviz_base.from_dict({"sample_stats": _one_chain(statistics)}, check_conventions=False)
    dims = facts["dims"]
    for name in dims.keys() & values.keys():  # copies of a field in a plate
        copies = np.ndim(values[name]) - 1 - len(dims[name])
        dims = dims | {name: [*(f"{name}_copy_{k}" for k in range(copies)), *dims[name]]}
    facts = facts | {"dims": dims}
    frame = facts, arrays
    add_group(tree, frame, "posterior", _one_chain(values))
    add_group(tree, frame, "log_likelihood", _one_chain(log_likelihood))
    data = {name.removeprefix("observed/"): v for name, v in arrays.items() if name.startswith("observed/")}
    add_group(tree, frame, "observed_data", data, ())
    constant = {name.removeprefix("constant/"): v for name, v in arrays.items() if name.startswith("constant/")}
    add_group(tree, (facts | {"dims": facts["constant_dims"], "data_dims": {}}, arrays), "constant_data", constant, ())
    write_metadata(tree, facts["provenance"] | {"settings": settings | facts["settings"]})
    mark_groups(tree)
    return tree


def _one_chain(values: dict) -> dict:
    return {name: np.asarray(array)[None] for name, array in values.items()}
