"""Evidence, predictive scores and weights against exact Gaussian answers.

Statistical tests: false alarms 1e-4 each, about six of them; seeds are fixed.
"""

import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import numpyro.distributions as dist
import pytest
from raising import raises
from scipy import stats
from scipy.special import logsumexp

import phi4ppl as p4
from phi4ppl.energy.exact.exact_log_z import ExactFamily
from phi4ppl.inference import mode
from phi4ppl.inference.compare import _compared, _decisions, _why
from phi4ppl.inference.coupling_problem import CouplingProblem
from phi4ppl.inference.weights import bootstrap_errors, pseudo_bma_weights, stacking_weights
from phi4ppl.results.datatree import metadata

pytestmark = pytest.mark.compile_quickly

RING = p4.lattice.chain(6)
TRUE = p4.gaussian(RING, w=0.8, a=1.0)
PRIORS = {"w": dist.Normal(0.0, 1.0), "a": dist.HalfNormal(2.0)}
LOG_KEPT = np.log(2 / np.pi * np.arctan(2))  # of the priors, where Z of the ring is finite


def draws_of(model, seed, count):
    return np.asarray(p4.GibbsField(model).sample(jax.random.key(seed), (count,)), float)


# --- weights


def test_stacking_maximizes_the_mixture_score():
    """Against a fine grid over the simplex, for log densities that underflow as they are."""
    rng = np.random.default_rng(0)
    elpd = rng.normal(0, 1, (150, 3)) + [0.0, 0.2, 0.3] - 5000
    density = np.exp(elpd - elpd.max(axis=1, keepdims=True))
    weights = stacking_weights(elpd)
    grid = np.linspace(0, 1, 201)
    simplex = np.array([(u, v, 1 - u - v) for u in grid for v in grid if u + v <= 1 + 1e-12])
    best = np.log(density @ np.maximum(simplex, 0).T).mean(axis=0).max()
    assert np.log(density @ weights).mean() >= best - 1e-9
    assert weights.sum() == pytest.approx(1) and weights.min() >= 0
    np.testing.assert_allclose(stacking_weights(elpd + rng.normal(size=(150, 1))), weights, atol=1e-6)
    np.testing.assert_allclose(stacking_weights(np.repeat(elpd, 2, axis=0)), weights, atol=1e-6)


def test_stacking_of_identical_and_of_dominated_models():
    elpd = np.random.default_rng(1).normal(size=(50, 1))
    np.testing.assert_allclose(stacking_weights(np.hstack([elpd, elpd])), [0.5, 0.5])
    np.testing.assert_allclose(stacking_weights(np.hstack([elpd, elpd - 1])), [1, 0], atol=1e-6)


def test_bootstrap_error_of_a_weight_known_in_closed_form():
    """Each field is predicted by one of two models only: the weight is a share, its error that of a proportion."""
    first = np.random.default_rng(2).uniform(size=400) < 0.3
    elpd = np.where(first[:, None], [0.0, -60.0], [-60.0, 0.0])
    share = first.mean()
    assert stacking_weights(elpd)[0] == pytest.approx(share, abs=1e-6)
    exact = np.sqrt(share * (1 - share) / 400)
    # relative error of a standard deviation from 100 resamples is 7 %; 3.9 of them
    assert bootstrap_errors(elpd)[0] == pytest.approx(exact, rel=0.275)


def test_pseudo_bma_of_two_models_is_the_bootstrap_probability():
    """The difference of the sums is nearly Gaussian under the Bayesian bootstrap: E[sigmoid] by quadrature."""
    apart = np.random.default_rng(3).normal(0.02, 0.2, 300)
    weights, errors = pseudo_bma_weights(np.stack([apart, np.zeros(300)], axis=1), num_resamples=20_000)
    z = np.linspace(-8, 8, 4001)
    sigmoid = 1 / (1 + np.exp(-(300 * apart.mean() + z * np.sqrt(300) * apart.std())))
    density = stats.norm.pdf(z) * (z[1] - z[0])
    assert weights[0] == pytest.approx(density @ sigmoid, abs=0.01)
    assert errors[0] == pytest.approx(np.sqrt(density @ sigmoid**2 - (density @ sigmoid) ** 2), abs=0.01)


# --- evidence and posteriors


def exact_posterior(data):
    """Log evidence, and posterior mean and spread of (w, a), by quadrature with the exact log Z.

    The prior is that on |w| < a, where Z is finite: a share (2/π) arctan 2 of the whole.
    """
    w, a = np.meshgrid(np.linspace(0.0, 1.6, 161), np.linspace(0.4, 2.4, 161), indexing="ij")
    thetas = np.stack([w.ravel(), a.ravel()], axis=1)
    with jax.enable_x64(True):
        log_z = jax.jit(jax.vmap(lambda t: p4.exact.gaussian_log_partition(TRUE.replace(w=t[0], a=t[1]))))(thetas)
        log_prior = PRIORS["w"].log_prob(thetas[:, 0]) + PRIORS["a"].log_prob(thetas[:, 1])
    t = {k: np.asarray(v, float).sum() for k, v in TRUE.statistics(data).items()}
    total = -thetas @ [t["w"], t["a"]] - len(data) * np.asarray(log_z) + np.asarray(log_prior)
    total = np.where(np.isfinite(total), total, -np.inf)
    cell = 0.01 * 0.0125
    weights = np.exp(total - logsumexp(total))
    mean = weights @ thetas
    return logsumexp(total) + np.log(cell) - LOG_KEPT, mean, np.sqrt(weights @ (thetas - mean) ** 2)


@pytest.fixture(scope="module")
def compared():
    data = draws_of(TRUE, 0, 200)
    empty = p4.lattice.from_networkx(nx.empty_graph(6))
    other = p4.lattice.from_networkx(nx.Graph([(0, 2), (2, 4), (4, 1), (1, 3), (3, 5), (5, 0)]))
    models = {
        "ring": TRUE.replace(w=0.3, a=1.6),
        "rewired": p4.gaussian(other, w=0.1, a=1.5),
        "independent": p4.gaussian(empty, w=1.0, a=0.78),
    }  # fmt: skip
    return data, p4.compare(models, data, {"ring": PRIORS, "rewired": PRIORS}, progress=False)


def test_evidence_and_posterior_agree_with_quadrature(compared):
    data, result = compared
    log_evidence, mean, spread = exact_posterior(data)
    row, posterior = result.table.loc["ring"], result.posteriors["ring"]
    assert abs(row["log_evidence"] - log_evidence) < 3.9 * row["log_evidence_error"]
    assert row["log_evidence_error"] < 1.0
    # log Z moves the posterior: over five seeds by 0.13 of its standard deviation (rms), of which 0.5 is 3.9 times
    weights = np.exp(posterior.log_weights)
    found = weights @ posterior.draws
    assert np.abs((found - mean) / spread).max() < 0.5
    assert np.abs((found - mean - spread) / spread).max() > 0.5  # planted: off by its width
    assert np.abs(np.sqrt(weights @ (posterior.draws - found) ** 2) / spread - 1).max() < 0.15
    # planted: the evidence without its prior, and under the prior where Z is infinite, too
    for shift in (2.5, LOG_KEPT):
        assert abs(row["log_evidence"] - (log_evidence + shift)) > 3.9 * row["log_evidence_error"]


@pytest.fixture(scope="module")
def quartic_chain():
    """An open φ⁴ chain of five with 300 fields, and the exact mean and spread of (w, a) by quadrature."""
    chain = p4.phi4(p4.lattice.chain(5, periodic=False), w=0.7, a=1.0, b=0.2)
    tree = p4.sample(chain, num_warmup=300, num_samples=75, thinning=10, seed=3, progress=False)
    data = tree["posterior"]["phi"].values.reshape(-1, 5).astype(float)
    priors = {"w": dist.Uniform(0.2, 1.2), "a": dist.Uniform(0.5, 1.6)}
    w, a = (x.ravel() for x in np.meshgrid(np.linspace(0.2, 1.2, 51), np.linspace(0.5, 1.6, 56), indexing="ij"))
    thetas = np.stack([w, a], axis=1)
    log_z, _ = ExactFamily(chain, ["w", "a"]).eliminated(thetas)
    hops, squares = -(data[:, 1:] * data[:, :-1]).sum(), (data**2).sum()
    weights = np.exp((total := -w * hops - a * squares - len(data) * log_z) - logsumexp(total))
    mean = weights @ thetas
    return chain, data, priors, mean, np.sqrt(weights @ (thetas - mean) ** 2)


def test_couplings_of_a_comparison_have_the_error_of_log_z(quartic_chain, monkeypatch):
    """Means of w and a are exact where log Z can be, and their errors honest where it is simulated.

    False alarms: 4 scores with exact log Z at 4 errors each, 12 at 3.9 with simulated: 1.4e-3 together. Planted: the error of
    the importance sample alone, which log Z is not in.
    """
    chain, data, priors, mean, spread = quartic_chain

    def scores(seed):
        posterior = p4.compare({"chain": chain}, data, priors, seed=seed, progress=False).posteriors["chain"]
        weights = np.exp(posterior.log_weights)
        found = weights @ posterior.draws
        alone = np.sqrt(weights**2 @ (posterior.draws - found) ** 2)
        return (found - mean) / posterior.mean_errors, (found - mean) / alone, posterior.mean_errors / spread

    for seed in (0, 1):
        z, alone, share = scores(seed)
        assert np.abs(z).max() < 4 and share.max() < 0.03
        np.testing.assert_array_equal(z, alone)
    monkeypatch.setattr("phi4ppl.inference.log_z.MAX_AT_DRAWS", 0)
    simulated = [scores(seed) for seed in range(6)]
    assert np.abs([z for z, *_ in simulated]).max() < 3.9
    assert np.sqrt(np.mean([alone**2 for _, alone, _ in simulated])) > 3


def test_comparison_says_when_chains_are_too_short_for_the_error_of_log_z(quartic_chain, monkeypatch):
    chain, data, priors, *_ = quartic_chain
    monkeypatch.setattr("phi4ppl.inference.log_z.MAX_AT_DRAWS", 0)

    def told():
        found = p4.compare({"chain": chain}, data, priors, progress=False).warnings
        return any(re.search("chain: chains of .* autocorrelation times long, less than 20", text) for text in found)

    assert not told()
    monkeypatch.setattr("phi4ppl.inference.log_z.AXIS_DRAWS", 8)
    assert told()


def test_search_for_the_mode_says_when_it_runs_out_of_steps(monkeypatch, compared):
    """From couplings far from the data two steps are too few, and thirty are enough."""
    assert not compared[1].warnings
    monkeypatch.setattr(mode, "SEARCH_STEPS", 2)
    far = p4.gaussian(RING, w=-0.5, a=8.0)
    result = p4.compare({"far": far, "true": TRUE}, draws_of(TRUE, 0, 50), {"far": PRIORS}, progress=False)
    assert any("far: the search for the most probable couplings ran out of its 2 steps" in w for w in result.warnings)


def test_search_for_the_mode_that_cannot_sample_says_so(monkeypatch):
    """It does not go on from where it got to, as if its steps had run out."""

    def fail(*_):
        raise p4.errors.SamplingError("not_finite", "the log density is not finite")

    monkeypatch.setattr("phi4ppl.learning.natural_steps.expectation", fail)
    with raises("sampling.not_finite"):
        p4.compare({"true": TRUE}, draws_of(TRUE, 0, 50), {"true": PRIORS}, progress=False)
    fit = p4.fit_likelihood(TRUE, draws_of(TRUE, 0, 50), "maximum_likelihood")
    assert fit.status is p4.FitStatus.DIVERGED and "Sampling failed: the log density is not finite" in fit.warnings


def test_models_with_other_graphs_lose(compared):
    _, result = compared
    assert result.table.index[0] == "ring" and result.table["elpd_difference"].max() == 0
    for scheme in ("evidence", "stacking", "pseudo_bma"):
        weights = result.weights(scheme)
        assert sum(weights.values()) == pytest.approx(1) and weights["ring"] > 0.9
    assert "All three agree on ring" in result.why and result.why in str(result)
    # the exact elpd of a Gaussian at known couplings, up to what two fitted couplings cost
    exact = np.asarray(
        p4.GibbsField(TRUE, log_partition=lambda c: p4.exact.gaussian_log_partition(TRUE)).log_prob(result.data)
    )
    difference = result.elpd["ring"] - exact
    assert abs(difference.sum() + 1) < 3.9 * max(1.5, result.table.loc["ring", "log_evidence_error"])


def test_figure_shows_the_weights(compared):
    _, result = compared
    left, right = result.plot().axes
    bars = sorted(patch.get_width() for patch in right.patches)
    table = result.table[["evidence_weight", "stacking_weight", "pseudo_bma_weight"]].to_numpy()
    np.testing.assert_allclose(bars, np.sort(table.ravel()))
    assert [label.get_text() for label in left.get_yticklabels()] == list(result.table.index)


def log_ratio_moments(one, other):
    """Mean and variance of log p_one − log p_other for one field drawn from ``one``: quadratic forms of a Gaussian."""
    q, r = (np.asarray(p4.exact.gaussian_precision(m), float) for m in (one, other))
    form = (r - q) / 2 @ np.linalg.inv(q)
    constant = (np.linalg.slogdet(q)[1] - np.linalg.slogdet(r)[1]) / 2
    return constant + np.trace(form), 2 * np.trace(form @ form)


def test_true_generator_is_found_at_the_expected_rate():
    """Fixed models: P(evidence prefers the truth) = Φ(√N μ/σ), to a percent for the sizes here; 40 data sets of each size."""
    other = TRUE.replace(w=0.7)
    mean, variance = log_ratio_moments(TRUE, other)
    found = []
    for count in (10, 80):
        wins = 0
        for seed in range(40):
            result = p4.compare({"true": TRUE, "other": other}, draws_of(TRUE, 1000 + seed, count), num_draws=100)
            wins += result.weights("evidence")["true"] > 0.5
        rate = stats.norm.cdf(np.sqrt(count) * mean / np.sqrt(variance))
        low, high = stats.binom.interval(1 - 1e-4, 40, rate)
        assert low - 1 <= wins <= high + 1
        found.append((wins, rate))
    assert found[1][0] > found[0][0] and found[1][1] - found[0][1] > 0.15
    # planted: had evidence preferred the other model, the count would be far outside
    assert not stats.binom.interval(1 - 1e-4, 40, found[1][1])[0] <= 40 - found[1][0]


def test_numbers_are_reproducible():
    data = draws_of(TRUE, 5, 40)
    models = {"true": TRUE, "other": TRUE.replace(w=0.5)}
    one, two = (p4.compare(models, data, seed=7) for _ in range(2))
    assert one.table.equals(two.table)


def test_prior_weights_enter_the_evidence():
    data = draws_of(TRUE, 6, 10)
    models = {"true": TRUE, "other": TRUE.replace(w=0.75)}
    even = p4.compare(models, data).weights("evidence")
    odd = p4.compare(models, data, prior_weights={"true": 1, "other": 3}).weights("evidence")
    ratio = (odd["other"] / odd["true"]) / (even["other"] / even["true"])
    assert ratio == pytest.approx(3)


def _known(elpd, log_evidence, error):
    """Instead of the posterior of a fixed model: its scores of all fields, and its evidence."""
    return SimpleNamespace(
        log_likelihood=np.array([elpd]), log_weights=np.zeros(1), log_evidence=log_evidence, log_evidence_error=error,
        warnings=(), notes=(),
    )  # fmt: skip


def test_reasons_for_differences():
    def result(elpd, evidence, error=0.1):
        posteriors = {
            name: _known(column, value, error) for name, column, value in zip("AB", elpd, evidence, strict=True)
        }
        return _compared(posteriors, np.full(2, 0.5), np.zeros((len(elpd[0]), 6)), 0)

    level = np.random.default_rng(0).normal(size=100)
    assert "does not decide: A is ahead of B by 1.0" in result([level, level], [1.0, 0.0], error=3.0).why
    apart = result([level, level + 0.3], [50.0, 0.0])
    assert "Evidence prefers A, prediction B" in apart.why and set(apart.decisions.values()) == {"A", "B"}
    assert not apart.agreed
    split = np.where(np.arange(100) < 65, 1.0, -1.0)
    mixed = result([level + split, level - split], [60.0, 0.0])
    assert "Stacking seeks the best mixture" in mixed.why and mixed.decisions["evidence"] == "A"
    assert mixed.decisions["stacking"] is None and mixed.why.startswith("Undecided by stacking (A 0.")


def _two_models(evidence_gap, elpd_gap, spread=0.0, error=0.0):
    """100 fields; the elpd of A is higher by ``elpd_gap`` on the whole, and its evidence by ``evidence_gap`` nats."""
    noise = np.random.default_rng(1).normal(size=100)
    apart = elpd_gap / 100 + spread * (noise - noise.mean())
    posteriors = {
        name: _known(column, value, error)
        for name, column, value in (("A", noise + apart, evidence_gap - 100.0), ("B", noise, -100.0))
    }
    return _compared(posteriors, np.full(2, 0.5), np.zeros((100, 6)), 0)


def test_a_weight_of_two_thirds_is_no_decision():
    """The weight 0.66 of the review: softmax of 0.663 nats. Nothing says "settles" or "agree", whatever the scheme."""
    result = _two_models(np.log(0.66 / 0.34), 0.0)
    assert result.weights("evidence")["A"] == pytest.approx(0.66)
    assert result.decisions == {"evidence": None, "stacking": None, "pseudo_bma": None} and not result.agreed
    assert result.why.startswith("Undecided by evidence (A 0.66, B 0.34), stacking (")
    assert not re.search("settle|agree|prefers|favor", str(result))


@pytest.mark.parametrize("scheme", ["evidence", "stacking", "pseudo_bma"])
def test_a_large_weight_with_a_large_error_is_no_decision(scheme):
    """0.95 ± 0.2 is undecided, 0.95 ± 0.02 is decided: for each scheme by itself, the others far from their thresholds."""
    table = _two_models(60.0, 60.0).table
    assert set(_decisions(table).values()) == {"A"}
    for error, decided in ((0.2, None), (0.02, "A")):
        changed = table.copy()
        changed.loc["A", [f"{scheme}_weight", f"{scheme}_error"]] = 0.95, error
        changed.loc["B", [f"{scheme}_weight", f"{scheme}_error"]] = 0.05, error
        assert _decisions(changed)[scheme] == decided
        assert _why(changed).startswith("Undecided by" if decided is None else "All three agree on A")
        assert ("0.95(20)" in _why(changed)) == (decided is None)


def test_an_error_of_log_z_leaves_every_scheme_undecided():
    """20 nats apart are a decision when log Z is known, and none when it is uncertain by 20 nats; by prediction too."""
    known, unknown = (_two_models(20.0, 20.0, error=error) for error in (0.01, 20.0))
    assert known.agreed and "All three agree on A" in known.why
    assert set(unknown.decisions.values()) == {None} and "does not decide: A is ahead of B by 20(28)" in unknown.why
    for scheme in ("evidence", "stacking", "pseudo_bma"):  # and the weights themselves are as they were
        assert unknown.weights(scheme) == pytest.approx(known.weights(scheme))


def test_one_model_has_its_evidence():
    data = draws_of(TRUE, 0, 50)
    result = p4.compare({"ring": TRUE}, data)
    exact = -float(np.sum(np.asarray(TRUE.energy(data), float))) - 50 * float(p4.exact.gaussian_log_partition(TRUE))
    assert result.table.loc["ring", "log_evidence"] == pytest.approx(exact, rel=1e-5)
    assert result.table.loc["ring", "elpd"] == pytest.approx(exact, rel=1e-5)  # no coupling was fitted
    assert result.weights("stacking") == result.weights("evidence") == {"ring": 1.0}
    assert "One model, ring" in str(result) and not result.agreed and f"{exact:.1f}" in str(result)
    assert result.plot().axes[0].get_yticklabels()[0].get_text() == "ring"
    assert set(p4.average(result, num_draws=10)["posterior_predictive"]["model"].values.ravel()) == {"ring"}


# --- averages


def test_average_mixes_fields_by_weight(compared):
    """Mean of φ² of a mixture with known shares, and of the data's own model."""
    _, result = compared
    tree = p4.average(result, weights={"ring": 1.0, "rewired": 0.0, "independent": 1.0}, num_draws=100, seed=1)
    drawn = tree["posterior_predictive"]
    origin = drawn["model"].values
    assert set(origin.ravel()) == {"ring", "independent"} and drawn["phi"].dims == ("chain", "draw", "field", "site")
    share = (origin == "ring").mean()
    assert abs(share - 0.5) < 3.9 * np.sqrt(0.25 / 3000)
    for name, model in (("ring", TRUE), ("independent", result.posteriors["independent"].model)):
        exact = np.mean(np.diag(np.linalg.inv(np.asarray(p4.exact.gaussian_precision(model), float))))
        # 200 data leave φ² uncertain by about 2/√(200·6)
        assert drawn["phi_squared"].values[origin == name].mean() == pytest.approx(exact, rel=0.25)
    assert tree["observed_data"]["phi"].shape == (200, 6)
    again = p4.average(result, weights={"ring": 1.0, "rewired": 0.0, "independent": 1.0}, num_draws=100, seed=1)
    assert again.equals(tree)  # which leaves out when they were made


def test_average_can_be_drawn_by_arviz(compared):
    import arviz_plots

    tree = p4.average(compared[1], num_draws=100)
    assert arviz_plots.plot_ppc_dist(tree, var_names=["phi_squared"], backend="matplotlib") is not None


def test_draws_without_a_density_are_told():
    """The ring has one for |w| < 1: eigenvalues 2 (a − w cos k)."""
    problem = CouplingProblem(TRUE.replace(a=1.0, w=0.5), draws_of(TRUE, 0, 5), {"w": dist.Normal()})
    thetas = np.where(np.arange(40) % 2, 0.5, 1.5)[:, None]
    assert problem.improper(thetas) == ["20 of 40 draws have no density (Z is infinite): use narrower priors."]
    assert problem.improper(thetas[1::2]) == []
    half = p4.gaussian(RING, w=0.5, a=1.0).replace(w=1.5)
    assert not half.check().is_normalizable


# --- posteriors of infer_couplings


@pytest.fixture(scope="module")
def inferred(quartic_chain):
    """Posteriors given 60 fields with log Z exact and simulated, and the exact log evidence by Gauss–Legendre quadrature."""
    chain, data, priors, *_ = quartic_chain
    data = data[:60]
    run = {"num_warmup": 300, "num_samples": 500, "progress": False}
    found = {name: p4.infer_couplings(chain, data, priors, normalizer=name, **run) for name in ("exact", "surface")}
    low, high = np.array([0.2, 0.5]), np.array([1.2, 1.6])
    x, weight = np.polynomial.legendre.leggauss(40)
    nodes = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1).reshape(-1, 2)
    thetas = (low + high) / 2 + (high - low) / 2 * nodes
    log_z, _ = ExactFamily(chain, ["w", "a"]).eliminated(thetas)
    hops, squares = -(data[:, 1:] * data[:, :-1]).sum(), (data**2).sum()
    total = -thetas @ [hops, squares] - 0.2 * (data**4).sum() - len(data) * log_z
    return found, logsumexp(total, b=np.outer(weight, weight).ravel() / 4)  # the prior is 1/volume


def test_evidence_of_inferred_posteriors_is_that_of_quadrature(inferred):
    """Two scores at 3.9 errors. Planted: a prior over twice the volume."""
    found, exact = inferred
    for name, posterior in found.items():
        error = posterior.log_evidence_error
        assert abs(posterior.log_evidence - exact) < 3.9 * error and error < (0.05 if name == "exact" else 1.0)
    assert abs(found["exact"].log_evidence - np.log(2) - exact) > 3.9 * found["exact"].log_evidence_error


def test_comparison_takes_inferred_posteriors(quartic_chain, inferred):
    """Beside the same model with the same priors: one evidence, one elpd, weights of a half.

    The two elpd are from other draws of one posterior: 4000 and 2000 of them, whose noise is far below 0.3.
    """
    chain, data, priors, *_ = quartic_chain
    data, posterior = data[:60], inferred[0]["exact"]
    result = p4.compare({"inferred": posterior, "model": chain}, data, {"model": priors}, progress=False)
    table = result.table
    assert result.posteriors["inferred"] is posterior and list(result.posteriors) == ["inferred", "model"]
    errors = np.hypot(*table["log_evidence_error"])
    assert abs(table.loc["inferred", "log_evidence"] - table.loc["model", "log_evidence"]) < 3.9 * errors
    assert abs(table.loc["inferred", "elpd"] - table.loc["model", "elpd"]) < 0.3
    fields = p4.average(result, weights={"inferred": 1.0, "model": 0.0}, num_draws=10)["posterior_predictive"]
    assert set(fields["model"].values.ravel()) == {"inferred"}
    with raises("argument.models.data", name="models['inferred']", got="one given others"):
        p4.compare({"inferred": posterior}, data[::-1])
    with raises("argument.priors.models", got="'inferred'"):
        p4.compare({"inferred": posterior, "model": chain}, data, {"inferred": priors})


def test_posterior_is_used_like_its_tree(quartic_chain, inferred, tmp_path):
    data, posterior = quartic_chain[1], inferred[0]["surface"]
    w = posterior["posterior"]["w"]
    assert w.identical(posterior.posterior["w"]) and w.identical(posterior.tree["posterior"]["w"])
    np.testing.assert_allclose(posterior.draws[:, 0], w.values.ravel())
    assert posterior.attrs is posterior.tree.attrs and set(posterior.children) == set(posterior.tree.children)
    assert p4.estimate(posterior).equals(p4.estimate(posterior.tree)) and str(p4.diagnose(posterior)) == str(
        p4.diagnose(posterior.tree)
    )
    saved = p4.load_run(p4.save_run(posterior, tmp_path / "run.nc"))
    assert metadata(saved)["settings"]["log_evidence"] == posterior.log_evidence
    text = str(posterior)
    assert f"log evidence {posterior.log_evidence:.2f}" in text and len(text.splitlines()) < 10
    exact, some = inferred[0]["exact"], slice(0, None, 200)
    log_z, _ = ExactFamily(quartic_chain[0], ["w", "a"]).eliminated(exact.draws[some])
    np.testing.assert_allclose(exact.log_partition[some], log_z, atol=2e-3)
    energy = np.array([np.asarray(exact.at(k).energy(data[:60])) for k in range(len(exact.draws))[some]])
    np.testing.assert_allclose(exact.log_likelihood[some], -energy - log_z[:, None], atol=3e-3)


def test_the_tree_of_a_comparison_has_draws_of_equal_weight(compared):
    """Mean and width of the resampled draws are those of the weighted ones: within 5 of their errors, and 10 %."""
    posterior = compared[1].posteriors["ring"]
    weights, table = np.exp(posterior.log_weights), p4.estimate(posterior)
    mean = weights @ posterior.draws
    spread = np.sqrt(weights @ (posterior.draws - mean) ** 2)
    found = table.loc[list(posterior.names)]
    assert np.abs(found["mean"] - mean).max() < 5 * (spread / np.sqrt(1 / np.sum(weights**2))).max()
    np.testing.assert_allclose(found["sd"], spread, rtol=0.1)
    np.testing.assert_allclose(found["error"], posterior.mean_errors, rtol=0.2)
    even = posterior.draws.mean(axis=0)  # planted: the proposal without its weights is wider
    assert np.abs(np.sqrt(((posterior.draws - even) ** 2).mean(axis=0)) / spread - 1).max() > 0.1


@pytest.mark.parametrize("normalizer", ["auto", "exchange", "pseudolikelihood"])
def test_priors_are_judged_by_one_rule(normalizer):
    """Of infer_couplings and compare: what they refuse. What they cut, and the evidence then, is tested with natural priors."""
    model = p4.phi4(p4.lattice.chain(3), w=0.3, a=1.2, b=0.1)
    data = draws_of(p4.gaussian(model.lattice, w=0.3, a=1.2), 1, 20)
    said = []
    for prior in (dist.Uniform(-1.0, -0.5), dist.Delta(0.2), 3.0, dist.Uniform(1.0, 0.5)):
        for run in (p4.compare, p4.infer_couplings):
            first = {"m": model} if run is p4.compare else model
            options = {} if run is p4.compare else {"normalizer": normalizer}
            with raises("argument.prior*", name="prior of 'b'") as refusal:
                run(first, data, {"b": prior}, **options)
            said.append(str(refusal.value))
    assert said[::2] == said[1::2] and "a distribution of positive numbers" in said[0]
    held = p4.phi4(model.lattice, w=0.3, a=1.2, b=0.1, c=0.1)  # by φ⁶
    assert CouplingProblem(held, data, {"b": dist.Normal(0, 0.3)}).names == ("b",)
    with raises("argument.prior.positive", name="prior of 'c'"):
        CouplingProblem(held, data, {"c": dist.Normal(0, 0.3)})


# --- refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": {}}, ("argument.models",)),
        ({"models": {"a": TRUE, "b": 3}}, ("argument.models", "MarkovRandomField", "models['b']")),
        ({"data": np.zeros((10, 5))}, ("argument.data.shape", "5", "6", "'a'")),
        ({"data": np.zeros((3, 6))}, ("argument.data.shape", "5")),
        ({"data": np.full((10, 6), np.nan)}, ("argument.data.finite",)),
        ({"priors": [1]}, ("argument.priors", "NumPyro")),
        ({"priors": {"q": dist.Normal()}}, ("argument.priors.name", "got 'q'")),
        ({"priors": {"c": {"w": dist.Normal()}}}, ("argument.priors.models", "got 'c'")),
        ({"priors": {"w": 3.0}}, ("argument.prior", "NumPyro", "prior of 'w'")),
        ({"priors": {"w": dist.Normal}}, ("argument.prior", "NumPyro", "prior of 'w'")),
        ({"priors": {"w": dist.Normal(np.zeros(2))}}, ("argument.prior", "NumPyro", "prior of 'w'")),
        ({"priors": {"w": dist.Poisson(1.0)}}, ("argument.prior.density", "prior of 'w'", "got Poisson")),
        (
            {"models": {"a": TRUE.inhomogeneous("w"), "b": TRUE}, "priors": {"w": dist.Normal()}},
            ("argument.priors.name", "'a'", "got 'w'"),
        ),
        ({"prior_weights": {"a": 1}}, ("argument.prior_weights",)),
        ({"prior_weights": {"a": 1, "b": 0}}, ("argument.prior_weights.positive",)),
        ({"num_draws": 3}, ("argument.num_draws", "100")),
    ],
)
def test_bad_arguments_say_what_to_do(change, message):
    arguments = {"models": {"a": TRUE, "b": TRUE.replace(w=0.5)}, "data": draws_of(TRUE, 0, 10)}
    with raises(*message):
        p4.compare(**arguments | change)


def test_bad_weights_say_what_to_do(compared):
    _, result = compared
    with raises("argument.scheme", "'evidence'"):
        p4.average(result, weights="best")
    with raises("argument.weights"):
        p4.average(result, weights={"ring": 1})
    with raises("argument.weights.positive", "0"):
        p4.average(result, weights={"ring": -1, "rewired": 1, "independent": 1})
    with raises("argument.comparison"):
        p4.average({})


def test_intrinsic_model_is_refused():
    improper = p4.gaussian(RING, w=1.0, a=1.0)
    with pytest.raises(p4.errors.HammersleyCliffordError):
        p4.compare({"a": TRUE, "b": improper}, draws_of(TRUE, 0, 10))


def test_double_precision_runs_through(x64):
    result = p4.compare({"true": TRUE, "other": TRUE.replace(w=0.2)}, draws_of(TRUE, 0, 100))
    exact = -jnp.sum(TRUE.energy(result.data)) - 100 * p4.exact.gaussian_log_partition(TRUE)
    assert result.table.loc["true", "log_evidence"] == pytest.approx(float(exact), rel=1e-10)
