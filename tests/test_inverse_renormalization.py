"""The way up: lifts against exact laws, corrections against direct runs, and faults that the verdict has to catch.

All lattices are tiny, and swept site by site; `test_cascade_to_64` is the slow one, with clusters.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from raising import raises

import phi4ppl as p4
from phi4ppl.renormalization import (
    BellWilson,
    Cascade,
    ConditionalFlow,
    Copy,
    FunctionLift,
    InverseRenormalization,
    block,
    cascade,
    exact_conditional_field,
    inverse_crossings,
    train_conditional_field,
    train_transposed_convolution,
)
from phi4ppl.renormalization.other_corrections import by_independence, by_patches
from phi4ppl.results.correction import WATCHED, Summary, measure, moved, relaxing

pytestmark = pytest.mark.compile_quickly
ALPHA, ETA, NUMBER = 10.0, 0.25, 1000
CROSSED = ("binder_cumulant", "abs_m")


def critical(side):
    return p4.phi4(p4.lattice.square(side), w=0.680602, a=-1.0, b=1.0)


@pytest.fixture(scope="module")
def up():
    return InverseRenormalization(critical, "copy", sweeps=48, kernel="local_hmc")


@pytest.fixture(scope="module")
def direct(up):
    """Equilibrium fields of 4² and 8²."""
    return {side: up.start(side, NUMBER, seed=side) for side in (4, 8)}


def furthest(one, two):
    """The largest difference of the observables of independent fields, in errors."""
    return max(abs(one.values[n] - two.values[n]) / np.hypot(one.errors[n], two.errors[n]) for n in WATCHED)


# --- lifts


def test_learned_couplings_are_the_exact_ones(direct):
    """Score matching of Bell–Wilson pairs, all six couplings within 4.5 errors: false alarms in 4e-5 of seeds.

    Those of another α are rejected.
    """
    fine = direct[8].fields
    coarse = block(fine[None], BellWilson(eta=ETA, alpha=ALPHA), seed=5)[1][0]
    found = train_conditional_field(coarse, fine)

    def deviation(alpha):
        exact = exact_conditional_field(critical(8), alpha=alpha)
        return max(abs(found.couplings[n] - exact.couplings[n]) / found.errors[n] for n in exact.couplings)

    assert deviation(ALPHA) < 4.5
    assert deviation(1.3 * ALPHA) > 6


def test_conditional_field_draws_its_law():
    """A Gaussian case, where means and variances are known: within 4.5 errors at every site, false alarms in 2e-4 of seeds.

    The same draws do not suit a coarse field that is shifted by one block.
    """
    exact = exact_conditional_field(critical(4), alpha=ALPHA)
    lift = p4.renormalization.ConditionalField({**exact.couplings, "a": 1.8, "b": 0.0}, {}, ETA, sweeps=15)
    coarse = np.array([[0.5, -1.0], [2.0, 0.1]], np.float32)
    fine = np.asarray(lift(jax.random.key(1), jnp.tile(coarse, (1000, 1, 1))), float).reshape(1000, -1)

    def deviation(coarse):
        mean = -np.linalg.solve(precision, lift.model(coarse).couplings["r"])
        return np.max(np.abs(fine.mean(axis=0) - mean) / (fine.std(axis=0) / np.sqrt(len(fine))))

    gaussian = lift.model(coarse).select(lambda form: form.name != "b")
    precision = np.asarray(p4.exact.gaussian_precision(gaussian), float)
    variance = np.diag(np.linalg.inv(precision))
    assert deviation(coarse) < 4.5
    assert np.max(np.abs(fine.var(axis=0) / variance - 1)) < 4.5 * np.sqrt(2 / len(fine))
    assert deviation(np.roll(coarse, 1, axis=0)) > 10


def test_conditional_field_has_the_energy_of_its_formula(x64):
    """S(φ | φ') = S(φ) + ½ α Σ (φ' − s φ̄)² − ½ α Σ φ'², to rounding."""
    rng = np.random.default_rng(3)
    fine, coarse = rng.normal(size=(8, 8)), rng.normal(size=(4, 4))
    found = exact_conditional_field(critical(8), alpha=ALPHA).model(coarse).energy(fine.reshape(-1))
    means = fine.reshape(4, 2, 4, 2).mean(axis=(1, 3)) * 2 ** (ETA / 2)
    exact = critical(8).energy(fine) + ALPHA / 2 * np.sum((coarse - means) ** 2 - coarse**2)
    assert float(found) == pytest.approx(float(exact), rel=1e-12)


def test_pairs_without_noise_are_refused(direct):
    fine = direct[8].fields
    with raises("argument.coarse.noise"):
        train_conditional_field(block(fine[None], "average", eta=ETA)[1][0], fine)


def test_transposed_convolution_is_learned():
    """Pairs of a known transposed convolution: all 36 weights to 0.01, and none of them without training."""
    rng = np.random.default_rng(0)
    true = p4.renormalization.TransposedConvolution(rng.normal(size=(2, 2, 3, 3)).astype(np.float32))
    coarse = rng.normal(size=(200, 4, 4)).astype(np.float32)
    fine = np.asarray(true(jax.random.key(0), jnp.asarray(coarse)))
    found = train_transposed_convolution(coarse, fine, steps=800)
    assert np.abs(found.weights - true.weights).max() < 0.01
    # place by place: the weight of the block to the right acts on the block to its left
    one = np.zeros((1, 4, 4), np.float32)
    one[0, 2, 1] = 1
    assert np.asarray(true(jax.random.key(0), jnp.asarray(one)))[0, 3, 1] == true.weights[1, 1, 2, 2]


# --- cascades


def test_cascade_agrees_with_a_direct_run(up, direct):
    """Five observables of 8² from 4² within 4.5 errors: false alarms in 3e-5 of seeds. Before the correction they are not."""
    found = up.lifted(direct[4].fields, seed=1)
    assert furthest(found.corrected.after, direct[8].corrected.after) < 4.5
    assert furthest(found.corrected.before, direct[8].corrected.after) > 10
    assert found.doubts == []
    assert found.back.slope == pytest.approx(1, abs=1e-5)


def climbed(start, lift=None, correction="sweeps", eta=ETA):
    """A cascade of one level from fields of the start."""
    made = InverseRenormalization(
        critical, Copy(eta) if lift is None else lift, eta, correction, sweeps=48, kernel="local_hmc"
    )
    made._made["step_size"] = 0.3
    return Cascade((start, made.lifted(start.fields, seed=2)))


def forgetful(key, coarse):
    """Every fourth site stays zero."""
    fine = jnp.repeat(jnp.repeat(coarse, 2, 0), 2, 1) * 2 ** (-ETA / 2)
    return fine.at[1::2, 1::2].set(0)


def misaligned(key, coarse):
    return jnp.roll(jnp.repeat(jnp.repeat(coarse, 2, 0), 2, 1) * 2 ** (-ETA / 2), 1, axis=1)


def with_other_coupling(model, fields, seed):
    """Equilibrium at 9 % more hopping."""
    other = InverseRenormalization(lambda side: critical(side).replace(w=0.74), "copy", kernel="local_hmc")
    return other.start(8, len(fields), seed=seed).fields


def test_planted_faults_are_caught(direct):
    """Each fault gives its own reason; without one the same seeds pass. Thresholds: 4 errors, 6e-5 false alarms a check."""
    start = direct[4]
    assert climbed(start).passed
    for words, found in {
        "as if eta were": climbed(start, eta=0.8),
        "corners": climbed(start, FunctionLift(forgetful)),
        "shifted by (0, 1)": climbed(start, FunctionLift(misaligned)),
        "not those of this action": climbed(start, correction=with_other_coupling),
        "times the coarse field": climbed(start, FunctionLift(lambda key, x: 1.3 * Copy(ETA)(key, x[None])[0])),
    }.items():
        assert not found.passed
        assert any(words in text for text in found.warnings), (words, found.warnings)


def test_a_coupling_three_percent_off_is_caught_at_the_start():
    """1,000 fields of 8² at w (1 + 3 %): the three equations together refuse them, about six errors away.

    Threshold: 6e-5 false alarms; with the right coupling the same seed passes.
    """
    for more, caught in ((0.0, False), (0.03, True)):
        off = InverseRenormalization(
            lambda side, more=more: critical(side).replace(w=0.680602 * (1 + more)), "copy", kernel="local_hmc"
        )
        found = measure(critical(8), off.start(8, NUMBER, seed=3).fields)
        assert (found.p_value() < 6e-5) is caught


def test_too_few_sweeps_are_noticed(direct):
    """Two sweeps and two more: observables still move, and the verdict says so."""
    few = InverseRenormalization(critical, "copy", sweeps=4, kernel="local_hmc")
    few._made["step_size"] = 0.3
    found = few.lifted(direct[4].fields, seed=1)
    assert found.corrected.sweeps == 4
    assert any("moved" in text for text in found.doubts)


def test_slow_relaxation_is_not_taken_for_rest():
    """χ relaxes from 1.44 of its value with τ = 100 sweeps; its error is 6 %, and fields forget at this pace. No noise.

    From 32 to 64 it moves by less than two errors: the last doubling alone would stop there, 23 % or four errors too high.
    """
    number, tau, error = 400, 100.0, 0.06
    waves = np.cos(np.pi * np.outer(np.arange(1, 9), np.arange(number) + 0.5) / number) * np.sqrt(2)
    x, done, history = waves[0], 0, []
    for k, wave in zip((0, 8, 16, 32, 64, 128, 256, 512), waves, strict=True):
        memory = np.exp(-(k - done) / tau)
        x, done = (memory * x + np.sqrt(1 - memory**2) * wave if k else x), k
        values = dict.fromkeys(WATCHED, 1.0) | {"susceptibility": 1 + 0.44 * np.exp(-k / tau)}
        influence = dict.fromkeys(WATCHED, x * error * np.sqrt(number))
        history.append((k, Summary(values, dict.fromkeys(WATCHED, error), influence)))
    until = lambda k: [row for row in history if row[0] <= k]  # noqa: E731
    assert moved(history[3][1], history[4][1]) == []
    assert relaxing(until(64)) == relaxing(until(128)) == ["susceptibility"]
    assert relaxing(until(256)) == relaxing(until(512)) == []


# --- crossings


def test_original_and_lifted_curves_cross_at_the_critical_coupling():
    """Sides 8 and 4 → 8: w_c and 1/ν of U₄ and ⟨|m|⟩ within four errors, twice 6e-5; a wrong η moves the crossing of ⟨|m|⟩."""
    vary = {"w": 0.6806 + np.linspace(-0.06, 0.06, 3)}
    settings = {"side": 8, "vary": vary, "fields": 500, "kernel": "local_hmc", "observables": CROSSED, "seed": 1}
    found = inverse_crossings(critical, **settings)
    assert abs(found.values["w_c"] - 0.6806) < 4 * found.errors["w_c"] < 0.05
    assert abs(found.values["1/nu"] - 1) < 4 * found.errors["1/nu"] < 1.5
    assert found.reliable and all(name in str(found) for name in ("1/nu", *CROSSED))
    assert np.all(np.linalg.eigvalsh(found.table.covariance) > -1e-12)
    wrong = inverse_crossings(critical, eta=0.6, **settings)
    assert not wrong.reliable and "eta = 0.6" in wrong.warnings[-1]
    assert wrong.table.values["binder_cumulant"] == pytest.approx(found.table.values["binder_cumulant"], rel=1e-4)
    with raises("argument.vary.order"):
        inverse_crossings(critical, side=8, vary={"w": [0.7, 0.6, 0.5]})
    with raises("argument.side.even"):
        inverse_crossings(critical, side=10, vary=vary)


# --- corrections by densities


@functools.cache
def flow():
    """A flow that is not trained: details of width ½ around zero."""
    parameters = [
        (jnp.zeros((10 + k, 24)), jnp.zeros((25, 2)).at[24, 1].set(-0.35), jnp.zeros(9 + k)) for k in range(3)
    ]
    return ConditionalFlow(parameters, ETA)


def test_patches_leave_the_law_alone(direct):
    """Equilibrium fields, new details of their blocks: no observable moves by more than 4.5 paired errors.

    A move that forgets the density of the proposal is noticed.
    """

    class Careless(ConditionalFlow):
        def log_density_of_blocks(self, fine, coarse):
            return jnp.zeros_like(coarse)

    def moved(lift):
        fields, model = direct[8].fields, critical(8)
        from phi4ppl.renormalization.other_corrections import _patch_move

        after, rate = _patch_move(model.structure, lift, 2 ** (ETA / 2))(
            jax.tree.map(jnp.asarray, model), jnp.asarray(fields), jax.random.key(0), 4
        )
        assert 0.1 < float(rate) < 0.9
        one, two = measure(model, fields), measure(model, np.asarray(after))
        assert np.allclose(np.asarray(after).mean(axis=(1, 2)), fields.mean(axis=(1, 2)), atol=1e-5)
        apart = two.influence["energy_density"] - one.influence["energy_density"]
        change = two.values["energy_density"] - one.values["energy_density"]
        return abs(change) / (apart.std() / np.sqrt(len(apart)))

    assert moved(flow()) < 4.5
    assert moved(Careless(flow().parameters, ETA)) > 8


def test_weights_of_whole_fields():
    """Unit normals, for which a flow of unit widths is exact: no weight differs. With other widths weights are refused."""
    scale = 2 ** (ETA / 2)
    fine, coarse = (p4.gaussian(p4.lattice.square(side), w=0.0, a=a) for side, a in ((16, 0.5), (8, 2 / scale**2)))
    exact = ConditionalFlow(jax.tree.map(jnp.zeros_like, flow().parameters), ETA)
    fields = np.random.default_rng(0).normal(size=(200, 8, 8)).astype(np.float32) * scale / 2
    proposed = np.asarray(exact(jax.random.key(0), jnp.asarray(fields)))
    found = by_independence(fine, coarse, exact, fields, proposed, 0)
    assert found.figures["effective_share"] == pytest.approx(1, abs=1e-3)
    assert abs(found.after.values["phi_squared"] - 1) < 4.5 * found.after.errors["phi_squared"]
    narrow = np.asarray(flow()(jax.random.key(0), jnp.asarray(fields)))
    with raises("overlap.weights", "256"):
        by_independence(fine, coarse, flow(), fields, narrow, 0)
    with raises("argument.lift.density"):
        by_patches(fine, Copy(ETA), narrow, scale, step_size=0.3)


# --- arguments


def test_refusals():
    inhomogeneous = critical(4).replace(a=np.linspace(-1, 0, 16))
    with raises("argument.model.array", "a"):
        InverseRenormalization(inhomogeneous).at(8)
    with raises("argument.model.lattice"):
        InverseRenormalization(p4.phi4(p4.lattice.square(4, periodic=False), a=1.0, b=1.0)).at(8)
    with raises("argument.model.lattice"):
        exact_conditional_field(p4.phi4(p4.lattice.square(8, diagonals=True), w=0.3, a=1.0, b=1.0), alpha=ALPHA)
    with raises("argument.lift"):
        InverseRenormalization(critical(4), "bicubic")
    with raises("argument.start.even"):
        cascade(critical(4), start=5)
    with raises("argument.eta.dimension", "1"):
        InverseRenormalization(p4.phi4(p4.lattice.chain(4), a=1.0, b=1.0)).eta_of(1)


def test_models_of_longer_range_keep_their_bonds_on_other_sizes():
    for kinds in ({"nn": [(1, 0), (0, 1)], "second": [(2, 0), (0, 2)]}, {"nn": [(1, 0), (0, 1), (2, 0), (0, 2)]}):
        small, large = (p4.phi4(p4.lattice.from_offsets((n, n), kinds), w=0.2, a=1.0, b=1.0) for n in (8, 12))
        found, phi = InverseRenormalization(small).at(12), np.random.default_rng(0).normal(size=(12, 12))
        assert len(found.lattice.edges) == 4 * 144
        assert float(found.energy(phi)) == pytest.approx(float(large.energy(phi)), rel=1e-5)


@pytest.mark.slow
@pytest.mark.compile_quickly(False)
def test_cascade_to_64():
    """8² to 64² with 1,000 fields against independent direct runs of 8,000: all within 4.5 errors, γ/ν = 7/4 within three."""
    found = cascade(critical, start=8, levels=3, fields=1000, seed=4)
    assert found.passed, found.warnings
    exact = {
        16: {"susceptibility": (109.8, 0.6), "energy_density": (-0.5646, 0.0011), "binder_cumulant": (0.6073, 0.0013)},
        32: {"susceptibility": (365.1, 1.9), "energy_density": (-0.5543, 0.0006), "binder_cumulant": (0.6087, 0.0014)},
        64: {"susceptibility": (1228, 6), "energy_density": (-0.54946, 0.00038), "binder_cumulant": (0.6096, 0.0012)},
    }
    for level in found.levels[1:]:
        for name, (value, error) in exact[level.side].items():
            got, own = level.corrected.after.pair(name)
            assert abs(got - value) < 4.5 * np.hypot(error, own), (level.side, name, got, own)
    gamma, error = found.exponents()["gamma/nu"]
    assert abs(gamma - 1.75) < 3 * error < 0.1
