"""Transformations of inputs and of layers: what a model may be invariant under.

Each acts on arrays whose first axis counts examples, along ``axes`` of space. Arrays of NumPy stay such, in their precision;
those of JAX can be differentiated. A one-parameter family g_t, with g_0 the identity, has a generator.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import networkx as nx
import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, positive_int, seed_within
from ..errors.streams import stream_rng
from ..lattice.frozen import Lattice
from ..spectral.matrices import one_number
from .activations import as_array

__all__ = [
    "Family", "Function", "Permutation", "Reflection", "Rotation", "Sign", "Transformation", "Translation", "VectorRotation",
    "automorphisms",
]  # fmt: skip

IN_DEGREES = "For a quarter turn 90."
MAX_SITES = 1024  # of graphs whose automorphisms are searched for


def _library(x):
    return np if isinstance(x, np.ndarray) else jnp


class Transformation:
    """One transformation g; an abstract class.

    Attributes
    ----------
    name : str
    unit : str
        Of the parameter of its family; empty where there is none.
    """

    name: str = ""
    unit: str = ""

    def fits(self, shape: tuple[int, ...], axes: tuple[int, ...]) -> bool:
        """Whether it acts on arrays of this shape, with space along these axes."""
        return bool(axes)

    def act(self, x, axes: tuple[int, ...], scale: tuple[float, ...]):
        """g x; ``scale`` is the number of sites along each axis over that of the input."""
        raise NotImplementedError

    def family(self, x, t, axes: tuple[int, ...], scale: tuple[float, ...]):
        """g_t x."""
        raise NotImplementedError


def _shifted(x, shift, axis: int):
    """x translated along a periodic axis by any number of sites: by phases of its Fourier modes.

    ``shift`` is a number, or an array that broadcasts against ``x`` with one entry along ``axis``.
    """
    xp, n = _library(x), x.shape[axis]
    waves = np.fft.fftfreq(n, 1 / n).reshape([-1 if k == axis else 1 for k in range(x.ndim)]).astype(x.dtype)
    if xp is jnp:
        waves = jnp.asarray(waves)
    angle = xp.broadcast_to(waves, x.shape) * xp.broadcast_to(2 * math.pi / n * xp.asarray(shift, x.dtype), x.shape)
    modes = xp.fft.fft(x, axis=axis)
    highest = np.abs(np.broadcast_to(np.asarray(waves), x.shape)) == n / 2  # its sine vanishes on the sites
    phase = xp.cos(angle) - 1j * xp.where(highest, xp.zeros_like(angle), xp.sin(angle))
    return xp.fft.ifft(modes * phase, axis=axis).real.astype(x.dtype)


@call_checked
@dataclass(frozen=True)
class Translation(Transformation):
    """Translation by ``shift`` sites along the axes of space, which are periodic: also by fractions of a site.

    Fields between the sites are those of their Fourier series. The generator is the derivative along the shift, per site.

    Parameters
    ----------
    shift : float or tuple of floats
        One number for each axis of space; a single one is along the first of them.

    Examples
    --------
    >>> import numpy as np
    >>> from phi4ppl.lens import Translation
    >>> x = np.cos(2 * np.pi * np.arange(8) / 8)[None]
    >>> moved = Translation(0.5).act(x, (1,), (1.0,))
    >>> bool(np.allclose(moved, np.cos(2 * np.pi * (np.arange(8) - 0.5) / 8)))
    True
    """

    shift: Any  # a tuple of floats, from whatever was given
    unit = "site"

    def __post_init__(self):
        object.__setattr__(
            self, "shift", tuple(np.atleast_1d(finite_array("shift", self.shift).astype(float)).tolist())
        )

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"translation by {', '.join(f'{s:g}' for s in self.shift)}"

    def fits(self, shape, axes):
        return len(axes) >= len(self.shift)

    def act(self, x, axes, scale):
        for shift, axis, factor in zip(self.shift, axes, scale, strict=False):
            amount = shift * factor
            if abs(amount - round(amount)) < 1e-12:
                x = _library(x).roll(x, round(amount), axis)
            else:
                x = _shifted(x, amount, axis)
        return x

    def family(self, x, t, axes, scale):
        length = math.sqrt(sum(s**2 for s in self.shift)) or 1.0
        for shift, axis, factor in zip(self.shift, axes, scale, strict=False):
            if shift:
                x = _shifted(x, t * (shift * factor / length), axis)
        return x


@call_checked
@dataclass(frozen=True)
class Rotation(Transformation):
    """Rotation of images about their center, in degrees, counterclockwise on the screen: the first axis points down.

    Quarter turns are exact. The rest is three shears, each a translation of every row by a fraction (A. W. Paeth, 1986), so
    that what leaves on one side enters on the other: give images with a margin. The generator is per radian.

    Parameters
    ----------
    angle : float
        Degrees.
    """

    angle: float
    unit = "radian"

    def __post_init__(self):
        object.__setattr__(self, "angle", one_number("angle", self.angle, IN_DEGREES))

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"rotation by {self.angle:g}°"

    def fits(self, shape, axes):
        return len(axes) == 2 and shape[axes[0]] == shape[axes[1]]

    def act(self, x, axes, scale):
        turns = round(self.angle / 90)
        rest = math.radians(self.angle - 90 * turns)
        x = _library(x).rot90(x, turns, axes)
        return x if abs(rest) < 1e-12 else self.family(x, rest, axes, scale)

    def family(self, x, t, axes, scale):
        xp = _library(x)
        down, right = axes
        place = [
            np.reshape(np.arange(x.shape[a]) - (x.shape[a] - 1) / 2, [-1 if k == a else 1 for k in range(x.ndim)])
            for a in axes
        ]
        rows, columns = (xp.broadcast_to(xp.asarray(p.astype(x.dtype)), x.shape) for p in place)
        half, sine = xp.tan(t / 2), xp.sin(t)
        x = _shifted(x, half * rows, right)
        x = _shifted(x, -sine * columns, down)
        return _shifted(x, half * rows, right)


@call_checked
@dataclass(frozen=True)
class VectorRotation(Transformation):
    """Rotation of two components of vectors, by an angle in degrees: (a, b) → (a cos − b sin, a sin + b cos).

    Parameters
    ----------
    angle : float
        Degrees. The generator is per radian.
    plane : pair of int
        Components along the last axis.
    """

    angle: float
    plane: tuple[int, int] = (0, 1)
    unit = "radian"

    def __post_init__(self):
        object.__setattr__(self, "angle", one_number("angle", self.angle, IN_DEGREES))
        plane = self.plane if isinstance(self.plane, tuple | list) else ()
        if (
            len(plane) != 2
            or plane[0] == plane[1]
            or not all(isinstance(k, numbers.Integral) and k >= 0 for k in plane)
        ):
            got = repr(self.plane) if isinstance(self.plane, tuple | list) else f"a {type(self.plane).__name__}"
            raise ArgumentError("plane", "two different components, counted from 0", got)
        object.__setattr__(self, "plane", (int(plane[0]), int(plane[1])))

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"rotation of {self.plane[0]}, {self.plane[1]} by {self.angle:g}°"

    def fits(self, shape, axes):
        return len(shape) > 1 and max(self.plane) < shape[-1]

    def act(self, x, axes, scale):
        return self.family(x, math.radians(self.angle), axes, scale)

    def family(self, x, t, axes, scale):
        xp, (i, j) = _library(x), self.plane
        columns = [x[..., k] for k in range(x.shape[-1])]
        cosine, sine = xp.cos(xp.asarray(t, x.dtype)), xp.sin(xp.asarray(t, x.dtype))
        a, b = columns[i], columns[j]
        columns[i], columns[j] = cosine * a - sine * b, sine * a + cosine * b
        return xp.stack(columns, axis=-1)


@call_checked
@dataclass(frozen=True)
class Reflection(Transformation):
    """Mirror image along one axis of space: 0 is the first.

    Parameters
    ----------
    axis : int
    """

    axis: int = 0

    def __post_init__(self):
        object.__setattr__(self, "axis", positive_int("axis", self.axis, minimum=0))

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"reflection of axis {self.axis}"

    def fits(self, shape, axes):
        return self.axis < len(axes)

    def act(self, x, axes, scale):
        return _library(x).flip(x, axes[self.axis])


@call_checked
@dataclass(frozen=True)
class Sign(Transformation):
    """x → −x."""

    name = "sign"

    def fits(self, shape, axes):
        return True

    def act(self, x, axes, scale):
        return -x


@call_checked
@dataclass(frozen=True, eq=False)
class Permutation(Transformation):
    """A permutation of sites, or of the entries of vectors: entry i of the result is entry ``order[i]``.

    Parameters
    ----------
    order : int array
        Of all sites; of lattices with several axes in the order of the flat field.
    name : str, optional
    """

    order: np.ndarray
    name: str = "permutation"

    def __post_init__(self):
        order = as_array("order", self.order)
        if order.ndim != 1 or sorted(order.tolist()) != list(range(order.size)):
            raise ArgumentError("order", "every number from 0 to n − 1 once", f"{self.order!r}")
        object.__setattr__(self, "order", order.astype(int))

    def fits(self, shape, axes):
        return bool(axes) and math.prod(shape[a] for a in axes) == len(self.order)

    def act(self, x, axes, scale):
        xp, first, last = _library(x), axes[0], axes[-1]
        flat = x.reshape(*x.shape[:first], -1, *x.shape[last + 1 :])
        return xp.take(flat, self.order, axis=first).reshape(x.shape)


@call_checked
@dataclass(frozen=True, eq=False)
class Function(Transformation):
    """Any function of a batch of inputs; it acts on layers of the shape of the input as well.

    Parameters
    ----------
    function : callable
    name : str, optional
    """

    function: Callable
    name: str = "function"

    def fits(self, shape, axes):
        return True

    def act(self, x, axes, scale):
        return self.function(x)


@call_checked
@dataclass(frozen=True, eq=False)
class Family(Transformation):
    """Any one-parameter family ``function(x, t)`` of JAX functions of a batch of inputs, the identity at t = 0.

    Parameters
    ----------
    function : callable
    parameter : float
        t of the finite transformation.
    name, unit : str, optional
    """

    function: Callable
    parameter: float
    name: str = "family"
    unit: str = field(default="t")

    def fits(self, shape, axes):
        return True

    def act(self, x, axes, scale):
        return self.function(x, self.parameter)

    def family(self, x, t, axes, scale):
        return self.function(x, t)


@call_checked
def automorphisms(lattice: Lattice, number: int = 4, *, seed: int = 0) -> list[Permutation]:
    """Some random permutations of the sites that map edges to edges of the same kind.

    Parameters
    ----------
    lattice : Lattice
        Of at most 1,024 sites.
    number : int
        How many; the same one may come twice.
    seed : int

    Returns
    -------
    list of Permutation

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> import phi4ppl as p4
    >>> ring = p4.lattice.chain(5)
    >>> order = p4.lens.automorphisms(ring, 1)[0].order
    >>> all((order[i] - order[j]) % 5 in (1, 4) for i, j in ring.edges)
    True
    """
    number, seed = positive_int("number", number), seed_within(seed)
    if not isinstance(lattice, Lattice) or lattice.num_sites > MAX_SITES:
        got = str(getattr(lattice, "num_sites", type(lattice).__name__))
        raise ArgumentError("lattice", f"a Lattice of at most {MAX_SITES} sites", got)
    graph = nx.Graph()
    graph.add_nodes_from(range(lattice.num_sites))
    for kind in lattice.kinds:
        graph.add_edges_from((tuple(map(int, edge)) for edge in lattice.edges_of(kind)), kind=kind)
    found, rng = [], stream_rng(seed, "automorphisms")
    for k in range(number):
        shuffled = nx.Graph()
        shuffled.add_nodes_from(rng.permutation(lattice.num_sites).tolist())
        shuffled.add_edges_from((edge for edge in rng.permutation(list(graph.edges)).tolist()), kind="")
        for i, j in shuffled.edges:
            shuffled.edges[i, j]["kind"] = graph.edges[i, j]["kind"]
        matcher = nx.isomorphism.GraphMatcher(graph, shuffled, edge_match=lambda a, b: a["kind"] == b["kind"])
        mapping = next(matcher.isomorphisms_iter())
        order = np.array([mapping[i] for i in range(lattice.num_sites)])
        found.append(Permutation(order, f"automorphism {k + 1}"))
    return found
