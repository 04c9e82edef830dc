"""Kernels by name. A kernel is a BlackJAX `SamplingAlgorithm` with a name and a translation of its info.

BlackJAX is imported where it is used: its import creates JAX arrays, which importing this package must not do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from ..errors import ArgumentError

if TYPE_CHECKING:
    from blackjax.base import SamplingAlgorithm

__all__ = ["MAX_TREE_DEPTH", "Kernel", "get_kernel", "kernels", "register"]

MAX_TREE_DEPTH = 10
MEAN_HMC_STEPS = 16


@dataclass(frozen=True)
class Kernel:
    """A Markov kernel that warm-up can adapt and `phi4ppl.sample` can run.

    Attributes
    ----------
    name : str
    summary : str
    build : callable
        ``build(logdensity_fn, step_size, inverse_mass_matrix) -> SamplingAlgorithm`` with
        ``init(position) -> state`` and ``step(key, state) -> (state, info)``; the state has ``position``, ``logdensity``
        and ``logdensity_grad``.
    statistics : callable
        ``statistics(info) -> dict`` with at least ``acceptance_rate``, ``diverging``, ``energy`` and ``n_steps`` of one step.
    target_acceptance : float
        What warm-up adapts the step size to.
    """

    name: str
    summary: str
    build: Callable[..., SamplingAlgorithm]
    statistics: Callable[[object], dict]
    target_acceptance: float = 0.8


_REGISTRY: dict[str, Kernel] = {}


def register(kernel: Kernel) -> Kernel:
    """Make a kernel available by name; a name can be taken once."""
    if not isinstance(kernel, Kernel):
        raise ArgumentError("kernel", "a phi4ppl.sampling.Kernel", type(kernel).__name__)
    if kernel.name in _REGISTRY or kernel.name == "auto":
        raise ArgumentError("kernel", "a new name", repr(kernel.name), "Names in use: phi4ppl.kernels().")
    _REGISTRY[kernel.name] = kernel
    return kernel


def kernels() -> dict[str, str]:
    """Names of the kernels, with one line on each.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> sorted(p4.kernels())
    ['auto', 'hmc', 'nuts']
    """
    return {"auto": "the library's choice; at present nuts for every model"} | {
        name: kernel.summary for name, kernel in _REGISTRY.items()
    }


def get_kernel(kernel: str | Kernel) -> Kernel:
    """A kernel by name (``"auto"`` for the library's choice), or a `Kernel` as it is."""
    if isinstance(kernel, Kernel):
        return kernel
    if kernel == "auto":
        return _REGISTRY["nuts"]
    if not isinstance(kernel, str) or kernel not in _REGISTRY:
        names = ", ".join(repr(name) for name in kernels())
        raise ArgumentError("kernel", f"one of {names}", repr(kernel), "phi4ppl.kernels() tells what each one is.")
    return _REGISTRY[kernel]


def _nuts(logdensity_fn, step_size, inverse_mass_matrix) -> SamplingAlgorithm:
    import blackjax

    return blackjax.nuts(logdensity_fn, step_size, inverse_mass_matrix, max_num_doublings=MAX_TREE_DEPTH)


def _nuts_statistics(info) -> dict:
    return {
        "acceptance_rate": info.acceptance_rate,
        "diverging": info.is_divergent,
        "energy": info.energy,
        "n_steps": info.num_integration_steps,
        "tree_depth": info.num_trajectory_expansions,
        "reached_max_treedepth": (info.num_trajectory_expansions >= MAX_TREE_DEPTH) & ~info.is_turning,
    }


def _hmc(logdensity_fn, step_size, inverse_mass_matrix) -> SamplingAlgorithm:
    import blackjax
    from blackjax.base import SamplingAlgorithm
    from blackjax.mcmc.metrics import default_metric

    kernel = blackjax.hmc.build_kernel()
    kinetic_energy = default_metric(inverse_mass_matrix).kinetic_energy

    def step(key, state):
        length_key, step_key = jax.random.split(key)
        # a random length, drawn before the trajectory, keeps the kernel exact and avoids closed orbits
        length = jax.random.randint(length_key, (), 1, 2 * MEAN_HMC_STEPS)
        new_state, info = kernel(step_key, state, logdensity_fn, step_size, inverse_mass_matrix, length)
        # BlackJAX tells the energy of the proposal, also of a rejected one; a chain has the energy of where it is
        energy_before = kinetic_energy(info.momentum) - state.logdensity
        return new_state, info._replace(energy=jnp.where(info.is_accepted, info.energy, energy_before))

    return SamplingAlgorithm(lambda position, key=None: blackjax.hmc.init(position, logdensity_fn), step)


def _hmc_statistics(info) -> dict:
    return {
        "acceptance_rate": info.acceptance_rate,
        "diverging": info.is_divergent,
        "energy": info.energy,
        "n_steps": info.num_integration_steps,
    }


register(
    Kernel("nuts", "No-U-Turn sampler: path length chosen at every step; needs no tuning", _nuts, _nuts_statistics)
)
register(
    Kernel(
        "hmc",
        f"Hamiltonian Monte Carlo with a random number of leapfrog steps, 1 to {2 * MEAN_HMC_STEPS - 1}",
        _hmc,
        _hmc_statistics,
    )
)
