"""The fastest mode of a model, which limits explicit steps."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize_scalar
from scipy.sparse.linalg import LinearOperator, eigsh

from ..energy.functions import energy
from ..model.field import MarkovRandomField

__all__ = ["largest_frequency", "rest_fields"]

TOLERANCE = 1e-4  # of the eigenvalue
SMALL = 64  # sites up to which the Hessian is a matrix
FAR = 30.0  # uniform fields that are tried


def largest_frequency(model: MarkovRandomField, root: Callable | None = None) -> float:
    """ω_max, the largest eigenvalue of ∂²S/∂φ∂φ at φ = 0 and at the uniform fields of least energy.

    An explicit Euler step of dφ/dt = −∂S/∂φ is stable for ε < 2/ω_max, a leapfrog step of φ″ = −∂S/∂φ for ε < 2/√ω_max. Fields
    beyond these may be stiffer. By Lanczos iteration with products of the Hessian only. With ``root``, φ → √M φ of a
    symmetric M, the largest eigenvalue of M ∂²S/∂φ∂φ.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> round(largest_frequency(p4.gaussian(p4.lattice.square(8), w=1.0, a=2.25)), 3)
    8.5
    """
    root = root or (lambda v: v)
    product = jax.jit(lambda phi, v: root(jax.jvp(jax.grad(lambda p: energy(model, p)), (phi,), (root(v),))[1]))
    return max(_largest(product, model.field_shape, value) for value in rest_fields(model))


def rest_fields(model: MarkovRandomField) -> list[float]:
    """0, and the uniform fields on both sides of it at which the energy is least."""
    uniform = jax.jit(lambda c: energy(model, jnp.full(model.field_shape, c)) / model.lattice.num_sites)
    found = [0.0]
    for bounds in ((0.0, FAR), (-FAR, 0.0)):
        least = minimize_scalar(lambda c: float(uniform(c)), bounds=bounds, method="bounded", options={"xatol": 1e-3})
        if np.isfinite(least.fun) and abs(least.x) < FAR * 0.99:
            found.append(float(least.x))
    return found


def _largest(product, shape, value: float) -> float:
    phi, size = jnp.full(shape, value), int(np.prod(shape))

    def apply(v):
        return np.asarray(product(phi, jnp.asarray(v, phi.dtype).reshape(shape)), float).ravel()

    if size <= SMALL:
        return float(np.linalg.eigvalsh(np.stack([apply(row) for row in np.eye(size)])).max())
    operator = LinearOperator((size, size), matvec=apply, dtype=float)
    start = np.random.default_rng(0).normal(size=size)
    return float(eigsh(operator, k=1, which="LA", tol=TOLERANCE, v0=start, return_eigenvectors=False)[0])
