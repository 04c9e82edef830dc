"""Adaptive tempered sequential Monte Carlo by BlackJAX, from independent sites to the model."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ..energy.functions import log_density
from ..errors import SamplingError
from ..errors.streams import stream_key, stream_rng
from ..sampling.progress import Progress
from .annealing import one_sided
from .coupling_ensembles import sample_energies
from .coupling_path import Path
from .partition_estimate import PartitionEstimate

__all__ = ["temper"]

POPULATIONS = 16
TARGET_ESS = 0.9
MOVES = 3  # of every particle between two temperatures
MAX_LEAPFROG = 40
MAX_TEMPERATURES = 2000


def temper(path: Path, *, num_warmup: int, num_particles: int, seed: int, progress: bool | None) -> PartitionEstimate:
    """log Z from 16 independent populations, whose spread is the error.

    Particles are independent fields at λ = 0. λ rises so that their effective sample size stays at 0.9 of their number; they
    are resampled, and moved by Hamiltonian Monte Carlo with a step size and masses tuned at λ = 1. The sum of the logarithms
    of mean weights estimates log(Z/Z_0); the mean of Z over populations has no bias. Source: P. Del Moral, A. Doucet and
    A. Jasra, J. R. Stat. Soc. B 68 (2006) 411.
    """
    from blackjax.smc import adaptive_tempered  # here, because importing BlackJAX creates JAX arrays

    key, rng = stream_key(seed, "tempering"), stream_rng(seed, "tempering")
    with Progress(POPULATIONS, progress) as bar:
        bar.message("compiling tempered sequential Monte Carlo …")
        start = path.draw(rng, (1, POPULATIONS))
        _, engine = sample_energies(
            path.models([1.0]), path.change, start, num_warmup=num_warmup, num_samples=1, key=jax.random.fold_in(key, 0),
            kernel="hmc",
        )  # fmt: skip
        make = _cached_step if path.model.structure.is_built_in else _step
        step = functools.partial(make(path.model.structure), *_parameters(path, engine.tuning))
        increments, stages = np.zeros(POPULATIONS), []
        for number in range(POPULATIONS):
            state, population_key = (
                adaptive_tempered.init(path.draw(rng, (num_particles,))),
                jax.random.fold_in(key, 1 + number),
            )
            for stage in range(MAX_TEMPERATURES):
                state, increment = step(jax.random.fold_in(population_key, stage), state)
                increments[number] += float(increment)
                if not np.isfinite(increments[number]):
                    raise SamplingError(
                        "no_weight", "no particle has a finite weight. S may be unbounded below: see model.check()."
                    )
                if float(state.tempering_param) >= 1:
                    break
            else:
                raise SamplingError(
                    "too_many_temperatures",
                    f"λ = {float(state.tempering_param):.3g} after {MAX_TEMPERATURES} temperatures. Use more particles "
                    "(num_particles), or method='integration'.",
                )
            stages.append(stage + 1)
            bar.advance(1, "tempering", None, None)
    value, error = one_sided(-increments)
    how = f"{POPULATIONS} populations × {num_particles} particles × {round(np.mean(stages))} temperatures"
    z_0 = path.sites
    return PartitionEstimate(z_0.log_partition + value, error + z_0.error, "smc", how)


def _parameters(path: Path, tuned) -> tuple:
    """The models of S_0 and of S − S_0, and what the moves are built with, averaged over chains."""
    tuning = jax.tree.map(lambda leaf: leaf.mean(axis=(0, 1)), tuned)
    dtype = tuning.step_size.dtype
    origin, change = jax.tree.map(lambda v: jnp.asarray(v, dtype), (path.start, path.change))
    leapfrog = np.clip(np.ceil(np.pi / 2 * float(tuning.spread) / float(tuning.step_size)), 1, MAX_LEAPFROG)
    moves = {
        "step_size": tuning.step_size[None], "inverse_mass_matrix": tuning.inverse_mass_matrix[None],
        "num_integration_steps": jnp.asarray([int(leapfrog)]),
    }  # fmt: skip
    return origin, change, moves


def _step(structure):
    """One temperature of BlackJAX's adaptive tempered SMC, compiled for models of one structure."""
    import blackjax
    from blackjax.smc import resampling

    hmc = blackjax.hmc.build_kernel()

    def move(key, state, logdensity_fn, step_size, inverse_mass_matrix, num_integration_steps):
        scale_key, move_key = jax.random.split(key)
        vary = jax.random.uniform(scale_key, (), step_size.dtype, 0.7, 1.0)  # against closed orbits
        return hmc(move_key, state, logdensity_fn, vary * step_size, inverse_mass_matrix, num_integration_steps)

    def step(origin, change, moves, key, state):
        smc = blackjax.adaptive_tempered_smc(
            functools.partial(log_density, origin), functools.partial(log_density, change), move, blackjax.hmc.init, moves,
            resampling.systematic, TARGET_ESS, num_mcmc_steps=MOVES,
        )  # fmt: skip
        state, info = smc.step(key, state)
        return state, info.log_likelihood_increment

    return jax.jit(step)


_cached_step = functools.lru_cache(maxsize=8)(_step)
