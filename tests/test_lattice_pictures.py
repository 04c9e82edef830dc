"""Pictures of lattices, judged by what matplotlib was told to draw."""

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import pytest
from matplotlib.collections import PolyCollection, QuadMesh
from raising import raises

from phi4ppl import lattice as lt


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def drawn_edges(axes):
    return sum(np.isnan(line.get_xdata()).sum() for line in axes.lines)


LATTICES = [
    (lt.square(4), 24),
    (lt.square(3, 4, periodic=False), 17),
    (lt.square(5, diagonals=True), 40 + 32),
    (lt.triangular(5), 40 + 16),
    (lt.chain(6), 6),
    (lt.complete(5), 10),
    (lt.bipartite(3, 2), 6),
    (lt.hypercubic((2, 2, 2)), 12),
    (lt.from_networkx(nx.karate_club_graph()), 78),
]
NAMES = [lattice.name for lattice, _ in LATTICES]


@pytest.mark.parametrize(("lattice", "not_wrapping"), LATTICES, ids=NAMES)
def test_drawing_has_a_mark_a_site_and_colors_of_the_field(axes, lattice, not_wrapping):
    field = np.linspace(-2, 1, lattice.num_sites).reshape(lattice.field_shape)
    assert lattice.draw(field, ax=axes) is axes
    marks = axes.collections[0]
    flat = lattice.shape is not None and len(lattice.shape) == 2
    if isinstance(marks, QuadMesh):
        np.testing.assert_array_equal(np.ravel(marks.get_array()).reshape(field.shape[::-1]).T, field)
        centers = marks.get_coordinates()[:-1, :-1].transpose(1, 0, 2).reshape(-1, 2) + 0.5
    else:
        np.testing.assert_array_equal(marks.get_array(), field.ravel())
        corners = [path.vertices[:-1].mean(axis=0) for path in marks.get_paths()]
        centers = corners if isinstance(marks, PolyCollection) else marks.get_offsets()
    np.testing.assert_allclose(centers, lattice.positions, atol=1e-12)
    assert isinstance(marks, PolyCollection) == (lattice.layout_hint == "triangular")
    strong = field[np.abs(field) > 0.2]
    red, _, blue, _ = marks.to_rgba(strong).T
    assert ((red > blue) == (strong > 0)).all()
    assert marks.get_clim() == (-2, 2)  # white is zero
    assert drawn_edges(axes) == (0 if flat else not_wrapping)  # cells hide edges


@pytest.mark.parametrize(("lattice", "not_wrapping"), LATTICES, ids=NAMES)
def test_the_graph_alone_has_its_edges_and_a_title_without_remarks(axes, lattice, not_wrapping):
    lattice.draw(ax=axes)
    assert drawn_edges(axes) == not_wrapping
    assert axes.get_title() == lattice.name
    left_out = lattice.num_edges - not_wrapping
    assert axes.get_xlabel() == (f"{left_out} edges around the boundary are not drawn" if left_out else "")


def test_no_title_is_cut_off():
    """Planted: the remark on the boundary as part of the title, as it once was, is wider than the figure."""
    figure, axes = plt.subplots(figsize=(4, 4), layout="constrained")
    try:
        lt.square(12, diagonals=True).draw(ax=axes)
        for addition, fits in (("", True), (" (edges around the boundary not drawn)", False)):
            axes.title.set_wrap(False)
            axes.set_title(axes.get_title() + addition, fontsize=9)
            box = axes.title.get_window_extent(figure.canvas.get_renderer())
            assert bool(box.x0 >= 0 and box.x1 <= figure.bbox.width) is fits
    finally:
        plt.close(figure)


def test_hexagons_of_neighbors_share_two_corners(axes):
    lattice = lt.triangular(4)
    lattice.draw(np.zeros((4, 4)), ax=axes)
    corners = [path.vertices[:-1] for path in axes.collections[0].get_paths()]
    shared = lambda i, j: int((np.linalg.norm(corners[i][:, None] - corners[j], axis=-1) < 1e-9).sum())  # noqa: E731
    inside = [(i, j) for i, j in lattice.edges if np.linalg.norm(lattice.positions[i] - lattice.positions[j]) < 1.01]
    assert len(inside) > 30 and {shared(i, j) for i, j in inside} == {2}
    apart = set(map(tuple, np.stack(np.triu_indices(16, 1), axis=1).tolist())) - {
        tuple(e) for e in lattice.edges.tolist()
    }
    assert {shared(i, j) for i, j in apart} == {0}


def test_limits_and_colors_can_be_given(axes):
    lattice = lt.square(3)
    lattice.draw(np.arange(9.0), ax=axes, vmin=0, vmax=5, cmap="viridis", colorbar=False)
    assert axes.collections[0].get_clim() == (0, 5) and axes.collections[0].get_cmap().name == "viridis"
    assert len(axes.figure.axes) == 1


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
