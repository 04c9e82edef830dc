"""The error of log Z in posteriors of couplings: in their means, in estimates, in the verdict, and over seeds.

A star of four sites, 200 fields, three couplings: log Z enters the log likelihood 200 times, and the exact posterior is a sum
over quadrature nodes with log Z by elimination.
"""

from __future__ import annotations

import json

import jax.numpy as jnp
import networkx as nx
import numpy as np
import numpyro.distributions as dist
import pytest
from test_partition_posterior import fields_at

import phi4ppl as p4
from phi4ppl.energy.exact.exact_log_z import ExactFamily
from phi4ppl.inference import log_z as log_z_module
from phi4ppl.inference.coupling_problem import CouplingProblem
from phi4ppl.inference.interpolated import interpolate_likelihood
from phi4ppl.inference.log_z import MAX_SHIFT, Chebyshev, SurfaceOnBox, mean_errors, mean_shift
from phi4ppl.reports import html
from phi4ppl.results.datatree import metadata

pytestmark = pytest.mark.compile_quickly

STAR = p4.phi4(p4.lattice.from_networkx(nx.star_graph(3)), w=0.8, a=1.4, b=0.2)
BOX = {"w": (0.2, 1.4), "a": (0.6, 2.2), "b": (0.05, 0.6)}
PRIORS = {name: dist.Uniform(*ends) for name, ends in BOX.items()}
COUNT = 200
MONTE_CARLO = 0.03  # posterior standard deviations, of 4 × 1000 draws


@pytest.fixture(scope="module")
def data():
    return fields_at(STAR, [0.8], COUNT)[0]


class Truth:
    """Posterior of some couplings by a product rule, with log Z by elimination at its nodes."""

    def __init__(self, data, names, number: int):
        self.names, self.priors = list(names), {name: PRIORS[name] for name in names}
        self.problem = CouplingProblem(STAR, data, self.priors)
        self.low, self.high = (np.array([BOX[name][k] for name in names]) for k in (0, 1))
        found = STAR.statistics(jnp.asarray(data))
        self.mean = np.array([float(np.mean(np.asarray(found[name], float))) for name in names])
        x, weight = np.polynomial.legendre.leggauss(number)
        axes = np.meshgrid(*[x] * len(names), indexing="ij")
        unit = np.stack([axis.ravel() for axis in axes], axis=1)
        self.nodes = (self.low + self.high) / 2 + (self.high - self.low) / 2 * unit
        self.volume = np.prod(np.meshgrid(*[weight] * len(names), indexing="ij"), axis=0).ravel()
        self.log_z, _ = ExactFamily(STAR, self.names).log_partition(self.nodes)
        self.weights = self.posterior(self.log_z)
        kept = self.weights > 1e-8 * self.weights.max()  # most of the box is far from the posterior
        self.nodes, self.volume, self.log_z = self.nodes[kept], self.volume[kept], self.log_z[kept]
        self.weights = self.posterior(self.log_z)
        self.means = self.weights @ self.nodes
        away = self.nodes - self.means
        self.covariance = (self.weights[:, None] * away).T @ away
        self.widths = np.sqrt(np.diag(self.covariance))

    def posterior(self, log_z) -> np.ndarray:
        """Weights of the nodes."""
        log_p = -COUNT * (self.nodes @ self.mean + log_z)
        p = np.exp(log_p - log_p.max()) * self.volume
        return p / p.sum()


@pytest.fixture(scope="module")
def two(data):
    return Truth(data, ("w", "a"), 24)


def surface_of(truth: Truth, seed: int, **options) -> p4.PartitionSurface:
    return p4.PartitionSurface(STAR, {name: BOX[name] for name in truth.names}, seed=seed, **options)


# --- exact values


def test_exact_values_of_three_couplings_are_interpolated_and_not_refused(data):
    """The log likelihood of 200 fields at 1000 points of a box so wide that nine nodes a coupling do not do."""
    names, problem = list(BOX), CouplingProblem(STAR, data, PRIORS)
    mean, found = problem.statistics.mean(axis=0), Chebyshev(problem)
    points = np.random.default_rng(5).uniform(*problem.box, (1000, 3))
    values, _ = ExactFamily(STAR, names).log_partition(points)
    log_z, error = found(points)  # log Z itself, wherever the posterior can be
    near = COUNT * (values + points @ mean) < COUNT * (values + points @ mean).min() + 10
    assert np.abs(log_z - values)[near].max() < 11 * error < 11 * 0.011 / COUNT
    exact = COUNT * (values + points @ mean)
    difference = found.likelihood.cost.values(points) - exact
    difference -= difference[exact.argmin()]
    depth = exact - exact.min()
    assert np.max(np.abs(difference) / (1 + depth)) < 0.03
    assert found.numerical < 0.011 and "Chebyshev nodes a coupling over w in" in found.how


def test_nodes_move_to_a_narrow_posterior_and_tails_are_held_away():
    """A Gaussian at its core, a thousandth of the box wide and correlated to 0.99, with tails that fall like exp(−distance)."""
    precision = np.linalg.inv(1e-6 * np.array([[1.0, 0.99], [0.99, 1.0]]))
    middle = np.array([0.31, -0.47])

    def function(thetas):
        away = thetas - middle
        return np.sqrt(1 + np.einsum("pi,ij,pj->p", away, precision, away) / 1000)

    found = interpolate_likelihood(function, 1000, lambda thetas: np.zeros(len(thetas)), [-1, -1], [1, 1], 2e5)
    assert found.good and np.abs(found.mean - middle).max() < 1e-4
    assert np.sqrt(np.diag(found.covariance)) == pytest.approx(1e-3, rel=0.05)
    assert found.cost.values(np.random.default_rng(0).uniform(-1, 1, (1000, 2))).min() > 20


@pytest.mark.slow
def test_auto_takes_exact_values_where_they_are_affordable_and_says_what_it_did(data, two, monkeypatch):
    """Means within 4.4 errors of the exact ones (false alarm 2e-5); with less to spend a surface, or a refusal."""
    tree = p4.infer_couplings(STAR, data, two.priors)
    settings, table = metadata(tree)["settings"], p4.estimate(tree)
    assert settings["normalizer"] == "exact" and settings["normalizer_how"].startswith("exact log Z, ")
    off = (table.loc[two.names, "mean"].to_numpy() - two.means) / table.loc[two.names, "error"].to_numpy()
    assert np.abs(off).max() < 4.4
    one = ExactFamily(STAR, list(BOX)).operations(np.transpose(list(BOX.values())))
    for values, message in (
        (
            300,
            "model: expected a graph narrow enough for hundreds .* which 300 values, .* are too few. normalizer='surface'",
        ),
        (600, "priors: expected intervals over .* would take too long. Narrow the priors, or"),
    ):
        monkeypatch.setattr(log_z_module, "MAX_OPERATIONS", (values + 0.5) * one)
        with pytest.raises(p4.errors.ArgumentError, match=message):
            p4.infer_couplings(STAR, data, PRIORS, normalizer="exact")
    tree = p4.infer_couplings(STAR, data, PRIORS, num_samples=100)
    settings = metadata(tree)["settings"]
    assert settings["normalizer"] == "surface" and settings["normalizer_how"].endswith(
        "exact values would take too long"
    )


# --- simulated values


def mean_scores(truth: Truth, seeds, refine: bool, **options) -> tuple[np.ndarray, np.ndarray]:
    """Posterior means with simulated log Z less exact ones, and their errors from log Z: in posterior standard deviations.

    The same nodes and weights stand for all posteriors, so that log Z is all that differs.
    """
    off, errors = [], []
    for seed in seeds:
        found = SurfaceOnBox(truth.problem, surface_of(truth, seed, **options), refine=refine, seed=seed)
        weights = truth.posterior(found.pool.log_partition(truth.nodes))
        off.append((weights @ truth.nodes - truth.means) / truth.widths)
        errors.append(mean_errors(found.pool, COUNT, truth.nodes, weights)[: len(truth.names)] / truth.widths)
    return np.array(off), np.array(errors)


def test_error_of_log_z_is_in_the_error_of_the_means(two):
    """24 surfaces of few draws: z of the means, with a Monte Carlo error as of 4 × 1000 draws, has unit variance.

    z of 24 seeds and two correlated couplings: its rms is 1 within 0.15, one standard deviation; bounds of 0.6 and 1.45 are
    passed by chance in less than 1 %. Without the error of log Z, the planted fault, it is above four.
    """
    off, errors = mean_scores(two, range(24), refine=False, num_samples=200, num_chains=2)
    off = off + MONTE_CARLO * np.random.default_rng(0).normal(size=off.shape)
    assert 0.6 < np.sqrt(np.mean((off / np.hypot(errors, MONTE_CARLO)) ** 2)) < 1.45
    assert np.sqrt(np.mean((off / MONTE_CARLO) ** 2)) > 4


@pytest.mark.slow
def test_refined_surfaces_of_three_couplings_are_calibrated(data):
    """The same for 24 surfaces that simulate until the shift is small; bounds of 0.7 and 1.3 (two standard deviations of 0.15).

    The box surfaces alone are off by some 0.15 standard deviations. Without the error of log Z the rms is above 1.3.
    """
    three = Truth(data, BOX, 16)
    off, errors = mean_scores(three, range(24), refine=True)
    assert errors.max() < MAX_SHIFT
    off = off + MONTE_CARLO * np.random.default_rng(0).normal(size=off.shape)
    assert 0.7 < np.sqrt(np.mean((off / np.hypot(errors, MONTE_CARLO)) ** 2)) < 1.3
    assert np.sqrt(np.mean((off / MONTE_CARLO) ** 2)) > 1.3


@pytest.mark.slow
def test_posteriors_from_surfaces_are_calibrated(data, two):
    """z of posterior means in `p4.estimate` of 24 posteriors, log Z simulated and couplings sampled anew for each.

    z has standard deviation 0.8 to 1.2 over seeds and couplings (0.1 is one standard deviation of it, the two couplings being
    hardly correlated in their errors; false alarm 5 %, with keys fixed). With the error of log Z left out of the errors, the
    planted fault, it is above 1.2.
    """
    z, without = [], []
    for seed in range(24):
        tree = p4.infer_couplings(STAR, data, two.priors, normalizer="surface", seed=seed, num_warmup=300)
        settings = metadata(tree)["settings"]
        assert settings["normalizer_shift"] < MAX_SHIFT and not settings["warnings"] and p4.diagnose(tree).passed
        for errors, into in ((settings["normalizer_error"], z), ({}, without)):
            table = p4.estimate(with_settings(tree, normalizer_error=errors))
            off = table.loc[two.names, "mean"].to_numpy() - two.means
            into.append(off / table.loc[two.names, "error"].to_numpy())
    assert 0.8 < np.std(z) < 1.2 and abs(np.mean(z)) < 4 / np.sqrt(24)
    assert np.sqrt(np.mean(np.square(without))) > 1.2


def test_simulation_that_reaches_its_limit_says_so(two, monkeypatch):
    monkeypatch.setattr(log_z_module, "MAX_DRAWS", 5000.0)
    surface = surface_of(two, 0, num_samples=100, num_chains=2)
    found = SurfaceOnBox(two.problem, surface, refine=True, seed=0)
    shift = mean_shift(mean_errors(found.pool, COUNT, two.nodes, two.weights), two.covariance)
    assert shift > MAX_SHIFT and found.stopped.startswith("the simulation of log Z stopped at its limit")


def with_settings(tree, **changes):
    """The same run with other settings in its metadata."""
    changed = tree.copy()
    facts = metadata(tree)
    facts["settings"] |= changes
    changed.attrs = {"phi4ppl": json.dumps(facts)}
    return changed


def test_estimate_and_verdict_hold_the_error_of_log_z():
    """In quadrature for the couplings it belongs to, and a check that names the worst and fails beyond 0.05."""
    ring = p4.phi4(p4.lattice.chain(4), w=0.8, a=1.4, b=0.2)
    tree = p4.sample(ring, num_warmup=100, num_samples=200)
    plain = p4.estimate(tree)
    name, other = plain.index[:2]
    width = float(tree["posterior"][name].values.std())
    added = {"normalizer": "surface", "normalizer_error": {name: 0.3 * width}}
    table = p4.estimate(with_settings(tree, **added))
    assert table.loc[name, "error"] == pytest.approx(np.hypot(plain.loc[name, "error"], 0.3 * width))
    note = f"MC error includes the error of log Z, which alone is {name} {0.3 * width:.2g}"
    assert note in str(table) and note in html.estimates_table(table)
    negligible = {"normalizer_error": {name: 0.09 * plain.loc[name, "error"]}}
    assert "log Z" not in str(p4.estimate(with_settings(tree, **negligible)))
    assert table.loc[other].equals(plain.loc[other]) and table.loc[name, "mean"] == plain.loc[name, "mean"]
    for shift, passed in ((0.04, True), (0.3, False)):
        report = p4.diagnose(with_settings(tree, **added, normalizer_shift=shift))
        (check,) = [c for c in report.checks if c.name == "log Z"]
        assert check.passed is passed and check.value == f"{shift:g} sd ({name})"
    assert "log Z" in report.verdict and not any(c.name == "log Z" for c in p4.diagnose(tree).checks)
