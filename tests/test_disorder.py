"""Averages over quenched couplings against quadrature, enumeration and closed forms; planted faults that must be seen."""

from __future__ import annotations

import itertools
import json
import warnings

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from raising import raises, warns
from scipy.stats import norm

import phi4ppl as p4
from phi4ppl.disorder.budget import budget_of
from phi4ppl.disorder.draws import draw_couplings
from phi4ppl.disorder.improper import Improper, improper_probability
from phi4ppl.disorder.realizations import primaries_of

pytestmark = pytest.mark.compile_quickly

LEVEL = 1e-4  # false-alarm rate of each statistical test: Bonferroni over its numbers


def bound(number: int) -> float:
    return norm.isf(LEVEL / 2 / number)


# --- exact draws, without chains


def tree_of_fields(model, fields, schwinger_dyson=None, **facts) -> xr.DataTree:
    """The tree that `quenched` makes, of fields of shape (replicas, draws, realisations, *field_shape)."""
    dims = ("chain", "draw", "realization")
    axes = tuple(range(3, fields.ndim))
    data = xr.Dataset({
        "phi": ((*dims, *(f"axis_{k}" for k in axes)), fields), "magnetization": (dims, fields.mean(axis=axes)),
        "phi_squared": (dims, (fields**2).mean(axis=axes)),
    })  # fmt: skip
    if schwinger_dyson is None:
        schwinger_dyson = np.random.default_rng(99).normal(1, 0.3, fields.shape[:3])
    tree = xr.DataTree.from_dict(
        {"posterior": data, "sample_stats": xr.Dataset({"schwinger_dyson": (dims, schwinger_dyson)})}
    )
    made = {"even": False, "num_warmup": 100, "num_samples": fields.shape[1], "thinning": 1, "kernel": "exact"} | facts
    tree.attrs["phi4ppl"] = json.dumps({"settings": made})
    return tree


def quenched_of(model, couplings, fields, **facts) -> p4.disorder.Quenched:
    return p4.disorder.Quenched(model, couplings, tree_of_fields(model, fields, **facts), Improper(0.0, 0.0, ""))


GRID = np.linspace(-4, 4, 4001)


def one_site_density(r, a=-0.5, b=0.5):
    """Densities on GRID of one site at sources r, (…, GRID)."""
    log = -(a * GRID**2 + b * GRID**4 + np.multiply.outer(np.asarray(r), GRID))
    weights = np.exp(log - log.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def one_site_exact(sd: float) -> dict:
    """[⟨φ⟩], [⟨φ⟩²], [⟨φ²⟩] by quadrature over the source and the field."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    density = one_site_density(sd * nodes)
    mean = density @ GRID
    return {"mean": weights @ mean, "product": weights @ mean**2, "square": weights @ (density @ GRID**2)}


def one_site_fields(sd: float, shape, seed: int):
    """Independent draws (replicas, draws, realisations, 1) by inversion."""
    rng = np.random.default_rng(seed)
    r = rng.normal(0, sd, shape[2])
    cumulated = one_site_density(r).cumsum(axis=-1)
    fields = np.empty((*shape, 1))
    for k in range(shape[2]):
        fields[:, :, k, 0] = GRID[np.searchsorted(cumulated[k], rng.uniform(size=shape[:2]) * cumulated[k, -1])]
    return r, fields


def test_products_of_replicas_are_unbiased_where_the_square_of_one_mean_is_not():
    """One site, ten draws a replica: all three averages within errors (1e-4), and the one-replica form far outside."""
    model = p4.phi4(p4.lattice.chain(1), w=0.0, a=-0.5, b=0.5, r=0.0)
    truth = one_site_exact(0.4)
    r, fields = one_site_fields(0.4, (2, 10, 4000), 1)
    found = primaries_of(tree_of_fields(model, fields), None)
    z = {}
    for key, name in (
        ("mean", "magnetization"),
        ("product", "magnetization_product"),
        ("square", "magnetization_squared"),
    ):
        values = found[name]
        z[key] = (values.mean() - truth[key]) / (values.std(ddof=1) / np.sqrt(len(values)))
    assert max(map(abs, z.values())) < bound(3), z
    naive = fields.mean(axis=1)[0, :, 0] ** 2  # planted fault: ⟨O⟩² from one replica
    assert (naive.mean() - truth["product"]) / (naive.std() / np.sqrt(len(naive))) > 2 * bound(3)


def test_the_table_has_the_averages_and_errors_that_cover_them():
    """Errors over realisations contain the thermal noise: the pull of 60 repeats has unit width within 4 of its errors."""
    model = p4.phi4(p4.lattice.chain(1), w=0.0, a=-0.5, b=0.5, r=0.0)
    truth, pulls = one_site_exact(0.4), []
    _, fields = one_site_fields(0.4, (2, 10, 6000), 2)
    for part in np.split(fields, 60, axis=2):
        values = primaries_of(tree_of_fields(model, part), None)["magnetization_product"]
        pulls.append((values.mean() - truth["product"]) / (values.std(ddof=1) / np.sqrt(len(values))))
    assert abs(np.std(pulls) - 1) < 4 / np.sqrt(2 * 60)
    r, fields = one_site_fields(0.4, (3, 200, 60), 3)
    result = quenched_of(model, {"r": r[:, None]}, fields)
    row = result.averages.loc["magnetization"]
    for title, key in (("[<O>]", "mean"), ("[<O>^2]", "product"), ("[<O^2>]", "square")):
        assert abs(row[title] - truth[key]) < bound(3) * row[f"{title} error"]
    assert np.isnan(result.averages.loc["magnetization", "R_O"])  # [⟨φ⟩] = 0
    squared = result.averages.loc["phi_squared"]
    assert 0 <= squared["R_O"] < 0.1 and squared["R_O error"] < 0.05


# --- a Gaussian field with a random source, in closed form

RING = p4.gaussian(p4.lattice.chain(4), w=0.5, a=1.0, r=0.0)
SIGMA = 0.6


def covariance() -> np.ndarray:
    adjacency = np.roll(np.eye(4), 1, 0) + np.roll(np.eye(4), -1, 0)
    return np.linalg.inv(2 * np.eye(4) - 0.5 * adjacency)


def gaussian_fields(number: int, draws: int, seed: int, replicas=2):
    rng, g = np.random.default_rng(seed), covariance()
    r = SIGMA * rng.normal(size=(number, 4))
    noise = rng.normal(size=(replicas, draws, number, 4)) @ np.linalg.cholesky(g).T
    return r, noise - r @ g


@pytest.fixture(scope="module")
def ring():
    r, fields = gaussian_fields(400, 50, 5)
    return quenched_of(RING, {"r": r}, fields)


def test_correlations_split_into_connected_and_disconnected(ring):
    """Connected G, disconnected σ²G², at every distance; 1e-4."""
    g = covariance()
    found = ring.correlations("graph_distance_correlation")
    exact = {"connected": g[0, :3], "disconnected": SIGMA**2 * (g @ g)[0, :3]}
    z = [(found[n].values - exact[n]) / found[f"{n}_error"].values for n in exact]
    assert np.abs(z).max() < bound(6)
    swapped = (found["connected"].values - exact["disconnected"]) / found["connected_error"].values
    assert np.abs(swapped).max() > 2 * bound(6)  # planted fault


def test_susceptibilities_of_the_random_source(ring):
    g = covariance()
    exact = {"connected": g.sum() / 4, "disconnected": SIGMA**2 * (g @ g).sum() / 4}
    for name, value in exact.items():
        part = ring.susceptibilities[name]
        assert abs(part.value - part.bias - value) < bound(2) * part.error, name


def test_overlaps_are_those_of_the_definition(ring):
    fields = ring._fields
    a, b = fields[0, 7, 3].astype(float), fields[1, 7, 3].astype(float)
    assert ring.overlaps.q[0, 7, 3] == pytest.approx(a @ b / 4)
    i, j = RING.lattice.edges.T
    assert ring.overlaps.link[0, 7, 3] == pytest.approx(np.mean(a[i] * a[j] * b[i] * b[j]))
    exact = SIGMA**2 * np.trace(covariance() @ covariance()) / 4  # [⟨q⟩] = (1/V) Σ [⟨φ_i⟩²]
    assert abs(ring.overlap["q"].value - exact) < bound(1) * ring.overlap["q"].error
    histogram = ring.overlap_distribution(20)
    width = float(histogram["q"][1] - histogram["q"][0])
    assert float(histogram["density"].sum()) * width == pytest.approx(1)
    assert histogram["by_realization"].shape == (400, 20) and (histogram["error"] >= 0).all()


def test_quenched_and_annealed_free_energies(ring):
    """E ln Z = ln Z_0 + (σ²/2) tr G, ln E Z = ln Z_0 − ½ ln det(1 − σ²G), and F_quenched ≥ F_annealed; 1e-4."""
    g = covariance()
    base = p4.log_partition(RING).value
    found = ring.annealed()
    assert found.absolute and not found.warnings
    quenched = -(base + SIGMA**2 / 2 * np.trace(g))
    annealed = -(base - np.linalg.slogdet(np.eye(4) - SIGMA**2 * g)[1] / 2)
    assert abs(found.quenched_free_energy.value - quenched) < bound(3) * found.quenched_free_energy.error
    assert abs(found.annealed_free_energy.value - annealed) < bound(3) * found.annealed_free_energy.error
    assert abs(found.difference.value - (quenched - annealed)) < bound(3) * found.difference.error
    assert found.difference.value > 0 and found.difference.value > 3 * found.difference.error
    # annealed ⟨φ²⟩ is that of the Gaussian field with a − σ²/2; the quenched one is G_ii + σ²(G²)_ii
    wide = np.linalg.inv(np.linalg.inv(g) - SIGMA**2 * np.eye(4))[0, 0]
    part = found.averages["phi_squared"]
    assert abs(part.value - wide) < bound(1) * part.error
    text = str(found)
    assert "quenched" in text and "carry the annealed average" in text


def test_log_z_ratios_from_draws_are_those_of_determinants():
    """log Z of twelve realisations relative to the first, by reweighting their draws; 1e-4, and another order is caught."""
    r, fields = gaussian_fields(12, 100, 6)
    result = quenched_of(RING, {"r": r}, fields)
    exact, found = result.annealed("exact"), result.annealed("reweighting")
    truth = exact.log_partition - exact.log_partition[0]
    z = (found.log_partition - truth)[1:] / found.log_partition_error[1:]
    assert not found.absolute and "relative to the first" in str(found) and np.abs(z).max() < bound(11)
    wrong = (found.log_partition - np.roll(truth, 1))[1:] / found.log_partition_error[1:]
    assert np.abs(wrong).max() > 2 * bound(11)  # planted fault
    assert found.difference.value == pytest.approx(exact.difference.value, abs=5 * np.max(found.log_partition_error))


def test_an_annealed_average_that_few_realisations_carry_says_so(ring):
    steep = ring.annealed(np.linspace(0, 120, 400))
    assert steep.carriers < 10 and "realisations carry the weight" in steep.warnings[0]
    with raises("argument.method.shape", "400 log Z"):
        ring.annealed(np.zeros(3))


def test_the_budget_finds_both_variances(ring):
    """D = σ²(1ᵀG²1)/V² and T = 1ᵀG1/V² of the magnetization, within 4 errors; the best n is that of the formula."""
    g = covariance()
    found = ring.budget("magnetization")
    disorder, thermal = SIGMA**2 * (g @ g).sum() / 16, g.sum() / 16
    assert abs(found.disorder - disorder) < 4 * found.disorder_error
    assert abs(found.thermal - thermal) < 4 * found.thermal_error
    best = np.sqrt(found.thermal * 100 / (2 * found.disorder))
    assert found.num_samples == pytest.approx(max(10, best), abs=1.01) and "squared error" in str(found)
    _, quiet = gaussian_fields(50, 50, 8)
    quiet = quenched_of(RING, {"r": np.zeros((50, 4))}, quiet - quiet.mean(axis=(0, 1)))
    assert quiet.budget().num_samples > 200  # no disorder: more draws, fewer realisations


def means_of_chains(rng, number: int, draws: int, disorder=0.05, time=4.0):
    """Means of two replicas of AR(1) chains of unit variance around disordered centers, shape (number, 2)."""
    decay = np.exp(-1 / time)
    x = rng.normal(size=(number, 2))
    total = np.zeros((number, 2))
    for _ in range(draws):
        x = decay * x + np.sqrt(1 - decay**2) * rng.normal(size=x.shape)
        total += x
    return np.sqrt(disorder) * rng.normal(size=(number, 1)) + total / draws


def test_the_advised_split_has_the_smallest_error_of_simulated_ones():
    """The mean square of [Ō] over 800 repeats at equal cost: the advised n beats n/3 and 3n, which a factor of three in D or T
    would choose, and the squared error of the split at hand is as many times larger as the advice says, within 15 %."""
    rng, warmup, cost = np.random.default_rng(21), 200, 40 * 2 * (200 + 40)
    advice = budget_of("m", means_of_chains(rng, 4000, 40), warmup, 40, 1)
    assert advice.disorder == pytest.approx(0.05, abs=4 * advice.disorder_error)

    def squared_error(draws):
        number = round(cost / (2 * (warmup + draws)))
        means = means_of_chains(rng, number * 800, draws).reshape(800, -1)
        return float(np.mean(means.mean(axis=1) ** 2))

    best = squared_error(advice.num_samples)
    assert best < squared_error(advice.num_samples // 3) and best < squared_error(3 * advice.num_samples)
    assert advice.gain > 1.05 and squared_error(40) / best == pytest.approx(advice.gain, rel=0.15)


# --- the verdict


def test_chains_that_agree_pass(ring):
    assert ring.passed and ring.verdict.failed == () and ring.warnings == ()


@pytest.mark.parametrize("fault", ["apart", "stuck", "short", "drift", "identity", "one side"])
def test_every_planted_fault_is_named(fault):
    """A realisation whose replicas disagree, do not move, are too short or wrong is named; a drift of all is seen."""
    r, fields = gaussian_fields(20, 400, 11)
    rng = np.random.default_rng(12)
    identity, facts = rng.normal(1, 0.3, fields.shape[:3]), {}
    if fault == "apart":
        fields[1, :, 7] += 2.0
    elif fault == "stuck":
        fields[1, :, 7] = 0.3
    elif fault == "short":
        slow = np.cumsum(rng.normal(size=(2, 400, 4)), axis=1) / 10
        fields[:, :, 7] = slow - slow.mean(axis=1, keepdims=True)
    elif fault == "drift":
        fields[:, :200] += 0.05
    elif fault == "identity":
        identity[:, :, 7] += 0.2
    else:
        fields = fields + 9.0 * (np.arange(20) == 7)[:, None]
        facts = {"even": True}
    tree = tree_of_fields(RING, fields, identity, **facts)
    result = p4.disorder.Quenched(RING, {"r": r}, tree, Improper(0.0, 0.0, ""))
    name = {"apart": "replicas agree", "stuck": "replicas agree", "short": "length", "drift": "no drift",
            "identity": "Schwinger-Dyson", "one side": "sign changes"}[fault]  # fmt: skip
    check = next(c for c in result.verdict.checks if c.name == name)
    assert not check.passed and not result.passed and any(name in text for text in result.warnings)
    if fault != "drift":
        assert 7 in result.verdict.failed and "7" in check.value
    if fault in ("apart", "stuck", "identity"):
        assert result.verdict.failed == (7,)
    assert not result.overlap["q"].reliable  # nothing derived from it is called reliable


# --- drawing couplings


def test_every_shape_of_a_distribution():
    model = p4.phi4(p4.lattice.square(2), w=0.1, a=1.0, b=0.2, r=0.0)
    plus_minus = dist.MixtureSameFamily(
        dist.Categorical(probs=jnp.array([0.5, 0.5])), dist.Delta(jnp.array([-1.0, 1.0]))
    )
    correlated = dist.MultivariateNormal(jnp.zeros(4), 0.9 * jnp.ones((4, 4)) + 0.1 * jnp.eye(4))
    disorder = {"w": plus_minus, "r": correlated, "a": dist.Uniform(jnp.ones((2, 2)), 2.0), "b": lambda key: 0.3}
    drawn = draw_couplings(model, disorder, 100, 0, "realizations")
    assert {n: v.shape for n, v in drawn.items()} == {"w": (100, 4), "r": (100, 4), "a": (100, 4), "b": (100,)}
    assert set(np.unique(drawn["w"])) == {-1.0, 1.0} and 0.35 < (drawn["w"] > 0).mean() < 0.6
    assert np.corrcoef(drawn["r"].T)[0, 1] > 0.8 and abs(np.corrcoef(drawn["w"].T)[0, 1]) < 0.45
    again = draw_couplings(model, disorder, 100, 0, "realizations")
    np.testing.assert_array_equal(drawn["r"], again["r"])


ONE = p4.phi4(p4.lattice.chain(4), w=0.1, a=1.0, b=0.2, r=0.0)


@pytest.mark.parametrize(
    ("source", "each"),
    [
        (dist.Normal(1, 0.5), norm.cdf(-2)),
        (dist.Normal(jnp.array([1.0, 2.0, 1.0, 2.0]), 1.0), None),
        (dist.Uniform(-0.1, 0.9), 0.1),
        (dist.LogNormal(0, 1), 0.0),
        (dist.Gamma(2.0, 1.0), 0.0),
        (dist.HalfNormal(1.0), 0.0),
        (dist.TruncatedNormal(1.0, 1.0, low=0.01), 0.0),
    ],
)
def test_the_probability_of_an_improper_realisation_is_exact(source, each):
    found = improper_probability(ONE, {"b": source})
    below = norm.cdf([-1, -2, -1, -2]) if each is None else np.full(4, each)
    assert found.error == 0 and found.probability == pytest.approx(1 - np.prod(1 - below), abs=1e-6)


def test_correlated_couplings_are_counted_from_draws():
    together = dist.MultivariateNormal(jnp.ones(4), 0.999 * jnp.ones((4, 4)) + 0.001 * jnp.eye(4))
    found = improper_probability(ONE, {"b": lambda key: together.sample(key)})
    assert found.error > 0 and abs(found.probability - norm.cdf(-1)) < 4 * found.error + 0.03
    known = improper_probability(ONE, {"b": together})  # the marginals give a bound, which such couplings nearly reach
    assert known.at_least and known.probability == pytest.approx(norm.cdf(-1))
    assert improper_probability(ONE, {"r": dist.Cauchy(0, 1)}).probability == 0  # a source never matters where b > 0


def test_improper_disorder_is_refused_before_sampling():
    with raises(
        "hammersley_clifford.realization", "each with probability 0.0879", "exact", "b is negative", "LogNormal"
    ):
        p4.disorder.quenched(ONE, {"b": dist.Normal(1, 0.5)})
    weak = p4.gaussian(p4.lattice.chain(4), w=0.5, a=1.0)
    with raises("hammersley_clifford.realization", "of 500 realisations", "±", "eigenvalue"):
        p4.disorder.quenched(weak, {"w": dist.Normal(0.5, 0.5)})


def test_without_fields_there_are_averages_and_no_overlaps(tmp_path):
    r, fields = gaussian_fields(20, 100, 13)
    tree = tree_of_fields(RING, fields)
    whole = p4.disorder.Quenched(RING, {"r": r}, tree, Improper(0.0, 0.0, "exact"))
    tree["posterior"] = xr.DataTree(tree["posterior"].dataset.drop_vars("phi"))
    result = p4.disorder.Quenched(RING, {"r": r}, tree, Improper(0.0, 0.0, "exact"))
    np.testing.assert_allclose(result.averages, whole.averages)
    assert "overlap" not in str(result) and "overlap q" in str(whole) and len(result.plot().axes) == 1
    assert "Averages over the disorder" in result.to_html(tmp_path / "page.html").read_text()
    for ask in (lambda: result.overlap, result.overlap_distribution, result.correlations):
        with raises("argument.overlaps.fields", "overlaps=True"):
            ask()
    with raises("argument.method.fields", "keeps fields"):
        result.annealed("reweighting")
    with raises("argument.name", "correlation_function"):
        whole.correlations("improved_m2")
    with raises("argument.name", "magnetization"):
        whole.budget("spin")


def test_what_cannot_be_disorder_is_refused():
    quenched = p4.disorder.quenched
    with raises("argument.disorder", "a dict of distributions"):
        quenched(ONE, {})
    with raises("argument.disorder.name", "w, a, b, r", "'h'"):
        quenched(ONE, {"h": dist.Normal()})
    with raises("argument.disorder", "a NumPyro distribution"):
        quenched(ONE, {"r": 0.5})
    with raises("argument.disorder.shape", "(4,)", "(3,)"):
        quenched(ONE, {"r": dist.Normal(jnp.zeros(3), 1.0)})
    with raises("argument.disorder.returns", "shape (5,)"):
        quenched(ONE, {"r": lambda key: np.zeros(5)})
    with raises("argument.disorder.raises", "ZeroDivisionError"):
        quenched(ONE, {"r": lambda key: 1 / 0})
    with raises("argument.num_replicas", "at least 2"):
        quenched(ONE, {"r": dist.Normal()}, num_replicas=1)
    with raises("argument.model", "a MarkovRandomField"):
        quenched("phi4", {"r": dist.Normal()})
    with raises("argument.num_realizations", "at least 2"):
        quenched(ONE, {"r": dist.Normal()}, num_realizations=1)


# --- chains


def four_sites_exact(w=0.5, a=0.4, b=0.25, h=0.6) -> dict:
    """Averages over all 16 sources ±h and over the field of four sites on a ring, by quadrature."""
    x = np.linspace(-3.6, 3.6, 31)
    grid = np.stack(np.meshgrid(x, x, x, x, indexing="ij"), axis=-1).reshape(-1, 4)
    free = a * (grid**2).sum(1) + b * (grid**4).sum(1) - w * (grid * np.roll(grid, 1, axis=1)).sum(1)
    m, overlap = grid.mean(1), []
    rows = []
    for signs in itertools.product((-1, 1), repeat=4):
        weight = np.exp(-(free + h * grid @ np.array(signs)))
        weight /= weight.sum()
        sites = weight @ grid
        overlap.append((sites**2).mean())
        rows.append([weight @ m, (weight @ m) ** 2, weight @ m**2])
    mean = np.mean(rows, axis=0)
    return {"mean": mean[0], "product": mean[1], "square": mean[2], "q": np.mean(overlap)}


def test_four_sites_in_a_bimodal_source_have_the_averages_of_quadrature():
    """[⟨m⟩], [⟨m⟩²], [⟨m²⟩] and [⟨q⟩] of chains against all 16 realisations; 1e-4, and another strength is caught."""
    model = p4.phi4(p4.lattice.chain(4), w=0.5, a=0.4, b=0.25, r=0.0)
    plus_minus = dist.MixtureSameFamily(
        dist.Categorical(probs=jnp.array([0.5, 0.5])), dist.Delta(jnp.array([-0.6, 0.6]))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = p4.disorder.quenched(
            model, {"r": plus_minus}, num_realizations=120, num_warmup=150, num_samples=300, kernel="local_hmc", seed=4
        )
    assert result.passed and result.tree["posterior"]["phi"].dims == ("chain", "draw", "realization", "site")
    truth = four_sites_exact()
    row = result.averages.loc["magnetization"]
    found = {
        k: (row[t], row[f"{t} error"]) for k, t in (("mean", "[<O>]"), ("product", "[<O>^2]"), ("square", "[<O^2>]"))
    }
    found["q"] = float(result.overlap["q"].value), float(result.overlap["q"].error)
    z = {key: (value - truth[key]) / error for key, (value, error) in found.items()}
    assert max(map(abs, z.values())) < bound(4), z
    other = four_sites_exact(h=0.8)
    assert abs(found["q"][0] - other["q"]) / found["q"][1] > bound(4)  # planted fault: a stronger source
    assert "realisations of r" in str(result) and p4.settings(result.tree)["disorder"]["r"].startswith(
        "MixtureSameFamily"
    )
    assert p4.diagnose(result.tree.isel(realization=3)).estimates.loc["magnetization", "error"] > 0


def test_a_run_that_fails_warns_and_keeps_its_realisations():
    model = p4.phi4(p4.lattice.chain(4), w=0.5, a=0.4, b=0.25, r=0.0)
    with warns("disorder.verdict", "length", "realisation"):
        result = p4.disorder.quenched(
            model, {"r": dist.Normal(0, 0.5)}, num_realizations=120, num_warmup=150, num_samples=10, kernel="local_hmc"
        )
    assert result.verdict.failed and len(result.realizations["magnetization"]) == 120
