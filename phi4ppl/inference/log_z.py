"""log Z(θ) for posteriors of couplings, from one of several places, and what its error does to posterior means."""

from __future__ import annotations

import numpy as np

from ..energy.exact.exact_log_z import OVERHEAD, ExactFamily
from ..errors import ArgumentError
from ..partition.log_partition import log_partition
from ..partition.pool import Pool
from ..partition.simulation import NUM_WARMUP, simulate
from ..partition.surface import PartitionSurface
from ..sampling.progress import Progress
from .coupling_problem import CouplingProblem
from .interpolated import InterpolatedLikelihood, interpolate_likelihood
from .mode import Mode

__all__ = ["MAX_SHIFT", "Chebyshev", "Exact", "LogZ", "SurfaceAlongAxes", "SurfaceOnBox", "Unaffordable", "mean_errors",
           "mean_shift"]  # fmt: skip

MAX_SHIFT = 0.05  # posterior standard deviations by which the error of log Z may move a mean
AIM = 0.04  # of the simulation, so that the estimate after it stays below that
MAX_OPERATIONS = 2e11  # multiplications of exact values at nodes: a few minutes
MAX_AT_DRAWS = 2e10  # of exact values at draws: some ten seconds
MAX_EXPONENTIALS = 2e11  # of interpolating simulated values
MAX_UPDATES = 3e9  # of single sites in the simulations
MAX_DRAWS = 2e6  # of all ensembles together
MAX_ROUNDS = 5
CHAINS = 8
SPREAD = 1.5  # posterior standard deviations from the mean to the other ensembles
FAR = 0.3  # posterior standard deviations of a shift after which the posterior is looked for again
SHARE = 1e-3  # of the weight at the posterior that an ensemble must have to be kept
MIN_DRAWS = 250  # of a chain
TAUS = 30  # of warm-up
AXIS, AXIS_DRAWS = 2.5, 250  # posterior standard deviations from a mode to the other ensembles; their draws per chain
TYPICAL = 5  # points at which the error of simulated values is computed


class LogZ:
    """log Z of a field as a function θ ↦ (value, error) of a few homogeneous couplings.

    Attributes
    ----------
    name : str
        What `phi4ppl.infer_couplings` calls it.
    how : str
        Where log Z is from, in words.
    pool : Pool or None
        The simulation behind it, with the couplings in their order; None where values are exact.
    """

    name, how = "", ""
    pool: Pool | None = None

    def __call__(self, thetas: np.ndarray) -> tuple[np.ndarray, float]:
        """log Z at every row of ``thetas``, shape (points,), and one standard error, typical of these values."""
        raise NotImplementedError


class Unaffordable(Exception):
    """Exact values would take too long. The arguments are an argument, what was expected of it, and what it is."""


class Exact(LogZ):
    """log Z by determinants or by eliminating sites, computed for every row.

    Raises
    ------
    Unaffordable
    """

    name, how = "exact", "exact log Z at every draw"

    def __init__(self, problem: CouplingProblem):
        self.family = ExactFamily(problem.model, list(problem.names))
        self._impossible = ("model", "a Gaussian field, or a small or narrow graph", repr(problem.model))

    def operations(self, thetas) -> float:
        """Multiplications of one value at couplings like these."""
        operations = self.family.operations(thetas)
        if operations is None:
            raise Unaffordable(*self._impossible)
        return operations

    def __call__(self, thetas):
        found = self.family.log_partition(thetas)
        if found is None:
            raise Unaffordable(*self._impossible)
        return found


class Interpolated(LogZ):
    """log Z by polynomials over the part of the box of the priors where the posterior lives, for NUTS.

    Attributes
    ----------
    likelihood : InterpolatedLikelihood
        Its ``cost`` is −log p(data | θ) up to a constant, a function for JAX.
    numerical : float
        Error of values and interpolation, in posterior standard deviations.
    stopped : str
        Why a simulation stopped before its error was small enough; empty if it did not.
    surface : PartitionSurface or None
        The surface behind the values, if they are not exact.
    """

    likelihood: InterpolatedLikelihood
    surface: PartitionSurface | None = None
    numerical, stopped = 0.0, ""
    _offset, _error = 0.0, 0.0

    def __init__(self, problem: CouplingProblem):
        self.problem, self._mean = problem, problem.statistics.mean(axis=0)

    def __call__(self, thetas):
        total = self.likelihood.cost.values(thetas) + self.likelihood.lowest
        return total / self.problem.count - thetas @ self._mean + self._offset, self._error

    def _interpolate(self, log_z, most: float, start=None) -> InterpolatedLikelihood:
        """``log_z(thetas)`` by at most so many of its values."""
        problem, box = self.problem, self.problem.box

        def total(thetas):
            return thetas @ self._mean + log_z(thetas)

        return interpolate_likelihood(total, problem.count, problem.log_prior, *box, most, start)


class Chebyshev(Interpolated):
    """Exact values at Chebyshev nodes, interpolated.

    Raises
    ------
    Unaffordable
    """

    name = "exact"

    def __init__(self, problem: CouplingProblem):
        super().__init__(problem)
        exact, worst = Exact(problem), 0.0
        most = MAX_OPERATIONS / exact.operations(np.array(problem.box))

        def log_z(thetas):
            nonlocal worst
            values, error = exact(thetas)
            worst = max(worst, error)
            return values

        try:
            self.likelihood = likelihood = self._interpolate(log_z, most)
        except ValueError:
            got = f"{problem.model!r}, for which {most:.0f} values, as many as a few minutes allow, are too few"
            raise Unaffordable("model", "a graph narrow enough for hundreds of exact values of log Z", got) from None
        if not likelihood.good:
            got = (
                f"a log posterior of {problem.count} fields off by {likelihood.error:.2g} of itself between the nodes, after "
                f"{likelihood.evaluations} exact values, more of which would take too long"
            )
            raise Unaffordable("priors", "intervals over which log Z can be interpolated", got)
        ends = zip(problem.names, likelihood.cost.low, likelihood.cost.high, strict=True)
        self.how = (
            f"exact log Z, {likelihood.evaluations} values, interpolated from {likelihood.cost.coefficients.shape[0]} "
            f"Chebyshev nodes per coupling over {', '.join(f'{name} in [{a:.4g}, {b:.4g}]' for name, a, b in ends)}"
        )
        self.numerical = likelihood.error + problem.count * worst
        self._error = self.numerical / problem.count


class SurfaceOnBox(Interpolated):
    """log Z from the ensembles of a surface over the box of the priors, and more of them where the posterior lives.

    Beyond a box of the priors only differences of log Z inside the posterior matter, once a field: more ensembles are placed
    at its mean and on both sides of it along its principal axes, with draws in proportion to the square of the shift still to
    be removed, until the error is small. Without ``refine`` the surface is taken as it is.
    """

    name = "surface"

    def __init__(self, problem: CouplingProblem, surface: PartitionSurface, *, refine: bool, seed: int, progress=None):
        super().__init__(problem)
        base = self.pool = surface.pool_of(problem.names)
        self.surface = surface
        self.how = f"{len(surface.ensembles)} ensembles over the box of the priors"
        self._fit()
        if refine:
            with Progress(None, progress) as bar:
                self._refine(base, seed, bar)
        self.numerical = self.likelihood.error
        first = self.pool.couplings[0]  # where values of the pool are zero
        self._offset = surface.anchor.value + float(base.log_partition(first)[0])
        errors = self.pool.error(self.likelihood.mean), self.numerical / problem.count
        self._error = float(np.hypot(surface.anchor.error + base.error(first), np.hypot(*errors)))

    def shift(self) -> float:
        """How far the noise of log Z may have moved the posterior, in its standard deviations."""
        errors = mean_errors(self.pool, self.problem.count, self.likelihood.points, self.likelihood.weights)
        return mean_shift(errors, self.likelihood.covariance)

    def _fit(self, start=None) -> None:
        self.likelihood = self._interpolate(self.pool.log_partition, MAX_EXPONENTIALS / len(self.pool.flat), start)
        self._fitted = self.pool
        if not self.likelihood.good:
            got = f"a log posterior off by {self.likelihood.error:.2g} of itself between the nodes of an interpolation"
            raise ArgumentError(
                "priors", "intervals over which log Z can be interpolated", got, "Narrow the priors.", reason="region"
            )

    def _refine(self, base: Pool, seed: int, bar: Progress) -> None:
        problem, refined, added = self.problem, None, 0.0
        for turn in range(MAX_ROUNDS + 1):
            shift = self.shift()
            if shift <= AIM or self.stopped:
                break
            if shift > FAR and self._fitted is not self.pool:  # the posterior is somewhere else
                self._fit(self.likelihood)
            pool = self.pool
            wanted = added * (1.1 * (shift / AIM) ** 2 - 1) if added else problem.count * 2 * pool.tau_int / AIM**2
            room = min(MAX_UPDATES / problem.model.lattice.num_sites, MAX_DRAWS) - added
            if turn == MAX_ROUNDS or wanted > room:
                self.stopped = (
                    "the simulation of log Z stopped at its limit, when its error was still larger than wanted"
                )
                if turn == MAX_ROUNDS or room < CHAINS * MIN_DRAWS:
                    break
            wanted = min(wanted, room)
            bar.message(f"log Z: {wanted:.2g} draws where the posterior lives (shift {shift:.2g} standard deviations)")
            thetas = np.clip(_around(self.likelihood.mean, self.likelihood.covariance, SPREAD), *problem.box)
            draws = int(np.clip(np.ceil(wanted / (CHAINS * len(thetas))), MIN_DRAWS, None))
            warmup = int(np.clip(TAUS * pool.tau_int, NUM_WARMUP, 10 * NUM_WARMUP))
            statistics = simulate(
                problem.model, problem.names, thetas, num_chains=CHAINS, num_samples=draws, num_warmup=warmup,
                seed=seed, stream=("around the posterior", turn),
            )  # fmt: skip
            new = Pool(thetas, list(statistics))
            refined = new if refined is None else refined.joined(new)
            added += float(new.counts.sum())
            self.pool = _relevant(base, self.likelihood.mean).joined(refined)
        if self._fitted is not self.pool:
            self._fit(self.likelihood)
        if refined is not None:
            self.how += f", {len(refined.couplings)} with {added:.3g} draws where the posterior lives"


class SurfaceAlongAxes(LogZ):
    """log Z from ensembles at a mode and on both sides of it along the principal axes, and `phi4ppl.log_partition` at the mode.

    The axes, and not a box: couplings of a field are so correlated that the corners of a box are other phases.
    """

    name = "surface"

    def __init__(self, problem: CouplingProblem, mode: Mode, seed: int, progress=None):
        points = _around(mode.theta, mode.covariance, AXIS)
        points = np.array([problem.inside(mode.theta, point - mode.theta) for point in points])
        statistics = simulate(
            problem.model, problem.names, points,
            num_chains=CHAINS, num_samples=AXIS_DRAWS, seed=seed, stream=("along axes",),
        )  # fmt: skip
        self.pool = Pool(points, statistics)
        self.anchor = log_partition(problem.at(mode.theta), seed=seed, progress=progress)
        self.how = f"{len(points)} ensembles along the principal axes; at the mode {self.anchor.how}"

    def __call__(self, thetas):
        some = thetas[:: max(1, len(thetas) // TYPICAL)][:TYPICAL]
        ends = np.vstack([some, self.pool.couplings[:1]])
        differences = np.hstack([np.eye(len(some)), -np.ones((len(some), 1))])
        typical = float(np.median(self.pool.errors(ends, differences)))
        return self.anchor.value + self.pool.log_partition(thetas), float(np.hypot(self.anchor.error, typical))


def exact_at(problem: CouplingProblem, thetas: np.ndarray) -> Exact | None:
    """Exact values at couplings where Z is finite, if all together take some ten seconds; else None."""
    exact = Exact(problem)
    operations = exact.family.operations(thetas)
    affordable = operations is not None and (operations - OVERHEAD) * len(thetas) <= MAX_AT_DRAWS  # all summed at once
    return exact if affordable else None


def _around(mean, covariance, far: float) -> np.ndarray:
    """A point, and points on both sides of it along the principal axes, ``far`` standard deviations away."""
    lengths, axes = np.linalg.eigh(covariance)
    steps = far * (axes * np.sqrt(np.maximum(lengths, 0.0))).T
    return np.concatenate([[mean], mean + steps, mean - steps])


def _relevant(pool: Pool, theta) -> Pool:
    """The ensembles that carry information about log Z at ``theta``: at least one."""
    ((_, weights),) = pool._weights(theta)
    ends = np.cumsum(pool.counts).astype(int)
    share = np.array([part.sum() for part in np.split(weights[0], ends[:-1])]) / weights.sum()
    kept = np.flatnonzero(share >= min(SHARE, share.max()))
    return Pool(pool.couplings[kept], [pool.statistics[int(k)] for k in kept])


def mean_errors(pool: Pool | None, count: int, points, weights) -> np.ndarray:
    """Standard errors of posterior means that come from the noise of log Z: of the couplings, then of the principal axes.

    To first order δ⟨θ⟩ = −n Cov(θ, δ log Z(θ)) over the posterior, which ``points`` with ``weights`` stand for. Without a pool
    log Z is exact.
    """
    if pool is None:
        return np.zeros(2 * points.shape[1])
    kept = weights > 1e-6 * weights.max()
    points, weights = points[kept], weights[kept] / weights[kept].sum()
    away = points - weights @ points
    _, axes = np.linalg.eigh((weights[:, None] * away).T @ away)
    return pool.errors(points, count * weights * np.concatenate([away, away @ axes], axis=1).T)


def mean_shift(errors, covariance) -> float:
    """The largest of these errors in posterior standard deviations."""
    values = np.linalg.eigvalsh(covariance)
    return float(np.max(errors / np.sqrt(np.concatenate([np.diag(covariance), np.maximum(values, 1e-300)]))))
