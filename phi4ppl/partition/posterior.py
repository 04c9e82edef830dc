"""Posteriors of couplings given fields, with the normaliser of the likelihood at every coupling."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import numpyro
import xarray as xr
from numpyro.distributions import Distribution

from ..errors import ArgumentError, OverlapError, finite_array, one_of
from ..model import MarkovRandomField
from ..run import sample
from .chebyshev import Interpolant
from .determinate import exact_log_partition
from .surface import MAX_DIMENSIONS, PartitionSurface, require_normalizable

__all__ = ["infer_couplings"]

NORMALIZERS = ("surface", "exact")
TOLERANCE = 0.01  # of an interpolated log likelihood
NOTICED = 0.25  # posterior standard deviations by which the noise of a surface may move the posterior unsaid


def infer_couplings(
    model: MarkovRandomField, data, priors: dict, *, normalizer="surface", num_warmup: int = 500,
    num_samples: int = 1000, num_chains: int = 4, seed: int = 0, progress: bool | None = None,
) -> xr.DataTree:  # fmt: skip
    """The posterior of homogeneous couplings, p(θ | φ_1 … φ_n) ∝ p(θ) Π_i exp(−S(φ_i; θ))/Z(θ).

    S is linear in θ, so the data enter through the means of the statistics conjugate to θ, and log Z as a function of θ is all
    that is hard.

    Parameters
    ----------
    model : MarkovRandomField
        Couplings without prior stay as they are.
    data : array, shape ``(num_fields, *model.field_shape)``
        Independent fields.
    priors : dict
        NumPyro distributions by the names of one to three homogeneous couplings, each on a finite interval (``Uniform``,
        ``TruncatedNormal``, …).
    normalizer : str or PartitionSurface
        ``"surface"``: a `PartitionSurface` over the box of the priors, or one of your own that holds that box;
        ``"exact"``: log Z by ``log_partition(method="exact")`` at Chebyshev nodes and their interpolation, where the graph is
        small or narrow enough or the field Gaussian.
    num_warmup, num_samples, num_chains, seed, progress
        As in `phi4ppl.sample`; the couplings are sampled by NUTS.

    Returns
    -------
    xarray.DataTree
        As from `phi4ppl.sample`, with the couplings in ``posterior``; the settings in its metadata have ``normalizer`` and
        ``normalizer_shift``, by how many posterior standard deviations the error of log Z may have moved the posterior.

    Warns
    -----
    UserWarning
        If that is more than a quarter.

    Raises
    ------
    ArgumentError
        For priors that are not on a finite interval, data of the wrong shape, and models for which ``"exact"`` would take
        too long or an interval too wide to interpolate.
    HammersleyCliffordError
        If Z is infinite somewhere in the box of the priors.
    OverlapError
        If a surface does not cover that box.

    Examples
    --------
    >>> import numpy as np, numpyro.distributions as dist, phi4ppl as p4
    >>> ring = p4.phi4(p4.lattice.chain(8), w=0.8, a=1.4, b=0.2)
    >>> fields = p4.sample(ring, num_warmup=100, num_samples=10, thinning=10)["posterior"]["phi"].values.reshape(-1, 8)
    >>> tree = p4.infer_couplings(ring, fields, {"w": dist.Uniform(0.4, 1.2)}, normalizer="exact", num_samples=500)
    >>> bool(abs(tree["posterior"]["w"].values.mean() - 0.8) < 0.4)
    True
    """
    data, box = _checked(model, data, priors)
    names = list(priors)
    statistics = model.statistics(jnp.asarray(data))
    mean = np.array([float(np.mean(np.asarray(statistics[name], float))) for name in names])
    if isinstance(normalizer, PartitionSurface):
        surface = _require_cover(normalizer, model, box)
    elif one_of("normalizer", normalizer, NORMALIZERS) == "surface":
        surface = PartitionSurface(model, box, num_chains=max(2, num_chains), seed=seed, progress=progress)
    else:
        surface = None
    cost = _exact_cost(model, box, mean, len(data)) if surface is None else surface.likelihood(names, mean)

    def posterior():
        theta = jnp.stack([numpyro.sample(name, prior) for name, prior in priors.items()])
        numpyro.factor("likelihood", -len(data) * cost(theta))

    tree = sample(
        posterior, num_warmup=num_warmup, num_samples=num_samples, num_chains=num_chains, seed=seed, progress=progress
    )
    shift = 0.0 if surface is None else _shift(surface, tree, names, len(data))
    facts = json.loads(tree.attrs["phi4ppl"])
    facts["settings"] |= {"normalizer": "exact" if surface is None else "surface", "normalizer_shift": shift}
    tree.attrs["phi4ppl"] = json.dumps(facts)
    if shift > NOTICED:
        warnings.warn(
            f"infer_couplings: the error of log Z may have moved the posterior by {shift:.2g} of its standard deviations. "
            "Pass a PartitionSurface of more num_samples as normalizer.",
            stacklevel=2,
        )
    return tree


def _checked(model, data, priors) -> tuple[np.ndarray, dict[str, tuple[float, float]]]:
    """The data as an array, and the box on which the priors live."""
    if not isinstance(model, MarkovRandomField):
        raise ArgumentError("model", "a MarkovRandomField", type(model).__name__, "Build one with phi4ppl.phi4(…).")
    data = finite_array("data", data)
    if data.ndim != 1 + len(model.field_shape) or data.shape[1:] != model.field_shape or not len(data):
        expected = f"fields of shape (num_fields, {', '.join(map(str, model.field_shape))})"
        raise ArgumentError("data", expected, f"shape {data.shape}", "One field needs a leading axis: field[None].")
    if not isinstance(priors, dict) or not 1 <= len(priors) <= MAX_DIMENSIONS:
        expected = f"a dict of NumPyro distributions of one to {MAX_DIMENSIONS} couplings"
        raise ArgumentError("priors", expected, repr(priors))
    box = {}
    for name, prior in priors.items():
        if name not in model.couplings or np.ndim(model.couplings[name]) != 0:
            known = ", ".join(repr(n) for n, v in model.couplings.items() if np.ndim(v) == 0)
            raise ArgumentError("priors", f"homogeneous couplings of the model: {known or 'it has none'}", repr(name))
        if not isinstance(prior, Distribution) or prior.shape() != ():
            raise ArgumentError(f"prior of {name!r}", "a NumPyro distribution of one number", repr(prior))
        ends = [getattr(prior.support, end, None) for end in ("lower_bound", "upper_bound")]
        if any(end is None for end in ends) or not np.all(np.isfinite(ends)):
            mend = "log Z is computed on it: use Uniform, or TruncatedNormal with low and high."
            raise ArgumentError(f"prior of {name!r}", "a distribution on a finite interval", repr(prior), mend)
        box[name] = (float(ends[0]), float(ends[1]))
    return data, box


def _require_cover(surface: PartitionSurface, model, box) -> PartitionSurface:
    surface.check_model(model)
    others = {name: value for name, value in model.couplings.items() if name not in box}
    if set(surface.region) != set(box):
        raise ArgumentError("normalizer", f"a PartitionSurface over {', '.join(map(repr, box))}", repr(surface))
    surface.log_partition(others | {name: sum(surface.region[name]) / 2 for name in box})  # refuses other couplings
    for name, (low, high) in box.items():
        left, right = surface.region[name]
        slack = 1e-6 * (right - left)
        if low < left - slack or high > right + slack:
            raise OverlapError(
                f"the prior of {name!r} reaches over [{low:.6g}, {high:.6g}], beyond the PartitionSurface's "
                f"[{left:.6g}, {right:.6g}]. Narrow the prior, or surface.extend({{{name!r}: ({low:.6g}, {high:.6g})}})."
            )
    return surface


def _exact_cost(model: MarkovRandomField, box, mean: np.ndarray, number: int) -> Callable:
    """θ·T̄ + log Z(θ) up to a constant, interpolated."""
    low, high = (np.array([ends[k] for ends in box.values()]) for k in (0, 1))
    require_normalizable(model, list(box), low, high)
    offset = None

    def cost(theta) -> float:
        nonlocal offset
        result = exact_log_partition(model.replace(**dict(zip(box, theta.tolist(), strict=True))))
        if result is None:
            mend = "normalizer='surface' takes any model."
            raise ArgumentError("model", "a Gaussian field, or a small or narrow graph", repr(model), mend)
        value = result.value + float(theta @ mean)
        offset = value if offset is None else offset  # what is left keeps its digits in single precision
        return value - offset

    interpolant = Interpolant(cost, low, high)
    if interpolant.error * number > TOLERANCE:
        got = f"log Z off by {interpolant.error:.2g} between its nodes, for each of {number} fields"
        raise ArgumentError("priors", "intervals on which log Z can be interpolated", got, "Narrow the priors.")
    return interpolant


def _shift(surface: PartitionSurface, tree: xr.DataTree, names, number: int) -> float:
    """By how many of its standard deviations the noise of the surface moves the posterior: the most along any coupling.

    An error δ of log Z(θ+σ) − log Z(θ−σ) tilts a Gaussian posterior of n fields by nδ/2 standard deviations.
    """
    draws = np.stack([tree["posterior"][name].values.ravel().astype(float) for name in names], axis=1)
    middle, width = draws.mean(axis=0), np.atleast_2d(np.cov(draws.T))
    scales, directions = np.linalg.eigh(width)
    ends = [middle + sign * np.sqrt(s) * v for s, v in zip(scales, directions.T, strict=True) for sign in (1, -1)]
    errors = [surface.difference_error(names, up, down) for up, down in zip(ends[::2], ends[1::2], strict=True)]
    return float(number * max(errors) / 2)
