"""What notebooks show of lattices, models and results: the right numbers, and nothing of the user's that becomes markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import phi4ppl as p4
from phi4ppl.lattice.svg_picture import MAX_SITES
from phi4ppl.model.typeset import action_in_latex
from phi4ppl.networks import StackBound
from phi4ppl.reports.card import card
from phi4ppl.results import Check, EstimateTable
from phi4ppl.reweighting import Divergence, Reweighted

pytestmark = pytest.mark.smoke
RING = p4.lattice.chain(6)
MODEL = p4.phi4(RING, w=0.8, a=1.4, b=0.2)


class Reader(HTMLParser):
    """Text and tags of a fragment; a tag that is not closed, or closes another, is an error."""

    VOID = {"circle", "path", "br"}

    def __init__(self, fragment: str):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(fragment)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def read(thing) -> Reader:
    return Reader(thing._repr_html_())


def fit_of(model=MODEL, errors=None, **changes):
    errors = {"w": 0.0441, "a": 0.02, "b": np.nan} if errors is None else errors
    fields = {"standard_errors": errors, "history": xr.Dataset(), "status": p4.FitStatus.CONVERGED,
              "method": "score_matching", "ridge": 0.0, "num_fields": 2000, "warnings": ("few <data>",)}  # fmt: skip
    return p4.LikelihoodFit(model, **(fields | changes))


def reweighted(mean=0.64801, error=0.00441, warnings=()):
    return Reweighted(
        mean={"m<2>": mean}, error={"m<2>": error}, effective_sample_size=812.3, overlap=0.5, pareto_k=0.11,
        average_phase=1.0, average_phase_error=0.0, log_partition_ratio=-1.2345, log_partition_ratio_error=0.0123,
        num_fields=4000, tau_int=0.5, block_length=1.0, warnings=warnings,
    )  # fmt: skip


# --- lattices and models


def test_lattice_shows_its_sizes_and_a_drawing_of_all_sites_and_edges():
    for lattice, edges in ((p4.lattice.square(4, periodic=False), 24), (p4.lattice.square(4), 24), (RING, 6)):
        shown = read(lattice)
        assert f"{lattice.num_sites} sites, {lattice.num_edges} edges" in shown.text
        (path,) = [attrs["d"] for tag, attrs in shown.tags if tag == "path"]
        assert shown.count("circle") == lattice.num_sites and path.count("M") == path.count("L") == edges
        assert ("around the boundary" in shown.text) == (lattice.periodic == (True, True))


def test_drawing_has_sites_at_their_positions():
    """A path of three sites along a line: equal steps, and lines that end at the dots."""
    shown = read(p4.lattice.chain(3, periodic=False))
    x = [float(attrs["cx"]) for tag, attrs in shown.tags if tag == "circle"]
    (path,) = [attrs["d"] for tag, attrs in shown.tags if tag == "path"]
    assert x[1] - x[0] == pytest.approx(x[2] - x[1]) and x[1] - x[0] > 10
    assert {float(v) for v in re.findall(r"[ML]([\d.]+)", path)} == set(x)


def test_large_lattices_show_a_corner_and_large_graphs_a_sentence():
    shown = read(p4.lattice.square(64))
    assert shown.count("circle") == 64 and "a corner of 8 × 8 sites" in shown.text and "4096 sites" in shown.text
    assert len(p4.lattice.square(512)._repr_html_()) < 20_000
    graph = read(p4.lattice.from_networkx(nx.path_graph(MAX_SITES + 1)))
    assert graph.count("svg") == 0 and "lattice.draw() draws it" in graph.text
    assert read(p4.lattice.from_networkx(nx.empty_graph(1))).count("circle") == 1


def test_model_typesets_its_action():
    assert action_in_latex(MODEL) == (
        r"S(\phi) = -w \sum_{\langle ij\rangle} \phi_i \phi_j + a \sum_i \phi_i^{2} + b \sum_i \phi_i^{4}"
    )
    wide = p4.phi4(p4.lattice.square(3, diagonals=True), w={"nn": 1.0, "diagonal": 0.5}, a=1.0, b=0.1, r=0.3)
    assert action_in_latex(wide.inhomogeneous("w_nn", "r")) == (
        r"S(\phi) = -\sum_{\langle ij\rangle} w^{\mathrm{nn}}_{ij} \phi_i \phi_j - w^{\mathrm{diagonal}} "
        r"\sum_{\langle ij\rangle} \phi_i \phi_j + a \sum_i \phi_i^{2} + b \sum_i \phi_i^{4} + \sum_i r_{i} \phi_i"
    )


def test_model_shows_action_lattice_and_a_row_per_term():
    shown = read(MODEL)
    assert f"$${action_in_latex(MODEL)}$$" in shown.text and "6 sites, 6 edges" in shown.text
    assert shown.count("tr") == 4 and "hopping" in shown.text and "0.8" in shown.words and "6 of 2 sites" in shown.words


def test_names_of_the_user_are_escaped():
    graph = nx.path_graph(["<b>a</b>", "c&d"])
    graph.name = "<script>alert(1)</script>"
    lattice = p4.lattice.from_networkx(graph)
    term = p4.Term("my_term", lattice.edges, lambda x, y: x * y)
    model = p4.MarkovRandomField(lattice, [*p4.gaussian(lattice, w=0.1, a=1.0).terms, term])
    for shown in (read(lattice), read(model), read(model.check())):
        assert not {"script", "b>", "lambda"} & {tag for tag, _ in shown.tags}
    assert "user-defined <lambda>" in read(model).words and r"T_{my^{\mathrm{term}}}" not in model._repr_html_()
    assert r"T_{\mathrm{my}^{\mathrm{term}}}(\phi_c)" in read(model).text


def test_check_shows_three_conditions_and_what_breaks_them():
    good = read(MODEL.check())
    assert good.count("tr") == 3 and good.words.count("yes") == 3 and "check: satisfied" in good.text
    bad = p4.check_action(lambda phi: (phi**2).sum() + phi[0] * phi[3], RING)
    shown = read(bad)
    assert "NOT satisfied" in shown.text and "NO" in shown.words and "sites (0, 3) interact" in shown.text
    assert repr(bad) == str(bad)


# --- results


def test_card_escapes_everything():
    shown = Reader(card("<i>t</i>", ("<h>",), [("<a>", 1)], good=False, outcome="<o>", warnings=["<w>"]))
    assert {tag for tag, _ in shown.tags} == {"div", "b", "table", "tr", "th", "td"}
    assert all(word in shown.text for word in ("<i>t</i>", "<h>", "<a>", "<o>", "<w>"))


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (fit_of(), ["0.800(44)", "1.400(20)", "0.2(nan)", "Converged.", "few <data>", "2000 fields"]),
        (
            fit_of(MODEL.replace(w=[0.7, 0.9] * 3), {"w": np.full(6, 0.1), "a": 0.02, "b": 0.01}),
            ["6 numbers, 0.8 on average, spread 0.1, error 0.1", "1.400(20)"],
        ),
        (reweighted(), ["0.6480(44)", "-1.234(12)", "812 effective"]),
        (reweighted(0.5 + 0.25j, 0.01 + 0.02j, ("no <overlap>",)), ["0.500(10) + i 0.250(20)", "no <overlap>"]),
        (
            p4.PartitionEstimate(17.39123, 0.0421, "auto", "by two", warnings=("chains <disagree>",), parts=(
                p4.PartitionEstimate(17.4, 0.05, "integration", "15 nodes"),
                p4.PartitionEstimate(17.3, 0.06, "ais", "4 walkers"),
            )),
            ["17.391(42)", "17.400(50)", "17.300(60)", "15 nodes", "chains <disagree>"],
        ),
    ],
    ids=["fit", "inhomogeneous fit", "reweighted", "complex", "log Z"],
)  # fmt: skip
def test_results_print_values_with_errors_in_both_forms(result, words):
    shown = read(result)
    assert repr(result) == str(result) and isinstance(result.warnings, tuple)
    for word in words:
        assert word in str(result), (word, str(result))
        assert word in shown.text, (word, shown.text)


def test_small_results_print_in_the_same_form():
    assert str(p4.learning.HeldOutScore(-14.4512, 0.163)) == "-14.45(16)"
    assert "1.234(56)" in repr(StackBound(1, 1.2341, 0.0562, 0.1))
    assert "0.1203(45)" in str(Divergence(0.12034, 0.0045, 1.0, 0.1, -0.9, 0.1, 50.0, 60.0))
    assert "4.560(12), overlap 0.31" in str(p4.partition.SurfaceEstimate(4.56, 0.0123, 0.01, 0.312))


def table_of(**columns) -> EstimateTable:
    table = EstimateTable(columns, index=["m<1>", "x"])
    table.attrs["warnings"] = ["all rows: <note>"]
    return table


ROWS = {
    "mean": [0.64801, -1234.4], "sd": [0.1234, 2345.6], "3%": [0.41234, -5555.5], "97%": [0.8888, 3333.3],
    "error": [0.00441, 45.6], "tau_int": [1.2345, 0.5], "tau_int_error": [0.0987, 0.01],
    "effective_sample_size": [8236.261529, 100.0], "reliable": [True, False],
}  # fmt: skip


def test_tables_show_two_digits_of_errors_and_no_more_of_values():
    table = table_of(**ROWS)
    lines = str(table).splitlines()
    assert lines[1].split() == ["m<1>", "0.6480", "0.12", "0.41", "0.89", "0.0044", "1.234", "0.099", "8236", "True"]
    assert lines[2].split() == ["x", "-1234", "2300", "-5600", "3300", "46", "0.500", "0.010", "100", "False"]
    assert lines[3:] == ["all rows: <note>"] == list(table.warnings)
    shown = Reader(table._repr_html_().replace('border="1" ', ""))
    assert "0.6480" in shown.words and "m<1>" in shown.words and "all rows: <note>" in shown.text
    assert table.loc["x", "mean"] == -1234.4  # numbers themselves are not rounded


def test_parts_of_a_table_keep_its_format():
    table = table_of(**ROWS)
    head = str(table.head(1)).splitlines()[1].split()
    assert head == str(table).splitlines()[1].split()
    assert str(table[["mean", "error"]]).splitlines()[2].split() == ["x", "-1234", "46"]
    assert str(table.drop(columns="error")).splitlines()[1].split()[1] == "0.648"  # no error to go by: four digits
    assert not isinstance(pd.DataFrame(table), EstimateTable) and "8236.2" in str(pd.DataFrame(table))


def test_verdict_shows_advice_of_failed_checks_only():
    checks = (
        Check("R-hat", True, "1.00", "at most 1.01", "Run longer."),
        Check("<ESS>", False, "3", "400", "Thin less."),
    )
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"m": (("chain", "draw"), np.zeros((2, 5)))})})
    report = p4.ConvergenceReport(checks, tree, None, ("not <checked>",))
    shown = read(report)
    assert "Thin less." in shown.text and "Run longer." not in shown.text and "FAILED: <ESS>" in shown.text
    assert "not <checked>" in shown.text and repr(report) == str(report) and "Run longer." not in repr(report)
