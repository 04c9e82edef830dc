"""Files of plain arrays and a JSON header (``.npz``), never pickled code."""

from __future__ import annotations

import json
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import path_of, writing

__all__ = ["read_arrays", "write_arrays"]


def write_arrays(path, header: dict, arrays: dict) -> Path:
    """Write arrays by name and a header that has an entry ``format``; returns the path."""
    path = path_of("path", path)
    with writing("path", path), path.open("wb") as file:
        np.savez_compressed(file, header=np.array(json.dumps(header)), **arrays)
    return path


def read_arrays(path, kind: str, writer: str) -> tuple[dict, dict]:
    """Header and arrays of a file of the format ``kind``; anything else is rejected: expected a file written by ``writer``."""
    try:
        with Path(path).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop("header")))
        if header["format"] != kind:
            raise KeyError(header["format"])
    except FileNotFoundError:
        raise ArgumentError("path", f"a file written by {writer}", f"no file {path}", reason="missing") from None
    except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise ArgumentError("path", f"a file written by {writer}", f"{path} ({error})", reason="unreadable") from error
    return header, arrays
