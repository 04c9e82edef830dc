"""Graphs come in and frozen arrays go out: regular lattices, any networkx graph, cliques, labels of sites.

A `Lattice` is a simple undirected graph whose sites are numbered ``0 … num_sites-1`` in a canonical order. Regular
lattices are built as index arrays and never touch networkx; any `networkx.Graph` is frozen into the same form by
`from_networkx`. After this package everything is immutable. Read `frozen` first.
"""

from .cliques import plaquettes
from .frozen import Lattice
from .geometry import from_geometry
from .graphs import from_networkx
from .products import product
from .regular import bipartite, chain, complete, from_offsets, hypercubic, square, triangular

__all__ = [
    "Lattice",
    "bipartite",
    "chain",
    "complete",
    "from_geometry",
    "from_networkx",
    "from_offsets",
    "hypercubic",
    "plaquettes",
    "product",
    "square",
    "triangular",
]
