"""Effective ranks as JAX functions with safe gradients, for use as regularizers of features or kernels.

Eigenvectors are held fixed (``stop_gradient``) and eigenvalues are taken as vᵀKv: by the Hellmann–Feynman theorem
this has the right
first derivatives, also where eigenvalues are degenerate and the derivative of an eigenvector does not exist.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .._typing import Scalar

__all__ = ["entropy_rank", "participation_ratio", "stable_rank"]


def participation_ratio(kernel) -> Scalar:
    """(tr K)²/‖K‖²_F of a positive semidefinite matrix, as a differentiable JAX function.

    Parameters
    ----------
    kernel : array, shape ``(n, n)``
        Of features A of shape (n, p) the matrix AAᵀ, or AᵀA, which is smaller for p < n.

    Returns
    -------
    scalar array
        0 for a zero matrix.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, phi4ppl as p4
    >>> round(float(p4.spectral.participation_ratio(jnp.diag(jnp.array([2.0, 1.0, 1.0])))), 4)
    2.6667
    >>> jax.grad(p4.spectral.participation_ratio)(jnp.eye(2)).tolist()  # at the maximum, and at a degeneracy
    [[0.0, 0.0], [0.0, 0.0]]
    """
    kernel = jnp.asarray(kernel)
    scaled = kernel / _scale(
        jnp.trace(kernel)
    )  # the ratio does not depend on it, and squares neither over- nor underflow
    return jnp.trace(scaled) ** 2 / _positive(jnp.sum(scaled**2))


def entropy_rank(kernel) -> Scalar:
    """exp(−Σ p log p), p = λ/Σλ, of a positive semidefinite matrix, as a differentiable JAX function.

    Eigenvalues within rounding of zero count as zero, and have the derivative of the smallest that is above.

    Parameters
    ----------
    kernel : array, shape ``(n, n)``

    Returns
    -------
    scalar array
        0 for a zero matrix.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, phi4ppl as p4
    >>> round(float(p4.spectral.entropy_rank(jnp.diag(jnp.array([1.0, 1.0, 0.0])))), 4)
    2.0
    >>> bool(jnp.all(jnp.isfinite(jax.grad(p4.spectral.entropy_rank)(jnp.ones((3, 3))))))
    True
    """
    kernel = jnp.asarray(kernel)
    _, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(kernel))
    values = jnp.einsum("ji,jk,ki->i", vectors, kernel, vectors)
    trace = jnp.sum(values)
    shares = values / _positive(trace)
    smallest = len(kernel) * jnp.finfo(shares.dtype).eps
    logs = jnp.log(jnp.maximum(shares, smallest))
    entropy = -jnp.sum(jnp.where(shares > smallest, shares * logs, shares * jax.lax.stop_gradient(logs)))
    return jnp.where(trace > 0, jnp.exp(entropy), 0.0)


def stable_rank(factor) -> Scalar:
    """‖A‖²_F/‖A‖² of a matrix A, the trace over the largest eigenvalue of AᵀA, as a differentiable JAX function.

    Where the two largest are equal it has no derivative; that of one of them is taken.

    Parameters
    ----------
    factor : array, shape ``(n, p)``
        Features of n inputs, or a weight matrix.

    Returns
    -------
    scalar array
        0 for a zero matrix.

    Examples
    --------
    >>> import jax.numpy as jnp, phi4ppl as p4
    >>> round(float(p4.spectral.stable_rank(jnp.diag(jnp.array([2.0, 1.0, 1.0])))), 4)
    1.5
    """
    factor = jnp.asarray(factor)
    scaled = factor / _scale(jnp.sqrt(jnp.sum(factor**2)))
    small = scaled.T @ scaled if factor.shape[0] >= factor.shape[1] else scaled @ scaled.T
    _, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(small))
    top = vectors[:, -1]
    return jnp.trace(small) / _positive(top @ small @ top)


def _positive(number):
    """The number, or 1 where it is 0: the ranks of a zero matrix are 0, not nan, and so are their derivatives."""
    return jnp.where(number > 0, number, 1.0)


def _scale(number):
    return jax.lax.stop_gradient(_positive(number))
