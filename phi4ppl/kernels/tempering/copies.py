"""All copies of the field on the rungs of a ladder, and an iteration of parallel tempering.

An iteration starts with clusters on every rung: those of `cluster`, where there are hopping terms and signs do not compete,
and with pairs of replicas Houdayer's, see `replica_clusters`. Then come rounds: in each of them every copy moves by colored
sweeps (or by HMC, where they do not fit), and neighbors on the ladder exchange, see `ladder`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from ...lattice.coloring import colors
from ..cluster import CLUSTER, CLUSTER_COST, NUM_SWEEPS, flip_clusters
from ..gradient import KERNELS
from ..kernel import Kernel
from ..local_hmc import LOCAL_HMC, MAX_COLORS, NUM_STEPS, LocalSteps, finish, sweeps
from ..target import Target
from .fresh_sites import SiteTables, fresh_sites
from .ladder import at, exchange, tempered_change
from .replica_clusters import exchange_clusters

if TYPE_CHECKING:
    from blackjax.base import SamplingAlgorithm

__all__ = ["HMC", "Copies", "Ladder", "LadderInfo", "LadderTuning", "build", "inner_kernel", "lone_kernel"]

SWAPS = 8  # of even or odd pairs in a round: fields move several rungs, and it costs less than a sweep

HMC = next(kernel for kernel in KERNELS if kernel.name == "hmc")


def _sweeps(target: Target, tuning: LocalSteps) -> SamplingAlgorithm:
    """Two sweeps: together they cost hardly more than one, which must set up as much."""
    from blackjax.base import SamplingAlgorithm

    def init(position, key=None):
        return finish(target, position, jnp.zeros_like(position), 0)[0]

    def step(key, state):
        phi, acceptance = sweeps(target, key, state.position, tuning.step_size, NUM_SWEEPS)
        return finish(target, phi, acceptance, NUM_SWEEPS * (NUM_STEPS + 1))

    return SamplingAlgorithm(init, step)


SWEEPS = Kernel("sweeps", "two colored sweeps", _sweeps, LOCAL_HMC.statistics, LOCAL_HMC.adaptation)


@dataclass(frozen=True)
class Ladder:
    """What a tempering kernel is made of.

    Attributes
    ----------
    hottest : float
        β of the last rung.
    replicas : int
        2 for Houdayer's moves, else 1.
    rounds : int
        Of moves and exchanges in an iteration.
    clusters : bool
        Whether clusters of `cluster` flip, where there are any; those of frustrated models only cost time.
    """

    num_rungs: int = 8
    path: str = "temperature"
    hottest: float = 0.1
    replicas: int = 1
    rounds: int = 1
    clusters: bool = True


class LadderTuning(NamedTuple):
    inner: Any  # of every rung
    inverse_temperature: jax.Array
    sites: SiteTables | None  # of independent sites at β = 0

    @property
    def step_size(self):
        return self.inner.step_size


class Copies(NamedTuple):
    """The first replica on the coldest rung, as every kernel's state has a field; then all copies and what the last step did.

    Copies have the leading axes (rung, replica).
    """

    position: Any
    logdensity: jax.Array
    logdensity_grad: Any
    copies: Any
    has_been_hot: jax.Array  # of every copy, since it was last on the coldest rung
    acceptance: jax.Array  # of every rung
    exchange: jax.Array  # probability of every pair at the last step
    odd: jax.Array  # whether odd pairs are next


class LadderInfo(NamedTuple):
    acceptance_rate: jax.Array
    diverging: jax.Array
    n_steps: jax.Array
    exchange_rate: jax.Array
    inverse_temperature: jax.Array
    round_trips: jax.Array
    exchanged_share: jax.Array | None


def _has_clusters(target: Target) -> bool:
    if target.lattice is None:
        return False
    forms = target.model.forms
    return any(form.is_hopping for form in forms) and all(
        form.is_hopping or form.cliques.shape[1] == 1 for form in forms
    )


def sweeps_fit(target: Target) -> bool:
    """Whether colored sweeps move the field, or HMC."""
    return target.lattice is not None and colors(target.lattice, target.model.forms).max() < MAX_COLORS


def inner_kernel(target: Target) -> Kernel:
    """The kernel that moves every copy in a round."""
    return SWEEPS if sweeps_fit(target) else HMC


def lone_kernel(target: Target, clusters: bool) -> Kernel:
    """The kernel of a copy on its own."""
    return CLUSTER if clusters and sweeps_fit(target) and _has_clusters(target) else inner_kernel(target)


def _moved(target: Target, key, position, inner):
    """A copy after sweeps or HMC: position, acceptance (of every site, or a number), divergence, number of gradients."""
    kernel = inner_kernel(target)
    algorithm = kernel.build(target, inner)
    state, info = algorithm.step(key, algorithm.init(position))
    did = kernel.statistics(info)
    acceptance = getattr(state, "acceptance", did["acceptance_rate"])
    return state.position, acceptance, did["diverging"], did["n_steps"]


def _clusters_of(ladder: Ladder, target: Target, key, copies, beta):
    """The replicas of one rung after moves of clusters, and the share of sites in the largest one of a pair."""
    here, share = at(target, beta, ladder.path), None
    if ladder.clusters:
        copies = jax.vmap(functools.partial(flip_clusters, here))(jax.random.split(key, ladder.replicas), copies)
    if ladder.replicas == 2:
        one, other, share = exchange_clusters(here, jax.random.fold_in(key, 2), copies[0], copies[1])
        copies = jnp.stack([one, other])
    return copies, share


def build(ladder: Ladder, target: Target, tuning: LadderTuning) -> SamplingAlgorithm:
    """The algorithm of a ladder."""
    from blackjax.base import SamplingAlgorithm

    beta, (rungs, replicas) = tuning.inverse_temperature, (ladder.num_rungs, ladder.replicas)
    change = tempered_change(target, ladder.path)

    def init(position, key=None):
        copies = jax.tree.map(lambda x: jnp.broadcast_to(x, (rungs, replicas, *x.shape)), position)
        logdensity, gradient = target.init(position)
        field = jnp.shape(position) if sweeps_fit(target) else ()
        rates, hot = jnp.zeros((rungs, *field), logdensity.dtype), jnp.zeros((rungs, replicas), bool)
        return Copies(position, logdensity, gradient, copies, hot, rates, jnp.zeros_like(beta[1:]), jnp.zeros((), bool))

    def moved_on_rung(keys, copies, beta, inner):
        return jax.vmap(functools.partial(_moved, at(target, beta, ladder.path), inner=inner))(keys, copies)

    def one_round(carry, key):
        copies, been, odd = carry
        move_key, site_key, exchange_key = jax.random.split(key, 3)
        keys = jax.random.split(move_key, (rungs, replicas))
        copies, *did = jax.vmap(moved_on_rung)(keys, copies, beta, tuning.inner)
        if tuning.sites is not None:
            refresh = functools.partial(fresh_sites, target, tuning.sites)
            copies = copies.at[-1].set(jax.vmap(refresh)(jax.random.split(site_key, replicas), copies[-1]))
        lower, upper = jax.tree.map(lambda x: x[:-1], copies), jax.tree.map(lambda x: x[1:], copies)
        above = jnp.cumsum(jax.vmap(jax.vmap(change))(upper, lower), axis=0)
        tempered = jnp.concatenate([jnp.zeros_like(above[:1]), above])  # V of every copy, from that of the coldest
        origin, rate, odd = exchange(exchange_key, tempered, beta, odd, SWAPS)
        replica = jnp.arange(replicas)[None]
        copies = jax.tree.map(lambda x: x[origin, replica], copies)
        been = been.at[-1].set(True)[origin, replica]
        trips = jnp.sum(been[0], dtype=jnp.int32)
        return (copies, been.at[0].set(False), odd), (*did, rate.mean(axis=1), trips)

    def step(key, state):
        # the field may have changed sign since
        copies = jax.tree.map(lambda all_, mine: all_.at[0, 0].set(mine), state.copies, state.position)
        cluster_key, round_key = jax.random.split(key)
        cost, share = 0, None
        if _has_clusters(target) and (ladder.clusters or replicas == 2):
            keys, cost = jax.random.split(cluster_key, rungs), CLUSTER_COST * rungs * replicas
            copies, share = jax.vmap(functools.partial(_clusters_of, ladder, target))(keys, copies, beta)
        carry, found = jax.lax.scan(
            one_round, (copies, state.has_been_hot, state.odd), jax.random.split(round_key, ladder.rounds)
        )
        (copies, been, odd), (acceptance, diverging, steps, rate, trips) = carry, found
        acceptance, rate = acceptance.mean(axis=(0, 2)), rate.mean(axis=0)
        position = jax.tree.map(lambda x: x[0, 0], copies)
        logdensity, gradient = target.init(position)
        info = LadderInfo(
            jnp.mean(acceptance[0]), jnp.any(diverging), cost + jnp.sum(steps), rate, beta, jnp.sum(trips), share,
        )  # fmt: skip
        return Copies(position, logdensity, gradient, copies, been, acceptance, rate, odd), info

    return SamplingAlgorithm(init, step)
