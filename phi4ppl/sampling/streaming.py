"""Statistics of series and fields in one pass: a few numbers per series for a run of any length, on the host, in float64.

Both classes give the same bits however the stream is cut into chunks, so that neither the rhythm of a run nor a resumed
checkpoint shows in the result.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import fdtrc

__all__ = ["BlockedSeries", "SeriesEstimate", "SiteMoments"]

MIN_BLOCKS = 4  # a chain, at the level that is chosen
MIN_TAUS = 100  # reliable: so many τ_int per chain
MIN_TAUS_IN_BLOCK = 10  # the same for blocks of a given length
MAX_TAU_ERROR = (
    0.25  # reliable: of τ_int, which takes 32 blocks; with fewer, the series that pass are those of small errors
)
MIN_REPLICA_Q = 1e-3  # below it the chains disagree


class SeriesEstimate(NamedTuple):
    """Statistics from the streams; fields have the element shape of the observable, or are numpy scalars.

    ``error`` is the standard error of ``mean``; ``variance`` that of one draw; ``tau_int`` is in draws of the stream, ½ for
    independent ones; ``count`` is the number of draws of all chains; ``block`` is the length of the blocks that gave the error.

    ``reliable`` is False, and the error should not be trusted, if a chain is shorter than 100 (tau_int + its error), if
    fewer than some 32 blocks make the error, if the chains disagree, if they are too short for the rule, or if no chain
    moves. ``replica_q`` is the probability of a larger spread of the chain means (NaN for one chain), and ``long_enough``
    is what ``reliable`` would be without it: a table of many elements asks for a smaller probability before it says that
    chains disagree.
    """

    mean: np.ndarray
    error: np.ndarray
    variance: np.ndarray
    tau_int: np.ndarray
    tau_int_error: np.ndarray
    count: np.ndarray  # type: ignore[assignment]
    block: np.ndarray
    reliable: np.ndarray
    replica_q: np.ndarray
    long_enough: np.ndarray

    def scaled(self, factor: float) -> SeriesEstimate:
        """The statistics of ``factor`` times the observable."""
        mean, error, variance = self.mean * factor, self.error * abs(factor), self.variance * factor**2
        return self._replace(mean=mean, error=error, variance=variance)


class BlockedSeries:
    """Mean, variance, error and τ_int of a series of unknown length by binary blocking, in memory O(log n).

    Level l of the blocking has the means of 2ˡ consecutive draws. Kept are, for each level and chain, half the sum d_l of the
    squared differences of the pairs that made the next level, and the mean p_l that still waits for its partner. For the B_j =
    ⌊n/2ʲ⌋ blocks of level j, the sum of their squared deviations from their mean m_j follows without cancellation,

    ``Q_j = Σ_{l ≥ j} 2^{l−j} (d_l + [bit l of n is set] (p_l − m_j)²)``.

    Parameters
    ----------
    num_chains : int
    shape : tuple of int
        Of one value; () for a scalar.

    Attributes
    ----------
    count : int
        Draws of every chain so far.

    Notes
    -----
    Sources: H. Flyvbjerg and H. G. Petersen, J. Chem. Phys. 91 (1989) 461; R. M. Lee et al., Phys. Rev. E 83 (2011) 066706
    (the rule for the level).

    Examples
    --------
    >>> import numpy as np
    >>> from phi4ppl.sampling.streaming import BlockedSeries
    >>> x, series = np.random.default_rng(0).normal(size=(4, 10_000)), BlockedSeries(4)
    >>> for start in range(0, 10_000, 300):
    ...     series.add(x[:, start : start + 300])
    >>> whole = BlockedSeries(4)
    >>> whole.add(x)
    >>> series.estimate() == whole.estimate()
    True
    """

    def __init__(self, num_chains: int, shape: tuple[int, ...] = ()):
        self.count = 0
        self._waiting = np.zeros((0, num_chains, *shape))
        self._details = np.zeros((0, num_chains, *shape))

    def add(self, values) -> None:
        """Take the next draws of all chains, shape ``(num_chains, n, *shape)``.

        Draws enter like ones into a binary counter, and means of pairs are carried to the next level. After five draws::

            level 0    (x₀ x₁) (x₂ x₃) x₄      count = 101₂: bit 0 is set, so x₄ waits
            level 1    (m₀₁  m₂₃)              bit 1 is not, so nothing waits
            level 2    m₀₁₂₃                   bit 2 is set, so it waits
        """
        values = np.asarray(values, np.float64)
        number, level, count = self.count, 0, self.count + values.shape[1]
        with np.errstate(invalid="ignore", over="ignore"):  # an observable may be infinite, and then so is its mean
            while values.shape[1]:
                if level == len(self._waiting):
                    more = np.zeros((1, *self._waiting.shape[1:]))
                    self._waiting, self._details = (np.concatenate([a, more]) for a in (self._waiting, self._details))
                if number & 1:
                    values = np.concatenate([self._waiting[level][:, None], values], axis=1)
                pairs = values.shape[1] // 2
                first, second = values[:, 0 : 2 * pairs : 2], values[:, 1 : 2 * pairs : 2]
                # accumulate adds one by one, in order; a sum would add in another order for another cut
                terms = np.concatenate([self._details[level][:, None], (second - first) ** 2 / 2], axis=1)
                self._details[level] = np.add.accumulate(terms, axis=1)[:, -1]
                self._waiting[level] = values[:, -1] if values.shape[1] & 1 else 0
                values, number, level = (first + second) / 2, number >> 1, level + 1
        self.count = count

    def _level(self, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean over the whole blocks of one level, and the sum of their squared deviations from it, for every chain."""
        levels = range(level, len(self._waiting))
        waiting = [k for k in levels if self.count >> k & 1]
        mean = sum(2.0 ** (k - level) * self._waiting[k] for k in waiting) / (self.count >> level)
        within = sum(2.0 ** (k - level) * self._details[k] for k in levels)
        return mean, within + sum(2.0 ** (k - level) * (self._waiting[k] - mean) ** 2 for k in waiting)

    def estimate(self) -> SeriesEstimate:
        """Mean over all draws, its error by blocking, and what follows from both.

        The level is the lowest whose block length satisfies ``block³ > 2 N (2 tau)²``, N all draws of all chains and tau (at
        least ½) as this level sees it: there the bias of too short blocks and the noise of too few balance. At least four
        blocks per chain are required. If the means of the chains differ by more than their errors allow (a tail probability
        below 0.001), the error is that of the chain means, and τ_int the one that belongs to it.
        """
        num_chains, shape = self._waiting.shape[1], self._waiting.shape[2:]
        total = num_chains * self.count
        if self.count < 2 * MIN_BLOCKS:
            mean = self._level(0)[0].mean(axis=0) if self.count else np.full(shape, np.nan)
            unknown = np.full(shape, np.nan)
            never = np.zeros(shape, bool)
            rest = np.full(shape, total), np.ones(shape, int), never, unknown, never
            return SeriesEstimate(*map(_scalar, (mean, *[unknown] * 4, *rest)))
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            chain_means, squares = self._level(0)
            mean = chain_means.mean(axis=0)
            independent = squares.sum(axis=0) / (num_chains * (self.count - 1)) / total
            error2, level, found = independent, np.zeros(shape, int), np.zeros(shape, bool)
            for k in range((self.count // MIN_BLOCKS).bit_length()):
                blocks = self.count >> k
                new = self._level(k)[1].sum(axis=0) / (num_chains**2 * blocks * (blocks - 1))
                error2, level = np.where(found, error2, new), np.where(found, level, k)
                found |= 8.0**k > 2 * total * np.maximum(np.nan_to_num(error2 / independent), 1) ** 2
            spread = ((chain_means - mean) ** 2).sum(axis=0)
            freedom = num_chains * ((self.count >> level) - 1)
            inner, doubt = error2 * total / (2 * (squares.sum(axis=0) / total + error2)), np.sqrt(2 / freedom)
            long_enough = found & (self.count >= MIN_TAUS * inner * (1 + doubt)) & (doubt <= MAX_TAU_ERROR)
            error2, agree, replica_q = _unless_chains_disagree(error2, spread, num_chains, freedom)
            # draws vary around their sample mean by the variance minus that of the mean
            variance = (squares.sum(axis=0) + self.count * spread) / total + error2
            tau = error2 * total / (2 * variance)
            tau_error = tau * np.sqrt(2 / np.where(agree, freedom, max(num_chains - 1, 1)))
        rest = np.full(shape, total), 2**level, long_enough & agree, replica_q, long_enough
        return SeriesEstimate(*map(_scalar, (mean, np.sqrt(error2), variance, tau, tau_error, *rest)))

    def state(self) -> dict[str, np.ndarray]:
        """Everything that `from_state` needs to resume this stream."""
        return {"count": np.asarray(self.count), "waiting": self._waiting.copy(), "details": self._details.copy()}

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray]) -> BlockedSeries:
        series = cls(0)
        series.count = int(state["count"])
        series._waiting, series._details = (np.array(state[name], np.float64) for name in ("waiting", "details"))
        return series


class SiteMoments:
    """Mean and variance of a field at every site, from sums over parts of the run that the device made.

    Float32 sums over many draws lose digits, so parts are short and their sums are of deviations from a field of the part,
    ``Σ (φ − ref)`` and ``Σ (φ − ref)²``; here the parts are joined in float64. Errors come from the means of a few long
    blocks, each of several parts, as many as the caller closes.

    Parameters
    ----------
    shape : tuple of int
        ``(num_chains, *field_shape)``.

    Examples
    --------
    >>> import numpy as np
    >>> from phi4ppl.sampling.streaming import SiteMoments
    >>> phi, moments = np.random.default_rng(0).normal(5.0, 1.0, size=(2, 400, 3)), SiteMoments((2, 3))
    >>> for block in np.split(phi, 20, axis=1):
    ...     moments.add(20, np.zeros((2, 3)), block.sum(axis=1), (block**2).sum(axis=1))
    ...     moments.close_block()
    >>> bool(np.allclose(moments.estimate().mean, phi.mean(axis=(0, 1))))
    True
    """

    def __init__(self, shape: tuple[int, ...]):
        self._counts = np.zeros(3, np.int64)  # draws, draws of the open block, closed blocks
        self._mean, self._squares = np.zeros(shape), np.zeros(shape)
        self._open = np.zeros(shape)  # sum over the open block
        self._block_mean, self._block_squares = np.zeros(shape), np.zeros(shape)

    @property
    def count(self) -> int:
        """Draws of every chain so far."""
        return int(self._counts[0])

    def add(self, count: int, reference, total, squares) -> None:
        """Take the sums over the next ``count`` draws, each of shape ``(num_chains, *field_shape)``."""
        reference, total, squares = (np.asarray(values, np.float64) for values in (reference, total, squares))
        mean = reference + total / count
        inside = np.maximum(squares - total**2 / count, 0)
        done = self._counts[0]
        change = mean - self._mean
        self._squares += inside + change**2 * (done * count / (done + count))
        self._mean += change * (count / (done + count))
        self._open += count * mean
        self._counts[:2] += count

    def close_block(self) -> None:
        """End a block for the error; blocks should be of about the same length."""
        mean = self._open / self._counts[1]
        self._counts[2] += 1
        change = mean - self._block_mean
        self._block_mean += change / self._counts[2]
        self._block_squares += change * (mean - self._block_mean)
        self._open[:] = 0
        self._counts[1] = 0

    def estimate(self) -> SeriesEstimate:
        """Over all chains; without an error before two blocks are closed.

        Reliable only where blocks are at least ten τ_int long, since their length does not adapt, and where all chains
        together have some 32 of them (two chains of 20).
        """
        num_chains, blocks, mean = len(self._mean), int(self._counts[2]), self._mean.mean(axis=0)
        count = np.full(mean.shape, num_chains * self.count)
        spread = ((self._mean - mean) ** 2).sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            variance = (self._squares.sum(axis=0) / np.float64(self.count) + spread) / num_chains
            if blocks < 2:
                mean, unknown = np.where(count, mean, np.nan), np.full_like(mean, np.nan)
                never = np.zeros(mean.shape, bool)
                return SeriesEstimate(mean, unknown, variance, unknown, unknown, count, count, never, unknown, never)
            block, freedom = (self.count - int(self._counts[1])) // blocks, num_chains * (blocks - 1)
            error2 = self._block_squares.sum(axis=0) / (num_chains**2 * blocks * (blocks - 1))
            inner = (
                error2 * num_chains * block * blocks / (2 * (variance + error2))
            )  # τ_int, whether or not chains agree
            error2, agree, replica_q = _unless_chains_disagree(error2, spread, num_chains, freedom)
            variance = variance + error2
            tau = error2 * num_chains * block * blocks / (2 * variance)
        tau_error = tau * np.sqrt(2 / np.where(agree, freedom, max(num_chains - 1, 1)))
        long_enough = (block >= MIN_TAUS_IN_BLOCK * inner) & (np.sqrt(2 / freedom) <= MAX_TAU_ERROR)
        rest = np.full(mean.shape, block), agree & long_enough, replica_q, long_enough
        return SeriesEstimate(mean, np.sqrt(error2), variance, tau, tau_error, count, *rest)

    _NAMES = ("counts", "mean", "squares", "open", "block_mean", "block_squares")

    def state(self) -> dict[str, np.ndarray]:
        """Everything that `from_state` needs to resume."""
        return {name: getattr(self, "_" + name).copy() for name in self._NAMES}

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray]) -> SiteMoments:
        moments = cls(np.shape(state["mean"]))
        for name in cls._NAMES:
            setattr(moments, "_" + name, np.array(state[name]))  # a copy
        return moments


def _unless_chains_disagree(error2, spread, num_chains: int, freedom):
    """The squared error, or that of the chain means where they differ by more than it allows; where they agree; how probable.

    ``spread`` is the sum of the squared deviations of the chain means, ``freedom`` that of ``error2``.
    """
    if num_chains == 1:
        return error2, np.ones(np.shape(error2), bool), np.full(np.shape(error2), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = spread / (num_chains * (num_chains - 1))
        replica_q = fdtrc(num_chains - 1, freedom, between / error2)  # F-test of the two
    agree = ~(replica_q < MIN_REPLICA_Q)
    return np.where(agree, error2, between), agree, replica_q


def _scalar(value):
    return np.asarray(value)[()]
