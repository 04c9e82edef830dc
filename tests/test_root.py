"""What `dir(p4)` shows, and that everything that a public function gives back can be imported and looked up."""

from __future__ import annotations

import functools
import inspect
import re
from pathlib import Path

import pytest

import phi4ppl as p4

pytestmark = pytest.mark.smoke

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
COMMAND_LINE = {"cli", "__main__", "_version"}
OPAQUE = {"Kept", "Watch"}  # parts of networks.TrainingState that are passed on, not read


def packages(root=p4) -> list:
    return [root, *(thing for name in dir(root) if inspect.ismodule(thing := getattr(root, name)))]


def test_the_root_lists_what_people_type_and_the_packages():
    names = [name for name in dir(p4) if not name.startswith("_")]
    modules = {name for name in names if inspect.ismodule(getattr(p4, name))}
    folders = {path.name for path in (ROOT / "phi4ppl").iterdir() if (path / "__init__.py").exists()}
    assert folders - COMMAND_LINE | {"errors", "exact", "observables", "quartic", "terms"} == modules
    assert 35 <= len(names) - len(modules) <= 50
    assert dir(p4) == sorted(p4.__all__) and len(set(p4.__all__)) == len(p4.__all__)


def test_exceptions_live_in_errors_and_nowhere_else():
    there = {name for name in p4.errors.__all__ if name.endswith("Error")}
    assert len(there) >= 16 and all(issubclass(getattr(p4.errors, name), p4.errors.Phi4pplError) for name in there)
    assert not there & set(vars(p4))


def return_annotations(thing) -> list[tuple[str, dict]]:
    """Annotations of what comes out, with the names known where they were written: of a function its result, of a class
    its public attributes and the results of its public methods."""
    if inspect.isfunction(thing):
        inner = inspect.unwrap(thing)
        return [(str(inner.__annotations__.get("return", "")), inner.__globals__)]
    found = []
    for base in thing.__mro__:
        if not base.__module__.startswith("phi4ppl"):
            continue
        scope = vars(inspect.getmodule(base))
        fields = vars(base).get("__annotations__", {})
        found += [(str(text), scope) for name, text in fields.items() if not name.startswith("_")]
        for name, value in vars(base).items():
            function = (
                value.fget if isinstance(value, property) else getattr(value, "func", getattr(value, "__func__", value))
            )
            if not name.startswith("_") and inspect.isfunction(function):
                found += return_annotations(function)
    return found


def classes_of(text: str, scope: dict) -> set[type]:
    """Public classes of the package that an annotation names."""
    named = (scope.get(word) for word in re.findall(r"\b[A-Z]\w+", text))
    return {thing for thing in named if inspect.isclass(thing) and thing.__module__.startswith("phi4ppl")}


def exported(root=p4) -> dict[str, object]:
    """Functions and classes by their public dotted names."""
    return {
        f"{package.__name__}.{name}": thing
        for package in packages(root)
        for name in getattr(package, "__all__", ())
        if not inspect.ismodule(thing := getattr(package, name))
    }


def given_back(public: dict[str, object]) -> dict[type, str]:
    """Every class that public functions return, that these have as attributes, and so on: class → who returns it."""
    found, todo = (
        {},
        [(thing, name) for name, thing in public.items() if inspect.isfunction(thing) or inspect.isclass(thing)],
    )
    while todo:
        thing, name = todo.pop()
        for text, scope in return_annotations(thing):
            for cls in classes_of(text, scope) - set(found):
                if cls.__name__ in OPAQUE:
                    continue
                found[cls] = name
                todo.append((cls, cls.__qualname__))
    return found


@functools.cache
def api_pages() -> str:
    pages = [path for path in DOCS.rglob("*.md") if "api" in path.relative_to(DOCS).parts[0]]
    return "\n".join(path.read_text(encoding="utf-8") for path in pages)


def undocumented(classes: dict[type, str], pages: str) -> list[str]:
    return sorted(cls.__name__ for cls in classes if not re.search(rf"\b{cls.__name__}\b", pages))


def test_all_that_is_returned_can_be_imported():
    public = exported()
    reachable = {thing for thing in public.values() if inspect.isclass(thing)}
    missing = {f"{cls.__name__}, of {source}" for cls, source in given_back(public).items() if cls not in reachable}
    assert missing == set(), "export these from the __init__ of their package"


def test_all_that_is_returned_is_in_the_reference():
    assert undocumented(given_back(exported()), api_pages()) == []


def test_public_functions_say_what_they_return():
    silent = [
        name
        for name, thing in exported().items()
        if inspect.isfunction(thing) and "return" not in inspect.unwrap(thing).__annotations__
    ]
    assert silent == []


def parameters_without_entry(function) -> list[str]:
    """Parameters that the docstring has no line for; one entry may stand for several."""
    text = inspect.getdoc(function) or ""
    section = text.partition("Parameters\n----------\n")[2].partition("\n\n")[0]
    entries = {
        name.strip(" *")
        for line in section.splitlines()
        if line[:1].strip()
        for name in line.partition(" : ")[0].split(",")
    }
    return [name for name in inspect.signature(function).parameters if name not in entries]


@pytest.mark.parametrize("name", ["sample", "sample_ensemble", "infer_couplings", "fit_likelihood", "fit_variational",
                                  "log_partition", "reweight", "compare", "average", "phi4", "estimate"])  # fmt: skip
def test_every_parameter_has_an_entry(name):
    assert set(parameters_without_entry(getattr(p4, name))) <= {"args"}


def test_parameter_without_entry_is_found():
    def planted(model, *, seed):
        """One.

        Parameters
        ----------
        model : object
            It.
        """

    assert parameters_without_entry(planted) == ["seed"]


def test_planted_results_are_found():
    class Hidden:
        pass

    Hidden.__module__ = "phi4ppl.nowhere"

    def planted() -> Hidden | None: ...

    assert classes_of("Hidden | None", {"Hidden": Hidden}) == {Hidden}
    assert undocumented({Hidden: "planted"}, api_pages()) == ["Hidden"]
    assert return_annotations(planted) == [("Hidden | None", globals())]
    reached = {cls.__name__ for cls in given_back({"compare": p4.compare})}
    assert {"Comparison", "Posterior", "MarkovRandomField", "Lattice", "Term"} <= reached


@pytest.mark.parametrize("package", packages(), ids=lambda package: package.__name__)
def test_names_of_every_package_exist_once(package):
    names = list(getattr(package, "__all__", ()))
    assert len(names) == len(set(names)) and all(hasattr(package, name) for name in names)
