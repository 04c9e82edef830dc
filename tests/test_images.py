"""Images: open boundaries, a mean that differs from site to site, the way up against interpolation, and features by level."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from raising import raises

import phi4ppl as p4
from phi4ppl.renormalization import (
    BellWilson,
    Bicubic,
    ConditionalField,
    Copy,
    block,
    compare_features,
    exact_conditional_field,
    flow,
    held_out_errors,
    train_conditional_field,
)
from phi4ppl.renormalization.basis import basis_model, basis_of
from phi4ppl.renormalization.operators import measure_operators

pytestmark = pytest.mark.compile_quickly
SIDE, NOISE = 8, 0.1
OPEN = p4.lattice.square(SIDE, periodic=False)
COUPLINGS = {"w": 0.9, "a": 2.0, "e_1": -0.3, "e_2": -0.5}
EDGES = ("w", "a", "e_1", "e_2")
SETTINGS = {"eta": 0.0, "periodic": False, "subtract_mean": True, "gaussian": True}


def precision_of(model) -> np.ndarray:
    return np.asarray(p4.exact.gaussian_precision(model), float)


def mean_image() -> np.ndarray:
    x, y = np.mgrid[:SIDE, :SIDE]
    return 2 * np.cos(x / 2) + 0.3 * y


def images(number: int, seed: int) -> np.ndarray:
    """Independent Gaussian images with open boundaries, weaker at the edges, and a mean image: shape (number, 8, 8)."""
    precision = precision_of(basis_model(basis_of(EDGES, 2), (SIDE, SIDE), COUPLINGS, (False, False)))
    noise = np.random.default_rng(seed).normal(size=(len(precision), number))
    return np.linalg.solve(np.linalg.cholesky(precision).T, noise).T.reshape(number, SIDE, SIDE) + mean_image()


def block_matrix() -> np.ndarray:
    """B of φ̄ = Bφ for images of 8²."""
    x, y = np.divmod(np.arange(SIDE**2), SIDE)
    matrix = np.zeros((SIDE**2 // 4, SIDE**2))
    matrix[x // 2 * (SIDE // 2) + y // 2, np.arange(SIDE**2)] = 0.25
    return matrix


def pairs(number: int, seed: int):
    fine = images(number, seed)
    return block(fine, BellWilson(alpha=NOISE**-2), lattice=OPEN, seed=seed)[1][0], fine


@pytest.fixture(scope="module")
def lift():
    return train_conditional_field(*pairs(3000, 1), **SETTINGS)


# --- blocking, operators and flows


def test_images_are_one_chain():
    fine = images(5, 0)
    blocked = block(fine, lattice=OPEN, levels=2)
    assert blocked[0].shape == (1, 5, SIDE, SIDE) and blocked.lattices[2] == p4.lattice.square(2, periodic=False)
    assert blocked[1][0] == pytest.approx((fine.reshape(5, -1) @ block_matrix().T).reshape(5, 4, 4), abs=1e-14)
    with raises("argument.fields.shape", "images"):
        block(fine)


@pytest.mark.parametrize("wraps", [(False, False), (True, False)])
def test_operators_stop_at_open_boundaries(wraps):
    """Every term as a model, whose cliques are listed, and as an operator, by slices of a halo."""
    basis = basis_of(["w", "w_diagonal", "u", "v", "b", *(() if any(wraps) else ("e_1", "e_2"))], 2)
    values = dict(zip(basis, np.random.default_rng(0).normal(size=len(basis)), strict=True))
    phi = np.random.default_rng(1).normal(size=(1, 3, 5, 6))
    measured = measure_operators(phi, tuple(basis.values()), wraps)
    signs = [-1 if name.startswith("w") else 1 for name in basis]
    expected = sum(s * values[name] * measured[..., k] for k, (s, name) in enumerate(zip(signs, basis, strict=True)))
    model = basis_model(basis, (5, 6), values, wraps)
    assert np.asarray(model.energy(phi)) == pytest.approx(expected, rel=1e-5)
    by_hand = np.sum(phi[..., :-1] * phi[..., 1:]) + np.sum(phi[..., 1:, :] * phi[..., :-1, :])
    assert measured[..., 0].sum() == pytest.approx(by_hand + wraps[0] * np.sum(phi[..., 0, :] * phi[..., -1, :]))


def test_couplings_of_images_are_recovered():
    """Four couplings and their mean image at level 0, within four errors: one outside once in 4,000 seeds.

    The mean image has to be subtracted; left in, the couplings are far away.
    """
    fine = images(3000, 2)
    settings = {"basis": EDGES, "levels": 1, "lattice": OPEN, "check": False}
    found = flow(fine, "average", subtract_mean=True, **settings)
    for name, exact in COUPLINGS.items():
        assert abs(found.couplings[name][0] - exact) < 4 * found.errors[name][0] < 0.5, name
    wrong = flow(fine, "average", **settings)
    assert abs(wrong.couplings["w"][0] - COUPLINGS["w"]) > 10 * found.errors["w"][0]


def test_images_of_another_kind_than_the_basis_are_caught():
    """Ten held-out operators, odd ones among them, below 3.7 errors: one above once in 450 seeds.

    Squares of the same images, which are skewed, are far from all symmetric models.
    """
    settings = {"basis": EDGES, "levels": 1, "lattice": OPEN, "num_samples": 300, "num_chains": 2, "seed": 4}
    right = flow(images(3000, 2), "average", subtract_mean=True, **settings).z_scores[0]
    assert "phi3" in right and max(map(abs, right.values())) < 3.7
    skewed = images(3000, 2) - mean_image()
    wrong = flow(skewed + 0.3 * skewed**2, "average", subtract_mean=True, **settings)
    assert abs(wrong.z_scores[0]["phi3"]) > 10 and any("Level 0" in text for text in wrong.warnings)


def test_what_images_are_refused():
    with raises("argument.basis.edges"):
        flow(images(20, 0)[None], "average", basis=EDGES, levels=1)
    with raises("argument.data.constant"):  # the corners of scanned digits, for example
        flow(images(20, 0) * (mean_image() > 1), "average", lattice=OPEN, levels=1, subtract_mean=True)


# --- the way up


def test_conditional_mean_is_that_of_the_gaussian(lift):
    """S(φ | φ') is known: mean m + Q⁻¹ α Bᵀ(φ' − Bm) with Q the precision of the images plus α BᵀB.

    The solve agrees with the closed form at the couplings of the lift to rounding, and with that of the images within what
    3,000 pairs leave: the excess of the squared error is 0.1 % here.
    """
    coarse, fine = pairs(500, 3)
    found = lift.mean(coarse)
    assert found.sweeps == 0 and not found.error.any()
    model = lift.model(coarse[0])
    gaussian = model.select(lambda form: form.name != "b")
    own = -np.linalg.solve(precision_of(gaussian), np.asarray(model.couplings["r"], float))
    assert lift.couplings["b"] == lift.errors["b"] == 0
    assert found.value[0].reshape(-1) == pytest.approx(lift.center.reshape(-1) + own, abs=1e-4)
    prior = precision_of(basis_model(basis_of(EDGES, 2), (SIDE, SIDE), COUPLINGS, (False, False)))
    means = block_matrix()
    full = prior + NOISE**-2 * means.T @ means
    flat, m = coarse.reshape(len(coarse), -1), mean_image().reshape(-1)
    best = m + np.linalg.solve(full, NOISE**-2 * means.T @ (flat - means @ m).T).T
    errors = [np.mean((x.reshape(len(fine), -1) - fine.reshape(len(fine), -1)) ** 2) for x in (best, found.value)]
    assert errors[0] == pytest.approx(np.trace(np.linalg.inv(full)) / SIDE**2, rel=0.05)
    assert errors[1] < 1.01 * errors[0]


def test_couplings_with_open_boundaries_are_the_exact_ones(lift):
    """Score matching of pairs: eight couplings within 4.5 errors, one outside once in 18,000 seeds."""
    q = NOISE**-2 / 16
    exact = {"w_in": 0.9 - q, "w_out": 0.9, "g_2": -q, "a": 2 + q / 2, "p": NOISE**-2 / 4, "e_1": -0.3, "e_2": -0.5}
    for name, value in exact.items():
        assert abs(lift.couplings[name] - value) < 4.5 * lift.errors[name], name


def test_draws_with_open_boundaries_have_their_law():
    """Means and variances of a Gaussian case at every site within 4.5 errors: false alarms in 2e-4 of seeds."""
    lift = exact_conditional_field(
        p4.phi4(p4.lattice.square(4, periodic=False), w=0.9, a=1.9, b=0.0), alpha=10.0, eta=0.0
    )
    couplings = lift.couplings | {"e_1": -0.2, "e_2": -0.4}
    lift = ConditionalField(couplings, {}, 0.0, sweeps=20, periodic=False, center=np.arange(16.0).reshape(4, 4))
    coarse = np.array([[[0.5, 3.0], [12.0, 10.1]]], np.float32)
    fine = np.asarray(lift(jax.random.key(1), jnp.tile(jnp.asarray(coarse), (1000, 1, 1))), float).reshape(1000, -1)
    gaussian = lift.model(coarse[0]).select(lambda form: form.name != "b")
    variance = np.diag(np.linalg.inv(precision_of(gaussian)))
    off = np.abs(fine.mean(axis=0) - lift.mean(coarse).value.reshape(-1)) / np.sqrt(variance / len(fine))
    assert off.max() < 4.5
    assert np.max(np.abs(fine.var(axis=0) / variance - 1)) < 4.5 * np.sqrt(2 / len(fine))
    with raises("argument.coarse.shape", "center"):
        lift.mean(np.zeros((1, 4, 4)))


def test_conditional_mean_of_double_wells_is_that_of_quadrature():
    """Without bonds between blocks a block is four sites: their mean by quadrature, within 4.5 errors.

    Sixteen means, false alarms in 1e-4 of seeds; those of the Gaussian field at b = 0 are rejected.
    """
    couplings = {"w_in": 0.4, "w_out": 0.0, "g_2": 0.2, "a": -0.8, "b": 0.4, "p": 0.3, "e_1": 0.0, "e_2": 0.0}
    lift = ConditionalField(couplings, {}, 0.0, sweeps=4, periodic=False)
    coarse = np.array([[[0.5, -1.0], [2.0, 0.1]]])
    found = lift.mean(coarse, draws=600, seed=3)
    nodes = np.linspace(-4, 4, 33)
    phi = np.stack(np.meshgrid(*(nodes,) * 4, indexing="ij"))
    inside = [0.2 if k + j == 3 else 0.4 for k, j in itertools.combinations(range(4), 2)]
    bonds = sum(w * phi[k] * phi[j] for w, (k, j) in zip(inside, itertools.combinations(range(4), 2), strict=True))
    for x, y in itertools.product(range(2), range(2)):
        weight = np.exp(bonds + 0.3 * coarse[0, x, y] * phi.sum(axis=0) + np.sum(0.8 * phi**2 - 0.4 * phi**4, axis=0))
        mean = np.sum(phi[0] * weight) / weight.sum()
        own = found.value[0, 2 * x : 2 * x + 2, 2 * y : 2 * y + 2]
        error = found.error[0, 2 * x : 2 * x + 2, 2 * y : 2 * y + 2]
        assert np.max(np.abs(own - mean) / error) < 4.5
        assert np.max(error) < 0.1
    assert found.sweeps >= 8


def test_bicubic_is_exact_for_quadratics_and_restores_means():
    """Keys' kernel gives back polynomials of degree 2 of the block centers, away from the edges."""
    x = np.arange(16) - 7.5
    fine = (x[:, None] ** 2 + x * 3)[None]
    centers = fine.reshape(1, 8, 2, 8, 2).mean(axis=(2, 4)) - 0.25  # the polynomial at the middle of a block
    found = np.asarray(Bicubic(eta=0.0)(None, jnp.asarray(centers)), float)
    assert found[0, 4:12, 4:12] == pytest.approx(fine[0, 4:12, 4:12], rel=1e-5, abs=1e-4)
    coarse = np.random.default_rng(0).normal(size=(2, 4, 4))
    restored = np.asarray(Bicubic(eta=0.25, rounds=30)(None, jnp.asarray(coarse)), float)
    assert restored.reshape(2, 4, 2, 4, 2).mean(axis=(2, 4)) * 2**0.125 == pytest.approx(coarse, abs=1e-4)


def test_held_out_errors_say_who_wins(lift):
    """The conditional mean has the least squared error of all; blocks shifted by one site show as a larger one, and are named.

    The paired difference to the next best is 40 errors; misaligned training costs 100.
    """
    coarse, fine = pairs(400, 5)
    ways = {"conditional field": lift, "bicubic": Bicubic(eta=0.0), "copy": Copy(eta=0.0)}
    found = held_out_errors(ways, coarse, fine)
    assert (
        found.best == "conditional field" and found.verdict.startswith("conditional field wins") and not found.warnings
    )
    row = found.rows["copy"]
    direct = ((np.repeat(np.repeat(coarse, 2, 1), 2, 2) - fine) ** 2).mean(axis=(1, 2))
    assert row.mse == pytest.approx(direct.mean(), rel=1e-5)
    assert row.error == pytest.approx(direct.std(ddof=1) / np.sqrt(400), rel=1e-4)
    assert row.psnr == pytest.approx(10 * np.log10(np.ptp(fine) ** 2 / direct.mean()), rel=1e-5)
    apart, error = found.difference("conditional field, one draw", "conditional field")
    assert apart > 20 * error

    shifted = block(np.roll(fine, 1, axis=2), BellWilson(alpha=NOISE**-2), lattice=OPEN, seed=6)[1][0]
    wrong = train_conditional_field(shifted, fine, **SETTINGS)
    against = held_out_errors({"right": lift, "misaligned": wrong}, coarse, fine)
    worse, error = against.difference("misaligned", "right")
    assert worse > 20 * error
    assert any("not in place" in text for text in held_out_errors(ways, shifted, fine).warnings)


def test_errors_over_groups_are_larger():
    """Every field ten times: errors over groups are those of one copy, and equal ways have no winner."""
    coarse, fine = pairs(30, 7)
    ways = {"bicubic": Bicubic(eta=0.0), "the same": Bicubic(eta=0.0)}
    once = held_out_errors(ways, coarse, fine)
    many = held_out_errors(ways, np.repeat(coarse, 10, 0), np.repeat(fine, 10, 0), groups=np.repeat(np.arange(30), 10))
    assert many.rows["bicubic"].error == pytest.approx(once.rows["bicubic"].error, rel=1e-6)
    assert many.verdict.startswith("No winner")
    with raises("argument.groups"):
        held_out_errors(ways, coarse, fine, groups=np.zeros(30, int))


# --- features


def test_features_that_were_blocked_are_found_again():
    """Coarse features that are blocked fine ones, in another order and with other signs, overlap fully; strangers do not.

    Independent features overlap as their shuffles do: the excess of 20 seeds is within 4.5 errors, 1e-4 false alarms (t).
    """
    rng = np.random.default_rng(0)
    fine = [rng.normal(size=(64, 6)) for _ in range(20)]
    sums = np.kron(np.kron(np.eye(4), [[1, 1]]), np.kron(np.eye(4), [[1, 1]]))
    order, signs = rng.permutation(6), rng.choice([-1, 1], 6)
    coarse = [(sums @ w)[:, order] * signs for w in fine]
    found = compare_features(fine, coarse, (8, 8), shuffles=20)
    assert found.value()[0] == pytest.approx(1, abs=1e-12) and found.excess()[0] > 0.4
    assert (order[found.matches[0]] == np.arange(6)).all()
    strangers = compare_features(fine, [rng.normal(size=(16, 6)) for _ in fine], (8, 8), shuffles=20)
    for name in ("shuffled", "turned"):
        value, error = strangers.excess(name)
        assert abs(value) < 4.5 * error < 0.1
    assert "above the baselines" in str(found)
    with raises("argument.coarse.count"):
        compare_features(fine[:1], coarse[:1], (8, 8))
    with raises("argument.coarse.shape"):
        compare_features(fine, fine, (8, 8))
