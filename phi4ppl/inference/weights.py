"""Weights of models from their pointwise predictive densities, with bootstrap errors.

ArviZ has the same weights for ordinary data; here they are reproducible (they have their own seed), and the densities of whole
fields, which underflow, are compared on a logarithmic scale.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import softmax

from .._typing import ArrayLike, Densities, ModelWeights, PerModel
from ..errors.streams import stream_rng

__all__ = ["bootstrap_errors", "evidence_weights", "pseudo_bma_weights", "stacking_weights"]


def evidence_weights(log_evidence: ArrayLike, prior: ArrayLike) -> ModelWeights:
    """w_m ∝ prior_m Z_m: posterior probabilities of the models, shape (..., num_models)."""
    return softmax(np.asarray(log_evidence, float) + np.log(prior), axis=-1)


def stacking_weights(elpd: Densities, counts: ArrayLike | None = None) -> PerModel:
    """The mixture of predictive densities with the largest leave-one-out score, argmax_w Σ_n log Σ_m w_m p_m(y_n | y_{−n}).

    Parameters
    ----------
    elpd : array, shape (num_data, num_models)
    counts : array, shape (num_data,), optional
        How often each datum counts.

    Notes
    -----
    Y. Yao, A. Vehtari, D. Simpson, A. Gelman, Bayesian Anal. 13 (2018) 917. The score is concave.

    Examples
    --------
    >>> import numpy as np
    >>> stacking_weights(np.log([[0.8, 0.2], [0.8, 0.2], [0.2, 0.8], [0.2, 0.8]])).round(3).tolist()
    [0.5, 0.5]
    """
    elpd = np.asarray(elpd, float)
    density = np.exp(elpd - elpd.max(axis=1, keepdims=True))
    counts = np.ones(len(elpd)) if counts is None else np.asarray(counts, float)
    share = counts / counts.sum()
    size = elpd.shape[1]

    def loss(weights):
        mixture = density @ weights
        return -share @ np.log(mixture), -share @ (density / mixture[:, None])

    found = minimize(
        loss, np.full(size, 1 / size), jac=True, method="SLSQP", bounds=[(1e-12, 1)] * size,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like}, options={"ftol": 1e-12, "maxiter": 500},
    )  # fmt: skip
    weights = np.clip(found.x, 0, None)
    return weights / weights.sum()


def pseudo_bma_weights(
    elpd: Densities, seed: int = 0, num_resamples: int = 1000, shared: float | PerModel = 0.0
) -> tuple[PerModel, PerModel]:
    """Pseudo-BMA+ weights: softmax of N · mean elpd, averaged over the Bayesian bootstrap; and their spread over it.

    Parameters
    ----------
    elpd : array, shape (num_data, num_models)
    shared : array, shape (num_models,), optional
        Standard error that every column has as a whole, such as that of log Z; it enters the errors of the weights only.

    Returns
    -------
    weights, errors : arrays, shape (num_models,)
    """
    elpd = np.asarray(elpd, float)
    rng = stream_rng(seed, "Bayesian bootstrap")
    shares = rng.dirichlet(np.ones(len(elpd)), size=num_resamples)
    scores = len(elpd) * shares @ (elpd - elpd.mean(axis=1, keepdims=True))
    shifts = len(elpd) * shared * rng.normal(size=scores.shape)
    return softmax(scores, axis=1).mean(axis=0), softmax(scores + shifts, axis=1).std(axis=0)


def bootstrap_errors(
    elpd: Densities, seed: int = 0, num_resamples: int = 100, shared: float | PerModel = 0.0
) -> PerModel:
    """Standard errors of `stacking_weights` over bootstrap samples of the data, shape (num_models,).

    ``shared`` as in `pseudo_bma_weights`.
    """
    elpd, rng = np.asarray(elpd, float), stream_rng(seed, "bootstrap")
    counts = rng.multinomial(len(elpd), np.full(len(elpd), 1 / len(elpd)), size=num_resamples)
    shifts = shared * rng.normal(size=(num_resamples, elpd.shape[1]))
    return np.std([stacking_weights(elpd + shift, c) for c, shift in zip(counts, shifts, strict=True)], axis=0)
