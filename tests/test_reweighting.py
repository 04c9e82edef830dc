"""Reweighting against exact Gaussian integrals, the complex values of reference.json, and pymbar.

Statistical tests: false alarms 1e-4 each, about ten of them; samples are fixed by their keys.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact_runs import model_of, rejected
from raising import raises, warns
from scipy import stats

import phi4ppl as p4
from phi4ppl.reweighting import solve_mbar
from phi4ppl.reweighting.energies import difference, evaluate

pytestmark = pytest.mark.compile_quickly

ALARM = 1e-4


def independent_sites(n, a=1.0):
    return p4.gaussian(p4.lattice.chain(n), w=0.0, a=a)


def gaussian_draws(seed, chains, draws, n, a=1.0, rho=0.0):
    """Draws of `independent_sites`, each site an AR(1) series in time with τ_int = (1 + ρ)/(2 (1 − ρ))."""
    noise = np.random.default_rng(seed).normal(size=(chains, draws, n))
    for t in range(1, draws):
        noise[:, t] = rho * noise[:, t - 1] + np.sqrt(1 - rho**2) * noise[:, t]
    return noise * np.sqrt(0.5 / a)


def squares(phi):
    return phi**2


def calibration_alarm(z) -> bool:
    """Whether Σz² of nearly independent scores is what standard normal ones would show, two-sided."""
    total = float(np.sum(np.square(z)))
    return not stats.chi2.isf(1 - ALARM / 2, len(z)) < total < stats.chi2.isf(ALARM / 2, len(z))


# --- one ensemble


@pytest.fixture(scope="module")
def correlated_runs():
    """φ_i² at 64 sites of three runs with τ_int = 4.5, reweighted from a = 1 to 1.03: z-scores and naive z-scores."""
    scores, naive = [], []
    for seed in range(3):
        phi = gaussian_draws(seed, 4, 2500, 64, rho=0.8)
        result = p4.reweight(phi, independent_sites(64), independent_sites(64, 1.03), {"phi2": squares})
        off = result.mean["phi2"] - 1 / 2.06
        scores.append(off / result.error["phi2"])
        naive.append(off / (phi**2).std(axis=(0, 1)) * np.sqrt(10_000))
    return np.concatenate(scores), np.concatenate(naive)


def test_errors_are_calibrated_for_correlated_draws(correlated_runs):
    assert not calibration_alarm(correlated_runs[0])


def test_errors_that_ignore_autocorrelation_are_caught(correlated_runs):
    assert calibration_alarm(correlated_runs[1])


def test_complex_gaussian_has_its_exact_values():
    n, g = 8, 0.15
    model = independent_sites(n)
    result = p4.reweight(
        gaussian_draws(5, 4, 5000, n),
        model,
        lambda phi: model.energy(phi) + 1j * g * jnp.sum(phi**2),
        {"phi2": squares},
    )
    exact = 1 / (2 * (1 + 1j * g))
    log_ratio = -n / 2 * np.log(1 + 1j * g)
    off = result.mean["phi2"] - exact
    scores = {f"Re {i}": z for i, z in enumerate(off.real / result.error["phi2"].real)}
    scores |= {f"Im {i}": z for i, z in enumerate(off.imag / result.error["phi2"].imag)}
    off = result.log_partition_ratio - log_ratio
    scores |= {"Re log Z": off.real / result.log_partition_ratio_error.real}
    scores |= {"Im log Z": off.imag / result.log_partition_ratio_error.imag}
    assert not rejected(scores)
    off, error = result.average_phase - np.exp(log_ratio), result.average_phase_error  # real weights are all one here
    assert not rejected({"Re phase": off.real / error.real, "Im phase": off.imag / error.imag})
    # planted: the other sign of the imaginary coupling
    wrong = np.conj(exact)
    assert rejected({"Im": ((result.mean["phi2"] - wrong).imag / result.error["phi2"].imag).mean()})


@pytest.mark.parametrize("g", ["g1.0", "g0.5"])
def test_three_steps_at_once_reach_the_complex_reference_values(reference, g):
    """From a neighboring action to A₄, and on to A₅ = A₄ + 0.15 i Σφ², in one estimator."""
    case = reference[f"square_diag_L3_{g}_a1.52425_b0.175"]
    target = model_of(case)
    source = target.replace(a=1.56, w=0.995 * np.asarray(target.couplings["w"]))
    tree = p4.sample(source, num_warmup=500, num_samples=5000, kernel="cluster", seed=11, progress=False)
    phi = tree["posterior"]["phi"].values
    observables = {
        "<phi^2>": lambda f: jnp.mean(f**2), "<phi^4>": lambda f: jnp.mean(f**4),
        "<phi_0 phi_nn>": lambda f: f[0] * f[1],
        "<phi_0 phi_diag>": lambda f: f[0] * f[4],
        "<A>/V": lambda f: target.energy(f) / 9,
    }  # fmt: skip
    exact = {name: q["value"] for name, q in case["quantities"].items()}
    real = p4.reweight(phi, source, target, observables)
    scores = {n: (real.mean[n] - exact[n]) / real.error[n] for n in observables}
    five = observables | {"<A>/V": lambda f: (target.energy(f) + 0.15j * jnp.sum(f**2)) / 9}
    result = p4.reweight(phi, source, lambda f: target.energy(f) + 0.15j * jnp.sum(f**2), five)
    for name in observables:
        off, error = result.mean[name] - complex(*exact[f"{name}_5"]), result.error[name]
        scores |= {f"Re {name}": off.real / error.real, f"Im {name}": off.imag / error.imag}
    assert not rejected(scores)
    ratio = np.exp(result.log_partition_ratio - real.log_partition_ratio)  # Z5/Z4
    assert ratio == pytest.approx(complex(*exact["Z5/Z4"]), abs=5 * abs(result.log_partition_ratio_error))
    assert abs(result.log_partition_ratio_error) < 0.05


def test_target_equal_to_the_source_changes_nothing():
    phi = gaussian_draws(1, 2, 300, 4)
    result = p4.reweight(phi, independent_sites(4), independent_sites(4), {"phi2": squares})
    np.testing.assert_allclose(result.mean["phi2"], (phi**2).mean(axis=(0, 1)), rtol=1e-6)
    assert (result.overlap, result.average_phase, result.pareto_k) == (1.0, 1.0, -np.inf)
    assert result.log_partition_ratio == 0 and result.reliable


def test_difference_of_models_keeps_its_digits_in_single_precision():
    """Planted: the difference of two energies, each of which float32 knows to a few thousandths only."""
    lattice = p4.lattice.square(128)
    source = p4.phi4(lattice, a=1.52425, b=0.175)
    target = source.replace(a=1.52525)
    phi = np.random.default_rng(0).normal(size=(3, 128, 128)).astype(np.float32)
    exact = 0.001 * np.sum(phi.astype(float) ** 2, axis=(1, 2))
    np.testing.assert_allclose(evaluate(difference(target, source), phi), exact, rtol=1e-5)
    naive = evaluate(lambda f: target.energy(f) - source.energy(f), phi)
    assert np.abs(naive - exact).max() > 1e-4 * exact.max()


def test_model_and_function_of_the_same_action_agree():
    model = p4.phi4(p4.lattice.square(3), a=1.9, b=0.175)
    target = model.replace(a=1.95, w=0.98)
    phi = np.random.default_rng(2).normal(size=(2, 400, 3, 3)) * 0.5
    by_model = p4.reweight(phi, model, target, {"m": jnp.mean}, on_poor_overlap="warn")
    by_function = p4.reweight(phi, model.energy, target.energy, {"m": jnp.mean}, on_poor_overlap="warn")
    assert by_model.mean["m"] == pytest.approx(by_function.mean["m"], rel=1e-4)
    assert by_model.log_partition_ratio == pytest.approx(by_function.log_partition_ratio, abs=1e-4)


def test_other_terms_enter_the_difference(x64):
    lattice = p4.lattice.square(4, diagonals=True)
    base = p4.phi4(lattice, w={"nn": 1.0}, a=1.9, b=0.2)
    more = p4.phi4(lattice, w={"nn": 0.9, "diagonal": 0.1}, a=1.9, b=0.2, r=0.3)
    phi = np.random.default_rng(2).normal(size=(5, 4, 4))
    expected = np.asarray(more.energy(phi)) - np.asarray(base.energy(phi))
    np.testing.assert_allclose(evaluate(difference(more, base), phi), expected, rtol=1e-10)
    np.testing.assert_allclose(evaluate(difference(base, more), phi), -expected, rtol=1e-10)


# --- refusals


@pytest.fixture(scope="module")
def longer_range():
    """A₄ on the 4×4 torus and 16,000 draws of it."""
    lattice = p4.lattice.square(4, diagonals=True)
    model = p4.phi4(lattice, w={"nn": 1.0, "diagonal": 1.0}, a=1.52425, b=0.175)
    tree = p4.sample(model, num_warmup=500, num_samples=4000, kernel="cluster", seed=3, progress=False)
    return model, tree["posterior"]["phi"].values


def test_too_little_overlap_is_refused_and_the_range_is_known_beforehand(longer_range):
    """log Z(g′) has the second derivative 188 here, so the overlap at g′ = 1 ± 0.1 is about exp(−1.88) = 0.15."""
    model, phi = longer_range
    with raises("overlap.poor", "16000", "100", "on_poor_overlap='warn'"):
        p4.reweight(phi, model, model.replace(w_diagonal=1.3))
    with warns("overlap.poor"):
        result = p4.reweight(phi, model, model.replace(w_diagonal=1.3), on_poor_overlap="warn")
    assert not result.reliable and "NOT RELIABLE" in str(result)
    scan = p4.scan_reweighting(phi, model, lambda g: model.replace(w_diagonal=g), np.linspace(0.75, 1.25, 11))
    low, high = scan.supported
    assert 0.8 <= low <= 0.9 and 1.1 <= high <= 1.2
    assert 0.12 < float(scan.weights["overlap"].sel(coupling=0.9, method="nearest")) < 0.21
    with raises("overlap.outside_support"):
        scan.estimate({"m2": lambda f: jnp.mean(f) ** 2})
    inside = scan.estimate({"m2": lambda f: jnp.mean(f) ** 2}, outside="omit")
    assert inside["coupling"].values[[0, -1]].tolist() == [low, high] and bool(inside["supported"].all())
    single = p4.reweight(phi, model, model.replace(w_diagonal=high), {"m2": lambda f: jnp.mean(f) ** 2})
    assert float(inside["m2"][-1]) == pytest.approx(single.mean["m2"], rel=1e-4)
    assert float(inside["m2_error"][-1]) == pytest.approx(single.error["m2"], rel=1e-3)
    everywhere = scan.estimate({"m2": lambda f: jnp.mean(f) ** 2}, outside="warn")
    assert everywhere.sizes["coupling"] == 11 and not bool(everywhere["supported"].all())


def test_cancelling_phases_are_refused():
    model = independent_sites(64)
    phi = gaussian_draws(0, 4, 1000, 64)
    with raises("overlap.poor", "average phase"):
        p4.reweight(phi, model, lambda f: model.energy(f) + 0.9j * jnp.sum(f**2))


def test_heavy_tails_are_refused_by_pareto_k():
    """exp(0.9 φ²) under exp(−φ²): the weights have no variance, however many effective samples there seem to be."""
    model = independent_sites(1)
    with raises("overlap.poor", "Pareto k̂"):
        p4.reweight(gaussian_draws(4, 4, 25_000, 1), model, independent_sites(1, 0.05))


def test_chains_shorter_than_their_correlations_are_refused():
    phi = gaussian_draws(4, 2, 300, 1, rho=0.995)
    with warns("overlap.poor", "too short"):
        p4.reweight(phi, independent_sites(1), independent_sites(1, 1.01), {"phi2": squares}, on_poor_overlap="warn")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": np.ones((3, 4))}, ("argument.samples.shape", "4", "(3, 4)")),
        ({"samples": np.full((2, 20, 4), np.nan)}, ("argument.samples.finite",)),
        ({"source": 3.0}, ("argument.source", "MarkovRandomField")),
        ({"target": lambda phi: phi}, ("argument.target.returns",)),
        ({"target": independent_sites(5)}, ("argument.target.shape", "(4,)")),
        ({"target": lambda phi: jnp.log(phi[0] - 100)}, ("argument.target.finite",)),
        ({"observables": [jnp.mean]}, ("argument.observables",)),
        (
            {"observables": {"log": lambda phi: jnp.log(phi[0])}},
            ("argument.observables.finite", "observables['log']"),
        ),
        ({"on_poor_overlap": "ignore"}, ("argument.on_poor_overlap", "'raise'", "'warn'")),
    ],
)
def test_bad_arguments_say_what_to_do(change, message):
    arguments = {
        "samples": gaussian_draws(0, 2, 100, 4), "source": independent_sites(4), "target": independent_sites(4, 1.01),
        "observables": None,
    }  # fmt: skip
    with raises(*message):
        p4.reweight(**arguments | change)


def test_scan_refuses_what_it_cannot_trace_or_order():
    phi, model = gaussian_draws(0, 2, 100, 4), independent_sites(4)
    with raises("argument.family.raises"):
        p4.scan_reweighting(phi, model, lambda a: independent_sites(4, float(a)), [1.0, 1.1])
    with raises("argument.values"):
        p4.scan_reweighting(phi, model, lambda a: model.replace(a=a), [1.1, 1.0])
    with raises("argument.family"):
        p4.scan_reweighting(phi, model, model, [1.0, 1.1])


# --- several ensembles


A_VALUES = (0.6, 1.0, 1.7)


@pytest.fixture(scope="module")
def three_ensembles():
    models = [independent_sites(12, a) for a in A_VALUES]
    return [gaussian_draws(10 + k, 4, 1000, 12, a) for k, a in enumerate(A_VALUES)], models


def test_log_partition_of_several_gaussians(three_ensembles):
    together = p4.combine_ensembles(*three_ensembles)
    exact = -6 * np.log(np.array(A_VALUES) / A_VALUES[0])
    z = (together.log_partition - exact)[1:] / together.log_partition_error[1:]
    assert not rejected({str(k): value for k, value in enumerate(z)})
    # planted: log Z at the wrong power of a
    assert rejected({"wrong": (together.log_partition[2] - 0.95 * exact[2]) / together.log_partition_error[2]})
    np.testing.assert_allclose(together.overlap.sum(axis=1), 1, rtol=1e-9)
    assert together.overlap[0, 1] > together.overlap[0, 2] > 0


def test_several_ensembles_reach_between_and_know_their_error(three_ensembles):
    together = p4.combine_ensembles(*three_ensembles)
    result = together.reweight(independent_sites(12, 1.3), {"phi2": squares})
    z = (result.mean["phi2"] - 1 / 2.6) / result.error["phi2"]
    z = np.append(z, (result.log_partition_ratio + 6 * np.log(1.3 / 0.6)) / result.log_partition_ratio_error)
    assert not rejected({str(k): value for k, value in enumerate(z)})
    alone = p4.reweight(three_ensembles[0][1], three_ensembles[1][1], independent_sites(12, 1.3), {"phi2": squares})
    assert result.error["phi2"].mean() < alone.error["phi2"].mean()


def test_mbar_agrees_with_pymbar(three_ensembles, run_python, tmp_path):
    """In a process of its own, since pymbar switches JAX to double precision; values to 1e-8, errors to 25 %."""
    samples, models = three_ensembles
    fields = np.concatenate([x.reshape(-1, 12) for x in samples])
    energies = np.array(A_VALUES)[:, None] * np.sum(fields**2, axis=1)
    counts = np.full(3, 4000)
    np.savez(tmp_path / "in.npz", energies=energies, counts=counts)
    program = (
        "import numpy as np, warnings; warnings.simplefilter('ignore')\n"
        "from pymbar import MBAR\n"
        "data = np.load('in.npz')\n"
        "found = MBAR(data['energies'], data['counts'], solver_protocol='robust').compute_free_energy_differences()\n"
        "np.savez('out.npz', log_partition=-found['Delta_f'][0], error=found['dDelta_f'][0])\n"
    )
    run_python(["-c", program], cwd=tmp_path)
    theirs = np.load(tmp_path / "out.npz")
    np.testing.assert_allclose(solve_mbar(energies, counts).log_partition, theirs["log_partition"], atol=1e-8)
    ours = p4.combine_ensembles(samples, models)
    np.testing.assert_allclose(ours.log_partition, theirs["log_partition"], atol=1e-4)  # energies in single precision
    np.testing.assert_allclose(ours.log_partition_error[1:], theirs["error"][1:], rtol=0.25)


def test_mbar_does_not_depend_on_the_order_or_on_shifts_of_single_samples(three_ensembles):
    fields = np.concatenate([x.reshape(-1, 12) for x in three_ensembles[0]])
    energies, counts = np.array(A_VALUES)[:, None] * np.sum(fields**2, axis=1), np.full(3, 4000.0)
    rng = np.random.default_rng(0)
    there = solve_mbar(energies, counts).log_partition
    moved = solve_mbar(energies[:, rng.permutation(12_000)] + rng.normal(size=12_000), counts).log_partition
    np.testing.assert_allclose(moved, there, atol=1e-8)
    back = solve_mbar(energies[::-1], counts[::-1]).log_partition
    np.testing.assert_allclose(back[::-1] - back[2], there, atol=1e-8)
    # an ensemble without samples is reached by reweighting
    empty = solve_mbar(energies, [6000.0, 6000.0, 0.0], start=[0.0, 1.0, 2.0], weights=np.ones(12_000))
    assert np.isfinite(empty.log_partition[2])


def test_ensembles_without_common_ground_are_refused():
    models = [independent_sites(200, a) for a in (1.0, 9.0)]
    samples = [gaussian_draws(k, 2, 200, 200, a) for k, a in enumerate((1.0, 9.0))]
    with raises("overlap.disconnected"):
        p4.combine_ensembles(samples, models)
    with raises("argument.samples.count"):
        p4.combine_ensembles(samples, models[:1])
    with raises("argument.sources.complex"):
        p4.combine_ensembles(samples, [models[0], lambda f: 1j * jnp.sum(f)])


def test_figure_shows_the_numbers(three_ensembles):
    samples, models = three_ensembles
    values = np.linspace(0.8, 1.2, 5)
    family = lambda a: lambda f: a * jnp.sum(f**2) + 0.1j * jnp.sum(f**2)  # noqa: E731
    real = p4.scan_reweighting(samples[1], models[1], lambda a: models[1].replace(a=a), values)
    turned = p4.scan_reweighting(samples[1], models[1], family, values)
    mean = {"phi2": lambda f: jnp.mean(f**2)}
    scans = {"real": real.estimate(mean), "with 0.1 i": turned.estimate(mean)}
    figure = p4.plot_scans(scans, "phi2", coupling="a")
    upper, lower = figure.axes
    drawn = upper.containers[0].lines[0].get_xydata()
    np.testing.assert_allclose(drawn, np.stack([values, scans["real"]["phi2"].values], axis=1))
    drawn = lower.containers[0].lines[0].get_ydata()
    np.testing.assert_allclose(drawn, scans["with 0.1 i"]["phi2"].values.imag)
    assert lower.get_xlabel() == "a"
    with raises("argument.name.name"):
        p4.plot_scans(scans, "phi4")


def test_double_precision_runs_through(x64):
    phi = jax.random.normal(jax.random.key(0), (2, 500, 4), jnp.float64) * 0.5**0.5
    result = p4.reweight(phi, independent_sites(4), independent_sites(4, 1.1), {"phi2": squares})
    weights = np.exp(-0.1 * np.sum(np.asarray(phi) ** 2, axis=2))
    expected = (weights[..., None] * np.asarray(phi) ** 2).sum(axis=(0, 1)) / weights.sum()
    np.testing.assert_allclose(result.mean["phi2"], expected, rtol=1e-12)
