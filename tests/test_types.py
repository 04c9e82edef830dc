"""Shapes in signatures hold, a wrong one is caught, and the package says that it has types."""

from __future__ import annotations

import json
from pathlib import Path

import phi4ppl


def test_shapes_in_signatures_hold_and_wrong_ones_are_caught(run_python, tmp_path):
    """Under jaxtyping's import hook every function with shapes is called; the planted faults are calls with wrong arrays."""
    program = Path(__file__).with_name("shaped_calls.py")
    found = json.loads(run_python([program], cwd=tmp_path).stdout)
    assert found["uncalled"] == [] and found["number"] > 60
    assert all(found["caught"].values()), found["caught"]


def test_type_checkers_are_told_of_the_types():
    assert (Path(phi4ppl.__file__).parent / "py.typed").exists()


def test_the_hook_stays_in_a_process_of_its_own():
    """pytest imports this file in search of doctests; then the package must stay as users have it."""
    import shaped_calls  # noqa: F401

    from phi4ppl.reweighting.energies import evaluate

    assert not hasattr(evaluate, "__wrapped__")
