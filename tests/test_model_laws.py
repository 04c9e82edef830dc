"""Laws that every action obeys, on random graphs: relabeling, splitting, disjoint union, force = −∂ energy."""

from itertools import combinations

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from hypothesis import given

import phi4ppl as p4

SITES = 7
TRIANGLE = [(0, 1), (0, 2), (1, 2)]
OTHER_PAIRS = [pair for pair in combinations(range(SITES), 2) if pair not in TRIANGLE]


def numbers(count, size=2.0):
    return st.lists(st.floats(-size, size, width=32), min_size=count, max_size=count).map(np.array)


# nine edges always, so that every example runs the same compiled operations
random_edges = st.permutations(OTHER_PAIRS).map(lambda pairs: TRIANGLE + list(pairs[:6]))
random_couplings = st.fixed_dictionaries(
    {"w": numbers(9), "h": numbers(9), "a": numbers(SITES), "b": numbers(SITES), "r": numbers(SITES), "g": numbers(1)}
)
random_field = numbers(SITES)
cases = st.tuples(random_edges, random_couplings, random_field)


def lopsided(x, y):
    return jnp.sin(x) * y**2


def three_fields(x, y, z):
    return x * y**2 * z


def field_on(edges, couplings, sites=range(SITES), triangle=(0, 1, 2)):
    """φ⁴ with two edge terms, one of them not symmetric, and a three-body term; edges and sites in the order given."""
    graph = nx.Graph(edges)
    graph.add_nodes_from(sites)
    lattice = p4.lattice.from_networkx(graph)
    number = {label: k for k, label in enumerate(lattice.nodes)}
    rows = np.array([[number[i], number[j]] for i, j in edges])
    site_rows = np.array([[number[i]] for i in sites])
    built_in = p4.terms.BUILT_IN
    return p4.MarkovRandomField(
        lattice,
        [
            p4.Term("w", rows, built_in["hopping"], couplings["w"]),
            p4.Term("h", rows, lopsided, couplings["h"]),
            p4.Term("a", site_rows, built_in["mass"], couplings["a"]),
            p4.Term("b", site_rows, built_in["quartic"], couplings["b"]),
            p4.Term("r", site_rows, built_in["source"], couplings["r"]),
            p4.Term("g", [[number[i] for i in triangle]], three_fields, couplings["g"]),
        ],
    )


def action_by_hand(edges, couplings, phi):
    """The same action written out with loops."""
    total = couplings["g"][0] * phi[0] * phi[1] ** 2 * phi[2]
    for k, (i, j) in enumerate(edges):
        total += -couplings["w"][k] * phi[i] * phi[j] + couplings["h"][k] * np.sin(phi[i]) * phi[j] ** 2
    for i in range(SITES):
        total += couplings["a"][i] * phi[i] ** 2 + couplings["b"][i] * phi[i] ** 4 + couplings["r"][i] * phi[i]
    return total


@given(cases)
def test_the_energy_is_the_sum_over_cliques(case):
    edges, couplings, phi = case
    with jax.enable_x64(True):
        assert float(field_on(*case[:2]).energy(phi)) == pytest.approx(action_by_hand(edges, couplings, phi), abs=1e-10)


@given(cases, st.permutations(range(SITES)))
def test_relabeling_the_sites_changes_nothing(case, new_number):
    edges, couplings, phi = case
    moved = field_on(
        [(new_number[i], new_number[j]) for i, j in edges], couplings, new_number, [new_number[i] for i in (0, 1, 2)]
    )
    with jax.enable_x64(True):
        before, after = field_on(edges, couplings), np.empty(SITES)
        after[list(new_number)] = phi
        assert float(moved.energy(after)) == pytest.approx(float(before.energy(phi)), abs=1e-10)


@given(cases, st.integers(1, 8), numbers(9))
def test_splitting_a_term_changes_nothing(case, cut, part):
    """Into two sets of cliques, and into two couplings that add up."""
    edges, couplings, phi = case
    whole = field_on(edges, couplings)
    hopping, *rest = whole.terms
    first = p4.Term("w1", hopping.cliques[:cut], hopping.statistic, hopping.coupling[:cut])
    second = p4.Term("w2", hopping.cliques[cut:], hopping.statistic, hopping.coupling[cut:])
    shares = [
        p4.Term(n, hopping.cliques, hopping.statistic, v) for n, v in (("w1", part), ("w2", couplings["w"] - part))
    ]
    with jax.enable_x64(True):
        expected = float(whole.energy(phi))
        for split in ([first, second], shares):
            assert float(p4.MarkovRandomField(whole.lattice, [*rest, *split]).energy(phi)) == pytest.approx(
                expected, abs=1e-10
            )


@given(cases, cases)
def test_the_energy_adds_over_disjoint_graphs(one, other):
    shifted = [(i + SITES, j + SITES) for i, j in other[0]]
    names = one[1].keys()
    both = {name: np.concatenate([one[1][name], other[1][name]]) for name in names}
    graph = nx.Graph(one[0] + shifted)
    graph.add_nodes_from(range(2 * SITES))
    lattice = p4.lattice.from_networkx(graph)
    first, second = field_on(*one[:2]), field_on(*other[:2])
    terms = [
        p4.Term(a.name, np.concatenate([a.cliques, b.cliques + SITES]), a.statistic, both[a.name])
        for a, b in zip(first.terms, second.terms, strict=True)
    ]
    phi = np.concatenate([one[2], other[2]])
    with jax.enable_x64(True):
        total = float(p4.MarkovRandomField(lattice, terms).energy(phi))
        assert total == pytest.approx(float(first.energy(one[2]) + second.energy(other[2])), abs=1e-10)


@given(cases)
def test_force_is_minus_the_derivative_of_the_energy(case):
    """The compiled gradient, against central differences of the action and against jax.grad of model.energy."""
    edges, couplings, phi = case
    with jax.enable_x64(True):
        model = field_on(edges, couplings)
        force = -jax.grad(p4.compile(model).potential_fn)(jnp.asarray(phi))
        step = 1e-5
        slopes = [
            (action_by_hand(edges, couplings, phi + step * e) - action_by_hand(edges, couplings, phi - step * e))
            / step
            / 2
            for e in np.eye(SITES)
        ]
        np.testing.assert_allclose(force, -np.array(slopes), atol=1e-7 * (1 + np.abs(slopes).max()))
        np.testing.assert_allclose(force, -jax.grad(model.energy)(jnp.asarray(phi)), atol=1e-10)


def test_the_laws_notice_a_wrong_sign():
    """Negative control: the hand-written action with one coupling of the wrong sign is not the model's energy."""
    edges = TRIANGLE + OTHER_PAIRS[:6]
    couplings = {n: np.full(k, 0.3) for n, k in (("w", 9), ("h", 9), ("a", 7), ("b", 7), ("r", 7), ("g", 1))}
    phi = np.linspace(-1, 1.5, SITES)
    wrong = couplings | {"w": couplings["w"] * np.where(np.arange(9) == 4, -1, 1)}
    with jax.enable_x64(True):
        energy = float(field_on(edges, couplings).energy(phi))
    assert energy == pytest.approx(action_by_hand(edges, couplings, phi), abs=1e-12)
    assert energy != pytest.approx(action_by_hand(edges, wrong, phi), abs=1e-2)
