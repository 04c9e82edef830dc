"""One compiled program for all chains of a run: an iteration of the kernel, what is measured of it, and loops of both."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ..energy.compiled import CompiledModel
from ..energy.functions import energy
from ..errors import SamplingError
from ..kernels.adaptation import MAPPED_CHAINS
from ..kernels.kernel import Kernel
from ..kernels.symmetry import sign_flip
from ..kernels.target import Target, target_of
from ..model.field import MarkovRandomField, Structure
from .identity import function_digest, observed
from .traced import Traced

__all__ = [
    "Chain",
    "Program",
    "Record",
    "Sums",
    "cached_program",
    "lean_program",
    "like",
    "program_of",
    "require_finite",
    "term_energies",
    "transition",
]

MAX_STREAMED = 500  # elements of a value that is streamed
PLAN_LENGTH = 4096  # plans of warm-ups are padded to its multiples: another length is then not another program


class Sums(NamedTuple):
    """Sums over the iterations since the host last took them."""

    virial: jax.Array  # Σ φ_i ∂S/∂φ_i
    fields: dict[str, tuple]  # reference, Σ (φ − reference) and Σ (φ − reference)² of every field


class Chain(NamedTuple):
    """One chain between chunks."""

    state: Any
    adaptation: Any  # state of the kernel's warm-up
    tuning: Any  # what the kernel is built with
    sums: Sums
    merged: dict | None  # statistics over the iterations since the last kept draw


class Record(NamedTuple):
    """Everything recorded of one iteration, by name."""

    values: dict  # of every kept draw: the values of the position that users see
    observables: dict
    statistics: dict
    log_likelihood: dict  # of every datum of a NumPyro model
    streamed: dict  # of every iteration


def program_of(
    compiled: CompiledModel, kernel: Kernel, observables: tuple, keep, flip_signs: bool, even: bool
) -> Program:
    """The program of this run; fields that differ in their couplings only share one, already compiled.

    User-defined functions are traced again in every run: they may read values that have changed since. A program with the
    user's observables is found again where they still compute the same; with user-defined terms it is compiled anew.
    """
    if compiled.model is not None and compiled.model.structure.is_built_in:
        field = jax.ShapeDtypeStruct(compiled.model.field_shape, jnp.result_type(float))
        observables = tuple(
            (name, function if getattr(function, "coupling_free", False) else Traced(function, field))
            for name, function in observables
        )
        kept = tuple(name for name in compiled.fields if keep(name))
        return cached_program(compiled.model.structure, kernel, observables, kept, flip_signs, even)
    names = None if compiled.model is not None else tuple(compiled.fields) if even else ()
    make = target_of if compiled.model is not None else lambda model: target_of(compiled)
    return Program(
        make, compiled.constrain, tuple(compiled.fields), kernel, observables, keep, flip_signs, names,
        log_likelihood=compiled.log_likelihood,
    )  # fmt: skip


@functools.lru_cache(maxsize=32)
def cached_program(
    structure: Structure, kernel: Kernel, observables: tuple, kept: tuple[str, ...], flip_signs: bool, even: bool
) -> Program:
    """The program of fields of one structure, for any values of their couplings."""
    return Program(
        target_of, lambda phi: {"phi": phi}, ("phi",), kernel, observables, kept.__contains__, flip_signs, None,
        surely_even=even,
    )  # fmt: skip


@functools.lru_cache(maxsize=32)
def lean_program(
    structure: Structure, kernel: Kernel, flip_signs: bool, even: bool, keep_field: bool, observables: tuple
) -> Program:
    """The program of fields of one structure that records the fields and ``observables``, and nothing else.

    Its argument is a pair: the model that is sampled, and one that the observables ``f(model, phi)`` are functions of.
    """
    return Program(
        lambda pair: target_of(pair[0]), lambda phi: {"phi": phi}, (), kernel, observables, lambda name: keep_field,
        flip_signs, None, surely_even=even, observe=lambda f, pair, phi: f(pair[1], phi), lean=True,
    )  # fmt: skip


def term_energies(model: MarkovRandomField, phi):
    """The energy of every term of a model, shape ``(num_terms,)``."""
    parts = (Structure(model.lattice, (form,)).at((value,)) for form, value in model.interactions)
    return jnp.stack([energy(part, phi) for part in parts])


def transition(kernel: Kernel, model: MarkovRandomField, tuning, key, state, flip_signs: bool):
    """The state after one iteration of a kernel, with a change of sign where the kernel makes none."""
    target = target_of(model)
    step_key, flip_key = jax.random.split(key)
    state, _ = kernel.build(target, tuning).step(step_key, state)
    return (
        sign_flip(target, flip_key, state, jnp.asarray(True))[0] if flip_signs and not kernel.changes_signs else state
    )


class Program:
    """Warm-up and sampling share one compiled loop: compiling a kernel such as NUTS twice would double the wait.

    Its argument, here ``model``, is what ``make_target`` makes a `Target` of. The functions of the name ``many_…`` take
    several models, or couplings with a leading axis, and chains with one more.
    """

    def __init__(
        self, make_target, constrain, fields: tuple[str, ...], kernel: Kernel, observables, keep, flip_signs, names,
        surely_even: bool = False, log_likelihood=None, observe=observed, lean: bool = False,
    ):  # fmt: skip
        self.make_target, self.constrain, self.kernel = make_target, constrain, kernel
        self.observables, self.keep, self.flip_signs = observables, keep, flip_signs
        self.fields = fields  # names of the fields among the constrained values
        self.names = names  # of the fields that change sign together; None if the position is one field
        self.log_likelihood = log_likelihood or (lambda position: {})
        self.surely_even = surely_even  # an even density then needs no second look
        self.observe, self.lean = observe, lean  # a lean record has no statistics and no streams
        begin = jax.vmap(self._begin, in_axes=(None, 0))
        self.begin, self.many_begin = jax.jit(begin), jax.jit(jax.vmap(begin))
        self.flushed = jax.jit(jax.vmap(self._flushed))
        self.advance = jax.jit(self._advance, donate_argnums=6)
        axes = (0, 0, 0, None, None, None, 0, None, None)
        self.many_advance = jax.jit(jax.vmap(self._advance, in_axes=axes), donate_argnums=6)
        final = jax.vmap(kernel.adaptation.final)
        self.final, self.many_final = jax.jit(final), jax.jit(jax.vmap(final))
        self.measure = jax.jit(jax.vmap(self._of_start, in_axes=(None, 0)))
        self._one_record = jax.jit(self._recorded)  # jitted for its memory: shapes are traced once
        self.records: dict = {}  # of `Engine`: shapes of a record by those of the chains
        self.spread: dict = {}  # these three over several devices, by what they depend on: see `devices`

    def _begin(self, model, position) -> Chain:
        target = self.make_target(model)
        adaptation = self.kernel.adaptation.begin(target, position)
        tuning = self.kernel.adaptation.tuning(adaptation)
        state = self.kernel.build(target, tuning).init(position)
        chain = self._flushed(Chain(state, adaptation, tuning, Sums(jnp.zeros(0), {}), None))
        shapes = self.record_of(model, chain).statistics
        merged = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.tree.map(_strongly_typed, chain._replace(merged=merged))

    def _flushed(self, chain: Chain) -> Chain:
        """The chain with empty sums; deviations are from the current position, to avoid cancellation."""
        if self.lean:
            return chain._replace(sums=Sums(jnp.zeros(0), {}))
        flat, _ = ravel_pytree(chain.state.position)
        constrained = self.constrain(chain.state.position)
        fields = {name: (constrained[name], *[jnp.zeros_like(constrained[name])] * 2) for name in self.fields}
        return chain._replace(sums=Sums(jnp.zeros_like(flat), fields))

    def record_of(self, model, chain: Chain) -> Record:
        """Shapes and dtypes of the record of one iteration of one chain."""
        return jax.eval_shape(self._one_record, model, chain)

    def _recorded(self, model, chain: Chain) -> Record:
        return self._iterate(model, chain, jax.random.key(0), 0, jnp.zeros((1, 2), int), False)[1]

    def _of_start(self, model, position) -> Record:
        """The record of a position, before any iteration; of a lean program."""
        return self._measured(model, self._begin(model, position), {})[1]

    def digest_of(self, model, chain: Chain) -> str:
        """Digest of what kernel and adaptation compute: a user-defined one may differ under the same name."""

        def steps(model, chain, key, stage, is_window_end):
            target = self.make_target(model)
            state, info = self.kernel.build(target, chain.tuning).step(key, chain.state)
            statistics = self.kernel.statistics(info)
            chain = self._adapt(target, chain._replace(state=state), stage, is_window_end, statistics)
            return chain, self.kernel.adaptation.final(chain.adaptation), statistics

        return function_digest(steps, model, chain, jax.random.key(0), 0, 0)

    def _iterate(self, model, chain: Chain, key, number, plan, warming, last=True) -> tuple[Chain, Record]:
        """One iteration of the kernel, and its record; ``last`` of the iterations of a draw."""
        step_key, flip_key = jax.random.split(jax.random.fold_in(key, number))
        target = self.make_target(model)
        state, info = self.kernel.build(target, chain.tuning).step(step_key, chain.state)
        statistics = self.kernel.statistics(info)
        chain = chain._replace(state=state)
        chain = jax.lax.cond(warming, lambda c: self._adapt(target, c, *plan[number], statistics), lambda c: c, chain)  # type: ignore[call-arg]
        if self.flip_signs and not self.kernel.changes_signs:
            # not during warm-up: the mass matrix is to learn the spread within a phase, not between the phases
            allowed = ~jnp.asarray(warming)
            state, statistics["sign_flipped"] = sign_flip(
                target, flip_key, state, allowed, self.names, self.surely_even
            )
            chain = chain._replace(state=state)
        return self._measured(model, chain, statistics, last)

    def _measured(self, model, chain: Chain, statistics: dict, last=True) -> tuple[Chain, Record]:
        state = chain.state

        def measure(position):
            return {name: jnp.asarray(self.observe(f, model, position)) for name, f in self.observables}

        if self.lean:  # nothing is streamed: observables are of the last iteration of a draw only
            shapes = jax.eval_shape(measure, state.position)
            empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
            measured = jax.lax.cond(last, measure, lambda position: empty, state.position)
            kept = {name: value for name, value in self.constrain(state.position).items() if self.keep(name)}
            return chain, Record(kept, measured, {}, {}, {})
        measured = measure(state.position)
        gradient, _ = ravel_pytree(state.logdensity_grad)
        flat, _ = ravel_pytree(state.position)
        statistics |= {"lp": state.logdensity, "schwinger_dyson": -jnp.mean(flat * gradient)}
        if self.names:
            statistics["field_mean"] = ravel_pytree({name: state.position[name] for name in self.names})[0].mean()
        constrained = self.constrain(state.position)
        kept = {name: value for name, value in constrained.items() if self.keep(name)}
        scalars = {name: value for name, value in kept.items() if name not in self.fields} | measured
        streamed = {f"posterior/{name}": value for name, value in scalars.items() if _is_streamed(value)}
        streamed |= {f"sample_stats/{name}": statistics[name] for name in ("lp", "schwinger_dyson")}
        fields = {}
        for name, (reference, total, squares) in chain.sums.fields.items():
            away = constrained[name] - reference
            fields[name] = reference, total + away, squares + away**2
        sums = Sums(chain.sums.virial - flat * gradient, fields)
        return chain._replace(sums=sums), Record(
            kept, measured, statistics, self.log_likelihood(state.position), streamed
        )

    def _adapt(self, target: Target, chain: Chain, stage, is_window_end, statistics) -> Chain:
        adaptation = self.kernel.adaptation
        new = adaptation.update(target, chain.adaptation, stage, is_window_end, chain.state, statistics)
        return chain._replace(adaptation=new, tuning=like(adaptation.tuning(new), chain.tuning))

    def _advance(self, model, chains, keys, first, count, thinning, buffer: Record, plan, warming):
        """Iterations ``first`` to ``first + count − 1`` of all chains into ``buffer``.

        Streamed values have a slot per iteration, everything else has a slot per draw, of ``thinning`` iterations. A chunk may
        begin and end within a draw. With ``thinning`` = 3, ``first`` = 4 and ``count`` = 7::

            k                                    0   1 | 2   3   4 | 5   6      place in buffer.streamed
            number = first + k                   4   5 | 6   7   8 | 9  10
            draw   = number // thinning          1   1 | 2   2   2 | 3   3
            slot   = draw - first // thinning    0   0 | 1   1   1 | 2   2      place of kept values and statistics
            part   = number % thinning           1   2 | 0   1   2 | 0   1      0 starts the statistics of a draw

        Each iteration overwrites the slot of its draw, so the last one of a draw stays. ``chains.merged`` carries the
        statistics of an unfinished draw to the next chunk, which writes the draw again, at its slot 0. While ``warming``,
        every iteration also adapts its chain, at the stage of warm-up and the end of a window that ``plan[number]`` holds.
        """

        def body(k, carry):
            chains, buffer = carry
            iterate = jax.vmap(self._iterate, in_axes=(None, 0, 0, None, None, None, None), axis_name=MAPPED_CHAINS)
            number = first + k
            chains, new = iterate(model, chains, keys, number, plan, warming, (number + 1) % thinning == 0)
            slot, part = number // thinning - first // thinning, number % thinning
            merged = {name: _merge(name, chains.merged[name], value, part) for name, value in new.statistics.items()}
            streamed = jax.tree.map(lambda b, x: b.at[:, k].set(x), buffer.streamed, new.streamed)
            draw = new._replace(statistics=merged, streamed={})
            buffer = jax.tree.map(lambda b, x: b.at[:, slot].set(x), buffer._replace(streamed={}), draw)
            return chains._replace(merged=merged), buffer._replace(streamed=streamed)

        return jax.lax.fori_loop(0, count, body, (chains, buffer))


def require_finite(state, when: str, advice: str) -> None:
    """Raise `SamplingError` with the number of the first chain whose density or gradient is not finite.

    ``state`` has the density of every chain in ``logdensity``, of any shape.
    """
    density = np.asarray(state.logdensity)
    gradient = [
        np.isfinite(np.asarray(g)).reshape(*density.shape, -1).all(axis=-1)
        for g in jax.tree.leaves(state.logdensity_grad)
    ]
    good = np.isfinite(density) & functools.reduce(np.logical_and, gradient)
    if not good.all():
        first = tuple(int(k) for k in np.argwhere(~good)[0])
        where = f"chain {first[-1]}" if density.ndim == 1 else f"chain {first[-1]} of member {first[0]}"
        message = f"{where} has log density {density[first]} (or a non-finite gradient) {when}. {advice}"
        raise SamplingError("not_finite", message, {"chain": first[-1], "log_density": float(density[first])})


def like(new, old):
    """``new`` with the dtypes of ``old``: a weakly typed number would be another program to the compiler."""
    return jax.tree.map(lambda a, b: jnp.asarray(a).astype(b.dtype), new, old)


def _is_streamed(value) -> bool:
    return value.size <= MAX_STREAMED and jnp.issubdtype(value.dtype, jnp.floating)


def _strongly_typed(leaf):
    """The same array; a weakly typed one would need another program than the one that is resumed from a checkpoint."""
    leaf = jnp.asarray(leaf)
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return leaf if is_key else jax.lax.convert_element_type(leaf, leaf.dtype)


def _merge(name, before, new, part):
    """A statistic over the iterations between two kept draws; ``part`` of them have been merged into ``before``.

    Leapfrog steps and round trips add up, acceptance rates are averaged, a divergence or a flip of signs anywhere counts,
    trees report their greatest depth, and of everything else the last value is kept.
    """
    if name in ("n_steps", "round_trips"):
        merged = before + new
    elif name == "acceptance_rate":
        merged = (before * part + new) / (part + 1)
    elif new.dtype == bool:
        merged = before | new
    else:
        merged = jnp.maximum(before, new) if name == "tree_depth" else new
    return jnp.where(part == 0, new, merged).astype(new.dtype)
