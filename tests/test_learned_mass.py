"""Dense and low-rank mass matrices learned from draws and gradients: the estimates, the windows they see, and whole runs.

Estimates have no errors to allow for where the draws are normal, so their bounds are far from what they reach. The two runs
compare 40 means and variances with a closed form at a bound of 4.5 errors: false alarms 3e-4 each. Keys are fixed.
"""

from __future__ import annotations

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from exact_runs import rejected
from invariance import invariance_scores, model_and_draws, states_after
from jax.flatten_util import ravel_pytree
from raising import raises

import phi4ppl as p4
from phi4ppl.analysis.gamma_method import gamma_method
from phi4ppl.kernels import get_kernel
from phi4ppl.kernels import learned_mass as module
from phi4ppl.kernels.adaptation import MAPPED_CHAINS, Tuning
from phi4ppl.kernels.gradient import nuts
from phi4ppl.kernels.learned_mass import (
    MAX_DENSE,
    NUM_KEPT,
    Spikes,
    Triangle,
    dense,
    geometric_mean,
    low_rank,
)
from phi4ppl.kernels.metrics import Factored, metric_of
from phi4ppl.kernels.target import Target
from phi4ppl.sampling import chains

pytestmark = pytest.mark.compile_quickly


# --- precisions


def few_wide(size):
    """Five directions, across all coordinates, that are a hundred times wider than all others."""
    vectors = np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))[0]
    return (vectors / np.r_[np.full(5, 1e4), np.ones(size - 5)]) @ vectors.T


def one_stiff(size):
    """Coefficients of covariates that all have the correlation 0.95: one direction is 44 times narrower than all others."""
    return 0.05 * np.eye(size) + 0.95


def autoregressive(size):
    """Coefficients of covariates of correlation 0.95 with the next one: a whole spectrum of widths."""
    return 0.95 ** np.abs(np.subtract.outer(np.arange(size), np.arange(size)))


def draws_of(precision, number, seed=1):
    """Rows of normal draws about their mean, over √n, and of their gradients; the covariance of both is a sum of squares."""
    draws = np.random.default_rng(seed).normal(size=(number, len(precision)))
    draws = np.linalg.solve(np.linalg.cholesky(precision).T, draws.T).T
    draws = (draws - draws.mean(axis=0)) / np.sqrt(number)
    return jnp.asarray(draws, jnp.float32), jnp.asarray(-draws @ precision, jnp.float32)


def matrix_of(factor, size):
    return np.asarray(jax.vmap(factor.color, out_axes=1)(jnp.eye(size)), float)


def condition(matrix, precision):
    """Ratio of the largest to the smallest eigenvalue of a precision in the coordinates of a factor."""
    values = np.linalg.eigvalsh(matrix.T @ precision @ matrix)
    return values[-1] / values[0]


# --- estimates


def test_the_geometric_mean_solves_its_equation(x64):
    rng = np.random.default_rng(0)
    covariance, of_gradients = (m @ m.T for m in rng.normal(size=(2, 6, 9)))
    root = geometric_mean(jnp.asarray(covariance), jnp.asarray(of_gradients))
    mean = root @ root.T
    np.testing.assert_allclose(mean @ of_gradients @ mean, covariance, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", [few_wide, one_stiff, autoregressive])
def test_a_dense_factor_of_normal_draws_is_exact_where_their_covariance_is_not(make):
    """Of 30 dimensions, from 180 draws, in single precision."""
    precision = make(30)
    draws, gradients = draws_of(precision, 180)
    assert condition(matrix_of(dense(draws, gradients, 180), 30), precision) < 1.1
    assert condition(matrix_of(low_rank(draws, gradients, 180), 30), precision) < 1.1
    usual = np.linalg.cholesky(np.asarray(draws.T @ draws, float))
    assert condition(usual, precision) > 3
    # a planted fault: gradients that belong to other draws
    assert condition(matrix_of(dense(draws, draws_of(precision, 180, seed=2)[1], 180), 30), precision) > 1.5


@pytest.mark.parametrize(("make", "size"), [(few_wide, 200), (one_stiff, 100)])
def test_a_factor_of_low_rank_finds_a_few_directions_at_both_ends_of_the_spectrum(make, size):
    """From 400 draws. BlackJAX's estimate keeps the wide ends only, and a planted fault here forgets the stiff ones."""
    from blackjax.adaptation.metric_estimators import fisher_score_low_rank

    precision = make(size)
    draws, gradients = draws_of(precision, 400)
    factor = jax.jit(low_rank)(draws, gradients, 400)
    assert factor.vectors.shape == (size, 64)
    assert condition(matrix_of(factor, size), precision) < 20
    if make is one_stiff:
        sigma, vectors, values = fisher_score_low_rank(20 * draws, 20 * gradients, 64)
        theirs = Spikes(sigma, vectors, jnp.sqrt(values))
        assert condition(matrix_of(theirs, size), precision) > 1000


def test_a_factor_that_does_not_look_at_gradients_misses_the_stiff_direction(monkeypatch):
    precision = one_stiff(100)
    draws, gradients = draws_of(precision, 400)
    widest, calls = module._widest, []

    def of_draws(rows):
        calls.append(rows)
        return widest(calls[0])

    monkeypatch.setattr(module, "_widest", of_draws)
    assert condition(matrix_of(low_rank(draws, gradients, 400), 100), precision) > 1000


@pytest.mark.parametrize("estimate", [dense, low_rank])
def test_fewer_draws_than_dimensions_leave_the_diagonal(estimate):
    """Twenty draws of independent coordinates of very different widths: the diagonal is known, and nothing else is invented."""
    size, widths = 80, np.geomspace(0.01, 100, 80)
    draws, gradients = draws_of(np.diag(widths**-2.0), 20)
    assert condition(matrix_of(jax.jit(estimate)(draws, gradients, 20), size), np.diag(widths**-2.0)) < 20


@pytest.mark.parametrize("kind", ["dense", "low rank"])
def test_maps_of_a_factor_belong_to_one_matrix(kind, x64):
    rng, size = np.random.default_rng(0), 7
    vectors = np.linalg.qr(rng.normal(size=(size, 3)))[0]
    factor = {
        "dense": Triangle(jnp.asarray(np.tril(rng.normal(size=(size, size))) + 3 * np.eye(size))),
        "low rank": Spikes(*map(jnp.asarray, (rng.uniform(0.5, 2, size), vectors, rng.uniform(0.5, 2, 3)))),
    }[kind]
    C = matrix_of(factor, size)
    x, p = rng.normal(size=(2, size))
    np.testing.assert_allclose(factor.whiten(jnp.asarray(C @ x)), x, rtol=1e-9)
    np.testing.assert_allclose(factor.pull(jnp.asarray(p)), C.T @ p, rtol=1e-9)
    np.testing.assert_allclose(factor.push(jnp.asarray(C.T @ p)), p, rtol=1e-9)
    metric = metric_of(Factored(factor), None)
    np.testing.assert_allclose(metric.kinetic_energy(jnp.asarray(p)), p @ C @ C.T @ p / 2, rtol=1e-9)


# --- windows


def closed(kernel, draws, gradients):
    """Factors of chains after windows of draws, shape ``(chains, draws, size)``, all closed at their end."""
    mass = get_kernel(kernel).adaptation.mass

    def walk(draws, gradients):
        state = mass.begin(None, draws[0])
        state = jax.lax.scan(lambda s, pair: (mass.update(None, s, *pair), None), state, (draws, gradients))[0]
        return mass.close(None, state)

    return jax.jit(jax.vmap(walk, axis_name=MAPPED_CHAINS))(draws, gradients)


def chains_of(precision, num_chains, number):
    each = [draws_of(precision, number, seed=k) for k in range(num_chains)]
    return tuple(jnp.stack(parts) * np.sqrt(number) for parts in zip(*each, strict=True))


@pytest.mark.parametrize("kernel", ["nuts_dense", "nuts_low_rank"])
def test_all_chains_share_the_factor_of_their_draws_wherever_they_are(kernel):
    """Three chains of 80 draws of 30 dimensions, far from each other."""
    precision = autoregressive(30)
    draws, gradients = chains_of(precision, 3, 80)
    away = jnp.array([0.0, 1e3, -1e3])[:, None, None]
    state = closed(kernel, draws + away, gradients - 1.0)
    for leaf in jax.tree.leaves(state.factor):
        np.testing.assert_array_equal(leaf, jnp.broadcast_to(leaf[:1], leaf.shape))
    factor = jax.tree.map(lambda leaf: leaf[0], state.factor)
    assert condition(matrix_of(factor, 30), precision) < 1.1
    assert np.all(state.number == 0)
    alone = closed(kernel, draws[:1, :20], gradients[:1, :20])
    assert condition(matrix_of(jax.tree.map(lambda leaf: leaf[0], alone.factor), 30), precision) > 3


def test_a_window_keeps_its_last_draws():
    """The first ones come from elsewhere, where the density is another one; they fill the window and are gone."""
    precision = one_stiff(10)
    draws, gradients = chains_of(precision, 2, NUM_KEPT)
    first, wrong = chains_of(few_wide(10), 2, NUM_KEPT + 9)
    state = closed("nuts_low_rank", jnp.concatenate([first, draws], 1), jnp.concatenate([wrong, gradients], 1))
    factor = jax.tree.map(lambda leaf: leaf[0], state.factor)
    assert condition(matrix_of(factor, 10), precision) < 1.1
    kept = closed("nuts_low_rank", draws, gradients)  # in another order, of which only the seam could be seen
    np.testing.assert_allclose(factor.scale, kept.factor.scale[0], rtol=1e-4)


@pytest.mark.parametrize("kernel", ["nuts_dense", "nuts_low_rank"])
def test_chains_that_do_not_move_leave_the_factor_as_it_was(kernel):
    still = jnp.full((2, 30, 5), 1e3 / 3)  # means have rounding errors
    state = closed(kernel, still, still / 1e5)
    np.testing.assert_array_equal(matrix_of(jax.tree.map(lambda leaf: leaf[0], state.factor), 5), np.eye(5))


# --- runs


def test_many_variables_are_refused_by_the_dense_one_only():
    def model():
        numpyro.sample("x", dist.Normal().expand([MAX_DENSE + 1]).to_event(1))

    with raises("argument.kernel.unsuited", "nuts_low_rank", str(MAX_DENSE), f"this model has {MAX_DENSE + 1}"):
        p4.sample(model, kernel="nuts_dense")
    assert get_kernel("nuts_low_rank").objection(p4.compile(model)) is None


COVARIATES = np.random.default_rng(3).normal(size=(60, 20)) @ np.linalg.cholesky(one_stiff(20)).T
OUTCOMES = COVARIATES @ np.linspace(-1, 1, 20) + 0.5 * np.random.default_rng(4).normal(size=60)


def regression(x, y):
    effects = numpyro.sample("effects", dist.Normal(0, 2).expand([20]).to_event(1))
    numpyro.sample("y", dist.Normal(x @ effects, 0.5), obs=y)


@pytest.mark.parametrize("kernel", ["nuts_dense", "nuts_low_rank"])
def test_a_regression_on_correlated_covariates_is_exact_and_takes_short_paths(kernel):
    """Paths of `nuts` are some 200 steps long here. Planted: a posterior of data with 10 % less noise must fail."""
    options = dict(num_warmup=300, num_samples=1000, num_chains=4, seed=1, progress=False)
    tree = p4.sample(regression, COVARIATES, OUTCOMES, kernel=kernel, **options)
    draws = tree["posterior"]["effects"].values.astype(float)

    def worst(noise):
        covariance = np.linalg.inv(np.eye(20) / 4 + COVARIATES.T @ COVARIATES / noise**2)
        mean = covariance @ COVARIATES.T @ OUTCOMES / noise**2
        z = []
        for series, exact in ((draws, mean), ((draws - mean) ** 2, np.diag(covariance))):
            found = gamma_method(series)
            z.append((found.mean - exact) / found.error)
        return np.abs(z).max()

    assert worst(0.5) < 4.5
    assert worst(0.45) > 4.5
    assert tree["sample_stats"]["n_steps"].mean() < 15
    assert not tree["sample_stats"]["diverging"].any()


@pytest.mark.parametrize("kernel", ["nuts_dense", "nuts_low_rank"])
def test_a_run_cut_into_pieces_and_gone_on_with_has_the_same_numbers(kernel, monkeypatch, tmp_path):
    """Stopped within a window of warm-up, and one iteration at a time from there."""
    options = dict(num_warmup=80, num_samples=20, num_chains=2, seed=1, kernel=kernel, progress=False)
    data = COVARIATES[:, :20], OUTCOMES
    whole = p4.sample(regression, *data, **options)
    left, pause = [25], chains._Run.pause

    def stop(self):
        pause(self)
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(chains, "SECONDS_PER_CHUNK", 1e-9)
    monkeypatch.setattr(chains, "SECONDS_PER_CHECKPOINT", 0.0)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(chains._Run, "pause", stop)
        p4.sample(regression, *data, **options, checkpoint=tmp_path / "run")
    again = p4.sample(regression, *data, **options, checkpoint=tmp_path / "run")
    for group in ("posterior", "sample_stats"):
        for name, values in whole[group].data_vars.items():
            np.testing.assert_array_equal(values, again[group][name], err_msg=name)


@pytest.mark.parametrize("part", ["pull", "whiten"])
def test_a_factor_whose_maps_do_not_belong_together_is_rejected(part, monkeypatch):
    """Planted: gradients, or the position, by the diagonal of the factor alone. The right one: `test_kernels.py`."""
    right = getattr(Triangle, part)
    monkeypatch.setattr(Triangle, part, lambda self, x: right(Triangle(jnp.diag(jnp.diag(self.factor))), x))
    model, before, fresh = model_and_draws("graph")
    state, _ = states_after(model, get_kernel("nuts_dense"), before)
    assert rejected(invariance_scores(model, before, np.asarray(state.position), fresh, reversible=True))


def spikes(scale, vectors, values) -> Spikes:
    """Of the precision D^½ V Λ Vᵀ D^½."""
    return Spikes(*(jnp.asarray(a) for a in (1 / scale, vectors, values**-0.5)))


def test_the_metric_is_the_inverse_of_the_precision():
    """Of low rank with all directions kept: M⁻¹ p, momenta of covariance M, and C C^T = M⁻¹ for positions of several leaves."""
    random = np.random.default_rng(0)
    factor = random.normal(size=(6, 9))
    matrix = factor @ factor.T
    scale = np.sqrt(np.diag(matrix))
    values, vectors = np.linalg.eigh(matrix / np.outer(scale, scale))
    with jax.enable_x64(True):
        position = {"a": jnp.zeros(2), "b": jnp.zeros((2, 2))}
        flat, unravel = ravel_pytree(position)
        metric = metric_of(Factored(spikes(scale, vectors, values)), None)

        def columns(**how):
            each = [ravel_pytree(metric.scale(position, unravel(e), **how))[0] for e in jnp.eye(6)]
            return np.stack(each, axis=1)

        c = columns(inv=True, trans=False)
        half = np.linalg.inv((vectors * values**0.5) @ vectors.T) / scale[:, None]
        np.testing.assert_allclose(c @ c.T, half @ half.T, atol=1e-10)
        np.testing.assert_allclose(columns(inv=False, trans=False) @ c, np.eye(6), atol=1e-10)
        np.testing.assert_allclose(columns(inv=True, trans=True), c.T, atol=1e-10)
        np.testing.assert_allclose(columns(inv=False, trans=True) @ c.T, np.eye(6), atol=1e-10)
        p = unravel(jnp.asarray(random.normal(size=6)))
        energy, velocity = jax.value_and_grad(metric.kinetic_energy)(p)
        moved = c @ c.T @ np.asarray(ravel_pytree(p)[0])
        np.testing.assert_allclose(ravel_pytree(velocity)[0], moved, atol=1e-10)
        assert float(energy) == pytest.approx(float(ravel_pytree(p)[0] @ moved) / 2)


def test_whitened_nuts_is_nuts_with_the_metric():
    """One step from the same key, in the coordinates of the metric and through BlackJAX's `Metric`: the same proposal."""
    random = np.random.default_rng(0)
    factor = random.normal(size=(6, 9))
    matrix = factor @ factor.T
    values, vectors = np.linalg.eigh(matrix / np.outer(np.sqrt(np.diag(matrix)), np.sqrt(np.diag(matrix))))
    with jax.enable_x64(True):
        target = Target(lambda x: -x @ jnp.asarray(matrix) @ x / 2, None)
        mass = Factored(spikes(np.sqrt(np.diag(matrix)), vectors, values))
        start = jnp.asarray(random.normal(size=6))
        ours = nuts(target, Tuning(jnp.asarray(0.3), mass, jnp.ones(())))
        theirs = blackjax.nuts(target.logdensity_fn, 0.3, metric_of(mass, None))
        step, their_step = jax.jit(ours.step), jax.jit(theirs.step)
        for seed in range(5):
            key = jax.random.key(seed)
            one, info = step(key, ours.init(start))
            two, expected = their_step(key, theirs.init(start))
            np.testing.assert_allclose(one.position, two.position, atol=1e-9)
            np.testing.assert_allclose(one.logdensity_grad, two.logdensity_grad, atol=1e-8)
            assert int(info.num_integration_steps) == int(expected.num_integration_steps)
