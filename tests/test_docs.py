"""The documentation builds, with warnings as errors."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_documentation_builds(run_python, tmp_path):
    options = ["-W", "--keep-going", "-q", "-b", "html", "-d", tmp_path / "doctrees"]
    run_python(["-m", "sphinx", *options, ROOT / "docs", tmp_path / "html"], cwd=tmp_path)
    assert (tmp_path / "html" / "index.html").is_file()
