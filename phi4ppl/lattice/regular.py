"""Regular lattices and complete graphs, built as index arrays."""

from __future__ import annotations

import math

import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import call_checked, positive_int
from .frozen import TURNED, Lattice, translates

ANTI = TURNED.removeprefix("_")


def _require_size(what: str, number: int) -> None:
    if number >= 2**31:
        raise ArgumentError(what, "fewer than 2**31 sites and edges", f"{number:.3g}", reason="too_large")


def _regular(name, shape, periodic, offsets_of_kind, layout_hint, extra="", named=False) -> Lattice:
    """Lattice of all translates of the given offsets; edges that coincide on tiny tori are kept once."""
    _require_size("shape", math.prod(shape) * sum(map(len, offsets_of_kind.values())))
    boundaries = _boundaries(periodic, shape)
    wraps, turns = (tuple(b in names for b in boundaries) for names in (("periodic", ANTI), (ANTI,)))
    edges, kinds = [], []
    zero = (0,) * len(shape)
    for number, offsets in enumerate(offsets_of_kind.values()):
        for offset in offsets:
            pairs, turned = translates(shape, wraps, (zero, offset)), _turned(shape, wraps, turns, offset)
            distinct = pairs[:, 0] != pairs[:, 1]
            edges.append(np.sort(pairs, axis=1)[distinct])
            kinds.append((number + len(offsets_of_kind) * turned)[distinct])
    edges, kinds = np.concatenate(edges), np.concatenate(kinds)
    num_sites = math.prod(shape)
    if any(p and n < 5 for p, n in zip(wraps, shape, strict=True)):
        # on a short periodic side an edge can be reached by two offsets: the first kind that names it keeps it
        _, first = np.unique(edges.astype(np.int64) @ np.array([num_sites, 1]), return_index=True)
        keep = np.sort(first)
        edges, kinds = edges[keep], kinds[keep]
    names = tuple(offsets_of_kind)
    if any(turns):  # edges of one kind stand together, as everywhere; the fast layouts are for edges without signs
        order = np.argsort(kinds, kind="stable")
        edges, kinds, names = edges[order], kinds[order], (*names, *(kind + TURNED for kind in names))
    name = name if named else f"{name}, {_in_words(boundaries)}{extra}"
    return Lattice(name=name, num_sites=num_sites, edges=edges.reshape(-1, 2),
                   edge_kinds=kinds, kinds=names, shape=tuple(shape), periodic=wraps,
                   offsets=None if any(turns) else offsets_of_kind, layout_hint=layout_hint)  # fmt: skip


def _turned(shape, periodic, antiperiodic, offset) -> np.ndarray:
    """Whether the edge from each site to the site at ``offset`` crosses antiperiodic boundaries an odd number of times."""
    base = np.indices(shape).reshape(len(shape), -1)
    at, size = base + np.array(offset)[:, None], np.array(shape)[:, None]
    crosses = (at < 0) | (at >= size)
    inside = np.all(np.array(periodic)[:, None] | ~crosses, axis=0)
    return (np.sum(crosses & np.array(antiperiodic)[:, None], axis=0) % 2)[inside]


def _boundaries(periodic, shape) -> tuple[str, ...]:
    """``"periodic"``, ``"open"`` or ``"antiperiodic"`` of every axis, from one value for all of them or one per axis."""
    values = tuple(periodic) if isinstance(periodic, (tuple, list)) else (periodic,) * len(shape)
    expected = "True, False or 'antiperiodic'" + (f", or {len(shape)} of them, one per axis" if len(shape) > 1 else "")
    known = {True: "periodic", False: "open", ANTI: ANTI}
    fine = [isinstance(v, (bool, np.bool_)) or (isinstance(v, str) and v == ANTI) for v in values]
    if len(values) != len(shape) or not all(fine):
        raise ArgumentError("periodic", expected, repr(periodic))
    boundaries = tuple(known[v if isinstance(v, str) else bool(v)] for v in values)
    for axis, (boundary, number) in enumerate(zip(boundaries, shape, strict=True)):
        if boundary == ANTI and number < 3:
            fix = "On two sites the edges through the bulk and across the boundary would cancel."
            raise ArgumentError(
                f"shape[{axis}]", "at least 3 sites along an antiperiodic axis", str(number), fix, reason="antiperiodic"
            )
    return boundaries


def _in_words(boundaries) -> str:
    if len(set(boundaries)) == 1:
        return boundaries[0]
    return ", ".join(f"{boundary} along axis {axis}" for axis, boundary in enumerate(boundaries))


@call_checked
def square(nx: int, ny: int | None = None, *, periodic=True, diagonals: bool = False) -> Lattice:
    """Square lattice of ``nx`` × ``ny`` sites, site (x, y) ↔ number ``x*ny + y``.

    Parameters
    ----------
    nx, ny : int
        Sites along each axis; ``ny=None`` means ``nx``. A field has shape ``(nx, ny)``.
    periodic : bool, "antiperiodic", or a pair of them
        Whether the lattice closes on itself (a torus), for both axes or one value per axis. Along an antiperiodic axis it
        closes with a change of sign, φ(x + L) = −φ(x): edges that cross that boundary are of the kind
        ``"nn_antiperiodic"``, and `phi4ppl.phi4` and `phi4ppl.gaussian` give them the coupling −w, as a term
        ``w_nn_antiperiodic`` beside ``w_nn``.
    diagonals : bool
        Add both diagonals of every plaquette as edges of kind ``"diagonal"``.

    Raises
    ------
    ArgumentError
        If a size is not a positive integer, or below 3 along an antiperiodic axis.

    Examples
    --------
    >>> from phi4ppl.lattice import square
    >>> square(4).num_edges, square(2).num_edges, square(4, 3, periodic=False).num_edges
    (32, 4, 17)
    >>> square(4, 3, periodic=(False, True))
    Lattice(square 4×3, open along axis 0, periodic along axis 1: 12 sites, 21 edges)
    """
    nx = positive_int("nx", nx)
    ny = nx if ny is None else positive_int("ny", ny)
    offsets = {"nn": ((1, 0), (0, 1))}
    if diagonals:
        offsets["diagonal"] = ((1, 1), (1, -1))
    hint, extra = ("diagonals", ", with diagonals") if diagonals else ("square", "")
    return _regular(f"square {nx}×{ny}", (nx, ny), periodic, offsets, hint, extra)


@call_checked
def triangular(nx: int, ny: int | None = None, *, periodic=True) -> Lattice:
    """Triangular lattice: the square lattice of ``nx`` × ``ny`` sites with one diagonal (1, 1) per plaquette.

    ``periodic`` as in `square`.

    Examples
    --------
    >>> from phi4ppl.lattice import triangular
    >>> lattice = triangular(5)
    >>> lattice.degree[0].item(), len(lattice.maximal_cliques()), lattice.maximal_cliques()[0]
    (6, 50, (0, 1, 6))
    """
    nx = positive_int("nx", nx)
    ny = nx if ny is None else positive_int("ny", ny)
    return _regular(f"triangular {nx}×{ny}", (nx, ny), periodic, {"nn": ((1, 0), (0, 1), (1, 1))}, "triangular")


@call_checked
def hypercubic(shape: tuple[int, ...], *, periodic=True) -> Lattice:
    """Hypercubic lattice of any dimension; ``shape`` gives the sites along each axis, ``periodic`` is as in `square`.

    Examples
    --------
    >>> from phi4ppl.lattice import hypercubic
    >>> hypercubic((4, 4, 4)).num_edges
    192
    """
    try:
        shape = tuple(shape)
    except TypeError as error:
        raise ArgumentError("shape", "a tuple of sizes", repr(shape), "One size: use chain(n).") from error
    if not shape:
        raise ArgumentError("shape", "at least one axis", "()", reason="empty")
    shape = tuple(positive_int(f"shape[{k}]", n) for k, n in enumerate(shape))
    offsets = tuple(tuple(int(i == k) for i in range(len(shape))) for k in range(len(shape)))
    return _regular(f"hypercubic {'×'.join(map(str, shape))}", shape, periodic, {"nn": offsets}, "hypercubic")


@call_checked
def chain(n: int, *, periodic=True) -> Lattice:
    """Chain of ``n`` sites, a ring where it is periodic or ``"antiperiodic"`` (see `square`).

    Examples
    --------
    >>> from phi4ppl.lattice import chain
    >>> chain(4, periodic=False).edges.tolist()
    [[0, 1], [1, 2], [2, 3]]
    """
    n = positive_int("n", n)
    return _regular(f"chain of {n}", (n,), periodic, {"nn": ((1,),)}, "chain")


@call_checked
def complete(n: int) -> Lattice:
    """Complete graph: every site neighbors every other.

    Examples
    --------
    >>> from phi4ppl.lattice import complete
    >>> complete(5).num_edges, complete(5).maximal_cliques()
    (10, ((0, 1, 2, 3, 4),))
    """
    n = positive_int("n", n)
    _require_size("n", n * (n - 1) // 2)
    edges = np.stack(np.triu_indices(n, 1), axis=1)
    return Lattice(name=f"complete graph of {n}", num_sites=n, edges=edges, layout_hint="complete")


@call_checked
def bipartite(num_visible: int, num_hidden: int) -> Lattice:
    """Complete bipartite graph: sites ``0 … num_visible-1`` are visible, the rest hidden; edge ij has number
    ``i*num_hidden + j``, so a weight matrix of shape ``(num_visible, num_hidden)`` ravels to the edge couplings.

    Examples
    --------
    >>> from phi4ppl.lattice import bipartite
    >>> bipartite(2, 3).edges.tolist()
    [[0, 2], [0, 3], [0, 4], [1, 2], [1, 3], [1, 4]]
    """
    v, h = positive_int("num_visible", num_visible), positive_int("num_hidden", num_hidden)
    _require_size("num_visible × num_hidden", v * h)
    edges = np.stack([np.repeat(np.arange(v), h), np.tile(np.arange(v, v + h), v)], axis=1)
    name = f"bipartite graph of {v} visible and {h} hidden sites"
    return Lattice(name=name, num_sites=v + h, edges=edges, layout_hint="bipartite")


@call_checked
def from_offsets(shape: tuple[int, ...], offsets: dict, *, periodic=True) -> Lattice:
    """Lattice of any dimension whose edges are all translates of given offsets, for actions of longer range.

    Parameters
    ----------
    shape : tuple of int
        Sites along each axis.
    offsets : dict
        Kind of edges → offsets from a site to the neighbors it is joined with, such as ``{"nn": [(1, 0), (0, 1)], "second":
        [(2, 0), (0, 2)]}``. Of an offset and its negative one is enough.
    periodic
        As in `square`.

    Raises
    ------
    ArgumentError
        If an offset is not a tuple of as many integers as there are axes, is zero, or is listed twice.

    Examples
    --------
    >>> from phi4ppl.lattice import from_offsets
    >>> from_offsets((6, 6), {"nn": [(1, 0), (0, 1)], "second": [(2, 0), (0, 2)]}).degree[0].item()
    8
    """
    shape = tuple(positive_int(f"shape[{k}]", n) for k, n in enumerate(shape))
    found, seen = {}, set()
    for kind, listed in dict(offsets).items():
        found[kind] = tuple(tuple(offset) for offset in listed)
        for offset in found[kind]:
            fine = len(offset) == len(shape) and all(isinstance(k, int) for k in offset) and any(offset)
            if not fine or offset in seen:
                expected = f"different offsets of {len(shape)} integers that are not all 0"
                raise ArgumentError("offsets", expected, repr(offset), "Of (1, 0) and (-1, 0) give one.")
            seen |= {offset, tuple(-k for k in offset)}
    if not seen:
        raise ArgumentError("offsets", "at least one offset", repr(offsets), reason="empty")
    name = f"{'×'.join(map(str, shape))} with edges {', '.join(map(str, found))}"
    return _regular(name, shape, periodic, found, None)
