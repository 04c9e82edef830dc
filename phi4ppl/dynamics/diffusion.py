"""Diffusion on lattices and graphs, by steps that are exact for any length."""

from __future__ import annotations

from dataclasses import field
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import finite_array
from ..lattice.frozen import Lattice
from .laplacian import exponential, largest_eigenvalue
from .process import CLOSE, Process, Step, positive, process

__all__ = ["Diffusion"]


@process
class Diffusion(Process):
    """dφ/dt = −rate · Lφ with the graph Laplacian (Lφ)_i = Σ_{j ~ i} (φ_i − φ_j); or a stencil, applied once a unit of time.

    A step of any length h is the exact solution exp(−rate h L) φ: by Fourier or cosine transforms on regular lattices, and by a
    Chebyshev series in L on any other graph. The sum Σ φ_i is conserved.

    Parameters
    ----------
    lattice : Lattice
    rate : float, default 1.0
        With sites a distance a apart, the diffusion coefficient is rate · a².
    stencil : array, optional
        In place of the Laplacian, on a lattice that is periodic in all directions: weights of the neighbors of a site, with the
        site itself in the middle (odd sides). With weights that add up to 1 they are a map, the field at t + 1/rate of that at
        t; with a sum of 0 they are a generator, dφ/dt = rate · (stencil ∗ φ).

    Raises
    ------
    ArgumentError
        If the weights add up to neither, so that the sum would not be conserved, or make a mode grow.

    Notes
    -----
    In Fourier space the map multiplies mode k by its symbol σ(k) = Σ_d stencil_d cos(k·d) (if symmetric) in a unit of
    time. A mode with σ(k) < 0 changes sign from one application to the next, and has no value between them: then steps
    are whole multiples of 1/rate.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> kernel = np.array([[0.05, 0.1, 0.05], [0.1, 0.4, 0.1], [0.05, 0.1, 0.05]])
    >>> start = np.zeros((50, 50))
    >>> start[25, 25] = 1
    >>> process = p4.dynamics.Diffusion(p4.lattice.square(50), stencil=kernel)
    >>> tree = p4.dynamics.evolve(process, start, time=10, every=1)
    >>> tree["evolution"]["phi"].max(("x", "y")).values[0, [1, 6, 10]].round(6)
    array([0.4     , 0.066137, 0.03963 ], dtype=float32)
    """

    lattice: Lattice = field(metadata={"static": True})
    rate: Any = 1.0
    stencil: Any = None

    def __post_init__(self):
        if not isinstance(self.lattice, Lattice):
            raise ArgumentError("lattice", "a Lattice", repr(self.lattice)[:80], "See phi4ppl.lattice.")
        object.__setattr__(self, "rate", positive("rate", self.rate))
        if self.stencil is not None:
            object.__setattr__(self, "stencil", _checked(self.lattice, self.stencil))

    @property
    def default_step_size(self) -> float:
        if self.stencil is not None:
            return 1 / float(self.rate)
        largest = largest_eigenvalue(self.lattice)
        return 1 / (float(self.rate) * largest) if largest else 1.0

    def require_step(self, step_size: float) -> None:
        if self.stencil is None or np.sum(self.stencil) < 0.5:
            return
        steps = step_size * float(self.rate)
        symbol = np.fft.fftn(np.asarray(_centered(self.stencil, self.lattice.field_shape, jnp.zeros), float))
        cut = (symbol.real <= 0) & (np.abs(symbol.imag) < CLOSE)  # where the logarithm jumps, or does not exist
        if cut.any() and abs(steps - round(steps)) > CLOSE:
            fix = f"The stencil has a symbol of {symbol.real.min():.3g}: a mode changes sign, and has no value in between."
            raise ArgumentError("step_size", "a multiple of 1/rate", f"{step_size:g}", fix, reason="multiple")

    def prepare(self, step_size) -> Step:
        time = self.rate * step_size
        if self.stencil is None:
            step = exponential(self.lattice, time)
            return lambda phi, key, time: step(phi)
        shape, axes = self.lattice.field_shape, tuple(range(len(self.lattice.field_shape)))
        symbol = jnp.fft.rfftn(_centered(self.stencil, shape, jnp.zeros))
        total = jnp.sum(jnp.asarray(self.stencil))
        # 0 ** time is 0, and exp(log(symbol) time) would not be
        power = jnp.where(jnp.abs(symbol) > 0, jnp.exp(time * jnp.log(jnp.where(symbol == 0, 1, symbol))), 0)
        factor = jnp.where(total > 0.5, power, jnp.exp(time * symbol))
        return lambda phi, key, time: jnp.fft.irfftn(factor * jnp.fft.rfftn(phi), s=shape, axes=axes).astype(phi.dtype)


def _centered(stencil, shape, zeros):
    """The stencil as a field with its middle at the origin, so that products of transforms are sums over neighbors."""
    stencil = jnp.asarray(stencil)
    at = np.indices(stencil.shape).reshape(stencil.ndim, -1)
    at = -(at - np.array(stencil.shape)[:, None] // 2)  # a site sees φ(x + d) with the weight of d
    return zeros(shape, stencil.dtype).at[tuple(at % np.array(shape)[:, None])].add(stencil.reshape(-1))


def _checked(lattice: Lattice, stencil) -> np.ndarray:
    weights = finite_array("stencil", stencil)
    if lattice.shape is None or not all(lattice.periodic):
        fix = "Use the graph Laplacian (leave stencil out), or a periodic lattice."
        raise ArgumentError(
            "stencil", "None on a lattice that is not periodic in all directions", "an array", fix, "open"
        )
    if weights.ndim != len(lattice.shape) or any(n % 2 == 0 for n in weights.shape):
        expected = f"{len(lattice.shape)} axes of odd length"
        raise ArgumentError("stencil", expected, f"shape {weights.shape}", "Its middle is the site.", reason="shape")
    total = weights.sum()
    symbol = np.fft.fftn(np.asarray(_centered(weights, lattice.shape, jnp.zeros), float))
    if min(abs(total), abs(total - 1)) > CLOSE:
        fix = "Divide it by its sum for a map of unit time, or subtract the sum in the middle for a generator."
        raise ArgumentError("stencil", "weights that add up to 1 or to 0", f"a sum of {total:.6g}", fix, reason="sum")
    growth = np.abs(symbol).max() - 1 if total > 0.5 else symbol.real.max()
    if growth > 1e-5:
        fix = "A mode would grow without bound."
        raise ArgumentError(
            "stencil", "weights under which no mode grows", f"{growth:.3g} too much", fix, reason="grows"
        )
    weights.setflags(write=False)
    return weights
