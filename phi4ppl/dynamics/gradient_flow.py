"""Gradient flow: a field slides down its action, with steps that adapt and an energy that never rises."""

from __future__ import annotations

from dataclasses import field as field_of
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..energy.functions import energy, energy_change
from ..errors import ArgumentError, EvolutionError
from ..errors.arguments import one_of
from ..lattice.frozen import Lattice
from ..model.field import MarkovRandomField
from .implicit import implicit_step, require_implicit
from .process import Process, Step, positive, process
from .stiffness import largest_frequency

__all__ = ["FlowState", "GradientFlow"]

SAFETY, SHRINK, GROW = 0.9, 0.2, 5.0
SMALLEST = 1e-6  # of step_size: a flow that cannot descend by such a step has a force that is not minus the gradient
SOLVERS = ("explicit", "implicit")
FEW_STEPS = 20  # of the fastest mode, in one step of the grid
MANY_STEPS = 2000  # the same of an implicit solver
ROUNDING = 64  # roundings of S within which its change is that of the forces along the step


class FlowState(NamedTuple):
    """The field with what the next step needs of it."""

    field: jax.Array
    energy: jax.Array
    force: jax.Array  # ∂S/∂φ
    substep: jax.Array  # the length of the next step
    evaluations: jax.Array  # of the force so far
    lowest: jax.Array  # energy so far
    stuck: jax.Array  # whether no step was short enough to descend


@process
class GradientFlow(Process):
    """dφ/dt = −∂S/∂φ. Along the flow dS/dt = −|∂S/∂φ|², so that the energy never rises.

    Bogacki–Shampine's pair of orders 3 and 2 (Appl. Math. Lett. 2 (1989) 321): three evaluations of the force a step. A step is
    repeated with a shorter one where its estimated error is above ``tolerance``, or where the energy would rise. Every
    ``step_size`` of `evolve` is reached by as many of them as it takes.

    Explicit steps are at most about 2.5/ω_max long (`largest_frequency`), also where nothing fast is left. For stiff models
    ``solver="implicit"`` takes L-stable steps of order 3 (A. Kværnø, BIT 44 (2004) 489) from diffrax, which
    ``pip install 'phi4ppl[stiff]'`` adds: as long as the tolerance allows, at the price of linear equations of one unknown a
    site.

    Parameters
    ----------
    model : MarkovRandomField
    tolerance : float, default 1e-4
        Of the error of one step at any site, relative to the largest field (or to 1, if that is larger).
    solver : str, default "explicit"
        Or ``"implicit"``, for stiff models of at most 2048 sites.

    Raises
    ------
    ArgumentError
        For an implicit solver of too many sites, or without diffrax.

    Notes
    -----
    `evolve` records ``energy`` (S) and ``evaluations``, how often the force has been computed so far (``solver_steps`` of an
    implicit solver). A rise of the energy is looked for in every step; `EvolutionError` tells of one that no shorter step
    avoids.

    Examples
    --------
    >>> import phi4ppl as p4, numpy as np
    >>> model = p4.phi4(p4.lattice.chain(16), a=0.5, b=0.25)
    >>> start = np.random.default_rng(0).normal(size=16)
    >>> tree = p4.dynamics.evolve(p4.dynamics.GradientFlow(model), start, time=5, every=1)
    >>> bool((tree["evolution"]["energy"].diff("time") <= 0).all())
    True
    """

    model: MarkovRandomField
    tolerance: Any = 1e-4
    solver: str = field_of(default="explicit", metadata={"static": True})

    def __post_init__(self):
        if not isinstance(self.model, MarkovRandomField):
            raise ArgumentError("model", "a MarkovRandomField", type(self.model).__name__)
        object.__setattr__(self, "tolerance", positive("tolerance", self.tolerance))
        if one_of("solver", self.solver, SOLVERS) == "implicit":
            require_implicit(self.model.lattice)

    @property
    def lattice(self) -> Lattice:  # type: ignore[override]
        return self.model.lattice

    @property
    def default_step_size(self) -> float:
        return (FEW_STEPS if self.solver == "explicit" else MANY_STEPS) / largest_frequency(self.model)

    def start(self, field, key) -> FlowState:
        value, force = self._force(field)
        scale = jnp.max(jnp.abs(field)) + self.tolerance
        first = 0.01 * scale / (jnp.max(jnp.abs(force)) + jnp.finfo(field.dtype).tiny)
        return FlowState(
            field, value, force, first.astype(field.dtype), jnp.ones((), jnp.int32), value, jnp.zeros((), bool)
        )

    def _force(self, phi):
        return jax.value_and_grad(lambda p: energy(self.model, p))(phi)

    def prepare(self, step_size) -> Step:
        if self.solver == "implicit":
            return self._implicit(step_size)
        smallest = SMALLEST * step_size

        def substep(carry):
            state, left = carry
            h = jnp.minimum(state.substep, left)
            new, error, change = self._attempt(state, h)
            good = (error <= 1) & (change <= 0)
            factor = jnp.clip(SAFETY * jnp.maximum(error, 1e-9) ** (-1 / 3), SHRINK, GROW)
            factor = jnp.where(good, factor, jnp.minimum(factor, 0.5))
            factor = jnp.where(jnp.isfinite(factor), factor, SHRINK)
            # a step that was cut short by the end says little about longer ones
            following = jnp.where(good & (h < state.substep), jnp.maximum(state.substep, factor * h), factor * h)
            stuck = ~good & (h <= smallest) & (left > h)
            kept = jax.tree.map(lambda a, b: jnp.where(good, a, b), new, state)
            kept = kept._replace(
                substep=following.astype(h.dtype), evaluations=state.evaluations + 3, stuck=state.stuck | stuck
            )
            return kept, jnp.where(stuck, 0, jnp.where(good, left - h, left)).astype(left.dtype)

        def advance(state: FlowState, key, time):
            left = jnp.asarray(step_size, state.field.dtype)
            return jax.lax.while_loop(lambda carry: carry[1] > 0, substep, (state, left))[0]

        return advance

    def _attempt(self, state: FlowState, h):
        """The state after a step h, its error in units of the tolerance, and the change of the energy."""
        phi, k1 = state.field, -state.force
        third = phi - 3 * h / 4 * self._force(phi + h / 2 * k1)[1]  # φ + ¾h k₂
        field = phi + (2 * h * k1 + 4 * (third - phi) - 4 * h * self._force(third)[1]) / 9
        value, force = self._force(field)
        # h(−5k₁/72 + k₂/12 + k₃/9 − k₄/8), without k₂ and k₃: forces that are used twice are computed twice
        error = jnp.max(jnp.abs(field - phi + h * (force - k1) / 2)) / 4
        scale = jnp.maximum(jnp.max(jnp.abs(phi)), 1)
        # small changes of a large sum are those of the forces along the step, by the trapezoidal rule
        plain, along = value - state.energy, jnp.sum((field - phi) * (force + state.force)) / 2
        rounding = ROUNDING * jnp.finfo(phi.dtype).eps * (jnp.abs(value) + jnp.abs(state.energy) + jnp.sum(phi**2))
        change = jnp.where(jnp.abs(plain) > rounding, plain, along)
        change = jnp.where(value - state.lowest > 2 * rounding, jnp.inf, change)  # many small rises add up
        error = jnp.where(jnp.isfinite(value), error / (self.tolerance * scale), jnp.inf)
        lowest = jnp.minimum(state.lowest, value)
        return state._replace(field=field, energy=value, force=force, lowest=lowest), error, change

    def _implicit(self, step_size) -> Step:
        solve = implicit_step(lambda phi: -self._force(phi)[1], step_size, self.tolerance)

        def advance(state: FlowState, key, time):
            field, steps, solved = solve(state.field)
            value, force = self._force(field)
            # of stiff models S is a small difference of large terms, whose changes are summed site by site
            change = energy_change(self.model, field, state.field)
            rounding = ROUNDING * jnp.finfo(field.dtype).eps * (jnp.abs(value) + jnp.sum(field**2))
            stuck = state.stuck | ~solved | (change > rounding)
            lowest = jnp.minimum(state.lowest, value)
            return FlowState(field, value, force, state.substep, state.evaluations + steps, lowest, stuck)

        return advance

    def observe(self, state: FlowState):
        return state.field

    def measured(self, state: FlowState) -> dict:
        counted = "evaluations" if self.solver == "explicit" else "solver_steps"
        return {"energy": state.energy, counted: state.evaluations}

    def check(self, states: FlowState, time: float) -> None:
        super().check(states, time)
        if np.any(states.stuck):
            replica = int(np.flatnonzero(states.stuck)[0])
            message = (
                f"the energy of replica {replica} rises before time {time:.6g} however short the step. The force of a "
                "user-defined term is not the gradient of its energy, or single precision is too coarse here: use "
                "jax.config.update('jax_enable_x64', True), or a larger tolerance."
            )
            if self.solver == "implicit":
                message = (
                    f"implicit steps of replica {replica} do not reach time {time:.6g}, or the energy rises. Single precision "
                    "limits the tolerance of very stiff models: take a larger one, a smaller step_size, or "
                    "jax.config.update('jax_enable_x64', True)."
                )
            raise EvolutionError("energy_rises", message, {"replica": replica, "time": time})
