"""Predictive draws and prior densities of NumPyro models, against conjugate closed forms, and through ArviZ.

Means and variances of n independent draws are compared within 5 standard errors, so each comparison has a false-alarm rate of
6e-7; where a test says so, an error that it must see is tried too.
"""

import json

import arviz_plots
import arviz_stats
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from raising import raises, warns
from scipy import stats

import phi4ppl as p4
from phi4ppl.sampling import memory

pytestmark = [pytest.mark.compile_quickly, pytest.mark.rank_promotion]

RUN = {"num_warmup": 200, "num_samples": 800, "kernel": "hmc", "progress": False, "predictive": True}
Y = np.random.default_rng(0).normal(1.0, 1.0, size=8)
WIDTH = 2.0  # of the prior
VARIANCE = 1 / (1 / WIDTH**2 + len(Y))  # of the posterior of the mean of unit normal data
MEAN = VARIANCE * Y.sum()


def conjugate(y, center=0.0, width=WIDTH):
    mu = numpyro.sample("mu", dist.Normal(center, width))
    numpyro.deterministic("twice", 2 * mu)
    with numpyro.plate("patient", len(y)):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


@pytest.fixture(scope="module")
def run():
    with jax.numpy_rank_promotion("allow"):
        return p4.sample(conjugate, Y, **RUN)


def settings(tree):
    return json.loads(tree.attrs["phi4ppl"])["settings"]


def scores(values, mean, variance, count):
    """Of mean and variance of normal values, as if ``count`` of them were independent."""
    return (values.mean() - mean) / np.sqrt(variance / count), (values.var() - variance) / (
        variance * np.sqrt(2 / count)
    )


def test_predictive_draws_have_the_exact_moments(run):
    """Prior draws are independent; those of the posterior are as independent as the draws of mu are, at most n/(2 tau)."""
    drawn, size = run["prior"], run["prior"]["mu"].size
    assert max(map(abs, scores(drawn["mu"].values, 0.0, WIDTH**2, size))) < 5
    np.testing.assert_allclose(drawn["twice"], 2 * drawn["mu"], rtol=1e-6)
    for n in range(len(Y)):
        prior = run["prior_predictive"]["y"].values[..., n]
        assert max(map(abs, scores(prior, 0.0, WIDTH**2 + 1, size))) < 5
        assert max(map(abs, scores(prior, MEAN, VARIANCE + 1, size))) > 5  # that is not what the data said
        # the noise is independent, and the mean of mu has its own error
        posterior, count = (
            run["posterior_predictive"]["y"].values[..., n],
            p4.estimate(run).loc["mu", "effective_sample_size"],
        )
        assert max(map(abs, scores(posterior, MEAN, VARIANCE + 1, min(count, size)))) < 5
        assert max(map(abs, scores(posterior, Y[n], VARIANCE + 1, min(count, size)))) > 5 or abs(Y[n] - MEAN) < 0.3
    # data of one draw share their mu: Cov = the variance of mu
    together = run["prior_predictive"]["y"].values.reshape(-1, len(Y))
    covariance = np.cov(together.T)[np.triu_indices(len(Y), 1)]
    assert np.all(np.abs(covariance - WIDTH**2) < 5 * np.sqrt(((WIDTH**2 + 1) ** 2 + WIDTH**4) / size))


def test_data_are_drawn_around_the_parameters_of_their_draw(run):
    noise = run["posterior_predictive"]["y"].values - run["posterior"]["mu"].values[..., None]
    assert max(map(abs, scores(noise, 0.0, 1.0, noise.size))) < 5
    noise = run["prior_predictive"]["y"].values - run["prior"]["mu"].values[..., None]
    assert max(map(abs, scores(noise, 0.0, 1.0, noise.size))) < 5


def test_log_prior_is_the_density_of_every_latent_site(run):
    assert set(run["log_prior"].data_vars) == {"mu"} and run["log_prior"]["mu"].dims == ("chain", "draw")
    np.testing.assert_allclose(run["log_prior"]["mu"], stats.norm.logpdf(run["posterior"]["mu"], 0, WIDTH), rtol=1e-4)
    assert settings(run)["predictive"] == []


@pytest.mark.slow
def test_groups_have_the_dimensions_of_their_originals(run, tmp_path):
    for group, of in (("posterior_predictive", "log_likelihood"), ("prior_predictive", "log_likelihood")):
        assert run[group]["y"].dims == run[of]["y"].dims == ("chain", "draw", "patient")
    assert run["prior"].sizes == run["posterior"].sizes
    again = p4.sample(conjugate, Y, **RUN)
    np.testing.assert_array_equal(again["prior_predictive"]["y"], run["prior_predictive"]["y"])
    plain = p4.sample(conjugate, Y, **RUN | {"predictive": False})
    np.testing.assert_array_equal(plain["posterior"]["mu"], run["posterior"]["mu"])
    assert not {"prior", "log_prior", "posterior_predictive"} & set(plain.children)
    back = p4.load_run(p4.save_run(run, tmp_path / "run.nc"))
    assert back.identical(run) and p4.diagnose(back).passed


def test_arviz_finds_a_conflict_between_prior_and_data_and_none_where_there_is_none(run):
    """A prior N(10, ½) against eight data around 1: the mean of the posterior moves with the power of both.

    Reweighted by its log prior to the power 0.05, the posterior moves to that of a prior with 1.05 of the precision.
    """
    calm = arviz_stats.psense_summary(run)
    assert calm.loc["mu", "prior"] < 0.05 and "conflict" not in calm.loc["mu", "diagnosis"]
    tree = p4.sample(conjugate, Y, model_kwargs={"center": 10.0, "width": 0.5}, **RUN)
    found = arviz_stats.psense_summary(tree)
    assert found.loc["mu", "prior"] > 0.05 and found.loc["mu", "likelihood"] > 0.05
    assert "conflict" in found.loc["mu", "diagnosis"]
    precision, power = np.array([4.0, 8.0]), np.array([1.05, 1.0])
    centers = np.array([10.0, Y.mean()])
    exact = (precision * power * centers).sum() / (precision * power).sum()
    log_weights = 0.05 * tree["log_prior"]["mu"].values.ravel()
    weights = np.exp(log_weights - log_weights.max())
    moved = (weights * tree["posterior"]["mu"].values.ravel()).sum() / weights.sum()
    here = tree["posterior"]["mu"].values.mean()
    start = (precision * centers).sum() / precision.sum()
    assert moved - here == pytest.approx(exact - start, rel=0.1)


def test_arviz_predictive_checks_run_and_see_data_that_do_not_fit(run):
    """LOO-PIT of data from the model are spread over (0, 1); of data with an outlier, that one is at the end."""
    pit = arviz_stats.loo_pit(run)["y"].values
    exact = []
    for n in range(len(Y)):  # of a conjugate normal, without datum n
        variance = 1 / (1 / WIDTH**2 + len(Y) - 1)
        exact.append(stats.norm.cdf(Y[n], variance * (Y.sum() - Y[n]), np.sqrt(variance + 1)))
    np.testing.assert_allclose(pit, exact, atol=5 * 0.5 / np.sqrt(1000))  # indicators of 3200 draws, ESS above 1000
    arviz_plots.plot_ppc_dist(run, backend="none")
    arviz_plots.plot_ppc_pit(run, backend="none")
    odd = p4.sample(conjugate, np.where(np.arange(8) == 3, 9.0, Y), **RUN)
    assert arviz_stats.loo_pit(odd)["y"].values[3] > 0.999


def test_masked_and_multivariate_data_are_predicted_as_they_are_observed():
    """Of masked data only those that are left in, each with its own mean; a multivariate site whole."""
    means, seen = np.arange(6.0).reshape(2, 3) * 10, np.array([[True, False, True], [False, True, True]])

    def model():
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        with numpyro.handlers.mask(mask=seen), numpyro.plate("column", 3), numpyro.plate("row", 2):
            numpyro.sample("grid", dist.Normal(means + 0 * scale, 1.0), obs=means)
        numpyro.sample(
            "pair", dist.MultivariateNormal(jnp.array([100.0, -100.0]), jnp.eye(2)), obs=jnp.array([100.0, -99.0])
        )
        numpyro.factor("soft", -scale)

    tree = p4.sample(model, **RUN | {"num_samples": 100, "num_warmup": 50})
    for group in ("posterior_predictive", "prior_predictive"):
        grid = tree[group]["grid"]
        assert grid.dims == ("chain", "draw", "grid_datum")
        np.testing.assert_array_equal(grid["grid_datum"], tree["observed_data"]["grid_datum"])
        np.testing.assert_array_equal(tree["observed_data"]["grid"], means[seen])
        assert np.all(np.abs(grid.mean(("chain", "draw")) - means[seen]) < 5 / np.sqrt(400))
        assert np.all(np.abs(tree[group]["pair"].mean(("chain", "draw")) - [100, -100]) < 5 / np.sqrt(400))
    np.testing.assert_array_equal(tree["observed_data"]["pair"], [100, -99])
    assert "soft" not in tree["posterior_predictive"] and "'soft' counts neither" in settings(tree)["predictive"][0]
    np.testing.assert_allclose(
        tree["log_prior"]["scale"], stats.halfnorm.logpdf(tree["posterior"]["scale"]), rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
def test_gaussian_fields_are_predicted_and_their_log_prior_is_minus_s():
    """The prior of the field is its exact covariance; sums of squares of 800 fields within 5 errors."""
    field = p4.gaussian(p4.lattice.chain(4), w=0.5, a=1.0)

    def model(y):
        phi = numpyro.sample("phi", p4.GibbsField(field))
        numpyro.sample("y", dist.Normal(phi, 0.5), obs=y)

    tree = p4.sample(model, np.array([0.5, -0.5, 1.0, 0.0]), **RUN | {"num_samples": 200})
    covariance = np.linalg.inv(np.asarray(p4.exact.gaussian_precision(field)))
    drawn = tree["prior"]["phi"].values.reshape(-1, 4)
    error = np.sqrt((covariance**2 + np.outer(np.diag(covariance), np.diag(covariance))) / len(drawn))
    assert np.all(np.abs(np.cov(drawn.T) - covariance) < 5 * error)
    assert np.any(np.abs(np.cov(drawn.T) - 1.3 * covariance) > 5 * error)
    phi = tree["posterior"]["phi"].values
    np.testing.assert_allclose(tree["log_prior"]["phi"], -np.asarray(field.energy(phi)), rtol=1e-4, atol=1e-4)
    assert settings(tree)["predictive"] == ["log_prior of 'phi' is −S: it lacks the constant −log Z"]
    assert tree["prior"]["phi"].dims == ("chain", "draw", "site")
    noise = tree["posterior_predictive"]["y"].values - phi
    assert max(map(abs, scores(noise, 0.0, 0.25, noise.size))) < 5


def test_fields_without_exact_draws_leave_the_prior_out_and_say_so():
    field = p4.GibbsField(p4.gaussian(p4.lattice.chain(4), w=1.0, a=1.0))  # intrinsic

    def model(y):
        phi = numpyro.sample("phi", field)
        numpyro.sample("y", dist.Normal(phi, 0.5), obs=y)

    with warns("predictive.incomplete", "prior_predictive", "'phi'") as told:
        tree = p4.sample(model, np.ones(4), **RUN | {"num_samples": 100})
    assert len(told) == 1 and told[0].filename == __file__
    assert {"posterior_predictive", "log_prior"} <= set(tree.children) and not {"prior", "prior_predictive"} & set(
        tree.children
    )
    assert "cannot be drawn from the prior" in settings(tree)["predictive"][0]
    noise = tree["posterior_predictive"]["y"].values - tree["posterior"]["phi"].values
    assert max(map(abs, scores(noise, 0.0, 0.25, noise.size))) < 5


@pytest.mark.slow
def test_an_observed_field_that_cannot_be_drawn_is_left_out_alone():
    lattice = p4.lattice.chain(4)

    def model(seen):
        level = numpyro.sample("level", dist.Normal(0.0, 1.0))
        numpyro.sample("psi", p4.GibbsField(p4.gaussian(lattice, w=1.0, a=1.0)), obs=seen)
        numpyro.sample("y", dist.Normal(level, 1.0).expand([3]).to_event(1), obs=jnp.ones(3))

    with warns("predictive.incomplete", "'psi'"):
        tree = p4.sample(model, np.ones(4), **RUN | {"num_samples": 50})
    assert set(tree["posterior_predictive"].data_vars) == {"y"} == set(tree["prior_predictive"].data_vars)


def test_what_cannot_be_predicted_is_refused_early(monkeypatch):
    field = p4.phi4(p4.lattice.chain(4), w=0.5, a=1.0, b=0.2)
    for model, options, told in (
        (field, {}, ("argument.predictive.unused", "field")),
        (
            conjugate,
            {"keep_field": False, "model_kwargs": {"y": Y}},
            ("argument.predictive.unused", "keep_field=False"),
        ),
        (conjugate, {"predictive": 1}, ("argument.predictive", "got 1")),
    ):
        with raises(*told):
            p4.sample(model, **RUN | options)
    monkeypatch.setattr(memory, "available_bytes", lambda: 60_000)
    assert (
        "mu" in p4.sample(conjugate, Y, **RUN | {"predictive": False, "num_samples": 500, "num_chains": 1})["posterior"]
    )
    monkeypatch.setattr("phi4ppl.results.run.run_chains", lambda *_, **__: pytest.fail("the run has begun"))
    with pytest.raises(p4.errors.MemoryLimitError):
        p4.sample(conjugate, Y, **RUN | {"num_samples": 500, "num_chains": 1})
