"""Factors C(z) of the covariances H⁻¹ = C Cᵀ of latent fields, as functions of white hyperparameters z = (z₁, …, z_h).

They are found from H at z = 0 and at four nodes of every z_k alone, and are invertible for all z: logarithms of
what must not vanish are polynomials in the z_k, and what lies beside the diagonal is linear.

Their functions take `powers` of z; arrays with a first axis of that length hold the coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import reverse_cuthill_mckee
from scipy.sparse.linalg import LinearOperator, eigsh

from ..numpyro_plugin.curvature import factorized

__all__ = ["BlockFactor", "LowRankFactor", "factor_of", "interpolated", "powers"]

# that a block factor may hold: beyond, reading them takes longer than the trajectories that they save
MAX_NUMBERS = 2**24
MIN_BLOCK = 64  # fewer and larger blocks are faster than many small ones
NUM_DIRECTIONS = 32  # that a factor of low rank treats apart from the diagonal
SOFT = 0.5  # eigenvalues of the scaled precision above it are left to the diagonal
MAX_DENSE = 64
TOO_CLOSE = 0.2  # distance of two nodes, in units of the outer one


def powers(z):
    """1, then the first to fourth powers of all z_k: (1, z₁, …, z_h, z₁², …), shape (1 + 4 h,)."""
    return jnp.concatenate([jnp.ones(1, z.dtype), z, z**2, z**3, z**4])


def interpolated(center, nodes: Sequence[Sequence], at) -> np.ndarray:
    """Coefficients of the polynomial with the value ``center`` at 0, and those of ``nodes`` where one z_k is ``at[k]``.

    Of lower degree where nodes are so close that their differences would tell little.
    """
    parts = np.zeros((4, len(nodes), *np.shape(center)))
    for k, (values, z) in enumerate(zip(nodes, at, strict=True)):
        used = _apart(z)
        inverse = np.linalg.inv(np.vander(z[used], len(used) + 1, increasing=True)[:, 1:])
        parts[: len(used), k] = np.tensordot(inverse, np.stack([values[j] for j in used]) - center, 1)
    return np.concatenate([np.asarray(center)[None], parts.reshape(4 * len(nodes), *np.shape(center))])


def _apart(z: np.ndarray) -> list[int]:
    """The nodes far enough from each other and from 0: outer ones, and inner ones that are not next to them or to 0."""
    sides = [(outer, inner) for outer, inner in ((0, 1), (3, 2)) if abs(z[outer]) > TOO_CLOSE * np.abs(z).max()]
    return sorted(
        [outer for outer, _ in sides]
        + [inner for outer, inner in sides if TOO_CLOSE < z[inner] / z[outer] < 1 - TOO_CLOSE]
    )


def linear(center, nodes: Sequence[Sequence], at) -> np.ndarray:
    """A value and its slopes by the two inner nodes of every z_k, shape (1 + h, …)."""
    return np.stack([center, *((v[2] - v[1]) / (z[2] - z[1]) for v, z in zip(nodes, at, strict=True))])


def _blend(weights, values):
    """Σ_k weights_k values_k over the first axis."""
    return jnp.tensordot(weights, jnp.asarray(values, weights.dtype), 1)


@dataclass(frozen=True, eq=False)
class BlockFactor:
    """C = L⁻ᵀ of the Cholesky factor of a matrix with a band, in blocks of the width of the band.

    With D the diagonal of L⁻¹, A_i = D_i⁻¹ L_ii⁻ᵀ and G_i = A_i L_{i+1,i}ᵀ D_{i+1}, x = C z is x_i = D_i y_i with
    y_i = A_i z_i − G_i y_{i+1}, from the last block on. A scale that multiplies x changes D alone.
    """

    size: int
    log_diagonal: np.ndarray  # of D, shape (1 + 4 h, num_blocks, block)
    inner: np.ndarray  # A above its diagonal, which is 1, (num_blocks, 1 + h, block, block)
    outer: np.ndarray  # G, likewise

    @classmethod
    def of(cls, center, nodes: Sequence[Sequence], at) -> BlockFactor:
        block = _block_size(center)
        first = _inverse_blocks(center, block)
        found = [[_inverse_blocks(matrix, block) for matrix in values] for values in nodes]
        log, inner, outer = ([[blocks[k] for blocks in values] for values in found] for k in range(3))
        parts = (linear(first[k], part, at).swapaxes(0, 1) for k, part in ((1, inner), (2, outer)))
        return cls(center.shape[0], interpolated(first[0], log, at), *parts)

    @staticmethod
    def numbers(matrix: sparse.csc_matrix, num_hyper: int) -> int:
        """How many numbers the factor of a matrix would hold."""
        block = _block_size(matrix)
        return 2 * (1 + num_hyper) * -(-matrix.shape[0] // block) * block**2

    @property
    def how(self) -> str:
        return f"whitened by a Cholesky factor of bandwidth {self.inner.shape[-1]}"

    def _padded(self, flat):
        blocks, size = self.log_diagonal.shape[1:]
        return jnp.concatenate([flat, jnp.zeros(blocks * size - self.size, flat.dtype)]).reshape(blocks, size)

    def color(self, white, weights):
        """C z."""
        z, width = self._padded(white), self.inner.shape[-1]
        inner, outer = (jnp.asarray(a, z.dtype).reshape(len(z), -1, width) for a in (self.inner, self.outer))

        def product(stacked, vector):  # one matrix product for all slopes
            return weights[: len(stacked) // width] @ (stacked @ vector).reshape(-1, width)

        def backwards(after, block):
            first, stacked = block
            here = first - product(stacked, after)
            return here, here

        scaled = first = z + jax.vmap(product)(inner, z)
        if len(z) > 1:
            scaled = jax.lax.scan(backwards, jnp.zeros_like(z[0]), (first, outer), reverse=True)[1]
        return (jnp.exp(_blend(weights, self.log_diagonal)) * scaled).reshape(-1)[: self.size]

    def whiten(self, flat, weights):
        """C⁻¹ x."""
        y = self._padded(flat) * jnp.exp(-_blend(weights, self.log_diagonal))
        few = weights[: self.inner.shape[1]]
        inner, outer = (jnp.einsum("k,mkij->mij", few, jnp.asarray(a, y.dtype)) for a in (self.inner, self.outer))
        triangles = inner + jnp.eye(y.shape[1], dtype=y.dtype)[None]
        right = y + jnp.einsum("mij,mj->mi", outer, jnp.concatenate([y[1:], jnp.zeros_like(y[:1])]))
        return jax.scipy.linalg.solve_triangular(triangles, right[..., None])[..., 0].reshape(-1)[: self.size]

    def log_det(self, weights):
        """log det C."""
        return jnp.sum(_blend(weights, self.log_diagonal))


def _block_size(matrix: sparse.csc_matrix) -> int:
    there = matrix.tocoo()
    band = int(np.abs(there.row - there.col).max(initial=0))
    block = max(band, MIN_BLOCK)
    return block if 2 * block < matrix.shape[0] else matrix.shape[0]  # one block needs no recursion


def _inverse_blocks(matrix: sparse.csc_matrix, block: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log D, A above its diagonal, and G; the last block is filled up with the identity."""
    size, matrix = matrix.shape[0], matrix.tocsr()
    number = -(-size // block)
    a, g = np.zeros((2, number, block, block))
    left = np.zeros((block, block))  # L_{i,i−1}
    for i in range(number):
        here, after = slice(i * block, min(size, (i + 1) * block)), slice((i + 1) * block, min(size, (i + 2) * block))
        rows = here.stop - here.start
        diagonal, below = np.eye(block), np.zeros((block, block))
        diagonal[:rows, :rows] = matrix[here, here].toarray()
        a[i] = np.linalg.inv(np.linalg.cholesky(diagonal - left @ left.T)).T
        if i + 1 < number:
            below[: after.stop - after.start, :rows] = matrix[after, here].toarray()
            left = below @ a[i]
            g[i] = a[i] @ left.T
    d = np.einsum("mii->mi", a)
    after = np.concatenate([d[1:], np.ones((1, block))])
    return np.log(d), np.triu(a, 1) / d[:, :, None], g / d[:, :, None] * after[:, None, :]


@dataclass(frozen=True, eq=False)
class LowRankFactor:
    """C = D^(−½) (1 + U (S − 1) Uᵀ): the diagonal of H, and the softest directions relative to it."""

    log_scale: np.ndarray  # of D^½, shape (1 + 4 h, n)
    vectors: np.ndarray  # U, orthonormal, (n, k)
    log_deviations: np.ndarray  # log S, (1 + 4 h, k)

    @classmethod
    def of(cls, center, nodes: Sequence[Sequence], at) -> LowRankFactor:
        vectors = soft_directions(center)

        def parts(matrix):
            scale = np.sqrt(matrix.diagonal())
            along = vectors / scale[:, None]
            return np.log(scale), -np.log(np.sum(along * (matrix @ along), axis=0)) / 2

        first, found = parts(center), [[parts(matrix) for matrix in values] for values in nodes]
        scale, deviations = (interpolated(first[k], [[p[k] for p in values] for values in found], at) for k in range(2))
        return cls(scale, vectors, deviations)

    @property
    def how(self) -> str:
        return f"{self.vectors.shape[1]} of {len(self.vectors)} directions apart from the diagonal"

    def _white(self, flat, weights, sign: float):
        vectors = jnp.asarray(self.vectors, flat.dtype)
        factor = jnp.exp(sign * _blend(weights, self.log_deviations)) - 1
        return flat + vectors @ (factor * (flat @ vectors))

    def color(self, white, weights):
        """C z."""
        return jnp.exp(-_blend(weights, self.log_scale)) * self._white(white, weights, 1.0)

    def whiten(self, flat, weights):
        """C⁻¹ x."""
        return self._white(jnp.exp(_blend(weights, self.log_scale)) * flat, weights, -1.0)

    def log_det(self, weights):
        """log det C."""
        return jnp.sum(_blend(weights, self.log_deviations)) - jnp.sum(_blend(weights, self.log_scale))


def soft_directions(precision: sparse.csc_matrix) -> np.ndarray:
    """Orthonormal directions of smallest eigenvalue of D^(−½) H D^(−½), as columns."""
    scale = np.sqrt(precision.diagonal())
    inverse = sparse.diags(1 / scale)
    scaled = (inverse @ precision @ inverse).tocsc()
    number = min(NUM_DIRECTIONS, len(scale))
    if len(scale) <= MAX_DENSE:
        values, vectors = np.linalg.eigh(scaled.toarray())
    else:
        solve = LinearOperator(scaled.shape, matvec=factorized(scaled).solve, dtype=float)
        start = np.random.default_rng(0).normal(size=len(scale))
        values, vectors = eigsh(scaled, number, sigma=0.0, OPinv=solve, v0=start, tol=1e-4)
    return vectors[:, values < SOFT]


def factor_of(
    center: sparse.csc_matrix, nodes: Sequence[Sequence], at: np.ndarray
) -> tuple[np.ndarray, BlockFactor | LowRankFactor]:
    """A factor of H, and the order of variables in which it works: in blocks where they are small enough."""
    pattern = center.tocsr(copy=True)
    pattern.eliminate_zeros()
    order = np.asarray(reverse_cuthill_mckee(pattern, symmetric_mode=True), int)
    banded = center[order][:, order].tocsc()
    banded.eliminate_zeros()
    if BlockFactor.numbers(banded, len(nodes)) > MAX_NUMBERS:
        return np.arange(center.shape[0]), LowRankFactor.of(center, nodes, at)
    turned = [[matrix[order][:, order].tocsc() for matrix in values] for values in nodes]
    return order, BlockFactor.of(banded, turned, at)
