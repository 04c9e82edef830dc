"""``phi4ppl report``: check a run again, whether it has finished or is still running."""

from __future__ import annotations

from pathlib import Path

from ..errors import ResultFileError
from .outcome import ESTIMATES, REPORT, SAMPLES, show_verdict
from .quenched_run import report_quenched
from .result_files import ResultFolder, read_record
from .run_command import RECORD

__all__ = ["report"]


REPORT_RECORD = "report.json"


def report(arguments) -> int:
    """Check a run again and write its report; a run in progress is read from its checkpoint."""
    from ..results.datatree import load_run
    from ..results.verdict import diagnose
    from ..sampling.checkpoint import is_checkpoint

    path = Path(arguments.run)
    live = is_checkpoint(path)
    path = path / SAMPLES if path.is_dir() and not live else path
    tree = load_run(path)
    folder, of = (path, "") if live else (path.parent, path.name)
    made = read_record(folder / RECORD, "run") if of == SAMPLES else None
    if made is not None:  # the report is among the files of the run
        command, record, facts = "run", RECORD, {}
    else:
        command, record, facts = "report", REPORT_RECORD, {"of": of}
        other = (read_record(folder / record, command) or facts)["of"]
        if other != of:
            raise ResultFileError(
                "other_run", f"{folder / REPORT} is the report of {other}. Move it and {record} away."
            )
    names = (ESTIMATES, REPORT) if command == "run" else (REPORT,)
    results = ResultFolder(folder, command, record, names, overwrite=True, amend=True)
    if "realization" in tree["posterior"].dims:
        status = report_quenched(path, tree, results, made)
    else:
        status = show_verdict(diagnose(tree), results, Path(made["model"]).stem if made else None)
    results.finish(facts)
    return status
