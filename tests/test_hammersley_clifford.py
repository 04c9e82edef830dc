"""The Hammersley–Clifford check: planted interactions are found and named, local actions pass, potentials multiply to
exp(−S), and an action that is not finite is no positive density."""

import re

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from raising import raises

import phi4ppl as p4


def three_fields(a, b, c):
    return a * b * c


def four_fields(a, b, c, d):
    return a * b * c * d


def graph_of(*edges, sites=()):
    graph = nx.Graph(edges)
    graph.add_nodes_from(sites)
    return p4.lattice.from_networkx(graph)


TOY = graph_of((0, 1), (0, 2), (1, 2), (2, 3))
SQUARE = p4.lattice.square(4)
DIAGONALS = p4.lattice.square(4, diagonals=True)


def toy4():
    plain = p4.phi4(TOY, w=0.4, a=0.5, b=0.25)
    return p4.MarkovRandomField(TOY, [*plain.terms, p4.Term("g", [[0, 1, 2]], three_fields, 0.3)])


def plaquette_model(g):
    plain = p4.phi4(DIAGONALS, w={"nn": 1.0, "diagonal": 0.5}, a=2.0, b=0.2)
    return p4.MarkovRandomField(
        DIAGONALS, [*plain.terms, p4.Term("g", p4.lattice.plaquettes(DIAGONALS), four_fields, g)]
    )


def random_phi4(seed=0):
    rng = np.random.default_rng(seed)
    graph = nx.gnm_random_graph(8, 14, seed=seed)
    lattice = p4.lattice.from_networkx(graph)
    return p4.phi4(lattice, w=rng.normal(size=14), a=rng.normal(size=8), b=rng.uniform(0.1, 1, 8), r=rng.normal(size=8))


# --- scopes of declared terms


@pytest.mark.parametrize(
    ("lattice", "cliques", "statistic", "message"),
    [
        (SQUARE, [[0, 1], [0, 10]], lambda x, y: x * y, ("hammersley_clifford.not_a_clique", "'far'", "(0, 10)", "1 of 2")),
        (TOY, [[3, 1, 2]], three_fields, ("hammersley_clifford.not_a_clique", "'far'", "(3, 1, 2)", "(1, 3)")),
        (
            SQUARE, p4.lattice.plaquettes(SQUARE), four_fields,
            ("hammersley_clifford.not_a_clique", "'far'", "(0, 4, 5, 1)", "(0, 5)", "16 of 16"),
        ),
        (
            graph_of("ab", "bc"), [[0, 2]], lambda x, y: x * y,
            ("hammersley_clifford.not_a_clique", "(0, 2)", "'a'", "'c'"),
        ),
    ],
)  # fmt: skip
def test_a_scope_that_is_no_clique_is_refused_with_its_missing_edge(lattice, cliques, statistic, message):
    with raises(*message):
        p4.MarkovRandomField(lattice, [p4.Term("far", cliques, statistic)])


# --- black boxes


def test_a_planted_interaction_between_distant_sites_is_found_and_named():
    lattice = p4.lattice.square(32)
    local = p4.phi4(lattice, a=1.52425, b=0.175).energy
    report = p4.check_action(lambda phi: local(phi) + 1e-3 * phi[3, 5] * phi[20, 17], lattice)
    assert not report.is_markov and not report.satisfied
    assert report.is_positive and report.is_normalizable
    (violation,) = report.violations
    assert violation.sites == (3 * 32 + 5, 20 * 32 + 17)
    assert violation.labels == ((3, 5), (20, 17))
    assert violation.strength == pytest.approx(1e-3, rel=0.01)
    assert str(violation) in str(report) and "1 pair(s) without an edge interact" in str(report)


def test_planted_pairs_are_found_wherever_they_are():
    rng = np.random.default_rng(0)
    lattice = p4.lattice.triangular(6)
    pairs = {tuple(sorted(rng.choice(36, 2, replace=False).tolist())) for _ in range(12)}
    pairs = {pair for pair in pairs if not lattice.are_adjacent(*pair)}
    local = p4.phi4(lattice, a=1.5, b=0.2).energy
    rows = np.array(sorted(pairs))

    def action(phi):
        flat = phi.reshape(-1)
        return local(phi) + 1e-3 * jnp.sum(flat[rows[:, 0]] * flat[rows[:, 1]])

    assert {v.sites for v in p4.check_action(action, lattice, seed=1).violations} == pairs


def test_a_mean_field_action_is_found():
    local = p4.phi4(SQUARE, a=1.5, b=0.2).energy
    report = p4.check_action(lambda phi: local(phi) + 0.01 * jnp.sum(phi) ** 2, SQUARE)
    not_adjacent = {(i, j) for i in range(16) for j in range(i) if not SQUARE.are_adjacent(i, j)}
    assert {v.sites[::-1] for v in report.violations} == not_adjacent
    assert [v.strength for v in report.violations] == pytest.approx([0.02] * len(not_adjacent), rel=1e-3)
    assert f"… and {len(not_adjacent) - 5} weaker pairs" in str(report)


PATH = graph_of((0, 1), (1, 2), (2, 3))


@pytest.mark.parametrize(
    ("hidden", "pair"),
    [
        (lambda f: 0.3 * f[0] * f[1] * f[2], (0, 2)),  # its Hessian vanishes at zero
        (lambda f: 0.01 * f[0] ** 3 * f[3] ** 3, (0, 3)),
        (lambda f: 0.1 * jax.nn.relu(f[1] - 0.5) ** 2 * jax.nn.relu(-f[3] - 0.5) ** 2, (1, 3)),
        (lambda f: 0.01 * jnp.sin(f[0] - f[2]) ** 4, (0, 2)),
    ],
)
def test_an_interaction_that_only_shows_away_from_zero_is_found(hidden, pair):
    local = p4.phi4(PATH, a=1.0, b=0.5).energy
    report = p4.check_action(lambda phi: local(phi) + hidden(phi), PATH)
    assert report.violations[0].sites == pair and len(report.violations) == 1


def roll_action(phi):
    """A local action written with shifts of the whole field, with quartic differences."""
    return sum(jnp.sum((phi - jnp.roll(phi, 1, axis)) ** 4) for axis in (0, 1)) + jnp.sum(phi**2)


def fourier_action(phi):
    """The nearest-neighbor kinetic term in momentum space: local, though every mode feels every site."""
    p = 2 * jnp.sin(jnp.pi * jnp.arange(8) / 8)
    weight = (p**2)[:, None] + (p**2)[None, :]
    return jnp.sum(weight * jnp.abs(jnp.fft.fft2(phi)) ** 2) / 128 + jnp.sum(0.5 * phi**2 + 0.1 * phi**4)


@pytest.mark.parametrize(
    ("action", "lattice"),
    [
        (plaquette_model(0.1).energy, DIAGONALS),
        (toy4().energy, TOY),
        (
            p4.phi4_from_lagrangian(p4.lattice.from_networkx(nx.karate_club_graph()), mu_squared=-1.0, lam=1.0).energy,
            p4.lattice.from_networkx(nx.karate_club_graph()),
        ),
        (
            p4.phi4(p4.lattice.bipartite(3, 4), w=np.linspace(-1, 1, 12), a=1.0, b=0.2).energy,
            p4.lattice.bipartite(3, 4),
        ),
        (roll_action, p4.lattice.square(6)),
        (fourier_action, p4.lattice.square(8)),
        # entries of very different size: rounding must not look like an interaction, nor φ² at large fields like nothing
        (lambda phi: jnp.sum((phi - jnp.roll(phi, 1, 0)) ** 8 + phi**2), p4.lattice.square(8)),
        (lambda phi: jnp.sum(jnp.cosh(phi)), p4.lattice.square(4)),
        (p4.phi4(p4.lattice.chain(1), a=1.0, b=0.2).energy, p4.lattice.chain(1)),
    ],
)
def test_local_black_boxes_pass(action, lattice):
    report = p4.check_action(action, lattice)
    assert report.satisfied and report.violations == (), str(report)
    assert report.raise_if_violated() is report


def test_the_same_action_fails_on_a_graph_that_lacks_its_edges():
    action = p4.phi4(DIAGONALS, w={"nn": 1.0, "diagonal": 0.5}, a=2.0, b=0.2).energy
    found = {v.sites for v in p4.check_action(action, SQUARE).violations}
    assert found == {tuple(e) for e in DIAGONALS.edges_of("diagonal").tolist()}


def test_double_precision_sees_weaker_interactions(x64):
    local = p4.phi4(SQUARE, a=1.5, b=0.2).energy
    report = p4.check_action(lambda phi: local(phi) + 1e-8 * phi[0, 0] * phi[2, 2], SQUARE)
    assert [v.sites for v in report.violations] == [(0, 10)]
    assert p4.check_action(local, SQUARE).satisfied


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ("phi**2", ("argument.action", "(4, 4)", "got 'phi**2'")),
        (lambda phi: float(jnp.sum(phi)), ("argument.action.raises", "ConcretizationTypeError")),
        (lambda phi: np.sin(phi).sum(), ("argument.action.raises", "TracerArrayConversionError", "jax.numpy")),
        (lambda phi: 0.0 if phi[0, 0] > 0 else 1.0, ("argument.action.raises", "TracerBoolConversionError")),
        (lambda phi, extra: jnp.sum(phi), ("argument.action.raises", "TypeError")),
        (lambda phi: phi**2, ("argument.action.returns",)),
        (lambda phi: jnp.sum(1j * phi), ("argument.action.returns",)),
        (lambda phi: (jnp.sum(phi), 0.0), ("argument.action.returns",)),
        (lambda phi: None, ("argument.action.returns",)),
        (
            lambda phi: jax.lax.while_loop(lambda s: s < 1.0, lambda s: s + jnp.sum(phi**2), 0.0),
            ("argument.action.not_differentiable",),
        ),
    ],
)
def test_what_is_no_action_is_refused(action, message):
    with raises(*message):
        p4.check_action(action, SQUARE)
    with raises("argument.lattice", got="Graph"):
        p4.check_action(roll_action, nx.path_graph(3))


# --- clique potentials


def fields_of(lattice, count=3, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *lattice.field_shape))


@pytest.mark.parametrize(
    ("model", "declared"),
    [
        (toy4(), True),
        (toy4(), False),
        (random_phi4(1), True),
        (random_phi4(2), False),
        (p4.phi4(p4.lattice.square(3), a=1.5, b=0.2), True),
        (p4.phi4(p4.lattice.square(3, diagonals=True), w={"nn": 1.0, "diagonal": 0.5}, a=1.5, b=0.2), True),
        (plaquette_model(0.3), True),
        (p4.gaussian(graph_of((0, 1), sites=[2]), w=0.5, a=1.0), True),
    ],
)
def test_the_product_of_the_clique_potentials_is_the_density(model, declared, x64):
    report = model.check() if declared else p4.check_action(model.energy, model.lattice)
    potentials = report.clique_potentials
    assert len(potentials) == len(report.maximal_cliques) == len(model.lattice.maximal_cliques())
    for phi in fields_of(model.lattice):
        assert potentials.log_product(phi) == pytest.approx(-float(model.energy(phi)), abs=1e-9)
        values = [potentials[k](phi.ravel()[list(c)]) for k, c in enumerate(potentials.cliques)]
        np.testing.assert_allclose(values, np.exp(potentials.log_potentials(phi)), rtol=1e-9)


def test_the_product_differs_from_the_density_of_an_action_that_is_not_markov(x64):
    """Negative control of the factorization."""
    action = lambda phi: toy4().energy(phi) + 0.1 * phi[0] * phi[3]  # noqa: E731
    report = p4.check_action(action, TOY)
    assert [v.sites for v in report.violations] == [(0, 3)]
    for phi in fields_of(TOY):
        defect = report.clique_potentials.log_product(phi) + float(action(phi))
        assert defect == pytest.approx(0.1 * phi[0] * phi[3], abs=1e-12) and abs(defect) > 1e-4


def test_site_terms_are_shared_equally_by_the_cliques_around_a_site(x64):
    w, a, b, r = 0.9, 1.5, 0.2, 0.3
    potentials = p4.phi4(SQUARE, w=w, a=a, b=b, r=r).check().clique_potentials
    x, y = 0.7, -1.3
    share = lambda f: (a * f**2 + b * f**4 + r * f) / 4  # noqa: E731
    for clique in ((0, 1), (1, 0), 5):
        assert potentials[clique](np.array([x, y])) == pytest.approx(np.exp(w * x * y - share(x) - share(y)), rel=1e-12)
    toy = toy4().check().clique_potentials  # site 2 belongs to both cliques, site 3 to one
    site = lambda f: 0.5 * f**2 + 0.25 * f**4  # noqa: E731
    assert toy[2, 3](np.array([x, y])) == pytest.approx(np.exp(0.4 * x * y - site(x) / 2 - site(y)), rel=1e-12)


def test_wrong_questions_to_the_potentials_are_refused():
    potentials = toy4().check().clique_potentials
    with raises("argument.clique", "(0, 1, 2)", "(2, 3)", got="(0, 1)"):
        potentials[0, 1]
    with raises("argument.clique.choice", got="2"):
        potentials[2]
    with raises("argument.phi_c.shape", "3", "(0, 1, 2)"):
        potentials[0](np.ones(2))
    with raises("argument.phi.shape", "4", got="shape (1,)"):
        potentials.log_product(np.ones(1))
    with raises("argument.lattice.too_large", "20000"):
        _ = p4.gaussian(p4.lattice.complete(20), w=0.01, a=1.0).check().clique_potentials


# --- positivity and the report


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (lambda phi: -jnp.sum(jnp.log(phi)), "S is .* at a field of size 0"),
        (lambda phi: jnp.sum(jnp.where(jnp.abs(phi) > 1, jnp.inf, 0.0)), "S is inf at a field of size"),
        (lambda phi: jnp.sum(jnp.sqrt(phi + 0.5)), "S is nan at a field of size"),
    ],
)
def test_an_action_that_is_not_finite_has_no_positive_potentials(extra, reason):
    report = p4.check_action(lambda phi: jnp.sum(phi**2) + extra(phi), SQUARE)
    assert not report.is_positive and not report.is_markov and not report.satisfied
    assert re.search(reason, report.positive_reason), report.positive_reason
    assert "not decided" in report.markov_reason and "positive potentials  NO" in str(report)


def test_a_declared_wall_has_no_positive_potentials():
    wall = p4.Term("wall", np.arange(16)[:, None], lambda x: jnp.where(jnp.abs(x) > 1, jnp.inf, 0.0))
    report = p4.MarkovRandomField(SQUARE, [*p4.gaussian(SQUARE, w=0.1, a=1.0).terms, wall]).check()
    assert report.is_markov and not report.is_positive
    assert "the density vanishes there" in report.positive_reason


def test_the_report_reads_like_this():
    assert str(toy4().replace(g=0.0).check()).splitlines()[:5] == [
        "Hammersley–Clifford check: satisfied",
        f"  graph                {TOY.name}: 4 sites, 4 edges",
        "  maximal cliques      1 of 2 sites, 1 of 3 sites",
        "  Markov on the graph  yes  all 13 scopes of 4 terms are cliques of the graph",
        "  positive potentials  yes  S is finite at 6 random fields (a search, not a proof)",
    ]
    flat = p4.gaussian(p4.lattice.chain(6), w=1.0, a=1.0).check()
    assert str(flat).splitlines()[0] == "Hammersley–Clifford check: NOT satisfied"
    with raises("hammersley_clifford.not_normalizable"):
        flat.raise_if_violated()
