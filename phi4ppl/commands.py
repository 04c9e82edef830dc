"""What the command line does: each command takes parsed arguments, prints, and returns an exit status."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .errors import ArgumentError, ResultFileError
from .model_files import load_model_file, shipped_models, summary_of
from .option_names import for_command_line, verdict_for
from .result_files import FINISHED, ResultFolder, read_record
from .sampling import kernels, tempering

__all__ = ["check", "doctor", "models", "report", "result_folder", "run"]

PASSED, FAILED, INTERRUPTED = 0, 1, 130
SAMPLES, REPORT, RECORD, REPORT_RECORD = "samples.nc", "report.html", "run.json", "report.json"


def models(arguments) -> int:
    """List the shipped models with their settings."""
    width = max(map(len, shipped_models()))
    for name, path in shipped_models().items():
        print(f"{name:<{width}}  {summary_of(path)}")
        if arguments.settings:
            parameters = load_model_file(name).parameters
            print(" " * width + "  " + ", ".join(f"{key}={value!r}" for key, value in parameters.items()))
    return PASSED


def check(arguments) -> int:
    """Check a model against the Hammersley–Clifford theorem."""
    from .model import MarkovRandomField
    from .numpyro_plugin import compile as compile_model

    file = load_model_file(arguments.model, arguments.set)
    print(f"{file.name}: {file.summary}")
    if isinstance(file.model, MarkovRandomField):
        print(file.model.describe())
        report = file.model.check()
        print(report)
        return PASSED if report.satisfied else FAILED
    compiled = compile_model(file.model)
    print(
        f"NumPyro model with {compiled.num_dimensions} unconstrained dimensions; fields: {', '.join(compiled.fields) or 'none'}"
    )
    satisfied = True
    for name, field in compiled.fields.items():
        report = field.check()
        print(f"\n{name}: {field.describe()}\n{report}")
        satisfied &= report.is_markov and report.is_positive
        if report.null_directions:
            print("  An improper field can be a prior: the likelihood must fix the direction named above.")
    return PASSED if satisfied else FAILED


def result_folder(arguments, command: str, usual: Path, record: str, names: tuple[str, ...], **options) -> ResultFolder:
    """Where results go; what is in their way is said before the work, which may be long, and not after it."""
    return ResultFolder(
        Path(arguments.output or usual), command, record, names, overwrite=arguments.overwrite, **options
    )


def run(arguments) -> int:
    """Check, sample, judge and report a model; everything goes into one folder."""
    file = load_model_file(arguments.model, arguments.set)
    continued = _identity(arguments.checkpoint)
    results = result_folder(
        arguments, "run", Path("runs") / file.name, RECORD, (SAMPLES, REPORT),
        continues=lambda record: continued is not None and not record[FINISHED] and record.get("checkpoint") == continued,
    )  # fmt: skip
    from .datatree import metadata, save_run
    from .diagnostics import diagnose
    from .run import sample

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
    status = _show(verdict, results)
    print(f"draws:  {draws}   (phi4ppl.load_run reads them)")
    record = {"model": str(file.path), "settings": file.parameters, "passed": verdict.passed} | facts["settings"]
    interrupted = facts["settings"]["interrupted"]
    results.finish(record | {"checkpoint": _identity(arguments.checkpoint)}, finished=not interrupted)
    return INTERRUPTED if interrupted else status


def _identity(checkpoint) -> str | None:
    """Which run is in the directory of a checkpoint: draws of this very run may be replaced by draws of its continuation."""
    from .sampling import is_checkpoint, read_saved

    if checkpoint is None or not is_checkpoint(checkpoint):
        return None
    saved = read_saved(checkpoint)
    return json.dumps([saved.identity, saved.frame[0]["provenance"]["created"]])


def report(arguments) -> int:
    """Judge a run again and write its report; also one that is still running, from its checkpoint."""
    from .datatree import load_run
    from .diagnostics import diagnose
    from .sampling import is_checkpoint

    path = Path(arguments.run)
    live = is_checkpoint(path)
    path = path / SAMPLES if path.is_dir() and not live else path
    tree = load_run(path)
    folder, of = (path, "") if live else (path.parent, path.name)
    if of == SAMPLES and read_record(folder / RECORD, "run") is not None:  # the report is among the files of the run
        command, record, facts = "run", RECORD, {}
    else:
        command, record, facts = "report", REPORT_RECORD, {"of": of}
        other = (read_record(folder / record, command) or facts)["of"]
        if other != of:
            raise ResultFileError(f"{folder / REPORT} is the report of {other}. Move it and {record} away.")
    results = ResultFolder(folder, command, record, (REPORT,), overwrite=True, amend=True)
    status = _show(diagnose(tree), results)
    results.finish(facts)
    return status


def _kernel(text: str):
    """The kernel of a name, or parallel tempering with so many copies."""
    name, colon, number = text.partition(":")
    if not colon and text in kernels():
        return text
    if name != "tempering" or not number.isdecimal():
        names = ", ".join(kernels())
        raise ArgumentError("--kernel", f"one of {names}, or tempering:N with the number of copies", repr(text))
    return tempering(int(number))


def _show(verdict, results: ResultFolder) -> int:
    verdict = verdict_for(verdict, results.command)
    print(f"\n{verdict.estimates}")
    print(f"\n{for_command_line(str(verdict), results.command)}\n")
    print(f"report: {results.add(REPORT, verdict.to_html).resolve().as_uri()}")
    return PASSED if verdict.passed else FAILED


def doctor(arguments) -> int:
    """Say what is installed, and test the whole path on one site against the exact answer."""
    import jax

    from .sampling.memory import available_bytes, readable

    print(f"python      {platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores, "
          f"{readable(available_bytes())} of memory available")  # fmt: skip
    print(f"devices     {', '.join(str(device) for device in jax.devices())}")
    print(f"precision   {'float64' if jax.config.jax_enable_x64 else 'float32 (JAX_ENABLE_X64=1 for float64)'}")
    packages = ("phi4ppl", "jax", "jaxlib", "numpyro", "blackjax", "arviz-base", "arviz-stats", "arviz-plots", "xarray",
                "networkx", "matplotlib", "numpy", "scipy", "h5netcdf")  # fmt: skip
    for name in packages:
        try:
            print(f"{name:<12}{version(name)}")
        except PackageNotFoundError:
            print(f"{name:<12}MISSING: install phi4ppl again")
            return FAILED
    return _self_test()


def _self_test() -> int:
    from . import exact, lattice
    from .diagnostics import estimate
    from .diagnostics.figures import figures
    from .model import phi4
    from .run import sample

    model = phi4(lattice.chain(1), a=1.52425, b=0.175)
    truth = exact.quadrature(model, {"phi_squared": lambda phi: phi[0] ** 2})["phi_squared"]
    tree = sample(model, num_warmup=300, num_samples=1000, progress=False)
    row = estimate(tree, "phi_squared").loc["phi_squared"]
    good = abs(row["mean"] - truth) < 5 * row["error"]
    print(f"self-test   one site: <phi^2> = {row['mean']:.4f} ± {row['error']:.4f}, exact {truth:.4f}: "
          f"{'agrees' if good else 'DISAGREES: please report this'}")  # fmt: skip
    print(f"pictures    {len(figures(tree))} drawn")
    print("all well" if good else "not well", file=sys.stdout if good else sys.stderr)
    return PASSED if good else FAILED
