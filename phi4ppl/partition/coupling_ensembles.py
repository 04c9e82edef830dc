"""Chains of many ensembles of one family at once: the same terms at different couplings, in one compiled program.

`phi4ppl.sample` runs all chains at the same couplings. Along a path of couplings the fields are often small and the ensembles
many, so here couplings are an axis of the program; what is recorded are the energies of the terms only.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..energy.compiled import compile_field
from ..energy.functions import energy_function
from ..errors import SamplingError
from ..kernels.adaptation import MAPPED_CHAINS, schedule
from ..kernels.choose import resolve
from ..kernels.kernel import Kernel
from ..kernels.symmetry import is_even, sign_flip
from ..kernels.target import field_target
from ..model.field import MarkovRandomField
from ..sampling.program import like
from ..sampling.progress import Progress

__all__ = ["Draws", "Family", "family_of"]

CHUNK = 50  # iterations of one call to the device


class Walkers(NamedTuple):
    state: Any
    adaptation: Any
    tuning: Any


@dataclass(frozen=True)
class Draws:
    """What the chains left.

    Attributes
    ----------
    energies : array, shape (ensembles, chains, draws, terms), float64
        ``measured_t · T_t(φ)`` of every term.
    positions : array, shape (ensembles, chains, *field_shape)
        The last fields.
    tuning : pytree
        What the kernels were built with, leading axes (ensembles, chains).
    """

    energies: np.ndarray
    positions: jax.Array
    tuning: Any


class Family:
    """All models of one lattice and the same terms, as programs that take couplings as arguments.

    Couplings, ``values``, are tuples in the order of the terms; leading axes are ensembles.
    """

    def __init__(self, signature, kernel: Kernel, flip_signs: bool):
        self.signature, self.kernel, self.flip_signs = signature, kernel, flip_signs
        lattice, forms = signature
        parts = [energy_function(lattice, (form,))[1] for form in forms]
        self.energies = lambda measured, phi: jnp.stack([e((m,), phi) for e, m in zip(parts, measured, strict=True)])
        self.begin = jax.jit(jax.vmap(jax.vmap(self._begin, (None, 0)), (0, 0)))
        own, shared = (None, None, 0, 0, None, None, None), (0, None, 0, 0, None, None, None)
        self.advance = jax.jit(jax.vmap(jax.vmap(self._advance, own, axis_name=MAPPED_CHAINS), shared))
        self.finish = jax.jit(jax.vmap(jax.vmap(self._finish)))
        self.anneal = jax.jit(jax.vmap(self._anneal, (0, 0, None, None, None)))

    def _begin(self, values, position) -> Walkers:
        target = field_target(self.signature, values)
        adaptation = self.kernel.adaptation.begin(target, position)
        tuning = self.kernel.adaptation.tuning(adaptation)
        return jax.tree.map(jnp.asarray, Walkers(self.kernel.build(target, tuning).init(position), adaptation, tuning))

    def step(self, values, tuning, key, state):
        """One iteration of the kernel, with a change of sign where the model is even and the kernel makes none."""
        target = field_target(self.signature, values)
        step_key, flip_key = jax.random.split(key)
        state, info = self.kernel.build(target, tuning).step(step_key, state)
        if self.flip_signs and not self.kernel.changes_signs:
            state, _ = sign_flip(target, flip_key, state, jnp.asarray(True))
        return state, info

    def init(self, values, tuning, position):
        """The state of a chain at a position."""
        return self.kernel.build(field_target(self.signature, values), tuning).init(position)

    def _advance(self, values, measured, walkers: Walkers, key, first, plan, warming):
        """``CHUNK`` iterations from number ``first``; while ``warming`` each adapts the chain as ``plan`` says."""
        adaptation = self.kernel.adaptation

        def adapt(walkers, statistics, stage):
            target = field_target(self.signature, values)
            new = adaptation.update(target, walkers.adaptation, *stage, walkers.state, statistics)
            return walkers._replace(adaptation=new, tuning=like(adaptation.tuning(new), walkers.tuning))

        def body(walkers, k):
            state, info = self.step(values, walkers.tuning, jax.random.fold_in(key, first + k), walkers.state)
            walkers = walkers._replace(state=state)
            statistics = self.kernel.statistics(info)
            walkers = jax.lax.cond(warming, lambda w: adapt(w, statistics, plan[k]), lambda w: w, walkers)
            return walkers, self.energies(measured, state.position)

        return jax.lax.scan(body, walkers, jnp.arange(CHUNK))

    def _anneal(self, position, key, values, measured, tuning):
        """One iteration at each of the couplings ``values`` in turn; returns the field and the energies before each of them."""

        def body(position, inputs):
            k, values, tuning = inputs
            energies = self.energies(measured, position)
            state = self.init(values, tuning, position)
            state, _ = self.step(values, tuning, jax.random.fold_in(key, k), state)
            return state.position, energies

        return jax.lax.scan(body, position, (jnp.arange(len(values[0])), values, tuning))

    def _finish(self, walkers: Walkers) -> Walkers:
        return walkers._replace(tuning=like(self.kernel.adaptation.final(walkers.adaptation), walkers.tuning))

    def sample(
        self, values, measured, positions, *, num_warmup: int, num_samples: int, key, progress: Progress | None = None
    ) -> Draws:
        """Warm up and draw from every ensemble; numbers of iterations are rounded up to whole chunks.

        ``values`` have a leading axis of ensembles, ``positions`` the axes (ensembles, chains).
        """
        measured = tuple(jnp.asarray(m, positions.dtype) for m in measured)
        shape = positions.shape[:2]
        walkers, energies, first = self.begin(values, positions), [], 0
        for warming, number in ((True, num_warmup), (False, num_samples)):
            chunks = -(-number // CHUNK)
            plan = jnp.asarray(schedule(chunks * CHUNK)) if warming else jnp.zeros((chunks * CHUNK, 2), int)
            keys = jax.random.split(jax.random.fold_in(key, int(warming)), shape)
            for k in range(chunks):
                part = plan[k * CHUNK : (k + 1) * CHUNK]
                walkers, new = self.advance(values, measured, walkers, keys, first, part, warming)
                if not warming:
                    energies.append(np.asarray(new, float))
                if not np.all(np.isfinite(np.asarray(walkers.state.logdensity))):
                    raise SamplingError(
                        "a chain has come to a field whose action is not finite while log Z was computed. "
                        "S may be unbounded below: see model.check()."
                    )
                if progress is not None:
                    progress.advance(CHUNK, "warm-up" if warming else "sampling", None, None)
                first += CHUNK
            if warming:
                walkers, first = self.finish(walkers), 0
        return Draws(np.concatenate(energies, axis=2), walkers.state.position, walkers.tuning)


def family_of(model: MarkovRandomField) -> Family:
    """The family of a model with the kernel that suits it; those of built-in terms are compiled once for all couplings."""
    compiled = compile_field(model)
    kernel, _ = resolve("auto", compiled)
    make = _cached if all(form.built_in for form in model._forms) else Family
    return make(compiled.signature, kernel, is_even(compiled))


@functools.lru_cache(maxsize=16)
def _cached(signature, kernel: Kernel, flip_signs: bool) -> Family:
    return Family(signature, kernel, flip_signs)
