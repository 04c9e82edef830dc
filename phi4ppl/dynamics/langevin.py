"""Langevin dynamics of a model: stochastic quantization, dφ = −∂S/∂φ dt + √2 dW, whose stationary density is exp(−S)/Z."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..energy.functions import energy, energy_change
from ..errors import ArgumentError
from ..errors.arguments import call_checked, one_of
from ..kernels.metrics import FreeField
from ..lattice.frozen import Lattice
from ..model.field import MarkovRandomField
from .moves import Modes, Move, decay, free_modes, laplacian_modes, pathwise, white_noise
from .process import Process, positive, process
from .stiffness import largest_frequency

__all__ = ["Langevin", "LangevinState", "STEPS", "free_variance"]

STEPS = ("euler", "heun", "exponential", "mala")


class LangevinState(NamedTuple):
    """A field with what the next step needs of it."""

    field: jax.Array
    energy: jax.Array
    force: jax.Array  # ∂S/∂φ
    acceptance: jax.Array  # probability with which the last step was accepted; 1 without accept/reject


@call_checked
@process
class Langevin(Process):
    """Langevin dynamics of a model (G. Parisi and Y. Wu, Sci. Sin. 24 (1981) 483).

        dφ = −M ∂S/∂φ dt + √(2M) dW,        M = 1, or Fourier acceleration

    has the stationary density exp(−S)/Z for every M. A step of size ε is one of

    * ``"euler"``: φ′ = φ − εf + √(2ε) ξ, f = ∂S/∂φ. Averages are off by O(ε); of a free mode of frequency ω the variance is
      1/(ω(1 − εω/2)), and ε < 2/ω_max is stable. One force per step.
    * ``"heun"``: f is averaged over the beginning and the end of an Euler step. O(ε²): (2 − x)/(ω(2 − x + x²/2)), x = εω.
      Two forces.
    * ``"exponential"``: the Gaussian part of S exactly, the rest as in ``"euler"``,
      φ′ = φ − (1 − e^(−ωε))/ω f + √((1 − e^(−2ωε))/ω) ξ for every mode. No error at all for a free field; O(ε) of the other
      terms.
    * ``"mala"``: an Euler step that is accepted or rejected (Metropolis). Exact at every ε; a rejected step stays where it is.

    Parameters
    ----------
    model : MarkovRandomField
    step : str
    acceleration : number or FreeField, optional
        M(k) = A/(k̂² + m²) on the eigenmodes of the Laplacian (G. G. Batrouni et al., Phys. Rev. D 32 (1985) 2736), the mass
        matrix of the kernels with ``_fourier``. A number is m², and A is then m² + max k̂², so that the fastest mode keeps
        its pace and slow ones catch up.

    Raises
    ------
    ArgumentError
        For an unknown step, a mass that is not positive, or a step or acceleration that the lattice has no modes for.

    Notes
    -----
    `extrapolate` takes averages to ε = 0 and states their error. `evolve` records ``energy`` and, for ``"mala"``,
    ``acceptance_rate``.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> from phi4ppl.dynamics import Langevin
    >>> free = p4.gaussian(p4.lattice.square(8), w=1.0, a=2.25)
    >>> Langevin(free).max_step_size  # 2/ω_max, ω_max = 8.5
    0.235294
    """

    model: MarkovRandomField
    step: str = field(default="euler", metadata={"static": True})  # type: ignore[assignment]
    acceleration: Any = None
    _modes: Modes | None = field(default=None, repr=False)

    def __post_init__(self):
        if not isinstance(self.model, MarkovRandomField):
            raise ArgumentError("model", "a MarkovRandomField", type(self.model).__name__)
        one_of("step", self.step, STEPS)
        modes = free_modes(self.model) if self.step == "exponential" else None
        mobility = None if self.acceleration is None else _mobility(self.acceleration, self.model.lattice)
        if mobility is not None and modes is not None and modes.vectors is not None:
            fix = (
                "Leave one of them out: the Gaussian part of this model is not diagonal in the modes of the Laplacian."
            )
            raise ArgumentError("acceleration", "None with step='exponential'", repr(self.acceleration), fix)
        if mobility is not None and modes is None:
            modes = laplacian_modes(self.model.lattice)
        vars(self).update(acceleration=mobility, _modes=modes)

    @property
    def lattice(self) -> Lattice:  # type: ignore[override]
        return self.model.lattice

    @property
    def is_exact(self) -> bool:
        """Whether every step leaves exp(−S)/Z as it is, whatever its size."""
        return self.step == "mala"

    @property
    def max_step_size(self) -> float | None:
        if self.step in ("mala", "exponential"):
            return None
        return 2 / self._fastest

    @property
    def default_step_size(self) -> float:
        return 0.5 / self._fastest

    @property
    def _fastest(self) -> float:
        if self.step == "exponential":
            return largest_frequency(self.model)
        return largest_frequency(self.model, self.acceleration)

    def force_of(self, phi: jax.Array, model: MarkovRandomField | None = None) -> tuple[jax.Array, jax.Array]:
        """S and ∂S/∂φ, of ``model`` in place of the process's own if there is one."""
        model = self.model if model is None else model
        return jax.value_and_grad(lambda p: energy(model, p))(phi)

    def start(self, field, key) -> LangevinState:
        value, force = self.force_of(field)
        return LangevinState(field, value, force, jnp.ones((), field.dtype))

    def move(self, step_size) -> Move:
        """The Gaussian step of this size; that of ``"heun"`` is made with the averaged force."""
        if self._modes is None:
            return Move(jnp.asarray(step_size), 2 * jnp.asarray(step_size))
        mobility = 1.0 if self.acceleration is None else self.acceleration.variance(laplacian_of(self.lattice))
        if self.step != "exponential":
            return Move(step_size * mobility, 2 * step_size * mobility, self._modes.apply)
        omega = jnp.asarray(self._modes.frequencies)
        time = step_size * mobility
        return Move(decay(omega, time), 2 * decay(2 * omega, time), self._modes.apply)

    def prepare(self, step_size) -> Callable:
        move = self.move(step_size)

        def advance(state, key, time):
            return self.advance(state, key, move)[0]

        return advance

    def advance(self, state: LangevinState, key, move: Move, model=None) -> tuple[LangevinState, jax.Array]:
        """One step, and ln T(φ → φ′) − ln T(φ′ → φ) of a step that is neither ``"heun"`` nor ``"mala"`` (else 0)."""
        noise_key, accept_key = jax.random.split(key)
        noise = white_noise(noise_key, state.field)
        kick = move.scatter(noise)
        phi = move.mean(state.field, state.force) + kick
        zero = jnp.zeros((), phi.dtype)
        if self.step == "heun":
            _, force = self.force_of(phi, model)
            phi = move.mean(state.field, (state.force + force) / 2) + kick
        value, force = self.force_of(phi, model)
        new = LangevinState(phi, value, force, jnp.ones_like(state.acceptance))
        if self.step == "heun":
            return new, zero
        ratio = pathwise(noise, move.noise_back(noise, state.force, force))
        if self.step != "mala":
            return new, ratio
        change = energy_change(self.model if model is None else model, phi, state.field)
        return _accepted(accept_key, -change - ratio, state, new), zero

    def observe(self, state):
        return state.field

    def measured(self, state):
        found = {"energy": state.energy}
        return found | {"acceptance_rate": state.acceptance} if self.step == "mala" else found


def _accepted(key, log_ratio, old: LangevinState, new: LangevinState) -> LangevinState:
    """The new state with probability min(1, e^(log_ratio)), else the old one; nan is rejected."""
    probability = jnp.exp(jnp.minimum(jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio), 0))
    accept = jax.random.uniform(key, (), probability.dtype) < probability
    kept = jax.tree.map(lambda a, b: jnp.where(accept, a, b), new, old)
    return kept._replace(acceptance=probability)


def _mobility(given, lattice: Lattice) -> FreeField:
    if isinstance(given, FreeField):
        positive("acceleration", given.amplitude)
        positive("acceleration", given.mass_squared)
        return given
    mass_squared = positive("acceleration", given, "It is m² of M(k) = (m² + max k̂²)/(k̂² + m²).")
    return FreeField(mass_squared + float(np.max(laplacian_modes(lattice).frequencies)), mass_squared)


def laplacian_of(lattice: Lattice) -> jax.Array:
    """Eigenvalues k̂² of the Laplacian of a lattice, in the order of its modes."""
    return jnp.asarray(laplacian_modes(lattice).frequencies)


def free_variance(frequency, step_size, step: str = "euler") -> float | np.ndarray:
    """The variance that a step of Langevin dynamics gives to a free mode, S = ½ ωφ², in place of 1/ω.

    Parameters
    ----------
    frequency : number or array
        ω > 0.
    step_size : float
        ε, below 2/ω.
    step : str
        ``"euler"``: 1/(ω(1 − x/2)) with x = εω; ``"heun"``: (2 − x)/(ω(2 − x + x²/2)); ``"exponential"`` and ``"mala"``: 1/ω.

    Examples
    --------
    >>> from phi4ppl.dynamics import free_variance
    >>> float(free_variance(2.0, 0.1)), float(free_variance(2.0, 0.1, "heun")), float(free_variance(2.0, 0.1, "mala"))
    (0.555556, 0.494505, 0.5)
    """
    omega, x = np.asarray(frequency, float), np.asarray(frequency, float) * step_size
    one_of("step", step, STEPS)
    if not np.all((x > 0) & ((x < 2) | (step not in ("euler", "heun")))):
        raise ArgumentError("step_size", "ω > 0 and ε below 2/ω", repr(step_size), reason="unstable")
    factor = {"euler": 1 / (1 - x / 2) if step == "euler" else 1.0, "heun": (2 - x) / (2 - x + x**2 / 2)}
    return factor.get(step, 1.0) / omega
