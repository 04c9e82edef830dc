"""`GibbsField` as a NumPyro distribution, inside MCMC, SVI and Predictive, and NumPyro models compiled.

False alarms: with a new key a statistical assertion here fails by chance with probability ``ALARM`` = 1e-5; with the
fixed keys it always passes or never does. Each has a planted fault that it must reject.
"""

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.util import log_density, potential_energy
from raising import raises
from scipy import stats

import phi4ppl as p4
from phi4ppl.errors import ArgumentError, DiscreteLatentError, SamplingError

# NumPyro broadcasts freely
pytestmark = [pytest.mark.rank_promotion, pytest.mark.compile_quickly]

ALARM = 1e-5
SQUARE = p4.lattice.square(3, 4)
PHI4 = p4.phi4(SQUARE, w=0.9, a=1.5, b=0.2)
PATH = p4.lattice.from_networkx(nx.path_graph(4))
UNEVEN = p4.gaussian(PATH, w=[0.8, -0.5, 1.0], a=[1.0, 1.5, 1.2, 0.9])


def precision_of(model):
    return np.asarray(p4.exact.gaussian_precision(model), float)


def log_partition_of(model):
    return lambda couplings: p4.exact.gaussian_log_partition(model.replace(**couplings))


def fields(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


# --- the distribution


def test_shapes_and_log_density_of_batches():
    field = p4.GibbsField(PHI4)
    assert (field.batch_shape, field.event_shape, field.event_dim) == ((), (3, 4), 2)
    assert field.support.event_dim == 2 and not field.support.is_discrete
    phi = fields((5, 2, 3, 4))
    np.testing.assert_allclose(field.log_prob(phi), -PHI4.energy(phi), rtol=1e-5)
    np.testing.assert_array_equal(field.support(phi.at[1, 1, 0, 0].set(jnp.nan)), np.arange(10).reshape(5, 2) != 3)


def test_differences_of_the_log_density_are_those_of_the_energy_and_log_partition_shifts_it():
    phi = fields((2, 3, 4))
    plain, shifted = p4.GibbsField(PHI4), p4.GibbsField(PHI4, log_partition=lambda c: 7.0 + c["a"])
    energies = PHI4.energy(phi)
    for field in (plain, shifted):
        difference = field.log_prob(phi[1]) - field.log_prob(phi[0])
        assert float(difference) == pytest.approx(float(energies[0] - energies[1]), rel=1e-4)
    np.testing.assert_allclose(plain.log_prob(phi) - shifted.log_prob(phi), 8.5, rtol=1e-4)


def test_a_gaussian_field_with_its_log_partition_is_a_multivariate_normal(x64):
    field = p4.GibbsField(UNEVEN, log_partition=log_partition_of(UNEVEN))
    normal = dist.MultivariateNormal(precision_matrix=jnp.asarray(precision_of(UNEVEN)))
    phi = fields((6, 4))
    np.testing.assert_allclose(field.log_prob(phi), normal.log_prob(phi), rtol=1e-12)


def test_expand_mask_and_to_event_follow_numpyro():
    field, phi = p4.GibbsField(PHI4), fields((2, 3, 3, 4))
    expanded = field.expand((2, 3))
    assert (expanded.batch_shape, expanded.event_shape) == ((2, 3), (3, 4))
    expected = -np.asarray(PHI4.energy(phi))
    np.testing.assert_allclose(expanded.log_prob(phi), expected, rtol=1e-5)
    np.testing.assert_allclose(expanded.to_event(1).log_prob(phi), expected.sum(1), rtol=1e-5)
    mask = jnp.array([[True, False, True], [False, False, True]])
    np.testing.assert_allclose(expanded.mask(mask).log_prob(phi), np.where(mask, expected, 0.0), rtol=1e-5)
    assert p4.GibbsField(p4.gaussian(SQUARE, w=0.5, a=2.0)).sample(jax.random.key(0), (7, 2)).shape == (7, 2, 3, 4)
    draws = p4.GibbsField(UNEVEN).expand((2,)).sample(jax.random.key(0), (5,))
    assert draws.shape == (5, 2, 4) and len(np.unique(draws[..., 0])) == 10  # independent copies


def test_it_is_a_pytree_under_jit_vmap_and_grad():
    phi = fields((3, 4))
    field = p4.GibbsField(PHI4, log_partition=lambda c: 2 * c["a"])
    leaves, structure = jax.tree.flatten(field)
    again = jax.tree.unflatten(structure, leaves)
    assert again.event_shape == (3, 4) and len(leaves) == 3
    assert float(again.log_prob(phi)) == float(field.log_prob(phi))
    assert float(jax.jit(lambda f, x: f.log_prob(x))(field, phi)) == pytest.approx(float(field.log_prob(phi)), rel=1e-5)
    batch = jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf, jnp.float32), 2.0 * leaf]), field)
    one, two = jax.vmap(lambda f: f.log_prob(phi))(batch)
    assert float(two) == pytest.approx(2 * float(one), rel=1e-5)
    slope = jax.grad(lambda a: p4.GibbsField(PHI4.replace(a=a), log_partition=field.log_partition).log_prob(phi))(1.5)
    assert float(slope) == pytest.approx(-float(jnp.sum(phi**2)) - 2, rel=1e-5)


def test_a_plate_makes_independent_copies():
    def model():
        with numpyro.plate("copies", 3):
            return numpyro.sample("phi", p4.GibbsField(PHI4))

    phi = fields((3, 3, 4))
    site = handlers.trace(handlers.substitute(model, {"phi": phi})).get_trace()["phi"]
    assert (site["fn"].batch_shape, site["fn"].event_shape) == ((3,), (3, 4))
    total, _ = log_density(model, (), {}, {"phi": phi})
    assert float(total) == pytest.approx(-float(PHI4.energy(phi).sum()), rel=1e-5)
    compiled = p4.compile(model)
    assert compiled.num_dimensions == 36 and compiled.fields == {"phi": PHI4}
    assert float(compiled.potential_fn({"phi": phi})) == pytest.approx(-float(total), rel=1e-5)


# --- draws


def covariance_p_value(draws, covariance):
    """Likelihood-ratio test that draws are N(0, covariance): χ² with n(n+1)/2 degrees of freedom."""
    n = covariance.shape[0]
    ratio = np.linalg.solve(covariance, draws.T @ draws / len(draws))
    statistic = len(draws) * (np.trace(ratio) - np.linalg.slogdet(ratio)[1] - n)
    return stats.chi2.sf(statistic, n * (n + 1) / 2)


def test_draws_of_a_gaussian_field_have_its_covariance():
    """False alarm 1e-5. Planted faults: the wrong triangular factor, and a width 2 % too large."""
    draws = np.asarray(p4.GibbsField(UNEVEN).sample(jax.random.key(1), (100, 200)), float).reshape(-1, 4)
    covariance = np.linalg.inv(precision_of(UNEVEN))
    assert covariance_p_value(draws, covariance) > ALARM
    factor = np.linalg.cholesky(precision_of(UNEVEN))
    transposed = np.linalg.solve(factor, factor.T @ draws.T).T
    assert covariance_p_value(transposed, covariance) < ALARM
    assert covariance_p_value(1.02 * draws, covariance) < ALARM


def test_draws_of_a_gaussian_field_with_a_source_have_its_mean():
    """False alarm 1e-5 each. Planted faults: no mean, and the mean of the opposite sign; a source on its own term too."""
    r = np.array([0.5, -0.2, 0.0, 0.1])
    model = p4.MarkovRandomField(PATH, [*UNEVEN.terms, p4.Term("r", np.arange(4)[:, None], p4.terms.source, r)])
    precision = precision_of(UNEVEN)
    covariance, mean = np.linalg.inv(precision), -np.linalg.solve(precision, r)
    draws = np.asarray(p4.GibbsField(model).sample(jax.random.key(1), (100, 200)), float).reshape(-1, 4)
    assert covariance_p_value(draws - mean, covariance) > ALARM

    def mean_p_value(expected):
        off = draws.mean(axis=0) - expected
        return stats.chi2.sf(len(draws) * off @ precision @ off, 4)

    assert mean_p_value(mean) > ALARM
    assert mean_p_value(0 * mean) < ALARM and mean_p_value(-mean) < ALARM


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (p4.gaussian(p4.lattice.square(8), w=1.0, a=2.0), ("draw_not_available.not_normalizable",)),
        (p4.gaussian(p4.lattice.square(8), w=1.0, a=1.9), ("draw_not_available.not_normalizable", "-0.1")),
    ],
)
def test_what_cannot_be_drawn_says_so(model, message, jit):
    draw = p4.GibbsField(model).sample
    with raises(*message):
        (jax.jit(draw) if jit else draw)(jax.random.key(0))


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: p4.GibbsField(SQUARE), ("argument.model", "MarkovRandomField")),
        (
            lambda: p4.GibbsField(PHI4, log_partition=lambda c: jnp.ones(3)).log_prob(fields((3, 4))),
            ("argument.log_partition.returns",),
        ),
        (lambda: p4.GibbsField(PHI4, log_partition=3.0), ("argument.log_partition", "3.0")),
        (lambda: p4.GibbsField(PHI4).log_prob(jnp.ones(12)), ("argument.value.shape", "(3, 4)", "(12,)")),
        (lambda: p4.GibbsField(PHI4).log_prob(jnp.ones((2, 4, 3))), ("argument.value.shape", "(2, 4, 3)")),
        (lambda: p4.GibbsField(PHI4).log_prob(1j * jnp.ones((3, 4))), ("argument.value.dtype",)),
    ],
)
def test_wrong_use_is_refused(use, message):
    with raises(*message):
        use()


# --- inference

OBSERVED = jnp.array([1.0, -0.5, 2.0, 0.3])
NOISE = 0.5


def smoothing(y):
    """Gaussian prior field, Gaussian noise: the posterior is N(Q'⁻¹ y/σ², Q'⁻¹) with Q' = Q + 1/σ²."""
    phi = numpyro.sample("phi", p4.GibbsField(UNEVEN))
    numpyro.deterministic("total", phi.sum())
    numpyro.sample("y", dist.Normal(phi, NOISE).to_event(1), obs=y)


def exact_posterior():
    precision = precision_of(UNEVEN) + np.eye(4) / NOISE**2
    return np.linalg.solve(precision, np.asarray(OBSERVED) / NOISE**2), precision


def z_score(samples, exact):
    """(mean − exact)/error of one chain, the error from its effective sample size."""
    error = samples.std(ddof=1) / np.sqrt(effective_sample_size(samples[None]))
    return abs(samples.mean() - exact) / error


def nuts(model, *args, num_samples=1000, seed=0):
    mcmc = MCMC(NUTS(model), num_warmup=300, num_samples=num_samples, progress_bar=False)
    mcmc.run(jax.random.key(seed), *args)
    return {name: np.asarray(value, float) for name, value in mcmc.get_samples().items()}


MAX_Z = stats.norm.isf(ALARM / 2)  # 4.4


def test_nuts_of_numpyro_samples_phi4_on_the_3x3_torus(reference):
    """False alarm 1e-5 for each of two moments. Planted fault: samples that are 3 % too wide."""
    quantities = reference["square_L3_w1_a1.9_b0.175"]["quantities"]
    model = p4.phi4(p4.lattice.square(3), w=1.0, a=1.9, b=0.175)
    phi = nuts(lambda: numpyro.sample("phi", p4.GibbsField(model)), num_samples=6000)["phi"]
    neighbors = lambda f: (f * np.roll(f, 1, axis=1)).mean((1, 2))  # noqa: E731
    for moment, name in ((lambda f: (f**2).mean((1, 2)), "<phi^2>"), (neighbors, "<phi_0 phi_nn>")):
        exact = quantities[name]["value"]
        assert z_score(moment(phi), exact) < MAX_Z
    assert z_score((1.09 * phi**2).mean((1, 2)), quantities["<phi^2>"]["value"]) > MAX_Z


def test_svi_with_autonormal_finds_the_exact_posterior_mean():
    """Mean-field optimum: the exact means, and widths 1/√Q'_ii; one fixed optimization, no chance involved."""
    mean, precision = exact_posterior()
    guide = AutoNormal(smoothing)
    svi = SVI(smoothing, guide, numpyro.optim.Adam(0.02), Trace_ELBO(num_particles=8))
    result = svi.run(jax.random.key(0), 1500, OBSERVED, progress_bar=False)
    assert np.mean(result.losses[-100:]) < np.mean(result.losses[:10]) - 1
    np.testing.assert_allclose(result.params["phi_auto_loc"], mean, atol=0.05)
    np.testing.assert_allclose(result.params["phi_auto_scale"], np.diag(precision) ** -0.5, rtol=0.1)
    assert np.abs(np.asarray(OBSERVED) - mean).max() > 0.2  # the prior matters: the data alone would fail


def test_predictive_pushes_posterior_fields_through_and_draws_gaussian_priors():
    posterior = fields((500, 4))
    predicted = Predictive(smoothing, {"phi": posterior})(jax.random.key(0), None)
    np.testing.assert_allclose(predicted["total"], posterior.sum(1), rtol=1e-4, atol=1e-5)
    residual = (np.asarray(predicted["y"]) - np.asarray(posterior)) / NOISE
    assert stats.kstest(residual.ravel(), "norm").pvalue > ALARM
    assert stats.kstest(1.3 * residual.ravel(), "norm").pvalue < ALARM  # planted fault
    prior = Predictive(smoothing, num_samples=4000)(jax.random.key(1), None)
    covariance = np.linalg.inv(precision_of(UNEVEN))
    assert covariance_p_value(np.asarray(prior["phi"], float), covariance) > ALARM
    assert covariance_p_value(np.asarray(prior["y"], float), covariance) < ALARM  # planted fault: with the noise added
    intrinsic = p4.gaussian(PATH, w=1.0, a=PATH.degree / 2)
    with raises("draw_not_available.not_normalizable", "density"):
        Predictive(lambda: numpyro.sample("phi", p4.GibbsField(intrinsic)), num_samples=2)(jax.random.key(0))


# --- random couplings

WELL_KNOWN = p4.gaussian(SQUARE, w=0.6, a=1.6)


def coupled(phi, log_partition):
    a = numpyro.sample("a", dist.LogNormal(0.5, 0.3))
    numpyro.sample("phi", p4.GibbsField(WELL_KNOWN.replace(a=a), log_partition=log_partition), obs=phi)


def posterior_of_a(phi, with_log_z=True):
    """Exact posterior of the mass: a grid of masses, from eigenvalues, and the weight of each."""
    a = np.linspace(1.2, 6.0, 4000) + 1e-3  # the field exists for a > 1.2
    hopping = np.linalg.eigvalsh(precision_of(WELL_KNOWN.replace(a=0.0)))
    log_z = -0.5 * np.log(2 * a[:, None] + hopping).sum(1) * with_log_z
    logp = -a * float(jnp.sum(phi**2)) - log_z + stats.lognorm(0.3, scale=np.exp(0.5)).logpdf(a)
    weight = np.exp(logp - logp.max())
    return a, weight / weight.sum()


def test_the_posterior_of_a_coupling_is_that_of_quadrature(x64):
    """The compiled potential, exactly; and NUTS, false alarm 1e-5. Planted fault: the posterior without 1/Z."""
    phi = p4.GibbsField(WELL_KNOWN).sample(jax.random.key(5))
    a, weight = posterior_of_a(phi)
    known = log_partition_of(WELL_KNOWN)
    compiled = p4.compile(coupled, phi, known)
    u = jnp.log(jnp.asarray(a[::400]))  # a = exp(u), so that the density of u has the factor a
    potential = jax.vmap(compiled.potential_fn)({"a": u})
    expected = np.log(weight[::400]) + np.asarray(u)
    np.testing.assert_allclose(-potential + potential[0], expected - expected[0], atol=1e-9)
    samples = nuts(coupled, phi, known)["a"]
    assert z_score(samples, np.sum(a * weight)) < MAX_Z
    assert z_score(samples, np.sum(a * posterior_of_a(phi, with_log_z=False)[1])) > MAX_Z


def intractable(phi=None):
    a = numpyro.sample("a", dist.LogNormal(0.5, 0.3))
    numpyro.sample("phi", p4.GibbsField(p4.phi4(SQUARE, a=a, b=0.2)), obs=phi)


def test_a_random_coupling_of_unknown_normalization_is_refused_everywhere():
    phi, told = fields((3, 4)), ("doubly_intractable.random_coupling", "'a'", "1/Z", "log_partition")
    for observed in (phi, None):
        with raises(*told):
            p4.compile(intractable, observed)
    with raises(*told):
        nuts(intractable, phi)
    svi = SVI(intractable, AutoNormal(intractable), numpyro.optim.Adam(0.01), Trace_ELBO())
    with raises(*told):
        svi.run(jax.random.key(0), 2, phi, progress_bar=False)


def test_a_random_value_hidden_in_a_statistic_is_a_random_coupling():
    def hidden(phi):
        a = numpyro.sample("a", dist.HalfNormal(1.0))
        term = p4.Term("g", np.arange(12)[:, None], lambda x: a * x**2)
        numpyro.sample("phi", p4.GibbsField(p4.MarkovRandomField(SQUARE, [*PHI4.terms, term])), obs=phi)

    with raises("doubly_intractable.random_coupling", "'g'", "GibbsField"):
        p4.compile(hidden, fields((3, 4)))


def test_the_way_out_of_scaling_the_field_works():
    def scaled(y):
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        phi = numpyro.sample("phi", p4.GibbsField(PHI4))
        numpyro.sample("y", dist.Normal(scale * phi, 1.0).to_event(2), obs=y)

    y, phi, u = fields((3, 4), 1), fields((3, 4), 2), 0.3
    compiled = p4.compile(scaled, y)
    s = np.exp(u)
    expected = float(PHI4.energy(phi)) - stats.norm(s * np.asarray(phi)).logpdf(y).sum() - stats.halfnorm.logpdf(s) - u
    assert float(compiled.potential_fn({"phi": phi, "scale": jnp.array(u)})) == pytest.approx(expected, rel=1e-4)
    assert compiled.num_dimensions == 13 and compiled.fields == {"phi": PHI4}


# --- compiling NumPyro models


def test_the_compiled_potential_is_that_of_numpyro_and_constrain_returns_every_site():
    compiled = p4.compile(smoothing, y=OBSERVED)
    position = {"phi": fields((4,))}
    expected = potential_energy(smoothing, (OBSERVED,), {}, position)
    assert float(compiled.potential_fn(position)) == pytest.approx(float(expected), rel=1e-5)
    assert float(compiled.logdensity_fn(position)) == -float(compiled.potential_fn(position))
    mean, precision = exact_posterior()
    gradient = jax.grad(compiled.potential_fn)({"phi": jnp.asarray(mean)})["phi"]
    np.testing.assert_allclose(gradient, 0.0, atol=1e-5)
    seen = compiled.constrain(position)
    assert set(seen) == {"phi", "total"} and float(seen["total"]) == pytest.approx(
        float(position["phi"].sum()), rel=1e-5
    )
    assert (compiled.layout, compiled.num_dimensions, compiled.fields) == ("numpyro", 4, {"phi": UNEVEN})
    starts = compiled.initial_position(jax.random.split(jax.random.key(0), 3))
    assert starts["phi"].shape == (3, 4) and len(np.unique(starts["phi"])) == 12


def test_fields_are_the_sites_whose_values_are_fields():
    shift = dist.transforms.AffineTransform(0.0, 2.0)
    wrapped = {
        "expanded": p4.GibbsField(PHI4).expand((2,)).to_event(1),
        "masked": p4.GibbsField(PHI4).mask(False),
        "scaled": dist.TransformedDistribution(
            p4.GibbsField(PHI4), shift
        ),  # twice a field is not a field of this model
    }
    compiled = p4.compile(lambda: [numpyro.sample(name, field) for name, field in wrapped.items()])
    assert compiled.fields == {"expanded": PHI4, "masked": PHI4}


def mixture(y):
    z = numpyro.sample("z", dist.Bernoulli(0.5))
    numpyro.sample("y", dist.Normal(z, 1.0), obs=y)


def positive(y):
    rate = numpyro.sample("rate", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Gamma(2.0, rate), obs=y)


@pytest.mark.parametrize(
    ("model", "args", "error", "message"),
    [
        (
            mixture,
            (0.3,),
            DiscreteLatentError,
            ("discrete_latent.sites", "'z'"),
        ),
        (lambda: None, (), ArgumentError, ("argument.model.no_latent_sites", "NumPyro", "got none: nothing to sample")),
        (
            lambda: numpyro.sample("y", dist.Normal(0, 1), obs=0.0),
            (),
            ArgumentError,
            ("argument.model.no_latent_sites", "got none: nothing to sample"),
        ),
        (smoothing, (), ArgumentError, ("argument.args.raises", "NumPyro", "TypeError", "'y'")),
        (smoothing, (OBSERVED, 3), ArgumentError, ("argument.args.raises", "NumPyro")),
        (positive, (-1.0,), SamplingError, ("sampling.no_start",)),
        (smoothing, (OBSERVED * jnp.nan,), ArgumentError, ("argument.obs.finite", "got a missing value", "obs of 'y'")),
        ("model", (), ArgumentError, ("argument.model", "MarkovRandomField", "NumPyro", "got str")),
    ],
)
@pytest.mark.filterwarnings("ignore:Out-of-support values:UserWarning")
def test_models_that_cannot_be_compiled_are_refused(model, args, error, message):
    with raises(*message):
        p4.compile(model, *args)
