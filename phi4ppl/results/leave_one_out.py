"""Leave-one-out predictive densities by Pareto-smoothed importance sampling."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xarray as xr
from scipy.special import logsumexp

from ..errors import ArgumentError, SingleFactorError
from ..errors.arguments import call_checked
from .settings import tree_of
from .tails import FEWEST

if TYPE_CHECKING:
    from arviz_stats import ELPDData

__all__ = ["LeaveOneOut", "leave_one_out", "loo"]


class LeaveOneOut(NamedTuple):
    """``elpd``: log p(y_n | all other data) of every datum; ``pareto_k``: k̂ of its weights.

    k̂ is −inf where the weights are all equal, and inf for fewer than 25 draws, which have no tail to fit.
    """

    elpd: np.ndarray
    pareto_k: np.ndarray


def leave_one_out(log_likelihood, log_weights=None) -> LeaveOneOut:
    """log p(y_n | y_{−n}) of every datum from draws of the posterior given all data.

    The weights are those of ArviZ (A. Vehtari, A. Gelman, J. Gabry, Stat. Comput. 27 (2017) 1413). Where k̂ > 0.7 a datum is so
    influential that the value cannot be trusted.

    Parameters
    ----------
    log_likelihood : array, shape (num_draws, num_data)
        log p(y_n | θ_s) at independent draws of the posterior.
    log_weights : array, shape (num_draws,), optional
        Up to a constant, where the draws are an importance sample of the posterior.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)  # unit normal data, conjugate posterior of their mean
    >>> y = rng.normal(size=50)
    >>> mean = rng.normal(y.mean(), 50**-0.5, (2000, 1))
    >>> found = leave_one_out(-((y - mean) ** 2) / 2 - np.log(2 * np.pi) / 2)
    >>> center, variance = (y.sum() - y) / 49, 1 + 1 / 49
    >>> exact = -((y - center) ** 2) / (2 * variance) - np.log(2 * np.pi * variance) / 2
    >>> bool(np.abs(found.elpd - exact).max() < 0.02), bool(found.pareto_k.max() < 0.7)
    (True, True)
    """
    from arviz_stats.base import array_stats

    log_likelihood = np.asarray(log_likelihood, float)
    weights = np.zeros(len(log_likelihood)) if log_weights is None else np.asarray(log_weights, float)
    log_likelihood, weights = log_likelihood[np.isfinite(weights)], weights[np.isfinite(weights)]
    # ArviZ takes log likelihoods, whose negatives are the log weights of leave-one-out
    ratios = (log_likelihood - weights[:, None]).T
    varies = np.ptp(ratios, axis=1) > 1e-9
    elpd, k = logsumexp(log_likelihood + weights[:, None], axis=0) - logsumexp(weights), np.full(len(ratios), -np.inf)
    if len(weights) < FEWEST:  # no tail to smooth
        elpd[varies], k[varies] = logsumexp(weights) - logsumexp(-ratios[varies], axis=-1), np.inf
    elif varies.any():
        smooth, k[varies] = array_stats.psislw(ratios[varies], axis=-1)
        elpd[varies] = logsumexp(smooth + log_likelihood.T[varies], axis=-1) - logsumexp(smooth, axis=-1)
    return LeaveOneOut(elpd, k)


@call_checked
def loo(tree: xr.DataTree, site: str | None = None) -> ELPDData:
    """Expected log predictive density Σ_n log p(y_n | y_{−n}) of the data of a NumPyro model, by ArviZ.

    From draws of the posterior given all data, weighted by 1/p(y_n | latent sites) as Pareto smoothing allows; or, of an
    observed field, by 1/p(φ_n | rest of the field), which takes φ_n out of the posterior exactly.

    Parameters
    ----------
    tree : xarray.DataTree or Posterior
        Of `phi4ppl.sample` or `phi4ppl.laplace`, or any with a group ``log_likelihood``.
    site : str, optional
        The observed site; needed where there are several.

    Returns
    -------
    arviz_stats.ELPDData
        ``elpd``, its standard error ``se``, the effective number of parameters ``p``, and for every datum ``elpd_i`` and
        ``pareto_k``. ArviZ warns where k̂ exceeds ``good_k``: those data are so influential that the draws do not know what
        the posterior without them is. ``arviz_stats.compare({"a": one, "b": other})`` compares models.

    Raises
    ------
    SingleFactorError
        If the likelihood of that site is one number for all its data. Left out "one by one" that is the whole of them, and the
        result would be a prior predictive density, from draws that know nothing of the prior.
    ArgumentError
        If there is no such site, or nothing is observed.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro, numpyro.distributions as dist, phi4ppl as p4
    >>> def model():
    ...     phi = numpyro.sample("phi", p4.GibbsField(p4.gaussian(p4.lattice.chain(8), w=0.5, a=1.0)))
    ...     numpyro.sample("y", dist.Normal(phi, 1.0), obs=jnp.linspace(-1, 1, 8))
    >>> score = p4.loo(p4.sample(model, num_warmup=200, num_samples=500))
    >>> int(score.n_data_points), bool(score.pareto_k.max() < 0.7)
    (8, True)
    """
    from arviz_stats import loo as arviz_loo

    tree = tree_of(tree)
    if not isinstance(tree, xr.DataTree):
        raise ArgumentError("tree", "a DataTree of phi4ppl.sample", type(tree).__name__)
    single = json.loads(tree.attrs.get("phi4ppl", "{}")).get("single_factors", {})
    found = dict(tree["log_likelihood"].data_vars) if "log_likelihood" in tree.children else {}
    known = [*found, *(name for name in single if name not in found)]
    if not known:
        fix = "Only a NumPyro model with observed sites has data to leave out."
        raise ArgumentError("tree", "a group log_likelihood", "none", fix, reason="no_log_likelihood")
    if site is None and len(known) > 1:
        raise ArgumentError("site", f"one of {', '.join(map(repr, known))}", "None", reason="choice")
    site = known[0] if site is None else site
    if site not in known:
        raise ArgumentError("site", f"one of {', '.join(map(repr, known))}", repr(site), reason="choice")
    if site not in found or found[site].sizes.keys() <= {"chain", "draw"}:
        reason = single.get(site, "its log likelihood has one number per draw")
        raise SingleFactorError("cannot_be_split", f"site {site!r} cannot be left out datum by datum: {reason}.")
    return arviz_loo(tree, var_name=site, pointwise=True)
