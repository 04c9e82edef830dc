"""Models: energies against reference actions, laws that every action obeys, and refusals."""

import copy
import json
import pickle
from dataclasses import FrozenInstanceError

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from raising import raises

import phi4ppl as p4

WITH_ACTION = (
    "single_a1.52425_b0.175_r0.0", "single_a-2.0_b0.25_r0.1", "chain_periodic_N8_w0.8_a1.4_b0.2_r0.0",
    "chain_open_N5_inhomogeneous", "square_L3_w1_a1.2_b0.175", "square_L3_w1_a1.52425_b0.175",
    "square_L3_w1_a1.9_b0.175", "square_diag_L3_g1.0_a1.52425_b0.175", "square_diag_L3_g0.5_a1.52425_b0.175",
    "free_8x8_w1.0_a2.5_g0.0_r0.0", "fisher_chain_N4_w0.8_a1.4_b0.2",
)  # fmt: skip


def three_fields(a, b, c):
    return a * b * c


def four_fields(a, b, c, d):
    return a * b * c * d


def lattice_of(edges, num_sites):
    graph = nx.empty_graph(num_sites)
    graph.add_edges_from(e[:2] for e in edges)
    return p4.lattice.from_networkx(graph)


def model_of(definition):
    """The inhomogeneous model that a reference case defines by its table of edges."""
    lattice = lattice_of(definition["edges"], definition["n_sites"])
    weight = {(i, j): w for i, j, w in definition["edges"]}
    couplings = {name: np.array(definition[name]) for name in "abr"}
    return p4.phi4(lattice, w=[weight[i, j] for i, j in lattice.edges.tolist()], **couplings)


@pytest.fixture
def toy4(reference):
    """Four sites, edges AB, AC, BC, CD, and a three-body term on ABC."""
    plain = model_of(reference["toy4_threebody"]["definition"])
    return p4.MarkovRandomField(plain.lattice, [*plain.terms, p4.Term("g", [[0, 1, 2]], three_fields, 0.3)])


@pytest.fixture(scope="module")
def even():
    return p4.phi4(p4.lattice.square(4), w=0.9, a=1.5, b=0.2)


# --- energies


@pytest.mark.parametrize("name", WITH_ACTION)
def test_energy_is_the_action_of_the_reference_configuration(reference, name, x64):
    definition = reference[name]["definition"]
    phi = np.array(definition["reference_configuration"])
    expected = definition["action_at_reference_configuration"]
    assert float(model_of(definition).energy(phi)) == pytest.approx(expected, rel=1e-13, abs=1e-13)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("chain_periodic_N8_w0.8_a1.4_b0.2_r0.0", lambda: p4.phi4(p4.lattice.chain(8), w=0.8, a=1.4, b=0.2)),
        (
            "chain_open_N5_inhomogeneous",
            lambda: p4.phi4(
                p4.lattice.chain(5, periodic=False), w=[0.7, -0.4, 1.1, 0.55], a=[0.9, 1.3, -0.2, 0.8, 1.6],
                b=[0.25, 0.1, 0.4, 0.15, 0.05], r=[0.1, -0.2, 0.0, 0.3, -0.15],
            ),
        ),
        ("square_L3_w1_a1.52425_b0.175", lambda: p4.phi4(p4.lattice.square(3), a=1.52425, b=0.175)),
        (
            "square_L3_w1_a1.52425_b0.175",
            lambda: p4.phi4_from_lagrangian(p4.lattice.square(3), mu_squared=-0.9515, lam=0.7),
        ),
        (
            "square_diag_L3_g0.5_a1.52425_b0.175",
            lambda: p4.phi4(p4.lattice.square(3, diagonals=True), w={"nn": 1.0, "diagonal": 0.5}, a=1.52425, b=0.175),
        ),
        ("free_8x8_w1.0_a2.5_g0.0_r0.0", lambda: p4.gaussian(p4.lattice.square(8), w=1.0, a=2.5)),
    ],
)  # fmt: skip
def test_constructors_give_the_action_of_the_reference_configuration(reference, name, make, x64):
    definition, model = reference[name]["definition"], make()
    phi = np.array(definition["reference_configuration"]).reshape(model.field_shape)
    expected = definition["action_at_reference_configuration"]
    assert float(model.energy(phi)) == pytest.approx(expected, rel=1e-13)


def test_three_body_model_has_the_reference_actions_and_density_ratios(reference, toy4, x64):
    case = reference["toy4_threebody"]
    energies = toy4.energy(jnp.array(case["definition"]["configurations"]))
    for k, value in enumerate(energies):
        assert float(value) == pytest.approx(case["quantities"][f"S(conf{k})"]["value"], abs=1e-13)
        ratio = case["quantities"][f"logp(conf{k})"]["value"] - case["quantities"]["logp(conf0)"]["value"]
        assert float(energies[0] - value) == pytest.approx(ratio, abs=1e-12)
    assert toy4.lattice.maximal_cliques() == tuple(map(tuple, case["definition"]["maximal_cliques"]))


def test_signs_of_the_family_at_the_field_of_ones():
    model = p4.phi4(p4.lattice.square(4), w=0.5, a=1.5, b=0.25, r=0.125)
    assert float(model.energy(jnp.ones((4, 4)))) == 16 * (-2 * 0.5 + 1.5 + 0.25 + 0.125)
    statistics = {name: float(value) for name, value in model.statistics(jnp.ones((4, 4))).items()}
    assert statistics == {"w": -32.0, "a": 16.0, "b": 16.0, "r": 16.0}


def test_statistics_are_conjugate_to_the_couplings(toy4, x64):
    phi = jax.random.normal(jax.random.key(0), (5, 4))
    model = toy4.replace(a=0.7).inhomogeneous("b")
    statistics = model.statistics(phi)
    assert [statistics[n].shape for n in "wabrg"] == [(5, 4), (5,), (5, 4), (5, 4), (5,)]
    total = sum((np.asarray(s).reshape(5, -1) * model.couplings[n]).sum(1) for n, s in statistics.items())
    np.testing.assert_allclose(total, model.energy(phi), rtol=1e-13)
    slope = jax.grad(lambda m: m.energy(phi[0]))(model).couplings
    for name, value in slope.items():
        np.testing.assert_allclose(value, statistics[name][0], rtol=1e-13)


def test_phi4_from_lagrangian_gives_the_documented_couplings():
    star = p4.lattice.from_networkx(nx.star_graph(3))
    model = p4.phi4_from_lagrangian(star, kappa=0.5, mu_squared=0.2, lam=0.8)
    np.testing.assert_allclose(model.couplings["a"], (0.2 + 0.5 * np.array([3, 1, 1, 1])) / 2)
    assert (float(model.couplings["w"]), float(model.couplings["b"])) == (0.5, 0.2)
    assert p4.phi4_from_lagrangian(p4.lattice.square(4), mu_squared=1.0, lam=1.0).couplings["a"].shape == ()
    phi = np.array([0.3, -1.0, 0.5, 2.0])
    action = 0.25 * np.sum((phi[0] - phi[1:]) ** 2) + np.sum(0.1 * phi**2 + 0.2 * phi**4)
    assert float(model.energy(phi)) == pytest.approx(action, rel=1e-6)


def test_a_dict_of_kinds_makes_one_term_a_kind():
    lattice = p4.lattice.square(4, diagonals=True)
    both = p4.phi4(lattice, w={"nn": 1.0, "diagonal": np.full(32, 0.5)}, a=2.0, b=0.2)
    assert {n: v.shape for n, v in both.couplings.items()} == {"w_nn": (), "w_diagonal": (32,), "a": (), "b": ()}
    one = p4.phi4(lattice, w=np.repeat([1.0, 0.5], 32), a=2.0, b=0.2)
    phi = jax.random.normal(jax.random.key(1), (4, 4))
    assert float(both.energy(phi)) == pytest.approx(float(one.energy(phi)), rel=1e-5)


def test_couplings_may_have_the_shape_of_the_field(x64):
    lattice = p4.lattice.square(3, 4)
    mass = np.arange(12.0).reshape(3, 4)
    phi = jax.random.normal(jax.random.key(2), (3, 4))
    shaped = p4.phi4(lattice, a=mass, b=0.2)
    for other in (
        shaped.replace(a=mass),
        p4.phi4(lattice, a=mass.tolist(), b=0.2),
        p4.phi4(lattice, a=mass.ravel(), b=0.2),
    ):
        np.testing.assert_array_equal(other.couplings["a"], np.arange(12.0))
        assert float(other.energy(phi)) == float(shaped.energy(phi))
    assert float(jnp.sum(mass * phi**2)) == pytest.approx(float(shaped.energy(phi) - shaped.replace(a=0.0).energy(phi)))


def test_homogeneous_and_inhomogeneous_models_are_the_same_density(even):
    wide, phi = even.inhomogeneous(), jax.random.normal(jax.random.key(3), (4, 4))
    assert {n: v.shape for n, v in wide.couplings.items()} == {"w": (32,), "a": (16,), "b": (16,)}
    assert float(wide.energy(phi)) == pytest.approx(float(even.energy(phi)), rel=1e-5)
    assert {n: v.shape for n, v in even.inhomogeneous("a").couplings.items()} == {"w": (), "a": (16,), "b": ()}


def test_replace_returns_a_new_model_and_leaves_the_old_one(even):
    changed = even.replace(a=1.9, w=np.full(32, 0.1))
    assert (float(changed.couplings["a"]), changed.couplings["w"].shape) == (1.9, (32,))
    assert (float(even.couplings["a"]), even.couplings["w"].shape) == (1.5, ())
    assert changed.lattice is even.lattice


# --- pytree


def test_a_model_passes_through_jit_vmap_and_grad(even):
    phi = jax.random.normal(jax.random.key(4), (4, 4))
    plain = even.energy(phi)
    assert float(jax.jit(lambda m, f: m.energy(f))(even, phi)) == pytest.approx(float(plain), rel=1e-5)
    masses = jnp.array([0.5, 1.0, 2.0])
    expected = [float(even.replace(a=a).energy(phi)) for a in masses]
    np.testing.assert_allclose(jax.vmap(lambda a: even.replace(a=a).energy(phi))(masses), expected, rtol=1e-5)
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[even.replace(a=float(a)) for a in masses])
    np.testing.assert_allclose(jax.vmap(lambda m: m.energy(phi))(batch), expected, rtol=1e-5)
    doubled = jax.tree.map(lambda v: 2 * v, even)
    assert float(doubled.energy(phi)) == pytest.approx(2 * float(plain), rel=1e-5)
    assert float(jax.tree.map(float, even).energy(phi)) == pytest.approx(float(plain), rel=1e-5)
    assert jax.tree.structure(even) == jax.tree.structure(p4.phi4(p4.lattice.square(4), w=2.0, a=0.0, b=1.0))


def test_couplings_traced_by_jax_may_come_in_lists_and_in_the_shape_of_the_field(even):
    phi = jax.random.normal(jax.random.key(7), (4, 4))
    for make in (lambda a: [a] * 16, lambda a: jnp.full((4, 4), a), lambda a: np.full(16, 1.0) * a):
        energy = jax.jit(lambda a, make=make: p4.phi4(even.lattice, w=0.9, a=make(a), b=0.2).energy(phi))
        assert float(energy(1.5)) == pytest.approx(float(even.energy(phi)), rel=1e-5)


def test_leading_axes_are_batches_and_integers_are_fields(even):
    phi = jax.random.normal(jax.random.key(5), (2, 3, 4, 4))
    energies = even.energy(phi)
    assert energies.shape == (2, 3)
    assert float(energies[1, 2]) == pytest.approx(float(even.energy(phi[1, 2])), rel=1e-5)
    spins = np.where(np.indices((4, 4)).sum(0) % 2, 1, -1)
    assert float(even.energy(spins)) == pytest.approx(16 * (2 * 0.9 + 1.5 + 0.2), rel=1e-6)
    assert even.energy(jnp.ones((4, 4), jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool_, jnp.float16, jnp.float32])
def test_jax_couplings_of_any_real_type_can_be_differentiated(dtype):
    model = p4.phi4(p4.lattice.chain(3), a=jnp.ones((), dtype), b=jnp.ones(3, dtype))
    slope = jax.grad(lambda m: m.energy(jnp.array([1.0, 2.0, 3.0])))(model).couplings
    assert (float(slope["a"]), slope["b"].tolist()) == (14.0, [1.0, 16.0, 81.0])


# --- immutability, text, disk


def test_a_model_cannot_be_changed(even):
    wide = p4.phi4(p4.lattice.chain(3), a=[1.0, 2.0, 3.0], b=0.2)
    with pytest.raises(FrozenInstanceError, match="lattice"):
        wide.lattice = None
    with pytest.raises(FrozenInstanceError, match="_values"):
        del wide._values
    for name, index in (("a", 0), ("b", ())):
        with pytest.raises(ValueError, match="read-only"):
            wide.couplings[name][index] = 5.0
    wide.couplings["a"] = None  # a copy of the dict
    assert wide.couplings["a"].tolist() == [1.0, 2.0, 3.0]
    mass = np.array([1.0, 2.0, 3.0])
    model = wide.replace(a=mass)
    mass[0] = 99.0
    assert model.couplings["a"].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("make_copy", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_have_the_same_energy(even, make_copy):
    phi = jax.random.normal(jax.random.key(6), (4, 4))
    assert float(make_copy(even).energy(phi)) == float(even.energy(phi))


def test_describe_and_repr_name_every_term_with_its_coupling(toy4):
    text = toy4.replace(a=0.5).describe()
    assert "graph of 4" in text and "a: mass on 4 sites, coupling 0.5" in text
    assert "w: hopping on 4 cliques of 2, coupling 4 numbers, mean 0.4, range [0.4, 0.4]" in text
    assert "g: custom statistic 'three_fields' on 1 clique of 3" in text
    seen = []
    jax.jit(lambda m: seen.append(repr(m)) or 0)(p4.gaussian(p4.lattice.chain(4), w=1.0, a=2.0))
    assert seen == ["MarkovRandomField(chain of 4, periodic; w=traced, a=traced)"]
    assert repr(p4.Term("g", [[0, 1]], lambda x, y: x * y, 0.1)) == "Term('g', 1 cliques of 2 sites, coupling 0.1)"


LABELED = nx.Graph([("Orkney", "Shetland"), ("Orkney", "Caithness")])
TUPLES = nx.Graph([((0, "x"), (1, "y")), ((1, "y"), (2, None))])


@pytest.mark.parametrize(
    "lattice",
    [p4.lattice.square(3, 4, diagonals=True), p4.lattice.triangular(4, periodic=False), p4.lattice.bipartite(3, 2)]
    + [p4.lattice.from_networkx(g) for g in (LABELED, TUPLES, nx.karate_club_graph())],
    ids=lambda lattice: lattice.name,
)
def test_a_saved_model_comes_back_equal(lattice, tmp_path):
    rng = np.random.default_rng(0)
    model = p4.phi4(lattice, w=rng.normal(size=lattice.num_edges), a=1.5, b=rng.random(lattice.num_sites), r=-0.1)
    loaded = p4.load_model(model.save(tmp_path / "field.npz"))
    assert loaded.lattice == lattice and loaded.lattice.nodes == lattice.nodes
    assert loaded.lattice.maximal_cliques() == lattice.maximal_cliques()
    assert jax.tree.structure(loaded) == jax.tree.structure(model)
    for name, value in model.couplings.items():
        np.testing.assert_array_equal(loaded.couplings[name], value)


def test_what_cannot_be_saved_or_loaded_is_refused_with_the_reason(toy4, tmp_path):
    with raises("argument.term.not_built_in", name="term 'g'"):
        toy4.save(tmp_path / "toy.npz")
    odd = p4.lattice.from_networkx(nx.path_graph([frozenset("ab"), frozenset("c")]))
    with raises("argument.lattice.labels"):
        p4.gaussian(odd, w=1.0, a=2.0).save(tmp_path / "odd.npz")
    with raises("argument.path.missing", "model.save", "missing.npz"):
        p4.load_model(tmp_path / "missing.npz")
    saved = p4.gaussian(p4.lattice.chain(4), w=1.0, a=2.0).save(tmp_path / "good.npz").read_bytes()
    np.savez(tmp_path / "other.npz", header=np.array(json.dumps({"format": "another"})))
    for name, content in (("torn", saved[:200]), ("text", b"hello"), ("zip", b"PK\x03\x04"), ("empty", b"")):
        (tmp_path / f"{name}.npz").write_bytes(content)
    for name in ("torn", "text", "zip", "empty", "other"):
        with raises("argument.path.unreadable", "model.save", f"{name}.npz"):
            p4.load_model(tmp_path / f"{name}.npz")


# --- refusals

CHAIN = p4.lattice.chain(4)
EMPTY_KIND = p4.lattice.square(1, 5, diagonals=True)
SITES = [[0], [1]]


def term(statistic=lambda x: x, cliques=SITES, name="g", coupling=1.0):
    return p4.Term(name, cliques, statistic, coupling)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: term(name="2g"), ("argument.name", "got '2g'")),
        (lambda: term(name="lambda"), ("argument.name", "got 'lambda'")),
        (lambda: term(name=7), ("argument.name",)),
        (lambda: term(cliques=[0, 1]), ("argument.cliques", "(2,)", "cliques of term 'g'")),
        (lambda: term(cliques=[[0.0]]), ("argument.cliques", "got dtype float64", "cliques of term 'g'")),
        (lambda: term(cliques=[]), ("argument.cliques",)),
        (lambda: term(cliques=[[0], [1, 2]]), ("argument.cliques.ragged", "got ragged rows")),
        (lambda: term(cliques="01"), ("argument.cliques",)),
        (lambda: term(four_fields, [[0, 1, 2, 0]]), ("argument.cliques.repeated_site", "(0, 1, 2, 0)")),
        (
            lambda: term(lambda x, y: x * y),
            ("argument.statistic.raises", "1", "TypeError", "statistic of term 'g'"),
        ),
        (lambda: term(cliques=[[2**32]]), ("argument.cliques.range", "2147483647", "got up to 4294967296")),
        (lambda: term("x"), ("argument.statistic", "got 'x'", "statistic of term 'g'")),
        (lambda: term(lambda x: float(x)), ("argument.statistic.raises", "'g'", "ConcretizationTypeError")),
        (lambda: term(lambda x: np.sin(x)), ("argument.statistic.raises", "'g'", "TracerArrayConversionError")),
        (lambda: term(lambda x: jnp.stack([x, x])), ("argument.statistic.returns",)),
        (lambda: term(lambda x: 1j * x), ("argument.statistic.returns",)),
        (lambda: term(lambda x: None), ("argument.statistic.returns",)),
        (lambda: term(coupling="strong"), ("argument.coupling", "got 'strong'", "coupling 'g'")),
        (lambda: term(coupling=1j), ("argument.coupling", "coupling 'g'")),
        (lambda: term(coupling=jnp.array(1j)), ("argument.coupling", "coupling 'g'")),
        (lambda: term(coupling=[1.0, np.nan]), ("argument.coupling.finite", "(1,)", "coupling 'g'")),
        (lambda: term(coupling=jnp.inf), ("argument.coupling.finite", "got inf", "coupling 'g'")),
        (lambda: term(coupling=[1.0, 2.0, 3.0]), ("argument.coupling.shape", "(2,)", "(3,)")),
        (lambda: p4.MarkovRandomField(CHAIN, []), ("argument.terms",)),
        (lambda: p4.MarkovRandomField(CHAIN, ["g"]), ("argument.terms",)),
        (
            lambda: p4.MarkovRandomField(nx.path_graph(4), [term()]),
            ("argument.lattice", "from_networkx"),
        ),
        (lambda: p4.MarkovRandomField(CHAIN, [term(), term()]), ("argument.terms.duplicate", "got 'g' twice")),
        (lambda: p4.MarkovRandomField(CHAIN, [term(cliques=[[7]])]), ("argument.cliques.range", "0", "3", "7", "(7,)")),
        (lambda: p4.MarkovRandomField(CHAIN, [term(cliques=[[-1]])]), ("argument.cliques.range", "0", "3", "got -1")),
        (lambda: p4.phi4(nx.path_graph(4), a=1.0, b=1.0), ("argument.lattice", "got Graph")),
        (lambda: p4.phi4(CHAIN, a=1.0, b=None), ("argument.b",)),
        (lambda: p4.phi4(CHAIN, a=None, b=1.0), ("argument.coupling", "coupling 'a'")),
        (lambda: p4.phi4(CHAIN, a=[[1.0], [1.0, 2.0]], b=1.0), ("argument.coupling", "coupling 'a'")),
        (lambda: p4.phi4(CHAIN, a=[1.0, 2.0], b=1.0), ("argument.coupling.shape", "(4,)", "(2,)", "coupling 'a'")),
        (
            lambda: p4.phi4(CHAIN, w=np.ones((2, 2)), a=1.0, b=1.0),
            ("argument.coupling.shape", "(2, 2)", "coupling 'w'"),
        ),
        (lambda: p4.phi4(CHAIN, w={"diagonal": 1.0}, a=1.0, b=1.0), ("argument.w.name", "'nn'", "got 'diagonal'")),
        (
            lambda: p4.phi4(EMPTY_KIND, w={"diagonal": 1.0}, a=1.0, b=1.0),
            ("argument.w.no_edges", "got 'diagonal', which has"),
        ),
        (lambda: p4.phi4(CHAIN, w={}, a=1.0, b=1.0), ("argument.w.name", "'nn'", "got an empty dict")),
        (
            lambda: p4.phi4_from_lagrangian(CHAIN, mu_squared=[1.0] * 4, lam=1.0),
            ("argument.mu_squared.shape", "(4,)"),
        ),
        (lambda: p4.phi4_from_lagrangian(CHAIN, kappa="1", mu_squared=1.0, lam=1.0), ("argument.kappa",)),
        (lambda: p4.phi4_from_lagrangian(CHAIN, mu_squared=np.nan, lam=1.0), ("argument.mu_squared.finite",)),
    ],
)
def test_wrong_declarations_are_refused(make, message):
    with raises(*message):
        make()


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda m: m.replace(mass=1.0), ("argument.couplings.name", "'w'", "'a'", "'b'", "'mass'")),
        (lambda m: m.inhomogeneous("c"), ("argument.couplings.name", "'w'", "'a'", "'b'", "got 'c'")),
        (lambda m: m.replace(a=np.ones(3)), ("argument.coupling.shape", "(3,)", "coupling 'a'")),
        (lambda m: m.replace(b=-np.inf), ("argument.coupling.finite", "got -inf", "coupling 'b'")),
        (
            lambda m: jax.jit(lambda z: m.replace(b=z).energy(jnp.ones((4, 4))))(1j),
            ("argument.coupling.dtype", "coupling 'b'"),
        ),
        (lambda m: m.energy(jnp.ones(16)), ("argument.phi.shape", "(4, 4)", "(16,)")),
        (lambda m: m.energy(jnp.ones((4, 4, 3))), ("argument.phi.shape", "(4, 4, 3)")),
        (lambda m: m.statistics(1.0), ("argument.phi.shape", "(4, 4)")),
        (lambda m: m.energy(1j * jnp.ones((4, 4))), ("argument.phi.dtype", "got dtype complex64")),
        (lambda m: m.energy("field"), ("argument.phi", "got str")),
        (lambda m: m.energy(None), ("argument.phi", "got NoneType")),
        (lambda m: jax.jit(lambda n: n.check().satisfied)(m), ("argument.model.traced",)),
    ],
)
def test_wrong_use_is_refused(even, use, message):
    with raises(*message):
        use(even)


@pytest.mark.parametrize(
    "cliques", [[[0, 1], [1, 0]], [[0, 1], [1, 2], [0, 1]], [[0], [1], [0]], [[0, 1, 2], [2, 0, 1]]]
)
def test_cliques_listed_twice_are_refused(cliques):
    """In whatever order of sites: the energy of such a clique would count twice."""
    with raises("argument.cliques.duplicate"):
        p4.Term("g", cliques, lambda *fields: sum(fields))


def test_an_edge_attribute_of_the_graph_is_mentioned_until_it_is_used():
    graph = nx.Graph()
    graph.add_weighted_edges_from([("C", "A", 0.5), ("A", "B", 0.7), ("B", "D", 0.9)])
    lattice = p4.lattice.from_networkx(graph)
    unused = "The edge attribute 'weight' of the graph is not used. To use it as couplings, pass w='weight'."
    assert unused in p4.phi4(lattice, w=1.0, a=1.0, b=0.2).describe()
    model = p4.phi4(lattice, w="weight", a=1.0, b=0.2)
    assert "not used" not in model.describe()
    for (i, j), w in zip(lattice.edges, model.couplings["w"], strict=True):
        assert w == graph.edges[lattice.nodes[i], lattice.nodes[j]]["weight"]
    graph.add_edge("C", "D")
    with raises("argument.edge.finite", "1", "4", "'C'", "'D'"):
        p4.phi4(p4.lattice.from_networkx(graph), w="weight", a=1.0, b=0.2)
    with raises("argument.edge.name", "'weight'", "got 'length'"):
        p4.phi4(lattice, w="length", a=1.0, b=0.2)


def test_edge_attributes_by_kind_of_edge():
    graph = nx.Graph()
    graph.add_edge(0, 1, kind="road", cost=2.0)
    graph.add_edge(1, 2, kind="rail", cost=3.0)
    graph.add_edge(0, 2, kind="road", cost=4.0)
    model = p4.phi4(p4.lattice.from_networkx(graph), w={"road": "cost", "rail": 1.0}, a=9.0, b=0.2)
    assert model.couplings["w_road"].tolist() == [2.0, 4.0] and model.couplings["w_rail"] == 1.0
