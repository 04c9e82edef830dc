"""The posterior of a few couplings given fields, and the evidence of the model, from one importance sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from ..energy.exact.exact_log_z import OVERHEAD, ExactFamily
from ..errors import ArgumentError, stream_key, stream_rng
from ..learning.ensemble import Ensemble
from ..model.field import MarkovRandomField
from ..partition.log_partition import log_partition
from ..partition.pool import Pool
from ..results.tails import pareto_k
from .log_z import mean_errors
from .mode import NUM_CHAINS, CouplingProblem, Mode, find_mode

__all__ = ["CouplingPosterior", "coupling_posterior"]

AXIS, POOL_DRAWS = 2.5, 250  # posterior standard deviations from the mode to the other ensembles; their draws a chain
MIN_OVERLAP = 0.1
FREEDOM = 7  # of the t-distribution that couplings are proposed from
MAX_PARETO_K = 0.7
CHECKED = 40  # draws, whether Z is finite
MOST_OPERATIONS = 2e10  # multiplications of exact values of log Z: some ten seconds
DEPTH = 25.0  # nats below the largest weight, beyond which log Z need not be exact
MOST_SHIFT = 0.5  # posterior standard deviations by which log Z may move a mean without a warning


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
    mean_errors : array, shape (num_couplings,)
        Standard errors of the weighted means of the couplings: of the importance sample, and of log Z where it is simulated.
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
    mean_errors: np.ndarray
    warnings: tuple[str, ...] = ()

    def at(self, draw: int) -> MarkovRandomField:
        """The model at one draw of the couplings."""
        return self.model.replace(**dict(zip(self.names, map(float, self.draws[draw]), strict=True)))


def coupling_posterior(
    model: MarkovRandomField, data: np.ndarray, priors: dict, *, num_draws: int, seed: int, progress: bool | None
) -> CouplingPosterior:
    """Posterior and evidence; ``data`` has shape ``(num_data, num_sites)``, ``priors`` names some couplings of the model."""
    problem = CouplingProblem(model, data, priors)
    if not problem.names:
        normaliser = log_partition(model, seed=seed, progress=progress)
        each = -problem.fixed_energy - normaliser.value
        error = problem.count * normaliser.error
        none = np.zeros((1, 0))
        return CouplingPosterior(model, (), none, np.zeros(1), each[None], float(each.sum()), error, none[0])
    return _importance_sample(problem, find_mode(problem, problem.start, seed), num_draws, seed, progress)


def _pool(problem: CouplingProblem, mode, covariance, seed: int) -> Pool:
    """Statistics of ensembles at the mode and on both sides of it along the principal axes of the posterior.

    The axes, and not a box: couplings of a field are so correlated that the corners of a box are other phases.
    """
    length, axes = np.linalg.eigh(covariance)
    points = [mode]
    for step in (axes * np.sqrt(np.maximum(length, 0.0))).T:
        points += [problem.inside(mode, AXIS * step), problem.inside(mode, -AXIS * step)]
    ensemble = Ensemble(problem.at(mode), num_chains=NUM_CHAINS, key=stream_key(seed, "pool"))
    ensemble.warm_up(problem.at(mode), 300)
    found = []
    for theta in points:
        fields = ensemble.draw(problem.at(theta), POOL_DRAWS)
        statistics = problem.statistics_of(fields.reshape(-1, *problem.model.field_shape))
        found.append(statistics.reshape(NUM_CHAINS, POOL_DRAWS, -1))
    return Pool(np.array(points), np.array(found))


def _importance_sample(problem, found: Mode, num_draws: int, seed: int, progress) -> CouplingPosterior:
    from scipy.stats import multivariate_t  # slow to import

    mode, covariance, _ = found
    proposal = multivariate_t(mode, 1.2 * covariance, df=FREEDOM, seed=stream_rng(seed, "proposal"))
    thetas = np.asarray(proposal.rvs(num_draws)).reshape(num_draws, -1)
    pool = _pool(problem, mode, covariance, seed)
    anchor = log_partition(problem.at(mode), seed=seed, progress=progress)
    log_z = anchor.value + pool.log_partition(thetas)
    rest = -thetas @ problem.statistics.sum(axis=0) - problem.fixed_energy.sum()
    rest += problem.log_prior(thetas) - proposal.logpdf(thetas)
    rest[_negative_quartic(problem, thetas)] = -np.inf
    log_weights = rest - problem.count * log_z
    if not np.isfinite(log_weights).any():
        raise ArgumentError("priors", "a posterior inside their support", "no coupling that both prior and data allow")
    exact = _exact_log_z(problem, thetas, log_weights) if anchor.method == "exact" else None
    if exact is not None:
        log_z = np.where(np.isfinite(exact), exact, log_z)
        log_weights = np.where(np.isfinite(exact), rest - problem.count * log_z, -np.inf)
    log_evidence = float(logsumexp(log_weights) - np.log(num_draws))
    log_weights = log_weights - logsumexp(log_weights)
    weights = np.exp(log_weights)
    sampling_error = np.sqrt(max(np.sum(weights**2) - 1 / num_draws, 0.0))
    each = -thetas @ problem.statistics.T - problem.fixed_energy - log_z[:, None]
    means = np.sqrt(weights**2 @ (thetas - weights @ thetas) ** 2)
    warnings = found.warnings
    if exact is None:
        typical = np.mean([pool.error(theta) for theta in thetas[np.argsort(-weights)[:: num_draws // 10 or 1]][:5]])
        from_log_z = mean_errors(pool, problem.count, thetas, weights)[: len(mode)]
        means = np.hypot(means, from_log_z)
        shift = np.max(from_log_z / np.sqrt(weights @ (thetas - weights @ thetas) ** 2))
        warnings += tuple(_warnings(log_weights, weights @ pool.overlap(thetas), shift))
        warnings += tuple(f"{text}; infer_couplings simulates longer." for text in pool.complaints)
    else:
        typical = 0.0
        warnings += tuple(_warnings(log_weights, 1.0, 0.0))
    error = np.hypot(sampling_error, problem.count * np.hypot(anchor.error, typical))
    warnings += tuple(_improper(problem, thetas, weights, seed))
    return CouplingPosterior(
        problem.at(mode), problem.names, thetas, log_weights, each, log_evidence, float(error), means, warnings
    )


def _exact_log_z(problem, thetas: np.ndarray, log_weights: np.ndarray) -> np.ndarray | None:
    """Exact log Z at the draws that carry weight, NaN at the others; None where that would take too long.

    Only where positive quartic couplings at all sites make every draw a density.
    """
    structure = problem.model.structure
    holding = [form for form in structure.forms if form.power and form.power == structure.highest_power]
    sites = {tuple(row) for form in holding for row in form.cliques.tolist()}
    if len(sites) < structure.lattice.num_sites or not structure.is_built_in:
        return None
    kept = log_weights > log_weights.max() - DEPTH
    family = ExactFamily(problem.model, list(problem.names))
    operations = family.operations(thetas[kept])
    if operations is None or (operations - OVERHEAD) * kept.sum() > MOST_OPERATIONS:  # all are summed at once
        return None
    found = family.eliminated(thetas[kept])
    if found is None:
        return None
    values = np.full(len(thetas), np.nan)
    values[kept] = found[0]
    return values


def _negative_quartic(problem, thetas: np.ndarray) -> np.ndarray:
    """Draws without a density: Z is infinite there, and reweighting, which sees finite sums only, would not notice."""
    highest = problem.model.structure.highest_power or 4
    quartic = {form.name for form in problem.model.forms if form.power == highest}
    return (thetas[:, [name in quartic for name in problem.names]] < 0).any(axis=1)


def _improper(problem, thetas, weights, seed: int):
    some = stream_rng(seed, "checked draws").choice(len(thetas), CHECKED, p=weights)
    bad = sum(not problem.at(thetas[k]).check().is_normalizable for k in some)
    if bad:
        yield f"{bad} of {CHECKED} draws of the couplings make no density (Z is infinite): use narrower priors."


def _warnings(log_weights, overlap: float, shift: float):
    k = pareto_k(log_weights[np.isfinite(log_weights)])
    if k > MAX_PARETO_K:
        yield f"the posterior is far from its Gaussian proposal (Pareto k̂ = {k:.2f}); use more fields or narrower priors."
    if overlap < MIN_OVERLAP:
        yield f"log Z is poorly known over the posterior (overlap {overlap:.2g}); use more fields or narrower priors."
    if shift > MOST_SHIFT:
        yield (
            f"the error of log Z may have moved the couplings by {shift:.2g} of their standard deviations, which their errors "
            "count; infer_couplings simulates until it is less than 0.05."
        )
