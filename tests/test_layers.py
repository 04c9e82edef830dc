"""The order of the layers, the size of modules and functions, and what importing the package does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import networkx
import pytest

pytestmark = pytest.mark.smoke

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "phi4ppl"

# A package imports from the layers above it in this table and from no other package of its own layer; nothing imports the
# root, phi4ppl/__init__.py, which gathers the public names. docs/pipeline.md shows the table.
LAYERS = (
    ("_version", 0),
    ("_typing", 0),
    ("errors", 0),
    ("lattice", 1),
    ("model", 2),
    ("energy", 3),
    ("numpyro_plugin", 4),
    ("kernels", 5),
    ("sampling", 6),
    ("reports", 6),
    ("analysis", 7),
    ("results", 8),
    ("reweighting", 9),
    ("partition", 9),
    ("learning", 10),
    ("inference", 11),
    ("networks", 12),
    ("disorder", 13),
    ("dynamics", 13),
    ("renormalization", 13),
    ("spectral", 13),
    ("lens", 14),
    ("cli", 15),
    ("__main__", 16),
)
MAY_IMPORT_ARVIZ = ("results",)
MAX_MODULE_LINES = 450
MAX_FUNCTION_LINES = 70

PLACE = dict(LAYERS)
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
            here, there = PLACE[unit], PLACE[target]
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


def modules_and_imports() -> dict[str, set[str]]:
    """What every module imports of other modules of the package, inside functions too; packages' own files are left out."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in MODULES}
    graph = {}
    for name, path in names.items():
        if path.name == "__init__.py":
            continue
        package, found = name.rpartition(".")[0], set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                parts = package.split(".")
                base = ".".join(parts[: len(parts) - node.level + 1] + ([node.module] if node.module else []))
                found |= {base, *(f"{base}.{alias.name}" for alias in node.names)} & set(names)
        graph[name] = found
    return graph


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    directed = networkx.DiGraph([(one, other) for one, others in graph.items() for other in others])
    return [found for found in networkx.strongly_connected_components(directed) if len(found) > 1]


def test_no_circles_among_modules():
    assert circles(modules_and_imports()) == []


def test_planted_circle_is_caught():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [{"a", "b", "c"}]


def test_one_basename_stands_for_one_thing():
    stems = [path.stem for path in MODULES if path.name != "__init__.py"]
    packages = [path.parent.name for path in MODULES if path.name == "__init__.py"]
    assert sorted({name for name in stems + packages if (stems + packages).count(name) > 1}) == []


def layer_table() -> str:
    """The table of layers as docs/pipeline.md shows it, made from `LAYERS` and the first lines of docstrings."""
    lines = ["| layer | package | what it does |", "|---|---|---|"]
    for unit, layer in LAYERS:
        folder = PACKAGE / unit / "__init__.py"
        path = folder if folder.exists() else PACKAGE / f"{unit}.py"
        text = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "the version number").splitlines()[0]
        name = f"`{unit}/`" if folder.exists() else f"`{unit}`"
        lines.append(f"| {layer} | {name} | {text.rstrip('.:')} |")
    return "\n".join(lines)


def test_the_page_shows_the_table():
    page = (ROOT / "docs" / "pipeline.md").read_text(encoding="utf-8")
    assert layer_table() in page, "docs/pipeline.md is to hold:\n\n" + layer_table()


def test_packages_say_what_comes_in_and_what_to_read_first():
    for unit, _ in LAYERS:
        path = PACKAGE / unit / "__init__.py"
        if path.exists():
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            assert " come" in text and " go" in text and " first" in text, unit


@pytest.mark.parametrize(
    ("unit", "package", "source", "complaint"),
    [
        ("model", "phi4ppl.model", "from ..energy.functions import x", r"model \(layer 2\) imports energy \(layer 3\)"),
        ("model", "phi4ppl.model", "from phi4ppl.energy.functions import x", r"imports energy \(layer 3\)"),
        ("model", "phi4ppl.model", "import phi4ppl.energy", r"imports energy \(layer 3\)"),
        ("model", "phi4ppl.model", "from .. import energy", r"imports energy \(layer 3\)"),
        ("model", "phi4ppl.model", "def f():\n    from ..energy import x", r"line 2: .*imports energy"),
        (
            "partition",
            "phi4ppl.partition",
            "from ..reweighting import x",
            r"\(layer 9\) imports reweighting \(layer 9\)",
        ),
        ("model", "phi4ppl.model.hammersley_clifford", "from ...energy import x", r"imports energy \(layer 3\)"),
        ("sampling", "phi4ppl.sampling", "from ..results.datatree import x", r"imports results \(layer 8\)"),
        ("model", "phi4ppl.model", "import phi4ppl", "the root"),
        ("model", "phi4ppl.model", "from phi4ppl import lattice", "the root"),
        ("model", "phi4ppl.model", "from .. import __version__", "the root, or not a module"),
        ("model", "phi4ppl.model", "from ..nowhere import x", "not a module in LAYERS"),
        ("sampling", "phi4ppl.sampling", "import arviz_base", r"only .*results.* touch ArviZ"),
        ("cli", "phi4ppl.cli", "from arviz_plots import plot_trace", "touch ArviZ"),
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
        ("model", "phi4ppl.model", "from .term import x\nfrom .. import errors\nimport phi4ppl.lattice"),
        ("sampling", "phi4ppl.sampling", "from . import chains\nfrom .chains import x\nfrom ..energy import y"),
        ("results", "phi4ppl.results", "import arviz_stats\nfrom ..sampling.chains import x"),
    ],
)
def test_allowed_imports_pass(unit, package, source):
    assert layer_violations(source, unit, package) == []


def test_planted_long_function_is_measured():
    body = '    """One.\n\n    Two.\n    """\n' + "    x = 1\n" * 70
    assert function_lengths(ast.parse("def f():\n" + body)) == [("f", 1, 71)]


def test_import_creates_no_array_and_starts_no_backend(run_python, tmp_path):
    program = (
        "from phi4ppl import *\n"
        "import jax, jax._src.xla_bridge as bridge\n"
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
