"""Results as an ArviZ `DataTree`: groups, dimensions, coordinates and provenance. Also files on disk."""

from __future__ import annotations

import math
from pathlib import Path

import arviz_base
import numpy as np
import xarray as xr

from .._typing import PathLike
from ..energy.compiled import CompiledModel
from ..errors import ArgumentError, CheckpointError
from ..errors.arguments import call_checked, path_of, writing
from ..sampling.checkpoint import is_checkpoint, read_saved
from ..sampling.harvest import RunResult, result_so_far
from ..sampling.identity import array_digest
from .dimensions import arguments_of, arranged
from .evolution_tree import evolution_tree
from .provenance import software
from .settings import mark_groups, metadata, tree_of, write_metadata

__all__ = [
    "add_group", "draws_digest", "frame_of", "load_run", "predictive_tree", "provenance", "save_run", "to_datatree",
    "with_axes",
]  # fmt: skip

STREAMED = ("mean", "error", "variance", "tau_int", "tau_int_error", "count", "reliable", "replica_q", "long_enough")
STATISTIC_DIMS = {
    "exchange_rate": ["pair"],
    "inverse_temperature": ["copy"],
    "exchanged_share": ["copy"],
}  # of parallel tempering
DRAWN_SITES = 2000  # larger graphs are not drawn, so their positions are not stored


def frame_of(
    compiled: CompiledModel,
    checks: dict[str, str],
    settings: dict,
    dims: dict | None = None,
    coords: dict | None = None,
    call: tuple | None = None,
) -> tuple[dict, dict[str, np.ndarray]]:
    """Metadata of the results of a run, made before it starts: plain values and arrays, so that `to_datatree` needs no model.

    ``settings`` are those that the sampler does not know of; ``dims`` and ``coords`` are as users give them; ``call``, a
    NumPyro model with its arguments and keyword arguments, whose arrays are constant data.

    Raises
    ------
    ArgumentError
        If a site of a NumPyro model has a name that results cannot have, or ``dims`` or ``coords`` do not fit the model.
    """
    drawn, data_dims, coords = arranged(compiled, dims, coords)
    dims = STATISTIC_DIMS | drawn
    constant, constant_dims = _constants(compiled)
    model = compiled.model
    if model is None and call is not None:
        given, given_dims = arguments_of(compiled, *call)
        constant, constant_dims = given | constant, given_dims | constant_dims
    frame = {
        "dims": dims, "constant_dims": constant_dims, "data_dims": data_dims,
        "site_dims": dims["phi"] if model else ["unconstrained_dimension"],
        "field_shape": None if model is None else list(model.field_shape),
        "provenance": provenance(compiled, checks), "settings": settings,
    }  # fmt: skip
    arrays = {f"coordinate/{name}": np.asarray(values) for name, values in coords.items()}
    data = compiled.data if compiled.log_likelihood else {}
    arrays |= {f"observed/{name}": np.asarray(values) for name, values in data.items()}
    return frame, arrays | {f"constant/{name}": values for name, values in constant.items()}


def with_axes(frame: tuple[dict, dict], dims: dict[str, list[str]], coords: dict[str, np.ndarray]) -> tuple[dict, dict]:
    """The frame with dimensions of what is measured, and coordinates along them."""
    facts, arrays = frame
    arrays = arrays | {f"coordinate/{name}": np.asarray(values) for name, values in coords.items()}
    return facts | {"dims": facts["dims"] | dims}, arrays


def to_datatree(result: RunResult, frame: tuple[dict, dict[str, np.ndarray]]) -> xr.DataTree:
    """Arrange the output of the chains.

    Groups are ``posterior``, ``sample_stats``, ``streamed``, ``schwinger_dyson``, ``constant_data``, and ``log_likelihood`` and
    ``observed_data`` where there are data to leave out one by one; metadata are in the attributes.
    """
    facts, arrays = frame
    dims, constant_dims, shape = facts["dims"], facts["constant_dims"], facts["field_shape"]
    for name in dims.keys() & result.values.keys():  # copies of a field in a plate
        copies = np.ndim(result.values[name]) - 2 - len(dims[name])
        dims = dims | {name: [*(f"{name}_copy_{k}" for k in range(copies)), *dims[name]]}
    coords, constant, data = (_of_kind(arrays, kind) for kind in ("coordinate/", "constant/", "observed/"))

    def coordinates(*used):
        return {k: v for k, v in coords.items() if any(k in d for d in used)}

    observables, statistics, streamed = dict(result.observables), dict(result.statistics), dict(result.streamed)
    blocks, energy = result.schwinger_dyson_blocks, streamed.pop("sample_stats/lp")
    if shape is not None:
        observables["energy_density"] = -statistics["lp"] / math.prod(shape)
        streamed["energy_density"] = energy.scaled(-1 / math.prod(shape))
        blocks = blocks.reshape(*blocks.shape[:2], *shape)
    streamed.setdefault("schwinger_dyson", streamed.pop("sample_stats/schwinger_dyson"))
    # both spellings are read by tools in use
    if "reached_max_treedepth" in statistics:
        statistics["reached_max_tree_depth"] = statistics["reached_max_treedepth"]
    tree = arviz_base.from_dict(
        {"posterior": result.values | observables, "sample_stats": statistics},
        dims=dims, coords=coordinates(*(dims[n] for n in (*result.values, *observables) if n in dims)),
        check_conventions=False,  # it would warn of fewer draws than chains, which a run that was cut short may have
    )  # fmt: skip
    add_group(tree, frame, "log_likelihood", result.log_likelihood)
    add_group(tree, frame, "observed_data", data, [])
    tree["streamed"] = xr.DataTree(_streamed(streamed, dims, coordinates(*dims.values())))
    whole = draws_digest(tree["sample_stats"]["lp"])
    for name, values in tree["streamed"].data_vars.items():
        kept = name in tree["posterior"].data_vars
        values.attrs["draws"] = draws_digest(tree["posterior"][name]) if kept else whole
    data = arviz_base.dict_to_dataset(
        constant, sample_dims=[], dims=constant_dims, coords=coordinates(*constant_dims.values())
    )
    tree["constant_data"] = xr.DataTree(data)
    # not of dimensions chain and draw, so that it stays whole when draws are selected
    site_dims: dict = {"block_means": ["sd_chain", "sd_block", *facts["site_dims"]]}
    data = arviz_base.dict_to_dataset(
        {"block_means": blocks}, sample_dims=[], dims=site_dims, coords=coordinates(*site_dims.values())
    )
    tree["schwinger_dyson"] = xr.DataTree(data)
    write_metadata(tree, facts["provenance"] | {"draws": whole, "settings": result.settings | facts["settings"]})
    mark_groups(tree)
    return tree


def _of_kind(arrays: dict, kind: str) -> dict:
    return {name.removeprefix(kind): values for name, values in arrays.items() if name.startswith(kind)}


def add_group(
    tree: xr.DataTree, frame: tuple[dict, dict], group: str, values: dict, sample_dims=("chain", "draw")
) -> None:
    """Add arrays of data, or of what is drawn, by site as a group of the tree; nothing if there are none."""
    if not values:
        return
    facts, arrays = frame
    dims, coords = facts["dims"] | facts.get("data_dims", {}), _of_kind(arrays, "coordinate/")
    # data have the axes of an event behind those of their log likelihoods
    used = {n: dims[n][: np.ndim(v) - len(sample_dims)] for n, v in values.items() if n in dims}
    coords = {name: labels for name, labels in coords.items() if any(name in names for names in used.values())}
    arranged = arviz_base.dict_to_dataset(
        values, sample_dims=list(sample_dims), dims=used, coords=coords, check_conventions=False
    )
    old = tree[group].to_dataset() if group in tree.children else xr.Dataset(attrs=arranged.attrs)
    tree[group] = xr.DataTree(old.assign(arranged.data_vars))


def draws_digest(variable: xr.DataArray) -> str:
    """Digest of all draws of a variable: what was streamed of them holds while they are all there, unchanged."""
    return array_digest(variable.transpose("chain", "draw", ...).values)


def predictive_tree(predicted: dict, observed: dict, dims: list[str], coords: dict, weights: dict) -> xr.DataTree:
    """Predicted fields and what is measured of them, arrays with leading (chain, draw, field), beside the data."""
    rows: dict = {name: ["field"] for name in predicted} | {"phi": ["field", *dims]}
    tree = arviz_base.from_dict({"posterior_predictive": predicted}, dims=rows, coords=coords, check_conventions=False)
    tree["observed_data"] = xr.DataTree(arviz_base.dict_to_dataset(observed, sample_dims=[], dims=rows, coords=coords))
    write_metadata(tree, {"settings": {"weights": weights}})
    return tree


def _streamed(estimates: dict, dims: dict, coords: dict) -> xr.Dataset:
    """Statistics over all iterations, those between kept draws too: one variable per name, along ``statistic``."""
    data = {
        name: np.stack([np.asarray(getattr(estimate, key), np.float64) for key in STREAMED])
        for name, estimate in estimates.items()
    }
    return arviz_base.dict_to_dataset(
        data, sample_dims=["statistic"], dims=dims, coords=coords | {"statistic": list(STREAMED)}
    )


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
        if model.lattice.outlines is not None and model.lattice.num_sites <= DRAWN_SITES:
            data["outlines" + suffix] = model.lattice.outlines
            dims["outlines" + suffix] = ["corner" + suffix, "corner_column"]
    if compiled.model is not None:
        for name, value in compiled.model.couplings.items():
            data[f"coupling_{name}"] = np.asarray(value)
            dims[f"coupling_{name}"] = [f"clique_{name}"] if np.ndim(value) else []
    return data, dims


def provenance(compiled: CompiledModel, checks: dict[str, str]) -> dict:
    """The provenance beyond the settings: model, versions, machine, checks."""
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
        "checks": checks,
        "single_factors": compiled.single_factors,
        **software(),
    }


@call_checked
def save_run(tree: xr.DataTree, path: PathLike) -> Path:
    """Write a run, or the tree of a `Posterior`, to one netCDF file, whose folder has to exist.

    Raises
    ------
    ArgumentError
        If the tree was made by something else, or the file cannot be written.
    """
    path, tree = path_of("path", path), tree_of(tree)
    metadata(tree)
    with writing("path", path):
        tree.to_netcdf(path, engine="h5netcdf")
    return path


@call_checked
def load_run(path: PathLike) -> xr.DataTree:
    """Read a run into memory: from a netCDF file, or from the directory of a checkpoint.

    A run that has not finished is read up to its last checkpoint; its settings then include ``incomplete``. A run that
    continues is not disturbed.

    Raises
    ------
    ArgumentError
        If there is no such file, or it is not a run of this library.
    CheckpointError
        If a checkpoint is damaged, has no draws yet, or belongs to the training of a network.
    """
    path = path_of("path", path)
    if is_checkpoint(path):
        return _load_checkpoint(path)
    if not path.is_file():
        got = f"the directory {path}, which holds no checkpoint" if path.is_dir() else f"no file {path}"
        raise ArgumentError(
            "path", "a netCDF file written by phi4ppl, or a checkpoint directory", got, reason="missing"
        )
    try:
        with xr.open_datatree(path, engine="h5netcdf") as tree:
            loaded = tree.load()
            loaded.close()
    except (OSError, ValueError, KeyError) as error:
        raise ArgumentError(
            "path", "a netCDF file written by phi4ppl", f"{path} ({error})", reason="unreadable"
        ) from error
    metadata(loaded)
    return loaded


def _load_checkpoint(path: Path) -> xr.DataTree:
    saved = read_saved(path)
    if "evolution" in saved.frame[0]:
        return evolution_tree(result_so_far(saved, saved.progress["settings"]) if saved.files else None, saved.frame)
    if "warmed" not in saved.progress:
        raise CheckpointError(
            path,
            "belongs to the training of a network, not to a run",
            "Repeat the call of train to resume it.",
            "training",
        )
    if not saved.files:
        done, of = saved.progress["warmed"], saved.progress["settings"]["num_warmup"]
        fix = "Try again later: a run writes its checkpoint about once a minute."
        raise CheckpointError(path, f"has no draws yet: {done} of {of} warm-up steps are done", fix, "no_draws")
    return to_datatree(result_so_far(saved, saved.progress["settings"]), saved.frame)
