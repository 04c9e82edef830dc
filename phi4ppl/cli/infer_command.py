"""``phi4ppl infer``: couplings given fields; results in one folder."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import ModelFileError
from ..inference.pages import summary
from .field_files import noted_fields
from .model_files import field_of, load_model_file
from .option_names import for_command_line, verdict_for
from .outcome import REPORT, SAMPLES, checks_text, colored, finish, result_folder, wrapped
from .prior_texts import priors_from
from .status import FAILED, INTERRUPTED, PASSED

__all__ = ["infer"]


INFERENCE = "infer.json"


def infer(arguments) -> int:
    """Infer couplings of a model from fields in a file: posterior, predictive checks, report."""
    file = load_model_file(arguments.model, arguments.set)
    results = result_folder(arguments, "infer", Path("inferences") / file.name, INFERENCE, (SAMPLES, REPORT))
    model, priors = field_of(file), priors_from(arguments.prior or [])
    if not priors:
        known = ", ".join(name for name, value in model.couplings.items() if np.ndim(value) == 0) or "none"
        raise ModelFileError(
            "no_prior",
            f"{file.path}: no prior. Give one for each coupling that is to be inferred, such as --prior w=uniform:0.4,1.2; "
            f"this model has: {known}. The others stay as they are.",
        )
    fields = noted_fields(arguments.data, model)
    from ..inference.couplings import infer_couplings
    from ..inference.pages import write_inference
    from ..inference.predictive_check import predictive_check
    from ..results.datatree import save_run
    from ..results.estimates import estimate
    from ..results.settings import metadata
    from ..results.verdict import diagnose

    print(f"{file.name}: {file.summary}", flush=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="infer_couplings: ")  # they stand in the settings
        posterior = infer_couplings(
            model, fields, priors, normalizer=arguments.normalizer, num_auxiliary=arguments.num_auxiliary,
            num_warmup=arguments.warmup, num_samples=arguments.samples, num_chains=arguments.chains, seed=arguments.seed,
            progress=False if arguments.quiet else None,
        )  # fmt: skip
    draws = posterior.draws
    models = [posterior.at(k) for k in np.linspace(0, len(draws) - 1, 20).round().astype(int)]
    check = predictive_check(models, fields, seed=arguments.seed)
    verdict, settings = verdict_for(diagnose(posterior), "infer"), metadata(posterior)["settings"]
    words = partial(for_command_line, command="infer")
    results.add(SAMPLES, lambda path: save_run(posterior, path))
    report = results.add(REPORT, lambda path: write_inference(posterior, check, path, verdict, words))
    good = verdict.passed and not posterior.warnings
    estimates = estimate(posterior, list(priors))
    print(f"\n{estimates}\n\n{checks_text(check, len(fields))}\n\n{colored(wrapped(str(verdict)))}")
    for text in map(words, posterior.warnings):
        print(f"WARNING: {text}")
    rows = {
        name: summary(draws[:, k]) | {"mc_error": float(estimates.loc[name, "error"])} for k, name in enumerate(priors)
    }
    facts = {"model": str(file.path), "settings": file.parameters, "data": arguments.data, "priors": arguments.prior}
    facts |= {"passed": good, "posterior": rows} | settings
    finish(report, results, facts, finished=not settings["interrupted"])
    if settings["interrupted"]:
        return INTERRUPTED
    return PASSED if good else FAILED
