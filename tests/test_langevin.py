"""Langevin dynamics, complex Langevin dynamics and works, against closed forms and quadrature.

Statistical tests have fixed keys and compare at 4.5 standard errors: a false alarm in 7e-6 of the comparisons.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from raising import raises, warns

import phi4ppl as p4
from phi4ppl.dynamics import (
    ComplexLangevin,
    GradientFlow,
    Langevin,
    evolve,
    extrapolate,
    free_energy_difference,
    free_variance,
    time_averages,
)
from phi4ppl.dynamics.process import process

pytestmark = pytest.mark.compile_quickly

SIGMAS = 4.5
NODES = np.linspace(-8, 8, 8001)


def frequencies(size, mass_squared):
    """ω of every mode of S = ½ Σ φ(−Δ + m²)φ on the periodic square lattice."""
    k = 2 * np.pi * np.arange(size) / size
    return mass_squared + 4 - 2 * np.cos(k)[:, None] - 2 * np.cos(k)[None]


def free_field(size, mass_squared):
    return p4.gaussian(p4.lattice.square(size), w=1.0, a=2 + mass_squared / 2)


def equilibrium(model, number, seed=0):
    return np.asarray(p4.GibbsField(model).sample(jax.random.key(seed), (number,)))


def one_site_draws(couplings, number):
    """Draws of exp(−aφ² − bφ⁴) on a fine grid."""
    a, b = couplings
    weights = np.exp(-a * NODES**2 - b * NODES**4)
    return np.random.default_rng(5).choice(NODES, size=(number, 1), p=weights / weights.sum())


def pull(found, exact):
    return abs(found.value - exact) / found.error


def test_closed_forms_are_those_of_independent_runs():
    omega = frequencies(16, 0.5)
    assert np.mean(1 / omega) == pytest.approx(0.3162386, abs=1e-7)
    variance = free_variance(omega, 0.05)
    assert variance.mean() == pytest.approx(0.3444977, abs=1e-7)
    assert np.mean(omega * variance) / 2 == pytest.approx(0.5651813, abs=1e-7)
    assert free_variance(2.0, 1e-5, "heun") == pytest.approx(0.5)


@pytest.mark.parametrize("acceleration", [None, 0.5])
@pytest.mark.parametrize("step", ["euler", "heun", "exponential", "mala"])
def test_stationary_variance_of_a_free_field_is_the_closed_form(step, acceleration):
    """The mean over modes of 1/ω with the factor of the step; with acceleration x = εωM(k)."""
    model, omega = free_field(4, 0.5), frequencies(4, 0.5)
    pace = np.ones_like(omega) if acceleration is None else (0.5 + 8) / omega
    exact = np.mean(pace * free_variance(omega * pace, 0.1, step))
    tree = evolve(Langevin(model, step, acceleration), equilibrium(model, 200), time=60.0, step_size=0.1, every=1.0)
    found = time_averages(tree, ["phi_squared"], burn_in=10.0)["phi_squared"]
    assert pull(found, exact) < SIGMAS
    if step in ("euler", "heun"):  # the bias is there to be seen
        assert abs(exact - np.mean(1 / omega)) > SIGMAS * found.error


@process
class _Faulty(Langevin):
    """A step with another strength of its noise."""

    def move(self, step_size):
        move = super().move(step_size)
        return move._replace(spread=move.spread / 2)


@pytest.mark.parametrize("step", ["euler", "exponential"])
def test_planted_wrong_noise_is_caught(step):
    """√ε for √(2ε), and a dropped ½ in the exponential step's variance."""
    model, omega = free_field(4, 0.5), frequencies(4, 0.5)
    tree = evolve(_Faulty(model, step), equilibrium(model, 200), time=60.0, step_size=0.1, every=1.0)
    found = time_averages(tree, ["phi_squared"], burn_in=10.0)["phi_squared"]
    assert pull(found, free_variance(omega, 0.1, step).mean()) > 4 * SIGMAS


@pytest.mark.parametrize("acceleration", [None, 1.0])
def test_mala_samples_a_small_graph(acceleration):
    """⟨φ₀²⟩ and ⟨φ₀φ₁⟩ of an open chain of three by quadrature, at a step where a third of the proposals is rejected."""
    model = p4.phi4(p4.lattice.chain(3, periodic=False), w=0.8, a=[0.7, 0.2, 0.9], b=0.3)
    quantities = {"phi2": lambda phi: phi[0] ** 2, "pair": lambda phi: phi[0] * phi[1]}
    exact = p4.exact.quadrature(model, quantities, half_width=5.0, points=64)
    start = np.random.default_rng(0).normal(size=(500, 3)) / 2
    tree = evolve(Langevin(model, "mala", acceleration), start, time=60.0, step_size=0.25, every=1.0)
    assert 0.3 < float(tree["evolution"]["acceptance_rate"].mean()) < 0.95
    found = time_averages(tree, quantities, burn_in=20.0)
    assert all(pull(found[name], exact[name]) < SIGMAS for name in quantities)


def test_exponential_step_on_a_graph_without_fourier_modes_is_exact_for_a_free_field():
    """All variances of an open chain with couplings that differ."""
    model = p4.gaussian(p4.lattice.chain(4, periodic=False), w=[0.3, 0.5, -0.4], a=[1.0, 0.8, 1.2, 0.9])
    covariance = np.linalg.inv(np.asarray(p4.exact.gaussian_precision(model), float))
    tree = evolve(Langevin(model, "exponential"), np.zeros((500, 4)), time=60.0, step_size=0.5, every=1.0)
    found = time_averages(tree, {"squares": lambda phi: phi**2}, burn_in=10.0)["squares"]
    assert np.all(np.abs(found.value - np.diag(covariance)) < SIGMAS * found.error)


def test_step_size_zero_of_a_quartic_site():
    """Euler steps: the average at ε = 0.1 is off by many errors, the extrapolated one is not."""
    model = p4.phi4(p4.lattice.chain(1), w=0.0, a=0.5, b=0.25)
    exact = p4.exact.quadrature(model, {"phi2": lambda phi: phi[0] ** 2}, points=400)["phi2"]
    start = one_site_draws((0.5, 0.25), 3000)
    runs = [
        evolve(Langevin(model), start, time=30.0, step_size=step, every=1.0, seed=seed, keep_field=False)
        for seed, step in enumerate((0.02, 0.05, 0.1))
    ]
    found = extrapolate(runs, ["phi_squared"], order=1, terms=1, burn_in=3.0)
    assert pull(found.at_steps[0.1]["phi_squared"], exact) > 2 * SIGMAS
    assert abs(found.value["phi_squared"] - exact) < SIGMAS * found.error["phi_squared"]
    assert found.error["phi_squared"] < 0.005 and not found.warnings
    with raises("argument.trees.duplicate"):
        extrapolate([*runs[:2], runs[0]], ["phi_squared"], order=1, burn_in=3.0)


def test_unstable_steps_are_refused_with_the_limit():
    model = free_field(4, 0.5)
    for step in ("euler", "heun"):
        with raises("argument.step_size.unstable"):  # 2/8.5
            evolve(Langevin(model, step), np.zeros((4, 4)), time=1.0, step_size=0.25)


def complex_site(a, b, *, time=40.0, replicas=400, step_size=0.01):
    """Complex Langevin dynamics of exp(−aφ² − bφ⁴), and ⟨φ²⟩ by quadrature on the real axis."""
    model = p4.phi4(p4.lattice.chain(1), w=0.0, a=max(np.real(a), -2.0), b=b)
    tree = evolve(
        ComplexLangevin(model, {"a": a}),
        np.zeros((replicas, 1)),
        time=time,
        step_size=step_size,
        every=0.5,
        seed=int(1e4 * step_size),
    )
    weights = np.exp(-a * NODES**2 - b * NODES**4)
    return tree, np.sum(weights * NODES**2) / np.sum(weights)


def square(phi):
    return phi[0] ** 2


def test_complex_langevin_of_a_gaussian_is_the_closed_form():
    """S = σφ²/2, σ = 1 + i: ⟨φ²⟩ = 1/(σ(1 − σε/2)) at step ε."""
    sigma, step = 1 + 1j, 0.1
    one = p4.gaussian(p4.lattice.chain(1), w=0.0, a=0.5)
    process = ComplexLangevin(one, {"a": sigma / 2})
    tree = evolve(process, np.zeros((500, 1)), time=100.0, step_size=step, every=1.0)
    found = time_averages(tree, {"phi2": square}, burn_in=10.0)["phi2"]
    apart = found.value - 1 / (sigma * (1 - sigma * step / 2))
    assert abs(apart.real) < SIGMAS * found.error.real and abs(apart.imag) < SIGMAS * found.error.imag
    assert abs(found.value - (0.5 - 0.5j)) > 4 * abs(found.error)  # the exact average at ε = 0
    recorded = time_averages(tree, ["phi_squared"], burn_in=10.0)["phi_squared"]  # holomorphic too: not |φ|²
    assert recorded.value == pytest.approx(found.value, rel=1e-4)


@pytest.mark.parametrize(("a", "b"), [(-0.4 + 0.8j, 0.25), (0.1 + 0.8j, 0.05), (1.5j, 0.25)])
def test_complex_langevin_refuses_where_it_converges_to_a_wrong_answer(a, b):
    """S = σφ²/2 + φ⁴/4 is right for 3 Re(σ)² > Im(σ)² (G. Aarts, P. Giudice and E. Seiler, Ann. Phys. 337 (2013) 238).

    What is refused is wrong by many of its errors, against quadrature. These couplings were tried after the threshold was set.
    """
    tree, exact = complex_site(a, b)
    with raises("evolution.wrong_limit"):
        time_averages(tree, {"phi2": square}, burn_in=5.0)
    with warns("evolution.wrong_limit", "Pareto"):
        found = time_averages(tree, {"phi2": square}, burn_in=5.0, on_wrong_limit="warn")["phi2"]
    apart = found.value - exact
    assert max(abs(apart.real) / found.error.real, abs(apart.imag) / found.error.imag) > 2 * SIGMAS


def test_complex_langevin_inside_the_region_of_convergence_is_right():
    """σ = 1 + i by extrapolation; it is not refused."""
    runs = []
    for step in (0.0125, 0.025, 0.05):
        tree, exact = complex_site(0.5 + 0.5j, 0.25, step_size=step)
        runs.append(tree)
    found = extrapolate(runs, {"phi2": square}, order=1, burn_in=5.0)
    apart = found.value["phi2"] - exact
    assert abs(apart.real) < SIGMAS * found.error["phi2"].real and abs(apart.imag) < SIGMAS * found.error["phi2"].imag


def test_complex_langevin_agrees_with_reweighting_where_both_work():
    """An open chain of three with complex a, from a real ensemble by MALA; both against quadrature."""
    model = p4.phi4(p4.lattice.chain(3, periodic=False), w=0.5, a=0.8, b=0.25)
    target = 0.8 + 0.3j
    start = np.random.default_rng(1).normal(size=(400, 3)) / 2
    runs = [
        evolve(ComplexLangevin(model, {"a": target}), start, time=30.0, step_size=step, every=0.5, seed=seed)
        for seed, step in enumerate((0.0125, 0.025, 0.05))
    ]
    moved = extrapolate(runs, {"phi2": lambda phi: (phi**2).mean()}, order=1, burn_in=5.0)
    real = evolve(Langevin(model, "mala"), start, time=60.0, step_size=0.25, every=1.0, seed=9)
    weighed = p4.reweight(
        real["evolution"]["phi"].values[:, 20:], model, lambda phi: model.energy(phi) + 0.3j * (phi**2).sum(),
        {"phi2": lambda phi: (phi**2).mean()},
    )  # fmt: skip
    quantities = {
        "top real": lambda phi: jnp.cos(0.3 * (phi**2).sum()) * (phi**2).mean(),
        "top imaginary": lambda phi: -jnp.sin(0.3 * (phi**2).sum()) * (phi**2).mean(),
        "real": lambda phi: jnp.cos(0.3 * (phi**2).sum()),
        "imaginary": lambda phi: -jnp.sin(0.3 * (phi**2).sum()),
    }
    m = p4.exact.quadrature(model, quantities, half_width=5.0, points=64)
    exact = (m["top real"] + 1j * m["top imaginary"]) / (m["real"] + 1j * m["imaginary"])
    for value, error in ((moved.value["phi2"], moved.error["phi2"]), (weighed.mean["phi2"], weighed.error["phi2"])):
        apart = value - exact
        assert abs(apart.real) < SIGMAS * error.real and abs(apart.imag) < SIGMAS * error.imag


def test_complex_actions_that_cannot_work_are_refused():
    model = p4.phi4(p4.lattice.chain(1), w=0.0, a=0.5, b=0.25)
    with raises("argument.couplings.not_normalizable"):
        ComplexLangevin(model, {"b": -0.2 + 0.5j})
    with raises("argument.couplings.name"):
        ComplexLangevin(model, {"c": 1.0})
    with raises("argument.action.holomorphic"):
        ComplexLangevin(lambda phi: jnp.sum(phi * phi.conj()), lattice=model.lattice)


TRAP = p4.gaussian(p4.lattice.chain(1), w=0.0, a=0.5, r=0.0)  # ω = 1


@pytest.mark.parametrize("step", ["mala", "euler", "exponential"])
def test_works_of_a_stiffening_and_moving_trap(step):
    """ω from 1 to 4 and the center from 0 to −½: ΔF = ½ ln 4 − r²/8, at a step size where Euler's own bias is seen."""
    protocol = {"a": ([0.0, 1.0], [0.5, 2.0]), "r": lambda t: 2 * t}
    start = np.random.default_rng(2).normal(size=(20_000, 1))
    moving = dict(time=1.0, step_size=0.25, every=0.5, keep_field=False, protocol=protocol)
    tree = evolve(Langevin(TRAP, step), start, **moving)
    found = free_energy_difference(tree)
    assert abs(found.value - (0.5 * np.log(4) - 0.5)) < SIGMAS * found.error and found.error < 0.02
    assert found.work - found.value > SIGMAS * found.work_error  # second law


def test_planted_work_without_that_of_the_step_is_caught():
    """The work of switching alone is not enough for an Euler step."""

    @process
    class Forgetful(Langevin):
        is_exact = property(lambda self: True)

    protocol = {"a": ([0.0, 1.0], [0.5, 2.0])}
    start = np.random.default_rng(2).normal(size=(20_000, 1))
    moving = dict(time=1.0, step_size=0.25, every=0.5, keep_field=False, protocol=protocol)
    tree = evolve(Forgetful(TRAP), start, **moving)
    found = free_energy_difference(tree)
    assert abs(found.value - 0.5 * np.log(4)) > 4 * SIGMAS * found.error


def test_works_of_a_quartic_site_against_quadrature():
    """From a single to a double well and back; forward and backward works agree with log Z of both ends."""
    model = p4.phi4(p4.lattice.chain(1), w=0.0, a=0.5, b=0.25)
    exact = [p4.exact.quadrature(model.replace(a=a), points=400)["log_partition"] for a in (0.5, -1.0)]
    runs = []
    for begin, end in ((0.5, -1.0), (-1.0, 0.5)):
        protocol = {"a": ([0.0, 2.0], [begin, end])}
        start = one_site_draws((begin, 0.25), 5000)
        moving = dict(time=2.0, step_size=0.1, every=1.0, keep_field=False, protocol=protocol)
        runs.append(evolve(Langevin(model, "mala"), start, **moving))
    for found in (free_energy_difference(runs[0]), free_energy_difference(*runs)):
        assert abs(found.value - (exact[0] - exact[1])) < SIGMAS * found.error


def test_works_that_do_not_overlap_are_refused():
    start = np.random.default_rng(2).normal(size=(500, 1))
    protocol = {"r": lambda t: 40 * t}
    tree = evolve(Langevin(TRAP), start, time=0.5, step_size=0.25, every=0.5, protocol=protocol)
    with raises("overlap.work"):
        free_energy_difference(tree)


def test_works_of_a_lattice_are_ratios_of_log_partition():
    """ΔF of a 3×3 torus driven in two couplings is the difference of log Z by exact elimination, at half of the way too."""
    model = p4.phi4(p4.lattice.square(3), w=0.3, a=1.2, b=0.25)
    protocol = {"a": ([0.0, 1.0], [1.2, 0.8]), "w": lambda t: 0.3 + 0.2 * t}
    log_z = [p4.log_partition(model.replace(a=a, w=w)) for a, w in ((1.2, 0.3), (1.0, 0.4), (0.8, 0.5))]
    assert max(each.error for each in log_z) < 1e-3
    draws = p4.sample(model, num_warmup=200, num_samples=400, num_chains=8, thinning=2, seed=3, progress=False)
    start = draws["posterior"]["phi"].values.reshape(-1, 3, 3)
    moving = dict(time=1.0, step_size=0.1, every=0.5, protocol=protocol, keep_field=False)
    tree = evolve(Langevin(model, "mala"), start, **moving)
    for place, time in ((1, 0.5), (2, 1.0)):
        found = free_energy_difference(tree, time=time)
        exact = log_z[0].value - log_z[place].value
        assert abs(found.value - exact) < SIGMAS * found.error and found.error < 0.02 < abs(exact) / 10
        assert found.work > found.value  # second law
    back = {"a": ([0.0, 1.0], [0.8, 1.2])}
    with raises("argument.protocol.range"):
        evolve(Langevin(model, "mala"), start, **moving | {"time": 2.0, "protocol": back})


def test_protocols_that_cannot_work_are_refused():
    def moved(protocol, process=None):
        evolve(process or Langevin(TRAP), np.zeros((2, 1)), time=1.0, step_size=0.25, every=0.5, protocol=protocol)

    table = {"a": ([0.0, 1.0], [0.5, 2.0])}
    for unknown in (Langevin(TRAP, "heun"), GradientFlow(TRAP)):
        with raises("argument.langevin"):
            moved(table, unknown)
    with raises("argument.protocol"):
        moved({})
    with raises("argument.protocol.name"):
        moved({"b": ([0.0, 1.0], [0.5, 2.0])})
    with raises("argument.protocol.shape"):
        moved({"a": ([1.0, 0.0], [0.5, 2.0])})
    with raises("argument.protocol.returns"):
        moved({"a": lambda t: jnp.ones(2) * t})
    with raises("argument.protocol.range"):
        moved({"a": ([0.0, 0.5], [0.5, 2.0])})  # the run ends later
    with raises("argument.protocol.range"):
        moved({"a": ([0.5, 1.0], [0.5, 2.0])})  # and begins earlier
    with raises("argument.protocol.finite"):
        moved({"a": lambda t: 0.5 / (1 - t)})
    with raises("argument.protocol.not_normalizable"):
        moved({"a": lambda t: 0.5 - t})
