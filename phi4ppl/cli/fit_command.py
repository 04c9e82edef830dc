"""``phi4ppl fit``: couplings from data, or from the action of another model; results in one folder."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import ArgumentError
from ..learning.fit_page import ERROR_IS
from ..model.field import MarkovRandomField
from .field_files import noted_fields
from .model_files import field_of, load_model_file
from .option_names import for_command_line
from .outcome import REPORT, result_folder
from .result_files import ResultFolder
from .status import FAILED, PASSED

__all__ = ["fit"]

MODEL, TABLE, HISTORY, PICTURE, RECORD = "model.npz", "couplings.csv", "history.nc", "history.png", "fit.json"
MAX_ROWS = 12  # of a table on the terminal


def fit(arguments) -> int:
    """Fit the couplings of a model to fields in a file, or to the action of another model."""
    file = load_model_file(arguments.model, arguments.set)
    names = (MODEL, TABLE, HISTORY, PICTURE, REPORT)
    results = result_folder(arguments, "fit", Path("fits") / file.name, RECORD, names)
    model = field_of(file)
    if arguments.inhomogeneous:
        model = model.inhomogeneous()
    print(f"{file.name}: {file.summary}", flush=True)
    result, what = _fitted(model, arguments)
    table = _table(result)
    print(for_command_line(str(result), "fit"))
    if arguments.target:  # whose text has no errors of couplings
        print(f"\n{table.to_string(index=False, max_rows=MAX_ROWS, float_format='{:.6g}'.format, na_rep='')}")
    print(ERROR_IS["target" if arguments.target else "data"])
    from ..learning.fit_page import write_fit

    if result.history.sizes.get("step"):
        results.add(HISTORY, result.history.to_netcdf)
        results.add(PICTURE, lambda path: result.plot().savefig(path, dpi=120))
    _save_model(result.model, results)
    results.add(TABLE, lambda path: table.to_csv(path, index=False))
    record = {"model": str(file.path), "settings": file.parameters, "seed": arguments.seed} | what
    words = partial(for_command_line, command="fit")
    report = results.add(REPORT, lambda path: write_fit(result, table, path, record, words=words))
    results.finish(record | {"converged": result.converged, "couplings": _as_json(table)})
    print(f"results: {results.path}\nreport: {report.resolve().as_uri()}")
    return PASSED if result.converged else FAILED


def _table(result) -> pd.DataFrame:
    """A row per coupling: its term, the sites of its clique where there is one number per clique, its value and its error."""
    error = "standard_error" if hasattr(result, "num_fields") else "mc_error"
    rows = []
    for term in result.model.terms:
        values, single = np.ravel(np.asarray(term.coupling, float)), np.ndim(term.coupling) == 0
        errors = np.full(values.shape, np.nan)
        if result.standard_errors is not None:
            errors = np.ravel(np.asarray(result.standard_errors[term.name], float))
        sites = [""] if single else [" ".join(map(str, clique)) for clique in np.asarray(term.cliques)]
        rows += [(term.name, *row) for row in zip(sites, values, errors, strict=True)]
    return pd.DataFrame(rows, columns=["term", "sites", "value", error])


def _as_json(table: pd.DataFrame) -> dict:
    """Numbers by term, in lists where there is one per clique; null for an error that is not known."""
    found = {}
    for name, rows in table.groupby("term", sort=False):
        columns = {column: [float(v) if np.isfinite(v) else None for v in rows[column]] for column in table.columns[2:]}
        single = list(rows["sites"]) == [""]
        found[name] = {column: values[0] if single else values for column, values in columns.items()}
    return found


def _fitted(model: MarkovRandomField, arguments):
    """The fit, and what the record says of it."""
    from ..learning.likelihood import fit_likelihood
    from ..learning.variational import fit_variational

    shared = {"seed": arguments.seed, "progress": False if arguments.quiet else None}
    if arguments.target is not None:
        target = field_of(load_model_file(arguments.target))
        result = fit_variational(
            model, target, method=arguments.method or "natural", num_steps=arguments.steps, **shared
        )
        return result, {"target": arguments.target, "bound": result.bound, "bound_error": result.bound_error}
    method = _method(arguments.method or "score_matching", arguments.steps)
    fields = noted_fields(arguments.data, model)
    result = fit_likelihood(model, fields, method, **shared)
    return result, {"data": arguments.data, "method": result.method, "num_fields": result.num_fields}


def _method(name: str, num_steps: int | None):
    """The method of `phi4ppl.fit_likelihood` with so many steps."""
    from ..learning.methods import method_of

    method = method_of(name)
    if num_steps is None:
        return method
    if not hasattr(method, "num_steps"):
        raise ArgumentError("num_steps", f"None with method={name!r}, a linear solve", str(num_steps), reason="unused")
    return replace(method, num_steps=num_steps)  # type: ignore[arg-type]  # not ScoreMatching, which has none


def _save_model(model: MarkovRandomField, results: ResultFolder) -> None:
    if model.structure.is_built_in:
        print(f"model:   {results.add(MODEL, model.save)}   (phi4ppl.load_model reads it)")
        return
    couplings = {name: np.asarray(value) for name, value in model.couplings.items()}
    path = results.add(MODEL, lambda path: np.savez(path, **couplings))  # type: ignore[arg-type]
    print(f"couplings: {path}   (arrays by name; code of user-defined terms is not written to disk)")
