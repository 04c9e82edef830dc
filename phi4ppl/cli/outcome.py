"""What all commands share: exit statuses, names of files, where results go, and how a verdict is shown."""

from __future__ import annotations

from pathlib import Path

from .option_names import for_command_line, verdict_for
from .result_files import ResultFolder

__all__ = ["checks_text", "finish", "result_folder", "show_verdict"]


PASSED, FAILED, UNUSABLE, INTERRUPTED = 0, 1, 2, 130
SAMPLES, REPORT = "samples.nc", "report.html"


def result_folder(arguments, command: str, usual: Path, record: str, names: tuple[str, ...], **options) -> ResultFolder:
    """Where results go; what is in their way is said before the work, which may be long, and not after it."""
    return ResultFolder(
        Path(arguments.output or usual), command, record, names, overwrite=arguments.overwrite, **options
    )


def show_verdict(verdict, results: ResultFolder, name: str | None = None) -> int:
    verdict = verdict_for(verdict, results.command)
    print(f"\n{verdict.estimates}")
    print(f"\n{for_command_line(str(verdict), results.command)}\n")
    print(f"report: {results.add(REPORT, lambda path: verdict.to_html(path, name=name)).resolve().as_uri()}")
    return PASSED if verdict.passed else FAILED


def checks_text(check, count: int) -> str:
    used = len(next(iter(check.observed.values())))
    part = f", of {used} evenly spaced fields of the {count} given" if used < count else ""
    return f"posterior predictive checks{part}\n{check.table.to_string(float_format=lambda value: f'{value:.4g}')}"


def finish(report: Path, results: ResultFolder, facts: dict, finished: bool = True) -> None:
    results.finish(facts, finished=finished)
    print(f"\nresults: {results.path}\nreport: {report.resolve().as_uri()}")
