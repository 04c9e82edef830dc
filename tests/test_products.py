"""Products of lattices, against networkx and sums of Laplacian eigenvalues."""

import networkx as nx
import numpy as np
import pytest
from raising import raises

import phi4ppl as p4
from phi4ppl.lattice import product

CHAIN = p4.lattice.chain(5)
PATH = p4.lattice.chain(3, periodic=False)
MAP = p4.lattice.from_networkx(nx.Graph([("b", "a"), ("b", "c"), ("d", "c"), ("a", "d"), ("d", "e")], name="map"))
PAIRS = [(MAP, CHAIN), (CHAIN, MAP), (p4.lattice.square(3), PATH), (p4.lattice.square(2), p4.lattice.chain(2)),
         (p4.lattice.chain(4, periodic="antiperiodic"), PATH), (MAP, MAP)]  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0].name} x {pair[1].name}")
def test_edges_are_those_of_networkx_and_eigenvalues_add(pair):
    a, b = pair
    both, graph = product(a, b), nx.cartesian_product(a.graph, b.graph)
    expected = sorted(tuple(sorted(i * b.num_sites + j for i, j in edge)) for edge in graph.edges)
    assert sorted(map(tuple, both.edges.tolist())) == expected and both.num_sites == a.num_sites * b.num_sites
    spectra = [np.linalg.eigvalsh(nx.laplacian_matrix(g).toarray()) for g in (a.graph, b.graph)]
    sums = np.sort(np.add.outer(*spectra).ravel())
    np.testing.assert_allclose(np.linalg.eigvalsh(nx.laplacian_matrix(both.graph).toarray()), sums, atol=1e-12)
    assert not np.allclose(np.sort(np.multiply.outer(*spectra).ravel()), sums)  # another product


def test_kinds_shapes_labels_and_attributes_are_kept():
    both = product(MAP, CHAIN, names=("space", "time"))
    assert both.kinds == ("nn_space", "nn_time") and both.shape is None and both.nodes[6] == ("b", 1)
    assert len(both.edges_of("nn_space")) == 5 * 5 and len(both.edges_of("nn_time")) == 5 * 5
    assert all(both.nodes[i][1] == both.nodes[j][1] for i, j in both.edges_of("nn_space"))
    assert both.positions.shape == (25, 2) and both == product(MAP, CHAIN, names=("space", "time"))
    torus = product(p4.lattice.square(4, diagonals=True), PATH)
    assert torus.kinds == ("nn_first", "diagonal", "nn_second") and torus.shape == (4, 4, 3)
    assert torus.periodic == (True, True, False) and torus.offsets["nn_second"] == ((0, 0, 1),)
    turned = product(p4.lattice.chain(4, periodic="antiperiodic"), PATH)
    assert turned.sign_kinds == {"nn_first_antiperiodic": "nn_first"} and turned.shape == (4, 3)
    weighted = p4.lattice.from_networkx(nx.Graph([(0, 1, {"weight": 2.0}), (1, 2, {"weight": 3.0})]))
    weights = product(weighted, PATH).edge_attribute("weight", "nn_first")
    np.testing.assert_array_equal(weights, [2, 2, 2, 3, 3, 3])


def test_log_z_of_a_separable_field_is_a_sum_over_eigenvalues():
    """S = Σ κ_1 (∇_1φ)²/2 + κ_2 (∇_2φ)²/2 + m φ²/2: the precision is κ_1 λ_i + κ_2 μ_j + m."""
    both = product(MAP, CHAIN, names=("space", "time"))
    space, time, mass = 0.4, 0.7, 0.3
    a = (space * np.repeat(MAP.degree, 5) + time * np.tile(CHAIN.degree, 5) + mass) / 2
    model = p4.gaussian(both, w={"nn_space": space, "nn_time": time}, a=a)
    spectra = [np.linalg.eigvalsh(nx.laplacian_matrix(one.graph).toarray()) for one in (MAP, CHAIN)]
    exact = np.log(2 * np.pi / (np.add.outer(space * spectra[0], time * spectra[1]) + mass)).sum() / 2
    assert float(p4.exact.gaussian_log_partition(model)) == pytest.approx(exact, rel=1e-5)
    wrong = np.log(2 * np.pi / (np.add.outer(time * spectra[0], space * spectra[1]) + mass)).sum() / 2
    assert abs(wrong - exact) > 0.05


def test_what_is_no_product_is_refused():
    with raises("argument.b", "Lattice"):
        product(MAP, 5)
    turned = p4.lattice.chain(4, periodic="antiperiodic")
    with raises("argument.b.antiperiodic", "periodic or open"):  # its sign would be lost
        p4.lattice.product(p4.lattice.complete(3), turned)
    assert p4.lattice.product(p4.lattice.chain(3), turned).sign_kinds
    with raises("argument.names", "different"):
        product(MAP, MAP, names=("x", "x"))


@pytest.mark.parametrize("map_first", [True, False])
def test_a_map_over_years_is_drawn_as_copies_of_the_map(map_first):
    """Every site has the outline of its area, around its position, in the copy of its year."""
    corners = np.array([[0, 0], [2, 0], [2, 1], [0, 1]])
    features = [
        {
            "type": "Feature",
            "properties": {},
            "geometry": {"type": "Polygon", "coordinates": [(corners + [2 * k, 0]).tolist()]},
        }
        for k in range(3)
    ]
    areas, years = p4.lattice.from_geometry({"type": "FeatureCollection", "features": features}), p4.lattice.complete(4)
    both = p4.lattice.product(*((areas, years) if map_first else (years, areas)))
    site = both.outlines[:, 2].astype(int)
    centers = np.array([both.outlines[site == k, :2].mean(axis=0) for k in range(12)])
    np.testing.assert_allclose(centers, both.positions, atol=1e-9)
    table = both.positions.reshape(3, 4, 2) if map_first else both.positions.reshape(4, 3, 2).swapaxes(0, 1)
    np.testing.assert_allclose(np.diff(table, axis=0), np.broadcast_to([2.0, 0.0], (2, 4, 2)), atol=1e-9)
    assert len(np.unique(table[0].round(6), axis=0)) == 4
