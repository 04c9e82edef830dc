"""Clusters of signs: labels against networkx, probabilities of bonds, exactness of the flips, and flips that are wrong.

False alarms: every comparison has level 1e-4, shared among its quantities; about 20 are made. Keys are fixed.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from exact_runs import rejected, z_scores
from invariance import MODELS, exact_draws, invariance_scores, mapped, model_and_draws, score
from scipy import stats

import phi4ppl as p4
from phi4ppl.kernels.bonds import ShiftBonds, bonds_of
from phi4ppl.kernels.cluster import cluster_labels, flip_clusters
from phi4ppl.model.term import hopping
from phi4ppl.sampling import target_of

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


def bits_of(graph, bonds):
    """Of every offset whether its bonds are set, from whole numbers of shape ``(..., *shape)``; the offsets first."""
    return [np.asarray(bonds) >> k & 1 == 1 for k in range(len(graph.coupling))]


def set_edges(graph, bonds, lattice):
    """The edges whose bond is set, as pairs of site numbers, from either way of keeping bonds."""
    if not isinstance(graph, ShiftBonds):
        return graph.edges[np.asarray(bonds) != 0].tolist()
    at, found = np.indices(lattice.shape), []
    for offset, bond in zip(graph.coupling, bits_of(graph, bonds), strict=True):
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
    graph = bonds_of(target)
    assert isinstance(graph, ShiftBonds) == (lattice.shape is not None and lattice.num_sites > 4)
    shape = (3, 2, *lattice.field_shape)
    width = np.array([[0.3, 0.7], [1.0, 1.5], [3.0, 30.0]]).reshape(3, 2, *[1] * len(lattice.field_shape))
    fields = jnp.asarray(np.abs(rng.normal(size=shape)) * width, jnp.float32)
    keys = jax.random.split(jax.random.key(1), (3, 2))

    def label(key, phi):
        bonds = graph.set(key, phi)
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
    graph = bonds_of(target_of(p4.compile(model)))
    phi = rng.normal(size=lattice.field_shape)
    keys = jax.random.split(jax.random.key(2), number)
    bonds = np.asarray(jax.jit(jax.vmap(graph.set, in_axes=(0, None)))(keys, jnp.asarray(phi, jnp.float32)))
    if isinstance(graph, ShiftBonds):
        bonds = np.stack(bits_of(graph, bonds), axis=1)
    flat, w = phi.reshape(-1), np.asarray(model.couplings["w"])
    if isinstance(graph, ShiftBonds):
        first = set_edges(graph, np.full(lattice.shape, -1), lattice)
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
        aligned, bonds = w * flat[graph.edges[:, 0]] * flat[graph.edges[:, 1]], bonds != 0
    expected = np.where(aligned > 0, -np.expm1(-2 * aligned), 0)
    assert not bonds[:, expected == 0].any()
    live = np.flatnonzero(expected)
    p, found = expected[live], bonds[:, live]
    z = (found.mean(axis=0) - p) / np.sqrt(p * (1 - p) / number)
    scores = {f"bond {k}": value for k, value in zip(live, z, strict=True)}
    even = (p > 0.1) & (p < 0.9)  # the count of two rare events at once is not normal
    white = ((found - p) / np.sqrt(p * (1 - p)))[:, even]
    scores |= {f"bonds {k}, {k + 1}": score(white[:, k] * white[:, k + 1]) for k in range(even.sum() - 1)}
    assert not rejected({name: z for name, z in scores.items() if np.isfinite(z)})


FIELDS = ["open chain", "graph", "torus", "smallest torus", "diagonals", "two hoppings"]


def target(name, **couplings):
    model = MODELS[name]()
    return target_of(model.replace(**couplings))


@pytest.mark.parametrize("name", FIELDS)
def test_flips_are_exact_and_reversible(name):
    model, before, fresh = model_and_draws(name)
    after = np.asarray(mapped(lambda key, phi: flip_clusters(target(name), key, phi), before))
    np.testing.assert_array_equal(np.abs(after), np.abs(before.astype(np.float32)))
    assert np.mean(np.sign(after) != np.sign(before)) > 0.15
    assert not rejected(invariance_scores(model, before, after, fresh, reversible=True))


@functools.cache
def gaussian_torus():
    """Couplings of both signs on a torus of two blocks of words, close to critical: a model, draws before and others."""
    rng, lattice = np.random.default_rng(6), p4.lattice.square(8, 16)
    model = p4.gaussian(lattice, w=rng.uniform(-0.3, 1.0, lattice.num_edges), a=1.6)
    drawn = exact_draws(model, 8000)
    return model, drawn[:4000], drawn[4000:]


def test_flips_on_square_lattices_are_exact_and_reversible():
    model, before, fresh = gaussian_torus()
    assert bonds_of(target_of(p4.compile(model))).blocks is not None
    after = np.asarray(mapped(lambda key, phi: flip_clusters(target_of(p4.compile(model)), key, phi), before))
    np.testing.assert_array_equal(np.abs(after), np.abs(before.astype(np.float32)))
    share = np.mean(np.sign(after) != np.sign(before), axis=(1, 2))
    assert share.mean() > 0.15 and share.std() > 0.1
    assert not rejected(invariance_scores(model, before, after, fresh, reversible=True))
    wrong = target_of(model.replace(w=1.3 * np.asarray(model.couplings["w"])))
    after = np.asarray(mapped(lambda key, phi: flip_clusters(wrong, key, phi), before))
    assert rejected(invariance_scores(model, before, after, fresh))  # planted fault: bonds of other couplings


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
    odd = target("open chain")
    even = dataclasses.replace(odd, model=odd.model.select(lambda form: form.power != 1))
    after = np.asarray(mapped(lambda key, phi: flip_clusters(even, key, phi), before))
    assert rejected(invariance_scores(model, before, after, fresh))


def flipped(model, phi, number=20_000):
    """Which sites flip, of ``number`` tries from the same field."""
    target, keys = target_of(p4.compile(model)), jax.random.split(jax.random.key(4), number)
    after = jax.jit(jax.vmap(lambda key: flip_clusters(target, key, jnp.asarray(phi, jnp.float32))))(keys)
    return np.asarray(after) != np.asarray(phi, np.float32)


def rate_score(hits, probability):
    return (hits.mean() - probability) / np.sqrt(probability * (1 - probability) / len(hits))


def test_the_largest_cluster_flips_and_the_others_by_its_share():
    """Five of ten sites are bonded to each other, two more to each other: by enumeration of what can flip."""
    w = np.where(np.isin(np.arange(9), [0, 1, 2, 3, 5]), 100.0, 0.0)
    flips = flipped(p4.phi4(p4.lattice.chain(10, periodic=False), w=w, a=1.0, b=0.2), np.ones(10))
    assert flips[:, :5].all() and (flips[:, 5] == flips[:, 6]).all()
    probability = 0.5 * (1 - 0.5) ** 4
    scores = {str(k): rate_score(flips[:, k], probability) for k in (5, 7, 8, 9)}
    scores |= {f"5 and {k}": rate_score(flips[:, 5] & flips[:, k], probability**2) for k in (7, 8, 9)}
    assert not rejected(scores)
    assert rejected(
        {str(k): rate_score(flips[:, k], 0.5 * (1 - 0.2) ** 4) for k in (5, 7)}
    )  # the share of another cluster


def test_on_a_square_lattice_one_cluster_flips_and_sometimes_that_of_any_site():
    """Rows 2 to 9 of 16 are one cluster, every other site its own."""
    lattice = p4.lattice.square(16)
    rows = lattice.edges // 16
    inside = ((rows >= 2) & (rows <= 9)).all(axis=1)
    flips = flipped(p4.phi4(lattice, w=np.where(inside, 100.0, 0.0), a=1.0, b=0.2), np.ones((16, 16)))
    block = flips[:, 2:10]
    assert (block.all(axis=(1, 2)) == block.any(axis=(1, 2))).all()
    others = np.delete(flips, np.s_[2:10], axis=1).sum(axis=(1, 2))
    assert ((others == 0) == block.any(axis=(1, 2))).all() and others.max() == 1
    scores = {"block": rate_score(block.any(axis=(1, 2)), 7 / 8 + 1 / 16)}
    scores |= {f"site {k}": rate_score(flips[:, 0, k], 1 / 8 / 256) for k in range(4)}
    assert not rejected(scores)
    assert rejected({"block": rate_score(block.any(axis=(1, 2)), 7 / 8)})


def test_without_coupling_every_site_is_its_own_cluster():
    flips = flipped(p4.phi4(p4.lattice.square(8), w=0.0, a=0.5, b=0.2), np.ones((8, 8))).sum(axis=(1, 2))
    one, mean = 1 / 8, 1 + 63 * (half := 0.5 * (1 - 1 / 64) ** 4)
    alone = stats.binom.pmf(0, 63, half)
    scores = {"alone": rate_score(flips == 1, one + (1 - one) * alone), "mean": score(flips - one - (1 - one) * mean)}
    assert not rejected(scores)
    assert rejected({"mean": score(flips - 1 - 63 / 2)})


@pytest.mark.parametrize(
    "lattice", [p4.lattice.chain(2, periodic=False), p4.lattice.square(8)], ids=["two sites", "torus"]
)
def test_signs_of_deep_wells_reach_every_state(lattice):
    """⟨σσ′⟩ of neighbors whose signs no sweep changes: t of two sites by quadrature, t + 2t³ + O(t⁵) on a torus."""
    w = 0.02
    model = p4.phi4(lattice, w=w, a=-16.0, b=2.0)  # wells at ±2, a barrier of 32
    run = p4.sample(model, kernel="cluster", num_warmup=100, num_samples=4000, num_chains=4, progress=False, seed=2)
    sign = np.sign(run["posterior"]["phi"].values).reshape(4, 4000, -1)
    first, second = lattice.edges.T
    modulus = np.linspace(0, 4, 2001)
    weight = np.exp(-(-16 * modulus**2 + 2 * modulus**4) - 32)
    pairs, weights = w * np.outer(modulus, modulus), np.outer(weight, weight)
    t = (weights * np.sinh(pairs)).sum() / (weights * np.cosh(pairs)).sum()
    expected = t + 2 * t**3 * (len(lattice.edges) > 1)
    series = {"⟨σσ′⟩": (sign[..., first] * sign[..., second]).mean(axis=-1)}
    assert not rejected(z_scores(series, {"⟨σσ′⟩": expected}))
    assert rejected(z_scores(series, {"⟨σσ′⟩": 1.5 * expected}))


def test_a_term_on_a_few_edges_of_a_torus_builds_bonds_there_only():
    lattice = p4.lattice.square(4)
    some = lattice.edges[[3, 7, 11]]
    sites = p4.phi4(lattice, w=1.0, a=1.0, b=0.2).terms[1:]
    model = p4.MarkovRandomField(lattice, [p4.Term("some", some, hopping, 5.0), *sites])
    graph = bonds_of(target_of(p4.compile(model)))
    bonds = graph.set(jax.random.key(0), 10 * jnp.ones((4, 4)))
    assert sorted(map(tuple, set_edges(graph, bonds, lattice))) == sorted(map(tuple, some.tolist()))


def test_clusters_hold_in_double_precision(x64):
    model = MODELS["open chain"]()
    phi = jnp.asarray(np.random.default_rng(0).normal(size=4))
    after = jax.jit(lambda key: flip_clusters(target_of(p4.compile(model)), key, phi))(jax.random.key(1))
    assert after.dtype == jnp.float64
    np.testing.assert_array_equal(np.abs(after), np.abs(phi))
