"""The trapezoidal rule, which converges faster than any power where the integrand vanishes at both ends."""

from __future__ import annotations

import functools
import itertools

import jax
import numpy as np
from scipy.special import logsumexp as numpy_logsumexp

__all__ = ["log_trapezoid"]


def log_trapezoid(log_values, log_step, axes: tuple[int, ...]):
    """log of the integral of exp(``log_values``) over ``axes``, and the quantities that show whether to trust it.

    Parameters
    ----------
    log_values : array
        Logarithms of the integrand at the nodes; NumPy or JAX.
    log_step : float or array
        log of the spacing, or Σ of those of several axes; broadcasts against the result.
    axes : tuple of int
        Axes of the nodes, not negative.

    Returns
    -------
    value, difference, ends : arrays
        ``difference``, absolute, is the one from the value with every second node only; ``ends`` the largest logarithm of the
        integrand on the faces of the grid less its largest one anywhere.
    """
    logsumexp = jax.scipy.special.logsumexp if isinstance(log_values, jax.Array) else numpy_logsumexp
    second = tuple(slice(None, None, 2) if k in axes else slice(None) for k in range(log_values.ndim))
    fine = logsumexp(log_values, axis=axes)
    coarse = logsumexp(log_values[second], axis=axes) + len(axes) * np.log(2)
    library = jax.numpy if isinstance(log_values, jax.Array) else np
    ends = []
    for axis, end in itertools.product(axes, (0, -1)):
        rest = tuple(k - (k > axis) for k in axes if k != axis)
        ends.append(library.take(log_values, end, axis=axis).max(axis=rest))
    return fine + log_step, abs(fine - coarse), functools.reduce(library.maximum, ends) - log_values.max(axis=axes)
