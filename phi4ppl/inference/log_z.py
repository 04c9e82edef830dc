"""log Z(θ) for posteriors of couplings, exact or simulated, and what its error does to posterior means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..energy.exact.exact_log_z import ExactFamily
from ..errors import ArgumentError
from ..model.field import MarkovRandomField
from ..partition.pool import Pool
from ..partition.simulation import NUM_WARMUP, simulate
from ..partition.surface import PartitionSurface
from ..sampling.progress import Progress
from .interpolated import InterpolatedLikelihood, interpolate_likelihood

__all__ = ["MOST_SHIFT", "LogZ", "exact_log_z", "mean_errors", "simulated_log_z"]

MOST_SHIFT = 0.05  # posterior standard deviations by which the error of log Z may move a mean
AIM = 0.04  # of the simulation, so that the estimate after it stays below that
MOST_OPERATIONS = 2e11  # multiplications of exact values: a few minutes
MOST_EXPONENTIALS = 2e11  # of interpolating simulated values
MOST_UPDATES = 3e9  # of single sites in the simulations
MOST_DRAWS = 2e6  # of all ensembles together
MOST_ROUNDS = 5
CHAINS = 8
SPREAD = 1.5  # posterior standard deviations from the mean to the other ensembles
FAR = 0.3  # posterior standard deviations of a shift after which the posterior is looked for again
SHARE = 1e-3  # of the weight at the posterior that an ensemble must have to be kept
FEWEST_DRAWS = 250  # of a chain
TAUS = 30  # of warm-up


@dataclass(frozen=True)
class LogZ:
    """The likelihood of couplings with the error that comes from log Z.

    Attributes
    ----------
    likelihood : InterpolatedLikelihood
    name : str
        The normalizer that this is.
    how : str
        Where log Z is from, in words.
    pool : Pool, optional
        Of a simulation, with the couplings in the order of the priors.
    numerical : float
        Error of values and interpolation, in posterior standard deviations.
    stopped : str
        Why a simulation stopped before its error was small enough; empty if it did not.
    """

    likelihood: InterpolatedLikelihood
    name: str
    how: str
    pool: Pool | None = None
    numerical: float = 0.0
    stopped: str = ""


class Unaffordable(Exception):
    """Exact values would take too long."""


def exact_log_z(model: MarkovRandomField, names, mean, count: int, priors: dict, low, high) -> LogZ:
    """With log Z exact at Chebyshev nodes.

    Raises
    ------
    Unaffordable
        With the argument, what was expected of it, and what it is.
    """
    family, worst = ExactFamily(model, names), 0.0
    operations = family.operations(np.array([low, high]))
    impossible = ("model", "a Gaussian field, or a small or narrow graph", repr(model))
    if operations is None:
        raise Unaffordable(*impossible)

    def function(thetas):
        nonlocal worst
        found = family.log_partition(thetas)
        if found is None:
            raise Unaffordable(*impossible)
        values, error = found
        worst = max(worst, error)
        return values + thetas @ mean

    most = MOST_OPERATIONS / operations
    try:
        likelihood = interpolate_likelihood(function, count, priors, low, high, most)
    except ValueError:
        got = f"{model!r}, for which {most:.0f} values, as many as a few minutes allow, are too few"
        raise Unaffordable("model", "a graph narrow enough for hundreds of exact values of log Z", got) from None
    if not likelihood.good:
        got = (
            f"a log posterior of {count} fields off by {likelihood.error:.2g} of itself between the nodes, after "
            f"{likelihood.evaluations} exact values, more of which would take too long"
        )
        raise Unaffordable("priors", "intervals over which log Z can be interpolated", got)
    nodes = likelihood.cost.coefficients.shape[0]
    box = ", ".join(
        f"{name} in [{a:.4g}, {b:.4g}]"
        for name, a, b in zip(names, likelihood.cost.low, likelihood.cost.high, strict=True)
    )
    how = (
        f"exact log Z, {likelihood.evaluations} values, interpolated from {nodes} Chebyshev nodes a coupling over {box}"
    )
    return LogZ(likelihood, "exact", how, numerical=likelihood.error + count * worst)


def simulated_log_z(
    surface: PartitionSurface, names, mean, count: int, priors: dict, low, high, *, refine: bool, seed: int, progress=None
) -> LogZ:  # fmt: skip
    """With log Z from the ensembles of a surface, and more of them where the posterior lives until its error is small.

    Beyond a box of the priors only differences of log Z inside the posterior matter, ``count`` times: more ensembles are placed
    at its mean and on both sides of it along its principal axes, with draws in proportion to the square of the shift still to
    be removed.
    """
    pool, refined, added, stopped = surface.pool_of(names), None, 0.0, ""
    model = surface.model
    likelihood, known = _interpolated(pool, mean, count, priors, low, high), pool
    with Progress(None, progress) as bar:
        for turn in range(MOST_ROUNDS + 1):
            shift = mean_shift(mean_errors(pool, count, likelihood.points, likelihood.weights), likelihood.covariance)
            if shift <= AIM or not refine or stopped:
                break
            if shift > FAR and known is not pool:  # the posterior is somewhere else
                likelihood, known = _interpolated(pool, mean, count, priors, low, high, likelihood), pool
            wanted = count * 2 * pool.tau_int / AIM**2 if refined is None else added * (1.1 * (shift / AIM) ** 2 - 1)
            room = min(MOST_UPDATES / model.lattice.num_sites, MOST_DRAWS) - added
            if turn == MOST_ROUNDS or wanted > room:
                stopped = "the simulation of log Z stopped at its limit, when the error was still larger than wanted"
                if turn == MOST_ROUNDS or room < CHAINS * FEWEST_DRAWS:
                    break
            bar.message(
                f"log Z: {min(wanted, room):.2g} draws where the posterior lives (shift {shift:.2g} standard deviations)"
            )
            thetas = _around(likelihood, low, high)
            draws = int(np.clip(np.ceil(min(wanted, room) / (CHAINS * len(thetas))), FEWEST_DRAWS, None))
            warmup = int(np.clip(TAUS * pool.tau_int, NUM_WARMUP, 10 * NUM_WARMUP))
            statistics = simulate(
                model, names, thetas, num_chains=CHAINS, num_samples=draws, num_warmup=warmup, seed=seed,
                stream=("around the posterior", turn),
            )  # fmt: skip
            new = Pool(thetas, list(statistics))
            refined = new if refined is None else refined.joined(new)
            added += float(new.counts.sum())
            pool = _relevant(surface.pool_of(names), likelihood.mean).joined(refined)
    if known is not pool:
        likelihood = _interpolated(pool, mean, count, priors, low, high, likelihood)
    how = f"{len(surface.ensembles)} ensembles over the box of the priors"
    if refined is not None:
        how += f", {len(refined.couplings)} with {added:.3g} draws where the posterior lives"
    return LogZ(likelihood, "surface", how, pool, likelihood.error, stopped)


def _interpolated(pool: Pool, mean, count: int, priors: dict, low, high, start=None) -> InterpolatedLikelihood:
    most = MOST_EXPONENTIALS / len(pool.flat)
    likelihood = interpolate_likelihood(
        lambda thetas: thetas @ mean + pool.log_partition(thetas), count, priors, low, high, most, start
    )
    if not likelihood.good:
        got = f"a log posterior off by {likelihood.error:.2g} of itself between the nodes of an interpolation"
        raise ArgumentError("priors", "intervals over which log Z can be interpolated", got, "Narrow the priors.")
    return likelihood


def _around(likelihood: InterpolatedLikelihood, low, high) -> np.ndarray:
    """The posterior mean, and points on both sides of it along the principal axes of the posterior."""
    lengths, axes = np.linalg.eigh(likelihood.covariance)
    steps = SPREAD * (axes * np.sqrt(np.maximum(lengths, 0.0))).T
    return np.clip(likelihood.mean + np.concatenate([np.zeros((1, len(low))), steps, -steps]), low, high)


def _relevant(pool: Pool, theta) -> Pool:
    """The ensembles that say something about log Z at ``theta``, and never none."""
    ((_, weights),) = pool._weights(theta)
    ends = np.cumsum(pool.counts).astype(int)
    share = np.array([part.sum() for part in np.split(weights[0], ends[:-1])]) / weights.sum()
    kept = np.flatnonzero(share >= min(SHARE, share.max()))
    return Pool(pool.couplings[kept], [pool.statistics[k] for k in kept])


def mean_errors(pool: Pool, count: int, points, weights) -> np.ndarray:
    """Standard errors of posterior means that come from the noise of log Z: of the couplings, then of the principal axes.

    To first order δ⟨θ⟩ = −n Cov(θ, δ log Z(θ)) over the posterior, which ``points`` with ``weights`` stand for.
    """
    kept = weights > 1e-6 * weights.max()
    points, weights = points[kept], weights[kept] / weights[kept].sum()
    away = points - weights @ points
    _, axes = np.linalg.eigh((weights[:, None] * away).T @ away)
    return pool.errors(points, count * weights * np.concatenate([away, away @ axes], axis=1).T)


def mean_shift(errors, covariance) -> float:
    """The largest of these errors in posterior standard deviations."""
    values = np.linalg.eigvalsh(covariance)
    return float(np.max(errors / np.sqrt(np.concatenate([np.diag(covariance), np.maximum(values, 1e-300)]))))
