"""Improved estimators: averages over signs of clusters by enumeration, of one field and of all bonds of a small torus."""

from __future__ import annotations

import itertools

import networkx as nx
import numpy as np
import pytest
from raising import raises

import phi4ppl as p4
from phi4ppl.analysis import derive
from phi4ppl.analysis.cluster_estimators import averaged_over_signs
from phi4ppl.analysis.two_point import two_point

pytestmark = pytest.mark.compile_quickly

NAMES = ("m2", "m4", "smallest_momentum", "axis_correlation_function")


def plain(name: str, lattice, phi):
    if name in ("m2", "m4"):
        return phi.mean() ** int(name[1])
    return np.asarray(two_point(name, lattice).measure(phi))


@pytest.mark.parametrize("name", NAMES)
def test_improved_is_the_mean_over_all_signs_of_clusters(x64, name):
    """Five clusters of a 4×4 torus, 32 choices of their signs."""
    lattice, rng = p4.lattice.square(4), np.random.default_rng(3)
    labels, phi = rng.integers(0, 5, size=(4, 4)), rng.normal(size=(4, 4))
    signs = itertools.product((1.0, -1.0), repeat=5)
    mean = np.mean([plain(name, lattice, phi * np.array(s)[labels]) for s in signs], axis=0)
    np.testing.assert_allclose(averaged_over_signs(name, lattice, (0, 1))(phi, labels), mean, atol=1e-12)


def test_exact_over_all_signs_and_bonds_of_a_small_torus(x64):
    """Six sites of given moduli: the mean over 64 signs and all bonds is that of the plain observable, and its variance is
    smaller. Bonds of probability 1 − exp(−w φ φ), the planted fault, miss it."""
    lattice, w = p4.lattice.square(3, 2), 0.7
    moduli = np.random.default_rng(4).uniform(0.3, 1.2, size=6)
    improved = averaged_over_signs("m2", lattice)
    table: dict = {}  # by bonds: clusters and their value do not depend on more than signs within clusters

    def value(phi, bonds):
        graph = nx.Graph([tuple(map(int, lattice.edges[k])) for k in bonds])
        graph.add_nodes_from(range(6))
        labels = np.zeros(6, int)
        for cluster in nx.connected_components(graph):
            labels[list(cluster)] = min(cluster)
        key = tuple(labels), tuple(np.sign(phi))
        if key not in table:
            table[key] = sum(phi[labels == k].sum() ** 2 for k in set(labels)) / 36
            assert len(table) > 3 or table[key] == pytest.approx(float(improved(phi, labels)))
        return table[key]

    def moments(factor):
        total = np.zeros(4)
        for signs in itertools.product((1.0, -1.0), repeat=6):
            phi = moduli * signs
            aligned = w * phi[lattice.edges[:, 0]] * phi[lattice.edges[:, 1]]
            weight, satisfied = np.exp(aligned.sum()), np.flatnonzero(aligned > 0)
            p = 1 - np.exp(-factor * aligned[satisfied])
            for chosen in itertools.product((False, True), repeat=len(satisfied)):
                odds = weight * np.prod(np.where(chosen, p, 1 - p))
                v = value(phi, satisfied[list(chosen)])
                total += odds * np.array([1, v, v**2, phi.mean() ** 2])
        return total[1:] / total[0]

    exact = [np.array([np.exp((w * np.prod((moduli * s)[lattice.edges], axis=1)).sum()) * x for x in
                       (1, (moduli * s).mean() ** 2, (moduli * s).mean() ** 4)])
             for s in itertools.product((1.0, -1.0), repeat=6)]  # fmt: skip
    m2, m4 = np.sum(exact, axis=0)[1:] / np.sum(exact, axis=0)[0]
    mean, square, same = moments(2)
    assert mean == pytest.approx(m2, rel=1e-12) and same == pytest.approx(m2, rel=1e-12)
    assert square - mean**2 < 0.6 * (m4 - m2**2)
    assert abs(moments(1)[0] / m2 - 1) > 0.02


def test_in_a_run_they_agree_with_the_plain_ones_and_err_less():
    """Above the transition, 12×12: differences within four errors, which know the correlation. The errors of χ and of G at six
    sites are smaller by a third, and by a factor of three, or more."""
    names = ["improved_susceptibility", "improved_axis_correlation_function"]
    model = p4.phi4(p4.lattice.square(12), a=1.9, b=0.175)
    tree = p4.sample(model, num_warmup=200, num_samples=1500, seed=6, keep_field=False,
                     observables=[*names, "axis_correlation_function"])  # fmt: skip
    found = derive(tree, ["susceptibility", "improved_susceptibility", "axis_correlation_function", names[1]])
    difference = derive(tree, {
        "chi": lambda m: m["m2"] - m["improved_m2"],
        "G": lambda m: m["axis_correlation_function"] - m["improved_axis_correlation_function"],
    })  # fmt: skip
    assert abs(difference["chi"].value) < 4 * difference["chi"].error
    assert np.all(np.abs(difference["G"].value[1:]) < 4 * difference["G"].error[1:])
    assert found["improved_susceptibility"].error < 0.67 * found["susceptibility"].error
    assert found[names[1]].error[-1] < 0.33 * found["axis_correlation_function"].error[-1]


def test_models_without_fair_signs_are_refused():
    lattice = p4.lattice.square(4)
    with raises("argument.observable.clusters", "'r'"):
        p4.sample(p4.phi4(lattice, a=1.5, b=0.2, r=0.1), observables=["improved_susceptibility"])
    tree = p4.sample(p4.phi4(lattice, a=1.5, b=0.2), num_warmup=30, num_samples=20)
    with raises("argument.improved.fields", "observables="):
        derive(tree, ["improved_susceptibility"])
