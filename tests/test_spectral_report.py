"""The checklist: what it finds, its page, and ``phi4ppl spectrum``."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import phi4ppl as p4
from phi4ppl.cli import main
from phi4ppl.cli.spectrum_command import _points_of


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(110, 3))


def test_the_page_holds_what_is_printed(points, tmp_path):
    target = (points[:, 0] > 0).astype(int)
    found = p4.spectral.report("rbf", points, target=target, path=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for text in (
        "participation_ratio",
        "entropy_rank",
        "rank_fraction(0.9)",
        "laplace baseline",
        "Verdict",
        "from 55 of 110",
    ):
        assert text in page
    assert found.baseline.outcome == "faster" and found.passed and "rule:" in str(found)
    leading = p4.spectral.spectrum("rbf", points, method="lanczos", num_eigenvalues=5)
    assert "not worked out" in str(p4.spectral.report(leading, target=target)) and "not worked out" not in str(found)
    same = p4.spectral.report("rbf", points, baseline="rbf")
    assert same.baseline.outcome == "alike" and same.learnability is None
    centered = np.stack([target == 0, target == 1], axis=1) - [1 - target.mean(), target.mean()]
    kernel = found.spectrum.gram.full()
    direct = p4.spectral.learnability(kernel, centered, ridge=np.trace(kernel) / 110 / 100)
    assert found.learnability.predicted_error == pytest.approx(direct.predicted_error, rel=1e-4)
    assert page.count("<img") == 2 and "<script" not in page


@pytest.mark.parametrize(
    ("kernel", "scale", "classes", "words"),
    [
        ("rbf", 1.0, 2, "Too few points"),
        ("linear", 1.0, 10, "for 10 classes"),
        ("rbf", 1.0, None, "Too few points"),
    ],
)
def test_findings(kernel, scale, classes, words):
    x = scale * np.random.default_rng(1).normal(size=(60, 2))
    target = None if classes is None else np.arange(60) % classes
    found = p4.spectral.report(kernel, x, target=target)
    assert any(words in finding.text for finding in found.findings) and not found.passed


def test_saturation_and_one_feature_are_found():
    x = np.random.default_rng(1).normal(size=(120, 30))
    texts = [f.text for f in p4.spectral.report(lambda a, b: np.exp(-((a[:, None] - b) ** 2).sum(-1)), x).findings]
    assert any("cut off by the number of points" in text for text in texts)
    texts = [f.text for f in p4.spectral.report("linear", 5 + 0.1 * x).findings]
    assert any("One feature holds" in text for text in texts)


def test_command_line(points, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pd.DataFrame(points, columns=["a", "b", "c"]).assign(y=points[:, 0] > 0).to_csv("data.csv", index=False)
    assert main(["spectrum", "data.csv", "--target", "y", "--out", "there"]) == 0
    record = json.loads((tmp_path / "there" / "spectrum.json").read_text())
    direct = p4.spectral.spectrum("rbf", points)
    assert record["ranks"]["entropy_rank"] == pytest.approx(direct.entropy_rank)
    assert len(pd.read_csv("there/eigenvalues.csv")) == 110 and (tmp_path / "there" / "report.html").is_file()
    assert "entropy_rank" in capsys.readouterr().out
    np.savez("few.npz", X=points[:40], y=np.arange(40) % 2)
    assert main(["spectrum", "few.npz", "--target", "y", "--kernel", "linear", "--baseline", "laplace"]) == 1
    capsys.readouterr()
    assert main(["spectrum", "data.csv", "--target", "z", "--out", "two"]) == 2
    assert "--target: expected one of a, b, c, y" in capsys.readouterr().err
    assert main(["spectrum", "none.csv"]) == 2


def test_row_numbers_and_a_missing_header_are_seen(points, tmp_path, monkeypatch, capsys):
    """An index is no feature, and a first line of numbers no name: each is said, and the points are those that were written."""
    monkeypatch.chdir(tmp_path)
    points, path = points[:40], tmp_path / "data.csv"
    table = pd.DataFrame(points, columns=["a", "b", "c"])
    for write, words in (
        (lambda: table.to_csv(path), "has no name and is left out"),
        (lambda: table.to_csv(path, index=False, header=False), "first line has numbers and is taken for a point"),
        (lambda: pd.DataFrame(points).to_csv(path, index=False), "the first line, 0, 1, 2…, is taken for the names"),
        (lambda: table.to_csv(path, index_label="row"), "numbers the rows, and is left out: row."),
    ):
        write()
        found, target, notes = _points_of(path, None)
        np.testing.assert_allclose(found, points)
        assert target is None and len(notes) == 1 and words in notes[0]
    assert main(["spectrum", "data.csv", "--output", "out"]) == 1  # few points
    assert words in capsys.readouterr().out and words in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    path.write_text("time\n" + "\n".join(map(str, range(40))))
    assert _points_of(path, None)[0].shape == (40, 1)  # a single column is taken as it is
    path.write_text("a;b\n" + "1;2\n" * 40)
    assert main(["spectrum", "data.csv"]) == 2 and "separated by ';'" in capsys.readouterr().err
    path.write_text("a,b,good\n1,2,yes\n3,4,\n")
    assert _points_of(path, "good")[1].tolist() == ["yes", None]
