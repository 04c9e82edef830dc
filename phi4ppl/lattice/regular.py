"""Regular lattices and complete graphs, built as index arrays."""

from __future__ import annotations

import math

import numpy as np

from ..errors import ArgumentError, call_checked, positive_int
from .frozen import Lattice, translates


def _require_size(what: str, number: int) -> None:
    if number >= 2**31:
        raise ArgumentError(what, "fewer than 2**31 sites and edges", f"{number:.3g}")


def _regular(name, shape, periodic, offsets_of_kind, layout_hint) -> Lattice:
    """Lattice of all translates of the given offsets; edges that coincide on tiny tori are kept once."""
    _require_size("shape", math.prod(shape) * sum(map(len, offsets_of_kind.values())))
    edges, kinds = [], []
    zero = (0,) * len(shape)
    for number, offsets in enumerate(offsets_of_kind.values()):
        for offset in offsets:
            pairs = np.sort(translates(shape, periodic, (zero, offset)), axis=1)
            edges.append(pairs[pairs[:, 0] != pairs[:, 1]])
            kinds.append(np.full(len(edges[-1]), number))
    edges, kinds = np.concatenate(edges), np.concatenate(kinds)
    num_sites = math.prod(shape)
    if any(p and n < 5 for p, n in zip(periodic, shape, strict=True)):
        # on a short periodic side an edge can be reached by two offsets: the first kind that names it keeps it
        _, first = np.unique(edges.astype(np.int64) @ np.array([num_sites, 1]), return_index=True)
        keep = np.sort(first)
        edges, kinds = edges[keep], kinds[keep]
    return Lattice(name=name, num_sites=num_sites, edges=edges.reshape(-1, 2), edge_kinds=kinds,
                   kinds=tuple(offsets_of_kind), shape=tuple(shape), periodic=tuple(periodic),
                   offsets=offsets_of_kind, layout_hint=layout_hint)  # fmt: skip


def _boundary(periodic: bool) -> str:
    if not isinstance(periodic, (bool, np.bool_)):
        raise ArgumentError("periodic", "True or False", repr(periodic))
    return "periodic" if periodic else "open"


@call_checked
def square(nx: int, ny: int | None = None, *, periodic: bool = True, diagonals: bool = False) -> Lattice:
    """Square lattice of ``nx`` × ``ny`` sites, site (x, y) ↔ number ``x*ny + y``.

    Parameters
    ----------
    nx, ny : int
        Sites along each axis; ``ny=None`` means ``nx``. A field has shape ``(nx, ny)``.
    periodic : bool
        Whether the lattice closes on itself (a torus).
    diagonals : bool
        Add both diagonals of every plaquette as edges of kind ``"diagonal"``.

    Raises
    ------
    ArgumentError
        If a size is not a positive integer or there is one site only on a periodic lattice without edges.

    Examples
    --------
    >>> from phi4ppl.lattice import square
    >>> square(4).num_edges, square(2).num_edges, square(4, 3, periodic=False).num_edges
    (32, 4, 17)
    """
    nx = positive_int("nx", nx)
    ny = nx if ny is None else positive_int("ny", ny)
    boundary = _boundary(periodic)
    offsets = {"nn": ((1, 0), (0, 1))}
    if diagonals:
        offsets["diagonal"] = ((1, 1), (1, -1))
    name = f"square {nx}×{ny}, {boundary}" + (", with diagonals" if diagonals else "")
    return _regular(name, (nx, ny), (periodic, periodic), offsets, "diagonals" if diagonals else "square")


@call_checked
def triangular(nx: int, ny: int | None = None, *, periodic: bool = True) -> Lattice:
    """Triangular lattice: the square lattice of ``nx`` × ``ny`` sites with one diagonal (1, 1) a plaquette.

    Examples
    --------
    >>> from phi4ppl.lattice import triangular
    >>> lattice = triangular(5)
    >>> lattice.degree[0].item(), len(lattice.maximal_cliques()), lattice.maximal_cliques()[0]
    (6, 50, (0, 1, 6))
    """
    nx = positive_int("nx", nx)
    ny = nx if ny is None else positive_int("ny", ny)
    name = f"triangular {nx}×{ny}, {_boundary(periodic)}"
    return _regular(name, (nx, ny), (periodic, periodic), {"nn": ((1, 0), (0, 1), (1, 1))}, "triangular")


@call_checked
def hypercubic(shape: tuple[int, ...], *, periodic: bool = True) -> Lattice:
    """Hypercubic lattice of any dimension; ``shape`` gives the sites along each axis.

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
        raise ArgumentError("shape", "at least one axis", "()")
    shape = tuple(positive_int(f"shape[{k}]", n) for k, n in enumerate(shape))
    boundary = _boundary(periodic)
    offsets = tuple(tuple(int(i == k) for i in range(len(shape))) for k in range(len(shape)))
    name = f"hypercubic {'×'.join(map(str, shape))}, {boundary}"
    return _regular(name, shape, (periodic,) * len(shape), {"nn": offsets}, "hypercubic")


@call_checked
def chain(n: int, *, periodic: bool = True) -> Lattice:
    """Chain of ``n`` sites (a ring when periodic).

    Examples
    --------
    >>> from phi4ppl.lattice import chain
    >>> chain(4, periodic=False).edges.tolist()
    [[0, 1], [1, 2], [2, 3]]
    """
    n = positive_int("n", n)
    return _regular(f"chain of {n}, {_boundary(periodic)}", (n,), (periodic,), {"nn": ((1,),)}, "chain")


@call_checked
def complete(n: int) -> Lattice:
    """Complete graph: every site neighbours every other.

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
