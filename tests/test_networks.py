"""Machines against the exact values of reference.json, and log Z by every method that applies."""

from dataclasses import FrozenInstanceError, fields

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from raising import raises

import phi4ppl as p4
from phi4ppl.analysis.gamma_method import gamma_method
from phi4ppl.networks import BernoulliUnits, GaussianUnits, Phi4Units, RestrictedBoltzmannMachine, SpinUnits, annealed

pytestmark = pytest.mark.compile_quickly

CASES = ("rbm_phi4-phi4", "rbm_phi4-bernoulli01", "rbm_bernoulli01-bernoulli01")


def machine_of(case):
    d = case["definition"]
    visible = BernoulliUnits(d["r"]) if "{0,1}" in d["visible_domain"] else Phi4Units(d["r"], d["a"], d["b"])
    hidden = BernoulliUnits(d["s"]) if "{0,1}" in d["hidden_domain"] else Phi4Units(d["s"], d["m"], d["n"])
    return RestrictedBoltzmannMachine(visible, hidden, d["w"])


@pytest.mark.parametrize("name", CASES)
def test_exact_pieces(name, reference, x64):
    """log Z, log p(v), the marginal and hidden means at five points, to 1e-9 or better."""
    case = reference[name]
    machine = machine_of(case)
    value = {key: quantity["value"] for key, quantity in case["quantities"].items()}
    estimate = p4.log_partition(machine)  # which asks the machine
    assert estimate.value == pytest.approx(value["logZ"], abs=1e-9) and estimate.error < 1e-9
    assert estimate.method == ("enumeration" if "bernoulli" in name else "quadrature")
    points = jnp.array(case["definition"]["visible_points_v0..v4"])
    marginal = -machine.free_energy(points)
    np.testing.assert_allclose(marginal, [value[f"log sum_h exp(-S(v{k},h))"] for k in range(5)], atol=1e-11)
    np.testing.assert_allclose(machine.log_prob(points), [value[f"log p(v{k})"] for k in range(5)], atol=1e-9)
    means = [[value[f"E[h{j}|v{k}]"] for j in range(2)] for k in range(5)]
    np.testing.assert_allclose(machine.hidden_mean(points), means, atol=1e-11)


def moments_of(case, series_v, series_h):
    """Scores of first and second moments against the exact ones; both series have shape (chain, draw, unit)."""
    scores = {}
    for name, quantity in case["quantities"].items():
        if not (name.startswith("<") and name.endswith(">")):
            continue
        product = 1.0
        for factor in name[1:-1].split():
            product = product * (series_v if factor[0] == "f" else series_h)[:, :, int(factor[1:])]
        estimate = gamma_method(np.asarray(product, float))
        scores[name] = abs(estimate.mean - quantity["value"]) / estimate.error
    return scores


def gibbs_run(machine, key, chains=200, draws=200):
    """Chains of block Gibbs sampling, hidden and visible values after each sweep past the first hundred."""
    start = jnp.zeros((chains, machine.visible.size))

    def sweep(v, key):
        above, below = jax.random.split(key)
        h = machine.draw_hidden(above, v)
        v = machine.draw_visible(below, h)
        return v, (v, machine.draw_hidden(jax.random.fold_in(key, 2), v))

    _, (v, h) = jax.jit(lambda v, keys: jax.lax.scan(sweep, v, keys))(start, jax.random.split(key, draws + 100))
    return (np.swapaxes(np.asarray(x[100:], float), 0, 1) for x in (v, h))


@pytest.mark.parametrize("name", CASES)
def test_gibbs_sampling_is_exact(name, reference):
    """All moments of reference.json within 5 standard errors: false alarms below 1e-5 for the three cases together."""
    case = reference[name]
    scores = moments_of(case, *gibbs_run(machine_of(case), jax.random.key(3)))
    assert max(scores.values()) < 5


def test_a_wrong_sign_of_the_weights_is_noticed(reference):
    case = reference["rbm_phi4-bernoulli01"]
    machine = machine_of(case)
    wrong = RestrictedBoltzmannMachine(machine.visible, machine.hidden, -machine.weights)
    assert max(moments_of(case, *gibbs_run(wrong, jax.random.key(3))).values()) > 10


# --- log Z by several methods


def small(kind_v, kind_h, seed=0, visible=3, hidden=2):
    rng = np.random.default_rng(seed)

    def layer(kind, n):
        couplings = rng.uniform(-0.3, 0.3, n), rng.uniform(0.6, 1.2, n), rng.uniform(0.1, 0.4, n)
        return kind(*couplings[: len(fields(kind))])

    return RestrictedBoltzmannMachine(
        layer(kind_v, visible), layer(kind_h, hidden), rng.uniform(-0.4, 0.4, (visible, hidden))
    )


@pytest.mark.parametrize(
    "kinds", [(GaussianUnits, GaussianUnits), (GaussianUnits, BernoulliUnits), (Phi4Units, SpinUnits)]
)
def test_exact_methods_agree(kinds, x64):
    machine = small(*kinds)
    first = machine.log_partition()
    hidden_binary = kinds[1].states is not None
    other = machine if not hidden_binary else small(*kinds, visible=2)
    assert other.log_partition(method="quadrature").value == pytest.approx(other.log_partition().value, abs=1e-10)
    assert first.value == pytest.approx(machine.transposed.log_partition().value, abs=1e-10)


def test_special_cases_are_the_phi4_machine_at_their_couplings(x64):
    """b = 0 gives Gaussian units; Bernoulli units are spins at half the weights."""
    gaussian = small(GaussianUnits, BernoulliUnits)
    v, zero = gaussian.visible, jnp.zeros(3)
    phi4 = RestrictedBoltzmannMachine(Phi4Units(v.linear, v.quadratic, zero), gaussian.hidden, gaussian.weights)
    points = jnp.array([[0.1, -0.4, 0.9], [2.0, 0.3, -1.0]])
    np.testing.assert_allclose(phi4.log_prob(points), gaussian.log_prob(points), atol=1e-12)
    np.testing.assert_allclose(
        phi4.visible_mean(jnp.array([1.0, 0.0])), gaussian.visible_mean(jnp.array([1.0, 0.0])), atol=1e-12
    )
    # h = (s + 1)/2
    w, s = gaussian.weights, gaussian.hidden.linear
    moved = GaussianUnits(v.linear - w.sum(axis=1) / 2, v.quadratic)
    spins = RestrictedBoltzmannMachine(moved, SpinUnits(s / 2), w / 2)
    np.testing.assert_allclose(spins.log_prob(points), gaussian.log_prob(points), atol=1e-12)


def test_ising_limit_is_reached_at_its_rate(x64):
    """S = b(φ² − 1)² − xφ: ⟨φ⟩ → tanh x and 1 − ⟨φ²⟩ → O(1/b), so b times the distance tends to a constant."""
    x = jnp.array([0.3, 1.0])
    b = np.array([1e2, 1e3, 1e4, 1e5])
    distance = [Phi4Units(jnp.zeros(2), jnp.full(2, -2 * s), jnp.full(2, s)).mean(x) - jnp.tanh(x) for s in b]
    scaled = b[:, None] * np.array(distance)
    np.testing.assert_allclose(scaled[-1], scaled[-2], rtol=2e-3)
    # in the well at s = ±1, φ = s(1 + u) has ⟨u⟩ = −3/16b and var u = 1/8b: its weight and its mean to first order in 1/b
    lean, e = np.asarray(x), 1 / b[-1]
    weight = {s: np.exp(s * lean) * (1 - 3 * s * lean * e / 16 + lean**2 * e / 16) for s in (1, -1)}
    mean = {s: s * (1 - 3 * e / 16) + lean * e / 8 for s in (1, -1)}
    expected = b[-1] * (sum(weight[s] * mean[s] for s in (1, -1)) / sum(weight.values()) - np.tanh(lean))
    np.testing.assert_allclose(scaled[-1], expected, rtol=2e-2)


@pytest.fixture(scope="module")
def medium():
    """A machine with strong weights that enumeration still solves."""
    rng = np.random.default_rng(4)
    visible = Phi4Units(rng.normal(0, 0.2, 12), rng.uniform(-1.5, -0.5, 12), rng.uniform(0.3, 0.6, 12))
    return RestrictedBoltzmannMachine(visible, BernoulliUnits(rng.normal(0, 0.5, 8)), rng.normal(0, 0.6, (12, 8)))


def test_annealing_agrees_with_enumeration(medium):
    """|z| < 4.5: false alarms in 7 of 10⁶ runs."""
    exact = medium.log_partition(method="enumeration").value
    estimate = annealed(medium, num_chains=64, num_steps=300, seed=1)
    assert abs(estimate.value - exact) < 4.5 * estimate.error < 0.5
    assert estimate.bracket[0] < exact < estimate.bracket[1]


def test_annealing_too_fast_says_so(medium):
    estimate = annealed(medium, num_chains=64, num_steps=2, seed=1)
    assert estimate.bracket[1] - estimate.bracket[0] > 0.3 and estimate.error > 0.1


# --- bridges


def test_to_a_model_and_back(x64):
    machine = small(Phi4Units, GaussianUnits)
    model = machine.to_model()
    v, h = jnp.array([0.1, -0.4, 0.9]), jnp.array([0.3, -1.2])
    assert float(model.energy(jnp.concatenate([v, h]))) == pytest.approx(float(machine.energy(v, h)), abs=1e-13)
    assert model.check().satisfied
    back = RestrictedBoltzmannMachine.from_model(model, 3)
    np.testing.assert_allclose(back.energy(v, h), machine.energy(v, h), atol=1e-13)


@pytest.mark.slow
def test_nuts_agrees_with_block_gibbs(reference):
    """The same weights sampled by gradients: |z| < 5 for all moments, false alarms below 1e-5."""
    case = reference["rbm_phi4-phi4"]
    tree = p4.sample(machine_of(case).to_model(), kernel="nuts", num_samples=2000, seed=2)
    phi = tree["posterior"]["phi"].values
    assert max(moments_of(case, phi[:, :, :3], phi[:, :, 3:]).values()) < 5


# --- messages


def test_messages():
    units = GaussianUnits([0.0], [0.5])
    with raises("argument.weights.shape", "(1, 1)", "(2, 1)"):
        RestrictedBoltzmannMachine(units, units, [[1.0], [1.0]])
    with raises("argument.visible", "got float"):
        RestrictedBoltzmannMachine(1.0, units, [[1.0]])
    with raises("hammersley_clifford.not_normalizable", "1.5"):
        RestrictedBoltzmannMachine(units, units, [[1.5]])
    with raises("argument.quadratic.positive", "-1.0"):
        GaussianUnits([0.0], [-1.0])
    with raises("argument.couplings.shape", "(2,)"):
        GaussianUnits([0.0, 0.0], [1.0])
    with raises("argument.linear.shape"):
        SpinUnits(0.0)
    machine = RestrictedBoltzmannMachine(units, SpinUnits([0.0]), [[0.5]])
    with raises("argument.v.shape", "(..., 1)", "(2,)"):
        machine.free_energy(jnp.zeros(2))
    with raises("argument.method.machine"):
        machine.log_partition(method="gaussian")
    with raises("argument.machine.units", "SpinUnits(1)"):
        machine.to_model()
    square = p4.phi4(p4.lattice.square(3), a=1.0, b=0.1)
    with raises("argument.model.lattice", "lattice.bipartite(3, …)"):
        RestrictedBoltzmannMachine.from_model(square, 3)
    with pytest.raises(FrozenInstanceError, match="weights"):
        machine.weights = 0
