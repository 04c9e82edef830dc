"""``phi4ppl renormalize``: exponents and the flow of couplings by blocking the fields of one run; results in one folder."""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path

import pandas as pd

from ..errors import ArgumentError
from .model_files import field_of, load_model_file
from .option_names import for_command_line
from .outcome import REPORT, result_folder
from .status import FAILED, PASSED

__all__ = ["renormalize"]


RECORD, EXPONENTS, COUPLINGS = "renormalize.json", "exponents.csv", "couplings.csv"


def renormalize(arguments) -> int:
    """Sample a model and block its fields: exponents, the flow of couplings, and a report."""
    file = load_model_file(arguments.model, arguments.set)
    results = result_folder(
        arguments, "renormalize", Path("renormalizations") / file.name, RECORD, (EXPONENTS, COUPLINGS, REPORT)
    )
    model = field_of(file)
    rules, flow_rules = _rules(arguments, model)
    from ..renormalization.blocking import block
    from ..renormalization.flow import flow
    from ..renormalization.level_pages import basis_doubts, couplings_by_level, exponent_rows, write_renormalization
    from ..renormalization.monte_carlo_rg import monte_carlo_rg
    from ..results.run import sample

    print(f"{file.name}: {file.summary}", flush=True)
    chains = {
        "num_warmup": arguments.warmup, "num_samples": arguments.samples, "num_chains": arguments.chains,
        "progress": False if arguments.quiet else None,
    }  # fmt: skip
    tree = sample(model, seed=arguments.seed, **chains)
    exponents = monte_carlo_rg(tree, rules, levels=len(rules), seed=arguments.seed)
    continuous = exponents.blocked
    if flow_rules != rules:
        continuous = block(tree, flow_rules, levels=len(rules), seed=arguments.seed)
    couplings = flow(continuous, check=not arguments.no_check, seed=arguments.seed, **chains)
    words = partial(for_command_line, command="renormalize")
    doubts = basis_doubts(couplings, model)
    print(f"\n{words(str(exponents))}\n\n{words(str(couplings))}")
    for text in doubts:
        print(f"  NOT RELIABLE: {text}")
    results.add(EXPONENTS, lambda path: pd.DataFrame(exponent_rows(exponents)).to_csv(path, index=False))
    results.add(COUPLINGS, lambda path: pd.DataFrame(couplings_by_level(couplings)).to_csv(path, index=False))
    facts = {"model": str(file.path), "settings": file.parameters, "rules": [repr(rule) for rule in rules],
             "rules_of_flow": [repr(rule) for rule in flow_rules], "seed": arguments.seed, "samples": arguments.samples,
             "warmup": arguments.warmup, "chains": arguments.chains}  # fmt: skip
    heading = f"Renormalization of {file.name}"
    report = results.add(
        REPORT, lambda path: write_renormalization(exponents, couplings, path, model, facts, heading, words)
    )
    answers = {"values": exponents.values, "errors": exponents.errors, "levels": len(rules),
               "inputs": {name: value for name, (value, _) in exponents.inputs.items()},
               "warnings": [*exponents.warnings, *doubts, *couplings.warnings]}  # fmt: skip
    results.finish(facts | answers)
    print(f"\nresults: {results.path}\nreport: {report.resolve().as_uri()}")
    # what blocking does to the couplings is the answer of the command, not a failure of it
    findings = {text for level, text in couplings.truncations.items() if level}
    return FAILED if set(answers["warnings"]) - findings else PASSED


def _rules(arguments, model):
    """The rules of the exponents and of the flow, one per level; what does not fit is said before the run."""
    from ..renormalization.cascade import ETA
    from ..renormalization.monte_carlo_rg import monte_carlo_rg, most_levels
    from ..renormalization.rules import RULES, BellWilson, Linear, rules_of

    most, asked = most_levels(model.lattice), arguments.levels
    given = inspect.signature(monte_carlo_rg).parameters["rule"].default
    if arguments.rule is not None:
        given = [name.strip() for name in arguments.rule.split(",")]
    eta = ETA.get(len(model.field_shape)) if arguments.eta is None else arguments.eta
    try:
        found = rules_of(given, None, max(len(given), asked or most))
    except ArgumentError as error:  # its words are for objects
        fix = "Several with commas are one per level, and the last is repeated."
        raise ArgumentError(
            "--rule", f"names among {', '.join(RULES)}", repr(arguments.rule), fix, reason="choice"
        ) from error
    least = 2 if found[0].makes_spins else 1  # the step from fields to spins gives no exponent
    if most < least or not least <= (most if asked is None else asked) <= most:
        shape = "×".join(map(str, model.field_shape))
        could = "no number of" if most < least else f"{least} to {most}" if most > least else f"{most}"
        fix = "Sides have to stay even to the last, above 4 sites at the end. Take a larger lattice, such as --set size=64."
        raise ArgumentError(
            "--levels", f"{could} levels by {found[0].name!r} on {shape} sites", f"{asked}", fix, reason="levels"
        )
    levels = most if asked is None else asked
    rules = tuple(type(r)(eta) if isinstance(r, Linear) else r for r in rules_of(given, None, levels))
    spins = any(rule.makes_spins for rule in rules)
    return rules, (BellWilson(eta),) * levels if spins else rules
