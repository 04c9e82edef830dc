"""``phi4ppl renormalize`` and ``phi4ppl cascade``: the same numbers as the calls in Python, on the page and in the files."""

from __future__ import annotations

import html
import json

import jax
import numpy as np
import pytest

import phi4ppl as p4
from phi4ppl.cli.entry import main
from phi4ppl.renormalization import BellWilson, block, cascade, flow, monte_carlo_rg
from phi4ppl.renormalization.level_pages import basis_doubts
from phi4ppl.renormalization.monte_carlo_rg import most_levels
from phi4ppl.reports.numbers import value_with_error

pytestmark = pytest.mark.compile_quickly

MODEL = """
import phi4ppl as p4
def build(size=32):
    return p4.phi4(p4.lattice.square(size), w=0.680602, a=-1.0, b=1.0)
"""
FIXED = "import phi4ppl as p4\nmodel = p4.phi4(p4.lattice.square(8), a=1.0, b=1.0)\n"
CHAINS = {"num_warmup": 30, "num_samples": 60, "num_chains": 2, "seed": 3}
QUICK = ["--warmup", "30", "--samples", "60", "--chains", "2", "--seed", "3", "--quiet"]


def critical(size: int):
    return p4.phi4(p4.lattice.square(size), w=0.680602, a=-1.0, b=1.0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MODEL)
    (tmp_path / "fixed.py").write_text(FIXED)
    return tmp_path


def texts(page) -> str:
    return html.unescape(page.read_text(encoding="utf-8"))


def test_renormalize_says_what_the_calls_say(folder, capsys):
    status = main(["renormalize", "mine.py", "--no-check", *QUICK])
    out, results = capsys.readouterr().out, folder / "renormalizations" / "mine"
    tree = p4.sample(critical(32), progress=False, **CHAINS)
    exponents = monte_carlo_rg(tree, levels=2, seed=3)
    couplings = flow(block(tree, BellWilson(0.25), levels=2, seed=3), check=False, seed=3)
    record, page = json.loads((results / "renormalize.json").read_text()), texts(results / "report.html")
    assert record["values"] == exponents.values and record["errors"] == exponents.errors and record["levels"] == 2
    assert status == (0 if exponents.reliable and couplings.reliable else 1)
    assert record["warnings"] == [*exponents.warnings, *couplings.warnings]
    shown = [value_with_error(exponents.values[n], exponents.errors[n]) for n in ("y_t", "nu", "y_h", "eta")]
    shown += [value_with_error(couplings.couplings[n][k], couplings.errors[n][k]) for n in "wab" for k in range(3)]
    assert [text for text in shown if text not in page] == []
    assert "Blocked 2 times by Sign, then Majority." in page and "BellWilson(eta=0.25, alpha=10.0)" in page
    assert "which have no density to be fitted" in page and page.count("data:image/png") == 2 + 2 * 4
    assert all(text in page for text in record["warnings"]) and "32 → 16 → 8" in out and "report: file:" in out
    table = np.genfromtxt(results / "couplings.csv", delimiter=",", names=True)
    assert np.allclose(table["w"], couplings.couplings["w"]) and list(table["L"]) == [32, 16, 8]
    rows = np.genfromtxt(results / "exponents.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    assert np.allclose(rows["value"], [row.exponent for row in exponents.rows])


def test_cascade_says_what_the_call_says(folder, capsys):
    status = main(["cascade", "mine.py", "--start", "4", "--to", "8", "--fields", "64", "--lift", "copy", "--quiet"])
    out, results = capsys.readouterr().out, folder / "cascades" / "mine"
    found = cascade(critical, start=4, levels=1, fields=64, lift="copy")
    record, page = json.loads((results / "cascade.json").read_text()), texts(results / "report.html")
    assert status == (0 if found.passed else 1) and record["passed"] == found.passed
    assert record["warnings"] == list(found.warnings) and str(found).splitlines()[1] in out
    pairs = [*found.exponents().values()]
    pairs += [stage.pair(name) for level in found.levels for stage in (level.corrected.before, level.corrected.after)
              for name in ("susceptibility", "schwinger_dyson") if level.back or stage is level.corrected.after]  # fmt: skip
    assert len(pairs) == 8 and [pair for pair in pairs if value_with_error(*pair) not in page] == []
    assert all(text in page for text in found.warnings) and page.count("data:image/png") == 3
    assert np.array_equal(np.load(results / "fields.npz")["phi"], found.fields)
    table = np.genfromtxt(results / "levels.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    assert list(table["stage"]) == ["after", "before", "after"] and list(table["L"]) == [4, 8, 8]
    assert table["susceptibility"][2] == pytest.approx(found.levels[1].corrected.after.values["susceptibility"])


def test_terms_that_are_not_those_of_the_model_are_told():
    """A free field by its own terms, then as if its lattice were a triangular one; 2 × 6e-7 false alarms."""
    free = p4.gaussian(p4.lattice.square(8), w=0.3, a=1.0)
    fields = p4.GibbsField(free).sample(jax.random.key(0), (1, 1000))
    found = flow(fields, "average", basis=("w", "a"), levels=1, check=False)
    assert basis_doubts(found, free) == ()
    (other,) = basis_doubts(found, p4.gaussian(p4.lattice.triangular(8), w=0.2, a=1.0))
    assert other.startswith("Level 0 does not give back the model: w = ") and " for 0.2." in other
    (lacking,) = basis_doubts(found, p4.phi4(p4.lattice.square(8), w=0.3, a=1.0, b=1.0))
    assert "terms that are not among w, a: b." in lacking


def test_how_often_a_lattice_can_be_blocked():
    square = p4.lattice.square
    assert [most_levels(square(n)) for n in (6, 8, 16, 24, 32, 64, 128)] == [0, 0, 1, 2, 2, 3, 4]
    assert most_levels(square(64, 16)) == 1 and most_levels(p4.lattice.hypercubic((16, 16, 16))) == 1
    with pytest.raises(p4.errors.ArgumentError, match="a periodic lattice"):
        most_levels(square(16, periodic=False))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("renormalize mine.py --levels 3", "--levels: expected 2 levels by 'sign' on 32×32 sites, got 3"),
        ("renormalize mine.py --levels 1 --rule majority", "--levels: expected 2 levels by 'majority'"),
        ("renormalize mine.py --levels 0 --rule average", "--levels: expected 1 to 2 levels by 'average'"),
        ("renormalize fixed.py", "no number of levels by 'sign' on 8×8 sites"),
        ("renormalize mine.py --rule mean", "--rule: expected names among average, decimate, sign, majority"),
        (
            "renormalize mine.py --rule average,average,average",
            "--rule: expected from 1 to 2 rules, one per level, got 3",
        ),
        ("cascade mine.py --to 24", "--to: expected --start, 8, times 2, 4, 8, …, got 24"),
        ("cascade mine.py --to 8", "--to: expected --start, 8, times"),
        ("cascade mine.py --to 16 --start 0", "--to: expected --start, 0, times"),
        ("cascade mine.py --to 16 --lift copies", "--lift: expected"),
        ("cascade mine.py --to 16 --fields 3", "--fields: expected an integer of at least 20, got 3"),
        ("cascade mine.py --to 16 --set size=16", "leave --set size= out"),
        ("cascade fixed.py --to 16", "cannot be built at other sizes"),
    ],
)
def test_what_is_refused_before_any_work(folder, capsys, words, complaint):
    assert main([*words.split(), "--quiet"]) == 2
    assert complaint in capsys.readouterr().err
    assert not (folder / "renormalizations").exists() and not (folder / "cascades").exists()
