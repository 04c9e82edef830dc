"""Gaussian moves of a field along its force, the one kind of step behind Langevin dynamics, driven fields and diffusion models.

A move is φ′ = φ − B f(φ) + √V ξ with white noise ξ: B and V are functions of the eigenmodes of a lattice, or numbers. Its
density is known, so that what it does to a distribution can be corrected exactly: by accept/reject, or by weights along a
path.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..energy.exact import gaussian_precision
from ..energy.functions import energy
from ..errors import ArgumentError
from ..kernels.metrics import MAX_DENSE_SITES, spectrum
from ..kernels.noise import normal, random_words
from ..lattice.frozen import Lattice
from ..model.field import MarkovRandomField
from ..model.pytree import rebuilt, register_checked

__all__ = ["Modes", "Move", "decay", "free_modes", "laplacian_modes", "pathwise", "white_noise"]


class Move(NamedTuple):
    """φ′ = φ − B f + √V ξ; ``apply(factor, phi)`` multiplies the modes of a field."""

    drag: jax.Array  # B
    spread: jax.Array  # V
    apply: Callable[[jax.Array, jax.Array], jax.Array] = jnp.multiply

    def mean(self, phi: jax.Array, force: jax.Array) -> jax.Array:
        """φ − B f."""
        return phi - self.apply(self.drag, force)

    def scatter(self, noise: jax.Array) -> jax.Array:
        """√V ξ."""
        return self.apply(jnp.sqrt(self.spread), noise)

    def noise_back(self, noise: jax.Array, force: jax.Array, new_force: jax.Array) -> jax.Array:
        """The noise ξ̃ that would take φ′ back to φ: −ξ + V^(−½) B (f(φ) + f(φ′))."""
        return self.apply(self.drag / jnp.sqrt(self.spread), force + new_force) - noise


def pathwise(noise: jax.Array, back: jax.Array) -> jax.Array:
    """ln T(φ → φ′) − ln T(φ′ → φ) = ½ Σ (ξ̃² − ξ²) of a `Move`: differences first, so that large fields lose nothing."""
    return jnp.sum((back - noise) * (back + noise)) / 2


@register_checked
@dataclass(frozen=True)
class Modes:
    """The eigenmodes of an operator that is symmetric on a lattice, with its eigenvalues ω.

    Attributes
    ----------
    frequencies : array
        ω of every mode, in the order of the coefficients.
    vectors : array of shape (num_sites, num_sites), or None
        Eigenvectors as columns; None for those of the lattice's Laplacian.
    lattice : Lattice
    """

    frequencies: jax.Array
    vectors: jax.Array | None
    lattice: Lattice = field(metadata={"static": True})

    def apply(self, factor: jax.Array, phi: jax.Array) -> jax.Array:
        """The modes of a field, each multiplied by its factor."""
        if self.vectors is None:
            return spectrum(self.lattice).apply(jnp.asarray(factor), phi)
        vectors = jnp.asarray(self.vectors, phi.dtype)
        return (vectors @ (factor.astype(phi.dtype) * (vectors.T @ phi.reshape(-1)))).reshape(phi.shape)


def laplacian_modes(lattice: Lattice) -> Modes:
    """Modes of the Laplacian of a lattice, with its eigenvalues k̂²."""
    return Modes(jnp.asarray(spectrum(lattice).laplacian), None, lattice)


def free_modes(model: MarkovRandomField) -> Modes:
    """Modes of the Gaussian part ½ φᵀKφ of a model, with the eigenvalues of K: of Fourier where K allows, else dense.

    Raises
    ------
    ArgumentError
        Where K is not diagonal in Fourier space and has more than 2048 sites.
    """
    part = model.select(lambda form: form.is_gaussian and form.power != 1)
    lattice = model.lattice
    if lattice.offsets is not None and all(lattice.periodic):
        basis = spectrum(lattice)
        force = jax.grad(lambda phi: energy(part, phi)) if part.forms else jnp.zeros_like
        origin = jnp.zeros(lattice.field_shape).at[(0,) * len(lattice.field_shape)].set(1.0)
        values = np.asarray((basis.forward(force(origin)) / basis.forward(origin)).real)
        probe = jax.random.normal(jax.random.key(0), lattice.field_shape)
        found, wanted = np.asarray(basis.apply(jnp.asarray(values), probe)), np.asarray(force(probe))
        if np.allclose(found, wanted, rtol=1e-4, atol=1e-4 * (1 + np.abs(wanted).max())):
            return Modes(jnp.asarray(values), None, lattice)
    if lattice.num_sites > MAX_DENSE_SITES:
        raise ArgumentError(
            "step", "'euler', 'heun' or 'mala' for this model", "'exponential'",
            "Its Gaussian part is not diagonal in Fourier space (open lattice, or couplings that differ from clique to "
            f"clique), and eigenvectors are computed up to {MAX_DENSE_SITES} sites.", reason="too_large",
        )  # fmt: skip
    values, vectors = np.linalg.eigh(np.asarray(gaussian_precision(part), float))
    return rebuilt(Modes, frequencies=values, vectors=vectors, lattice=lattice)


def decay(frequency, time) -> jax.Array:
    """(1 − e^(−ωt))/ω, which is t at ω = 0; negative ω grow."""
    rate = jnp.asarray(frequency)
    small = jnp.abs(rate * time) < 1e-6
    return jnp.where(small, time * (1 - rate * time / 2), -jnp.expm1(-rate * time) / jnp.where(small, 1.0, rate))


def white_noise(key: jax.Array, like: jax.Array) -> jax.Array:
    """Independent standard normal numbers, one per site."""
    first, second = random_words(key, 2, like.shape)
    return normal(first, second, like.dtype)
