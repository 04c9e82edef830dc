"""Odd inputs of the lens are measured, or refused by an error that names the argument; stated errors cover as they should."""

from __future__ import annotations

import numpy as np
import pytest
from raising import raises

import phi4ppl as p4
from phi4ppl import lens
from phi4ppl.errors import Phi4pplError

pytestmark = pytest.mark.compile_quickly

X = np.random.default_rng(0).normal(size=(60, 4))
NET = [("tanh", np.tanh), ("sum", lambda h: h.sum(axis=1))]

ODD = {
    "missing": np.where(X > 2, np.nan, X), "empty": np.zeros((0, 4)), "one": X[:1], "scalar": 3.0, "none": None, "text": "abc",
    "object": object(), "constant": np.ones((60, 4)), "whole": np.arange(240).reshape(60, 4), "huge": X * 1e200,
    "tiny": X * 1e-200, "vector": X[:, 0], "bool": X > 0, "complex": X + 1j, "ragged": [[1, 2], [3]], "dict": {"a": X},
}  # fmt: skip

CALLS = {
    "layers": lambda given: lens.layers(NET, None, given),
    "occupation": lambda given: lens.occupation(NET, None, given),
    "other": lambda given: lens.occupation(NET, None, X, other=given),
    "vacuum": lambda given: lens.occupation(NET, None, X, vacuum=given),
    "apply": lambda given: lens.occupation(given, None, X),
    "equivariance": lambda given: lens.equivariance(NET, None, given, [lens.Sign(), lens.Reflection(0)]),
    "transformations": lambda given: lens.equivariance(NET, None, X, given),
    "output": lambda given: lens.equivariance(NET, None, X, lens.Sign(), output=given),
    "axes": lambda given: lens.equivariance(NET, None, X, lens.Sign(), axes=given),
    "Translation": lambda given: lens.Translation(given),
    "Rotation": lambda given: lens.Rotation(given),
    "VectorRotation": lambda given: lens.VectorRotation(30, given),
    "Reflection": lambda given: lens.Reflection(given),
    "Permutation": lambda given: lens.Permutation(given),
    "automorphisms": lambda given: lens.automorphisms(p4.lattice.chain(4), given),
    "wick": lambda given: lens.wick(NET, None, given),
    "ensemble": lambda given: lens.wick(lambda params, x: x, given, X, over="params"),
    "cumulants": lambda given: lens.cumulants(given),
    "quadruples": lambda given: lens.cumulants(X, quadruples=given),
    "renormalization": lambda given: lens.renormalization(NET, None, given),
    "labels": lambda given: lens.renormalization(NET, None, X, labels=given),
    "alignment": lambda given: lens.alignment(X, given),
    "read": lambda given: lens.read(given),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_odd_inputs_are_measured_or_refused_in_words(name):
    for kind, given in ODD.items():
        try:
            found = CALLS[name](given)
            str(found), getattr(found, "_repr_html_", str)()
        except Phi4pplError as error:
            assert error.code.startswith("argument."), (kind, error)


@pytest.mark.parametrize(
    ("call", "given", "code"),
    [
        ("layers", "huge", "argument.layer.scale"), ("layers", "ragged", "argument.x.shape"),
        ("renormalization", "huge", "argument.data.scale"), ("alignment", "scalar", "argument.two.small"),
        ("cumulants", "huge", "argument.samples.scale"), ("labels", "ragged", "argument.labels.shape"),
        ("quadruples", "ragged", "argument.quadruples.shape"), ("Permutation", "ragged", "argument.order.shape"),
        ("output", "vector", "argument.output"), ("axes", "text", "argument.axes"), ("axes", "vector", "argument.axes"),
        ("Rotation", "text", "argument.angle"), ("VectorRotation", "one", "argument.plane"),
        ("Reflection", "none", "argument.axis"),
    ],
)  # fmt: skip
def test_messages_name_the_argument(call, given, code):
    net = CALLS[call]
    if (call, given) == ("layers", "huge"):
        net = lambda x: lens.layers([lambda h: h], None, x)  # noqa: E731  tanh would tame it
    with raises(code):
        net(ODD[given])


def rotated(rng):
    found = lens.equivariance(
        lambda w, x: x @ w, np.array([0.6, -1.3]), rng.normal(size=(100, 2)), lens.VectorRotation(30)
    )
    return found.row("rotation of 0, 1 by 30°", "output").invariance


def relu(key):
    net = [("relu", lambda x: np.maximum(x, 0))]
    return lambda rng: lens.occupation(net, None, rng.normal(size=(300, 4)))["relu"].averages[key]


def plain(name, scales):
    return lambda rng: getattr(
        lens.occupation([lambda x: x], None, rng.normal(size=(300, 4)) * scales)["layer 0"], name
    )


MIX = np.random.default_rng(1).normal(size=(4, 3))


def mixed(rng):
    x = rng.normal(size=(200, 4))
    return lens.alignment(x, x @ MIX + rng.normal(size=(200, 3)))


MIXED = np.linalg.norm(MIX) ** 2 / (2 * np.linalg.norm(MIX.T @ MIX + np.eye(3)))
EXACT = {
    "mean": ((2 * np.pi) ** -0.5, relu("mean")),
    "second moment": (0.5, relu("second_moment")),
    "fourth ratio": (6.0, relu("fourth_ratio")),
    "silent": (0.5, relu("silent")),
    "participation": (225 / 99, plain("participation", np.array([3.0, 2.0, 1.0, 1.0]))),
    "kurtosis": (-1.2, lambda rng: lens.cumulants(rng.uniform(size=(100, 1))).average["kurtosis"]),
    "alignment": (MIXED, mixed),
    "rotation": (2 * np.sin(np.pi / 12), rotated),
}


@pytest.mark.parametrize("name", EXACT)
def test_errors_cover_as_often_as_they_say(name):
    """The exact value within one error in 55 to 80 % of 200 data sets; of 67 ± 3.3 %, outside that once in 5,000 seeds."""
    exact, measure = EXACT[name]
    found = np.array([measure(np.random.default_rng(7000 + k)) for k in range(200)])
    share = np.mean(np.abs(found[:, 0] - exact) < found[:, 1])
    assert 0.55 <= share <= 0.8, share
    planted = np.mean(np.abs(found[:, 0] - exact) < found[:, 1] / 2)
    assert planted < 0.55  # errors that are half as large are rejected
