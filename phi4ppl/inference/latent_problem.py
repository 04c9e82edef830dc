"""The inference problem of a NumPyro model with latent fields: its data, their likelihood, and what its density lacks."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro.distributions import (
    ExpandedDistribution,
    ImproperUniform,
    Independent,
    MaskedDistribution,
    TransformedDistribution,
)

from ..energy.compiled import CompiledModel
from ..energy.exact.exact_log_z import exact_log_partition
from ..errors import ArgumentError
from ..model.term import is_concrete
from ..numpyro_plugin.gibbs_field import field_of
from ..numpyro_plugin.numpyro_model import trace_of
from ..numpyro_plugin.partly_observed import FIELD
from ..numpyro_plugin.pointwise_likelihood import mask_of

__all__ = ["LatentProblem"]

BATCH = 64  # draws worked on at once


class LatentProblem:
    """p(latent sites | data) of a compiled NumPyro model, in unconstrained coordinates, one flat vector a draw.

    Parameters
    ----------
    compiled : CompiledModel
    template : dict
        A position.
    model, args, kwargs
        The NumPyro model that was compiled.

    Attributes
    ----------
    names : tuple of str
        Latent sites of one number each: intercepts, scales and the like.
    sites : tuple of str
        All latent sites.
    log_normalizer : float or None
        log Z of the fields whose density lacks it. None where that is not known exactly, or a prior is not normalized, for the
        reason ``unknown``.
    """

    counted = "data"

    def __init__(self, compiled: CompiledModel, template: dict, model: Callable, args: tuple, kwargs: dict):
        self.compiled = compiled
        self.sites = tuple(template)
        self.names = tuple(name for name, value in template.items() if np.size(value) == 1)
        self._template, self._unravel = ravel_pytree(template)
        trace = trace_of(model, args, kwargs)
        self.log_normalizer, self.unknown = _log_normalizer(trace, self.sites)

    @property
    def title(self) -> str:
        return f"{', '.join(self.sites)}: {self.count} data"

    @property
    def data(self) -> dict[str, np.ndarray]:
        """Observed values by site, those that can be left out one by one."""
        return {name: np.asarray(values) for name, values in self.compiled.data.items()}

    @cached_property
    def count(self) -> int:
        """Number of data."""
        shapes = jax.eval_shape(self.compiled.log_likelihood, self._unravel(self._template)) if self.data else {}
        return sum(int(np.prod(shape.shape)) for shape in shapes.values())

    @property
    def model(self):
        raise ArgumentError(
            "posterior", "one of phi4ppl.infer_couplings", "one of a NumPyro model, which is no field with couplings",
            "Its draws are posterior.tree.", reason="latent",
        )  # fmt: skip

    def at(self, theta):
        return self.model

    @property
    def shapes(self):
        """Of what is kept of one draw: its values, log likelihoods and density, and the draw itself."""
        return jax.eval_shape(self._record, self._unravel(self._template)), self._template

    def records(self, draws: np.ndarray) -> tuple[dict, dict, np.ndarray]:
        """Values of all sites, log likelihoods of the data and log density, at every draw."""
        return self._over_draws(self._record, draws)

    def _record(self, position):
        likelihood = self.compiled.log_likelihood
        return (
            self.compiled.constrain(position), {} if likelihood is None else likelihood(position),
            self.compiled.logdensity_fn(position),
        )  # fmt: skip

    def _over_draws(self, function, draws: np.ndarray):
        """A function of a position at every draw, in batches."""

        def at_all(flat):
            return jax.lax.map(lambda one: function(self._unravel(one)), flat, batch_size=BATCH)

        return jax.tree.map(np.asarray, jax.jit(at_all)(jnp.asarray(draws, self._template.dtype)))

    def log_likelihood(self, draws: np.ndarray, log_partition=None) -> np.ndarray:
        """log p(datum | draw), shape (num_draws, num_data)."""
        if self.compiled.log_likelihood is None:
            raise ArgumentError(
                "posterior", "one with a likelihood of every datum", "one without",
                "; ".join(self.compiled.single_factors.values()) or "The model observes nothing.", reason="no_likelihood",
            )  # fmt: skip
        found = self._over_draws(self.compiled.log_likelihood, draws)
        return np.concatenate([found[name].reshape(len(draws), -1) for name in found], axis=1)


def _log_normalizer(sites: dict, latent: tuple[str, ...]) -> tuple[float | None, str]:
    """log Z of the fields, latent and observed, whose density lacks it; None and the reason where there is no evidence."""
    total = 0.0
    for name, site in sites.items():
        if site["type"] != "sample":
            continue
        known = (site["infer"] or {}).get(FIELD)
        if name in latent and known is None and (reason := _not_normalized(site)):
            return None, f"the prior of {name!r} {reason}"
        field = field_of(site["fn"])
        copies = 1.0 if field is None else np.size(site["value"]) / field.model.lattice.num_sites
        if field is None and name not in latent:
            field = known
        if field is None or field.log_partition is not None:
            continue
        report = field.model.check()
        exact = exact_log_partition(field.model) if report.is_normalizable else None
        if exact is None:
            lack = "is not known exactly" if report.is_normalizable else f"is infinite ({report.normalizable_reason})"
            return None, f"log Z of the field {name!r} {lack}: pass log_partition= to its GibbsField"
        total += exact.value * copies
    return total, ""


def _not_normalized(site: dict) -> str:
    """Why the prior of a latent site is no normalized density; empty if it is one."""
    distribution, mask = mask_of(site["fn"])
    if mask is not None and not (is_concrete(mask) and np.all(mask)):
        return "is masked, so that it is not normalized"
    if site["scale"] is not None:
        return "is scaled, so that it is not normalized"
    while isinstance(distribution, (ExpandedDistribution, Independent, MaskedDistribution, TransformedDistribution)):
        distribution = distribution.base_dist
    return "is improper" if isinstance(distribution, ImproperUniform) else ""
