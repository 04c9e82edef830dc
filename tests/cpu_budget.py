"""CPU seconds of every file of tests, as shares of a whole run, and the budget that they are compared with.

Seconds differ between machines, and wall time with what else they do; the share of a file in the CPU time of all does not by
much. ``PHI4PPL_TEST_BUDGET=check``, as in ``.ci/run``, fails a whole run in which a file takes far more than its share in
``budget.json``; ``PHI4PPL_TEST_BUDGET=write`` makes the shares of a whole run the new budget.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

BUDGET = Path(__file__).parent / "budget.json"
FACTOR = (
    2.0  # a file that doubles its share is over budget; which file pays for a shared program varies from run to run
)
SMALL = 0.03  # no file is over budget below this share

seconds: Counter[str] = Counter()  # by file, of this process, its workers and what they started
elsewhere = 0.0  # in processes whose parent has not ended yet


def now() -> float:
    """CPU seconds of this process and of those that it started and that have ended."""
    return sum(os.times()[:4]) + elsewhere


def file_of(nodeid: str) -> str:
    """All doctests count as one file."""
    path = nodeid.partition("::")[0]
    return path if path.startswith("tests/") else "phi4ppl"


def shares_of(spent: dict[str, float]) -> dict[str, float]:
    total = sum(spent.values())
    return {file: used / total for file, used in sorted(spent.items())}


def complaints(spent: dict[str, float], budget: dict[str, float]) -> list[str]:
    """The files that take more than their share; a file without a budget has a share of 0."""
    told = []
    for file, share in shares_of(spent).items():
        planned = budget.get(file, 0.0)
        limit = max(FACTOR * planned, SMALL)
        if share > limit:
            told.append(f"{file}: {share:.1%} of the CPU time of all tests; budget {planned:.1%}, limit {limit:.1%}")
    return told


def finish(spent: dict[str, float], wish: str | None) -> list[str]:
    """What is to be told at the end of a run, the complaints first; ``wish`` is that of the environment."""
    if wish not in ("check", "write"):
        return []
    if wish == "write":
        BUDGET.write_text(json.dumps({f: round(s, 4) for f, s in shares_of(spent).items()}, indent=2) + "\n", "utf-8")
        return []
    if not BUDGET.exists():
        return [f"{BUDGET.name} is missing: run the whole suite with PHI4PPL_TEST_BUDGET=write, and commit it"]
    budget = json.loads(BUDGET.read_text(encoding="utf-8"))
    if budget.keys() - spent.keys():
        return []  # not a whole run
    return complaints(spent, budget)
