"""Averages of functions and of weights: one for linear models, far apart where hidden units are in another order."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from raising import raises, warns

from phi4ppl import lens

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 4))


def network(params, x):
    hidden = np.tanh(x @ params["one"])
    return {"hidden": hidden, "output": hidden @ params["two"]}


def weights(rng=RNG):
    return {"one": rng.normal(size=(4, 12)), "two": rng.normal(size=(12, 2)) / 4}


def test_both_averages_of_a_linear_model_are_one():
    members = [{"w": RNG.normal(size=(4, 2))} for _ in range(6)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = lens.average(lambda p, x: x @ p["w"], members, X)
    assert found.of_average == pytest.approx(found.mean, abs=1e-12) and found.distance < 1e-12 and found.agree
    assert found.mean == pytest.approx(X @ np.mean([m["w"] for m in members], axis=0))
    assert found.spread == pytest.approx(np.std([X @ m["w"] for m in members], axis=0, ddof=1))
    assert found.error == pytest.approx(found.spread / np.sqrt(6))


def test_the_distance_of_close_members_is_of_second_order():
    """It falls with the scale of the differences, by a factor of 10."""
    center, moves = weights(), [weights() for _ in range(8)]
    found = [
        lens.average(network, [{k: center[k] + s * move[k] for k in center} for move in moves], X).distance
        for s in (1e-2, 1e-3)
    ]
    assert found[0] < 0.1 and found[0] / found[1] == pytest.approx(10, rel=0.1)


def test_hidden_units_in_another_order_are_told():
    one = weights()
    order = RNG.permutation(12)
    other = {"one": one["one"][:, order], "two": one["two"][order]}
    with warns("lens.averages_disagree", "outputs"):
        found = lens.average(network, [one, other], X)
    assert found.spread == pytest.approx(0, abs=1e-12) and found.distance > 1 and found.far > 0.9
    assert found.mean == pytest.approx(network(one, X)["output"]) and "align" in str(found)


def test_scores_are_those_of_members_and_of_both_averages():
    targets = network(weights(np.random.default_rng(5)), X)["output"]
    center = weights(np.random.default_rng(5))
    members = [{k: v + 0.1 * RNG.normal(size=v.shape) for k, v in center.items()} for _ in range(12)]
    found = lens.average(network, members, X, score=lambda y: (y - targets) ** 2)
    each = np.mean([((network(m, X)["output"] - targets) ** 2).mean(axis=1) for m in members], axis=0)
    assert found.scores["members"][0] == pytest.approx(each.mean())
    assert found.scores["members"][1] == pytest.approx(each.std(ddof=1) / np.sqrt(50))
    assert found.scores["function average"][0] < found.scores["members"][0] / 3
    assert "score, function average" in str(found) and len(found.plot().axes) == 2 and "<table>" in found._repr_html_()


def test_spectral_norms_bound_what_a_layer_can_stretch():
    params = {
        "layers": [{"kernel": RNG.normal(size=(3, 3, 2, 5))}, {"kernel": RNG.normal(size=(5, 6)), "bias": np.ones(6)}]
    }
    found = lens.spectral_norms(params)
    matrix = params["layers"][1]["kernel"]
    assert list(found) == ["layers.0.kernel", "layers.1.kernel"]
    assert found["layers.1.kernel"] == pytest.approx(np.sqrt(np.linalg.eigvalsh(matrix @ matrix.T).max()))
    assert found["layers.0.kernel"] < np.sqrt((params["layers"][0]["kernel"] ** 2).sum())  # Frobenius, planted


def test_the_product_of_norms_is_that_of_each_member():
    members = [weights(), weights()]
    found = lens.average(network, members, X)
    products = [np.prod(list(lens.spectral_norms(m).values())) for m in members]
    assert found.products == pytest.approx(products) and found.norm_product[0] == pytest.approx(np.mean(products))
    assert found.norm_product[2] == pytest.approx(np.prod(list(lens.spectral_norms(found.params).values())))


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: lens.average(network, [weights()], X), "argument.members.small"),
        (lambda: lens.average(network, weights(), X), "argument.members.small"),
        (lambda: lens.average(network, [weights(), {"one": np.ones(3)}], X), "argument.members.shape"),
        (lambda: lens.average(network, [weights(), weights()], X, score=lambda y: 1 / 0), "argument.score.raises"),
    ],
)
def test_what_cannot_be_used_is_refused(call, code):
    with raises(code):
        call()
