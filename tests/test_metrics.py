"""Spectra of lattices, mass matrices of free fields and their fit, and gradient kernels with planted faults.

False alarms: every comparison has level 1e-4, shared among its quantities; about 20 are made. Keys are fixed.
"""

import dataclasses

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from exact_runs import rejected
from invariance import (
    exact_draws,
    fixed_tuning,
    invariance_scores,
    model_and_draws,
    states_after,
)
from raising import raises

import phi4ppl as p4
from phi4ppl.kernels import gradient, metrics
from phi4ppl.kernels.metrics import FreeField, fit_free_field, metric_of, spectrum
from phi4ppl.lattice.regular import _regular
from phi4ppl.sampling import get_kernel, target_of

pytestmark = pytest.mark.compile_quickly

LATTICES = {
    "torus": p4.lattice.square(4, 6),
    "odd torus": p4.lattice.square(5, 3),
    "torus with diagonals": p4.lattice.square(5, 4, diagonals=True),
    "open": p4.lattice.square(4, 5, periodic=False),
    "mixed": _regular("mixed", (4, 5), (True, False), {"nn": ((1, 0), (0, 1))}, "square"),
    "mixed the other way": _regular("mixed", (4, 5), (False, True), {"nn": ((1, 0), (0, 1))}, "square"),
    "triangular": p4.lattice.triangular(5, 4),
    "ring": p4.lattice.chain(7),
    "even ring": p4.lattice.chain(8),
    "open chain": p4.lattice.chain(6, periodic=False),
    "cubic": p4.lattice.hypercubic((3, 4, 5)),
    "open cubic": p4.lattice.hypercubic((3, 2, 4), periodic=False),
    "graph": p4.lattice.from_networkx(nx.gnm_random_graph(12, 20, seed=3)),
    "disconnected": p4.lattice.from_networkx(nx.disjoint_union(nx.cycle_graph(4), nx.empty_graph(2))),
    "layers": p4.lattice.bipartite(3, 4),
    "one site": p4.lattice.chain(1),
}


def laplacian_of(lattice):
    adjacency = np.zeros((lattice.num_sites, lattice.num_sites))
    for i, j in lattice.edges:
        adjacency[i, j] = adjacency[j, i] = 1
    return np.diag(adjacency.sum(axis=0)) - adjacency


def matrix_of(function, lattice):
    """The matrix of a linear map of fields, column by column."""
    unit = jnp.eye(lattice.num_sites).reshape(-1, *lattice.field_shape)
    return np.asarray(jax.jit(jax.vmap(function))(unit)).reshape(lattice.num_sites, -1).T


@pytest.mark.parametrize("name", LATTICES)
def test_a_spectrum_is_an_orthonormal_eigenbasis_of_the_graph_laplacian(name, x64):
    lattice = LATTICES[name]
    basis = spectrum(lattice)
    rng = np.random.default_rng(0)
    phi, psi = (rng.normal(size=lattice.field_shape) for _ in range(2))

    @jax.jit
    def all_at_once(phi, psi):
        modes, apply = basis.forward(phi), lambda x: basis.apply(jnp.asarray(basis.laplacian), x)
        inner = jnp.sum(basis.multiplicity * (modes * jnp.conj(basis.forward(psi))).real)
        unit = jnp.eye(lattice.num_sites).reshape(-1, *lattice.field_shape)
        return modes, basis.backward(modes), inner, jax.vmap(apply)(unit), apply(phi.reshape(-1))

    modes, back, inner, applied, flat = all_at_once(phi, psi)
    assert modes.shape == basis.laplacian.shape
    number = np.broadcast_to(basis.multiplicity, modes.shape).astype(int)
    assert number.sum() == lattice.num_sites
    np.testing.assert_allclose(back, phi, atol=1e-12)
    np.testing.assert_allclose(inner, np.sum(phi * psi), atol=1e-12)  # Parseval
    laplacian = laplacian_of(lattice)
    np.testing.assert_allclose(applied.reshape(lattice.num_sites, -1), laplacian, atol=1e-12)
    np.testing.assert_allclose(flat, laplacian @ phi.reshape(-1), atol=1e-12)  # as NUTS hands it over
    eigenvalues = np.repeat(basis.laplacian.reshape(-1), number.reshape(-1))
    np.testing.assert_allclose(np.sort(eigenvalues), np.linalg.eigvalsh(laplacian), atol=1e-10)


@pytest.mark.parametrize("lattice", [p4.lattice.square(2), p4.lattice.square(2, 4, diagonals=True), p4.lattice.square(1, 3),
                                     p4.lattice.square(4, periodic=False, diagonals=True)])  # fmt: skip
def test_other_lattices_have_an_orthonormal_basis_too(lattice, x64):
    """Where edges coincide, or diagonals meet an open boundary, the operator is another one, but symmetric and ≥ 0."""
    basis = spectrum(lattice)
    matrix = matrix_of(lambda x: basis.apply(jnp.asarray(basis.laplacian), x), lattice)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert np.linalg.eigvalsh(matrix).min() > -1e-10
    np.testing.assert_allclose(
        matrix_of(lambda x: basis.backward(basis.forward(x)), lattice), np.eye(lattice.num_sites), atol=1e-12
    )


def test_graphs_too_large_for_eigenvectors_are_refused_by_the_kernels_that_need_them(monkeypatch):
    monkeypatch.setattr(metrics, "MAX_DENSE_SITES", 10)
    model = p4.phi4(p4.lattice.from_networkx(nx.cycle_graph(11)), a=1.0, b=0.2)
    for name in (name for name in p4.kernels() if name.endswith("_fourier")):
        assert "computed up to 10 sites, and this graph has 11" in get_kernel(name).objection(p4.compile(model))
        with raises("argument.kernel.unsuited", "10"):
            p4.sample(model, kernel=name)


FREE = FreeField(1.7, 0.6)


def covariance(lattice):
    """Inverse mass matrix A (Laplacian + m²)⁻¹ by NumPy."""
    return FREE.amplitude * np.linalg.inv(laplacian_of(lattice) + FREE.mass_squared * np.eye(lattice.num_sites))


METRICS = ["torus", "open", "mixed", "graph"]


@pytest.mark.parametrize("name", METRICS)
def test_momenta_kinetic_energy_and_scales_belong_to_one_mass_matrix(name, x64):
    """Deterministically, from the linear map that makes the momenta, and against BlackJAX's dense metric."""
    from blackjax.mcmc.metrics import gaussian_euclidean

    lattice = LATTICES[name]
    metric, inverse_mass = metric_of(jax.tree.map(jnp.asarray, FREE), lattice), covariance(lattice)
    dense = gaussian_euclidean(jnp.asarray(inverse_mass))
    rng = np.random.default_rng(1)
    n, shape = lattice.num_sites, lattice.field_shape
    p = jnp.asarray(rng.normal(size=n))
    unit = jnp.eye(n).reshape(-1, *shape)

    @jax.jit
    def all_at_once(p, keys):
        energies = metric.kinetic_energy(p.reshape(shape)), metric.kinetic_energy(p)
        velocity = jax.grad(metric.kinetic_energy)(p.reshape(shape))
        maps = [
            jax.vmap(lambda y: metric.scale(y, y, inv=inv, trans=trans))(unit).reshape(n, n).T  # noqa: B023
            for inv, trans in ((True, False), (False, False), (True, True))
        ]
        return energies, velocity, maps, jax.vmap(metric.sample_momentum, in_axes=(0, None))(keys, p.reshape(shape))

    keys = jax.random.split(jax.random.key(2), 4000)
    energies, velocity, (root, back, transposed), momenta = all_at_once(p, keys)
    np.testing.assert_allclose(energies, float(p @ inverse_mass @ p) / 2, rtol=1e-10)
    np.testing.assert_allclose(energies[0], dense.kinetic_energy(p), rtol=1e-10)
    np.testing.assert_allclose(velocity.reshape(-1), inverse_mass @ p, rtol=1e-9, atol=1e-12)
    # white → field is a square root of M⁻¹, field → white its inverse, and momenta are M^{1/2} times white noise
    np.testing.assert_allclose(root @ root.T, inverse_mass, atol=1e-10)
    np.testing.assert_allclose(root @ back, np.eye(n), atol=1e-10)
    np.testing.assert_allclose(transposed, root.T, atol=1e-10)
    white = np.asarray(momenta).reshape(-1, n) @ root  # rows M^{1/2}ξ times M^{-1/2}: independent standard normals
    square = white.T @ white / len(keys)
    scores = {
        f"{i} {j}": (square[i, j] - (i == j)) * np.sqrt(len(keys) / (1 + (i == j)))
        for i in range(n)
        for j in range(i + 1)
    }
    scores |= {f"{i}": white[:, i].mean() * np.sqrt(len(keys)) for i in range(n)}
    assert not rejected(scores)
    left, right, middle = (jnp.asarray(rng.normal(size=(300, n)) + 0.1) for _ in range(3))
    turns, expected = (jax.jit(jax.vmap(m.check_turning))(left, right, left + middle + right) for m in (metric, dense))
    np.testing.assert_array_equal(turns, expected)
    assert 10 < turns.sum() < 290


def test_a_diagonal_matrix_is_the_metric_of_blackjax():
    inverse_mass = jnp.array([0.5, 2.0, 3.0])
    metric, p = metric_of(inverse_mass, p4.lattice.chain(3)), jnp.array([1.0, 2.0, -1.0])
    np.testing.assert_allclose(metric.kinetic_energy(p), (0.5 + 8 + 3) / 2)


# --- the fit


def noisy_variance(basis, amplitude, mass_squared, number, seed=0):
    """Variances of modes as measured from ``number`` independent draws of a free field."""
    rng = np.random.default_rng(seed)
    exact = amplitude / (basis.laplacian + mass_squared)
    degrees = number * np.broadcast_to(basis.multiplicity, exact.shape)
    return exact * rng.chisquare(degrees) / degrees


@pytest.mark.parametrize("name", ["torus", "open", "graph", "cubic"])
@pytest.mark.parametrize(("amplitude", "mass_squared"), [(1.0, 1.0), (0.03, 5.0), (40.0, 0.8)])
def test_the_fit_finds_amplitude_and_mass_of_a_free_field(name, amplitude, mass_squared, x64):
    basis, previous = spectrum(LATTICES[name]), FreeField(jnp.asarray(7.0), jnp.asarray(7.0))
    exact = jnp.asarray(amplitude / (basis.laplacian + mass_squared))
    fitted = fit_free_field(basis, exact, previous)
    np.testing.assert_allclose([float(x) for x in fitted], [amplitude, mass_squared], rtol=1e-8)
    fitted = fit_free_field(basis, jnp.asarray(noisy_variance(basis, amplitude, mass_squared, 2000)), previous)
    np.testing.assert_allclose([float(x) for x in fitted], [amplitude, mass_squared], rtol=0.25)


def test_the_fit_stays_within_bounds_whatever_it_is_given():
    basis, previous = spectrum(LATTICES["torus"]), FreeField(jnp.asarray(7.0), jnp.asarray(7.0))
    laplacian = basis.laplacian
    largest, smallest = laplacian.max(), laplacian[laplacian > 1e-9].min()
    rng = np.random.default_rng(1)
    bad = {
        "zero": 0 * laplacian, "nan": np.nan + laplacian, "infinite": np.inf + laplacian, "negative": -1 - laplacian,
        "constant": 1 + 0 * laplacian, "rising": 0.1 + laplacian, "falls too fast": 1 / (laplacian + 1e-9) ** 2,
        "massless": np.where(laplacian > 0, 1 / np.maximum(laplacian, 1e-9), 1e6), "tiny": 1e-30 * rng.random(laplacian.shape),
        "huge": 1e18 * rng.random(laplacian.shape), "one mode": 1.0 * (laplacian == 0),
    } | {f"noise {k}": np.exp(4 * rng.normal(size=laplacian.shape)) for k in range(30)}  # fmt: skip
    for name, variance in bad.items():
        fitted = fit_free_field(basis, jnp.asarray(variance, jnp.float32), previous)
        amplitude, mass_squared = (float(x) for x in fitted)
        assert np.isfinite(amplitude) and amplitude > 0, name
        assert smallest / 4 * 0.999 <= mass_squared <= 100 * largest * 1.001, name
        if name in ("zero", "nan", "infinite"):
            assert fitted == previous, name


@pytest.mark.parametrize("name", ["one site", "disconnected"])
def test_the_fit_of_graphs_with_few_eigenvalues_is_finite(name):
    basis, previous = spectrum(LATTICES[name]), FreeField(jnp.asarray(7.0), jnp.asarray(7.0))
    fitted = fit_free_field(basis, jnp.ones(basis.laplacian.shape), previous)
    assert all(np.isfinite(float(x)) and float(x) > 0 for x in fitted)


# --- gradient kernels with planted faults


def scores_of(name, model="graph", target=None):
    field, before, fresh = model_and_draws(model)
    state, _ = states_after(field, get_kernel(name), before, target=target)
    return invariance_scores(field, before, np.asarray(state.position), fresh, reversible=True)


@pytest.mark.parametrize("name", ["hmc", "chees"])
def test_hmc_with_an_energy_change_of_the_wrong_sign_is_rejected(name):
    right = target_of(p4.compile(model_and_draws("graph")[0]))
    wrong = dataclasses.replace(right, energy_change=lambda new, old: right.energy_change(old, new))
    assert rejected(scores_of(name, target=wrong))


def test_hmc_that_forgets_the_kinetic_energy_is_rejected(monkeypatch):
    careful = gradient.careful_proposal

    def careless(target, integrator, kinetic_energy, *rest, **settings):
        return careful(target, integrator, lambda p, position=None: 0 * jnp.sum(p), *rest, **settings)

    monkeypatch.setattr(gradient, "careful_proposal", careless)
    assert rejected(scores_of("hmc"))


@pytest.mark.parametrize("name", ["hmc_fourier", "nuts_fourier"])
def test_momenta_that_do_not_match_the_kinetic_energy_are_rejected(name, monkeypatch):
    """Planted fault: white momenta, with the kinetic energy of a free field."""

    def mismatched(inverse_mass_matrix, lattice):
        metric = metric_of(inverse_mass_matrix, lattice)
        return metric._replace(sample_momentum=lambda key, x: jax.random.normal(key, x.shape, x.dtype))

    monkeypatch.setattr(metrics, "metric_of", mismatched)
    assert rejected(scores_of(name))


@pytest.mark.parametrize("name", ["adjusted_mclmc"])
def test_microcanonical_dynamics_without_the_change_of_kinetic_energy_is_rejected(name, monkeypatch):
    from blackjax.mcmc import adjusted_mclmc_dynamic, integrators

    right = adjusted_mclmc_dynamic.build_kernel

    def integrator(*arguments, **settings):
        step = integrators.isokinetic_mclachlan(*arguments, **settings)

        def forgetful(state, step_size):
            state, kinetic = step(state, step_size)
            return state, 0 * kinetic

        return forgetful

    monkeypatch.setattr(
        adjusted_mclmc_dynamic, "build_kernel", lambda **options: right(integrator=integrator, **options)
    )
    assert rejected(scores_of(name))


# --- warm-up


def test_warm_up_of_a_fourier_kernel_finds_the_propagator_of_a_free_field():
    model = p4.gaussian(p4.lattice.square(8), w=1.5, a=3.6)  # covariance 1/(1.5 k̂² + 1.2), so A = 1/1.5 and m² = 0.8
    kernel, target = get_kernel("hmc_fourier"), target_of(p4.compile(model))
    draws = jnp.asarray(exact_draws(model, 400), jnp.float32)
    state = kernel.adaptation.begin(target, draws[0])
    chain = kernel.build(target, kernel.adaptation.tuning(state)).init(draws[0])
    one = jnp.asarray(1)

    def update(state, item):
        position, last = item
        seen = chain._replace(position=position)
        return kernel.adaptation.update(target, state, one, last, seen, {"acceptance_rate": jnp.asarray(0.8)}), None

    ends = (jnp.arange(400) == 399).astype(int)
    state = jax.lax.scan(update, state, (draws, ends))[0]
    fitted = kernel.adaptation.final(state)
    np.testing.assert_allclose(fitted.inverse_mass_matrix.amplitude, 1 / 1.5, rtol=0.1)
    np.testing.assert_allclose(fitted.inverse_mass_matrix.mass_squared, 0.8, rtol=0.2)
    assert 1 <= float(fitted.spread) < 2.5  # in units of its own metric every direction is alike


def test_the_fixed_tuning_is_uneven():
    """The tuning that the invariance tests use is not the identity: a wrong use of it would show."""
    model = model_and_draws("graph")[0]
    mass = fixed_tuning(get_kernel("hmc"), model).inverse_mass_matrix
    assert mass.max() > 1.5 * mass.min()
