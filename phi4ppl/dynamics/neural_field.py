"""Neural fields: activity that excites and inhibits itself over distance (S. Amari; H. R. Wilson and J. D. Cowan)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field as field_of
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import finite_array
from ..lattice.frozen import Lattice
from .drift import runge_kutta
from .process import Process, Step, positive, process

__all__ = ["NeuralField", "NeuralState", "active_share"]

STABLE = 2.7  # of the classical Runge–Kutta method, in time constants
FLAT = 1e-3  # least slope along one axis, as a share of that along both


class NeuralState(NamedTuple):
    """Activity u and adaptation a."""

    activity: jax.Array
    adaptation: jax.Array


def active_share(u, threshold):
    """The share of every cell in which u is above the threshold, with u a straight line or a plane between the sites.

    In one dimension the crossing between sites of values u₀ and u₁ is at s = (u₀ − h)/(u₀ − u₁); the part next to the first one
    weighs it by s − s²/2 and the other by s²/2, as linear interpolation of the kernel does. In two dimensions: the part
    of a square cell on one side of a straight line, for the slopes at its middle.
    """
    above = u - threshold
    if u.ndim == 1:
        right = jnp.roll(above, -1)
        crosses = (above > 0) != (right > 0)
        s = jnp.where(crosses, above / jnp.where(crosses, above - right, 1), 0.0)
        near, far = s - s**2 / 2, s**2 / 2
        whole = jnp.where(above > 0, 0.5, 0.0).astype(u.dtype)
        to_left = jnp.where(crosses, jnp.where(above > 0, near, 0.5 - near), whole)
        to_right = jnp.where(crosses, jnp.where(above > 0, far, 0.5 - far), whole)
        return to_left + jnp.roll(to_right, 1)
    slopes = [jnp.abs(jnp.roll(u, -1, axis) - jnp.roll(u, 1, axis)) / 2 for axis in range(2)]
    total = slopes[0] + slopes[1]
    a, b = (jnp.maximum(jnp.maximum(x, FLAT * total), 1e-6) for x in slopes)
    # over the cell the value is spread like the sum of two uniform numbers of widths a and b
    parts = [sign * jnp.maximum(above + (p * a + q * b) / 2, 0) ** 2 for sign, p, q in CORNERS]
    return jnp.clip(sum(parts) / (2 * a * b), 0, 1)


CORNERS = ((1, 1, 1), (-1, 1, -1), (-1, -1, 1), (1, -1, -1))


@process
class NeuralField(Process):
    """τ du/dt = −u + w ∗ f(u) − g a + I,   τ_a da/dt = −a + u, on a periodic domain of one or two dimensions.

    The convolution (w ∗ f)(x) = ∫ w(x − y) f(u(y)) dy is a sum over cells, each with its volume, by FFT. With a threshold h,
    f is 1 where u > h and 0 elsewhere, and a cell that the boundary u = h crosses counts in part: bumps and fronts then do
    not pin to the sites (what remains is of second order in the spacing). Steps are of fourth order (Runge–Kutta).

    Parameters
    ----------
    lattice : Lattice
        Periodic, of one or two dimensions.
    kernel : callable or array
        w of the distance (a function of an array), or one weight per displacement, with that of displacement 0 at the first
        site.
    rate : number or callable
        The threshold h, or a smooth firing rate f(u), a JAX function.
    spacing : float, default 1.0
        Between neighboring sites, in the units of the kernel.
    time_constant : float, default 1.0
        τ.
    adaptation, adaptation_time : float
        g and τ_a; by default there is none.
    input : array or number, default 0
        I(x).
    drive : callable, optional
        A JAX function of time, whose value (a number or a field) is added to I.

    Notes
    -----
    With W(D) = ∫₀ᴰ w, a bump of width D stands still where W(D) = h, and is stable if w(D) < 0 (S. Amari, Biol. Cybern. 27
    (1977) 77). `evolve` records ``active``: the length or area where f = 1, or ∫ f.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> ring, x = p4.lattice.chain(400), 0.05 * (np.arange(400) - 200)
    >>> process = p4.dynamics.NeuralField(ring, lambda r: (1 - r) * np.exp(-r), 0.3, spacing=0.05)
    >>> tree = p4.dynamics.evolve(process, 1.0 * (abs(x) < 0.6), time=40, every=10)
    >>> float(tree["evolution"]["active"].values[0, -1].round(2))  # D exp(−D) = 0.3 at D = 1.781
    1.78
    """

    lattice: Lattice = field_of(metadata={"static": True})
    kernel: Any
    rate: Any
    spacing: Any = 1.0
    time_constant: Any = 1.0
    adaptation: Any = 0.0
    adaptation_time: Any = 1.0
    input: Any = 0.0
    drive: Callable | None = field_of(default=None, metadata={"static": True})
    _firing: Callable | None = field_of(default=None, repr=False, metadata={"static": True})

    def __post_init__(self):
        lattice = self.lattice
        shape = getattr(lattice, "shape", None)
        if shape is None or len(shape) > 2 or not all(lattice.periodic):
            expected = "a periodic lattice of one or two dimensions"
            raise ArgumentError("lattice", expected, repr(lattice)[:80], "For example phi4ppl.lattice.chain(200).")
        spacing, tau, slow = (positive(n, getattr(self, n)) for n in ("spacing", "time_constant", "adaptation_time"))
        kernel = self.kernel(distances(shape, float(spacing))) if callable(self.kernel) else self.kernel
        kernel, outside = finite_array("kernel", kernel), finite_array("input", self.input)
        for name, array in (("kernel", kernel), ("input", outside)):
            if array.shape != shape and not (name == "input" and array.ndim == 0):
                raise ArgumentError(name, f"one value a site, shape {shape}", f"shape {array.shape}", reason="shape")
        firing = self.rate if callable(self.rate) else self._firing
        threshold = finite_array("rate", 0.0 if callable(self.rate) else self.rate)
        adaptation = finite_array("adaptation", self.adaptation)
        for name, array in (("rate", threshold), ("adaptation", adaptation)):
            if array.ndim:
                raise ArgumentError(name, "one number", f"shape {array.shape}", reason="shape")
        vars(self).update(
            kernel=kernel, input=outside, rate=threshold, _firing=firing, adaptation=adaptation, spacing=spacing,
            time_constant=tau, adaptation_time=slow,
        )  # fmt: skip

    @property
    def max_step_size(self) -> float | None:
        fastest = 1 / float(self.time_constant)
        return STABLE / (fastest + (1 / float(self.adaptation_time) if self.adaptation else 0))

    @property
    def default_step_size(self) -> float:
        return self.max_step_size / 27  # a tenth of the time constant

    @property
    def volume(self):
        """Of a cell."""
        return self.spacing ** len(self.lattice.field_shape)

    def start(self, field, key) -> NeuralState:
        return NeuralState(field, jnp.zeros_like(field))

    def firing(self, u):
        """f(u) of every cell."""
        return active_share(u, jnp.asarray(self.rate, u.dtype)) if self._firing is None else self._firing(u)

    def prepare(self, step_size) -> Step:
        shape = self.lattice.field_shape
        spectrum, axes = jnp.fft.rfftn(jnp.asarray(self.kernel)) * self.volume, tuple(range(len(shape)))

        def slope(state: NeuralState, time) -> NeuralState:
            u, a = state
            spread = jnp.fft.irfftn(spectrum * jnp.fft.rfftn(self.firing(u)), s=shape, axes=axes).astype(u.dtype)
            outside = jnp.asarray(self.input, u.dtype) + (0 if self.drive is None else self.drive(time))
            change = (spread - u - self.adaptation * a + outside) / self.time_constant
            return NeuralState(change, (u - a) / self.adaptation_time)

        return lambda state, key, time: runge_kutta(slope, state, time, step_size)

    def observe(self, state: NeuralState):
        return state.activity

    def measured(self, state: NeuralState) -> dict:
        return {"active": jnp.sum(self.firing(state.activity)) * self.volume}


def distances(shape: tuple[int, ...], spacing: float) -> np.ndarray:
    """The distance of every site from the first one, the shorter way around."""
    axes = np.meshgrid(*(np.minimum(np.arange(n), n - np.arange(n)) for n in shape), indexing="ij")
    return spacing * np.sqrt(np.sum([axis.astype(float) ** 2 for axis in axes], axis=0))
