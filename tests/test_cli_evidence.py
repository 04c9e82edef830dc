"""``phi4ppl infer`` and ``phi4ppl compare``: what they print and leave behind; posterior predictive checks; priors as texts.

Statistical tests: false alarms 1e-4 each, three of them; seeds are fixed.
"""

import json
from pathlib import Path

import arviz_base
import jax
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr
from raising import raises

import phi4ppl as p4
from phi4ppl.cli.entry import main
from phi4ppl.cli.prior_texts import priors_from
from phi4ppl.inference import pages, predictive_check
from phi4ppl.inference.pictures import couplings_figure, predictive_figure
from phi4ppl.reports.numbers import rounded

pytestmark = pytest.mark.compile_quickly

RING = p4.gaussian(p4.lattice.chain(6), w=0.8, a=1.0)
MODEL = "import phi4ppl as p4\nmodel = p4.gaussian(p4.lattice.chain(6), w={w}, a=1.0)\n"


@pytest.fixture(scope="module")
def fields():
    return np.asarray(p4.GibbsField(RING).sample(jax.random.key(0), (60,)), float)


@pytest.fixture
def folder(tmp_path, monkeypatch, fields):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ring.py").write_text(MODEL.format(w=0.5))
    (tmp_path / "flat.py").write_text(MODEL.format(w=0.0))
    np.save("fields.npy", fields)
    return tmp_path


def exact_posterior(fields) -> tuple[float, float]:
    """Mean and standard deviation of w under a uniform prior on (0.2, 0.95), a = 1."""
    grid = np.linspace(0.2, 0.95, 301)
    total = float(np.sum(np.asarray(RING.statistics(fields)["w"], float)))
    ring = np.roll(np.eye(6), 1, axis=1) + np.roll(np.eye(6), -1, axis=1)
    log_z = np.array([-np.linalg.slogdet(2 * np.eye(6) - w * ring)[1] / 2 for w in grid])
    log_p = -grid * total - len(fields) * log_z
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    mean = p @ grid
    return mean, np.sqrt(p @ (grid - mean) ** 2)


def test_infer_leaves_posterior_record_and_report(folder, capsys, fields, monkeypatch):
    monkeypatch.setattr(pages, "figures", lambda tree: {})  # of a run, which take longest and have a test of their own
    arguments = ["infer", "ring.py", "--data", "fields.npy", "--prior", "w=uniform:0.2,0.95", "--normalizer", "exact"]
    assert main([*arguments, "--quiet", "--samples", "500", "--warmup", "200"]) == 0
    out, here = capsys.readouterr().out, folder / "inferences" / "ring"
    mean, sd = exact_posterior(fields)
    record = json.loads((here / "infer.json").read_text())
    error = p4.estimate(p4.load_run(here / "samples.nc"), "w").loc["w", "error"]
    posterior = record["posterior"]["w"]
    assert abs(posterior["mean"] - mean) < 3.9 * error and posterior["mc_error"] == pytest.approx(error)
    assert posterior["sd"] == pytest.approx(sd, rel=0.15) and error < sd / 5
    # planted: what is called the standard deviation is not the Monte Carlo error
    assert posterior["low"] == pytest.approx(mean - 1.88 * sd, abs=0.4 * sd)
    assert posterior["high"] == pytest.approx(mean + 1.88 * sd, abs=0.4 * sd)
    assert record["passed"] and record["normalizer"] == "exact" and record["priors"] == ["w=uniform:0.2,0.95"]
    report = (here / "report.html").read_text(encoding="utf-8")
    for words in ("Uniform(low=0.2, high=0.95)", "Prior and posterior of the couplings", "Posterior predictive checks",
                  "neighbor_correlation", "<p>Not run.", "PASSED", "MC error of the mean",
                  f'<td class="number">{rounded(posterior["mean"], posterior["sd"])}</td>',
                  f'<td class="number">{rounded(posterior["sd"], posterior["sd"])}</td>',
                  f'<td class="number">{error:.2g}</td>'):  # fmt: skip
        assert words in report
    assert "posterior predictive checks" in out and report.count("<img") == 2
    assert main(arguments) == 2
    assert "inferences/ring holds finished results" in capsys.readouterr().err


def test_compare_leaves_table_predictions_and_report(folder, capsys):
    arguments = ["compare", "ring.py", "flat.py", "--data", "fields.npy", "--prior", "ring.w=normal:0,1", "--quiet"]
    main(arguments)
    out, here = capsys.readouterr().out, folder / "comparisons" / "ring-flat"
    table = pd.read_csv(here / "comparison.csv", index_col=0)
    record = json.loads((here / "compare.json").read_text())
    assert record["weights"]["evidence"]["ring"] > 0.99 and record["why"] in out
    assert record["weights"]["stacking"] == pytest.approx(table["stacking_weight"].to_dict())
    with xr.open_datatree(here / "predictions.nc", engine="h5netcdf") as tree:
        assert tree["posterior_predictive"]["phi"].sizes["field"] == 30
    report = (here / "report.html").read_text(encoding="utf-8")
    for words in (
        "Couplings of ring",
        "Normal(loc=0, scale=1)",
        "<h3>flat</h3>",
        "weights of the models",
        "<p>Not run.",
    ):
        assert words in report
    # without coupling the neighbors of these data are too much alike
    flat = report[report.index("<h3>flat</h3>") :]
    assert '<tr class="fail"><td>neighbor_correlation' in flat
    assert '<tr class="fail"><td>neighbor_correlation' not in report[: report.index("<h3>flat</h3>")]


def test_compare_of_two_near_models_is_undecided_and_its_page_not_green(folder, capsys):
    (folder / "near.py").write_text(MODEL.format(w=0.77))
    (folder / "true.py").write_text(MODEL.format(w=0.8))
    assert main(["compare", "true.py", "near.py", "--data", "fields.npy", "--quiet"]) == 0
    out, here = capsys.readouterr().out, folder / "comparisons" / "true-near"
    record, page = json.loads((here / "compare.json").read_text()), (here / "report.html").read_text()
    assert max(record["weights"]["evidence"].values()) < 0.9 and record["decisions"]["evidence"] is None
    assert "Undecided by evidence (" in out and '<p class="verdict undecided">Undecided by evidence (' in page
    assert 'class="verdict passed"' not in page and "settle" not in out + page


def test_compare_of_one_model_is_an_answer(folder, capsys):
    assert main(["compare", "ring.py", "--data", "fields.npy", "--quiet"]) == 0
    out, here = capsys.readouterr().out, folder / "comparisons" / "ring"
    table, page = pd.read_csv(here / "comparison.csv", index_col=0), (here / "report.html").read_text()
    exact = -float(np.sum(np.asarray(RING.replace(w=0.5).energy(np.load("fields.npy")), float)))
    exact -= 60 * float(p4.exact.gaussian_log_partition(RING.replace(w=0.5)))
    assert table.loc["ring", "log_evidence"] == pytest.approx(exact, rel=1e-5) and f"{exact:.3f}" in page
    assert "One model, ring" in out and 'class="verdict neutral">One model, ring' in page
    body = page[page.index("<body>") :]
    for words in ("weight", "Δelpd", "stacking", "Models side by side", "undecided", "passed"):
        assert (
            words not in body[: body.index("<h2>Posterior predictive")]
            and words not in out.split("posterior predictive")[0]
        )


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["0,1,2,3,4,9", "1,2,3,4,5,6"], "lattice.nodes, save the numbers alone as a .npy file and give that."),
        (["0.1,0.2,0.3,0.4,0.5,0.6"] * 3, "if they are a field, the row of site labels above it is missing."),
        (["0;1;2;3;4;5", "1;2;3;4;5;6"], "columns are separated by ';'; a .csv table has commas"),
        (["0;1;2;3;4;5", "1,5;2,5;3;4;5;6"], "columns are separated by ';'; a .csv table has commas"),
        (["0,1,2,3,4,5", "1,2,nan,4,5,6"], "Leave out fields with missing values, or fill them in.\n"),
    ],
)
def test_advice_on_a_table_can_be_followed_from_the_command_line(folder, capsys, lines, words):
    (folder / "d.csv").write_text("\n".join(lines))
    for command in (["infer", "ring.py", "--prior", "w=normal:0,1"], ["compare", "ring.py"], ["fit", "ring.py"]):
        assert main([*command, "--data", "d.csv", "--quiet"]) == 2
        said = capsys.readouterr().err
        assert words in said and "to_numpy" not in said and "NumPyro" not in said
        assert ("site labels above" in said) is lines[0].endswith(("0.6", "9"))


def test_a_part_of_the_data_in_predictive_checks_is_called_a_part(folder, capsys):
    np.save("many.npy", np.tile(np.load("fields.npy"), (2, 1)))
    for name, words in (("many", ", of 100 evenly spaced fields of the 120 given"), ("fields", "")):
        assert main(["compare", "ring.py", "--data", f"{name}.npy", "--quiet", "--overwrite"]) == 0
        page = (folder / "comparisons" / "ring" / "report.html").read_text()
        assert f"posterior predictive checks{words}\n" in capsys.readouterr().out
        assert ("of 100 evenly spaced fields of the 120 given" in page) is bool(words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["infer", "ring.py", "--data", "gone.npy", "--prior", "w=normal:0,1"], "gone.npy: no such file. Give a .npy"),
        (["infer", "ring.py", "--data", "fields.npy"], "ring.py: no prior. Give one for each coupling that is to be inferred"),
        (["infer", "ring.py", "--data", "fields.npy", "--prior", "q=normal:0,1"], "couplings of the model: 'w', 'a', got 'q'"),
        (["infer", "ring.py", "--data", "wrong.npy", "--prior", "w=normal:0,1"], "expected fields of shape (6,)"),
        (["infer", "ring.py", "--data", "empty.npy", "--prior", "w=normal:0,1"], "empty.npy: No data left in file. Give"),
        (["infer", "ring.py", "--data", "cut.npz", "--prior", "w=normal:0,1"], "cut.npz: File is not a zip file. Give"),
        (["infer", "scotland_lip_cancer", "--data", "fields.npy"], "a NumPyro model; couplings of a MarkovRandomField"),
        (["compare", "ring.py", "ring.py", "--data", "fields.npy"], "a second model of the name 'ring'"),
        (["compare", "ring.py", "flat.py", "--data", "fields.npy", "--prior", "ring.q=normal:0,1"], "--prior ring.q: no such"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(folder, capsys, arguments, words):
    np.save("wrong.npy", np.ones((3, 5)))
    Path("empty.npy").write_bytes(b"")
    Path("cut.npz").write_bytes(b"PK\x03\x04")
    assert main([*arguments, "--quiet"]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1 and "Traceback" not in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("w", ("argument.prior", "COUPLING=FAMILY:NUMBERS", "w=uniform:0.4,1.2", "--prior", "got 'w'")),
        ("w=cauchy:1", ("argument.prior.choice", "--prior")),
        ("w=uniform:0.4,x", ("argument.prior.numbers", "--prior")),
        ("w=uniform:0.4", ("argument.prior.count", "2", "--prior")),
        ("w=uniform:1,0", ("argument.prior.range", "--prior")),
        ("w=normal:1,0", ("argument.prior.range", "0", "--prior")),
        ("w=normal:nan,1", ("argument.prior.finite", "--prior")),
        ("w=uniform:0,inf", ("argument.prior.finite", "--prior")),
    ],
)
def test_priors_that_cannot_be_read(text, message):
    with raises(*message):
        priors_from([text])
    with raises("argument.prior.duplicate", name="--prior", got="two of 'w'"):
        priors_from(["w=normal:0,1", "w=normal:0,2"])


def test_priors_are_those_that_the_texts_say():
    texts = ["p=truncatednormal:1,2,0,3", "q=gamma:2,4", "r=lognormal:0,1", "s=exponential:2", "t=halfnormal:3"]
    values, means = priors_from(texts), {"q": 0.5, "r": np.exp(0.5), "s": 0.5, "t": 3 * np.sqrt(2 / np.pi)}
    assert {name: float(values[name].mean) for name in means} == pytest.approx(means)
    assert (float(values["p"].support.lower_bound), float(values["p"].support.upper_bound)) == (0.0, 3.0)


# --- predictive checks and pictures


def test_predictions_are_those_of_the_model_and_wrong_ones_are_found(fields):
    check = predictive_check([RING], fields)
    covariance = np.linalg.inv(np.asarray(p4.exact.gaussian_precision(RING), float))
    exact = {
        "phi_squared": np.mean(np.diag(covariance)),
        "neighbor_correlation": np.mean(np.diag(np.roll(covariance, 1, 1))),
    }
    for name, value in exact.items():
        row = check.table.loc[name]
        assert check.replicated[name].shape == (200, 60)
        # a spread of 200 means of 60 fields, and these fields are a little correlated in their chains
        assert abs(row["predicted"] - value) < 3.9 * 2 * row["predicted_sd"] / np.sqrt(200)
    assert (
        check.table[["p", "p_spread"]].to_numpy().min() > 0.004
        and check.table[["p", "p_spread"]].to_numpy().max() < 0.996
    )
    wrong = predictive_check([RING.replace(a=1.3)], fields).table
    assert wrong.loc["phi_squared", "p"] < 0.01 and wrong.loc["phi_squared", "p_spread"] < 0.01
    with raises("argument.data.shape", "(6,)"):
        predictive_check([RING], fields[0])


def test_pictures_show_densities(fields):
    rng = np.random.default_rng(0)
    draws = {"w": rng.normal(0.5, 0.1, 4000), "b": rng.gamma(4, 0.1, 4000)}
    priors = {"w": dist.Uniform(0.0, 2.0), "b": dist.HalfNormal(1.0)}
    first, second = couplings_figure({"posterior": (priors, draws, None)}).axes
    line = first.get_lines()[0]
    grid, density = line.get_xdata(), line.get_ydata()
    assert set(np.round(density[(grid > 0) & (grid < 2)], 6)) == {0.5} and grid[0] > -0.1
    drawn = first.patches[0].get_path().vertices
    assert drawn[:, 1].max() == pytest.approx(1 / (0.1 * np.sqrt(2 * np.pi)), rel=0.2)
    assert second.get_xlabel() == "b" and second.get_xlim()[0] > -0.2
    weights = np.where(draws["w"] > 0.5, 1.0, 0.0)
    half = {"w": priors["w"]}, draws, weights
    (halved,) = couplings_figure({"half": half}).axes
    assert halved.get_xlim()[0] > 0.0
    both, _ = couplings_figure({"one": (priors, draws, None), "half": half}).axes  # one panel for w of both models
    labels = [text.get_text() for text in both.get_legend().get_texts()]
    assert sorted(labels) == ["posterior, half", "posterior, one", "prior, half", "prior, one"]
    check = predictive_check([RING], fields)
    axes = predictive_figure({"one": check, "two": check}).axes
    assert [a.get_xlabel() for a in axes if a.get_visible()] == [name.replace("_", " ") for name in check.observed]
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["data", "one", "two"]


def test_the_interval_of_a_posterior_is_the_same_in_both_tables_of_a_report():
    draws = np.random.default_rng(0).normal(size=(4, 25))
    tree = arviz_base.from_dict({"posterior": {"w": draws}})
    row, found = p4.estimate(tree).loc["w"], pages.summary(draws)
    assert (found["low"], found["high"]) == pytest.approx((row["3%"], row["97%"]), rel=1e-12)
