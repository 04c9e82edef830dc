"""Sampled moments against exact values, wrong samplers that the same comparison rejects, and what must not change a run.

False alarms: every comparison of one run (all its moments and Schwinger–Dyson identities) is one test of level 1e-4
(``exact_runs.ALARM``), shared equally among its K quantities (Bonferroni): a right sampler with a new key fails it with a
probability of at most 1e-4, up to the 2 to 4 % by which the Γ-method's errors are uncertain, which at 4 to 5 errors doubles
it at the worst. Some 25 such tests are made: at most 0.5 % for all of them together. Keys are fixed, so the verdict is always
the same.

Moments of higher than the fourth order are left out: their distributions are so skewed that normal tails do not hold.
"""

import io
import re
import sys
import types
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from blackjax.base import SamplingAlgorithm
from exact_runs import CASES, model_of, rejected, run_case, scores_of_run, series_of, z_scores
from raising import raises

import phi4ppl as p4
from phi4ppl.analysis.gamma_method import gamma_method
from phi4ppl.kernels.symmetry import is_even
from phi4ppl.sampling import Kernel, WindowAdaptation, chains, get_kernel, progress
from phi4ppl.sampling.chains import run_chains

pytestmark = pytest.mark.compile_quickly

# a program of their own, and a kind of field that another case has too
MORE = {("single_a1.52425_b0.175_r0.0", "nuts"), ("single_a1.52425_b0.175_r0.0", "hmc"),
        ("chain_periodic_N8_w0.8_a1.4_b0.2_r0.0", "nuts"), ("chain_periodic_N8_w0.8_a1.4_b0.2_r0.0", "hmc"),
        ("free_8x8_w1.0_a2.5_g0.0_r0.0", "nuts")}  # fmt: skip
RUNS = [
    pytest.param(name, kernel, marks=pytest.mark.slow if (name, kernel) in MORE else ())
    for name in CASES
    for kernel in ("nuts", "hmc")
]


@pytest.mark.parametrize(("name", "kernel"), RUNS)
def test_moments_are_exact_in_single_precision(reference, name, kernel):
    # the double well is crossed once in some hundred iterations: keep every tenth
    model, tree = run_case(reference[name], kernel, seed=11, thinning=10 if "a-2.0" in name else 1)
    assert tree["posterior"]["phi"].dtype == np.float32
    assert not rejected(scores_of_run(reference[name], model, tree))
    even = not any(reference[name]["definition"]["r"]) and "three_body" not in reference[name]["definition"]
    assert ("sign_flipped" in tree["sample_stats"].data_vars) == even


@pytest.mark.parametrize(
    ("name", "kernel"),
    [("toy4_threebody", "nuts"), ("square_L3_w1_a1.52425_b0.175", "hmc")],
)
def test_moments_are_exact_in_double_precision(reference, name, kernel, x64):
    model, tree = run_case(reference[name], kernel, seed=12)
    phi, lp = tree["posterior"]["phi"].values, tree["sample_stats"]["lp"].values
    assert phi.dtype == lp.dtype == np.float64
    assert not rejected(scores_of_run(reference[name], model, tree))
    np.testing.assert_allclose(lp[:, ::100], -np.asarray(model.energy(phi[:, ::100])), rtol=1e-12, atol=1e-12)


# --- wrong samplers


class State(NamedTuple):
    position: jax.Array
    logdensity: jax.Array
    logdensity_grad: jax.Array


class Info(NamedTuple):
    acceptance_rate: jax.Array
    is_divergent: jax.Array
    energy: jax.Array
    num_integration_steps: int


def leapfrog_kernel(log_ratio=lambda change, kinetic: change + kinetic, first_kick=0.5):
    """Hamiltonian Monte Carlo of three steps; right as it stands, wrong with another ``log_ratio`` or ``first_kick``.

    It accepts with probability min(1, exp(log_ratio(gain of log density, loss of kinetic energy))).
    """

    def build(target, tuning):
        step_size, inverse_mass_matrix = tuning.step_size, tuning.inverse_mass_matrix

        def init(position):
            return State(position, *target.init(position))

        def step(key, state):
            momentum_key, accept_key = jax.random.split(key)
            mass = 1 / inverse_mass_matrix.reshape(state.position.shape)
            p = jnp.sqrt(mass) * jax.random.normal(momentum_key, state.position.shape, state.position.dtype)

            def leap(k, carry):
                new, p = carry
                half = p + jnp.where(k == 0, first_kick, 0.5) * step_size * new.logdensity_grad
                new = init(new.position + step_size * half / mass)
                return new, half + step_size / 2 * new.logdensity_grad

            new, p_new = jax.lax.fori_loop(0, 3, leap, (state, p))
            kinetic, kinetic_new = jnp.sum(p**2 / mass) / 2, jnp.sum(p_new**2 / mass) / 2
            change = new.logdensity - state.logdensity
            right = jnp.minimum(jnp.exp(jnp.nan_to_num(change + kinetic - kinetic_new, nan=-jnp.inf)), 1)
            used = jnp.nan_to_num(log_ratio(change, kinetic - kinetic_new), nan=-jnp.inf)
            take = jnp.log(jax.random.uniform(accept_key, (), p.dtype)) < used
            state = jax.tree.map(lambda a, b: jnp.where(take, a, b), new, state)
            return state, Info(right, ~jnp.isfinite(change), kinetic - state.logdensity, 3)

        return SamplingAlgorithm(init, step)

    return Kernel("own", "written in a test", build, get_kernel("hmc").statistics, WindowAdaptation(0.95))


TORUS = "square_L3_w1_a1.9_b0.175"
FAULTS = {
    # but not when the energy error is above 3: such a chain would run away to infinity and need no test to be rejected
    "always accepts": {"log_ratio": lambda change, kinetic: jnp.where(change + kinetic > -3, 0.0, -jnp.inf)},
    "forgets the kinetic energy": {"log_ratio": lambda change, kinetic: change},
    "first half step is a whole one": {"first_kick": 1.0},
}


def test_the_comparison_accepts_a_right_sampler_written_here(reference):
    model, tree = run_case(reference[TORUS], leapfrog_kernel(), seed=13, symmetry_moves=False)
    assert not rejected(scores_of_run(reference[TORUS], model, tree))


@pytest.mark.parametrize("fault", FAULTS)
def test_the_comparison_rejects_a_sampler_with_a_planted_fault(reference, fault):
    model, tree = run_case(reference[TORUS], leapfrog_kernel(**FAULTS[fault]), seed=13, symmetry_moves=False)
    found = rejected(scores_of_run(reference[TORUS], model, tree))
    assert any(np.isfinite(z) for z in found.values()), found
    assert not p4.diagnose(tree).passed


def test_the_comparison_rejects_right_chains_of_another_model(reference):
    """A coupling wrong by two per cent is found by the moments; it cannot be found by Schwinger–Dyson."""
    model = model_of(reference[TORUS]).replace(a=1.9 * 1.02)
    tree = p4.sample(model, num_warmup=500, num_samples=4000, kernel="hmc", seed=14)
    found = rejected(scores_of_run(reference[TORUS], model, tree))
    assert found and not any(name.startswith("SD") for name in found), found
    assert p4.diagnose(tree).passed


# --- this library against NumPyro's own sampler


@pytest.mark.rank_promotion
def test_numpyro_and_this_library_agree_on_the_same_model(reference):
    field = model_of(reference["chain_open_N5_inhomogeneous"])
    data = np.array([0.6, -0.4, 1.0, 0.2, -0.9])

    def model():
        noise = numpyro.sample("noise", dist.LogNormal(-0.5, 0.3))
        phi = numpyro.sample("phi", p4.GibbsField(field))
        numpyro.sample("data", dist.Normal(phi, noise).to_event(1), obs=data)

    tree = p4.sample(model, num_warmup=500, num_samples=2000, kernel="hmc", seed=15)
    ours = {name: tree["posterior"][name].values for name in ("noise", "phi")}
    mcmc = numpyro.infer.MCMC(
        numpyro.infer.NUTS(model), num_warmup=300, num_samples=1000, num_chains=4, chain_method="vectorized",
        progress_bar=False,
    )  # fmt: skip
    mcmc.run(jax.random.key(16))
    theirs = mcmc.get_samples(group_by_chain=True)
    for wrong in (0.0, 0.1):
        scores = {}
        for name, power in (("noise", 1), ("noise", 2), ("phi", 1), ("phi", 2)):
            a = gamma_method(ours[name].astype(float) ** power)
            b = gamma_method((np.asarray(theirs[name], float) + wrong) ** power)
            z = (a.mean - b.mean) / np.hypot(a.error, b.error)
            scores |= {f"{name}^{power} {k}": float(value) for k, value in enumerate(np.ravel(z))}
        assert bool(rejected(scores)) == bool(wrong), scores


# --- sign moves are exact also where they should not be made


def run_of(model, *, kernel="hmc", memory_limit=None, flip_signs=False, **options):
    """`run_chains` without the checks that `phi4ppl.sample` makes first."""
    settings = dict(num_warmup=200, num_samples=100, num_chains=4, seed=17, thinning=1, progress=False) | options
    return run_chains(p4.compile(model), get_kernel(kernel), observables={}, keep=lambda name: True,
                      flip_signs=flip_signs, memory_limit=memory_limit, **settings)  # fmt: skip


def test_sign_moves_forced_on_an_odd_model_are_exact(reference):
    case = reference["single_a-2.0_b0.25_r0.1"]
    result = run_of(model_of(case), flip_signs=True, num_samples=4000)
    phi = result.values["phi"]
    names = ["<phi^1>", "<phi^2>", "<phi^3>", "<phi^4>", "<S>"]
    series = {name: series_of(name, phi, -result.statistics["lp"]) for name in names}
    scores = z_scores(series, {name: case["quantities"][name]["value"] for name in names})
    assert not rejected(scores)
    assert 0.1 < result.statistics["sign_flipped"].mean() < 0.5


def test_sign_moves_on_a_term_that_only_looks_even_are_exact():
    """The tilt starts beyond the points at which the library looks, so it takes the model for even."""

    def tilt(phi):
        return jnp.maximum(phi - 2.5, 0.0) ** 2

    site = p4.lattice.chain(1)
    model = p4.MarkovRandomField(site, [*p4.gaussian(site, w=1.0, a=0.1).terms, p4.Term("tilt", [[0]], tilt)])
    assert is_even(model)
    tree = p4.sample(model, num_warmup=500, num_samples=4000, kernel="hmc", seed=18)
    x = np.linspace(-15, 15, 30001)
    weight = np.exp(-0.1 * x**2 - np.maximum(x - 2.5, 0) ** 2)
    phi = tree["posterior"]["phi"].values[:, :, 0]
    series = {f"phi^{k}": phi**k for k in (1, 2, 3, 4)}
    exact = {f"phi^{k}": float((weight * x**k).sum() / weight.sum()) for k in (1, 2, 3, 4)}
    assert not rejected(z_scores(series, exact))
    assert rejected(z_scores({"phi": np.where(phi > 2.5, -phi, phi)}, {"phi": exact["phi^1"]}))
    assert 0.1 < tree["sample_stats"]["sign_flipped"].values.mean() < 0.49


# --- what must not change the numbers


CHAIN = p4.lattice.chain(4)


def short_run(kernel="hmc", **options):
    model = p4.phi4(CHAIN, w=0.8, a=1.4, b=0.2)
    settings = dict(num_warmup=40, num_samples=60, num_chains=3, seed=5, kernel=kernel) | options
    return p4.sample(model, **settings)


def variables(tree) -> dict:
    return {
        f"{group}/{n}": v.values for group in ("posterior", "sample_stats") for n, v in tree[group].data_vars.items()
    }


def assert_same(first: dict, second: dict):
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)


@pytest.mark.parametrize("kernel", ["nuts", pytest.param("hmc", marks=pytest.mark.compile_quickly(False))])
def test_a_run_repeats_bit_for_bit_however_it_is_cut_into_chunks(kernel, monkeypatch):
    whole = variables(short_run(kernel))
    other = variables(short_run(kernel, seed=6))
    assert not np.any(whole["posterior/phi"] == other["posterior/phi"])
    assert_same(whole, variables(short_run(kernel)))
    monkeypatch.setattr(chains, "SECONDS_PER_CHUNK", 1e-9)  # one iteration at a time
    if kernel == "hmc":
        monkeypatch.setattr(chains, "BUFFER_BYTES", 5000)  # a buffer of a few draws, so a newly compiled program
    assert_same(whole, variables(short_run(kernel)))


def test_thinning_keeps_every_kth_draw_and_the_statistics_of_all():
    every, third = short_run(), short_run(num_samples=20, thinning=3)
    np.testing.assert_array_equal(every["posterior"]["phi"].values[:, 2::3], third["posterior"]["phi"].values)
    one, three = (tree["sample_stats"] for tree in (every, third))
    np.testing.assert_array_equal(one["lp"].values[:, 2::3], three["lp"].values)
    np.testing.assert_array_equal(one["n_steps"].values.reshape(3, 20, 3).sum(axis=2), three["n_steps"].values)
    np.testing.assert_array_equal(
        one["sign_flipped"].values.reshape(3, 20, 3).any(axis=2), three["sign_flipped"].values
    )
    np.testing.assert_allclose(
        one["acceptance_rate"].values.reshape(3, 20, 3).mean(axis=2), three["acceptance_rate"].values, rtol=1e-5
    )


@pytest.mark.compile_quickly(False)  # bits of two programs are compared
def test_observables_are_the_same_without_the_fields():
    with_field, without = variables(short_run()), variables(short_run(keep_field=False))
    assert with_field.pop("posterior/phi").shape == (3, 60, 4)
    assert_same(with_field, without)


def test_neighboring_chains_start_with_opposite_signs():
    compiled = p4.compile(p4.phi4(p4.lattice.square(5), a=1.5, b=0.2))
    starts = np.asarray(chains._starts(compiled, jax.random.split(jax.random.key(0), 6)))
    assert np.sign(starts.mean(axis=(1, 2))).tolist() == [1, -1, 1, -1, 1, -1]
    assert len(np.unique(np.abs(starts))) == starts.size


# --- refusals


def test_a_run_that_does_not_fit_in_memory_is_refused_before_it_starts():
    model = p4.phi4(p4.lattice.square(4), a=1.5, b=0.2)
    with raises("memory.too_small", "4 chains × 100 draws", "1 kB", "keep_field=False") as refusal:
        run_of(model, memory_limit=1000)
    assert refusal.value.values["limit_bytes"] == 1000 < refusal.value.values["needed_bytes"]
    with raises("memory.too_small", "1 chain × 1000000000000 draws", "TB"):
        p4.sample(model, num_samples=10**12, num_chains=1, kernel="hmc")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        # JAX drops the bits above the 32nd: it would be the run of seed 0
        ({"seed": 2**40}, ("argument.seed.too_large", "4294967295", "got 1099511627776")),
        ({"seed": 2**64}, ("argument.seed.too_large", "4294967295")),
        ({"seed": -1}, ("argument.seed", "0", "got -1")),
        ({"progress": "yes"}, ("argument.progress", "got 'yes'")),
        ({"checkpoint": 3}, ("argument.checkpoint", "got 3")),
        ({"checkpoint": ""}, ("argument.checkpoint", "got ''")),
        # dimensions of the result, whose coordinates such an observable would replace
        ({"observables": {"chain": jnp.sum}}, ("argument.observables.name", "'chain'")),
        ({"observables": {"site": jnp.sum}}, ("argument.observables.name", "got 'site'")),
        ({"num_warmup": 10**10}, ("argument.num_warmup.too_large", "got 10000000000")),  # a plan of many gigabytes
        ({"model_kwargs": 3}, ("argument.model_kwargs", "NumPyro", "got 3")),
    ],
)
def test_arguments_that_would_be_misread_are_refused(options, message):
    with raises(*message):
        short_run(**options)


def on_one_site(statistic):
    site = p4.lattice.chain(1)
    return p4.MarkovRandomField(site, [p4.Term("own", [[0]], statistic)])


def test_a_start_without_finite_density_is_refused():
    """log φ is nan at negative φ, where the second chain starts."""
    with raises("sampling.not_finite", "nan", "at its start") as refusal:
        run_of(on_one_site(lambda phi: phi**2 - jnp.log(phi)))
    assert refusal.value.values["chain"] == 1 and np.isnan(refusal.value.values["log_density"])
    with raises("hammersley_clifford.not_positive", "inf"):
        p4.sample(on_one_site(lambda phi: phi**2 - jnp.log(phi)))


@pytest.mark.parametrize(("after", "when"), [(30, "during warm-up"), (220, "at draw")])
def test_a_density_that_stops_being_finite_stops_the_run(after, when):
    """A kernel that walks one step to the right each time, into a region where S is infinite."""

    def build(target, tuning):
        def init(position):
            return State(position, *target.init(position))

        def step(key, state):
            return init(state.position + 1), Info(0.8 + 0 * state.logdensity, False, state.logdensity, 1)

        return SamplingAlgorithm(init, step)

    kernel = Kernel("walk", "walks to the right", build, get_kernel("hmc").statistics)
    model = on_one_site(lambda phi: jnp.where(phi > after, jnp.inf, 0 * phi))
    with raises("sampling.not_finite", "-inf", when):
        run_of(model, kernel=kernel)


def test_an_action_unbounded_below_is_refused():
    model = p4.phi4(p4.lattice.chain(2), w=0.1, a=1.0, b=-0.1)
    with raises("hammersley_clifford.not_normalizable"):
        p4.sample(model)


def test_progress_is_drawn_on_request_and_never_by_default_into_a_file(capfd):
    short_run()
    assert capfd.readouterr() == ("", "")
    short_run(progress=True)
    out, err = capfd.readouterr()
    assert out == "" and err.endswith("\n")
    last = err.splitlines()[-1]  # no terminal: whole lines, few of them
    assert re.fullmatch(
        r"sampling █+ 100% · \d+ steps/s per chain · acceptance \d\.\d\d · \d+ divergences · \d+ s *", last
    ), last
    assert "compiling" in err and "\r" not in err and err.count("\n") < 5
    short_run(progress=False)
    assert capfd.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_line_left_by_an_error_is_closed(monkeypatch):
    """On a terminal one line, redrawn in place; the traceback begins on the next."""
    monkeypatch.setattr(progress.sys, "stderr", terminal := Terminal())
    with pytest.raises(p4.errors.OverlapError):
        p4.PartitionSurface(p4.gaussian(p4.lattice.chain(4), w=0.2, a=1.0), {"w": (0.0, 0.9)}, max_ensembles=1)
    text = terminal.getvalue()
    assert "partition surface: ensemble 1" in text and text.count("\n") == 1 and text.endswith("\n")


def test_every_progress_line_is_closed():
    """All but the run, which closes it with its checkpoint, are context managers."""
    package = Path(p4.__file__).parent
    lines = [line for path in package.rglob("*.py") for line in path.read_text(encoding="utf-8").splitlines()]
    used = [line for line in lines if re.search(r"[^`]\bProgress\(", line)]
    assert len(used) > 8 and [line.split("=")[0].strip() for line in used if " with " not in line] == ["self.bar"]


def test_notebooks_show_progress_though_their_streams_are_no_terminals(monkeypatch):
    class Kernel:
        config = {"IPKernelApp": {}}

    assert not progress.in_notebook()
    bar = progress.Progress(4, None, stream := io.StringIO())
    bar.advance(4, "sampling", None, None)
    assert stream.getvalue() == ""
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=Kernel))
    with progress.Progress(4, None, stream) as bar:
        bar.message("compiling …")
        bar.advance(1, "warm-up", 0.8, None)
        assert bar.bar.n == 25
    assert stream.getvalue().split("\r")[1].strip() == "compiling …"
    assert re.fullmatch("warm-up   25% · acceptance 0.80", stream.getvalue().split("\r")[2].strip())
    silent = progress.Progress(4, False, io.StringIO())
    silent.message("nothing")
    assert silent.stream.getvalue() == ""


def test_speed_and_time_left_leave_out_what_was_also_compiled(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")  # wide enough for all parts of the line
    now, terminal = [0.0], Terminal()
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = progress.Progress(1_000_000, None, terminal)
    for second, steps in ((60, 10), (61, 100), (62, 100)):  # a minute of compiling, then 100 steps a second
        now[0] = second
        bar.advance(steps, "warm-up", 0.8, None)
    now[0] = 90_000.0
    bar.advance(1_000_000 - 210, "sampling", None, 0)
    first, *later, last = [line.strip() for line in terminal.getvalue().split("\r")[1:]]
    assert "steps/s" not in first and "left" not in first
    assert (
        all(line.endswith("100 steps/s per chain · acceptance 0.80 · 2.8 h left") for line in later) and len(later) == 2
    )
    assert last.endswith("0 divergences · 25.0 h")
    assert [progress._duration(s) for s in (119, 121, 7300, 200_000)] == ["119 s", "2 min", "2.0 h", "2.3 d"]
