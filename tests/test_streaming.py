"""One-pass statistics against exact values of autoregressive series, and the independence of how a stream is cut.

False alarms: the calibration test makes 3 comparisons for each of 5 series, of sums over 300 independent replicas, at 4.5
standard errors each (7e-6 for normal sums): at most 2e-4 for all of them together. Keys are fixed.
"""

import tracemalloc

import numpy as np
import pytest
from scipy.signal import lfilter

from phi4ppl.analysis.gamma_method import gamma_method
from phi4ppl.sampling.streaming import BlockedSeries, SiteMoments

CUTS = np.random.default_rng(0)


def ar1(rho, shape, seed):
    """Stationary x_t = ρ x_{t−1} + noise of variance 1 along axis 1: τ_int = ½ (1 + ρ)/(1 − ρ), mean 0."""
    noise = np.random.default_rng(seed).normal(size=shape)
    noise[:, 1:] *= np.sqrt(1 - rho**2)
    return lfilter([1], [1, -rho], noise, axis=1)


def streamed(values, cuts=()):
    series = BlockedSeries(values.shape[0], values.shape[2:])
    for part in np.split(values, cuts, axis=1):
        series.add(part)
    return series


def assert_same(first, second):
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


@pytest.mark.parametrize(("rho", "num_draws"), [(-0.5, 2000), (0.0, 1000), (0.5, 2000), (0.9, 5000), (0.97, 30000)])
def test_mean_error_variance_and_tau_are_those_of_the_process(rho, num_draws):
    tau, replicas = (1 + rho) / (1 - rho) / 2, 300
    estimate = streamed(ar1(rho, (4, num_draws, replicas), seed=1)).estimate()
    lag = np.arange(1, num_draws)
    exact = (1 + 2 * ((1 - lag / num_draws) * rho**lag).sum()) / num_draws / 4  # squared error of the mean of 4 chains

    def score(values, truth, bias):
        """How far a mean over replicas is from the truth, beyond the bias that the method is allowed."""
        error = values.std(ddof=1) / np.sqrt(replicas)
        return max(abs(values.mean() - truth) - bias * truth, 0) / error

    # blocks end somewhere: the rule leaves a bias of some per cent, upwards for anticorrelated draws
    assert score((estimate.mean**2) / exact, 1, 0.0) < 4.5
    assert score(estimate.variance, 1, 0.0) < 4.5
    agree = estimate.reliable | (estimate.tau_int < 3 * tau)  # one replica in a thousand takes its chains to disagree
    assert agree.mean() > 0.98
    assert score(estimate.tau_int[agree], tau, 0.12) < 4.5
    assert estimate.reliable.mean() > 0.95
    # and the errors are those of the means: nowhere near what correlated draws taken for independent would have
    z = estimate.mean / estimate.error
    assert 0.8 < (z**2).mean() < 1.25 and np.abs(z).max() < 5
    spread = estimate.tau_int[agree].std() / estimate.tau_int_error[agree].mean()
    assert 0.5 < spread < 2


def test_the_comparison_rejects_errors_without_autocorrelation():
    """The planted fault: blocks of one draw."""
    values = ar1(0.9, (4, 5000, 300), seed=1)
    naive = values.std(axis=(0, 1)) / np.sqrt(4 * 5000)
    z = values.mean(axis=(0, 1)) / naive
    assert (z**2).mean() > 10


def test_blocking_and_the_gamma_method_agree():
    values = ar1(0.8, (4, 20000, 50), seed=2)
    blocked, gamma = streamed(values).estimate(), gamma_method(values)
    np.testing.assert_allclose(blocked.mean, gamma.mean, rtol=1e-12, atol=1e-14)
    assert np.median(np.abs(blocked.error / gamma.error - 1)) < 0.1


def test_a_short_stream_is_exact_by_hand():
    """13 draws: whole blocks of 8, 4 and 1, so that every level and every waiting mean takes part."""
    values = np.random.default_rng(3).normal(size=(1, 13, 2)) + 1e6
    series = streamed(values, [5, 6, 6])
    for level in range(3):
        length = 2**level
        blocks = values[0, : 13 // length * length].reshape(-1, length, 2).mean(axis=1)
        mean, squares = series._level(level)
        np.testing.assert_allclose(mean[0], blocks.mean(axis=0), rtol=1e-15)
        np.testing.assert_allclose(squares[0], ((blocks - blocks.mean(axis=0)) ** 2).sum(axis=0), rtol=1e-8)


@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_any_cut_gives_the_same_bits(shape):
    values = ar1(0.7, (3, 1537, *shape), seed=4).astype(np.float32) + 100
    whole = streamed(values)
    assert whole.count == 1537
    for cuts in (range(1, 1537), [1, 2, 1000], np.sort(CUTS.integers(0, 1537, 40)), [700, 700, 700]):
        other = streamed(values, cuts)
        assert_same(whole.state(), other.state())
        assert_same(whole.estimate()._asdict(), other.estimate()._asdict())


def test_a_stream_goes_on_from_its_state():
    values = ar1(0.7, (3, 999), seed=5)
    first = streamed(values[:, :400])
    resumed = BlockedSeries.from_state(first.state())
    first.add(values[:, 400:])
    assert resumed.count == 400  # and shares no memory with where it came from
    resumed.add(values[:, 400:])
    assert_same(first.state(), resumed.state())


def test_memory_grows_with_the_logarithm():
    series = BlockedSeries(4)
    chunk = np.random.default_rng(6).normal(size=(4, 1000))
    tracemalloc.start()
    try:
        peaks = []
        for size in (10, 1000):
            for _ in range(size):
                series.add(chunk)
            peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    assert series.count == 1_010_000 and series.state()["waiting"].shape == (20, 4)
    assert peaks[1] - peaks[0] < 10_000


def test_constant_infinite_short_and_disagreeing_series_are_not_called_reliable():
    constant = streamed(np.full((4, 1000), 0.1)).estimate()
    assert constant.error == 0 and not constant.reliable and constant.mean == 0.1
    infinite = streamed(np.where(np.arange(1000) == 500, np.inf, 1.0)[None].repeat(4, axis=0)).estimate()
    assert not np.isfinite(infinite.mean) and not infinite.reliable
    for short in (0, 1, 7):
        estimate = streamed(np.ones((4, short))).estimate()
        assert np.isnan(estimate.error) and not estimate.reliable
    apart = np.random.default_rng(7).normal(size=(4, 10000)) + np.array([[0.0], [0.0], [0.0], [1.0]])
    estimate = streamed(apart).estimate()
    assert not estimate.reliable
    assert np.isclose(estimate.error, apart.mean(axis=1).std(ddof=1) / 2)


def parts_of(phi, lengths):
    """What the device would hand over: sums over parts, of deviations from the first field of each, in float32."""
    for part in np.split(phi, np.cumsum(lengths)[:-1], axis=1):
        away = part - part[:, :1]
        yield part.shape[1], part[:, 0], away.sum(axis=1), (away**2).sum(axis=1)


def test_site_moments_are_those_of_the_fields():
    """A field of mean 1000 and spread 1: float32 squares of the field itself would have no digit of the variance."""
    rho, blocks, num_sites = 0.6, 20, 500
    phi = (ar1(rho, (4, 4000, num_sites), seed=8) + 1000).astype(np.float32)
    moments = SiteMoments((4, num_sites))
    for block in np.split(phi, blocks, axis=1):
        for part in parts_of(block, [150, 50]):
            moments.add(*part)
        moments.close_block()
    assert moments.count == 4000
    estimate, exact = moments.estimate(), phi.astype(float)
    np.testing.assert_allclose(estimate.mean, exact.mean(axis=(0, 1)), rtol=1e-8)
    np.testing.assert_allclose(estimate.variance, exact.var(axis=(0, 1)) + estimate.error**2, rtol=1e-5)
    z = (estimate.mean - 1000) / estimate.error
    # 500 independent sites, chi-square within 4 standard deviations: a false alarm of 6e-5
    assert abs((z**2).mean() - 1) < 4 * np.sqrt(2 / num_sites) + 0.05
    assert (((estimate.mean - 1000) / np.sqrt(estimate.variance / 16000)) ** 2).mean() > 3  # the planted fault


def test_site_moments_go_on_from_their_state():
    phi = np.random.default_rng(9).normal(size=(2, 60, 3)).astype(np.float32)
    whole, first = SiteMoments((2, 3)), SiteMoments((2, 3))
    for number, part in enumerate(parts_of(phi, [20, 20, 20])):
        whole.add(*part)
        if number == 1:
            first = SiteMoments.from_state(first.state())
        first.add(*part)
        for moments in (whole, first):
            if number < 2:
                moments.close_block()
    assert_same(whole.state(), first.state())
    assert np.isnan(SiteMoments((2, 3)).estimate().error).all()


@pytest.mark.parametrize(("num_chains", "multiple"), [(1, 50), (1, 200), (4, 70), (4, 100), (4, 600), (16, 400)])
def test_streams_that_pass_near_the_border_have_honest_errors(num_chains, multiple):
    """As for the Γ-method in test_autocorrelation: where more than a tenth pass, their mean error is at least 0.8 of the exact
    one and their z-scores spread by less than 1.25, of 800 series. The rule of before, 50 τ_int per chain, or blocks of 10,
    fails for one chain (0.62 and 1.7; 0.76 and 1.4), which ``old`` shows.
    """
    tau, rho, replicas = (4.0, 7 / 9, 800) if num_chains == 16 else (10.0, 19 / 21, 800)
    num_draws = int(multiple * tau)
    lag = np.arange(1, num_draws)
    exact = np.sqrt((1 + 2 * np.sum((1 - lag / num_draws) * rho**lag)) / (num_draws * num_chains))
    x = ar1(rho, (num_chains, num_draws, replicas), seed=11)
    sites = SiteMoments((num_chains, replicas))
    for block in np.split(x, 20, axis=1):
        sites.add(block.shape[1], np.zeros((num_chains, replicas)), block.sum(axis=1), (block**2).sum(axis=1))
        sites.close_block()
    for estimate in (streamed(x).estimate(), sites.estimate()):

        def honest(passed, estimate=estimate):
            z = estimate.mean[passed] / estimate.error[passed]
            return passed.mean() < 0.1 or (
                estimate.error[passed].mean() > 0.8 * exact and np.sqrt((z**2).mean()) < 1.25
            )

        assert honest(estimate.reliable)
        if (num_chains, multiple) in ((4, 600), (16, 400)):
            assert estimate.reliable.mean() > 0.5  # otherwise this says nothing
    old = streamed(x).estimate()
    if (num_chains, multiple) == (1, 50):
        assert not honest(num_draws >= 50 * (old.tau_int + old.tau_int_error), old)
