"""The graph Laplacian of a lattice, its largest eigenvalue, and exponentials of it without a matrix."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ..energy.functions import energy
from ..kernels.metrics import spectrum
from ..lattice.frozen import Lattice
from ..model.field import MarkovRandomField
from ..model.term import Term, hopping

__all__ = ["exponential", "has_fast_modes", "laplacian", "largest_eigenvalue"]

DEGREE = 40  # of the Chebyshev series of exp(−z(1 + x)); its remainder is below 1e-17 for z ≤ REACH
REACH = 16.0
NODES = 64


@functools.lru_cache(maxsize=64)
def laplacian(lattice: Lattice) -> Callable:
    """φ → (Lφ)_i = Σ_{j ~ i} (φ_i − φ_j), all edges of weight 1, in the fast layout of the lattice.

    Examples
    --------
    >>> import jax.numpy as jnp, phi4ppl as p4
    >>> laplacian(p4.lattice.chain(4))(jnp.asarray([1.0, 0, 0, 0]))
    Array([ 2., -1.,  0., -1.], dtype=float32)
    """
    degree = np.asarray(lattice.degree, float).reshape(lattice.field_shape)
    if not lattice.num_edges:
        return jnp.zeros_like
    joined = MarkovRandomField(lattice, [Term("edges", lattice.edges, hopping, 1.0)])
    minus_sum = jax.grad(lambda phi: energy(joined, phi))  # −Σ_j φ_j
    return lambda phi: jnp.asarray(degree, phi.dtype) * phi + minus_sum(phi)


def has_fast_modes(lattice: Lattice) -> bool:
    """Whether Fourier or cosine modes diagonalize the Laplacian of all edges."""
    if lattice.offsets is None or lattice.sign_kinds:
        return False
    opened = [axis for axis, p in enumerate(lattice.periodic) if not p]
    steps = [np.array(offset) for offsets in lattice.offsets.values() for offset in offsets]
    small = any(n < 3 for n, p in zip(lattice.shape, lattice.periodic, strict=True) if p)
    return not small and not (opened and any(np.count_nonzero(step) > 1 for step in steps))


def largest_eigenvalue(lattice: Lattice) -> float:
    """The largest eigenvalue of L where there are fast modes, and else twice the largest degree, which bounds it."""
    if has_fast_modes(lattice):
        return float(spectrum(lattice).laplacian.max())
    return 2.0 * float(lattice.degree.max(initial=0))


def exponential(lattice: Lattice, time: jax.Array) -> Callable:
    """φ → exp(−time L) φ.

    Fourier or cosine transforms where they diagonalize L. On any other graph the Chebyshev series of exp(−z(1 + x)) on the
    spectrum of L, scaled to −1 … 1, by products with L only, repeated in parts of z ≤ 16 (H. Tal-Ezer and R. Kosloff,
    J. Chem. Phys. 81 (1984) 3967).
    """
    if has_fast_modes(lattice):
        basis = spectrum(lattice)
        factor = jnp.exp(-time * jnp.asarray(basis.laplacian))
        return lambda phi: basis.apply(factor, phi)
    half = largest_eigenvalue(lattice) / 2 or 1.0
    parts = jnp.maximum(jnp.ceil(time * half / REACH), 1).astype(int)
    weights = _chebyshev(time * half / parts)
    apply = laplacian(lattice)

    def scaled(phi):  # spectrum in −1 … 1
        return apply(phi) / half - phi

    def once(_, phi):
        coefficients = weights.astype(phi.dtype)

        def term(k, carry):
            last, now, total = carry
            following = 2 * scaled(now) - last
            return now, following, total + coefficients[k] * following

        first, second = phi, scaled(phi)
        begun = (first, second, coefficients[0] * first + coefficients[1] * second)
        return jax.lax.fori_loop(2, DEGREE, term, begun)[2]

    return lambda phi: jax.lax.fori_loop(0, parts, once, phi)


def _chebyshev(z):
    """Coefficients of exp(−z(1 + x)) in T_k(x), from its values on Chebyshev nodes."""
    angle = np.pi * (np.arange(NODES) + 0.5) / NODES
    basis = np.cos(np.arange(DEGREE)[:, None] * angle) * 2 / NODES
    basis[0] /= 2
    return jnp.asarray(basis) @ jnp.exp(-z * (1 + jnp.asarray(np.cos(angle))))
