"""Parallel tempering: copies of the field at rising temperatures exchange places, so that chains can go around barriers.

Every iteration moves each copy as `auto` would (clusters and colored sweeps, sweeps alone, or HMC), and then exchanges
neighbors on the ladder; see `phi4ppl.kernels.ladder` for the exchanges and the rungs. With pairs of replicas on every rung,
Houdayer's clusters are exchanged too, see `phi4ppl.kernels.replica_clusters`.

Sources: R. H. Swendsen and J.-S. Wang, Phys. Rev. Lett. 57 (1986) 2607; C. J. Geyer (1991); S. Syed et al., J. R. Stat. Soc. B
84 (2022) 321; Z. Zhu, A. J. Ochoa and H. G. Katzgraber, Phys. Rev. Lett. 115 (2015) 077201.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from ..energy.compiled import CompiledModel
from ..errors import ArgumentError
from ..errors.arguments import call_checked, positive_int
from ..lattice.coloring import colors
from .adaptation import over_chains
from .cluster import CLUSTER, CLUSTER_COST, NUM_SWEEPS, flip_clusters
from .fresh_sites import SiteTables, fresh_sites, site_tables
from .gradient import KERNELS
from .kernel import Kernel, any_model
from .ladder import PATHS, at, exchange, partners, respaced, start_of, tempered_change
from .ladder_pilot import Pilot, pilot_of
from .local_hmc import LOCAL_HMC, MAX_COLORS, NUM_STEPS, sweeps
from .replica_clusters import exchange_clusters
from .target import Target

if TYPE_CHECKING:
    from blackjax.base import SamplingAlgorithm

__all__ = ["HOUDAYER", "TEMPERING", "houdayer", "partners", "tempering"]

NUM_RUNGS = 8  # of a kernel that is not fitted to a model
HOTTEST = 0.1
ROUNDS = 4  # of exchanges in an iteration; they cost next to nothing
FIRST_RESPACING, LONGER = (
    10,
    1.5,
)  # iterations until the rungs move for the first time, and how much longer until the next

HMC = next(kernel for kernel in KERNELS if kernel.name == "hmc")


class _Tuning(NamedTuple):
    inner: Any  # of every rung
    inverse_temperature: jax.Array
    sites: SiteTables | None  # of independent sites at β = 0

    @property
    def step_size(self):
        return self.inner.step_size


class _State(NamedTuple):
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


class _Info(NamedTuple):
    acceptance_rate: jax.Array
    diverging: jax.Array
    n_steps: jax.Array
    exchange_rate: jax.Array
    inverse_temperature: jax.Array
    round_trips: jax.Array
    exchanged_share: jax.Array | None


@dataclass(frozen=True)
class _Ladder:
    """What a tempering kernel is made of.

    Attributes
    ----------
    hottest : float
        β of the last rung.
    replicas : int
        2 for Houdayer's moves, else 1.
    """

    num_rungs: int = NUM_RUNGS
    path: str = "temperature"
    hottest: float = HOTTEST
    replicas: int = 1


def _clusters(target: Target) -> bool:
    forms = target.model.forms
    return any(form.is_hopping for form in forms) and all(
        form.is_hopping or form.cliques.shape[1] == 1 for form in forms
    )


def _sweeps_fit(target: Target) -> bool:
    """Whether colored sweeps move the field, or HMC."""
    return target.lattice is not None and colors(target.lattice, target.model.forms).max() < MAX_COLORS


def _inner(target: Target) -> Kernel:
    """The kernel of every copy, whose adaptation it uses."""
    if not _sweeps_fit(target):
        return HMC
    return CLUSTER if _clusters(target) else LOCAL_HMC


def _moved(target: Target, key, position, inner):
    """A copy after one step: the position, its acceptance (of every site, or a number), divergence and number of gradients."""
    kernel = _inner(target)
    if kernel is HMC:
        algorithm = kernel.build(target, inner)
        state, info = algorithm.step(key, algorithm.init(position))
        did = kernel.statistics(info)
        return state.position, did["acceptance_rate"], did["diverging"], did["n_steps"]
    cluster_key, sweep_key = jax.random.split(key)
    cost = NUM_SWEEPS * (NUM_STEPS + 1)
    if kernel is CLUSTER:
        position, cost = flip_clusters(target, cluster_key, position), cost + CLUSTER_COST
    position, acceptance = sweeps(target, sweep_key, position, inner.step_size, NUM_SWEEPS)
    return position, acceptance, jnp.zeros((), bool), jnp.asarray(cost, jnp.int32)


def _build(ladder: _Ladder, target: Target, tuning: _Tuning) -> SamplingAlgorithm:
    from blackjax.base import SamplingAlgorithm

    beta, (rungs, replicas) = tuning.inverse_temperature, (ladder.num_rungs, ladder.replicas)
    change = tempered_change(target, ladder.path)

    def init(position, key=None):
        copies = jax.tree.map(lambda x: jnp.broadcast_to(x, (rungs, replicas, *x.shape)), position)
        logdensity, gradient = target.init(position)
        field = jnp.shape(position) if _sweeps_fit(target) else ()
        rates, hot = jnp.zeros((rungs, *field), logdensity.dtype), jnp.zeros((rungs, replicas), bool)
        return _State(position, logdensity, gradient, copies, hot, rates, jnp.zeros_like(beta[1:]), jnp.zeros((), bool))

    def rung(key, copies, beta, inner):
        """One rung: all replicas move, and a pair exchanges clusters."""
        here = at(target, beta, ladder.path)
        move = functools.partial(_moved, here, inner=inner)
        moved, acceptance, diverging, steps = jax.vmap(move)(jax.random.split(key, replicas), copies)
        share = None
        if replicas == 2:
            one, other, share = exchange_clusters(here, jax.random.fold_in(key, 2), moved[0], moved[1])
            moved = jnp.stack([one, other])
        return moved, acceptance.mean(axis=0), jnp.any(diverging), jnp.sum(steps), share

    def step(key, state):
        move_key, site_key, exchange_key = jax.random.split(key, 3)
        # the field may have changed sign since
        copies = jax.tree.map(lambda all_, mine: all_.at[0, 0].set(mine), state.copies, state.position)
        keys = jax.random.split(move_key, rungs)
        copies, acceptance, diverging, steps, share = jax.vmap(rung)(keys, copies, beta, tuning.inner)
        if tuning.sites is not None:
            refresh = functools.partial(fresh_sites, target, tuning.sites)
            copies = copies.at[-1].set(jax.vmap(refresh)(jax.random.split(site_key, replicas), copies[-1]))
        lower, upper = jax.tree.map(lambda x: x[:-1], copies), jax.tree.map(lambda x: x[1:], copies)
        above = jnp.cumsum(jax.vmap(jax.vmap(change))(upper, lower), axis=0)
        tempered = jnp.concatenate([jnp.zeros_like(above[:1]), above])  # V of every copy, from that of the coldest
        origin, rate, odd = exchange(exchange_key, tempered, beta, state.odd, ROUNDS)
        replica = jnp.arange(replicas)[None]
        copies = jax.tree.map(lambda x: x[origin, replica], copies)
        been = state.has_been_hot.at[-1].set(True)[origin, replica]
        position = jax.tree.map(lambda x: x[0, 0], copies)
        logdensity, gradient = target.init(position)
        exchange_rate = rate.mean(axis=1)
        info = _Info(
            jnp.mean(acceptance[0]), jnp.any(diverging), jnp.sum(steps), exchange_rate, beta,
            jnp.sum(been[0], dtype=jnp.int32), share,
        )  # fmt: skip
        been = been.at[0].set(False)
        return _State(position, logdensity, gradient, copies, been, acceptance, exchange_rate, odd), info

    return SamplingAlgorithm(init, step)


class _Seen(NamedTuple):
    """What the adaptation of one copy looks at."""

    position: Any
    acceptance: jax.Array


class _Climb(NamedTuple):
    """Warm-up: of every rung, and the rejections of every pair since the rungs last moved."""

    inner: Any
    inverse_temperature: jax.Array
    sites: SiteTables | None
    rejected: jax.Array
    seen: jax.Array
    wait: jax.Array  # iterations between the last move of the rungs and the next


@dataclass(frozen=True)
class _LadderAdaptation:
    """Every copy adapts as its own kernel does; the rungs move, ever more rarely, to equal rejection of all pairs.

    Chains share their rejections, and so their ladder.
    """

    ladder: _Ladder

    def begin(self, target: Target, position) -> _Climb:
        dtype, rungs = jax.eval_shape(target.logdensity_fn, position).dtype, self.ladder.num_rungs
        inner = _inner(target).adaptation.begin(target, position)
        inner = jax.tree.map(lambda x: jnp.broadcast_to(x, (rungs, *jnp.shape(x))), inner)
        beta = start_of(rungs, self.ladder.path, self.ladder.hottest, dtype)
        sites = site_tables(target, dtype) if self.ladder.path == "interactions" else None
        nothing = jnp.zeros((), dtype)
        return _Climb(inner, beta, sites, jnp.zeros_like(beta[1:]), nothing, nothing + FIRST_RESPACING)

    def update(self, target: Target, state: _Climb, stage, is_window_end, chain_state: _State, statistics) -> _Climb:
        def update_copy(inner, beta, position, acceptance):
            here, rate = at(target, beta, self.ladder.path), {"acceptance_rate": jnp.mean(acceptance)}
            return _inner(target).adaptation.update(
                here, inner, stage, is_window_end, _Seen(position, acceptance), rate
            )

        first = jax.tree.map(lambda x: x[:, 0], chain_state.copies)
        beta = state.inverse_temperature
        inner = jax.vmap(update_copy)(state.inner, beta, first, chain_state.acceptance)
        rejected, seen = state.rejected + over_chains(1 - chain_state.exchange), state.seen + 1
        due = seen >= state.wait
        return state._replace(
            inner=inner, inverse_temperature=jnp.where(due, respaced(beta, rejected / seen), beta),
            rejected=jnp.where(due, 0, rejected), seen=jnp.where(due, 0, seen),
            wait=jnp.where(due, LONGER * state.wait, state.wait),
        )  # fmt: skip

    def tuning(self, state: _Climb) -> _Tuning:
        return self._tuning(state, "tuning")

    def final(self, state: _Climb) -> _Tuning:
        return self._tuning(state, "final")

    def _tuning(self, state: _Climb, which: str) -> _Tuning:
        adaptation = (LOCAL_HMC if hasattr(state.inner, "log_step") else HMC).adaptation
        inner = jax.vmap(getattr(adaptation, which))(state.inner)
        return _Tuning(inner, state.inverse_temperature, state.sites)


def _statistics(info: _Info) -> dict:
    return {name: value for name, value in info._asdict().items() if value is not None}


@functools.lru_cache(maxsize=64)
def _kernel(ladder: _Ladder, asked: tuple) -> Kernel:
    """The kernel of a ladder; ``asked`` are the rungs and the path as they were asked for, None where a pilot is to find
    them."""
    pair = ladder.replicas == 2
    name, what = ("houdayer", "two replicas of") if pair else ("tempering", "")
    number = f"{asked[0]} copies" if asked is not None and asked[0] else "copies"
    summary = f"parallel tempering: {what} {number} from cold to hot that exchange fields, for rugged landscapes"
    if pair:
        summary = f"parallel tempering of pairs of replicas ({number}) that exchange clusters, for frustrated couplings"
    return Kernel(
        name, summary.replace("  ", " "), functools.partial(_build, ladder), _statistics, _LadderAdaptation(ladder),
        objection=CLUSTER.objection if pair else any_model,
        fit=None if asked is None else functools.partial(_fitted, ladder.replicas, asked),
    )  # fmt: skip


def _fitted(replicas: int, asked: tuple, compiled: CompiledModel) -> tuple[Kernel, str]:
    """The kernel with the ladder that a pilot run of the model calls for."""
    number, path = asked
    found: Pilot = pilot_of(compiled, _inner, path)
    rungs = number or found.num_rungs
    ladder = _Ladder(rungs, found.path, found.hottest, replicas)
    return _kernel(ladder, None), f"{rungs} copies; {found}"


def _factory(num_rungs, path, replicas: int) -> Kernel:
    fix = "A single copy has no other to exchange with."
    number = None if num_rungs is None else positive_int("num_rungs", num_rungs, minimum=2, fix=fix)
    if path is not None and path not in PATHS:
        raise ArgumentError("path", "None, 'temperature' or 'interactions'", repr(path), reason="choice")
    ladder = _Ladder(number or NUM_RUNGS, "temperature", HOTTEST, replicas)
    return _kernel(ladder, (number, path))


@call_checked
def tempering(num_rungs: int | None = None, *, path: str | None = None) -> Kernel:
    """Parallel tempering with ``num_rungs`` copies of the model at rising temperatures.

    On rung k, the action is β_k S (path ``"temperature"``), or the terms of single sites plus β_k times those of several sites
    (``"interactions"``), where the last rung, β = 0, draws independent sites. A short pilot run before the chains start
    measures the barrier Λ of both paths. It takes the path of lower barrier, ends it where copies forget their start on their
    own, and makes 2Λ + 1 rungs. Warm-up then spaces them so that all neighbors reject equally often.

    The statistics ``exchange_rate`` (of every pair), ``inverse_temperature`` (β of every copy) and ``round_trips`` show how it
    went: the number of copies that came back to the coldest rung after they had been on the hottest one. `phi4ppl.diagnose`
    shows and judges them.

    Parameters
    ----------
    num_rungs : int, optional
        At least 2; by default 2Λ + 1 of the measured barrier.
    path : str, optional
        ``"temperature"`` or ``"interactions"``, for fields whose single sites are normalizable alone; by default that of lower
        barrier.

    Raises
    ------
    ArgumentError

    Notes
    -----
    Source: S. Syed, A. Bouchard-Côté, G. Deligiannidis and A. Doucet, J. R. Stat. Soc. B 84 (2022) 321.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> model = p4.phi4(p4.lattice.chain(3), w=0.1, a=-8.0, b=2.0)  # deep wells
    >>> tree = p4.sample(model, kernel=p4.sampling.tempering(6), num_warmup=300, num_samples=300)
    >>> tree["sample_stats"]["exchange_rate"].sizes["pair"]
    5
    >>> bool((tree["sample_stats"]["round_trips"].sum("draw") > 10).all())
    True
    """
    return _factory(num_rungs, path, 1)


@call_checked
def houdayer(num_rungs: int | None = None, *, path: str | None = None) -> Kernel:
    """Parallel tempering of pairs of replicas that exchange clusters of sites where their signs differ, on any graph.

    Two independent replicas a and b share every rung. The values of a cluster C of sites with a_i b_i < 0 are exchanged with
    probability 1/(1 + exp(ΔS_C)), ΔS_C = Σ_{i∈C, j∉C} w_ij (a_i − b_i)(a_j − b_j): a heat bath without rejection. Chains keep
    the first replica. Below the percolation of such clusters (square and other planar graphs, cold sparse graphs) the move
    crosses barriers that no single replica crosses; where one cluster takes most of the sites (cubic and higher-dimensional
    lattices, graphs of many neighbors) it only renames the replicas: the statistic ``exchanged_share``, the share of
    sites in the largest cluster on every rung, then approaches one half, and `tempering` does the same for half the cost.

    Parameters
    ----------
    num_rungs, path
        As of `tempering`.

    Raises
    ------
    ArgumentError

    Notes
    -----
    Sources: J. Houdayer, Eur. Phys. J. B 22 (2001) 479 (Ising spins in two dimensions); Z. Zhu, A. J. Ochoa and
    H. G. Katzgraber, Phys. Rev. Lett. 115 (2015) 077201 (any graph).

    Examples
    --------
    >>> import phi4ppl as p4
    >>> triangle = p4.phi4(p4.lattice.chain(3), w=-1.0, a=-2.0, b=1.0)
    >>> tree = p4.sample(triangle, kernel=p4.sampling.houdayer(3), num_warmup=200, num_samples=200)
    >>> tree["sample_stats"]["exchanged_share"].sizes["copy"]
    3
    """
    return _factory(num_rungs, path, 2)


TEMPERING = tempering()
HOUDAYER = houdayer()
