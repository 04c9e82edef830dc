"""Predictions of a NumPyro model from its prior and its posterior, and the density of its priors, as groups for ArviZ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from numpyro import handlers
from numpyro.distributions import Unit
from numpyro.infer import Predictive

from ..energy.compiled import CompiledModel
from ..errors import Phi4pplWarning, warn
from ..errors.streams import stream_key
from ..numpyro_plugin.gibbs_field import field_of
from ..numpyro_plugin.numpyro_model import trace_of
from ..sampling.memory import require_memory
from .datatree import add_group
from .settings import add_settings, mark_groups

__all__ = ["Predictions", "predictions_of"]

BATCH = 64  # draws worked on at once


@dataclass(frozen=True)
class Predictions:
    """What will be predicted of one model.

    Attributes
    ----------
    latent, deterministic, redrawn : tuple of str
        Sites; ``redrawn`` are the observed ones that can be drawn again.
    observed : dict
        Values of the redrawn sites whose data are not in the tree already, because they are one single factor.
    kept : dict
        Site → the number of axes of one datum, and flat places of the data that a mask leaves in.
    has_prior : bool
        Whether every latent site can be drawn from the prior.
    notes : tuple of str
        What is left out, and what the densities lack.
    """

    model: Callable
    args: tuple
    kwargs: dict
    latent: tuple[str, ...]
    deterministic: tuple[str, ...]
    redrawn: tuple[str, ...]
    observed: dict[str, np.ndarray]
    kept: dict[str, tuple[int, np.ndarray]]
    has_prior: bool
    notes: tuple[str, ...]

    def add_to(self, tree: xr.DataTree, frame: tuple[dict, dict], seed: int) -> xr.DataTree:
        """Add ``posterior_predictive``, ``prior``, ``prior_predictive`` and ``log_prior`` to the tree of a run."""
        posterior = {n: jnp.asarray(tree["posterior"][n].transpose("chain", "draw", ...).values) for n in self.latent}
        chains_draws = tree["posterior"].sizes["chain"], tree["posterior"].sizes["draw"]
        key = stream_key(seed, "predictions")
        model = _redrawn(self.model, self.redrawn)
        if self.redrawn:
            predict = Predictive(model, posterior, return_sites=self.redrawn, batch_ndims=2)
            predicted = predict(jax.random.fold_in(key, 0), *self.args, **self.kwargs)
            add_group(tree, frame, "posterior_predictive", self._data(predicted))
            add_group(tree, frame, "observed_data", self.observed, ())
        if self.has_prior:
            count, sites = int(np.prod(chains_draws)), (*self.latent, *self.deterministic, *self.redrawn)
            predict = Predictive(model, num_samples=count, return_sites=sites)
            drawn = predict(jax.random.fold_in(key, 1), *self.args, **self.kwargs)
            drawn = {name: np.asarray(v).reshape(*chains_draws, *v.shape[1:]) for name, v in drawn.items()}
            add_group(tree, frame, "prior", {name: drawn[name] for name in (*self.latent, *self.deterministic)})
            add_group(tree, frame, "prior_predictive", self._data({name: drawn[name] for name in self.redrawn}))
        flat = {name: values.reshape(-1, *values.shape[2:]) for name, values in posterior.items()}
        densities = jax.jit(lambda draws: jax.lax.map(self._log_prior, draws, batch_size=BATCH))(flat)
        add_group(tree, frame, "log_prior", {n: np.asarray(v).reshape(chains_draws) for n, v in densities.items()})
        add_settings(tree, {"predictive": list(self.notes)})
        mark_groups(tree)
        return tree

    def _data(self, predicted: dict) -> dict[str, np.ndarray]:
        """Predictions in the shape of the data: of masked ones those that are left in."""
        found = {name: np.asarray(values) for name, values in predicted.items()}
        for name in found.keys() & self.kept.keys():
            inner, places = self.kept[name]
            values = found[name]
            found[name] = values.reshape(*values.shape[:2], -1, *values.shape[values.ndim - inner :])[:, :, places]
        return found

    def _log_prior(self, latent: dict) -> dict[str, jax.Array]:
        filled = handlers.substitute(handlers.seed(self.model, jax.random.key(0)), data=latent)
        sites = handlers.trace(filled).get_trace(*self.args, **self.kwargs)
        return {name: _log_density(sites[name]) for name in self.latent}


def predictions_of(
    compiled: CompiledModel, model: Callable, args: tuple, kwargs: dict, num_chains: int, num_samples: int
) -> Predictions:
    """Look at a NumPyro model before it is sampled: what can be predicted, and whether it fits in memory.

    Raises
    ------
    MemoryLimitError
        If draws and predictions together would not fit.
    """
    sites = trace_of(model, args, kwargs)
    samples = {n: s for n, s in sites.items() if s["type"] == "sample" and not isinstance(s["fn"], Unit)}
    latent = {n: s for n, s in samples.items() if not s["is_observed"]}
    observed = {n: s for n, s in samples.items() if s["is_observed"]}
    deterministic = tuple(n for n, s in sites.items() if s["type"] == "deterministic")
    fixed = _not_drawable(model, args, kwargs, {name: site["value"] for name, site in latent.items()})
    redrawn = tuple(n for n in observed if n not in fixed and (n in compiled.data or n in compiled.single_factors))
    notes, missing = [], [name for name in latent if name in fixed]
    if missing:
        notes.append(
            f"no groups prior and prior_predictive: {', '.join(map(repr, missing))} cannot be drawn from the prior "
            f"({fixed[missing[0]]})"
        )
    notes += [f"observed site {n!r} is not predicted: it cannot be drawn ({fixed[n]})" for n in observed if n in fixed]
    for note in notes:
        warn(Phi4pplWarning("predictive.incomplete", f"predictive: {note}"))
    bare = [n for n, s in latent.items() if field_of(s["fn"]) is not None and field_of(s["fn"]).log_partition is None]
    if bare:
        notes.append(f"log_prior of {', '.join(map(repr, bare))} is −S: it lacks the constant −log Z")
    factors = [n for n, s in sites.items() if s["type"] == "sample" and isinstance(s["fn"], Unit)]
    if factors:
        notes.append(f"numpyro.factor {', '.join(map(repr, factors))} counts neither as prior nor as prediction")
    record = [jnp.asarray(site["value"]) for site in (*latent.values(), *map(sites.get, deterministic))] * 2
    record += [jnp.asarray(observed[name]["value"]) for name in redrawn] * 2
    record += [jnp.asarray(values) for values in compiled.data.values()]  # their log likelihoods
    require_memory([jax.ShapeDtypeStruct(values.shape, values.dtype) for values in record], num_chains, num_samples)
    return Predictions(
        model, args, kwargs, tuple(latent), deterministic, redrawn,
        {n: np.asarray(observed[n]["value"]) for n in redrawn if n not in compiled.data},
        {n: (np.ndim(compiled.data[n]) - 1, places) for n, places in compiled.kept_data.items() if n in compiled.data},
        not missing, tuple(notes),
    )  # fmt: skip


class _redrawn(handlers.uncondition):
    """Draw these observed sites again; factors and data that cannot be drawn stay as they are."""

    def __init__(self, model, names):
        super().__init__(model)
        self.names = names

    def process_message(self, msg):
        if msg.get("name") in self.names:
            super().process_message(msg)


def _not_drawable(model, args, kwargs, values: dict) -> dict[str, str]:
    """Sites whose distributions cannot be drawn, and why; nothing is computed."""
    reasons = {}

    def attempt(values, key):
        filled = handlers.substitute(handlers.seed(model, key), data=values)
        for name, site in handlers.trace(filled).get_trace(*args, **kwargs).items():
            if site["type"] == "sample" and not isinstance(site["fn"], Unit):
                try:
                    site["fn"].sample(key)
                except NotImplementedError as error:
                    reasons[name] = str(error).split(". ")[0] or f"{type(site['fn']).__name__} has no random draws"

    jax.eval_shape(attempt, values, jax.random.key(0))
    return reasons


def _log_density(site) -> jax.Array:
    value = jnp.sum(site["fn"].log_prob(site["value"]))
    return value if site["scale"] is None else site["scale"] * value
