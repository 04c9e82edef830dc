"""Symmetries of models: exact where they are exact, in closed form where they are broken, with planted faults."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from raising import raises

import phi4ppl as p4
from phi4ppl.lens import Family, Permutation, Reflection, Rotation, Sign, Translation, VectorRotation, equivariance

pytestmark = pytest.mark.compile_quickly

IMAGES = np.random.default_rng(0).normal(size=(12, 8, 8))
STENCIL = np.random.default_rng(1).normal(size=(3, 3))


def circular(params, x):
    """A circular convolution, ReLU, and the mean over the sites."""
    conv = sum(STENCIL[i + 1, j + 1] * jnp.roll(x, (i, j), (1, 2)) for i in (-1, 0, 1) for j in (-1, 0, 1))
    relu = jax.nn.relu(conv)
    return {"conv": conv, "relu": relu, "output": relu.mean(axis=(1, 2))}


def test_circular_convolutions_are_equivariant_to_rounding_and_relu_breaks_half_a_pixel(x64):
    found = equivariance(circular, None, IMAGES, [Translation((1, 0)), Translation((0.5, 0))])
    for name in ("translation by 1, 0", "translation by 0.5, 0"):
        for generator in (False, True):
            row = found.row(name, "conv", generator=generator)
            assert row.equivariant and row.equivariance.value < 1e-12
    assert found.row("translation by 1, 0", "relu").equivariance.value < 1e-12
    assert found.holds == {"translation by 1, 0": True, "translation by 0.5, 0": False}
    half = found.row("translation by 0.5, 0", "relu")
    assert not half.equivariant and half.equivariance.value > 5 * half.equivariance.error > 0
    assert found.outcome["translation by 0.5, 0"].value > 0.05


def test_a_planted_edge_is_caught(x64):
    """A convolution that is padded by zeros is not equivariant."""

    def padded(params, x):
        return {"conv": jax.scipy.signal.convolve(x, jnp.asarray(STENCIL)[None], mode="same")}

    found = equivariance(padded, None, IMAGES, Translation((1, 0)), output="equivariant")
    assert not found.holds["translation by 1, 0"] and found.outcome["translation by 1, 0"].value > 0.1


LATTICE = p4.lattice.square(4)
FIELDS = np.random.default_rng(2).normal(size=(20, 4, 4))
SYMMETRIES = [Sign(), Translation((1, 2)), Rotation(90), Rotation(180), Reflection(0), Reflection(1)]


def test_the_action_of_phi4_has_all_symmetries_of_the_lattice(x64):
    model = p4.phi4(LATTICE, w=1.0, a=1.5, b=0.2)
    every = [*SYMMETRIES, *p4.lens.automorphisms(LATTICE, 3)]
    found = equivariance(*p4.lens.read(model), FIELDS, every)
    assert all(found.holds.values()) and len(found.holds) == 9
    assert all(row.equivariant for row in found.rows if row.layer == "force" and not row.generator)
    assert all(row.equivariance.value < 1e-12 for row in found.rows if row.layer == "force" and not row.generator)


def test_a_source_breaks_the_sign_by_twice_h_times_the_sum(x64):
    source = 0.3
    model = p4.phi4(LATTICE, w=1.0, a=1.5, b=0.2, r=source)
    found = equivariance(*p4.lens.read(model), FIELDS, SYMMETRIES)
    assert [name for name, holds in found.holds.items() if not holds] == ["sign"]
    exact = -2 * source * FIELDS.sum(axis=(1, 2))
    assert np.abs(found.differences["sign"] - exact).max() < 1e-12
    actions = np.asarray(model.energy(FIELDS))
    closed = np.sqrt((exact**2).sum() / ((actions - actions.mean()) ** 2).sum())
    assert found.outcome["sign"].value == pytest.approx(closed, rel=1e-10)


def test_couplings_that_differ_by_site_break_translations_and_not_the_sign(x64):
    a = 1.5 + 0.1 * np.arange(16)
    found = equivariance(*p4.lens.read(p4.phi4(LATTICE, w=1.0, a=a, b=0.2)), FIELDS, SYMMETRIES)
    assert [name for name, holds in found.holds.items() if holds] == ["sign"]


def test_automorphisms_of_a_graph_and_a_permutation_that_is_none(x64):
    lattice = p4.lattice.chain(6, periodic=False)
    apply, params = p4.lens.read(p4.gaussian(lattice, w=0.5, a=1.0))
    fields = np.random.default_rng(3).normal(size=(10, 6))
    wrong = Permutation([1, 0, 2, 3, 4, 5], "swap")
    found = equivariance(
        apply, params, fields, [p4.lens.automorphisms(lattice, 1)[0], Permutation(range(6)[::-1], "turn"), wrong]
    )
    assert found.holds == {"automorphism 1": True, "turn": True, "swap": False}


def test_rotation_of_a_linear_map_in_closed_form(x64):
    """⟨|w·(R − 1)x|²⟩/⟨(w·x)²⟩ over all directions is |(Rᵀ − 1)w|²/|w|² = 4 sin²(θ/2); the generator has 1."""
    angle = 2 * np.pi * np.arange(8) / 8
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    found = equivariance(lambda w, x: x @ w, np.array([0.6, -1.3]), x, VectorRotation(30))
    name = "rotation of 0, 1 by 30°"
    assert found.outcome[name].value == pytest.approx(2 * np.sin(np.pi / 12), rel=1e-12)
    assert found.row(name, "output", generator=True).invariance.value == pytest.approx(1.0, rel=1e-12)
    radius = equivariance(lambda w, x: (x**2).sum(axis=1) + 0 * x[:, 0], None, 1.0 * x, VectorRotation(30))
    assert radius.holds[name]


def test_outputs_with_a_given_representation(x64):
    """f(x) = w x³ is odd: the sign acts on it as −1."""
    cube = [("cube", lambda x: x**3)]
    x = np.random.default_rng(4).normal(size=(20, 3))
    assert not equivariance(cube, None, x, Sign()).holds["sign"]
    for output in ("equivariant", lambda y: -y, Sign(), {"sign": Sign()}):
        assert equivariance(cube, None, x, Sign(), output=output).holds["sign"]
    assert not equivariance(cube, None, x, Sign(), output=lambda y: 2 * y).holds["sign"]


def test_families_of_users_have_their_generator(x64):
    """(1 + t)x in a model of degree 2: rate 2, relative to the fluctuation of the output."""
    x = np.random.default_rng(5).normal(size=(30, 1))
    scaling = Family(lambda x, t: (1 + t) * x, 0.1, "contrast")
    found = equivariance([("square", lambda x: x[:, 0] ** 2)], None, x, scaling)
    y = x[:, 0] ** 2
    closed = 2 * np.sqrt((y**2).sum() / ((y - y.mean()) ** 2).sum())
    assert found.row("contrast", "square", generator=True).invariance.value == pytest.approx(closed, rel=1e-12)
    assert found.outcome["contrast"].value == pytest.approx(closed * 0.105, rel=1e-12)


def test_models_of_numpy_have_generators_by_differences():
    found = equivariance([("norm", lambda x: np.sqrt((np.asarray(x) ** 2 * [1.0, 2.0]).sum(axis=1)))], None,
                         np.random.default_rng(6).normal(size=(30, 2)), VectorRotation(10))  # fmt: skip
    x = np.random.default_rng(6).normal(size=(30, 2))
    y = np.sqrt((x**2 * [1.0, 2.0]).sum(axis=1))
    slope = (-x[:, 0] * x[:, 1] + 2 * x[:, 1] * x[:, 0]) / y
    closed = np.sqrt((slope**2).sum() / ((y - y.mean()) ** 2).sum())
    row = found.row("rotation of 0, 1 by 10°", "norm", generator=True)
    assert row.invariance.value == pytest.approx(closed, rel=1e-6) and "central difference" in found.notes[0]


def test_turns_compose_and_agree_with_quarter_turns():
    y, x = np.mgrid[:48, :48]
    image = np.exp(-((x - 28) ** 2 + (y - 24) ** 2) / 25)[
        None
    ]  # what the edges and the highest modes cut off is below 1e-5
    one, two = Rotation(40), Rotation(50)
    turned = two.act(one.act(image, (1, 2), (1.0, 1.0)), (1, 2), (1.0, 1.0))
    assert np.abs(turned - np.rot90(image, 1, (1, 2))).max() < 1e-5
    full = [Rotation(36)] * 10
    there = image
    for each in full:
        there = each.act(there, (1, 2), (1.0, 1.0))
    assert np.abs(there - image).max() < 1e-5


def test_layers_of_half_the_resolution_are_shifted_by_half(x64):
    pooled = [("pool", lambda x: x.reshape(len(x), 4, 2, 4, 2).mean(axis=(2, 4)))]
    found = equivariance(pooled, None, IMAGES, [Translation((2, 0)), Translation((1, 0))], output="equivariant")
    assert found.holds == {"translation by 2, 0": True, "translation by 1, 0": False}


def test_what_does_not_act_is_refused():
    vectors = np.ones((5, 3))
    for given, code in (
        ({"turn": Rotation(90)}, "argument.data.shape"), ([], "argument.transformations"), (3, "argument.transformations"),
        ([Sign(), Sign()], "argument.transformations.name"), (Permutation([1, 0]), "argument.data.shape"),
    ):  # fmt: skip
        with raises(code):
            equivariance([np.tanh], None, vectors, given)
    with raises("argument.order"):
        Permutation([0, 0, 1])
    with raises("argument.output"):
        equivariance([np.tanh], None, vectors, Sign(), output="odd")
    with raises("argument.output.shape"):
        equivariance([lambda x: x[:, 0]], None, IMAGES, Translation(1), output="equivariant")
    with raises("argument.transformation.name"):
        equivariance([np.tanh], None, vectors, Sign()).row("sign", "other")


def test_the_table_says_what_is_exact(x64):
    found = equivariance(circular, None, IMAGES, Translation((1, 0)))
    text = str(found)
    assert "exact" in text and "output under translation by 1, 0: exact" in text
    assert found._repr_html_().count("<tr>") == 1 + len(found.rows) == 7
