"""Errors of spectra: calibrated, unbiased, and wrong where points or draws are counted as what they are not."""

from __future__ import annotations

import numpy as np
import pytest

import phi4ppl as p4
from phi4ppl.errors import ArgumentError, MemoryLimitError
from phi4ppl.spectral.gram import Gram
from phi4ppl.spectral.large import square_norm
from phi4ppl.spectral.pairs_of_draws import pair_ratio_of_draws, spread_note
from phi4ppl.spectral.subsamples import pair_ratio, subset_spectra

SITES, DRAWS = 64, 128


def draws(seed: int, number: int = DRAWS) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(number, SITES))


def test_independent_sites_are_all_counted():
    """The plain form says 42 where 64 sites are independent, pairs say 64: within 3 errors (false alarms: 0.3 %)."""
    found = p4.spectral.spectrum("linear", draws(1))
    value, error = found.ranks["participation_ratio"]
    assert abs(value - SITES) < 3 * error and 0.5 < error < 3
    assert found.plain_ranks["participation_ratio"] == pytest.approx(42.4, abs=1.5)


def test_the_error_of_the_participation_ratio_is_calibrated():
    """Pulls of 40 samples: mean within 4/√40, and variance between 0.4 and 2 (false alarms: 1e-3)."""
    pulls = []
    for seed in range(40):
        x = draws(seed)
        value, error = pair_ratio(x @ x.T, seed)
        pulls.append((value - SITES) / error)
    assert abs(np.mean(pulls)) < 4 / np.sqrt(40) and 0.4 < np.var(pulls) < 2.0


def test_a_bootstrap_with_replacement_is_caught():
    """Repeated points look like features shared by pairs: 64 sites become fewer, by many errors."""
    x = draws(0)
    x = x[np.random.default_rng(0).choice(DRAWS, DRAWS, replace=True)]
    value, error = pair_ratio(x @ x.T, 0)
    assert SITES - value > 4 * error and value < 50


def test_draws_of_a_chain_are_not_independent():
    """AR(1) with ρ = 0.9: pairs far apart give 64 within 4 errors, neighbors counted as pairs do not."""
    random = np.random.default_rng(0)
    chains = np.empty((4, 400, SITES))
    chains[:, 0] = random.normal(size=(4, SITES))
    for t in range(1, 400):
        chains[:, t] = 0.9 * chains[:, t - 1] + np.sqrt(1 - 0.9**2) * random.normal(size=(4, SITES))
    value, error = pair_ratio_of_draws(chains, gap=95)
    assert abs(value - SITES) < 4 * error
    wrong, its_error = pair_ratio_of_draws(chains, gap=1)
    assert SITES - wrong > 4 * its_error


def test_a_covariance_from_few_draws_says_how_far_it_is_spread():
    (note,) = spread_note(64, 128)
    assert "ratio 0.5" in note and "0.09" in note and "2.91" in note
    assert spread_note(64, 641) == []


def test_errors_of_eigenvalues_are_calibrated():
    """λ₁ of the RBF kernel on 60 normal points: the scatter of 40 samples over the mean error lies in 0.7 … 1.4 (3 sigma)."""
    found = []
    for seed in range(40):
        x = np.random.default_rng(seed).normal(size=60)
        gram = Gram(np.exp(-((x[:, None] - x) ** 2) / 2))
        replicas, factor = subset_spectra(gram, seed)
        found.append((np.linalg.eigvalsh(gram.matrix)[-1], np.sqrt(factor * np.var(replicas[:, 0]))))
    values, errors = np.transpose(found)
    assert 0.7 < np.std(values) / np.mean(errors) < 1.4


def test_negative_eigenvalues_are_clipped_counted_or_refused():
    x = np.random.default_rng(0).normal(size=(40, 2))
    found = p4.spectral.spectrum(x @ x.T, sampled=False)
    assert found.eigenvalues.min() == 0 and any("negative eigenvalues within rounding" in text for text in found.notes)
    with pytest.raises(ArgumentError, match="no kernel.*lower precision.*changed one by one") as caught:
        p4.spectral.spectrum(np.diag([1.0, 0.5, -1e-6]))
    assert caught.value.code == "argument.source.negative"
    helped = p4.spectral.spectrum(np.diag([1.0, 0.5, -1e-6]), jitter=1e-5, sampled=False)
    assert helped.eigenvalues[-1] == pytest.approx(-1e-6 + 1e-5 * (1.5 - 1e-6) / 3) and "jitter" in helped.notes[0]
    single = np.asarray(x @ x.T, np.float32)
    assert p4.spectral.spectrum(single, sampled=False).numerical_rank == 2


def test_lanczos_is_the_dense_answer():
    """In double precision to 1e-7; Σλ² by probes within 5 errors of it, and in the precision of products with blocks."""
    x = np.random.default_rng(0).normal(size=(300, 4))
    dense = p4.spectral.spectrum("rbf", x, sampled=False)
    some = p4.spectral.spectrum("rbf", x, method="lanczos", num_eigenvalues=6, sampled=False)
    assert some.eigenvalues == pytest.approx(dense.eigenvalues[:6], rel=1e-5)
    assert some.trace == pytest.approx(300) and np.isnan(some.entropy_rank)
    assert some.participation_ratio == pytest.approx(dense.participation_ratio, rel=1e-3)
    matrix = dense.gram.full()
    norm, error = square_norm(lambda v: matrix @ v, dense.vectors[:, :3], dense.eigenvalues[:3], 0)
    assert abs(norm - np.sum(matrix**2)) < 5 * error
    operator = p4.spectral.spectrum(lambda v: matrix @ v, size=300, num_eigenvalues=6)
    assert operator.eigenvalues == pytest.approx(dense.eigenvalues[:6], rel=1e-7)


@pytest.mark.parametrize("method", ["nystrom", "random_features"])
def test_approximations_know_their_error(method):
    """Within 4 of the errors that they state, and said to be approximate."""
    x = np.random.default_rng(0).normal(size=(400, 6))
    dense = p4.spectral.spectrum("rbf", x, sampled=False)
    found = p4.spectral.spectrum("rbf", x, method=method, num_features=100, num_eigenvalues=5)
    assert np.all(np.abs(found.eigenvalues - dense.eigenvalues[:5]) < 4 * found.errors)
    assert "approximate" in found.notes[0]


def test_memory_is_estimated_and_refused():
    x = np.random.default_rng(0).normal(size=(200, 2))
    with pytest.raises(MemoryLimitError, match="decomposition of a 200×200 matrix needs 1.6 MB"):
        p4.spectral.spectrum("rbf", x, max_memory=1_000_000)
    with pytest.raises(MemoryLimitError, match="by Lanczos"):
        p4.spectral.spectrum("rbf", x, method="lanczos", max_memory=1_000_000)


def test_decay_says_when_no_law_fits():
    steps = np.repeat([1.0, 0.3, 0.02, 0.001], 8)
    assert p4.spectral.spectrum(np.diag(steps), sampled=False).decay.law is None
    power = p4.spectral.spectrum(np.diag(np.arange(1.0, 40) ** -2), sampled=False).decay
    assert power.law == "power" and power.parameters["alpha"][0] == pytest.approx(2)
    stretched = p4.spectral.spectrum(np.diag(np.exp(-2 * np.arange(1.0, 40) ** 0.5)), sampled=False).decay
    assert stretched.law == "stretched exponential" and stretched.parameters["gamma"][0] == pytest.approx(0.5, abs=1e-3)


def test_baselines_say_faster_slower_or_alike():
    x = np.random.default_rng(0).normal(size=(80, 2))
    same = p4.spectral.compare_baseline(p4.spectral.spectrum("rbf", x), "rbf")
    assert same.outcome == "alike" and same.ratio == pytest.approx(0, abs=1e-9)
    assert p4.spectral.compare_baseline(p4.spectral.spectrum("linear", x), "laplace").outcome == "faster"
    slower = p4.spectral.compare_baseline(p4.spectral.spectrum("laplace", x), "rbf")
    assert slower.outcome == "slower" and slower.spectrum.trace == pytest.approx(80)


@pytest.mark.parametrize(
    ("source", "options", "code"),
    [
        (np.ones((2, 3)), {}, "argument.source.shape"),
        (np.triu(np.ones((3, 3))), {}, "argument.source.symmetric"),
        ("rbf", {}, "argument.points.missing"),
        (lambda x, y: np.zeros(3), {"points": np.arange(5.0)}, "argument.source.returns"),
        ("fourier", {"points": np.arange(5.0)}, "argument.kernel"),
        (np.eye(3), {"jitter": -1.0}, "argument.jitter"),
        (np.eye(3), {"points": np.arange(5.0)}, "argument.points.shape"),
    ],
)
def test_misuse_is_told(source, options, code):
    with pytest.raises(ArgumentError) as caught:
        p4.spectral.spectrum(source, **options)
    assert caught.value.code == code


def test_kernels_come_in_three_forms():
    x = np.random.default_rng(0).normal(size=(20, 3))
    exact = np.exp(-((x[:, None] - x) ** 2).sum(axis=-1) / 2)
    import jax.numpy as jnp
    from sklearn.gaussian_process.kernels import RBF

    for kernel in (RBF(1.0), lambda a, b: jnp.exp(-jnp.sum((a - b) ** 2) / 2)):
        found = p4.spectral.spectrum(kernel, x, sampled=False)
        assert found.eigenvalues == pytest.approx(np.linalg.eigvalsh(exact)[::-1], abs=1e-10)
