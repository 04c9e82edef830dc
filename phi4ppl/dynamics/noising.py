"""The forward process of a diffusion model: a field that turns into noise, by a law in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import ArgumentError
from ..errors.arguments import call_checked
from ..kernels.metrics import FreeField, spectrum
from ..lattice.frozen import Lattice
from .moves import Modes, decay, laplacian_modes, white_noise
from .process import Process, positive, process

__all__ = ["Noising"]


@call_checked
@process
class Noising(Process):
    """A field that turns into noise: dφ = −kφ dt + √(2N) dW, with exact steps of any size.

        φ(t) = e^(−kt) φ(0) + √(N (1 − e^(−2kt))/k) ξ.

    k > 0 is the Ornstein–Uhlenbeck process, whose noise ends with variance N/k; k = 0 is Brownian motion (the variance
    "explodes" as 2Nt). Cumulants of order n > 2 are conserved without drift and fall as e^(−nkt) with it (G. Aarts, D. E.
    Habibi, L. Wang and K. Zhou, arXiv:2410.21212).

    Parameters
    ----------
    lattice : Lattice
    rate : float
        k ≥ 0.
    noise : number or FreeField
        N > 0, or N = A/(k̂² + m²) on the modes of the Laplacian: with the two numbers of the field's own propagator, every
        mode is drowned at the same time, and a local action stays nearly local on the way.

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> from phi4ppl.dynamics import Noising, evolve
    >>> tree = evolve(Noising(p4.lattice.chain(4), rate=1.0), np.ones((500, 4)), time=1.0, step_size=1.0)
    >>> phi = tree["evolution"]["phi"].isel(time=-1)
    >>> bool(abs(float(phi.mean()) - np.exp(-1)) < 0.1), bool(abs(float(phi.var()) - (1 - np.exp(-2))) < 0.15)
    (True, True)
    """

    lattice: Lattice = field(metadata={"static": True})
    rate: Any = 1.0
    noise: Any = 1.0

    def __post_init__(self):
        if not isinstance(self.lattice, Lattice):
            raise ArgumentError("lattice", "a phi4ppl Lattice", type(self.lattice).__name__)
        rate = 0.0 if self.rate == 0 else positive("rate", self.rate, "0 is Brownian motion.")
        noise = self.noise
        if isinstance(noise, FreeField):
            noise = FreeField(positive("noise", noise.amplitude), positive("noise", noise.mass_squared))
            laplacian_modes(self.lattice)  # refuses large graphs without fast modes
        else:
            noise = positive("noise", noise)
        vars(self).update(rate=rate, noise=noise)

    @property
    def default_step_size(self) -> float:
        return 0.1

    @property
    def is_white(self) -> bool:
        return not isinstance(self.noise, FreeField)

    def strength(self) -> jax.Array:
        """N, a number or one per mode."""
        if self.is_white:
            return jnp.asarray(self.noise)
        return self.noise.variance(jnp.asarray(spectrum(self.lattice).laplacian))

    def shrunk(self, time) -> jax.Array:
        """e^(−kt), what is left of the field."""
        return jnp.exp(-self.rate * jnp.asarray(time))

    def variance(self, time) -> jax.Array:
        """N (1 − e^(−2kt))/k of the noise, a number or one per mode."""
        return 2 * decay(2 * jnp.asarray(self.rate), time) * self.strength()

    def apply(self, factor, phi: jax.Array) -> jax.Array:
        """A factor, a number or one per mode of the Laplacian, times a field."""
        factor = jnp.asarray(factor, phi.dtype)
        return factor * phi if factor.ndim == 0 else Modes(factor, None, self.lattice).apply(factor, phi)

    def log_determinant(self, factor) -> jax.Array:
        """Σ log over all modes."""
        factor = jnp.asarray(factor)
        if factor.ndim == 0:
            return self.lattice.num_sites * jnp.log(factor)
        return jnp.sum(jnp.asarray(spectrum(self.lattice).multiplicity) * jnp.log(factor))

    def noised(self, key, phi: jax.Array, time) -> jax.Array:
        """φ(t) of φ(0)."""
        return self.shrunk(time) * phi + self.apply(jnp.sqrt(self.variance(time)), white_noise(key, phi))

    def prepare(self, step_size) -> Callable:
        return lambda phi, key, time: self.noised(key, phi, step_size)
