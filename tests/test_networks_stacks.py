"""Stacks of machines against sums over all states of their hidden layers."""

import itertools
import signal

import jax.numpy as jnp
import numpy as np
import pytest
from raising import raises, warns
from scipy.special import logsumexp
from sklearn.base import clone

from phi4ppl.networks import (
    BernoulliBernoulliRBM,
    BernoulliUnits,
    DeepPhi4Network,
    GaussianBernoulliRBM,
    GaussianGaussianRBM,
    GaussianUnits,
    Phi4BernoulliRBM,
    Phi4Units,
    RestrictedBoltzmannMachine,
)

pytestmark = pytest.mark.compile_quickly


def states(n):
    return np.array(list(itertools.product((0.0, 1.0), repeat=n)))


class Enumerated:
    """A stack of two machines with binary units between them: its exact laws, in double precision at the end."""

    def __init__(self, below, above):
        self.below, self.above, self.h = below, above, states(below.hidden.size)
        self.log_p_of_h = np.asarray(above.log_prob(jnp.asarray(self.h), method="enumeration"), float)

    def log_joint(self, v):
        """log p₁(v | h) p₂(h), shape (rows, states of h), and log q(h | v)."""
        shape = len(v), len(self.h)
        rows = jnp.broadcast_to(jnp.asarray(v)[:, None], (*shape, v.shape[1]))
        h = jnp.broadcast_to(jnp.asarray(self.h)[None], (*shape, self.h.shape[1]))
        energy = np.asarray(self.below.energy(rows, h), float)
        normalizer = -np.asarray(self.below.transposed.free_energy(jnp.asarray(self.h)), float)
        recognized = -energy - logsumexp(-energy, axis=1, keepdims=True)
        return -energy - normalizer + self.log_p_of_h, recognized

    def log_prob(self, v):
        return logsumexp(self.log_joint(v)[0], axis=1)

    def bound(self, v):
        joint, recognized = self.log_joint(v)
        return (np.exp(recognized) * (joint - recognized)).sum(axis=1)

    def visible_means(self):
        return np.asarray(self.below.visible_mean(jnp.asarray(self.h)), float)

    def mean(self):
        return np.exp(self.log_p_of_h) @ self.visible_means()


LOWER = RestrictedBoltzmannMachine(
    Phi4Units([0.1, -0.2, 0.0], [-0.8, 0.2, -0.5], [0.4, 0.3, 0.5]),
    BernoulliUnits([0.2, -0.1, 0.3]),
    [[1.2, -0.3, 0.5], [-0.8, 0.9, 0.2], [0.4, 1.0, -1.1]],
)
UPPER = RestrictedBoltzmannMachine(
    BernoulliUnits([0.5, -1.0, 0.4]), BernoulliUnits([-0.2, 0.6]), [[1.0, -2.0], [1.5, 0.7], [-2.0, 0.4]]
)
WRONG = RestrictedBoltzmannMachine(UPPER.visible, UPPER.hidden, -UPPER.weights)
ROWS = np.random.default_rng(0).normal(size=(40, 3))


@pytest.fixture(scope="module")
def exact():
    return Enumerated(LOWER, UPPER)


def stack_of(*machines, **settings):
    kinds = {Phi4Units: Phi4BernoulliRBM, BernoulliUnits: BernoulliBernoulliRBM, GaussianUnits: GaussianGaussianRBM}
    return DeepPhi4Network.from_fitted([kinds[type(m.visible)].from_machine(m) for m in machines], **settings)


def test_one_machine_has_no_gap():
    rows = states(3)
    (bound,) = stack_of(UPPER).bounds(rows)
    expected = np.asarray(UPPER.log_prob(jnp.asarray(rows)), float)
    np.testing.assert_allclose(stack_of(UPPER).score_samples(rows), expected, atol=1e-5)
    assert bound.error < 1e-5 and bound.value == pytest.approx(expected.mean(), abs=1e-5)


def test_bound_is_the_sum_over_all_hidden_states(exact):
    """|z| < 4.5 (7 in 10⁶), below the exact log density of every row; another top machine is told apart."""
    truth = exact.bound(ROWS)
    assert (truth < exact.log_prob(ROWS)).all() and (exact.log_prob(ROWS) - truth).mean() > 0.05
    stack = stack_of(LOWER, UPPER, n_draws=400)
    below, both = stack.bounds(ROWS)
    assert abs(both.value - truth.mean()) < 4.5 * both.error < 0.05
    assert below.value == pytest.approx(float(LOWER.log_prob(jnp.asarray(ROWS)).mean()), abs=1e-4)
    np.testing.assert_array_equal(stack.score_samples(ROWS[::-1])[::-1], stack.score_samples(ROWS))
    assert both.spread == pytest.approx(np.std(truth, ddof=1) / np.sqrt(40), rel=0.05)
    assert abs(stack_of(LOWER, WRONG, n_draws=400).bounds(ROWS)[1].value - truth.mean()) > 20 * both.error


def test_transpose_on_top_changes_nothing():
    """p₂(h) is then what the machine below says of h, draw by draw."""
    rows = states(3)
    stack = stack_of(UPPER, UPPER.transposed, UPPER, n_draws=10)
    expected = np.asarray(UPPER.log_prob(jnp.asarray(rows)), float)
    for bound in stack.bounds(rows):
        assert bound.value == pytest.approx(expected.mean(), abs=1e-5) and bound.error < 1e-5
    np.testing.assert_allclose(stack.score_samples(rows), expected, atol=1e-5)


def test_standardized_machines_say_the_same():
    """A Gaussian machine above in h, and in u = (h − μ)/σ: scores and draws agree to rounding."""
    layers = GaussianUnits([0.1, 0.2], [0.5, 0.7]), GaussianUnits([0.3, 0.0], [0.6, 0.5])
    below = GaussianGaussianRBM.from_machine(RestrictedBoltzmannMachine(*layers, [[0.3, 0.2], [-0.4, 0.1]]))
    a, r, w, s = np.array([0.5, 0.8]), np.array([0.2, -0.1]), np.array([[0.4], [-0.3]]), np.array([0.1])
    mu, sigma = np.array([0.7, -0.4]), np.array([1.5, 0.6])
    plain = GaussianGaussianRBM.from_machine(
        RestrictedBoltzmannMachine(GaussianUnits(r, a), GaussianUnits(s, [0.5]), w)
    )
    inside = GaussianUnits(sigma * (r + 2 * a * mu), sigma**2 * a), GaussianUnits(s - mu @ w, [0.5])
    scaled = GaussianGaussianRBM.from_machine(RestrictedBoltzmannMachine(*inside, sigma[:, None] * w))
    scaled.mean_, scaled.scale_ = mu, sigma
    scaled.state_ = scaled.state_._replace(chains=jnp.asarray(-mu / sigma)[None])
    one, other = (DeepPhi4Network.from_fitted([below, top], n_draws=20) for top in (plain, scaled))
    rows = ROWS[:, :2]
    np.testing.assert_allclose(other.score_samples(rows), one.score_samples(rows), atol=1e-4)
    np.testing.assert_allclose(other.transform(rows), one.transform(rows), atol=1e-5)
    np.testing.assert_allclose(other.sample(50, n_sweeps=20), one.sample(50, n_sweeps=20), atol=1e-4)
    np.testing.assert_allclose(
        other.sample(2, n_sweeps=3, start=rows), one.sample(2, n_sweeps=3, start=rows), atol=1e-4
    )


def scores(draws, expected):
    return np.abs(draws.mean(axis=0) - expected) / (draws.std(axis=0) / np.sqrt(len(draws)))


def test_samples_are_those_of_the_stack(exact):
    """Means of v over all states of h: three scores |z| < 4.5, 2 in 10⁵; another machine on top is told apart."""
    draws = stack_of(LOWER, UPPER).sample(5000, n_sweeps=20)
    assert scores(draws, exact.mean()).max() < 4.5
    assert scores(stack_of(LOWER, WRONG).sample(5000, n_sweeps=20), exact.mean()).max() > 10


def test_no_sweep_draws_up_and_down_again(exact):
    """From a row, up by q(h | v) and down by p₁(v | h): six scores |z| < 4.5, 4 in 10⁵; one sweep is told apart."""
    rows = np.array([[1.0, -1.0, 0.5], [-0.5, 1.5, 1.0]])
    recognized = np.exp(exact.log_joint(rows)[1])
    stack, expected = stack_of(LOWER, UPPER), recognized @ exact.visible_means()
    assert scores(stack.sample(5000, n_sweeps=0, start=rows), expected).max() < 4.5
    assert scores(stack.sample(5000, n_sweeps=1, start=rows), expected).max() > 10


# --- training


@pytest.fixture(scope="module")
def data():
    """Stripes: either the first or the last three of six, with one in ten flipped."""
    rng = np.random.default_rng(1)
    rows = np.where(rng.random((1000, 1)) < 0.5, [1.0, 1, 1, 0, 0, 0], [0.0, 0, 0, 1, 1, 1])
    return np.abs(rows - (rng.random(rows.shape) < 0.1))


@pytest.fixture(scope="module")
def machines():
    settings = dict(learning_rate=0.02, n_epochs=20)
    return [BernoulliBernoulliRBM(4, **settings), BernoulliBernoulliRBM(2, **settings)]


@pytest.fixture(scope="module")
def trained(data, machines):
    return DeepPhi4Network(machines, n_draws=50).fit(data)


def test_greedy_training_learns_the_hidden_layer(trained, data, machines):
    """The lowest machine is trained as if alone; the next beats independent units on draws of h by half of what there is."""
    alone = clone(machines[0]).fit(data)
    np.testing.assert_array_equal(trained.machines_[0].machine_.weights, alone.machine_.weights)
    below, both = trained.bounds(data)
    lower, upper = (machine.machine_ for machine in trained.machines_)
    exact = Enumerated(lower, upper)
    rows, copies = np.unique(data, axis=0, return_counts=True)
    share = copies / copies.sum()
    assert abs(share @ exact.bound(rows) - both.value) < 4.5 * both.error < 0.05
    assert share @ exact.log_prob(rows) > both.value - 4.5 * both.error
    aggregate = share @ np.exp(exact.log_joint(rows)[1])
    entropy = -(aggregate * np.log(aggregate)).sum()
    p = aggregate @ exact.h
    independent = (p * np.log(p) + (1 - p) * np.log(1 - p)).sum()
    learned = aggregate @ exact.log_p_of_h
    assert independent + 0.5 * (-entropy - independent) < learned < -entropy


def test_a_transpose_that_is_trained_raises_the_bound(trained, data):
    """The gain is what the aggregated posterior has and the machine below has not; it is above 5 errors here."""
    lower = RestrictedBoltzmannMachine(
        BernoulliUnits(np.zeros(6)), BernoulliUnits(np.zeros(4)), trained.machines_[0].machine_.weights / 2
    )
    top = BernoulliBernoulliRBM.from_machine(lower.transposed)
    stack = DeepPhi4Network.from_fitted([BernoulliBernoulliRBM.from_machine(lower), top], n_draws=50)
    before = stack.bounds(data)
    assert before[1].value == pytest.approx(before[0].value, abs=1e-5)
    for epoch in range(10):
        top.partial_fit(stack._data_of(1, data, epoch))
    gain = stack.bounds(data)
    assert gain[0].value == before[0].value and gain[1].value > before[1].value + 5 * gain[1].error


def test_ctrl_c_keeps_the_machines_so_far(data, machines, monkeypatch):
    """Ctrl-C while the first machine learns: its epochs so far, and no second machine."""
    learn = BernoulliBernoulliRBM.partial_fit

    def interrupted(machine, X, y=None):
        learn(machine, X)
        if machine.state_.epoch == 2:
            signal.raise_signal(signal.SIGINT)
        return machine

    monkeypatch.setattr(BernoulliBernoulliRBM, "partial_fit", interrupted)
    with warns("training.interrupted", "epoch 2", "machine 0"):
        stack = DeepPhi4Network(machines).fit(data)
    assert [machine.state_.epoch for machine in stack.machines_] == [2]
    assert stack.transform(data).shape == (1000, 4)


def test_features_of_every_depth(trained, data):
    lower, upper = trained.machines_
    np.testing.assert_array_equal(trained.transform(data, depth=1), lower.transform(data))
    np.testing.assert_array_equal(trained.transform(data), upper.transform(lower.transform(data)))
    assert list(trained.get_feature_names_out()) == ["deepphi4network0", "deepphi4network1"]


def test_partial_fit_is_one_pass_of_every_machine(data, machines):
    stack = DeepPhi4Network(machines)
    stack.partial_fit(data).partial_fit(data)
    alone = clone(machines[0]).partial_fit(data).partial_fit(data)
    np.testing.assert_array_equal(stack.machines_[0].machine_.weights, alone.machine_.weights)
    assert [machine.state_.epoch for machine in stack.machines_] == [2, 2]


def test_parameters_of_machines_have_names(machines):
    stack = DeepPhi4Network(machines)
    assert stack.get_params()["1__n_components"] == 2
    other = clone(stack).set_params(**{"0__n_components": 7, "n_draws": 3})
    assert (other.machines[0].n_components, other.n_draws, machines[0].n_components) == (7, 3, 4)
    other.set_params(**{"0": Phi4BernoulliRBM(5), "0__n_epochs": 9})
    assert isinstance(other.machines[0], Phi4BernoulliRBM) and other.machines[0].n_epochs == 9


def test_messages(trained, data):
    with raises("argument.machines", "Phi4RBM(64)", "got 3"):
        DeepPhi4Network(3).fit(data)
    with raises("argument.machines.units", "BernoulliUnits", "GaussianUnits", name="machines[1]"):
        DeepPhi4Network([BernoulliBernoulliRBM(2), GaussianBernoulliRBM(2)]).fit(data)
    with raises("argument.machines.shape", "3", "got 2", name="machines[1]"):
        stack_of(LOWER, UPPER.transposed)
    with raises("argument.depth.too_large", "2", "got 3"):
        trained.transform(data, depth=3)
    with raises("argument.n_draws", "2", "got 1"):
        stack_of(LOWER, n_draws=1).bounds(ROWS)
    with raises("argument.machine.units", "BernoulliUnits"):
        Phi4BernoulliRBM.from_machine(UPPER)
