"""The documentation builds, with warnings as errors."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


WIDEST = 84  # columns of code that a page shows


def too_wide(page: str) -> list[str]:
    """Lines of the page's ``python`` blocks that a reader would have to scroll for."""
    code = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return [line for block in code for line in block.splitlines() if len(line) > WIDEST]


def undescribed(page: str) -> list[str]:
    """Pictures of the page without the text that stands in for them."""
    plain = re.findall(r"!\[\]\((.*?)\)", page)
    figures = re.findall(r"^```\{figure\} (\S+)\n(?!:alt: \S)", page, re.MULTILINE)
    return plain + figures


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_code_fits_the_page_and_pictures_are_described(page):
    text = page.read_text(encoding="utf-8")
    assert too_wide(text) == [] and undescribed(text) == []


def test_planted_wide_code_and_bare_pictures_are_caught():
    assert too_wide("```python\n" + 85 * "x" + "\nx\n```\n") == [85 * "x"]
    page = "![](a.png)\n```{figure} b.png\n:width: 9%\n```\n```{figure} c.png\n:alt: a dot\n```\n"
    assert undescribed(page) == ["a.png", "b.png"]


def test_documentation_builds(run_python, tmp_path):
    options = ["-W", "--keep-going", "-q", "-b", "html", "-d", tmp_path / "doctrees"]
    run_python(["-m", "sphinx", *options, ROOT / "docs", tmp_path / "html"], cwd=tmp_path)
    assert (tmp_path / "html" / "index.html").is_file()


SOLD_AS = {
    "sklearn": "scikit-learn",
    "arviz_base": "arviz-base",
    "arviz_plots": "arviz-plots",
    "arviz_stats": "arviz-stats",
}


def missing_packages(extra: list[str]) -> set[str]:
    """What the modules that autodoc imports need beyond the dependencies of the package and of an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional, wanted, known = project["optional-dependencies"], [*project["dependencies"], *extra], set()
    while wanted:
        entry = wanted.pop()
        if inner := re.match(r"phi4ppl\[([\w,]+)\]", entry):
            wanted += [text for name in inner.group(1).split(",") for text in optional[name]]
        else:
            known.add(re.match(r"[\w-]+", entry).group())
    imported = set()
    for path in (ROOT / "phi4ppl").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:  # at import, not inside functions
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module)
    tops = {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names)
    return {SOLD_AS.get(name, name) for name in tops} - known


def test_the_docs_extra_is_all_that_the_documentation_needs():
    """``pip install .[docs]`` and Sphinx: autodoc imports every module. Planted: the extra without scikit-learn."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = project["optional-dependencies"]["docs"]
    assert missing_packages(extra) == set()
    assert missing_packages([entry for entry in extra if "sklearn" not in entry]) == {"scikit-learn"}
