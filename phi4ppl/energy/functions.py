"""The energy of one field, its derivative rule, and differences of energies that stay accurate in float32."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from ..errors import ArgumentError
from ..lattice.frozen import Lattice
from ..model.term import TermForm, as_field
from .dense import dense_hopping
from .gather import gather_hopping
from .hopping import Hopping
from .stencil import stencil_hopping

__all__ = ["energy_change", "energy_function"]

SITE_POWERS = {"source": 1, "mass": 2, "quartic": 4}
ROW = 16  # numbers added up by one row of a matrix product
BLOCK = 32  # summands that are added up one after the other
FEW = 1024


@dataclass(frozen=True)
class _Plan:
    """The terms of a model by how their energy is computed; keys are the places of their couplings."""

    hoppings: dict[int, Hopping]
    powers: dict[int, int]  # θ Σ_i φ_i^k on all sites
    own: dict[int, Callable]  # field → one number a clique, by vmap
    layout: str


@functools.lru_cache(maxsize=64)
def energy_function(lattice: Lattice, forms: tuple) -> tuple[str, Callable]:
    """Layout and ``energy(values, phi)`` of one field, for couplings ``values`` in the order of ``forms``.

    Notes
    -----
    ``energy`` has a derivative rule of its own: with (Wφ)_i = Σ_j w_ij φ_j summed over the neighbours,

        S = Σ_i φ_i (r_i + a_i φ_i + b_i φ_i³ − ½ (Wφ)_i) + Σ_c θ_c T(φ_c),    ∂S/∂φ_i = r_i + 2a_i φ_i + 4b_i φ_i³ − (Wφ)_i,

    so that energy and force share one Wφ. T stands for the user's own statistics, which are differentiated automatically.
    The couplings are arguments: one program serves all their values, and ∂S/∂θ are the statistics. Forward and reverse
    mode work, also one over the other.
    """
    plan = _plan(lattice, forms)
    local = _local_energy(plan)

    def energy(values, phi):
        phi = _one_field(lattice, "phi", phi)
        values = _cast(forms, values, phi.dtype)
        total = local(values, phi)
        for k, statistics in plan.own.items():
            total += jnp.sum(values[k] * statistics(phi))
        return total

    return plan.layout, energy


@functools.lru_cache(maxsize=64)
def energy_change(lattice: Lattice, forms: tuple) -> Callable:
    """``change(values, new, old)`` = S(new) − S(old) of two fields, accurate where both energies are large.

    Notes
    -----
    In float32 the energy of 1024×1024 sites is known to a few hundredths only, and so would be the difference of two. Here
    differences are formed before anything is summed, with d = new − old and s = (new + old)/2 at every site,

        ΔS = Σ_i d_i (r_i + 2a_i s_i + 2b_i s_i (new_i² + old_i²) − (Ws)_i) + Σ_c θ_c [T(new_c) − T(old_c)],

    which is exact for the built-in terms and free of cancellation; the sum then goes block by block. The result can be no
    finer than one rounding of ΔS itself. It is infinite or NaN where a field is.
    """
    plan = _plan(lattice, forms)
    shape = lattice.field_shape

    def change(values, new, old):
        new, old = _one_field(lattice, "new", new), _one_field(lattice, "old", old)
        values = _cast(forms, values, jnp.result_type(new, old))
        difference, middle = new - old, (new + old) / 2
        slope = jnp.zeros_like(middle)
        for k, power in plan.powers.items():
            factor = {1: jnp.ones_like(middle), 2: 2 * middle, 4: 2 * middle * (new * new + old * old)}[power]
            slope += _on_sites(values[k], shape) * factor
        for k, hopping in plan.hoppings.items():
            slope -= _neighbour_sum(hopping, values[k], middle)
        total = _sum_in_blocks(difference * slope)
        for k, statistics in plan.own.items():
            total += _sum_in_blocks(values[k] * (statistics(new) - statistics(old)))
        return total

    return change


def _plan(lattice: Lattice, forms: tuple) -> _Plan:
    hoppings, powers, own = {}, {}, {}
    sites = np.arange(lattice.num_sites)[:, None]
    for k, form in enumerate(forms):
        if form.built_in == "hopping":
            hoppings[k] = _hopping(lattice, form.cliques)
        elif form.built_in and np.array_equal(form.cliques, sites):
            powers[k] = SITE_POWERS[form.built_in]
        else:
            own[k] = _own_statistics(form, sites)
    layouts = {hopping.layout for hopping in hoppings.values()}
    without_edges = "gather" if lattice.offsets is None else "stencil"
    layout = next((name for name in ("gather", "dense", "stencil") if name in layouts), without_edges)
    return _Plan(hoppings, powers, own, layout)


def _hopping(lattice: Lattice, edges) -> Hopping:
    n, shape = lattice.num_sites, lattice.field_shape
    return stencil_hopping(lattice, edges) or dense_hopping(n, shape, edges) or gather_hopping(n, shape, edges)


def _own_statistics(form: TermForm, sites) -> Callable:
    """Field → T(φ_c) of every clique c; a term on all sites in order reads them as they come."""
    if np.array_equal(form.cliques, sites):
        return lambda phi: jax.vmap(form.statistic)(phi.reshape(-1))
    return lambda phi: form.values(phi.reshape(-1))


def _local_energy(plan: _Plan) -> Callable:
    """Energy of all terms but the user's, with the rule dS = Σ_i (∂S/∂φ_i) dφ_i + Σ_t T_t dθ_t."""

    def parts(values, phi):
        """Σ_i of the energy, its slope at every site, and the neighbour sums Σ_j φ_j of hoppings with one coupling.

        A term of degree k adds θφ^k to the energy and kθφ^k to φ ∂S/∂φ, so S = Σ_i (½ φ_i ∂S/∂φ_i + Σ_k (1 − k/2) θ φ_i^k):
        only the slope needs the neighbours, whose sum a compiler would otherwise do twice.
        """
        sums, slope, rest = {}, None, None
        for k, hopping in plan.hoppings.items():
            if values[k].ndim == 0:
                sums[k] = hopping.plain(phi)
            slope = _plus(slope, -values[k] * sums[k] if k in sums else -hopping.weighted(values[k], phi))
        for k, power in plan.powers.items():
            term = _on_sites(values[k], phi.shape) * _power(phi, power - 1)
            slope = _plus(slope, power * term)
            rest = rest if power == 2 else _plus(rest, (1 - power / 2) * term)
        slope = jnp.zeros_like(phi) if slope is None else slope
        return _sum_in_rows(phi * _plus(rest, slope / 2)), slope, sums

    @jax.custom_jvp
    def energy(values, phi):
        return parts(values, phi)[0]

    def rule(primals, tangents):
        (values, phi), (changes, direction) = primals, tangents
        total, slope, sums = parts(values, phi)
        tangent = jnp.zeros((), phi.dtype)
        if not isinstance(direction, SymbolicZero):
            tangent += jnp.sum(slope * direction)
        for k, change in enumerate(changes):
            if k in plan.own or isinstance(change, SymbolicZero):
                continue
            if k in sums:
                tangent -= change * jnp.sum(phi * sums[k]) / 2
            elif k in plan.hoppings:
                tangent -= jnp.sum(change * plan.hoppings[k].products(phi))
            else:
                tangent += jnp.sum(change * _power(phi, plan.powers[k]).reshape(change.shape or phi.shape))
        return total, tangent

    energy.defjvp(rule, symbolic_zeros=True)
    return energy


def _neighbour_sum(hopping: Hopping, w, phi):
    return w * hopping.plain(phi) if w.ndim == 0 else hopping.weighted(w, phi)


def _plus(total, term):
    return term if total is None else total + term


def _power(phi, power: int):
    square = phi * phi
    return {0: jnp.ones_like(phi), 1: phi, 2: square, 3: square * phi, 4: square * square}[power]


def _on_sites(coupling, shape):
    return coupling if coupling.ndim == 0 else coupling.reshape(shape)


def _one_field(lattice: Lattice, name: str, phi):
    phi = as_field(phi, name, lattice)
    if phi.shape != lattice.field_shape:
        expected = f"one field of shape {lattice.field_shape}"
        raise ArgumentError(name, expected, f"shape {phi.shape}", "Use vmap for batches.")
    return phi


def _cast(forms, values, dtype) -> tuple:
    return tuple(jnp.asarray(value, dtype) for _, value in zip(forms, values, strict=True))


def _sum_in_rows(values):
    """Σ values as a product of rows with ones, in which additions do not wait for each other as in a plain reduction."""
    if values.size % ROW:
        return jnp.sum(values)
    return jnp.sum(jnp.matmul(values.reshape(-1, ROW), jnp.ones(ROW, values.dtype), precision="highest"))


def _sum_in_blocks(values):
    """Σ values: sums of ``BLOCK`` numbers, sums of such sums, and from ``FEW`` numbers on additions whose errors are kept."""
    flat = values.reshape(-1)
    while flat.size > FEW:
        flat = jnp.concatenate([flat, jnp.zeros(-flat.size % BLOCK, flat.dtype)])
        flat = lax.optimization_barrier(jnp.sum(flat.reshape(BLOCK, -1), axis=0))
    lost = jnp.zeros((), flat.dtype)
    while flat.size > 1:
        flat = jnp.concatenate([flat, jnp.zeros(flat.size % 2, flat.dtype)])
        left, right = jnp.split(flat, 2)
        flat = left + right
        taken = flat - left
        lost += jnp.sum((left - (flat - taken)) + (right - taken))  # what rounding took from left + right, exactly
    return flat.reshape(()) + lost
