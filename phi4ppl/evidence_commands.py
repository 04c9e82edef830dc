"""``phi4ppl infer`` and ``phi4ppl compare``: couplings and models given fields; results in one folder."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from .averaging.compare import SCHEMES
from .commands import FAILED, INTERRUPTED, PASSED, REPORT, SAMPLES, result_folder
from .errors import ModelFileError
from .field_files import LABELLED, load_fields
from .fit_command import field_of
from .model_files import load_model_file
from .option_names import for_command_line, verdict_for
from .prior_texts import priors_from
from .reports.pages import summary
from .result_files import ResultFolder

__all__ = ["compare", "infer"]

INFERENCE, COMPARISON, TABLE, PREDICTIONS = "infer.json", "compare.json", "comparison.csv", "predictions.nc"


def infer(arguments) -> int:
    """Infer couplings of a model from fields in a file: posterior, predictive checks, report."""
    file = load_model_file(arguments.model, arguments.set)
    results = result_folder(arguments, "infer", Path("inferences") / file.name, INFERENCE, (SAMPLES, REPORT))
    model, priors = field_of(file), priors_from(arguments.prior or [])
    if not priors:
        known = ", ".join(name for name, value in model.couplings.items() if np.ndim(value) == 0) or "none"
        raise ModelFileError(
            f"{file.path}: no prior. Give one for each coupling that is to be inferred, such as --prior w=uniform:0.4,1.2; "
            f"this model has: {known}. The others stay as they are."
        )
    fields = _fields(arguments.data, model)
    from .datatree import metadata, save_run
    from .diagnostics import diagnose, estimate
    from .inference import infer_couplings, predictive_check
    from .reports import write_inference

    print(f"{file.name}: {file.summary}", flush=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="infer_couplings: ")  # they stand in the settings
        tree = infer_couplings(
            model, fields, priors, normalizer=arguments.normalizer, num_auxiliary=arguments.num_auxiliary,
            num_warmup=arguments.warmup, num_samples=arguments.samples, num_chains=arguments.chains, seed=arguments.seed,
            progress=False if arguments.quiet else None,
        )  # fmt: skip
    draws = np.stack([tree["posterior"][name].values.ravel() for name in priors], axis=1).astype(float)
    some = draws[np.linspace(0, len(draws) - 1, 20).round().astype(int)]
    models = [model.replace(**dict(zip(priors, map(float, theta), strict=True))) for theta in some]
    check = predictive_check(models, fields, seed=arguments.seed)
    verdict, settings = verdict_for(diagnose(tree), "infer"), metadata(tree)["settings"]
    words = partial(for_command_line, command="infer")
    results.add(SAMPLES, lambda path: save_run(tree, path))
    report = results.add(REPORT, lambda path: write_inference(tree, model, priors, fields, check, path, verdict, words))
    good = verdict.passed and not settings["warnings"]
    estimates = estimate(tree, list(priors))
    print(f"\n{estimates}\n\n{_checks_text(check, len(fields))}\n\n{verdict}")
    _warn(map(words, settings["warnings"]))
    posterior = {
        name: summary(draws[:, k]) | {"mc_error": float(estimates.loc[name, "error"])} for k, name in enumerate(priors)
    }
    facts = {"model": str(file.path), "settings": file.parameters, "data": arguments.data, "priors": arguments.prior}
    facts |= {"passed": good, "posterior": posterior} | settings
    _finish(report, results, facts, finished=not settings["interrupted"])
    if settings["interrupted"]:
        return INTERRUPTED
    return PASSED if good else FAILED


def compare(arguments) -> int:
    """Compare models by evidence and prediction on fields in a file: weights, predictive checks, report."""
    files = {}
    for spec in arguments.models:
        file = load_model_file(spec)
        if file.name in files:
            raise ModelFileError(f"{spec}: a second model of the name {file.name!r}. Give the file another name.")
        files[file.name] = file
    names = (TABLE, PREDICTIONS, REPORT)
    results = result_folder(arguments, "compare", Path("comparisons") / "-".join(files), COMPARISON, names)
    models = {name: field_of(file) for name, file in files.items()}
    fields = _fields(arguments.data, next(iter(models.values())))
    _require_one_order(models, fields, arguments.data)
    own = _priors_by_model(models, priors_from(arguments.prior or []))
    from .averaging import average
    from .averaging import compare as compare_models
    from .inference import predictive_check
    from .reports import write_comparison

    result = compare_models(models, fields, own, seed=arguments.seed, progress=False if arguments.quiet else None)
    result = replace(result, warnings=tuple(for_command_line(text, "compare") for text in result.warnings))
    rng, checks, first = np.random.default_rng(arguments.seed), {}, next(iter(models.values()))
    for name, posterior in result.posteriors.items():
        chosen = rng.choice(len(posterior.draws), 20 if posterior.names else 1, p=np.exp(posterior.log_weights))
        data = fields.reshape(-1, *posterior.model.field_shape)
        checks[name] = predictive_check([posterior.at(k) for k in chosen], data, like=first, seed=arguments.seed)
    results.add(TABLE, result.table.to_csv)
    predicted = average(result, seed=arguments.seed)
    results.add(PREDICTIONS, lambda path: predicted.to_netcdf(path, engine="h5netcdf"))
    facts = {"models": ", ".join(str(file.path) for file in files.values()), "data": arguments.data, "seed": arguments.seed,
             "priors": "  ".join(arguments.prior or ["none: all couplings are fixed"])}  # fmt: skip
    report = results.add(REPORT, lambda path: write_comparison(result, own, checks, path, facts))
    print(result)
    for name, check in checks.items():
        print(f"\n{name}\n{_checks_text(check, len(fields))}")
    answers = {"weights": {scheme: result.weights(scheme) for scheme in SCHEMES}, "decisions": result.decisions}
    _finish(report, results, facts | answers | {"why": result.why, "warnings": list(result.warnings)})
    return FAILED if result.warnings else PASSED


def _require_one_order(models: dict, fields: np.ndarray, path: str) -> None:
    """Refuse models whose sites are in another order than those of the first, where the labels of a file show it."""
    for name, model in list(models.items())[1:] if Path(path).suffix in LABELLED else ():
        other, _ = load_fields(path, model)
        if not np.array_equal(other.reshape(len(other), -1), fields.reshape(len(fields), -1)):
            first = next(iter(models))
            raise ModelFileError(
                f"{name}: its sites are in another order than those of {first}, by the labels in {path}."
            )


def _fields(path, model) -> np.ndarray:
    fields, note = load_fields(path, model)
    if note:
        print(note)
    return fields


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
                f"--prior {text}: no such coupling. Couplings are {known}. MODEL.COUPLING is for one model."
            )
    return own


def _checks_text(check, count: int) -> str:
    used = len(next(iter(check.observed.values())))
    part = f", of {used} evenly spaced fields of the {count} given" if used < count else ""
    return f"posterior predictive checks{part}\n{check.table.to_string(float_format=lambda value: f'{value:.4g}')}"


def _warn(texts) -> None:
    for text in texts:
        print(f"WARNING: {text}")


def _finish(report: Path, results: ResultFolder, facts: dict, finished: bool = True) -> None:
    results.finish(facts, finished=finished)
    print(f"\nresults: {results.path}\nreport: {report.resolve().as_uri()}")
