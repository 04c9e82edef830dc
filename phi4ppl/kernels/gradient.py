"""Kernels that follow the gradient of the whole field: NUTS, HMC and adjusted microcanonical dynamics, from BlackJAX.

BlackJAX is imported where it is used: its import creates JAX arrays, which importing this package must not do.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from . import metrics
from .adaptation import Tuning, WindowAdaptation
from .kernel import Kernel, any_model, fields_only
from .target import Target

if TYPE_CHECKING:
    from blackjax.base import SamplingAlgorithm

__all__ = [
    "KERNELS",
    "MAX_STEPS",
    "MAX_TREE_DEPTH",
    "careful_proposal",
    "hmc",
    "hmc_statistics",
    "adjusted_mclmc",
    "nuts",
    "nuts_statistics",
]

MAX_TREE_DEPTH = 10
MAX_STEPS = 255  # of one HMC trajectory
DIVERGENCE = 1000


def nuts(target: Target, tuning: Tuning) -> SamplingAlgorithm:
    """The No-U-Turn sampler."""
    import blackjax

    if isinstance(tuning.inverse_mass_matrix, metrics.Factored):
        return _whitened_nuts(target, tuning)
    metric = metrics.metric_of(tuning.inverse_mass_matrix, target.lattice)
    return blackjax.nuts(target.logdensity_fn, tuning.step_size, metric, max_num_doublings=MAX_TREE_DEPTH)


def _whitened_nuts(target: Target, tuning: Tuning) -> SamplingAlgorithm:
    """NUTS in the whitened coordinates of a `Factored` mass matrix, where it is the identity.

    It is the same sampler, but a trajectory takes one pair of matrix products for every gradient, and none for every test of
    whether it turns.
    """
    import blackjax
    from blackjax.base import SamplingAlgorithm
    from blackjax.mcmc.hmc import HMCState

    factor = tuning.inverse_mass_matrix.factor
    kernel = blackjax.nuts.build_kernel()

    def step(key, state):
        flat, unravel = ravel_pytree(state.position)
        slope = ravel_pytree(state.logdensity_grad)[0]
        here = HMCState(factor.whiten(flat), state.logdensity, factor.pull(slope))
        there, info = kernel(
            key, here, lambda y: target.logdensity_fn(unravel(factor.color(y))), tuning.step_size, jnp.ones_like(flat),
            max_num_doublings=MAX_TREE_DEPTH,
        )  # fmt: skip
        slope = unravel(factor.push(there.logdensity_grad))
        return HMCState(unravel(factor.color(there.position)), there.logdensity, slope), info

    return SamplingAlgorithm(lambda position, key=None: blackjax.hmc.init(position, target.logdensity_fn), step)


def nuts_statistics(info) -> dict:
    return {
        "acceptance_rate": info.acceptance_rate,
        "diverging": info.is_divergent,
        "energy": info.energy,
        "n_steps": info.num_integration_steps,
        "tree_depth": info.num_trajectory_expansions,
        "reached_max_treedepth": (info.num_trajectory_expansions >= MAX_TREE_DEPTH) & ~info.is_turning,
    }


def _random_steps(key, tuning: Tuning):
    """A number of steps, drawn before the trajectory: a random length keeps the kernel exact and avoids closed orbits.

    On average a quarter of a period at the geometric mean of the typical and the slowest direction (a whole quarter period of
    the slowest costs more gradients than it saves), times 0.5 to 1.5.
    """
    time = math.pi / 2 * jnp.sqrt(tuning.spread)
    steps = time * jax.random.uniform(key, (), jnp.result_type(tuning.step_size), 0.5, 1.5) / tuning.step_size
    return jnp.clip(jnp.ceil(steps), 1, MAX_STEPS).astype(jnp.int32)


def hmc(target: Target, tuning: Tuning) -> SamplingAlgorithm:
    """Hamiltonian Monte Carlo with a random number of leapfrog steps."""
    import blackjax
    from blackjax.base import SamplingAlgorithm

    metric = metrics.metric_of(tuning.inverse_mass_matrix, target.lattice)
    kernel = blackjax.hmc.build_kernel(build_proposal=functools.partial(careful_proposal, target))

    def step(key, state):
        length_key, step_key = jax.random.split(key)
        steps = _random_steps(length_key, tuning)
        return kernel(step_key, state, target.logdensity_fn, tuning.step_size, metric, steps)

    return SamplingAlgorithm(lambda position, key=None: blackjax.hmc.init(position, target.logdensity_fn), step)


def careful_proposal(
    target: Target,
    integrator,
    kinetic_energy,
    step_size,
    num_integration_steps,
    divergence_threshold,
    sample_proposal=None,
):
    """BlackJAX's proposal with the change of energy summed from local changes, which single precision needs."""
    from blackjax.mcmc.hmc import HMCInfo, flip_momentum
    from blackjax.mcmc.proposal import static_binomial_sampling
    from blackjax.mcmc.trajectory import static_integration

    sample_proposal = sample_proposal or static_binomial_sampling

    def generate(key, start):
        end = flip_momentum(static_integration(integrator)(start, step_size, num_integration_steps))
        # ½(p′M⁻¹p′ − pM⁻¹p) = ½(p′ − p)·M⁻¹(p′ + p)
        total = jax.tree.map(jnp.add, end.momentum, start.momentum)
        velocity, _ = ravel_pytree(jax.grad(kinetic_energy)(total))
        difference, _ = ravel_pytree(jax.tree.map(jnp.subtract, end.momentum, start.momentum))
        gain = -target.energy_change(end.position, start.position) - jnp.sum(difference * velocity) / 2
        gain = jnp.where(jnp.isnan(gain), -jnp.inf, gain)
        state, (accepted, rate, other) = sample_proposal(key, gain, start, end)
        # a chain has the energy of where it is, also after a rejection
        energy = kinetic_energy(start.momentum) - start.logdensity - jnp.where(accepted, gain, 0)
        diverging = -gain > divergence_threshold
        info = HMCInfo(start.momentum, rate, accepted, diverging, energy, end, num_integration_steps)
        return state, info, other

    return generate


def _mclmc_statistics(info) -> dict:
    return {
        "acceptance_rate": info.acceptance_rate,
        "diverging": info.is_divergent,
        "n_steps": info.num_integration_steps,
    }


def hmc_statistics(info) -> dict:
    return _mclmc_statistics(info) | {"energy": info.energy}


class _Microcanonical(NamedTuple):
    position: jax.Array
    logdensity: jax.Array
    logdensity_grad: jax.Array


def adjusted_mclmc(target: Target, tuning: Tuning) -> SamplingAlgorithm:
    """Microcanonical dynamics with a Metropolis step at the end of each trajectory, in whitened coordinates.

    With y = M^{1/2} φ the isokinetic flow of speed 1 in d dimensions turns as fast as HMC of unit mass does in √d of the time.
    Step sizes are given in units of HMC's time.
    """
    from blackjax.base import SamplingAlgorithm
    from blackjax.mcmc.adjusted_mclmc_dynamic import build_kernel

    metric = metrics.metric_of(tuning.inverse_mass_matrix, target.lattice)
    kernel = build_kernel(
        integration_steps_fn=lambda steps: steps,
        next_random_arg_fn=lambda steps: steps,
        divergence_threshold=DIVERGENCE,
    )

    def init(position, key=None):
        return _Microcanonical(position, *target.init(position))

    def step(key, state):
        from blackjax.mcmc.dynamic_hmc import DynamicHMCState

        length_key, step_key = jax.random.split(key)
        steps = _random_steps(length_key, tuning)

        def color(y):  # from white coordinates to the field
            return metric.scale(state.position, y, inv=True, trans=False)

        white = metric.scale(state.position, state.position, inv=False, trans=False)
        gradient = metric.scale(state.position, state.logdensity_grad, inv=True, trans=True)
        root_d = math.sqrt(ravel_pytree(state.position)[0].size)
        here = DynamicHMCState(white, state.logdensity, gradient, steps)
        there, info = kernel(step_key, here, lambda y: target.logdensity_fn(color(y)), tuning.step_size * root_d)
        position = jax.tree.map(
            lambda new, old: jnp.where(info.is_accepted, new, old).astype(old.dtype),
            color(there.position),
            state.position,
        )
        gradient = metric.scale(state.position, there.logdensity_grad, inv=False, trans=True)
        gradient = jax.tree.map(lambda new, old: jnp.where(info.is_accepted, new, old), gradient, state.logdensity_grad)
        return _Microcanonical(position, there.logdensity, gradient), info._replace(num_integration_steps=2 * steps)

    return SamplingAlgorithm(init, step)


def _needs_two_dimensions(compiled) -> str | None:
    return "needs at least two dimensions" if compiled.num_dimensions < 2 else None


def _needs_spectrum(compiled) -> str | None:
    if (reason := fields_only(compiled)) is not None:
        return reason
    lattice = compiled.model.lattice
    if lattice.offsets is None and lattice.num_sites > metrics.MAX_DENSE_SITES:
        return (
            f"needs the eigenvectors of the graph's Laplacian: they are computed up to {metrics.MAX_DENSE_SITES} sites, and "
            f"this graph has {lattice.num_sites} (the kernel without _fourier needs none)"
        )
    return None


FOURIER = "with the mass matrix of a free field, fitted to the propagator (Fourier acceleration)"


def _kernels(name, summary, build, statistics, acceptance, objection) -> list[Kernel]:
    def fourier_objection(compiled):
        return objection(compiled) or _needs_spectrum(compiled)

    return [
        Kernel(name, summary, build, statistics, WindowAdaptation(acceptance), objection),
        Kernel(f"{name}_fourier", f"{name} {FOURIER}", build, statistics, WindowAdaptation(acceptance, "fourier"),
               fourier_objection),
    ]  # fmt: skip


KERNELS = [
    *_kernels("nuts", "No-U-Turn sampler: path length chosen at every step", nuts, nuts_statistics, 0.8, any_model),
    *_kernels(
        "hmc", "Hamiltonian Monte Carlo, trajectories of adapted and randomized length", hmc, hmc_statistics, 0.8, any_model
    ),
    *_kernels(
        "adjusted_mclmc", "microcanonical dynamics of constant speed, with accept/reject", adjusted_mclmc,
        _mclmc_statistics, 0.9, _needs_two_dimensions,
    ),
]  # fmt: skip
