"""What a newcomer does wrong with machines: each is told what was expected, none gets numbers of something else."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
import xarray as xr
from raising import raises

from phi4ppl.networks import BernoulliUnits, GaussianBernoulliRBM, GaussianUnits, RestrictedBoltzmannMachine, train

pytestmark = pytest.mark.compile_quickly

OPTIONS = {"epochs": 1, "batch_size": 20, "num_chains": 10}
SMALL = {"n_epochs": 1, "batch_size": 20, "n_chains": 10}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.choice([-1.0, 1.0], (60, 1)) * [1.0, -1.0, 0.5] + rng.normal(0, 0.4, (60, 3))


@pytest.fixture(scope="module")
def machine():
    return RestrictedBoltzmannMachine(
        GaussianUnits(np.zeros(3), np.full(3, 0.5)), BernoulliUnits([0.0, 0.0]), [[0.1, -0.1]] * 3
    )


@pytest.fixture(scope="module")
def state(machine, data):
    return train(machine, data, **OPTIONS)[0]


@pytest.fixture(scope="module")
def fitted(data):
    return GaussianBernoulliRBM(2, **SMALL).fit(data)


def test_contrastive_divergence_has_no_persistent_chains(machine, data, state):
    """Their number is nothing to it: the same bits with fewer chains than data in a batch, and after a state of chains."""
    few, many = (
        train(machine, data, method="contrastive_divergence", **OPTIONS | {"num_chains": number})[0].machine
        for number in (10, 20)
    )
    for one, other in zip(jax.tree.leaves(few), jax.tree.leaves(many), strict=True):
        np.testing.assert_array_equal(one, other)
    assert train(machine, data, method="contrastive_divergence", state=state, **OPTIONS)[0].epoch == 2


def test_a_state_of_another_training_is_refused(machine, data, state):
    other = RestrictedBoltzmannMachine(machine.visible, BernoulliUnits([0.0]), np.zeros((3, 1)))
    with raises("argument.machine.state", "BernoulliUnits(2)", "(1)"):
        train(other, data, state=state, **OPTIONS)
    with raises("argument.num_chains.state", "10", "got 7"):
        train(machine, data, state=state, **OPTIONS | {"num_chains": 7})
    with raises("argument.learning_rate.state"):
        train(machine, data, state=state, learning_rate=optax.constant_schedule(0.1), **OPTIONS)
    with raises("argument.state", "TrainingState", "got ndarray"):
        train(machine, data, state=data)


def test_a_gradient_that_overflows_is_told(machine, data, state):
    """Adam divides by its square, which is infinite: couplings would stay finite, and never move."""
    with raises("sampling.diverged", "the gradient") as raised:
        train(machine, data * 1e12, state=state, **OPTIONS)
    assert raised.value.state is state


def test_messages(machine, data):
    with raises("argument.machine", "RestrictedBoltzmannMachine", "got ndarray"):
        train(data, data)
    with raises("argument.seed.too_large", "4294967295", "got 4294967296"):
        train(machine, data, seed=2**32)
    with raises("argument.learning_rate", "got inf"):
        train(machine, data, learning_rate=np.inf)
    with raises("argument.clamped.shape", "(3,)"):
        machine.gibbs(jax.random.key(0), jnp.zeros(3), clamped=[0, 1, 2])
    with raises("argument.v", "got str"):
        machine.free_energy("v")


def test_messages_of_estimators(data, fitted):
    for number in (0, -1, 2.5, "2"):
        with raises("argument.n_components", "1", got=repr(number)):
            GaussianBernoulliRBM(number).fit(data)
    with raises("argument.n_annealing_steps", "1", "got 0"):
        GaussianBernoulliRBM(2, n_annealing_steps=0).fit(data)
    with raises("argument.n_samples", "1", "got 0"):
        fitted.sample(0)
    with raises("argument.n_sweeps", "0", "got -1"):
        fitted.sample(1, n_sweeps=-1)
    with raises("argument.X.finite", "1"):
        GaussianBernoulliRBM(2).fit(data * [1, 1e300, 1])
    other = GaussianBernoulliRBM.from_machine(fitted.machine_).set_params(n_components=3)
    with raises("argument.n_components.state", "2", "3"):
        other.partial_fit(data)


def test_units_of_measurement_change_the_density_by_the_jacobian(data, fitted):
    """Also those in which numbers are tiny, which once passed for a constant feature; constants of float32 still are."""
    tiny = GaussianBernoulliRBM(2, **SMALL).fit(data * [1, 1e-10, 1])
    expected = fitted.score(data) + np.log(1e10)
    np.testing.assert_allclose(tiny.score(data * [1, 1e-10, 1]), expected, atol=1e-4)
    constant = np.hstack([data[:, :2], np.full((60, 1), 0.1)]).astype(np.float32)
    assert GaussianBernoulliRBM(2, **SMALL).fit(constant).scale_[2] == 1


def test_a_machine_that_is_given_has_as_many_chains_as_others(fitted):
    """With a single one `partial_fit` would follow a gradient of one state."""
    given = GaussianBernoulliRBM.from_machine(fitted.machine_)
    assert given.state_.chains.shape == (given.n_chains, 3)


def test_labels_that_scikit_learn_ignores_are_refused(data):
    """Features in another order than in `fit` were read by position; without labels there is nothing to ignore."""
    table = pd.DataFrame(data, columns=list("cab"))
    model = GaussianBernoulliRBM(2, **SMALL).fit(table)
    labeled = xr.DataArray(data, dims=("s", "f"), coords={"f": list("abc")})
    rows = [row for _, row in table[list("abc")].iterrows()]
    cases = {
        "a DataArray with coordinates": labeled,
        "a Dataset": labeled.to_dataset(name="v"),
        "a list of Series": rows,
        "a tuple of Series": tuple(rows),
        "a list of DataArray": list(labeled),
        "a list of dict": [dict(row) for row in rows],
        "a dict": dict(table),
    }
    for got, X in cases.items():
        for method in (model.score, model.transform, model.partial_fit, GaussianBernoulliRBM(2, **SMALL).fit):
            with raises("argument.X", got=got):
                method(X)
    model = GaussianBernoulliRBM(2, **SMALL).fit(data)
    for bare in (xr.DataArray(data), [pd.Series(row) for row in data], data.tolist()):
        assert model.score(bare) == model.score(data)
