"""1024×1024 in float32: the accept/reject of every kind of kernel agrees with float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import phi4ppl as p4
from phi4ppl.kernels.gradient import careful_proposal
from phi4ppl.kernels.local_hmc import sweeps
from phi4ppl.results.datatree import metadata
from phi4ppl.sampling import target_of

SIZE = 1024
STEP_SIZE = 0.012  # acceptance about 0.8: the step shrinks like V^(−1/4)
TOLERANCE = (
    2e-3  # of log acceptance probabilities, which are about 0.3; ΔS and ΔK are about 500 each, one rounding is 3e-5
)


@pytest.fixture(scope="module")
def model():
    return p4.phi4(p4.lattice.square(SIZE), a=1.52425, b=0.175)


@functools.cache
def start():
    """A field near equilibrium and a momentum, float64."""
    rng = np.random.default_rng(0)
    return 0.8 + 0.4 * rng.standard_normal((SIZE, SIZE)), rng.standard_normal((SIZE, SIZE))


def log_rate(model, dtype, proposal_of):
    """Log of the acceptance ratio of one trajectory, not cut off at 0."""
    from blackjax.mcmc.integrators import IntegratorState, velocity_verlet

    target = target_of(p4.compile(model))
    phi, momentum = (jnp.asarray(x, dtype) for x in start())

    def kinetic_energy(p, position=None):
        return jnp.vdot(p, p) / 2

    @jax.jit
    def run(phi, momentum):
        state = IntegratorState(phi, momentum, *target.init(phi))
        integrator = velocity_verlet(target.logdensity_fn, kinetic_energy)
        _, _, gain = proposal_of(target)(integrator, kinetic_energy, jnp.asarray(STEP_SIZE, dtype), 10, 1000.0)(
            jax.random.key(0), state
        )
        return gain

    return float(run(phi, momentum))


def careful(target):
    return _with_gain(functools.partial(careful_proposal, target))


def careless(target):
    """The planted fault: BlackJAX's difference of two total energies."""
    from blackjax.mcmc.hmc import hmc_proposal

    return _with_gain(hmc_proposal)


def _with_gain(build):
    """The proposal with log(acceptance ratio) in the place of other information."""

    def with_gain(*arguments):
        found = []

        def keep(key, gain, state, new_state):
            found.append(gain)
            from blackjax.mcmc.proposal import static_binomial_sampling

            return static_binomial_sampling(key, gain, state, new_state)

        generate = build(*arguments, sample_proposal=keep)

        def run(key, state):
            state, info, _ = generate(key, state)
            return state, info, found[-1]

        return run

    return with_gain


def test_hmc_accepts_in_float32_as_in_float64(model, x64):
    exact = log_rate(model, jnp.float64, careful)
    assert 0.05 < abs(exact) < 2, exact
    assert abs(log_rate(model, jnp.float32, careful) - exact) < TOLERANCE
    assert abs(log_rate(model, jnp.float64, careless) - exact) < 1e-6
    assert abs(log_rate(model, jnp.float32, careless) - exact) > 5 * TOLERANCE


def test_sweeps_accept_in_float32_as_in_float64(model, x64):
    target = target_of(p4.compile(model))
    phi, _ = start()
    run = jax.jit(lambda phi: sweeps(target, jax.random.key(1), phi, jnp.asarray(0.5, phi.dtype)))
    (single, rate), (double, exact) = (run(jnp.asarray(phi, dtype)) for dtype in (jnp.float32, jnp.float64))
    assert single.dtype == rate.dtype == jnp.float32 and exact.dtype == jnp.float64
    # a site of the second color sees neighbors that may have been accepted in one precision only
    same = np.abs(np.asarray(single) - np.asarray(double)) < 1e-4
    assert same.mean() > 0.99999
    near = np.abs(np.asarray(rate) - np.asarray(exact)) < 1e-4
    assert near.mean() > 0.9999
    assert 0.5 < float(exact.mean()) < 0.99


def test_a_run_on_a_million_sites(model):
    tree = p4.sample(model, num_warmup=20, num_samples=10, num_chains=1, keep_field=False, seed=1)
    assert metadata(tree)["settings"]["kernel"] == "cluster"
    assert tree["posterior"]["phi_squared"].dtype == np.float32
    assert 0.5 < float(tree["sample_stats"]["acceptance_rate"].mean()) < 1
