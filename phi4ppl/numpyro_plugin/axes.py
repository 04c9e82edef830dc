"""Axes of hyperparameters along which their Laplace marginal is nearly a standard normal law.

θ = θ* + R g(z): R Rᵀ is the covariance of θ at the peak of p(θ | y), and g stretches every axis so that −log p(θ | y) grows by
z²/2 along it. A scale that the data may leave at 0 has a long tail on one side, of which the peak knows nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import scipy.optimize

from ..errors import SamplingError
from .curvature import Curvature, Mode

__all__ = ["NODES", "Axes", "axes_of"]

NODES = np.array([-4.0, -2.0, 2.0, 4.0])
FARTHEST = 12.0  # standard deviations along an axis
CLOSE = 0.05  # relative error of a distance
BOUNDS = [-7.0, -4.0, -1.5], [5.0, 4.0, 1.5]  # of log c, ε and log δ


@dataclass(frozen=True, eq=False)
class Axes:
    """g(z) = c (sinh(δ asinh z + ε) − sinh ε) of every axis, increasing from −∞ to ∞, with skewness ε and tails δ.

    Source: M. C. Jones and A. Pewsey, Biometrika 96 (2009) 761.
    """

    width: np.ndarray  # c > 0, shape (h,)
    skewness: np.ndarray  # ε
    tails: np.ndarray  # δ > 0

    @classmethod
    def of(cls, values) -> Axes:
        """The axes nearest to ``values`` at the `NODES`, shape (h, 4)."""

        def fit(wanted):
            def away(p):
                return (cls(np.exp(p[0]), p[1], np.exp(p[2]))(NODES, np)[0] - wanted) / NODES

            return scipy.optimize.least_squares(away, np.zeros(3), bounds=BOUNDS).x

        found = np.reshape([fit(np.asarray(one, float)) for one in values], (-1, 3))
        return cls(np.exp(found[:, 0]), found[:, 1], np.exp(found[:, 2]))

    def __call__(self, z, library=jnp):
        """g(z) and log g′(z), shape (h,), in JAX or, with ``library=numpy``, in double precision."""
        width, skewness, tails = (library.asarray(a, z.dtype) for a in (self.width, self.skewness, self.tails))
        inner = tails * library.arcsinh(z) + skewness
        log_slope = library.log(width * tails) + library.log(library.cosh(inner)) - library.log1p(z**2) / 2
        return width * (library.sinh(inner) - library.sinh(skewness)), log_slope

    def inverse(self, value):
        """z of g(z)."""
        width, skewness, tails = (jnp.asarray(a, value.dtype) for a in (self.width, self.skewness, self.tails))
        return jnp.sinh((jnp.arcsinh(value / width + jnp.sinh(skewness)) - skewness) / tails)


def axes_of(curvature: Curvature) -> tuple[np.ndarray, Axes, np.ndarray, list[list[Mode]]]:
    """R, g, the nodes z of every axis, shape (h, 4), and the modes of x at them.

    Raises
    ------
    SamplingError
        If there is no mode of x beside the peak of θ.
    """
    theta, covariance, _ = curvature.peak
    root = np.linalg.cholesky(covariance) if len(theta) else np.zeros((0, 0))
    found = [[_at_distance(curvature, column, z) for z in NODES] for column in root.T]
    distances = np.reshape([[t for t, _ in values] for values in found], (-1, len(NODES)))
    axes = Axes.of(distances)
    at = np.reshape([axes.inverse(jnp.asarray(column)) for column in distances.T], distances.shape[::-1]).T
    return root, axes, at, [[mode for _, mode in values] for values in found]


def _at_distance(curvature: Curvature, column: np.ndarray, z: float) -> tuple[float, Mode]:
    """Where −log p(θ | y) has grown by z²/2 along an axis, in standard deviations at the peak, and the mode of x there.

    Less far where there are no more modes of x; at most `FARTHEST`.
    """
    theta, _, best = curvature.peak
    close, far, there = 0.0, np.nan, best
    distance = abs(z)
    for _ in range(20):
        try:
            mode = curvature.light(curvature.mode(theta + np.sign(z) * distance * column, there.x, near=True))
            grown = best.log_marginal - mode.log_marginal
        except SamplingError:
            grown = np.inf
        if grown < z**2 / 2:
            close, there = distance, mode
            if distance == FARTHEST:
                break
        else:
            far = distance
        if far - close < CLOSE * distance:
            break
        distance = (close + far) / 2 if np.isfinite(far) else min(1.5 * distance, FARTHEST)
    if close == 0.0:
        raise SamplingError("no_mode", "the Laplace marginal of the constrained variables falls too steeply.")
    return float(np.sign(z) * close), there
