"""The frozen graph that all other layers work with."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import call_checked, one_of
from .labels import aligned_fields, is_labeled
from .svg_picture import lattice_html

if TYPE_CHECKING:
    import networkx as nx

TURNED = "_antiperiodic"  # ends the kinds of edges across which a field changes sign


@call_checked
@dataclass(frozen=True, init=False, repr=False, eq=False)
class Lattice:
    """A frozen simple undirected graph with numbered sites.

    Use the constructors (`square`, `triangular`, `hypercubic`, `chain`, `complete`, `bipartite`, `from_networkx`)
    rather than this class.

    Attributes
    ----------
    name : str
        What the lattice is, in words, for reports.
    num_sites : int
    shape : tuple of int or None
        Array shape of a field on a regular lattice (site number = C-order index); None on a general graph, where a
        field has shape ``(num_sites,)``.
    edges : int array, shape (num_edges, 2)
        Every undirected edge once, smaller site first. On a regular lattice edges are listed offset by offset, and
        within an offset in the order of the sites they start from.
    kinds : tuple of str
        Names of the kinds of edges, in the order in which ``edges`` lists them.
    positions : float array, shape (num_sites, 2)
        Coordinates of the sites in figures.
    outlines : float array, shape (num_corners, 4), or None
        Of areas of a map: x and y of the corners of their outlines, the site, and the number of the outline within the site.

    Notes
    -----
    Two lattices with the same sites, labels and edges compare equal and hash alike, so compiled programs are reused.
    """

    name: str
    num_sites: int
    edges: np.ndarray
    kinds: tuple[str, ...]
    shape: tuple[int, ...] | None
    periodic: tuple[bool, ...] | None
    layout_hint: str | None
    _edge_kinds: np.ndarray
    _nodes: tuple | None
    _offsets: dict[str, tuple[tuple[int, ...], ...]] | None
    _positions: np.ndarray | None
    _edge_attributes: dict[str, np.ndarray]
    outlines: np.ndarray | None

    def __init__(self, *, name, num_sites, edges, edge_kinds=None, kinds=("nn",), shape=None, nodes=None,
                 periodic=None, offsets=None, layout_hint=None, positions=None, edge_attributes=None,
                 outlines=None):  # fmt: skip
        vars(self).update(
            name=name, num_sites=num_sites, shape=shape, kinds=tuple(kinds), periodic=periodic, layout_hint=layout_hint,
            outlines=None if outlines is None else readonly(outlines, float),
            edges=readonly(edges, np.int32), _nodes=nodes, _offsets=offsets, _positions=positions,
            _edge_kinds=readonly(np.zeros(len(edges)) if edge_kinds is None else edge_kinds, np.int16),
            _edge_attributes={name: readonly(v, float) for name, v in (edge_attributes or {}).items()},
        )  # fmt: skip

    @property
    def offsets(self) -> dict[str, tuple[tuple[int, ...], ...]] | None:
        """Translations that make the edges of each kind of a regular lattice; None on other graphs."""
        return None if self._offsets is None else dict(self._offsets)

    @property
    def field_shape(self) -> tuple[int, ...]:
        """Array shape of one field, ``shape`` where there is one and else ``(num_sites,)``."""
        return self.shape if self.shape is not None else (self.num_sites,)

    @property
    def num_edges(self) -> int:
        return len(self.edges)

    def edges_of(self, kind: str) -> np.ndarray:
        """Edges of one kind (``"nn"``, ``"diagonal"``, or the edge attribute ``kind`` of a networkx graph).

        Raises
        ------
        ArgumentError
            If the lattice has no such kind.
        """
        one_of("kind", kind, self.kinds)
        return self.edges[self._edge_kinds == self.kinds.index(kind)]

    @property
    def edge_attributes(self) -> tuple[str, ...]:
        """Names of the numeric edge attributes of a networkx graph, such as ``weight``."""
        return tuple(self._edge_attributes)

    def edge_attribute(self, name: str, kind: str | None = None) -> np.ndarray:
        """A numeric edge attribute, in the order of ``edges`` or of ``edges_of(kind)``.

        Raises
        ------
        ArgumentError
            If there is no such attribute, or an edge is without it.
        """
        if name not in self._edge_attributes:
            known = ", ".join(map(repr, self.edge_attributes)) or "the graph has none"
            raise ArgumentError(
                "edge attribute", f"a numeric edge attribute of the graph: {known}", repr(name), reason="name"
            )
        chosen = slice(None) if kind is None else self._edge_kinds == self.kinds.index(kind)
        values, edges = self._edge_attributes[name][chosen], self.edges[chosen]
        if missing := np.flatnonzero(~np.isfinite(values)).tolist():
            pair = " – ".join(repr(self.nodes[i]) for i in edges[missing[0]])
            got = f"none on {len(missing)} of {len(values)} edges, the first is {pair}"
            raise ArgumentError(f"edge attribute {name!r}", "a finite number on every edge", got, reason="finite")
        return values

    @property
    def sign_kinds(self) -> dict[str, str]:
        """Kinds of edges that continue another kind across an antiperiodic boundary: ``{"nn_antiperiodic": "nn"}``."""
        return {k: k.removesuffix(TURNED) for k in self.kinds if k.endswith(TURNED)} if self.shape is not None else {}

    @cached_property
    def degree(self) -> np.ndarray:
        """Number of neighbors of each site, shape ``(num_sites,)``."""
        return readonly(np.bincount(self.edges.ravel(), minlength=self.num_sites), np.int32)

    @cached_property
    def nodes(self) -> tuple:
        """Labels of the sites in canonical order; ints, coordinate tuples, or the labels of the networkx graph."""
        if self._nodes is not None:
            return self._nodes
        if self.shape is None or len(self.shape) == 1:
            return tuple(range(self.num_sites))
        return tuple(np.ndindex(*self.shape))

    @cached_property
    def graph(self) -> nx.Graph:
        """The same graph as a `networkx.Graph` on the site numbers, built on first use."""
        import networkx as nx

        graph = nx.Graph()
        graph.add_nodes_from((i, {"label": label}) for i, label in enumerate(self.nodes))
        kinds = [self.kinds[k] for k in self._edge_kinds]
        graph.add_edges_from((int(i), int(j), {"kind": k}) for (i, j), k in zip(self.edges, kinds, strict=True))
        return nx.freeze(graph)

    @cached_property
    def _neighbor_lists(self) -> tuple[np.ndarray, np.ndarray]:
        """Neighbors in compressed rows: sites ``indices[start[i]:start[i+1]]`` adjoin site i, in ascending order."""
        both = np.concatenate([self.edges, self.edges[:, ::-1]])
        both = both[np.lexsort((both[:, 1], both[:, 0]))]
        start = np.concatenate([[0], np.cumsum(self.degree)])
        return start, np.ascontiguousarray(both[:, 1])

    def neighbors(self, site: int) -> np.ndarray:
        """Sites that share an edge with ``site``, in ascending order."""
        start, indices = self._neighbor_lists
        return indices[start[site] : start[site + 1]]

    def are_adjacent(self, i, j) -> np.ndarray:
        """Whether pairs of sites share an edge; ``i`` and ``j`` are int arrays that broadcast against each other."""
        i, j = np.broadcast_arrays(np.asarray(i, np.int64), np.asarray(j, np.int64))
        code = np.minimum(i, j) * self.num_sites + np.maximum(i, j)
        codes = self._sorted_edge_codes
        if len(codes) == 0:
            return np.zeros(code.shape, bool)
        at = np.minimum(np.searchsorted(codes, code), len(codes) - 1)
        return codes[at] == code

    @cached_property
    def _sorted_edge_codes(self) -> np.ndarray:
        edges = self.edges.astype(np.int64)
        return np.sort(edges[:, 0] * self.num_sites + edges[:, 1])

    def maximal_cliques(self) -> tuple[tuple[int, ...], ...]:
        """Maximal cliques as sorted tuples of site numbers, in lexicographic order.

        Regular lattices whose periodic sides are at least four use index formulas; everything else asks networkx.
        """
        return self._maximal_cliques

    @cached_property
    def _maximal_cliques(self) -> tuple[tuple[int, ...], ...]:
        template = self._clique_template()
        if template is None:
            import networkx as nx

            found = (tuple(sorted(c)) for c in nx.find_cliques(self.graph))
            return tuple(sorted(found))
        rows = [r for r in template if len(r)]
        return tuple(sorted(tuple(c) for r in rows for c in np.sort(r, axis=1).tolist()))

    def _clique_template(self) -> list[np.ndarray] | None:
        """Maximal cliques by formula, as arrays grouped by size; None where the formula does not hold."""
        if self.layout_hint == "complete":
            return [np.arange(self.num_sites)[None, :]]
        if self.layout_hint == "bipartite":
            return [self.edges]
        if self.offsets is None or any(p and n < 4 for p, n in zip(self.periodic, self.shape, strict=True)):
            return None
        if any(n < 2 for n in self.shape):
            return None
        if self.layout_hint in ("square", "hypercubic", "chain"):
            return [self.edges]
        corners = {
            "triangular": (((0, 0), (1, 0), (1, 1)), ((0, 0), (0, 1), (1, 1))),
            "diagonals": (((0, 0), (0, 1), (1, 0), (1, 1)),),
        }.get(self.layout_hint or "")
        if corners is None:
            return None
        return [translates(self.shape, self.periodic, c) for c in corners]

    @cached_property
    def positions(self) -> np.ndarray:
        """Coordinates for figures, shape ``(num_sites, 2)``; regular lattices sit on their grid."""
        if self._positions is not None:
            return readonly(self._positions, float)
        if self.layout_hint == "bipartite":
            layers = zip((0.0, 1.0), self.layers, strict=True)
            return readonly([(x, -(k + 0.5) / n) for x, n in layers for k in range(n)], float)
        if self.shape is not None and len(self.shape) == 2:
            grid = np.indices(self.shape).reshape(2, -1).T.astype(float)
            if self.layout_hint == "triangular":
                grid = np.stack([grid[:, 0] - grid[:, 1] / 2, grid[:, 1] * math.sqrt(3) / 2], axis=1)
            return readonly(grid, float)
        if self.shape is not None and len(self.shape) > 2:
            grid = np.indices(self.shape).reshape(len(self.shape), -1).T.astype(float)
            shear = np.array([[1.0, 0.0], [0.0, 1.0]] + [[0.35 / k, 0.25 / k] for k in range(1, len(self.shape) - 1)])
            return readonly(grid @ shear, float)
        if self.layout_hint == "chain" and not self.periodic[0]:
            return readonly(np.stack([np.arange(self.num_sites), np.zeros(self.num_sites)], axis=1), float)
        if self.layout_hint in ("chain", "complete"):
            angle = 2 * np.pi * np.arange(self.num_sites) / self.num_sites
            return readonly(np.stack([np.cos(angle), np.sin(angle)], axis=1), float)
        import networkx as nx

        placed = nx.spring_layout(self.graph, seed=0)
        return readonly([placed[i] for i in range(self.num_sites)], float)

    @property
    def layers(self) -> tuple[int, int]:
        """Numbers of visible and hidden sites of a `bipartite` lattice."""
        if self.layout_hint != "bipartite":
            raise AttributeError("only a lattice made by bipartite() has layers")
        visible = int(self.edges[0, 1])
        return visible, self.num_sites - visible

    def draw(self, field=None, *, ax=None, vmin=None, vmax=None, cmap="RdBu_r", colorbar=True):
        """Draw the graph, or a field on it, with matplotlib.

        A field on a regular lattice in two dimensions fills the cells of its sites: squares, and hexagons on the triangular
        lattice. On a map of areas it fills their outlines, and on any other graph it colors the sites.

        Parameters
        ----------
        field : array, optional
            One value a site, or labeled.
        ax : matplotlib.axes.Axes, optional
            By default those of a new figure.
        vmin, vmax : float, optional
            Ends of the color scale. By default they are −v and v, where v is the largest magnitude: zero is in the middle.
        cmap : str
            Color map of matplotlib.
        colorbar : bool
            Whether a color bar stands beside the field.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ArgumentError
            If the field does not have one value a site.
        """
        from .drawing import draw_lattice

        field = aligned_fields("field", field, self) if is_labeled(field) else field
        if field is not None and np.size(field) != self.num_sites:
            raise ArgumentError("field", f"{self.num_sites} values, one per site", f"{np.size(field)}", reason="shape")
        return draw_lattice(self, field, ax, (vmin, vmax), cmap, colorbar)

    @cached_property
    def digest(self) -> str:
        """Content hash of sites, labels, shape and edges; equal lattices have equal digests on every machine."""
        h = hashlib.blake2b(digest_size=16)
        h.update(repr((self.num_sites, self.shape, self.kinds, self.periodic)).encode())
        h.update(self.edges.tobytes())
        h.update(self._edge_kinds.tobytes())
        if self._nodes is not None:
            h.update("\x1f".join(str(label_key(n) or n) for n in self._nodes).encode())
        return h.hexdigest()

    def __eq__(self, other) -> bool:
        return self is other or (isinstance(other, Lattice) and self.digest == other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        plural = ["" if n == 1 else "s" for n in (self.num_sites, self.num_edges)]
        return f"Lattice({self.name}: {self.num_sites} site{plural[0]}, {self.num_edges} edge{plural[1]})"

    def _repr_html_(self) -> str:
        return lattice_html(self)


def readonly(values, dtype) -> np.ndarray:
    array = np.array(values, dtype=dtype)
    array.setflags(write=False)
    return array


def translates(shape, periodic, corners) -> np.ndarray:
    """Site numbers of ``corners`` (offsets) translated to every site, without those an open boundary cuts."""
    base = np.indices(shape).reshape(len(shape), -1)
    size, columns, inside = np.array(shape)[:, None], [], np.ones(base.shape[1], bool)
    for corner in corners:
        at = base + np.array(corner)[:, None]
        inside &= np.all(np.array(periodic)[:, None] | ((at >= 0) & (at < size)), axis=0)
        columns.append(np.ravel_multi_index(tuple(at % size), shape))
    return np.stack(columns, axis=1)[inside]


def label_key(label):
    """Sort key that orders labels of mixed basic types; None for labels with no order of their own."""
    if label is None:
        return (0, 0)
    if isinstance(label, (bool, int, float, np.integer, np.floating)):
        if label != label:
            return None
        whole = isinstance(label, (bool, int, np.integer)) or float(label).is_integer()
        return (1, int(label) if whole else float(label))
    if isinstance(label, str):
        return (2, label)
    if isinstance(label, bytes):
        return (3, label)
    if isinstance(label, (tuple, frozenset)):
        parts = [label_key(part) for part in label]
        if any(p is None for p in parts):
            return None
        return (4, tuple(parts)) if isinstance(label, tuple) else (5, tuple(sorted(parts)))
    return None
