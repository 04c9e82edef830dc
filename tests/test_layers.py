"""The order of the layers, the size of modules and functions, and what importing the package does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.smoke

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "phi4ppl"

# A module imports from lower layers, and within its own layer from those listed before it. A sub-package is
# one entry; its modules may import each other. The root, phi4ppl/__init__.py, gathers the public names and is
# imported by nobody.
LAYERS = (
    ("_version", 0),
    ("errors", 0),
    ("lattice", 1),
    ("cliques", 2),
    ("terms", 2),
    ("hammersley_clifford", 3),
    ("storage", 3),
    ("model", 3),
    ("potential", 4),
    ("exact", 4),
    ("quartic", 4),
    ("pointwise", 5),
    ("observations", 5),
    ("numpyro_plugin", 5),
    ("observables", 5),
    ("autocorrelation", 5),
    ("sampling", 6),
    ("dimensions", 7),
    ("datatree", 7),
    ("diagnostics", 7),
    ("reweighting", 8),
    ("predictive", 8),
    ("run", 8),
    ("integrated", 8),
    ("model_files", 8),
    ("partition", 9),
    ("learning", 10),
    ("networks", 10),
    ("inference", 11),
    ("averaging", 11),
    ("reports", 12),
    ("field_files", 13),
    ("prior_texts", 13),
    ("option_names", 13),
    ("result_files", 13),
    ("commands", 13),
    ("fit_command", 13),
    ("evidence_commands", 13),
    ("cli", 13),
    ("__main__", 13),
)
MAY_IMPORT_ARVIZ = ("datatree", "diagnostics")
MAX_MODULE_LINES = 450
MAX_FUNCTION_LINES = 70

PLACE = {name: (layer, position) for position, (name, layer) in enumerate(LAYERS)}
MODULES = sorted(PACKAGE.rglob("*.py"))


def unit_of(path: Path) -> str:
    """The table's name for a file of the package; the root's own name for ``phi4ppl/__init__.py``."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "phi4ppl" if first == "__init__" else first


def imported_names(tree: ast.AST, package: str) -> list[tuple[str, int]]:
    """Absolute dotted names of everything imported anywhere in a module of ``package``, with line numbers.

    ``from . import x`` in the root package counts as the module ``phi4ppl.x``, ``from phi4ppl import x`` as
    the root.
    """
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.append((node.module, node.lineno))
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1] + ([node.module] if node.module else []))
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "phi4ppl" else [base]
            found += [(name, node.lineno) for name in names]
    return found


def layer_violations(source: str, unit: str, package: str = "phi4ppl") -> list[str]:
    """What a module's imports break, one sentence each; ``unit`` is its entry in the table."""
    if unit not in PLACE:
        return [f"{unit} is not a module in LAYERS"]
    violations = []
    for name, line in imported_names(ast.parse(source), package):
        top, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if top.startswith("arviz") and unit not in MAY_IMPORT_ARVIZ:
            violations.append(f"line {line}: {unit} imports {name}; only {MAY_IMPORT_ARVIZ} touch ArviZ")
        if top != "phi4ppl" or target == unit:
            continue
        if target not in PLACE:
            violations.append(f"line {line}: {unit} imports {name}: the root, or not a module in LAYERS")
        elif PLACE[target] >= PLACE[unit]:
            here, there = PLACE[unit][0], PLACE[target][0]
            violations.append(f"line {line}: {unit} (layer {here}) imports {target} (layer {there})")
    return violations


def function_lengths(tree: ast.AST) -> list[tuple[str, int, int]]:
    """Name, line and length without docstring of every function, nested ones included."""
    lengths = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node, clean=False) is not None:
                length -= node.body[0].end_lineno - node.body[0].lineno + 1
            lengths.append((node.name, node.lineno, length))
    return lengths


@pytest.fixture(params=MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def module(request) -> Path:
    return request.param


def test_table_and_tree_agree():
    assert {unit_of(path) for path in MODULES} - {"phi4ppl"} == set(PLACE)


def test_layers_are_listed_in_order():
    numbers = [layer for _, layer in LAYERS]
    assert numbers == sorted(numbers)


def test_imports_follow_the_layers(module):
    unit = unit_of(module)
    source = module.read_text(encoding="utf-8")
    if unit == "phi4ppl":
        names = [name for name, _ in imported_names(ast.parse(source), "phi4ppl")]
        assert "phi4ppl" not in names and not any(name.startswith("arviz") for name in names)
        return
    package = ".".join(["phi4ppl", *module.relative_to(PACKAGE).parts[:-1]])
    assert layer_violations(source, unit, package) == []


def test_module_is_short(module):
    lines = len(module.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_MODULE_LINES, f"{module.name} has {lines} lines: is there a second noun inside?"


def test_functions_are_short(module):
    tree = ast.parse(module.read_text(encoding="utf-8"))
    long = [entry for entry in function_lengths(tree) if entry[2] > MAX_FUNCTION_LINES]
    assert long == [], "name, line, length"


@pytest.mark.parametrize(
    ("unit", "package", "source", "complaint"),
    [
        ("terms", "phi4ppl", "from .model import phi4", r"terms \(layer 2\) imports model \(layer 3\)"),
        ("terms", "phi4ppl", "from phi4ppl.model import x", r"imports model \(layer 3\)"),
        ("terms", "phi4ppl", "import phi4ppl.model", r"imports model \(layer 3\)"),
        ("terms", "phi4ppl", "from . import model", r"imports model \(layer 3\)"),
        ("terms", "phi4ppl", "def f():\n    from .model import x", r"line 2: .*imports model"),
        ("cliques", "phi4ppl", "from .terms import Term", r"cliques \(layer 2\) imports terms \(layer 2\)"),
        ("sampling", "phi4ppl.sampling", "from ..datatree import x", r"imports datatree \(layer 7\)"),
        ("sampling", "phi4ppl.sampling", "from .. import run", r"imports run \(layer 8\)"),
        ("model", "phi4ppl", "import phi4ppl", "the root"),
        ("model", "phi4ppl", "from phi4ppl import lattice", "the root"),
        ("model", "phi4ppl", "from . import __version__", "the root, or not a module"),
        ("model", "phi4ppl", "from .nowhere import x", "not a module in LAYERS"),
        ("sampling", "phi4ppl.sampling", "import arviz_base", r"only .*datatree.* touch ArviZ"),
        ("cli", "phi4ppl", "from arviz_plots import plot_trace", "touch ArviZ"),
    ],
)
def test_planted_import_is_caught(unit, package, source, complaint):
    (violation,) = layer_violations(source, unit, package)
    assert re.search(complaint, violation)


def test_planted_module_outside_the_table_is_caught():
    assert layer_violations("import numpy", "helpers") == ["helpers is not a module in LAYERS"]


@pytest.mark.parametrize(
    ("unit", "package", "source"),
    [
        ("terms", "phi4ppl", "from .cliques import x\nfrom . import errors\nimport phi4ppl.lattice"),
        (
            "sampling",
            "phi4ppl.sampling",
            "from . import nuts\nfrom .nuts import x\nfrom ..potential import y",
        ),
        ("diagnostics", "phi4ppl.diagnostics", "import arviz_stats\nfrom ..datatree import x"),
    ],
)
def test_allowed_imports_pass(unit, package, source):
    assert layer_violations(source, unit, package) == []


def test_planted_long_function_is_measured():
    body = '    """One.\n\n    Two.\n    """\n' + "    x = 1\n" * 70
    assert function_lengths(ast.parse("def f():\n" + body)) == [("f", 1, 71)]


def test_import_creates_no_array_and_starts_no_backend(run_python, tmp_path):
    program = (
        "import phi4ppl, jax, jax._src.xla_bridge as bridge\n"
        "assert not bridge._backends, bridge._backends\n"  # asked first: jax.live_arrays() starts a backend
        "assert not jax.live_arrays(), jax.live_arrays()\n"
        "assert not jax.config.jax_enable_x64\n"
        "assert bridge._backends\n"  # live_arrays did start one, so the first line looked in the right place
    )
    run_python(["-c", program], cwd=tmp_path)


# an absolute path of one machine, and a folder that is no part of the repository
FOREIGN_PATHS = re.compile(r"(?<![\w.])/work" + r"/|\.\./shared\b")
NOT_SOURCE = {"__pycache__", "build", "dist", "runs", "_build"}


def repository_files() -> list[Path]:
    """Files of the source tree, without environments, caches, results and version control."""

    def is_source(parts) -> bool:
        hidden = [part for part in parts[:-1] if part.startswith(".") and part != ".ci"]
        return not hidden and NOT_SOURCE.isdisjoint(parts)

    return [path for path in ROOT.rglob("*") if is_source(path.relative_to(ROOT).parts) and path.is_file()]


def test_no_file_mentions_a_path_of_one_machine():
    files = repository_files()
    assert {ROOT / "README.md", ROOT / ".ci" / "run", Path(__file__).resolve()} <= set(files)
    mentions = {
        path.relative_to(ROOT).as_posix(): found.group()
        for path in files
        if (found := FOREIGN_PATHS.search(path.read_text(encoding="utf-8", errors="ignore")))
    }
    assert mentions == {}


@pytest.mark.parametrize(
    ("text", "foreign"),
    [
        ("open('" + "/work" + "/data')", True),
        ("see ../" + "shared/DESIGN", True),
        ("https://example.org/work" + "/x", False),
        ("a shared folder, frame/work", False),
    ],
)
def test_foreign_path_pattern(text, foreign):
    assert bool(FOREIGN_PATHS.search(text)) is foreign
