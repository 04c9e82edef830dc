"""Machines with binary units in an external field, against sums over all states of both layers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from raising import raises
from scipy.stats import norm

from phi4ppl.disorder import response
from phi4ppl.networks import BernoulliUnits, Phi4Units, RestrictedBoltzmannMachine, SpinUnits
from phi4ppl.results.tails import pareto_k

pytestmark = pytest.mark.compile_quickly

LEVEL = 1e-4  # false-alarm rate of each statistical test: Bonferroni over its numbers
GRID = np.linspace(-3.5, 3.5, 71)  # of φ⁴ units: the error of the trapezoidal rule is below 1e-9
PATTERN = np.array([1.0, -1.0, 0.0])
KINDS = ("spin-spin", "bernoulli-spin", "phi4-bernoulli")


def bound(number: int) -> float:
    return norm.isf(LEVEL / 2 / number)


def machine(kinds: str, hidden: int = 4) -> RestrictedBoltzmannMachine:
    rng = np.random.default_rng(4)
    layers = []
    for kind, size in zip(kinds.split("-"), (3, hidden), strict=True):
        linear = rng.normal(0, 0.3, size)
        if kind == "phi4":
            layers.append(Phi4Units(linear, np.full(size, -0.2), np.full(size, 0.4)))
        else:
            layers.append((SpinUnits if kind == "spin" else BernoulliUnits)(linear))
    return RestrictedBoltzmannMachine(*layers, rng.normal(0, 0.6, (3, hidden)))


def states_and_weights(found: RestrictedBoltzmannMachine):
    """All states of both layers, shape (states, units), and exp(−S), written out here."""
    values, own = [], []
    for units in (found.visible, found.hidden):
        linear = np.asarray(units.linear, float)
        for k in range(units.size):
            x = np.array(units.states) if units.states else GRID
            values.append(x)
            energy = linear[k] * x
            if not units.states:
                energy = energy + float(units.quadratic[k]) * x**2 + float(units.quartic[k]) * x**4
            own.append(energy)
    states = np.stack([part.reshape(-1) for part in np.meshgrid(*values, indexing="ij")], axis=-1)
    energy = sum(part.reshape(-1) for part in np.meshgrid(*own, indexing="ij"))
    v, h = states[:, : found.visible.size], states[:, found.visible.size :]
    energy = energy - np.einsum("si,ij,sj->s", v, np.asarray(found.weights, float), h)
    return states, np.exp(-(energy - energy.min()))


def exact(found, pattern, field: float = 0.0) -> tuple[float, float, np.ndarray]:
    """⟨m⟩, χ and ∂⟨x_j⟩/∂h of all units in the field h of a pattern over both layers."""
    states, weight = states_and_weights(found)
    m = states @ pattern / np.count_nonzero(pattern)
    weight = weight * np.exp(field * states @ pattern)
    weight /= weight.sum()
    mean, each = weight @ m, weight @ states
    volume = np.count_nonzero(pattern)
    return mean, volume * (weight @ m**2 - mean**2), volume * (weight @ (states * m[:, None]) - each * mean)


def on_visible(found, pattern=PATTERN):
    return np.r_[pattern, np.zeros(found.hidden.size)]


def test_the_field_enters_one_layer_with_the_sign_that_raises_the_mean():
    whole = machine("spin-spin")
    for layer, pattern in (("visible", PATTERN), ("hidden", np.array([0.0, 2.0, 0.0, -1.0]))):
        answer = response(whole, pattern, layer=layer)
        v, h = np.array([1.0, -1.0, 1.0]), np.array([1.0, 1.0, -1.0, -1.0])
        change = float(answer.at(0.7).energy(v, h)) - float(whole.energy(v, h))
        assert change == pytest.approx(-0.7 * pattern @ (v if layer == "visible" else h), abs=1e-5)
        assert answer.source.volume == 2


@pytest.mark.parametrize("kinds", KINDS)
def test_every_unit_answers_as_the_sum_over_states_says(kinds):
    """∂⟨v_i⟩/∂h and ∂⟨h_j⟩/∂h, seven numbers at 1e-4. Planted: the response to a field on the hidden units."""
    whole = machine(kinds)
    answer = response(whole, PATTERN)
    found = answer.local(0.2, num_samples=3000, num_warmup=100, seed=1)
    values = np.r_[found["visible"].values, found["hidden"].values]
    errors = np.r_[found["visible_error"].values, found["hidden_error"].values]
    _, _, truth = exact(whole, on_visible(whole), 0.2)
    assert np.abs((values - truth) / errors).max() < bound(7)
    _, _, other = exact(whole, np.r_[np.zeros(3), np.ones(4)], 0.2)
    assert np.abs((values - other) / errors).max() > 2 * bound(7)
    assert [axes.get_xlabel() for axes in answer.plot_local(found).axes] == ["visible unit", "hidden feature, in order"]


@pytest.mark.parametrize("layer", ["visible", "hidden"])
def test_susceptibilities_of_a_binary_machine_have_both_their_values(layer):
    """χ from fluctuations and from differences over ±0.3, whose own error of order δ² is in the exact value; 1e-4."""
    whole = machine("bernoulli-spin")
    pattern = PATTERN if layer == "visible" else np.array([1.0, 0.0, 1.0, -1.0])
    over = on_visible(whole) if layer == "visible" else np.r_[np.zeros(3), pattern]
    found = response(whole, pattern, layer=layer).susceptibility(
        0.1, step=0.3, num_samples=4000, num_warmup=100, seed=2
    )
    mean, chi, _ = exact(whole, over, 0.1)
    above, below = (exact(whole, over, field)[0] for field in (0.4, -0.2))
    for part, truth in ((found.fluctuations, chi), (found.difference, (above - below) / 0.6)):
        assert part.reliable and abs(part.value - truth) < bound(2) * part.error
    without = exact(whole, over, 2.0)[1]
    assert abs(found.fluctuations.value - without) > 2 * bound(2) * found.fluctuations.error  # planted: another field


def test_a_magnetization_curve_by_reweighting_is_the_exact_one():
    """⟨m⟩(h) and χ(h) of spins at five fields from one run; 1e-4. Planted: the opposite sign of h."""
    whole = machine("spin-spin")
    values = np.linspace(-0.6, 0.6, 5)
    found = response(whole, PATTERN).curve(values, num_samples=3000, num_warmup=100, seed=3)
    rows = [exact(whole, on_visible(whole), h) for h in values]
    for k, name in enumerate(("m", "susceptibility")):
        truth = np.array([row[k] for row in rows])
        assert np.abs((found[name].value - truth) / found[name].error).max() < bound(10)
    wrong = np.array([row[0] for row in rows[::-1]])
    assert np.abs((found["m"].value - wrong) / found["m"].error).max() > 2 * bound(10)


def test_loops_of_block_gibbs_sweeps_obey_jarzynski_and_close_when_slow():
    """One pattern of strong weights: ⟨exp(−W)⟩ = 1 at both rates (1e-4), and the area falls with the rate."""
    size = 6
    whole = RestrictedBoltzmannMachine(
        SpinUnits(np.zeros(size)), SpinUnits(np.zeros(size)), np.full((size, size), 1.4 / size)
    )
    answer = response(whole)
    loops = [answer.hysteresis(0.25, rate, num_steps=10, num_replicas=4000, seed=4) for rate in (0.05, 0.005)]
    for loop in loops:
        weight = np.exp(-loop.work.reshape(-1))
        assert abs(weight.mean() - 1) < bound(2) * weight.std() / np.sqrt(weight.size)
        assert loop.magnetization.shape == (1, 4000, 21) and loop.magnetization[0, :, 0].mean() > 0
    fast, slow = loops
    assert fast.area > slow.area + 4 * np.hypot(fast.area_error, slow.area_error) and fast.area > 5 * fast.area_error
    late = -size * np.sum(slow.magnetization[0, :, 1:] * np.diff(slow.field), axis=-1)  # planted: m one step late
    weight = np.exp(-late)
    assert abs(weight.mean() - 1) > bound(2) * weight.std() / np.sqrt(weight.size)


def exact_loop(weights, fields, sweeps: int) -> np.ndarray:
    """⟨m⟩ of the visible spins of a machine along a loop, by the transition matrix of a sweep on the hidden states."""
    size = weights.shape[0]
    states = np.array(list(itertools.product((-1.0, 1.0), repeat=size)))
    coupling = states @ weights @ states.T  # v by h

    def conditional(log):
        weight = np.exp(log - log.max(axis=0))
        return weight / weight.sum(axis=0)

    upward = conditional(coupling.T)  # h given v: the field acts on the visible spins
    h = np.exp(coupling + fields[0] * states.sum(axis=1)[:, None]).sum(axis=0)
    h, found = h / h.sum(), []
    for field in fields:
        for _ in range(sweeps):
            v = conditional(coupling + field * states.sum(axis=1)[:, None]) @ h
            h = upward @ v
        found.append(v @ states.mean(axis=1))
    return np.array(found)


def test_areas_of_driven_loops_are_those_of_the_transition_matrix():
    """m along the loop, area and coercive field at two rates: 1e-4. Planted: the exact loop at twice the rate."""
    weights = np.full((3, 3), 0.4)
    answer = response(RestrictedBoltzmannMachine(SpinUnits(np.zeros(3)), SpinUnits(np.zeros(3)), weights))
    for rate, sweeps in ((0.1, 1), (0.025, 4)):
        loop = answer.hysteresis(0.6, rate, num_steps=12, num_replicas=8000, seed=5)
        assert loop.iterations == sweeps
        truth, other = exact_loop(weights, loop.field, sweeps), exact_loop(weights, loop.field, 2 * sweeps)
        assert np.abs((loop.mean - truth) / loop.error).max() < bound(25 + 2)
        area, wrong = (-np.trapezoid(m, loop.field) for m in (truth, other))
        assert abs(loop.area - area) < bound(27) * loop.area_error
        assert abs(loop.area - wrong) > 2 * bound(27) * loop.area_error
        down = np.interp(0, truth[12::-1], loop.field[12::-1])
        up = np.interp(0, truth[12:], loop.field[12:])
        assert abs(loop.coercive_field - (up - down) / 2) < bound(27) * loop.coercive_field_error
    areas = [answer.hysteresis(0.6, 0.1, num_steps=12, num_replicas=20, seed=k) for k in range(40)]
    truth = -np.trapezoid(exact_loop(weights, areas[0].field, 1), areas[0].field)
    inside = np.mean([abs(each.area - truth) < each.area_error for each in areas])
    assert 0.5 < inside < 0.85  # 68 % are expected; outside this range with a probability of 2 %, of one fixed stream


def test_what_block_gibbs_cannot_do_is_refused():
    answer = response(machine("spin-spin"))
    with raises("argument.kernel.binary", "block Gibbs", "'auto'"):
        answer.susceptibility(kernel="hmc")
    with raises("argument.kernel.binary"):
        answer.hysteresis(1.0, 0.1, kernel="local_hmc")
    with raises("argument.couplings.binary", "one machine after the other"):
        answer.hysteresis(1.0, 0.1, num_steps=20, couplings={"w": np.ones(3)})
    with raises("argument.source.zero"):
        response(machine("spin-spin"), np.zeros(3))
    with raises("argument.num_samples", "at least 10"):
        answer.local(num_samples=3)
    frozen = response(RestrictedBoltzmannMachine(SpinUnits([-50.0]), SpinUnits([-50.0]), [[1.0]]))
    with raises("argument.step.pilot", "does not vary"):
        frozen.susceptibility(num_samples=20, num_warmup=20)


def test_states_are_counted_once():
    """The sums of this file: two spins by hand."""
    two = RestrictedBoltzmannMachine(SpinUnits([0.0]), SpinUnits([0.0]), [[0.5]])
    states, weight = states_and_weights(two)
    assert sorted(map(tuple, states)) == sorted(itertools.product((-1.0, 1.0), repeat=2))
    mean, chi, each = exact(two, np.array([1.0, 0.0]))
    assert (mean, chi) == pytest.approx((0, 1)) and each == pytest.approx([1, np.tanh(0.5)])


def test_the_tail_of_tied_weights_is_that_of_untied_ones():
    """Discrete fields give equal weights, of which the fit of a tail is 0/0: k̂ of a binomial is near that of its Gaussian."""
    rng = np.random.default_rng(0)
    for step, light in ((0.1, True), (1.0, False)):
        tied = pareto_k(step * rng.binomial(64, 0.5, 12_000))
        smooth = pareto_k(step * (32 + 4 * rng.normal(size=12_000)))
        assert abs(tied - smooth) < 0.35 and (tied < 0.5) == light
    assert pareto_k(np.array([0.0, 0.5, 1.0])[rng.integers(0, 3, 4000)]) < 0
    assert pareto_k(np.zeros(100)) == -np.inf
