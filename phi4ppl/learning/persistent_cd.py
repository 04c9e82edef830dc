"""Persistent contrastive divergence: many small, noisy steps of the likelihood gradient, for models of many couplings.

Each step moves persistent chains by a few iterations at the present couplings, and ⟨T⟩_chains − T̄_minibatch is its gradient
(T. Tieleman, ICML 2008). Couplings are measured in units of 1/√Var(T). Reported is their average over the last
steps (`phi4ppl.learning.tail_average`), in which the noise cancels.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from scipy import sparse

from ..errors import SamplingError
from ..errors.streams import stream_key, stream_rng
from ..model.coupling_vector import statistics_matrix
from ..sampling.engine import Engine
from ..sampling.interrupt import Interrupts
from .history import FitStatus
from .local import LocalStructure
from .maximum_likelihood import WARM_UP, DataStatistics
from .methods import PersistentCD
from .problem import Estimate, Problem
from .ridge import cross_validated
from .score_matching import starting_point
from .tail_average import TailAverage

__all__ = ["fit_persistent_cd"]

LEARNING_RATE = 0.03  # of the default optimizer, in units of 1/√Var(T)
FIRST_DRAWS = 20  # of a chain, for Var(T)
MAX_DRIFT = 1.0  # between the halves of the window, in standard errors
MAX_MISFIT = 0.1  # between statistics of model and data, in units of their spread, root mean square
MAX_NEIGHBORS = 200  # couplings whose Fisher matrix is inverted for the error of one
NUM_FIELDS = 4000  # for the Fisher matrix
BLOCK = 1 << 22


def fit_persistent_cd(problem: Problem, method: PersistentCD, seed: int) -> Estimate:
    """Stochastic gradient ascent of the likelihood with averaged couplings; see `phi4ppl.fit_likelihood`."""
    vector, (theta, center) = problem.vector, starting_point(problem)
    shape, rng = vector.template.field_shape, stream_rng(seed, "persistent contrastive divergence")
    chains = method.num_chains
    begin = problem.data[rng.integers(problem.num_samples, size=chains)].reshape(chains, *shape)
    model = vector.model(theta)
    with Interrupts() as interrupts:
        key = stream_key(seed, "persistent contrastive divergence")
        ensemble = Engine(model, kernel=method.kernel, num_chains=chains, key=key, start=begin)
        ensemble.warm_up(model, WARM_UP)
        first = _statistics_of(ensemble, vector, theta, FIRST_DRAWS)
        variance = np.maximum(first.var(axis=0), 1e-12 * first.var(axis=0).max())
        strength, notes = problem.ridge or 0.0, []
        if problem.ridge is None and problem.is_short:
            strength = _automatic(problem, ensemble, center, variance)
            notes.append(problem.ridge_note(strength))
        pull = np.where(problem.wide, strength * variance, 0.0)
        run = _Descent(problem, ensemble, method, rng, 1 / np.sqrt(variance), lambda at: pull * (at - center))
        theta, status = run.go(theta, interrupts)
        notes += run.notes
        errors = np.full(len(theta), np.nan)
        if status is not FitStatus.DIVERGED:
            draws = -(-NUM_FIELDS // chains)
            statistics = _statistics_of(ensemble, vector, theta, draws, 3)
            noise = run.tail.noise()
            errors = np.hypot(fisher_errors(problem, statistics, pull), 0.0 if noise is None else noise)
            errors = np.where(problem.bounded & (theta == 0), np.nan, errors)
            data = DataStatistics(problem)
            slope = np.where(theta > 0, 1, ~problem.bounded) * (
                data.mean - statistics.mean(axis=0) + pull * (theta - center)
            )
            misfit = np.sqrt(np.mean(slope**2 / data.spread))
            if status is FitStatus.CONVERGED and (run.tail.drift(errors) > MAX_DRIFT or misfit > MAX_MISFIT):
                status = FitStatus.MAX_STEPS
    return Estimate(theta, errors, status, float(strength), tuple(notes))


def _statistics_of(ensemble: Engine, vector, theta, num_draws: int, thinning: int = 1, burn_in=True) -> np.ndarray:
    model = vector.model(theta)
    fields = ensemble.draw(model, num_draws, thinning, burn_in=burn_in).fields
    return statistics_matrix(model, fields.reshape(-1, *model.field_shape))


def _automatic(problem: Problem, ensemble: Engine, center, variance) -> float:
    """The ridge by the likelihood of each half of the data on the other, with the diagonal of the Fisher matrix."""
    ensemble.warm_up(problem.vector.model(center), WARM_UP)
    mean = _statistics_of(ensemble, problem.vector, center, 10 * FIRST_DRAWS).mean(axis=0)
    fisher = sparse.diags(variance, format="csc")
    return cross_validated([(fisher, half - mean) for half in DataStatistics(problem).halves], problem.wide)


class _Descent:
    """The loop; ``scale`` is the unit of every coupling and ``pull(theta)`` the gradient of the ridge."""

    def __init__(self, problem: Problem, ensemble: Engine, method: PersistentCD, rng, scale, pull):
        self.problem, self.ensemble, self.method, self.rng = problem, ensemble, method, rng
        self.scale, self.pull = scale, pull
        self.tail = TailAverage(method.num_steps, method.average_last)
        self.notes: list[str] = []

    def go(self, theta, interrupts) -> tuple[np.ndarray, FitStatus]:
        """Couplings averaged over the window, and status."""
        from optax import adam, apply_updates

        problem, method = self.problem, self.method
        optimizer = adam(LEARNING_RATE) if method.optimizer is None else method.optimizer
        num_steps, scale = method.num_steps, self.scale
        position = jnp.zeros(len(theta))
        start, state = theta, optimizer.init(position)
        for step in range(1, num_steps + 1):
            try:
                slope = self._slope(theta)
            except SamplingError as error:
                self.notes.append(f"Sampling failed: {error}")
                return theta, FitStatus.DIVERGED
            updates, state = optimizer.update(jnp.asarray(slope * scale, position.dtype), state, position)
            position = apply_updates(position, updates)
            wanted = start + scale * np.asarray(position, float)
            if not np.isfinite(wanted).all():
                return theta, FitStatus.DIVERGED
            allowed = np.where(problem.bounded, np.maximum(wanted, 0.0), wanted)
            position = jnp.asarray((allowed - start) / scale, position.dtype)
            theta = allowed
            problem.history.add(theta, {"gradient": np.sqrt(np.mean((slope * scale) ** 2))})
            problem.tell(step, num_steps, "persistent contrastive divergence")
            self.tail.add(step, theta)
            if interrupts.asked and step < num_steps:
                return self.tail.of(theta), FitStatus.INTERRUPTED
        self.notes += self.tail.notes
        return self.tail.of(theta), FitStatus.CONVERGED

    def _slope(self, theta) -> np.ndarray:
        """T̄ of a minibatch − ⟨T⟩ of the chains: the gradient of minus the log-likelihood."""
        problem, method, model = self.problem, self.method, self.problem.vector.template
        chosen = self.rng.choice(problem.num_samples, min(method.batch_size, problem.num_samples), replace=False)
        seen = statistics_matrix(model, problem.data[chosen].reshape(-1, *model.field_shape)).mean(axis=0)
        dreamt = _statistics_of(self.ensemble, problem.vector, theta, 1, method.sweeps, burn_in=False).mean(axis=0)
        return seen - dreamt + self.pull(theta)


def fisher_errors(problem: Problem, statistics, pull) -> np.ndarray:
    """√diag(H⁻¹GH⁻¹/N), H = G + pull, of the Fisher matrix G of each coupling and its neighbors in the graph.

    Neighbors act on a common site; if there are more than 200, those with the strongest correlation are used.
    """
    vector, statistics = problem.vector, statistics - statistics.mean(axis=0)
    spread = np.maximum(statistics.std(axis=0), 1e-300)
    statistics /= spread
    relative = pull / spread**2
    neighbors = LocalStructure(vector).neighbors()
    errors = np.empty(vector.size)
    sizes = np.diff(neighbors.indptr)
    for size in np.unique(sizes):
        rows = np.flatnonzero(sizes == size)
        for piece in np.array_split(rows, max(1, len(rows) * size * len(statistics) // BLOCK)):
            near = np.array([neighbors.indices[neighbors.indptr[k] : neighbors.indptr[k + 1]] for k in piece])
            errors[piece] = _local_errors(statistics, piece, near, relative)
    return errors / spread / np.sqrt(problem.num_samples)


def _local_errors(statistics, rows, near, relative) -> np.ndarray:
    """For every row the error from the Fisher matrix of its neighbors, in units of 1/√N."""
    if near.shape[1] > MAX_NEIGHBORS:
        correlation = np.abs(statistics[:, rows].T @ statistics) / len(statistics)
        near = np.argsort(-np.take_along_axis(correlation, near, axis=1), axis=1)[:, :MAX_NEIGHBORS]
    here = statistics.T[near]
    fisher = here @ here.transpose(0, 2, 1) / len(statistics)
    eye = np.eye(near.shape[1])
    inverse = np.linalg.inv(fisher + (relative[near][:, :, None] + 1e-9) * eye)
    own = inverse[near == rows[:, None]]
    return np.sqrt(np.einsum("ki,kij,kj->k", own, fisher, own))
