"""Functions of reweighted means: errors and covariances along a scan against exact Gaussian moments.

Statistical tests: false alarms 1e-4 each, six of them; samples are fixed by their keys.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from raising import raises
from test_reweighting import calibration_alarm, gaussian_draws, independent_sites, squares

import phi4ppl as p4
from phi4ppl.analysis import derive
from phi4ppl.analysis.mbar import log_mixture, ratios_without_each, shares_of, solve_mbar, sums_without_each

pytestmark = pytest.mark.compile_quickly

SITES = 64
A_VALUES = (0.97, 1.0, 1.03)
TARGETS = np.array([0.98, 0.995, 1.02])
MOMENTS = {"m2": squares, "m4": lambda phi: phi**4}
U4 = {"U4": lambda m: 1 - m["m4"] / (3 * m["m2"] ** 2)}  # of every site: zero, since the sites are Gaussian


# --- log Z without one block each


@pytest.fixture(scope="module")
def pool():
    """Energies of three ensembles of 1000 draws, S = a Σ φ²."""
    models = (0.6, 1.0, 1.7)
    fields = np.concatenate([gaussian_draws(k, 1, 1000, 12, a)[0] for k, a in enumerate(models)])
    return np.array(models)[:, None] * np.sum(fields**2, axis=1), np.full(3, 1000.0)


@pytest.mark.parametrize("ensemble", [0, 2])
def test_all_blocks_at_once_are_each_block_by_itself(pool, ensemble):
    """Log Z and weighted sums to 1e-10, against solving the equations for the samples that are left."""
    energies, counts = pool
    solution = solve_mbar(energies, counts)
    shares = shares_of(energies, counts, solution)
    np.testing.assert_allclose(shares.sum(axis=0), 1)
    block = np.full(3000, -1)
    block[1000 * ensemble : 1000 * (ensemble + 1)] = np.repeat([0, 1, 2, 3], [100, 300, 300, 300])
    ratios = ratios_without_each(shares, counts, block, ensemble)
    weights = np.exp(-np.array([[0.1], [0.2 + 0.1j]]) * energies[0]).T
    table = np.stack([np.ones(3000), energies[0]], axis=1)
    sums = sums_without_each(shares, ratios, block, weights, table)
    for b in range(4):
        left, kept = counts.copy(), block != b
        left[ensemble] -= np.sum(~kept)
        alone = solve_mbar(energies[:, kept], left)
        np.testing.assert_allclose(
            solution.log_partition - np.log(ratios[b] * counts / left), alone.log_partition, atol=1e-10
        )
        change = np.exp(solution.log_mixture[kept] - log_mixture(energies[:, kept], left, alone.log_partition))
        np.testing.assert_allclose(sums[b], (weights[kept] * change[:, None]).T @ table[kept], rtol=1e-10)


def test_blocks_that_the_fast_steps_cannot_solve_are_solved_one_by_one(monkeypatch):
    samples = [gaussian_draws(k, 4, 200, 12, a) for k, a in enumerate((0.6, 1.0))]
    models = [independent_sites(12, a) for a in (0.6, 1.0)]
    fast = p4.combine_ensembles(samples, models)
    monkeypatch.setattr("phi4ppl.analysis.mbar.MAX_CHORD_STEPS", 1)
    slow = p4.combine_ensembles(samples, models)
    np.testing.assert_allclose(slow.log_partition_error, fast.log_partition_error, atol=1e-10)
    here = independent_sites(12, 0.8)
    for one, other in zip(*(p.reweight(here, MOMENTS).error.values() for p in (slow, fast)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8)


# --- along a scan


@pytest.fixture(scope="module")
def scan():
    """Three ensembles of 4000 draws with τ_int = 1.5."""
    models = [independent_sites(SITES, a) for a in A_VALUES]
    samples = [gaussian_draws(20 + k, 4, 1000, SITES, a, rho=0.7) for k, a in enumerate(A_VALUES)]
    return p4.scan_reweighting(samples, models, lambda a: models[0].replace(a=a), TARGETS)


@pytest.fixture(scope="module")
def found(scan):
    return scan.derive(U4 | {"m2": lambda m: m["m2"]}, MOMENTS)


def test_binder_cumulant_along_a_scan_has_its_true_error(scan, found):
    """Its fluctuations are half those of ⟨m⁴⟩ and ⟨m²⟩² apart, since both move together: naive errors are planted."""
    u4, means = found["U4"], scan.estimate(MOMENTS)
    m2, m4 = means["m2"].values, means["m4"].values
    by_m4, by_m2 = means["m4_error"].values / (3 * m2**2), 2 * m4 / (3 * m2**3) * means["m2_error"].values
    np.testing.assert_allclose(u4.value, 1 - m4 / (3 * m2**2))
    for k in range(len(TARGETS)):
        assert not calibration_alarm((u4.value - u4.bias)[k] / u4.error[k])
    naive = np.hypot(by_m4, by_m2)
    assert np.all(naive > 1.3 * u4.error) and calibration_alarm(((u4.value - u4.bias) / naive)[1])
    assert np.all(u4.reliable) and np.array_equal(found.couplings, TARGETS)


def test_covariance_along_a_scan_gives_the_error_of_a_difference(found):
    """U₄ at one coupling less that at another: planted is the sum of their squared errors."""
    u4, matrix = found["U4"], found.covariance("U4")
    np.testing.assert_allclose(np.sqrt(np.diag(matrix)), u4.error.ravel(), rtol=1e-10)
    matrix = matrix.reshape(len(TARGETS), SITES, len(TARGETS), SITES)
    own = np.arange(SITES)
    between = matrix[0, own, 2, own]
    difference = (u4.value - u4.bias)[0] - (u4.value - u4.bias)[2]
    apart = u4.error[0] ** 2 + u4.error[2] ** 2
    assert not calibration_alarm(difference / np.sqrt(apart - 2 * between))
    assert calibration_alarm(difference / np.sqrt(apart))


def test_means_along_a_scan_have_the_errors_of_the_estimate(scan, found):
    means, m2 = scan.estimate(MOMENTS), found["m2"]
    np.testing.assert_allclose(m2.error, means["m2_error"].values, rtol=0.02)  # blocks are the same, τ_int is not quite
    data = found.dataset()
    np.testing.assert_array_equal(data["m2_error"].values, m2.error)
    assert np.all(data["supported"]) and data["U4"].dims == ("coupling", "U4_dim_0")
    mean = scan.derive({"chi": lambda m: m["m2"].mean()}, MOMENTS)
    (axis,) = p4.plot_scans({"pool": mean.dataset()}, "chi").axes
    drawn = axis.containers[0].lines[0].get_xydata()
    np.testing.assert_allclose(drawn, np.stack([TARGETS, mean["chi"].value], axis=1))
    assert axis.get_ylabel() == "chi"


def test_log_z_along_a_scan(scan):
    """log Z_A/Z_0 = −(n/2) log(a/a_0), and its differences, within four errors: false alarm 1e-4."""
    found = scan.derive({"log Z": lambda m: m["log_partition_ratio"]}, {})
    exact, part, matrix = -SITES / 2 * np.log(TARGETS / A_VALUES[0]), found["log Z"], found.covariance()
    assert np.all(np.abs(part.value - exact) < 4 * part.error)
    error = np.sqrt(matrix[0, 0] + matrix[1, 1] - 2 * matrix[0, 1])
    assert abs(np.diff(part.value - exact)[0]) < 4 * error < 4 * part.error[1]


def test_couplings_outside_the_range_are_omitted_or_told():
    phi, model = gaussian_draws(3, 2, 1000, 40), independent_sites(40)
    scan = p4.scan_reweighting(phi, model, lambda a: model.replace(a=a), [1.0, 1.1, 4.0])
    mean = {"m2": lambda phi: jnp.mean(phi**2)}
    with raises("overlap.outside_support"):
        scan.derive({"m2": lambda m: m["m2"]}, mean)
    assert scan.derive({"m2": lambda m: m["m2"]}, mean, outside="omit")["m2"].value.shape == (2,)
    told = scan.derive({"m2": lambda m: m["m2"]}, mean, outside="warn")
    assert told["m2"].reliable.tolist() == [True, True, False] and told.warnings
    with raises("argument.mean.name", "log_partition_ratio, m2"):
        scan.derive({"m3": lambda m: m["m3"]}, mean, outside="omit")
    with raises("argument.quantities"):
        scan.derive({}, mean, outside="omit")


# --- one target


def test_functions_of_reweighted_means():
    phi, model = gaussian_draws(4, 4, 2000, 4, rho=0.5), independent_sites(4)
    turned = p4.reweight(phi, model, lambda f: model.energy(f) + 0.1j * jnp.sum(f**2), MOMENTS)
    found = derive(turned, {"m2": lambda m: m["m2"], "log Z": lambda m: m["log_partition_ratio"]})
    np.testing.assert_allclose(found["m2"].value, turned.mean["m2"])
    np.testing.assert_allclose(found["m2"].error, turned.error["m2"], rtol=0.2)  # 200 blocks know it to 5 %
    assert found["log Z"].value == pytest.approx(turned.log_partition_ratio)
    assert found["log Z"].error == pytest.approx(turned.log_partition_ratio_error, rel=0.2)
    # with equal weights they are those of the draws themselves
    same = derive(p4.reweight(phi, model, model, MOMENTS), U4)["U4"]
    plain = derive({"m2": phi**2, "m4": phi**4}, U4, method="jackknife")["U4"]
    np.testing.assert_allclose(same.value, plain.value, rtol=1e-5)
    np.testing.assert_allclose(same.error, plain.error, rtol=0.2)
    np.testing.assert_allclose(same.bias, plain.bias, rtol=0.4, atol=1e-4)


def test_reweighted_means_next_to_an_independent_run():
    model = independent_sites(4)
    one = p4.reweight(gaussian_draws(5, 4, 1000, 4), model, independent_sites(4, 1.05), MOMENTS)
    run = {"m2": gaussian_draws(6, 4, 1000, 4) ** 2}
    found = derive([one, run], {"d": lambda m: m[0]["m2"] - m[1]["m2"], "own": lambda m: m[0]["m2"]})
    own, other = derive(one, {"m2": lambda m: m["m2"]})["m2"], derive(run, {"m2": lambda m: m["m2"]})["m2"]
    np.testing.assert_allclose(found["d"].error, np.hypot(own.error, other.error))
    np.testing.assert_allclose(np.diag(found.covariance()[:4, 4:]), own.error**2)
    with raises("argument.d", "pyerrors"):
        pytest.importorskip("pyerrors")
        derive([one, run], {"d": lambda m: m[0]["m2"][0]}).to_pyerrors()


def test_two_targets_of_one_pool_are_not_independent():
    phi, model = gaussian_draws(7, 4, 500, 4), independent_sites(4)
    two = [p4.reweight(phi, model, independent_sites(4, a), MOMENTS) for a in (1.05, 1.1)]
    with raises("argument.runs.duplicate", "scan_reweighting"):
        derive(two, {"d": lambda m: m[0]["m2"] - m[1]["m2"]})


def test_unreliable_weights_are_told():
    phi, model = gaussian_draws(8, 2, 200, 30), independent_sites(30)
    with pytest.warns(p4.errors.Phi4pplWarning):
        poor = p4.reweight(phi, model, independent_sites(30, 2.0), MOMENTS, on_poor_overlap="warn")
    found = derive(poor, {"m2": lambda m: m["m2"].mean()})
    assert not found["m2"].reliable and found.warnings


@pytest.mark.slow
def test_intervals_along_a_scan_cover():
    """68 % intervals of U₄ of pooled ensembles cover 63 to 73 % at 30 repeats of 32 sites and two couplings.

    Sites are independent, couplings are not: a standard error of some 1.5 %, a false alarm of 1e-3. Naive errors cover more.
    """
    inside, naive = [], []
    models = [independent_sites(32, a) for a in (0.97, 1.03)]
    for seed in range(30):
        samples = [gaussian_draws(2 * seed + k + 100, 4, 500, 32, a, rho=0.7) for k, a in enumerate((0.97, 1.03))]
        scan = p4.scan_reweighting(samples, models, lambda a: models[0].replace(a=a), [0.98, 1.0])
        u4, means = scan.derive(U4, MOMENTS)["U4"], scan.estimate(MOMENTS)
        m2, m4 = means["m2"].values, means["m4"].values
        error = np.hypot(means["m4_error"].values / (3 * m2**2), 2 * m4 / (3 * m2**3) * means["m2_error"].values)
        inside.append(abs(u4.value - u4.bias) < u4.error)
        naive.append(abs(u4.value - u4.bias) < error)
    assert 0.63 < np.mean(inside) < 0.73 < np.mean(naive)
