"""Waves: Hamilton's equations of a model, by a reversible step whose energy error is of second order."""

from __future__ import annotations

import math
from dataclasses import field as field_of
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..energy.functions import energy
from ..errors import ArgumentError, EvolutionError
from ..errors.arguments import finite_array
from ..lattice.frozen import Lattice
from ..model.field import MarkovRandomField
from .process import Process, Step, process
from .stiffness import largest_frequency

__all__ = ["Hamiltonian", "WaveState"]

MAX_ERROR = 0.2  # of |H| and the kinetic energy, past which a run is refused


class WaveState(NamedTuple):
    """Field, momentum, and the force at the field."""

    field: jax.Array
    momentum: jax.Array
    force: jax.Array  # ∂S/∂φ
    potential: jax.Array  # S
    first_energy: jax.Array  # H at time 0


@process
class Hamiltonian(Process):
    """dφ/dt = π, dπ/dt = −∂S/∂φ: the lattice Klein–Gordon equation with φ⁴, φ″ = −∂S/∂φ, conserves H = ½ Σ π² + S.

    Leapfrog steps (one force each) are reversible and conserve the volume of phase space; the error of H is O(ε²) and does not
    grow. Stable for ε < 2/√ω_max with ω_max the largest eigenvalue of ∂²S/∂φ∂φ; larger steps are refused.

    Parameters
    ----------
    model : MarkovRandomField
    momentum : array or number, default 0
        π at time 0, one value a site.
    temperature : float, default 0
        Adds momenta of variance T at time 0, other ones in every replica.
    keep_momentum : bool, default False
        Record ``momentum`` too, for continuing or reversing a run.

    Notes
    -----
    `evolve` records ``energy`` (H) and ``kinetic_energy``, and raises `EvolutionError` once H is off by a fifth of itself.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> model = p4.gaussian(p4.lattice.chain(16), w=1.0, a=1.02)  # φ″ = Δφ − 0.04 φ
    >>> start = np.cos(2 * np.pi * np.arange(16) / 16)
    >>> omega = np.sqrt(4 * np.sin(np.pi / 16) ** 2 + 0.04)
    >>> tree = p4.dynamics.evolve(p4.dynamics.Hamiltonian(model), start, time=2 * np.pi / omega, step_size=np.pi / omega / 200)
    >>> bool(abs(tree["evolution"]["phi"].values[0, -1] - start).max() < 1e-3)  # a period later
    True
    """

    model: MarkovRandomField
    momentum: Any = 0.0
    temperature: Any = 0.0
    keep_momentum: bool = field_of(default=False, metadata={"static": True})

    def __post_init__(self):
        if not isinstance(self.model, MarkovRandomField):
            raise ArgumentError("model", "a MarkovRandomField", type(self.model).__name__)
        momentum, shape = finite_array("momentum", self.momentum), self.model.field_shape
        if momentum.ndim and momentum.shape != shape:
            raise ArgumentError("momentum", f"a number, or shape {shape}", f"shape {momentum.shape}", reason="shape")
        if not float(self.temperature) >= 0:
            raise ArgumentError("temperature", "a number of at least 0", repr(self.temperature))
        if not isinstance(self.keep_momentum, bool):
            raise ArgumentError("keep_momentum", "True or False", repr(self.keep_momentum))
        object.__setattr__(self, "momentum", momentum)

    @property
    def lattice(self) -> Lattice:  # type: ignore[override]
        return self.model.lattice

    @property
    def max_step_size(self) -> float | None:
        omega = largest_frequency(self.model)
        return 2 / math.sqrt(omega) if omega > 0 else None

    def _force(self, phi):
        return jax.value_and_grad(lambda p: energy(self.model, p))(phi)

    def start(self, field, key) -> WaveState:
        potential, force = self._force(field)
        noise = jax.random.normal(key, field.shape, field.dtype)
        momentum = (
            jnp.asarray(self.momentum, field.dtype) + jnp.sqrt(jnp.asarray(self.temperature, field.dtype)) * noise
        )
        return WaveState(field, momentum, force, potential, potential + jnp.sum(momentum**2) / 2)

    def step(self, state: WaveState, key, time, step_size) -> WaveState:
        half = state.momentum - step_size / 2 * state.force
        field = state.field + step_size * half
        potential, force = self._force(field)
        return WaveState(field, half - step_size / 2 * force, force, potential, state.first_energy)

    def prepare(self, step_size) -> Step:
        return lambda state, key, time: self.step(state, key, time, step_size)

    def observe(self, state: WaveState):
        return state.field

    def measured(self, state: WaveState) -> dict:
        kinetic = jnp.sum(state.momentum**2) / 2
        found = {"energy": state.potential + kinetic, "kinetic_energy": kinetic}
        return found | ({"momentum": state.momentum} if self.keep_momentum else {})

    def check(self, states: WaveState, time: float) -> None:
        super().check(states, time)
        axes = tuple(range(1, states.momentum.ndim))
        kinetic = np.sum(states.momentum.astype(float) ** 2, axis=axes) / 2
        error = np.abs(states.potential + kinetic - states.first_energy)
        allowed = MAX_ERROR * (np.abs(states.first_energy) + kinetic) + 1e-6 * states.momentum[0].size
        if np.any(error > allowed):
            replica = int(np.argmax(error / allowed))
            message = (
                f"the energy of replica {replica} is off by {error[replica]:.4g} at time {time:.6g}: the field has become "
                "stiffer than at rest. Use a smaller step_size; the error falls as its square."
            )
            raise EvolutionError(
                "energy_drifts", message, {"replica": replica, "time": time, "error": float(error[replica])}
            )
