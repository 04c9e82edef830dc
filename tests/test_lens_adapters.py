"""Models of other libraries are read layer by layer, unchanged, in the order in which they compute."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from raising import raises

import phi4ppl as p4

pytestmark = pytest.mark.compile_quickly

X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


def shapes(apply, params, x) -> dict:
    return {name: values.shape for name, values in p4.lens.layers(apply, params, x).items()}


def differentiable(apply, params, x) -> bool:
    """Whether a derivative of every layer with respect to the input is finite."""
    x = jnp.asarray(x)
    slopes = jax.jvp(lambda x: tuple(apply(params, x).values()), (x,), (jnp.ones_like(x),))[1]
    return all(bool(jnp.isfinite(slope).all()) for slope in slopes)


# --- lists of layers and functions


def test_a_list_of_layers_is_a_model():
    found = p4.lens.layers([("double", lambda x: 2 * x), np.square, lambda h: h.sum(axis=1)], None, X)
    assert list(found) == ["double", "1 square", "layer 2"]
    assert np.allclose(found["layer 2"], (4 * X.astype(float) ** 2).sum(axis=1), rtol=1e-6)


def test_one_array_is_the_output():
    assert shapes(lambda params, x: params * x, 2.0, X) == {"output": (6, 3)}


def test_fields_of_a_run_are_examples():
    model = p4.gaussian(p4.lattice.square(4), w=1.0, a=2.5)
    tree = p4.sample(model, num_warmup=50, num_samples=100, num_chains=2)
    found = shapes(*p4.lens.read(model), tree)
    assert found["force"][1:] == (4, 4) and found["action"] == found["field"][:1]


@pytest.mark.parametrize(
    ("apply", "params", "x", "code"),
    [
        (3, None, X, "argument.apply"),
        ([], None, X, "argument.apply"),
        ([lambda x: x, 3], None, X, "argument.apply"),
        ([("a", lambda x: x), ("a", lambda x: x)], None, X, "argument.apply.name"),
        ([lambda x: x], {"w": 1}, X, "argument.params.unused"),
        (lambda params, x: None, None, X, "argument.apply.returns"),
        (lambda params, x: {}, None, X, "argument.apply.returns"),
        (lambda params, x: x @ params, np.ones(7), X, "argument.apply.raises"),
        (lambda params, x: {"sum": x.sum(axis=0)}, None, X, "argument.layer.shape"),
        (lambda params, x: {"root": np.log(0 * x - 1)}, None, X, "argument.layer.finite"),
        (lambda params, x: x, None, [1.0, np.nan], "argument.x.finite"),
        (lambda params, x: x, None, (X, X[:2]), "argument.x.shape"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_is_no_model_is_refused(apply, params, x, code):
    with raises(code):
        p4.lens.layers(apply, params, x)


# --- Flax


def linen_model():
    nn = pytest.importorskip("flax.linen")

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            h = nn.Dense(5, name="wide")(x)
            h = nn.BatchNorm(use_running_average=True, name="norm")(h)
            return x + nn.Dense(3, name="back")(nn.relu(h))

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            block = Block(name="z_block")
            return nn.Dense(2, name="a_head")(block(block(x)))

    model = Model()
    return model, model.init(jax.random.key(0), X)


def test_linen_modules_are_read_in_order_and_left_alone():
    model, variables = linen_model()
    before = jax.tree.map(np.array, variables)
    apply, params = p4.lens.read(model, variables)
    assert shapes(apply, params, X) == {
        "z_block.wide": (6, 5), "z_block.norm": (6, 5), "z_block.back": (6, 3), "z_block": (6, 3),
        "z_block.wide #2": (6, 5), "z_block.norm #2": (6, 5), "z_block.back #2": (6, 3), "z_block #2": (6, 3), "output": (6, 2),
    }  # fmt: skip
    found = p4.lens.layers(apply, params, X)
    assert np.array_equal(found["output"], np.asarray(model.apply(variables, X), float))
    dense = variables["params"]["z_block"]["wide"]
    assert np.allclose(found["z_block.wide"], X @ dense["kernel"] + np.asarray(dense["bias"])[None], atol=1e-5)
    assert jax.tree.all(jax.tree.map(np.array_equal, before, variables)) and differentiable(apply, params, X)
    with raises("argument.variables"):
        p4.lens.read(model)


def test_nnx_modules_are_read_in_order_and_left_alone():
    nnx = pytest.importorskip("flax.nnx")

    class Block(nnx.Module):
        def __init__(self, rngs):
            self.wide, self.norm = nnx.Linear(3, 5, rngs=rngs), nnx.BatchNorm(5, rngs=rngs)
            self.back = nnx.Linear(5, 3, rngs=rngs)

        def __call__(self, x):
            return x + self.back(nnx.relu(self.norm(self.wide(x))))

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.z_block, self.dropout = Block(rngs), nnx.Dropout(0.5, rngs=rngs)
            self.a_head = nnx.Sequential(nnx.Linear(3, 4, rngs=rngs), nnx.relu, nnx.Linear(4, 2, rngs=rngs))

        def __call__(self, x):
            return self.a_head(self.dropout(self.z_block(x)))

    model = Model(nnx.Rngs(0))
    apply, params = p4.lens.read(model)
    found = p4.lens.layers(apply, params, X)
    assert [name for name in found if name != "dropout"] == [
        "z_block.wide", "z_block.norm", "z_block.back", "z_block", "a_head.layers.0", "output",
    ]  # fmt: skip
    assert not model.dropout.deterministic  # evaluation mode is that of a copy
    assert np.allclose(found["z_block.wide"], model.z_block.wide(X), atol=1e-6)
    assert differentiable(apply, params, X)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, params)
    assert not np.allclose(p4.lens.layers(apply, doubled, X)["output"], found["output"])


# --- Equinox


def test_equinox_modules_are_read_in_order_and_left_alone():
    eqx = pytest.importorskip("equinox")

    class Model(eqx.Module):
        z_conv: eqx.nn.Conv2d
        norm: eqx.nn.BatchNorm
        a_head: eqx.nn.Sequential

        def __init__(self, key):
            self.z_conv, self.norm = (
                eqx.nn.Conv2d(1, 3, 3, padding=1, key=key),
                eqx.nn.BatchNorm(3, "batch", mode="batch"),
            )
            linear = eqx.nn.Linear(48, 4, key=key)
            self.a_head = eqx.nn.Sequential(
                [linear, eqx.nn.Lambda(jax.nn.relu), eqx.nn.Dropout(0.5), eqx.nn.Linear(4, 2, key=key)]
            )

        def __call__(self, x, state):
            h, state = self.norm(jax.nn.relu(self.z_conv(x)), state)
            return self.a_head(h.reshape(-1)), state

    model, state = eqx.nn.make_with_state(Model)(jax.random.key(0))
    images = np.random.default_rng(1).normal(size=(6, 1, 4, 4)).astype(np.float32)
    apply, params = p4.lens.read(model, state)
    found = p4.lens.layers(apply, params, images)
    assert {name: values.shape for name, values in found.items()} == {
        "z_conv": (6, 3, 4, 4), "norm": (6, 3, 4, 4), "a_head.layers[0]": (6, 4), "a_head.layers[1]": (6, 4), "output": (6, 2),
    }  # fmt: skip
    assert apply.channels == "first" and differentiable(apply, params, images)
    assert np.allclose(found["a_head.layers[1]"], np.maximum(found["a_head.layers[0]"], 0))
    evaluated = eqx.nn.inference_mode(model)
    direct = jax.vmap(lambda x: evaluated(x, state)[0])(images)
    assert np.allclose(found["output"], direct, atol=1e-6)


def test_equinox_models_without_state_agree_with_themselves():
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.MLP(3, 2, 5, 2, key=jax.random.key(0))
    apply, params = p4.lens.read(model)
    found = p4.lens.layers(apply, params, X)
    assert list(found) == ["layers[0]", "layers[1]", "layers[2]", "output"]
    assert np.array_equal(found["output"], np.asarray(jax.vmap(model)(X), float))


# --- scikit-learn


def test_perceptrons_and_pipelines_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(2)
    x = rng.normal(size=(80, 3))
    y = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0.5)
    perceptron = MLPClassifier((7, 5), activation="tanh", solver="lbfgs", max_iter=30, random_state=0, tol=1.0).fit(
        x, y
    )
    found = p4.lens.layers(*p4.lens.read(perceptron), x)
    assert list(found) == ["hidden 1", "hidden 2", "logits", "output"]
    assert np.allclose(found["output"], perceptron.predict_proba(x), atol=1e-5)
    assert differentiable(*p4.lens.read(perceptron), X)
    pipe = make_pipeline(
        StandardScaler(), MLPClassifier((4,), solver="lbfgs", max_iter=30, random_state=0, tol=1.0)
    ).fit(x, y)
    found = p4.lens.layers(*p4.lens.read(pipe), x)
    assert list(found) == ["standardscaler", "hidden 1", "logits", "output"]
    assert np.allclose(found["output"], pipe.predict_proba(x), atol=1e-5)
    pipe = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
    assert np.allclose(p4.lens.layers(*p4.lens.read(pipe), x)["output"], pipe.predict_proba(x))
    with raises("argument.estimator.raises"):
        p4.lens.layers(*p4.lens.read(make_pipeline(StandardScaler(), LogisticRegression())), x)


# --- this library


def test_machines_are_read_in_the_units_of_their_data():
    x = np.random.default_rng(3).normal(2.0, 3.0, size=(50, 4))
    estimator = p4.networks.Phi4BernoulliRBM(3, n_epochs=1, random_state=0).fit(x)
    found = p4.lens.layers(*p4.lens.read(estimator), x)
    assert np.allclose(found["hidden"], estimator.transform(x), atol=1e-6)
    assert np.allclose(found["reconstruction"], estimator.reconstruct(x), atol=1e-4)
    above = p4.networks.BernoulliBernoulliRBM(2, n_epochs=1, random_state=0).fit(found["hidden"])
    stack = p4.networks.DeepPhi4Network.from_fitted([estimator, above])
    found = p4.lens.layers(*p4.lens.read(stack), x)
    assert list(found) == ["hidden 1", "hidden 2"]
    assert np.allclose(found["hidden 2"], stack.transform(x), atol=1e-6)


def test_a_lattice_model_is_its_action_and_force():
    model = p4.phi4(p4.lattice.square(4), w=1.0, a=1.5, b=0.2)
    fields = np.random.default_rng(4).normal(size=(5, 4, 4)).astype(np.float32)
    apply, params = p4.lens.read(model)
    found = p4.lens.layers(apply, params, fields)
    assert np.allclose(found["action"], model.energy(fields), rtol=1e-5)
    neighbors = sum(np.roll(fields, s, a) for s in (1, -1) for a in (1, 2))
    assert np.allclose(found["force"], 2 * 1.5 * fields + 4 * 0.2 * fields**3 - neighbors, atol=1e-4)
    assert apply.channels is None and set(params) == {"w", "a", "b"}


def test_what_no_adapter_knows_is_refused():
    for given, code in ((object(), "argument.model"), (np.ones(3), "argument.model")):
        with raises(code):
            p4.lens.read(given)
    with raises("argument.variables.unused"):
        p4.lens.read(p4.gaussian(p4.lattice.chain(3), w=0.1, a=1.0), {})
    for function, given in ((p4.lens.from_machine, 3), (p4.lens.from_model, 3), (p4.lens.from_sklearn, 3)):
        with pytest.raises(p4.errors.ArgumentError, match="got a int"):
            function(given)


def test_a_planted_order_of_layers_is_noticed():
    """The names of a linen module in alphabetic order are not the order in which it computes."""
    model, variables = linen_model()
    names = [name for name in shapes(*p4.lens.read(model, variables), X) if name != "output"]
    assert names != sorted(names)
