"""Operators: sums over the lattice of products of the field over small clusters, and their measurement on many fields."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from .._typing import Fields, Series
from ..errors import ArgumentError
from ..errors.arguments import call_checked
from ..lattice.frozen import Lattice

__all__ = ["Operator", "measure_operators", "operator", "operators_of", "standard_operators"]

Cluster = tuple[tuple[int, ...], ...]
CHUNK = 1 << 18  # numbers of fields in one step of the compiled loop, which fit in a cache

# Clusters in two dimensions or more, by the leading components of their sites. Names of two-point functions are distances.
EVEN: dict[str, Cluster] = {
    "1": ((0,), (1,)),
    "sqrt2": ((0, 0), (1, 1)),
    "2": ((0,), (2,)),
    "plaquette": ((0, 0), (1, 0), (0, 1), (1, 1)),
    "sqrt5": ((0, 0), (2, 1)),
    "diamond": ((1, 0), (-1, 0), (0, 1), (0, -1)),
    "sqrt8": ((0, 0), (2, 2)),
}
ODD: dict[str, Cluster] = {
    "field": ((0,),),
    "corner": ((0, 0), (1, 0), (0, 1)),
    "row": ((-1,), (0,), (1,)),
    "diagonal": ((-1, -1), (0, 0), (1, 1)),
}
POWERS: dict[str, Cluster] = {"phi2": ((0,),) * 2, "phi4": ((0,),) * 4, "phi3": ((0,),) * 3}  # 1 or φ for spins


@dataclass(frozen=True)
class Operator:
    """Σ_x Σ_c Π_{r∈c} φ(x + r), over all sites x and the images c of a cluster under the symmetries of the lattice.

    Attributes
    ----------
    name : str
    clusters : tuple of clusters
        Each image once, as offsets of its sites; a site that is named twice counts twice.
    function : callable, optional
        A JAX function of one field instead.
    is_even : bool
        Whether it is the same at φ and −φ, or changes sign.
    """

    name: str
    clusters: tuple[Cluster, ...]
    is_even: bool
    function: Callable | None = None

    @property
    def reach(self) -> int:
        """The longest side of a cluster, in sites."""
        sites = [np.ptp(np.array(c), axis=0).max() for c in self.clusters]
        return int(max(sites, default=0))


@call_checked
def operator(name: str, cluster, dimension: int) -> Operator:
    """The operator of one cluster and its images under reflections and exchanges of the axes.

    Parameters
    ----------
    name : str
    cluster : sequence of offsets
        Each of ``dimension`` integers, or fewer: the rest are 0. Of one axis, a plain integer.
    dimension : int

    Raises
    ------
    ArgumentError
        If an offset is not a tuple of at most ``dimension`` integers.

    Examples
    --------
    >>> from phi4ppl.renormalization import operator
    >>> len(operator("knight", [(0, 0), (2, 1)], 2).clusters), operator("knight", [(0, 0), (2, 1)], 2).is_even
    (4, True)
    """
    sites = [tuple(np.atleast_1d(site).tolist()) for site in cluster] if np.iterable(cluster) else []
    if not sites or not all(len(s) <= dimension and all(isinstance(k, int) for k in s) for s in sites):
        expected = f"offsets of {dimension} integers"
        raise ArgumentError(f"operator {name!r}", expected, repr(cluster)[:80], "For example [(0, 0), (1, 1)].")
    array, images = np.array([s + (0,) * (dimension - len(s)) for s in sites]), set()
    for order in itertools.permutations(range(dimension)):
        for signs in itertools.product((1, -1), repeat=dimension):
            image = array[:, order] * np.array(signs)
            images.add(tuple(sorted(map(tuple, (image - image.min(axis=0)).tolist()))))
    return Operator(name, tuple(sorted(images)), len(sites) % 2 == 0)


@call_checked
def standard_operators(dimension: int, *, spins: bool = False) -> tuple[Operator, ...]:
    """The operators that `monte_carlo_rg` takes by default, in the order in which it keeps them.

    Seven even ones (φφ at distances 1, √2, 2, √5 and √8, and two products of four) and four odd ones (the field, and three
    products of three); for fields that are no spins φ², φ⁴ and φ³ as well. In three dimensions they lie in all the planes.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> [o.name for o in p4.renormalization.standard_operators(2, spins=True)]
    ['1', 'sqrt2', '2', 'plaquette', 'sqrt5', 'diamond', 'sqrt8', 'field', 'corner', 'row', 'diagonal']
    """
    powers = {} if spins else POWERS
    (first, *rest), odd = EVEN.items(), list(ODD.items())
    even = [first, *((n, c) for n, c in powers.items() if len(c) % 2 == 0), *rest]
    odd[1:1] = [(n, c) for n, c in powers.items() if len(c) % 2]
    chosen = [(n, c) for n, c in even + odd if len(c[0]) <= dimension]
    return tuple(operator(n, c, dimension) for n, c in chosen)


def operators_of(given, lattice: Lattice, spins: bool) -> tuple[Operator, ...]:
    """Operators from what users give: None for the standard ones, names of them, clusters or functions by name, or operators.

    Raises
    ------
    ArgumentError
        If a name is unknown or used twice, a function is neither even nor odd, or the lattice lacks the symmetries over
        which clusters are summed.
    """
    shape = lattice.shape
    if shape is None or lattice.periodic is None or not all(lattice.periodic) or "antiperiodic" in lattice.name:
        raise ArgumentError("operators", "a torus to sum them over", repr(lattice), reason="lattice")
    known = {each.name: each for each in standard_operators(len(shape), spins=spins)}
    expected = f"names among {', '.join(known)}, or clusters or functions by name"
    if given is not None and (isinstance(given, str) or not np.iterable(given)):
        raise ArgumentError("operators", expected, repr(given)[:80], "For example operators=['1', 'field'].")
    own = given is not None and all(callable(f) for f in (given.values() if isinstance(given, Mapping) else [None]))
    if not own and not has_symmetries_of_cubes(lattice):
        fix = "Give functions of one field that have the symmetries of the lattice: operators={'nn': lambda phi: …}."
        wanted = "a lattice that looks the same along all axes, whose symmetries clusters are summed over"
        raise ArgumentError("operators", wanted, lattice.name, fix, reason="symmetries")
    if given is None:
        return tuple(known.values())
    found = []
    for each in given.items() if isinstance(given, Mapping) else given:
        if isinstance(each, Operator):
            found.append(each)
        elif isinstance(each, str) and each in known:
            found.append(known[each])
        elif isinstance(each, tuple) and len(each) == 2 and isinstance(each[0], str):
            name, what = each
            found.append(_of_function(name, what, shape) if callable(what) else operator(name, what, len(shape)))
        else:
            raise ArgumentError("operators", expected, repr(each)[:80], reason="name")
    names = [each.name for each in found]
    if len(set(names)) < len(names) or not names:
        raise ArgumentError("operators", "one or more, of different names", f"{names}", reason="duplicate")
    return tuple(found)


def has_symmetries_of_cubes(lattice: Lattice) -> bool:
    """Whether reflections and exchanges of the axes lead from edges to edges: not on a triangular lattice."""
    if lattice.offsets is None:
        return True
    for steps in lattice.offsets.values():
        both = {tuple(sign * k for k in step) for step in steps for sign in (1, -1)}
        images = (
            tuple(sign * step[k] for sign, k in zip(signs, order, strict=True))
            for step in both
            for order in itertools.permutations(range(len(step)))
            for signs in itertools.product((1, -1), repeat=len(step))
        )
        if not both.issuperset(images):
            return False
    return True


def _of_function(name: str, function: Callable, shape) -> Operator:
    phi = np.random.default_rng(0).normal(size=shape)
    expected = "a JAX function of one field that is even or odd, and returns a number"
    try:
        with jax.enable_x64(True):
            plus, minus = (np.asarray(function(jnp.asarray(s * phi))) for s in (1, -1))
    except Exception as error:  # the user should read whatever the function raises
        raise ArgumentError(
            f"operator {name!r}", expected, f"{type(error).__name__}: {error}", reason="raises"
        ) from error
    if plus.shape or not (np.isclose(plus, minus) or np.isclose(plus, -minus)):
        got = f"shape {plus.shape}" if plus.shape else f"{plus:.6g} and {minus:.6g} at φ and −φ"
        raise ArgumentError(f"operator {name!r}", expected, got, reason="returns")
    return Operator(name, (), bool(np.isclose(plus, minus)), function)


def measure_operators(fields: Fields, operators: tuple[Operator, ...], periodic=True) -> Series:
    """Every operator on every field, in double precision: (chains, draws, *shape) → (chains, draws, operators).

    Clusters that an open boundary cuts are left out; ``periodic`` is one bool, or one for each axis.
    """
    flat, shape = fields.reshape(-1, *fields.shape[2:]), fields.shape[2:]
    batch = max(1, min(len(flat), CHUNK // int(np.prod(shape))))
    wraps = (periodic,) * len(shape) if isinstance(periodic, bool) else tuple(periodic)
    with jax.enable_x64(True):
        values = np.asarray(_program(operators, shape, batch, wraps)(jnp.asarray(flat)))
    return values.reshape(*fields.shape[:2], len(operators))


@functools.lru_cache(maxsize=64)
def _program(operators: tuple[Operator, ...], shape: tuple[int, ...], batch: int, wraps: tuple[bool, ...]) -> Callable:
    """One compiled loop over fields: each is widened by a halo, of which shifted fields are slices; 0 where it is open."""
    reach = max((each.reach for each in operators), default=0)

    def of_one(phi):
        phi = phi.astype(float)
        wide = phi
        for axis, wrap in enumerate(wraps if reach else ()):
            halo = [(0, reach if k == axis else 0) for k in range(phi.ndim)]
            wide = jnp.pad(wide, halo, mode="wrap" if wrap else "constant")
        shifted = functools.cache(lambda r: wide[tuple(slice(k, k + n) for k, n in zip(r, shape, strict=True))])

        def product(cluster):
            return functools.reduce(jnp.multiply, map(shifted, cluster))

        def value(each):
            if each.function is not None:
                return each.function(phi)
            return jnp.sum(functools.reduce(jnp.add, map(product, each.clusters)))

        return jnp.stack([value(each) for each in operators])

    return jax.jit(lambda flat: jax.lax.map(of_one, flat, batch_size=batch))
