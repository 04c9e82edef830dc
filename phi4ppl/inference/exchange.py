"""The exchange algorithm: posteriors of couplings without log Z, at the cost of a simulation per proposal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ..analysis.gamma_method import gamma_method
from ..energy.compiled import compile_field
from ..errors.streams import stream_key
from ..kernels.adaptation import Tuning, WindowAdaptation
from ..kernels.choose import resolve
from ..kernels.kernel import Kernel
from ..kernels.symmetry import is_even
from ..kernels.target import Target, target_of
from ..model.field import MarkovRandomField
from ..partition.coupling_ensembles import sample_energies
from ..sampling.program import term_energies, transition

__all__ = ["auxiliary_tau", "exchange", "tuned"]

ACCEPTANCE = 0.35  # of random-walk proposals
NUM_WARMUP, NUM_DRAWS = 300, 500  # of chains that tune the kernel, or measure its autocorrelation
MAX_CHAINS = 16


class ExchangeState(NamedTuple):
    position: Any
    logdensity: jax.Array  # without log Z
    logdensity_grad: Any


class ExchangeInfo(NamedTuple):
    acceptance_rate: jax.Array
    diverging: jax.Array
    n_steps: jax.Array


def exchange(
    model: MarkovRandomField, names: list[str], data, couplings_of: Callable, *, num_auxiliary: int, tuning
) -> Kernel:
    """A kernel for the couplings ``names`` of a model, given fields.

    θ' is proposed by a random walk, and every field φ_i is followed for ``num_auxiliary`` iterations of the library's sampler
    at θ' to an auxiliary field x_i. With q the density without its normalizer, θ' is accepted with probability

        min(1, [p(θ') Π q(φ_i; θ') q(x_i; θ)] / [p(θ) Π q(φ_i; θ) q(x_i; θ')]),

    in which Z cancels. Exact if the x_i were exact draws (I. Murray, Z. Ghahramani and D. MacKay, UAI 2006); with finite chains
    that start at the data (F. Liang, J. Stat. Comput. Simul. 80 (2010) 1007) the bias falls like exp(−num_auxiliary/τ).

    ``couplings_of(position)`` gives the dict of couplings, each one number or one per clique, ``tuning`` is that of the
    auxiliary sampler from `tuned`; the target is the posterior without log Z.
    """
    kernel, _ = resolve("auto", compile_field(model), tempered=False)
    flip_signs = is_even(model)
    fields = jnp.asarray(data, jnp.result_type(float))
    dtype = fields.dtype

    def difference(key, couplings, old):
        """Σ_i S(x_i; θ') − S(x_i; θ) of auxiliary fields at the proposed couplings: S is linear in them."""
        here = model.structure.at(jnp.asarray(couplings.get(n, v), dtype) for n, v in model.couplings.items())
        moved = model.structure.at(
            jnp.asarray(couplings[n] - old[n], dtype) if n in names else jnp.zeros(jnp.shape(v), dtype)
            for n, v in model.couplings.items()
        )

        def follow(key, field):
            def move(k, state):
                return transition(kernel, here, tuning, jax.random.fold_in(key, k), state, flip_signs)

            state = jax.lax.fori_loop(0, num_auxiliary, move, kernel.build(target_of(here), tuning).init(field))
            return term_energies(moved, state.position).sum()

        return jax.vmap(follow)(jax.random.split(key, len(fields)), fields).sum()

    def build(target: Target, walk: Tuning):
        return _algorithm(target, walk, couplings_of, difference, num_auxiliary)

    return Kernel(
        "exchange", "random walk with auxiliary fields", build, ExchangeInfo._asdict, WindowAdaptation(ACCEPTANCE)
    )


def _algorithm(target: Target, walk: Tuning, couplings_of, difference, num_auxiliary: int):
    from blackjax.base import SamplingAlgorithm

    def step(key, state):
        move_key, field_key, accept_key = jax.random.split(key, 3)
        flat, unravel = ravel_pytree(state.position)
        noise = jax.random.normal(move_key, flat.shape, flat.dtype)
        position = unravel(flat + walk.step_size * jnp.sqrt(walk.inverse_mass_matrix) * noise)
        proposal = ExchangeState(position, *target.init(position))
        old, new = couplings_of(state.position), couplings_of(position)
        log_ratio = proposal.logdensity - state.logdensity + difference(field_key, new, old)
        rate = jnp.exp(jnp.minimum(log_ratio, 0.0))
        rate = jnp.where(jnp.isnan(rate), 0.0, rate)
        take = jax.random.uniform(accept_key, (), rate.dtype) < rate
        state = jax.tree.map(lambda a, b: jnp.where(take, a, b), proposal, state)
        return state, ExchangeInfo(rate, jnp.zeros((), bool), jnp.asarray(num_auxiliary, jnp.int32))

    return SamplingAlgorithm(lambda position, key=None: ExchangeState(position, *target.init(position)), step)


def tuned(model: MarkovRandomField, data, seed: int):
    """What the sampler of the auxiliary fields is built with, from chains at the couplings of a model."""
    return jax.tree.map(
        lambda leaf: leaf.mean(axis=(0, 1)),
        _simulate(model, data, 1, stream_key(seed, "tuning of auxiliary fields"))[1].tuning,
    )


def auxiliary_tau(model: MarkovRandomField, names: list[str], data, seed: int) -> float:
    """Longest integrated autocorrelation time of the statistics of ``names``, in iterations, at the couplings of a model."""
    (energies,), _ = _simulate(model, data, NUM_DRAWS, stream_key(seed, "auxiliary fields"))
    chosen = [k for k, name in enumerate(model.couplings) if name in names]
    return float(gamma_method(energies[..., chosen]).tau_int.max())


def _simulate(model: MarkovRandomField, data, num_samples: int, key) -> tuple:
    """Chains that start at fields of the data."""
    dtype = jnp.result_type(float)
    start = jnp.asarray(np.resize(data, (max(2, min(len(data), MAX_CHAINS)), *model.field_shape)), dtype)
    models = jax.tree.map(lambda v: jnp.asarray(v, dtype)[None], model)
    return sample_energies(
        models, jax.tree.map(lambda v: 1.0, model), start[None], num_warmup=NUM_WARMUP, num_samples=num_samples,
        key=key,
    )  # fmt: skip
