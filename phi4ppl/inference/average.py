"""Posterior predictive fields, averaged over models."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, positive_int, seed_within
from ..errors.streams import stream_rng, stream_seed
from ..lattice.labels import field_dims
from ..results.datatree import predictive_tree
from .compare import Comparison
from .latent_problem import LatentProblem
from .posterior import Posterior
from .predictive_check import NUM_CHAINS, fields_of

__all__ = ["average"]

MAX_COUPLINGS, MAX_FIELDS = 16, 30


@call_checked
def average(
    comparison: Comparison, *, weights: str | Mapping[str, float] = "stacking", num_draws: int = 100, seed: int = 0
) -> xr.DataTree:
    """Fields from p(φ | data) = Σ_m w_m ∫ p(φ | θ, m) p(θ | data, m) dθ: averages over configurations, couplings and models.

    Parameters
    ----------
    comparison : Comparison
        The result of `compare`.
    weights : str or dict
        ``"stacking"``, ``"pseudo_bma"`` or ``"evidence"``, or a number for each model.
    num_draws : int
        Replicated data sets, each of as many fields as the data have, 30 at most.
    seed : int

    Returns
    -------
    xarray.DataTree
        ``posterior_predictive`` with ``phi``, ``magnetization``, ``abs_magnetization`` and ``phi_squared`` of every field, and
        which ``model`` it came from, with dimensions chain, draw, field; ``observed_data`` with the same of the data. For
        ArviZ: ``plot_ppc_dist`` and others.

    Raises
    ------
    ArgumentError

    Notes
    -----
    Numbers of draws of the models are multinomial in the weights. Couplings of each model are 16 draws of its posterior at
    most; fields come from Markov chains of the library at these couplings, thinned.

    Examples
    --------
    >>> import jax, phi4ppl as p4
    >>> ring = p4.lattice.chain(6)
    >>> data = p4.GibbsField(p4.gaussian(ring, w=0.8, a=1.0)).sample(jax.random.key(0), (50,))
    >>> models = {"coupled": p4.gaussian(ring, w=0.8, a=1.0), "independent": p4.gaussian(ring, w=0.0, a=1.0)}
    >>> tree = p4.average(p4.compare(models, data), weights={"coupled": 1, "independent": 3}, num_draws=10)
    >>> bool(0.15 < float((tree["posterior_predictive"]["model"] == "coupled").mean()) < 0.35)
    True
    """
    if not isinstance(comparison, Comparison):
        raise ArgumentError("comparison", "the result of phi4ppl.compare", type(comparison).__name__)
    if any(isinstance(posterior.problem, LatentProblem) for posterior in comparison.posteriors.values()):
        fix = "Average the posterior_predictive of their models by the weights of the comparison."
        raise ArgumentError("comparison", "one of fields", "one of NumPyro models", fix, reason="latent")
    num_draws, seed = positive_int("num_draws", num_draws, minimum=10), seed_within(seed)
    names = list(comparison.posteriors)
    shares = _shares(comparison, weights, names)
    rng = stream_rng(seed, "average")
    together = min(len(comparison.data), MAX_FIELDS)
    counts = rng.multinomial(num_draws * together, shares)
    shape = comparison.data.shape[1:]
    fields, origin = [], []
    for name, count in zip(names, counts, strict=True):
        if count:
            drawn = _predictive(comparison.posteriors[name], int(count), stream_seed(seed, "average", name), rng)
            fields.append(drawn.reshape(-1, *shape))
            origin += [name] * int(count)
    order = rng.permutation(num_draws * together)
    fields, origin = np.concatenate(fields)[order], np.array(origin)[order]
    lattice = next(iter(comparison.posteriors.values())).model.lattice
    dims, coords = (
        field_dims(lattice) if lattice.field_shape == shape else ([f"axis_{k}" for k in range(len(shape))], {})
    )
    predicted = {"phi": fields, "model": origin} | _summaries(fields)
    predicted = {name: v.reshape(1, num_draws, together, *v.shape[1:]) for name, v in predicted.items()}
    observed = {"phi": comparison.data} | _summaries(comparison.data)
    return predictive_tree(predicted, observed, dims, coords, dict(zip(names, shares.tolist(), strict=True)))


def _shares(comparison: Comparison, weights, names) -> np.ndarray:
    if isinstance(weights, str):
        weights = comparison.weights(weights)
    if not isinstance(weights, dict) or set(weights) != set(names):
        raise ArgumentError("weights", f"a scheme, or a number for each of {', '.join(names)}", repr(weights))
    shares = finite_array("weights", [weights[name] for name in names])
    if np.any(shares < 0) or not shares.sum() > 0:
        raise ArgumentError("weights", "numbers of at least 0, not all 0", repr(weights), reason="positive")
    return shares / shares.sum()


def _predictive(posterior: Posterior, count: int, seed: int, rng) -> np.ndarray:
    """``count`` fields of one model, couplings from its posterior."""
    couplings = min(MAX_COUPLINGS if posterior.names else 1, len(posterior.draws), max(1, count // NUM_CHAINS))
    fields = fields_of(posterior.choose(couplings, rng), -(-count // couplings), seed)
    fields = fields.reshape(-1, posterior.model.lattice.num_sites)
    return fields[rng.choice(len(fields), count, replace=False)]


def _summaries(fields: np.ndarray) -> dict[str, np.ndarray]:
    axes = tuple(range(1, fields.ndim))
    mean = fields.mean(axis=axes)
    return {"magnetization": mean, "abs_magnetization": np.abs(mean), "phi_squared": (fields**2).mean(axis=axes)}
