"""Noised fields, their scores, and fields made of noise, against closed forms and quadrature.

Statistical tests have fixed keys and compare at 4.5 standard errors: a false alarm in 7e-6 of the comparisons.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from raising import raises

import phi4ppl as p4
from phi4ppl.dynamics import Noising, ReverseDiffusion, correct, evolve, exact_score, fit_score, noise_times, weigh
from phi4ppl.dynamics.process import process
from phi4ppl.kernels.metrics import FreeField
from phi4ppl.results.correction import measure

pytestmark = pytest.mark.compile_quickly

SIGMAS = 4.5
WELLS = p4.phi4(p4.lattice.chain(1), w=0.0, a=-1.0, b=0.5)
NODES = np.linspace(-5, 5, 2001)
WELL_WEIGHTS = np.exp(NODES**2 - 0.5 * NODES**4)


def fourth_cumulant(x):
    """κ₄ of a variable of mean 0, and its standard error by a jackknife over 50 blocks."""
    blocks = np.array_split(x, 50)
    second, fourth = (np.array([np.mean(b**k) for b in blocks]) for k in (2, 4))
    without = [(values.sum() - values) / 49 for values in (second, fourth)]
    leave_out = without[1] - 3 * without[0] ** 2
    return leave_out.mean(), np.sqrt(49 * np.var(leave_out))


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_cumulants_along_the_path_obey_their_law(rate):
    """From ±1: the fourth is −2 e^(−4kt), conserved without drift; the second e^(−2kt) + (1 − e^(−2kt))/k."""
    start = np.random.default_rng(0).choice([-1.0, 1.0], size=(40_000, 1))
    tree = evolve(Noising(p4.lattice.chain(1), rate, noise=0.5), start, time=0.3, step_size=0.1, every=0.1)
    for time in tree["evolution"]["time"].values[1:]:
        phi = tree["evolution"]["phi"].sel(time=time).values.ravel().astype(float)
        value, error = fourth_cumulant(phi)
        assert abs(value + 2 * np.exp(-4 * rate * time)) < SIGMAS * error
        noise = time if rate == 0 else (1 - np.exp(-2 * rate * time)) / (2 * rate)
        exact = np.exp(-2 * rate * time) + noise
        assert abs(np.mean(phi**2) - exact) < SIGMAS * np.std(phi**2) / np.sqrt(len(phi))


def test_exact_scores_are_gradients_of_the_noised_log_density():
    """One site by a fine sum over φ(0), and a free field by its covariance matrix."""
    noising, time, kept = Noising(WELLS.lattice), 0.2, np.exp(-0.2)
    variance = 1 - kept**2

    def log_density(phi):
        return np.log(np.sum(WELL_WEIGHTS * np.exp(-((phi - kept * NODES) ** 2) / (2 * variance))))

    score = exact_score(WELLS, noising)
    for phi in (-1.3, 0.2, 0.9):
        slope = (log_density(phi + 1e-4) - log_density(phi - 1e-4)) / 2e-4
        assert float(score(jnp.asarray([phi]), jnp.asarray(time))[0]) == pytest.approx(slope, rel=1e-3)
    free = p4.gaussian(p4.lattice.chain(4, periodic=False), w=[0.3, 0.5, -0.4], a=[1.0, 0.8, 1.2, 0.9])
    covariance = np.linalg.inv(np.asarray(p4.exact.gaussian_precision(free), float))
    phi = np.array([0.3, -1.0, 0.5, 2.0])
    wanted = -np.linalg.solve(kept**2 * covariance + variance * np.eye(4), phi)
    found = exact_score(free, Noising(free.lattice))(jnp.asarray(phi), jnp.asarray(time))
    assert np.allclose(found, wanted, rtol=1e-4)


@pytest.mark.parametrize("noise", [1.0, FreeField(0.7, 0.4)])
@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_gaussian_field_is_made_of_noise_exactly(noise, rate):
    """Five coarse steps: all weights are equal to single precision, and their mean is Z."""
    free = p4.gaussian(p4.lattice.square(4), w=1.0, a=2.25)
    noising = Noising(free.lattice, rate, noise)
    score = exact_score(free, noising)
    reverse = ReverseDiffusion(noising, score, noise_times(2.0, 5), 1 / np.asarray(score.modes.frequencies))
    found = weigh(evolve(reverse, reverse.prior(200), time=5), free)
    assert found.effective_sample_size > 199.9
    assert found.log_partition == pytest.approx(float(p4.exact.gaussian_log_partition(free)), abs=1e-3)


def made_of_noise(process_class=ReverseDiffusion, number=4000):
    noising = Noising(WELLS.lattice)
    reverse = process_class(noising, exact_score(WELLS, noising), noise_times(3.0, 20, first=0.01), 1.0)
    return evolve(reverse, reverse.prior(number), time=20)


def test_two_wells_from_noise_with_weights():
    """⟨φ²⟩, ⟨φ⁴⟩, log Z by quadrature; the symmetry is kept."""
    quantities = {"phi": lambda phi: phi[0], "phi2": lambda phi: phi[0] ** 2, "phi4": lambda phi: phi[0] ** 4}
    exact = p4.exact.quadrature(WELLS, quantities, points=256)
    found = weigh(made_of_noise(), WELLS, quantities)
    assert found.effective_sample_size > 1000
    assert all(abs(found.mean[name].value - exact[name]) < SIGMAS * found.mean[name].error for name in quantities)
    assert abs(found.log_partition - exact["log_partition"]) < SIGMAS * found.log_partition_error


@process
class _Faulty(ReverseDiffusion):
    """Steps with √ε in place of √(2ε), which the weights do not know of."""

    def step(self, state, key, time, step_size):
        right = super().step(state, key, time, step_size)
        times = jnp.asarray(self.times)
        place = jnp.round(time).astype(int)
        t, s = times[place], times[place + 1]
        mean = (state.field + self.noising.variance(t - s) * self.score(state.field, t)) / self.noising.shrunk(t - s)
        return right._replace(field=mean + (right.field - mean) / jnp.sqrt(2.0))


def test_planted_wrong_noise_is_caught():
    exact = p4.exact.quadrature(WELLS, {"phi2": lambda phi: phi[0] ** 2}, points=256)
    found = weigh(made_of_noise(_Faulty), WELLS, {"phi2": lambda phi: phi[0] ** 2}, on_poor_overlap="warn")
    assert abs(found.log_partition - exact["log_partition"]) > 4 * SIGMAS * found.log_partition_error


def test_scores_fitted_with_terms_of_the_library():
    """A free field under white noise keeps the couplings of its own family, whose precision is known; φ⁴ is fitted as 0."""
    ring = p4.lattice.chain(4)
    free = p4.gaussian(ring, w=0.4, a=0.9)
    data = np.asarray(p4.GibbsField(free).sample(jax.random.key(0), (8000,)))
    times = np.array([0.05, 0.3, 1.0])
    family = p4.phi4(ring, w={"nn": 0.4}, a=0.9, b=0.0)
    score = fit_score(family, data, Noising(ring), times)
    exact = exact_score(free, Noising(ring))
    phi = jnp.asarray([0.5, -0.2, 1.0, 0.1])
    late = float(times[-1])
    assert np.allclose(score(phi, late), exact(phi, late), atol=0.08)
    assert np.abs(score(phi, 0.05) - exact(phi, 0.05)).max() < 0.15
    assert np.allclose(score(-phi, 0.2), -score(phi, 0.2), atol=1e-6)  # between two times; the symmetry is kept


def test_what_cannot_work_is_refused():
    noising = Noising(WELLS.lattice)
    score = exact_score(WELLS, noising)
    with raises("argument.times.unresolved"):
        ReverseDiffusion(noising, score, noise_times(3.0, 20, first=1e-5), 1.0)
    with raises("argument.times.order"):
        ReverseDiffusion(noising, score, [0.1, 1.0], 1.0)
    with raises("argument.score.returns"):
        ReverseDiffusion(noising, lambda phi, t: phi.sum(), noise_times(3.0, 20), 1.0)
    reverse = ReverseDiffusion(noising, lambda phi, t: -phi, noise_times(3.0, 20), 1.0)
    with raises("argument.step_size"):
        evolve(reverse, reverse.prior(3), time=10, step_size=0.5)
    with raises("argument.time.range"):
        evolve(reverse, reverse.prior(3), time=21)
    with raises("argument.tree.time"):
        weigh(evolve(reverse, reverse.prior(3), time=10), WELLS)
    with raises("argument.model.too_large"):
        exact_score(p4.phi4(p4.lattice.square(4), w=1.0, a=1.0, b=0.1), Noising(p4.lattice.square(4)))


def test_fields_are_corrected_by_sweeps_of_the_exact_kernel():
    """⟨φ²⟩ and ⟨S⟩/V of a 2×2 square by quadrature, from noise that is wrong by many errors.

    Planted fault: sweeps of another coupling, which the same comparison sees.
    """
    model = p4.phi4(p4.lattice.square(2), w=0.3, a=0.8, b=0.25)
    quantities = {"phi_squared": lambda phi: jnp.mean(phi**2), "energy_density": lambda phi: model.energy(phi) / 4}
    exact = p4.exact.quadrature(model, quantities, half_width=4.0, points=20)
    wrong = np.random.default_rng(0).normal(size=(2000, 2, 2))

    def pulls(found):
        return {name: (found.values[name] - exact[name]) / found.errors[name] for name in quantities}

    found = correct(wrong, model, seed=1)
    assert found.converged and found.fields.shape == wrong.shape
    assert min(map(abs, pulls(found.before).values())) > 4 * SIGMAS
    assert max(map(abs, pulls(found.after).values())) < SIGMAS
    planted = correct(wrong, model.replace(a=0.6), seed=1)
    assert abs(pulls(measure(model, planted.fields))["phi_squared"]) > SIGMAS
    with raises("argument.fields.shape"):
        correct(wrong[:3], model)
    with raises("argument.fields"):
        correct(evolve(Noising(model.lattice), wrong[:20], time=0.1, keep_field=False), model)
