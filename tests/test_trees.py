"""What trees are taken for: parts of runs, runs of other libraries, and names of dimensions and labels.

Exact comparisons unless a test says otherwise: the estimate of a part is the Γ-method of the draws in it, to the last bit.
"""

import json
import re

import arviz_base
import arviz_stats
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from numpyro.infer import HMC, MCMC
from raising import raises
from scipy import stats

import phi4ppl as p4
from phi4ppl.analysis.gamma_method import gamma_method
from phi4ppl.reports.numbers import rounded, value_with_error
from phi4ppl.results.contents import spacing
from phi4ppl.results.datatree import metadata
from phi4ppl.results.figures import figures
from phi4ppl.results.run_page import estimates_part

pytestmark = pytest.mark.compile_quickly

MODEL = p4.phi4(p4.lattice.chain(6), w=0.8, a=1.4, b=0.2)
RUN = {"num_warmup": 100, "num_samples": 200, "kernel": "hmc", "progress": False}
NAME = "phi_squared"


@pytest.fixture(scope="module")
def thinned():
    return p4.sample(MODEL, **RUN, seed=1, thinning=5)


@pytest.fixture(scope="module")
def other():
    return p4.sample(MODEL, **RUN, seed=2, thinning=5)


def with_posterior(tree, posterior):
    """A copy of the tree with other draws."""
    copy = tree.copy()
    copy["posterior"] = xr.DataTree(posterior)
    return copy


def overwritten(tree, value):
    posterior = tree["posterior"].to_dataset()
    return with_posterior(tree, posterior.assign({NAME: 0 * posterior[NAME] + value}))


def joined(one, two, dim):
    """Two runs one after the other, group by group."""
    groups = {
        name: xr.concat([one[name].to_dataset(), two[name].to_dataset()], dim) for name in ("posterior", "sample_stats")
    }
    tree = one.copy()
    for name, data in groups.items():
        tree[name] = xr.DataTree(data)
    return tree


# --- parts of runs

PARTS = {
    "one chain": lambda tree, other: tree.sel(chain=[0]),
    "burn-in removed": lambda tree, other: tree.isel(draw=slice(50, None)),
    "thinned again": lambda tree, other: tree.isel(draw=slice(None, None, 2)),
    "draws reversed": lambda tree, other: tree.isel(draw=slice(None, None, -1)),
    "chains exchanged": lambda tree, other: tree.isel(chain=[1, 0, 2, 3]),
    "draws of another run": lambda tree, other: with_posterior(tree, other["posterior"].to_dataset()),
    "one draw changed": lambda tree, other: overwritten(tree, tree["posterior"][NAME].where(tree["posterior"]["draw"] != 7, 1)),
    "chains of two runs": lambda tree, other: joined(tree, other, "chain"),
    "draws of two runs": lambda tree, other: joined(tree, other, "draw"),
    "cast": lambda tree, other: with_posterior(tree, tree["posterior"].to_dataset().astype(float)),
}  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_estimates_are_of_the_draws_that_a_tree_holds(thinned, other, part):
    """The whole run was reported whatever was left of it: 4 chains of 1000 iterations where one chain of 200 draws was held."""
    tree = PARTS[part](thinned, other)
    values = tree["posterior"][NAME].transpose("chain", "draw").values
    expected, row = gamma_method(values), p4.estimate(tree, NAME).loc[NAME]
    for column in ("mean", "error", "tau_int", "tau_int_error", "effective_sample_size"):
        assert row[column] == getattr(expected, column), column
    assert row["mean"] == pytest.approx(values.mean(), rel=1e-5)
    assert row["sd"] == pytest.approx(values.std(ddof=1), rel=1e-5)
    streamed = thinned["streamed"][NAME]
    assert row["error"] != float(streamed.sel(statistic="error"))
    assert "tau_int in draws" in repr(p4.estimate(tree, NAME))


def test_a_variable_that_was_overwritten_is_not_what_it_was(thinned):
    table = p4.estimate(overwritten(thinned, 7.0))
    assert table.loc[NAME, "mean"] == 7 and table.loc[NAME, "sd"] == 0 and not table.loc[NAME, "reliable"]
    # the others are still those of the run, from all iterations
    assert table.loc["phi_fourth", "error"] == float(thinned["streamed"]["phi_fourth"].sel(statistic="error"))
    lines = repr(table).splitlines()
    assert lines[-1] == f"{NAME}: from the draws in this tree, tau_int in draws, which are 5 iterations apart"
    assert "phi_fourth" in lines[-2] and lines[-2].endswith("from all iterations of the run, tau_int in iterations")


def netcdf(tree, folder):
    return p4.load_run(p4.save_run(tree, folder / "run.nc"))


@pytest.mark.parametrize(
    "keep",
    [
        lambda tree, folder: tree.copy(deep=True),
        netcdf,
        lambda tree, folder: tree.filter(lambda node: node.name not in ("sample_stats", "schwinger_dyson")),
        lambda tree, folder: tree.isel(draw=slice(None)).sel(chain=[0, 1, 2, 3]),
        lambda tree, folder: tree.map_over_datasets(lambda data: data),
        lambda tree, folder: with_posterior(tree, tree["posterior"].to_dataset().assign(new=tree["posterior"][NAME] + 1)),
        lambda tree, folder: with_posterior(tree, tree["posterior"].to_dataset().transpose("draw", ...)),
    ],
    ids=["copy", "netCDF", "filter", "all selected", "mapped", "variable added", "transposed"],
)  # fmt: skip
def test_what_is_whole_keeps_its_streams(thinned, keep, tmp_path):
    tree, expected = keep(thinned, tmp_path), p4.estimate(thinned)
    table = p4.estimate(tree)
    shown = ["mean", "sd", "error", "tau_int", "effective_sample_size"]
    np.testing.assert_array_equal(table.loc[expected.index, shown], expected[shown])
    assert expected.loc[NAME, "error"] == float(thinned["streamed"][NAME].sel(statistic="error"))
    assert expected.loc[NAME, "sd"] == float(thinned["streamed"][NAME].sel(statistic="variance")) ** 0.5
    arviz_stats.summary(tree, var_names=[NAME])  # and ArviZ leaves them alone
    assert p4.estimate(tree).loc[NAME, "error"] == expected.loc[NAME, "error"]


def test_files_from_before_the_digests_are_read_by_their_draws(thinned):
    old = thinned.copy(deep=True)
    for values in old["streamed"].data_vars.values():
        values.attrs.clear()
    facts = metadata(old)
    del facts["draws"]
    old.attrs["phi4ppl"] = json.dumps(facts)
    assert p4.estimate(old).loc[NAME, "error"] == gamma_method(old["posterior"][NAME].values).error
    report = p4.diagnose(old)
    assert "does not say which draws those were" in report.warnings[0]
    assert report.run.startswith("4 chains × 200 draws of 5 iterations after 100")


def bad_block_means(tree):
    """φ ∂S/∂φ at one site is 1.6, and the fields are right: a fault that only the block means show."""
    copy = tree.copy(deep=True)
    blocks = copy["schwinger_dyson"]["block_means"]
    blocks[:, :, 2] *= 1.6
    return copy


def checks_of(tree):
    return {check.name: check for check in p4.diagnose(tree).checks}


def test_block_means_of_a_run_are_not_taken_for_those_of_a_part(thinned, other):
    """The planted fault is seen in the whole run, and of the whole run only."""
    faulty = bad_block_means(thinned)
    assert "at [2]" in checks_of(faulty)["Schwinger-Dyson, sites"].value
    assert (
        not checks_of(faulty)["Schwinger-Dyson, sites"].passed and checks_of(thinned)["Schwinger-Dyson, sites"].passed
    )
    assert not p4.diagnose(thinned).warnings
    for part in ("one chain", "burn-in removed", "draws reversed", "chains of two runs", "draws of another run"):
        tree = PARTS[part](faulty, other)
        report, same = p4.diagnose(tree), part == "draws of another run"
        # the draws of the sampler itself are all there in the last case
        assert ("Schwinger-Dyson, sites" in {c.name for c in report.checks}) == same, part
        assert any("block means are of the whole run" in note for note in report.warnings) == (not same)
        assert same or "  note  Schwinger-Dyson at single sites is not checked" in str(report)


def test_the_verdict_counts_the_draws_that_it_judges(thinned, tmp_path):
    part = thinned.sel(chain=[0, 2]).isel(draw=slice(100, None))
    report = p4.diagnose(part)
    whole = "4 chains × 200 draws of 5 iterations after 100 of warm-up"
    assert report.run.startswith(f"2 chains × 100 draws, not the whole run as it was made: {whole}, kernel hmc")
    assert p4.diagnose(thinned).run.startswith(whole)
    assert " of 200 (" in checks_of(part)["bulk ESS"].value
    page = report.to_html(tmp_path / "part.html").read_text(encoding="utf-8")
    assert "2 chains × 100 draws, not the whole run" in page and "block means are of the whole run" in page
    moved = with_posterior(thinned, thinned["posterior"].to_dataset().isel(draw=slice(100)))
    assert any("sample_stats holds 4 chains × 200 draws" in note for note in p4.diagnose(moved).warnings)


def test_the_spacing_of_draws_is_that_of_the_tree(thinned, other):
    apart = {
        "one chain": 5,
        "burn-in removed": 5,
        "thinned again": 10,
        "draws reversed": None,
        "draws of two runs": None,
    }
    for part, iterations in apart.items():
        tree = PARTS[part](thinned, other)
        assert spacing(tree, metadata(tree)) == iterations, part


def test_a_filtered_tree_is_judged_by_what_is_left(thinned):
    report = p4.diagnose(thinned.filter(lambda node: node.name in (None, "posterior")))
    names = [check.name for check in report.checks]
    assert "R-hat" in names and "sign changes" in names and "divergences" not in names and "E-BFMI" not in names
    assert any("divergences are not checked" in note for note in report.warnings)


# --- spread and error


def normal_tree(shape=(4, 1000), seed=0, **more):
    rng = np.random.default_rng(seed)
    return arviz_base.from_dict({"posterior": {"alpha": rng.normal(0.33, 0.59, size=shape)} | more})


def test_spread_and_monte_carlo_error_stand_side_by_side():
    """alpha = 0.33 ± 0.59 looked like 0.33 ± 0.01. Quantiles within 5 of their errors: false alarm 6e-7 each."""
    tree = normal_tree()
    table = p4.estimate(tree)
    assert list(table.columns) == [
        "mean", "sd", "3%", "97%", "error", "tau_int", "tau_int_error", "effective_sample_size", "reliable",
    ]  # fmt: skip
    row, values = table.loc["alpha"], tree["posterior"]["alpha"].values
    assert row["sd"] == pytest.approx(values.std(ddof=1)) and row["3%"] == np.quantile(values, 0.03)
    ends = stats.norm(0.33, 0.59).ppf([0.03, 0.97])
    errors = np.sqrt(0.03 * 0.97 / values.size) / stats.norm(0.33, 0.59).pdf(ends)
    assert np.all(np.abs(row[["3%", "97%"]].to_numpy(float) - ends) < 5 * errors)
    assert not np.all(np.abs(row[["3%", "97%"]].to_numpy(float) - [0.33 - 0.59, 0.33 + 0.59]) < 5 * errors)
    assert row["error"] == pytest.approx(row["sd"] / np.sqrt(row["effective_sample_size"]), rel=0.01)
    assert row["error"] < 0.02 < 0.5 < row["sd"]


def test_printed_tables_say_which_error_it_is(thinned):
    table = p4.estimate(thinned)
    for text in (repr(table), str(table.round(3)), str(table.drop(columns="tau_int")), str(table.head(2))):
        head = text.splitlines()[0]
        assert "MC error" in head and re.search(r"mean +sd +3% +97% +MC error", head), head
        assert max(map(len, text.splitlines()[:-1])) <= 120
    assert "<th>MC error</th>" in table._repr_html_() and "tau_int in iterations" in table._repr_html_()
    part = estimates_part(table)
    assert part["table"].head[1:4] == ("mean(error)", "standard deviation", "94 % interval")
    row, shown = table.loc[NAME], next(row.cells for row in part["table"].rows if row.cells[0].startswith(NAME))
    assert shown[1] == value_with_error(row["mean"], row["error"]) and shown[2] == rounded(row["sd"], row["sd"])
    notes = " ".join(part["notes"])
    assert "one Monte Carlo standard error" in notes and "tau_int in iterations" in notes


# --- reliable, and passed


def shifted(by, elements=1, seed=3):
    """Independent draws; the first element has a chain that is off by so many standard deviations."""
    values = np.random.default_rng(seed).normal(size=(4, 2000, elements))
    values -= values.mean(axis=1, keepdims=True)  # chains of equal means, so that the shift is all there is
    values[0, :, 0] += by
    return arviz_base.from_dict({"posterior": {"v": values}})


def test_a_run_with_unreliable_estimates_does_not_pass():
    """R̂ is 1.003 here, but the means of the chains are apart by more than their errors allow."""
    tree = shifted(0.14)
    report = p4.diagnose(tree)
    assert {c.name for c in report.checks if not c.passed} == {"reliable estimates"}
    check = next(c for c in report.checks if not c.passed)
    assert check.value == "0 of 1 (not v[0])" and "Run longer" in check.advice
    assert not report.estimates.loc["v[0]", "reliable"] and "FAILED: reliable estimates" in report.verdict
    assert p4.diagnose(shifted(0.0)).passed


def test_many_elements_do_not_make_a_healthy_run_unreliable():
    """Forty healthy tables of 100 rows: 0.1 to 0.3 % of the 4000 rows have q < 0.001, but of the tables as few as of rows.

    The chance of two bad tables of forty at 0.3 % each is 0.7 %. A chain that is off by 0.25 is found among 100 elements too.
    """
    bad = rows = 0
    for seed in range(40):
        values = np.random.default_rng(seed).normal(size=(4, 400, 100))
        tree = arviz_base.from_dict({"posterior": {"v": values}})
        table = p4.estimate(tree)
        rows += int((~gamma_method(values).reliable).sum())
        bad += not table["reliable"].all()
    assert rows >= 2 and bad <= 1, (rows, bad)
    assert not p4.estimate(shifted(0.25, 100)).loc["v[0]", "reliable"]


@pytest.mark.parametrize("by", [0.0, 0.08, 0.11, 0.13, 0.15, 0.18, 0.25])
def test_passed_never_stands_beside_an_unreliable_row(by):
    for elements in (1, 30):
        tree = shifted(by, elements)
        report = p4.diagnose(tree)
        assert not report.passed or report.estimates["reliable"].all()
        alone = p4.estimate(tree, "v")  # the same flags when asked for by name
        assert (alone["reliable"] == report.estimates["reliable"]).all()


def test_streamed_flags_allow_for_the_number_of_elements_too(thinned):
    """q = 5e-4 is a disagreement for a single element, and none among the six of the table."""
    tree = thinned.copy(deep=True)
    streamed = tree["streamed"][NAME]
    streamed.loc[{"statistic": ["reliable", "replica_q", "long_enough"]}] = [0.0, 5e-4, 1.0]
    assert p4.estimate(tree).loc[NAME, "reliable"]
    streamed.loc[{"statistic": "replica_q"}] = 1e-5
    assert not p4.estimate(tree).loc[NAME, "reliable"] and not p4.diagnose(tree).passed
    # a stream that is only too short for blocking leaves the Γ-method of the kept draws, which may be reliable
    streamed.loc[{"statistic": ["replica_q", "long_enough"]}] = [5e-4, 0.0]
    row, kept = p4.estimate(tree).loc[NAME], gamma_method(tree["posterior"][NAME].values)
    assert kept.reliable and row["reliable"] and row["error"] == kept.error


# --- trees of other libraries


def test_a_run_of_numpyros_own_sampler_is_judged(tmp_path):
    """⟨φ²⟩ of two sites against quadrature within 5 errors: false alarm 6e-7; 10 % more is seen."""
    field = p4.phi4(p4.lattice.chain(2, periodic=False), w=0.5, a=0.8, b=0.3)
    exact = p4.exact.quadrature(field, {"v": lambda phi: phi[0] ** 2})["v"]

    def model():
        numpyro.deterministic("v", numpyro.sample("phi", p4.GibbsField(field))[0] ** 2)

    sampler = MCMC(HMC(model, trajectory_length=2.0, target_accept_prob=0.95), num_warmup=300, num_samples=1500, num_chains=4,
                   chain_method="vectorized", progress_bar=False)  # fmt: skip
    sampler.run(jax.random.key(0))
    tree = arviz_base.from_numpyro(sampler)
    row = p4.estimate(tree).loc["v"]
    assert abs(row["mean"] - exact) < 5 * row["error"] < abs(row["mean"] - 1.1 * exact)
    assert set(p4.estimate(tree).index) == {"v", "phi[0]", "phi[1]"}
    report = p4.diagnose(tree)
    names = [check.name for check in report.checks]
    assert report.passed and "divergences" in names and "Schwinger-Dyson, mean" not in names, str(report)
    assert report.run == "4 chains × 1500 draws; not made by phi4ppl, so kernel, warm-up and thinning are not known"
    page = report.to_html(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "not made by phi4ppl" in page and "Provenance" not in page and "Trace" in page
    with raises("argument.tree"):
        p4.save_run(tree, tmp_path / "run.nc")


def test_faults_are_found_in_trees_of_any_origin():
    rng = np.random.default_rng(0)
    draws, stuck = rng.normal(size=(4, 500)), rng.normal(size=(4, 500))
    stuck[0] += 1
    failed = {c.name for c in p4.diagnose(arviz_base.from_dict({"posterior": {"a": stuck}})).checks if not c.passed}
    assert {"R-hat", "reliable estimates"} <= failed
    diverging = np.zeros((4, 500), bool)
    diverging[1, 7] = True
    tree = arviz_base.from_dict({"posterior": {"a": draws}, "sample_stats": {"diverging": diverging}})
    assert {c.name for c in p4.diagnose(tree).checks if not c.passed} == {"divergences"}


def test_what_holds_no_draws_is_refused(thinned):
    one = thinned.sel(chain=0)
    scalar = xr.DataTree(children={"posterior": xr.DataTree(xr.Dataset({"a": 1.0}))})
    for tree, got in (
        (3, "got int"), (None, "got NoneType"),
        (xr.DataTree(), "without a group posterior"), (one, "tree.sel(chain=[0])"),
        (scalar, "group posterior of dimensions chain and draw"),
    ):  # fmt: skip
        for function in (p4.estimate, p4.diagnose):
            with raises("argument.tree", got) as caught:
                function(tree)
            assert ("Select chains" in str(caught.value)) is (tree is one)


def test_the_size_of_a_run_in_words_counts_one_as_one(thinned):
    assert p4.diagnose(thinned.sel(chain=[0])).run.startswith("1 chain × 200 draws, not the whole run")


# --- dimensions and labels

COUNTIES = ["Skye", "Banff/Buchan", "Caithness", "Orkney"]


def counties(y, seen):
    level = numpyro.sample("level", dist.Normal())
    with numpyro.plate("county", 4):
        f = numpyro.sample("f", dist.Normal(0.0, 1.0))
        numpyro.deterministic("risk", jnp.exp(f))
        with numpyro.plate("year", 3):
            numpyro.sample("y", dist.Normal(f + level, 1.0), obs=y)
        with numpyro.handlers.mask(mask=seen):
            numpyro.sample("z", dist.Normal(f, 1.0), obs=y[0])
    numpyro.sample("phi", p4.GibbsField(p4.gaussian(p4.lattice.chain(3), w=0.3, a=1.0)))


DATA = np.linspace(-1, 1, 12).reshape(3, 4), np.array([True, False, False, True])


@pytest.fixture(scope="module")
def labeled():
    coords = {"county": COUNTIES, "year": [1975, 1976, 1977], "site": ["a", "b", "c"]}
    with jax.numpy_rank_promotion("allow"):
        return p4.sample(counties, *DATA, num_warmup=50, num_samples=60, num_chains=2, kernel="hmc", coords=coords)


@pytest.mark.rank_promotion
def test_plates_name_the_dimensions_and_labels_the_rows(labeled, tmp_path):
    posterior = labeled["posterior"]
    assert posterior["f"].dims == posterior["risk"].dims == ("chain", "draw", "county")
    assert labeled["streamed"]["f"].dims == ("statistic", "county") and list(posterior["county"].values) == COUNTIES
    assert labeled["observed_data"]["y"].dims == ("year", "county")
    assert labeled["log_likelihood"]["y"].dims == ("chain", "draw", "year", "county")
    assert list(labeled["observed_data"]["z_datum"].values) == ["Skye", "Orkney"]
    np.testing.assert_allclose(labeled["observed_data"]["z"], DATA[0][0][[0, 3]])
    table = p4.estimate(labeled, ["f", "phi"])
    assert list(table.index) == [*(f"f[{name}]" for name in COUNTIES), "phi[a]", "phi[b]", "phi[c]"]
    for name in COUNTIES:
        assert table.loc[f"f[{name}]", "mean"] == pytest.approx(float(posterior["f"].sel(county=name).mean()), abs=1e-6)
    text = str(p4.diagnose(labeled))
    assert re.search(r"\((f|risk|phi)\[[A-Za-z/]+\]\)", text) and "f[0]" not in text
    assert "trace" in figures(labeled)
    back = p4.load_run(p4.save_run(labeled, tmp_path / "run.nc"))
    xr.testing.assert_identical(back, labeled)
    assert (p4.estimate(back) == p4.estimate(labeled)).all(axis=None)


def test_labels_stay_with_their_elements(labeled):
    part = labeled.sel(county=["Orkney", "Skye"])
    table = p4.estimate(part, "f")
    assert list(table.index) == ["f[Orkney]", "f[Skye]"]
    assert table.loc["f[Orkney]", "mean"] == p4.estimate(labeled, "f").loc["f[Orkney]", "mean"]


@pytest.mark.rank_promotion
def test_dims_rename_and_plates_give_way():
    """Names that are reserved, or that dimensions of another size have, are not taken for a plate."""

    def model():
        with numpyro.plate("draw", 2):
            f = numpyro.sample("f", dist.Normal())
        with numpyro.plate("site", 5):  # the dimension of the lattice, with its 3 sites
            numpyro.sample("g", dist.Normal())
        numpyro.sample("phi", p4.GibbsField(p4.gaussian(p4.lattice.chain(3), w=0.3, a=1.0)))
        numpyro.deterministic("square", jnp.outer(f, f))

    run = {"num_warmup": 20, "num_samples": 10, "num_chains": 1, "kernel": "hmc", "progress": False}
    plain = p4.sample(model, **run)["posterior"]
    assert plain["f"].dims[2:] == ("f_dim_0",) and plain["g"].dims[2:] == ("g_dim_0",)
    assert plain["square"].dims[2:] == ("square_dim_0", "square_dim_1") and plain["phi"].dims[2:] == ("site",)
    dims = {"f": "row", "square": ["row", "column"], "phi": ["place"]}
    named = p4.sample(model, **run, dims=dims, coords={"row": ["up", "down"], "place": [10, 20, 30]})["posterior"]
    assert named["f"].dims[2:] == ("row",) and named["square"].dims[2:] == ("row", "column")
    assert list(named["place"].values) == [10, 20, 30] and named["phi"].dims[2:] == ("place",)
    np.testing.assert_array_equal(named["square"], plain["square"])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"coords": {"county": COUNTIES[:3]}}, ("argument.coords.shape", "4", "got 3", "coords of 'county'")),
        ({"coords": {"country": COUNTIES}}, ("argument.coords.name", "got 'country'")),
        ({"coords": {"county": "abcd"}}, ("argument.coords", "got 'abcd'", "coords of 'county'")),
        ({"coords": {"county": np.ones((4, 2))}}, ("argument.coords.shape", "got an array of shape")),
        ({"coords": ["county"]}, ("argument.coords",)),
        ({"dims": {"g": ["county"]}}, ("argument.dims.name", "'risk'", "got 'g'")),
        ({"dims": {"f": ["a", "b"]}}, ("argument.dims", "1", "(4,)", "dims of 'f'")),
        ({"dims": {"level": ["a"]}}, ("argument.dims", "dims of 'level'")),
        ({"dims": {"f": ["draw"]}}, ("argument.dims.name", "got 'draw'", "dims of 'f'")),
        ({"dims": {"f": ["risk"]}}, ("argument.dims.name", "got 'risk'", "dims of 'f'")),
        ({"dims": {"f": ["site"]}}, ("argument.dims.conflict", "'site'", "3", "got one of 4", "dims of 'f'")),
        ({"dims": {"y": ["k", "k"]}}, ("argument.dims.name", "dims of 'y'")),
        ({"dims": {"f": [3]}}, ("argument.dims", "1", "dims of 'f'")),
        ({"dims": "county"}, ("argument.dims",)),
    ],
)
@pytest.mark.rank_promotion
def test_dims_and_coords_that_do_not_fit_are_refused_before_the_run(options, told, monkeypatch):
    monkeypatch.setattr("phi4ppl.results.run.run_chains", lambda *_, **__: pytest.fail("the run has begun"))
    with raises(*told):
        p4.sample(counties, *DATA, kernel="hmc", **options)


def test_a_field_by_itself_takes_no_dims():
    for options in ({"dims": {"phi": ["x"]}}, {"coords": {"x": [1]}}):
        with raises("argument.*.unused"):
            p4.sample(MODEL, **options)
