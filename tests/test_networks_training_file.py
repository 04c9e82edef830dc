"""Trainings on disk: killed, interrupted and gone on to the same numbers; what is foreign or damaged is refused; the log."""

import itertools
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from raising import raises, warns

import phi4ppl as p4
from phi4ppl import networks
from phi4ppl.networks import BernoulliUnits, GaussianUnits, RestrictedBoltzmannMachine, train
from phi4ppl.networks.training_log import pseudo_likelihood

# not compiled quickly: bits of this process are compared with those of another, which compiles as a user's does

PROGRAM = """
import os, numpy as np
from phi4ppl.networks import BernoulliUnits, GaussianUnits, RestrictedBoltzmannMachine, train, training_file
training_file.SECONDS = 0
data = np.random.default_rng(0).normal(size=(60, 2))
start = RestrictedBoltzmannMachine(GaussianUnits([0.0, 0.0], [0.5, 0.5]), BernoulliUnits([0.0]), [[0.3], [-0.2]])
def die(record, state):
    if record.number == 3:
        os._exit(0)
train(start, data, epochs=8, batch_size=20, num_chains=20, num_levels=3, checkpoint="kept", on_epoch=die)
"""


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).normal(size=(60, 2))


@pytest.fixture(scope="module")
def start():
    return RestrictedBoltzmannMachine(GaussianUnits([0.0, 0.0], [0.5, 0.5]), BernoulliUnits([0.0]), [[0.3], [-0.2]])


OPTIONS = {"epochs": 8, "batch_size": 20, "num_chains": 20, "num_levels": 3}


@pytest.fixture(scope="module")
def whole(start, data):
    return train(start, data, **OPTIONS)


def require_same(one, other):
    for mine, yours in zip(jax.tree.leaves(one[0]), jax.tree.leaves(other[0]), strict=True):
        np.testing.assert_array_equal(mine, yours)
    np.testing.assert_array_equal(np.array(one[1], float), np.array(other[1], float))


def test_a_killed_training_goes_on_to_the_same_numbers(run_python, tmp_path, start, data, whole):
    run_python(["-c", PROGRAM], cwd=tmp_path)
    seen = []
    again = train(
        start, data, **OPTIONS, checkpoint=tmp_path / "kept", on_epoch=lambda record, _: seen.append(record.number)
    )
    assert seen == [4, 5, 6, 7, 8]  # the third was on disk
    require_same(again, whole)
    require_same(train(start, data, **OPTIONS, checkpoint=tmp_path / "kept"), whole)  # complete: read only
    longer = train(start, data, **OPTIONS | {"epochs": 9}, checkpoint=tmp_path / "kept")
    require_same(longer, train(start, data, **OPTIONS | {"epochs": 9}))


def test_ctrl_c_returns_what_there_is_and_keeps_it(tmp_path, start, data, whole):
    def stop(record, _):
        if record.number == 5:
            signal.raise_signal(signal.SIGINT)

    with warns("training.interrupted", "5 of 8"):
        state, history = train(start, data, **OPTIONS, checkpoint=tmp_path / "kept", on_epoch=stop)
    assert state.epoch == len(history) == 5
    require_same(train(start, data, **OPTIONS, checkpoint=tmp_path / "kept"), whole)


def test_divergence_leaves_the_last_good_state_on_disk(tmp_path, start, data):
    rate = optax.piecewise_constant_schedule(0.01, {6: 1e38})
    options = {"epochs": 4, "batch_size": 20, "learning_rate": rate, "checkpoint": tmp_path / "kept"}
    for seen in ([1, 2], []):  # the second time it goes on from there, and diverges at once
        numbers = []
        with raises("sampling.diverged", "3") as raised:
            train(start, data, **options, on_epoch=lambda record, _, numbers=numbers: numbers.append(record.number))
        assert raised.value.state.epoch == 2 and numbers == seen


def test_foreign_and_damaged_directories_are_refused(tmp_path, start, data):
    options = OPTIONS | {"epochs": 1, "checkpoint": tmp_path / "kept"}
    train(start, data, **options)
    with raises("checkpoint.other_run", "data"):
        train(start, data + 1, **options)
    with raises("checkpoint.other_run", "learning_rate is 0.005 there", "0.01"):
        train(start, data, **options, learning_rate=optax.constant_schedule(0.01))
    with raises("checkpoint.other_run", "centering is True there, False here"):
        train(start, data, **options, centering=False)
    head = tmp_path / "kept" / "head.ckpt"
    whole = head.read_bytes()
    head.write_bytes(whole[:-3] + b"xyz")
    with raises("checkpoint.damaged"):
        train(start, data, **options)
    head.write_bytes(whole)
    train(start, data, **options)
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("not yours")
    with raises("checkpoint.other_files", "mine.txt"):
        train(start, data, **OPTIONS | {"checkpoint": other})
    with raises("checkpoint.training"):
        p4.load_run(tmp_path / "kept")


def test_other_number_of_levels_than_the_state(start, data, whole):
    with raises("argument.num_levels.state", "3", "got 1"):
        train(start, data, state=whole[0])


# --- the log


def test_pseudo_likelihood_is_that_of_all_states(x64):
    machine = RestrictedBoltzmannMachine(
        BernoulliUnits([0.3, -0.2, 0.5]), BernoulliUnits([0.1, -0.4]), [[0.8, -0.5], [1.1, 0.3], [-0.7, 0.9]]
    )
    states = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
    p = np.exp(-np.asarray(machine.free_energy(states)))
    index = {tuple(s): k for k, s in enumerate(states)}
    total = 0.0
    for v in states[:5]:
        for i in range(3):
            other = v.copy()
            other[i] = 1 - v[i]
            total += np.log(p[index[tuple(v)]] / (p[index[tuple(v)]] + p[index[tuple(other)]]))
    assert float(pseudo_likelihood(machine, jnp.asarray(states[:5]))) == pytest.approx(total / 5, abs=1e-12)


def test_log_records_the_exact_likelihood_at_intervals(start, data, whole):
    state, history = train(start, data, **OPTIONS | {"epochs": 4}, validation=data[:20], likelihood_every=2)
    assert np.isnan([history[0].log_likelihood, history[2].log_likelihood]).all()
    exact = float(np.mean(state.machine.log_prob(jnp.asarray(data[:20]))))
    assert history[-1].log_likelihood == pytest.approx(exact, abs=1e-5) and history[-1].log_likelihood_error < 1e-5
    energy = state.machine.free_energy(jnp.asarray(data))
    assert history[-1].free_energy_gap == pytest.approx(float(energy[:20].mean() - energy[:20].mean()), abs=1e-5)
    assert 0 < history[-1].exchange <= 1 and np.isnan(history[-1].pseudo_likelihood)


def test_picture_of_the_log(whole, tmp_path):
    figure = networks.plot_training(whole[1])
    titles = [axes.get_title() for axes in figure.axes if axes.get_visible()]
    measured = ["reconstruction", "gradient norm", "chain change", "exchange", "strength", "condensed"]
    assert titles == measured  # and no more
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_xdata(), np.arange(1, 9))
    assert "epoch" in [axes.get_xlabel() for axes in figure.axes]
    with raises("argument.history"):
        networks.plot_training([])
