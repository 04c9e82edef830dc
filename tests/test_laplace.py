"""Laplace approximations of NumPyro models with fields, and their weights, against closed forms and quadrature.

Statistical tests: at most 5 standard errors of about 30 numbers in all, false alarms 2e-5; seeds are fixed.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from raising import raises, warns
from scipy import sparse, stats
from scipy.special import gammaln, logsumexp

import phi4ppl as p4
from phi4ppl.energy.factors import factors_of
from phi4ppl.inference.laplace_nodes import Annealing, annealing_for, nodes_of
from phi4ppl.numpyro_plugin.curvature import Curvature, Mode, curvature_of

pytestmark = pytest.mark.compile_quickly

RING = p4.lattice.chain(8)
FIELD = p4.gaussian(RING, w=1.0, a=1.1)
PRECISION = np.asarray(p4.exact.gaussian_precision(FIELD), float)
Y = np.array([1.9, 0.7, 1.2, 0.1, -0.6, 0.5, 1.8, 2.4])
COUNTS = np.array([4, 1, 0, 7])
BOUND = 5.0


def normal_data(y, sd=0.5):
    level = numpyro.sample("level", dist.Normal(0, 3))
    scale = numpyro.sample("scale", dist.HalfNormal(1))
    phi = numpyro.sample("phi", p4.GibbsField(FIELD))
    numpyro.sample("y", dist.Normal(level + scale * phi, sd), obs=y)


def closed_form():
    """log p(y), and mean and variance of scale, level and φ, of `normal_data`: all is normal given the scale."""
    scales = np.exp(np.linspace(-8, 2, 2001))
    log_weights, means, squares = [], [], []
    for scale in scales:
        design = np.hstack([np.ones((8, 1)), scale * np.eye(8)])
        prior = np.zeros((9, 9))
        prior[0, 0], prior[1:, 1:] = 1 / 9, PRECISION
        covariance = np.linalg.inv(prior + design.T @ design / 0.25)
        mean = covariance @ design.T @ Y / 0.25
        of_y = design @ np.linalg.inv(prior) @ design.T + np.eye(8) / 4
        log_p = stats.multivariate_normal(np.zeros(8), of_y).logpdf(Y) + stats.halfnorm.logpdf(scale)
        log_weights.append(log_p + np.log(scale))  # of a grid in log scale
        means.append([scale, *mean])
        squares.append([scale**2, *(np.diag(covariance) + mean**2)])
    weights = np.exp(log_weights - logsumexp(log_weights))
    mean = weights @ np.array(means)
    return logsumexp(log_weights) + np.log(10 / 2000), mean, weights @ np.array(squares) - mean**2


def moments(posterior):
    """Weighted mean and variance of scale, level and φ, and the errors of the means, from the draws and their weights."""
    order = curvature_of(posterior.problem.compiled).order()
    draws = np.empty_like(posterior.draws, dtype=float)
    draws[:, order] = posterior.draws  # θ first, then level and φ
    draws[:, 0] = np.exp(draws[:, 0])
    weights = np.exp(posterior.log_weights)
    mean = weights @ draws
    return mean, weights @ (draws - mean) ** 2, np.sqrt(weights**2 @ (draws - mean) ** 2)


@pytest.fixture(scope="module")
def gaussian():
    return p4.laplace(normal_data, Y, num_draws=4096, seed=2)


def test_normal_data_give_the_closed_form(gaussian):
    """log p(y), means, and variances to 10 %: all but the integral over the scale is exact then."""
    log_evidence, mean, variance = closed_form()
    found, spread, error = moments(gaussian)
    assert gaussian.pareto_k < 0.5 and gaussian.log_evidence_error < 0.05
    assert abs(gaussian.log_evidence - log_evidence) < BOUND * gaussian.log_evidence_error
    assert np.abs((found - mean) / error).max() < BOUND
    np.testing.assert_allclose(spread, variance, rtol=0.12)
    facts = p4.settings(gaussian.tree)
    assert abs(facts["log_evidence_laplace"] - log_evidence) < 0.05 and facts["num_anneal"] == 0


def test_groups_are_those_of_a_run(gaussian):
    """With constrained values, dimensions, data, and draws of equal weight."""
    tree = gaussian.tree
    run = p4.sample(normal_data, Y, num_warmup=20, num_samples=10, num_chains=1, kernel="hmc", progress=False)
    for group in ("posterior", "log_likelihood", "observed_data", "constant_data"):
        assert set(tree[group].data_vars) == set(run[group].data_vars), group
        for name, values in run[group].data_vars.items():
            assert tree[group][name].dims == values.dims, name
    assert (tree["posterior"]["scale"] > 0).all()
    level, scale, phi = (tree["posterior"][name].values for name in ("level", "scale", "phi"))
    expected = stats.norm.logpdf(Y, level[..., None] + scale[..., None] * phi, 0.5)
    np.testing.assert_allclose(tree["log_likelihood"]["y"], expected, atol=1e-4)
    assert p4.estimate(gaussian).index.tolist() == ["level", "scale"]
    text = str(gaussian)
    assert "Posterior of level, scale, phi: 8 data" in text and "Pareto k̂" in text and "log evidence" in text
    assert "Pareto" in gaussian._repr_html_()
    with raises("argument.posterior.latent"):
        gaussian.model  # noqa: B018


def test_predictive_groups_are_those_of_a_run():
    """With as many draws as the posterior; arrays among the arguments are constant data. Means of predictions: 5 errors."""
    x = np.linspace(-1, 1, 8)

    def model(x, y):
        level = numpyro.sample("level", dist.Normal(0, 3))
        phi = numpyro.sample("phi", p4.GibbsField(FIELD))
        mean = numpyro.deterministic("mean", level + phi + x)
        with numpyro.plate("site", 8):
            numpyro.sample("y", dist.Normal(mean, 0.5), obs=y)

    found = p4.laplace(model, x, Y, seed=1, predictive=True, coords={"site": list("abcdefgh")})
    run = p4.sample(
        model, x, Y, num_warmup=20, num_samples=10, num_chains=1, kernel="hmc", progress=False, predictive=True,
        coords={"site": list("abcdefgh")},
    )  # fmt: skip
    draws = found["posterior"].sizes["draw"]
    for group in run.children:
        if group not in ("streamed", "schwinger_dyson", "sample_stats"):
            assert set(found[group].data_vars) == set(run[group].data_vars), group
            for name, values in run[group].data_vars.items():
                assert found[group][name].dims == values.dims, name
                assert found[group].sizes.get("draw", draws) == draws
    predicted, mean = found["posterior_predictive"]["y"].values[0], found["posterior"]["mean"].values[0]
    assert np.abs((predicted - mean).mean(axis=0)).max() < BOUND * 0.5 / np.sqrt(draws)
    np.testing.assert_allclose((predicted - mean).std(), 0.5, rtol=0.05)
    assert found["observed_data"]["y"].coords["site"].values.tolist() == list("abcdefgh")


@pytest.mark.filterwarnings("ignore:Estimated shape parameter")  # of eight data with a site each
def test_the_verdict_is_on_weights_not_on_chains(gaussian, tmp_path):
    """Independent draws have no R-hat; the report is written, and leave-one-out reads the posterior as it is."""
    verdict = p4.diagnose(gaussian)
    names = [check.name for check in verdict.checks]
    assert verdict.passed and {"Pareto k̂", "other modes"} <= set(names) and "R-hat" not in names
    assert "independent draws" in str(verdict) and "divergences" not in str(verdict)
    assert "independent draws" in verdict.to_html(tmp_path / "report.html").read_text()
    assert p4.loo(gaussian).n_data_points == 8


@pytest.mark.filterwarnings("ignore:laplace:phi4ppl.errors.Phi4pplWarning")
def test_planted_faults_are_noticed(monkeypatch):
    """Without log det the evidence is wrong by more than 20 errors; with the Hessian of the prior alone k̂ says so."""
    log_evidence = closed_form()[0]
    with monkeypatch.context() as patch:
        without = property(lambda self: -self.potential + len(self.x) * np.log(2 * np.pi) / 2)
        patch.setattr(Mode, "log_marginal", without)
        found = p4.laplace(normal_data, Y, seed=2)
        assert not abs(p4.settings(found.tree)["log_evidence_laplace"] - log_evidence) < 1.0
    prior = sparse.block_diag([1 / 9, PRECISION], format="csc")
    with_all = Curvature.mode

    def mode(self, theta, start=None, *, near=False):
        found = with_all(self, theta, start, near=near)
        return Mode(found.x, found.potential, prior, factors_of(prior))

    monkeypatch.setattr(Curvature, "mode", mode)
    assert p4.laplace(normal_data, Y, seed=2, anneal=False).pareto_k > 0.7


def poisson_ring(y):
    phi = numpyro.sample("phi", p4.GibbsField(p4.gaussian(p4.lattice.chain(4), w=0.6, a=0.8)))
    numpyro.sample("y", dist.Poisson(jnp.exp(2 * phi)), obs=y)


def quadrature_of_the_ring():
    """log p(y) and means of φ, on 46⁴ nodes."""
    x = np.linspace(-5, 2.5, 46)
    grid = np.stack(np.meshgrid(x, x, x, x, indexing="ij", sparse=False), axis=-1).reshape(-1, 4)
    action = 0.8 * (grid**2).sum(-1) - 0.6 * (grid * np.roll(grid, 1, axis=1)).sum(-1)
    log_z = p4.log_partition(p4.gaussian(p4.lattice.chain(4), w=0.6, a=0.8)).value
    log_p = -action - log_z + (2 * COUNTS * grid - np.exp(2 * grid) - gammaln(COUNTS + 1)).sum(-1)
    weights = np.exp(log_p - logsumexp(log_p))
    return logsumexp(log_p) + 4 * np.log(x[1] - x[0]), weights @ grid


@pytest.mark.parametrize("anneal", [False, True])
def test_counts_on_a_ring_of_four_agree_with_quadrature(anneal):
    log_evidence, mean = quadrature_of_the_ring()
    found = p4.laplace(poisson_ring, COUNTS, seed=4, anneal=anneal)
    weights = np.exp(found.log_weights)
    center = weights @ found.draws
    error = np.sqrt(weights**2 @ (found.draws - center) ** 2)
    assert found.pareto_k < 0.7 and found.log_evidence_error < 0.05
    assert abs(found.log_evidence - log_evidence) < BOUND * found.log_evidence_error
    assert np.abs((center - mean) / error).max() < BOUND
    approximate = p4.settings(found.tree)["log_evidence_laplace"]
    if anneal:  # which is precise enough to see what the weights correct
        assert abs(approximate - log_evidence) > BOUND * found.log_evidence_error


def test_annealing_takes_the_variance_out_of_the_weights():
    """Of the same ring: the mean weight stays that of quadrature, the variance falls by more than ten."""
    curvature = curvature_of(p4.compile(poisson_ring, COUNTS))
    (node,) = nodes_of(curvature, 1, np.random.default_rng(0))
    log_z = p4.log_partition(p4.gaussian(p4.lattice.chain(4), w=0.6, a=0.8)).value
    exact = quadrature_of_the_ring()[0] - node.mode.log_marginal + log_z
    plain, annealed = (
        np.exp(how(curvature, node, 2000, np.random.default_rng(1)).log_ratios - exact)
        for how in (Annealing(), Annealing(16, 0.5))
    )
    for weights in (plain, annealed):
        assert abs(weights.mean() - 1) < BOUND * weights.std() / np.sqrt(2000)
    assert annealed.var() < plain.var() / 10
    chosen = annealing_for(curvature, node, np.random.default_rng(2))
    assert 4 <= chosen.num_steps <= 64


def one_site(y):
    level = numpyro.sample("level", dist.Normal(0, 1))
    scale = numpyro.sample("scale", dist.HalfNormal(1))
    phi = numpyro.sample("phi", p4.GibbsField(p4.gaussian(p4.lattice.chain(1), w=0.0, a=0.5)))
    numpyro.sample("y", dist.Poisson(jnp.exp(level + scale * phi)), obs=y)


def test_one_site_with_a_scale_agrees_with_quadrature():
    y, x = np.array([3]), np.linspace(-6, 6, 121)
    scales = np.exp(np.linspace(-9, 1.6, 160))
    level, scale, phi = np.meshgrid(x, scales, x, indexing="ij")
    eta = level + scale * phi
    log_p = stats.norm.logpdf(level) + stats.norm.logpdf(phi) + stats.halfnorm.logpdf(scale) + np.log(scale)
    log_p += stats.poisson.logpmf(3, np.exp(eta))
    exact = logsumexp(log_p) + 2 * np.log(x[1] - x[0]) + np.log(np.log(scales[1] / scales[0]))
    weights = np.exp(log_p - logsumexp(log_p))
    found = p4.laplace(one_site, y, num_draws=8192, seed=1)
    assert abs(found.log_evidence - exact) < BOUND * found.log_evidence_error and found.log_evidence_error < 0.1
    estimate = p4.estimate(found)
    for name, values in (("level", level), ("scale", scale)):
        row = estimate.loc[name]
        assert abs(row["mean"] - (weights * values).sum()) < BOUND * row["error"], name


def two_lobes(y):
    """0 and 4 explain y = 0 equally well."""
    phi = numpyro.sample("phi", p4.GibbsField(p4.gaussian(p4.lattice.chain(1), w=0.0, a=0.01)))
    means = jnp.stack([phi, phi - 4.0], axis=-1)
    numpyro.sample("y", dist.MixtureSameFamily(dist.Categorical(jnp.ones(2) / 2), dist.Normal(means, 1.0)), obs=y)


def test_large_counts_agree_with_quadrature():
    """Terms of −log p are 10⁵ times what separates the mode from its surroundings, which single precision rounds away."""
    rng = np.random.default_rng(1)
    expected = 3e4
    counts = rng.poisson(expected * np.exp(0.3 * rng.normal(size=16)))
    apart = p4.gaussian(p4.lattice.chain(16), w=0.0, a=0.5)

    def model():
        phi = numpyro.sample("phi", p4.GibbsField(apart))
        numpyro.sample("y", dist.Poisson(expected * jnp.exp(0.3 * phi)), obs=counts)

    log_evidence = 0.0
    for y in counts:
        center = np.log(y / expected) / 0.3
        x = center + np.linspace(-0.3, 0.3, 4001)
        log_p = stats.norm.logpdf(x) + stats.poisson.logpmf(y, expected * np.exp(0.3 * x))
        log_evidence += logsumexp(log_p) + np.log(x[1] - x[0])
    found = p4.laplace(model, num_draws=400)
    assert (
        abs(found.log_evidence - log_evidence) < 0.3 and found.pareto_k < 0.7
    )  # rounding of single log densities: 0.06
    np.testing.assert_allclose(
        found["posterior"]["phi"].mean(("chain", "draw")), np.log(counts / expected) / 0.3, atol=0.01
    )


@pytest.mark.rank_promotion
def test_two_modes_are_not_taken_for_one():
    """k̂ of plain weights says no, and Newton's method finds the other mode; there is no evidence to compare."""
    with warns("laplace.doubtful", "several"):
        found = p4.laplace(two_lobes, np.zeros(1), seed=0, anneal=False)
    assert found.pareto_k > 0.7 and found.log_evidence is None and len(found.warnings) == 2
    assert "several modes" in found.warnings[1] and "WARNING" in str(found) and "only approximate" in str(found)
    assert "k̂" in p4.settings(found.tree)["log_evidence_reason"]
    failed = {check.name for check in p4.diagnose(found).checks if not check.passed}
    assert {"Pareto k̂", "other modes"} <= failed


def test_models_without_evidence_say_why():
    """log Z of an intrinsic field is infinite; a field whose log Z no sum gives is not known."""
    flat = p4.gaussian(RING, w=1.0, a=1.0)

    def intrinsic(y):
        numpyro.sample("y", dist.Normal(numpyro.sample("phi", p4.GibbsField(flat)), 0.5), obs=y)

    found = p4.laplace(intrinsic, Y, num_draws=200)
    assert found.log_evidence is None and found.pareto_k == -np.inf
    assert "is infinite" in p4.settings(found.tree)["log_evidence_reason"]
    with raises("argument.models.no_evidence"):
        p4.compare({"intrinsic": found})


def test_evidence_has_log_z_of_observed_fields():
    """Fields with fixed couplings, observed in whole or in part, are normalized in the evidence: closed forms."""
    seen = np.where(np.arange(8) % 3 == 0, np.nan, Y)
    kept = np.flatnonzero(np.isfinite(seen))
    covariance = np.linalg.inv(PRECISION)

    def partly():
        p4.observe_field("phi", p4.GibbsField(FIELD), seen)

    def whole():
        level = numpyro.sample("level", dist.Normal(0, 1))
        numpyro.sample("phi", p4.GibbsField(FIELD), obs=Y)
        numpyro.sample("y", dist.Normal(level, 1.0), obs=0.7)

    exact = stats.multivariate_normal(np.zeros(len(kept)), covariance[np.ix_(kept, kept)]).logpdf(seen[kept])
    assert abs(p4.laplace(partly, num_draws=200).log_evidence - exact) < 1e-3
    exact = stats.multivariate_normal(np.zeros(8), covariance).logpdf(Y) + stats.norm(0, np.sqrt(2)).logpdf(0.7)
    assert abs(p4.laplace(whole, num_draws=200).log_evidence - exact) < 1e-3


@pytest.mark.parametrize("how, reason", [("flat", "improper"), ("masked", "masked"), ("scaled", "scaled")])
def test_priors_that_are_not_normalized_give_no_evidence(how, reason):
    """Their constant is arbitrary, and so would be every comparison."""

    def model():
        prior = dist.ImproperUniform(dist.constraints.real, (), ()) if how == "flat" else dist.Normal(0, 5)
        around = {"masked": numpyro.handlers.mask(mask=False), "scaled": numpyro.handlers.scale(scale=2.0)}
        with around.get(how, numpyro.handlers.mask(mask=True)):
            level = numpyro.sample("level", prior)
        numpyro.sample("y", dist.Normal(level, 1.0).expand([8]).to_event(1), obs=Y)

    found = p4.laplace(model, num_draws=200)
    assert found.log_evidence is None and reason in p4.settings(found.tree)["log_evidence_reason"]


def test_models_of_the_same_data_are_compared(gaussian):
    """The evidence weight is that of the two closed forms; other data, priors, and fields are refused."""

    def without(y):
        level = numpyro.sample("level", dist.Normal(0, 3))
        numpyro.sample("y", dist.Normal(level * jnp.ones(8), 1.0), obs=y)

    other = p4.laplace(without, Y, seed=1)
    exact = stats.multivariate_normal(np.zeros(8), 9 * np.ones((8, 8)) + np.eye(8)).logpdf(Y)
    assert abs(other.log_evidence - exact) < 1e-3
    table = p4.compare({"field": gaussian, "none": other}).table
    odds = closed_form()[0] - exact
    error = table.loc["field", "evidence_error"]
    assert abs(table.loc["field", "evidence_weight"] - 1 / (1 + np.exp(-odds))) < BOUND * error + 1e-3
    assert table["elpd"].notna().all()
    with raises("argument.models.data"):
        p4.compare({"field": gaussian, "none": p4.laplace(without, Y + 1, num_draws=200)})
    with raises("argument.models.mixed"):
        p4.compare({"field": gaussian, "none": FIELD})
    with raises("argument.data.unused"):
        p4.compare({"field": gaussian}, Y)
    with raises("argument.comparison.latent"):
        p4.average(p4.compare({"field": gaussian}))


def test_wrong_arguments_are_refused():
    with raises("argument.model"):
        p4.laplace(FIELD)
    with raises("argument.anneal"):
        p4.laplace(normal_data, Y, anneal="yes")
    with raises("argument.num_draws"):
        p4.laplace(normal_data, Y, num_draws=10)
    with raises("argument.progress"):
        p4.laplace(normal_data, Y, progress="yes")
    with raises("argument.predictive"):
        p4.laplace(normal_data, Y, predictive=None)
    with raises("argument.model_kwargs"):
        p4.laplace(normal_data, model_kwargs="y")
    for odd in (np.array(list("abcdefgh")), Y + 1j):
        with raises("argument.obs"):
            p4.laplace(normal_data, odd)

    def twice():
        for _ in range(2):
            numpyro.sample("level", dist.Normal(0, 3))

    with raises("argument.model.names", "scope"):
        p4.laplace(twice)
    with raises("argument.model.names", "3"):
        p4.laplace(lambda: numpyro.sample(3, dist.Normal(0, 3)))
    wells = lambda: numpyro.sample("phi", p4.GibbsField(p4.phi4(RING, w=1.0, a=0.1, b=0.3)))  # noqa: E731
    with raises("sampling.no_mode"):
        p4.laplace(wells)


def test_factors_solve_and_draw():
    """B Bᵀ = H: H⁻¹ B has the covariance H⁻¹, exactly; a matrix that is not positive definite has no factors."""
    matrix = sparse.csc_matrix(PRECISION)
    factors = factors_of(matrix)
    columns = factors.draw(np.eye(8)).T
    np.testing.assert_allclose(columns @ columns.T, np.linalg.inv(PRECISION), atol=1e-12)
    right = np.random.default_rng(0).normal(size=(8, 19))
    np.testing.assert_allclose(factors.solve(right), np.linalg.solve(PRECISION, right), atol=1e-12)
    assert factors.log_det == pytest.approx(np.linalg.slogdet(PRECISION)[1])
    assert factors_of(matrix - 3 * sparse.eye(8, format="csc")) is None
