"""The posterior of a few couplings given fields, and the evidence of the model, from one importance sample."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp
from scipy.stats import multivariate_t

from ..diagnostics.tails import pareto_k
from ..errors import ArgumentError
from ..learning.ensemble import Ensemble
from ..learning.parameters import statistics_matrix
from ..model import MarkovRandomField
from ..partition import log_partition
from ..partition.pool import Pool

__all__ = ["CouplingPosterior", "coupling_posterior"]

SEARCH_STEPS, SEARCH_DRAWS, NUM_CHAINS = 30, 200, 8
FARTHEST = 1.0  # nats a field, of one step of the search
AXIS, POOL_DRAWS = 2.5, 250  # posterior standard deviations from the mode to the other ensembles; their draws a chain
MIN_OVERLAP = 0.1
FREEDOM = 7  # of the t-distribution that couplings are proposed from
MAX_PARETO_K = 0.7


@dataclass(frozen=True)
class CouplingPosterior:
    """Draws from p(θ | data) of one model, and its evidence.

    Attributes
    ----------
    model : MarkovRandomField
        At the mode; couplings that have no prior are fixed.
    names : tuple of str
        The couplings that vary, none for a fixed model.
    draws : array, shape (num_draws, num_couplings)
        An importance sample.
    log_weights : array, shape (num_draws,)
        Of the draws; their exponentials add up to one.
    log_likelihood : array, shape (num_draws, num_data)
        log p(φ_n | θ_s), normalised.
    log_evidence, log_evidence_error : float
        log ∫ p(data | θ) p(θ) dθ; the error has that of log Z, times the number of fields.
    warnings : tuple of str
    """

    model: MarkovRandomField
    names: tuple[str, ...]
    draws: np.ndarray
    log_weights: np.ndarray
    log_likelihood: np.ndarray
    log_evidence: float
    log_evidence_error: float
    warnings: tuple[str, ...] = ()

    def at(self, draw: int) -> MarkovRandomField:
        """The model at one draw of the couplings."""
        return self.model.replace(**dict(zip(self.names, map(float, self.draws[draw]), strict=True)))


class _Problem:
    """Sufficient statistics of the data for one model, and the priors of its couplings."""

    def __init__(self, model: MarkovRandomField, data: np.ndarray, priors: dict):
        self.model, self.priors = model, priors
        self.names = tuple(name for name in model.couplings if name in priors)
        self.count = len(data)
        self.data = data.reshape(len(data), *model.field_shape)
        self.free = [form.name in priors for form in model._forms]

    @cached_property
    def statistics(self) -> np.ndarray:
        """∂S/∂θ of the couplings that vary at every field, shape (num_data, num_couplings)."""
        return self._of(self.data)

    def _of(self, fields) -> np.ndarray:
        forms = tuple(f for f, free in zip(self.model._forms, self.free, strict=True) if free)
        values = tuple(np.zeros(()) for _ in forms)
        return statistics_matrix(MarkovRandomField._from_parts(self.model.lattice, forms, values), fields)

    @cached_property
    def fixed_energy(self) -> np.ndarray:
        """What the fixed couplings contribute to S of every field, shape (num_data,)."""
        parts = [
            (f, v) for f, v, free in zip(self.model._forms, self.model._values, self.free, strict=True) if not free
        ]
        if not parts:
            return np.zeros(self.count)
        fixed = MarkovRandomField._from_parts(self.model.lattice, *map(tuple, zip(*parts, strict=True)))
        flat = np.concatenate([np.atleast_1d(np.asarray(v, float)) for _, v in parts])
        return statistics_matrix(fixed, self.data) @ flat

    def at(self, theta) -> MarkovRandomField:
        return self.model.replace(**dict(zip(self.names, map(float, theta), strict=True)))

    def log_prior(self, thetas: np.ndarray) -> np.ndarray:
        """Σ log p(θ), shape (num_thetas,); −∞ outside the support."""
        total = np.zeros(len(thetas))
        for name, column in zip(self.names, np.asarray(thetas, float).T, strict=True):
            prior, values = self.priors[name], jnp.asarray(column)
            inside = np.asarray(prior.support(values))
            safe = jnp.where(inside, values, prior.sample(jax.random.key(0)))
            total += np.where(inside, np.asarray(prior.log_prob(safe), float), -np.inf)
        return total

    def prior_slope(self, theta) -> tuple[np.ndarray, np.ndarray]:
        """Gradient of the log prior, and its curvature (as a positive precision), both zero where not finite."""
        slope, curvature = np.zeros(len(theta)), np.zeros(len(theta))
        for k, (name, value) in enumerate(zip(self.names, theta, strict=True)):
            density = self.priors[name].log_prob
            first, second = jax.grad(density)(float(value)), jax.grad(jax.grad(density))(float(value))
            slope[k], curvature[k] = (float(x) if np.isfinite(x) else 0.0 for x in (first, -second))
        return slope, np.maximum(curvature, 0.0)


def coupling_posterior(
    model: MarkovRandomField, data: np.ndarray, priors: dict, *, num_draws: int, seed: int, progress: bool | None
) -> CouplingPosterior:
    """Posterior and evidence; ``data`` has shape ``(num_data, num_sites)``, ``priors`` names some couplings of the model."""
    problem = _Problem(model, data, priors)
    if not problem.names:
        normaliser = log_partition(model, seed=seed, progress=progress)
        each = -problem.fixed_energy - normaliser.value
        error = problem.count * normaliser.error
        return CouplingPosterior(model, (), np.zeros((1, 0)), np.zeros(1), each[None], float(each.sum()), error)
    mode, covariance = _mode(problem, seed)
    return _importance_sample(problem, mode, covariance, num_draws, seed, progress)


def _mode(problem: _Problem, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Mode of the posterior and its covariance there, by natural-gradient steps with expectations from Markov chains."""
    theta = np.array([float(problem.model.couplings[name]) for name in problem.names])
    observed, count = problem.statistics.mean(axis=0), problem.count
    ensemble = Ensemble(problem.model, num_chains=NUM_CHAINS, seed=seed)
    ensemble.warm_up(problem.at(theta), 200)
    late = []
    for _ in range(SEARCH_STEPS):
        fields = ensemble.draw(problem.at(theta), SEARCH_DRAWS)
        statistics = problem._of(fields.reshape(-1, *problem.model.field_shape))
        fisher = np.atleast_2d(np.cov(statistics.T))
        slope, curvature = problem.prior_slope(theta)
        precision = count * fisher + np.diag(curvature)
        step = np.linalg.solve(precision, count * (statistics.mean(axis=0) - observed) + slope)
        length = step @ fisher @ step / 2
        theta = _inside(problem, theta, step * min(1.0, np.sqrt(FARTHEST / max(length, 1e-300))))
        if late or step @ precision @ step < 0.25 * len(theta) + 4 * count / fields.shape[1] / NUM_CHAINS * len(theta):
            late.append((theta, precision))
        if len(late) == 6:
            break
    late = late or [(theta, precision)]
    mode = np.mean([t for t, _ in late], axis=0)
    return mode, np.linalg.inv(np.mean([p for _, p in late], axis=0))


def _inside(problem: _Problem, theta, step):
    """As much of a step as stays where the prior and the model are."""
    for _ in range(30):
        new = theta + step
        if np.isfinite(problem.log_prior(new[None])[0]) and problem.at(new).check().is_normalizable:
            return new
        step = step / 2
    return theta


def _pool(problem: _Problem, mode, covariance, seed: int) -> Pool:
    """Statistics of ensembles at the mode and on both sides of it along the principal axes of the posterior.

    The axes, and not a box: couplings of a field are so correlated that the corners of a box are other phases.
    """
    length, axes = np.linalg.eigh(covariance)
    points = [mode]
    for step in (axes * np.sqrt(np.maximum(length, 0.0))).T:
        points += [_inside(problem, mode, AXIS * step), _inside(problem, mode, -AXIS * step)]
    ensemble = Ensemble(problem.at(mode), num_chains=NUM_CHAINS, seed=seed + 1)
    ensemble.warm_up(problem.at(mode), 300)
    found = []
    for theta in points:
        ensemble.draw(problem.at(theta), 50)
        fields = ensemble.draw(problem.at(theta), POOL_DRAWS)
        statistics = problem._of(fields.reshape(-1, *problem.model.field_shape))
        found.append(statistics.reshape(NUM_CHAINS, POOL_DRAWS, -1))
    return Pool(np.array(points), np.array(found))


def _importance_sample(problem, mode, covariance, num_draws: int, seed: int, progress) -> CouplingPosterior:
    proposal = multivariate_t(mode, 1.2 * covariance, df=FREEDOM, seed=np.random.default_rng(seed))
    thetas = np.asarray(proposal.rvs(num_draws)).reshape(num_draws, -1)
    pool = _pool(problem, mode, covariance, seed)
    anchor = log_partition(problem.at(mode), seed=seed, progress=progress)
    log_z = anchor.value + pool.log_partition(thetas)
    total = -thetas @ problem.statistics.sum(axis=0) - problem.fixed_energy.sum() - problem.count * log_z
    log_weights = total + problem.log_prior(thetas) - proposal.logpdf(thetas)
    if not np.isfinite(log_weights).any():
        raise ArgumentError("priors", "a posterior inside their support", "no coupling that both prior and data allow")
    log_evidence = float(logsumexp(log_weights) - np.log(num_draws))
    log_weights = log_weights - logsumexp(log_weights)
    weights = np.exp(log_weights)
    sampling_error = np.sqrt(max(np.sum(weights**2) - 1 / num_draws, 0.0))
    each = -thetas @ problem.statistics.T - problem.fixed_energy - log_z[:, None]
    typical = np.mean([pool.error(theta) for theta in thetas[np.argsort(-weights)[:: num_draws // 10 or 1]][:5]])
    error = np.hypot(sampling_error, problem.count * np.hypot(anchor.error, typical))
    warnings = tuple(_warnings(log_weights, weights @ pool.overlap(thetas)))
    return CouplingPosterior(
        problem.at(mode), problem.names, thetas, log_weights, each, log_evidence, float(error), warnings
    )


def _warnings(log_weights, overlap: float):
    k = pareto_k(log_weights[np.isfinite(log_weights)])
    if k > MAX_PARETO_K:
        yield f"the posterior is far from its Gaussian proposal (Pareto k̂ = {k:.2f}); use more fields or narrower priors."
    if overlap < MIN_OVERLAP:
        yield f"log Z is poorly known over the posterior (overlap {overlap:.2g}); use more fields or narrower priors."
