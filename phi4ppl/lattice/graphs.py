"""Any simple undirected networkx graph, frozen."""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ArgumentError, GraphError
from ..errors.arguments import call_checked
from .frozen import Lattice, label_key

if TYPE_CHECKING:
    import networkx as nx


@call_checked
def from_networkx(graph: nx.Graph) -> Lattice:
    """Freeze any simple undirected `networkx.Graph`.

    Sites are numbered by sorted label where the labels are numbers, strings, bytes, None, or tuples and frozensets of
    these (numbers before strings before the rest); otherwise in the order in which the graph lists its nodes. Either
    way the numbering does not depend on hash seeds; ``lattice.nodes`` shows it. Edges are listed by site number; the
    edge attribute ``kind`` (default ``"nn"``) becomes the kind. Numeric edge attributes are kept: ``w="weight"`` in
    `phi4ppl.phi4` takes the attribute ``weight`` as couplings, nothing else uses it. Node attributes ``pos`` place sites in
    figures.

    Raises
    ------
    GraphError
        For directed graphs, multigraphs, self-loops and empty graphs; the offending nodes are named.

    Examples
    --------
    >>> import networkx as nx
    >>> from phi4ppl.lattice import from_networkx
    >>> from_networkx(nx.Graph([("C", "A"), ("A", "B")])).nodes
    ('A', 'B', 'C')
    """
    _refuse_unsuitable(graph)
    keys = {node: label_key(node) for node in graph.nodes}
    nodes = list(graph.nodes) if any(k is None for k in keys.values()) else sorted(graph.nodes, key=keys.get)
    number = {node: i for i, node in enumerate(nodes)}
    rows = []
    for u, v, data in graph.edges(data=True):
        i, j = sorted((number[u], number[v]))
        rows.append((i, j, str(data.get("kind", "nn")), data))
    names = tuple(sorted({row[2] for row in rows}, key=lambda k: (k != "nn", k))) or ("nn",)
    rows.sort(key=lambda r: (names.index(r[2]), r[0], r[1]))
    edges = np.array([r[:2] for r in rows], dtype=np.int32).reshape(-1, 2)
    pos = _positions([graph.nodes[n].get("pos") for n in nodes])
    name = graph.name or f"graph of {len(nodes)} nodes"
    return Lattice(name=name, num_sites=len(nodes), edges=edges,
                   edge_kinds=np.array([names.index(r[2]) for r in rows]), kinds=names, nodes=tuple(nodes),
                   positions=pos, edge_attributes=_numeric([row[3] for row in rows]))  # fmt: skip


def _numeric(attributes: list[dict]) -> dict[str, np.ndarray]:
    """One array per attribute that is numeric on some edge, NaN on edges that lack it."""

    def value(found) -> float:
        return float(found) if isinstance(found, numbers.Real) and not isinstance(found, bool) else np.nan

    names = {name: None for data in attributes for name in data if name != "kind"}
    arrays = {str(name): np.array([value(data.get(name)) for data in attributes]) for name in names}
    return {name: array for name, array in arrays.items() if not np.isnan(array).all()}


def _positions(given) -> np.ndarray | None:
    """Coordinates of all nodes as one array; None unless every node has a finite pair of them."""
    try:
        array = np.asarray(given, float)
    except (TypeError, ValueError):
        return None
    return array if array.shape == (len(given), 2) and np.isfinite(array).all() else None


def _refuse_unsuitable(graph) -> None:
    import networkx as nx

    if not isinstance(graph, nx.Graph):
        raise ArgumentError("graph", "a networkx.Graph", type(graph).__name__, "Build one with networkx.Graph(edges).")
    if graph.is_directed():
        shown = ", ".join(f"{u!r} → {v!r}" for u, v in list(graph.edges())[:3]) or "no edges yet"
        raise GraphError(
            "directed",
            f"graph: a Markov random field needs undirected edges, this graph is directed ({shown}). "
            "Use graph.to_undirected().",
        )
    if graph.is_multigraph():
        pairs = [(u, v) for u, v in dict.fromkeys(graph.edges()) if graph.number_of_edges(u, v) > 1]
        shown = ", ".join(f"{u!r} – {v!r}" for u, v in pairs[:3]) or "none doubled"
        raise GraphError(
            "multigraph",
            f"graph: edges must be simple, this is a multigraph (parallel edges: {shown}). "
            "Use networkx.Graph(graph) and add their couplings.",
        )
    loops = list(nx.nodes_with_selfloops(graph))
    if loops:
        shown = ", ".join(repr(n) for n in loops[:5]) + (", …" if len(loops) > 5 else "")
        raise GraphError(
            "self_loops",
            f"graph: self-loops at node(s) {shown}. A site's own energy is a site term (mass, quartic, source); "
            "remove them with graph.remove_edges_from(networkx.selfloop_edges(graph)).",
        )
    if graph.number_of_nodes() == 0:
        raise GraphError("empty", "graph: the graph is empty (no nodes), so there is no field. Add nodes first.")
