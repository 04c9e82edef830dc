"""Errors of Monte Carlo means that account for autocorrelation: the Γ-method over several chains.

`gamma_method` follows U. Wolff, Comput. Phys. Commun. 156 (2004) 143, hep-lat/0306017, with the conventions
of *pyerrors* (``Obs`` with one replica per chain, ``gamma_method(S=stau)``): each chain is centered on its own
mean, and for positively correlated draws of chains that agree all numbers are the same. Differences:

* Anticorrelated draws. *pyerrors* never goes below τ = 1/2. Here the window comes from
  ``1/2 + Σ_even ρ + |Σ_odd ρ|``, and if the odd sum is negative the last lag counts half, which cancels the
  alternating part of the truncation error. Below the bound 1/(2 log10 N) τ is not resolved: tau_int is then
  the bound, an upper limit with an error of 100 %, and the error of the mean is too large.
* Chains that disagree. ``χ² = n Σ_r (m_r − m)²/C`` of the chain means m_r, C with its full bias factor
  1 + (2W+1)/n, has R − 1 degrees of freedom and tail probability ``replica_q``. Below 0.001 the error is that
  of the chain means, √(Σ (m_r − m)²/(R(R−1))), and tau_int the one that belongs to it.

Sharp bit: as in *pyerrors*, R means are subtracted but the bias is corrected for one: the error is low by a
relative (R−1)(2W+1)/(2N), some 3 % where four chains are just long enough to be called reliable.
"""

from __future__ import annotations

import numbers
from typing import NamedTuple

import numpy as np
from scipy.special import fdtrc, gammaincc

from .._typing import Labeled, PerLag, Series
from ..errors import ArgumentError
from ..errors.arguments import finite_array

__all__ = ["GammaEstimate", "gamma_method", "normalized_autocorrelation"]

_MIN_DRAWS = 8
_MIN_TAUS, _MAX_WINDOW = (
    100,
    0.25,
)  # reliable: minimum length of a chain in tau_int; maximum window as a share of a chain
_MAX_TAU_ERROR = 0.2  # reliable: of tau_int, so that the error is known to 10 %
_MIN_REPLICA_Q = 1e-3  # below it the chains disagree
_NUM_BLOCKS, _MIN_BLOCKED_Q = 16, 1e-4  # of each chain; below this probability their means vary too much for the error
_BLOCK = 1 << 20  # numbers worked on at once: 8 MiB per array


class GammaEstimate(NamedTuple):
    """The result of `gamma_method`; fields have the element shape of the observable, or are numpy scalars.

    ``error`` is the standard error of ``mean``; ``tau_int`` is in draws, 1/2 for independent draws;
    ``window`` is the last lag summed; ``effective_sample_size`` is N / (2 ``tau_int``), N all draws of all
    chains; ``replica_q`` is the probability of a larger spread of the chain means (nan for one chain).

    ``reliable`` is False, and the error should not be trusted, if a chain is shorter than 100 draws or 100
    (tau_int + its error), if tau_int is known to no better than 20 % (so the error to 10 %), if the window is
    longer than a quarter of a chain, if ``replica_q`` < 0.001 (so in some 0.1 to 0.3 % of the elements of a
    healthy run), if the means of 16 blocks per chain vary by more than the error allows (probability 1e-4: a
    slow part beside a fast one, or a trend), or if a chain never moves. If none moves and all are equal, error
    is 0, tau_int 1/2 and effective sample size nan: constant observable or stuck sampler.

    Any such rule selects: near its border, the series that pass are those whose tau_int came out small. With
    these thresholds, wherever more than a tenth of the AR(1) series of one length pass, their mean error is at
    least 0.8 times the true one; 50 tau_int alone let a quarter of single chains pass with 0.7 times.
    """

    mean: np.ndarray
    error: np.ndarray
    tau_int: np.ndarray
    tau_int_error: np.ndarray
    window: np.ndarray
    effective_sample_size: np.ndarray
    replica_q: np.ndarray
    reliable: np.ndarray


def gamma_method(series: Labeled, *, stau: float = 1.5) -> GammaEstimate:
    """Mean, its error and the integrated autocorrelation time of a Monte Carlo series, by the Γ-method.

    With R chains of n draws, N = R n, and δ the deviations of each chain from its own mean,
    ``Γ(t) = Σ_r Σ_i δ_r(i) δ_r(i+t) / (N − R t)``, ``ρ = Γ/Γ(0)``, ``τ(W) = 1/2 + Σ_{t=1..W} ρ(t)``,
    ``error² = C/N``, ``C = 2 τ(W) Γ(0) (1 + (2W+1)/N)``: the sum of Γ(t), each with its bias −C/N removed.
    W is the first lag with exp(−W/T) < T/√(W N), T = S/log((2τ+1)/(2τ−1)): statistical and truncation error
    balance. ``tau_int = τ(W) (1 + (2W+1)/N)/(1 + 1/N)``, its error ``2 τ √(|W + 1/2 − τ|/N)``.

    Parameters
    ----------
    series : array_like, shape ``(num_chains, num_draws, *element_shape)``
        Draws of the observable in the order of the chain, warm-up removed; at least 8 draws per chain.
    stau : float
        S, the assumed ratio of the exponential to the integrated autocorrelation time. Larger: longer window.

    Returns
    -------
    GammaEstimate
        Its docstring explains ``reliable``, the module anticorrelated draws and chains that disagree.

    Raises
    ------
    ArgumentError
        Fewer than two axes or 8 draws, an empty axis, a value not finite and real, ``stau`` not positive.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(1).normal(size=(4, 5000))
    >>> for t in range(1, 5000):  # AR(1), tau_int = (1 + 0.5)/(2 (1 - 0.5)) = 1.5
    ...     x[:, t] += 0.5 * x[:, t - 1]
    >>> estimate = gamma_method(x)
    >>> bool(abs(estimate.tau_int - 1.5) < 3 * estimate.tau_int_error), bool(estimate.reliable)
    (True, True)
    """
    series = _as_series(series)
    if isinstance(stau, bool) or not isinstance(stau, numbers.Real) or not 0 < stau < np.inf:
        raise ArgumentError("stau", "a positive finite number", repr(stau), "Values from 1 to 2 are usual.")
    blocks = [_estimate(chains, float(stau)) for chains in _blocks(series)]
    fields = zip(*blocks, strict=True)
    return GammaEstimate(*(np.concatenate(field).reshape(series.shape[2:])[()] for field in fields))


def normalized_autocorrelation(series: Labeled, max_lag: int) -> tuple[PerLag, PerLag]:
    """Normalized autocorrelation function ρ(t) = Γ(t)/Γ(0) with its error, for lags 0 … ``max_lag``.

    ``δρ(t)² = (1/N) Σ_{k=1..t+W} [ρ(k+t) + ρ(k−t) − 2 ρ(k) ρ(t)]²`` (M. Lüscher, Comput. Phys. Commun. 165
    (2005) 199, hep-lat/0409106), with Γ, N, W (for S = 1.5) of `gamma_method`, and ρ = 0 beyond W.

    Parameters
    ----------
    series : array_like, shape ``(num_chains, num_draws, *element_shape)``
    max_lag : int
        From 1 to below num_draws / 2.

    Returns
    -------
    rho, rho_error : arrays, shape ``(max_lag + 1, *element_shape)``, nan for a series that never moves

    Raises
    ------
    ArgumentError
        As for `gamma_method`, or ``max_lag`` out of range.

    Examples
    --------
    >>> import numpy as np
    >>> rho, error = normalized_autocorrelation(np.random.default_rng(0).normal(size=(2, 400)), 2)
    >>> bool(rho[0] == 1), bool(error[0] == 0), bool(abs(rho[1]) < 4 * error[1])
    (True, True, True)
    """
    series = _as_series(series)
    largest = series.shape[1] // 2 - 1
    if isinstance(max_lag, bool) or not isinstance(max_lag, numbers.Integral) or not 1 <= max_lag <= largest:
        expected = f"an integer from 1 to {largest}"
        raise ArgumentError("max_lag", expected, repr(max_lag), "Larger lags need longer chains.")
    blocks = [_rho_with_error(chains, int(max_lag)) for chains in _blocks(series)]
    shape = (int(max_lag) + 1, *series.shape[2:])
    rho, error = (np.concatenate(part, axis=1).reshape(shape) for part in zip(*blocks, strict=True))
    return rho, error


def _as_series(series: Labeled) -> Series:
    if {"chain", "draw"} <= set(getattr(series, "dims", ())):  # a DataArray, whose other axes are the element's
        series = series.transpose("chain", "draw", ...)
    series = finite_array("series", series, "Remove the draw, or look for a divergence in the chain.")
    if series.ndim < 2 or series.size == 0:
        expected, got = "no empty axis and shape (num_chains, num_draws, ...)", f"shape {series.shape}"
        raise ArgumentError("series", expected, got, "For one chain of a scalar use series[None, :].", reason="shape")
    if series.shape[1] < _MIN_DRAWS:
        expected, got = f"at least {_MIN_DRAWS} draws per chain (axis 1)", str(series.shape[1])
        raise ArgumentError("series", expected, got, "Draw longer chains, or swap exchanged axes.", reason="too_short")
    return series


def _blocks(series):
    """Yield float64 arrays (elements, chains, draws) of bounded size."""
    flat = series.reshape(*series.shape[:2], -1)
    step = max(1, _BLOCK // (series.shape[0] * series.shape[1]))
    for start in range(0, flat.shape[2], step):
        yield np.ascontiguousarray(np.moveaxis(flat[:, :, start : start + step], 2, 0), dtype=np.float64)


def _center(chains):
    """Deviations from the chain means in units of the largest, the means (elements, chains), and the unit."""
    deltas = chains - chains[:, :, :1]  # exactly 0 for a chain that never moves
    shift = deltas.mean(axis=2, keepdims=True)
    deltas -= shift
    unit = np.maximum(deltas.max(axis=(1, 2)), -deltas.min(axis=(1, 2)))
    unit[unit == 0] = 1.0
    deltas /= unit[:, None, None]
    return deltas, chains[:, :, 0] + shift[:, :, 0], unit


def _covariance(deltas):
    """Γ(t) for t below half the chain, (elements, lags), by FFT with enough zeros not to wrap around."""
    _, num_chains, num_draws = deltas.shape
    num_lags = num_draws // 2
    length = 1 << (num_draws + num_lags - 1).bit_length()
    power = np.sum(np.abs(np.fft.rfft(deltas, length)) ** 2, axis=1)
    products = np.fft.irfft(power, length)[:, :num_lags]
    return products / (num_chains * (num_draws - np.arange(num_lags)))


def _tau_and_window(rho, total, stau):
    """τ(W), W, and whether τ is only a bound, of every element from ρ of shape (elements, lags)."""
    lags = np.arange(1, rho.shape[1])
    even = np.cumsum(np.where(lags % 2 == 0, rho[:, 1:], 0.0), axis=1)
    odd = np.cumsum(np.where(lags % 2 == 1, rho[:, 1:], 0.0), axis=1)
    scale = np.maximum(0.5 + even + np.abs(odd), 0.5 + np.finfo(float).eps)
    slowest = stau / np.log((2 * scale + 1) / (2 * scale - 1))
    closed = np.exp(-lags / slowest) < slowest / np.sqrt(lags * total)
    closed[:, -1] = True
    last = np.argmax(closed, axis=1)[:, None]
    even, odd, rho_last = (np.take_along_axis(a, last, axis=1)[:, 0] for a in (even, odd, rho[:, 1:]))
    tau = 0.5 + even + odd - np.where(odd < 0, 0.5 * rho_last, 0.0)
    smallest = 0.5 / max(1.0, np.log10(total))
    return np.maximum(tau, smallest), last[:, 0] + 1, tau < smallest


def _estimate(chains, stau):
    """The fields of a `GammaEstimate` for chains of shape (elements, chains, draws)."""
    _, num_chains, num_draws = chains.shape
    total = num_chains * num_draws
    deltas, chain_means, unit = _center(chains)
    moves = np.any(deltas != 0, axis=2)
    still = ~np.any(moves, axis=1)
    gamma = _covariance(deltas)
    tau, window, is_bound = _tau_and_window(gamma / np.where(still, 1.0, gamma[:, 0])[:, None], total, stau)
    tau, window = np.where(still, 0.5, tau), np.where(still, 0, window)
    tau_error = np.where(is_bound, tau, 2 * tau * np.sqrt(np.abs(window + 0.5 - tau) / total))
    tau_error = np.where(still, 0.0, tau_error)
    uncorrected = 2 * tau * gamma[:, 0]  # C without its bias factor; 0 if still
    error = np.sqrt(uncorrected * (1 + (2 * window + 1) / total) / total)
    tau = np.where(still, 0.5, tau * (1 + (2 * window + 1) / total) / (1 + 1 / total))

    offsets = chain_means - chain_means[:, :1]
    mean_offset = offsets.mean(axis=1)  # exactly 0 for equal means
    apart, replica_q = np.zeros_like(still), np.full(len(still), np.nan)
    if num_chains > 1:
        spread = np.sum(((offsets - mean_offset[:, None]) / unit[:, None]) ** 2, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):  # still: 0/0 = nan if all are equal, else inf
            chi_squared = num_draws * spread / (uncorrected * (1 + (2 * window + 1) / num_draws))
        replica_q = gammaincc((num_chains - 1) / 2, chi_squared / 2)
        apart = replica_q < _MIN_REPLICA_Q
        variance = np.where(apart, gamma[:, 0] * (1 + 1 / total) + spread / num_chains, 1.0)
        error = np.where(apart, np.sqrt(spread / (num_chains * (num_chains - 1))), error)
        tau = np.where(apart, np.maximum(tau, total * error**2 / (2 * variance)), tau)
        tau_error = np.where(apart, tau * np.sqrt(2 / (num_chains - 1)), tau_error)
    ess = np.where(still & ~apart, np.nan, total / (2 * tau))
    needed = _MIN_TAUS * np.maximum(tau + tau_error, 1.0)  # a τ that came out small by chance calls for more
    long_enough = (num_draws >= needed) & (window <= _MAX_WINDOW * num_draws)
    long_enough &= is_bound | (tau_error <= _MAX_TAU_ERROR * tau)
    slow = _blocked_q(deltas, uncorrected, tau_error / np.where(still, 1.0, tau)) < _MIN_BLOCKED_Q
    reliable = long_enough & ~apart & ~slow & np.all(moves, axis=1)
    return chain_means[:, 0] + mean_offset, error * unit, tau, tau_error, window, ess, replica_q, reliable


def _blocked_q(deltas, uncorrected, doubt):
    """Probability that the means of 16 blocks per chain vary as much as they do, if the error is right: small for slow modes.

    The window of the Γ-method closes on the fast part of a series with two timescales, and sees neither a slow part of small
    variance nor a trend. Blocks do: n/16 times the variance of their means is at most 2 τ Γ(0).
    """
    elements, num_chains, num_draws = deltas.shape
    length = num_draws // _NUM_BLOCKS
    if length < 1:
        return np.ones(elements)
    means = deltas[:, :, : _NUM_BLOCKS * length].reshape(elements, num_chains, _NUM_BLOCKS, length).mean(axis=3)
    blocked = length * means.var(axis=2, ddof=1).mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = 2 / np.maximum(doubt, 1e-3) ** 2  # of the Γ-method's own estimate
        return np.nan_to_num(fdtrc(num_chains * (_NUM_BLOCKS - 1), freedom, blocked / uncorrected), nan=1.0)


def _rho_with_error(chains, max_lag):
    """ρ and δρ, each of shape (lags, elements), for chains of shape (elements, chains, draws)."""
    total = chains.shape[1] * chains.shape[2]
    gamma = _covariance(_center(chains)[0])
    still = gamma[:, 0] == 0  # only if no chain moves
    rho = gamma / np.where(still, 1.0, gamma[:, 0])[:, None]
    window = _tau_and_window(rho, total, 1.5)[1][:, None]
    lags = np.arange(rho.shape[1])
    padded = np.pad(np.where(lags <= window, rho, 0.0), ((0, 0), (0, len(lags))))
    error = np.zeros((max_lag + 1, len(chains)))
    k = lags[1:]
    for t in range(1, max_lag + 1):
        terms = padded[:, k + t] + padded[:, np.abs(k - t)] - 2 * padded[:, k] * padded[:, t, None]
        error[t] = np.sqrt(np.sum(np.where(k <= t + window, terms, 0.0) ** 2, axis=1) / total)
    rho[still], error[:, still] = np.nan, np.nan
    return np.moveaxis(rho[:, : max_lag + 1], 1, 0), error
