"""Periodic, open and antiperiodic axes in any mixture, against spectra in closed form and against the doubled lattice.

False alarms: the one statistical test compares two means at 4.5 standard errors (1e-5).
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from raising import raises

import phi4ppl as p4

pytestmark = pytest.mark.compile_quickly

BOUNDARIES = (True, False, "antiperiodic")


def hopping_spectrum(n, boundary):
    """Eigenvalues of the adjacency matrix of n sites in a row, with −1 across an antiperiodic boundary."""
    if boundary is False:
        return 2 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1))
    return 2 * np.cos(2 * np.pi * (np.arange(n) + (0.5 if boundary == "antiperiodic" else 0)) / n)


@pytest.mark.parametrize("boundaries", itertools.product(BOUNDARIES, BOUNDARIES))
def test_the_gaussian_spectrum_is_that_of_the_boundaries(boundaries, x64):
    lattice = p4.lattice.hypercubic((3, 4), periodic=boundaries)
    model = p4.gaussian(lattice, w=0.7, a=2.0)
    found = np.linalg.eigvalsh(np.asarray(p4.exact.gaussian_precision(model)))
    both = np.add.outer(*(hopping_spectrum(n, b) for n, b in zip((3, 4), boundaries, strict=True)))
    np.testing.assert_allclose(found, np.sort((4.0 - 0.7 * both).ravel()), atol=1e-12)
    log_z = 6 * np.log(2 * np.pi) - np.log(4.0 - 0.7 * both).sum() / 2
    np.testing.assert_allclose(p4.log_partition(model, method="exact").value, log_z, rtol=1e-10)


@pytest.mark.parametrize("make", [p4.lattice.square, p4.lattice.triangular])
def test_an_antiperiodic_field_is_half_of_a_periodic_one_of_twice_the_length(make, x64):
    """S(φ) = ½ S(φ, −φ): the law that defines the boundary, with a quartic term, diagonals and both axes."""
    kind = {"diagonals": True} if make is p4.lattice.square else {}
    phi = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5)))
    w = {"nn": 0.8, "diagonal": 0.3} if kind else 0.8
    small = p4.phi4(make(4, 5, periodic=("antiperiodic", True), **kind), w=w, a=1.3, b=0.2)
    large = p4.phi4(make(8, 5, **kind), w=w, a=1.3, b=0.2)
    doubled = jnp.concatenate([phi, -phi])
    np.testing.assert_allclose(small.energy(phi), large.energy(doubled) / 2, rtol=1e-12)
    compiled = p4.compile(small)
    np.testing.assert_allclose(compiled.potential_fn(phi), small.energy(phi), rtol=1e-12)
    # both axes: four quarters of a torus of twice the sides
    both = p4.phi4(make(4, 5, periodic="antiperiodic", **kind), w=w, a=1.3, b=0.2)
    torus = p4.phi4(make(8, 10, **kind), w=w, a=1.3, b=0.2)
    np.testing.assert_allclose(
        both.energy(phi), torus.energy(jnp.concatenate([doubled, -doubled], axis=1)) / 4, rtol=1e-12
    )
    # planted fault: the sign left out
    unsigned = small.replace(**{n: abs(v) for n, v in small.couplings.items()})
    assert abs(unsigned.energy(phi) - small.energy(phi)) > 1e-3


@pytest.mark.parametrize("kernel", ["cluster", "local_hmc", "nuts"])
def test_kernels_sample_an_antiperiodic_ring(kernel):
    ring = p4.lattice.chain(3, periodic="antiperiodic")
    model = p4.phi4(ring, w=1.0, a=0.6, b=0.4)
    measured = {"inside": lambda phi: phi[0] * phi[1], "across": lambda phi: phi[2] * phi[0]}
    exact = p4.exact.quadrature(model, measured)
    assert exact["across"] < -0.1 < 0.1 < exact["inside"]  # a periodic ring would have both above 0
    tree = p4.sample(model, kernel=kernel, num_warmup=300, num_samples=2000, observables=measured, seed=1)
    table = p4.estimate(tree, list(measured))
    for name in measured:
        assert abs(table.loc[name, "mean"] - exact[name]) < 4.5 * table.loc[name, "error"]


def test_periodic_takes_one_value_per_axis_and_says_so():
    strip = p4.lattice.square(4, 3, periodic=(False, True))
    assert strip.periodic == (False, True) and strip.num_edges == 9 + 12
    assert "open along axis 0, periodic along axis 1" in repr(strip)
    phi = jax.random.normal(jax.random.key(0), (6, 5))
    model = p4.phi4(p4.lattice.square(6, 5, periodic=(False, True)), a=1.0, b=0.1)
    assert p4.compile(model).layout == "stencil"
    by_hand = -(phi[1:] * phi[:-1]).sum() - (phi * jnp.roll(phi, 1, axis=1)).sum() + (phi**2 + 0.1 * phi**4).sum()
    np.testing.assert_allclose(model.energy(phi), by_hand, rtol=1e-5)


@pytest.mark.parametrize("periodic", ["anti", (True,), (True, True, True), 1, (True, None)])
def test_boundaries_that_make_no_sense_are_refused(periodic):
    with raises("argument.periodic", "'antiperiodic'", "2"):
        p4.lattice.square(4, periodic=periodic)


def test_an_antiperiodic_axis_of_two_sites_and_couplings_per_edge_are_refused():
    with raises("argument.shape.antiperiodic", "3", name="shape[1]"):
        p4.lattice.square(4, 2, periodic=(True, "antiperiodic"))
    ring = p4.lattice.chain(4, periodic="antiperiodic")
    with raises("argument.w.antiperiodic"):
        p4.gaussian(ring, w=[0.1, 0.2, 0.3, 0.4], a=1.0)
    with raises("argument.w.name", "'nn'"):
        p4.gaussian(ring, w={"nn_antiperiodic": 1.0}, a=1.0)


def test_antiperiodic_models_survive_the_disk(tmp_path):
    model = p4.phi4(p4.lattice.square(3, 4, periodic=("antiperiodic", False)), w=0.5, a=1.0, b=0.2)
    loaded = p4.load_model(model.save(tmp_path / "model.npz"))
    assert loaded.lattice == model.lattice and loaded.lattice.sign_kinds == {"nn_antiperiodic": "nn"}
    phi = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4)), jnp.float32)
    assert float(loaded.energy(phi)) == float(model.energy(phi))


def test_the_sign_across_the_boundary_cannot_be_lost():
    """Of w and −w one alone cannot be replaced, nor varied by an inference; fits say that they take two."""
    model = p4.gaussian(p4.lattice.chain(4, periodic="antiperiodic"), w=0.2, a=1.2)
    for alone in ({"w_nn": 0.3}, {"w_nn_antiperiodic": -0.3, "a": 1.0}):
        with raises("argument.couplings.pair", "w_nn", "w_nn_antiperiodic"):
            model.replace(**alone)
    data = np.random.default_rng(0).normal(size=(200, 4))
    with raises("argument.couplings.pair", "w_nn", "w_nn_antiperiodic"):
        p4.infer_couplings(model, data, {"w_nn": dist.Uniform(0.0, 0.5)})
    with raises("argument.couplings.pair", "w_nn", "w_nn_antiperiodic"):
        p4.PartitionSurface(model, {"w_nn": (0.0, 0.5)})
    assert "fitted as two couplings" in p4.fit_likelihood(model, data).warnings[0]
