"""Any function as a process: dφ/dt = f(φ, t), with white noise if wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field as field_of
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import ArgumentError
from ..errors.arguments import finite_array
from ..lattice.frozen import Lattice
from .process import Process, Step, process

__all__ = ["Drift", "runge_kutta"]


def runge_kutta(function: Callable, state, time, h):
    """One step of the classical method of fourth order for any pytree."""

    def at(slope, share):
        return jax.tree.map(lambda x, k: x + share * h * k, state, slope)

    k1 = function(state, time)
    k2 = function(at(k1, 0.5), time + h / 2)
    k3 = function(at(k2, 0.5), time + h / 2)
    k4 = function(at(k3, 1.0), time + h)
    return jax.tree.map(lambda x, a, b, c, d: x + h / 6 * (a + 2 * b + 2 * c + d), state, k1, k2, k3, k4)


@process
class Drift(Process):
    """dφ = f(φ, t) dt + s dW, of any JAX function f.

    Without noise by the classical Runge–Kutta method (fourth order, four evaluations a step). With noise by Heun's method: the
    drift is averaged over both ends of the step; averages are right to O(ε²).

    Parameters
    ----------
    lattice : Lattice
    function : callable
        ``function(phi, t) -> dphi_dt`` of one field of shape ``lattice.field_shape``.
    noise : number or array, default 0
        s, of every site or the same for all: dW has variance dt.

    Examples
    --------
    A bistable front u_t = u_xx + u(1 − u)(u − ¼) moves at the speed (1 − 2·¼)/√2.

    >>> import jax.numpy as jnp, numpy as np, phi4ppl as p4
    >>> h = 0.25
    >>> line = p4.lattice.chain(400, periodic=False)
    >>> minus_laplacian = p4.dynamics.laplacian(line)
    >>> def drift(u, t):
    ...     return -minus_laplacian(u) / h**2 + u * (1 - u) * (u - 0.25)
    >>> start = (np.arange(400) * h < 30) * 1.0
    >>> tree = p4.dynamics.evolve(p4.dynamics.Drift(line, drift), start, time=60, step_size=0.025, every=10)
    >>> place = tree["evolution"]["phi"].sum("site").values[0] * h
    >>> float(((place[-1] - place[-3]) / 20).round(3))
    0.353
    """

    lattice: Lattice = field_of(metadata={"static": True})
    function: Callable = field_of(metadata={"static": True})
    noise: Any = 0.0

    def __post_init__(self):
        if not isinstance(self.lattice, Lattice):
            raise ArgumentError("lattice", "a Lattice", repr(self.lattice)[:80], "See phi4ppl.lattice.")
        expected = f"a JAX function (phi, t) of one field of shape {self.lattice.field_shape}"
        if not callable(self.function):
            raise ArgumentError("function", expected, repr(self.function)[:80])
        real = jnp.result_type(float)
        try:
            found = jax.eval_shape(
                self.function, jax.ShapeDtypeStruct(self.lattice.field_shape, real), jax.ShapeDtypeStruct((), real)
            )
        except Exception as error:  # the user should read whatever the function raises under tracing
            reason = str(error).strip().split("\n")[0]
            fix = "Write it with jax.numpy."
            raise ArgumentError("function", expected, f"{type(error).__name__}: {reason}", fix, "raises") from error
        if getattr(found, "shape", None) != self.lattice.field_shape:
            raise ArgumentError("function", "dφ/dt of the field's shape returned", f"{found}", reason="returns")
        noise = finite_array("noise", self.noise)
        if noise.ndim and noise.shape != self.lattice.field_shape:
            expected = f"a number, or shape {self.lattice.field_shape}"
            raise ArgumentError("noise", expected, f"shape {noise.shape}", reason="shape")
        object.__setattr__(self, "noise", noise if noise.any() else None)

    def prepare(self, step_size) -> Step:
        if self.noise is None:
            return lambda phi, key, time: runge_kutta(self.function, phi, time, step_size)

        def heun(phi, key, time):
            kick = (
                jnp.sqrt(step_size) * jnp.asarray(self.noise, phi.dtype) * jax.random.normal(key, phi.shape, phi.dtype)
            )
            first = self.function(phi, time)
            second = self.function(phi + step_size * first + kick, time + step_size)
            return phi + step_size * (first + second) / 2 + kick

        return heun
