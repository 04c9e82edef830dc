"""Pure functions of one field, streamed during a run."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ..energy.functions import energy
from ..errors import ArgumentError
from ..errors.arguments import call_checked
from ..lattice.frozen import Lattice
from ..model.field import MarkovRandomField
from ..model.term import Term, hopping
from .named import measured_for

__all__ = ["NAMES", "standard_observables", "with_own"]

REAL = (jnp.float16, jnp.float32, jnp.float64)  # what files can hold

NAMES = {
    "magnetization": "m = (1/V) Σ φ_i",
    "abs_magnetization": "|m|",
    "energy_density": "S/V",
    "phi_squared": "(1/V) Σ φ_i²",
    "phi_fourth": "(1/V) Σ φ_i⁴",
    "neighbor_correlation": 'mean of φ_i φ_j over the nearest-neighbor edges (kind "nn"; all edges where there is none)',
}


@call_checked
def standard_observables(model: MarkovRandomField) -> dict[str, Callable]:
    """The observables that every run of a field records, by name (`NAMES` has their formulas).

    Each is a function of one field of shape ``model.field_shape`` that returns a scalar.

    Examples
    --------
    >>> import jax.numpy as jnp, phi4ppl as p4
    >>> measure = p4.observables.standard_observables(p4.phi4(p4.lattice.square(4), a=1.5, b=0.2))
    >>> float(measure["energy_density"](jnp.ones((4, 4))).round(4))
    -0.3
    """
    num_sites = model.lattice.num_sites
    return {**_without_couplings(model.lattice), "energy_density": lambda phi: energy(model, phi) / num_sites}


@functools.lru_cache(maxsize=64)  # the same functions every time, so that compiled programs are found again
def _without_couplings(lattice: Lattice) -> dict[str, Callable]:
    edges = lattice.edges_of("nn") if "nn" in lattice.kinds else lattice.edges
    observables = {
        "magnetization": lambda phi: jnp.mean(phi),
        "abs_magnetization": lambda phi: jnp.abs(jnp.mean(phi)),
        "phi_squared": lambda phi: jnp.mean(phi**2),
        "phi_fourth": lambda phi: jnp.mean(phi**4),
    }
    if len(edges):
        # one hopping term of unit coupling: minus its energy is Σ φ_i φ_j, in the fast layout of the lattice
        aligned = MarkovRandomField(lattice, [Term("edges", edges, hopping, 1.0)])
        observables["neighbor_correlation"] = lambda phi: -energy(aligned, phi) / len(edges)
    for function in observables.values():
        function.coupling_free = True  # type: ignore[attr-defined]  # programs that record only these are shared by all couplings
    return observables


@call_checked
def with_own(model: MarkovRandomField, own, taken=()) -> dict[str, Callable]:
    """Standard, named and user-defined observables, checked; ``taken`` are names that the last cannot have.

    ``own`` is a list of names that `phi4ppl.analysis.quantity_names` lists, or a dict of functions and such names.

    Raises
    ------
    ArgumentError
        If a name is taken, unknown or no identifier, or a function cannot be traced or does not return one real array.
    """
    observables = standard_observables(model)
    if own is None:
        return observables
    named, own = _named(model, own)
    observables |= named
    require_functions(
        own, jax.ShapeDtypeStruct(model.field_shape, jnp.result_type(float)), (*observables, "phi", *taken)
    )
    return observables | own


def require_functions(own: dict, field: jax.ShapeDtypeStruct, taken) -> None:
    """Raise `ArgumentError` unless all are traceable functions of one field that return one real array, under new names."""
    for name, function in own.items():
        if not isinstance(name, str) or not name.isidentifier() or name in taken:
            fix = "Standard observables, the field and dimensions keep their names."
            raise ArgumentError("observables", "new names that are Python identifiers", repr(name), fix, reason="name")
        what = f"observable {name!r}"
        expected = f"a JAX function of one field of shape {field.shape}"
        if not callable(function):
            raise ArgumentError(what, expected, repr(function))
        try:
            result = jax.eval_shape(function, field)
        except Exception as error:  # the user should read whatever the function raises under tracing
            reason = str(error).strip().split("\n")[0]
            fix = "Write it with jax.numpy."
            raise ArgumentError(what, expected, f"{type(error).__name__}: {reason}", fix, reason="raises") from error
        if not hasattr(result, "shape") or result.dtype not in REAL or 0 in result.shape:
            fix = "End it with .astype(float) for counts and truth values."
            if hasattr(result, "dtype") and jnp.issubdtype(result.dtype, jnp.complexfloating):
                fix = "Record its real and imaginary parts as two observables: f(phi).real and f(phi).imag."
            raise ArgumentError(what, "one array of real numbers returned", f"{result}", fix, reason="returns")


def _named(model: MarkovRandomField, own) -> tuple[dict[str, Callable], dict[str, Callable]]:
    """What is recorded for the names among the observables that a user gives, and the functions among them."""
    if isinstance(own, (list, tuple)) and all(isinstance(each, str) for each in own):
        own = {name: name for name in own}
    if not isinstance(own, dict):
        fix = "For example ['structure_factor'], or {'binder_m4': lambda phi: phi.mean()**4}."
        raise ArgumentError("observables", "names, or a dict of functions of one field", type(own).__name__, fix)
    names = [name for name, function in own.items() if isinstance(function, str)]
    for name in names:
        if own[name] != name:
            fix = f"Ask for it as ['{own[name]}']; it is recorded under that name."
            raise ArgumentError(
                "observables", "named observables under their own names", repr(name), fix, reason="name"
            )
    found = {key: f for name in names for key, f in measured_for(name, model).items()}
    return found, {name: function for name, function in own.items() if name not in names}
