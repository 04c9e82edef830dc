"""A field on a layer of a machine with binary units: no lattice field, so block Gibbs chains sample it and drive it."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import positive_int
from ..errors.streams import stream_key
from ..model.pytree import replaced
from ..networks.block_gibbs import draws_of, sweep
from ..networks.machine import RestrictedBoltzmannMachine

__all__ = ["MachineSource", "driven_magnetizations", "gibbs_fields", "require_gibbs"]


class MachineSource(NamedTuple):
    """A machine with an external field on the units of one layer; a field is ``concatenate([v, h])``.

    Attributes
    ----------
    machine : RestrictedBoltzmannMachine
    pattern : array, shape ``(num_units,)``
        ξ over the units of both layers, 0 on the layer that does not feel the field.
    num_visible : int
    """

    machine: RestrictedBoltzmannMachine
    pattern: np.ndarray
    num_visible: int

    @property
    def volume(self) -> int:
        """Units that feel the field."""
        return int(np.count_nonzero(self.pattern))

    def at(self, field) -> RestrictedBoltzmannMachine:
        """The machine at a field h, which may be traced: S contains −h ξ_i of each unit i."""
        shift = -field * jnp.asarray(self.pattern, self.machine.weights.dtype)
        below, above = shift[: self.num_visible], shift[self.num_visible :]
        visible, hidden = self.machine.visible, self.machine.hidden
        return replaced(
            self.machine, visible=replaced(visible, linear=visible.linear + below),
            hidden=replaced(hidden, linear=hidden.linear + above),
        )  # fmt: skip


def require_gibbs(kernel, couplings: dict | None = None) -> None:
    """Reject a kernel, and realisations of couplings."""
    if kernel not in (None, "auto"):
        fix = "A machine of binary units is sampled by block Gibbs, which has no choice of kernel."
        raise ArgumentError("kernel", "'auto'", repr(kernel), fix, reason="binary")
    if couplings:
        fix = "Drive one machine after the other."
        raise ArgumentError(
            "couplings", "None for a machine of binary units", type(couplings).__name__, fix, reason="binary"
        )


def gibbs_fields(
    source: MachineSource, fields, *, num_samples, num_warmup, num_chains, kernel, seed: int
) -> np.ndarray:
    """Draws at the fields h, shape ``(len(fields), chain, draw, unit)``, all in one program."""
    require_gibbs(kernel)
    num_warmup = positive_int("num_warmup", num_warmup, minimum=20)
    num_samples, num_chains = (
        positive_int("num_samples", num_samples, minimum=10),
        positive_int("num_chains", num_chains),
    )
    machines = jax.vmap(source.at)(jnp.asarray(np.asarray(fields, float), source.machine.weights.dtype))
    layers = draws_of(machines, stream_key(seed, "response"), num_chains, num_warmup, num_samples)
    return np.concatenate([np.asarray(layer) for layer in layers], axis=-1)


def driven_magnetizations(
    source: MachineSource, fields: np.ndarray, iterations: int, key: jax.Array, *, num_replicas: int, num_warmup: int
) -> np.ndarray:
    """m of every replica after ``iterations`` sweeps at each field in turn, shape ``(1, num_replicas, len(fields))``."""
    machines = jax.vmap(source.at)(jnp.asarray(fields, source.machine.weights.dtype))
    pattern = jnp.asarray(source.pattern, source.machine.weights.dtype) / source.volume
    found = _driven(machines, pattern, key, num_replicas, num_warmup, iterations)
    return np.asarray(found, float).T[None]


@functools.partial(jax.jit, static_argnames=("num_replicas", "num_warmup", "iterations"))
def _driven(machines, pattern, key, num_replicas: int, num_warmup: int, iterations: int):
    def visit(h, point):
        machine, number = point

        def one(step, state):
            return sweep(machine, jax.random.fold_in(jax.random.fold_in(key, number), step), state[1])

        empty = jnp.zeros((num_replicas, machine.visible.size), h.dtype)
        v, h = jax.lax.fori_loop(0, iterations, one, (empty, h))
        return h, jnp.concatenate([v, h], axis=-1) @ pattern

    begin, warm, key = jax.random.split(key, 3)
    first = jax.tree.map(lambda leaf: leaf[0], machines)
    start = first.hidden.draw(begin, jnp.zeros((num_replicas, first.hidden.size), pattern.dtype))
    h = jax.lax.fori_loop(0, num_warmup, lambda step, h: sweep(first, jax.random.fold_in(warm, step), h)[1], start)
    return jax.lax.scan(visit, h, (machines, jnp.arange(len(machines.weights))))[1]
