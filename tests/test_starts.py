"""Starting values of `phi4ppl.sample` in the space of the model."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from raising import raises

import phi4ppl as p4
from phi4ppl.results.starts import starts_of

pytestmark = [pytest.mark.compile_quickly, pytest.mark.rank_promotion]

PATH = p4.lattice.chain(3, periodic=False)
FIELD = p4.gaussian(PATH, w=0.5, a=1.0)


def model():
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    numpyro.sample("below", dist.Uniform(0.0, scale))  # a support that depends on another site
    numpyro.sample("weights", dist.Dirichlet(jnp.ones(3)))
    phi = numpyro.sample("phi", p4.GibbsField(FIELD))
    numpyro.sample("y", dist.Normal(scale * phi, 1.0), obs=jnp.ones(3))


COMPILED = p4.compile(model)
RANDOM = COMPILED.initial_position(jax.random.split(jax.random.key(0), 2))


def placed(start):
    return jax.vmap(COMPILED.constrain)(starts_of(COMPILED, start, 2)(RANDOM))


def test_values_of_the_model_come_back_and_the_others_stay():
    start = {
        "scale": [0.5, 8.0],
        "below": np.array([0.4, 7.0]),
        "weights": [0.2, 0.3, 0.5],
        "phi": xr.DataArray([3.0, 1.0, 2.0], {"site": [2, 0, 1]}, ["site"]),
    }
    found = placed(start)
    np.testing.assert_allclose(found["scale"], [0.5, 8.0], rtol=1e-6)
    np.testing.assert_allclose(found["below"], [0.4, 7.0], rtol=1e-6)
    np.testing.assert_allclose(found["weights"], np.tile([0.2, 0.3, 0.5], (2, 1)), rtol=1e-5)
    np.testing.assert_array_equal(found["phi"], np.tile([1.0, 2.0, 3.0], (2, 1)))  # in the order of the lattice
    before, after = jax.vmap(COMPILED.constrain)(RANDOM), placed({"phi": np.ones(3)})
    np.testing.assert_array_equal(after["weights"], before["weights"])
    # unconstrained values of a site that is not named stay, in a support that the named one has moved
    share = before["below"] / before["scale"]
    np.testing.assert_allclose(placed({"scale": 10.0})["below"], 10 * share, rtol=1e-5)


def test_chains_stay_in_the_mode_where_they_begin():
    """Two modes 40 standard deviations apart: no chain crosses (the density between them is exp(−200))."""

    def two_modes():
        centers = dist.Normal(jnp.array([-20.0, 20.0]), 1.0)
        numpyro.sample("x", dist.MixtureSameFamily(dist.Categorical(jnp.array([0.5, 0.5])), centers))

    run = {"num_warmup": 50, "num_samples": 50, "num_chains": 2, "progress": False}
    tree = p4.sample(two_modes, start={"x": [-20.0, 20.0]}, **run)
    assert np.all(np.sign(tree["posterior"]["x"]) == np.array([[-1], [1]]))
    assert p4.settings(tree)["start"] == ["x"] and "start" not in p4.settings(p4.sample(FIELD, **run))
    same = p4.sample(two_modes, start={"x": 20.0}, **run)["posterior"]["x"]
    assert np.all(same > 0) and not np.array_equal(same[0], same[1])


def test_a_field_by_itself_begins_where_it_is_told():
    compiled = p4.compile(FIELD)
    positions = compiled.initial_position(jax.random.split(jax.random.key(0), 2))
    start = np.array([[1.0, 2.0, 3.0], [-4.0, 5.0, 6.0]])
    np.testing.assert_array_equal(starts_of(compiled, {"phi": start}, 2)(positions), start)
    assert starts_of(compiled, None, 2) is None


@pytest.mark.parametrize(
    ("start", "code", "says"),
    [
        ([1.0], "argument.start", ("dict", "phi")),
        ({}, "argument.start", ("dict",)),
        ({"psi": 1.0}, "argument.start.name", ("'psi'", "'scale'", "'phi'")),
        ({"y": np.ones(3)}, "argument.start.name", ("latent",)),
        ({"scale": [1.0, 2.0, 3.0]}, "argument.start.shape", ("(2,)", "(3,)", "chain")),
        ({"scale": "wide"}, "argument.start*", ("'scale'",)),
        ({"scale": np.nan}, "argument.start*", ("'scale'",)),
        ({"scale": [1.0, -1.0]}, "argument.start.support", ("'scale'", "-1.0", "inside")),
        ({"scale": 1.0, "below": 1.5}, "argument.start.support", ("'below'", "1.5")),
        ({"scale": 0.0}, "argument.start.support", ("boundary",)),
        ({"weights": [0.5, 0.5, 0.5]}, "argument.start.support", ("'weights'",)),
        ({"phi": {0: 1.0, 1: 2.0}}, "argument.start*", ("'phi'",)),
    ],
)
def test_starts_that_cannot_be_are_refused(start, code, says):
    with raises(code, *says):
        placed(start)
