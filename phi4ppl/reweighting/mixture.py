"""Pooled samples of several ensembles as samples of a mixture, and their means under the weights of targets."""

from __future__ import annotations

import dataclasses

import numpy as np

from .._typing import Element, Energies, PerBlock, PerDraw, PerTarget, SumsWithoutBlock
from ..analysis.blocks import Blocks, Replicas, blocks_for, jackknife_error
from ..analysis.mbar import (
    MbarSolution,
    overlap_matrix,
    ratios_without_each,
    shares_of,
    solve_mbar,
    sums_without_each,
)
from ..results.tails import pareto_k
from .reweighted import Reweighted, warnings_of

__all__ = ["Mixture", "Weighted"]

MAX_BLOCKS = 80  # of each ensemble, where every block means solving for all log Z again: fits need a whole covariance
MAX_REPLICAS = 200  # of a single ensemble, where they are kept


class Mixture:
    """Samples of K ensembles with their log Z, for all of them and without one block of draws each.

    Attributes
    ----------
    energies : array, shape (num_ensembles, num_samples)
    sizes : list of (chains, draws), one per ensemble
    counts : array, shape (num_ensembles,)
    solution : MbarSolution
    pool : str
        Digest of the samples.
    """

    def __init__(self, energies: Energies, sizes: list[tuple[int, int]], pool: str):
        self.energies, self.sizes, self.pool = energies, sizes, pool
        self.counts = np.array([chains * draws for chains, draws in sizes], float)
        self._ratios: dict[tuple[int, bytes], np.ndarray] = {}
        if self.is_single:
            self.solution = MbarSolution(np.zeros(1), np.full(energies.shape[1], np.log(self.counts[0])))
        else:
            self.solution = solve_mbar(energies, self.counts)
            self._shares = shares_of(energies, self.counts, self.solution)

    @property
    def is_single(self) -> bool:
        return len(self.sizes) == 1

    def overlap(self) -> np.ndarray:
        return overlap_matrix(self.energies, self.counts, self.solution)

    def range(self, k: int) -> slice:
        """The samples of ensemble k."""
        first = int(self.counts[:k].sum())
        return slice(first, first + int(self.counts[k]))

    def blocks(self, k: int, series: PerDraw, most: int | None = None) -> Blocks:
        """Blocks of ensemble k for the slowest of ``series``, shape ``(draws of the ensemble, num_series)``."""
        own = np.ascontiguousarray(series).reshape(*self.sizes[k], -1)
        return blocks_for(own, most=most if self.is_single else MAX_BLOCKS)

    def log_partition_without_each(self, k: int, blocks: Blocks) -> np.ndarray:
        """log Z of all ensembles relative to the first without one block of ensemble k each, (blocks, ensembles)."""
        left = np.tile(self.counts, (len(blocks.starts), 1))
        left[:, k] -= self._lengths(k, blocks)
        return self.solution.log_partition - np.log(self._ratios_without_each(k, blocks) * self.counts / left)

    def sums_without_each(self, k: int, blocks: Blocks, weights: PerTarget, table: PerDraw) -> SumsWithoutBlock:
        """Σ_n w_t(n) x_j(n) without one block of ensemble k each, where the weights are over the mixture without it.

        Shape ``(blocks, targets, columns)``.
        """
        if not self.is_single:
            ratios = self._ratios_without_each(k, blocks)
            return sums_without_each(self._shares, ratios, self._labels(k, blocks), weights, table)
        parts = np.stack([blocks.sums(w[:, None] * table) for w in weights.T], axis=1)
        left = self.counts[0] - self._lengths(k, blocks)
        return (parts.sum(axis=0) - parts) * (self.counts[0] / left)[:, None, None]

    def _ratios_without_each(self, k: int, blocks: Blocks) -> np.ndarray:
        """They depend on no target: solved once for all of them."""
        key = k, blocks.starts.tobytes()
        if key not in self._ratios:
            labels = self._labels(k, blocks)
            ratios = ratios_without_each(self._shares, self.counts, labels, k)
            for b in np.flatnonzero(np.isnan(ratios).any(axis=1)):
                ratios[b] = self._ratio_without(k, labels == b)
            self._ratios[key] = ratios
        return self._ratios[key]

    def _ratio_without(self, k: int, inside: np.ndarray) -> np.ndarray:
        """The same for one block, by steps that are sure to climb."""
        left = self.counts.copy()
        left[k] -= inside.sum()
        start = self.solution.log_partition
        found = solve_mbar(self.energies, left, start, weights=np.where(inside, 0.0, 1.0)).log_partition
        return left / self.counts * np.exp(start - found)

    def _lengths(self, k: int, blocks: Blocks) -> np.ndarray:
        return np.diff([*blocks.starts, self.counts[k]])

    def _labels(self, k: int, blocks: Blocks) -> np.ndarray:
        """The block of each sample, −1 outside ensemble k."""
        labels = np.full(self.energies.shape[1], -1)
        labels[self.range(k)] = np.repeat(np.arange(len(blocks.starts)), self._lengths(k, blocks).astype(int))
        return labels


class Weighted:
    """The pooled samples under the weights of T targets, exp(S_0 − A_t)/D, with observables of every sample.

    Parameters
    ----------
    mixture : Mixture
    exponents : array, shape (num_samples, num_targets)
        S_0 − A_t.
    values : dict of arrays, each of shape (num_samples, *element_shape)
    """

    def __init__(self, mixture: Mixture, exponents: PerTarget, values: dict[str, np.ndarray]):
        self._mixture, self._values = mixture, values
        numbers = [v.reshape(len(v), -1) for v in values.values()]
        self._table = np.concatenate([np.ones((len(exponents), 1)), *numbers], axis=1)
        log_weights = exponents - mixture.solution.log_mixture[:, None]
        self._largest = log_weights.real.max(axis=0)
        self._weights = np.exp(log_weights - self._largest)
        self._totals = self._weights.T @ self._table
        self._means = self._totals / self._totals[:, :1]

    def results(self) -> list[Reweighted]:
        """One for each target, with errors from blocks of its own."""
        number = self._weights.shape[1]
        found: list[list[Blocks]] = [[] for _ in range(number)]
        squares: list = [0.0] * number
        for k in range(len(self._mixture.sizes)):
            groups: dict[bytes, list[int]] = {}
            for t in range(number):
                found[t].append(self._mixture.blocks(k, self._spread(k, t)))
                groups.setdefault(found[t][k].starts.tobytes(), []).append(t)
            for targets in groups.values():
                estimates = self._without_each(k, found[targets[0]][k], targets)
                for place, t in enumerate(targets):
                    squares[t] = squares[t] + _squares(jackknife_error(found[t][k], estimates[:, place]))
        return [self._result(t, _roots(squares[t]), found[t]) for t in range(number)]

    def replicas(self, reliable) -> Replicas:
        """Means and log Z_A/Z_0 for all targets, and what they are without one block each, the same for all.

        ``reliable`` says which of the targets can be trusted.
        """
        targets, without = list(range(self._weights.shape[1])), []
        for k in range(len(self._mixture.sizes)):
            each = (self._mixture.blocks(k, self._spread(k, t), MAX_REPLICAS) for t in targets)
            blocks = max(each, key=lambda found: found.tau_int)  # long enough for the slowest
            estimates = self._without_each(k, blocks, targets)
            without.append((blocks, self._named(estimates[:, :, 0], estimates[:, :, 1:-1])))
        means = self._named(np.log(self._totals[:, 0]), self._means[:, 1:])
        return Replicas(means, tuple(without), reliable, self._mixture.pool)

    def _named(self, log_ratios, means) -> dict[str, np.ndarray]:
        """By name, with the axes of ``log_ratios`` first."""
        return {"log_partition_ratio": log_ratios + self._largest} | split(self._values, means)

    def _spread(self, k: int, t: int) -> np.ndarray:
        """The weighted series of ensemble k whose sums are log Z_A/Z_0 and the means."""
        own, means = self._mixture.range(k), np.append(0, self._means[t, 1:])
        return _parts(self._weights[own, t, None] * (self._table[own] - means) / np.abs(self._totals[t, 0]))

    def _without_each(self, k: int, blocks: Blocks, targets: list[int]) -> PerBlock:
        """log Z_A/Z_0, the means and the average phase without one block each, (blocks, targets, columns)."""
        weights = self._weights[:, targets]
        left = self._mixture.sums_without_each(k, blocks, weights, self._table)
        size = left
        if np.iscomplexobj(weights):
            size = self._mixture.sums_without_each(k, blocks, np.abs(weights), self._table[:, :1].real)
        middle = self._totals[targets, 0]
        # where one block has all the weight, the error is infinite
        with np.errstate(divide="ignore", invalid="ignore"):
            # the logarithm is taken near its mean, so that its imaginary part does not jump by 2π
            log_ratio = np.log(left[:, :, 0] / middle) + np.log(middle)
            means, phase = left[:, :, 1:] / left[:, :, :1], left[:, :, 0] / size[:, :, 0]
        return np.concatenate([log_ratio[:, :, None], means, phase[:, :, None]], axis=2)

    def _result(self, t: int, errors, blocks: list[Blocks]) -> Reweighted:
        weights, total = self._weights[:, t], self._totals[t, 0]
        size, tau = np.abs(weights), float(max(each.tau_int for each in blocks))
        overlap = float(size.sum() ** 2 / (len(size) * (size**2).sum()))
        correlation = max(1.0, 2 * tau)
        phase = complex(total / size.sum())
        result = Reweighted(
            mean=_numbers(split(self._values, self._means[t, 1:])), error=_numbers(split(self._values, errors[1:-1])),
            effective_sample_size=float(len(size) * overlap / correlation), overlap=overlap,
            pareto_k=pareto_k(np.log(np.maximum(size, 1e-300)), 1 / correlation),
            average_phase=phase if np.iscomplexobj(weights) else phase.real, average_phase_error=_number(errors[-1]),
            log_partition_ratio=_number(np.log(total) + self._largest[t]), log_partition_ratio_error=_number(errors[0]),
            num_fields=len(size), tau_int=tau, block_length=float(min(each.length for each in blocks)),
        )  # fmt: skip
        return dataclasses.replace(result, warnings=warnings_of(result, all(each.long_enough for each in blocks)))


def split(values: dict[str, np.ndarray], flat: np.ndarray) -> dict[str, np.ndarray]:
    """``flat``, whose last axis holds the elements of all observables, by name and in their shapes."""
    result, first = {}, 0
    for name, array in values.items():
        size = int(np.prod(array.shape[1:]))
        result[name] = flat[..., first : first + size].reshape((*flat.shape[:-1], *array.shape[1:]))
        first += size
    return result


def _parts(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values.real, values.imag], axis=1) if np.iscomplexobj(values) else values


def _squares(errors: Element) -> Element:
    return errors.real**2 + 1j * errors.imag**2 if np.iscomplexobj(errors) else errors**2


def _roots(squares: Element) -> Element:
    return np.sqrt(squares.real) + 1j * np.sqrt(squares.imag) if np.iscomplexobj(squares) else np.sqrt(squares)


def _number(value):
    return complex(value) if np.iscomplexobj(value) else float(value)


def _numbers(arrays: dict[str, np.ndarray]) -> dict:
    return {name: array if array.ndim else _number(array[()]) for name, array in arrays.items()}
