"""Is Z finite? Verdicts on declared models and on black boxes, against eigenvalues and against growth by hand."""

import re

import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

import phi4ppl as p4


def four_fields(a, b, c, d):
    return a * b * c * d


def graph_of(*edges):
    return p4.lattice.from_networkx(nx.Graph(edges))


TOY = graph_of((0, 1), (0, 2), (1, 2), (2, 3))
SQUARE = p4.lattice.square(4)
DIAGONALS = p4.lattice.square(4, diagonals=True)


def plaquette_model(g):
    plain = p4.phi4(DIAGONALS, w={"nn": 1.0, "diagonal": 0.5}, a=2.0, b=0.2)
    return p4.MarkovRandomField(
        DIAGONALS, [*plain.terms, p4.Term("g", p4.lattice.plaquettes(DIAGONALS), four_fields, g)]
    )


CHAIN = p4.lattice.chain(6)
TWO_PIECES = graph_of((0, 1), (1, 2), (3, 4))


def intrinsic(lattice):
    return p4.gaussian(lattice, w=0.3, a=0.15 * lattice.degree)


def tilted(value):
    sites = np.arange(6)[:, None]
    terms = [*p4.gaussian(CHAIN, w=1.0, a=1.0).terms, p4.Term("r", sites, p4.terms.source, value)]
    return p4.MarkovRandomField(CHAIN, terms)


def mixed(a, quartic_sites=(0, 2, 4)):
    """b > 0 on some sites of the ring and b = 0 on the rest."""
    b = np.isin(np.arange(6), quartic_sites) * 0.5
    return p4.phi4(CHAIN, w=1.0, a=a, b=b)


@pytest.mark.parametrize(
    ("model", "normalizable", "reason", "null"),
    [
        (p4.phi4(SQUARE, w=5.0, a=-9.0, b=1e-3), True, r"quartic coupling positive at every site \(smallest 0.001\)", ()),
        (p4.phi4(CHAIN, a=1.0, b=[1, 1, 1, -0.1, 1, 1]), False, r"negative \(-0.1\) at site 3", ()),
        (p4.gaussian(CHAIN, w=1.0, a=1.1), True, "positive definite .diagonally dominant by", ()),
        (p4.gaussian(TOY, w=[1.0, 1.0, 1.0, 0.1], a=[1.0, 1.0, 1.1, 1.0]), True, "definite .lowest eigenvalue", ()),
        (p4.gaussian(CHAIN, w=1.0, a=0.9), False, "negative eigenvalue -0.1 and nothing of higher order", ()),
        (p4.gaussian(CHAIN, w=-1.0, a=0.9), False, "negative eigenvalue", ()),
        (p4.gaussian(CHAIN, w=1.0, a=1.0), False, "improper .intrinsic.*prior whose", ("the constant field of all sites",)),
        (
            intrinsic(TWO_PIECES), False, "improper .intrinsic.",
            ("the constant field of the 3 sites (0, 1, 2)", "the constant field of the 2 sites (3, 4)"),
        ),
        (p4.gaussian(CHAIN, w=-1.0, a=1.0), False, "improper", ("a direction that varies over the 6 sites (0, 1, 2, 3, …)",)),
        (tilted(np.array([1.0, -1, 0, 0, 0.5, -0.5])), False, "improper", ("the constant field of all sites",)),
        (tilted(0.1), False, "S is unbounded below along the constant field of all sites", ()),
        (mixed(0.5), True, "quadratic form on the 3 sites without quartic term positive definite", ()),
        (mixed([-5, 0.5, -5, 0.5, -5, 0.5]), True, "on the 3 sites without quartic term positive definite", ()),
        (mixed([1, -0.1, 1, 1, 1, 1]), False, "on the 3 sites without quartic term has the negative eigenvalue -0.1", ()),
        (mixed([1, 0, 1, 1, 1, 1]), False, "S is unbounded below along the constant field of the 1 sites", ()),
        # along the constant field S/V → b + g, along one with an odd number of minus signs a plaquette b − g
        (plaquette_model(0.1), True, "S grows in all .* directions searched .numerical evidence, not proof", ()),
        (plaquette_model(-0.1), True, "S grows in all", ()),
        (plaquette_model(0.3), False, "S falls to -.* along", ()),
        (plaquette_model(-0.3), False, "S falls to -.* along", ()),
    ],
)  # fmt: skip
def test_normalizability(model, normalizable, reason, null):
    report = model.check()
    assert report.is_normalizable is normalizable, report.normalizable_reason
    assert report.null_directions == null
    assert report.is_markov and report.is_positive and report.satisfied is normalizable
    assert re.search(reason, report.normalizable_reason), report.normalizable_reason
    assert report.normalizable_reason in str(report)


def test_gaussian_fields_on_random_graphs_are_judged_like_their_eigenvalues():
    judged = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        lattice = p4.lattice.from_networkx(nx.gnm_random_graph(9, 14, seed=seed))
        model = p4.gaussian(lattice, w=rng.normal(size=14), a=rng.uniform(0.8, 1.6))
        lowest = np.linalg.eigvalsh(np.asarray(p4.exact.gaussian_precision(model), float))[0]
        assert model.check().is_normalizable is bool(lowest > 0)
        judged.append(lowest > 0)
    assert 10 < sum(judged) < 30  # both answers occurred


@pytest.mark.parametrize(("degree", "w"), [(6, 0.51), (7, 0.17)])
def test_a_rounding_error_is_no_mass(degree, w):
    """w·degree/2 is a little larger in floating point than w/2 added up over the neighbors."""
    lattice = p4.lattice.from_networkx(nx.random_regular_graph(degree, 12, seed=0))
    report = p4.gaussian(lattice, w=w, a=w * degree / 2).check()
    assert report.null_directions == ("the constant field of all sites",) and not report.is_normalizable


def test_a_large_intrinsic_field_is_improper_and_a_massive_one_proper():
    lattice = p4.lattice.square(48)
    flat = p4.gaussian(lattice, w=1.0, a=2.0).check()
    assert flat.null_directions == ("the constant field of all sites",)
    staggered = p4.gaussian(lattice, w=-1.0, a=2.0).check()
    assert staggered.null_directions == ("a field that is not constant",) and not staggered.is_normalizable
    dented = np.full(48**2, 2.0) - 1e-3 * (np.arange(48**2) == 7)
    assert "not positive" in p4.gaussian(lattice, w=1.0, a=dented).check().normalizable_reason
    bulged = np.full(48**2, 2.0) + 1e-3 * (np.arange(48**2) == 7)
    assert p4.gaussian(lattice, w=1.0, a=bulged).check().is_normalizable


@pytest.mark.parametrize(
    ("action", "normalizable", "reason"),
    [
        (
            intrinsic(SQUARE).energy,
            False,
            "improper .intrinsic.: S does not change along the constant field of all sites",
        ),
        (p4.gaussian(SQUARE, w=1.0, a=1.9).energy, False, "S falls to -.* along the constant field of all sites"),
        (p4.gaussian(SQUARE, w=1.0, a=2.001).energy, True, "S grows"),
        (lambda phi: jnp.sum(phi**2) - 1e-3 * jnp.sum(phi) ** 4 / 16, False, "S falls to"),
        (lambda phi: jnp.sum(jnp.log1p(phi**2)), False, "growth of S could not be shown"),
    ],
)
def test_normalizability_of_black_boxes(action, normalizable, reason):
    report = p4.check_action(action, SQUARE)
    assert report.is_normalizable is normalizable
    assert re.search(reason, report.normalizable_reason), report.normalizable_reason
