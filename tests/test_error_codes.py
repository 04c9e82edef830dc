"""Codes of errors and warnings: their form, what they keep, and that the helper of the tests sees a wrong one."""

import ast
import pickle
import re
from pathlib import Path

import pytest
from raising import raises, warns

from phi4ppl import errors
from phi4ppl.errors import ArgumentError, CheckpointError, GraphError, OverlapError, Phi4pplWarning, warn

CODE = r"[a-z_]+(\.[A-Za-z_]\w*){1,2}"
CLASSES = [getattr(errors, name) for name in errors.__all__ if name not in ("Phi4pplError", "Phi4pplWarning")]


def test_every_class_has_a_slug_of_its_own():
    slugs = [vars(kind)["slug"] for kind in CLASSES]
    assert len(set(slugs)) == len(CLASSES) == 16 and all(re.fullmatch("[a-z_]+", slug) for slug in slugs)


@pytest.mark.parametrize(
    ("name", "reason", "code"),
    [
        ("nx", "", "argument.nx"),
        ("args[0]", "raises", "argument.args.raises"),
        ("coupling 'a'", "shape", "argument.coupling.shape"),
        ("--prior", "choice", "argument.prior.choice"),
        ("site 'a/b'", "name", "argument.site.name"),
        ("/home/me/fields.csv", "labels", "argument.file.labels"),
        ("my fields.csv", "labels", "argument.file.labels"),
    ],
)
def test_the_code_of_an_argument_has_its_name_and_no_value(name, reason, code):
    error = ArgumentError(name, "a number", "'x'", reason=reason)
    assert error.code == code and (error.name, error.expected, error.got) == (name, "a number", "'x'")


@pytest.mark.parametrize(
    "error",
    [
        ArgumentError("nx", "a number", "'x'", "Give one.", reason="type", values={"number": 3}),
        CheckpointError("run", "is damaged", "Remove it.", "damaged"),
        GraphError("directed", "graph: directed", {"edges": 2}),
    ],
)
def test_errors_survive_another_process(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error) and str(copy) == str(error)
    assert re.fullmatch(CODE, copy.code) and {**vars(copy)} == {**vars(error)}
    with pytest.raises(TypeError):
        copy.values["number"] = 4


def test_every_error_of_the_package_states_its_reason():
    """Arguments may go without one; every other error is raised with one, in lower case."""
    root, found = Path(errors.PACKAGE), 0
    names = {kind.__name__ for kind in CLASSES}
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") not in names:
                continue
            kind, place = node.func.id, f"{path.relative_to(root)}:{node.lineno}"
            reasons = [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
            if kind == "CheckpointError":
                reasons.append(node.args[3])
            elif kind != "ArgumentError":
                reasons.append(node.args[0])
            for reason in reasons:
                if isinstance(reason, ast.Constant):
                    assert re.fullmatch("[a-z_]+", reason.value), place
                    found += 1
    assert found > 250


def test_the_helper_sees_another_code_another_number_and_another_attribute():
    def fail():
        raise OverlapError("poor", "12 effective of 100 samples")

    with raises("overlap.poor", "12", "100 samples"):
        fail()
    for says in (("overlap.disconnected",), ("overlap.poor", "1"), ("overlap.poor", "10")):
        with pytest.raises(AssertionError), raises(*says):
            fail()
    with pytest.raises(AssertionError), raises("argument.nx", got="4"):
        raise ArgumentError("nx", "a number", "3")
    with pytest.raises(AssertionError), warns("overlap.poor", "13"):
        warn(Phi4pplWarning("overlap.poor", "12 effective of 100 samples"))
