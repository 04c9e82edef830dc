"""Compiling is most of the wait of a first run: models that differ in couplings only share one compiled program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import phi4ppl as p4
from phi4ppl.analysis.observables import standard_observables
from phi4ppl.sampling import get_kernel
from phi4ppl.sampling.program import cached_program
from phi4ppl.sampling.traced import Traced

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


def test_observables_of_the_users_own_do_not_compile_again():
    """New lambdas of the same content, at other couplings, find the program of the first run; changed constants do not."""
    model = p4.phi4(p4.lattice.chain(5), w=0.5, a=1.2, b=0.1)
    settings = {"scale": np.array([1.0, 2.0])}

    def run(a):
        scale = settings["scale"]
        own = {"m6": lambda phi: jnp.mean(phi) ** 6, "scaled": lambda phi: scale * phi[0]}
        return p4.sample(model.replace(a=a), num_warmup=30, num_samples=20, kernel="hmc", observables=own)

    run(1.2)
    before = cached_program.cache_info()
    tree = run(1.7)
    after = cached_program.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)
    phi = tree["posterior"]["phi"].values
    np.testing.assert_allclose(tree["posterior"]["m6"].values, phi.mean(axis=2) ** 6, rtol=1e-4, atol=1e-9)
    settings["scale"] = np.array([10.0, 2.0])
    np.testing.assert_allclose(run(1.7)["posterior"]["scaled"].values[..., 0], 10 * phi[..., 0], rtol=1e-6)
    assert cached_program.cache_info().misses == after.misses + 1


def test_reweighting_and_derived_quantities_do_not_compile_again(monkeypatch):
    """Counted by JAX itself."""
    phi, model = np.random.default_rng(0).normal(size=(2, 100, 5)), p4.gaussian(p4.lattice.chain(5), w=0.0, a=0.5)
    programs = []

    def count(event, duration, **facts):
        if event == "/jax/core/compile/backend_compile_duration":
            programs.append(facts)

    def use(a):
        own = {"m2": lambda phi: phi[0] ** 2}
        found = p4.reweight(phi, model, model.replace(a=a), own)
        p4.analysis.derive(found, {"log": lambda m: jnp.log(m["m2"])})
        p4.analysis.derive({"m2": phi**2}, {"log": lambda m: jnp.log(m["m2"][0])})

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        use(0.51)
        first = len(programs)
        use(0.51)
        assert 0 < first == len(programs)
    finally:
        jax.monitoring.unregister_event_duration_listener(count)


def closing_over(constant):
    return lambda x: constant * x


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.zeros(3), np.array([0.0, 1.0, 0.0])),
        (0.1, np.nextafter(0.1, 1)),
        (np.float64(1 / 3), np.nextafter(1 / 3, 1)),
    ],
    ids=["array", "number", "scalar"],
)
@pytest.mark.parametrize(
    "inside",
    [
        lambda f: f,
        jax.jit,
        lambda f: lambda x: jax.lax.cond(x[0] > 0, f, lambda x: x, x),
        lambda f: lambda x: jax.lax.fori_loop(0, 3, lambda i, s: f(s), x),
        lambda f: lambda x: jax.lax.map(f, x[None])[0],
    ],
    ids=["plain", "jit", "cond", "loop", "map"],
)
def test_traced_functions_are_equal_where_their_constants_are(x64, inside, one, other):
    """The last bit of a constant makes another function."""
    x = jnp.ones(3)
    found = Traced(inside(closing_over(one)), x)
    again = Traced(inside(closing_over(np.copy(one))) if np.ndim(one) else inside(closing_over(one)), x)
    assert found == again and hash(found) == hash(again) and found != Traced(inside(closing_over(other)), x)
    np.testing.assert_array_equal(found(x), inside(closing_over(one))(x))


def test_traced_functions_tell_callbacks_and_rules_apart():
    def calling(function):
        return lambda x: jax.pure_callback(function, x, x)

    x = jnp.ones(3)
    assert Traced(calling(np.sin), x) != Traced(calling(np.cos), x)

    def ruled(slope):
        function = jax.custom_jvp(lambda x: x**2)
        function.defjvp(lambda primals, tangents: (primals[0] ** 2, slope * tangents[0]))
        return function

    assert Traced(ruled(1.0), x) == Traced(ruled(2.0), x)  # as long as nobody takes the derivative
    assert Traced(ruled(1.0), x, differentiable=True) != Traced(ruled(2.0), x, differentiable=True)
