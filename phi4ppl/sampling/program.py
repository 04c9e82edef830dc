"""One compiled program for all chains of a run: an iteration of the kernel, what is measured of it, and loops of both."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from ..energy.compiled import CompiledModel
from ..kernels.adaptation import MAPPED_CHAINS
from ..kernels.kernel import Kernel
from ..kernels.symmetry import sign_flip
from ..kernels.target import Target, field_target, target_of
from .identity import function_digest

__all__ = ["Chain", "Program", "Record", "Sums", "cached_program", "like", "program_of"]

MAX_STREAMED = 500  # elements of a value that is streamed


class Sums(NamedTuple):
    """Over the iterations since the host last took them."""

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
    """What there is to know of one iteration, by name."""

    values: dict  # of every kept draw: what a user sees of the position
    observables: dict
    statistics: dict
    log_likelihood: dict  # of every datum of a NumPyro model
    streamed: dict  # of every iteration


def program_of(
    compiled: CompiledModel, kernel: Kernel, observables: tuple, keep, flip_signs: bool, even: bool
) -> Program:
    """The program of this run; fields that differ in their couplings only share one, already compiled.

    Functions of the user's own are traced anew in every run: they may read values that have changed since.
    """
    shared = all(getattr(function, "coupling_free", False) for _, function in observables)
    if compiled.signature is not None and shared and all(form.built_in for form in compiled.model._forms):
        kept = tuple(name for name in compiled.fields if keep(name))
        return cached_program(compiled.signature, kernel, observables, kept, flip_signs, even)
    names = None if compiled.model is not None else tuple(compiled.fields) if even else ()
    make, fields = functools.partial(target_of, compiled), tuple(compiled.fields)
    return Program(
        make, compiled.constrain, fields, kernel, observables, keep, flip_signs, names,
        log_likelihood=compiled.log_likelihood,
    )  # fmt: skip


@functools.lru_cache(maxsize=32)
def cached_program(
    signature, kernel: Kernel, observables: tuple, kept: tuple[str, ...], flip_signs: bool, even: bool
) -> Program:
    """The program of fields of this signature, for any values of their couplings."""
    make = functools.partial(field_target, signature)
    return Program(
        make, lambda phi: {"phi": phi}, ("phi",), kernel, observables, kept.__contains__, flip_signs, None,
        surely_even=even,
    )  # fmt: skip


class Program:
    """Warm-up and sampling share one compiled loop: compiling a kernel such as NUTS twice would double the wait."""

    def __init__(
        self, make_target, constrain, fields: tuple[str, ...], kernel: Kernel, observables, keep, flip_signs, names,
        surely_even: bool = False, log_likelihood=None,
    ):  # fmt: skip
        self.make_target, self.constrain, self.kernel = make_target, constrain, kernel
        self.observables, self.keep, self.flip_signs = observables, keep, flip_signs
        self.fields = fields  # names of the fields among the constrained values
        self.names = names  # of the fields that change sign together; None if the position is one field
        self.log_likelihood = log_likelihood or (lambda position: {})
        self.surely_even = surely_even  # an even density then needs no second look
        self.begin = jax.jit(jax.vmap(self._begin, in_axes=(None, 0)))
        self.flushed = jax.jit(jax.vmap(self._flushed))
        self.advance = jax.jit(self._advance, donate_argnames="buffer")
        self.spread: dict = {}  # these three over several devices, by what they depend on: see `devices`

    def _begin(self, parameters, position) -> Chain:
        target = self.make_target(parameters)
        adaptation = self.kernel.adaptation.begin(target, position)
        tuning = self.kernel.adaptation.tuning(adaptation)
        state = self.kernel.build(target, tuning).init(position)
        chain = self._flushed(Chain(state, adaptation, tuning, Sums(jnp.zeros(0), {}), None))
        shapes = self.record_of(parameters, chain).statistics
        merged = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.tree.map(_strongly_typed, chain._replace(merged=merged))

    def _flushed(self, chain: Chain) -> Chain:
        """The chain with empty sums; deviations are from where it is now, so that their squares keep their digits."""
        flat, _ = ravel_pytree(chain.state.position)
        constrained = self.constrain(chain.state.position)
        fields = {name: (constrained[name], *[jnp.zeros_like(constrained[name])] * 2) for name in self.fields}
        return chain._replace(sums=Sums(jnp.zeros_like(flat), fields))

    def record_of(self, parameters, chain: Chain) -> Record:
        """Shapes and dtypes of what one iteration of one chain leaves."""
        plan = jnp.zeros((1, 2), int)
        return jax.eval_shape(lambda c: self._iterate(parameters, c, jax.random.key(0), 0, plan, False)[1], chain)

    def digest_of(self, parameters, chain: Chain) -> str:
        """Digest of what kernel and adaptation compute: one of the user's own may be another under the same name."""

        def steps(parameters, chain, key, stage, is_window_end):
            target = self.make_target(parameters)
            state, info = self.kernel.build(target, chain.tuning).step(key, chain.state)
            statistics = self.kernel.statistics(info)
            chain = self._adapt(target, chain._replace(state=state), stage, is_window_end, statistics)
            return chain, self.kernel.adaptation.final(chain.adaptation), statistics

        return function_digest(steps, parameters, chain, jax.random.key(0), 0, 0)

    def _iterate(self, parameters, chain: Chain, key, number, plan, warming) -> tuple[Chain, Record]:
        """One iteration of the kernel, and what there is to know of it."""
        step_key, flip_key = jax.random.split(jax.random.fold_in(key, number))
        target = self.make_target(parameters)
        state, info = self.kernel.build(target, chain.tuning).step(step_key, chain.state)
        statistics = self.kernel.statistics(info)
        chain = chain._replace(state=state)
        chain = jax.lax.cond(warming, lambda c: self._adapt(target, c, *plan[number], statistics), lambda c: c, chain)
        if self.flip_signs and not self.kernel.changes_signs:
            # not during warm-up: the mass matrix is to learn the spread within a phase, not between the phases
            allowed = ~jnp.asarray(warming)
            state, statistics["sign_flipped"] = sign_flip(
                target, flip_key, state, allowed, self.names, self.surely_even
            )
            chain = chain._replace(state=state)
        return self._measured(chain, statistics)

    def _measured(self, chain: Chain, statistics: dict) -> tuple[Chain, Record]:
        state = chain.state
        measured = {name: jnp.asarray(f(state.position)) for name, f in self.observables}
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

    def _advance(self, parameters, chains, keys, first, count, thinning, buffer: Record, plan, warming):
        """Iterations ``first`` to ``first + count − 1`` of all chains into ``buffer``.

        Its streamed part takes iteration ``first`` at 0, the rest takes draw ``first // thinning`` at 0; an iteration that
        is not the last of its draw is overwritten by the next. While ``warming``, every iteration also adapts its chain as
        ``plan`` (stage, end of window) says.
        """

        def body(k, carry):
            chains, buffer = carry
            iterate = jax.vmap(self._iterate, in_axes=(None, 0, 0, None, None, None), axis_name=MAPPED_CHAINS)
            number = first + k
            chains, new = iterate(parameters, chains, keys, number, plan, warming)
            slot, part = number // thinning - first // thinning, number % thinning
            merged = {name: _merge(name, chains.merged[name], value, part) for name, value in new.statistics.items()}
            streamed = jax.tree.map(lambda b, x: b.at[:, k].set(x), buffer.streamed, new.streamed)
            draw = new._replace(statistics=merged, streamed={})
            buffer = jax.tree.map(lambda b, x: b.at[:, slot].set(x), buffer._replace(streamed={}), draw)
            return chains._replace(merged=merged), buffer._replace(streamed=streamed)

        return jax.lax.fori_loop(0, count, body, (chains, buffer))


def like(new, old):
    """``new`` with the dtypes of ``old``: a weakly typed number would be another program to the compiler."""
    return jax.tree.map(lambda a, b: jnp.asarray(a).astype(b.dtype), new, old)


def _is_streamed(value) -> bool:
    return value.size <= MAX_STREAMED and jnp.issubdtype(value.dtype, jnp.floating)


def _strongly_typed(leaf):
    """The same array; a weakly typed one would be another program than the one that a checkpoint goes on with."""
    leaf = jnp.asarray(leaf)
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return leaf if is_key else jax.lax.convert_element_type(leaf, leaf.dtype)


def _merge(name, before, new, part):
    """A statistic over the iterations between two kept draws; ``part`` of them have been merged into ``before``."""
    if name == "n_steps":
        merged = before + new
    elif name == "acceptance_rate":
        merged = (before * part + new) / (part + 1)
    elif new.dtype == bool:
        merged = before | new
    else:
        merged = jnp.maximum(before, new) if name == "tree_depth" else new
    return jnp.where(part == 0, new, merged).astype(new.dtype)
