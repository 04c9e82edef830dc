"""Compile a model into a fast energy whose derivative is as cheap as itself.

Two layouts: *stencil* writes neighbour sums on regular lattices as shifts of the whole field; *gather* reads them through
padded neighbour lists on any graph, with the force written as a gather too (automatic differentiation alone would scatter).
User-defined terms are vmapped and differentiated automatically in either layout.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .errors import ArgumentError
from .lattice import Lattice
from .model import MarkovRandomField
from .terms import as_field

__all__ = ["CompiledModel", "compile_field", "energy_function"]


@dataclass(frozen=True)
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
        How neighbour sums are computed: ``"stencil"`` or ``"gather"``; ``"numpyro"`` for a NumPyro model.
    model : MarkovRandomField or None
        The field that was compiled; None for a NumPyro model.
    parameters : pytree
        The couplings, for a field; what ``logdensity_at(parameters, position)`` takes, so that one compiled program serves
        every value of them.
    signature : hashable or None
        Equal for models that differ in their couplings only; None for a NumPyro model.
    fields : dict
        The `MarkovRandomField` behind every field among the results of ``constrain``, by name.

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
    model: MarkovRandomField | None = None
    fields: dict[str, MarkovRandomField] = field(default_factory=dict)
    parameters: Any = ()
    logdensity_at: Callable[[Any, Any], jax.Array] | None = None
    signature: Any = None


def compile_field(model: MarkovRandomField) -> CompiledModel:
    """Compile a field; see `phi4ppl.compile` for the way in that also takes NumPyro models."""
    if not isinstance(model, MarkovRandomField):
        raise ArgumentError("model", "a MarkovRandomField", type(model).__name__)
    layout, energy = energy_function(model.lattice, model._forms)
    values, shape = model._values, model.field_shape

    def initial_position(key):
        if not isinstance(key, jax.Array):
            raise ArgumentError("key", "a JAX random key", repr(key), "Make one with jax.random.key(0).")
        if jnp.ndim(jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key) > 1:
            return jax.vmap(initial_position)(key)
        sign_key, noise_key = jax.random.split(key)
        sign = jax.random.rademacher(sign_key, (), jnp.result_type(float))
        return sign + 0.5 * jax.random.normal(noise_key, shape)

    return CompiledModel(
        potential_fn=lambda phi: energy(values, phi), logdensity_fn=lambda phi: -energy(values, phi),
        initial_position=initial_position, constrain=_name_field, num_dimensions=model.lattice.num_sites, layout=layout,
        model=model, fields={"phi": model}, parameters=values, logdensity_at=lambda values, phi: -energy(values, phi),
        signature=(model.lattice, model._forms),
    )  # fmt: skip


def _name_field(phi) -> dict:
    return {"phi": phi}


@functools.lru_cache(maxsize=64)
def energy_function(lattice: Lattice, forms: tuple) -> tuple[str, Callable]:
    """Layout and ``energy(values, phi)`` of one field, for couplings ``values`` in the order of ``forms``."""
    parts = [_part(lattice, form) for form in forms]
    layouts = {layout for layout, _ in parts}
    shape = lattice.field_shape

    def energy(values, phi):
        phi = as_field(phi)
        if phi.shape != shape:
            raise ArgumentError("phi", f"one field of shape {shape}", f"shape {phi.shape}", "Use vmap for batches.")
        total = jnp.zeros((), phi.dtype)
        for (_, part), value in zip(parts, values, strict=True):
            total += part(jnp.asarray(value, phi.dtype), phi)
        return total

    return "gather" if "gather" in layouts or lattice.offsets is None else "stencil", energy


def _part(lattice: Lattice, form) -> tuple[str, Callable]:
    """Energy of one term, ``part(coupling, phi)``, and the layout it asks for."""
    if form.built_in == "hopping":
        plan = _stencil_plan(lattice, form)
        return ("stencil", _stencil_hopping(plan, lattice)) if plan else ("gather", _gather_hopping(lattice, form))
    everywhere = form.cliques.shape == (lattice.num_sites, 1) and np.array_equal(
        form.cliques[:, 0], np.arange(lattice.num_sites)
    )
    if form.built_in and everywhere:
        return "any", lambda theta, phi: jnp.sum(theta * form.statistic(phi.reshape(-1)))
    return "any", lambda theta, phi: jnp.sum(theta * form.values(phi.reshape(-1)))


def _stencil_plan(lattice: Lattice, form) -> list | None:
    """For each offset of a regular lattice: the offset, the sites that have that edge, and where its couplings start."""
    if lattice.offsets is None:
        return None
    if np.array_equal(form.cliques, lattice.edges):
        kinds = lattice.kinds
    else:
        kinds = [k for k in lattice.kinds if np.array_equal(form.cliques, lattice.edges_of(k))]
    size = np.array(lattice.shape)[:, None]
    sites = np.indices(lattice.shape).reshape(len(lattice.shape), -1)
    plan, start = [], 0
    for kind in kinds:
        for offset in lattice.offsets[kind]:
            at = sites + np.array(offset)[:, None]
            inside = np.all(np.array(lattice.periodic)[:, None] | ((at >= 0) & (at < size)), axis=0)
            plan.append((offset, inside, start))
            start += int(inside.sum())
    return plan if plan and start == len(form.cliques) else None  # fewer edges: some coincide on a tiny torus


def _stencil_hopping(plan, lattice: Lattice) -> Callable:
    shape = lattice.shape

    def energy(theta, phi):
        total = jnp.zeros((), phi.dtype)
        shared = jnp.zeros_like(phi)
        for offset, inside, start in plan:
            neighbour = jnp.roll(phi, tuple(-d for d in offset), axis=tuple(range(len(offset))))
            if theta.ndim == 0:
                shared += neighbour if inside.all() else jnp.where(inside.reshape(shape), neighbour, 0)
            elif inside.all():
                total -= jnp.sum(theta[start : start + len(inside)].reshape(shape) * phi * neighbour)
            else:
                number = np.where(inside, start + np.cumsum(inside) - 1, 0)
                weight = jnp.where(inside, theta[number], 0).reshape(shape)
                total -= jnp.sum(weight * phi * neighbour)
        return total - theta * jnp.sum(phi * shared) if theta.ndim == 0 else total

    return energy


def _gather_hopping(lattice: Lattice, form) -> Callable:
    """−½ φᵀWφ through padded neighbour lists, d(−½ φᵀWφ) = −(Wφ)·dφ − ½ φᵀ(dW)φ, none of which scatters."""
    edges = form.cliques
    both = np.concatenate([edges, edges[:, ::-1]])
    number = np.tile(np.arange(len(edges)), 2)
    order = np.lexsort((both[:, 1], both[:, 0]))
    both, number = both[order], number[order]
    degree = np.bincount(both[:, 0], minlength=lattice.num_sites)
    slot = np.arange(len(both)) - np.repeat(np.cumsum(degree) - degree, degree)
    width = max(1, int(degree.max()))
    neighbour = np.zeros((lattice.num_sites, width), np.int32)
    edge = np.zeros((lattice.num_sites, width), np.int32)
    present = np.zeros((lattice.num_sites, width), bool)
    neighbour[both[:, 0], slot], edge[both[:, 0], slot], present[both[:, 0], slot] = both[:, 1], number, True

    def hop(theta, flat):
        around = jnp.where(present, flat[neighbour], 0)
        weight = theta if theta.ndim == 0 else theta[edge]
        return jnp.sum(weight * around, axis=1)

    @jax.custom_jvp
    def energy(theta, phi):
        flat = phi.reshape(-1)
        return -jnp.sum(flat * hop(theta, flat)) / 2

    @energy.defjvp
    def energy_jvp(primals, tangents):
        (theta, phi), (dtheta, dphi) = primals, tangents
        flat = phi.reshape(-1)
        field = hop(theta, flat)
        change = -jnp.sum(field * dphi.reshape(-1)) - jnp.sum(flat * hop(dtheta, flat)) / 2
        return -jnp.sum(flat * field) / 2, change

    return energy
