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

from .._typing import Field, Scalar
from ..errors import ArgumentError
from ..lattice.frozen import Lattice
from ..model.field import MarkovRandomField, Structure
from ..model.statistic import SitePower, power_of
from ..model.term import TermForm, as_field
from .dense import dense_hopping
from .gather import gather_hopping
from .hopping import Hopping
from .stencil import stencil_hopping

__all__ = ["energy", "energy_change", "layout_of", "log_density"]

ROW = 16  # numbers added up by one row of a matrix product
BLOCK = 32  # summands that are added up one after the other
FEW = 1024


@dataclass(frozen=True)
class _Plan:
    """The terms of a model by how their energy is computed; keys are the places of their couplings."""

    hoppings: dict[int, Hopping]
    powers: dict[int, SitePower]  # θ Σ_i φ_i^k on all sites
    own: dict[int, Callable]  # field → one number per clique, by vmap
    layout: str


def energy(model: MarkovRandomField, phi: Field) -> Scalar:
    """S(φ; θ) of one field; ``model`` is a pytree whose leaves are the couplings, so one program serves all their values.

    Notes
    -----
    The energy has a custom derivative rule: with (Wφ)_i = Σ_j w_ij φ_j summed over the neighbors and b_k the coupling of
    the power k,

        S = Σ_i φ_i (Σ_k b_ki φ_i^(k−1) − ½ (Wφ)_i) + Σ_c θ_c T(φ_c),    ∂S/∂φ_i = Σ_k k b_ki φ_i^(k−1) − (Wφ)_i,

    so that energy and force share one Wφ. T stands for user-defined statistics, which are differentiated automatically. The
    derivative with respect to the model holds ∂S/∂θ, the statistics. Forward and reverse mode work, also one over the other.
    """
    plan, local = _compiled(model.structure)
    phi = _one_field(model.lattice, "phi", phi)
    values = _cast(model, phi.dtype)
    total = local(values, phi)
    for k, statistics in plan.own.items():
        total += jnp.sum(values[k] * statistics(phi))
    return total


def log_density(model: MarkovRandomField, phi: Field) -> Scalar:
    """−S(φ; θ), log p up to log Z: what `phi4ppl.compile` returns of a model and what kernels sample."""
    return -energy(model, phi)


def layout_of(model: MarkovRandomField) -> str:
    """How the neighbor sums of a model are computed: ``"stencil"``, ``"gather"`` or ``"dense"``."""
    return _compiled(model.structure)[0].layout


def energy_change(model: MarkovRandomField, new: Field, old: Field) -> Scalar:
    """S(new) − S(old) of two fields, accurate where both energies are large.

    Notes
    -----
    In float32 the energy of 1024×1024 sites is known to a few hundredths only, and so would be the difference of two. Here
    differences are formed before anything is summed, with d = new − old and s = (new + old)/2 at every site,

        ΔS = Σ_i d_i (r_i + 2a_i s_i + 2b_i s_i (new_i² + old_i²) + … − (Ws)_i) + Σ_c θ_c [T(new_c) − T(old_c)],

    which is exact for the built-in terms and free of cancellation; the sum then goes block by block. The result can be no
    finer than one rounding of ΔS itself. It is infinite or NaN where a field is.
    """
    plan, _ = _compiled(model.structure)
    shape = model.field_shape
    new, old = _one_field(model.lattice, "new", new), _one_field(model.lattice, "old", old)
    values = _cast(model, jnp.result_type(new, old))
    difference, middle = new - old, (new + old) / 2
    slope = jnp.zeros_like(middle)
    for k, statistic in plan.powers.items():
        slope += _on_sites(values[k], shape) * statistic.difference(new, old)
    for k, hopping in plan.hoppings.items():
        slope -= _neighbor_sum(hopping, values[k], middle)
    total = _sum_in_blocks(difference * slope)
    for k, statistics in plan.own.items():
        total += _sum_in_blocks(values[k] * (statistics(new) - statistics(old)))
    return total


@functools.lru_cache(maxsize=64)
def _compiled(structure: Structure) -> tuple[_Plan, Callable]:
    plan = _plan(*structure)
    return plan, _local_energy(plan)


def _plan(lattice: Lattice, forms: tuple) -> _Plan:
    hoppings, powers, own = {}, {}, {}
    sites = np.arange(lattice.num_sites)[:, None]
    for k, form in enumerate(forms):
        if form.is_hopping:
            hoppings[k] = _hopping(lattice, form.cliques)
        elif form.power and np.array_equal(form.cliques, sites):
            powers[k] = form.built_in
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
        """Σ_i of the energy, its slope at every site, and the neighbor sums Σ_j φ_j of hoppings with one coupling.

        The energy follows from the slope by Euler's identity for homogeneous functions, φ ∂T/∂φ = kT for a term of degree k:

            Σ_i φ_i ∂S/∂φ_i = 2 S_hopping + Σ_k k Σ_i θ φ_i^k,    so S = Σ_i (½ φ_i ∂S/∂φ_i + Σ_k (1 − k/2) θ φ_i^k).

        Only the slope needs the neighbors, whose sum a compiler would otherwise do twice; ``rest`` is the second part, divided
        by φ. Dictionaries have the places of the couplings in ``values`` as keys.
        """
        sums, slope, rest = {}, None, None
        for k, hopping in plan.hoppings.items():
            if values[k].ndim == 0:
                sums[k] = hopping.plain(phi)
            slope = _plus(slope, -values[k] * sums[k] if k in sums else -hopping.weighted(values[k], phi))
        for k, statistic in plan.powers.items():
            power = statistic.power
            term = _on_sites(values[k], phi.shape) * (power_of(phi, power - 1) if power > 1 else jnp.ones_like(phi))
            slope = _plus(slope, power * term)
            rest = rest if power == 2 else _plus(rest, (1 - power / 2) * term)
        slope = jnp.zeros_like(phi) if slope is None else slope
        return _sum_in_rows(phi * _plus(rest, slope / 2)), slope, sums

    @jax.custom_jvp
    def local(values, phi):
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
                tangent += jnp.sum(change * plan.powers[k](phi).reshape(change.shape or phi.shape))
        return total, tangent

    local.defjvp(rule, symbolic_zeros=True)
    return local


def _neighbor_sum(hopping: Hopping, w, phi):
    return w * hopping.plain(phi) if w.ndim == 0 else hopping.weighted(w, phi)


def _plus(total, term):
    return term if total is None else total + term


def _on_sites(coupling, shape):
    return coupling if coupling.ndim == 0 else coupling.reshape(shape)


def _one_field(lattice: Lattice, name: str, phi):
    phi = as_field(phi, name, lattice)
    if phi.shape != lattice.field_shape:
        expected = f"one field of shape {lattice.field_shape}"
        raise ArgumentError(name, expected, f"shape {phi.shape}", "Use vmap for batches.", reason="shape")
    return phi


def _cast(model: MarkovRandomField, dtype) -> tuple:
    return tuple(jnp.asarray(value, dtype) for _, value in model.interactions)


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
