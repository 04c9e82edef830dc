"""Compiling is most of the wait of a first run: models that differ in couplings only share one compiled program."""

import jax.numpy as jnp
import numpy as np
import pytest

import phi4ppl as p4
from phi4ppl.analysis.observables import standard_observables
from phi4ppl.sampling import get_kernel
from phi4ppl.sampling.program import cached_program

pytestmark = pytest.mark.compile_quickly


def test_other_couplings_lengths_and_seeds_do_not_compile_again():
    model = p4.phi4(p4.lattice.chain(5), w=0.5, a=1.2, b=0.1)
    first = p4.sample(model, num_warmup=30, num_samples=20, kernel="hmc")
    before = cached_program.cache_info()
    other = p4.sample(model.replace(a=1.7, b=0.3), num_warmup=45, num_samples=33, seed=8, thinning=2, kernel="hmc")
    after = cached_program.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)
    measured = standard_observables(model)
    measured.pop("energy_density")
    program = cached_program(model.structure, get_kernel("hmc"), tuple(measured.items()), ("phi",), True, True)
    assert program.advance._cache_size() == 1
    # and the shared program really uses the couplings that it is given
    for tree, couplings in ((first, {}), (other, {"a": 1.7, "b": 0.3})):
        phi, lp = tree["posterior"]["phi"].values, tree["sample_stats"]["lp"].values
        np.testing.assert_allclose(lp, -np.asarray(model.replace(**couplings).energy(phi)), rtol=1e-4, atol=1e-5)


def test_another_shape_of_a_coupling_compiles_its_own_program():
    """One number a clique is another program: the result must not be that of the homogeneous one."""
    model = p4.phi4(p4.lattice.chain(5), w=0.5, a=1.2, b=0.1)
    a = np.linspace(1.0, 3.0, 5)
    tree = p4.sample(model.replace(a=a), num_warmup=30, num_samples=20, kernel="hmc")
    phi, lp = tree["posterior"]["phi"].values, tree["sample_stats"]["lp"].values
    np.testing.assert_allclose(lp, -np.asarray(model.replace(a=a).energy(phi)), rtol=1e-4, atol=1e-5)


def test_functions_of_the_users_own_are_traced_anew():
    """A statistic, or an observable, that reads a value which has changed since must not find its old program."""
    settings = {"stiffness": 1.0}
    site = p4.lattice.chain(1)
    model = p4.MarkovRandomField(site, [p4.Term("k", [[0]], lambda phi: settings["stiffness"] * phi**2)])

    def spread():
        tree = p4.sample(
            model,
            num_warmup=100,
            num_samples=100,
            kernel="hmc",
            observables={"k": lambda _: jnp.float32(settings["stiffness"])},
        )
        assert (tree["posterior"]["k"].values == settings["stiffness"]).all()
        return tree["posterior"]["phi"].values.std()

    wide = spread()  # 1/√2
    settings["stiffness"] = 100.0
    assert spread() < wide / 5  # a tenth, within any noise of 400 draws
