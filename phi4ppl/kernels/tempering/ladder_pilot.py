"""A short run before the chains of a tempering kernel: which path, how hot, and how many rungs.

Independent chains run at many β along both paths, without exchanges. In equilibrium neighbors at distance dβ reject a share
½ E|V − V′| dβ of their exchanges, V and V′ of two independent draws (M. Predescu, C. Predescu and C. V. Ciobanu, J. Chem.
Phys. 120 (2004) 4119): its integral is the barrier Λ.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ...energy.compiled import CompiledModel
from ...energy.exact.independent_sites import IndependentSites
from ...errors import ArgumentError
from ..adaptation import schedule
from ..target import Target, target_of
from .copies import inner_kernel
from .ladder import at, tempered_change
from .short_run import short_run

__all__ = ["Pilot", "pilot_of"]

CHAINS, NUM_WARMUP, NUM_DRAWS = 8, 150, 100
TEMPERATURES = np.geomspace(1, 0.01, 17)
INTERACTIONS = np.linspace(1, 0, 17)
MIXED = 0.25  # variance of the means of chains over that of draws: about 8 autocorrelation times per chain
MOST_WATCHED = 0.9  # quantile of that share: domains of a few sites are what gets stuck
MILDEST = 0.5  # the hottest β of a model that mixes by itself
FEWEST, MOST = 3, 96  # rungs


class Pilot(NamedTuple):
    """What a ladder is to be."""

    path: str
    hottest: float
    barrier: float
    mixes: bool

    @property
    def num_rungs(self) -> int:
        rungs = np.ceil(3 * self.barrier) + 1
        if rungs > 8:
            rungs = 4 * np.ceil(rungs / 4)  # realizations of one disorder then share compiled programs
        return int(np.clip(rungs, FEWEST, MOST))

    def __str__(self) -> str:
        ends = "independent sites" if self.path == "interactions" else f"inverse temperature {self.hottest:.2g}"
        doubt = "" if self.mixes else ", where copies still do not mix by themselves"
        return f"the barrier from 1 to {ends} is Λ = {self.barrier:.1f}{doubt}"


def pilot_of(compiled: CompiledModel, path: str | None) -> Pilot:
    """Run the pilot of a model.

    Raises
    ------
    ArgumentError
        If the path ``"interactions"`` is asked for, and single sites are not normalizable alone.
    """
    model = compiled.model
    free = model is not None and IndependentSites.of(model) is not None
    if path == "interactions" and not free:
        got = "a model whose single sites are not normalizable alone" if model is not None else "a NumPyro model"
        raise ArgumentError("path", "'temperature'", f"'interactions' for {got}", reason="unsuited")
    asked = path
    found = []
    if asked != "interactions":
        barrier, mixed = _measured(compiled, "temperature", TEMPERATURES)
        hot = np.flatnonzero(np.minimum.accumulate(mixed[::-1])[::-1])
        k = max(int(hot[0]) if len(hot) else len(TEMPERATURES) - 1, int(np.argmax(TEMPERATURES <= MILDEST)))
        found.append(Pilot("temperature", float(TEMPERATURES[k]), float(barrier[k]), bool(len(hot))))
    if free and asked != "temperature":
        barrier, _ = _measured(compiled, "interactions", INTERACTIONS)
        found.append(Pilot("interactions", 0.0, float(barrier[-1]), True))
    return min(found, key=lambda pilot: (not pilot.mixes, pilot.barrier))


def _measured(compiled: CompiledModel, path: str, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Λ from 1 to every β, and whether chains mix there."""
    plan = jnp.asarray(schedule(NUM_WARMUP))
    start = jax.vmap(compiled.initial_position)(jax.random.split(jax.random.key(17), len(beta) * CHAINS))
    start = jax.tree.map(lambda x: x.reshape(len(beta), CHAINS, *x.shape[1:]), start)
    if compiled.model is not None:
        run = _program(compiled.model.structure, path)
        tempered, spread = run(jax.tree.map(jnp.asarray, compiled.model), jnp.asarray(beta, start.dtype), start, plan)
    else:
        dtype = jnp.result_type(float)
        run = jax.jit(functools.partial(_run, target_of(compiled), path))
        tempered, spread = run(jnp.asarray(beta, dtype), start, plan)
    return np.append(0, np.cumsum(_rejections(np.asarray(tempered, float), beta))), np.asarray(spread) < MIXED


def _between(values):
    """Variance of the means of chains over that of all draws, of every column of ``values[chain, draw]``."""
    return jnp.var(values.mean(axis=1), axis=0) / jnp.maximum(jnp.var(values, axis=(0, 1)), 1e-30)


def _rejections(tempered: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Of every interval between two neighboring β, from V of draws, shape (β, draws)."""
    ordered, number = np.sort(tempered, axis=1), tempered.shape[1]
    rank = 2 * np.arange(number) - number + 1
    half_gini = ordered @ rank / number**2  # ½ E|V − V′|
    return (half_gini[1:] + half_gini[:-1]) / 2 * np.abs(np.diff(beta))


@functools.lru_cache(maxsize=16)
def _program(structure, path: str):
    return jax.jit(lambda model, *rest: _run(target_of(model), path, *rest))


def _run(target: Target, path: str, beta, start, plan):
    """V of the draws at every β, shape (β, draws of all chains), and the spread of the means of chains."""
    kernel, change = inner_kernel(target), tempered_change(target, path)
    size = sum(leaf[0, 0].size for leaf in jax.tree.leaves(start))
    pairs = np.random.default_rng(0).permutation(
        size
    )  # products of two: signs of all may change together, domains do not

    def chain(key, beta, position):
        def record(state, info):
            return change(state.position, position), ravel_pytree(state.position)[0]

        return short_run(kernel, at(target, beta, path), key, position, plan, NUM_DRAWS, record)[1]

    def rung(key, beta, starts):
        tempered, flat = jax.vmap(chain, (0, None, 0))(jax.random.split(key, CHAINS), beta, starts)
        reference = jax.tree.map(lambda x: x[0], starts)
        offset = jax.vmap(lambda x: change(x, reference))(starts)
        shares = jnp.concatenate([_between(flat), _between(flat * flat[..., pairs])])
        return (tempered + offset[:, None]).reshape(-1), jnp.quantile(shares, MOST_WATCHED)

    return jax.vmap(rung)(jax.random.split(jax.random.key(18), len(beta)), beta, start)
