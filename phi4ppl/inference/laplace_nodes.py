"""Gaussian approximations of latent fields at many values of the hyperparameters, and weights against the exact density.

At a node θ the fields x have the normal law q(x | θ) = N(x*, H⁻¹) around their mode. Its draws are weighted with p(x, θ, y)/q
directly, or after annealing: they move through densities q^(1−β) p^β, β from 0 to 1, and the product of the weights between
neighboring β is an unbiased estimate of the same ratio of normalizers with far less variance (R. M. Neal, Stat. Comput. 11
(2001) 125). The moves are Hamiltonian with H as mass matrix. In it q is a harmonic oscillator of unit frequency, followed
exactly, so that steps are as long as the likelihood's departure from its quadratic form allows, whatever the field.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import chi2, norm, qmc

from ..errors import SamplingError
from ..numpyro_plugin.axes import NODES, Axes, axes_of
from ..numpyro_plugin.curvature import Curvature, Mode

__all__ = ["Annealing", "Node", "Weighted", "annealing_for", "nodes_of"]

FREEDOM, WIDENED = 7, 1.2**0.5  # of the t-distribution of the nodes, as of `importance_sample`
NO_AXES = 50_000  # latent variables above which they take too long
KICKS = 3
STEPS, MIN_ACCEPTANCE = (0.7, 0.5, 0.35, 0.25, 0.17, 0.12), 0.65
TEMPERATURES, MAX_VARIANCE = (4, 8, 16, 32, 64), 0.5
PILOTS = 16


class Node(NamedTuple):
    """A value of θ, log q(θ) of the proposal it came from, and the mode of x there; None if Newton's method found none."""

    theta: np.ndarray
    log_proposal: float
    mode: Mode | None

    @property
    def log_weight(self) -> float:
        """log p(θ, y)/q(θ) by Laplace."""
        return -np.inf if self.mode is None else self.mode.log_marginal - self.log_proposal


class Weighted(NamedTuple):
    """Draws of x at a node, shape (num_draws, num_latent), and the log of exact over approximate density, (num_draws,)."""

    x: np.ndarray
    log_ratios: np.ndarray


def nodes_of(curvature: Curvature, number: int, rng: np.random.Generator) -> list[Node]:
    """Randomly shifted points of low discrepancy in a t-distribution of z, along the `Axes` of the Laplace marginal.

    A large field fixes θ so well that its marginal is normal.
    """
    theta, covariance, mode = curvature.peak
    if not len(theta):
        return [Node(theta, 0.0, mode)]
    if curvature.num_latent > NO_AXES:
        root, axes = np.linalg.cholesky(covariance), Axes.of([NODES] * len(theta))
    else:
        root, axes, _, _ = axes_of(curvature)
    size = len(theta)
    uniform = qmc.Sobol(size + 1, rng=rng).random(number)
    white = norm.ppf(uniform[:, :size]) / np.sqrt(chi2.ppf(uniform[:, size:], FREEDOM) / FREEDOM)
    along, log_slopes = (
        np.stack(part).astype(float) for part in zip(*(axes(z, np) for z in WIDENED * white), strict=True)
    )
    thetas = theta + along @ root.T
    log_proposals = _log_t(white) - log_slopes.sum(axis=1) - np.log(WIDENED * np.diag(root)).sum()
    modes: dict[int, Mode | None] = {}
    for k in np.argsort(np.sum(white**2, axis=1)):  # outwards, each from the nearest one that is known
        curvature.notify(f"mode at value {len(modes) + 1} of {number} of {', '.join(curvature.hyper)}")
        known = [j for j, found in modes.items() if found is not None]
        nearest = min(known, key=lambda j: np.sum((white[j] - white[k]) ** 2), default=None)
        start = mode if nearest is None or np.sum(white[k] ** 2) < np.sum((white[nearest] - white[k]) ** 2) else None
        try:
            modes[k] = curvature.light(curvature.mode(thetas[k], (start or modes[nearest]).x, near=True))
        except SamplingError:
            modes[k] = None
    return [Node(thetas[k], float(log_proposals[k]), modes[k]) for k in range(number)]


def _log_t(white: np.ndarray) -> np.ndarray:
    """log density of the t-distribution of unit scale at every row."""
    from scipy.stats import multivariate_t  # slow to import

    size = white.shape[1]
    return np.atleast_1d(multivariate_t(np.zeros(size), np.eye(size), df=FREEDOM).logpdf(white))


class Annealing(NamedTuple):
    """From the normal law at β = 0 to the posterior at β = 1 in equal steps; none at all are plain importance weights."""

    num_steps: int = 0
    step: float = STEPS[0]

    def __str__(self) -> str:
        return f"annealed in {self.num_steps} steps"

    @property
    def num_solves(self) -> int:
        """Solutions with H for a draw."""
        return 1 + self.num_steps * (1 + KICKS)

    def __call__(self, curvature: Curvature, node: Node, number: int, rng: np.random.Generator) -> Weighted:
        """Draws at a node, and their weights."""
        local = _Local(curvature, node)
        away = local.draw(number, rng)
        if not self.num_steps:
            return Weighted(local.mode.x + away, local.log_ratios(away)[0])
        log_ratios, slopes = local(away)
        total = log_ratios / self.num_steps
        for k in range(1, self.num_steps + 1):
            beta = k / self.num_steps
            away, log_ratios, slopes, _ = self._moved(local, beta, away, log_ratios, slopes, rng)
            if k < self.num_steps:
                total = total + log_ratios / self.num_steps
        return Weighted(node.mode.x + away, total)

    def _moved(self, local: _Local, beta: float, away, log_ratios, slopes, rng):
        """One Hamiltonian trajectory of every draw, and the mean acceptance."""
        h, velocity = self.step, local.draw(len(away), rng)
        before = local.energy(away) + local.energy(velocity) - beta * log_ratios
        there, ratios, forces = away, log_ratios, slopes
        for _ in range(KICKS):
            velocity = velocity + h / 2 * beta * forces
            there, velocity = (
                np.cos(h) * there + np.sin(h) * velocity, np.cos(h) * velocity - np.sin(h) * there
            )  # fmt: skip
            ratios, forces = local(there)
            velocity = velocity + h / 2 * beta * forces
        gain = before - local.energy(there) - local.energy(velocity) + beta * ratios
        rate = np.exp(np.minimum(np.where(np.isnan(gain), -np.inf, gain), 0.0))
        taken = rng.random(len(away)) < rate
        return (
            np.where(taken[:, None], there, away), np.where(taken, ratios, log_ratios),
            np.where(taken[:, None], forces, slopes), rate.mean(),
        )  # fmt: skip


class _Local:
    """log p − log q at displacements from a mode, relative to the mode, and H⁻¹ times its gradient."""

    def __init__(self, curvature: Curvature, node: Node):
        self.curvature, self.theta, self.mode = curvature, node.theta, curvature.whole(node.mode)

    def draw(self, number: int, rng: np.random.Generator) -> np.ndarray:
        """Displacements with the normal law."""
        return self.mode.factors.draw(rng.normal(size=(number, self.curvature.num_latent)))

    def energy(self, away: np.ndarray) -> np.ndarray:
        return np.einsum("ij,ij->i", away, (self.mode.hessian @ away.T).T) / 2

    def log_ratios(self, away: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Also the slopes of −log p."""
        values, slopes = self.curvature.values_and_slopes(self.theta, self.mode.x + away)
        ratios = self.mode.potential - values + self.energy(away)
        return np.where(np.isfinite(ratios), ratios, -np.inf), slopes

    def __call__(self, away: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ratios, slopes = self.log_ratios(away)
        forces = away - self.mode.factors.solve(slopes.T).T
        good = np.isfinite(ratios) & np.all(np.isfinite(forces), axis=1)
        return np.where(good, ratios, -np.inf), np.where(good[:, None], forces, 0.0)


def annealing_for(
    curvature: Curvature, node: Node, rng: np.random.Generator, max_solves: float = np.inf
) -> Annealing | None:
    """The fewest steps with which weights of the draws at one node vary little, and a step length that is accepted.

    None if that takes more than ``max_solves`` solutions with H for a draw.
    """
    if Annealing(TEMPERATURES[0]).num_solves > max_solves:
        return None
    node = node._replace(mode=curvature.whole(node.mode))
    local = _Local(curvature, node)
    away = local.draw(PILOTS, rng)
    found = local(away)
    for step in STEPS:
        rate = Annealing(1, step)._moved(local, 1.0, away, *found, rng)[3]
        if rate > MIN_ACCEPTANCE:
            break
    for number in TEMPERATURES:
        curvature.notify(f"annealing tried with {number} steps")
        annealing = Annealing(number, step)
        if annealing.num_solves > max_solves:
            return None
        if np.var(annealing(curvature, node, PILOTS, rng).log_ratios) < MAX_VARIANCE:
            break
    return annealing
