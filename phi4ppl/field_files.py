"""Fields in files: samples for the command line."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from .autocorrelation import gamma_method
from .errors import ModelFileError
from .model import MarkovRandomField

__all__ = ["load_fields"]

WAYS = "Give a .npy or .npz file with one array of fields, or a .nc file of phi4ppl.sample or of one variable 'phi'."


def load_fields(path, model: MarkovRandomField) -> tuple[np.ndarray, str]:
    """Fields of a model from a file, shape ``(num_samples, *field_shape)``, and what was done to them (or nothing).

    Draws of a run, chains of correlated fields, are thinned to one in 2 τ_int of the slower of m² and φ²: fits take fields for
    independent, and their errors would come out too small.

    Raises
    ------
    ModelFileError
        If the file cannot be read, or holds no fields of this shape.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"{path}: no such file. {WAYS}")
    try:
        fields, is_run = _array(path)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:  # the last two: files cut short
        first = str(error).splitlines()[0].rstrip(".")
        raise ModelFileError(f"{path}: {first}. {WAYS}") from error
    shape = model.field_shape
    if fields.ndim <= len(shape) or fields.shape[fields.ndim - len(shape) :] != shape:
        raise ModelFileError(
            f"{path}: expected fields of shape {shape} with leading axes for samples, got {fields.shape}."
        )
    step = _spacing(fields) if is_run and fields.ndim == len(shape) + 2 and fields.shape[1] >= 8 else 1
    note = f"{path}: one draw in {step} of every chain, about 2 τ_int, as independent fields." if step > 1 else ""
    return (fields[:, ::step] if step > 1 else fields).reshape(-1, *shape), note


def _spacing(chains: np.ndarray) -> int:
    flat = chains.reshape(*chains.shape[:2], -1).astype(float)
    series = np.stack([flat.mean(axis=2) ** 2, (flat**2).mean(axis=2)], axis=2)
    return min(max(1, int(np.ceil(2 * np.max(gamma_method(series).tau_int) - 0.2))), chains.shape[1])


def _array(path: Path) -> tuple[np.ndarray, bool]:
    """The fields, and whether they are chains of a run."""
    if path.suffix == ".npy":
        return np.load(path), False
    if path.suffix == ".npz":
        with path.open("rb") as file, np.load(file) as arrays:  # np.load(path) leaves a damaged file open
            if len(arrays.files) != 1:
                raise ValueError(f"holds {len(arrays.files)} arrays: {', '.join(arrays.files)}")
            return arrays[arrays.files[0]], False
    if path.suffix == ".nc":
        import xarray as xr

        with xr.open_datatree(path) as tree:
            is_run = "posterior" in tree.children
            return (tree["posterior"] if is_run else tree)["phi"].values, is_run
    raise ValueError(f"unknown kind of file {path.suffix!r}")
