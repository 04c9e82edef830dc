"""Corrections by the density of a lift: on patches of blocks, and of whole fields at once."""

from __future__ import annotations

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from ..energy.functions import energy
from ..errors import ArgumentError, OverlapError
from ..errors.streams import stream_key, stream_rng
from ..model.field import MarkovRandomField
from ..results.correction import BATCH_SITES, Corrected, Summary, by_sweeps, measure
from .blocks_of_sites import cubes
from .lifts import Lift

__all__ = ["by_independence", "by_patches"]

ROUNDS = 4
SMALLEST_SHARE = 0.1  # of effective fields that weights have to leave


def by_patches(
    model: MarkovRandomField, lift: Lift, fields: np.ndarray, scale: float, *, rounds: int = ROUNDS, seed: int = 0, **settings
) -> Corrected:  # fmt: skip
    """New details of single blocks from the lift, each accepted or rejected by itself; then sweeps.

    Block means stay as they are. A new detail of a block is accepted with min(1, e^{−ΔS} q(old)/q(new)); blocks of one color do
    not interact, so that rates do not fall with the size of the lattice. The sweeps that follow move the means too.
    """
    if not hasattr(lift, "log_density_of_blocks"):
        fix = "conditional_flow has one. Or take correction='sweeps'."
        raise ArgumentError("lift", "a lift with a density by block", repr(lift.name), fix, reason="density")
    before, move = measure(model, fields), _patch_move(model.structure, lift, scale)
    values, out, rates = jax.tree.map(jnp.asarray, model), [], []
    batch = max(1, BATCH_SITES // model.lattice.num_sites)
    for first in range(0, len(fields), batch):
        part, rate = move(
            values, jnp.asarray(fields[first : first + batch]), stream_key(seed, "patches", first), rounds
        )
        out.append(np.asarray(part))
        rates.append(float(rate))
    found = by_sweeps(model, np.concatenate(out), seed=seed, **settings)
    figures = found.figures | {"patch_acceptance": float(np.mean(rates))}
    return Corrected(found.fields, before, found.after, found.sweeps, found.history, found.converged, figures)


@functools.lru_cache(maxsize=16)
def _patch_move(structure, lift: Lift, scale: float):
    lattice = structure.lattice
    blocks = cubes(lattice, 2)
    shape, coarse = lattice.field_shape, blocks.coarse.field_shape
    color = (np.indices(coarse) % 2).reshape(len(coarse), -1).T @ 2 ** np.arange(len(coarse))
    if any(n % 2 for n in coarse):
        raise ArgumentError("correction", "an even number of blocks along every axis", f"{coarse}", reason="sides")
    corners = list(itertools.product((0, 1), repeat=len(shape)))

    def energies(model, flat, mine):
        """Energy of the cliques that touch a block of one color, by block: of these blocks each clique has one at most."""
        total = jnp.zeros(blocks.coarse.num_sites, flat.dtype)
        for form, theta in model.interactions:
            labels = np.where(mine[blocks.label[form.cliques]], blocks.label[form.cliques], -1).max(axis=1)
            value = theta * form.values(flat)
            total = total.at[np.maximum(labels, 0)].add(jnp.where(labels >= 0, value, 0))
        return total

    def widened(blocks_of_fields):
        for axis in range(1, 1 + len(coarse)):
            blocks_of_fields = jnp.repeat(blocks_of_fields, 2, axis)
        return blocks_of_fields

    def turn(model, fields, key, this):
        mine = color == this
        means = sum(fields[(slice(None), *(slice(k, None, 2) for k in corner))] for corner in corners) / len(corners)
        own, accept = jax.random.split(key)
        proposed = lift(own, scale * means)
        keep = jnp.asarray(mine.reshape(1, *coarse))
        new = jnp.where(widened(keep), proposed, fields)
        change = jax.vmap(lambda n, o: energies(model, n.reshape(-1), mine) - energies(model, o.reshape(-1), mine))(
            new, fields
        )
        weights = [lift.log_density_of_blocks(x, scale * means) for x in (new, fields)]  # type: ignore[attr-defined]
        log_ratio = weights[1] - weights[0] - change.reshape(-1, *coarse)
        taken = keep & (jnp.log1p(-jax.random.uniform(accept, log_ratio.shape)) < log_ratio)
        return jnp.where(widened(taken), new, fields), jnp.sum(taken) / (len(fields) * mine.sum())

    @jax.jit
    def move(model, fields, key, rounds):
        def one_round(number, carry):
            fields, rate = carry
            for this in range(2 ** len(shape)):
                own = jax.random.fold_in(jax.random.fold_in(key, number), this)
                fields, taken = turn(model, fields, own, this)
                rate += taken / (rounds * 2 ** len(shape))
            return fields, rate

        return jax.lax.fori_loop(0, rounds, one_round, (fields, jnp.zeros((), fields.dtype)))

    return move


def by_independence(model, coarse_model, lift: Lift, coarse, proposed: np.ndarray, seed: int) -> Corrected:
    """Weights exp(−S(φ) + S'(φ')) / q(φ | φ') of whole fields, which are then drawn again by these.

    S' is the action that the coarse fields have, and blocks of the lift have to keep it: φ' = s φ̄. Weights fluctuate with the
    number of sites V: ``figures["std_log_weight_per_root_site"]`` is std(log w)/√V.

    Raises
    ------
    OverlapError
        If the weights leave less than a tenth of the fields; the message has ESS/N and std(log w)/√V.
    """
    before, volume = measure(model, proposed), model.lattice.num_sites
    action = jax.jit(jax.vmap(energy, (None, 0)))
    log_q = np.array(lift.log_density(proposed, coarse))  # type: ignore[attr-defined]
    log_w = (
        np.asarray(action(coarse_model, coarse), float)
        - np.asarray(action(model, proposed), float)
        - log_q.astype(float)
    )
    weights = np.exp(log_w - log_w.max())
    share = float(weights.sum() ** 2 / np.sum(weights**2) / len(weights))
    spread = float(np.std(log_w) / math.sqrt(volume))
    figures = {"effective_share": share, "std_log_weight_per_root_site": spread}
    if share < SMALLEST_SHARE:
        message = (
            f"weights of whole fields leave ESS/N = {share:.2g} of {len(weights)} fields; std(log w)/sqrt(V) = {spread:.3f}, "
            f"so that it falls exponentially with V = {volume}. Take correction='sweeps'."
        )
        raise OverlapError("weights", message, figures)
    places = (np.arange(len(weights)) + stream_rng(seed, "resampling").random()) / len(weights)
    rows = np.searchsorted(np.cumsum(weights) / weights.sum(), places)
    after = measure(model, proposed[rows])
    wider = 1 / math.sqrt(share)  # copies are no independent fields
    after = Summary(
        after.values,
        {name: wider * x for name, x in after.errors.items()},
        {name: wider * x for name, x in after.influence.items()},
    )
    return Corrected(proposed[rows], before, after, 0, [(0, before), (0, after)], True, figures)
