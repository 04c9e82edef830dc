"""⟨T⟩ and Cov(T) under a model, from chains, with their Monte Carlo errors: used by all fits that simulate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..model.coupling_vector import statistics_matrix
from ..model.field import MarkovRandomField
from ..sampling.engine import Engine

__all__ = ["BLOCK", "Expectation", "expectation"]

BLOCK = 1 << 22  # numbers of statistics worked on at once


class Expectation(NamedTuple):
    """Mean and covariance of the statistics under a model.

    Attributes
    ----------
    mean : array, shape (num_statistics,)
    fisher : array, shape (num_statistics, num_statistics)
        Cov(T), the Fisher matrix.
    chain_deviations : array, shape (num_chains, num_statistics)
        Means of single chains less the mean: their spread is the Monte Carlo error.
    num_draws : int
        Draws of every chain.
    """

    mean: np.ndarray
    fisher: np.ndarray
    chain_deviations: np.ndarray
    num_draws: int

    def joined(self, other: Expectation) -> Expectation:
        """The estimate from the draws of both, which are from the same chains under the same model."""
        parts, draws = (self, other), self.num_draws + other.num_draws
        share, chains = [part.num_draws / draws for part in parts], len(self.chain_deviations)
        mean = sum(s * part.mean for s, part in zip(share, parts, strict=True))
        means = sum(s * (part.mean + part.chain_deviations) for s, part in zip(share, parts, strict=True))
        products = sum(
            (chains * part.num_draws - 1) * part.fisher
            + chains * part.num_draws * np.outer(part.mean - mean, part.mean - mean)
            for part in parts
        )
        return Expectation(mean, products / (chains * draws - 1), means - mean, draws)  # type: ignore[arg-type]


def expectation(
    engine: Engine, model: MarkovRandomField, num_draws: int, statistics: Callable | None = None
) -> Expectation:
    """⟨T⟩ and Cov(T) from ``num_draws`` fields of every chain, once the chains have forgotten the last couplings.

    ``statistics(fields)`` are the rows T of fields, by default of all couplings of the model.
    """
    of = statistics or (lambda fields: statistics_matrix(model, fields))
    chains = engine.num_chains
    width = max(sum(np.size(value) for value in model.couplings.values()), model.lattice.num_sites)
    block = max(1, BLOCK // (chains * width))
    totals: Any = 0.0
    products: Any = 0.0
    shift = None
    for first in range(0, num_draws, block):
        fields = engine.draw(model, min(block, num_draws - first)).fields
        matrix = of(fields.reshape(-1, *model.field_shape))
        shift = matrix.mean(axis=0) if shift is None else shift  # to avoid cancellation in the squares
        matrix = matrix - shift
        totals = totals + matrix.reshape(chains, -1, matrix.shape[1]).sum(axis=1)
        products = products + matrix.T @ matrix
    number = chains * num_draws
    mean = totals.sum(axis=0) / number
    fisher = (products - number * np.outer(mean, mean)) / (number - 1)
    return Expectation(mean + shift, fisher, totals / num_draws - mean, num_draws)
