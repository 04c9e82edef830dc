"""``phi4ppl fit``: couplings from data, or from the action of another model; results in one folder."""

from __future__ import annotations

import json
from pathlib import Path

from .commands import result_folder
from .errors import ModelFileError
from .field_files import load_fields
from .model import MarkovRandomField
from .model_files import load_model_file

__all__ = ["field_of", "fit"]

CONVERGED, NOT_CONVERGED = 0, 1
MODEL, HISTORY, PICTURE, RECORD = "model.npz", "history.nc", "history.png", "fit.json"


def fit(arguments) -> int:
    """Fit the couplings of a model to fields in a file, or to the action of another model."""
    file = load_model_file(arguments.model, arguments.set)
    folder = result_folder(arguments, Path("fits") / file.name, RECORD)
    model = field_of(file)
    if arguments.inhomogeneous:
        model = model.inhomogeneous()
    print(f"{file.name}: {file.summary}", flush=True)
    result, what = _fitted(model, arguments)
    print(result)
    folder.mkdir(parents=True, exist_ok=True)
    if result.history.sizes.get("step"):
        result.history.to_netcdf(folder / HISTORY)
        result.plot().savefig(folder / PICTURE, dpi=120)
    _save_model(result.model, folder)
    record = {"model": str(file.path), "settings": file.parameters, "converged": result.converged} | what
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"results: {folder}")
    return CONVERGED if result.converged else NOT_CONVERGED


def field_of(file) -> MarkovRandomField:
    """The field that a model file declares; a NumPyro model is refused."""
    if not isinstance(file.model, MarkovRandomField):
        raise ModelFileError(f"{file.path}: a NumPyro model; couplings of a MarkovRandomField can be fitted.")
    return file.model


def _fitted(model: MarkovRandomField, arguments):
    """The fit, and what the record says of it."""
    from .learning import fit_likelihood, fit_variational

    shared = {"seed": arguments.seed, "progress": False if arguments.quiet else None}
    if arguments.target is not None:
        target = field_of(load_model_file(arguments.target))
        result = fit_variational(model, target, method=arguments.method or "natural", **shared)
        return result, {"target": arguments.target, "bound": result.bound, "bound_error": result.bound_error}
    method = arguments.method or "score_matching"
    fields, note = load_fields(arguments.data, model)
    if note:
        print(note)
    result = fit_likelihood(model, fields, method=method, **shared)
    return result, {"data": arguments.data, "method": method, "num_samples": result.num_samples}


def _save_model(model: MarkovRandomField, folder: Path) -> None:
    if all(term.form.built_in for term in model.terms):
        print(f"model:   {model.save(folder / MODEL)}   (phi4ppl.load_model reads it)")
        return
    import numpy as np

    np.savez(folder / MODEL, **{name: np.asarray(value) for name, value in model.couplings.items()})
    print(f"couplings: {folder / MODEL}   (arrays by name; code of own terms is not written to disk)")
