"""A mode of latent fields, the curvature there, and whether there are others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ..energy.factors import Factors, Order, factors_of
from ..errors import SamplingError

__all__ = ["OTHERWISE", "Mode", "conjugate_gradients", "doubt_of", "factorized"]

OTHERWISE = "Use phi4ppl.sample(…, kernel='nuts')."
NUM_STARTS, FAR = 2, 3.0  # standard deviations from the mode, from where it is searched for again, on both sides
LARGE = 20_000  # latent variables above which once has to do
RESIDUAL, MAX_STEPS = 1e-3, 40  # of conjugate gradients


@dataclass(frozen=True)
class Mode:
    """x*(θ), the potential −log p there, H and its factors."""

    x: np.ndarray
    potential: float
    hessian: sparse.csc_matrix
    factors: Factors

    @property
    def log_marginal(self) -> float:
        """log ∫ exp(−(potential + ½ δᵀHδ)) dδ, that of p(θ, y) by Laplace."""
        return -self.potential - self.factors.log_det / 2 + len(self.x) * np.log(2 * np.pi) / 2


def factorized(hessian: sparse.csc_matrix, order: Order | None = None) -> Factors:
    """The factors of H; an error if it is not positive definite."""
    factors = factors_of(hessian) if order is None else order.factors(hessian)
    if factors is None:
        text = "the Hessian of the latent fields is not positive definite on the way to their mode: the posterior has"
        raise SamplingError(
            "no_mode", f"{text} several modes, or directions that neither prior nor data fix. {OTHERWISE}"
        )
    return factors


def conjugate_gradients(matrix: sparse.csc_matrix, right: np.ndarray, precondition: Callable) -> np.ndarray | None:
    """The solution to three digits; None if that takes too long, or the matrix is seen not to be positive definite."""
    found, left = np.zeros_like(right), right
    step = near = precondition(left)
    size = first = left @ near
    for _ in range(MAX_STEPS):
        turned = matrix @ step
        if not (bend := step @ turned) > 0:
            return None
        found, left = found + size / bend * step, left - size / bend * turned
        near = precondition(left)
        size, before = left @ near, size
        if size < RESIDUAL**2 * first:
            return found
        step = near + size / before * step
    return None


def doubt_of(search: Callable, theta, mode: Mode) -> str:
    """Why there may be modes beside this one; empty if ``search(theta, start)`` returns to it from far away on all sides."""
    size = len(mode.x)
    noise = np.random.default_rng(0).normal(size=(1 if size > LARGE else NUM_STARTS, size))
    noise *= FAR * np.sqrt(size) / np.linalg.norm(noise, axis=1, keepdims=True)
    away = mode.factors.draw(noise)
    starts = [-mode.x, *(mode.x + away), *(mode.x - away)]
    for start in starts:
        try:
            found = search(theta, start)
        except SamplingError:
            return "the posterior of the fields is not log-concave: it may have other modes"
        away = found.x - mode.x
        if away @ (mode.hessian @ away) > 1.0:
            return "the posterior of the fields has several modes"
    return ""
