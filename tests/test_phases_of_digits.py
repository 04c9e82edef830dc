"""The cascade in a training on digits, for three kinds of machines: singular values by hand, and what chains see of it."""

from __future__ import annotations

import numpy as np
import pytest

from phi4ppl.networks import BernoulliUnits, Phi4Units, RestrictedBoltzmannMachine, phases, train

pytestmark = pytest.mark.slow

GRID = np.linspace(-9, 9, 1801)
EVERY = 3


def moments(units, field) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of single units in a field, by sums written out here."""
    x = GRID if units.states is None else np.array(units.states)
    log = (field - np.asarray(units.linear, float))[:, None] * x
    if units.states is None:
        log = (
            log - np.asarray(units.quadratic, float)[:, None] * x**2 - np.asarray(units.quartic, float)[:, None] * x**4
        )
    weight = np.exp(log - log.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    mean = weight @ x
    return mean, weight @ x**2 - mean**2


def largest_singular_value(machine, data) -> float:
    """σ₁ of D_v^½ W D_h^½ around the means of the data."""
    w, below = np.asarray(machine.weights, float), data.mean(axis=0)
    above, hidden = moments(machine.hidden, below @ w)
    _, visible = moments(machine.visible, w @ above)
    return float(np.linalg.svd(np.sqrt(visible)[:, None] * w * np.sqrt(hidden), compute_uv=False)[0])


def trained(kinds: str, rate: float, rows: int = 600):
    data = pytest.importorskip("sklearn.datasets").load_digits().data[:rows] / 16
    layers = [Phi4Units(np.zeros(n), np.full(n, 0.4), np.full(n, 0.02)) for n in (64, 16)]
    below, above = kinds.split("-")
    if below == "bernoulli":
        share = np.clip(data.mean(axis=0), 0.01, 0.99)
        layers[0] = BernoulliUnits(np.log(1 / share - 1))
    else:
        data = (data - data.mean(axis=0)) / (data.std(axis=0) + 0.1)
    if above == "bernoulli":
        layers[1] = BernoulliUnits(np.zeros(16))
    weights, states = np.random.default_rng(0).normal(0, 0.005, (64, 16)), []
    start = RestrictedBoltzmannMachine(*layers, weights)
    train(start, data, epochs=16, learning_rate=rate, on_epoch=lambda record, state: states.append(state))
    return data, states[::EVERY]


@pytest.mark.parametrize(
    ("kinds", "rate"), [("phi4-phi4", 3e-3), ("phi4-bernoulli", 2e-3), ("bernoulli-bernoulli", 6e-3)]
)
def test_the_first_mode_condenses_where_its_singular_value_crosses_its_critical_value(kinds, rate):
    """σ₁ of the definition crosses 1 between the records that the result names. Chains see it: U₄ of the mode is 0 within 4.5
    errors at the first record and above by 5 after the crossing, where the susceptibility has grown. Planted: that of another
    singular vector, the last, is as Gaussian after the crossing as before."""
    data, states = trained(kinds, rate)
    found = phases(states, data=data, num_modes=16, num_samples=300, num_chains=32, annealing_steps=0, sweeps=0, seed=1)
    sigma = np.array([largest_singular_value(state.machine, data) for state in states])
    epochs = np.array([state.epoch for state in states], float)
    rows = found.data.isel(size=0)
    assert rows["strength"].values[:, 0] == pytest.approx(sigma, rel=2e-3)
    rise = int(np.argmax(sigma >= 1))
    assert sigma[0] < 0.5 and sigma[rise] >= 1 and found.cascade[0].mode == 1
    assert found.transition.interval == (epochs[rise - 1], epochs[rise])
    u, error = rows["binder_cumulant"].values, rows["binder_cumulant_error"].values
    assert abs(u[0, 0]) < 4.5 * error[0, 0]
    assert u[rise, 0] > u[0, 0] + 5 * np.hypot(error[rise, 0], error[0, 0]) and u[rise, 0] > 0.08
    assert rows["full_susceptibility"].values[rise, 0] > 1.8 * rows["full_susceptibility"].values[0, 0]
    assert abs(u[rise, 15]) < 0.08
