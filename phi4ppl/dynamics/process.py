"""What moves a field: an immutable object with a step in time, for one replica; `evolve` vectorizes and repeats it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ArgumentError, EvolutionError
from ..lattice.frozen import Lattice
from ..model.pytree import register_checked

__all__ = ["CLOSE", "Process", "Step", "positive", "process"]

CLOSE = 1e-6  # of a whole number, and of a limit
Step = Callable[[Any, jax.Array, jax.Array], Any]
T = TypeVar("T")


def process(cls: type[T]) -> type[T]:
    """Make a class a process: a frozen dataclass and a pytree.

    Fields are leaves (numbers and arrays, also models, whose couplings are leaves); those with the metadata ``static``, such as
    ``lattice: Lattice = field(metadata={"static": True})``, are hashed and compiled in. ``__post_init__`` checks what a user
    gives; JAX rebuilds without it.
    """
    return register_checked(dataclass(frozen=True)(cls))


class Process:
    """The base of every process; a subclass defines `step` or `prepare`, and what else differs from here.

    The functions of a *state* are pure JAX functions for one replica, which `evolve` vectorizes. A state is any pytree of
    arrays, most often the field itself. The process is an argument of the compiled program: other couplings compile nothing.

    Attributes
    ----------
    lattice : Lattice
        A field has shape ``lattice.field_shape``. May be a property, such as ``self.model.lattice``.
    is_complex : bool
        Whether a field may start with complex numbers.
    """

    lattice: Lattice
    is_complex: ClassVar[bool] = False

    def start(self, field, key: jax.Array) -> Any:
        """The state at time 0 of a field; ``key`` is the replica's own."""
        return field

    def step(self, state, key: jax.Array, time: jax.Array, step_size: jax.Array) -> Any:
        """The state at ``time + step_size`` of that at ``time``; every step of every replica has its own key."""
        raise NotImplementedError(f"{type(self).__name__} defines neither step nor prepare")

    def prepare(self, step_size: jax.Array) -> Step:
        """``step(state, key, time)`` for this step size; what is computed here is computed once, not in every step."""
        return functools.partial(self.step, step_size=step_size)

    def observe(self, state) -> jax.Array:
        """The field in a state: it is recorded as ``phi``, and what observables are functions of."""
        return state

    def measured(self, state) -> dict[str, jax.Array]:
        """Further scalars or arrays to record of a state, by name; one of the name ``energy`` is shown while a run goes on."""
        return {}

    @property
    def max_step_size(self) -> float | None:
        """The limit of stability; larger step sizes are refused with this number. None where there is none."""
        return None

    @property
    def default_step_size(self) -> float:
        """The step size where the user gives none."""
        limit = self.max_step_size
        if limit is None or not math.isfinite(limit):
            fix = "There is no step size that suits every process of this kind."
            raise ArgumentError("step_size", "a positive number", "None", fix, reason="missing")
        return limit / 4

    def require_step(self, step_size: float) -> None:
        """Raise `ArgumentError` for a step size that this process cannot take: by default, one past the limit of stability."""
        limit = self.max_step_size
        if limit is not None and step_size > limit * (1 + CLOSE):
            fix = "Larger steps are unstable here: the fastest mode would grow."
            values = {"limit": limit}
            raise ArgumentError("step_size", f"at most {limit:.6g}", f"{step_size:g}", fix, "unstable", values)

    def require_time(self, time: float) -> None:
        """Raise `ArgumentError` for an end of the run that this process does not reach; most go on for ever."""

    def check(self, states, time: float) -> None:
        """Raise an error if the run has gone wrong; called on the host, between chunks, with the states of all replicas.

        Subclasses that watch a law of their own (an energy that must not rise) call this one too.
        """
        for leaf in jax.tree.leaves(states):
            array = np.asarray(leaf)
            if array.dtype.kind in "fc" and not np.isfinite(array).all():
                replica = int(np.argwhere(~np.isfinite(array))[0][0])
                message = (
                    f"replica {replica} is not finite at time {time:.6g}. The step is too large for its gradients, or the "
                    "process grows without bound: use a smaller step_size, or look at the field just before."
                )
                raise EvolutionError("not_finite", message, {"replica": replica, "time": time})


def positive(name: str, value, fix: str = "") -> Any:
    """Return a finite positive number, traced ones unseen, or raise `ArgumentError`."""
    if isinstance(value, jax.core.Tracer):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, (bool, str)) or not (number > 0 and math.isfinite(number)):
        raise ArgumentError(name, "a finite number above 0", repr(value), fix)
    return jnp.asarray(value) if isinstance(value, jax.Array) else number
