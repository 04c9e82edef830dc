"""``phi4ppl run`` of a file that declares ``disorder``: realisations of the couplings, and averages over them."""

from __future__ import annotations

from pathlib import Path

from ..errors import ArgumentError
from .model_files import field_of
from .option_names import for_command_line
from .outcome import ESTIMATES, REPORT, SAMPLES, colored, result_folder, wrapped
from .status import FAILED, PASSED

__all__ = ["run_quenched"]

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
    facts = metadata(found.tree)["settings"]
    print(colored(wrapped(for_command_line(str(found), "run"))))
    for name in ("magnetization", "phi_squared"):
        print(wrapped(for_command_line(str(found.budget(name)), "run")))
    draws = results.add(SAMPLES, lambda path: save_run(found.tree, path))
    results.add(ESTIMATES, found.averages.to_csv)
    page = results.add(REPORT, lambda path: found.to_html(path, name=file.name, facts={"settings": file.parameters}))
    print(f"report: {page.resolve().as_uri()}\ndraws:  {draws}   (phi4ppl.load_run reads them)")
    record = {
        "model": str(file.path),
        "settings": file.parameters,
        "passed": found.passed,
        "failed": list(found.verdict.failed),
    }
    results.finish(record | facts)
    return PASSED if found.passed else FAILED
