"""A smooth function of a few variables near a point, from its values at points of a ball, for JAX."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["LocalPolynomial"]

DEGREE = {1: 10, 2: 8, 3: 7}  # in so many dimensions
POINTS, CHECKS = 3, 20  # a coefficient, and between them
SHARE = 0.5  # of the points at which the function has to be finite


class LocalPolynomial:
    """The polynomial closest to a function whose minimum is at the origin, f(z) ≈ |z|²/2; beyond the ball a parabola.

    Parameters
    ----------
    function : callable
        Of an array of shape (dimensions,), in double precision. Where it is infinite the polynomial continues smoothly.
    dimensions : int
    radius : float

    Attributes
    ----------
    error : float
        The largest deviation from the function at other points of the ball, in units of 1 + f; infinite if f mostly is.

    Examples
    --------
    >>> import jax.numpy as jnp, numpy as np
    >>> cosh = LocalPolynomial(lambda z: np.cosh(z[0]) - 1, 1, 2.0)
    >>> cosh.error < 1e-6, round(float(cosh(jnp.array([1.0]))), 4)
    (True, 0.5431)
    """

    def __init__(self, function: Callable, dimensions: int, radius: float):
        self.radius, degree = radius, DEGREE[dimensions]
        powers = itertools.product(range(degree + 1), repeat=dimensions)
        self.powers = np.array([p for p in powers if sum(p) <= degree])
        number, rng = POINTS * len(self.powers), np.random.default_rng(0)
        points = rng.normal(size=(number + CHECKS, dimensions))
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        points *= (np.arange(1, len(points) + 1) % number / number)[:, None] ** (1 / dimensions)
        values = np.array([function(radius * point) for point in points])
        finite = np.isfinite(values)
        fitted = finite & (np.arange(len(points)) < number)
        matrix = np.prod(points[:, None] ** self.powers, axis=2)
        self.coefficients, self.error = np.zeros(len(self.powers)), np.inf
        if np.sum(fitted) < SHARE * number:
            return
        weight = np.zeros(len(points))
        weight[finite] = 1 / (1 + np.maximum(values[finite], 0))
        rows, right = weight[fitted, None] * matrix[fitted], weight[fitted] * values[fitted]
        self.coefficients = np.linalg.lstsq(rows, right, rcond=None)[0]
        self.error = float(np.abs(weight * (matrix @ self.coefficients - np.where(finite, values, 0)))[finite].max())

    def __call__(self, z):
        """The value at ``z``, shape (dimensions,), in its precision."""
        away = jnp.sqrt(jnp.sum(z**2) + 1e-30)
        near = z * jnp.minimum(1.0, self.radius / away)
        value, slope = jax.value_and_grad(self._inside)(near)
        return value + slope @ (z - near) + jnp.sum((z - near) ** 2) / 2

    def _inside(self, z):
        x = z / self.radius
        table = jnp.stack([jnp.ones_like(x), *itertools.accumulate([x] * int(self.powers.max()), jnp.multiply)], axis=1)
        monomials = jnp.prod(table[jnp.arange(len(x)), self.powers], axis=1)
        return monomials @ jnp.asarray(self.coefficients, x.dtype)
