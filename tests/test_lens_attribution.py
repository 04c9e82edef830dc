"""Integrated gradients close their sum; perturbations grow by the exact factor of a layer."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from raising import raises

from phi4ppl import lens

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 5))
WEIGHTS = {"one": RNG.normal(size=(5, 16)) / np.sqrt(5), "two": RNG.normal(size=(16, 3)) / 4}


def smooth(params, x):
    hidden = jnp.tanh(x @ jnp.asarray(params["one"], x.dtype))
    return {"hidden": hidden, "output": jax.nn.softplus(hidden @ jnp.asarray(params["two"], x.dtype))}


def test_the_sum_closes_to_1e_8_on_a_smooth_model():
    with jax.enable_x64(True):
        found = lens.attribution(smooth, WEIGHTS, X, output=1)
        few = lens.attribution(smooth, WEIGHTS, X, output=1, num_nodes=2)
    assert found.largest_gap < 1e-8 and found.complete and found.values.shape == X.shape
    assert few.largest_gap > 1e-5
    assert found.values.sum(axis=1) == pytest.approx(found.change, abs=1e-8)
    assert f"{found.largest_gap:.2g}" in str(found)


def test_the_gap_of_midpoints_is_that_of_the_reference():
    """50 midpoints leave 10⁻⁵ to 10⁻²; a gap that were computed from the shares alone would not tell."""
    with jax.enable_x64(True):
        exact = lens.attribution(smooth, WEIGHTS, 2 * X, output=0)
        slope = jax.grad(lambda z: jnp.sum(smooth(WEIGHTS, z)["output"][:, 0]))
        middle = np.mean([np.asarray(slope(jnp.asarray((k + 0.5) / 50 * 2 * X))) for k in range(50)], axis=0)
    gap = np.abs((2 * X * middle).sum(axis=1) - exact.change).max()
    assert 1e-5 < gap < 1e-2 and exact.largest_gap < 1e-7


def test_a_linear_model_owes_each_input_its_term():
    weights = np.array([1.0, -2.0, 0.0, 3.0, 0.5])
    base = np.ones(5)
    found = lens.attribution([lambda x: x @ jnp.asarray(weights, x.dtype)], None, X, baseline=base)
    assert found.values == pytest.approx((X - base) * weights, abs=1e-5)
    assert found.values != pytest.approx(X * weights, abs=1e-2)  # without the baseline, planted
    assert found.rows()[0][0] == "3"
    each = lens.attribution([lambda x: x @ jnp.asarray(weights, x.dtype)], None, X, baseline=X)
    assert np.all(each.values == 0)


def test_a_kink_on_the_way_leaves_a_gap_that_is_told():
    found = lens.attribution([lambda x: jax.nn.relu(x[:, 0] - 0.43)], None, [[1.0, 0.0]], num_nodes=3)
    assert not found.complete and "num_nodes" in str(found)
    assert lens.attribution([lambda x: jax.nn.relu(x[:, 0] - 0.43)], None, [[1.0, 0.0]], num_nodes=400).complete


def test_a_function_of_the_output_is_an_output():
    found = lens.attribution(smooth, WEIGHTS, X, output=jax.nn.logsumexp)
    assert found.complete and found.values.shape == X.shape


def relu_network(key, widths, sigma_w):
    layers = []
    for k, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        w = jax.random.normal(jax.random.fold_in(key, k), (a, b)) * sigma_w / np.sqrt(a)
        layers.append((f"layer {k}", partial(lambda w, h: jax.nn.relu(h @ w), w)))
    return layers


@pytest.mark.parametrize("sigma_squared", [2.0, 1.2])
def test_the_susceptibility_of_relu_is_half_the_variance_of_its_weights(sigma_squared):
    """Mean over 30 networks; a deviation above 4.5 standard errors has a probability of 7e-6 in each of 3 layers."""
    rows = []
    for k in range(30):
        x = np.random.default_rng(k).normal(size=(8, 40))
        network = relu_network(jax.random.key(k), (40, 60, 60, 60), np.sqrt(sigma_squared))
        rows.append(lens.propagation(network, None, x, num_directions=4).susceptibility)
    mean, error = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1) / np.sqrt(30)
    assert np.all(np.abs(mean - sigma_squared / 2) < 4.5 * error) and np.all(error < 0.05)
    assert np.all(np.abs(mean - sigma_squared) > 4.5 * error)  # without the half of the units that are off


def test_the_growth_and_the_map_of_a_linear_layer_are_those_of_its_matrix():
    w = RNG.normal(size=(5, 7))
    found = lens.propagation([("linear", lambda x: x @ jnp.asarray(w, x.dtype))], None, X, num_directions=400)
    assert found.growth[0] == pytest.approx((w**2).sum() / 7, rel=0.05)  # ⟨|vw|²⟩/7 over ⟨|v|²⟩/5
    assert found.maps["linear"] == pytest.approx((w**2).mean(axis=1), rel=0.15)
    assert np.argmax(found.maps["linear"]) == np.argmax((w**2).sum(axis=1))


def test_layers_keep_their_order_whatever_their_names():
    """Transformations of JAX sort dicts by key."""
    found = lens.propagation([("z", lambda x: 2 * x), ("a", lambda x: 3 * x), ("m", lambda x: x)], None, X)
    assert found.names == ("z", "a", "m") and found.susceptibility == pytest.approx([4, 9, 1], rel=1e-5)
    assert found.growth == pytest.approx([4, 36, 36], rel=1e-5)
    assert found.maps["a"] == pytest.approx(np.full(5, 36 / 5), rel=0.6)


def test_maps_and_shares_are_drawn_over_pictures():
    pictures = RNG.normal(size=(6, 8, 8))
    layers = [("blur", lambda x: (x + jnp.roll(x, 1, axis=1)) / 2), ("mean", lambda h: h.mean(axis=(1, 2)))]
    found = lens.propagation(layers, None, pictures)
    assert found.maps["blur"].shape == (8, 8) and len(found.plot().axes) == 3
    shares = lens.attribution(layers, None, pictures)
    assert len(shares.plot().axes) >= 6 and "<table>" in shares._repr_html_() and "<table>" in found._repr_html_()
    assert "susceptibility" in str(found)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: lens.attribution(smooth, WEIGHTS, X), "argument.output.missing"),
        (lambda: lens.attribution(smooth, WEIGHTS, X, output=3), "argument.output.choice"),
        (lambda: lens.attribution(smooth, WEIGHTS, X, output=lambda o: o), "argument.output.returns"),
        (lambda: lens.attribution(smooth, WEIGHTS, X, output=0, baseline=np.ones(3)), "argument.baseline.shape"),
        (lambda: lens.attribution(smooth, WEIGHTS, {"x": X}, output=0), "argument.data.shape"),
        (lambda: lens.attribution([lambda x: np.tanh(np.asarray(x)).sum(axis=1)], None, X), "argument.apply.raises"),
        (lambda: lens.propagation(smooth, WEIGHTS, X[:3]), "argument.data.small"),
        (lambda: lens.propagation(smooth, WEIGHTS, (X, X)), "argument.data.shape"),
    ],
)
def test_what_cannot_be_used_is_refused(call, code):
    with raises(code):
        call()
