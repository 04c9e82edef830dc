"""Observed data of NumPyro models as arrays.

Pandas and xarray objects are converted; missing values, and sites in another order than those of a field, are rejected.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from numpyro.primitives import Messenger

from ..errors import ArgumentError
from ..errors.arguments import finite_array, is_pandas, pandas_numbers, present, refuse_missing
from ..lattice.labels import aligned_fields, is_labeled, require_nodes_in_order
from .pointwise_likelihood import mask_of

__all__ = ["require_order_of_sites", "with_plain_observations"]

LABELS = "phi4ppl_labels"  # of the observed data of a site, in its ``infer``
ALTERNATIVES = "Remove the data, fill them in, mask them (numpyro.handlers.mask), or make them latent by omitting obs."


def with_plain_observations(model: Callable, field_of: Callable) -> Callable:
    """The same NumPyro model, with the values of its observed sites as arrays.

    Parameters
    ----------
    model : callable
    field_of : callable
        Distribution → the `MarkovRandomField` behind it, or None: data of a field are put in the order of its lattice.
    """

    @functools.wraps(model)
    def plain(*args, **kwargs):
        with _Observations(field_of):
            return model(*args, **kwargs)

    return plain


class _Observations(Messenger):
    """Convert observed values before any other handler outside the model sees them."""

    def __init__(self, field_of: Callable):
        super().__init__()
        self.field_of = field_of

    def process_message(self, msg):
        if msg["type"] != "sample" or not msg.get("is_observed") or isinstance(msg["value"], jax.core.Tracer):
            return
        name, value = f"obs of {msg['name']!r}", msg["value"]
        field = self.field_of(msg["fn"])
        if is_labeled(value) and field is not None:
            msg["value"] = aligned_fields(name, value, field.lattice, ALTERNATIVES)
            return
        if is_labeled(value) and not isinstance(value, list | tuple):
            msg["infer"] = dict(msg.get("infer") or {}) | {LABELS: value}
        numbers, missing = _numbers(name, value)
        refuse_missing(name, missing & _kept(msg["fn"], missing.shape), ALTERNATIVES)
        msg["value"] = _filled(msg["fn"], numbers, missing) if missing.any() else numbers


def _numbers(name: str, value) -> tuple:
    """The observed value as an array, and where it is missing."""
    if isinstance(value, np.ma.MaskedArray):
        return np.asarray(value), np.ma.getmaskarray(value)
    if is_pandas(value):
        return pandas_numbers(name, value), np.asarray(value.isna())
    if isinstance(value, dict | xr.Dataset | xr.DataTree):
        raise ArgumentError(name, "an array, a Series or a DataArray", f"a {type(value).__name__}")
    if isinstance(value, xr.DataArray):
        value = value.values
    elif not isinstance(value, jax.Array | np.ndarray):
        value = np.asarray(present(name, value, ALTERNATIVES))
    if value.dtype.kind in "OcUSMm":  # no real numbers: refused in words
        return finite_array(name, value, ALTERNATIVES), np.zeros(value.shape, bool)
    return value, np.isnan(np.asarray(value, float)) if jnp.issubdtype(value.dtype, jnp.floating) else np.zeros(
        value.shape, bool
    )


def _kept(distribution, shape: tuple[int, ...]) -> np.ndarray:
    """Data that the masks of a distribution keep; none if the masks are not known before the model runs."""
    inside, mask = mask_of(distribution)
    if mask is None or isinstance(mask, jax.core.Tracer):
        return np.full(shape, mask is None)
    mask = np.asarray(mask, bool)
    return np.broadcast_to(mask.reshape(mask.shape + (1,) * inside.event_dim), shape)


def _filled(distribution, numbers, missing: np.ndarray):
    """Any possible value where data are missing: a mask ignores it there, but NumPyro checks it."""
    try:
        possible = mask_of(distribution)[0].support.feasible_like(jnp.zeros(numbers.shape))
    except NotImplementedError:
        return numbers
    numbers = jnp.asarray(numbers)
    return jnp.where(missing, possible.astype(numbers.dtype), numbers)


def require_order_of_sites(sites: dict, field_of: Callable) -> None:
    """Reject observed data whose labels are the nodes of a field of the model in another order.

    Parameters
    ----------
    sites : dict
        A trace of a model of `with_plain_observations`.
    """
    samples = [site for site in sites.values() if site["type"] == "sample"]
    lattices = [field.lattice for site in samples if (field := field_of(site["fn"])) is not None]
    for site in samples:
        if (labeled := site["infer"].get(LABELS)) is not None:
            for lattice in lattices:
                require_nodes_in_order(f"obs of {site['name']!r}", labeled, lattice)


def refuse_tables(args, kwargs, error: TypeError) -> None:
    """Say what to do, if JAX failed in a model that was given tables: it takes them as data, but cannot compute with them."""
    given = {f"args[{k}]": value for k, value in enumerate(args)} | dict(kwargs)
    table = next((name for name, value in given.items() if is_pandas(value) or isinstance(value, xr.DataArray)), None)
    if table is not None:
        got = f"a {type(given[table]).__name__}, with which the model failed: {str(error).splitlines()[0]}"
        raise ArgumentError(
            table, "an array, because it is used for more than observed data", got, "Pass its .to_numpy()."
        ) from error
