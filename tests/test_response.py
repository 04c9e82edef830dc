"""External fields against closed forms and quadrature: susceptibilities, magnetization curves, works of hysteresis loops."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from raising import raises
from scipy.stats import norm

import phi4ppl as p4
from phi4ppl.disorder import response
from phi4ppl.networks import GaussianUnits, RestrictedBoltzmannMachine

pytestmark = pytest.mark.compile_quickly

LEVEL = 1e-4  # false-alarm rate of each statistical test: Bonferroni over its numbers
RING = p4.gaussian(p4.lattice.chain(6), w=0.5, a=1.0)
GRID = np.linspace(-4, 4, 4001)


def bound(number: int) -> float:
    return norm.isf(LEVEL / 2 / number)


def covariance(model) -> np.ndarray:
    n = model.lattice.num_sites
    return np.linalg.inv(np.asarray(p4.exact.gaussian_precision(model)).reshape(n, n))


def test_the_field_enters_with_the_sign_that_raises_the_mean():
    pattern = np.array([1.0, -2.0, 0.0, 0.5, 0.0, 0.0])
    found = response(RING, pattern)
    phi = np.random.default_rng(0).normal(size=6)
    assert float(found.at(0.7).energy(phi)) == pytest.approx(float(RING.energy(phi)) - 0.7 * pattern @ phi, abs=1e-5)
    assert found.source.volume == 3
    assert float(found.source.magnetization(jnp.asarray(phi))) == pytest.approx(pattern @ phi / 3, abs=1e-5)
    mean = np.asarray(p4.exact.gaussian_mean(found.at(0.7)))
    np.testing.assert_allclose(mean, 0.7 * covariance(RING) @ pattern, atol=1e-5)


def test_susceptibility_of_a_pattern_has_both_its_values():
    """χ = ξᵀGξ/V from fluctuations and from differences; 1e-4, and that of another pattern is caught."""
    pattern = np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    exact = pattern @ covariance(RING) @ pattern / 6
    found = response(RING, pattern).susceptibility(
        step=0.3, num_samples=1500, num_warmup=200, kernel="local_hmc", seed=3
    )
    for part in (found.fluctuations, found.difference):
        assert part.reliable and abs(part.value - exact) < bound(3) * part.error
    assert abs(found.z) < bound(3) and "from fluctuations" in str(found)
    uniform = covariance(RING).sum() / 6
    assert abs(found.fluctuations.value - uniform) > 2 * bound(3) * found.fluctuations.error  # planted fault


def test_magnetization_curve_of_one_site_is_that_of_quadrature():
    """⟨φ⟩(h) and χ(h) of a double well from one run at h = 0; 1e-4. Fields that the draws do not reach are refused."""
    a, b = -0.5, 0.5
    answer = response(p4.phi4(p4.lattice.chain(1), w=0.0, a=a, b=b))
    values = np.linspace(-0.4, 0.4, 5)
    found = answer.curve(values, num_samples=2000, num_warmup=200, kernel="local_hmc", seed=5)
    weights = np.exp(-(a * GRID**2 + b * GRID**4) + np.multiply.outer(values, GRID))
    weights /= weights.sum(axis=1, keepdims=True)
    mean = weights @ GRID
    chi = weights @ GRID**2 - mean**2
    z = [(found[n].value - exact) / found[n].error for n, exact in (("m", mean), ("susceptibility", chi))]
    assert np.abs(z).max() < bound(10) and found.dataset()["supported"].all()
    assert np.abs((found["m"].value + mean) / found["m"].error).max() > 2 * bound(10)  # planted fault: the sign of h
    with raises("overlap.outside_support"):
        answer.curve([0.0, 9.0], field=0.0, num_samples=200, num_warmup=100, kernel="local_hmc", seed=5)


@pytest.fixture(scope="module")
def loops():
    """One site in a double well, driven within a few iterations, and ten times as slowly."""
    answer = response(p4.phi4(p4.lattice.chain(1), w=0.0, a=-1.0, b=0.5))
    shared = {"num_steps": 10, "num_replicas": 2000, "num_warmup": 100, "seed": 7}
    return [answer.hysteresis(1.0, rate, **shared) for rate in (0.2, 0.02)]


def test_works_of_a_loop_obey_jarzynski_at_every_rate(loops):
    """⟨exp(−W)⟩ = 1 within errors (1e-4) though ⟨W⟩ > 0; W of magnetizations one step late is caught."""
    for loop in loops:
        weight = np.exp(-loop.work.reshape(-1))
        assert abs(weight.mean() - 1) < bound(2) * weight.std() / np.sqrt(weight.size)
        assert loop.work.mean() > 3 * loop.work.std() / np.sqrt(loop.work.size)
    late = -np.sum(loops[0].magnetization[0, :, 1:] * np.diff(loops[0].field), axis=-1)
    weight = np.exp(-late)
    assert abs(weight.mean() - 1) > bound(2) * weight.std() / np.sqrt(weight.size)  # planted fault


def test_the_area_falls_with_the_rate(loops):
    fast, slow = loops
    assert fast.rate == pytest.approx(0.2) and slow.iterations == 10 and fast.field[0] == fast.field[-1] == 1.0
    assert fast.area > slow.area + 4 * np.hypot(fast.area_error, slow.area_error)
    assert fast.area > 5 * fast.area_error and fast.coercive_field > 3 * fast.coercive_field_error
    assert fast.magnetization.shape == (1, 2000, 21) and "area" in str(fast)
    h, m = fast.field, fast.mean
    assert fast.area == pytest.approx(np.trapezoid(m[:11][::-1], h[:11][::-1]) - np.trapezoid(m[10:], h[10:]), rel=1e-9)
    assert len(fast.plot().axes) == 1


def test_realisations_have_loops_of_their_own():
    model = p4.phi4(p4.lattice.chain(4), w=0.5, a=0.2, b=0.25, r=0.0)
    couplings = {"r": np.random.default_rng(1).normal(0, 0.5, (3, 4))}
    loop = response(model).hysteresis(1.0, 0.25, num_steps=8, num_replicas=2, num_warmup=50, couplings=couplings)
    assert loop.magnetization.shape == (3, 2, 17) and np.isfinite(loop.area_error)


def machine(hidden=3):
    rng = np.random.default_rng(2)
    visible = GaussianUnits(np.zeros(4), np.full(4, 1.0))
    return RestrictedBoltzmannMachine(
        visible, GaussianUnits(np.zeros(hidden), np.full(hidden, 1.0)), rng.normal(0, 0.4, (4, hidden))
    )


def test_hidden_features_answer_to_a_field_on_the_visible_units():
    """∂⟨h_j⟩/∂h of two Gaussian layers is (Gξ)_j; 1e-4, and a field on the hidden units is another one."""
    pattern = np.array([1.0, 1.0, -1.0, 0.0])
    answer = response(machine(), pattern)
    found = answer.local(num_samples=2000, num_warmup=200, kernel="local_hmc", seed=1)
    w = np.asarray(machine().weights, float)
    joint = np.linalg.inv(np.block([[2 * np.eye(4), -w], [-w.T, 2 * np.eye(3)]]))
    exact = joint @ np.r_[pattern, np.zeros(3)]
    values = np.r_[found["visible"].values, found["hidden"].values]
    errors = np.r_[found["visible_error"].values, found["hidden_error"].values]
    assert np.abs((values - exact) / errors).max() < bound(7)
    other = joint @ np.r_[np.zeros(4), np.ones(3)]
    assert np.abs((values - other) / errors).max() > 2 * bound(7)  # planted fault
    assert len(answer.plot_local(found).axes) == 2
    assert response(machine(), layer="hidden").source.pattern.tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_what_has_no_response_is_refused():
    with raises("argument.source.shape", "shape (6,)", "(5,)"):
        response(RING, np.ones(5))
    with raises("argument.source.zero", "not 0 everywhere"):
        response(RING, np.zeros(6))
    with raises("argument.model", "a MarkovRandomField, or a machine"):
        response("ring")
    with raises("argument.layer.unused"):
        response(RING, layer="hidden")
    with raises("argument.layer"):
        response(machine(), layer="middle")
    with raises("argument.source.shape", "3 hidden units"):
        response(machine(), np.ones(4), layer="hidden")
    with raises("hammersley_clifford.not_normalizable"):
        response(p4.gaussian(p4.lattice.chain(4), w=1.0, a=0.5))
    answer = response(RING)
    with raises("argument.kernel.choice", "jump between the phases"):
        answer.hysteresis(1.0, 0.1, kernel="cluster")
    with raises("argument.kernel.choice", "'tempering'"):
        answer.hysteresis(1.0, 0.1, kernel=p4.sampling.tempering(4))
    with raises("argument.step", "a positive number"):
        answer.susceptibility(step=-0.1)
    with raises("argument.values.shape", "ascending"):
        answer.curve([0.3, 0.1])
    with raises("hammersley_clifford.not_normalizable"):
        answer.hysteresis(1.0, 0.1, num_steps=20, couplings={"a": np.array([1.0, 0.1])})
    with raises("argument.rate.steps", "num_steps="):
        answer.hysteresis(1.0, 0.7, num_steps=4)
    with raises("argument.amplitude", "a positive number"):
        answer.hysteresis(-1.0, 0.1)
    with raises("argument.num_replicas", "at least 2"):
        answer.hysteresis(1.0, 0.1, num_replicas=1)
    with raises("argument.model.name", "external_field"):
        response(answer.at(0.5))


def test_a_traced_field_can_be_differentiated():
    """∂S/∂h = −Σ ξφ: the model at a traced h, as reweighting uses it."""
    answer, phi = response(RING), jnp.arange(6.0)
    assert float(jax.grad(lambda h: answer.at(h).energy(phi))(0.3)) == pytest.approx(-15.0, abs=1e-4)
