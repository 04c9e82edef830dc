"""Pictures of lattices, judged by what matplotlib was told to draw."""

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import pytest
from raising import raises

from phi4ppl import lattice as lt


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def drawn_edges(axes):
    return sum(np.isnan(line.get_xdata()).sum() for line in axes.lines)


@pytest.mark.parametrize(
    ("lattice", "not_wrapping"),
    [
        (lt.square(4), 24),
        (lt.square(3, 4, periodic=False), 17),
        (lt.square(5, diagonals=True), 40 + 32),
        (lt.triangular(5), 40 + 16),
        (lt.chain(6), 6),
        (lt.complete(5), 10),
        (lt.bipartite(3, 2), 6),
        (lt.hypercubic((2, 2, 2)), 12),
        (lt.from_networkx(nx.karate_club_graph()), 78),
    ],
    ids=lambda x: getattr(x, "name", None),
)
def test_drawing_has_a_dot_a_site_and_colours_of_the_field(axes, lattice, not_wrapping):
    field = np.linspace(-2, 1, lattice.num_sites).reshape(lattice.field_shape)
    assert lattice.draw(field, ax=axes) is axes
    (dots,) = axes.collections
    np.testing.assert_allclose(dots.get_offsets(), lattice.positions)
    np.testing.assert_array_equal(dots.get_array(), field.ravel())
    strong = field[np.abs(field) > 0.2]
    red, _, blue, _ = dots.to_rgba(strong).T
    assert ((red > blue) == (strong > 0)).all()
    assert dots.get_clim() == (-2, 2)  # white is zero
    assert drawn_edges(axes) == not_wrapping
    assert lattice.name in axes.get_title()
    assert ("boundary not drawn" in axes.get_title()) == (not_wrapping < lattice.num_edges)


def test_positions_given_by_the_graph_and_every_kind_of_edge_are_drawn(axes):
    graph = nx.complete_graph(4)
    nx.set_node_attributes(graph, dict(enumerate([(0, 0), (1, 0), (0, 1), (1, 1)])), "pos")
    nx.set_edge_attributes(graph, {edge: f"kind{number}" for number, edge in enumerate(graph.edges)}, "kind")
    lattice = lt.from_networkx(graph)
    lattice.draw(ax=axes)
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), [(0, 0), (1, 0), (0, 1), (1, 1)])
    assert drawn_edges(axes) == 6


@pytest.mark.parametrize("pos", [3.0, "ab", (1.0, np.nan), (1.0, 2.0, 3.0), None])
def test_positions_that_cannot_be_drawn_are_not_used(pos):
    graph = nx.path_graph(2)
    nx.set_node_attributes(graph, {0: pos, 1: pos}, "pos")
    assert np.ptp(lt.from_networkx(graph).positions) > 0.5


def test_a_field_of_the_wrong_size_is_refused(axes):
    with raises("argument.field.shape", "16", "got 9"):
        lt.square(4).draw(np.zeros((3, 3)), ax=axes)
