"""A smooth function of up to three variables from its values at a few nodes, to be evaluated and differentiated by JAX."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from .._typing import OneTheta, PerPoint, Scalar, Thetas

__all__ = ["Interpolant"]

NODES = {1: 24, 2: 13, 3: 9}  # in each of so many dimensions
CHECKS = 40  # points between the nodes, besides the corners of the box


class Interpolant:
    """Σ c_kl… T_k(x) T_l(y) … through the values of a function at the Chebyshev nodes of a box.

    Outside the box it continues along rays from a center c inside: f(c) + t (f(x) − f(c)) at c + t (x − c), x on a face, t > 1,
    which is below the function if that is convex.

    Parameters
    ----------
    function : callable
        Of an array of shape (points, dimensions), in double precision; returns shape (points,).
    low, high : arrays, shape (dimensions,)
    number : int, optional
        Nodes in each dimension.

    Attributes
    ----------
    center : array, shape (dimensions,)
        The middle of the box, or what `shifted` was given.
    error : float
        The largest deviation from the function at points between the nodes.
    checked, deviations : arrays, shapes (checks, dimensions) and (checks,)
        These points, the corners of the box and others, and what the interpolant deviates there.
    """

    def __init__(self, function: Callable, low, high, number: int | None = None):
        self.low, self.high = np.asarray(low, float), np.asarray(high, float)
        dimensions, self.center = len(self.low), (self.low + self.high) / 2
        number = NODES[dimensions] if number is None else number
        angle = np.pi * (np.arange(number) + 0.5) / number
        axes = np.meshgrid(*[np.cos(angle)] * dimensions, indexing="ij")
        nodes = self._place(np.stack([axis.ravel() for axis in axes], axis=1))
        corners = np.array(list(itertools.product((-1.0, 1.0), repeat=dimensions)))
        between = np.random.default_rng(0).uniform(-1, 1, (CHECKS, dimensions))
        self.checked = self._place(np.concatenate([corners, between]))
        values = np.asarray(function(np.concatenate([nodes, self.checked])), float)
        # a cosine transform along every axis
        transform = 2 / number * np.cos(np.arange(number)[:, None] * angle)
        transform[0] /= 2
        coefficients = values[: len(nodes)].reshape((number,) * dimensions)
        for axis in range(dimensions):
            coefficients = np.moveaxis(np.tensordot(transform, coefficients, (1, axis)), 0, axis)
        self.coefficients = coefficients
        self.deviations = np.abs(values[len(nodes) :] - self.values(self.checked))
        self.error = float(self.deviations.max())

    def shifted(self, constant: float, factor: float, center=None) -> Interpolant:
        """factor · (this function − constant), about another center."""
        new = object.__new__(Interpolant)
        new.__dict__.update(self.__dict__)
        new.coefficients = factor * self.coefficients
        new.coefficients[(0,) * self.coefficients.ndim] -= factor * constant
        new.deviations, new.error = abs(factor) * self.deviations, abs(factor) * self.error
        new.center = self.center if center is None else np.asarray(center, float)
        return new

    def __call__(self, theta: OneTheta) -> Scalar:
        """The value at ``theta``, shape (dimensions,), in its precision, for JAX."""
        near, stretch = self._projected(theta, jnp)
        return self._inside(near, stretch)

    def _projected(self, thetas, library) -> tuple:
        """Points in units of the half box, those outside moved to its faces, and how many times farther they were."""
        dtype = thetas.dtype
        low, high, center = (library.asarray(x, dtype) for x in (self.low, self.high, self.center))
        away = thetas - center
        # a center on a face is one of all that there is: nothing lies beyond
        room = library.maximum(library.where(away > 0, high - center, center - low), 1e-6 * (high - low))
        stretch = library.maximum((abs(away) / room).max(axis=-1), 1.0)
        x = (2 * (center + away / stretch[..., None]) - low - high) / (high - low)
        return library.clip(x, -1, 1), stretch

    def _inside(self, x, stretch):
        rows = [jnp.ones_like(x), x]
        while len(rows) < self.coefficients.shape[0]:
            rows.append(2 * x * rows[-1] - rows[-2])
        at_center = jnp.asarray(self._at_center, x.dtype)
        return at_center + stretch * (self._product(jnp.stack(rows)) - at_center)

    @property
    def _at_center(self) -> float:
        return float(self._polynomial((2 * self.center - self.low - self.high)[None] / (self.high - self.low))[0])

    def _product(self, factors):
        """Σ c_kl… f_k g_l … for JAX, f, g, … the columns of ``factors``."""
        total = jnp.asarray(self.coefficients, factors.dtype)
        for axis in reversed(range(len(self.low))):
            total = total @ factors[:, axis]
        return total

    def values(self, thetas: Thetas) -> PerPoint:
        """The same at many points in double precision, shape (points,)."""
        near, stretch = self._projected(np.asarray(thetas, float), np)
        return self._at_center + stretch * (self._polynomial(near) - self._at_center)

    def _polynomial(self, x) -> np.ndarray:
        angle = np.arccos(np.clip(x, -1, 1))[:, :, None]
        factors = np.cos(np.arange(self.coefficients.shape[0]) * angle).swapaxes(0, 1)
        total = np.tensordot(factors[0], self.coefficients, (1, 0))
        for factor in factors[1:]:
            total = np.einsum("pk...,pk->p...", total, factor)
        return total

    def _place(self, x) -> np.ndarray:
        return (self.low + self.high) / 2 + (self.high - self.low) / 2 * np.asarray(x)
