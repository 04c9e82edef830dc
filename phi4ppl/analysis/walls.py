"""Walls between domains of opposite sign: their number on any graph, their length on the square lattice."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from ..errors import ArgumentError
from ..lattice.frozen import Lattice
from .two_point import two_point

__all__ = ["WALLS", "function_of_field", "wall_function"]


def function_of_field(name: str, lattice: Lattice) -> Callable:
    """The two-point function, or that of `WALLS`, of one field on a lattice."""
    return wall_function(name, lattice) if name in WALLS else two_point(name, lattice).measure


def wall_function(name: str, lattice: Lattice) -> Callable:
    """The function of one field ``name``, one of `WALLS`; the same one for equal lattices, so that programs are found again.

    Raises
    ------
    ArgumentError
        If it is not defined on this lattice.
    """
    return _made(name, lattice, lattice.name)


@functools.lru_cache(maxsize=64)
def _made(name: str, lattice: Lattice, words: str) -> Callable:
    function = WALLS[name][1](lattice)
    function.coupling_free = True  # type: ignore[attr-defined]  # programs that record only these are shared by all couplings
    return function


def _wall_edges(lattice: Lattice) -> Callable:
    edges = lattice.edges_of("nn") if "nn" in lattice.kinds else lattice.edges
    one, two = np.asarray(edges, np.int32).reshape(-1, 2).T

    def wall_edges(phi):
        up = phi.reshape(-1) > 0
        return jnp.sum(up[one] != up[two]).astype(phi.dtype)

    return wall_edges


def _interface_length(lattice: Lattice) -> Callable:
    square = lattice.shape is not None and len(lattice.shape) == 2 and lattice.layout_hint != "triangular"
    if not square or "antiperiodic" in lattice.name or min(lattice.shape) < 2:
        fix = "On any graph there is wall_edges, the number of edges between the signs."
        raise ArgumentError("interface_length", "a square lattice", lattice.name, fix, reason="lattice")
    # the last row and column of squares exist where the lattice is periodic
    kept = tuple(slice(None) if wraps else slice(-1) for wraps in lattice.periodic)

    def interface_length(phi):
        right, up = jnp.roll(phi, -1, 0), jnp.roll(phi, -1, 1)
        corners = [corner[kept] for corner in (phi, right, jnp.roll(right, -1, 1), up)]
        return jnp.sum(_length_in_squares(*corners))

    return interface_length


def _length_in_squares(a, b, c, d):
    """The length of φ = 0 in unit squares with these values at (0, 0), (1, 0), (1, 1), (0, 1), straight between the sides."""

    def crossing(first, second):
        crosses = (first > 0) != (second > 0)
        return crosses, first / jnp.where(crosses, first - second, 1)

    (below, s), (right, t), (above, u), (left, v) = (crossing(*pair) for pair in ((a, b), (b, c), (d, c), (a, d)))
    across = jnp.where(below & above, jnp.hypot(1, u - s), 0) + jnp.where(left & right, jnp.hypot(1, t - v), 0)
    cut = {
        "a": jnp.where(below & left, jnp.hypot(s, v), 0), "b": jnp.where(below & right, jnp.hypot(1 - s, t), 0),
        "c": jnp.where(above & right, jnp.hypot(1 - u, 1 - t), 0), "d": jnp.where(above & left, jnp.hypot(u, 1 - v), 0),
    }  # fmt: skip
    # at a saddle the sign in the middle tells which corners are cut off
    joined = ((a + b + c + d) > 0) == (a > 0)
    saddle = jnp.where(joined, cut["b"] + cut["d"], cut["a"] + cut["c"])
    return jnp.where(below & right & above & left, saddle, across + sum(cut.values()))


WALLS: dict[str, tuple[str, Callable[[Lattice], Callable]]] = {
    "wall_edges": ("number of nearest-neighbor edges between a site with φ > 0 and one without", _wall_edges),
    "interface_length": ("length of the lines φ = 0 of the square lattice, by linear interpolation", _interface_length),
}
"""Functions of one field by name: the formula, and what makes them on a lattice."""
