"""A smooth function of up to three variables from its values at a few nodes, to be evaluated and differentiated by JAX."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

__all__ = ["Interpolant"]

NODES = {1: 24, 2: 13, 3: 9}  # in each of so many dimensions
CHECKS = 5  # points between the nodes


class Interpolant:
    """Σ c_kl… T_k(x) T_l(y) … through the values of a function at the Chebyshev nodes of a box.

    Parameters
    ----------
    function : callable
        Of an array of shape (dimensions,), in double precision.
    low, high : arrays, shape (dimensions,)

    Attributes
    ----------
    error : float
        The largest deviation from the function at points between the nodes.
    """

    def __init__(self, function: Callable, low, high):
        self.low, self.high = np.asarray(low, float), np.asarray(high, float)
        number = NODES[len(self.low)]
        angle = np.pi * (np.arange(number) + 0.5) / number
        shape = (number,) * len(self.low)
        values = np.array([function(self._place(x)) for x in itertools.product(np.cos(angle), repeat=len(self.low))])
        # a cosine transform along every axis
        transform = 2 / number * np.cos(np.arange(number)[:, None] * angle)
        transform[0] /= 2
        coefficients = values.reshape(shape)
        for axis in range(len(shape)):
            coefficients = np.moveaxis(np.tensordot(transform, coefficients, (1, axis)), 0, axis)
        self.coefficients = coefficients
        points = np.random.default_rng(0).uniform(-1, 1, (CHECKS, len(shape)))
        self.error = max(abs(function(self._place(x)) - self._evaluate(x, np)) for x in points)

    def __call__(self, theta):
        """The value at ``theta``, shape (dimensions,), in its precision."""
        low, high = jnp.asarray(self.low, theta.dtype), jnp.asarray(self.high, theta.dtype)
        return self._evaluate((2 * theta - low - high) / (high - low), jnp)

    def _place(self, x) -> np.ndarray:
        return (self.low + self.high) / 2 + (self.high - self.low) / 2 * np.asarray(x)

    def _evaluate(self, x, library):
        total = library.asarray(self.coefficients, getattr(x, "dtype", float))
        for axis in reversed(range(len(self.low))):
            polynomials = [library.ones_like(x[axis]), x[axis]]
            while len(polynomials) < total.shape[-1]:
                polynomials.append(2 * x[axis] * polynomials[-1] - polynomials[-2])
            total = total @ library.stack(polynomials)
        return total
