"""What is recorded of a process: the field, what the process measures of its states, and observables of the field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ..analysis.named import measured_for
from ..analysis.observables import require_functions
from ..analysis.two_point import TWO_POINT, dims_of, two_point
from ..errors import ArgumentError
from ..lattice.labels import field_dims
from ..sampling.traced import Traced
from .process import Process

__all__ = ["OfField", "recorded"]

FIELD = "phi"


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
    named: set[str] = set()
    for name in [name for name, function in own.items() if isinstance(function, str)]:
        if name in TWO_POINT and not name.startswith("improved_"):
            measured = {name: two_point(name, lattice).measure}
        elif (model := getattr(process, "model", None)) is not None:
            measured = measured_for(name, model)
        else:
            fix = "Give any other as a function of the field: {'NAME': lambda phi: …}."
            raise ArgumentError("observables", f"names among {', '.join(TWO_POINT)}", repr(name), fix, reason="name")
        named |= measured.keys()
        found |= {key: OfField(function) for key, function in measured.items()}
    functions = {name: function for name, function in own.items() if not isinstance(function, str)}
    require_functions(functions, field, (*found, FIELD, "replica", "time", *field_dims(lattice)[0]))
    found |= {name: OfField(Traced(function, field)) for name, function in functions.items()}
    return tuple(found.items()), *dims_of(named & TWO_POINT.keys(), lattice)
