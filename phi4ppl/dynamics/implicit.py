"""Implicit steps for stiff drifts, by diffrax, which is an optional extra."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import jax.numpy as jnp

from ..errors import ArgumentError
from ..lattice.frozen import Lattice

__all__ = ["implicit_step", "require_implicit"]

MAX_SITES = 2048  # of equations that are solved densely
MAX_STEPS = 4096  # between two steps of the grid


def require_implicit(lattice: Lattice) -> None:
    """Raise `ArgumentError` where implicit steps cannot be made."""
    if find_spec("diffrax") is None:
        fix = "Install it: pip install 'phi4ppl[stiff]'."
        raise ArgumentError("solver", "'explicit' without the package diffrax", "'implicit'", fix, reason="missing")
    if lattice.num_sites > MAX_SITES:
        fix = "Linear equations of one unknown a site are solved in every step. Take solver='explicit'."
        got = f"{lattice.num_sites} sites"
        raise ArgumentError("solver", f"'explicit' for more than {MAX_SITES} sites", got, fix, reason="too_large")


def implicit_step(drift: Callable, step_size, tolerance) -> Callable:
    """``step(phi) -> (phi, steps, solved)`` along dφ/dt = drift(φ) for a time ``step_size``, by as many steps as it takes."""
    import diffrax

    controller = diffrax.PIDController(rtol=tolerance, atol=tolerance)
    terms = diffrax.ODETerm(lambda t, phi, _: drift(phi))

    def step(phi):
        end = jnp.asarray(step_size, phi.dtype)
        found = diffrax.diffeqsolve(
            terms, diffrax.Kvaerno3(), jnp.zeros_like(end), end, None, phi, stepsize_controller=controller,
            max_steps=MAX_STEPS, throw=False, saveat=diffrax.SaveAt(t1=True),
        )  # fmt: skip
        solved = found.result == diffrax.RESULTS.successful
        return found.ys[0], jnp.asarray(found.stats["num_steps"], jnp.int32), solved

    return step
