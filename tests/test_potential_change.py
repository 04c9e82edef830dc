"""Differences of energies: exact, and accurate in float32 where the difference of two energies is not."""

import functools

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import numpyro
import pytest
from raising import raises

import phi4ppl as p4
from phi4ppl.energy.functions import energy, energy_change

pytestmark = pytest.mark.compile_quickly

LATTICES = {
    "torus": p4.lattice.square(4, 6),
    "open, diagonals": p4.lattice.square(7, 5, periodic=False, diagonals=True),
    "graph": p4.lattice.from_networkx(nx.gnm_random_graph(12, 20, seed=3)),
    "complete": p4.lattice.complete(6),
    "bipartite": p4.lattice.bipartite(3, 4),
    "chain of 77": p4.lattice.chain(77),
}


def alike(x, y):
    return (x - y) ** 4


@pytest.mark.parametrize("kind", ["uniform", "per clique"])
@pytest.mark.parametrize("name", LATTICES)
def test_the_change_is_the_difference_of_the_energies(name, kind, x64):
    lattice, rng = LATTICES[name], np.random.default_rng(3)
    w = 0.7 if kind == "uniform" else rng.normal(size=lattice.num_edges)
    a = 1.3 if kind == "uniform" else rng.normal(size=lattice.num_sites)
    model = p4.phi4(lattice, w=w, a=a, b=0.2, r=-0.4)
    own = [p4.Term("d", lattice.edges[::-2], alike, 0.03), p4.Term("m", [[1], [0]], p4.terms.mass, [0.5, -1.0])]
    model = p4.MarkovRandomField(lattice, [*model.terms, *own])
    compiled = p4.compile(model)
    new, old = rng.normal(size=(2, *lattice.field_shape))
    change, energy_of = jax.jit(compiled.energy_change_fn), jax.jit(model.energy)
    value = change(new, old)
    assert value.shape == ()
    assert float(value) == pytest.approx(float(energy_of(new) - energy_of(old)), rel=1e-12, abs=1e-11)
    assert abs(float(change(old, old))) < 1e-15  # own terms: x·x − x·x may be contracted
    fields = rng.normal(size=(3, *lattice.field_shape))
    batch = jax.jit(jax.vmap(change, in_axes=(0, None)))(fields, old)
    np.testing.assert_allclose(batch, energy_of(fields) - energy_of(old), rtol=1e-11, atol=1e-10)


SIZE = 1024
MODEL = p4.phi4(p4.lattice.square(SIZE), w=1.0, a=1.52425, b=0.175)


def naive(model, new, old):
    """Planted fault: the difference of two energies, each summed over all sites first."""
    return energy(model, new) - energy(model, old)


@functools.cache
def errors_of_a_leapfrog_move(make):
    """Float32 against float64, for moves of one leapfrog step with the step size that V = 2²⁰ sites allow."""
    single = jax.tree.map(np.float32, MODEL)
    double, change, exact, errors = jax.tree.map(np.float64, single), jax.jit(make), jax.jit(naive), []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        old = rng.normal(size=(SIZE, SIZE)).astype(np.float32)
        with jax.enable_x64(True):
            force = jax.jit(jax.grad(energy, argnums=1))(single, old.astype(float))
        step = np.float32(1 / SIZE**0.5)
        new = (old + step * rng.normal(size=old.shape) - step**2 / 2 * np.asarray(force)).astype(np.float32)
        with jax.enable_x64(True):
            expected = float(exact(double, new.astype(float), old.astype(float)))
        errors.append(float(change(single, new, old)) - expected)
    return np.array(errors)


@pytest.mark.compile_quickly(False)
def test_the_change_on_a_million_sites_is_accurate_in_single_precision():
    assert np.abs(errors_of_a_leapfrog_move(energy_change)).max() < 1e-3


@pytest.mark.compile_quickly(False)
def test_the_difference_of_two_energies_would_fail_the_same_test():
    assert np.abs(errors_of_a_leapfrog_move(naive)).max() > 1e-3


def test_wrong_shapes_are_refused_and_numpyro_models_have_a_change_too():
    compiled = p4.compile(p4.phi4(LATTICES["torus"], a=1.0, b=0.1))
    with raises("argument.old.shape", "(4, 6)", "(24,)"):
        compiled.energy_change_fn(jnp.ones((4, 6)), jnp.ones(24))
    with raises("argument.new.dtype"):
        compiled.energy_change_fn(1j * jnp.ones((4, 6)), jnp.ones((4, 6)))
    normal = p4.compile(lambda: numpyro.sample("x", numpyro.distributions.Normal(0.0, 1.0)))
    change = normal.energy_change_fn({"x": jnp.array(2.0)}, {"x": jnp.array(1.0)})
    assert float(change) == pytest.approx(1.5)
