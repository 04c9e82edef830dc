"""``phi4ppl spectrum``: how many features a table, a kernel matrix or a run has; a report in one folder."""

from __future__ import annotations

import csv
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from ..errors import ArgumentError, ModelFileError
from ..errors.arguments import one_of
from .csv_tables import column_of, read_table, without_counters
from .outcome import REPORT, result_folder
from .status import FAILED, PASSED

__all__ = ["spectrum"]

RECORD, EIGENVALUES, RANKS = "spectrum.json", "eigenvalues.csv", "ranks.csv"
USUAL, PRECOMPUTED = "rbf", "precomputed"
WAYS = "Give a .csv table of numbers, a .npz file with an array of points (one a row), or the .nc file of a run."


def spectrum(arguments) -> int:
    """Compute a spectrum, print it, and write eigenvalues, ranks and a report."""
    path = Path(arguments.data)
    results = result_folder(arguments, "spectrum", Path("spectra") / path.stem, RECORD, (EIGENVALUES, RANKS, REPORT))
    from ..spectral.field_modes import field_spectrum
    from ..spectral.gram import KERNELS
    from ..spectral.spectra import spectrum as spectrum_of
    from ..spectral.spectral_page import report

    kernel = one_of("--kernel", arguments.kernel or USUAL, (*KERNELS, PRECOMPUTED))
    if not path.is_file():
        raise ModelFileError("data_missing", f"{path}: no such file. {WAYS}")
    target, read = None, []
    if path.suffix == ".nc":
        if arguments.target is not None:
            raise ArgumentError(
                "--target", "no target for the fields of a run", repr(arguments.target), reason="unused"
            )
        from ..results.datatree import load_run

        found = field_spectrum(load_run(path))
    else:
        points, target, read = _points_of(path, arguments.target)
        for note in read:
            print(note)
        source, points = (points, None) if kernel == PRECOMPUTED else (kernel, points)
        found = spectrum_of(source, points, seed=arguments.seed)
    made = report(found, target=target, baseline=arguments.baseline, seed=arguments.seed)
    print(made)
    table = {"eigenvalue": found.eigenvalues, "error": found.errors}
    results.add(EIGENVALUES, lambda at: pd.DataFrame(table).to_csv(at, index_label="index"))
    ranks = pd.DataFrame(found.ranks, index=["value", "error"]).T
    results.add(RANKS, lambda at: ranks.to_csv(at, index_label="rank"))
    facts = {
        "data": str(path),
        "kernel": "the field" if path.suffix == ".nc" else kernel,
        "seed": arguments.seed,
    } | ({"read": " ".join(read)} if read else {})
    page = results.add(REPORT, lambda at: made.to_html(at, heading=f"Spectrum of {path.stem}", facts=facts))
    results.finish(facts | {
        "ranks": {name: value for name, (value, _) in found.ranks.items()},
        "errors": {name: error for name, (_, error) in found.ranks.items()},
        "decay": found.decay.line(), "findings": [f.text for f in made.findings], "notes": [*read, *found.notes],
    })  # fmt: skip
    print(f"\nresults: {results.path}\nreport: {page.resolve().as_uri()}")
    return PASSED if made.passed else FAILED


def _points_of(path: Path, target: str | None) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Points, the target by its name, and notes on how a table was read."""
    try:
        if path.suffix == ".csv":
            columns, notes = _table(path)
        elif path.suffix == ".npz":
            with path.open("rb") as file, np.load(file) as arrays:
                columns, notes = {name: arrays[name] for name in arrays.files}, []
        else:
            raise ValueError(f"unknown kind of file {path.suffix!r}")
    except (OSError, ValueError, EOFError, BadZipFile, csv.Error) as error:
        raise ModelFileError("data_unreadable", f"{path}: {str(error).splitlines()[0].rstrip('.')}. {WAYS}") from error
    if target is not None and target not in columns:
        raise ArgumentError("--target", f"one of {', '.join(columns)}", repr(target), reason="name")
    values = None if target is None else columns.pop(target)
    if path.suffix == ".csv":
        columns, note = without_counters(path, columns)
        return _numbers(path, columns), values, [*notes, *filter(None, [note])]
    matrices = [name for name in columns if np.ndim(columns[name]) >= 2]
    if len(matrices) != 1:
        got = f"{len(matrices)} of {', '.join(columns) or 'none'}"
        raise ModelFileError(
            "data_shape", f"{path}: expected one array of points of two axes or more, got {got}. {WAYS}"
        )
    return columns[matrices[0]], values, notes


def _table(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Columns by name; by their place if the first line has numbers, other than the 0, 1, … that pandas writes."""
    names, rows, note = read_table(path)
    notes = [note] if note else []
    places = [str(k) for k in range(len(names))]
    if np.asarray(column_of(names)).dtype.kind == "f" and all(name.strip() for name in names):
        if [name.strip() for name in names] == places:
            notes.append(f"{path}: the first line, {', '.join(names[:3])}…, is taken for the names of the columns.")
        else:
            rows, names = [(1, names), *rows], places
            notes.append(f"{path}: the first line has numbers and is taken for a point; columns are named 0, 1, …")
    if len(set(names)) < len(names):
        raise ValueError(f"the column {next(n for n in names if names.count(n) > 1)!r} occurs twice")
    return {name: column_of([row[k] for _, row in rows]) for k, name in enumerate(names)}, notes


def _numbers(path: Path, columns: dict[str, np.ndarray]) -> np.ndarray:
    words = [name for name, column in columns.items() if column.dtype.kind != "f"]
    if words or not columns:
        got = f"words in {', '.join(words)}" if words else "none"
        raise ArgumentError(f"{path}", "columns of numbers", got, "Leave them out, or --target.")
    return np.stack(list(columns.values()), axis=1)
