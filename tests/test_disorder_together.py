"""Couplings of several terms drawn together, distributions that reach improper couplings now and then, and saved runs."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
from raising import raises
from scipy.stats import norm, t

import phi4ppl as p4
from phi4ppl.cli.entry import main
from phi4ppl.disorder.draws import draw_couplings, require_disorder
from phi4ppl.disorder.improper import improper_probability
from phi4ppl.disorder.saved import stored_model

pytestmark = pytest.mark.compile_quickly

LEVEL = 1e-4  # false-alarm rate of each statistical test: Bonferroni over its numbers
PAIR = p4.phi4(p4.lattice.chain(2, periodic=False), w=0.0, a=0.3, b=0.3, r=0.0)
RING = p4.phi4(p4.lattice.chain(4), w=0.1, a=1.0, b=0.2, r=0.0)
FREE = p4.gaussian(p4.lattice.chain(4), w=0.5, a=1.0, r=0.0)


def bound(number: int) -> float:
    return norm.isf(LEVEL / 2 / number)


def mixture(probabilities, values):
    return dist.MixtureSameFamily(dist.Categorical(probs=jnp.array(probabilities)), dist.Delta(jnp.array(values)))


STRONG, WEAK = {"w": 1.5, "r": -0.9}, {"w": -1.5, "r": 0.9}


def together():
    """One hidden variable decides about the bond and about both sources."""
    strong = numpyro.sample("strong", dist.Bernoulli(0.5))
    numpyro.deterministic("w", jnp.where(strong, STRONG["w"], WEAK["w"])[None])
    numpyro.deterministic("r", jnp.where(strong, STRONG["r"], WEAK["r"]))


def pair_averages(draws) -> dict:
    """[⟨m⟩], [⟨m⟩²], [⟨m²⟩], [⟨q⟩] and the link overlap over couplings (w, r), by sums over the fields of two sites."""
    x = np.linspace(-4, 4, 201)
    one, other = np.meshgrid(x, x, indexing="ij")
    rows = []
    for w, r in draws:
        weight = np.exp(w * one * other - sum(r * f + 0.3 * f**2 + 0.3 * f**4 for f in (one, other)))
        weight /= weight.sum()
        m = (one + other) / 2
        mean = np.sum(weight * m)
        rows.append([mean, mean**2, np.sum(weight * m**2), mean**2, np.sum(weight * one * other) ** 2])
    return dict(zip(("mean", "product", "square", "q", "link"), np.mean(rows, axis=0), strict=True))


@pytest.fixture(scope="module")
def joint():
    return p4.disorder.quenched(
        PAIR, together, num_realizations=320, num_warmup=100, num_samples=150, kernel="local_hmc", seed=3
    )


def found_in(result) -> dict:
    row = result.averages.loc["magnetization"]
    found = {
        k: (row[n], row[f"{n} error"]) for k, n in (("mean", "[<O>]"), ("product", "[<O>^2]"), ("square", "[<O^2>]"))
    }
    for name in ("q", "link"):
        found[name] = float(result.overlap[name].value), float(result.overlap[name].error)
    return found


def test_terms_drawn_together_have_the_averages_of_quadrature(joint):
    """Five averages at 1e-4. Planted: the same values drawn independently, four pairs (w, r) in place of two."""
    found = found_in(joint)
    exact = pair_averages([(c["w"], c["r"]) for c in (STRONG, WEAK)])
    assert max(abs(found[k][0] - exact[k]) / found[k][1] for k in exact) < bound(5)
    apart = pair_averages([(c["w"], d["r"]) for c in (STRONG, WEAK) for d in (STRONG, WEAK)])
    assert max(abs(found[k][0] - apart[k]) / found[k][1] for k in exact) > 2 * bound(5)
    strong = joint.couplings["w"][:, 0] > 0
    np.testing.assert_allclose(joint.couplings["r"], np.where(strong, STRONG["r"], WEAK["r"]), rtol=1e-6)
    assert p4.settings(joint.tree)["disorder"] == {"w": "NumPyro model together", "r": "NumPyro model together"}


def test_sites_have_the_shapes_that_they_are_given():
    def shapes():
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        with numpyro.plate("sites", 4):
            numpyro.sample("r", dist.Normal(0, scale))
        numpyro.sample("w", dist.Normal(0, 0.1).expand([4]).to_event(1))
        numpyro.sample("b", dist.LogNormal(0, 0.1))

    require_disorder(RING, shapes)
    drawn = draw_couplings(RING, shapes, 30, 0, "realizations")
    assert {n: v.shape for n, v in drawn.items()} == {"r": (30, 4), "w": (30, 4), "b": (30,)}
    assert len(np.unique(drawn["r"])) == 120
    np.testing.assert_array_equal(drawn["r"], draw_couplings(RING, shapes, 30, 0, "realizations")["r"])


def observed():
    numpyro.sample("r", dist.Normal(0, 1), obs=0.3)


def weighted():
    numpyro.sample("r", dist.Normal(0, 1))
    numpyro.factor("weight", 0.3)


def misspelled():
    numpyro.sample("r", dist.Normal(0, 1))
    numpyro.deterministic("W", 1.0)


def of_three():
    numpyro.sample("r", dist.Normal(0, 1).expand([3]))


def nothing():
    numpyro.sample("z", dist.Normal(0, 1))


@pytest.mark.parametrize(
    ("disorder", "code", "words"),
    [
        (observed, "argument.disorder.observed", "infer_couplings"),
        (weighted, "argument.disorder.observed", "'weight'"),
        (misspelled, "argument.disorder.name", "'W'"),
        (of_three, "argument.disorder.shape", "shape (3,)"),
        (nothing, "argument.disorder.name", "sites z"),
        (lambda key: None, "argument.disorder.raises", "takes no arguments"),
        ({("w", "r"): dist.Normal()}, "argument.disorder.name", "a NumPyro model"),
        (dist.Normal(), "argument.disorder", "a dict of distributions"),
    ],
)
def test_what_does_not_draw_couplings_is_refused(disorder, code, words):
    with raises(code, words):
        p4.disorder.quenched(RING, disorder)


# --- small probabilities of improper couplings

SCALE = 0.0625 * (0.5 * jnp.ones((4, 4)) + 0.5 * jnp.eye(4))
TAIL = norm.cdf(-4)


@pytest.mark.parametrize(
    ("model", "disorder", "probability", "least"),
    [
        (RING, {"b": dist.Normal(1, 0.25).expand([4]).to_event(1)}, -np.expm1(4 * np.log1p(-TAIL)), False),
        (RING, {"b": mixture([0.001, 0.999], [-0.1, 0.5])}, 1 - 0.999**4, False),
        (RING, {"b": mixture([0.5, 0.5], [0.1, 0.5])}, 0.0, False),
        (RING, {"b": dist.MultivariateNormal(jnp.ones(4), SCALE)}, TAIL, True),
        (RING, {"b": dist.MultivariateStudentT(5.0, jnp.ones(4), 0.1 * jnp.eye(4))}, t.cdf(-10, 5), True),
        (FREE, {"a": dist.Normal(2, 0.4)}, -np.expm1(4 * np.log1p(-norm.cdf(-5))), True),
        (FREE, {"w": dist.Normal(0.5, 0.3)}, -np.expm1(4 * np.log1p(-norm.cdf(-5) - norm.cdf(-2.5 / 0.3))), True),
        (FREE, {"w": mixture([0.999, 0.001], [0.5, 2.5])}, 1 - 0.999**4, True),
    ],
)
def test_probabilities_too_small_to_be_seen_in_draws_are_found(model, disorder, probability, least):
    """Exact, or an exact lower bound from marginals, single sites (a < 0) and single edges (w² > 4 a_i a_j)."""
    found = improper_probability(model, disorder)
    assert found.error == 0 and found.at_least is least
    assert found.probability == pytest.approx(probability, rel=1e-4, abs=1e-15)
    if probability:
        expected = f"probability {'at least ' * least}{found.probability:.3g}"
        with raises("hammersley_clifford.realization", expected):
            p4.disorder.quenched(model, disorder)


def test_couplings_drawn_together_are_counted():
    def sometimes():
        low = numpyro.sample("low", dist.Bernoulli(0.1))
        numpyro.deterministic("b", jnp.where(low, -0.1, 0.2))

    found = improper_probability(RING, sometimes)
    assert abs(found.probability - 0.1) < 4 * found.error and "of 500" in found.how
    with raises("hammersley_clifford.realization", "±", "of 500 realisations"):
        p4.disorder.quenched(RING, sometimes)


# --- saved runs


def same(again, result):
    np.testing.assert_allclose(again.averages, result.averages, rtol=1e-12)
    assert str(again) == str(result) and again.improper == result.improper
    assert again.verdict.checks == result.verdict.checks
    for name, values in result.couplings.items():
        np.testing.assert_allclose(again.couplings[name], values, rtol=1e-6)


def test_a_saved_run_has_its_averages_again(joint, tmp_path):
    path = p4.save_run(joint.tree, tmp_path / "joint.nc")
    again = p4.disorder.from_run(path)
    same(again, joint)
    same(p4.disorder.from_run(joint.tree), joint)
    assert again.model.lattice.num_sites == 2 and again.models()[3].couplings["r"] == joint.models()[3].couplings["r"]
    np.testing.assert_allclose(again.annealed().log_partition, joint.annealed().log_partition, rtol=1e-5)
    np.testing.assert_array_equal(again.correlations()["connected"], joint.correlations()["connected"])


def test_a_model_that_is_not_stored_is_asked_for(joint):
    without = joint.tree.copy()
    del without["model"]
    same(p4.disorder.from_run(without, model=PAIR), joint)
    with raises("argument.model.not_stored", "pass model="):
        p4.disorder.from_run(without)
    with raises("argument.model.couplings", "a, b, r, w"):
        p4.disorder.from_run(without, model=p4.gaussian(p4.lattice.chain(2), w=0.1, a=1.0))
    with raises("argument.model.shape", "(2,)"):
        p4.disorder.from_run(without, model=RING)
    with raises("argument.run.kind", "phi4ppl.diagnose"):
        p4.disorder.from_run(joint.tree.isel(realization=0))
    with raises("argument.path.missing"):
        p4.disorder.from_run("nowhere.nc")


def test_statistics_of_the_user_are_not_stored():
    own = p4.Term("sextic", np.arange(2)[:, None], lambda phi: phi**6, 0.1)
    assert stored_model(p4.MarkovRandomField(PAIR.lattice, [*PAIR.terms, own])) == {}
    assert list(stored_model(PAIR)) == ["model"]


FILE = """import jax.numpy as jnp, numpyro, numpyro.distributions as dist, phi4ppl as p4
model = p4.phi4(p4.lattice.chain(2, periodic=False), w=0.0, a=0.3, b=0.3, r=0.0)
def disorder():
    strong = numpyro.sample("strong", dist.Bernoulli(0.5))
    numpyro.deterministic("w", jnp.where(strong, 1.5, -1.5)[None])
    numpyro.deterministic("r", jnp.where(strong, -0.9, 0.9))
"""


def test_the_command_line_reports_a_run_with_disorder_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pair.py").write_text(FILE)
    options = ["--realizations", "12", "--samples", "100", "--warmup", "60", "--kernel", "local_hmc", "--quiet"]
    status = main(["run", "pair.py", *options])
    first = capsys.readouterr().out
    folder = tmp_path / "runs" / "pair"
    table = pd.read_csv(folder / "estimates.csv", index_col=0)
    (folder / "report.html").unlink()
    assert main(["report", "runs/pair"]) == status
    again = capsys.readouterr().out
    assert again.splitlines()[:10] == first.splitlines()[1:11] and "12 realisations of w, r" in again
    page = (folder / "report.html").read_text()
    np.testing.assert_allclose(pd.read_csv(folder / "estimates.csv", index_col=0), table, rtol=1e-9)
    assert "<h1>pair</h1>" in page
    found = p4.disorder.from_run(folder)
    assert found.passed == (status == 0) and found.num_realizations == 12
