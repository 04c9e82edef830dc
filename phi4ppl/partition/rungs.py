"""log Z from the rungs of parallel tempering, from independent sites to the model."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ..energy.compiled import compile_field
from ..energy.functions import energy
from ..errors import ArgumentError
from ..errors.streams import stream_key, stream_rng
from ..kernels.adaptation import MAPPED_CHAINS, schedule
from ..kernels.kernel import Kernel
from ..kernels.target import target_of
from ..kernels.tempering import tempering
from ..kernels.tempering.short_run import short_run
from ..model.field import Structure
from .coupling_path import REFERENCE, Path
from .partition_estimate import PartitionEstimate
from .pool import Pool

__all__ = ["climb"]

FEWEST_TRIPS = 10


def climb(
    path: Path, *, num_warmup: int, num_samples: int, num_chains: int, seed: int, progress: bool | None
) -> PartitionEstimate:
    """log Z by multistate reweighting (MBAR) of all rungs of `phi4ppl.sampling.tempering` along the path of interactions.

    The rungs are ensembles at λ_k between independent sites (λ = 0) and the model (λ = 1). Copies that exchange are not
    independent of each other, which the error of MBAR does not know; the error is the larger one of that and of the spread of
    chains.

    Raises
    ------
    ArgumentError
        If the single sites of the model are not normalizable alone.
    """
    if any(form.name == REFERENCE for form in path.model.forms):
        got = "a model whose single sites are not normalizable alone"
        raise ArgumentError(
            "method", "'integration', 'ais' or 'population'", f"'tempering' for {got}", reason="unsuited"
        )
    kernel, how = tempering(path="interactions").fit(compile_field(path.model))
    start = path.draw(stream_rng(seed, "rungs"), (num_chains,))
    cast = functools.partial(jax.tree.map, lambda v: jnp.asarray(v, start.dtype))
    keys, plan = jax.random.split(stream_key(seed, "rungs"), num_chains), jnp.asarray(schedule(num_warmup))
    make = _program if path.model.structure.is_built_in else _program.__wrapped__
    run = make(path.model.structure, kernel, num_samples)
    beta, tempered, trips = (np.asarray(x, float) for x in run(cast(path.model), cast(path.change), keys, start, plan))
    ladder = beta[0][::-1]
    statistics = np.moveaxis(tempered, 2, 0)[::-1, :, :, None]  # (rung, chain, draw, 1), from λ = 0 up
    pool, top = Pool(ladder[:, None], statistics), np.ones((1, 1))
    each = [Pool(ladder[:, None], statistics[:, [k]]).log_partition(top)[0] for k in range(num_chains)]
    spread = np.std(each, ddof=1) / np.sqrt(num_chains)
    value, error = float(pool.log_partition(top)[0]), float(max(pool.error([1.0]), spread))
    fewest = int(trips.sum(axis=1).min())
    warnings = list(pool.complaints)
    if fewest < FEWEST_TRIPS:
        warnings.append(f"only {fewest} copies made a round trip in one of the chains. Increase num_samples.")
    how = f"{num_chains} chains × {num_samples} draws; {how}; at least {fewest} round trips per chain"
    z_0 = path.sites
    return PartitionEstimate(z_0.log_partition + value, error + z_0.error, "tempering", how, warnings=tuple(warnings))


@functools.lru_cache(maxsize=8)
def _program(structure: Structure, kernel: Kernel, num_samples: int):
    """``(model, change, keys, start, plan)``: λ of all rungs, dS/dλ on them at every draw, and round trips, by chain."""

    def run(model, change, keys, start, plan):
        target = target_of(model)

        def record(state, info):
            slope = jax.vmap(lambda phi: energy(change, phi))(state.copies[:, 0])
            return slope, info.round_trips

        def chain(key, position):
            tuning, records = short_run(kernel, target, key, position, plan, num_samples, record)
            return tuning.inverse_temperature, *records

        return jax.vmap(chain, axis_name=MAPPED_CHAINS)(keys, start)

    return jax.jit(run)
