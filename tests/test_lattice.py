"""Lattices against brute force and against networkx."""

import copy
import json
import math
import pickle
from dataclasses import FrozenInstanceError
from itertools import product

import hypothesis.strategies as st
import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from raising import raises

from phi4ppl import lattice as lt
from phi4ppl.errors import ArgumentError, GraphError

SQUARE = {"nn": ((1, 0), (0, 1))}
DIAGONALS = SQUARE | {"diagonal": ((1, 1), (1, -1))}
TRIANGULAR = {"nn": ((1, 0), (0, 1), (1, 1))}
CUBIC = {"nn": ((1, 0, 0), (0, 1, 0), (0, 0, 1))}


def diagonals(nx, ny, periodic):
    return lt.square(nx, ny, periodic=periodic, diagonals=True)


def hypercubic(*shape, periodic):
    return lt.hypercubic(shape, periodic=periodic)


# name: (constructor, shape, periodic, offsets of every kind)
REGULAR = {
    f"{name}-{'x'.join(map(str, shape))}-{'periodic' if periodic else 'open'}": (make, shape, periodic, offsets)
    for name, make, offsets, shapes in (
        ("square", lt.square, SQUARE, [(1, 1), (1, 5), (2, 2), (2, 3), (2, 5), (3, 3), (3, 4), (4, 4), (5, 4)]),
        ("triangular", lt.triangular, TRIANGULAR, [(1, 4), (2, 2), (2, 5), (3, 3), (3, 4), (4, 4), (5, 6)]),
        ("diagonals", diagonals, DIAGONALS, [(1, 1), (1, 4), (2, 2), (2, 5), (3, 3), (3, 5), (4, 4), (5, 6)]),
        ("hypercubic", hypercubic, CUBIC, [(2, 2, 2), (3, 3, 3), (2, 3, 4), (1, 4, 2), (4, 4, 5)]),
        ("chain", lt.chain, {"nn": ((1,),)}, [(1,), (2,), (3,), (4,), (7,)]),
    )
    for shape in shapes
    for periodic in (True, False)
}


def brute_force_edges(shape, periodic, offsets):
    """Edges as a dict from pairs of sites to the first kind that names them, site by site."""
    found = {}
    for kind, of_kind in offsets.items():
        for start, offset in product(np.ndindex(*shape), of_kind):
            end = [x + d for x, d in zip(start, offset, strict=True)]
            if periodic:
                end = [x % n for x, n in zip(end, shape, strict=True)]
            elif any(not 0 <= x < n for x, n in zip(end, shape, strict=True)):
                continue
            i, j = sorted((np.ravel_multi_index(start, shape), np.ravel_multi_index(end, shape)))
            if i != j:
                found.setdefault((int(i), int(j)), kind)
    return found


def cliques_of(graph):
    return sorted(tuple(sorted(c)) for c in nx.find_cliques(graph))


@pytest.fixture(params=REGULAR)
def regular(request):
    make, shape, periodic, offsets = REGULAR[request.param]
    return make(*shape, periodic=periodic), shape, periodic, offsets


def test_regular_edges_and_kinds_are_those_of_brute_force(regular):
    lattice, shape, periodic, offsets = regular
    expected = brute_force_edges(shape, periodic, offsets)
    by_kind = {tuple(e): kind for kind in lattice.kinds for e in lattice.edges_of(kind).tolist()}
    assert by_kind == expected
    assert lattice.num_edges == len(expected)  # none twice
    assert (lattice.shape, lattice.num_sites) == (shape, math.prod(shape))
    assert nx.utils.edges_equal(lattice.graph.edges(data="kind"), [(*e, k) for e, k in expected.items()])


def test_regular_maximal_cliques_are_those_of_networkx(regular):
    lattice = regular[0]
    assert list(lattice.maximal_cliques()) == cliques_of(lattice.graph)


def test_neighbors_degree_and_adjacency_agree_with_networkx(regular):
    lattice = regular[0]
    for site in lattice.graph:
        assert lattice.neighbors(site).tolist() == sorted(lattice.graph[site])
    assert lattice.degree.tolist() == [d for _, d in sorted(lattice.graph.degree)]
    sites = np.arange(lattice.num_sites)
    adjacency = nx.to_numpy_array(lattice.graph, nodelist=sites)
    np.testing.assert_array_equal(lattice.are_adjacent(sites[:, None], sites), adjacency > 0)


@pytest.mark.parametrize(
    ("lattice", "graph"),
    [(lt.complete(n), nx.complete_graph(n)) for n in (1, 2, 6)]
    + [(lt.bipartite(*n), nx.complete_bipartite_graph(*n)) for n in ((1, 1), (3, 2), (4, 5))],
    ids=lambda x: getattr(x, "name", None),
)
def test_complete_and_bipartite_are_those_of_networkx(lattice, graph):
    assert nx.utils.graphs_equal(nx.Graph(lattice.graph.edges), nx.Graph(graph.edges))
    assert lattice.num_sites == len(graph)
    assert list(lattice.maximal_cliques()) == cliques_of(graph)
    assert lattice.shape is None


def test_edges_are_listed_offset_by_offset_in_the_order_of_their_starting_sites():
    lattice = lt.square(4, 5, diagonals=True)
    sites = np.arange(20).reshape(4, 5)
    starts = sites.ravel()
    for block, (dx, dy) in enumerate([(1, 0), (0, 1), (1, 1), (1, -1)]):
        ends = np.roll(sites, (-dx, -dy), (0, 1)).ravel()
        np.testing.assert_array_equal(
            lattice.edges[20 * block : 20 * (block + 1)], np.sort(np.stack([starts, ends], axis=1), axis=1)
        )
    np.testing.assert_array_equal(lattice.edges_of("diagonal"), lattice.edges[40:])
    opened = lt.square(2, 3, periodic=False)
    assert opened.edges.tolist() == [[0, 3], [1, 4], [2, 5], [0, 1], [1, 2], [3, 4], [4, 5]]


def test_a_weight_matrix_ravels_to_the_edges_of_a_bipartite_lattice():
    lattice = lt.bipartite(3, 2)
    assert [[i, 3 + j] for i in range(3) for j in range(2)] == lattice.edges.tolist()
    assert lattice.layers == (3, 2)
    with pytest.raises(AttributeError, match="bipartite"):
        _ = lt.chain(4).layers


def test_square_edges_triangles_and_fours_are_the_maximal_cliques():
    square, triangular, diagonals = lt.square(5), lt.triangular(5), lt.square(5, diagonals=True)
    assert square.maximal_cliques() == tuple(sorted(map(tuple, square.edges.tolist())))
    assert {len(c) for c in triangular.maximal_cliques()} == {3} and len(triangular.maximal_cliques()) == 50
    assert {len(c) for c in diagonals.maximal_cliques()} == {4} and len(diagonals.maximal_cliques()) == 25
    assert lt.square(3, diagonals=True).maximal_cliques() == (tuple(range(9)),)  # every site neighbors every other


def test_labels_of_regular_lattices_are_coordinates_in_c_order():
    lattice = lt.square(3, 4)
    assert lattice.nodes[lattice.num_sites - 1] == (2, 3)
    assert [np.ravel_multi_index(label, (3, 4)) for label in lattice.nodes] == list(range(12))
    assert lt.chain(3).nodes == (0, 1, 2)


# --- networkx
MIXED = {
    "strings": (["b", "a", "ab"], ("a", "ab", "b")),
    "tuples": ([(1, 0), (0, 2), (0, 1)], ((0, 1), (0, 2), (1, 0))),
    "mixed": (["x", 3, (0, 1), 2.5, b"q"], (2.5, 3, "x", b"q", (0, 1))),
    "nested": ([("b", (1,)), ("a", (2, "z")), ("a", (2, None))], (("a", (2, None)), ("a", (2, "z")), ("b", (1,)))),
    "frozensets": ([frozenset(s) for s in ("ba", "c", "ac")], tuple(map(frozenset, ("ab", "ac", "c")))),
    "huge numbers": ([2**53 + 1, 2**53, 10**400], (2**53, 2**53 + 1, 10**400)),
    "numpy numbers": ([np.int64(7), np.float32(0.5)], (np.float32(0.5), np.int64(7))),
}


@pytest.mark.parametrize(("labels", "expected"), MIXED.values(), ids=MIXED)
def test_sites_are_numbered_by_sorted_label(labels, expected):
    for order in (labels, labels[::-1]):
        lattice = lt.from_networkx(nx.path_graph(order))
        assert lattice.nodes == expected
        ends = {frozenset((lattice.nodes[i], lattice.nodes[j])) for i, j in lattice.edges}
        assert ends == {frozenset(pair) for pair in zip(labels, labels[1:], strict=False)}


def test_labels_without_an_order_keep_the_order_of_the_graph():
    labels = [complex(0, 1), float("nan"), object, complex(0, -1)]
    assert lt.from_networkx(nx.path_graph(labels)).nodes == tuple(labels)


HASH_SEED_PROGRAM = """
import json, networkx as nx
from phi4ppl.lattice import from_networkx
names = {f"county {k}" for k in range(60)}
graph = nx.Graph()
graph.add_nodes_from(names)
graph.add_edges_from((a, b) for a in names for b in names if a < b and (len(a) + int(a[7:]) * int(b[7:])) % 7 == 0)
for a, b in set(graph.edges):
    graph.edges[a, b]["kind"] = "far" if a[-1] == b[-1] else "nn"
listed = next(iter(names))
lattice = from_networkx(graph)
sets = from_networkx(nx.path_graph([frozenset({x, y}) for x, y in zip("abc", "bcd")]))
print(json.dumps([listed, lattice.nodes, lattice.edges.tolist(), lattice.kinds, lattice.digest, sets.digest]))
"""


def test_numbering_does_not_depend_on_the_hash_seed(run_python, tmp_path):
    outputs = [
        json.loads(run_python(["-c", HASH_SEED_PROGRAM], cwd=tmp_path, PYTHONHASHSEED=seed).stdout)
        for seed in ("1", "2")
    ]
    assert outputs[0][0] != outputs[1][0]  # the sets really were listed in another order
    assert outputs[0][1:] == outputs[1][1:]


def test_kinds_of_networkx_edges():
    graph = nx.Graph([(0, 1), (1, 2), (0, 2)])
    graph.edges[0, 1]["kind"] = "diagonal"
    lattice = lt.from_networkx(graph)
    assert lattice.kinds == ("nn", "diagonal")
    assert (lattice.edges.tolist(), lattice.edges_of("diagonal").tolist()) == ([[0, 2], [1, 2], [0, 1]], [[0, 1]])
    with raises("argument.kind", "'nn'", "'diagonal'", "got 'far'"):
        lattice.edges_of("far")


@given(
    st.integers(1, 9).flatmap(
        lambda n: st.tuples(
            st.just(n), st.sets(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda e: e[0] < e[1]))
        )
    )
)
def test_any_graph_keeps_its_edges_and_cliques(drawn):
    num_sites, edges = drawn
    graph = nx.empty_graph(num_sites)
    graph.add_edges_from(edges)
    lattice = lt.from_networkx(graph)
    assert lattice.edges.tolist() == sorted(map(list, edges))
    assert list(lattice.maximal_cliques()) == cliques_of(graph)
    assert [lattice.neighbors(i).tolist() for i in range(num_sites)] == [sorted(graph[i]) for i in range(num_sites)]


# --- refusals
LOOPS = nx.path_graph(3)
LOOPS.add_edges_from([("c", "c"), (2, 2)])
PARALLEL = nx.MultiGraph([("A", "B"), ("B", "A"), ("B", "C")])


@pytest.mark.parametrize(
    ("graph", "error", "message"),
    [
        (nx.DiGraph([("x", "y")]), GraphError, ("graph.directed", "'x'", "'y'", "to_undirected")),
        (nx.MultiDiGraph([("x", "y")]), GraphError, ("graph.directed", "'x'", "'y'")),
        (nx.DiGraph(), GraphError, ("graph.directed",)),
        (PARALLEL, GraphError, ("graph.multigraph", "'A'", "'B'")),
        (nx.MultiGraph([(0, 1)]), GraphError, ("graph.multigraph",)),
        (LOOPS, GraphError, ("graph.self_loops", "node(s)", "2", "'c'", "remove_edges_from")),
        (nx.Graph(), GraphError, ("graph.empty",)),
        ([(0, 1)], ArgumentError, ("argument.graph",)),
        (None, ArgumentError, ("argument.graph",)),
    ],
)
def test_unsuitable_graphs_are_refused(graph, error, message):
    with raises(*message):
        lt.from_networkx(graph)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lt.square(0), ("argument.nx", "1", "got 0")),
        (lambda: lt.square(4, -1), ("argument.ny", "got -1")),
        (lambda: lt.square(4.0), ("argument.nx", "1", "4.0")),
        (lambda: lt.square(True), ("argument.nx", "1", "got True")),
        (lambda: lt.square("4"), ("argument.nx", "1", "got '4'")),
        (
            lambda: lt.square(4, periodic=1),
            ("argument.periodic", "2", "got 1"),
        ),
        (lambda: lt.triangular(None), ("argument.nx",)),
        (
            lambda: lt.triangular(3, periodic="no"),
            ("argument.periodic", "2"),
        ),
        (lambda: lt.hypercubic(4), ("argument.shape", "4")),
        (lambda: lt.hypercubic(()), ("argument.shape.empty",)),
        (lambda: lt.hypercubic((4, 0)), ("argument.shape", "got 0", "shape[1]")),
        (lambda: lt.chain(0), ("argument.n", "1", "got 0")),
        (lambda: lt.complete(0), ("argument.n", "1", "got 0")),
        (lambda: lt.bipartite(0, 2), ("argument.num_visible", "1")),
        (lambda: lt.square(10**5), ("argument.shape.too_large", "31", "got 2e+10")),
        (lambda: lt.complete(10**5), ("argument.n.too_large", "2", "31", "got 5e+09")),
        (lambda: lt.bipartite(10**5, 10**5), ("argument.num_visible.too_large", "got 1e+10")),
        (lambda: lt.bipartite(2, 0), ("argument.num_hidden", "1")),
    ],
)
def test_unsuitable_sizes_are_refused(make, message):
    with raises(*message):
        make()


def test_a_lattice_cannot_be_changed():
    lattice = lt.square(4, diagonals=True)
    with pytest.raises(FrozenInstanceError, match="shape"):
        lattice.shape = (2, 8)
    with pytest.raises(FrozenInstanceError, match="edges"):
        del lattice.edges
    for array in (lattice.edges, lattice.degree, lattice.positions):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    lattice.edges_of("nn")[:] = 0  # a copy
    lattice.offsets["nn"] = ()
    with pytest.raises(nx.NetworkXError, match="[Ff]rozen"):
        lattice.graph.add_edge(0, 10)
    assert lattice == lt.square(4, diagonals=True) and lattice.offsets == DIAGONALS


def test_equality_and_hash_are_by_content():
    make = [
        lambda: lt.square(4, 5), lambda: lt.square(5, 4), lambda: lt.square(4, 5, periodic=False),
        lambda: lt.square(4, 5, diagonals=True), lambda: lt.triangular(4, 5), lambda: lt.chain(20),
        lambda: lt.complete(4), lambda: lt.bipartite(2, 2), lambda: lt.from_networkx(nx.path_graph(3)),
        lambda: lt.from_networkx(nx.path_graph("abc")), lambda: lt.from_networkx(nx.path_graph("acb")),
    ]  # fmt: skip
    first, second = [f() for f in make], [f() for f in make]
    assert first == second and list(map(hash, first)) == list(map(hash, second))
    assert len(set(first + second)) == len(make)
    assert lt.square(2) != "square"


@pytest.mark.parametrize("make_copy", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_are_equal(make_copy):
    for lattice in (lt.triangular(3), lt.from_networkx(nx.path_graph(["b", "a"]))):
        other = make_copy(lattice)
        assert other == lattice and other.maximal_cliques() == lattice.maximal_cliques()


LARGE_PROGRAM = """
import resource, sys
from pathlib import Path
import jax, jax.numpy as jnp, networkx, phi4ppl as p4

def refuse(*args, **kwargs):
    raise AssertionError("networkx was touched")

networkx.Graph.__init__ = refuse
lattice = p4.lattice.square(512, 512)
compiled = p4.compile(p4.phi4(lattice, w=1.0, a=1.5, b=0.2))
value, force = jax.jit(jax.value_and_grad(compiled.potential_fn))(jnp.ones((512, 512)))
assert "graph" not in lattice.__dict__
status = Path("/proc/self/status")  # getrusage would include the process that started this one
if status.exists():
    peak = next(int(l.split()[1]) for l in status.read_text().splitlines() if l.startswith("VmHWM")) * 1024
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(lattice.num_edges, compiled.layout, float(value), float(abs(force + 0.2).max()), peak)
"""


def test_a_large_lattice_never_touches_networkx_and_stays_below_a_gigabyte(run_python, tmp_path):
    edges, layout, value, error, peak = run_python(["-c", LARGE_PROGRAM], cwd=tmp_path).stdout.split()
    assert (int(edges), layout) == (2 * 512**2, "stencil")
    # S/V = -2w + a + b and force = -4w + 2a + 4b at the field of ones
    assert float(value) == pytest.approx(-0.3 * 512**2, rel=1e-4) and float(error) < 1e-4
    assert int(peak) < 1e9


def test_the_message_on_boundaries_of_a_chain_is_of_one_axis():
    with raises("argument.periodic", "'antiperiodic'", "'no'"):
        lt.chain(4, periodic="no")
