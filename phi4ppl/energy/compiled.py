"""Everything that a sampler needs from a model, in one object."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import ArgumentError
from ..errors.arguments import call_checked
from ..model.field import MarkovRandomField
from .functions import energy, energy_change, layout_of, log_density

__all__ = ["CompiledModel", "compile_field"]


@call_checked
@dataclass(frozen=True, repr=False)
class CompiledModel:
    """A model ready for any gradient-based sampler.

    Attributes
    ----------
    potential_fn : callable
        −log p up to a constant, of one position (NumPyro's sign).
    logdensity_fn : callable
        log p up to a constant, ``-potential_fn`` (BlackJAX's sign).
    initial_position : callable
        ``initial_position(key)``: a random start; an array of keys gives a batch of starts.
    constrain : callable
        Position → dict of what a user sees: ``{"phi": field}`` for a field, all sample and deterministic sites for a
        NumPyro model.
    num_dimensions : int
    layout : str
        How neighbor sums are computed: ``"stencil"``, ``"gather"`` or ``"dense"``; ``"numpyro"`` for a NumPyro model.
    model : MarkovRandomField or None
        The field that was compiled; None for a NumPyro model.
    energy_change_fn : callable
        ``energy_change_fn(new, old)``: S(new) − S(old) of two positions. For a field it is summed from differences per site, so
        that it stays accurate in float32 on large lattices; see ``phi4ppl.energy.energy_change``.
    fields : dict
        The `MarkovRandomField` behind every field among the results of ``constrain``, by name.
    names : tuple of str
        Names of the results of ``constrain``.
    log_likelihood : callable or None
        Position → log p(datum | all latent sites) by observed site, one number per datum; for an observed field log p(φ_i |
        rest). None where no observed site has such a form.
    data : dict
        The observed values of these sites; ``kept_data`` the flat places of those that a mask leaves in, for masked sites.
    observed_fields : dict
        The `MarkovRandomField` behind those of them that are fields.
    single_factors : dict
        Observed site → why its log density is one number for all its data.
    axes : dict
        Site of a NumPyro model → for every axis of its value the plate that makes it (or None) and its length.
    replace_values : callable
        ``replace_values(position, values) -> (position, inside)``: the position with constrained ``values`` of some latent
        sites in place of its own, and for each of them whether the value is inside the support of the site.

    Notes
    -----
    A position is one field (shape ``lattice.shape`` or ``(num_sites,)``) for a `MarkovRandomField`, and a dict of
    *unconstrained* values for a NumPyro model. Neither function adds log Z.
    """

    potential_fn: Callable[[Any], jax.Array]
    logdensity_fn: Callable[[Any], jax.Array]
    initial_position: Callable[[jax.Array], Any]
    constrain: Callable[[Any], dict]
    num_dimensions: int
    layout: str
    energy_change_fn: Callable[[Any, Any], jax.Array]
    model: MarkovRandomField | None = None
    fields: dict[str, MarkovRandomField] = field(default_factory=dict)
    names: tuple[str, ...] = ("phi",)
    log_likelihood: Callable[[Any], dict] | None = None
    data: dict[str, Any] = field(default_factory=dict)
    kept_data: dict[str, Any] = field(default_factory=dict)
    observed_fields: dict[str, MarkovRandomField] = field(default_factory=dict)
    single_factors: dict[str, str] = field(default_factory=dict)
    axes: dict[str, tuple[tuple[str | None, int], ...]] = field(default_factory=dict)
    replace_values: Callable[[Any, dict], tuple[Any, dict]] | None = None

    def __repr__(self) -> str:
        what = "a NumPyro model" if self.model is None else repr(self.model)
        return f"CompiledModel({what}: {self.num_dimensions} dimensions, layout {self.layout})"


def compile_field(model: MarkovRandomField) -> CompiledModel:
    """Compile a field; see `phi4ppl.compile` for the way in that also takes NumPyro models."""
    if not isinstance(model, MarkovRandomField):
        raise ArgumentError("model", "a MarkovRandomField", type(model).__name__)
    shape = model.field_shape

    def initial_position(key):
        if not isinstance(key, jax.Array):
            raise ArgumentError("key", "a JAX random key", repr(key), "Make one with jax.random.key(0).")
        if jnp.ndim(jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key) > 1:
            return jax.vmap(initial_position)(key)
        sign_key, noise_key = jax.random.split(key)
        sign = jax.random.rademacher(sign_key, (), jnp.result_type(float))
        return sign + 0.5 * jax.random.normal(noise_key, shape)

    return CompiledModel(
        potential_fn=functools.partial(energy, model), logdensity_fn=functools.partial(log_density, model),
        initial_position=initial_position, constrain=_name_field, num_dimensions=model.lattice.num_sites,
        layout=layout_of(model), energy_change_fn=functools.partial(energy_change, model), model=model, fields={"phi": model},
        replace_values=_replace_field,
    )  # fmt: skip


def _name_field(phi) -> dict:
    return {"phi": phi}


def _replace_field(phi, values: dict) -> tuple:
    return values.get("phi", phi), {"phi": jnp.ones((), bool)}
