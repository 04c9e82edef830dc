"""``phi4ppl run`` and ``report`` of runs with disorder: realisations of the couplings, and averages over them."""

from __future__ import annotations

from pathlib import Path

from ..errors import ArgumentError, ResultFileError
from .model_files import field_of
from .option_names import for_command_line
from .outcome import ESTIMATES, REPORT, SAMPLES, colored, result_folder, wrapped
from .result_files import ResultFolder
from .status import FAILED, PASSED

__all__ = ["report_quenched", "run_quenched"]

RECORD = "run.json"


def run_quenched(arguments, file, kernel) -> int:
    """Sample realisations; write draws, the table of averages and a page."""
    for option, given in (("--checkpoint", arguments.checkpoint), ("--no-symmetry-moves", arguments.no_symmetry_moves)):
        if given:
            raise ArgumentError(option, "no such option with disorder", repr(given), reason="unused")
    model = field_of(file)
    results = result_folder(arguments, "run", Path("runs") / file.name, RECORD, (SAMPLES, ESTIMATES, REPORT))
    from ..disorder.quenched import quenched
    from ..results.datatree import save_run
    from ..results.settings import metadata

    print(f"{file.name}: {file.summary}", flush=True)
    chosen = {"num_realizations": arguments.realizations, "num_replicas": arguments.replicas}
    found = quenched(
        model, file.disorder, num_warmup=arguments.warmup, num_samples=arguments.samples, kernel=kernel, seed=arguments.seed,
        thinning=arguments.thinning, overlaps=not arguments.no_field, progress=False if arguments.quiet else None,
        **{name: value for name, value in chosen.items() if value is not None},
    )  # fmt: skip
    draws = results.add(SAMPLES, lambda path: save_run(found.tree, path))
    status = _shown(found, results, file.name, {"settings": file.parameters})
    print(f"draws:  {draws}   (phi4ppl.disorder.from_run reads them)")
    record = {
        "model": str(file.path),
        "settings": file.parameters,
        "passed": found.passed,
        "failed": list(found.verdict.failed),
    }
    results.finish(record | metadata(found.tree)["settings"])
    return status


def report_quenched(path: Path, tree, results: ResultFolder, made: dict | None) -> int:
    """The averages, the verdict and the page again, from the draws of a run; ``made`` is its record."""
    from ..disorder.saved import from_run

    try:
        found = from_run(tree)
    except ArgumentError as error:
        fix = "phi4ppl.disorder.from_run(path, model=…) takes it from Python."
        raise ResultFileError("disorder", f"{path}: {error} {fix}") from error
    name = Path(made["model"]).stem if made else None
    return _shown(found, results, name, {"settings": made["settings"]} if made else {})


def _shown(found, results: ResultFolder, name: str | None, facts: dict) -> int:
    """Print the averages, write their table (a folder has one, that of its run) and the page; the exit status."""
    print(colored(wrapped(for_command_line(str(found), "run"))))
    for each in ("magnetization", "phi_squared"):
        print(wrapped(for_command_line(str(found.budget(each)), "run")))
    if results.command == "run":
        results.add(ESTIMATES, found.averages.to_csv)
    page = results.add(REPORT, lambda path: found.to_html(path, name=name, facts=facts))
    print(f"report: {page.resolve().as_uri()}")
    return PASSED if found.passed else FAILED
