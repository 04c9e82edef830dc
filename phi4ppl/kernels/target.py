"""The target of a kernel: a log density and, if there is one, the field behind it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ..energy.compiled import CompiledModel
from ..energy.functions import energy_change, log_density
from ..errors.arguments import call_checked
from ..lattice.frozen import Lattice
from ..model.field import MarkovRandomField

__all__ = ["Target", "target_of"]


@call_checked
@dataclass(frozen=True)
class Target:
    """The distribution that a kernel samples, at given couplings.

    Attributes
    ----------
    logdensity_fn : callable
        log p up to a constant, of one position.
    energy_change : callable
        ``energy_change(new, old)`` = S(new) − S(old) = log p(old) − log p(new). For a field it is summed site by site, so
        that accept/reject stays right in single precision on large lattices.
    model : MarkovRandomField or None
        The field that is sampled, whose couplings may be traced; None for a NumPyro model.
    """

    logdensity_fn: Callable[[Any], jax.Array]
    energy_change: Callable[[Any, Any], jax.Array]
    model: MarkovRandomField | None = None

    @property
    def lattice(self) -> Lattice | None:
        """Of the field that is sampled."""
        return None if self.model is None else self.model.lattice

    def init(self, position) -> tuple[jax.Array, Any]:
        """Log density and its gradient in one pass."""
        return jax.value_and_grad(self.logdensity_fn)(position)


@call_checked
def target_of(model: MarkovRandomField | CompiledModel) -> Target:
    """The target of a field or of a compiled model."""
    if isinstance(model, CompiledModel):
        if model.model is None:
            return Target(model.logdensity_fn, model.energy_change_fn)
        model = model.model
    model = jax.tree.map(jnp.asarray, model)
    return Target(functools.partial(log_density, model), functools.partial(energy_change, model), model)
