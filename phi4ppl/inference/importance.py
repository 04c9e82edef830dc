"""Importance samples of the posterior of a few couplings, which give its evidence."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.special import logsumexp

from ..errors import ArgumentError
from ..errors.streams import stream_rng
from ..partition.log_partition import log_partition
from ..results.settings import write_metadata
from ..results.tails import MAX_PARETO_K, pareto_k
from .coupling_problem import CouplingProblem
from .log_z import LogZ, SurfaceAlongAxes, Unaffordable, exact_at, mean_errors, mean_shift
from .mode import find_mode
from .posterior import Posterior
from .region import where_finite

__all__ = ["ImportanceSample", "importance_sample", "posterior_by_importance", "resampled"]

MIN_OVERLAP = 0.1
FREEDOM = 7  # of the t-distribution that couplings are proposed from
DEPTH = 25.0  # nats below the largest weight, beyond which log Z need not be exact
MAX_SHIFT = 0.5  # posterior standard deviations by which log Z may move a mean without a warning


class ImportanceSample(NamedTuple):
    """Draws θ_s from a proposal q, and log Z at them.

    Attributes
    ----------
    problem : CouplingProblem
    thetas : array, shape (num_draws, num_couplings)
    rest : array, shape (num_draws,)
        log of p(θ_s) Π_n exp(−θ_s·T_n − E_n)/q(θ_s): the weight without log Z, −∞ outside the priors and where Z is infinite.
    log_partition : array, shape (num_draws,)
    log_z_error : float
    """

    problem: CouplingProblem
    thetas: np.ndarray
    rest: np.ndarray
    log_partition: np.ndarray
    log_z_error: float

    @property
    def log_ratios(self) -> np.ndarray:
        return self.rest - self.problem.count * self.log_partition

    @property
    def log_weights(self) -> np.ndarray:
        return self.log_ratios - logsumexp(self.log_ratios)

    @property
    def log_evidence(self) -> float:
        """log of the mean of p(data | θ_s) p(θ_s)/q(θ_s)."""
        return float(logsumexp(self.log_ratios) - np.log(len(self.rest)))

    @property
    def log_evidence_error(self) -> float:
        sampling = max(np.sum(np.exp(2 * self.log_weights)) - 1 / len(self.rest), 0.0)
        kept, error = self.problem.kept
        return float(np.sqrt(sampling + (self.problem.count * self.log_z_error) ** 2 + (error / kept) ** 2))

    @property
    def pareto_k(self) -> float:
        """k̂ of the weights; above 0.7 they cannot be trusted."""
        return pareto_k(self.log_ratios[np.isfinite(self.log_ratios)])

    def with_exact(self) -> ImportanceSample:
        """The same draws with exact log Z wherever they carry weight; itself, if that would take too long."""
        kept = self.log_ratios > self.log_ratios.max() - DEPTH
        exact, values = exact_at(self.problem, self.thetas[kept]), self.log_partition.copy()
        if exact is None:
            return self
        try:
            values[kept], error = exact(self.thetas[kept])
        except Unaffordable:
            return self
        return self._replace(rest=np.where(kept, self.rest, -np.inf), log_partition=values, log_z_error=error)


def importance_sample(
    problem: CouplingProblem, log_z: LogZ, center, covariance, num_draws: int, seed: int
) -> ImportanceSample:
    """Couplings from a t-distribution around the posterior, a little wider than it."""
    from scipy.stats import multivariate_t  # slow to import

    proposal = multivariate_t(center, 1.2 * covariance, df=FREEDOM, seed=stream_rng(seed, "proposal"))
    thetas = np.asarray(proposal.rvs(num_draws)).reshape(num_draws, -1)
    rest = problem.log_prior(thetas) - np.log(problem.kept[0]) - proposal.logpdf(thetas)
    rest -= thetas @ problem.statistics.sum(axis=0) + problem.fixed_energy.sum()
    inside = np.flatnonzero(np.isfinite(rest))
    rest[inside[~where_finite(problem, thetas[inside])]] = -np.inf  # which finite sums do not see
    if not np.isfinite(rest).any():
        raise ArgumentError(
            "priors",
            "a posterior inside their support",
            "no coupling that both prior and data allow",
            reason="no_support",
        )
    return ImportanceSample(problem, thetas, rest, *log_z(thetas))


def posterior_by_importance(
    problem: CouplingProblem, notes: list[str], *, num_draws: int, seed: int, progress: bool | None
) -> Posterior:
    """Posterior and evidence from ensembles around the mode; of a model without priors at its couplings.

    ``notes`` are for the settings of the tree.
    """
    if not problem.names:
        normalizer = log_partition(problem.model, seed=seed, progress=progress)
        none, value = np.zeros((1, 0)), np.array([normalizer.value])
        evidence = float(problem.log_likelihood(none, value).sum()), problem.count * normalizer.error
        return Posterior(problem, _tree(problem, none, {}), none, np.zeros(1), value, *evidence)
    found = find_mode(problem, problem.start, seed)
    log_z = SurfaceAlongAxes(problem, found, seed, progress)
    sample = simulated = importance_sample(problem, log_z, found.theta, found.covariance, num_draws, seed)
    if log_z.anchor.method == "exact":
        sample = simulated.with_exact()
    pool = log_z.pool if sample is simulated else None
    weights = np.exp(sample.log_weights)
    away = sample.thetas - weights @ sample.thetas
    noise = mean_errors(pool, problem.count, sample.thetas, weights)
    shift, from_log_z = mean_shift(noise, (weights[:, None] * away).T @ away), noise[: len(problem.names)]
    even = sample.thetas[resampled(weights, seed)]
    warnings = [*found.warnings, *_warnings(sample, pool, shift)]
    settings = {
        "normalizer": "surface" if pool else "exact",
        "normalizer_shift": shift, "normalizer_error": dict(zip(problem.names, from_log_z.tolist(), strict=True)),
        "log_evidence": sample.log_evidence, "log_evidence_error": sample.log_evidence_error, "warnings": warnings,
        "notes": notes,
    }  # fmt: skip
    return Posterior(
        problem, _tree(problem, even, settings), sample.thetas, sample.log_weights, sample.log_partition, sample.log_evidence,
        sample.log_evidence_error, tuple(warnings), np.hypot(np.sqrt(weights**2 @ away**2), from_log_z),
    )  # fmt: skip


def resampled(weights: np.ndarray, seed: int) -> np.ndarray:
    """Places of as many draws of equal weight as the effective sample size, in random order, by systematic resampling."""
    rng, number = stream_rng(seed, "resampling"), max(1, int(1 / np.sum(weights**2)))
    places = np.searchsorted(np.cumsum(weights), (np.arange(number) + rng.random()) / number)
    return rng.permutation(np.minimum(places, len(weights) - 1))


def _tree(problem: CouplingProblem, draws: np.ndarray, settings: dict) -> xr.DataTree:
    """Draws as one chain of a run."""
    coords = {"chain": [0], "draw": np.arange(len(draws))}
    columns = {name: (("chain", "draw"), column[None]) for name, column in zip(problem.names, draws.T, strict=True)}
    facts = {
        "kernel": "importance", "kernel_reason": "a t-distribution around the mode", "num_warmup": 0, "num_chains": 1,
        "num_samples": len(draws), "thinning": 1, "even": False, "layout": "numpyro",
    }  # fmt: skip
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset(columns, coords)})
    write_metadata(tree, {"fields": {}, "checks": {}, "settings": facts | settings})
    return tree


def _warnings(sample: ImportanceSample, pool, shift: float):
    if (k := sample.pareto_k) > MAX_PARETO_K:
        yield f"the posterior is far from its Gaussian proposal (Pareto k̂ = {k:.2f}); use more fields or narrower priors."
    if pool is None:
        return
    overlap = float(np.exp(sample.log_weights) @ pool.overlap(sample.thetas))
    if overlap < MIN_OVERLAP:
        yield f"log Z is poorly known over the posterior (overlap {overlap:.2g}); use more fields or narrower priors."
    if shift > MAX_SHIFT:
        yield (
            f"the error of log Z may have moved the couplings by {shift:.2g} of their standard deviations, which their errors "
            "count; infer_couplings simulates until it is less than 0.05."
        )
    yield from (f"{text}; infer_couplings simulates longer." for text in pool.complaints)
