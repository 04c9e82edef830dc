"""The kernels `tempering` and `houdayer`: their warm-up, and the ladder that a model needs.

Sources: R. H. Swendsen and J.-S. Wang, Phys. Rev. Lett. 57 (1986) 2607; C. J. Geyer (1991); S. Syed et al., J. R. Stat. Soc. B
84 (2022) 321; Z. Zhu, A. J. Ochoa and H. G. Katzgraber, Phys. Rev. Lett. 115 (2015) 077201.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...energy.compiled import CompiledModel
from ...energy.frustration import ruggedness
from ...errors import ArgumentError
from ...errors.arguments import call_checked, positive_int
from ..adaptation import over_chains
from ..cluster import CLUSTER
from ..kernel import Kernel, any_model
from ..local_hmc import LOCAL_HMC
from ..target import Target
from .copies import HMC, Copies, Ladder, LadderInfo, LadderTuning, build, inner_kernel
from .fresh_sites import SiteTables, site_tables
from .ladder import PATHS, at, respaced, start_of
from .ladder_pilot import Pilot, pilot_of

__all__ = ["HOUDAYER", "TEMPERING", "houdayer", "tempering"]

FIRST_RESPACING, LONGER = 10, 1.5  # iterations until the rungs move for the first time; how much longer until the next


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

    ladder: Ladder

    def begin(self, target: Target, position) -> _Climb:
        dtype, rungs = jax.eval_shape(target.logdensity_fn, position).dtype, self.ladder.num_rungs
        inner = inner_kernel(target).adaptation.begin(target, position)
        inner = jax.tree.map(lambda x: jnp.broadcast_to(x, (rungs, *jnp.shape(x))), inner)
        beta = start_of(rungs, self.ladder.path, self.ladder.hottest, dtype)
        sites = site_tables(target, dtype) if self.ladder.path == "interactions" else None
        nothing = jnp.zeros((), dtype)
        return _Climb(inner, beta, sites, jnp.zeros_like(beta[1:]), nothing, nothing + FIRST_RESPACING)

    def update(self, target: Target, state: _Climb, stage, is_window_end, chain_state: Copies, statistics) -> _Climb:
        def update_copy(inner, beta, position, acceptance):
            here, rate = at(target, beta, self.ladder.path), {"acceptance_rate": jnp.mean(acceptance)}
            return inner_kernel(target).adaptation.update(
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

    def tuning(self, state: _Climb) -> LadderTuning:
        return self._tuning(state, "tuning")

    def final(self, state: _Climb) -> LadderTuning:
        return self._tuning(state, "final")

    def _tuning(self, state: _Climb, which: str) -> LadderTuning:
        adaptation = (LOCAL_HMC if hasattr(state.inner, "log_step") else HMC).adaptation
        inner = jax.vmap(getattr(adaptation, which))(state.inner)
        return LadderTuning(inner, state.inverse_temperature, state.sites)


def _statistics(info: LadderInfo) -> dict:
    return {name: value for name, value in info._asdict().items() if value is not None}


@functools.lru_cache(maxsize=64)
def _kernel(ladder: Ladder, asked: tuple) -> Kernel:
    """The kernel of a ladder; ``asked`` are the rungs and the path as they were asked for, None where a pilot is to find
    them."""
    pair = ladder.replicas == 2
    name, what = ("houdayer", "two replicas of") if pair else ("tempering", "")
    number = f"{asked[0]} copies" if asked is not None and asked[0] else "copies"
    summary = f"parallel tempering: {what} {number} from cold to hot that exchange fields, for rugged landscapes"
    if pair:
        summary = f"parallel tempering of pairs of replicas ({number}) that exchange clusters, for frustrated couplings"
    return Kernel(
        name, summary.replace("  ", " "), functools.partial(build, ladder), _statistics, _LadderAdaptation(ladder),
        objection=CLUSTER.objection if pair else any_model,
        fit=None if asked is None else functools.partial(_fitted, ladder.replicas, asked),
    )  # fmt: skip


def _fitted(replicas: int, asked: tuple, *models: CompiledModel) -> tuple[Kernel, str]:
    """The kernel with the ladder that pilot runs of the models call for."""
    number, path = asked
    clusters = not any(each.model is not None and ruggedness(each.model) for each in models)
    found: Pilot = pilot_of(models, path, clusters)
    rungs = number or found.num_rungs
    # fields that forget within a round make a round trip in about 2 + 2.5Λ rounds, that is, in two iterations
    ladder = Ladder(rungs, found.path, found.hottest, replicas, rounds=-(-rungs // 2), clusters=clusters)
    how = "" if len(models) == 1 else f" in the hardest of {len(models)} models"
    return _kernel(ladder, None), f"{rungs} copies; {found}{how}"


def _factory(num_rungs, path, replicas: int) -> Kernel:
    fix = "A single copy has no other to exchange with."
    number = None if num_rungs is None else positive_int("num_rungs", num_rungs, minimum=2, fix=fix)
    if path is not None and path not in PATHS:
        raise ArgumentError("path", "None, 'temperature' or 'interactions'", repr(path), reason="choice")
    ladder = Ladder(replicas=replicas) if number is None else Ladder(number, replicas=replicas)
    return _kernel(ladder, (number, path))


@call_checked
def tempering(num_rungs: int | None = None, *, path: str | None = None) -> Kernel:
    """Parallel tempering with ``num_rungs`` copies of the model at rising temperatures.

    On rung k, the action is β_k S (path ``"temperature"``), or the terms of single sites plus β_k times those of several sites
    (``"interactions"``), where the last rung, β = 0, draws independent sites. A short pilot run before the chains start
    measures the barrier Λ of both paths. It takes the path of lower barrier, ends it where copies forget their start on their
    own, and makes 2.5Λ + 1 rungs. Warm-up then spaces them so that all neighbors reject equally often. An iteration moves and
    exchanges all copies half as many times as there are rungs, so that draws across a large barrier are worth as much as
    those across a small one.

    The statistics ``exchange_rate`` (of every pair), ``inverse_temperature`` (β of every copy) and ``round_trips`` show how it
    went: the number of copies that came back to the coldest rung after they had been on the hottest one. `phi4ppl.diagnose`
    shows and judges them.

    Parameters
    ----------
    num_rungs : int, optional
        At least 2; by default 2.5Λ + 1 of the measured barrier, beyond 8 rounded up to a multiple of 4.
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
    probability 1/(1 + exp(ΔS_C)), ΔS_C = Σ_{i∈C, j∉C} w_ij (a_i − b_i)(a_j − b_j): a heat bath without rejection. If S is
    even, −b takes the place of b where that makes clusters smaller. Chains keep the first replica. Below the percolation of
    such clusters (square and other planar graphs, cold sparse graphs) the move crosses barriers that no single replica
    crosses; where one cluster takes most of the sites (cubic and higher-dimensional lattices, graphs of many neighbors) it
    only renames the replicas: the statistic ``exchanged_share``, the share of sites in the largest cluster on every rung,
    then approaches one half, and `tempering` does the same for half the cost.

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
