"""HTML reports: every name is escaped, nothing is loaded from elsewhere, and the pages suit any screen."""

import re
from html.parser import HTMLParser

import networkx as nx
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest

import phi4ppl as p4
from phi4ppl.inference import pages
from phi4ppl.inference.predictive_check import predictive_check
from phi4ppl.learning.fit_page import coefficients_figure, write_fit
from phi4ppl.reports.html import Fact, Row, Table, render
from phi4ppl.results import run_page
from phi4ppl.results.verdict import Check, ConvergenceReport

pytestmark = pytest.mark.compile_quickly

NAME = "<b>x</b>"
GRAPH = nx.Graph(nx.cycle_graph(5), name=NAME)
MODEL = p4.phi4(p4.lattice.from_networkx(GRAPH), w=0.3, a=1.0, b=0.1)
VOID = {"meta", "img", "br"}


class _Tags(HTMLParser):
    """Which tags there are, and whether each is closed where it should be."""

    def __init__(self, page):
        super().__init__()
        self.open, self.seen, self.wrong = [], set(), []
        self.feed(page)
        self.wrong += self.open

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """The page of every report, with a name in it that is markup."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        for module in (run_page, pages):
            patch.setattr(module, "figures", lambda tree: {})  # they take their time
        fields = np.random.default_rng(0).normal(size=(40, 5))
        tree = p4.sample(MODEL, num_warmup=30, num_samples=40, kernel="hmc")
        made = {"run": p4.diagnose(tree).to_html(folder / "run.html", name=NAME)}

        def numpyro_model():
            numpyro.sample(NAME.replace("/", "!"), dist.Normal(0, 1))

        other = p4.sample(numpyro_model, num_warmup=30, num_samples=40)
        made["run of NumPyro"] = p4.diagnose(other).to_html(folder / "numpyro.html")
        fit = p4.fit_likelihood(MODEL, fields)
        table = pd.DataFrame(
            [(NAME, "", 1.0, 0.1), ("w", "", 2.0, np.nan)], columns=["term", "sites", "value", "error"]
        )
        made["fit"] = write_fit(fit, table, folder / "fit.html", {NAME: NAME})
        gaussian = p4.gaussian(p4.lattice.from_networkx(GRAPH), w=0.3, a=1.0)
        posterior = p4.infer_couplings(
            gaussian, fields, {"w": dist.Uniform(-0.5, 0.5)}, normalizer="exact", num_warmup=30, num_samples=40
        )
        check = predictive_check([gaussian], fields)
        made["infer"] = pages.write_inference(posterior, check, folder / "infer.html")
        result = p4.compare({NAME: gaussian, "other": gaussian.replace(w=0.0)}, fields)
        made["compare"] = pages.write_comparison(
            result, {NAME: check, "other": check}, folder / "compare.html", {NAME: 1}
        )
    return {name: path.read_text(encoding="utf-8") for name, path in made.items()}


@pytest.mark.parametrize("kind", ["run", "run of NumPyro", "fit", "infer", "compare"])
def test_a_name_that_is_markup_is_shown_as_it_is(reports, kind):
    page = reports[kind]
    assert "<b>" not in page and ("&lt;b&gt;x&lt;/b&gt;" in page or "&lt;b&gt;x&lt;!b&gt;" in page)
    assert "b" not in _Tags(page).seen and "b" in _Tags(page + f"<p>{NAME}</p>").seen


@pytest.mark.parametrize("kind", ["run", "run of NumPyro", "fit", "infer", "compare"])
def test_a_page_is_well_formed_and_stands_alone(reports, kind):
    page = reports[kind]
    assert _Tags(page).wrong == [] and _Tags(page + "<p>").wrong == ["p"]
    assert not re.search(r"(src|href)\s*=\s*['\"]?(https?:|//)|@import|url\(", page)
    assert '<meta name="viewport" content="width=device-width' in page and "@media print" in page
    assert not re.search(r"\bnan\b", page)


def test_every_cell_of_every_table_is_escaped():
    table = Table((NAME, NAME), [Row((NAME, NAME), "", NAME)])
    part = {"folded": False, "cause": NAME, "table": table, "notes": [NAME]}
    arrays = [{"name": NAME, "remark": NAME, "table": table}]
    page = render("run", {
        "title": NAME, "heading": NAME, "lines": [NAME], "outcome": "passed", "verdict": NAME,
        "keys": [Fact(NAME, NAME, NAME)], "checks": part, "estimates": {"table": table, "arrays": arrays, "notes": [NAME]},
        "correlations": {"table": table, "picture": None, "notes": [NAME]}, "pictures": [],
        "model": NAME, "field_checks": [NAME], "facts": table,
    })  # fmt: skip
    assert "<b>" not in page and page.count("&lt;b&gt;") == 1 + 1 + 1 + 1 + 3 + 1 + 1 + 5 * 5 + 1 + 2 + 1 + 1 + 1


def test_the_banner_has_the_couplings_and_three_numbers(reports):
    page = reports["run"]
    head = page[page.index("<header>") : page.index("</header>")]
    for words in ("w = 0.3, a = 1, b = 0.1", "⟨|m|⟩", "⟨S⟩/V", "slowest τ_int", "effective draws"):
        assert words in head
    assert len(re.findall(r'<dd class="value">[\d.-]+\(\d[\d.]*\)</dd>', head)) == 3


def test_long_arrays_and_passed_checks_are_folded():
    rows = {c: 1.0 for c in ("mean", "sd", "3%", "97%", "error", "tau_int", "tau_int_error", "effective_sample_size")}
    names = ["short", *(f"long[{k}]" for k in range(13)), *(f"few[{k}]" for k in range(12))]
    table = pd.DataFrame([rows | {"reliable": name != "long[3]"} for name in names], index=names)
    part = run_page.estimates_part(table)
    assert len(part["table"].rows) == 13 and [a["name"] for a in part["arrays"]] == ["long"]
    assert part["arrays"][0]["remark"] == "13 elements, means from 1 to 1, 1 not reliable"


def test_the_failure_that_brings_others_comes_first():
    names = {"R-hat": False, "bulk ESS": False, "divergences": True, "sign changes": False}
    checks = tuple(Check(name, passed, "1", "2", "do this") for name, passed in names.items())
    part = run_page.checks_part(ConvergenceReport(checks, None, None))
    rows = [(row.cells[0], row.kind, row.note) for row in part["table"].rows]
    assert rows == [
        ("✗ sign changes", "fail", "do this"), ("✗ R-hat", "fail follows", "do this"),
        ("✗ bulk ESS", "fail follows", "do this"), ("✓ divergences", "", ""),
    ]  # fmt: skip
    assert part["cause"].startswith("Fix sign changes first. Chains stay in one of two") and not part["folded"]
    alone = run_page.checks_part(ConvergenceReport(checks[1:3], None, None))
    assert alone["cause"] == "" and alone["table"].rows[0].kind == "fail"
    assert run_page.checks_part(ConvergenceReport(checks[2:3], None, None))["folded"]


def test_coefficients_are_drawn_with_their_errors():
    table = pd.DataFrame(
        [("a", "", 1.5, 0.1), ("b", "", 0.2, np.nan), *(("w", f"{k} {k + 1}", 0.1 * k, 0.05) for k in range(4))],
        columns=["term", "sites", "value", "standard_error"],
    )
    single, many = coefficients_figure(table, "standard error").axes
    assert [t.get_text() for t in single.get_xticklabels()] == ["a", "b"]
    np.testing.assert_allclose(single.containers[0].lines[0].get_ydata(), [1.5, 0.2])
    lengths = [np.ptp(segment[:, 1]) / 2 for segment in many.containers[0].lines[2][0].get_segments()]
    np.testing.assert_allclose(lengths, 0.05)
    assert many.get_title() == "w"
