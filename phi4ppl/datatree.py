"""Results as an ArviZ `DataTree`: groups, dimensions, coordinates and provenance. Also files on disk."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import arviz_base
import numpy as np
import xarray as xr

from ._version import __version__
from .errors import ArgumentError
from .lattice import Lattice
from .potential import CompiledModel
from .sampling import RunResult

__all__ = ["field_dims", "load_run", "provenance", "save_run", "to_datatree"]

PACKAGES = ("jax", "jaxlib", "numpyro", "blackjax", "arviz-base", "arviz-stats", "numpy")
AXES = ("x", "y", "z", "t")
DRAWN_SITES = 2000  # larger graphs are not drawn, so their positions are not stored


def field_dims(lattice: Lattice, prefix: str = "") -> tuple[list[str], dict]:
    """Names of the dimensions of a field and their coordinates: ``x, y, …`` or ``site`` with labels."""
    shape = lattice.shape
    if shape is None or len(shape) == 1:
        labels = lattice.nodes
        numeric = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in labels)
        return [prefix + "site"], {prefix + "site": list(labels) if numeric else [str(n) for n in labels]}
    names = [prefix + (AXES[k] if len(shape) <= len(AXES) else f"axis_{k}") for k in range(len(shape))]
    return names, {name: np.arange(n) for name, n in zip(names, shape, strict=True)}


def to_datatree(result: RunResult, compiled: CompiledModel, checks: dict[str, str]) -> xr.DataTree:
    """Arrange what the chains left: ``posterior``, ``sample_stats``, ``constant_data``, and metadata in the attributes."""
    dims, coords = {}, {}
    single = len(compiled.fields) == 1
    for name, model in compiled.fields.items():
        names, values = field_dims(model.lattice, "" if single else f"{name}_")
        dims[name] = names
        coords |= values
    constant, constant_dims = _constants(compiled)
    blocks = result.schwinger_dyson_blocks
    if compiled.model is not None:
        blocks = blocks.reshape(*blocks.shape[:2], *compiled.model.field_shape)
        constant_dims["schwinger_dyson_site"] = ["sd_chain", "sd_block", *dims["phi"]]
    else:
        constant_dims["schwinger_dyson_site"] = ["sd_chain", "sd_block", "unconstrained_dimension"]
    constant["schwinger_dyson_site"] = blocks
    # both spellings are read by tools in use
    statistics = dict(result.statistics)
    if "reached_max_treedepth" in statistics:
        statistics["reached_max_tree_depth"] = statistics["reached_max_treedepth"]
    tree = arviz_base.from_dict(
        {"posterior": result.values | result.observables, "sample_stats": statistics},
        dims=dims,
        coords={k: v for k, v in coords.items() if any(k in dims[n] for n in result.values if n in dims)},
    )
    data = arviz_base.dict_to_dataset(
        constant, sample_dims=[], dims=constant_dims,
        coords={k: v for k, v in coords.items() if any(k in d for d in constant_dims.values())},
    )  # fmt: skip
    tree["constant_data"] = xr.DataTree(data)
    for group in tree.children.values():
        group.attrs.clear()
    tree.attrs = {"phi4ppl": json.dumps(provenance(result, compiled, checks))}
    return tree


def _constants(compiled: CompiledModel) -> tuple[dict, dict]:
    """Edges and pictures' positions of every field; couplings of a field that was sampled by itself."""
    data, dims = {}, {}
    for name, model in compiled.fields.items():
        suffix = "" if len(compiled.fields) == 1 else f"_{name}"
        if model.lattice.num_edges:
            data["edges" + suffix], dims["edges" + suffix] = np.asarray(model.lattice.edges), ["edge" + suffix, "end"]
        if model.lattice.num_sites <= DRAWN_SITES:
            data["positions" + suffix] = model.lattice.positions
            dims["positions" + suffix] = ["position_site" + suffix, "axis"]
    if compiled.model is not None:
        for name, value in compiled.model.couplings.items():
            data[f"coupling_{name}"] = np.asarray(value)
            dims[f"coupling_{name}"] = [f"clique_{name}"] if np.ndim(value) else []
    return data, dims


def provenance(result: RunResult, compiled: CompiledModel, checks: dict[str, str]) -> dict:
    """What is needed to know where numbers come from: model, settings, seed, dtype, versions, machine, checks."""
    model = compiled.model
    return {
        "model": model.describe() if model is not None else "NumPyro model",
        "couplings": {
            name: float(value) if np.ndim(value) == 0 else f"constant_data: coupling_{name}"
            for name, value in (model.couplings if model is not None else {}).items()
        },
        "num_dimensions": compiled.num_dimensions,
        "fields": {
            name: {
                "lattice": field.lattice.name,
                "num_sites": field.lattice.num_sites,
                "shape": field.lattice.shape,
                "periodic": field.lattice.periodic,
                "digest": field.lattice.digest,
            }
            for name, field in compiled.fields.items()
        },
        "settings": result.settings,
        "checks": checks,
        "versions": {"phi4ppl": __version__} | {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def metadata(tree: xr.DataTree) -> dict:
    """The provenance of a run made by this library.

    Raises
    ------
    ArgumentError
        If the tree was made by something else.
    """
    text = getattr(tree, "attrs", {}).get("phi4ppl")
    if text is None:
        raise ArgumentError("tree", "a DataTree made by phi4ppl.sample", f"{type(tree).__name__} without its metadata")
    return json.loads(text)


def save_run(tree: xr.DataTree, path) -> Path:
    """Write a run to one netCDF file."""
    path = Path(path)
    tree.to_netcdf(path, engine="h5netcdf")
    return path


def load_run(path) -> xr.DataTree:
    """Read a run from a netCDF file into memory.

    Raises
    ------
    ArgumentError
        If there is no such file, or it is no run of this library.
    """
    path = Path(path)
    if not path.is_file():
        raise ArgumentError("path", "a netCDF file written by phi4ppl", f"no file {path}")
    try:
        with xr.open_datatree(path, engine="h5netcdf") as tree:
            loaded = tree.load()
            loaded.close()
    except (OSError, ValueError, KeyError) as error:
        raise ArgumentError("path", "a netCDF file written by phi4ppl", f"{path} ({error})") from error
    metadata(loaded)
    return loaded
