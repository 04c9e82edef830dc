"""Effective masses and fits of correlators: closed forms, laws of χ² under estimated covariances, and a free field."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from raising import raises
from scipy import stats

import phi4ppl as p4
from phi4ppl.analysis import Correlator, derive, effective_mass, fit_mass, structure_factor, time_slice_correlator
from phi4ppl.analysis.correlators import cosh_mass
from phi4ppl.reports.numbers import value_with_error
from phi4ppl.results.correlations import correlations_part

pytestmark = pytest.mark.compile_quickly

MASS, PERIOD = 0.4, 16
T = np.arange(9)


def cosh(t=T, mass=MASS, period=PERIOD):
    return np.exp(-mass * t) + np.exp(-mass * (period - t))


@pytest.mark.parametrize("period", [16, 17, None])
def test_effective_mass_of_one_state_is_its_mass(x64, period):
    """At all times and exactly, with the derivative of differences; the image forgotten, it would fall towards T/2."""
    exact = jnp.exp(-MASS * T) if period is None else jnp.asarray(cosh(period=period))
    np.testing.assert_allclose(cosh_mass(exact, period), MASS, rtol=1e-10)
    slopes, step = jax.jacfwd(lambda c: cosh_mass(c, period))(exact), 1e-6
    for k in (0, 3, 8):
        moved = [np.asarray(cosh_mass(exact.at[k].add(sign * step), period)) for sign in (1, -1)]
        np.testing.assert_allclose(slopes[:, k], (moved[0] - moved[1]) / (2 * step), rtol=1e-5, atol=1e-5)
    if period == 16:
        assert cosh_mass(exact, None)[-1] < 0.5 * MASS


def test_fit_recovers_one_state_and_weighs_windows_as_stated():
    covariance = 1e-6 * np.exp(-np.abs(T[:, None] - T) / 2)
    value = cosh() + 3e-4 * np.sin(5 * T)
    fit = fit_mass(Correlator(T, value, covariance, period=PERIOD))
    assert abs(fit.value - MASS) < 3 * fit.error < 0.01
    one = next(w for w in fit.windows if (w.first, w.last) == (2, 6))
    window = slice(2, 7)
    residual = value[window] - one.amplitude * cosh(T[window], one.value)
    assert one.chi2 == pytest.approx(residual @ np.linalg.solve(covariance[window, window], residual), rel=1e-6)
    assert one.p == pytest.approx(stats.chi2.sf(one.chi2, 3), rel=1e-3) and one.dof == 3
    scores = np.array([w.chi2 + 4 + 2 * (7 - w.dof) for w in fit.windows])
    weights = np.exp(-scores / 2) / np.exp(-scores / 2).sum()
    np.testing.assert_allclose([w.weight for w in fit.windows], weights)
    values, errors = (np.array([getattr(w, k) for w in fit.windows]) for k in ("value", "error"))
    assert fit.value == pytest.approx(weights @ values)
    assert fit.error**2 == pytest.approx(weights @ errors**2 + weights @ values**2 - fit.value**2)
    pure = fit_mass(Correlator(T, value, covariance), windows=[(3, 8)])  # the image forgotten
    assert pure.p < 1e-3 and pure.warnings


def noisy(seed: int, samples: int, number: int = 7) -> Correlator:
    """A correlator with strongly correlated noise, and the covariance as estimated from independent samples."""
    t = np.arange(number)
    scale = 0.05 * cosh(t)
    covariance = np.exp(-np.abs(t[:, None] - t) / 6) * np.outer(scale, scale)
    drawn = cosh(t) + np.random.default_rng(seed).multivariate_normal(np.zeros(number), covariance, samples)
    return Correlator(t, drawn.mean(axis=0), np.cov(drawn.T) / samples, PERIOD, samples)


def test_p_values_and_intervals_hold_with_an_estimated_covariance():
    """400 sets of 70 samples for seven points: p uniform by Kolmogorov and Smirnov (alarm 1e-3), 68 % intervals cover 61 to
    76 % (alarm 1e-3). Planted: variances without correlations."""
    window, p, inside, diagonal = [(0, 6)], [], [], []
    for seed in range(400):
        c = noisy(seed, 70)
        fit = fit_mass(c, windows=window)
        p.append(fit.p)
        inside.append(abs(fit.value - MASS) < fit.error)
        naive = Correlator(c.x, c.value, np.diag(np.diag(c.covariance)), PERIOD, 70)
        diagonal.append(fit_mass(naive, windows=window).p)
    assert stats.kstest(p, "uniform").pvalue > 1e-3 and 0.61 < np.mean(inside) < 0.76
    assert stats.kstest(diagonal, "uniform").pvalue < 1e-6


def test_average_over_windows_leaves_an_excited_state_behind():
    """A second state, half as strong and three times as heavy: windows from t = 0 lose, the average is within three errors."""
    value = cosh() + 0.5 * cosh(mass=3 * MASS)
    covariance = 1e-6 * np.exp(-np.abs(T[:, None] - T) / 4)
    fit = fit_mass(Correlator(T, value, covariance, PERIOD))
    assert abs(fit.value - MASS) < 3 * fit.error and fit.error < 0.05 * MASS
    assert sum(w.weight for w in fit.windows if w.first == 0) < 1e-3
    assert fit_mass(Correlator(T, value, covariance, PERIOD), windows=[(0, 8)]).warnings


def test_two_states_have_the_masses_of_the_transfer_matrix():
    """A ring of 24 φ⁴ sites: the field connects the vacuum with odd states only, of masses ln(λ₀/λ₁) and ln(λ₀/λ₃). The two
    of a fit to exact values, whose errors are set to 10⁻⁵ of each, are these; its average over windows agrees within errors."""
    x = np.linspace(-5, 5, 161)
    site = 0.6 * x**2 + 0.1 * x**4
    matrix = np.exp(0.8 * np.outer(x, x) - np.add.outer(site, site) / 2)
    values, vectors = np.linalg.eigh(matrix)
    values, vectors = values[::-1] / values[-1], vectors[:, ::-1]
    dipole, t = (vectors.T * x) @ vectors, np.arange(13)
    kept = np.abs(values) > 1e-14
    squares, values = dipole[np.ix_(kept, kept)] ** 2, values[kept]
    exact = np.array([np.sum(squares * np.outer(values**r, values ** (24 - r))) for r in t])
    correlator = Correlator(t, exact, np.diag((1e-5 * exact) ** 2), 24)
    masses = -np.log(values[[1, 3]])
    one = fit_mass(correlator, states=2, windows=[(1, 12)])
    np.testing.assert_array_less(np.abs(np.subtract(one.masses, masses)) / masses, [1e-5, 2e-2])
    fit = fit_mass(correlator, states=2)
    assert np.all(np.abs(np.subtract(fit.masses, masses)) < 3 * np.array(fit.mass_errors)), str(fit)
    assert fit.mass_errors[0] < 1e-4 and fit.value == fit.masses[0]
    assert fit_mass(correlator, windows=[(1, 12)]).p < 1e-6


def test_intervals_of_two_states_hold_with_an_estimated_covariance():
    """300 sets of 400 samples: 68 % intervals of each mass cover 59 to 77 % (alarm 1e-3), p is uniform (alarm 1e-3). Planted:
    variances without correlations."""
    t, rng = np.arange(9), np.random.default_rng(8)
    exact = cosh(t) + 0.6 * cosh(t, 1.3)
    scale = 0.01 * exact
    covariance = np.exp(-np.abs(t[:, None] - t) / 3) * np.outer(scale, scale)
    inside, p, naive = [], [], []
    for _ in range(300):
        drawn = exact + rng.multivariate_normal(np.zeros(9), covariance, 400)
        fit = fit_mass(
            Correlator(t, drawn.mean(axis=0), np.cov(drawn.T) / 400, PERIOD, 400), states=2, windows=[(0, 8)]
        )
        inside.append(np.abs(np.subtract(fit.masses, [MASS, 1.3])) < fit.mass_errors)
        p.append(fit.p)
        bare = Correlator(t, drawn.mean(axis=0), np.diag(np.var(drawn, axis=0)) / 400, PERIOD, 400)
        naive.append(fit_mass(bare, states=2, windows=[(0, 8)]).p)
    covered = np.mean(inside, axis=0)
    assert np.all((0.59 < covered) & (covered < 0.77)), covered
    assert stats.kstest(p, "uniform").pvalue > 1e-3 and stats.kstest(naive, "uniform").pvalue < 1e-6


def test_what_cannot_be_fitted_is_refused():
    with raises("argument.correlator.noisy", "40", "draw more"):
        fit_mass(noisy(0, 39))
    with raises("argument.windows.size", "7"):
        fit_mass(noisy(0, 79), windows=[(0, 20), (0, 1)])
    with raises("argument.correlator.fit"):
        fit_mass(Correlator(T, 1.5**T, np.eye(9)))
    with raises("argument.correlator.fit", "2 falling exponentials"):  # one state has no second mass
        fit_mass(Correlator(T, cosh(), 1e-6 * np.eye(9), PERIOD), states=2)
    with raises("argument.states"):
        fit_mass(Correlator(T, cosh(), np.eye(9)), states=0)
    with raises("argument.x.shape"):
        Correlator(T, T[1:], np.eye(9))


@pytest.fixture(scope="module")
def free():
    """A free field with m² = 0.25 on the 10×10 torus."""
    model = p4.gaussian(p4.lattice.square(10), w=1.0, a=(4 + 0.25) / 2)
    names = ["time_slice_correlator", "structure_factor", "second_moment_correlation_length"]
    return p4.sample(model, num_warmup=300, num_samples=4000, seed=4, keep_field=False, observables=names)


def test_free_field_from_a_run(free):
    """arcosh(1 + m²/2) from fit and plateau, 1/(m² + k̂²), ξ = 1/m: all within four errors; the continuum's mass m is not."""
    mass = np.arccosh(1 + 0.25 / 2)
    correlator = time_slice_correlator(free)
    fit = fit_mass(correlator)
    assert abs(fit.value - mass) < 4 * fit.error < 0.1 * mass and fit.p > 1e-3, str(fit)
    assert abs(0.9 * fit.value - mass) > 3 * fit.error
    masses = effective_mass(free)
    assert len(masses.x) >= 3 and np.all(np.abs(masses.value - mass) < 4 * masses.error)
    factor = structure_factor(free)
    assert abs(factor.value[1] - 1 / (0.25 + 4 * np.sin(np.pi / 10) ** 2)) < 4 * factor.error[1]
    length = derive(free, ["second_moment_correlation_length"])["second_moment_correlation_length"]
    assert abs(length.value - 2) < 4 * length.error < 0.4
    connected = time_slice_correlator(free, connected=True)
    chi = derive(free, ["connected_susceptibility"])["connected_susceptibility"].value
    both_sides = connected.value[0] + 2 * connected.value[1:5].sum() + connected.value[5]
    assert both_sides == pytest.approx(chi, rel=1e-4)


def test_pictures_show_values_errors_and_the_fit(free):
    correlator, masses = time_slice_correlator(free), effective_mass(free)
    fit = fit_mass(correlator)
    axes = p4.analysis.plot_correlation({"a": correlator, "b": correlator}).axes[0]
    assert axes.get_yscale() == "log" and axes.get_ylabel() == "C(t)" and len(axes.containers) == 2
    (bar,) = [c for c in p4.analysis.plot_mass(masses, fit).axes[0].containers if c.has_yerr]
    drawn = [np.ptp(path[:, 1]) / 2 for path in bar[2][0].get_segments()]
    np.testing.assert_allclose(drawn, masses.error)
    assert len(p4.analysis.plot_mass(masses, fit).axes[1].get_yticks()) == min(12, len(fit.windows))
    assert p4.analysis.plot_structure_factor(structure_factor(free)).axes[0].get_xlabel() == "k̂"
    with raises("argument.correlators.axes", "k̂"):
        p4.analysis.plot_correlation({"a": correlator, "b": structure_factor(free)})


def test_report_has_what_derive_says(free):
    """Numbers of the page, and a panel of what was recorded; on a graph that is not regular there is no such section."""
    part = correlations_part(free)
    shown = {row.cells[0]: row.cells[2] for row in part["table"].rows}
    names = {"χ": "susceptibility", "Binder cumulant": "binder_cumulant", "ξ/L": "correlation_length_ratio"}
    found = derive(free, list(names.values()))
    for label, name in names.items():
        assert shown[label] == value_with_error(float(found[name].value), float(found[name].error))
    assert len(part["picture"].panels) == 1 and not part["notes"]  # no field, so no correlation function
    bare = free.copy()
    bare["posterior"] = free["posterior"].to_dataset().drop_vars(["structure_factor", "smallest_momentum"])
    assert "kept fields" in correlations_part(bare)["notes"][0] and len(correlations_part(bare)["table"].rows) == 4
    free.attrs, attributes = {}, free.attrs
    assert correlations_part(free) is None
    free.attrs = attributes


@pytest.mark.slow
def test_intervals_and_p_values_of_autocorrelated_draws():
    """100 runs of AR(1) draws, τ = 4.5, and covariances of `derive`: p uniform (alarm 1e-3), 68 % intervals cover 53 to 82 %
    (alarm 1e-3); without autocorrelation, the planted fault, fewer than 45 %, and p piles up at 0."""
    t, rho = np.arange(6), 0.8
    spread = np.linalg.cholesky(np.exp(-np.abs(t[:, None] - t) / 6)) * (0.5 * cosh(t))[:, None]
    p, inside, naive_p, naive = [], [], [], []
    for seed in range(100):
        noise = np.random.default_rng(seed).normal(size=(4, 1500, 6))
        x = noise.copy()
        for k in range(1, 1500):
            x[:, k] = rho * x[:, k - 1] + np.sqrt(1 - rho**2) * noise[:, k]
        run = {"c": cosh(t) + x @ spread.T}
        found = Correlator.from_derived(derive(run, {"c": lambda m: m["c"]}), "c", t, period=PERIOD)
        fit = fit_mass(found, windows=[(0, 5)])
        flat = run["c"].reshape(-1, 6)
        wrong = fit_mass(Correlator(t, flat.mean(axis=0), np.cov(flat.T) / len(flat), PERIOD, 6000), windows=[(0, 5)])
        p, inside = [*p, fit.p], [*inside, abs(fit.value - MASS) < fit.error]
        naive_p, naive = [*naive_p, wrong.p], [*naive, abs(wrong.value - MASS) < wrong.error]
    assert stats.kstest(p, "uniform").pvalue > 1e-3 and 0.53 < np.mean(inside) < 0.82
    assert stats.kstest(naive_p, "uniform").pvalue < 1e-6 and np.mean(naive) < 0.45
