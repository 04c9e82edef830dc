"""Couplings at which data are most probable, without log Z: natural-gradient steps with expectations from Markov chains."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import stream_key
from ..learning.ensemble import Ensemble
from ..model.coupling_vector import CouplingVector, statistics_matrix
from ..model.field import MarkovRandomField

__all__ = ["NUM_CHAINS", "CouplingProblem", "Mode", "find_mode"]

SEARCH_STEPS, SEARCH_DRAWS, NUM_CHAINS = 30, 200, 8
LATE_STEPS = 6  # limited by noise, which are averaged
FARTHEST = 1.0  # nats a field, of one step


class CouplingProblem:
    """Sufficient statistics of the data for some homogeneous couplings of a model, and their priors.

    ``priors`` are NumPyro distributions by coupling, or None for a flat one, which has no ends.
    """

    def __init__(self, model: MarkovRandomField, data: np.ndarray, priors: dict):
        self.model, self.priors = model, priors
        self.names = tuple(name for name in model.couplings if name in priors)
        self.count = len(data)
        self.data = data.reshape(len(data), *model.field_shape)
        self.free = [form.name in priors for form in model.forms]

    @cached_property
    def statistics(self) -> np.ndarray:
        """∂S/∂θ of the couplings that vary at every field, shape (num_data, num_couplings)."""
        return self.statistics_of(self.data)

    def statistics_of(self, fields) -> np.ndarray:
        """The same at other fields."""
        return statistics_matrix(self.model.select(lambda form: form.name in self.priors), fields)

    @cached_property
    def fixed_energy(self) -> np.ndarray:
        """What the fixed couplings contribute to S of every field, shape (num_data,)."""
        fixed = self.model.select(lambda form: form.name not in self.priors)
        if not fixed.forms:
            return np.zeros(self.count)
        return statistics_matrix(fixed, self.data) @ CouplingVector.of(fixed).flatten(fixed.couplings)

    @property
    def start(self) -> np.ndarray:
        """The couplings of the model."""
        return np.array([float(self.model.couplings[name]) for name in self.names])

    def at(self, theta) -> MarkovRandomField:
        return self.model.replace(**dict(zip(self.names, map(float, theta), strict=True)))

    def log_prior(self, thetas: np.ndarray) -> np.ndarray:
        """Σ log p(θ), shape (num_thetas,); −∞ outside the support."""
        total = np.zeros(len(thetas))
        for name, column in zip(self.names, np.asarray(thetas, float).T, strict=True):
            prior, values = self.priors[name], jnp.asarray(column)
            if prior is None:
                continue
            inside = np.asarray(prior.support(values))
            safe = jnp.where(inside, values, prior.sample(jax.random.key(0)))
            total += np.where(inside, np.asarray(prior.log_prob(safe), float), -np.inf)
        return total

    def prior_slope(self, theta) -> tuple[np.ndarray, np.ndarray]:
        """Gradient of the log prior, and its curvature (as a positive precision), both zero where not finite."""
        slope, curvature = np.zeros(len(theta)), np.zeros(len(theta))
        for k, (name, value) in enumerate(zip(self.names, theta, strict=True)):
            if self.priors[name] is None:
                continue
            density = self.priors[name].log_prob
            first, second = jax.grad(density)(float(value)), jax.grad(jax.grad(density))(float(value))
            slope[k], curvature[k] = (float(x) if np.isfinite(x) else 0.0 for x in (first, -second))
        return slope, np.maximum(curvature, 0.0)

    def inside(self, theta, step) -> np.ndarray:
        """θ + step, or as much of the step as stays where the prior and the model are."""
        for _ in range(30):
            new = theta + step
            if np.isfinite(self.log_prior(new[None])[0]) and self.at(new).check().is_normalizable:
                return new
            step = step / 2
        return theta


class Mode(NamedTuple):
    """Where the posterior has its maximum, its covariance there, and whether the search found it."""

    theta: np.ndarray
    covariance: np.ndarray
    found: bool

    @property
    def warnings(self) -> tuple[str, ...]:
        if self.found:
            return ()
        return (
            f"the search for the most probable couplings ran out of its {SEARCH_STEPS} steps, so they are not known. Start "
            "from a model nearer to the data (phi4ppl.fit_likelihood finds one), and use priors that hold it.",
        )


def find_mode(problem: CouplingProblem, start, seed: int) -> Mode:
    """Mode of the posterior from couplings ``start``: Newton's method with noise, and the average of its last steps."""
    theta, observed, count = np.asarray(start, float), problem.statistics.mean(axis=0), problem.count
    ensemble = Ensemble(problem.model, num_chains=NUM_CHAINS, key=stream_key(seed, "mode search"))
    ensemble.warm_up(problem.at(theta), 200)
    late = []
    for _ in range(SEARCH_STEPS):
        fields = ensemble.draw(problem.at(theta), SEARCH_DRAWS)
        statistics = problem.statistics_of(fields.reshape(-1, *problem.model.field_shape))
        fisher = np.atleast_2d(np.cov(statistics.T))
        slope, curvature = problem.prior_slope(theta)
        precision = count * fisher + np.diag(curvature)
        step = np.linalg.solve(precision, count * (statistics.mean(axis=0) - observed) + slope)
        length = step @ fisher @ step / 2
        theta = problem.inside(theta, step * min(1.0, np.sqrt(FARTHEST / max(length, 1e-300))))
        noise = (0.25 + 4 * count / len(statistics)) * len(theta)  # of a step at the mode, squared, generously
        if late or step @ precision @ step < noise:
            late.append((theta, precision))
        if len(late) == LATE_STEPS:
            break
    found = len(late) == LATE_STEPS
    late = late or [(theta, precision)]
    mode = np.mean([t for t, _ in late], axis=0)
    return Mode(mode, np.linalg.inv(np.mean([p for _, p in late], axis=0)), found)
