"""What all commands share: exit statuses, names of files, where results go, and how a verdict is shown."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from pathlib import Path

from .option_names import for_command_line, verdict_for
from .result_files import ResultFolder
from .status import FAILED, PASSED

__all__ = ["checks_text", "colored", "finish", "result_folder", "show_verdict", "shortened", "wrapped"]


SAMPLES, REPORT, ESTIMATES = "samples.nc", "report.html", "estimates.csv"
MAX_ROWS = 12  # of a table on the terminal
COLORS = {"pass": 32, "PASSED": 32, "FAIL": 31, "FAILED": 31}  # green and red, of ANSI


def result_folder(arguments, command: str, usual: Path, record: str, names: tuple[str, ...], **options) -> ResultFolder:
    """Where results go; what is in their way is said before the work, which may be long, and not after it."""
    return ResultFolder(
        Path(arguments.output or usual), command, record, names, overwrite=arguments.overwrite, **options
    )


def show_verdict(verdict, results: ResultFolder, name: str | None = None) -> int:
    verdict = verdict_for(verdict, results.command)
    if results.command == "run":  # a folder has one table of estimates, that of its run
        results.add(ESTIMATES, verdict.estimates.to_csv)
    print(f"\n{shortened(verdict.estimates) if results.command == 'run' else verdict.estimates}")
    print(f"\n{colored(wrapped(for_command_line(str(verdict), results.command)))}\n")
    print(f"report: {results.add(REPORT, lambda path: verdict.to_html(path, name=name)).resolve().as_uri()}")
    return PASSED if verdict.passed else FAILED


def shortened(table) -> str:
    """The first rows of a table of estimates; the rest are in a file."""
    more = len(table) - MAX_ROWS
    return f"{table.head(MAX_ROWS)}\n… {more} more in {ESTIMATES}" if more > 0 else str(table)


def wrapped(text: str) -> str:
    """Lines broken at the width of the terminal, and indented further than they begin."""
    width = shutil.get_terminal_size().columns
    broken = []
    for line in text.split("\n"):
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        wrap = textwrap.TextWrapper(width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        broken += wrap.wrap(line) or [""]
    return "\n".join(broken)


def colored(text: str) -> str:
    """Outcomes of checks in green and red on a terminal, unless ``NO_COLOR`` is set (no-color.org)."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    words = r"^(  |Convergence )(pass|FAIL|PASSED|FAILED)\b"
    return re.sub(words, lambda m: f"{m[1]}\x1b[{COLORS[m[2]]}m{m[2]}\x1b[0m", text, flags=re.MULTILINE)


def checks_text(check, count: int) -> str:
    used = len(next(iter(check.observed.values())))
    part = f", of {used} evenly spaced fields of the {count} given" if used < count else ""
    return f"posterior predictive checks{part}\n{check.table.to_string(float_format=lambda value: f'{value:.4g}')}"


def finish(report: Path, results: ResultFolder, facts: dict, finished: bool = True) -> None:
    results.finish(facts, finished=finished)
    print(f"\nresults: {results.path}\nreport: {report.resolve().as_uri()}")
