"""``phi4ppl compare``: which model for these fields; results in one folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import ModelFileError
from ..errors.streams import stream_rng
from ..inference.compare import SCHEMES
from .field_files import LABELED, load_fields, noted_fields
from .model_files import field_of, load_model_file
from .option_names import for_command_line
from .outcome import REPORT, checks_text, finish, result_folder
from .prior_texts import priors_from
from .status import FAILED, PASSED

__all__ = ["compare"]


COMPARISON, TABLE, PREDICTIONS = "compare.json", "comparison.csv", "predictions.nc"


def compare(arguments) -> int:
    """Compare models by evidence and prediction on fields in a file: weights, predictive checks, report."""
    files = {}
    for spec in arguments.models:
        file = load_model_file(spec)
        if file.name in files:
            raise ModelFileError(
                "duplicate", f"{spec}: a second model of the name {file.name!r}. Give the file another name."
            )
        files[file.name] = file
    names = (TABLE, PREDICTIONS, REPORT)
    results = result_folder(arguments, "compare", Path("comparisons") / "-".join(files), COMPARISON, names)
    models = {name: field_of(file) for name, file in files.items()}
    fields = noted_fields(arguments.data, next(iter(models.values())))
    _require_one_order(models, fields, arguments.data)
    own = _priors_by_model(models, priors_from(arguments.prior or []))
    from ..inference.average import average
    from ..inference.compare import compare as compare_models
    from ..inference.pages import write_comparison
    from ..inference.predictive_check import predictive_check

    result = compare_models(models, fields, own, seed=arguments.seed, progress=False if arguments.quiet else None)
    result = replace(result, warnings=tuple(for_command_line(text, "compare") for text in result.warnings))
    rng, checks, first = stream_rng(arguments.seed, "checked models"), {}, next(iter(models.values()))
    for name, posterior in result.posteriors.items():
        chosen = posterior.choose(20 if posterior.names else 1, rng)
        checks[name] = predictive_check(chosen, posterior.problem.data, like=first, seed=arguments.seed)
    results.add(TABLE, result.table.to_csv)
    predicted = average(result, seed=arguments.seed)
    results.add(PREDICTIONS, lambda path: predicted.to_netcdf(path, engine="h5netcdf"))
    facts = {"models": ", ".join(str(file.path) for file in files.values()), "data": arguments.data, "seed": arguments.seed,
             "priors": "  ".join(arguments.prior or ["none: all couplings are fixed"])}  # fmt: skip
    report = results.add(REPORT, lambda path: write_comparison(result, checks, path, facts))
    print(result)
    for name, check in checks.items():
        print(f"\n{name}\n{checks_text(check, len(fields))}")
    answers = {"weights": {scheme: result.weights(scheme) for scheme in SCHEMES}, "decisions": result.decisions}
    answers |= {"why": result.why, "notes": list(result.notes), "warnings": list(result.warnings)}
    finish(report, results, facts | answers)
    return FAILED if result.warnings else PASSED


def _require_one_order(models: dict, fields: np.ndarray, path: str) -> None:
    """Refuse models whose sites are in another order than those of the first, where the labels of a file show it."""
    for name, model in list(models.items())[1:] if Path(path).suffix in LABELED else ():
        other, _ = load_fields(path, model)
        if not np.array_equal(other.reshape(len(other), -1), fields.reshape(len(fields), -1)):
            first = next(iter(models))
            raise ModelFileError(
                "order", f"{name}: its sites are in another order than those of {first}, by the labels in {path}."
            )


def _priors_by_model(models: dict, priors: dict) -> dict[str, dict]:
    """``COUPLING`` is for all models that have it, ``MODEL.COUPLING`` for one."""
    own = {name: {c: p for c, p in priors.items() if c in model.couplings} for name, model in models.items()}
    for text, prior in priors.items():
        name, dot, coupling = text.rpartition(".")
        if dot and name in models and coupling in models[name].couplings:
            own[name][coupling] = prior
        elif dot or not any(text in model.couplings for model in models.values()):
            known = "; ".join(f"{name}: {', '.join(model.couplings)}" for name, model in models.items())
            raise ModelFileError(
                "coupling", f"--prior {text}: no such coupling. Couplings are {known}. MODEL.COUPLING is for one model."
            )
    return own
