"""Shares of CPU time are compared with the budget as they should be."""

import json

import cpu_budget
import pytest
from cpu_budget import complaints, file_of, finish

BUDGET = {"tests/test_dear.py": 0.2, "tests/test_cheap.py": 0.01, "tests/test_middle.py": 0.1, "phi4ppl": 0.69}
SPENT = {file: 300 * share for file, share in BUDGET.items()}


def times(factor, *files):
    return {file: spent * (factor if file in files else 1) for file, spent in SPENT.items()}


@pytest.mark.parametrize(
    "spent",
    [
        SPENT,
        times(0.2, *SPENT),  # another machine
        times(1.3, "tests/test_dear.py"),  # noise
        times(1.5, "tests/test_cheap.py"),  # too little to matter
    ],
)
def test_a_run_within_its_budget_passes(spent):
    assert complaints(spent, BUDGET) == []


@pytest.mark.parametrize(
    ("spent", "file", "share"),
    [
        (times(3.5, "tests/test_dear.py"), "tests/test_dear.py", "46.7%"),
        (times(2.3, "tests/test_middle.py"), "tests/test_middle.py", "20.4%"),
        (times(5, "tests/test_cheap.py"), "tests/test_cheap.py", "4.8%"),
        (SPENT | {"tests/test_new.py": 20.0}, "tests/test_new.py", "6.2%"),
    ],
)
def test_planted_slow_file_is_over_budget(spent, file, share):
    (told,) = complaints(spent, BUDGET)
    assert told.startswith(f"{file}: {share}")


def test_only_a_whole_run_is_compared_and_a_new_budget_is_its_shares(monkeypatch, tmp_path):
    monkeypatch.setattr(cpu_budget, "BUDGET", tmp_path / "budget.json")
    assert finish(times(3, "tests/test_dear.py"), None) == []
    assert "budget.json is missing" in finish(SPENT, "check")[0]
    assert finish(SPENT, "write") == []
    assert json.loads((tmp_path / "budget.json").read_text()) == pytest.approx(BUDGET)
    slow = times(3, "tests/test_dear.py")
    assert len(finish(slow, "check")) == 1
    assert finish({"tests/test_dear.py": slow["tests/test_dear.py"]}, "check") == []


def test_doctests_count_as_one_file():
    assert file_of("phi4ppl/model/term.py::phi4ppl.model.term.Term") == "phi4ppl"
    assert file_of("tests/test_cli.py::test_x[a::b]") == "tests/test_cli.py"
