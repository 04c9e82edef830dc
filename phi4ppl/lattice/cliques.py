"""Which site tuples interact: checks of clique arrays, and the cliques of a lattice as arrays."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from ..errors import ArgumentError, HammersleyCliffordError
from ..errors.arguments import call_checked
from .frozen import Lattice

__all__ = ["all_cliques", "as_cliques", "plaquettes", "require_cliques_of"]


def as_cliques(name: str, cliques) -> np.ndarray:
    """Return ``cliques`` as a read-only int32 array of shape ``(num_cliques, clique_size)``.

    Raises
    ------
    ArgumentError
        If it is not a non-empty two-dimensional integer array, a clique names a site twice, or the same sites are in two
        rows, in whatever order.
    """
    fix = "Give one row per clique, for example [[0, 1], [1, 2]] for edges or numpy.arange(n)[:, None] for sites."
    try:
        array = np.asarray(cliques)
    except ValueError as error:
        raise ArgumentError(
            f"cliques of term {name!r}", "rows of equal length", "ragged rows", fix, reason="ragged"
        ) from error
    if array.dtype.kind not in "iu" or array.ndim != 2 or 0 in array.shape:
        got = f"dtype {array.dtype} and shape {array.shape}"
        raise ArgumentError(f"cliques of term {name!r}", "an int array of shape (num_cliques, size)", got, fix)
    ordered = np.sort(array, axis=1)
    twice = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
    if len(twice):
        got = f"{tuple(array[twice[0]].tolist())} in row {twice[0]}"
        raise ArgumentError(f"cliques of term {name!r}", "distinct sites in every clique", got, reason="repeated_site")
    _require_no_duplicates(name, array, ordered)
    largest = np.iinfo(np.int32).max
    if array.max() > largest or array.min() < -largest:
        raise ArgumentError(
            f"cliques of term {name!r}", f"site numbers up to {largest}", f"up to {array.max()}", reason="range"
        )
    array = array.astype(np.int32)
    array.setflags(write=False)
    return array


def _require_no_duplicates(name: str, array: np.ndarray, ordered: np.ndarray) -> None:
    """Reject a clique that is listed twice: its energy would count twice."""
    rows = np.lexsort(ordered.T[::-1])
    same = np.flatnonzero((ordered[rows[1:]] == ordered[rows[:-1]]).all(axis=1))
    if len(same):
        first, second = np.sort(rows[same[0] : same[0] + 2])
        got = f"{tuple(array[first].tolist())} in row {first} and {tuple(array[second].tolist())} in row {second}"
        fix = "Its energy would count twice: remove one row. If the order of sites matters, add both orders in the statistic."
        raise ArgumentError(f"cliques of term {name!r}", "every clique once", got, fix, reason="duplicate")


def require_cliques_of(lattice: Lattice, name: str, cliques: np.ndarray) -> None:
    """Raise unless every row of ``cliques`` consists of sites of the lattice that are pairwise adjacent.

    Raises
    ------
    ArgumentError
        If a site does not exist.
    HammersleyCliffordError
        If two sites of one row share no edge; the message names the term, the tuple and the missing edge.
    """
    outside = np.argwhere((cliques < 0) | (cliques >= lattice.num_sites))
    if len(outside):
        row, column = outside[0]
        raise ArgumentError(
            f"cliques of term {name!r}",
            f"site numbers from 0 to {lattice.num_sites - 1}",
            f"{cliques[row, column]} in {tuple(cliques[row].tolist())} (row {row})",
            "Site numbers are positions in lattice.nodes.",
            reason="range",
        )
    for first, second in combinations(range(cliques.shape[1]), 2):
        bad = np.flatnonzero(~lattice.are_adjacent(cliques[:, first], cliques[:, second]))
        if len(bad):
            scope = tuple(cliques[bad[0]].tolist())
            i, j = sorted((scope[first], scope[second]))
            labels = f" (labels {lattice.nodes[i]!r} and {lattice.nodes[j]!r})" if lattice.num_sites < 10**6 else ""
            raise HammersleyCliffordError(
                "not_a_clique",
                f"term {name!r}: the sites {scope} are not a clique of {lattice!r}: edge ({i}, {j}) is missing{labels}; "
                f"{len(bad)} of {len(cliques)} cliques lack this kind of edge. A Markov random field may only couple "
                "sites that are pairwise adjacent: add the edge to the graph, or shrink the term.",
            )


@call_checked
def plaquettes(lattice: Lattice) -> np.ndarray:
    """Elementary squares of a two-dimensional square lattice, shape ``(num_plaquettes, 4)``, in cyclic order.

    The four sites are a clique only on ``square(..., diagonals=True)``.

    Examples
    --------
    >>> from phi4ppl.lattice import square
    >>> plaquettes(square(2, 3, periodic=False, diagonals=True)).tolist()
    [[0, 3, 4, 1], [1, 4, 5, 2]]
    """
    if (
        not isinstance(lattice, Lattice)
        or lattice.shape is None
        or len(lattice.shape) != 2
        or lattice.layout_hint == "triangular"
    ):
        raise ArgumentError("lattice", "a two-dimensional square lattice", repr(lattice), reason="not_square")
    sites = np.arange(lattice.num_sites).reshape(lattice.shape)
    corners = [np.roll(sites, (-dx, -dy), axis=(0, 1)) for dx, dy in ((0, 0), (1, 0), (1, 1), (0, 1))]
    keep = tuple(slice(None) if periodic else slice(-1) for periodic in lattice.periodic)
    rows = np.stack([c[keep].ravel() for c in corners], axis=1)
    ordered = np.sort(rows, axis=1)
    rows = rows[(ordered[:, 1:] != ordered[:, :-1]).all(axis=1)]
    _, first = np.unique(np.sort(rows, axis=1), axis=0, return_index=True)
    return rows[np.sort(first)].astype(np.int32)


def all_cliques(lattice: Lattice, limit: int) -> list[tuple[int, ...]]:
    """Every clique of the lattice, the empty one first, by size and then lexicographically.

    Raises
    ------
    ArgumentError
        If there are more than ``limit``.
    """
    found: set[tuple[int, ...]] = {()}
    for clique in lattice.maximal_cliques():
        if 2 ** len(clique) > limit:
            break
        found.update(c for size in range(1, len(clique) + 1) for c in combinations(clique, size))
        if len(found) > limit:
            break
    else:
        return sorted(found, key=lambda c: (len(c), c))
    raise ArgumentError(
        "lattice",
        f"at most {limit} cliques of all sizes",
        f"more ({lattice!r})",
        "Clique potentials are reconstructed on small graphs; on large ones take a patch.",
        reason="too_large",
    )
