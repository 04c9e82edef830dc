"""Fields of which some sites are observed and the others are not."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import distributions as dist
from numpyro import primitives
from numpyro.distributions import constraints

from .._typing import Labeled
from ..errors import ArgumentError, DrawNotAvailableError
from ..errors.arguments import call_checked
from ..lattice.labels import aligned_fields, is_labeled
from ..model.term import is_concrete
from .gibbs_field import GibbsField

__all__ = ["FIELD", "observe_field"]

FIELD = "phi4ppl_field"  # in ``infer`` of the sites that an observed field is made of


@call_checked
def observe_field(name: str, field: GibbsField, data: Labeled, *, mask=None) -> jax.Array:
    """Observe a field at some of its sites, inside a NumPyro model; the others are latent.

    p(observed, missing | θ) is the density of the whole field. The missing sites are a latent site ``name_missing``, one number
    each in the order of the lattice, so that the posterior integrates over them; couplings may be random with a
    ``log_partition``, as of any `GibbsField`. For fields that are observed with noise no helper is needed: observe
    ``dist.Normal(phi, noise)`` of a latent `GibbsField`, with NaN under ``numpyro.handlers.mask``.

    Parameters
    ----------
    name : str
        Of the whole field, a deterministic site.
    field : GibbsField
    data : array of shape ``field.event_shape``, or labeled
        With NaN, None or a masked entry of numpy.ma, or any number under ``mask``, where the field was not observed. In a JAX
        trace, such as one over many data sets, ``mask`` is required, and values are not checked.
    mask : array of bool, optional
        Where it was observed, labeled as ``data`` may be; by default where ``data`` is not missing.

    Returns
    -------
    array of shape ``field.event_shape``
        The whole field.

    Raises
    ------
    ArgumentError
        For data of another shape, for infinite or missing values where the mask says that they were observed, and inside a
        plate.

    Examples
    --------
    >>> import numpy as np, numpyro, numpyro.distributions as dist, phi4ppl as p4
    >>> pair = p4.gaussian(p4.lattice.chain(2, periodic=False), w=0.5, a=0.5)
    >>> def model():
    ...     p4.observe_field("phi", p4.GibbsField(pair), np.array([1.0, np.nan]))
    >>> tree = p4.sample(model, num_warmup=300, num_samples=500, progress=False)
    >>> bool(abs(tree["posterior"]["phi_missing"].mean() - 0.5) < 0.2)  # normal around w/2a of its neighbor
    True
    """
    if not isinstance(field, GibbsField):
        raise ArgumentError("field", "a GibbsField", type(field).__name__)
    if not isinstance(name, str) or not name:
        raise ArgumentError("name", "the name of the field", repr(name))
    _require_no_plate()
    values, seen = _data(field, data, mask)
    places = np.flatnonzero(~seen)
    flat = jnp.where(seen, values, 0.0).ravel().astype(jnp.result_type(float))
    if len(places):
        rest = _Rest(constraints.real_vector, (), (len(places),))
        missing = numpyro.sample(f"{name}_missing", rest, infer={FIELD: field})
        flat = flat.at[places].set(missing)
    phi = flat.reshape(field.event_shape)
    density = dist.Unit(field.log_prob(phi))  # what numpyro.factor does, with a note of the field
    numpyro.sample(f"{name}_density", density, obs=density.sample(None), infer={"is_auxiliary": True, FIELD: field})
    return numpyro.deterministic(name, phi)


class _Rest(dist.ImproperUniform):
    """No density of their own: that of the missing sites is part of the density of the field."""

    def sample(self, key, sample_shape=()):
        raise DrawNotAvailableError(
            "missing_sites",
            "the missing sites of an observed field have no draws without their data. Draw the whole field with its "
            "GibbsField, or give Predictive posterior_samples of them.",
        )


def _data(field: GibbsField, data, mask) -> tuple[np.ndarray | jax.Array, np.ndarray]:
    """Values, and where they were observed."""
    lattice = field.model.lattice
    if is_labeled(data):
        filled = getattr(data, "fillna", None)
        seen = aligned_fields("data", data.notnull().astype(float), lattice) > 0 if filled else None
        values = aligned_fields("data", filled(0.0) if filled else data, lattice)
        seen = np.ones(values.shape, bool) if seen is None else seen
    elif is_concrete(data):
        values = _numbers(data)
        seen = ~np.isnan(values)
    else:
        values, seen = data, np.ones(data.shape, bool)
        if mask is None or not is_concrete(mask):
            expected, fix = "numbers, or values in a JAX trace with a mask of numbers", "Pass mask."
            raise ArgumentError("data", expected, "values in a JAX trace", fix, reason="traced")
    if values.shape != field.event_shape:
        fix = "Observe several fields one by one, each under a name of its own."
        got = f"shape {values.shape}"
        raise ArgumentError("data", f"shape {field.event_shape}, one field", got, fix, reason="shape")
    if mask is not None:
        asked = _mask(mask, lattice)
        if asked.dtype != bool or asked.shape != values.shape:
            got = f"{asked.dtype} of shape {asked.shape}"
            raise ArgumentError("mask", f"an array of bool, of shape {values.shape}", got, reason="shape")
        if np.any(asked & ~seen):
            got = f"a missing one at {tuple(np.argwhere(asked & ~seen)[0].tolist())}"
            raise ArgumentError("data", "values where mask is True", got, reason="missing")
        seen = asked
    if is_concrete(values) and not np.all(np.isfinite(np.asarray(values)[seen])):
        raise ArgumentError("data", "finite values, or NaN", "an infinite one", reason="finite")
    return values, seen


def _numbers(data) -> np.ndarray:
    """An array without labels, NaN where an entry is missing, masked or None."""
    hidden = np.ma.getmaskarray(data) if isinstance(data, np.ma.MaskedArray) else False
    try:
        plain = np.asarray(data)
        if plain.dtype.kind in "cUSMm":
            raise TypeError
        values = plain.astype(float)
    except (TypeError, ValueError) as error:
        shown = repr(data)
        got = shown if len(shown) <= 80 else f"{shown[:77]}…"
        raise ArgumentError("data", "real numbers, or NaN", got, reason="numbers") from error
    return np.where(hidden, np.nan, values)


def _mask(mask, lattice) -> np.ndarray:
    """In the order of the lattice, if the mask has labels."""
    if not is_labeled(mask) or isinstance(mask, dict):
        return np.asarray(mask)
    if np.asarray(mask).dtype != bool:  # said to the user as of any other array
        return np.asarray(mask)
    return aligned_fields("mask", mask.astype(float), lattice) > 0


def _require_no_plate() -> None:
    plates = [handler.name for handler in primitives._PYRO_STACK if isinstance(handler, numpyro.plate)]
    if plates:
        fix = "Observe the copies in a loop, each under a name of its own."
        raise ArgumentError("observe_field", "no plate around it", f"plate {plates[0]!r}", fix, reason="plate")
