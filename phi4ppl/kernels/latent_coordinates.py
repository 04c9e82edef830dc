"""Coordinates in which the posterior of a NumPyro model with latent fields is nearly a standard normal law.

Hyperparameters θ are found along the axes of their covariance at the peak of the Laplace marginal p(θ | y): θ = θ* + R g(z_θ),
with g of every axis such that −log p falls by z²/2, which makes z nearly normal for skewed and long-tailed marginals too. Given
θ, the real variables x are close to N(x*(θ), H(θ)⁻¹), so that

    x = x*(θ) + C(θ) z,    C Cᵀ = H⁻¹,

has a standard normal z whether the data say much of a field or little. Where they say nothing, x* and C do not depend on a
scale that multiplies the field, and where they say much, both go with its inverse: fields are whitened or centered, each of
their directions by as much as the data say of it. x* and C are interpolated, which is no approximation of the density: any
such map is one to one.

A few variables that interact with many others, intercepts and the like, come first; the others are conditioned on them.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from ..numpyro_plugin.axes import Axes, axes_of
from ..numpyro_plugin.curvature import Curvature, Mode, factorized
from .latent_factors import BlockFactor, LowRankFactor, factor_of, interpolated, powers

__all__ = ["LatentCoordinates"]

REACH, SHARP = 1.1, 16  # how far x* and C follow z, in units of the outer nodes, and how sharply that ends
FAR = 20.0  # in units of the ends
MAX_BORDER = 64
FEW_NEIGHBORS = 16


@dataclass(frozen=True, eq=False)
class LatentCoordinates:
    """The map between white coordinates (z_θ, z_border, z_inner) and a flat position, and the log of its volume.

    Attributes
    ----------
    size : int
        Number of coordinates; the first ``num_leading`` belong to hyperparameters and the border.
    """

    peak: np.ndarray  # θ*, shape (h,)
    root: np.ndarray  # R of its covariance R Rᵀ, lower triangular, (h, h)
    axes: Axes
    ends: np.ndarray  # of z, between which x* and C follow it: negative and positive ones, (2, h)
    places: np.ndarray  # in a flat position, of θ, the border and the rest in the order of the factor
    num_border: int
    mean: np.ndarray  # coefficients of x*, (1 + 4 h, s + n)
    border_log: np.ndarray  # of the log of the diagonal of the root of the border's covariance, (1 + 4 h, s)
    border_root: np.ndarray  # of the root below its diagonal and relative to it, (1 + 4 h, s, s)
    along: np.ndarray  # of the mean of the rest per unit of the border, (1 + 4 h, n, s)
    factor: BlockFactor | LowRankFactor

    @classmethod
    def of(cls, curvature: Curvature) -> LatentCoordinates:
        """Raises SamplingError if there is no mode of x at the peak of θ."""
        theta, _, mode = curvature.peak
        root, axes, at, nodes = axes_of(curvature)
        border = _border(mode)
        rest = np.setdiff1d(np.arange(len(mode.x)), border)
        inner = [[m.hessian[rest][:, rest].tocsc() for m in values] for values in nodes]
        order, factor = factor_of(mode.hessian[rest][:, rest].tocsc(), inner, at)
        rest = rest[order]
        first, others = _of_border(mode, border, rest), [[_of_border(m, border, rest) for m in v] for v in nodes]
        log, below, along = (interpolated(first[k], [[p[k] for p in v] for v in others], at) for k in range(3))
        x = np.concatenate([border, rest])
        mean = interpolated(mode.x[x], [[m.x[x] for m in values] for values in nodes], at)
        both = np.concatenate([np.arange(len(theta)), len(theta) + x])
        places = np.argsort(curvature.order())[both]
        ends = REACH * at[:, [0, -1]].T
        return cls(theta, root, axes, ends, places, len(border), mean, log, below, along, factor)

    @property
    def size(self) -> int:
        return len(self.places)

    @property
    def num_leading(self) -> int:
        return len(self.peak) + self.num_border

    def _parts(self, z):
        low, high = jnp.asarray(self.ends, z.dtype)
        share = jnp.minimum(z / jnp.where(z < 0, low, high), FAR)  # beyond, powers overflow, and nothing changes
        weights = powers(jnp.where(z < 0, low, high) * share / (1 + share**SHARP) ** (1 / SHARP))

        def blend(values):
            return jnp.tensordot(weights, jnp.asarray(values, z.dtype), 1)

        root = jnp.exp(blend(self.border_log))[:, None] * (
            blend(self.border_root) + jnp.eye(self.num_border, dtype=z.dtype)
        )
        mean = blend(self.mean)
        return weights, mean[: self.num_border], mean[self.num_border :], root, blend(self.along)

    def color(self, white):
        """The flat position of white coordinates."""
        h, s = len(self.peak), self.num_leading
        theta = jnp.asarray(self.peak, white.dtype) + jnp.asarray(self.root, white.dtype) @ self.axes(white[:h])[0]
        weights, border, mean, root, along = self._parts(white[:h])
        away = root @ white[h:s]
        inner = mean + along @ away + self.factor.color(white[s:], weights)
        return jnp.concatenate([theta, border + away, inner])[np.argsort(self.places)]

    def whiten(self, flat):
        """The white coordinates of a flat position."""
        h, s, flat = len(self.peak), self.num_leading, flat[self.places]
        away = _solved(jnp.asarray(self.root, flat.dtype), flat[:h] - jnp.asarray(self.peak, flat.dtype))
        z = self.axes.inverse(away)
        weights, border, mean, root, along = self._parts(z)
        away = flat[h:s] - border
        inner = self.factor.whiten(flat[s:] - mean - along @ away, weights)
        return jnp.concatenate([z, _solved(root, away), inner])

    def log_det(self, white):
        """log |∂ position/∂ white|, up to a constant."""
        z = white[: len(self.peak)]
        weights = self._parts(z)[0]
        border = jnp.sum(weights @ jnp.asarray(self.border_log, white.dtype))
        return jnp.sum(self.axes(z)[1]) + border + self.factor.log_det(weights)


def _solved(root, right):
    return solve_triangular(root, right, lower=True) if len(right) else right


def _border(mode: Mode) -> np.ndarray:
    """Variables that interact with many more others than most do; none if they are many."""
    degree = np.diff(mode.hessian.indptr)
    found = np.flatnonzero(degree > max(FEW_NEIGHBORS, 4 * np.median(degree)))
    return found if len(found) <= MAX_BORDER else np.zeros(0, int)


def _of_border(mode: Mode, border: np.ndarray, rest: np.ndarray):
    """Root of the covariance of the border, log of its diagonal and what is below, and the mean of the rest per unit of it."""
    rows = mode.hessian[border]
    cross, corner = rows[:, rest].toarray(), rows[:, border].toarray()
    if not len(border):
        return np.zeros(0), np.zeros((0, 0)), np.zeros((len(rest), 0))
    along = -factorized(mode.hessian[rest][:, rest].tocsc()).solve(cross.T)
    root = np.linalg.cholesky(np.linalg.inv(corner + cross @ along))
    return np.log(np.diag(root)), np.tril(root, -1) / np.diag(root)[:, None], along
