"""The fastest mode of a model, which limits explicit steps."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ..energy.functions import energy
from ..kernels.metrics import FreeField, spectrum
from ..model.field import MarkovRandomField

__all__ = ["largest_frequency"]

ITERATIONS = 100  # the Rayleigh quotient is then within about 0.3 percent
FAR = 30.0  # of uniform fields that are tried
SECTIONS = 40  # of the interval, each shorter by the golden ratio
GOLDEN = 0.6180339887


def largest_frequency(model: MarkovRandomField, mobility: FreeField | None = None) -> float:
    """ω_max, the largest eigenvalue of ∂²S/∂φ∂φ at φ = 0 and at the uniform fields of least energy on both sides of it.

    An explicit Euler step of dφ/dt = −∂S/∂φ is stable for ε < 2/ω_max, a leapfrog step of φ″ = −∂S/∂φ for ε < 2/√ω_max. Larger
    fields may be stiffer. By power iteration, with products of the Hessian only. With a ``mobility`` M(k) on the modes of the
    Laplacian (Fourier acceleration), of M ∂²S/∂φ∂φ.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> round(largest_frequency(p4.gaussian(p4.lattice.square(8), w=1.0, a=2.25)), 2)
    8.5
    """
    dtype = jnp.result_type(float)
    return float(_frequency(jax.tree.map(lambda value: jnp.asarray(value, dtype), model), mobility))


@jax.jit
def _frequency(model: MarkovRandomField, mobility: FreeField | None):
    def uniform(value):
        return jnp.full(model.field_shape, value)

    def density(value):
        return energy(model, uniform(value)) / model.lattice.num_sites

    ends = [_least(density, 0.0, FAR), _least(density, -FAR, 0.0)]
    inner = [jnp.where(jnp.abs(value) < 0.99 * FAR, value, 0.0) for value in ends]
    return jnp.max(
        jax.lax.map(lambda value: _largest(model, mobility, uniform(value)), jnp.stack([jnp.zeros(()), *inner]))
    )


def _least(function, low, high):
    """Where a function is least between two numbers, by golden sections."""

    def shrink(_, ends):
        low, high = ends
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        lower = function(left) < function(right)
        return jnp.where(lower, low, left), jnp.where(lower, right, high)

    low, high = jax.lax.fori_loop(0, SECTIONS, shrink, (jnp.asarray(low), jnp.asarray(high)))
    return (low + high) / 2


def _largest(model: MarkovRandomField, mobility: FreeField | None, phi):
    """The largest eigenvalue of the Hessian, the largest in magnitude being either that or the most negative one."""
    slope = jax.grad(lambda p: energy(model, p))

    def root(v):
        if mobility is None:
            return v
        basis = spectrum(model.lattice)
        return basis.apply(jnp.sqrt(mobility.variance(jnp.asarray(basis.laplacian))), v)

    def power(shift):
        def once(_, carry):
            v, _ = carry
            moved = root(jax.jvp(slope, (phi,), (root(v),))[1]) - shift * v
            return moved / jnp.linalg.norm(moved), jnp.sum(v * moved)

        start = jax.random.normal(jax.random.key(0), phi.shape, phi.dtype)
        return jax.lax.fori_loop(0, ITERATIONS, once, (start / jnp.linalg.norm(start), jnp.zeros((), phi.dtype)))[1]

    first = power(jnp.zeros(()))
    return jax.lax.cond(first >= 0, lambda: first, lambda: power(first) + first)
