"""What a kernel is built for: a log density and, where there is one, the field behind it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ..energy.compiled import CompiledModel
from ..energy.functions import energy_change, energy_function
from ..errors import call_checked
from ..lattice.frozen import Lattice

__all__ = ["Target", "target_of"]


@call_checked
@dataclass(frozen=True)
class Target:
    """The distribution that a kernel samples, at given couplings.

    Attributes
    ----------
    logdensity_fn : callable
        log p up to a constant, of one position.
    lattice : Lattice or None
        Of the field that is sampled; None for a NumPyro model.
    forms : tuple
        The terms of that field without their couplings.
    values : tuple
        The couplings in the order of ``forms``.
    energy_change : callable
        ``energy_change(new, old)`` = S(new) − S(old) = log p(old) − log p(new). For a field it is summed site by site, so
        that accept/reject stays right in single precision on large lattices.
    """

    logdensity_fn: Callable[[Any], jax.Array]
    energy_change: Callable[[Any, Any], jax.Array]
    lattice: Lattice | None = None
    forms: tuple = ()
    values: tuple = ()

    def init(self, position) -> tuple[jax.Array, Any]:
        """Log density and its gradient in one pass."""
        return jax.value_and_grad(self.logdensity_fn)(position)


@call_checked
def target_of(compiled: CompiledModel, parameters=None) -> Target:
    """The target of a compiled model, at its own couplings unless others are given."""
    parameters = compiled.parameters if parameters is None else parameters
    if compiled.signature is not None:
        return field_target(compiled.signature, parameters)
    density = functools.partial(compiled.logdensity_at, parameters)
    return Target(density, lambda new, old: density(old) - density(new))


def field_target(signature, values) -> Target:
    """The target of a field: lattice and forms (its `CompiledModel.signature`) at couplings ``values``."""
    lattice, forms = signature
    values = jax.tree.map(jnp.asarray, values)
    _, energy = energy_function(lattice, forms)
    change = functools.partial(energy_change(lattice, forms), values)
    return Target(lambda phi: -energy(values, phi), change, lattice, forms, values)
