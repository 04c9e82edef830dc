"""Errors of spectra: calibrated, unbiased, and wrong where points or draws are counted as what they are not."""

from __future__ import annotations

import numpy as np
import pytest

import phi4ppl as p4
from phi4ppl.errors import ArgumentError, MemoryLimitError
from phi4ppl.spectral import large
from phi4ppl.spectral.effective_ranks import RANKS
from phi4ppl.spectral.field_modes import _of_graph, _of_torus
from phi4ppl.spectral.gram import Gram
from phi4ppl.spectral.large import square_norm
from phi4ppl.spectral.pairs_of_draws import pair_ratio_of_draws, spread_note
from phi4ppl.spectral.subsamples import pair_ratio, subset_spectra

SITES, DRAWS = 64, 128


def draws(seed: int, number: int = DRAWS) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(number, SITES))


@pytest.mark.parametrize(("number", "plain"), [(32, 21.2), (128, 42.4), (1024, 60.2)])
def test_the_plain_participation_ratio_counts_draws(number, plain):
    """1/(1/64 + 1/M + …) of M draws of 64 sites, within 4 % of one sample; pairs within 4 errors of 64 (false alarms 1e-4)."""
    x = draws(2, number)
    matrix = x @ x.T
    assert np.trace(matrix) ** 2 / np.sum(matrix**2) == pytest.approx(plain, rel=0.04)
    value, error = pair_ratio(matrix, 0)
    assert abs(value - SITES) < 4 * error


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


def field_draws(seed: int) -> np.ndarray:
    """Independent draws of a free field on 4×4 sites, m² = 1, that changes sign as a whole between ±4: 2 chains of 300."""
    random, axis = np.random.default_rng(seed), 4 * np.sin(np.pi * np.arange(4) / 4) ** 2
    waves = np.fft.fft2(random.normal(size=(2, 300, 4, 4))) / np.sqrt(1 + axis[:, None] + axis)
    signs = np.where(np.cumsum(random.random((2, 300)) < 0.05, axis=1) % 2, 1, -1)
    return (np.fft.ifft2(waves).real + 4) * signs[..., None, None]


def test_errors_of_a_connected_spectrum_are_those_of_its_zero_mode():
    """Without order, the free field: 1/(1 + k̂²); 12 samples, ranks within 4 errors (false alarms 2e-3), which are below 10 %.
    The scatter of the zero mode before the order is taken out is 50 times as large."""
    axis = 4 * np.sin(np.pi * np.arange(4) / 4) ** 2
    exact = np.sort(1 / (1 + axis[:, None] + axis).ravel())[::-1]
    for seed in range(12):
        found = _of_torus(field_draws(seed).astype(np.float32), p4.lattice.square(4), True, None)
        for name, rank in RANKS.items():
            value, error = found.ranks[name]
            assert abs(value - rank(exact)) <= 4 * error <= 0.4 * value


def test_order_that_changes_sign_is_told_on_a_graph():
    chains = field_draws(0).reshape(2, 300, 16)
    told = "changes sign as a whole"
    assert any(told in note for note in _of_graph(chains, "graph", True, None).notes)
    for other, connected in ((chains, False), (np.abs(chains), True), (chains - 4 * np.sign(chains), True)):
        assert not any(told in note for note in _of_graph(other, "graph", connected, None).notes)


def test_degenerate_modes_of_a_graph_are_within_their_errors():
    """16 modes of a torus with 6 values, as a graph would have them: within 4 errors in 6 samples; the scatter of blocks of
    draws alone is off by more than 4 of its errors."""
    axis = 4 * np.sin(np.pi * np.arange(4) / 4) ** 2
    exact, off = np.sort(1 / (1 + axis[:, None] + axis).ravel())[::-1], []
    for seed in range(6):
        chains = field_draws(seed)
        chains = (chains - 4 * np.sign(chains.mean(axis=(-2, -1), keepdims=True))).reshape(2, 300, 16)
        found = _of_graph(chains, "graph", False, None)
        assert np.all(np.abs(found.eigenvalues - exact) < 4 * found.errors)
        scatter = np.sqrt(found.replica_factor * np.var(found.replicas, axis=0))
        off.append(np.max(np.abs(found.eigenvalues - exact) / scatter))
    assert max(off) > 4


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


def test_equal_features_are_counted_and_split_no_further_than_their_errors():
    """30 features of one strength, 100 points, 6 samples. The entropy rank is 30 within 3 errors, and λ₁ within 3 of 100
    (fewer than 1 % of samples are outside; seeds are fixed). Without the extrapolation, and with errors of the scatter alone,
    each of them is off by more."""
    for seed in range(6):
        x = np.random.default_rng(seed).normal(size=(100, 30))
        found = p4.spectral.spectrum("linear", x, seed=seed)
        value, error = found.ranks["entropy_rank"]
        assert abs(value - 30) < 3 * error < 6 and abs(found.eigenvalues[0] - 100) < 3 * found.errors[0]
        scatter = np.sqrt(found.replica_factor * np.var(found.replicas[:, 0]))
        assert found.eigenvalues[0] - 100 > 3 * scatter
        assert 30 - found.plain_ranks["entropy_rank"] > 2.5 * error
        (top, of_top), (share, of_share) = found.ranks["trace_over_max"], found.ranks["rank_fraction(0.9)"]
        assert 15 > top > 30 - 3 * of_top and 24 > share > 27 - 3 * of_share and of_share > 0
    assert any("mostly bias" in note for note in found.notes) and any("extrapolated" in note for note in found.notes)


def test_the_entropy_rank_of_a_population_is_found():
    """RBF on normal points: 2.933 of the operator, pulls of 40 samples of 60 points (bounds as above: 1e-3)."""
    pulls = []
    for seed in range(40):
        x = np.random.default_rng(seed).normal(size=60)
        value, error = p4.spectral.spectrum(np.exp(-((x[:, None] - x) ** 2) / 2), seed=seed).ranks["entropy_rank"]
        pulls.append((value - 2.9329899176) / error)
    assert abs(np.mean(pulls)) < 4 / np.sqrt(40) and 0.4 < np.var(pulls) < 2.0


def test_parts_that_are_left_out_cancel():
    """A mean over points is the mean over the subsets, for every number of points; each part is left out once."""
    for number in (8, 60, 103):
        x = np.random.default_rng(0).normal(size=number)
        replicas, factor = subset_spectra(Gram(np.diag(np.exp(x))), 0)
        assert replicas.shape == (20, number - number // 4) and factor == (number - number // 4) / (number // 4)
        if number % 4 == 0:
            assert replicas.sum(axis=1).mean() == pytest.approx(np.exp(x).sum())


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


@pytest.mark.parametrize("kernel", ["rbf", "laplace", "matern", "polynomial", "linear"])
def test_iteration_finds_the_leading_eigenvalues_of_every_kernel(kernel, monkeypatch):
    """By LOBPCG from a poor start, in the precision of its products. The linear kernel has rank 3: the others are zero."""
    monkeypatch.setattr(large, "NUM_LANDMARKS", 30)
    x = np.random.default_rng(1).normal(size=(700, 3))
    dense = p4.spectral.spectrum(kernel, x, method="dense", sampled=False).eigenvalues[:8]
    some = p4.spectral.spectrum(kernel, x, method="lanczos", num_eigenvalues=8, sampled=False)
    np.testing.assert_allclose(some.eigenvalues, dense, rtol=2e-6, atol=2e-6 * dense[0])
    assert "LOBPCG" in some.notes[0]


def test_iteration_refuses_an_indefinite_kernel(monkeypatch):
    """Seen among the landmarks, by interlacing. r² exp(-r) has trace 0, so that half of its spectrum is negative."""
    monkeypatch.setattr(large, "NUM_LANDMARKS", 30)
    x = np.random.default_rng(1).normal(size=(700, 3))

    def indefinite(x, y):
        r = np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))
        return r**2 * np.exp(-r)

    with pytest.raises(ArgumentError) as caught:
        p4.spectral.spectrum(indefinite, x, method="lanczos", num_eigenvalues=4, sampled=False)
    assert caught.value.code == "argument.source.negative"


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
    with pytest.raises(MemoryLimitError, match="by iteration"):
        p4.spectral.spectrum("rbf", x, method="lanczos", max_memory=1_000_000)


def test_decay_says_when_no_law_fits():
    steps = np.repeat([1.0, 0.3, 0.02, 0.001], 8)
    assert p4.spectral.spectrum(np.diag(steps), sampled=False).decay.law is None
    power = p4.spectral.spectrum(np.diag(np.arange(1.0, 40) ** -2), sampled=False).decay
    assert power.law == "power" and power.parameters["alpha"][0] == pytest.approx(2)
    stretched = p4.spectral.spectrum(np.diag(np.exp(-2 * np.arange(1.0, 40) ** 0.5)), sampled=False).decay
    assert stretched.law == "stretched exponential" and stretched.parameters["gamma"][0] == pytest.approx(0.5, abs=1e-3)


def noisy(values: np.ndarray, share: float, seed: int) -> p4.spectral.Spectrum:
    values = np.sort(values * np.exp(share * np.random.default_rng(seed).normal(size=len(values))))[::-1]
    return p4.spectral.Spectrum(values, share * values, float(values.sum()), len(values))


def test_laws_are_found_under_noise():
    """3 % noise on 60 eigenvalues: of 6 samples each, at least 4 have the law, and its parameter within 3 errors (nine in ten
    have the law: false alarms 2e-2, at fixed seeds). A plateau before a power, and steps, have no such law."""
    rank = np.arange(1.0, 61)
    for law, name, value, curve in [
        ("power", "alpha", 1.0, 1 / rank),
        ("exponential", "beta", 0.05, np.exp(-0.05 * rank)),
        ("stretched exponential", "gamma", 0.5, np.exp(-2 * rank**0.5)),
    ]:
        found = [noisy(curve, 0.03, seed).decay for seed in range(6)]
        right = [f.parameters[name] for f in found if f.law == law]
        assert len(right) >= 4 and all(abs(v - value) < 3 * e < 0.05 for v, e in right)
    assert noisy(np.repeat([1, 0.3, 0.02, 0.001], 15), 0.03, 0).decay.law is None


def test_a_stretched_exponential_at_the_edge_is_none():
    """A power is the limit γ → 0, βγ fixed."""
    power = p4.spectral.spectrum(np.diag(np.arange(1.0, 40) ** -2), sampled=False)
    assert p4.spectral.fit_decay(power, laws=("stretched exponential",)).law is None


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
