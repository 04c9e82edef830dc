"""One function for models of any library: `read`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...errors import ArgumentError
from ...errors.arguments import call_checked
from ...model.field import MarkovRandomField
from ...networks.machine import RestrictedBoltzmannMachine
from .equinox_models import from_equinox
from .flax_models import from_flax, from_nnx
from .own_models import from_machine, from_model
from .sklearn_models import from_sklearn

__all__ = ["read"]

KINDS = "a module of Flax or Equinox, an estimator of scikit-learn, a machine or a model of this library"


@call_checked
def read(model, variables=None) -> tuple[Callable, Any]:
    """A model of any library that is known as ``apply, params``, which every function of this package takes.

    Parameters
    ----------
    model : object
        A Flax module (see `from_flax` and `from_nnx`), an Equinox module (`from_equinox`), a fitted scikit-learn estimator or
        pipeline (`from_sklearn`), a machine or a stack of them (`from_machine`), or a lattice model (`from_model`).
    variables : optional
        Of a Flax linen module what ``init`` returns; of an Equinox model its state.

    Returns
    -------
    apply : callable
        ``apply(params, x) -> {"layer": values, …}``.
    params : pytree

    Raises
    ------
    ArgumentError
        If the model is of no kind that is known.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> apply, params = p4.lens.read(p4.gaussian(p4.lattice.chain(4), w=0.5, a=1.0))
    >>> list(p4.lens.layers(apply, params, np.ones((2, 4))))
    ['field', 'force', 'action']
    """
    homes = {base.__module__ for base in type(model).__mro__}

    def is_of(package: str) -> bool:
        return any(home == package or home.startswith(f"{package}.") for home in homes)

    if is_of("flax.linen"):
        return from_flax(model, variables)
    if is_of("equinox"):
        return from_equinox(model, variables)
    if variables is not None:
        got = f"some beside a {type(model).__name__}"
        raise ArgumentError("variables", "None but for Flax linen and Equinox", got, "Leave it out.", reason="unused")
    if is_of("flax.nnx"):
        return from_nnx(model)
    if isinstance(model, MarkovRandomField):
        return from_model(model)
    if isinstance(model, RestrictedBoltzmannMachine) or hasattr(model, "machine_") or hasattr(model, "machines_"):
        return from_machine(model)
    if is_of("sklearn"):
        return from_sklearn(model)
    fix = "Of others write apply(params, x), which returns a dict from names of layers to arrays of one row an example."
    raise ArgumentError("model", KINDS, f"a {type(model).__name__}", fix)
