"""The verdict: each check fails on the fault that it is there for, and a good run passes."""

import base64
import json
import re

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from raising import raises

import phi4ppl as p4
from phi4ppl.analysis.gamma_method import gamma_method
from phi4ppl.results import figures as drawing
from phi4ppl.results.figures import figures
from phi4ppl.results.ranks import rank_differences
from phi4ppl.sampling import chains

pytestmark = pytest.mark.compile_quickly


@pytest.fixture(scope="module")
def good():
    model = p4.phi4(p4.lattice.square(3), a=1.9, b=0.175)
    return p4.sample(model, num_warmup=300, num_samples=1000, seed=3, kernel="nuts")


def failed(tree):
    return {check.name for check in p4.diagnose(tree).checks if not check.passed}


def with_values(tree, group, name, change):
    """A copy of the run with one variable replaced by ``change`` of its values."""
    copy = tree.copy(deep=True)
    variable = copy[group][name]
    data = copy[group].to_dataset().assign({name: (variable.dims, change(variable.values).astype(variable.dtype))})
    copy[group] = xr.DataTree(data)
    return copy


def set_settings(tree, **settings):
    facts = json.loads(tree.attrs["phi4ppl"])
    tree.attrs["phi4ppl"] = json.dumps(facts | {"settings": facts["settings"] | settings})


def test_a_good_run_passes_and_says_so(good):
    report = p4.diagnose(good)
    assert report.passed, str(report)
    text = str(report)
    assert text.startswith("Convergence PASSED")
    assert text.split("\n")[1] == "4 chains × 1000 draws after 300 of warm-up, kernel nuts (asked for)"
    for name in ("R-hat", "bulk ESS", "tail ESS", "MCSE / sd", "E-BFMI", "divergences", "tree depth", "sign changes",
                 "Schwinger-Dyson, mean", "Schwinger-Dyson, sites"):  # fmt: skip
        assert name in text


def _shift_one_chain(values):
    values = values.copy()
    values[0] += 0.5 * values.std()
    return values


@pytest.mark.parametrize(
    ("group", "name", "change", "check"),
    [
        ("posterior", "energy_density", _shift_one_chain, "R-hat"),
        ("posterior", "phi_squared", lambda v: np.repeat(v[:, ::100], 100, axis=1), "bulk ESS"),
        ("posterior", "phi_squared", lambda v: np.repeat(v[:, ::100], 100, axis=1), "tail ESS"),
        ("posterior", "phi_squared", lambda v: np.repeat(v[:, ::100], 100, axis=1), "MCSE / sd"),
        ("posterior", "phi_squared", lambda v: 0 * v + 1, "movement"),
        ("sample_stats", "energy", lambda v: np.cumsum(v - v.mean(), axis=1), "E-BFMI"),
        ("sample_stats", "diverging", lambda v: np.arange(v.size).reshape(v.shape) == 17, "divergences"),
        ("sample_stats", "reached_max_treedepth", lambda v: np.arange(v.size).reshape(v.shape) % 50 == 0, "tree depth"),
        ("posterior", "magnetization", np.abs, "sign changes"),
        ("sample_stats", "schwinger_dyson", lambda v: 1.15 * v, "Schwinger-Dyson, mean"),
    ],
)
def test_each_fault_is_caught_by_its_check(good, group, name, change, check):
    faulty = with_values(good, group, name, change)
    report = p4.diagnose(faulty)
    assert not report.passed
    assert check in failed(faulty), str(report)
    line = next(c for c in report.checks if c.name == check)
    assert line.advice and line.value and line.threshold


def test_exchange_rates_of_tempering_are_judged_also_in_thinned_runs():
    """Even and odd pairs take turns, so every second iteration tries the same ones."""
    model = p4.phi4(p4.lattice.chain(3), w=0.5, a=1.0, b=0.2)
    run = {"kernel": p4.sampling.tempering(4), "num_warmup": 300, "num_samples": 100, "seed": 2}
    tree = p4.sample(model, thinning=2, **run)
    assert tree["sample_stats"]["exchange_rate"].sizes["pair"] == 3
    assert "exchange rates" not in failed(tree), str(p4.diagnose(tree))
    assert "exchange rates" in failed(with_values(tree, "sample_stats", "exchange_rate", lambda v: v * [1, 1, 0.01]))


def test_a_fault_at_one_site_is_caught(good):
    def one_site(blocks):
        blocks = blocks.copy()
        blocks[:, :, 1, 2] *= 1.6
        return blocks

    faulty = with_values(good, "schwinger_dyson", "block_means", one_site)
    assert failed(faulty) == {"Schwinger-Dyson, sites"}
    check = p4.diagnose(faulty).checks[-1]
    assert "at [1,2]" in check.value


@pytest.fixture(scope="module")
def trapped():
    """Four chains deep in the broken phase, all started at +1.3, with the sign moves off: the classic trap."""
    original = chains._starts
    chains._starts = lambda compiled, keys, even: 1.3 + 0.1 * original(compiled, keys)
    try:
        model = p4.phi4(p4.lattice.square(12), a=1.2, b=0.175)
        return p4.sample(model, num_warmup=300, num_samples=1000, symmetry_moves=False, kernel="hmc")
    finally:
        chains._starts = original


def test_the_trap_looks_converged_but_fails_its_verdict(trapped):
    table = p4.estimate(trapped, "magnetization")
    assert table.loc["magnetization", "mean"] > 20 * table.loc["magnetization", "error"]  # the truth is zero
    report = p4.diagnose(trapped)
    by_name = {check.name: check for check in report.checks}
    assert by_name["R-hat"].passed and by_name["divergences"].passed  # nothing else sees it
    assert not report.passed
    assert by_name["sign changes"].value.startswith("0 ")
    assert "symmetry_moves=True" in str(report)


def test_with_sign_moves_the_same_model_passes():
    model = p4.phi4(p4.lattice.square(12), a=1.2, b=0.175)
    tree = p4.sample(model, num_warmup=300, num_samples=1000, kernel="hmc")
    report = p4.diagnose(tree)
    assert report.passed, str(report)
    row = p4.estimate(tree, "magnetization").loc["magnetization"]
    assert abs(row["mean"]) < 5 * row["error"]  # false alarm 6e-7


@pytest.fixture(scope="module")
def bare_field():
    """An even field with two phases as the whole of a NumPyro model."""
    field = p4.GibbsField(p4.phi4(p4.lattice.square(12), a=1.2, b=0.175))

    def model():
        psi = numpyro.sample("psi", field)
        numpyro.deterministic("m", psi.mean())

    return model


def test_an_even_numpyro_model_gets_sign_moves_too(bare_field):
    tree = p4.sample(bare_field, num_warmup=300, num_samples=1000, kernel="hmc")
    report = p4.diagnose(tree)
    assert report.passed, str(report)
    row = p4.estimate(tree, "m").loc["m"]
    assert abs(row["mean"]) < 5 * row["error"]  # false alarm 6e-7
    assert np.abs(tree["posterior"]["m"].values).min() > 0.5  # and it does sit in one phase or the other


def test_an_even_numpyro_model_stuck_in_one_phase_fails(bare_field):
    tree = p4.sample(bare_field, num_warmup=100, num_samples=100, kernel="hmc", symmetry_moves=False)
    assert "sign changes" in failed(tree)


def test_a_field_tied_to_data_is_not_even():
    field = p4.GibbsField(p4.phi4(p4.lattice.chain(4), w=0.8, a=1.4, b=0.2))

    def model():
        numpyro.sample("y", dist.Normal(numpyro.sample("psi", field), 1.0).to_event(1), obs=np.ones(4))

    tree = p4.sample(model, num_warmup=50, num_samples=50, num_chains=1, kernel="hmc")
    assert "sign_flipped" not in tree["sample_stats"].data_vars
    checks = {check.name: check for check in p4.diagnose(tree).checks}
    assert "sign changes" not in checks
    assert checks["R-hat"].value == "one chain only" and "num_chains=4" in checks["R-hat"].advice


def test_estimates_are_the_gamma_method_of_the_series(good):
    table = p4.estimate(good)
    assert "phi" not in table.index and "magnetization" in table.index
    series = good["posterior"]["phi_squared"].values
    expected = gamma_method(series)
    assert table.loc["phi_squared", "mean"] == expected.mean
    assert table.loc["phi_squared", "error"] == expected.error
    assert table.loc["phi_squared", "tau_int_error"] == expected.tau_int_error
    sites = p4.estimate(good, ["phi"])
    assert list(sites.index[:4]) == ["phi[0,0]", "phi[0,1]", "phi[0,2]", "phi[1,0]"]
    assert sites.loc["phi[1,0]", "mean"] == pytest.approx(good["posterior"]["phi"].values[:, :, 1, 0].mean(), abs=1e-6)


def test_estimates_agree_with_the_exact_values(good, reference):
    """Bonferroni over three values at 5 errors each: false alarm 2e-6."""
    exact = {name: q["value"] for name, q in reference["square_L3_w1_a1.9_b0.175"]["quantities"].items()}
    table = p4.estimate(good)
    for name, value in (
        ("phi_squared", exact["<phi^2>"]), ("abs_magnetization", exact["<|m|>"]), ("energy_density", exact["<S>/V"]),
    ):  # fmt: skip
        row = table.loc[name]
        assert abs(row["mean"] - value) < 5 * row["error"], name
        assert abs(row["mean"] + 0.1 * value - value) > 5 * row["error"], "the test could not see an error of 10 %"


def test_variables_that_are_no_finite_numbers_spoil_no_table_and_no_report(good, tmp_path):
    phi = good["posterior"]["phi_squared"]
    poor = good.copy()
    holes = xr.where(phi.draw == 3, np.nan, phi)
    odd = {"pair": xr.concat([holes, phi], "k"), "turn": phi + 1j, "nothing": phi.expand_dims(none=0)}
    poor["posterior"] = xr.DataTree(good["posterior"].to_dataset().assign(odd))
    table = p4.estimate(poor)
    assert table.loc["pair[0]"].drop("reliable").isna().all() and not table.loc["pair[0]", "reliable"]
    assert (table.loc["pair[1]"] == table.loc["phi_squared"]).all()
    assert set(table.index) == {*p4.estimate(good).index, "pair[0]", "pair[1]"}
    report = p4.diagnose(poor)
    assert not report.passed and report.to_html(tmp_path / "report.html").exists()
    with raises("argument.series"):
        p4.estimate(poor, "turn")


def test_unknown_names_are_refused(good):
    with raises("argument.names.name", got="'nothing'"):
        p4.estimate(good, "nothing")


def test_report_is_one_file_with_every_picture(good, tmp_path):
    path = p4.diagnose(good).to_html(tmp_path / "report.html")
    page = path.read_text(encoding="utf-8")
    titles = " ".join(re.findall(r"<figcaption>([^<]*)</figcaption>", page))
    for word in ("Trace", "Rank", "Autocorrelation", "Energy", "graph", "The field"):
        assert word in titles
    for data in re.findall(r'<img [^>]*src="data:image/png;base64,([^"]*)"', page):
        assert base64.b64decode(data).startswith(b"\x89PNG") and len(data) > 4000  # an empty canvas is smaller
    assert "PASSED: no sign of trouble" in page
    assert "Hammersley–Clifford check: satisfied" in page
    assert not re.search(r"(src|href)\s*=\s*['\"]?https?:", page)


def test_ranks_of_long_chains_are_those_of_evenly_spaced_draws(good, monkeypatch):
    ranked = []
    monkeypatch.setattr(drawing, "rank_differences", lambda values: ranked.append(values) or rank_differences(values))
    made = figures(good)
    assert "iterations" not in made["autocorrelation"].caption
    first = good["posterior"]["abs_magnetization"].values
    np.testing.assert_array_equal(ranked[0], first[:, ::2])


def test_a_thinned_run_says_what_a_draw_is(good):
    thinned = good.isel(draw=slice(20))
    set_settings(thinned, thinning=5)
    part = "4 chains × 20 draws, not the whole run as it was made: 4 chains × 1000 draws of 5 iterations after 300 of warm-up"
    assert p4.diagnose(thinned).run.startswith(part)
    assert figures(thinned)["autocorrelation"].caption.endswith("; a lag of one is 5 iterations")


def test_report_of_a_failed_run_shows_the_advice(trapped, tmp_path):
    page = p4.diagnose(trapped).to_html(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "FAILED: " in page and "sign changes" in page and "symmetry_moves=True" in page
    assert "Chains stay in one of two opposite phases" in page


def test_advice_suits_what_was_sampled(trapped):
    def advice_with(statistics=None, **settings):
        tree = with_values(trapped, "sample_stats", "diverging", np.ones_like)
        if statistics is not None:
            tree["sample_stats"] = xr.DataTree(tree["sample_stats"].to_dataset().assign(statistics))
        set_settings(tree, **settings)
        return {check.name: check.advice for check in p4.diagnose(tree).checks}

    field = advice_with()  # hmc, asked for
    assert "competing signs of w" in field["R-hat"] and "kernel='tempering'" in field["R-hat"]
    assert "kernel='auto' may need fewer" in field["bulk ESS"]
    assert "kernel='local_hmc'" in field["divergences"] and "priors" not in field["divergences"]
    found = advice_with(kernel="cluster", kernel_reason="clusters move")
    assert "auto" not in found["bulk ESS"]
    size = trapped["posterior"].sizes
    copies = {"inverse_temperature": (("chain", "draw", "copy"), np.ones((size["chain"], size["draw"], 12)))}
    tempered = advice_with(copies, kernel="tempering")
    assert "phi4ppl.sampling.tempering(18)" in tempered["R-hat"] and "auto" not in tempered["bulk ESS"]
    factor = int(re.search(r"thinning=(\d+)", field["bulk ESS"])[1])
    assert f"num_samples={1000 * factor}, or thinning={5 * factor} for" in advice_with(thinning=5)["bulk ESS"]
    numpyro_model = advice_with(layout="numpyro")
    assert "different modes" in numpyro_model["R-hat"] and "signs of w" not in numpyro_model["R-hat"]
    assert "stronger priors" in numpyro_model["divergences"] and "auto" not in numpyro_model["bulk ESS"]


def test_a_short_run_that_changes_signs_freely_is_not_told_that_it_is_stuck(good):
    def sign_check(tree):
        return next(check for check in p4.diagnose(tree).checks if check.name == "sign changes")

    short = good.isel(draw=slice(20))
    every_third = with_values(
        short, "posterior", "magnetization", lambda v: np.where(np.arange(v.shape[1]) // 3 % 2, 1, -1) + 0 * v
    )
    check = sign_check(every_third)
    assert not check.passed and check.value.startswith("6 ") and "too short to confirm" in check.advice
    stuck = sign_check(with_values(short, "posterior", "magnetization", np.abs))
    assert not stuck.passed and "too short to confirm" not in stuck.advice


def test_report_without_fields_and_for_graphs(tmp_path):
    import networkx as nx

    model = p4.phi4(p4.lattice.from_networkx(nx.path_graph(5)), w=0.3, a=1.0, b=0.1)
    tree = p4.sample(model, num_warmup=50, num_samples=60, keep_field=False, kernel="hmc",
                     observables={"ends": lambda phi: jnp.stack([phi[0], phi[-1]])})  # fmt: skip
    page = p4.diagnose(tree).to_html(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "The graph" in page and "The field:" not in page
    assert "ends[0]" in page and "ends[1]" in page
