"""``phi4ppl scan``: the critical coupling of a model by finite-size scaling; results in one folder."""

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

__all__ = ["scan"]


RECORD, TABLE = "scan.json", "curves.csv"


def scan(arguments) -> int:
    """Sample a model at several sizes and values of one coupling; critical coupling, exponents, and a report."""
    sizes, (name, values) = _sizes(arguments.sizes), _range(arguments.vary)
    file = load_model_file(arguments.model, arguments.set)
    results = result_folder(arguments, "scan", Path("scans") / file.name, RECORD, (TABLE, REPORT))
    if "size" not in file.parameters or "size" in (arguments.set or {}):
        fix = "Give the file a function build(size=8, …) whose `size` is the side of the lattice, and leave --set size= out."
        raise ModelFileError("size", f"{file.path}: the model cannot be built at other sizes. {fix}")
    from ..analysis.scaling_fit import OMEGA
    from ..renormalization.finite_size import finite_size_scaling
    from ..renormalization.scaling_page import write_scaling

    def model_of_size(size: int):
        return field_of(load_model_file(arguments.model, {**(arguments.set or {}), "size": str(size)}))

    print(f"{file.name}: {file.summary}", flush=True)
    found = finite_size_scaling(
        model_of_size, sizes=sizes, vary={name: values}, num_warmup=arguments.warmup, num_samples=arguments.samples,
        num_chains=arguments.chains, seed=arguments.seed, omega=OMEGA if arguments.omega is None else arguments.omega,
        progress=False if arguments.quiet else None,
    )  # fmt: skip
    print(f"\n{for_command_line(str(found), 'scan')}")
    table = found.table
    columns = {"L": table.sizes.astype(int), name: table.couplings}
    for each in table.names:
        columns |= {each: table.values[each], f"{each}_error": table.errors[each]}
    results.add(TABLE, lambda path: pd.DataFrame(columns).to_csv(path, index=False))
    facts = {"model": str(file.path), "settings": file.parameters, "vary": arguments.vary, "seed": arguments.seed,
             "samples": arguments.samples, "chains": arguments.chains}  # fmt: skip
    words = partial(for_command_line, command="scan")
    heading = f"Critical point of {file.name} in {name}"
    report = results.add(REPORT, lambda path: write_scaling(found, path, facts, heading, words))
    answers = {"values": found.values, "errors": found.errors, "sizes": sizes, "warnings": list(found.warnings)}
    results.finish(facts | answers)
    print(f"\nresults: {results.path}\nreport: {report.resolve().as_uri()}")
    return PASSED if found.reliable else FAILED


def _range(text: str) -> tuple[str, np.ndarray]:
    """NAME=FIRST:LAST:NUMBER, the couplings among which the crossing is searched."""
    name, equals, numbers = text.partition("=")
    try:
        first, last, count = numbers.split(":")
        low, high, number = float(first), float(last), int(count)
    except ValueError:
        low, high, number = 0.0, 0.0, 0
    if not equals or not name.isidentifier() or not low < high or number < 4:
        expected = "NAME=FIRST:LAST:NUMBER with FIRST < LAST and a NUMBER of at least 4"
        raise ArgumentError("--vary", expected, repr(text), "For example --vary a=1.4:1.7:7.", reason="range")
    return name, np.linspace(low, high, number)


def _sizes(text: str) -> list[int]:
    parts = text.split(",")
    if len(parts) < 2 or not all(part.strip().isdecimal() for part in parts):
        fix = "For example --sizes 8,16,32."
        raise ArgumentError("--sizes", "two sizes or more, with commas between", repr(text), fix, reason="sizes")
    return [int(part) for part in parts]
