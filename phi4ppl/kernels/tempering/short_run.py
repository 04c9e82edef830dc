"""A kernel from warm-up to draws inside one compiled function, for runs so short that no loop of chunks is worth while."""

from __future__ import annotations

from collections.abc import Callable

import jax

from ..kernel import Kernel
from ..target import Target

__all__ = ["short_run"]


def short_run(kernel: Kernel, target: Target, key, position, plan, num_draws: int, record: Callable):
    """Warm up one chain and draw from it.

    Parameters
    ----------
    plan : array, shape (num_warmup, 2)
        Of `phi4ppl.kernels.adaptation.schedule`.
    record : callable
        ``record(state, info)``: what is kept of a draw.

    Returns
    -------
    tuning, records
        What warm-up found, and the records of all draws.
    """
    adaptation = kernel.adaptation.begin(target, position)
    state = kernel.build(target, kernel.adaptation.tuning(adaptation)).init(position)

    def warm(carry, inputs):
        (state, adaptation), (key, (stage, end)) = carry, inputs
        state, info = kernel.build(target, kernel.adaptation.tuning(adaptation)).step(key, state)
        adaptation = kernel.adaptation.update(target, adaptation, stage, end, state, kernel.statistics(info))
        return (state, adaptation), None

    def draw(state, key):
        state, info = algorithm.step(key, state)
        return state, record(state, info)

    warm_key, draw_key = jax.random.split(key)
    inputs = jax.random.split(warm_key, len(plan)), (plan[:, 0], plan[:, 1])
    (state, adaptation), _ = jax.lax.scan(warm, (state, adaptation), inputs)
    tuning = kernel.adaptation.final(adaptation)
    algorithm = kernel.build(target, tuning)
    return tuning, jax.lax.scan(draw, state, jax.random.split(draw_key, num_draws))[1]
