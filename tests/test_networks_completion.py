"""Some visible units given the others: clamped block Gibbs and NUTS in NumPyro against quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.distributions import ImproperUniform, constraints
from raising import raises

import phi4ppl as p4
from phi4ppl.analysis.gamma_method import gamma_method
from phi4ppl.networks import BernoulliUnits, Phi4RBM, Phi4Units, RestrictedBoltzmannMachine, VisibleMarginal

pytestmark = pytest.mark.compile_quickly

KNOWN = np.array([True, True, False, False])
GIVEN = np.array([1.2, -0.4])
VISIBLE = Phi4Units([0.1, -0.2, 0.0, 0.3], [-0.3, 0.2, -0.5, 0.4], [0.4, 0.3, 0.5, 0.2])
WEIGHTS = [[1.0, -0.3], [-0.8, 0.9], [0.4, 1.0], [0.7, -0.6]]
REAL = RestrictedBoltzmannMachine(VISIBLE, Phi4Units([0.1, 0.0], [0.5, -0.2], [0.2, 0.3]), WEIGHTS)
BINARY = RestrictedBoltzmannMachine(VISIBLE, BernoulliUnits([0.2, -0.1]), WEIGHTS)


def exact_moments(machine):
    """⟨v₂⟩, ⟨v₃⟩, ⟨v₂²⟩, ⟨v₂v₃⟩, ⟨v₃²⟩ given the known units, by the trapezoidal rule."""
    axis = np.linspace(-5, 5, 301)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    v = np.stack([np.full_like(x, GIVEN[0]), np.full_like(x, GIVEN[1]), x, y], axis=-1)
    density = np.exp(-np.asarray(machine.free_energy(jnp.asarray(v)), float))
    return [float((density * f).sum() / density.sum()) for f in powers(x, y)]


def powers(x, y):
    return x, y, x**2, x * y, y**2


def worst(machine, rest):
    """The largest score of five moments; ``rest`` has shape (chain, draw, 2)."""
    results = [gamma_method(np.asarray(f, float)) for f in powers(rest[..., 0], rest[..., 1])]
    return max(abs(r.mean - exact) / r.error for r, exact in zip(results, exact_moments(machine), strict=True))


def clamped(machine, clamp, chains=500, draws=40):
    start = jnp.broadcast_to(jnp.asarray([*GIVEN, 0.0, 0.0]), (chains, 4))

    @jax.jit
    def run(keys):
        _, v = jax.lax.scan(lambda v, key: (machine.gibbs(key, v, 1, clamped=clamp),) * 2, start, keys)
        return v

    v = np.asarray(run(jax.random.split(jax.random.key(4), draws + 30))[30:])
    return np.swapaxes(v, 0, 1)


@pytest.mark.parametrize("machine", [REAL, BINARY], ids=["real", "binary"])
def test_clamped_gibbs_samples_the_conditional(machine):
    """|z| < 5 for five moments: false alarms in 3 of 10⁶ runs."""
    v = clamped(machine, KNOWN)
    np.testing.assert_array_equal(v[..., :2], np.broadcast_to(GIVEN.astype(v.dtype), (*v.shape[:2], 2)))
    assert worst(machine, v[..., 2:]) < 5


def test_units_that_were_not_held_are_noticed():
    assert worst(REAL, clamped(REAL, np.array([True, False, False, False]))[..., 2:]) > 10


def given(machine):
    """NumPyro's form of the condition: the unknown units, and the hidden ones where the prior has them."""
    if machine is REAL:
        prior, size = p4.GibbsField(machine.to_model()), 2 + machine.hidden.size
    else:
        prior, size = VisibleMarginal(machine), 2

    def model():
        rest = numpyro.sample("rest", ImproperUniform(constraints.real_vector, (), (size,)))
        numpyro.factor("prior", prior.log_prob(jnp.concatenate([jnp.asarray(GIVEN, rest.dtype), rest])))

    return model


@pytest.mark.rank_promotion
@pytest.mark.parametrize("machine", [REAL, BINARY], ids=["GibbsField", "VisibleMarginal"])
def test_nuts_samples_the_same_conditional(machine):
    """|z| < 5 for five moments: false alarms in 3 of 10⁶ runs."""
    tree = p4.sample(given(machine), kernel="nuts", num_warmup=200, num_samples=600, num_chains=4, seed=1)
    assert worst(machine, tree["posterior"]["rest"].values[..., :2]) < 5


def test_a_fitted_machine_completes_rows_in_the_units_of_the_data():
    """The estimator with data of other means and scales; |z| < 4.5 for four moments, false alarms in 3 of 10⁵ runs."""
    estimator = Phi4RBM.from_machine(REAL)
    estimator.mean_, estimator.scale_ = np.array([5.0, -3.0, 2.0, 1.0]), np.array([2.0, 0.5, 3.0, 10.0])
    row = np.array([[*GIVEN, 0.0, 0.0]]) * estimator.scale_ + estimator.mean_
    draws = estimator.complete(np.repeat(row, 2, axis=0), KNOWN, n_draws=2000, n_sweeps=30)
    np.testing.assert_allclose(draws[..., :2], np.broadcast_to(row[:, :2], (2000, 2, 2)))
    rest = ((draws - estimator.mean_) / estimator.scale_)[..., 2:]
    exact = exact_moments(REAL)[:2]
    assert (np.abs(rest.mean(axis=0) - exact) / rest.std(axis=0) * np.sqrt(2000)).max() < 4.5
    assert np.abs(np.corrcoef(rest[:, 0, 0], rest[:, 1, 0])[0, 1]) < 4.5 / np.sqrt(2000)


def test_a_model_becomes_an_estimator_and_comes_back():
    model = REAL.to_model()
    back = Phi4RBM.from_model(model, 4).machine_.to_model()
    assert back.lattice == model.lattice and list(back.couplings) == list(model.couplings)
    for name, coupling in model.couplings.items():
        np.testing.assert_array_equal(back.couplings[name], coupling)


def test_visible_marginal_is_a_normalized_density():
    """Summed by the trapezoidal rule over two units with log Z of enumeration; batches work as in any distribution."""
    small = RestrictedBoltzmannMachine(
        Phi4Units([0.1, 0.0], [-0.3, 0.5], [0.4, 0.3]), BernoulliUnits([0.2]), [[0.8], [-0.5]]
    )
    axis = np.linspace(-4, 4, 201)
    grid = jnp.asarray(np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1))
    density = np.exp(
        np.asarray(VisibleMarginal(small, log_partition=small.log_partition().value).log_prob(grid), float)
    )
    assert density.shape == (201, 201) and density.sum() * 0.04**2 == pytest.approx(1, abs=1e-4)


def test_messages():
    with raises("argument.clamped.shape", "(4,)", "(3,)"):
        REAL.gibbs(jax.random.key(0), jnp.zeros(4), clamped=[True, False, False])
    with raises("argument.known.shape", "(4,)", "got int64 of"):
        Phi4RBM.from_machine(REAL).complete(np.zeros((1, 4)), np.zeros(4, int))
    with raises("argument.machine.units", "got BernoulliUnits"):
        VisibleMarginal(RestrictedBoltzmannMachine(BernoulliUnits([0.0]), BernoulliUnits([0.0]), [[1.0]]))
    with raises("argument.machine", "RestrictedBoltzmannMachine", "got int"):
        VisibleMarginal(3)
    with raises("draw_not_available.markov_chain_only", "machine.gibbs"):
        VisibleMarginal(BINARY).sample(jax.random.key(0))
