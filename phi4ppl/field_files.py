"""Fields in files: samples for the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .errors import ModelFileError
from .model import MarkovRandomField

__all__ = ["load_fields"]

WAYS = "Give a .npy or .npz file with one array of fields, or a .nc file of phi4ppl.sample or of one variable 'phi'."


def load_fields(path, model: MarkovRandomField) -> np.ndarray:
    """Fields of a model from a file, shape ``(num_samples, *field_shape)``; chains and draws are put one after the other.

    Raises
    ------
    ModelFileError
        If the file cannot be read, or holds no fields of this shape.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"{path}: no such file. {WAYS}")
    try:
        fields = _array(path)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).splitlines()[0].rstrip(".")
        raise ModelFileError(f"{path}: {first}. {WAYS}") from error
    shape = model.field_shape
    if fields.ndim <= len(shape) or fields.shape[fields.ndim - len(shape) :] != shape:
        raise ModelFileError(
            f"{path}: expected fields of shape {shape} with leading axes for samples, got {fields.shape}."
        )
    return fields.reshape(-1, *shape)


def _array(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            if len(arrays.files) != 1:
                raise ValueError(f"holds {len(arrays.files)} arrays: {', '.join(arrays.files)}")
            return arrays[arrays.files[0]]
    if path.suffix == ".nc":
        import xarray as xr

        with xr.open_datatree(path) as tree:
            group = tree["posterior"] if "posterior" in tree.children else tree
            return group["phi"].values
    raise ValueError(f"unknown kind of file {path.suffix!r}")
