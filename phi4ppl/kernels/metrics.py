"""Mass matrices in the eigenbasis of the lattice Laplacian, and by a factor, as BlackJAX metrics.

A free field has covariance A/(k̂² + m²) on the modes of the Laplacian (eigenvalues k̂²). Taken as the inverse mass matrix, it
lets long and short waves move at the same pace (G. G. Batrouni et al., Phys. Rev. D 32 (1985) 2736). Any A, m² > 0 leave the
sampled distribution as it is; good ones are measured in warm-up.

BlackJAX is imported where it is used: its import creates JAX arrays, which importing this package must not do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from .._typing import Field, JaxField
from ..errors import ArgumentError
from ..lattice.frozen import Lattice

if TYPE_CHECKING:
    from blackjax.mcmc.metrics import Metric

__all__ = ["Factor", "Factored", "FreeField", "Spectrum", "fit_free_field", "metric_of", "spectrum"]

MAX_DENSE_SITES = 2048  # graphs without a fast transform: eigenvectors of the Laplacian as a dense matrix


class FreeField(NamedTuple):
    """Covariance ``amplitude / (k̂² + mass_squared)`` of every mode: an inverse mass matrix of two numbers."""

    amplitude: jax.Array
    mass_squared: jax.Array

    def variance(self, laplacian):
        return self.amplitude / (laplacian + self.mass_squared)


class Factor(Protocol):
    """The maps of a factor C of a covariance C Cᵀ between flat positions x = C y and white coordinates y."""

    def whiten(self, flat): ...  # C⁻¹ x

    def color(self, white): ...  # C y

    def pull(self, slope): ...  # Cᵀ times a gradient in x: the gradient in y

    def push(self, slope): ...  # C⁻ᵀ times a gradient in y


class Factored(NamedTuple):
    """The inverse mass matrix C Cᵀ, by a factor C that is a pytree."""

    factor: Any


@dataclass(frozen=True)
class Spectrum:
    """An orthonormal eigenbasis of the Laplacian of a lattice.

    Attributes
    ----------
    shape : tuple
        Of a field.
    laplacian : array
        Eigenvalue k̂² of every coefficient.
    multiplicity : array
        How many modes a coefficient stands for (2 for most of a real Fourier transform).
    forward, backward : callable
        Field to coefficients, and back.
    """

    shape: tuple[int, ...]
    laplacian: np.ndarray
    multiplicity: np.ndarray
    forward: Callable[[Any], jax.Array]
    backward: Callable[[jax.Array], jax.Array]

    def apply(self, factor: jax.Array, phi: Field) -> JaxField:
        """f(Laplacian) φ, with the values of f on the spectrum."""
        modes = factor.astype(phi.dtype) * self.forward(phi.reshape(self.shape))
        return self.backward(modes).reshape(phi.shape)  # NUTS hands over flat momenta


@functools.lru_cache(maxsize=16)
def spectrum(lattice: Lattice) -> Spectrum:
    """Eigenbasis of the Laplacian: Fourier on periodic axes, cosines on open ones, eigenvectors on any other graph.

    On open lattices with diagonal edges the Laplacian of the edges along the axes is used.

    Raises
    ------
    ArgumentError
        If the graph is none of the regular lattices and has more than 2048 sites.
    """
    if lattice.offsets is None:
        return _dense_spectrum(lattice)
    periodic = [axis for axis, p in enumerate(lattice.periodic) if p]
    shape, opened = lattice.shape, [axis for axis in range(len(lattice.shape)) if axis not in periodic]
    angles = []
    for axis, n in enumerate(shape):
        modes = n // 2 + 1 if periodic and axis == periodic[-1] else n
        angle = (2 * np.pi if axis in periodic else np.pi) * np.arange(modes) / n
        angles.append(angle.reshape([-1 if a == axis else 1 for a in range(len(shape))]))
    laplacian = np.zeros(np.broadcast_shapes(*(a.shape for a in angles)))
    for offsets in lattice.offsets.values():
        for offset in offsets:
            if opened and np.count_nonzero(offset) > 1:
                continue
            laplacian += 2 - 2 * np.cos(sum(d * a for d, a in zip(offset, angles, strict=True)))
    multiplicity = np.ones_like(laplacian)
    if periodic:
        n = shape[periodic[-1]]
        inner = np.arange(n // 2 + 1)
        twice = np.where((inner > 0) & (2 * inner != n), 2.0, 1.0)
        multiplicity = multiplicity * twice.reshape([-1 if a == periodic[-1] else 1 for a in range(len(shape))])

    def forward(phi):
        for axis in opened:
            phi = jax.scipy.fft.dct(phi, axis=axis, norm="ortho")
        return jnp.fft.rfftn(phi, axes=periodic, norm="ortho") if periodic else phi

    def backward(modes):
        if periodic:
            modes = jnp.fft.irfftn(modes, s=[shape[axis] for axis in periodic], axes=periodic, norm="ortho")
        for axis in opened:
            modes = jax.scipy.fft.idct(modes, axis=axis, norm="ortho")
        return modes

    return Spectrum(shape, laplacian, multiplicity, forward, backward)


def _dense_spectrum(lattice: Lattice) -> Spectrum:
    if lattice.num_sites > MAX_DENSE_SITES:
        raise ArgumentError(
            "kernel", f"a mass matrix that suits a graph of more than {MAX_DENSE_SITES} sites", "a Fourier mass",
            "Eigenvectors of such a large Laplacian would be slow; use the kernel of the same name without _fourier.",
         reason="mass_matrix")  # fmt: skip
    adjacency = np.zeros((lattice.num_sites, lattice.num_sites))
    adjacency[lattice.edges[:, 0], lattice.edges[:, 1]] = 1
    adjacency += adjacency.T
    values, vectors = np.linalg.eigh(np.diag(adjacency.sum(0)) - adjacency)
    values = np.clip(values, 0, None)
    shape = lattice.field_shape

    def forward(phi):
        return jnp.asarray(vectors.T, phi.dtype) @ phi.reshape(-1)

    def backward(modes):
        return (jnp.asarray(vectors, modes.dtype) @ modes).reshape(shape)

    return Spectrum(shape, values, np.ones_like(values), forward, backward)


def fit_free_field(basis: Spectrum, variance, previous: FreeField) -> FreeField:
    """The free field nearest to the measured variance G of every mode: least squares of G·(k̂² + m²)/A against 1.

    Kept within bounds where the data carry no information (m² between a quarter of the smallest k̂² > 0 and a hundred times the
    largest); ``previous`` where they are not finite.
    """
    laplacian, weight = jnp.asarray(basis.laplacian, variance.dtype), jnp.asarray(basis.multiplicity, variance.dtype)
    first, second = variance * laplacian, variance
    gram = [jnp.sum(weight * x * y) for x, y in ((first, first), (first, second), (second, second))]
    right = [jnp.sum(weight * x) for x in (first, second)]
    determinant = gram[0] * gram[2] - gram[1] ** 2
    slope = (gram[2] * right[0] - gram[1] * right[1]) / determinant  # 1/A
    offset = (gram[0] * right[1] - gram[1] * right[0]) / determinant  # m²/A
    largest = float(basis.laplacian.max()) or 1.0
    smallest = float(basis.laplacian[basis.laplacian > 1e-9].min()) if np.any(basis.laplacian > 1e-9) else 1.0
    plain = right[1] / gram[2]  # 1/G if all modes had the same variance
    slope = jnp.maximum(slope, plain / (100 * largest))
    offset = jnp.maximum(offset, slope * smallest / 4)
    fitted = FreeField(1 / slope, jnp.minimum(offset / slope, 100 * largest))
    good = jnp.all(jnp.isfinite(jnp.stack(fitted))) & (determinant > 0) & (slope > 0)
    return jax.tree.map(lambda new, old: jnp.where(good, new, old).astype(old.dtype), fitted, previous)


def metric_of(inverse_mass_matrix, lattice: Lattice | None) -> Metric:
    """BlackJAX's metric of a diagonal inverse mass matrix, of a `FreeField` on ``lattice``, or of a `Factored` one."""
    from blackjax.mcmc.metrics import default_metric

    if isinstance(inverse_mass_matrix, FreeField):
        return _free_field_metric(inverse_mass_matrix, spectrum(lattice))
    return (
        _factored_metric(inverse_mass_matrix.factor)
        if isinstance(inverse_mass_matrix, Factored)
        else default_metric(inverse_mass_matrix)
    )


def _free_field_metric(free: FreeField, basis: Spectrum) -> Metric:
    variance = free.variance(jnp.asarray(basis.laplacian))

    def velocity(momentum):
        return basis.apply(variance, momentum)

    def scale(position, element, *, inv, trans):
        return basis.apply(jnp.sqrt(variance) if inv else variance**-0.5, element)

    return _metric(velocity, scale)


def _factored_metric(of: Factor) -> Metric:
    def velocity(momentum):
        flat, unravel = ravel_pytree(momentum)
        return unravel(of.color(of.pull(flat)))

    def scale(position, element, *, inv, trans):
        flat, unravel = ravel_pytree(element)
        if inv:
            return unravel(of.pull(flat) if trans else of.color(flat))
        return unravel(of.push(flat) if trans else of.whiten(flat))

    return _metric(velocity, scale)


def _metric(velocity: Callable, scale: Callable) -> Metric:
    """BlackJAX's metric of an inverse mass matrix M⁻¹ = C Cᵀ: velocities M⁻¹p, and C⁻¹, C and their transposes as ``scale``."""
    from blackjax.mcmc.metrics import Metric
    from blackjax.util import generate_gaussian_noise

    def sample_momentum(key, position):
        return scale(position, generate_gaussian_noise(key, position), inv=False, trans=True)

    def kinetic_energy(momentum, position=None):
        return _quadratic(momentum) / 2

    @jax.custom_jvp
    def _quadratic(momentum):
        return _dot(momentum, velocity(momentum))

    @_quadratic.defjvp
    def _quadratic_jvp(primals, tangents):  # one transform for value and gradient: the operator is symmetric
        moved = velocity(primals[0])
        return _dot(primals[0], moved), 2 * _dot(moved, tangents[0])

    def check_turning(left, right, total, position_left=None, position_right=None):
        along = velocity(jax.tree.map(lambda t, a, b: t - (a + b) / 2, total, left, right))
        return (_dot(left, along) <= 0) | (_dot(right, along) <= 0)

    return Metric(sample_momentum, kinetic_energy, check_turning, scale)


def _dot(one, two):
    return sum(jnp.sum(a * b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True))
