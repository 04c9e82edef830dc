"""Chains that persist while the couplings change, for one model or for many of one structure at once.

`phi4ppl.sample` runs to an end, with checkpoints and streamed statistics. Whatever else needs draws of fields (fits, log Z,
pools, predictions) asks an `Engine`, which moves its chains from one set of couplings to the next in the same compiled loop.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..energy.compiled import CompiledModel, compile_field
from ..errors import ArgumentError
from ..kernels.adaptation import schedule
from ..kernels.choose import resolve
from ..kernels.kernel import Kernel
from ..kernels.symmetry import flipped, is_even
from ..model.field import MarkovRandomField
from .memory import record_bytes
from .program import PLAN_LENGTH, lean_program, like, require_finite
from .progress import Progress

__all__ = ["Draws", "Engine"]

BUFFER_BYTES = 64_000_000
MAX_ITERATIONS = 500  # in one call of the compiled program
MIN_BURN_IN = 20  # iterations after the couplings have changed
BURN_IN_SHARE = 0.1  # of the iterations that follow
UNBOUNDED = "The action is not finite everywhere: see model.check()."


class Draws(NamedTuple):
    """The draws of an engine; axes ``(members, chains, draws)``, without the first for a single model.

    ``fields`` have the shape of the field behind these axes, ``observables``, by name, that of what they measure.
    """

    fields: np.ndarray | None
    observables: dict[str, np.ndarray]


class Engine:
    """Chains of one kernel; new couplings do not compile it again.

    A sign-flip move with its own accept step is mixed in where the model is even, but not during warm-up: masses are to
    learn the spread within a phase, not between phases.

    Parameters
    ----------
    model : MarkovRandomField
        Its structure is that of all models to come.
    kernel : str or Kernel
    num_chains : int
        Per member.
    key : JAX random key
    start : array, optional
        Fields to start from, shape ``([num_members,] num_chains, *field_shape)``; by default random ones of both signs.
    num_members : int, optional
        Models at once: their couplings then have a leading axis of this length. By default one model, without that axis.
    keep_field : bool
        Whether fields are among what is drawn.
    observables : tuple of (str, callable)
        Names, and functions ``f(model, phi)`` of one field and a model of the same structure, such as `term_energies`. The
        same functions are the same program.

    Attributes
    ----------
    tuning : pytree
        The tuning of the kernels; leading axes as those of the chains.
    """

    def __init__(
        self, model: MarkovRandomField, *, kernel: str | Kernel = "auto", num_chains: int, key, start=None,
        num_members: int | None = None, keep_field: bool = True, observables: tuple = (),
    ):  # fmt: skip
        compiled = compile_field(_first(model, num_members))
        self.structure, self.num_chains, self.num_members = model.structure, num_chains, num_members
        self.kernel, self.kernel_reason = resolve(kernel, compiled, tempered=False)
        self._key, self._calls = key, 0
        surely_even = all(form.built_in and form.built_in.is_even for form in model.forms)
        flip_signs = surely_even or is_even(compiled) or num_members is None  # other couplings may be even
        make = lean_program if model.structure.is_built_in else lean_program.__wrapped__
        self._program = make(model.structure, self.kernel, flip_signs, surely_even, keep_field, observables)
        self._leading = (num_chains,) if num_members is None else (num_members, num_chains)
        start = self._random_start(compiled) if start is None else jnp.asarray(start, jnp.result_type(float))
        if start.shape != (*self._leading, *model.field_shape):
            raise ArgumentError(
                "start", f"shape {(*self._leading, *model.field_shape)}", f"shape {start.shape}", reason="shape"
            )
        self._at: list[bytes] | None = None
        self._plan = jnp.zeros((PLAN_LENGTH, 2), int)
        self._chains = self._begin(self._pair(model), start)
        self._buffer = self._room(self._pair(model))

    @property
    def fields(self) -> np.ndarray:
        """Where the chains are."""
        return np.asarray(self._chains.state.position)

    @property
    def acceptance(self) -> np.ndarray:
        """Of the last iteration, by chain and site, of kernels that accept or reject every site by itself."""
        return np.asarray(self._chains.state.acceptance)

    @property
    def tuning(self) -> Any:
        return self._chains.tuning

    def use(self, tuning: Any) -> None:
        """Take over a tuning found elsewhere, in place of a warm-up; numbers stand for all chains and sites."""
        spread = jax.tree.map(lambda new, old: jnp.broadcast_to(new, old.shape), tuning, self._chains.tuning)
        self._chains = self._chains._replace(tuning=like(spread, self._chains.tuning))

    def warm_up(self, model: MarkovRandomField, num_iterations: int, *, progress: Progress | None = None) -> None:
        """Move the chains to the model's equilibrium and adapt the kernel to it, from where they are."""
        pair = self._pair(model)
        self._chains = self._begin(pair, self._chains.state.position)
        self._plan = jnp.asarray(np.pad(schedule(num_iterations), ((0, -num_iterations % PLAN_LENGTH), (0, 0))))
        self._run(pair, num_iterations, 1, True, progress)
        final = self._program.final if self.num_members is None else self._program.many_final
        self._chains = self._chains._replace(tuning=like(final(self._chains.adaptation), self._chains.tuning))
        self._at = _numbers(model)

    def draw(
        self, model: MarkovRandomField, num_draws: int, thinning: int = 1, *, measured: MarkovRandomField | None = None,
        burn_in: bool = True, progress: Progress | None = None,
    ) -> Draws:  # fmt: skip
        """The next draws of every chain, ``thinning`` iterations apart.

        Where the couplings are not those of the last call, the chains first forget these for a tenth as many iterations as
        follow, and at least 20, unless ``burn_in`` is false.

        Parameters
        ----------
        measured : MarkovRandomField, optional
            The model that observables are functions of, the same for all members; by default the one that is sampled.

        Raises
        ------
        SamplingError
            If a chain runs into a field where the action is not finite.
        """
        pair, numbers = self._pair(model, measured), _numbers(model)
        if numbers != self._at:  # densities at the new couplings; else a kernel's state may be more than the field
            fresh = self._begin(pair, self._chains.state.position)
            self._chains = fresh._replace(adaptation=self._chains.adaptation, tuning=self._chains.tuning)
        if burn_in and self._at is not None and numbers != self._at:
            self._run(pair, max(MIN_BURN_IN, int(BURN_IN_SHARE * num_draws * thinning)), 1, False, None)
        self._at = numbers
        parts = self._run(pair, num_draws, thinning, False, progress)
        drawn = jax.tree.map(lambda *part: np.concatenate(part, axis=len(self._leading)), *parts)
        return Draws(drawn.values.get("phi"), drawn.observables)

    def _pair(self, model: MarkovRandomField, measured: MarkovRandomField | None = None):
        """The arguments of the program: the model that is sampled and the one that is measured."""
        if model.structure != self.structure:
            raise ArgumentError("model", "the terms that the chains were made for", repr(model), reason="mismatch")
        dtype = jnp.result_type(float)
        if measured is None:
            measured = model
        elif self.num_members is not None:
            measured = jax.tree.map(lambda v: jnp.broadcast_to(v, (self.num_members, *jnp.shape(v))), measured)
        return jax.tree.map(lambda value: jnp.asarray(value, dtype), (model, measured))

    def _begin(self, pair, position):
        return (self._program.begin if self.num_members is None else self._program.many_begin)(pair, position)

    def _next_key(self):
        self._calls += 1
        return jax.random.fold_in(self._key, self._calls)

    def _random_start(self, compiled: CompiledModel):
        """Random fields, of opposite signs in neighboring chains."""
        start = compiled.initial_position(jax.random.split(self._next_key(), int(np.prod(self._leading))))
        start = start.reshape(*self._leading, *start.shape[1:])
        positive = jnp.arange(self.num_chains).reshape(-1, *[1] * len(compiled.model.field_shape)) % 2 == 0
        return jnp.where(positive, start, flipped(start, None))

    def _room(self, pair):
        """An empty buffer; the shapes of a record are found once for chains of one kind."""
        depth = len(self._leading)
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[depth:], x.dtype), self._chains)
        model = pair if self.num_members is None else jax.tree.map(lambda v: v[0], pair)
        kind = jax.tree.structure(one), tuple((leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves((one, model)))
        if kind not in self._program.records:
            self._program.records[kind] = self._program.record_of(model, one)
        record = self._program.records[kind]
        size = max(1, int(np.prod(self._leading)) * record_bytes(record))
        self._capacity = int(np.clip(BUFFER_BYTES // size, 1, MAX_ITERATIONS))
        return jax.tree.map(lambda s: jnp.zeros((*self._leading, self._capacity, *s.shape), s.dtype), record)

    def _run(self, pair, num_draws: int, thinning: int, warming: bool, progress: Progress | None) -> list:
        keys = jax.random.split(self._next_key(), self._leading)
        advance = self._program.advance if self.num_members is None else self._program.many_advance
        block, drawn = max(1, self._capacity // thinning), []
        for first in range(0, num_draws, block):
            count = min(block, num_draws - first)
            self._chains, self._buffer = advance(
                pair,
                self._chains,
                keys,
                first * thinning,
                count * thinning,
                thinning,
                self._buffer,
                self._plan,
                warming,
            )
            require_finite(self._chains.state, "during warm-up" if warming else f"at draw {first + count}", UNBOUNDED)
            if not warming:
                part = (slice(None),) * len(self._leading) + (slice(0, count),)
                drawn.append(jax.tree.map(lambda values: np.array(np.asarray(values)[part]), self._buffer))  # noqa: B023
            if progress is not None:
                progress.advance(count * thinning, "warm-up" if warming else "sampling", None, None)
        return drawn


def _first(model: MarkovRandomField, num_members: int | None) -> MarkovRandomField:
    return model if num_members is None else jax.tree.map(lambda value: np.asarray(value)[0], model)


def _numbers(model: MarkovRandomField) -> list[bytes]:
    return [np.asarray(value).tobytes() for value in jax.tree.leaves(model)]
