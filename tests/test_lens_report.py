"""The report of a trained model: eight steps, findings with their rules, a page, and the command line."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from raising import raises

import phi4ppl as p4
from phi4ppl import lens
from phi4ppl.cli.entry import main
from phi4ppl.lens.correspondences import CORRESPONDENCES
from phi4ppl.lens.hypotheses import RULES, hypotheses
from phi4ppl.lens.leave_out import Measured

pytestmark = pytest.mark.compile_quickly
TITLES = [
    "Field and vacuum", "Occupation numbers", "Symmetry", "Wick's theorem", "Renormalization by layers",
    "Transitions in training", "Response", "Averages and couplings",
]  # fmt: skip
MODEL = """
import jax
import numpy as np

rng = np.random.default_rng(0)
data = rng.normal(size=(120, 6)).astype("float32")
labels = data[:, 0] > 0
params = {"w": 0.4 * rng.normal(size=(6, 9)), "v": 0.3 * rng.normal(size=(9, 1))}


def apply(params, x):
    hidden = jax.nn.tanh(x @ params["w"])
    return {"hidden": hidden, "output": (hidden @ params["v"])[:, 0]}
"""


@pytest.fixture(scope="module")
def model():
    namespace: dict = {}
    exec(MODEL, namespace)
    return SimpleNamespace(**{name: namespace[name] for name in ("apply", "params", "data", "labels")})


@pytest.fixture(scope="module")
def made(model):
    rng = np.random.default_rng(1)
    members = [{k: v + 0.01 * rng.normal(size=v.shape) for k, v in model.params.items()} for _ in range(4)]
    t = np.linspace(0, 1, 60)
    training = {"loss": 1 - np.maximum(t - 0.5, 0) + 0.001 * rng.normal(size=60)}
    return lens.report(
        model.apply,
        model.params,
        model.data,
        labels=model.labels,
        other=model.data + 2,
        members=members,
        training=training,
    )


def test_all_eight_steps_measure_and_are_in_order(made):
    assert [step.title for step in made.steps] == TITLES
    assert set(made.results) == {
        "layers", "occupation", "equivariance", "wick", "renormalization", "transitions", "propagation",
        "attribution", "average",
    }  # fmt: skip
    assert made.results["layers"] == ("hidden", "output")


def test_numbers_are_those_of_the_functions(made, model):
    direct = lens.propagation(model.apply, model.params, model.data)
    assert made.results["propagation"].growth == pytest.approx(direct.growth)
    assert made.results["occupation"].shift.differs
    assert str(direct.growth[-1])[:4] in str(made)


def test_every_number_in_a_finding_stands_in_a_table_or_rule(made):
    """No statement that a number on the page does not carry: figures of findings come from results."""
    shown = " ".join(cell for step in made.steps for table in step.tables for row in table.rows for cell in row.cells)
    for finding in made.findings:
        for number in re.findall(r"\d+\.\d+\(\d+\)", finding.text):
            assert number in shown, finding.text
    assert not made.passed and made.findings[0].concern and made.findings[0].text.startswith("The two data sets differ")
    assert any("kink" in finding.text for finding in made.findings)


def test_the_page_is_whole_and_says_where_words_are_exact(made, tmp_path):
    page = made.to_html(tmp_path / "lens.html", heading="<b>mine</b>").read_text(encoding="utf-8")
    assert "&lt;b&gt;mine" in page and "http" not in re.sub(r"data:image[^\"]*", "", page)
    assert all(re.sub("'", "&#39;", f"{k}. {title}") in page for k, title in enumerate(TITLES, start=1))
    assert "analogy" in page and "definition" in page and page.count("data:image/png") == 4
    assert {each.kind for each in CORRESPONDENCES} == {"definition", "choice", "exact", "limit", "analogy"}
    assert "<table>" in made._repr_html_()


def test_what_is_not_given_or_cannot_be_is_said(model):
    """Values of NumPy have no derivatives; nothing is given beside the data."""
    layers = [("hidden", lambda x: np.tanh(np.asarray(x) @ np.ones((6, 2)))), ("sum", lambda h: h.sum(axis=1))]
    found = lens.report(layers, None, model.data)
    missing = " ".join(text for step in found.steps for text in step.missing)
    assert all(
        f"{name}=" in missing for name in ("other", "labels", "training", "coefficient", "members", "transformations")
    )
    assert "propagation" not in found.results and "apply" in " ".join(found.steps[6].missing)


def measured_by_rules():
    """Results beyond every threshold, and the same within them."""
    layer = SimpleNamespace(name="h", dead=Measured(0.5, 0.01), participation=Measured(1.1, 0.1), num_modes=64)
    fine = SimpleNamespace(name="h", dead=Measured(0.1, 0.06), participation=Measured(30.0, 1.0), num_modes=64)
    last = SimpleNamespace(is_gaussian=False, order=4, p_values={4: 0.001}, average={"kurtosis": Measured(2.0, 0.1)})
    probes = [SimpleNamespace(name=n, probe=Measured(v, 0.01)) for n, v in (("a", 0.9), ("b", 0.6))]
    share = np.zeros((5, 16))
    share[:, 0] = 1.0
    grown = {"names": ("h",), "susceptibility": np.array([100.0]), "susceptibility_error": np.array([1.0])}
    return {
        "occupation": (SimpleNamespace(layers={"h": layer}, shift=None), SimpleNamespace(layers={"h": fine}, shift=None)),
        "equivariance": (
            SimpleNamespace(outcome={"sign": Measured(0.3, 0.1)}, holds={"sign": False}, asked="invariant"),
            SimpleNamespace(outcome={"sign": Measured(0.0, 0.0)}, holds={"sign": True}, asked="invariant"),
        ),
        "wick": (SimpleNamespace(layers={"o": last}), SimpleNamespace(layers={"o": SimpleNamespace(is_gaussian=True)})),
        "renormalization": (
            SimpleNamespace(layers={p.name: p for p in probes}), SimpleNamespace(layers={p.name: p for p in probes[::-1]})),
        "propagation": (
            SimpleNamespace(growth=np.array([100.0]), growth_error=np.array([1.0]), **grown),
            SimpleNamespace(growth=np.array([11.0]), growth_error=np.array([1.0]), **grown)),
        "attribution": (
            lens.Attribution(share, np.ones(5), np.zeros(5), 16),
            lens.Attribution(np.ones((5, 16)) / 16, np.ones(5), np.zeros(5), 16)),
        "average": (SimpleNamespace(agree=False, distance=3.0), SimpleNamespace(agree=True, distance=0.1)),
        "coefficient": (
            SimpleNamespace(num_parameters=100, reliable=True, value=2.0, error=0.1),
            SimpleNamespace(num_parameters=100, reliable=True, value=49.0, error=1.0)),
        "transitions": (
            lens.transitions(np.maximum(np.linspace(-1, 1, 40), 0)), lens.transitions(np.linspace(0, 1, 40) ** 2)),
    }  # fmt: skip


def test_rules_speak_beyond_their_thresholds_and_are_silent_within():
    cases = measured_by_rules()
    assert set(cases) == set(RULES)
    for name, (beyond, within) in cases.items():
        assert list(RULES[name](beyond)), name
        assert not list(RULES[name](within)), name
    assert len(hypotheses({name: within for name, (_, within) in cases.items()})) == 1


def test_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MODEL)
    assert main(["lens", "mine.py", "--quiet"]) in (0, 1)
    record = json.loads((tmp_path / "lenses" / "mine" / "lens.json").read_text())
    assert "propagation" in record["measured"] and (tmp_path / "lenses" / "mine" / "report.html").is_file()
    assert "8. Averages and couplings" in capsys.readouterr().out
    assert main(["lens", "mine.py"]) == 2  # an earlier report is in the way
    (tmp_path / "wide.py").write_text(MODEL + "\nother = data + 3\n")
    assert main(["lens", "wide.py", "--output", "there"]) == 1
    (tmp_path / "less.py").write_text("apply = params = None\n")
    capsys.readouterr()
    assert main(["lens", "less.py"]) == 2 and "lacks `data`" in capsys.readouterr().err
    assert main(["lens", "none.py"]) == 2


def test_what_is_no_learning_coefficient_is_refused(model):
    with raises("argument.coefficient"):
        lens.report(model.apply, model.params, model.data, coefficient=3.0)


def test_models_of_the_library_can_be_read():
    field = p4.phi4(p4.lattice.square(4), w=0.5, a=1.0, b=0.2)
    phi = jax.random.normal(jax.random.key(0), (60, 4, 4), jnp.float32)
    found = lens.report(*lens.read(field), np.asarray(phi))
    assert found.results["equivariance"].holds["sign"] and "attribution" in found.results
