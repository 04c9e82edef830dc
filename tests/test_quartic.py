"""One φ⁴ site: normalizer and moments against quadrature in longer words, draws against quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from raising import raises
from scipy import stats

from phi4ppl.energy import onesite as quartic

ALARM = 1e-4


def couplings(number, seed=0):
    """The stated range: both signs, all scales, no source now and then, a tenth Gaussian; double wells up to D = 2.5e7."""
    rng = np.random.default_rng(seed)
    linear = rng.choice([-1, 1], number) * 10 ** rng.uniform(-3, 3, number) * (rng.random(number) < 0.8)
    quadratic = rng.choice([-1, 1], number) * 10 ** rng.uniform(-3, 2, number) * (rng.random(number) < 0.9)
    quartics = 10 ** rng.uniform(-4, 2, number)
    gaussian = rng.random(number) < 0.1
    return linear, np.where(gaussian, abs(quadratic) + 1e-3, quadratic), np.where(gaussian, 0, quartics)


def bisect(inside, outside, is_inside, steps=110):
    for _ in range(steps):
        middle = (inside + outside) / 2
        inside, outside = np.where(is_inside(middle), middle, inside), np.where(is_inside(middle), outside, middle)
    return outside


def exact(linear, quadratic, quartics):
    """log Z, ⟨φ⟩, ⟨φ²⟩, ⟨φ⁴⟩ and var φ in 80-bit words, by Gauss–Legendre panels between places found by bisection."""
    r, a, b = (np.asarray(value, np.longdouble) for value in (linear, quadratic, quartics))
    x = abs(r)
    ridge = np.where(a < 0, np.sqrt(np.maximum(-a, 0) / np.where(b > 0, 6 * b, 1)), 0)
    top = bisect(ridge, ridge + 1e8, lambda y: 4 * b * y**3 + 2 * a * y < x, 160)

    def potential(y):
        return -x * y + a * y**2 + b * y**4

    def deeper(y):
        return potential(y) - potential(top) < 46

    high = bisect(top, top + 1e8, deeper)
    low = np.where(deeper(0 * top), 0, bisect(top, 0 * top, deeper))
    nodes, weights = (v.astype(np.longdouble) for v in np.polynomial.legendre.leggauss(20))
    sums = 0
    for panel in range(24):
        half = (high - low) / 48
        y = (low + (2 * panel + 1) * half)[:, None] + half[:, None] * nodes
        here = half[:, None] * weights * np.exp(potential(top)[:, None] - potential_of(y, x, a, b))
        there = here * np.exp(-2 * x[:, None] * y)
        both = here + there
        parts = both, (here - there) * y, both * y**2, both * y**4
        sums = sums + np.array([part.sum(axis=1) for part in parts])
    total, first, second, fourth = sums
    first, second = np.where(r > 0, -1, 1) * first / total, second / total
    return np.log(total) - potential(top), first, second, fourth / total, second - first**2


def potential_of(y, x, a, b):
    return -x[:, None] * y + a[:, None] * y**2 + b[:, None] * y**4


def largest_errors(number):
    given = [np.asarray(jnp.asarray(value)) for value in couplings(number)]
    log_z, first, second, fourth, _ = exact(*given)
    found = quartic.moments(*given)
    return {
        "log Z": np.max(abs(np.asarray(quartic.log_normalizer(*given)) - log_z) / (1 + abs(log_z))),
        "first": np.max(abs(np.asarray(found.first) - first) / np.sqrt(second)),
        "second": np.max(abs(np.asarray(found.second) / second - 1)),
        "fourth": np.max(abs(np.asarray(found.fourth) / fourth - 1)),
    }


def test_accuracy_in_double_precision(x64):
    assert all(error < 1e-12 for error in largest_errors(1500).values())


def test_accuracy_in_single_precision():
    assert all(error < 1e-6 for error in largest_errors(1500).values())


def test_too_few_nodes_are_noticed(x64, monkeypatch):
    monkeypatch.setattr(quartic, "GRIDS", {64: (16, 36.0)})
    assert max(largest_errors(500).values()) > 1e-9


def test_reference_cases(reference, x64):
    for case in (case for name, case in reference.items() if name.startswith("single_")):
        definition, quantities = case["definition"], case["quantities"]
        r, a, b = (definition[name][0] for name in "rab")
        assert float(quartic.log_normalizer(r, a, b)) == pytest.approx(quantities["logZ"]["value"], abs=1e-12)


@pytest.fixture(scope="module")
def hessians():
    return jax.jit(jax.vmap(jax.hessian(quartic.log_normalizer, argnums=(0, 1, 2))))


def test_first_and_second_derivatives(x64, hessians):
    """∂log Z = −⟨φ^n⟩ and ∂∂log Z = ⟨φ^m φ^n⟩ − ⟨φ^m⟩⟨φ^n⟩ in both modes, also at r = 0 and in deep wells."""
    r, a, b = (
        jnp.array(v) for v in ([0.0, 0.3, -2.0, 0.0, 1e-3], [0.5, -1.0, 2.0, -4.0, -6.0], [0.0, 0.2, 1.0, 0.5, 0.1])
    )
    y = np.linspace(-12, 12, 40001)
    log_weight = -(np.outer(r, y) + np.outer(a, y**2) + np.outer(b, y**4))
    weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    powers = np.array([y, y**2, y**4])
    mean = weight @ powers.T
    covariance = np.einsum("sy,my,ny->smn", weight, powers, powers) - mean[:, :, None] * mean[:, None, :]
    gradient = jax.vmap(jax.grad(quartic.log_normalizer, argnums=(0, 1, 2)))(r, a, b)
    np.testing.assert_allclose(-np.array(gradient).T, mean, rtol=1e-10, atol=1e-12)
    found = np.array(hessians(r, a, b)).transpose(2, 0, 1)
    np.testing.assert_allclose(found, covariance, rtol=1e-8, atol=1e-10)


def test_variance_far_from_zero_in_single_precision(hessians):
    """A mean of a thousand standard deviations: the difference of raw moments would have no digit left."""
    r, a, b = (jnp.array([v], jnp.float32) for v in (-1000.0, 0.5, 0.0))
    assert float(hessians(r, a, b)[0][0][0]) == pytest.approx(1.0, rel=1e-5)


# --- draws


CASES = {
    "gaussian": (0.7, 0.5, 0.0),
    "quartic": (0.0, 0.0, 1.0),
    "pushed": (-30.0, 0.2, 0.5),
    "shallow double well": (0.2, -1.0, 0.3),
    "double well": (0.05, -4.0, 0.8),
    "deep double well": (1e-3, -30.0, 0.7),
    "tilted deep well": (3.0, -20.0, 2.0),
}
NUMBER = 50_000


def tabulated_law(r, a, b):
    """The cumulative distribution function by the trapezoidal rule."""
    y = np.linspace(-12, 12, 2**17 + 1)
    if r == CASES["pushed"][0]:
        y = np.linspace(0, 8, 2**17 + 1)
    log_weight = -(r * y + a * y**2 + b * y**4)
    weight = np.exp(log_weight - log_weight.max())
    total = np.concatenate([[0], np.cumsum(weight[1:] + weight[:-1])])
    return lambda phi: np.interp(phi, y, total / total[-1])


@pytest.fixture(scope="module")
def law():
    return {name: tabulated_law(*values) for name, values in CASES.items()}


@pytest.fixture(scope="module")
def drawn():
    """All cases in one call, so that single and double wells share the gathering of those left over."""
    r, a, b = (jnp.array(value)[:, None] for value in zip(*CASES.values(), strict=True))
    phi = np.asarray(quartic.draw(jax.random.key(1), r, a, b, shape=(len(CASES), NUMBER)), float)
    return dict(zip(CASES, phi, strict=True))


def refused(phi, law):
    return stats.kstest(phi, law).pvalue < ALARM / len(CASES)


@pytest.mark.parametrize("name", CASES)
def test_draws_follow_the_law(name, drawn, law):
    """Kolmogorov–Smirnov on 50,000 draws; false alarms in 1 of 10⁴ runs of all cases together."""
    assert not refused(drawn[name], law[name])
    assert abs(stats.spearmanr(drawn[name][:-1], drawn[name][1:]).statistic) < 4.5 / NUMBER**0.5  # P = 7e-6


def test_a_wrong_envelope_is_refused(monkeypatch, law):
    """Negative control: proposals kept a little too often, by a quarter of the exponent."""
    propose = quartic._propose
    monkeypatch.setattr(quartic, "_propose", lambda key, e: propose(key, e._replace(quartic=0.75 * e.quartic)))
    r, a, b = (jnp.full(NUMBER, value) for value in CASES["shallow double well"])
    phi = quartic._until_kept(jax.random.key(1), quartic._envelope(r, a, b))
    assert refused(np.asarray(phi, float), law["shallow double well"])


@pytest.mark.compile_quickly(False)
def test_values_do_not_depend_on_how_they_are_mapped(x64):
    """A vmap of its own is another program, in which the node in the middle was once counted twice: off by 0.02."""
    r = jnp.asarray(np.random.default_rng(3).normal(size=(40, 5)))
    one = lambda row: quartic.log_normalizer(-row, -1.0, 1.0)  # noqa: E731
    together = np.asarray(quartic.log_normalizer(-r, -1.0, 1.0))
    for mapped in (jax.vmap(one), jax.jit(jax.vmap(one)), jax.vmap(jax.vmap(one))):
        np.testing.assert_allclose(np.asarray(mapped(r)), together, rtol=1e-12)
    for row, values in zip(r[:5], together, strict=False):
        np.testing.assert_allclose(np.asarray(jax.vmap(one)(row)), values, rtol=1e-12)


@pytest.mark.parametrize("extreme", [0.0, 1 - 2.0**-24])
def test_extreme_uniform_numbers_give_finite_draws(monkeypatch, extreme):
    """The first of 2²³ values of a float32 uniform number is 0, whose quantile is −∞."""
    r, a, b = (jnp.array(value, jnp.float32) for value in ([0.0, 0.0, 0.3], [0.5, 1.0, -1.0], [0.0, 0.0, 0.5]))
    envelope = quartic._envelope(r, a, b)
    numbers = jnp.stack([jnp.full(3, extreme, jnp.float32), jnp.full(3, 0.5, jnp.float32)])
    monkeypatch.setattr(quartic.jax.random, "uniform", lambda *_: numbers)
    phi, _ = quartic._propose(jax.random.key(0), envelope)
    z = (phi - envelope.mean) / envelope.width
    assert (
        np.isfinite(phi).all() and (abs(z[:2]) > 5).all() and (abs(z[:2]) < 5.6).all()
    )  # the quantile of 3·10⁻⁸ is −5.42


def test_every_envelope_is_above_its_density_and_close_to_it():
    """The share of kept proposals is Z over the mass of the envelope, and at least 0.35 (0.38 on a finer table)."""
    r, a, b = map(jnp.asarray, couplings(4000, seed=1))
    envelope = quartic._envelope(r, a, b)
    kept = sum(quartic._propose(jax.random.key(round_), envelope)[1].astype(int) for round_ in range(200)) / 200
    share = np.asarray(kept)
    assert share.min() > 0.38 - 5 * np.sqrt(0.25 / 200)


def test_draws_of_one_key_repeat_and_batches_differ():
    r = jnp.zeros((3, 700))
    first, again = (quartic.draw(jax.random.key(5), r, 1.0, 0.1) for _ in range(2))
    other = quartic.draw(jax.random.key(6), r, 1.0, 0.1)
    assert (first == again).all() and not (first == other).any()


def test_vectorized_over_keys(law):
    keys = jax.random.split(jax.random.key(2), 500)
    phi = jax.vmap(lambda key: quartic.draw(key, *CASES["double well"], shape=(40,)))(keys)
    assert stats.kstest(np.ravel(phi), law["double well"]).pvalue > ALARM


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 1.0, -0.1), ("argument.quartic.positive", "0", "-0.1")),
        ((0.0, -1.0, 0.0), ("argument.quadratic.positive", "0", "-1.0")),
        ((np.nan, 1.0, 0.1), ("argument.linear.finite", "got nan")),
    ],
)
@pytest.mark.parametrize("function", [quartic.log_normalizer, quartic.moments])
def test_messages(function, arguments, message):
    with raises(*message):
        function(*arguments)


def test_message_of_shape():
    with raises("argument.shape.shape", "(3,)", "(2,)"):
        quartic.draw(jax.random.key(0), jnp.zeros(3), 1.0, 0.1, shape=(2,))


def test_shapes_that_do_not_meet():
    with raises("argument.couplings.shape", "(2,)", "(3,)"):
        quartic.moments(np.zeros(2), np.ones(3), 0.1)


def test_couplings_without_a_density_give_nan_inside_a_trace():
    b = jnp.array([-0.1, 0.1])
    assert np.isnan(jax.jit(quartic.log_normalizer)(0.0, 1.0, b)).tolist() == [True, False]
    assert np.isnan(jax.jit(quartic.draw)(jax.random.key(0), 0.0, 1.0, b)).tolist() == [True, False]
