"""Compiled potentials against loops over edges written in NumPy, and exact answers against the reference values."""

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from raising import raises

import phi4ppl as p4
from phi4ppl.energy.functions import energy

pytestmark = pytest.mark.compile_quickly


def asymmetric(x, y):
    return x**3 * y


def four_fields(a, b, c, d):
    return a * b * c * d


KARATE = p4.lattice.from_networkx(nx.karate_club_graph())
GNM = p4.lattice.from_networkx(nx.gnm_random_graph(12, 20, seed=3))
HUB = p4.lattice.from_networkx(nx.compose(nx.star_graph(40), nx.path_graph(12)))  # degrees of three classes
OPEN_DIAGONALS = p4.lattice.square(4, 5, periodic=False, diagonals=True)

LAYOUTS = {
    "torus": (p4.lattice.square(4, 6), "stencil"),
    "open square": (p4.lattice.square(4, 3, periodic=False), "stencil"),
    "torus 3x3": (p4.lattice.square(3), "stencil"),
    "torus 2x2": (p4.lattice.square(2), "gather"),
    "torus 2x5": (p4.lattice.square(2, 5), "gather"),
    "torus 3x3, diagonals": (p4.lattice.square(3, diagonals=True), "stencil"),
    "open, diagonals": (OPEN_DIAGONALS, "stencil"),
    "triangular": (p4.lattice.triangular(4), "stencil"),
    "triangular 3x3": (p4.lattice.triangular(3), "stencil"),
    "open triangular": (p4.lattice.triangular(3, 4, periodic=False), "stencil"),
    "cubic": (p4.lattice.hypercubic((3, 3, 4)), "stencil"),
    "open cubic": (p4.lattice.hypercubic((2, 3, 2), periodic=False), "stencil"),
    "ring": (p4.lattice.chain(5), "stencil"),
    "ring of two": (p4.lattice.chain(2), "dense"),
    "complete": (p4.lattice.complete(6), "dense"),
    "bipartite": (p4.lattice.bipartite(3, 4), "dense"),
    "karate club": (KARATE, "gather"),
    "random graph": (GNM, "gather"),
    "torus 2x2x2": (p4.lattice.hypercubic((2, 2, 2)), "gather"),
    "open square of width one": (p4.lattice.square(5, 1, periodic=False), "stencil"),
    "four dimensions": (p4.lattice.hypercubic((3, 2, 3, 2), periodic=False), "stencil"),
    "hub": (HUB, "gather"),
}


def by_hand(lattice, w, a, b, r, phi):
    """Action and its gradient, one edge at a time, in double precision; and both with all signs positive, for rounding."""
    n, flat = lattice.num_sites, np.asarray(phi, float).ravel()
    w = np.broadcast_to(w, lattice.num_edges)
    a, b, r = (np.broadcast_to(np.ravel(v) if np.ndim(v) else v, n) for v in (a, b, r))
    results = []
    for size in (lambda x: x, np.abs):
        action = np.sum(size(a * flat**2) + size(b * flat**4) + size(r * flat))
        slope = size(2 * a * flat) + size(4 * b * flat**3) + size(r)
        for (i, j), w_ij in zip(lattice.edges, w, strict=True):
            action += size(-w_ij * flat[i] * flat[j])
            slope[i] += size(-w_ij * flat[j])
            slope[j] += size(-w_ij * flat[i])
        results.append((action, slope.reshape(phi.shape)))
    return results


def couplings_of(lattice, kind, seed=0):
    rng = np.random.default_rng(seed)
    if kind == "uniform":
        return {"w": 0.7, "a": 1.3, "b": 0.2, "r": -0.4}
    shape = lattice.field_shape
    sites = {"a": rng.normal(size=shape), "b": rng.uniform(0, 1, shape), "r": rng.normal(size=shape)}
    return {"w": rng.normal(size=lattice.num_edges), **sites}


@pytest.mark.compile_quickly(False)
@pytest.mark.parametrize("kind", ["uniform", "per clique"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_action_and_the_force(name, kind):
    """Within the rounding of a sum of k numbers, at most k units in the last place of the sum of their sizes."""
    lattice, layout = LAYOUTS[name]
    couplings = {k: np.float32(v).astype(float) for k, v in couplings_of(lattice, kind).items()}
    compiled = p4.compile(p4.phi4(lattice, **couplings))
    assert (compiled.layout, compiled.num_dimensions) == (layout, lattice.num_sites)
    phi = np.random.default_rng(1).normal(size=lattice.field_shape).astype(np.float32)
    (action, slope), (action_size, slope_size) = by_hand(lattice, phi=phi, **couplings)
    degree = (
        lattice.num_sites if layout == "dense" else lattice.degree.max()
    )  # a sum over all sites stands in for a row
    for x64 in (True, False):
        with jax.enable_x64(x64):
            field = jnp.asarray(phi, float)
            value, gradient = jax.jit(jax.value_and_grad(compiled.potential_fn))(field)
            assert gradient.dtype == value.dtype == field.dtype == (jnp.float64 if x64 else jnp.float32)
            unit = np.finfo(value.dtype).eps
            summed = (
                np.abs(phi).sum() if layout == "dense" and kind == "uniform" else 0
            )  # Σφ − φ_i: rounding of the sum
            assert (np.abs(gradient - slope) <= (degree + 6) * unit * (slope_size + summed)).all()
            assert abs(value - action) <= (lattice.num_sites + 10) * unit * (action_size + summed**2)


@pytest.mark.parametrize("name", ["open, diagonals", "triangular", "random graph", "hub", "complete", "bipartite"])
def test_second_derivatives_and_derivatives_by_the_couplings(name, x64):
    """Hessian of a Gaussian field = its precision matrix; ∂S/∂θ = the statistics; in forward and in reverse mode."""
    lattice = LAYOUTS[name][0]
    model = p4.gaussian(lattice, w=np.random.default_rng(2).normal(size=lattice.num_edges), a=1.5)
    phi = jax.random.normal(jax.random.key(0), lattice.field_shape)
    n = lattice.num_sites
    expected = np.diag(np.full(n, 3.0))
    for (i, j), w in zip(lattice.edges, model.couplings["w"], strict=True):
        expected[i, j] = expected[j, i] = -w
    potential = p4.compile(model).potential_fn
    for derivative in (jax.hessian(potential), jax.jacrev(jax.jacrev(potential))):
        np.testing.assert_allclose(jax.jit(derivative)(phi).reshape(n, n), expected, atol=1e-13)
    np.testing.assert_allclose(p4.exact.gaussian_precision(model), expected, atol=1e-13)

    def of_couplings(w, a):
        return p4.compile(model.replace(w=w, a=a)).potential_fn(phi)

    for w, mode in ((0.7, jax.grad), (model.couplings["w"], jax.jacfwd)):
        statistics = model.replace(w=w).statistics(phi)
        slopes = jax.jit(mode(of_couplings, argnums=(0, 1)))(jnp.asarray(w), jnp.asarray(1.5))
        np.testing.assert_allclose(slopes[0], statistics["w"], atol=1e-12)
        np.testing.assert_allclose(slopes[1], statistics["a"], rtol=1e-13)


def test_terms_on_some_cliques_and_terms_of_the_user(x64):
    lattice = p4.lattice.square(4, diagonals=True)
    built_in = p4.terms.BUILT_IN
    rng = np.random.default_rng(4)
    phi = rng.normal(size=(4, 4))
    flat = phi.ravel()
    edges, plaquettes = lattice.edges[[3, 40, 7]][:, ::-1], p4.lattice.plaquettes(lattice)
    model = p4.MarkovRandomField(
        lattice,
        [
            p4.Term("w", edges, built_in["hopping"], [0.5, -1.0, 2.0]),
            p4.Term("d", lattice.edges_of("diagonal"), built_in["hopping"], 0.3),
            p4.Term("a", [[3], [1]], built_in["mass"], [1.0, 2.0]),
            p4.Term("h", edges, asymmetric, 0.7),
            p4.Term("g", plaquettes, four_fields, rng.normal(size=16)),
        ],
    )
    expected = -np.sum([0.5, -1.0, 2.0] * flat[edges].prod(1)) - 0.3 * np.sum(flat[lattice.edges[32:]].prod(1))
    expected += flat[3] ** 2 + 2 * flat[1] ** 2 + 0.7 * np.sum(flat[edges[:, 0]] ** 3 * flat[edges[:, 1]])
    expected += np.sum(model.couplings["g"] * flat[plaquettes].prod(1))
    compiled = p4.compile(model)
    assert compiled.layout == "gather"
    assert float(compiled.potential_fn(phi)) == pytest.approx(expected, rel=1e-13)
    assert float(model.energy(phi)) == pytest.approx(expected, rel=1e-13)
    gradients = [jax.jit(jax.grad(f))(phi) for f in (compiled.potential_fn, model.energy)]
    np.testing.assert_allclose(*gradients, atol=1e-13)


@pytest.fixture(scope="module")
def compiled():
    return p4.compile(p4.phi4(p4.lattice.square(4), w=0.9, a=1.5, b=0.2))


def test_signs_and_positions(compiled):
    phi = jax.random.normal(jax.random.key(0), (4, 4))
    assert float(compiled.logdensity_fn(phi)) == -float(compiled.potential_fn(phi))
    assert float(compiled.potential_fn(phi)) == pytest.approx(float(compiled.model.energy(phi)), rel=1e-5)
    assert float(compiled.potential_fn(jnp.ones((4, 4)))) == pytest.approx(16 * (-1.8 + 1.5 + 0.2), rel=1e-5)
    assert list(compiled.constrain(phi)) == ["phi"] and compiled.constrain(phi)["phi"] is phi
    assert compiled.fields == {"phi": compiled.model}
    batch = jnp.stack([phi, 2 * phi])
    np.testing.assert_allclose(jax.vmap(compiled.potential_fn)(batch), compiled.model.energy(batch), rtol=1e-5)


def test_integers_and_numpy_arrays_are_fields_like_any_other(compiled):
    spins = np.where(np.indices((4, 4)).sum(0) % 2, 1, -1)
    expected = 16 * (1.8 + 1.5 + 0.2)
    for phi in (spins, jnp.asarray(spins), spins.astype(float), spins.tolist(), jnp.asarray(spins, jnp.float16)):
        assert float(compiled.potential_fn(phi)) == pytest.approx(expected, rel=1e-3)


def test_starts_depend_on_the_key_alone_and_spread_over_both_signs(compiled):
    keys = jax.random.split(jax.random.key(3), 64)
    starts = compiled.initial_position(keys)
    np.testing.assert_allclose(starts[5], compiled.initial_position(keys[5]), rtol=1e-6)
    means = starts.mean(axis=(1, 2))  # ±1 up to 0.125
    assert (means > 0).any() and (means < 0).any() and (abs(abs(means) - 1) < 0.7).all()
    assert compiled.initial_position(jax.random.PRNGKey(0)).shape == (4, 4)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (
            lambda c: c.potential_fn(jnp.ones((2, 4, 4))),
            ("argument.phi.shape", "(4, 4)", "(2, 4, 4)"),
        ),
        (lambda c: c.logdensity_fn(jnp.ones(16)), ("argument.phi.shape", "(4, 4)", "(16,)")),
        (
            lambda c: c.potential_fn(1j * jnp.ones((4, 4))),
            ("argument.phi.dtype", "got dtype complex64"),
        ),
        (
            lambda c: c.potential_fn({"phi": jnp.ones((4, 4))}),
            ("argument.phi.labels", "'phi'"),
        ),
        (lambda c: c.initial_position(0), ("argument.key", "0", "jax.random")),
        (lambda c: p4.compile(c.model, 3.0), ("argument.args.unused", "MarkovRandomField")),
        (lambda c: p4.compile(c.model, data=1), ("argument.args.unused",)),
        (
            lambda c: p4.compile(c.model.lattice),
            ("argument.model", "MarkovRandomField", "NumPyro", "got Lattice"),
        ),
    ],
)
def test_wrong_use_is_refused(compiled, use, message):
    with raises(*message):
        use(compiled)


def test_a_statistic_need_not_be_hashable():
    class Square:
        __hash__ = None

        def __call__(self, x):
            return x * x

    model = p4.MarkovRandomField(p4.lattice.chain(2), [p4.Term("c", [[0], [1]], Square(), 2.0)])
    assert float(p4.compile(model).potential_fn(jnp.array([1.0, 3.0]))) == 20.0


def test_one_compilation_serves_every_call_and_every_coupling():
    traced = []

    def counting(x):
        traced.append(x)
        return x**6

    lattice = p4.lattice.chain(5)
    field = p4.MarkovRandomField(lattice, [p4.Term("c", np.arange(5)[:, None], counting, 0.1)])
    traced.clear()  # the declaration looked at it once
    potential = jax.jit(p4.compile(field).potential_fn)
    values = [float(potential(jnp.full(5, x))) for x in (1.0, 2.0, 3.0)]
    assert values == pytest.approx([0.5, 32.0, 364.5]) and len(traced) == 1

    of_models = jax.jit(energy)  # the couplings are leaves of the model: one program serves them all
    fields = [p4.MarkovRandomField(p4.lattice.chain(5), field.terms).replace(c=c) for c in (0.1, 0.2)]
    assert [float(of_models(model, jnp.ones(5))) for model in fields] == pytest.approx([0.5, 1.0])
    assert len(traced) == 2


# --- exact answers


def test_gaussian_log_partition_is_the_reference_value(reference, x64):
    case = reference["free_8x8_w1.0_a2.5_g0.0_r0.0"]["quantities"]
    model = p4.gaussian(p4.lattice.square(8), w=1.0, a=2.5)
    assert float(jax.jit(p4.exact.gaussian_log_partition)(model)) == pytest.approx(case["logZ"]["value"], abs=1e-11)
    covariance = np.linalg.inv(p4.exact.gaussian_precision(model))
    for name, site in (("<phi^2>", 0), ("<phi_0 phi_nn_x>", 8), ("<phi_0 phi_nn_y>", 1), ("<phi_0 phi_diag>", 9)):
        assert covariance[0, site] == pytest.approx(case[name]["value"], abs=1e-12)
    # ∂ log Z/∂θ = −⟨T⟩
    slope = jax.jit(jax.grad(p4.exact.gaussian_log_partition))(model).couplings
    assert float(slope["w"]) == pytest.approx(128 * case["<phi_0 phi_nn_x>"]["value"], abs=1e-9)
    assert float(slope["a"]) == pytest.approx(-64 * case["<phi^2>"]["value"], abs=1e-9)


def with_source(model, r):
    sites = np.arange(model.lattice.num_sites)[:, None]
    return p4.MarkovRandomField(model.lattice, [*model.terms, p4.Term("r", sites, p4.terms.source, r)])


def test_derivatives_of_the_gaussian_log_partition_are_those_of_finite_differences(x64):
    rng = np.random.default_rng(5)
    model = with_source(p4.gaussian(GNM, w=rng.normal(size=20), a=rng.uniform(4, 5, 12)), rng.normal(size=12))
    slope = jax.jit(jax.grad(p4.exact.gaussian_log_partition))(model).couplings
    log_partition = jax.jit(p4.exact.gaussian_log_partition)
    for name, value in model.couplings.items():
        for k in (0, len(value) - 1):
            step = 1e-5 * (np.arange(len(value)) == k)
            ahead, behind = (log_partition(model.replace(**{name: value + s})) for s in (step, -step))
            assert float(slope[name][k]) == pytest.approx(float(ahead - behind) / 2e-5, abs=1e-8)


def test_gaussian_with_a_source_agrees_with_quadrature(x64):
    """Mean −Q⁻¹r, covariance Q⁻¹ and log Z by brute force over three sites. Planted: the mean of the other sign."""
    r = np.array([0.7, -0.4, 0.1])
    model = p4.gaussian(p4.lattice.chain(3, periodic=False), w=[0.5, -0.3], a=[0.9, 1.1, 1.0], r=r)
    functions = {f"phi_{i}": lambda phi, i=i: phi[i] for i in range(3)}
    functions |= {f"phi_{i}{j}": lambda phi, i=i, j=j: phi[i] * phi[j] for i in range(3) for j in range(3)}
    found = p4.exact.quadrature(model, functions, half_width=9.0, points=96)
    mean = np.array([found[f"phi_{i}"] for i in range(3)])
    second = np.array([[found[f"phi_{i}{j}"] for j in range(3)] for i in range(3)])
    np.testing.assert_allclose(p4.exact.gaussian_mean(model), mean, atol=1e-10)
    covariance = np.linalg.inv(np.asarray(p4.exact.gaussian_precision(model)))
    np.testing.assert_allclose(covariance, second - np.outer(mean, mean), atol=1e-10)
    assert float(p4.exact.gaussian_log_partition(model)) == pytest.approx(found["log_partition"], abs=1e-10)
    assert np.abs(p4.exact.gaussian_mean(model) + mean).max() > 0.1
    assert float(p4.log_partition(model).value) == pytest.approx(found["log_partition"], abs=1e-10)
    assert "r=0.1" in repr(p4.gaussian(p4.lattice.chain(3), w=0.5, a=1.0, r=0.1)) and model.check().satisfied


def test_gaussian_log_partition_of_one_and_two_sites_by_hand(x64):
    one = with_source(p4.gaussian(p4.lattice.chain(1), w=1.0, a=0.8), 0.3)
    assert float(jax.jit(p4.exact.gaussian_log_partition)(one)) == pytest.approx(0.5 * np.log(np.pi / 0.8) + 0.09 / 3.2)
    two = p4.gaussian(p4.lattice.chain(2), w=0.5, a=1.0)  # Q = [[2, −½], [−½, 2]]
    assert float(jax.jit(p4.exact.gaussian_log_partition)(two)) == pytest.approx(np.log(2 * np.pi) - 0.5 * np.log(3.75))


@pytest.mark.parametrize("lattice", [p4.lattice.square(4), KARATE], ids=lambda x: x.name)
@pytest.mark.parametrize("tilted", [False, True])
def test_intrinsic_log_partition_is_the_integral_over_fields_of_zero_mean(lattice, tilted, x64):
    n = lattice.num_sites
    model = p4.gaussian(lattice, w=0.6, a=0.3 * lattice.degree)
    linear = np.linspace(-1, 2, n) if tilted else np.zeros(n)  # its mean does not matter
    laplacian = 0.6 * nx.laplacian_matrix(lattice.graph, nodelist=range(n)).toarray()
    values, vectors = np.linalg.eigh(laplacian)
    tilt = vectors[:, 1:].T @ linear
    expected = np.sum(0.5 * np.log(2 * np.pi / values[1:]) + tilt**2 / values[1:] / 2)
    model = with_source(model, linear)
    assert float(p4.exact.gaussian_log_partition(model, intrinsic=True)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("n", [4, 16])
def test_gaussian_log_partition_of_an_improper_field_is_nan(n, x64):
    with jax.enable_x64(x64):
        for a in (2.0, 1.9):
            model = p4.gaussian(p4.lattice.square(n), w=1.0, a=a)
            assert np.isnan(jax.jit(p4.exact.gaussian_log_partition)(model))
        nearly = p4.gaussian(p4.lattice.square(n), w=1.0, a=2.0005)  # a small mass is still a mass
        eigenvalues = np.linalg.eigvalsh(np.asarray(p4.exact.gaussian_precision(nearly), float))
        expected = 0.5 * np.sum(np.log(2 * np.pi / eigenvalues))
        assert float(jax.jit(p4.exact.gaussian_log_partition)(nearly)) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("name", ["single_a1.52425_b0.175_r0.0", "single_a-2.0_b0.25_r0.1"])
def test_quadrature_of_one_site_is_the_reference(reference, name, x64):
    definition, quantities = reference[name]["definition"], reference[name]["quantities"]
    model = p4.phi4(p4.lattice.chain(1), **{k: definition[k][0] for k in "abr"})
    moments = {f"<phi^{k}>": lambda phi, k=k: phi[0] ** k for k in (1, 2, 3, 4, 6)}
    result = p4.exact.quadrature(model, moments, points=200)
    assert result.pop("log_partition") == pytest.approx(quantities["logZ"]["value"], abs=1e-12)
    assert result == pytest.approx({k: quantities[k]["value"] for k in moments}, abs=1e-10)


def test_quadrature_of_four_sites_is_the_reference(reference, x64):
    lattice = p4.lattice.from_networkx(nx.Graph([(0, 1), (0, 2), (1, 2), (2, 3)]))
    model = p4.MarkovRandomField(
        lattice,
        [*p4.phi4(lattice, w=0.4, a=0.5, b=0.25).terms, p4.Term("g", [[0, 1, 2]], lambda x, y, z: x * y * z, 0.3)],
    )
    quantities = reference["toy4_threebody"]["quantities"]
    observables = {"<ABC>": lambda f: f[0] * f[1] * f[2], "<A>": lambda f: f[0], "<CD>": lambda f: f[2] * f[3]}
    result = p4.exact.quadrature(model, observables, half_width=4.5, points=36)
    assert result.pop("log_partition") == pytest.approx(quantities["logZ"]["value"], abs=1e-9)
    assert result == pytest.approx({k: quantities[k]["value"] for k in observables}, abs=1e-9)


PLAIN = p4.phi4(p4.lattice.chain(2), a=1.0, b=0.2)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (
            lambda: p4.exact.quadrature(p4.phi4(p4.lattice.square(3), a=1.0, b=0.2)),
            ("argument.model.too_large", "33554432", "64", "9"),
        ),
        (
            lambda: p4.exact.quadrature(PLAIN, half_width=1.0),
            ("argument.half_width.too_small",),
        ),
        (lambda: p4.exact.quadrature(PLAIN.replace(b=-0.1)), ("argument.half_width.too_small",)),
        (lambda: p4.exact.quadrature(PLAIN, points=1), ("argument.points", "2", "got 1")),
        (lambda: p4.exact.quadrature(PLAIN, half_width=-1.0), ("argument.half_width", "-1.0")),
        (
            lambda: p4.exact.quadrature(PLAIN.replace(a=100.0), points=8),
            ("argument.points.unresolved", "got 8 points"),
        ),
        (lambda: p4.exact.quadrature(PLAIN.replace(a=5e3)), ("argument.points.unresolved",)),
        (lambda: p4.exact.quadrature(PLAIN, {"m": lambda f: f}), ("argument.observables.returns", "'m'", "(2,)")),
        (
            lambda: p4.exact.quadrature(PLAIN, {"log_partition": jnp.sum}),
            ("argument.observables.returns", "'log_partition'"),
        ),
        (lambda: p4.exact.quadrature("model"), ("argument.model", "MarkovRandomField", "got str")),
        (lambda: p4.exact.gaussian_precision(PLAIN), ("argument.model.not_gaussian", "got also the term 'b'")),
        (lambda: p4.exact.gaussian_log_partition(PLAIN), ("argument.model.not_gaussian", "got also the term 'b'")),
        (lambda: p4.exact.gaussian_log_partition(None), ("argument.model", "MarkovRandomField", "got NoneType")),
        (
            lambda: p4.exact.gaussian_precision(p4.gaussian(p4.lattice.square(65), w=1.0, a=3.0)),
            ("argument.model.too_large", "4096", "got 4225"),
        ),
    ],
)
def test_questions_without_an_exact_answer_are_refused(use, message):
    with raises(*message):
        use()
