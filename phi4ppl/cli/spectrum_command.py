"""``phi4ppl spectrum``: how many features a table, a kernel matrix or a run has; a report in one folder."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from ..errors import ArgumentError, ModelFileError
from ..errors.arguments import one_of
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
    target = None
    if path.suffix == ".nc":
        if arguments.target is not None:
            raise ArgumentError(
                "--target", "no target for the fields of a run", repr(arguments.target), reason="unused"
            )
        from ..results.datatree import load_run

        found = field_spectrum(load_run(path))
    else:
        points, target = _points_of(path, arguments.target)
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
    }
    page = results.add(REPORT, lambda at: made.to_html(at, heading=f"Spectrum of {path.stem}", facts=facts))
    results.finish(facts | {
        "ranks": {name: value for name, (value, _) in found.ranks.items()},
        "errors": {name: error for name, (_, error) in found.ranks.items()},
        "decay": found.decay.line(), "findings": [f.text for f in made.findings], "notes": list(found.notes),
    })  # fmt: skip
    print(f"\nresults: {results.path}\nreport: {page.resolve().as_uri()}")
    return PASSED if made.passed else FAILED


def _points_of(path: Path, target: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Points, and the target by its name."""
    try:
        if path.suffix == ".csv":
            columns = pd.read_csv(path)
            names = list(map(str, columns.columns))
        elif path.suffix == ".npz":
            with path.open("rb") as file, np.load(file) as arrays:
                columns = {name: arrays[name] for name in arrays.files}
            names = list(columns)
        else:
            raise ValueError(f"unknown kind of file {path.suffix!r}")
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise ModelFileError("data_unreadable", f"{path}: {str(error).splitlines()[0].rstrip('.')}. {WAYS}") from error
    if target is not None and target not in names:
        raise ArgumentError("--target", f"one of {', '.join(names)}", repr(target), reason="name")
    rest = [name for name in names if name != target]
    values = None if target is None else np.asarray(columns[target])
    if path.suffix == ".csv":
        table = columns[rest]
        words = [name for name in rest if table[name].dtype.kind not in "fiub"]
        if words:
            raise ArgumentError(
                f"{path}", "columns of numbers", f"words in {', '.join(words)}", "Leave them out, or --target."
            )
        return table.to_numpy(float), values
    matrices = [name for name in rest if np.ndim(columns[name]) >= 2]
    if len(matrices) != 1:
        got = f"{len(matrices)} of {', '.join(rest) or 'none'}"
        raise ModelFileError(
            "data_shape", f"{path}: expected one array of points of two axes or more, got {got}. {WAYS}"
        )
    return columns[matrices[0]], values
