"""``phi4ppl cascade``: fields of large lattices from those of small ones; results in one folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import ArgumentError, ModelFileError
from .model_files import field_of, load_model_file
from .option_names import for_command_line
from .outcome import REPORT, result_folder
from .status import FAILED, PASSED

__all__ = ["cascade"]


RECORD, TABLE, FIELDS = "cascade.json", "levels.csv", "fields.npz"


def cascade(arguments) -> int:
    """Lift fields of a small lattice to larger ones, and correct them: fields, checks, exponents, and a report."""
    levels = _levels(arguments.start, arguments.to)
    file = load_model_file(arguments.model, arguments.set)
    results = result_folder(arguments, "cascade", Path("cascades") / file.name, RECORD, (TABLE, FIELDS, REPORT))
    if "size" not in file.parameters or "size" in (arguments.set or {}):
        fix = "Give the file a function build(size=8, …) whose `size` is the side of the lattice, and leave --set size= out."
        raise ModelFileError("size", f"{file.path}: the model cannot be built at other sizes. {fix}")
    from ..renormalization.cascade import cascade as lifted
    from ..renormalization.level_pages import level_rows, write_cascade

    print(f"{file.name}: {file.summary}", flush=True)

    def model_of_side(side: int):
        return field_of(load_model_file(arguments.model, {**(arguments.set or {}), "size": str(side)}))

    found = lifted(
        model_of_side, start=arguments.start, levels=levels, fields=arguments.fields, lift=arguments.lift,
        eta=arguments.eta, keep_fields=True, seed=arguments.seed, progress=False if arguments.quiet else None,
    )  # fmt: skip
    words = partial(for_command_line, command="cascade")
    print(f"\n{words(str(found))}")
    results.add(TABLE, lambda path: pd.DataFrame(level_rows(found)).to_csv(path, index=False))
    fields = results.add(FIELDS, lambda path: np.savez(path, phi=found.fields))
    facts = {"model": str(file.path), "settings": file.parameters | {"size": arguments.to}, "start": arguments.start,
             "to": arguments.to, "fields": arguments.fields, "lift": arguments.lift, "seed": arguments.seed}  # fmt: skip
    model, heading = model_of_side(arguments.to), f"From {arguments.start} to {arguments.to}: {file.name}"
    report = results.add(REPORT, lambda path: write_cascade(found, path, model, facts, heading, words))
    exponents = found.exponents()
    answers = {"values": {name: value for name, (value, _) in exponents.items()}, "passed": found.passed,
               "errors": {name: error for name, (_, error) in exponents.items()}, "warnings": list(found.warnings)}  # fmt: skip
    results.finish(facts | answers)
    print(f"\nfields: {fields}\nresults: {results.path}\nreport: {report.resolve().as_uri()}")
    return PASSED if found.passed else FAILED


def _levels(start: int, to: int) -> int:
    """How often the start is doubled."""
    levels = (to // start).bit_length() - 1 if start > 0 else 0
    if levels < 1 or start << levels != to:
        fix = "For example --start 8 --to 512."
        raise ArgumentError("--to", f"--start, {start}, times 2, 4, 8, …", f"{to}", fix, reason="levels")
    return levels
