"""Leave-one-out predictive densities by Pareto-smoothed importance sampling."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

__all__ = ["LeaveOneOut", "leave_one_out"]


class LeaveOneOut(NamedTuple):
    """``elpd``: log p(y_n | all other data) of every datum; ``pareto_k``: k̂ of its weights, −inf where they are all equal."""

    elpd: np.ndarray
    pareto_k: np.ndarray


def leave_one_out(log_likelihood, log_weights=None) -> LeaveOneOut:
    """log p(y_n | y_{−n}) of every datum from draws of the posterior given all data.

    The weights are those of ArviZ (A. Vehtari, A. Gelman, J. Gabry, Stat. Comput. 27 (2017) 1413). Where k̂ > 0.7 a datum is so
    influential that the value cannot be trusted.

    Parameters
    ----------
    log_likelihood : array, shape (num_draws, num_data)
        log p(y_n | θ_s) at independent draws of the posterior.
    log_weights : array, shape (num_draws,), optional
        Up to a constant, where the draws are an importance sample of the posterior.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)  # unit normal data, conjugate posterior of their mean
    >>> y = rng.normal(size=50)
    >>> mean = rng.normal(y.mean(), 50**-0.5, (2000, 1))
    >>> found = leave_one_out(-((y - mean) ** 2) / 2 - np.log(2 * np.pi) / 2)
    >>> centre, variance = (y.sum() - y) / 49, 1 + 1 / 49
    >>> exact = -((y - centre) ** 2) / (2 * variance) - np.log(2 * np.pi * variance) / 2
    >>> bool(np.abs(found.elpd - exact).max() < 0.02), bool(found.pareto_k.max() < 0.7)
    (True, True)
    """
    from arviz_stats.base import array_stats

    log_likelihood = np.asarray(log_likelihood, float)
    weights = np.zeros(len(log_likelihood)) if log_weights is None else np.asarray(log_weights, float)
    log_likelihood, weights = log_likelihood[np.isfinite(weights)], weights[np.isfinite(weights)]
    # ArviZ takes log likelihoods, whose negatives are the log weights of leave-one-out
    ratios = (log_likelihood - weights[:, None]).T
    varies = np.ptp(ratios, axis=1) > 1e-9
    elpd, k = logsumexp(log_likelihood + weights[:, None], axis=0) - logsumexp(weights), np.full(len(ratios), -np.inf)
    if varies.any():
        smooth, k[varies] = array_stats.psislw(ratios[varies], axis=-1)
        elpd[varies] = logsumexp(smooth + log_likelihood.T[varies], axis=-1) - logsumexp(smooth, axis=-1)
    return LeaveOneOut(elpd, k)
