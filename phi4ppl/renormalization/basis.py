"""Bases of actions: named terms, each a sum over the lattice of products over clusters, as a model and as operators."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from ..errors import ArgumentError
from ..lattice.frozen import Lattice, translates
from ..lattice.regular import from_offsets
from ..model.field import MarkovRandomField
from ..model.statistic import BUILT_IN, hopping, mass, power_of
from ..model.term import Term
from .blocks_of_sites import regular
from .operators import Operator, operator

__all__ = ["TERMS", "basis_model", "basis_of", "missing_neighbors", "wraps_of"]

# A site that is named k times has the power k. Names that begin with w have the sign of hopping: S contains −w φφ.
TERMS = {
    "w": ((0,), (1,)), "a": ((0,),) * 2, "b": ((0,),) * 4, "c": ((0,),) * 6,
    "w_diagonal": ((0, 0), (1, 1)), "w_second": ((0,), (2,)), "w_knight": ((0, 0), (2, 1)),
    "u": ((0,), (0,), (1,), (1,)), "v": ((0,), (0,), (0,), (1,)),
}  # fmt: skip
MEANING = {
    "w": "−Σ φφ, neighbors", "a": "Σ φ²", "b": "Σ φ⁴", "c": "Σ φ⁶", "w_diagonal": "−Σ φφ at √2", "w_second": "−Σ φφ at 2",
    "w_knight": "−Σ φφ at √5", "u": "Σ φ²φ², neighbors", "v": "Σ φ³φ + φφ³, neighbors",
}  # fmt: skip
KINDS = {1: "nn", 2: "diagonal", 4: "second", 5: "knight"}
POWERS = {s.power: s for s in BUILT_IN.values() if s.power}


def missing_neighbors(shape: tuple[int, ...], periodic: tuple[bool, ...]) -> np.ndarray:
    """How many nearest neighbors of every site an open boundary cuts off."""
    ends = [(x == 0).astype(int) + (x == n - 1) for x, n in zip(np.indices(shape), shape, strict=True)]
    return np.sum([end * (not wrap) for end, wrap in zip(ends, periodic, strict=True)], axis=0)


def wraps_of(lattice: Lattice) -> tuple[bool, ...]:
    """Which axes are periodic; all, of a lattice that does not say."""
    return tuple(map(bool, lattice.periodic)) if lattice.periodic else (True,) * len(lattice.field_shape)


@dataclass(frozen=True)
class EdgeSquares:
    """Σ φ² over sites with so many neighbors missing, on a lattice that is open along every axis."""

    missing: int

    def __call__(self, phi):
        chosen = missing_neighbors(phi.shape, (False,) * phi.ndim) == self.missing
        return jnp.sum(jnp.where(chosen, phi**2, 0))


@dataclass(frozen=True)
class Monomials:
    """T = Σ_m Π_i φ_i^{powers[m][i]} of the sites of one clique."""

    powers: tuple[tuple[int, ...], ...]

    def __call__(self, *phi):
        total = 0.0
        for each in self.powers:
            product = 1.0
            for value, power in zip(phi, each, strict=True):
                product = product * power_of(value, power) if power else product
            total = total + product
        return total


def basis_of(given, dimension: int) -> dict[str, Operator]:
    """Operators by name from names of `TERMS`, or a dict that adds clusters of offsets.

    Raises
    ------
    ArgumentError
        If a name is unknown, or a term is odd.
    """
    found = {}
    for each in given.items() if isinstance(given, Mapping) else given:
        name, cluster = each if isinstance(each, tuple) else (each, None)
        if cluster is None and name in (edges := [f"e_{h}" for h in range(1, dimension + 1)]) and name not in found:
            found[name] = Operator(name, (), True, EdgeSquares(1 + edges.index(name)))
            continue
        cluster = TERMS.get(name) if cluster is None else cluster
        if not isinstance(name, str) or cluster is None or name in found:
            expected = f"different names among {', '.join([*TERMS, 'e_1', 'e_2'])}, or clusters of offsets by name"
            raise ArgumentError(
                "basis", expected, repr(name), "For example {'w': None, 'g': [(0, 0), (1, 1)]}.", reason="name"
            )
        found[name] = operator(name, cluster, dimension)
        if not found[name].is_even:
            raise ArgumentError("basis", "even terms", f"{name!r} of {len(cluster)} factors", reason="odd")
    if not found:
        raise ArgumentError("basis", "at least one term", "none", reason="empty")
    return found


def sign_of(name: str, each: Operator) -> float:
    """−1 for hopping terms, S = −w φφ."""
    return -1.0 if _is_hopping(each) else 1.0


def _is_hopping(each: Operator) -> bool:
    return bool(each.clusters) and all(len(c) == 2 and c[0] != c[1] for c in each.clusters)


def basis_model(
    basis: dict[str, Operator], shape: tuple[int, ...], couplings: dict | None = None, wraps: tuple[bool, ...] | None = None
) -> MarkovRandomField:  # fmt: skip
    """The model of a basis, at given couplings or at zero, on the lattice with all the edges that it needs.

    ``wraps`` says which axes are periodic, by default all.

    Raises
    ------
    ArgumentError
        If a side is not longer than twice the reach of a term, or the reach at open boundaries, or a term needs these.
    """
    wraps = (True,) * len(shape) if wraps is None else wraps
    reach = max(each.reach for each in basis.values())
    if any(n <= (2 * reach if wrap else reach) for n, wrap in zip(shape, wraps, strict=True)):
        fix = "Block fewer times, start from a larger lattice, or leave out terms."
        expected = f"sides above {2 * reach}, twice the reach of the basis" if any(wraps) else f"sides above {reach}"
        raise ArgumentError("levels", expected, f"{shape}", fix, reason="small")
    lattice, terms = _lattice(basis, shape, wraps), []
    for name, each in basis.items():
        coupling = 0.0 if couplings is None else float(couplings[name])
        if isinstance(each.function, EdgeSquares):
            sites = np.flatnonzero(missing_neighbors(shape, wraps) == each.function.missing)
            if any(wraps) or not len(sites):
                got = f"{name!r} on {lattice.name}"
                raise ArgumentError("basis", "terms of edges on open lattices only", got, reason="edges")
            terms.append(Term(name, sites[:, None], mass, coupling))
            continue
        supports = defaultdict(list)
        for cluster in each.clusters:
            counts = Counter(cluster)
            sites = tuple(sorted(counts))
            origin = sites[0]
            support = tuple(tuple(int(k - o) for k, o in zip(s, origin, strict=True)) for s in sites)
            supports[support].append(tuple(counts[s] for s in sites))
        cliques = np.concatenate([translates(shape, wraps, support) for support in supports])
        (powers,) = {tuple(sorted(p)) for p in supports.values()}
        statistic = hopping if _is_hopping(each) else POWERS.get(powers[0][0], None) if len(powers[0]) == 1 else None
        terms.append(Term(name, cliques, statistic or Monomials(powers), coupling))
    return MarkovRandomField(lattice, terms)


def _lattice(basis: dict[str, Operator], shape: tuple[int, ...], wraps: tuple[bool, ...]) -> Lattice:
    """The lattice with an edge between all sites that share a term; the ordinary one if that is enough."""
    kinds: dict[str, set] = defaultdict(set)
    for each in basis.values():
        for cluster in each.clusters:
            for one in set(cluster):
                for two in set(cluster):
                    step = tuple(int(p - q) for p, q in zip(two, one, strict=True))
                    if step > (0,) * len(shape):
                        square = sum(k * k for k in step)
                        kinds[KINDS.get(square, f"distance_{square}")].add(step)
    if set(kinds) <= {"nn"}:
        return regular(shape, wraps)
    return from_offsets(
        shape, {kind: tuple(sorted(kinds[kind], reverse=True)) for kind in sorted(kinds)}, periodic=wraps
    )
