"""Quantities by name: what physicists ask of a run, each a function of means with its formula.

V is the number of sites, m the magnetization, e = S/V, F the structure factor at the smallest momentum 2π/L.
Full, connected and disconnected parts add up: χ = V⟨m²⟩ = V(⟨m²⟩ − ⟨|m|⟩²) + V⟨|m|⟩², and so do those of two-point functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ..errors import ArgumentError
from ..lattice.frozen import Lattice
from ..model.field import MarkovRandomField
from .cluster_estimators import require_clusters
from .primaries import Runs
from .two_point import TWO_POINT, smallest_lattice_momentum, two_point
from .walls import WALLS, function_of_field

__all__ = ["QUANTITIES", "Quantity", "as_functions", "measured_for", "quantity_names"]


class Quantity(NamedTuple):
    """A named function of means.

    Attributes
    ----------
    formula : str
    function : callable
        ``function(m, lattice)`` of the means by name and the lattice of the run.
    measured : tuple of str
        Two-point functions and walls among these means, which ``observables=`` of `phi4ppl.sample` records.
    needs_lattice : bool
    """

    formula: str
    function: Callable
    measured: tuple[str, ...] = ()
    needs_lattice: bool = True


def _correlation_length(m, lattice: Lattice):
    two_point("smallest_momentum", lattice)  # refuses what has none
    ratio = lattice.num_sites * m["m2"] / m["smallest_momentum"]
    return jnp.sqrt(ratio - 1) / smallest_lattice_momentum(lattice)


def _improved(name: str) -> tuple[str, Quantity]:
    """The quantity of means over the signs of clusters in place of plain ones."""
    plain, needed = QUANTITIES[name], IMPROVED[name]

    def function(m, lattice: Lattice):
        return plain.function({each: m[f"improved_{each}"] for each in needed}, lattice)

    return f"improved_{name}", Quantity(
        f"{plain.formula}, by cluster", function, tuple(f"improved_{n}" for n in needed)
    )


def _connected(name: str, share: Callable[[Lattice], float | np.ndarray]) -> Callable:
    """``name`` without the part of a constant field |m|, which is ``share`` times ⟨|m|⟩²."""

    def connected(m, lattice: Lattice):
        return m[name] - jnp.multiply.outer(jnp.asarray(m["abs_m"]) ** 2, jnp.asarray(share(lattice)))

    return connected


def _at_zero(lattice: Lattice) -> np.ndarray:
    """What a constant field of 1 has of the structure factor."""
    number = len(two_point("structure_factor", lattice).points[0])
    return lattice.num_sites * np.eye(1, number)[0]


def _everywhere(name: str, value: Callable[[Lattice], float]) -> Callable[[Lattice], np.ndarray]:
    return lambda lattice: np.full([len(x) for x in two_point(name, lattice).points], value(lattice))


def _area(lattice: Lattice) -> float:
    return lattice.num_sites / max(lattice.field_shape)


CONSTANT = {
    "structure_factor": _at_zero,
    "correlation_function": _everywhere("correlation_function", lambda lattice: 1.0),
    "axis_correlation_function": _everywhere("axis_correlation_function", lambda lattice: 1.0),
    "radial_correlation_function": _everywhere("radial_correlation_function", lambda lattice: 1.0),
    "graph_distance_correlation": _everywhere("graph_distance_correlation", lambda lattice: 1.0),
    "time_slice_correlator": _everywhere("time_slice_correlator", _area),
}
"""Two-point functions with a connected part, and what a constant field of 1 has of them."""

IMPROVED = {
    "susceptibility": ("m2",),
    "binder_cumulant": ("m2", "m4"),
    "second_moment_correlation_length": ("m2", "smallest_momentum"),
}
"""Quantities whose means clusters improve, and these means."""

QUANTITIES: dict[str, Quantity] = {
    **{name: Quantity(formula, lambda m, lattice, name=name: m[name], needs_lattice=False) for name, formula in {
        "m": "⟨m⟩", "abs_m": "⟨|m|⟩", "m2": "⟨m²⟩", "m4": "⟨m⁴⟩", "m6": "⟨m⁶⟩", "e": "⟨S⟩/V", "e2": "⟨S²⟩/V²",
    }.items()},
    "susceptibility": Quantity("χ = V ⟨m²⟩", lambda m, lattice: lattice.num_sites * m["m2"]),
    "connected_susceptibility": Quantity(
        "V (⟨m²⟩ − ⟨|m|⟩²)", lambda m, lattice: lattice.num_sites * (m["m2"] - m["abs_m"] ** 2)),
    "disconnected_susceptibility": Quantity("V ⟨|m|⟩²", lambda m, lattice: lattice.num_sites * m["abs_m"] ** 2),
    "binder_cumulant": Quantity(
        "U₄ = 1 − ⟨m⁴⟩/(3 ⟨m²⟩²)", lambda m, lattice: 1 - m["m4"] / (3 * m["m2"] ** 2), needs_lattice=False),
    "specific_heat": Quantity(
        "(⟨S²⟩ − ⟨S⟩²)/V", lambda m, lattice: lattice.num_sites * (m["e2"] - m["e"] ** 2)),
    "second_moment_correlation_length": Quantity(
        "ξ = (χ/F − 1)^½ / k̂, with k̂ = 2 sin(π/L) on square lattices", _correlation_length, ("smallest_momentum",)),
    "correlation_length_ratio": Quantity(
        "ξ/L", lambda m, lattice: _correlation_length(m, lattice) / max(lattice.field_shape), ("smallest_momentum",)),
    **{name: Quantity(formula, lambda m, lattice, name=name: m[name], (name,), False)
       for name, (formula, _) in TWO_POINT.items()},
    **{name: Quantity(formula, lambda m, lattice, name=name: m[name], (name,), False)
       for name, (formula, _) in WALLS.items()},
    **{f"connected_{name}": Quantity(f"{name}, less that of a constant field ⟨|m|⟩", _connected(name, share), (name,))
       for name, share in CONSTANT.items()},
}  # fmt: skip
"""Quantities by name, which `phi4ppl.analysis.derive` takes."""

QUANTITIES |= dict(map(_improved, IMPROVED))


def quantity_names() -> dict[str, str]:
    """Names that `derive` and ``observables=`` of `phi4ppl.sample` take, each with its formula.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> p4.analysis.quantity_names()["binder_cumulant"]
    'U₄ = 1 − ⟨m⁴⟩/(3 ⟨m²⟩²)'
    """
    return {name: quantity.formula for name, quantity in QUANTITIES.items()}


def as_functions(quantities, structure: Runs) -> dict[str, Callable]:
    """Functions of the means from what `derive` takes; names of several runs give one quantity per run, ``NAME[RUN]``."""
    if isinstance(quantities, (str, list, tuple)):
        listed = [quantities] if isinstance(quantities, str) else quantities
        if not all(isinstance(each, str) or callable(each) for each in listed):
            fix = "For example ['binder_cumulant', 'susceptibility']."
            raise ArgumentError("quantities", "names and functions of the means", repr(listed)[:80], fix)
        quantities = {each if isinstance(each, str) else getattr(each, "__name__", "quantity"): each for each in listed}
        if len(quantities) < len(listed):
            fix = "Give functions of one name in a dict, each under its own."
            raise ArgumentError("quantities", "different names", repr(listed)[:80], fix, reason="duplicate")
    if not isinstance(quantities, Mapping) or not quantities:
        fix = "For example ['binder_cumulant'] or {'U4': lambda m: 1 - m['m4'] / (3 * m['m2'] ** 2)}."
        raise ArgumentError("quantities", "names, or a dict of functions of the means", repr(quantities)[:80], fix)
    found: dict[str, Callable] = {}
    for name, function in quantities.items():
        found |= {name: function} if callable(function) else _named(name, function, structure)
    return found


def _named(name: str, quantity: str, structure: Runs) -> dict[str, Callable]:
    if quantity not in QUANTITIES:
        fix = "phi4ppl.analysis.quantity_names() has their formulas; any other is a function of the means."
        raise ArgumentError("quantities", f"one of {', '.join(QUANTITIES)}", repr(quantity), fix, reason="name")
    found = QUANTITIES[quantity]

    def at(run, means):
        return found.function(means, run.lattice_for(quantity) if found.needs_lattice else None)

    if structure.keys is None:
        return {name: lambda m: at(structure.runs[0], m)}
    return {
        f"{name}[{key}]": lambda m, key=key, run=run: at(run, m[key])
        for key, run in zip(structure.keys, structure.runs, strict=True)
    }


def measured_for(name: str, model: MarkovRandomField) -> dict[str, Callable]:
    """Functions of one field to record for ``name``: two-point functions, walls, or those that a quantity is made of.

    Raises
    ------
    ArgumentError
        If the name is unknown, or needs what the lattice or the model does not have.
    """
    if name not in QUANTITIES:
        fix = "Give any other as a function: {'NAME': lambda phi: …}."
        raise ArgumentError("observables", f"names among {', '.join(QUANTITIES)}", repr(name), fix, reason="name")
    if name.startswith("improved_"):
        require_clusters(name, model)
    return {each: function_of_field(each, model.lattice) for each in QUANTITIES[name].measured}
