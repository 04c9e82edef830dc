"""What the layouts promise beyond right answers: no scatter, one pass over the neighbors, batches, one program."""

import re

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

import phi4ppl as p4
from phi4ppl.energy.functions import energy, layout_of

pytestmark = pytest.mark.compile_quickly

LATTICES = {
    "torus": p4.lattice.square(4, 6),
    "open, diagonals": p4.lattice.square(4, 5, periodic=False, diagonals=True),
    "cubic": p4.lattice.hypercubic((3, 4, 5)),
    "graph": p4.lattice.from_networkx(nx.gnm_random_graph(12, 20, seed=3)),
    "hub": p4.lattice.from_networkx(nx.star_graph(40)),
    "complete": p4.lattice.complete(6),
    "bipartite": p4.lattice.bipartite(3, 4),
}
# one lattice of every rule with one coupling for all cliques, every lattice with one a clique, which is the general case
CASES = [(name, "uniform") for name in ("torus", "graph", "complete", "bipartite")]
CASES += [(name, "per clique") for name in LATTICES]
PASSES = ("slice", "gather", "dynamic_slice", "dot_general", "concatenate", "pad")


def sextic(x):
    return x**6


def alike(x, y):
    return (x - y) ** 4


def a_model(lattice, kind="uniform", own=False):
    rng = np.random.default_rng(7)
    w = 0.7 if kind == "uniform" else rng.normal(size=lattice.num_edges)
    a = 1.3 if kind == "uniform" else rng.normal(size=lattice.num_sites)
    model = p4.phi4(lattice, w=w, a=a, b=0.2, r=-0.4)
    sites = np.arange(lattice.num_sites)[:, None]
    terms = [p4.Term("c", sites, sextic, 0.01), p4.Term("d", lattice.edges[::-2], alike, 0.03)]
    return p4.MarkovRandomField(lattice, [*model.terms, *terms]) if own else model


def a_field(lattice, *batch, seed=0):
    return jax.random.normal(jax.random.key(seed), (*batch, *lattice.field_shape))


def primitives(jaxpr) -> list[str]:
    """Names of all operations of a program, those of the functions it calls included."""
    names = []
    for equation in jaxpr.eqns:
        names.append(equation.primitive.name)
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                names += primitives(inner) if hasattr(inner, "eqns") else []
    return names


def operations(function, *arguments) -> list[str]:
    return primitives(jax.make_jaxpr(function)(*arguments).jaxpr)


def compiled_text(function, *arguments) -> str:
    return jax.jit(function).lower(*arguments).compile().as_text()


@pytest.mark.compile_quickly(False)
@pytest.mark.parametrize("kind", ["uniform", "per clique"])
@pytest.mark.parametrize("name", LATTICES)
def test_no_scatter_and_on_regular_lattices_no_gather(name, kind):
    lattice = LATTICES[name]
    model = a_model(lattice, kind)
    layout = layout_of(model)
    arguments = jax.tree.map(jnp.asarray, (model, a_field(lattice)))
    for function in (energy, jax.value_and_grad(energy, argnums=1)):
        names, text = operations(function, *arguments), compiled_text(function, *arguments)
        assert not any(n.startswith("scatter") for n in names) and not re.search(r"\bscatter\(", text)
        if layout == "stencil":
            assert "gather" not in names and not re.search(r"\bgather\(", text)
        if layout == "gather":
            assert "gather" in names and re.search(r"\bgather\(", text)


@pytest.mark.compile_quickly(False)
def test_a_scatter_and_a_gather_would_be_seen():
    """Planted fault: a force by automatic differentiation of Σ φ_i φ_j over an edge list."""
    first, second = LATTICES["graph"].edges.T
    force, phi = jax.grad(lambda phi: jnp.sum(phi[first] * phi[second])), a_field(LATTICES["graph"])
    names, text = operations(force, phi), compiled_text(force, phi)
    assert "gather" in names and any(n.startswith("scatter") for n in names)
    assert re.search(r"\bgather\(", text) or re.search(r"\bscatter\(", text)


@pytest.mark.parametrize("kind", ["uniform", "per clique"])
@pytest.mark.parametrize("name", LATTICES)
def test_energy_and_force_share_one_pass_over_the_neighbors(name, kind):
    lattice = LATTICES[name]
    model = a_model(lattice, kind)
    arguments = jax.tree.map(jnp.asarray, (model, a_field(lattice)))
    alone = operations(energy, *arguments)
    both = operations(jax.value_and_grad(energy, argnums=1), *arguments)
    for operation in PASSES:
        assert both.count(operation) <= alone.count(operation), operation
    apart = operations(lambda v, x: (energy(v, x), jax.grad(energy, argnums=1)(v, x)), *arguments)
    counts = [sum(map(names.count, PASSES)) for names in (alone, apart)]
    assert counts[1] == 2 * counts[0] or counts[0] == 0  # two passes would be counted


@pytest.mark.parametrize("name", LATTICES)
def test_the_force_is_the_slope_of_the_energy(name, x64):
    lattice = LATTICES[name]
    for kind in ("uniform", "per clique"):
        potential = jax.jit(p4.compile(a_model(lattice, kind, own=True)).potential_fn)
        phi = a_field(lattice)
        for seed in (1, 2):
            direction = a_field(lattice, seed=seed)
            steps = np.array([-2, -1, 1, 2]) * 1e-3
            energies = np.array([potential(phi + s * direction) for s in steps])
            slope = energies @ np.array([1, -8, 8, -1]) / 12e-3  # error of fourth order in the step
            expected = float(jnp.sum(jax.grad(potential)(phi) * direction))
            assert slope == pytest.approx(expected, rel=1e-7, abs=1e-7)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_slope_by_the_couplings_is_the_statistic(name, kind, x64):
    lattice = LATTICES[name]
    model, phi = a_model(lattice, kind, own=True), a_field(lattice)
    model = jax.tree.map(jnp.asarray, model)
    statistics = model.statistics(phi).values()
    for mode in (jax.grad, jax.jacfwd):
        slopes = jax.tree.leaves(jax.jit(mode(energy))(model, phi))
        for slope, statistic in zip(slopes, statistics, strict=True):
            np.testing.assert_allclose(slope, statistic, rtol=1e-12, atol=1e-12)
    # of the force: ∂²S/∂θ∂φ = ∂T/∂φ, forward over reverse as learning asks for it
    mixed = jax.tree.leaves(jax.jit(jax.jacfwd(jax.grad(energy, argnums=1)))(model, phi))
    slopes = jax.jit(jax.jacrev(lambda phi: tuple(model.statistics(phi).values())))(phi)
    for got, expected in zip(mixed, slopes, strict=True):
        per_clique = expected.ndim > phi.ndim
        np.testing.assert_allclose(got, jnp.moveaxis(expected, 0, -1) if per_clique else expected, atol=1e-11)


@pytest.mark.parametrize(("name", "kind"), [("torus", "uniform"), ("hub", "per clique"), ("bipartite", "uniform")])
def test_second_derivatives_by_reverse_over_reverse_and_along_a_direction(name, kind, x64):
    lattice = LATTICES[name]
    model = a_model(lattice, kind, own=True)
    potential, phi = p4.compile(model).potential_fn, a_field(lattice)
    expected = jax.jit(jax.hessian(model.energy))(phi)  # plain automatic differentiation
    np.testing.assert_allclose(jax.jit(jax.jacrev(jax.jacrev(potential)))(phi), expected, atol=1e-11)
    along = a_field(lattice, seed=5)
    product = jax.jit(lambda x, d: jax.jvp(jax.grad(potential), (x,), (d,))[1])(phi, along)
    np.testing.assert_allclose(product, jnp.tensordot(expected, along, phi.ndim), atol=1e-11)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_batches_of_fields_and_of_couplings(name, kind, x64):
    lattice = LATTICES[name]
    model, fields = a_model(lattice, kind, own=True), a_field(lattice, 3)
    models = jax.tree.map(lambda v: jnp.stack([jnp.asarray(v), 1.5 * jnp.asarray(v), -jnp.asarray(v)]), model)
    function = jax.value_and_grad(energy, argnums=(0, 1))
    one = jax.jit(function)
    for axes in ((None, 0), (0, None), (0, 0)):
        batch = (
            models if axes[0] == 0 else jax.tree.map(lambda v: v[0], models),
            fields if axes[1] == 0 else fields[0],
        )
        together = jax.jit(jax.vmap(function, in_axes=axes))(*batch)
        alone = [one(*(_take(b, k) if a == 0 else b for a, b in zip(axes, batch, strict=True))) for k in range(3)]
        alone = jax.tree.map(lambda *parts: jnp.stack(parts), *alone)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12), together, alone)


def _take(tree, k):
    return jax.tree.map(lambda v: v[k], tree)


def test_one_program_serves_all_couplings_of_one_shape():
    lattice = LATTICES["torus"]
    function = jax.jit(jax.value_and_grad(energy, argnums=1))
    phi = a_field(lattice)
    models = [jax.tree.map(lambda v, f=f: jnp.float32(f * v), a_model(lattice)) for f in (1.0, 1.2, -0.3)]
    first, second, third = (float(function(model, phi)[0]) for model in models)
    assert function._cache_size() == 1
    assert (second, third) == pytest.approx((1.2 * first, -0.3 * first), rel=1e-5)


def test_own_terms_leave_the_layout_of_the_rest_alone():
    """The hopping of the torus is still a stencil: the only gathers are those of the term on its own cliques."""
    lattice = LATTICES["torus"]
    for own, expected in ((False, 0), (True, 2)):
        model = a_model(lattice, own=own)
        assert layout_of(model) == "stencil"
        assert operations(energy, model, a_field(lattice)).count("gather") == expected


def test_edges_of_one_kind_and_kinds_in_another_order_are_stencils_too(x64):
    lattice = p4.lattice.square(5, diagonals=True)
    rng = np.random.default_rng(1)
    w = {"diagonal": rng.normal(size=50), "nn": 0.4}
    model = p4.phi4(lattice, w=w, a=1.0, b=0.1)
    compiled, phi = p4.compile(model), a_field(lattice)
    assert compiled.layout == "stencil"
    np.testing.assert_allclose(compiled.potential_fn(phi), model.energy(phi), rtol=1e-13)


def test_the_tables_of_a_hub_are_not_as_wide_as_the_hub_for_every_site():
    star = p4.lattice.from_networkx(nx.star_graph(2000))
    jaxpr = jax.make_jaxpr(energy)(p4.phi4(star, a=1.0, b=0.1), a_field(star))
    constants = [v for v in jax.tree.leaves(jaxpr.consts) if np.ndim(v)]
    assert sum(np.size(v) for v in constants) < 20 * star.num_sites


def test_dense_layout_is_recognized_by_the_edges_not_by_the_constructor():
    def layout_by_edges(graph):
        return p4.compile(p4.phi4(p4.lattice.from_networkx(graph), a=1.0, b=0.1)).layout

    assert layout_by_edges(nx.complete_graph(7)) == layout_by_edges(nx.complete_bipartite_graph(3, 5)) == "dense"
    missing = nx.complete_graph(7)
    missing.remove_edge(2, 4)
    assert layout_by_edges(missing) == "gather"
