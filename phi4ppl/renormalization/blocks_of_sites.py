"""Which fine sites make a coarse one: cubes of a regular lattice, or the parts of a partition of a graph."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import positive_int
from ..lattice.frozen import Lattice
from ..lattice.regular import chain, hypercubic, square, triangular

__all__ = ["BlocksOfSites", "cubes", "lattice_like", "parts", "regular"]


@dataclass(frozen=True, eq=False)
class BlocksOfSites:
    """Blocks between two lattices.

    Attributes
    ----------
    fine, coarse : Lattice
    factor : int or None
        Sites along the side of a cube; None for a partition.
    label : int array, shape (fine.num_sites,)
        The coarse site of every fine one.
    """

    fine: Lattice
    coarse: Lattice
    factor: int | None
    label: np.ndarray

    @property
    def dimension(self) -> int | None:
        return None if self.factor is None else len(self.fine.shape or ())

    @property
    def sizes(self) -> np.ndarray:
        """Fine sites of every block, in the shape of a coarse field."""
        return np.bincount(self.label, minlength=self.coarse.num_sites).reshape(self.coarse.field_shape)

    def sum(self, fields: np.ndarray) -> np.ndarray:
        """Sums over every block in double precision: (n, *fine_shape) → (n, *coarse_shape)."""
        if self.factor is None:
            order = np.argsort(self.label, kind="stable")
            starts = np.searchsorted(self.label[order], np.arange(self.coarse.num_sites))
            sums = np.add.reduceat(fields.reshape(len(fields), -1)[:, order].astype(float), starts, axis=1)
            return sums.reshape(len(fields), *self.coarse.field_shape)
        total = np.zeros((len(fields), *self.coarse.field_shape))
        for corner in itertools.product(range(self.factor), repeat=fields.ndim - 1):
            total += fields[(slice(None), *(slice(k, None, self.factor) for k in corner))]
        return total

    def mean(self, fields: np.ndarray) -> np.ndarray:
        return self.sum(fields) / (self.sizes if self.factor is None else self.factor ** (fields.ndim - 1))

    def first(self, fields: np.ndarray) -> np.ndarray:
        """The field at the first site of every block."""
        if self.factor is None:
            return fields.reshape(len(fields), -1)[:, np.unique(self.label, return_index=True)[1]]
        return fields[(slice(None), *(slice(None, None, self.factor),) * (fields.ndim - 1))]


def cubes(lattice: Lattice, factor: int) -> BlocksOfSites:
    """Cubes of ``factor`` sites a side, aligned with site 0.

    Raises
    ------
    ArgumentError
        If the lattice is not regular, a side is no multiple of the factor, or a coarse side would be shorter than 2.
    """
    factor = positive_int("factor", factor, minimum=2)
    shape, periodic = lattice.shape, lattice.periodic
    if shape is None or periodic is None:
        fix = "Give partition=: the block of every site."
        raise ArgumentError("lattice", "a regular lattice", repr(lattice), fix, reason="partition")
    if lattice.sign_kinds or "antiperiodic" in lattice.name:
        raise ArgumentError("lattice", "a periodic or an open one", repr(lattice), reason="antiperiodic")
    if any(n % factor or n // factor < 2 for n in shape):
        fix = f"Blocks of side {factor} have to fill it, with two or more along every axis: block fewer times."
        expected = f"sides that are multiples of {factor}, of at least {2 * factor}"
        raise ArgumentError("fields", expected, f"shape {shape}", fix, reason="sides")
    coarse = lattice_like(lattice, tuple(n // factor for n in shape))
    places = np.indices(shape).reshape(len(shape), -1) // factor
    return BlocksOfSites(lattice, coarse, factor, np.asarray(np.ravel_multi_index(tuple(places), coarse.field_shape)))


def lattice_like(lattice: Lattice, shape: tuple[int, ...]) -> Lattice:
    """A lattice of the same kind with other sides."""
    periodic = tuple(lattice.periodic or ())
    if lattice.layout_hint == "triangular":
        return triangular(*shape, periodic=periodic)
    if lattice.layout_hint == "diagonals":
        return square(*shape, periodic=periodic, diagonals=True)
    return regular(shape, periodic)


def regular(shape: tuple[int, ...], periodic: tuple[bool, ...] | bool = True) -> Lattice:
    """A chain, a square lattice, or a hypercubic one, by the number of sides."""
    if len(shape) == 1:
        return chain(shape[0], periodic=periodic if isinstance(periodic, bool) else periodic[0])
    return square(*shape, periodic=periodic) if len(shape) == 2 else hypercubic(shape, periodic=periodic)


def parts(lattice: Lattice, partition) -> BlocksOfSites:
    """The parts of a partition: coarse sites are adjacent if fine sites of theirs are.

    Raises
    ------
    ArgumentError
        If ``partition`` is not one number 0, 1, … for every site, or a number is left out.
    """
    label = np.asarray(partition)
    if label.dtype.kind not in "iu" or label.size != lattice.num_sites or label.shape not in _shapes(lattice):
        got = f"dtype {label.dtype} and shape {label.shape}"
        raise ArgumentError("partition", f"the block of each of {lattice.num_sites} sites, integers", got)
    label = label.reshape(-1)
    number = int(label.max()) + 1
    empty = np.setdiff1d(np.arange(number), label)
    if label.min() < 0 or len(empty):
        got = f"block {label.min()}" if label.min() < 0 else f"no site in block {empty[0]}"
        raise ArgumentError("partition", f"blocks 0 to {number - 1}, none of them empty", got, reason="empty")
    if number < 2:
        raise ArgumentError("partition", "at least two blocks", "one", reason="count")
    ends = np.sort(label[lattice.edges], axis=1)
    edges = np.unique(ends[ends[:, 0] != ends[:, 1]], axis=0).reshape(-1, 2)
    means = [np.bincount(label, column) / np.bincount(label) for column in lattice.positions.T]
    coarse = Lattice(
        name=f"{number} blocks of {lattice.name}", num_sites=number, edges=edges, positions=np.stack(means, axis=1)
    )
    return BlocksOfSites(lattice, coarse, None, label)


def _shapes(lattice: Lattice) -> tuple:
    return (math.prod(lattice.field_shape),), lattice.field_shape
