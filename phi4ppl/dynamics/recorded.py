"""What is recorded of a process: the field, what the process measures of its states, and observables of the field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ..analysis.named import QUANTITIES, measured_for
from ..analysis.observables import require_functions
from ..analysis.two_point import TWO_POINT, dims_of
from ..analysis.walls import WALLS, function_of_field
from ..errors import ArgumentError
from ..lattice.labels import field_dims
from ..sampling.traced import Traced
from .process import Process

__all__ = ["OfField", "recorded"]

FIELD = "phi"
SLICES = "time_slice"  # the axis of lattices that others call time, which is that of records here


class _Field:
    """The field itself."""

    def __call__(self, process: Process, state):
        return process.observe(state)

    def __eq__(self, other) -> bool:
        return isinstance(other, _Field)

    def __hash__(self) -> int:
        return hash(_Field)


@dataclass(frozen=True)
class _Measured:
    """What a process measures of its states under this name; the compiler merges the equal parts of several."""

    name: str

    def __call__(self, process: Process, state):
        return process.measured(state)[self.name]


@dataclass(frozen=True)
class OfField:
    """A function of the field; equal ones find their compiled program again."""

    function: Callable

    def __call__(self, process: Process, state):
        return self.function(process.observe(state))


def _mean(phi):
    return jnp.mean(phi)


def _mean_square(phi):
    return jnp.mean(phi**2)  # of complex fields too: averages of |φ|² mean nothing there


STANDARD = {"magnetization": OfField(_mean), "phi_squared": OfField(_mean_square)}


def recorded(process: Process, state: Any, own, keep_field: bool) -> tuple[tuple, dict[str, list[str]], dict[str, Any]]:
    """Names and functions ``f(process, state)`` of all that is recorded, with dimensions and coordinates of its axes.

    ``state`` has the shapes and dtypes of one state; ``own`` is a list of names, or a dict of functions and such names.

    Raises
    ------
    ArgumentError
        If a name is unknown or taken, or a function cannot be traced.
    """
    lattice = process.lattice
    field = jax.eval_shape(process.observe, state)
    if field.shape != lattice.field_shape:
        expected = f"observe(state) of shape {lattice.field_shape}"
        raise ArgumentError("process", expected, f"shape {field.shape}", reason="shape")
    found: dict[str, Callable] = {FIELD: _Field()} if keep_field else {}
    found |= STANDARD | {name: _Measured(name) for name in jax.eval_shape(process.measured, state)}
    if own is None:
        own = {}
    elif isinstance(own, (list, tuple)) and all(isinstance(each, str) for each in own):
        own = {name: name for name in own}
    if not isinstance(own, dict):
        fix = "For example ['structure_factor'], or {'largest': lambda phi: phi.max()}."
        raise ArgumentError("observables", "names, or a dict of functions of one field", type(own).__name__, fix)
    names = [name for name, function in own.items() if isinstance(function, str)]
    measured = {key: function for name in names for key, function in _named(name, process, field).items()}
    found |= {key: OfField(function) for key, function in measured.items()}
    functions = {name: function for name, function in own.items() if not isinstance(function, str)}
    require_functions(functions, field, (*found, FIELD, "replica", "time", *field_dims(lattice)[0]))
    found |= {name: OfField(Traced(function, field)) for name, function in functions.items()}
    dims, coords = dims_of(measured.keys() & TWO_POINT.keys(), lattice)
    dims = {name: [SLICES if axis == "time" else axis for axis in axes] for name, axes in dims.items()}
    return tuple(found.items()), dims, {SLICES if axis == "time" else axis: x for axis, x in coords.items()}


def _named(name: str, process: Process, field) -> dict[str, Callable]:
    """Functions of one field to record for a name."""
    known = [*WALLS, *(each for each in TWO_POINT if not each.startswith("improved_"))]
    if not jnp.issubdtype(field.dtype, jnp.floating):
        fix = "Give functions of it: {'NAME': lambda phi: ….real}."
        raise ArgumentError("observables", "functions, for complex fields", repr(name), fix, reason="complex")
    if name in known:
        return {name: function_of_field(name, process.lattice)}
    model = getattr(process, "model", None)
    measured = measured_for(name, model) if name in QUANTITIES and model is not None else {}
    if not measured:
        fix = "Give any other as a function of the field: {'NAME': lambda phi: …}."
        if name in QUANTITIES:
            fix = f"{name} is a function of means: {QUANTITIES[name].formula}. Record what it is made of."
        raise ArgumentError("observables", f"names among {', '.join(known)}", repr(name), fix, reason="name")
    return measured
