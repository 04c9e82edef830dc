"""Clusters of signs: labels against networkx, probabilities of bonds, exactness of the flips, and flips that are wrong.

False alarms: every comparison has level 1e-4, shared among its quantities; about 20 are made. Keys are fixed.
"""

import dataclasses

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from exact_runs import rejected
from invariance import MODELS, invariance_scores, mapped, model_and_draws, score
from scipy import stats

import phi4ppl as p4
from phi4ppl.sampling import target_of
from phi4ppl.sampling.cluster import _bonds, _Shifts, cluster_labels, flip_clusters
from phi4ppl.terms import hopping

pytestmark = pytest.mark.compile_quickly


def random_graph(num_sites, num_edges, seed):
    return p4.lattice.from_networkx(nx.gnm_random_graph(num_sites, num_edges, seed=seed))


def shuffled_path(num_sites):
    """A path whose site numbers jump: lowest labels have a long way to go."""
    order = np.random.default_rng(0).permutation(num_sites)
    return p4.lattice.from_networkx(nx.relabel_nodes(nx.path_graph(num_sites), dict(enumerate(order.tolist()))))


LATTICES = {
    "torus": p4.lattice.square(5, 6),
    "smallest torus": p4.lattice.square(2),
    "open, diagonals": p4.lattice.square(4, 5, periodic=False, diagonals=True),
    "triangular": p4.lattice.triangular(5),
    "cubic": p4.lattice.hypercubic((3, 4, 5)),
    "ring": p4.lattice.chain(9),
    "open chain": p4.lattice.chain(300, periodic=False),
    "random": random_graph(60, 70, 1),
    "hub": p4.lattice.from_networkx(nx.star_graph(30)),
    "path": shuffled_path(400),
}


def set_edges(graph, bonds, lattice):
    """The edges whose bond is set, as pairs of site numbers, from either way of keeping bonds."""
    if not isinstance(graph, _Shifts):
        return graph.edges[np.asarray(bonds) != 0].tolist()
    at, found = np.indices(lattice.shape), []
    for offset, bond in zip(graph.coupling, np.asarray(bonds) != 0, strict=True):
        there = [(x + d) % n for x, d, n in zip(at, offset, lattice.shape, strict=True)]
        first, second = (np.ravel_multi_index(tuple(x), lattice.shape) for x in (at, there))
        found += np.stack([first[bond], second[bond]], axis=1).tolist()
    return found


def lowest_by_networkx(lattice, edges):
    graph = nx.empty_graph(lattice.num_sites)
    graph.add_edges_from(edges)
    labels = np.empty(lattice.num_sites, int)
    for component in nx.connected_components(graph):
        labels[list(component)] = min(component)
    return labels


@pytest.mark.parametrize("name", LATTICES)
def test_labels_are_the_connected_components(name):
    """From few bonds to almost all; alone, for many fields at once and for fields in two batches."""
    lattice = LATTICES[name]
    rng = np.random.default_rng(3)
    model = p4.phi4(lattice, w=rng.choice([-1.0, 0.0, 1.0], lattice.num_edges, p=[0.3, 0.1, 0.6]), a=1.0, b=0.2)
    target = target_of(p4.compile(model))
    graph = _bonds(target)
    assert isinstance(graph, _Shifts) == (lattice.shape is not None and lattice.num_sites > 4)
    shape = (3, 2, *lattice.field_shape)
    width = np.array([[0.3, 0.7], [1.0, 1.5], [3.0, 30.0]]).reshape(3, 2, *[1] * len(lattice.field_shape))
    fields = jnp.asarray(np.abs(rng.normal(size=shape)) * width, jnp.float32)
    keys = jax.random.split(jax.random.key(1), (3, 2))

    def label(key, phi):
        bonds, _ = graph.set(key, phi)
        return bonds, cluster_labels(graph, bonds, lattice.field_shape).reshape(-1)

    bonds, labels = jax.jit(jax.vmap(jax.vmap(label)))(keys, fields)
    numbers = []
    for i in range(3):
        for j in range(2):
            edges = set_edges(graph, bonds[i, j], lattice)
            assert all(lattice.are_adjacent(*edge) for edge in edges)
            numbers.append(len(edges))
            np.testing.assert_array_equal(labels[i, j], lowest_by_networkx(lattice, edges))
    assert numbers[-1] > numbers[0]
    if name in ("torus", "random"):
        np.testing.assert_array_equal(jax.jit(label)(keys[1, 1], fields[1, 1])[1], labels[1, 1])


@pytest.mark.parametrize("name", ["torus", "open, diagonals", "random", "smallest torus"])
def test_bonds_are_set_with_their_probability_and_independently(name):
    lattice, number = LATTICES[name], 20_000
    rng = np.random.default_rng(4)
    model = p4.phi4(lattice, w=rng.normal(size=lattice.num_edges), a=1.0, b=0.2)
    graph = _bonds(target_of(p4.compile(model)))
    phi = rng.normal(size=lattice.field_shape)
    keys = jax.random.split(jax.random.key(2), number)
    bonds, bits = jax.jit(jax.vmap(graph.set, in_axes=(0, None)))(keys, jnp.asarray(phi, jnp.float32))
    bonds, bits = np.asarray(bonds) != 0, np.asarray(bits).reshape(number, -1)
    flat, w = phi.reshape(-1), np.asarray(model.couplings["w"])
    if isinstance(graph, _Shifts):
        first = set_edges(graph, np.ones_like(bonds[0]), lattice)
        weight = {tuple(edge): value for edge, value in zip(lattice.edges.tolist(), w, strict=True)}
        aligned = np.array([weight.get(tuple(sorted(edge)), 0.0) * flat[edge[0]] * flat[edge[1]] for edge in first])
        inside = np.array([lattice.are_adjacent(*edge) for edge in first])
        plain = {tuple(o) for offsets in lattice.offsets.values() for o in offsets}
        assert set(graph.coupling) == plain
        bonds = bonds.reshape(number, -1)
        if not all(lattice.periodic):  # around an open boundary there is nothing, whatever lies on the other side
            at = np.indices(lattice.shape)
            ok = [
                np.all([(x + d >= 0) & (x + d < n) for x, d, n in zip(at, o, lattice.shape, strict=True)], axis=0)
                for o in graph.coupling
            ]
            inside = np.stack(ok).reshape(-1)
        aligned = np.where(inside, aligned, 0)
    else:
        aligned, bonds = w * flat[graph.edges[:, 0]] * flat[graph.edges[:, 1]], bonds
    expected = np.where(aligned > 0, -np.expm1(-2 * aligned), 0)
    assert not bonds[:, expected == 0].any()
    live = np.flatnonzero(expected)
    p, found = expected[live], bonds[:, live]
    z = (found.mean(axis=0) - p) / np.sqrt(p * (1 - p) / number)
    scores = {f"bond {k}": value for k, value in zip(live, z, strict=True)}
    white = (found - p) / np.sqrt(p * (1 - p))
    scores |= {f"bonds {k}, {k + 1}": score(white[:, k] * white[:, k + 1]) for k in range(len(live) - 1)}
    signs = 2.0 * np.asarray(bits) - 1  # the bits that flip even models: fair, and independent of the bonds
    scores |= {f"bit {k}": score(signs[:, k]) for k in range(signs.shape[1])}
    scores |= {f"bit and bond {k}": score(signs[:, k % signs.shape[1]] * white[:, k]) for k in range(len(live))}
    assert not rejected({name: z for name, z in scores.items() if np.isfinite(z)})


FIELDS = ["open chain", "graph", "torus", "smallest torus", "diagonals", "two hoppings"]


def target(name, **couplings):
    model = MODELS[name]()
    return target_of(p4.compile(model), model.replace(**couplings)._values)


@pytest.mark.parametrize("name", FIELDS)
def test_flips_are_exact_and_reversible(name):
    model, before, fresh = model_and_draws(name)
    after = np.asarray(mapped(lambda key, phi: flip_clusters(target(name), key, phi), before))
    np.testing.assert_array_equal(np.abs(after), np.abs(before.astype(np.float32)))
    assert np.mean(np.sign(after) != np.sign(before)) > 0.15
    assert not rejected(invariance_scores(model, before, after, fresh, reversible=True))


FAULTS = {
    "bond probability without the factor 2": ("open chain", {"w": [0.4, -0.25, 0.3]}),
    "bond probability of twice the coupling": ("open chain", {"w": [1.6, -1.0, 1.2]}),
    "a missing edge": ("graph", {"w": [-0.7, -0.5, 0.0, 0.0]}),
    "an edge of the wrong sign": ("graph", {"w": [-0.7, 0.5, 0.9, 0.0]}),
    "flips without the source": ("open chain", {"r": 0.0}),
    "flips with the source upside down": ("graph", {"r": [0.0, 0.0, -0.2, 0.0, 0.4]}),
    "one kind of edges left out": ("diagonals", {"w_diagonal": 0.0}),
    "one of two terms on an edge left out": ("two hoppings", {"v": 0.0}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_flips_with_a_planted_fault_are_rejected(fault):
    """What builds and flips the clusters is told other couplings than those of the distribution."""
    name, wrong = FAULTS[fault]
    model, before, fresh = model_and_draws(name)
    after = np.asarray(mapped(lambda key, phi: flip_clusters(target(name, **wrong), key, phi), before))
    assert rejected(invariance_scores(model, before, after, fresh))


def test_clusters_that_all_flip_by_coin_are_rejected_where_there_is_a_source():
    """Planted fault: an odd model taken for an even one, as if its source had no say."""
    model, before, fresh = model_and_draws("open chain")
    even = target("open chain")
    keep = [k for k, form in enumerate(even.forms) if form.built_in != "source"]
    even = dataclasses.replace(
        even, forms=tuple(even.forms[k] for k in keep), values=tuple(even.values[k] for k in keep)
    )
    after = np.asarray(mapped(lambda key, phi: flip_clusters(even, key, phi), before))
    assert rejected(invariance_scores(model, before, after, fresh))


def test_without_coupling_every_site_is_its_own_cluster():
    model = p4.phi4(p4.lattice.square(8), w=0.0, a=0.5, b=0.2)
    phi = jnp.ones((500, 8, 8))
    after = np.asarray(mapped(lambda key, x: flip_clusters(target_of(p4.compile(model)), key, x), phi))
    ups = (after > 0).reshape(500, -1).sum(axis=1)
    # 500 binomial numbers of 64 tries: mean and variance of their sum of squares
    chi = ((ups - 32) ** 2 / 16).sum()
    assert 1e-4 < stats.chi2.cdf(chi, 500) < 1 - 1e-4


def test_a_term_on_a_few_edges_of_a_torus_builds_bonds_there_only():
    lattice = p4.lattice.square(4)
    some = lattice.edges[[3, 7, 11]]
    sites = p4.phi4(lattice, w=1.0, a=1.0, b=0.2).terms[1:]
    model = p4.MarkovRandomField(lattice, [p4.Term("some", some, hopping, 5.0), *sites])
    graph = _bonds(target_of(p4.compile(model)))
    bonds, _ = graph.set(jax.random.key(0), 10 * jnp.ones((4, 4)))
    assert sorted(map(tuple, set_edges(graph, bonds, lattice))) == sorted(map(tuple, some.tolist()))


def test_clusters_hold_in_double_precision(x64):
    model = MODELS["open chain"]()
    phi = jnp.asarray(np.random.default_rng(0).normal(size=4))
    after = jax.jit(lambda key: flip_clusters(target_of(p4.compile(model)), key, phi))(jax.random.key(1))
    assert after.dtype == jnp.float64
    np.testing.assert_array_equal(np.abs(after), np.abs(phi))
