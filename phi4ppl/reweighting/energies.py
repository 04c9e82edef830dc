"""Differences of actions on stored fields, the basis of every reweighting."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from .._typing import Fields, Labeled, PerField, SampledFields
from ..energy.functions import energy
from ..errors import ArgumentError
from ..lattice.frozen import Lattice
from ..lattice.labels import aligned_fields
from ..model.field import MarkovRandomField, Structure
from ..sampling.traced import Traced

__all__ = ["as_action", "as_samples", "difference", "evaluate", "lattice_of"]

BATCH_NUMBERS = 2_000_000  # numbers of fields that one compiled call works on


def as_samples(name: str, samples: Labeled, lattice: Lattice | None) -> Fields:
    """Stored fields as an array of shape ``(chains, draws, *field_shape)``, in the order of the lattice."""
    shape = None if lattice is None else lattice.field_shape
    if isinstance(samples, xr.DataTree) and "phi" in samples.get("posterior", ()):
        samples = samples["posterior"]["phi"]
    fields = aligned_fields(name, samples, lattice, "Remove the draw, or look for a divergence in the chain.")
    rank = fields.ndim - 2 if shape is None else len(shape)
    if fields.ndim != rank + 2 or rank < 1 or (shape is not None and fields.shape[2:] != shape) or not fields.size:
        lattice = "*lattice" if shape is None else ", ".join(map(str, shape))
        fix = "tree['posterior']['phi'] has this shape; one chain is samples[None]."
        raise ArgumentError(name, f"shape (chains, draws, {lattice})", f"shape {fields.shape}", fix, reason="shape")
    return fields


def lattice_of(*actions) -> Lattice | None:
    """The lattice of the first model among ``actions``; None if all are functions."""
    return next((a.lattice for a in actions if isinstance(a, MarkovRandomField)), None)


def as_action(name: str, action, shape: tuple[int, ...]) -> MarkovRandomField | Callable:
    """A model or a function of one field as it is, once it is known to take fields of ``shape`` and give one number."""
    if isinstance(action, MarkovRandomField):
        if action.field_shape != shape:
            raise ArgumentError(
                name, f"a model of fields of shape {shape}", f"shape {action.field_shape}", reason="shape"
            )
        return action
    expected = "a MarkovRandomField, or a JAX function of one field that returns one number, real or complex"
    if not callable(action):
        raise ArgumentError(name, expected, type(action).__name__)
    try:
        result = jax.eval_shape(action, jax.ShapeDtypeStruct(shape, jnp.result_type(float)))
    except Exception as error:  # the user should read whatever the function raises under tracing
        raise ArgumentError(name, expected, f"{type(error).__name__}: {error}", reason="raises") from error
    if getattr(result, "shape", None) != () or not jnp.issubdtype(result.dtype, jnp.inexact):
        raise ArgumentError(name, expected, f"a function that returns {result}", reason="returns")
    return action


def difference(action, base) -> Callable:
    """``action`` − ``base`` as a function of one field.

    S is linear in its couplings, so the difference of two models of one lattice is the action at the difference of their
    couplings: what they have in common cancels before anything is summed, not after.
    """
    models = isinstance(action, MarkovRandomField) and isinstance(base, MarkovRandomField)
    if models and action.lattice == base.lattice:
        return functools.partial(energy, _merged(action, base))
    return lambda phi: _value(action, phi) - _value(base, phi)


def _merged(action: MarkovRandomField, base: MarkovRandomField) -> MarkovRandomField:
    """Terms of both models with the couplings of the first less those of the second."""
    parts = dict(action.interactions)
    for form, value in base.interactions:
        parts[form] = _minus(parts[form], value) if form in parts else -value
    return Structure(action.lattice, tuple(parts)).at(parts.values())


def _minus(left, right):
    """``left − right``, in double precision where both are numbers."""
    if isinstance(left, jax.core.Tracer) or isinstance(right, jax.core.Tracer):
        shape = np.broadcast_shapes(jnp.shape(left), jnp.shape(right))
        return jnp.broadcast_to(left, shape) - jnp.broadcast_to(right, shape)
    return np.asarray(left, float) - np.asarray(right, float)


def _value(action, phi):
    return action.energy(phi) if isinstance(action, MarkovRandomField) else action(phi)


@functools.lru_cache(maxsize=64)
def _compiled(function: Traced) -> Callable:
    return jax.jit(jax.vmap(function))


def evaluate(function: Callable, fields: SampledFields) -> PerField:
    """``function`` of every field, in double precision on the host; ``fields`` have shape ``(num_fields, *lattice)``.

    The fields pass through one compiled program in batches of equal size, which the next call with the same function finds.
    """
    dtype = jnp.result_type(float)
    compiled = _compiled(Traced(function, jax.ShapeDtypeStruct(fields.shape[1:], dtype)))
    batch = max(1, min(len(fields), BATCH_NUMBERS // max(1, fields[0].size)))
    values = []
    for start in range(0, len(fields), batch):
        part = np.asarray(fields[start : start + batch], dtype)
        missing = batch - len(part)
        if missing:
            part = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
        values.append(np.asarray(compiled(part))[: batch - missing])
    result = np.concatenate(values)
    return result.astype(complex if np.iscomplexobj(result) else float)
