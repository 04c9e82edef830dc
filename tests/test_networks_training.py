"""Training: gradients against enumeration, machines recovered from their own draws, resumption, scikit-learn's contract."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from raising import raises
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from phi4ppl import networks
from phi4ppl.networks import BernoulliUnits, GaussianUnits, Phi4Units, RestrictedBoltzmannMachine, train

pytestmark = pytest.mark.compile_quickly


@pytest.fixture(scope="module")
def truth():
    visible = Phi4Units([0.1, -0.2, 0.0], [-0.8, 0.2, -0.5], [0.4, 0.3, 0.5])
    return RestrictedBoltzmannMachine(visible, BernoulliUnits([0.2, -0.1]), [[1.2, -0.3], [-0.8, 0.9], [0.4, 1.0]])


@pytest.fixture(scope="module")
def data(truth):
    start = jnp.zeros((2000, 3))
    return np.asarray(jax.jit(lambda v: truth.gibbs(jax.random.key(5), v, 200))(start))


@pytest.fixture(scope="module")
def start():
    visible = Phi4Units(np.zeros(3), np.full(3, 0.4), np.full(3, 0.05))
    return RestrictedBoltzmannMachine(
        visible, BernoulliUnits(np.zeros(2)), np.random.default_rng(0).normal(0, 0.1, (3, 2))
    )


@pytest.fixture(scope="module")
def trained(start, data):
    return train(start, data, epochs=60, learning_rate=0.01, num_chains=200, seed=1)


def likelihood(machine, data):
    return float(np.mean(machine.log_prob(jnp.asarray(data), method="enumeration")))


def test_likelihood_comes_close_to_that_of_the_truth(trained, truth, start, data):
    """Exact log-likelihoods by enumeration. The maximum of 14 parameters exceeds the truth by about 7/2000 nats on these data;
    a machine that ends 0.03 below it is 5 standard deviations of noise of the last steps away (0.005, over 8 seeds)."""
    best = likelihood(truth, data)
    assert likelihood(start, data) < best - 0.1
    assert likelihood(trained[0].machine, data) > best - 0.03


def test_a_gradient_of_the_wrong_sign_is_noticed(start, data, truth):
    """Negative control: data with two columns exchanged in sign are learned, and the truth is then far away."""
    wrong = train(start, data * np.array([1, -1, 1]), epochs=60, learning_rate=0.01, num_chains=200, seed=1)[0].machine
    assert likelihood(wrong, data) < likelihood(truth, data) - 0.03


def test_resumption_is_bit_for_bit(start, data, trained):
    half, first = train(start, data, epochs=30, learning_rate=0.01, num_chains=200, seed=1)
    state, second = train(start, data, epochs=30, learning_rate=0.01, num_chains=200, seed=1, state=half)
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(trained[0]), strict=True):
        np.testing.assert_array_equal(one, other)
    assert str(first + second) == str(trained[1])


def test_divergence_hands_back_the_last_good_state(start, data):
    with raises("sampling.diverged", "1") as raised:
        train(start, data, epochs=2, learning_rate=1e38)
    assert raised.value.state.epoch == 0


def test_gaussian_layers_stay_normalizable():
    """Perfectly correlated data push the coupling strength to 1, where Z is infinite."""
    v = np.repeat(np.random.default_rng(0).normal(size=(500, 1)), 2, axis=1)
    units = GaussianUnits(np.zeros(2), np.full(2, 0.5)), GaussianUnits([0.0], [0.5])
    machine, state, strengths = RestrictedBoltzmannMachine(*units, [[0.3], [0.3]]), None, []
    for _ in range(
        5
    ):  # strong coupling means slow chains and noisy steps: it comes and goes, and never passes the bound
        state, _ = train(machine, v, epochs=25, learning_rate=0.01, method="contrastive_divergence", state=state)
        strengths.append(float(state.machine.coupling_strength()))
        assert np.isfinite(state.machine.log_partition(method="gaussian").value)
    assert 0.95 < max(strengths) < 0.9991


def test_progress_and_tempering_of_estimators(data, capsys):
    """Copies at smaller weights are trained with, and progress is told where it is asked for."""
    model = networks.Phi4BernoulliRBM(2, n_epochs=2, n_levels=3, n_chains=10, progress=True).fit(data[:100])
    assert np.shape(model.state_.hot)[:2] == (2, 10) and 0 < model.history_[-1].exchange <= 1
    told = capsys.readouterr().err.splitlines()
    assert told[-1].startswith(f"epoch 2 of 2 · reconstruction {model.history_[-1].reconstruction:.3g}")
    stack = networks.DeepPhi4Network([networks.Phi4BernoulliRBM(2, n_epochs=2, n_chains=10)], progress=True).fit(
        data[:100]
    )
    assert capsys.readouterr().err.splitlines()[-1] == "machine 0 · epoch 2 of 2" and len(stack.machines_) == 1
    networks.Phi4BernoulliRBM(2, n_epochs=2, n_chains=10).fit(data[:100])
    assert capsys.readouterr().err == ""  # not on a terminal


def test_messages(start, data):
    with raises("argument.method", "'persistent_cd'", "'contrastive_divergence'", "'exact'", "got 'x'"):
        train(start, data, method="x")
    with raises("argument.data.shape", "3", "(5, 2)"):
        train(start, np.zeros((5, 2)))
    with raises("argument.learning_rate", "got 0"):
        train(start, data, learning_rate=0)
    with raises("argument.weight_decay", "0", "got -1"):
        train(start, data, weight_decay=-1)


# --- scikit-learn


def test_density_integrates_to_one():
    """exp(score_samples) of one feature, in the units of the data, summed by the trapezoidal rule; log Z is annealed."""
    x = np.random.default_rng(0).normal(50.0, 8.0, (300, 1)) + 30 * (np.arange(300) % 2)[:, None]
    model = networks.Phi4BernoulliRBM(13, n_epochs=5, n_annealing_steps=100).fit(x)  # too many for a sum over states
    grid = np.linspace(-60, 180, 2001)[:, None]
    total = np.trapezoid(np.exp(model.score_samples(grid)), grid[:, 0])
    assert abs(np.log(total)) < 4.5 * model.log_partition().error < 0.1


def test_works_in_a_pipeline_and_has_the_means_as_features(data):
    model = make_pipeline(StandardScaler(), networks.Phi4RBM(2, n_epochs=1)).fit(data)
    assert model.transform(data[:5]).shape == (5, 2)
    machine = model[-1].machine_
    mine = machine.hidden_mean(jnp.asarray(model[-1]._standardized(model[0].transform(data[:5]))))
    np.testing.assert_allclose(model.transform(data[:5]), mine)


def test_from_model_is_a_fitted_estimator():
    machine = RestrictedBoltzmannMachine(
        Phi4Units([0.0, 0.1], [0.5, 0.5], [0.1, 0.1]), Phi4Units([0.0], [0.5], [0.1]), [[0.5], [0.2]]
    )
    model = networks.Phi4RBM.from_model(machine.to_model(), 2)
    x = np.array([[0.1, -1.0]])
    np.testing.assert_allclose(model.transform(x), machine.hidden_mean(jnp.asarray(x)), rtol=1e-6)


def test_missing_scikit_learn_is_said(run_python, tmp_path):
    program = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import phi4ppl as p4\n"
        "try:\n    p4.networks.Phi4RBM\n"
        "except p4.errors.MissingPackageError as error:\n    assert \"pip install 'phi4ppl[sklearn]'\" in str(error)\n"
        "else:\n    raise SystemExit('no error')\n"
    )
    run_python(["-c", program], cwd=tmp_path)
