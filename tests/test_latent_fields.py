"""Fields behind data: posteriors, likelihoods datum by datum and leave-one-out, against closed forms and quadrature.

Statistical tests: false alarms 1e-4 each, seven of them; seeds are fixed.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from numpyro import handlers
from raising import raises
from scipy import stats
from scipy.special import logsumexp

import phi4ppl as p4
from phi4ppl.analysis.gamma_method import gamma_method
from phi4ppl.results.leave_one_out import leave_one_out

pytestmark = pytest.mark.compile_quickly

RING, NOISE = p4.lattice.chain(6), 0.3
PRIOR = p4.gaussian(RING, w=0.8, a=1.0)
Y = np.array([0.9, 0.4, -0.5, 0.1, 1.2, 9.9])
SEEN = np.arange(6) < 5  # the last one is missing: what it says must not matter
PSI = np.array([0.3, 0.8, 1.1, -0.2, -0.6, 0.1])
COVARIANCE = np.linalg.inv(np.asarray(p4.exact.gaussian_precision(PRIOR), float))


def ring_of(w):
    return p4.gaussian(RING, w=w, a=1.0)


def log_partition(couplings):
    """Of `ring_of`: the precision has eigenvalues 2 − 2w cos k."""
    return 3 * jnp.log(2 * jnp.pi) - jnp.log(2 - 2 * couplings["w"] * jnp.cos(jnp.arange(6) * jnp.pi / 3)).sum() / 2


def many_sites():
    """A noisy field with a hole, an observed field with a random coupling, and factors that are no data."""
    phi = numpyro.sample("phi", p4.GibbsField(PRIOR))
    with handlers.mask(mask=SEEN):
        numpyro.sample("y", dist.Normal(phi, NOISE), obs=Y)
    w = numpyro.sample("w", dist.Uniform(0.0, 0.95))
    numpyro.sample("psi", p4.GibbsField(ring_of(w), log_partition=log_partition), obs=PSI)
    numpyro.sample("rows", dist.MultivariateNormal(jnp.zeros((3, 2)), jnp.eye(2)), obs=jnp.ones((3, 2)))
    numpyro.sample("whole", dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)), obs=jnp.ones(2))
    numpyro.sample("event", dist.Normal(jnp.zeros(4), 1.0).to_event(1), obs=jnp.ones(4))
    with handlers.scale(scale=0.5):
        numpyro.sample("tempered", dist.Normal(jnp.zeros(4), 1.0), obs=jnp.ones(4))
    numpyro.factor("extra", 0.0 * w)


@pytest.fixture(scope="module")
def run():
    return p4.sample(many_sites, num_warmup=400, num_samples=2000, seed=2, kernel="hmc", progress=False)


def normal_leave_one_out(y, covariance):
    """log p(y_n | y_{−n}) of one Gaussian vector."""
    precision = np.linalg.inv(covariance)
    variance = 1 / np.diag(precision)
    return stats.norm.logpdf(variance * (precision @ y), scale=np.sqrt(variance))


EXACT_Y = normal_leave_one_out(Y[:5], (COVARIANCE + NOISE**2 * np.eye(6))[:5, :5])


def z_scores(log_likelihood, exact):
    """Of E[1/p(y_n | draw)] = 1/p(y_n | y_{−n}), the identity behind leave-one-out; shape (chain, draw, data)."""
    scores = []
    for n in range(len(exact)):
        found = gamma_method(np.exp(exact[n] - log_likelihood[..., n]).astype(float))
        scores.append((found.mean - 1) / found.error)
    return np.array(scores)


def bound(number, alarm=1e-4):
    return stats.norm.isf(alarm / 2 / number)


def test_groups_hold_the_data_one_by_one(run):
    likelihood, data = run["log_likelihood"], run["observed_data"]
    draws = run["posterior"]
    assert set(likelihood.data_vars) == set(data.data_vars) == {"y", "psi", "rows", "event"}
    np.testing.assert_array_equal(likelihood["y_datum"], np.arange(5))
    np.testing.assert_allclose(data["y"], Y[:5], rtol=1e-6)
    expected = stats.norm.logpdf(Y[:5], draws["phi"].values[..., :5], NOISE)
    np.testing.assert_allclose(likelihood["y"], expected, rtol=1e-4, atol=1e-4)
    assert likelihood["rows"].sizes == {"chain": 4, "draw": 2000, "rows_dim_0": 3}
    np.testing.assert_allclose(likelihood["rows"], -1 - np.log(2 * np.pi), rtol=1e-5)
    assert likelihood["event"].sizes["event_dim_0"] == 4 and likelihood["psi"].dims[-1] == "psi_site"


def exact_posterior(seen):
    """Mean and covariance of φ given what is seen of y."""
    covariance = np.linalg.inv(np.linalg.inv(COVARIANCE) + np.diag(seen / NOISE**2))
    return covariance @ (seen * Y) / NOISE**2, covariance


def test_posterior_of_a_noisy_field_with_a_hole_is_exact(run):
    """Mean, covariance, and the share of draws in the exact 90 % interval of the hole. Planted: its datum, seen."""
    phi = run["posterior"]["phi"].values.astype(float)
    mean, covariance = exact_posterior(SEEN)
    series = {("mean", i): (phi[..., i], mean[i]) for i in range(6)}
    away = phi - mean
    series |= {(i, j): (away[..., i] * away[..., j], covariance[i, j]) for i in range(6) for j in range(i, 6)}
    half = stats.norm.isf(0.05) * np.sqrt(covariance[5, 5])
    series["inside"] = ((np.abs(away[..., 5]) < half).astype(float), 0.9)
    scores = {}
    for name, (values, exact) in series.items():
        found = gamma_method(values)
        scores[name] = (found.mean - exact) / found.error
    assert max(map(abs, scores.values())) < bound(len(scores)), scores
    assert np.abs(exact_posterior(np.ones(6))[0][5] - phi[..., 5].mean()) > 5
    assert np.sqrt(covariance[5, 5]) > 2 * np.sqrt(covariance[0, 0])


def test_known_noise_adds_to_the_couplings_of_a_field():
    """exp(−S) times the likelihood is a field with a + 1/(2σ²) and r − y/σ²: the same energy up to a constant."""
    noisy = p4.phi4(SQUARE, w=0.6, a=-0.4, b=0.4, r=0.0).inhomogeneous("a", "r")
    noisy = noisy.replace(a=np.full(4, -0.4 + 0.5 / WIDTH**2), r=-SEEN_WELL.ravel() / WIDTH**2)
    position = p4.compile(noisy_well, SEEN_WELL)
    fields = np.random.default_rng(0).normal(size=(5, 2, 2))
    both = np.array([position.potential_fn({"phi": jnp.asarray(f)}) for f in fields])
    np.testing.assert_allclose(np.ptp(both - np.asarray(noisy.energy(fields))), 0.0, atol=1e-5)


def test_copies_of_a_field_in_a_plate_have_a_dimension_of_their_own():
    def model():
        with numpyro.plate("copies", 2):
            phi = numpyro.sample("phi", p4.GibbsField(PRIOR))
        numpyro.sample("data", dist.Normal(phi, NOISE), obs=jnp.stack([Y, -Y]))

    tree = p4.sample(model, num_warmup=100, num_samples=50, num_chains=2, kernel="hmc", progress=False)
    phi = tree["posterior"]["phi"]
    assert phi.dims == ("chain", "draw", "copies", "site") and phi.shape[2:] == (2, 6)
    assert tree["streamed"]["phi"].dims == ("statistic", "copies", "site")
    # the second has the data of the first with the other sign; noise of a mean of 100 draws is below 0.3/√100 · 10
    assert np.abs(phi.mean(("chain", "draw")).values.sum(axis=0)).max() < 0.3
    np.testing.assert_allclose(
        tree["log_likelihood"]["data"], stats.norm.logpdf(np.stack([Y, -Y]), phi.values, NOISE), rtol=1e-3, atol=1e-2
    )


def test_observed_field_is_taken_site_by_site(run):
    w = run["posterior"]["w"].values[..., None]
    mean = w * (np.roll(PSI, 1) + np.roll(PSI, -1)) / 2  # of exp(−φ² + w φ (left + right))
    np.testing.assert_allclose(
        run["log_likelihood"]["psi"], stats.norm.logpdf(PSI, mean, np.sqrt(0.5)), rtol=1e-4, atol=1e-4
    )


def test_single_factors_are_refused_with_the_reason(run):
    for site, reason in (
        ("extra", "numpyro.factor"),
        ("whole", "MultivariateNormal"),
        ("tempered", "scaled"),
    ):
        with raises("single_factor.cannot_be_split", repr(site), reason):
            p4.loo(run, site)
    with raises("argument.site.choice", "'psi'", "'whole'", "got None"):
        p4.loo(run)
    with raises("argument.site.choice", "got 'z'"):
        p4.loo(run, "z")
    with raises("argument.tree", "DataTree", "got int"):
        p4.loo(3)
    with raises("argument.tree.no_log_likelihood", "log_likelihood", "NumPyro"):
        p4.loo(xr.DataTree())
    lumped = xr.DataTree.from_dict({"log_likelihood": run["log_likelihood"].to_dataset()[["y"]].sum("y_datum")})
    with raises("single_factor.cannot_be_split", "'y'"):
        p4.loo(lumped)


def test_own_terms_of_an_observed_field_are_refused():
    own = p4.MarkovRandomField(RING, [p4.Term("m", np.arange(6)[:, None], lambda x: x**2, 1.0)])

    def model():
        numpyro.sample("mu", dist.Normal())
        numpyro.sample("psi", p4.GibbsField(own), obs=PSI)

    assert "own term" not in str(p4.compile(model).single_factors)
    assert "the field has the term 'm'" in p4.compile(model).single_factors["psi"]
    with raises("argument.model.terms"):
        p4.GibbsField(own).conditional_log_prob(PSI)
    with raises("argument.value.shape", "(6,)", "(5,)"):
        p4.GibbsField(PRIOR).conditional_log_prob(PSI[:5])


def test_leave_one_out_of_a_noisy_field_is_exact(run):
    """Own sites integrated out. Planted: draws of the full posterior without weights, and a neglected neighbor."""
    from arviz_stats import loo as arviz_loo

    better = p4.integrated_log_likelihood(run, many_sites, site="y")
    values = better["log_likelihood"]["y"].values
    assert np.abs(z_scores(values, EXACT_Y)).max() < bound(5)
    score = p4.loo(better, "y")
    assert float(score.pareto_k.max()) < 0.5
    np.testing.assert_allclose(score.elpd_i, EXACT_Y, atol=0.02)
    assert score.elpd == pytest.approx(arviz_loo(better, var_name="y").elpd)
    phi = run["posterior"]["phi"].values
    assert np.abs(logsumexp(values, axis=(0, 1)) - np.log(8000) - EXACT_Y).max() > 0.1
    mean, variance = 0.4 * np.roll(phi, 1, axis=-1)[..., :5], 0.5 + NOISE**2  # of one neighbor only
    assert np.abs(z_scores(stats.norm.logpdf(Y[:5], mean, np.sqrt(variance)), EXACT_Y)).max() > bound(5)
    # the other sites of the tree are as they were
    assert better["log_likelihood"]["psi"].equals(run["log_likelihood"]["psi"])


def test_leave_one_out_of_an_observed_field_is_exact(run):
    """p(φ_n | rest) over the posterior of w by quadrature. Planted: shares of the joint density in place of conditionals."""
    grid = np.linspace(0.0, 0.95, 400)
    precision = [np.asarray(p4.exact.gaussian_precision(ring_of(float(w))), float) for w in grid]
    joint = np.array([stats.multivariate_normal(cov=np.linalg.inv(q)).logpdf(PSI) for q in precision])
    alone = np.array([normal_leave_one_out(PSI, np.linalg.inv(q)) for q in precision])
    exact = logsumexp(joint) - logsumexp(joint[:, None] - alone, axis=0)
    assert np.abs(z_scores(run["log_likelihood"]["psi"].values, exact)).max() < bound(6)
    np.testing.assert_allclose(p4.loo(run, "psi").elpd_i, exact, atol=0.02)
    w = run["posterior"]["w"].values[..., None]
    shares = np.interp(w, grid, joint) / 6 + 0 * PSI
    assert np.abs(z_scores(shares, exact)).max() > bound(6)


# --- φ⁴, where the answers are sums over a grid

SQUARE = p4.lattice.square(2)
WELL = p4.phi4(SQUARE, w=0.6, a=-0.4, b=0.4)
SEEN_WELL, WIDTH = np.array([[1.0, 0.4], [0.9, -1.6]]), 0.5


def noisy_well(y):
    phi = numpyro.sample("phi", p4.GibbsField(WELL))
    numpyro.sample("datum", dist.Normal(phi, WIDTH), obs=y)


@pytest.fixture(scope="module")
def well():
    return p4.sample(noisy_well, SEEN_WELL, num_warmup=400, num_samples=2000, seed=1, kernel="hmc", progress=False)


@pytest.fixture(scope="module")
def grid():
    """Fields on a grid (4, n) and log of prior and of the likelihood of each datum (4, n)."""
    line = np.linspace(-4.2, 4.2, 36)
    phi = np.stack(np.meshgrid(*[line] * 4, indexing="ij")).reshape(4, -1)
    action = (-0.4 * phi**2 + 0.4 * phi**4).sum(axis=0)
    for i, j in SQUARE.edges:
        action -= 0.6 * phi[i] * phi[j]
    return phi, -action, stats.norm.logpdf(SEEN_WELL.reshape(4, 1), phi, WIDTH)


def test_posterior_of_a_quartic_field_agrees_with_quadrature(well, grid):
    phi, prior, likelihood = grid
    weight = prior + likelihood.sum(axis=0)
    weight = np.exp(weight - logsumexp(weight))
    found = well["posterior"]["phi"].values.reshape(4, 2000, 4).astype(float)
    for power in (1, 2, 3):
        exact = phi**power @ weight
        estimates = [gamma_method(found[..., i] ** power) for i in range(4)]
        scores = np.array([(e.mean - x) / e.error for e, x in zip(estimates, exact, strict=True)])
        assert np.abs(scores).max() < bound(12)
        # planted: the posterior with noise of another width
        off = prior + likelihood.sum(axis=0) * 1.3
        off = phi**power @ np.exp(off - logsumexp(off))
        assert np.abs([(e.mean - x) / e.error for e, x in zip(estimates, off, strict=True)]).max() > bound(12)


def test_leave_one_out_of_a_noisy_quartic_field_is_exact(well, grid):
    """A datum that contradicts its neighbors: plain weights are wrong and k̂ says so, integrated ones are right."""
    _, prior, likelihood = grid
    whole = logsumexp(prior + likelihood.sum(axis=0))
    exact = np.array([whole - logsumexp(prior + np.delete(likelihood, n, axis=0).sum(axis=0)) for n in range(4)])
    better = p4.integrated_log_likelihood(well, noisy_well, SEEN_WELL)
    values = better["log_likelihood"]["datum"].values.reshape(4, 2000, 4)
    assert np.abs(z_scores(values, exact)).max() < bound(4)
    integrated = p4.loo(better)
    assert float(integrated.pareto_k.max()) < 0.7
    np.testing.assert_allclose(integrated.elpd_i.values.ravel(), exact, atol=0.03)
    plain = leave_one_out(well["log_likelihood"]["datum"].values.reshape(-1, 4))
    assert plain.pareto_k.max() > 0.5
    assert np.abs(plain.elpd - exact).max() > 2 * np.abs(integrated.elpd_i.values.ravel() - exact).max()


def test_conditionals_of_a_quartic_field_agree_with_quadrature():
    model = p4.phi4(SQUARE, w=[0.3, 0.5, -0.2, 0.7], a=np.array([[-1.0, 0.5], [0.2, 0.4]]), b=0.3, r=0.2)
    phi, line = np.random.default_rng(0).normal(size=(2, 2)), np.linspace(-6, 6, 2001)
    for index in np.ndindex(2, 2):
        trial = np.repeat(phi[None], len(line), axis=0)
        trial[(slice(None), *index)] = line
        normalizer = logsumexp(-np.asarray(model.energy(trial), float)) + np.log(line[1] - line[0])
        exact = -float(model.energy(phi)) - normalizer
        assert float(p4.GibbsField(model).conditional_log_prob(phi)[index]) == pytest.approx(exact, abs=2e-5)


# --- where it cannot be integrated


def of_mean(y):
    phi = numpyro.sample("phi", p4.GibbsField(WELL))
    numpyro.sample("datum", dist.Normal(phi - phi.mean(), WIDTH), obs=y)


def twice(y):
    phi = numpyro.sample("phi", p4.GibbsField(WELL))
    numpyro.sample("datum", dist.Normal(jnp.stack([phi[0], phi[0]]), WIDTH), obs=y)


def also_elsewhere(y):
    phi = numpyro.sample("phi", p4.GibbsField(WELL))
    numpyro.sample("datum", dist.Normal(phi, WIDTH), obs=y)
    numpyro.factor("more", -(phi[0, 0] ** 2))


def copies(y):
    phi = numpyro.sample("phi", p4.GibbsField(WELL).expand([1]))
    numpyro.sample("datum", dist.Normal(phi[0], WIDTH), obs=y)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (of_mean, ("argument.model.several_sites", "'phi'", "got datum 0 of 'datum', which looks at 4")),
        (twice, ("argument.model.several_data", "'phi'", "got 2 data at site 0")),
        (also_elsewhere, ("argument.model.incomplete", "'datum'", "'phi'", "got another site")),
        (copies, ("argument.field", "GibbsField", "got 'phi', several copies")),
    ],
)
def test_models_without_a_site_of_their_own_are_refused(model, message, well):
    with raises(*message):
        p4.integrated_log_likelihood(well, model, SEEN_WELL)


def test_other_runs_are_refused(well):
    with raises("argument.args.mismatch", "got others"):
        p4.integrated_log_likelihood(well, noisy_well, SEEN_WELL + 0.1)
    with raises("argument.site", "'datum'", "got 'y'"):
        p4.integrated_log_likelihood(well, noisy_well, SEEN_WELL, site="y")
    with raises("argument.field", "'phi'", "got 'psi'"):
        p4.integrated_log_likelihood(well, noisy_well, SEEN_WELL, field="psi")
    with raises("argument.site", "got None"):
        p4.integrated_log_likelihood(well, many_sites)
    without = well.copy()
    without["posterior"] = xr.DataTree(well["posterior"].to_dataset().drop_vars("phi"))
    with raises("argument.tree.no_draws", "'phi'", "keep_field=True"):
        p4.integrated_log_likelihood(without, noisy_well, SEEN_WELL)

    def precise(y):
        phi = numpyro.sample("phi", p4.GibbsField(WELL))
        numpyro.sample("datum", dist.Normal(phi, 1e-5), obs=y)

    with raises("argument.site.unresolved", "2305", "got log p uncertain"):
        p4.integrated_log_likelihood(well.isel(draw=slice(0, 3)), precise, SEEN_WELL)


def test_run_without_fields_keeps_no_likelihood_and_says_why():
    tree = p4.sample(
        noisy_well,
        SEEN_WELL,
        num_warmup=20,
        num_samples=10,
        num_chains=2,
        kernel="hmc",
        keep_field=False,
        progress=False,
    )
    assert "log_likelihood" not in tree.children and "observed_data" not in tree.children
    with raises("single_factor.cannot_be_split", "keep_field=False"):
        p4.loo(tree)


def test_groups_are_saved_and_come_back_from_a_checkpoint(tmp_path):
    options = {"num_warmup": 20, "num_samples": 10, "num_chains": 2, "kernel": "hmc", "progress": False}
    tree = p4.sample(noisy_well, SEEN_WELL, checkpoint=tmp_path / "run", **options)
    loaded = p4.load_run(tmp_path / "run")
    for group in ("log_likelihood", "observed_data"):
        assert tree[group].dims and xr.Dataset.identical(loaded[group].to_dataset(), tree[group].to_dataset())
    np.testing.assert_allclose(loaded["observed_data"]["datum"], SEEN_WELL, rtol=1e-6)
    again = p4.load_run(p4.save_run(tree, tmp_path / "run.nc"))
    xr.testing.assert_identical(again["log_likelihood"].to_dataset(), tree["log_likelihood"].to_dataset())
    assert jax.config.jax_enable_x64 is False
