"""A mode of latent fields, and the curvature there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ..energy.factors import Factors, Order, factors_of
from ..errors import SamplingError

__all__ = ["OTHERWISE", "Mode", "conjugate_gradients", "factorized"]

OTHERWISE = "Use phi4ppl.sample(…, kernel='nuts')."
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
