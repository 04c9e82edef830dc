"""Fields on a chessboard: the sites of either color as a separate array, so that a sweep does no wasted work.

Rows are taken in pairs. In every column of a pair one site is black (an even sum of coordinates) and one is white: black ones
are in the upper row of even columns and in the lower row of odd ones. An array of one color has a row for every pair and all
columns; splitting and joining are choices between two rows, which vectorize where copies with strides do not. Neighbors along
a row stay in that row of the other array. Of those along a column one is in the same pair, hence at the same place, and the
other one in the pair before (of an upper site) or behind (of a lower one).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from .._typing import Color, Field, JaxField, WholeField
from ..energy.stencil import coupling_fields, offsets_of, shifts
from ..lattice.frozen import Lattice
from .target import Target

__all__ = ["Chessboard", "chessboard", "join", "split"]


def _is_black_above(shape: tuple) -> np.ndarray:
    """Of every place in a pair of rows, shape ``(1, *shape[1:])``."""
    return np.indices((1, *shape[1:])).sum(axis=0) % 2 == 0


def split(field: WholeField) -> tuple[Color, Color]:
    """Black and white sites of a field, each of shape ``(rows / 2, …)``."""
    rows = field.reshape(-1, 2, *field.shape[1:])
    black_above = _is_black_above(field.shape)
    black, white = (jnp.where(above, rows[:, 0], rows[:, 1]) for above in (black_above, ~black_above))
    return black, white


def join(black: Color, white: Color) -> WholeField:
    """The field of these black and white sites."""
    black_above = _is_black_above(black.shape)
    rows = [jnp.where(above, black, white) for above in (black_above, ~black_above)]
    return jnp.stack(rows, axis=1).reshape(-1, *black.shape[1:])


@dataclass(frozen=True)
class Chessboard:
    """The terms of a target by color, 0 for black and 1 for white.

    Attributes
    ----------
    lattice : Lattice
        The lattice of the whole field.
    hoppings : list of tuple
        ``(axes, weights)`` of every hopping term: along which axes, and one number or ``weights[color]``, the couplings of a
        site with its neighbors in the order of `neighbors`.
    own : list of tuple
        ``(statistic, couplings)`` of every term of single sites, ``couplings[color]`` one number or one per site.
    """

    lattice: Lattice
    hoppings: list
    own: list

    def energy(self, color: int, phi: Field) -> JaxField:
        """The part of S that is a sum over single sites, by site of one color."""
        terms = (couplings[color] * _at_every_site(statistic, phi) for statistic, couplings in self.own)
        return sum(terms, start=jnp.zeros_like(phi))

    def neighbors(self, color: int, other: Field) -> list[JaxField]:
        """φ(x + d) and φ(x − d) of the sites x of one color, in turn for the unit vectors d; zero beyond an open boundary."""
        (below, *ahead), (above, *behind) = shifts(self.lattice, other, _unit_vectors(self.lattice))
        is_upper = _is_black_above(other.shape) ^ (color == 1)
        column = [jnp.where(is_upper, other, below), jnp.where(is_upper, above, other)]
        return column + [x for pair in zip(ahead, behind, strict=True) for x in pair]

    def pull(self, color: int, other: Field) -> JaxField:
        """−∂/∂φ of the hopping terms at the sites of one color, whose neighbors are ``other``."""
        neighbors, total = self.neighbors(color, other), jnp.zeros_like(other)
        for axes, weights in self.hoppings:
            near = [x for axis in axes for x in neighbors[2 * axis : 2 * axis + 2]]
            if isinstance(weights, list):
                total += sum(w * x for w, x in zip(weights[color], near, strict=True))
            else:
                total += weights * sum(near)
        return total


def _at_every_site(statistic, phi):
    return jax.vmap(statistic)(phi.reshape(-1)).reshape(phi.shape)


def _unit_vectors(lattice: Lattice) -> list:
    return [tuple(row) for row in np.eye(len(lattice.shape), dtype=int).tolist()]


def chessboard(target: Target, dtype) -> Chessboard | None:
    """The chessboard of a target with terms of single sites and bonds along the axes of an even lattice; None for any other."""
    lattice, hoppings, own = target.lattice, [], []
    shape = lattice.shape
    if shape is None or lattice.offsets is None or len(shape) < 2 or shape[0] % 2 or not _two_colors(lattice):
        return None
    for form, value in target.model.interactions:
        value = jnp.asarray(value, dtype)
        if form.is_hopping:
            offsets = [tuple(offset) for offset in offsets_of(lattice, form.cliques)]
            if not offsets or not set(offsets) <= set(_unit_vectors(lattice)):
                return None
            axes = [offset.index(1) for offset in offsets]
            hoppings.append((axes, _weights(lattice, value, offsets) if value.ndim else value))
        elif np.array_equal(form.cliques, np.arange(lattice.num_sites)[:, None]):
            own.append((form.statistic, split(value.reshape(shape)) if value.ndim else (value, value)))
        else:
            return None
    return Chessboard(lattice, hoppings, own) if hoppings else None


def _two_colors(lattice: Lattice) -> bool:
    return all(n % 2 == 0 for n, periodic in zip(lattice.shape, lattice.periodic, strict=True) if periodic)


def _weights(lattice: Lattice, values, offsets) -> list:
    """Couplings of every site with x + d and x − d, in turn for the offsets d; one list per color."""
    found = []
    for offset, ahead in zip(offsets, coupling_fields(lattice, values, offsets), strict=True):
        _, (behind,) = shifts(lattice, ahead, [offset])
        found += [split(ahead), split(behind)]
    return [list(of_color) for of_color in zip(*found, strict=True)]
