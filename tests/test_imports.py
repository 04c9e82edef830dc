"""What importing costs, as a list of modules: the root imports nothing, and each name no more than it needs."""

from __future__ import annotations

import ast
import importlib
import json
from pathlib import Path

import pytest

import phi4ppl

pytestmark = pytest.mark.smoke

TABLES = {"pandas", "xarray"}
NUMBERS = {"jax", "numpy", "scipy"}
PICTURES = {"matplotlib.pyplot", "arviz_plots"}
SAMPLERS = {"numpyro", "blackjax", "optax", "arviz_base", "arviz_stats"}
HEAVY = {"scipy.stats", "sklearn", "networkx", "jinja2", "tqdm"} | TABLES | NUMBERS | PICTURES | SAMPLERS

# what a user has typed so far, and what may have been imported by then
STAGES = {
    "import phi4ppl": set(),
    "from phi4ppl import errors": {"numpy"},
    "import phi4ppl as p4; p4.phi4(p4.lattice.square(4), w=1.0, a=1.5, b=0.2)": {"jax", "numpy"},
    "import phi4ppl as p4; p4.sample": HEAVY - PICTURES - {"scipy.stats", "sklearn", "networkx", "arviz_stats"},
    "from phi4ppl.cli import entry; entry.parser().format_help()": set(),
    "from phi4ppl.cli import entry; entry.parser().parse_args(['run', 'phi4_square', '--samples', '50'])": set(),
}


@pytest.mark.parametrize("code", STAGES)
def test_no_more_is_imported_than_needed(code, run_python, tmp_path):
    program = f"{code}\nimport sys, json\nprint(json.dumps(sorted({HEAVY} & sys.modules.keys())))"
    found = set(json.loads(run_python(["-c", program], cwd=tmp_path).stdout.splitlines()[-1]))
    assert found <= STAGES[code]


def test_planted_import_is_seen(run_python, tmp_path):
    code = "import phi4ppl, sys, pandas\nprint(sorted({'pandas', 'arviz_plots'} & sys.modules.keys()))"
    assert run_python(["-c", code], cwd=tmp_path).stdout == "['pandas']\n"


def test_every_public_name_is_found_and_listed():
    assert dir(phi4ppl) == sorted(set(phi4ppl.__all__))
    for name in phi4ppl.__all__:
        assert getattr(phi4ppl, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'phi5'"):
        phi4ppl.phi5  # noqa: B018


@pytest.mark.parametrize("first", ["phi4ppl.kernels", "phi4ppl.kernels.gradient", "phi4ppl"])
def test_kernels_are_listed_whatever_is_imported_first(first, run_python, tmp_path):
    code = f"import {first}, phi4ppl as p4\nprint(list(p4.kernels())[:2], p4.kernels.get_kernel('nuts').name)"
    assert run_python(["-c", code], cwd=tmp_path).stdout == "['auto', 'nuts'] nuts\n"


def stated_names(stub: str) -> dict[str, tuple[str, str]]:
    """Public names of a stub, and where each comes from: a relative module and the name there."""
    return {
        alias.asname or alias.name: ("." * node.level + (node.module or ""), alias.name)
        for node in ast.parse(stub).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_stub_for_type_checkers_says_the_same():
    """A name that the table and the stub place in two modules would be one object at run time and another in an editor."""
    stub = Path(phi4ppl.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    stated = stated_names(stub)
    assert sorted(stated) == sorted(phi4ppl.__all__)
    assert ast.literal_eval(stub.partition("__all__ = ")[2]) == phi4ppl.__all__
    for name, (module, inner) in stated.items():
        if name in phi4ppl.MODULES:
            assert phi4ppl.MODULES[name] == f"{module}.{inner}"
        elif name != "kernels":  # at run time that is the package, which can be called
            home = phi4ppl if module == "." else importlib.import_module(module, "phi4ppl")
            assert getattr(phi4ppl, name) is getattr(home, inner)
