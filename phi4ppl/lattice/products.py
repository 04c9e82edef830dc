"""Products of lattices, such as of a map and a chain of years."""

from __future__ import annotations

import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import call_checked
from .frozen import TURNED, Lattice
from .regular import _regular, _require_size

__all__ = ["product"]

GAP = 1.3  # between copies of a graph in figures, in its widths
MAP_GAP = 1.1


@call_checked
def product(a: Lattice, b: Lattice, *, names: tuple[str, str] = ("first", "second")) -> Lattice:
    """Cartesian product: pairs (i, j) are joined to (k, j) for the edges ik of ``a`` and to (i, l) for the edges jl of ``b``.

    Site (i, j) has the number ``i * b.num_sites + j``. Of two regular lattices the product is regular, of shape ``a.shape +
    b.shape``; otherwise a field has shape ``(a.num_sites * b.num_sites,)``, which ``phi.reshape(a.num_sites, b.num_sites)``
    makes a table, and the labels in ``nodes`` are pairs of labels, as of `networkx.cartesian_product`. If one of them is a map
    of areas, figures show its copies, one for each site of the other, as choropleths.

    Parameters
    ----------
    a, b : Lattice
    names : pair of str
        What tells kinds of edges apart that both lattices have: ``nn`` of both becomes ``nn_first`` and ``nn_second``, with
        couplings ``w_nn_first`` and ``w_nn_second``. A kind that only one of them has keeps its name.

    Raises
    ------
    ArgumentError

    Examples
    --------
    A map of three areas over four years, with couplings of their own in space and time:

    >>> import phi4ppl as p4
    >>> areas, years = p4.lattice.complete(3), p4.lattice.chain(4, periodic=False)
    >>> both = p4.lattice.product(areas, years, names=("space", "time"))
    >>> both.num_sites, both.num_edges, both.kinds, both.nodes[:2]
    (12, 21, ('nn_space', 'nn_time'), ((0, 0), (0, 1)))
    >>> list(p4.gaussian(both, w={"nn_space": 0.3, "nn_time": 0.6}, a=1.5).couplings)
    ['w_nn_space', 'w_nn_time', 'a']
    >>> p4.lattice.product(p4.lattice.square(3), p4.lattice.chain(5)).shape
    (3, 3, 5)
    """
    for name, value in (("a", a), ("b", b)):
        if not isinstance(value, Lattice):
            raise ArgumentError(name, "a Lattice", type(value).__name__)
    if not (isinstance(names, (tuple, list)) and len(names) == 2 and all(isinstance(n, str) for n in names)) or (
        names[0] == names[1]
    ):
        raise ArgumentError("names", "two different words", repr(names))
    _require_size("a.num_sites × b.num_sites", a.num_sites * max(b.num_sites, b.num_edges))
    renamed = [_renamed(a, b, names[0]), _renamed(b, a, names[1])]
    title = f"product of {a.name} and {b.name}"
    regular = a.shape is not None and b.shape is not None
    if regular and a.offsets is not None and b.offsets is not None:
        before, after = (0,) * len(a.shape), (0,) * len(b.shape)
        offsets = {renamed[0][kind]: tuple((*o, *after) for o in listed) for kind, listed in a.offsets.items()}
        offsets |= {renamed[1][kind]: tuple((*before, *o) for o in listed) for kind, listed in b.offsets.items()}
        return _regular(title, a.shape + b.shape, a.periodic + b.periodic, offsets, None, named=True)
    for name, value in (("a", a), ("b", b)):
        if not regular and value.sign_kinds:  # which graphs do not have: the sign would be lost
            expected, fix = "a lattice without antiperiodic axes, beside a graph", "Make the axis periodic or open."
            raise ArgumentError(name, expected, repr(value), fix, reason="antiperiodic")
    edges, kinds, attributes = _edges(a, b)
    return Lattice(
        name=title, num_sites=a.num_sites * b.num_sites, edges=edges, edge_kinds=kinds,
        kinds=tuple(new[kind] for new, one in zip(renamed, (a, b), strict=True) for kind in one.kinds),
        shape=a.shape + b.shape if regular else None, periodic=a.periodic + b.periodic if regular else None,
        nodes=None if regular else tuple((u, v) for u in a.nodes for v in b.nodes),
        edge_attributes=attributes, **({} if regular else _places(a, b)),
    )  # fmt: skip


def _renamed(one: Lattice, other: Lattice, name: str) -> dict[str, str]:
    """Kinds of one lattice → what they are called; the mark of antiperiodic edges stays at the end."""
    plain = {kind.removesuffix(TURNED) for kind in other.kinds}
    found = {}
    for kind in one.kinds:
        base, mark = kind.removesuffix(TURNED), TURNED if kind.endswith(TURNED) else ""
        found[kind] = (f"{base}_{name}" if base in plain else base) + mark
    return found


def _edges(a: Lattice, b: Lattice) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Edges, the numbers of their kinds, and their attributes: first those of ``a``, each at all sites of ``b``."""
    along_a = a.edges[:, None, :].astype(np.int64) * b.num_sites + np.arange(b.num_sites)[None, :, None]
    along_b = np.arange(a.num_sites)[None, :, None] * b.num_sites + b.edges[:, None, :]
    edges = np.concatenate([along_a.reshape(-1, 2), along_b.reshape(-1, 2)])
    kinds = [np.repeat(a._edge_kinds, b.num_sites), np.repeat(b._edge_kinds + len(a.kinds), a.num_sites)]
    attributes = {}
    for name in dict.fromkeys((*a.edge_attributes, *b.edge_attributes)):
        parts = [
            np.repeat(one._edge_attributes.get(name, np.full(one.num_edges, np.nan)), other.num_sites)
            for one, other in ((a, b), (b, a))
        ]
        attributes[name] = np.concatenate(parts)
    return edges, np.concatenate(kinds), attributes


def _places(a: Lattice, b: Lattice) -> dict[str, np.ndarray]:
    """Positions, and outlines if one of the lattices is a map: its copies in rows, one for each site of the other."""
    if (a.outlines is None) == (b.outlines is None):
        width = max(float(np.ptp(a.positions[:, 0])), 1e-9)
        shifts = np.stack([GAP * width * np.arange(b.num_sites), np.zeros(b.num_sites)], axis=1)
        return {"positions": (a.positions[:, None] + shifts).reshape(-1, 2)}
    sites = np.arange(a.num_sites * b.num_sites).reshape(a.num_sites, b.num_sites)
    areas, sites = (a, sites) if b.outlines is None else (b, sites.T)
    shifts = _in_rows(sites.shape[1], np.ptp(areas.outlines[:, :2], axis=0))
    positions = np.empty((sites.size, 2))
    positions[sites] = areas.positions[:, None] + shifts
    x, y, site, ring = areas.outlines.T
    site = site.astype(int)
    copies = [np.column_stack([x + dx, y + dy, sites[site, k], ring]) for k, (dx, dy) in enumerate(shifts)]
    return {"positions": positions, "outlines": np.concatenate(copies)}


def _in_rows(number: int, extent: np.ndarray) -> np.ndarray:
    """Shifts of copies of a map, from left to right and from top to bottom, that fill about a square."""
    width, height = MAP_GAP * np.maximum(extent, 1e-9)
    columns = int(np.clip(round(np.sqrt(number * height / width)), 1, number))
    places = np.arange(number)
    return np.stack([width * (places % columns), -height * (places // columns)], axis=1)
