"""Exact removal of sites: against quadrature, against exact log Z, and its sampler against one-site moments."""

from __future__ import annotations

import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from raising import raises

import phi4ppl as p4
from phi4ppl.energy.exact.exact_log_z import exact_log_partition
from phi4ppl.renormalization import block, eliminate


def ring():
    """Six sites with couplings of their own everywhere."""
    rng = np.random.default_rng(1)
    draw = lambda low, high: rng.uniform(low, high, 6)  # noqa: E731
    return p4.phi4(p4.lattice.chain(6), w=draw(0.3, 0.9), a=draw(-1, 1), b=draw(0.3, 1), r=draw(-0.3, 0.3))


def double_site(phi):
    return jnp.cos(2 * phi) + 0.1 * phi**4


def star():
    """A site of three neighbors, with φ⁶ and a user's term on it, and one that stands alone."""
    graph = nx.Graph([("a", "b"), ("a", "c"), ("a", "d"), ("b", "c")])
    graph.add_node("e")
    model = p4.phi4(p4.lattice.from_networkx(graph), w=0.7, a=-0.4, b=0.5, c=0.1)
    own = p4.Term("own", np.array([[0], [4]]), double_site, 0.8)
    return p4.MarkovRandomField(model.lattice, [*model.terms, own])


def shared():
    """Four sites with the same two neighbors: two alike, and two whose couplings to them are exchanged."""
    lattice = p4.lattice.bipartite(2, 4)
    weights = {(0, 2): 0.4, (1, 2): 0.4, (0, 3): 0.4, (1, 3): 0.4, (0, 4): 0.3, (1, 4): 0.6, (0, 5): 0.6, (1, 5): 0.3}
    return p4.phi4(lattice, w=np.array([weights[tuple(edge)] for edge in lattice.edges.tolist()]), a=-0.4, b=0.5)


def marginal_action(found, phi):
    """−ln ∫ exp(−S) over the eliminated sites, one after the other on a fine grid: they are independent given ``phi``."""
    nodes = np.linspace(-8, 8, 4001)
    full = np.zeros(found.original.lattice.num_sites)
    full[found.kept] = phi
    energy = lambda values: np.asarray(found.original.energy(values.reshape(-1, *found.original.field_shape)))  # noqa: E731
    total, base = 0.0, energy(full[None])[0]
    for site in found.sites:
        moved = np.tile(full, (len(nodes), 1))
        moved[:, site] = nodes
        total += np.log(np.sum(np.exp(base - energy(moved))) * (nodes[1] - nodes[0]))
    return base - total


@pytest.mark.parametrize(("model", "sites"), [(ring, "odd"), (ring, [0, 3]), (star, [0, 4]), (shared, [2, 3, 4, 5])])
def test_action_is_that_of_quadrature(x64, model, sites):
    """To 1e-10, at fields of any size; a coupling off by 1 in 1000 is seen."""
    found = eliminate(model(), sites)
    for phi in np.random.default_rng(2).normal(size=(4, len(found.kept))) * [[0.1], [1], [2], [3]]:
        exact = marginal_action(found, phi)
        assert float(found.model.energy(phi)) - found.log_constant == pytest.approx(exact, abs=1e-10, rel=1e-12)
    wrong = eliminate(found.original.replace(w=1.001 * np.asarray(found.original.couplings["w"])), sites)
    assert abs(float(wrong.model.energy(phi)) - wrong.log_constant - exact) > 1e-5


def test_log_partition_is_unchanged(x64):
    """Three sites left of six by quadrature; all six by elimination of tables."""
    model = ring()
    found = eliminate(model, "even")
    exact = exact_log_partition(model)
    here = p4.exact.quadrature(found.model, half_width=5.0, points=64)["log_partition"]
    assert here + found.log_constant == pytest.approx(exact.value, abs=1e-10 + exact.error)


@pytest.mark.compile_quickly
def test_new_cliques_are_needed():
    """The marginal is a Markov random field on the new graph, and is not one where an edge is left out."""
    found = eliminate(p4.phi4(p4.lattice.square(4), w=0.68, a=-1.0, b=1.0), "odd")
    assert found.model.check().satisfied
    assert p4.check_action(found.model.energy, found.model.lattice).is_markov
    graph = nx.Graph(found.model.lattice.graph)
    removed = tuple(found.model.lattice.edges[0].tolist())
    graph.remove_edge(*removed)
    report = p4.check_action(found.model.energy, p4.lattice.from_networkx(graph))
    assert not report.is_markov
    assert report.violations[0].sites == removed


@pytest.mark.compile_quickly
def test_drawn_sites_have_their_law():
    """Means of φ and φ² of three sites given the rest, within 4.5 standard errors: false alarms in 4e-5 of all seeds.

    A pull of the wrong sign is rejected.
    """
    model = ring()
    found = eliminate(model, "odd")
    phi, number = np.array([0.9, -0.4, 1.3], np.float32), 40_000
    drawn = found.complete(np.tile(phi, (number, 1)), seed=3)
    assert np.array_equal(found.restrict(drawn), np.tile(phi, (number, 1)))

    def deviations(turned):
        w, a, b, r = (np.asarray(model.couplings[name]) for name in "wabr")
        full = drawn[0]
        worst = 0.0
        for site in found.sites:
            bonds = [(k, edge.sum() - site) for k, edge in enumerate(model.lattice.edges) if site in edge]
            pull = turned * sum(w[k] * full[other] for k, other in bonds)
            moments = p4.quartic.moments(r[site] - pull, a[site], b[site])
            for power, exact in ((1, moments.first), (2, moments.second)):
                values = drawn[:, site].astype(float) ** power
                worst = max(worst, abs(values.mean() - float(exact)) / (values.std() / np.sqrt(number)))
        return worst

    assert deviations(1) < 4.5
    assert deviations(-1) > 20


def test_composes_with_decimation():
    """Half of the sites and then a quarter: the sites of decimation, and the odd ones drawn again leave them alone."""
    model = p4.phi4(p4.lattice.square(4), w=0.68, a=-1.0, b=1.0)
    found = eliminate(model, "odd")
    fields = np.random.default_rng(4).normal(size=(2, 3, 4, 4)).astype(np.float32)
    both_even = [k for k, (x, y) in enumerate(found.model.lattice.nodes) if x % 2 == 0 and y % 2 == 0]
    again = found.complete(found.restrict(fields))
    for version in (fields, again):
        assert np.array_equal(found.restrict(version)[..., both_even], block(version, "decimate")[1].reshape(2, 3, -1))
    assert not np.array_equal(fields, again)


@pytest.mark.compile_quickly
def test_refusals():
    model = p4.phi4(p4.lattice.square(4), w=0.68, a=-1.0, b=1.0)
    with raises("argument.sites.interacting", "0", "1"):
        eliminate(model, [0, 1])
    with raises("argument.sites.choice"):
        eliminate(p4.phi4(p4.lattice.square(4, diagonals=True), a=1.0, b=1.0), "odd")
    with raises("argument.sites.count"):
        eliminate(model, [0, 0])
    square = p4.Term("g", model.lattice.edges, lambda p, q: (p * q) ** 2, 0.1)
    with raises("argument.sites.terms", "g"):
        eliminate(p4.MarkovRandomField(model.lattice, [*model.terms, square]), [0])
    with raises("argument.sites.terms", "eliminated_0"):
        eliminate(eliminate(model, "odd").model, [0])
    with raises("argument.sites.improper", "5"):
        eliminate(model.replace(b=np.where(np.arange(16) == 5, 0, 1.0)), [0, 5])
    with raises("argument.model.terms", "c"):
        eliminate(star(), [0]).complete(np.zeros(4))
    many = p4.phi4(p4.lattice.square(24), w=0.5, a=np.random.default_rng(0).uniform(0, 1, 576), b=1.0)
    with raises("argument.sites.too_many", "288"):
        eliminate(many, "odd")


@pytest.mark.compile_quickly
def test_sampling_what_is_left_agrees():
    """⟨φ²⟩ of the sites that stay, from chains of S′, against quadrature of the ring; 4.5 errors, false alarms in 1e-5."""
    model = p4.phi4(p4.lattice.chain(4), w=0.6, a=0.2, b=0.4)
    found = eliminate(model, "odd")
    tree = p4.sample(found.model, num_warmup=200, num_samples=500, num_chains=4, seed=1, progress=False)
    exact = p4.exact.quadrature(found.model, {"phi2": lambda phi: phi[0] ** 2}, points=128)["phi2"]
    series = np.square(tree["posterior"]["phi"].values, dtype=float).mean(axis=2)
    got = p4.analysis.derive({"phi2": series}, {"phi2": lambda m: m["phi2"]})["phi2"]
    assert abs(float(got.value) - exact) < 4.5 * float(got.error)
