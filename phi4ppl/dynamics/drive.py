"""Relaxation to a target pattern, smoothed on the way; fixed point and mean are closed forms."""

from __future__ import annotations

import math
from dataclasses import field as field_of
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy.sparse.linalg import cg

from ..errors import ArgumentError
from ..errors.arguments import one_of
from ..kernels.metrics import spectrum
from ..lattice.frozen import Lattice
from ..lattice.labels import aligned_fields
from .laplacian import exponential, has_fast_modes, laplacian, largest_eigenvalue
from .process import Process, Step, positive, process

__all__ = ["DriveTo"]


@process
class DriveTo(Process):
    """dφ/dt = α (target − φ) − β Lφ, with the graph Laplacian L.

    The fixed point is φ* = (α + βL)⁻¹ α · target, a low-pass filter of the target of length (β/α)^½; the mean obeys
    m(t) = t̄ + (m₀ − t̄) e^(−αt), whatever β.

    Parameters
    ----------
    lattice : Lattice
    target : array
        One value a site, or labeled.
    strength : float, default 1.0
        α.
    smoothing : float, default 0.0
        β.
    step_kind : str, default "exact"
        ``"exact"``: φ* + exp(−(α + βL)h) (φ − φ*), right for any step h. ``"euler"``: φ + h (α (target − φ) − βLφ), whose mean
        after n steps is t̄ + (m₀ − t̄)(1 − αh)ⁿ and whose fixed point is the same; stable for h < 2/(α + β λ_max).

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> x, y = np.indices((30, 30)) - 15
    >>> disc = 0.8 * (x**2 + y**2 < 7**2)
    >>> square = p4.lattice.square(30)
    >>> process = p4.dynamics.DriveTo(square, disc, strength=0.1, smoothing=0.01, step_kind="euler")
    >>> tree = p4.dynamics.evolve(process, np.zeros((30, 30)), time=100, step_size=1, every=10)
    >>> mean = tree["evolution"]["magnetization"].values[0]
    >>> bool(np.allclose(mean, disc.mean() * (1 - 0.9 ** np.arange(0, 101, 10)), atol=1e-6))
    True
    """

    lattice: Lattice = field_of(metadata={"static": True})
    target: Any
    strength: Any = 1.0
    smoothing: Any = 0.0
    step_kind: str = field_of(default="exact", metadata={"static": True})

    def __post_init__(self):
        if not isinstance(self.lattice, Lattice):
            raise ArgumentError("lattice", "a Lattice", repr(self.lattice)[:80], "See phi4ppl.lattice.")
        target = aligned_fields("target", self.target, self.lattice)
        if target.shape != self.lattice.field_shape:
            expected = f"one field of shape {self.lattice.field_shape}"
            raise ArgumentError("target", expected, f"shape {target.shape}", reason="shape")
        smoothing = float(self.smoothing)
        if not (smoothing >= 0 and math.isfinite(smoothing)):
            raise ArgumentError("smoothing", "a finite number of at least 0", repr(self.smoothing))
        one_of("step_kind", self.step_kind, ("exact", "euler"))
        for name, value in (
            ("target", target),
            ("strength", positive("strength", self.strength)),
            ("smoothing", smoothing),
        ):
            object.__setattr__(self, name, value)

    @property
    def max_step_size(self) -> float | None:
        if self.step_kind == "exact":
            return None
        return 2 / (float(self.strength) + float(self.smoothing) * largest_eigenvalue(self.lattice))

    @property
    def default_step_size(self) -> float:
        return 0.1 / float(self.strength) if self.step_kind == "exact" else super().default_step_size

    def fixed_point(self):
        """(α + βL)⁻¹ α · target."""
        target = jnp.asarray(self.target, jnp.result_type(float))
        if has_fast_modes(self.lattice):
            basis = spectrum(self.lattice)
            return basis.apply(self.strength / (self.strength + self.smoothing * jnp.asarray(basis.laplacian)), target)
        apply = laplacian(self.lattice)
        return cg(lambda phi: self.strength * phi + self.smoothing * apply(phi), self.strength * target, tol=1e-7)[0]

    def mean_at(self, time, start_mean: float = 0.0) -> np.ndarray:
        """The mean of the field at a time, or at an array of times, for ``step_kind="exact"``."""
        target = float(np.mean(self.target))
        return target + (start_mean - target) * np.exp(-float(self.strength) * np.asarray(time))

    def prepare(self, step_size) -> Step:
        target = jnp.asarray(self.target)
        if self.step_kind == "euler":
            apply = laplacian(self.lattice)
            return lambda phi, key, time: (
                phi + step_size * (self.strength * (target.astype(phi.dtype) - phi) - self.smoothing * apply(phi))
            )
        fixed, spread = self.fixed_point(), exponential(self.lattice, self.smoothing * step_size)
        left = jnp.exp(-self.strength * step_size)
        return lambda phi, key, time: fixed.astype(phi.dtype) + left * spread(phi - fixed.astype(phi.dtype))
