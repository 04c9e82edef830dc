"""The likelihood of a NumPyro model datum by datum where it factorizes, and the reason where it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import Independent, MaskedDistribution, Unit

__all__ = ["Pointwise", "mask_of", "parts", "pointwise"]


class Pointwise(NamedTuple):
    """The likelihoods of the observed sites of a NumPyro model, datum by datum.

    Attributes
    ----------
    log_likelihood : callable
        Values of all latent sites → log p(datum | latent sites) by site; entries that a mask leaves out are not there.
        For an observed field log p(φ_i | rest of the field), which is what leaving out φ_i takes.
    data : dict
        Site → the observed values, in the shape of its log likelihood (with the axes of an event behind them).
    kept : dict
        Site → flat places of the entries that its mask leaves in; only for masked sites.
    single : dict
        Observed site → why there is no log likelihood for each datum.
    """

    log_likelihood: Callable[[dict], dict[str, jax.Array]]
    data: dict[str, np.ndarray]
    kept: dict[str, np.ndarray]
    single: dict[str, str]


def pointwise(model, args, kwargs, sites: dict) -> Pointwise:
    """Look at the trace ``sites`` of a NumPyro model, with values for all its sites."""
    data, kept, single = {}, {}, {}
    observed = {name: site for name, site in sites.items() if site["type"] == "sample" and site["is_observed"]}
    for name, site in observed.items():
        reason = _single_factor(site)
        if reason:
            single[name] = reason
            continue
        values, mask = np.asarray(site["value"]), mask_of(site["fn"])[1]
        shape = jax.eval_shape(lambda s=site: parts(s)).shape
        if mask is not None:
            places = np.flatnonzero(np.broadcast_to(mask, shape))
            if not places.size:
                continue
            kept[name] = places
            values = values.reshape(-1, *values.shape[len(shape) :])[places]
        data[name] = values

    def log_likelihood(latent: dict) -> dict[str, jax.Array]:
        given = {name: value for name, value in latent.items() if name in sites and sites[name]["type"] == "sample"}
        filled = handlers.substitute(handlers.seed(model, jax.random.key(0)), data=given)
        found = handlers.trace(filled).get_trace(*args, **kwargs)
        values = {name: parts(found[name]) for name in data}
        return {name: value.reshape(-1)[kept[name]] if name in kept else value for name, value in values.items()}

    return Pointwise(log_likelihood, data, kept, single)


def mask_of(distribution):
    """The distribution inside its masks, and what they leave in: None if that is everything."""
    mask = None
    while isinstance(distribution, MaskedDistribution):
        mask = distribution._mask if mask is None else jnp.logical_and(mask, distribution._mask)
        distribution = distribution.base_dist
    return distribution, None if mask is True else mask


def _factor(site):
    """The distribution whose ``log_prob`` has one number per datum; whether one number is all there is.

    A plate, or an axis of the data beyond the distribution, defines what a datum is; without one, the independent parts of an
    event are the data.
    """
    distribution, _ = mask_of(site["fn"])
    lead = np.ndim(site["value"]) - distribution.event_dim
    if lead == 0:
        while isinstance(distribution, Independent):
            distribution = distribution.base_dist
    return distribution, np.ndim(site["value"]) == distribution.event_dim > 0


def _single_factor(site) -> str:
    """Why the log density of an observed site is one number, if so."""
    distribution, single = _factor(site)
    mask = mask_of(site["fn"])[1]
    if isinstance(distribution, Unit):
        return "numpyro.factor adds one number, not a density of single data: observe a distribution instead"
    if site["scale"] is not None:
        return "its log density is scaled, so it is not a likelihood of single data"
    if mask is not None and isinstance(mask, jax.core.Tracer):
        return "its mask is random"
    if not single:
        return ""
    if not hasattr(distribution, "conditional_log_prob"):
        return (
            f"{type(distribution).__name__} is one density of all {np.size(site['value'])} values: write it as independent "
            "parts given latent variables, or as a GibbsField, whose densities of one site given the rest are known"
        )
    own = [form.name for form in distribution.model.forms if not form.is_hopping and form.power not in (1, 2, 4)]
    if own:
        return f"the field has the term {own[0]!r}, for which the density of one site given the rest is not known"
    return ""


def parts(site) -> jax.Array:
    """log p(datum) for every datum of an observed site of a trace."""
    distribution, single = _factor(site)
    return distribution.conditional_log_prob(site["value"]) if single else distribution.log_prob(site["value"])
