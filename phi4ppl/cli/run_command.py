"""``phi4ppl run``: check, sample, diagnose and report; results in one folder."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import ArgumentError
from ..kernels.kernel import kernels
from ..kernels.tempering import tempering
from .model_files import load_model_file
from .option_names import for_command_line
from .outcome import ESTIMATES, REPORT, SAMPLES, result_folder, show_verdict
from .quenched_run import run_quenched
from .result_files import FINISHED
from .status import INTERRUPTED

__all__ = ["run"]


RECORD = "run.json"


def run(arguments) -> int:
    """Check and sample a model, diagnose convergence and write a report, all into one folder.

    A file that declares ``disorder`` has realisations of its couplings sampled, and the report has the averages over them.
    """
    file = load_model_file(arguments.model, arguments.set)
    if file.disorder is not None:
        return run_quenched(arguments, file, _kernel(arguments.kernel))
    for option in ("realizations", "replicas"):
        if getattr(arguments, option) is not None:
            fix = "Without it a run has --chains."
            raise ArgumentError(
                f"--{option}", "a model file that declares `disorder`", str(file.path), fix, reason="unused"
            )
    continued = _identity(arguments.checkpoint)
    results = result_folder(
        arguments, "run", Path("runs") / file.name, RECORD, (SAMPLES, ESTIMATES, REPORT),
        continues=lambda record: continued is not None and not record[FINISHED] and record.get("checkpoint") == continued,
    )  # fmt: skip
    from ..results.datatree import save_run
    from ..results.run import sample
    from ..results.settings import metadata
    from ..results.verdict import diagnose

    print(f"{file.name}: {file.summary}", flush=True)
    tree = sample(
        file.model, num_warmup=arguments.warmup, num_samples=arguments.samples, num_chains=arguments.chains,
        kernel=_kernel(arguments.kernel), seed=arguments.seed, thinning=arguments.thinning, keep_field=not arguments.no_field,
        symmetry_moves=not arguments.no_symmetry_moves, progress=False if arguments.quiet else None,
        checkpoint=arguments.checkpoint,
    )  # fmt: skip
    facts = metadata(tree)
    for name, text in facts["checks"].items():
        print(f"{name}: {text}" if len(facts["checks"]) > 1 else text)
    reason = for_command_line(facts["settings"]["kernel_reason"], "run")
    print(f"kernel: {facts['settings']['kernel']} ({reason})")
    verdict = diagnose(tree)
    draws = results.add(SAMPLES, lambda path: save_run(tree, path))
    status = show_verdict(verdict, results, file.name)
    print(f"draws:  {draws}   (phi4ppl.load_run reads them)")
    record = {"model": str(file.path), "settings": file.parameters, "passed": verdict.passed} | facts["settings"]
    interrupted = facts["settings"]["interrupted"]
    results.finish(record | {"checkpoint": _identity(arguments.checkpoint)}, finished=not interrupted)
    return INTERRUPTED if interrupted else status


def _identity(checkpoint) -> str | None:
    """Which run is in the directory of a checkpoint: draws of this very run may be replaced by draws of its continuation."""
    from ..sampling.checkpoint import is_checkpoint, read_saved

    if checkpoint is None or not is_checkpoint(checkpoint):
        return None
    saved = read_saved(checkpoint)
    return json.dumps([saved.identity, saved.frame[0]["provenance"]["created"]])


def _kernel(text: str):
    """The kernel of a name, or parallel tempering with so many copies."""
    name, colon, number = text.partition(":")
    if not colon and text in kernels():
        return text
    if name != "tempering" or not number.isdecimal():
        names = ", ".join(kernels())
        raise ArgumentError(
            "--kernel", f"one of {names}, or tempering:N with the number of copies", repr(text), reason="choice"
        )
    return tempering(int(number))
