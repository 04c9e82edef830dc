"""A field conjugate to a pattern, as a term of its own: S_h(φ) = S(φ) − h Σ_i ξ_i φ_i."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import finite_array, one_of
from ..lattice.labels import aligned_fields
from ..model.field import MarkovRandomField
from ..model.term import Term, source
from ..networks.machine import RestrictedBoltzmannMachine
from .machine_source import MachineSource

__all__ = ["EXTERNAL", "LAYERS", "Source", "source_of"]

EXTERNAL = "external_field"  # the name of the term
LAYERS = ("visible", "hidden")


class Source(NamedTuple):
    """A model with an external field that can be set.

    Attributes
    ----------
    model : MarkovRandomField
        With the term ``external_field`` on the sites where the pattern is not 0.
    pattern : array, shape ``(num_sites,)``
        ξ.
    num_visible : int or None
        Of a machine, whose visible units are the first sites.
    """

    model: MarkovRandomField
    pattern: np.ndarray
    num_visible: int | None = None

    @property
    def volume(self) -> int:
        """Sites that feel the field."""
        return int(np.count_nonzero(self.pattern))

    def couplings_at(self, field) -> np.ndarray:
        """The couplings −h ξ_i of the term; ``field`` a number or an array with leading axes."""
        return -np.multiply.outer(np.asarray(field, float), self.pattern[self.pattern != 0])

    def at(self, field) -> MarkovRandomField:
        """The model at a field h, which may be traced."""
        return self.model.replace(**{EXTERNAL: -field * jnp.asarray(self.pattern[self.pattern != 0])})

    def magnetization(self, phi: jax.Array) -> jax.Array:
        """m = (1/V) Σ_i ξ_i φ_i of one field, V the number of sites where ξ is not 0."""
        return jnp.sum(jnp.asarray(self.pattern, phi.dtype) * phi.reshape(-1)) / self.volume


def source_of(model, pattern, layer: str | None) -> Source | MachineSource:
    """A model with the field conjugate to a pattern; see `phi4ppl.disorder.response`."""
    if isinstance(model, RestrictedBoltzmannMachine):
        return _of_machine(model, pattern, "visible" if layer is None else one_of("layer", layer, LAYERS))
    if not isinstance(model, MarkovRandomField):
        raise ArgumentError("model", "a MarkovRandomField, or a machine", type(model).__name__)
    if layer is not None:
        raise ArgumentError("layer", "None for a field without layers", repr(layer), reason="unused")
    lattice = model.lattice
    if pattern is None:
        values = np.ones(lattice.num_sites)
    else:
        values = aligned_fields("source", pattern, lattice)
        if values.shape not in (lattice.field_shape, (lattice.num_sites,)):
            expected = f"one number a site, shape {lattice.field_shape}"
            raise ArgumentError("source", expected, f"shape {values.shape}", reason="shape")
    return _with_term(model, values.reshape(-1), None)


def _of_machine(machine: RestrictedBoltzmannMachine, pattern, layer: str) -> Source | MachineSource:
    sizes = machine.visible.size, machine.hidden.size
    own = sizes[LAYERS.index(layer)]
    values = np.ones(own) if pattern is None else finite_array("source", pattern).reshape(-1)
    if values.shape != (own,):
        expected = f"one number for each of the {own} {layer} units"
        raise ArgumentError("source", expected, f"{values.size} numbers", reason="shape")
    whole = np.zeros(sum(sizes))
    whole[: sizes[0]] = values if layer == "visible" else 0.0
    whole[sizes[0] :] = values if layer == "hidden" else 0.0
    if any(units.states is not None for units in (machine.visible, machine.hidden)):
        return MachineSource(machine, _not_zero(whole), sizes[0])
    return _with_term(machine.to_model(), whole, sizes[0])


def _not_zero(pattern: np.ndarray) -> np.ndarray:
    if not pattern.any():
        raise ArgumentError("source", "a pattern that is not 0 everywhere", "zeros", reason="zero")
    return pattern


def _with_term(model: MarkovRandomField, pattern: np.ndarray, num_visible: int | None) -> Source:
    if EXTERNAL in model.couplings:
        raise ArgumentError("model", f"no term named {EXTERNAL!r}", "one", "Rename it.", reason="name")
    at = np.flatnonzero(_not_zero(pattern))
    term = Term(EXTERNAL, at[:, None], source, np.zeros(len(at)))
    model.check().raise_if_violated()
    return Source(MarkovRandomField(model.lattice, [*model.terms, term]), pattern, num_visible)
