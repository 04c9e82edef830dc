"""``phi4ppl fit``: what it prints, what it leaves behind, and its exit status."""

import json

import jax
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import phi4ppl as p4
from phi4ppl.cli.entry import main

pytestmark = pytest.mark.compile_quickly

MODEL = "import phi4ppl as p4\nmodel = p4.gaussian(p4.lattice.square(4), w=0.0, a=1.0)\n"
TRUE = p4.gaussian(p4.lattice.square(4), w=0.3, a=1.0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MODEL)
    data = np.asarray(p4.GibbsField(TRUE).sample(jax.random.key(0), (2000,)))
    np.save("fields.npy", data)
    np.savez("fields.npz", phi=data)
    xr.Dataset({"phi": (("sample", "x", "y"), data)}).to_netcdf("fields.nc")
    return tmp_path


@pytest.mark.parametrize("kind", ["npy", "npz", "nc"])
def test_fit_to_data_leaves_model_and_record(folder, capsys, kind):
    assert main(["fit", "mine.py", "--data", f"fields.{kind}", "--quiet"]) == 0
    out = capsys.readouterr().out
    fitted = p4.load_model("fits/mine/model.npz")
    direct = p4.fit_likelihood(p4.gaussian(p4.lattice.square(4), w=0.0, a=1.0), np.load("fields.npy"))
    assert float(fitted.couplings["w"]) == pytest.approx(float(direct.model.couplings["w"]))
    assert abs(float(fitted.couplings["w"]) - 0.3) < 4 * float(direct.standard_errors["w"])
    record = json.loads((folder / "fits" / "mine" / "fit.json").read_text())
    assert record["converged"] and record["num_fields"] == 2000 and record["method"] == "score_matching"
    assert "score_matching fit of 2000 fields: Converged." in out and "w = 0." in out


def test_fit_to_another_model(folder, capsys):
    (folder / "goal.py").write_text(MODEL.replace("w=0.0", "w=0.3"))
    assert main(["fit", "mine.py", "--target", "goal.py", "--inhomogeneous", "--output", "here", "--quiet"]) == 0
    fitted = p4.load_model("here/model.npz")
    np.testing.assert_allclose(fitted.couplings["w"], 0.3, atol=1e-5)
    assert fitted.couplings["a"].shape == (16,)
    assert (
        xr.load_dataset("here/history.nc").sizes["step"] <= 20
        and (folder / "here" / "history.png").stat().st_size > 5000
    )
    assert "bound 𝓕" in capsys.readouterr().out
    assert main(["fit", "mine.py", "--target", "goal.py", "--output", "here", "--quiet"]) == 2
    assert "here holds finished results" in capsys.readouterr().err


def test_correlated_draws_of_a_run_are_thinned(folder, capsys):
    """Every field three times over, τ_int = 1.5: taken for independent, the errors would be too small by √3."""
    data = np.load("fields.npy")
    chains = np.repeat(data.reshape(4, 500, 4, 4), 3, axis=1)
    run = xr.Dataset({"phi": (("chain", "draw", "x", "y"), chains)})
    xr.DataTree.from_dict({"posterior": run}).to_netcdf("run.nc")
    assert main(["fit", "mine.py", "--data", "run.nc", "--quiet"]) == 0
    kept = json.loads((folder / "fits" / "mine" / "fit.json").read_text())["num_fields"]
    assert 1200 <= kept <= 2100 and "of every chain, about 2 τ_int" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_refused_before_the_fit(folder, capsys):
    (folder / "taken").write_text("a file")
    assert main(["fit", "mine.py", "--data", "fields.npy", "--output", "taken", "--quiet"]) == 2
    assert "taken is no folder that can be written to" in capsys.readouterr().err


def test_own_terms_leave_their_couplings(folder, capsys):
    (folder / "own.py").write_text(
        "import phi4ppl as p4\nlattice = p4.lattice.square(4)\n"
        "model = p4.MarkovRandomField(lattice, [p4.Term('a', [[k] for k in range(16)], lambda x: x * x, 1.0)])\n"
    )
    assert main(["fit", "own.py", "--data", "fields.npy", "--quiet"]) == 0
    assert np.load("fits/own/model.npz")["a"] > 0.5
    assert "not written to disk" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "gone.npy"], "gone.npy: no such file. Give a .npy or .npz file"),
        (["--data", "mine.py"], "mine.py: unknown kind of file '.py'"),
        (["--data", "wrong.npy"], r"wrong.npy: expected fields of shape (4, 4) with leading axes"),
        (["--data", "two.npz"], "two.npz: holds 2 arrays: p, q"),
        (["--data", "bad.nc"], "bad.nc: "),
        (["--data", "fields.npy", "--method", "guess"], ": --method: expected one of 'score_matching'"),
        (
            ["--data", "fields.npy", "--steps", "9"],
            "--steps: is not an option with --method score_matching, a linear solve, got 9.",
        ),
        (["--target", "nowhere"], "nowhere: neither a file nor a shipped model"),
        (["--target", "scotland_lip_cancer"], "a NumPyro model; couplings of a MarkovRandomField can be fitted"),
    ],
)
def test_bad_input_is_one_line(folder, capsys, arguments, words):
    np.save("wrong.npy", np.ones((3, 5)))
    np.savez("two.npz", p=np.ones(3), q=np.ones(3))
    (folder / "bad.nc").write_text("not a file of fields")
    assert main(["fit", "mine.py", *arguments, "--quiet"]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1 and "Traceback" not in err


def test_couplings_and_their_errors_are_in_table_record_and_report(folder, capsys):
    """One number a clique of w, with its sites; the same numbers everywhere, and those of the library."""
    assert main(["fit", "mine.py", "--data", "fields.npy", "--inhomogeneous", "--quiet"]) == 0
    out, here = capsys.readouterr().out, folder / "fits" / "mine"
    direct = p4.fit_likelihood(p4.gaussian(p4.lattice.square(4), w=0.0, a=1.0).inhomogeneous(), np.load("fields.npy"))
    table, record = pd.read_csv(here / "couplings.csv"), json.loads((here / "fit.json").read_text())["couplings"]
    edges = p4.lattice.square(4).edges
    for name, count in (("w", 32), ("a", 16)):
        rows = table[table["term"] == name]
        assert len(rows) == count
        for column, exact in (("value", direct.model.couplings), ("standard_error", direct.standard_errors)):
            np.testing.assert_allclose(rows[column], np.asarray(exact[name]), rtol=1e-5)
            np.testing.assert_allclose(record[name][column], np.asarray(exact[name]), rtol=1e-5)
    assert [tuple(map(int, s.split())) for s in table["sites"][:32]] == [tuple(edge) for edge in edges.tolist()]
    page = (here / "report.html").read_text(encoding="utf-8")
    for words in (
        "phi4ppl fit</p>",
        "Converged",
        "standard error</th>",
        '<td>w</td><td class="number">32</td>',
        "<img",
    ):
        assert words in page
    assert "Standard error (±): the standard deviation of the fitted coupling over repeated data sets" in out


def test_the_error_of_a_fit_to_a_target_is_called_a_monte_carlo_error(folder, capsys):
    """No data, so no standard error; a coupling that was reached exactly has none at all."""
    (folder / "goal.py").write_text(MODEL.replace("w=0.0", "w=0.3"))
    assert main(["fit", "mine.py", "--target", "goal.py", "--output", "here", "--quiet"]) == 0
    out, record = capsys.readouterr().out, json.loads((folder / "here" / "fit.json").read_text())
    assert set(record["couplings"]["w"]) == {"value", "mc_error"} and "standard_error" not in out
    assert record["couplings"]["w"]["value"] == pytest.approx(0.3, abs=1e-4)
    page = (folder / "here" / "report.html").read_text(encoding="utf-8")
    assert "MC error</th>" in page and "Kullback–Leibler" in page and "MC error: the Monte Carlo error" in out
