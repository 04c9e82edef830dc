"""Gradients of every method against sums over all states and quadrature; tempered chains and centering against exact values."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optax import exponential_decay
from raising import raises
from scipy.stats import norm

from phi4ppl.networks import BernoulliUnits, GaussianUnits, Phi4Units, RestrictedBoltzmannMachine, SpinUnits, train
from phi4ppl.networks.block_gibbs import advance
from phi4ppl.networks.gradients import centered, exact_objective, from_centered, score_objective, to_centered

pytestmark = pytest.mark.compile_quickly

WEIGHTS = np.array([[0.6, -0.4], [-0.5, 0.9]])
UNITS = {
    "phi4": (Phi4Units, [0.1, -0.2], [-0.6, 0.3], [0.4, 0.2]),
    "gaussian": (GaussianUnits, [0.1, -0.3], [0.8, 1.1]),
    "bernoulli": (BernoulliUnits, [0.2, -0.4]),
    "spin": (SpinUnits, [0.1, -0.2]),
}
PAIRS = (("phi4", "bernoulli"), ("bernoulli", "spin"), ("gaussian", "phi4"), ("gaussian", "gaussian"))
REAL = ("phi4", "spin"), ("gaussian", "phi4")


def machine_of(pair):
    visible, hidden = (kind(*couplings) for kind, *couplings in map(UNITS.get, pair))
    return RestrictedBoltzmannMachine(visible, hidden, WEIGHTS)


def population(machine, half_width=7.0, nodes=141):
    """Visible states of two units and their exact probabilities: all states, or nodes of the trapezoidal rule."""
    values = machine.visible.states or np.linspace(-half_width, half_width, nodes)
    v = jnp.array(list(itertools.product(values, repeat=2)))
    return v, jax.nn.softmax(-machine.free_energy(v))


def away(machine):
    return jax.tree.map(lambda leaf: leaf + 0.05, machine)


def leaves(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_exact_gradient_is_that_of_the_sum_over_visible_states(pair, x64):
    """⟨∂F/∂θ⟩ over data less ⟨∂F/∂θ⟩ over p(v), from a sum that shares no code with log Z; the planted fault is another
    machine."""
    machine = machine_of(pair)
    data = jnp.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])

    @jax.jit
    def both(machine, summed):
        v, p = population(summed)
        truth = jax.grad(lambda m: jnp.mean(m.free_energy(data)) - jax.lax.stop_gradient(p) @ m.free_energy(v))
        return jax.grad(exact_objective)(machine, data), truth(machine)

    mine, truth = map(leaves, both(machine, machine))
    np.testing.assert_allclose(mine, truth, atol=1e-9)
    wrong = leaves(both(machine, away(machine))[1])
    assert np.abs(mine - wrong).max() > 1e-3


@pytest.mark.parametrize("pair", REAL, ids="-".join)
def test_score_objective_is_that_of_the_derivatives_of_log_p(pair, x64):
    """½|∇F|² − ΔF by automatic differentiation of F, and a population gradient that vanishes at the true machine."""
    machine = machine_of(pair)
    data = jnp.array([[0.3, -0.7], [1.2, 0.4], [-0.9, 0.1]])

    def plain(v):
        return jnp.sum(jax.grad(machine.free_energy)(v) ** 2) / 2 - jnp.trace(jax.hessian(machine.free_energy)(v))

    mine = jax.jit(score_objective)(machine, data)
    assert float(mine) == pytest.approx(float(jnp.mean(jax.jit(jax.vmap(plain))(data))), abs=1e-11)

    @jax.jit
    def gradient(machine, truth):
        v, p = population(truth)
        return jax.grad(lambda m: p @ jax.vmap(lambda v: score_objective(m, v[None]))(v))(machine)

    assert np.abs(leaves(gradient(machine, machine))).max() < 1e-9
    assert np.abs(leaves(gradient(away(machine), machine))).max() > 1e-2


def test_chains_give_the_exact_gradient():
    """Of 10,000 chains within 5 standard errors in each of 10 couplings; false alarms below 1e-5. Negative control: chains of
    one sweep only, as contrastive divergence has them, from data that are not from the machine."""
    machine = machine_of(("gaussian", "spin"))
    run = jax.jit(advance, static_argnums=3)
    drawn = run(machine, jax.random.key(1), jnp.zeros((1, 10_000, 2)), 60)[0][0]
    one = run(machine, jax.random.key(2), jnp.full((1, 10_000, 2), 3.0), 1)[0][0]
    v, p = population(machine)
    exact = leaves(jax.grad(lambda m: p @ m.free_energy(v))(machine))

    slopes = jax.jit(jax.vmap(jax.grad(lambda m, v: m.free_energy(v)), (None, 0)))

    def gap(chains):
        each = slopes(machine, chains)
        each = np.concatenate([np.reshape(leaf, (len(chains), -1)) for leaf in jax.tree.leaves(each)], axis=1)
        return np.abs(each.mean(axis=0) - exact) / (each.std(axis=0) / np.sqrt(len(chains)))

    assert gap(drawn).max() < 5
    assert gap(one).max() > 10


def test_tempered_chains_have_the_exact_share_of_both_wells():
    """Two wells at v = ±(3, 3, 3): the share of chains in the right one after 300 sweeps, all begun in the left one, within 5
    standard errors of its exact value (1,000 chains, false alarms below 1e-5 with ⟨v²⟩ at both ends of the levels). Negative
    control: without levels none comes across."""
    machine = RestrictedBoltzmannMachine(
        GaussianUnits([-0.02] * 3, [0.5] * 3), SpinUnits([0.0, 0.0]), np.full((3, 2), 1.5)
    )
    signs = jnp.array(list(itertools.product([-1.0, 1.0], repeat=2)))
    share = jax.nn.softmax(-machine.transposed.free_energy(signs))
    mean = machine.visible_mean(signs)
    middle, width = np.asarray(mean.sum(axis=-1)), np.sqrt(3)  # the sum of three v given h is normal
    right = float(share @ (1 - norm.cdf(-middle / width)))
    square = float(share @ (1 + mean[:, 0] ** 2))
    run = jax.jit(advance, static_argnums=3)
    states, rate = run(machine, jax.random.key(3), jnp.full((8, 1000, 3), -3.0), 300)
    assert abs(float(jnp.mean(states[-1].sum(axis=-1) > 0)) - right) < 5 * np.sqrt(right * (1 - right) / 1000)
    squares = np.asarray(states[-1][:, 0] ** 2)
    assert abs(squares.mean() - square) < 5 * squares.std() / np.sqrt(1000)
    free = np.asarray(states[0] ** 2)  # β = 0: independent units
    assert abs(free.mean() - (1 + 0.02**2)) < 5 * free.std() / np.sqrt(3000)
    assert 0.2 < rate < 1
    stuck = run(machine, jax.random.key(3), jnp.full((1, 1000, 3), -3.0), 300)[0][-1]
    assert np.all(stuck.sum(axis=-1) < 0)


def test_centering_is_the_gradient_of_the_centered_form(x64):
    """By automatic differentiation through r = r̃ + wλ, s = s̃ + wᵀμ; the step back is the adjoint, so both have the same
    zeros. The planted fault exchanges the two offsets."""
    machine = machine_of(("bernoulli", "spin"))
    data = jnp.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    offsets = centered(machine, data)

    def changed(step, offsets):
        """The machine after a step of w, r̃ and s̃."""
        return jax.tree.map(jnp.add, machine, from_centered(step, offsets))

    none = jax.tree.map(jnp.zeros_like, machine)
    truth = jax.grad(lambda step: exact_objective(changed(step, offsets), data))(none)
    plain = jax.grad(exact_objective)(machine, data)
    np.testing.assert_allclose(leaves(to_centered(plain, offsets)), leaves(truth), atol=1e-13)
    assert np.abs(leaves(to_centered(plain, offsets[::-1])) - leaves(truth)).max() > 1e-2
    # S of the machine after a step is the centered S with that step, up to a constant
    step = jax.tree.map(lambda leaf: 0.3 + 0.1 * leaf, machine)
    v, h = jnp.array([[0.0, 1.0], [1.0, 1.0]]), jnp.array([[1.0, -1.0], [1.0, 1.0]])
    below, above = offsets
    added = -jnp.sum(((v - below[None]) @ step.weights) * (h - above[None]), axis=-1)
    added += v @ step.visible.linear + h @ step.hidden.linear
    moved = changed(step, offsets).energy(v, h) - machine.energy(v, h)
    np.testing.assert_allclose(moved[0] - moved[1], added[0] - added[1], atol=1e-13)


def test_centering_has_the_same_fixed_point(x64):
    """Binary data whose units are mostly on, full batches and exact gradients: both ways end at one likelihood."""
    states = np.array(list(itertools.product([0.0, 1.0], repeat=2)))
    data = np.repeat(states, [3, 4, 6, 19], axis=0)
    start = RestrictedBoltzmannMachine(BernoulliUnits([-1.0] * 2), BernoulliUnits([-1.0]), [[0.9], [0.7]])
    ends = []
    for centering in (True, False):
        options = {"method": "exact", "batch_size": 32, "learning_rate": exponential_decay(0.1, 60, 0.5)}
        state, history = train(start, data, epochs=400, centering=centering, **options)
        ends.append(float(exact_objective(state.machine, jnp.asarray(data))))
    share = np.array([3, 4, 6, 19]) / 32
    assert ends == pytest.approx([-share @ np.log(share)] * 2, abs=1e-4)  # six couplings can be any p(v) of four states
    assert history[0].gradient_norm > 0.1


@pytest.fixture(scope="module")
def mixture():
    """Two wells of two Gaussian units: the truth, 2,000 draws of it, and where training starts."""
    truth = RestrictedBoltzmannMachine(GaussianUnits([0.1, 0.0], [0.5, 0.8]), SpinUnits([0.2]), [[1.2], [-1.0]])
    signs = jnp.array([[-1.0], [1.0]])
    rng, weight = np.random.default_rng(0), np.exp(-np.asarray(truth.transposed.free_energy(signs)))
    h = rng.choice([-1.0, 1.0], (2000, 1), p=weight / weight.sum())
    v = np.asarray(truth.visible_mean(h)) + rng.normal(size=(2000, 2)) / np.sqrt([1.0, 1.6])
    start = RestrictedBoltzmannMachine(GaussianUnits([0.0, 0.0], [0.4, 0.4]), SpinUnits([0.0]), [[0.3], [0.1]])
    return truth, jnp.asarray(v), start


@pytest.mark.parametrize(
    "options",
    [{}, {"num_levels": 4}, *({"method": name} for name in ("contrastive_divergence", "score_matching", "exact"))],
    ids=lambda options: "-".join(map(str, options.values())) or "persistent_cd",
)
def test_every_method_finds_the_mixture(options, mixture):
    """Exact log-likelihoods. The maximum exceeds the truth by about 7/4000 nats. Over three seeds and all methods the
    largest shortfall was 0.0015, from the noise of the last steps; 0.005 is allowed."""
    truth, data, start = mixture
    state, _ = train(start, data, epochs=40, learning_rate=exponential_decay(0.03, 200, 0.5), **options)
    best, found, first = (-float(exact_objective(machine, data)) for machine in (truth, state.machine, start))
    assert first < best - 0.15
    assert found > best - 0.005


def test_messages():
    binary = machine_of(("bernoulli", "phi4"))
    with raises("argument.method.units", "'score_matching'", "BernoulliUnits"):
        train(binary, np.zeros((4, 2)), method="score_matching")
    large = RestrictedBoltzmannMachine(Phi4Units(*np.ones((3, 15))), BernoulliUnits(np.zeros(15)), np.zeros((15, 15)))
    with raises("argument.method.too_large", "'exact'", "14", "2"):
        train(large, np.zeros((4, 15)), method="exact")
    with raises("argument.num_levels.unused", "1", "'exact'", "3"):
        train(binary, np.zeros((4, 2)), method="exact", num_levels=3)
