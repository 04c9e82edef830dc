"""Fields in files: samples for the command line, in the order of the lattice where the file has labels."""

from __future__ import annotations

import csv
from importlib.util import find_spec
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from ..errors import ArgumentError, MissingPackageError, ModelFileError
from ..lattice.labels import MISSING_FIELDS, aligned_fields
from ..model.field import MarkovRandomField
from ..results.independent_fields import independent_step, note_of
from .csv_tables import number_of, read_table

__all__ = ["LABELED", "load_fields", "noted_fields"]

WAYS = (
    "Give a .npy or .npz file with one array of fields, a .nc file of phi4ppl.sample or with a variable 'phi', or a .csv or "
    ".parquet table with one row per field and one column per site, named by its label."
)
LABELED = (".nc", ".csv", ".parquet")


def load_fields(path, model: MarkovRandomField) -> tuple[np.ndarray, str]:
    """Fields of a model from a file, shape ``(num_samples, *field_shape)``, and what was done to them (or nothing).

    Columns of a table, and dimensions and coordinates of a netCDF variable, are the labels of the sites and give their order. A
    table starts with a row of names: ``0, 1, …``, the labels of a graph, or ``"(0, 1)"`` for the site (0, 1) of a square
    lattice. A first column without a name, which pandas writes for the index of a table, is left out.

    Draws of a run, chains of correlated fields, are thinned as by `independent_fields`.

    Raises
    ------
    ModelFileError
        If the file cannot be read, or holds no fields of this shape.
    ArgumentError
        If its labels are not those of the lattice, or values are missing.
    MissingPackageError
        For a Parquet file, without pyarrow.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError("data_missing", f"{path}: no such file. {WAYS}")
    try:
        fields, is_run, note = _fields(path)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, csv.Error) as error:  # the last two: files cut short
        first = str(error).splitlines()[0].rstrip(".")
        raise ModelFileError("data_unreadable", f"{path}: {first}. {WAYS}") from error
    try:
        fields = aligned_fields(str(path), fields, model.lattice, MISSING_FIELDS)
    except ArgumentError as error:
        if path.suffix == ".csv" and _is_row_of_numbers(fields.columns, model.lattice.nodes):  # type: ignore[union-attr]
            hint = f"The first line of {path} has numbers: if they are a field, the row of site labels above it is missing."
            error.args = (f"{error} {hint}",)
        raise
    shape = model.field_shape
    if fields.ndim <= len(shape) or fields.shape[fields.ndim - len(shape) :] != shape:
        raise ModelFileError(
            "data_shape", f"{path}: expected fields of shape {shape} with leading axes for samples, got {fields.shape}."
        )
    if is_run and fields.ndim == len(shape) + 2:
        step = independent_step(fields, model)
        fields, note = fields[:, ::step], note_of(step, path)  # type: ignore[arg-type]
    return fields.reshape(-1, *shape), note


def _fields(path: Path) -> tuple:
    """The fields with their labels, whether they are chains of a run, and what was done to them."""
    if path.suffix == ".npy":
        return np.load(path), False, ""
    if path.suffix == ".npz":
        with path.open("rb") as file, np.load(file) as arrays:  # np.load(path) leaves a damaged file open
            if len(arrays.files) != 1:
                raise ValueError(f"holds {len(arrays.files)} arrays: {', '.join(arrays.files)}")
            return arrays[arrays.files[0]], False, ""
    if path.suffix == ".nc":
        import xarray as xr

        with xr.open_datatree(path) as tree:
            is_run = "posterior" in tree.children
            return _variable((tree["posterior"] if is_run else tree).to_dataset(), is_run).load(), is_run, ""
    if path.suffix == ".csv":
        return _csv(path)
    if path.suffix == ".parquet":
        if find_spec("pyarrow") is None:
            raise MissingPackageError(
                "pyarrow", f"{path}: a Parquet file needs pyarrow, which is not installed: pip install pyarrow."
            )
        return pd.read_parquet(path, engine="pyarrow"), False, ""
    raise ValueError(f"unknown kind of file {path.suffix!r}")


def _variable(data, is_run: bool):
    """The variable with the fields: ``phi``, or the only one of a file that is no run."""
    names = list(data.data_vars)
    if "phi" not in names and (is_run or len(names) != 1):
        raise ValueError(f"no variable 'phi' among {', '.join(map(str, names)) or 'none'}")
    return data["phi" if "phi" in names else names[0]]


def _csv(path: Path) -> tuple[pd.DataFrame, bool, str]:
    """A table of numbers under a row of names."""
    names, rows, note = read_table(path)
    values = np.array([[number_of(line, text) for text in row] for line, row in rows])
    return pd.DataFrame(values, columns=pd.Index(names, dtype=object)), False, note


def _is_row_of_numbers(names, nodes) -> bool:
    """Whether the first line of a table is one of numbers that are not the labels of the sites."""
    try:
        [float(name) for name in names]
    except ValueError:
        return False
    return {name.strip() for name in names} != {str(node) for node in nodes}


def noted_fields(path, model) -> np.ndarray:
    """The fields of a file; what was done to them is printed."""
    fields, note = load_fields(path, model)
    if note:
        print(note)
    return fields
