"""Where the chains of a run begin: values that the user gives, checked and put in place."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ..energy.compiled import CompiledModel
from ..errors import ArgumentError
from ..errors.arguments import finite_array
from ..lattice.labels import aligned_fields, is_labeled

__all__ = ["begun", "starts_of"]


def begun(start) -> dict:
    """What the settings of a run say of where it began."""
    return {} if start is None else {"start": sorted(start)}


def starts_of(compiled: CompiledModel, start, num_chains: int) -> Callable | None:
    """``place(positions)``: the starts of all chains with the values of ``start`` in them; None without such values.

    Parameters
    ----------
    compiled : CompiledModel
    start : dict or None
        Constrained values by site: one for all chains, or with a leading axis one for each. A field by itself is ``"phi"``.
    num_chains : int

    Raises
    ------
    ArgumentError
        For names that are no latent site, values of another shape, and values outside the support of their site.
    """
    if start is None:
        return None
    if not isinstance(start, dict) or not start:
        fix = "A field by itself is {'phi': values}."
        raise ArgumentError("start", "a dict of values by latent site", repr(start), fix)
    one = jax.eval_shape(compiled.initial_position, jax.random.key(0))
    shapes = {name: value.shape for name, value in jax.eval_shape(compiled.constrain, one).items()}
    latent = ("phi",) if compiled.model is not None else tuple(one)
    values = {}
    for name, value in start.items():
        if name not in latent:
            known = ", ".join(map(repr, latent))
            raise ArgumentError("start", f"latent sites of the model: {known}", repr(name), reason="name")
        values[name] = _per_chain(f"start of {name!r}", value, shapes[name], compiled.fields.get(name), num_chains)

    def place(positions):
        placed, inside = jax.vmap(compiled.replace_values)(positions, values)
        for name, good in inside.items():
            if not np.all(good):
                first = int(np.argmin(good))
                got = f"{np.asarray(values[name][first]).tolist()}".replace("\n", " ")
                got = got if len(got) <= 80 else got[:77] + "…"
                fix = "Start inside the support, not at its boundary."
                raise ArgumentError(
                    f"start of {name!r}", "values inside the support of the site", got, fix, reason="support"
                )
        return placed

    return place


def _per_chain(name: str, value, shape: tuple[int, ...], field, num_chains: int) -> jax.Array:
    """The values of all chains, shape (num_chains, *shape)."""
    if field is not None and is_labeled(value):
        array = aligned_fields(name, value, field.lattice)
    else:
        array = finite_array(name, value)
    if array.shape not in (shape, (num_chains, *shape)):
        expected = f"shape {shape}, or {(num_chains, *shape)} with one value per chain"
        raise ArgumentError(name, expected, f"shape {array.shape}", reason="shape")
    return jnp.broadcast_to(jnp.asarray(array, jnp.result_type(float)), (num_chains, *shape))
