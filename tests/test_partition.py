"""log Z: every method against exact values, laws that Z obeys, and models that have none.

Sampled values must lie within three of their errors of the truth. A right method fails that with probability 0.0027 for a
fresh seed; seeds are fixed.
"""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact_runs import model_of
from raising import raises, warns
from scipy import stats

import phi4ppl as p4
from phi4ppl.energy.exact.elimination import elimination_order, log_sum
from phi4ppl.energy.exact.exact_log_z import ExactFamily, exact_log_partition
from phi4ppl.energy.exact.independent_sites import IndependentSites
from phi4ppl.kernels.kernel import get_kernel
from phi4ppl.partition.annealing import anneal, combine_directions
from phi4ppl.partition.coupling_path import REFERENCE, Path, path_to
from phi4ppl.partition.integration import integrate
from phi4ppl.partition.log_partition import agreement
from phi4ppl.sampling.program import lean_program, term_energies

pytestmark = pytest.mark.compile_quickly

BY_ELIMINATION = [
    "single_a1.52425_b0.175_r0.0",
    "single_a-2.0_b0.25_r0.1",
    "chain_periodic_N8_w0.8_a1.4_b0.2_r0.0",
    "chain_open_N5_inhomogeneous",
    "square_L3_w1_a1.2_b0.175",
    "square_L3_w1_a1.52425_b0.175",
    "square_L3_w1_a1.9_b0.175",
    "toy4_threebody",
    "fisher_chain_N4_w0.8_a1.4_b0.2",
    "free_8x8_w1.0_a2.5_g0.0_r0.0",
]
DIAGONAL = ["square_diag_L3_g1.0_a1.52425_b0.175", "square_diag_L3_g0.5_a1.52425_b0.175"]
QUICK = ["chain_periodic_N8_w0.8_a1.4_b0.2_r0.0", "square_L3_w1_a1.52425_b0.175", "square_L3_w1_a1.9_b0.175"]
CRITICAL = {"w": 1.0, "a": 1.52425, "b": 0.175}


def exact_value(case) -> float:
    return case["quantities"]["logZ"]["value"]


# --- exact


@pytest.mark.parametrize("name", BY_ELIMINATION)
def test_exact_values(reference, name):
    result = p4.log_partition(model_of(reference[name]), method="exact")
    assert abs(result.value - exact_value(reference[name])) <= result.error < 1e-4


def test_exact_value_of_a_machine_of_two_layers(reference):
    case = reference["rbm_phi4-phi4"]["definition"]
    couplings = {"a": case["a"] + case["m"], "b": case["b"] + case["n"], "r": case["r"] + case["s"]}
    model = p4.phi4(p4.lattice.bipartite(3, 2), w=np.ravel(case["w"]), **{k: np.array(v) for k, v in couplings.items()})
    result = p4.log_partition(model, method="exact")
    assert abs(result.value - exact_value(reference["rbm_phi4-phi4"])) <= result.error < 1e-9


def test_exact_is_double_precision_in_single():
    # the reference value of this Gaussian field is also that of jax in double precision; single would be off by 1e-5
    model = p4.gaussian(p4.lattice.square(8), w=1.0, a=2.5)
    assert p4.log_partition(model).value == pytest.approx(10.557824520585612, abs=1e-12)


def test_sparse_determinant_agrees_with_fourier_modes():
    n = 72  # more sites than are done densely
    model = p4.gaussian(p4.lattice.square(n), w=1.0, a=2.1)
    k = 2 * np.pi * np.arange(n) / n
    modes = 2 * 2.1 - 2 * np.cos(k)[:, None] - 2 * np.cos(k)[None, :]
    expected = n * n / 2 * np.log(2 * np.pi) - np.sum(np.log(modes)) / 2
    assert p4.log_partition(model).value == pytest.approx(expected, abs=1e-8)


def test_strip_does_not_depend_on_the_order_of_its_sites():
    long, wide = (p4.phi4(p4.lattice.square(*shape, periodic=False), **CRITICAL) for shape in ((3, 9), (9, 3)))
    one, other = p4.log_partition(long, method="exact"), p4.log_partition(wide, method="exact")
    assert abs(one.value - other.value) < 1e-9 and one.error < 1e-6


def test_long_chain_is_extensive():
    # log Z of a long ring is N log of the largest eigenvalue of the transfer matrix
    short, long = (p4.log_partition(p4.phi4(p4.lattice.chain(n), **CRITICAL)).value for n in (100, 400))
    assert long == pytest.approx(4 * short, abs=1e-8)


def test_scaling_of_the_field_shifts_log_z():
    # φ → cφ: Z(w c², a c², b c⁴) = Z(w, a, b) / c^N
    c, lattice = 1.7, p4.lattice.chain(6, periodic=False)
    plain = p4.log_partition(p4.phi4(lattice, w=0.6, a=0.4, b=0.3)).value
    scaled = p4.log_partition(p4.phi4(lattice, w=0.6 * c**2, a=0.4 * c**2, b=0.3 * c**4)).value
    assert scaled == pytest.approx(plain - 6 * math.log(c), abs=1e-9)


def test_box_grows_where_the_sites_do_not_know_it():
    # a pair that prefers φ = ±7.7 through its own term only: the first guess of the box, ±5, cuts it off
    lattice = p4.lattice.chain(2, periodic=False)
    pair = p4.Term("g", lattice.edges, lambda x, y: (x - y) ** 2 + 0.001 * ((x + y) ** 2 - 240) ** 2, coupling=1.0)
    value = p4.log_partition(p4.MarkovRandomField(lattice, [pair]), method="exact").value
    # in u = x + y and v = x − y, dx dy = du dv / 2, and the integral over v is √π
    u = np.linspace(-30, 30, 60001)
    expected = math.log(np.sum(np.exp(-0.001 * (u * u - 240) ** 2)) * (u[1] - u[0]) * math.sqrt(math.pi) / 2)
    assert value == pytest.approx(expected, abs=1e-8)


def test_elimination_equals_a_plain_sum():
    rng = np.random.default_rng(0)
    scopes = [(0, 1), (1, 2), (0, 2, 3), (3, 4), (4, 0), (5,)]
    factors = [(scope, rng.normal(size=(2, *(3,) * len(scope))) * 3) for scope in scopes]  # two sets of factors
    letters = "abcdef"
    subscripts = ",".join("z" + "".join(letters[i] for i in scope) for scope in scopes)
    expected = np.log(np.einsum(subscripts + "->z", *(np.exp(f) for _, f in factors)))
    order = elimination_order(6, scopes, 3)
    assert sorted(order) == list(range(6))
    assert log_sum(factors, order) == pytest.approx(expected, abs=1e-12)
    assert log_sum([(scope, f[:1]) for scope, f in factors], order) == pytest.approx(expected[:1], abs=1e-12)


def test_many_values_of_couplings_at_once_are_those_one_by_one():
    """Four sites with a term of three of them, couplings that differ from edge to edge, and two that vary."""
    graph = p4.lattice.complete(4)
    model = p4.MarkovRandomField(
        graph,
        [
            p4.Term("w", graph.edges, p4.terms.hopping, np.linspace(0.1, 0.6, 6)),
            p4.Term("triple", [[2, 0, 1]], lambda x, y, z: x * y * z**2, 0.1),
            p4.Term("a", np.arange(4)[:, None], lambda x: x**2, 1.2),
            p4.Term("b", np.arange(4)[:, None], lambda x: x**4, 0.3),
        ],
    )
    family = ExactFamily(model, ["b", "triple"])
    thetas = np.random.default_rng(0).uniform([0.2, -0.1], [0.6, 0.2], (5, 2))
    values, error = family.log_partition(thetas)
    one_by_one = [exact_log_partition(model.replace(b=float(b), triple=float(t))).value for b, t in thetas]
    assert error < 1e-8 and values == pytest.approx(one_by_one, abs=1e-8)
    other, _ = family.log_partition(thetas[:, ::-1] + [0.3, 0.0])
    assert np.abs(other - values).max() > 0.01  # couplings in the wrong columns would be seen


@pytest.mark.parametrize("lattice", [p4.lattice.square(16), p4.lattice.complete(9)], ids=str)
def test_unaffordable_exact_answer_is_refused(lattice):
    model = p4.phi4(lattice, **CRITICAL)
    with raises("argument.model.too_large"):
        p4.log_partition(model, method="exact")


# --- independent sites


def test_draws_of_independent_sites_have_their_moments(reference):
    case = reference["single_a-2.0_b0.25_r0.1"]
    sites = IndependentSites.of(model_of(case))
    assert sites.log_partition == pytest.approx(exact_value(case), abs=1e-12)
    phi, exact = sites.draw(np.random.default_rng(0), 100_000)[:, 0], case["quantities"]
    for power in (1, 2, 4):  # three two-sided tests at four standard errors: false alarm 2e-4
        mean, error = np.mean(phi**power), np.std(phi**power) / math.sqrt(len(phi))
        assert abs(mean - exact[f"<phi^{power}>"]["value"]) < 4 * error


def test_sites_that_are_not_normalizable_alone_are_noticed():
    lattice = p4.lattice.chain(2, periodic=False)
    ends = p4.Term("g", lattice.edges, lambda x, y: x**4 + y**4 - x * y, coupling=0.2)
    model = p4.MarkovRandomField(lattice, [ends])
    assert IndependentSites.of(model) is None
    assert path_to(model).model.couplings.keys() == {"g", REFERENCE}


# --- integration


@pytest.mark.parametrize("name", QUICK + [pytest.param(n, marks=pytest.mark.slow) for n in BY_ELIMINATION + DIAGONAL])
def test_integration_meets_the_exact_value(reference, name):
    result = p4.log_partition(model_of(reference[name]), method="integration")
    assert abs(result.value - exact_value(reference[name])) <= 3 * result.error
    assert result.error < 0.1 and result.warnings == ()


@pytest.mark.slow
def test_errors_of_integration_are_calibrated(reference):
    """Scores of 100 seeds have the mean and variance of standard normal ones, at a false-alarm rate of 1e-4 each."""
    case = reference["square_L3_w1_a1.9_b0.175"]
    path, scores = path_to(model_of(case)), []
    for seed in range(100):
        result = integrate(path, num_warmup=200, num_samples=1000, num_chains=4, seed=seed, progress=False)
        scores.append((result.value - exact_value(case)) / result.error)
    assert abs(np.mean(scores)) < 3.9 / 10
    assert stats.chi2.ppf(1e-4, 99) < 100 * np.var(scores) < stats.chi2.isf(1e-4, 99)


@pytest.fixture(scope="module")
def quick_path():
    return path_to(p4.phi4(p4.lattice.chain(8), w=0.8, a=1.4, b=0.2))


def wrong_path(path):
    """dS/dλ with couplings ten per cent too large, at ensembles of the right ones."""

    class Wrong(Path):
        models = lambda self, lambdas: path.models(lambdas)  # noqa: E731

    parts = {f.name: getattr(path, f.name) for f in dataclasses.fields(Path)}
    return Wrong(**parts | {"change": jax.tree.map(lambda c: 1.1 * c, path.change)})


def test_planted_wrong_integrand_is_found(reference, quick_path):
    options = {"num_warmup": 200, "num_samples": 1000, "num_chains": 4, "seed": 1, "progress": False}
    exact = exact_value(reference[QUICK[0]])
    assert abs(integrate(quick_path, **options).value - exact) < 0.02
    result = integrate(wrong_path(quick_path), **options)
    assert abs(result.value - exact) > 3 * result.error


def test_integration_starts_from_gaussians_where_sites_alone_are_not_normalizable():
    lattice = p4.lattice.chain(2, periodic=False)
    ends = p4.Term("g", lattice.edges, lambda x, y: x**4 + y**4 - x * y, coupling=0.2)
    model = p4.MarkovRandomField(lattice, [ends])
    exact = p4.log_partition(model, method="exact")
    sampled = p4.log_partition(model, method="integration")
    assert exact.error < 1e-8
    assert abs(sampled.value - exact.value) <= 3 * sampled.error < 0.1


def test_other_couplings_do_not_compile_again(quick_path):
    other = path_to(p4.phi4(p4.lattice.chain(8), w=0.5, a=1.1, b=0.3))
    options = {"num_warmup": 50, "num_samples": 50, "num_chains": 4, "seed": 1, "progress": False}
    integrate(quick_path, **options)
    before = lean_program.cache_info()
    program = lean_program(
        other.model.structure, get_kernel("cluster"), True, True, False, (("energies", term_energies),)
    )
    compiled = program.many_advance._cache_size()
    integrate(other, **options)
    assert compiled == program.many_advance._cache_size() > 0
    assert lean_program.cache_info().misses == before.misses


def test_same_seed_same_number():
    model = p4.phi4(p4.lattice.chain(8), w=0.8, a=1.4, b=0.2)
    values = [p4.log_partition(model, method=p4.partition.Integration(num_samples=50), seed=s).value for s in (3, 3, 4)]
    assert values[0] == values[1] != values[2]


# --- annealing, sequential Monte Carlo


@pytest.mark.parametrize(
    "name", QUICK[:1] + [pytest.param(n, marks=pytest.mark.slow) for n in [*BY_ELIMINATION, *DIAGONAL]]
)
@pytest.mark.parametrize("method", [p4.partition.Annealing(num_steps=500), p4.partition.SMC(num_particles=500)])
def test_other_methods_meet_the_exact_value(reference, method, name):
    result = p4.log_partition(model_of(reference[name]), method=method)
    assert abs(result.value - exact_value(reference[name])) <= 3 * result.error < 0.3
    assert result.warnings == () and (result.bracket is not None) == (
        result.method == "ais" and not name.startswith("single")
    )


def test_planted_wrong_work_is_found(reference, quick_path):
    result = anneal(wrong_path(quick_path), num_warmup=100, num_steps=500, num_walkers=64, seed=0, progress=False)
    assert abs(result.value - exact_value(reference[QUICK[0]])) > 3 * result.error


def works(shift=0.0, spread=0.6, number=64, seed=0):
    """Forward and backward work of Gaussian walkers whose log(Z/Z_0) is 5, but for ``shift`` of the backward ones."""
    rng = np.random.default_rng(seed)
    forward = rng.normal(-5 + spread**2 / 2, spread, number)
    return forward, rng.normal(-5 - spread**2 / 2 + shift, spread, number)


def test_two_directions_are_unbiased_and_their_error_is_right():
    results = [combine_directions(*works(seed=seed)) for seed in range(1000)]
    scores = np.array([(value - 5) / error for value, error, *_ in results])
    # mean of 1000 scores: four standard errors, false alarm 6e-5; the error of an error from 64 walkers is a few per cent
    assert abs(scores.mean()) < 4 / math.sqrt(1000) and 0.8 < scores.std() < 1.2
    assert np.mean([bool(warnings) for *_, warnings in results]) < 0.01
    brackets = np.array([bracket for _, _, bracket, _ in results])
    missed = np.mean([brackets[:, 0] > 5, brackets[:, 1] < 5], axis=1)
    assert np.all(missed < 0.023 + 4 * math.sqrt(0.023 / 1000))  # two standard errors on one side


def test_directions_that_differ_are_told_and_widen_the_error():
    value, error, (low, high), warnings = combine_directions(*works(shift=-2.0))
    assert low + 2 < high and error > 0.9 and "fall behind" in warnings[0]


# --- auto


def estimated(value, error, method="integration"):
    return p4.PartitionEstimate(value, error, method)


def test_estimates_that_agree_are_averaged_by_their_errors():
    result = agreement(estimated(1.0, 0.3), estimated(1.2, 0.1, "ais"))
    assert result.value == pytest.approx(1.18) and result.error == pytest.approx(0.3 * 0.1 / math.hypot(0.3, 0.1))
    assert result.warnings == () and len(result.parts) == 2 and "agree" in str(result)


def test_estimates_that_disagree_warn_and_cover_both():
    result = agreement(estimated(1.0, 0.1), estimated(2.0, 0.1, "ais"))
    assert result.value - result.error < 1.0 - 0.05 and result.value + result.error > 2.0 + 0.05
    assert "disagree" in result.warnings[0] and "DISAGREE by 7.1 standard errors" in str(result)


def test_disagreement_reaches_the_user(monkeypatch):
    module = importlib.import_module("phi4ppl.partition.log_partition")  # the package has a function of that name
    monkeypatch.setattr(module, "exact_log_partition", lambda model: None)
    monkeypatch.setattr(module, "integrate", lambda path, **_: estimated(1.0, 0.1))
    monkeypatch.setattr(module, "anneal", lambda path, **_: estimated(2.0, 0.1, "ais"))
    with warns("log_partition.doubtful", "integration", "ais"):
        result = p4.log_partition(p4.phi4(p4.lattice.chain(8), w=0.8, a=1.4, b=0.2))
    assert result.method == "auto" and result.error > 0.5


@pytest.mark.slow
def test_methods_agree_at_the_critical_point():
    """Four results, six differences, each beyond three standard errors with probability 0.0027."""
    model = p4.phi4(p4.lattice.square(16), **CRITICAL)
    results = [p4.log_partition(model, method=m) for m in ("integration", "ais", "smc")]
    results.append(p4.log_partition(model, seed=1))
    assert results[-1].method == "auto"
    for one, other in itertools.combinations(results, 2):
        assert abs(one.value - other.value) <= 3 * math.hypot(one.error, other.error)
    assert all(result.error < 0.2 and not result.warnings for result in results)


# --- arguments and refusals


def test_infinite_z_is_refused():
    intrinsic = p4.gaussian(p4.lattice.square(4), w=1.0, a=2.0)
    with raises("hammersley_clifford.not_normalizable"):
        p4.log_partition(intrinsic)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "guess"}, ("argument.method", "'auto'", "'exact'")),
        ({"seed": -1}, ("argument.seed", "0")),
    ],
)
def test_wrong_arguments(arguments, message):
    with raises(*message):
        p4.log_partition(p4.phi4(p4.lattice.chain(3), a=1.0, b=0.1), **arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: p4.partition.Integration(num_samples=10), ("argument.num_samples", "50")),
        (lambda: p4.partition.Auto(num_chains=1), ("argument.num_chains", "2", "got 1")),
        (lambda: p4.partition.Annealing(num_walkers=3), ("argument.num_walkers", "16")),
        (lambda: p4.partition.SMC(num_particles=3), ("argument.num_particles", "50")),
        (lambda: p4.log_partition(None, method="auto"), ("argument.model", "MarkovRandomField", "NoneType")),
    ],
)
def test_wrong_options_of_methods(call, message):
    with raises(*message):
        call()


def test_other_things_than_fields_are_refused():
    with raises("argument.model", "MarkovRandomField", "got function"):
        p4.log_partition(lambda phi: jnp.sum(phi**2))


def test_result_prints_its_number_and_its_origin():
    text = str(p4.log_partition(p4.phi4(p4.lattice.chain(2), a=1.0, b=0.1)))
    assert text.startswith("log Z = ") and "(exact: sum over the quadrature nodes" in text
