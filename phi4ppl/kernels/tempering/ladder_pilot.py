"""A short run before the chains of a tempering kernel: which path, how hot, and how many rungs.

Independent chains run at many β along both paths, without exchanges. In equilibrium neighbors at distance dβ reject a share
½ E|V − V′| dβ of their exchanges, V and V′ of two independent draws (M. Predescu, C. Predescu and C. V. Ciobanu, J. Chem.
Phys. 120 (2004) 4119): its integral is the barrier Λ.

Cold chains are not in equilibrium: each one is stuck where it was quenched, and V differs between them by more than it should.
So draws of the same chain are compared. That misses a jump of V from one phase to another, whose share in Λ is at most one:
the integral of p (1 − p) ΔV over β, where the probability p of a phase is logistic in β ΔV.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ...energy.compiled import CompiledModel
from ...energy.exact.independent_sites import IndependentSites
from ...errors import ArgumentError
from ..adaptation import schedule
from ..symmetry import is_even
from ..target import Target, target_of
from .copies import lone_kernel
from .ladder import PATHS, scaled, tempered_change
from .short_run import short_run

__all__ = ["Pilot", "pilot_of"]

CHAINS, NUM_WARMUP, NUM_DRAWS = 8, 150, 100
BETAS = {"temperature": np.geomspace(1, 0.01, 17), "interactions": np.linspace(1, 0, 17)}
# Variance of the means of chains over that of draws: about 10 autocorrelation times per chain. With a ladder that ends at
# β = 0.42 instead of 0.32 or below, the hardest of ten spin glasses makes a third as many independent draws.
MIXED = 0.2
MOST_WATCHED = 0.9  # quantile of that share: domains of a few sites are what gets stuck
MILDEST = 0.5  # the hottest β of a model that mixes by itself
FEWEST, MOST = 3, 96  # rungs
PER_BARRIER = 2.5  # rungs: from 2 to 5 of them make equally many round trips for their cost
JUMP = 1.0  # of Λ at a transition of first order


class Pilot(NamedTuple):
    """What a ladder is to be."""

    path: str
    hottest: float
    barrier: float
    mixes: bool

    @property
    def num_rungs(self) -> int:
        rungs = np.ceil(PER_BARRIER * self.barrier) + 1
        if rungs > 8:
            rungs = 4 * np.ceil(rungs / 4)  # realizations of one disorder then share compiled programs
        return int(np.clip(rungs, FEWEST, MOST))

    def __str__(self) -> str:
        ends = "independent sites" if self.path == "interactions" else f"inverse temperature {self.hottest:.2g}"
        doubt = "" if self.mixes else ", where copies still do not mix by themselves"
        return f"the barrier from 1 to {ends} is Λ = {self.barrier:.1f}{doubt}"


def pilot_of(models: Sequence[CompiledModel], path: str | None, clusters: bool = True) -> Pilot:
    """Run the pilot of models of one structure, with or without clusters in the moves of single copies.

    Of several models, the hottest rung is that of the one that mixes worst, and the barrier is the largest one.

    Raises
    ------
    ArgumentError
        If the path ``"interactions"`` is asked for, and single sites are not normalizable alone.
    """
    free = all(each.model is not None and IndependentSites.of(each.model) is not None for each in models)
    if path == "interactions" and not free:
        field = models[0].model is not None
        got = "a model whose single sites are not normalizable alone" if field else "a NumPyro model"
        raise ArgumentError("path", "'temperature'", f"'interactions' for {got}", reason="unsuited")
    paths = [each for each in PATHS if path in (None, each) and (free or each == "temperature")]
    measured = [_measured(each, paths, clusters) for each in models]
    found = [_of_path(each, [of_model[each] for of_model in measured]) for each in paths]
    return min(found, key=lambda pilot: (not pilot.mixes, pilot.barrier))


def _of_path(path: str, measured: list) -> Pilot:
    """What one path calls for, from V and the spread of the means of chains of every model."""
    beta = BETAS[path]
    barrier = np.max([_barrier(tempered, beta) for tempered, _ in measured], axis=0)
    if path == "interactions":
        return Pilot(path, 0.0, float(barrier[-1]), True)
    mixed = np.all([spread < MIXED for _, spread in measured], axis=0)
    hot = np.flatnonzero(np.minimum.accumulate(mixed[::-1])[::-1])
    k = max(int(hot[0]) if len(hot) else len(beta) - 1, int(np.argmax(beta <= MILDEST)))
    return Pilot(path, float(beta[k]), float(barrier[k]), bool(len(hot)))


def _measured(compiled: CompiledModel, paths: list[str], clusters: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """V of draws at every β of every path, shape (β, chains, draws), and the spread of the means of chains.

    One program for all paths: it takes long to compile.
    """
    beta = np.concatenate([BETAS[each] for each in paths])
    own = np.concatenate([np.ones(len(BETAS[each])) if each == "interactions" else BETAS[each] for each in paths])
    start = jax.vmap(compiled.initial_position)(jax.random.split(jax.random.key(17), len(beta) * CHAINS))
    start = jax.tree.map(lambda x: x.reshape(len(beta), CHAINS, *x.shape[1:]), start)
    dtype, plan = jnp.result_type(float), jnp.asarray(schedule(NUM_WARMUP))
    inputs = jnp.asarray(own, dtype), jnp.asarray(beta, dtype), start, plan
    if compiled.model is None:
        *tempered, spread = jax.jit(functools.partial(_run, _Kind(), target_of(compiled)))(*inputs)
    else:
        run = _program(compiled.model.structure, _Kind(clusters, is_even(compiled)))
        *tempered, spread = run(jax.tree.map(jnp.asarray, compiled.model), *inputs)
    parts = np.split(np.arange(len(beta)), np.cumsum([len(BETAS[each]) for each in paths])[:-1])
    return {
        each: (np.asarray(tempered[PATHS.index(each)][part], float), np.asarray(spread[part]))
        for each, part in zip(paths, parts, strict=True)
    }


def _barrier(tempered: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Λ from the first β to each, from V of draws, shape (β, chains, draws)."""
    within = np.mean([_rejections(tempered[:, k], beta) for k in range(tempered.shape[1])], axis=0)
    between = _rejections(tempered.reshape(len(beta), -1), beta) - within
    return np.append(0, np.cumsum(within) + np.clip(np.cumsum(between), 0, JUMP))


def _between(values):
    """Variance of the means of chains over that of all draws, of every column of ``values[chain, draw]``."""
    return jnp.var(values.mean(axis=1), axis=0) / jnp.maximum(jnp.var(values, axis=(0, 1)), 1e-30)


def _rejections(tempered: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Of every interval between two neighboring β, from V of draws, shape (β, draws)."""
    ordered, number = np.sort(tempered, axis=1), tempered.shape[1]
    rank = 2 * np.arange(number) - number + 1
    half_gini = ordered @ rank / number**2  # ½ E|V − V′|
    return (half_gini[1:] + half_gini[:-1]) / 2 * np.abs(np.diff(beta))


class _Kind(NamedTuple):
    """Whether clusters flip, and whether S(−φ) = S(φ): signs of all sites may then change together, and are not looked at."""

    clusters: bool = False
    is_even: bool = False


@functools.lru_cache(maxsize=16)
def _program(structure, kind: _Kind):
    return jax.jit(lambda model, *rest: _run(kind, target_of(model), *rest))


def _run(kind: _Kind, target: Target, own, beta, start, plan):
    """V along every path of the draws at every rung, shape (rungs, chains, draws), and the spread of the means of chains.

    ``own``, ``beta``: the factors of the terms of single sites, and of the others, on every rung.
    """
    kernel = lone_kernel(target, kind.clusters)
    changes = [tempered_change(target, path) for path in (PATHS if target.model is not None else PATHS[:1])]
    size = sum(leaf[0, 0].size for leaf in jax.tree.leaves(start))
    pairs = np.random.default_rng(0).permutation(size)

    def chain(key, own, beta, position):
        def record(state, info):
            return *(change(state.position, position) for change in changes), ravel_pytree(state.position)[0]

        return short_run(kernel, scaled(target, own, beta), key, position, plan, NUM_DRAWS, record)[1]

    def rung(key, own, beta, starts):
        *tempered, flat = jax.vmap(chain, (0, None, None, 0))(jax.random.split(key, CHAINS), own, beta, starts)
        reference = jax.tree.map(lambda x: x[0], starts)
        offsets = [jax.vmap(lambda x: change(x, reference))(starts) for change in changes]  # noqa: B023
        shares = _between(flat * flat[..., pairs])
        if not kind.is_even:
            shares = jnp.concatenate([shares, _between(flat)])
        tempered = [values + offset[:, None] for values, offset in zip(tempered, offsets, strict=True)]
        return *tempered, jnp.quantile(shares, MOST_WATCHED)

    return jax.vmap(rung)(jax.random.split(jax.random.key(18), len(beta)), own, beta, start)
