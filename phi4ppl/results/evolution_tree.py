"""Fields that move as a `DataTree`: what was recorded of them, with dimensions ``replica`` and ``time``."""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..lattice.frozen import Lattice
from ..lattice.labels import field_dims
from ..sampling.harvest import RunResult
from .provenance import software
from .settings import write_metadata

__all__ = ["GROUP", "evolution_frame", "evolution_tree"]

GROUP = "evolution"
FIRST, COORDINATE, CONSTANT = "first/", "coordinate/", "constant/"
DRAWN_SITES = 20_000  # positions of larger graphs are not stored: nobody draws them


def evolution_frame(
    lattice: Lattice, first: dict[str, np.ndarray], dims: dict[str, list[str]], coords: dict[str, np.ndarray],
    facts: dict, settings: dict,
) -> tuple[dict, dict[str, np.ndarray]]:  # fmt: skip
    """Metadata of the results, made before the run starts, with what is recorded of its start; plain values and arrays.

    ``first`` has arrays with a leading axis of replicas, ``dims`` and ``coords`` the axes of observables; ``facts`` state the
    process, ``settings`` include ``every``, the time between two records.
    """
    axes, labels = field_dims(lattice)
    frame = {
        GROUP: {"dims": {"phi": axes} | dims},
        "provenance": facts | software() | {"lattice": {
            "name": lattice.name, "num_sites": lattice.num_sites, "shape": lattice.shape, "periodic": lattice.periodic,
            "digest": lattice.digest,
        }},
        "settings": settings,
    }  # fmt: skip
    arrays = {COORDINATE + name: np.asarray(values) for name, values in (labels | coords).items()}
    arrays |= {FIRST + name: np.asarray(values) for name, values in first.items()}
    if lattice.num_edges:
        arrays[CONSTANT + "edges"] = np.asarray(lattice.edges)
    if lattice.num_sites <= DRAWN_SITES:
        arrays[CONSTANT + "positions"] = lattice.positions
    return frame, arrays


def evolution_tree(result: RunResult | None, frame: tuple[dict, dict[str, np.ndarray]]) -> xr.DataTree:
    """Arrange what was recorded, its start first.

    Group ``evolution`` has the field ``phi`` and every observable with dimensions ``(replica, time, …)``; ``constant_data`` has
    edges and positions of the sites. Without a ``result`` there is only the start.
    """
    facts, arrays = frame
    dims, every = facts[GROUP]["dims"], facts["settings"]["every"]
    recorded = {}
    for name, start in _of_kind(arrays, FIRST).items():
        later = [] if result is None else [result.observables[name]]
        recorded[name] = np.concatenate([start[:, None], *later], axis=1)
    coords = _of_kind(arrays, COORDINATE)
    num_times = next(iter(recorded.values())).shape[1]
    variables = {}
    for name, values in recorded.items():
        inner = dims.get(name) or [f"{name}_dim_{k}" for k in range(values.ndim - 2)]
        variables[name] = (("replica", "time", *inner), values)
    used = {axis for names, _ in variables.values() for axis in names}
    labels = {name: (name, values) for name, values in coords.items() if name in used}
    labels |= {"replica": np.arange(len(next(iter(recorded.values())))), "time": every * np.arange(num_times)}  # type: ignore[dict-item]
    constants = {
        name: (("edge", "end") if name == "edges" else ("position_site", "axis"), values)
        for name, values in _of_kind(arrays, CONSTANT).items()
    }
    groups = {GROUP: xr.Dataset(variables, labels), "constant_data": xr.Dataset(constants)}
    tree = xr.DataTree.from_dict(groups)
    settings = facts["settings"] | ({} if result is None else result.settings)
    write_metadata(tree, facts["provenance"] | {"settings": settings})
    return tree


def _of_kind(arrays: dict, kind: str) -> dict:
    return {name.removeprefix(kind): values for name, values in arrays.items() if name.startswith(kind)}
