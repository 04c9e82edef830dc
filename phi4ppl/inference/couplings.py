"""Posteriors of couplings given fields, with the normaliser of the likelihood at every coupling."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import numpyro
import xarray as xr
from numpyro.distributions import Delta, Distribution

from ..errors import ArgumentError, OverlapError, call_checked, one_of, positive_int, seed_within, warn
from ..lattice.labels import MISSING_FIELDS, aligned_fields
from ..model.field import MarkovRandomField
from ..numpyro_plugin.numpyro_model import compile as compile_model
from ..partition.surface import MAX_DIMENSIONS, PartitionSurface, require_normalizable
from ..results.independent_fields import independent_fields
from ..results.run import sample
from ..results.settings import add_settings
from .corrected_pseudolikelihood import PseudoLikelihood, affine_map, simulated_likelihood
from .exchange import auxiliary_tau, exchange, tuned
from .log_z import MOST_SHIFT, LogZ, Unaffordable, exact_log_z, mean_errors, mean_shift, simulated_log_z

__all__ = ["infer_couplings"]

NORMALIZERS = ("auto", "surface", "exact", "exchange", "pseudolikelihood", "pseudolikelihood_uncorrected")
LONG = 10  # autocorrelation times that an auxiliary chain should run for
CHECKED = 40  # draws, whether Z is finite
FELT = 300  # draws that stand for the posterior where the error of log Z is carried to its means
APPROXIMATION = "the pseudo-likelihood stands in place of the likelihood"
CORRECTED = "with mode and curvature of the likelihood from a simulation"
NOTICED = 0.25  # posterior standard deviations by which the noise of a correction may move the posterior unsaid


@call_checked
def infer_couplings(
    model: MarkovRandomField, data, priors: dict, *, normalizer="auto", num_auxiliary: int = 50,
    num_warmup: int = 500, num_samples: int = 1000, num_chains: int = 4, seed: int = 0, progress: bool | None = None,
) -> xr.DataTree:  # fmt: skip
    """The posterior of homogeneous couplings, p(θ | φ_1 … φ_n) ∝ p(θ) Π_i exp(−S(φ_i; θ))/Z(θ).

    S is linear in θ, so the data enter through the means of the statistics conjugate to θ, and log Z as a function of θ is all
    that is hard.

    Parameters
    ----------
    model : MarkovRandomField
        Couplings without prior stay as they are.
    data : array of shape ``(num_fields, *model.field_shape)``, or labelled as for `fit_likelihood`
        Independent fields, or the DataTree of `phi4ppl.sample`, which is thinned to one draw in 2 τ_int of every chain
        (``notes`` in `phi4ppl.settings` say so).
    priors : dict
        NumPyro distributions by the names of homogeneous couplings: one to three, or any number with ``"exchange"``. For
        ``"auto"``, ``"surface"`` and ``"exact"`` each on a finite interval (``Uniform``, ``TruncatedNormal``, …).
    normalizer : str or PartitionSurface
        ``"auto"``: ``"exact"`` where that takes no more than a few minutes, else ``"surface"``;
        ``"exact"``: log Z by ``log_partition(method="exact")`` at Chebyshev nodes and their interpolation, with as many nodes
        as the posterior needs, where the graph is small or narrow enough or the field Gaussian;
        ``"surface"``: a `PartitionSurface` over the box of the priors, then more ensembles where the posterior lives, until the
        error of log Z moves no posterior mean by more than 0.05 standard deviations, or the simulation reaches its limit. A
        `PartitionSurface` of your own that holds the box of the priors is taken as it is;
        ``"exchange"``: no log Z. For every proposal all fields are followed to auxiliary fields at the proposed couplings
        (`phi4ppl.inference.exchange`), which takes any number of homogeneous couplings, with priors that keep quartic
        couplings from 0 on, and long;
        ``"pseudolikelihood"``: an approximation, and says so: densities of single sites given the rest in place of the
        likelihood, moved and stretched to the mode and the curvature that the likelihood has by a short simulation
        (L. Bouranis, N. Friel, F. Maire, J. Comput. Graph. Stat. 27 (2018) 516);
        ``"pseudolikelihood_uncorrected"``: without that simulation, off by a standard deviation or so in place and width.
    num_auxiliary : int
        Iterations of the sampler from each field to its auxiliary field, for ``"exchange"``. The posterior has a bias that
        falls like exp(−num_auxiliary/τ).
    num_warmup, num_samples, num_chains, seed, progress
        As in `phi4ppl.sample`. The couplings are sampled by NUTS; by random walks for ``"exchange"``.

    Returns
    -------
    xarray.DataTree
        As from `phi4ppl.sample`, with the couplings in ``posterior``. The settings in its metadata have ``normalizer``, and
        ``normalizer_how``, where log Z is from; ``normalizer_error``, the standard error that log Z gives to the posterior mean
        of each coupling, which is part of the errors of `phi4ppl.estimate`; and ``normalizer_shift``, the largest of these
        errors along any coupling or principal axis, in posterior standard deviations, which `phi4ppl.diagnose` checks. For
        ``"exchange"`` instead ``num_auxiliary`` and ``auxiliary_tau``, the autocorrelation time τ of those chains; and
        ``approximation``, a line that `phi4ppl.diagnose` repeats, where the pseudo-likelihood was taken.

    Warns
    -----
    UserWarning
        If that shift is more than 0.05, auxiliary chains are shorter than ten autocorrelation times, or the most probable
        couplings were not found; the ``warnings`` in the settings repeat it.

    Raises
    ------
    ArgumentError
        For priors that are not on a finite interval where there has to be one, that have no density or reach to negative
        quartic couplings, data of the wrong shape, with missing values or other labels, models for which ``"exact"`` would take
        too long, and fields whose pseudo-likelihood has no maximum.
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
    num_auxiliary = positive_int("num_auxiliary", num_auxiliary)
    by_name = not isinstance(normalizer, PartitionSurface) and one_of("normalizer", normalizer, NORMALIZERS)
    if isinstance(model, MarkovRandomField):
        data, note = independent_fields(data, model)
    data = _checked(model, data, priors)
    run = {"num_warmup": num_warmup, "num_samples": num_samples, "num_chains": num_chains, "seed": seed_within(seed)}
    run |= {"progress": progress}
    if by_name == "exchange":
        found = _by_exchange(model, data, priors, num_auxiliary, run)
    elif by_name and by_name.startswith("pseudolikelihood"):
        found = _by_pseudolikelihood(model, data, priors, by_name == "pseudolikelihood", run)
    else:
        found = _by_log_partition(model, data, priors, normalizer, run)
    tree, facts, complaints = found
    add_settings(
        tree, {"normalizer": by_name} | facts | {"warnings": list(complaints), "notes": [note] if note else []}
    )
    for complaint in complaints:
        warn(f"infer_couplings: {complaint}")
    return tree


def _posterior(priors: dict, log_likelihood: Callable) -> Callable:
    def posterior():
        theta = jnp.stack([numpyro.sample(name, prior) for name, prior in priors.items()])
        numpyro.factor("likelihood", log_likelihood(theta))

    return posterior


def _statistics(model, data, names) -> list[np.ndarray]:
    """The statistics of every field, for each of the couplings."""
    found = model.statistics(jnp.asarray(data))
    return [np.asarray(found[name], float) for name in names]


def _by_log_partition(model, data, priors: dict, normalizer, run: dict) -> tuple[xr.DataTree, dict, list[str]]:
    """With log Z exact or from a surface: draws, facts for the metadata, and complaints."""
    names, box = list(priors), _box(priors)
    mean = np.array([float(np.mean(t)) for t in _statistics(model, data, names)])
    low, high = (np.array([ends[k] for ends in box.values()]) for k in (0, 1))
    require_normalizable(model, names, low, high)
    log_z = _log_z(model, normalizer, (names, mean, len(data), priors, low, high), box, run)
    tree = sample(_posterior(priors, lambda theta: -log_z.likelihood.cost(theta)), **run)
    errors, shift = _carried(log_z, tree, names, len(data))
    facts = {
        "normalizer": log_z.name, "normalizer_how": log_z.how, "normalizer_shift": shift, "normalizer_error": errors,
    }  # fmt: skip
    if shift <= MOST_SHIFT:
        return tree, facts, []
    own = isinstance(normalizer, PartitionSurface)
    mend = (
        "normalizer='surface' samples until that is less, or pass a PartitionSurface of more num_samples."
        if own
        else "Use fewer fields, or pass a PartitionSurface of more num_samples over a smaller box as normalizer."
    )
    reason = f": {log_z.stopped}" if log_z.stopped else ""
    complaint = (
        f"the error of log Z may have moved the posterior by {shift:.2g} of its standard deviations, more than "
        f"{MOST_SHIFT:g}{reason}. It is part of the errors of the couplings. {mend}"
    )
    return tree, facts, [complaint]


def _log_z(model, normalizer, problem: tuple, box: dict, run: dict) -> LogZ:
    """log Z from where ``normalizer`` says; ``problem`` are the arguments that exact and simulated values share."""
    options, beside = {"seed": run["seed"], "progress": run["progress"]}, ""
    if isinstance(normalizer, PartitionSurface):
        return simulated_log_z(_require_cover(normalizer, model, box), *problem, refine=False, **options)
    if normalizer != "surface":
        try:
            return exact_log_z(model, *problem)
        except Unaffordable as refusal:
            if normalizer == "exact":
                mend = "normalizer='surface' takes any model."
                if refusal.args[0] == "priors":
                    mend = "Narrow the priors, or take normalizer='surface'."
                raise ArgumentError(*refusal.args, mend) from None
            beside = "; exact values would take too long"
    surface = PartitionSurface(model, box, num_chains=max(2, run["num_chains"]), **options)
    found = simulated_log_z(surface, *problem, refine=True, **options)
    return dataclasses.replace(found, how=found.how + beside)


def _carried(log_z: LogZ, tree: xr.DataTree, names, count: int) -> tuple[dict[str, float], float]:
    """Standard errors that log Z gives to the means of the couplings, and the largest in posterior standard deviations."""
    draws = np.stack([tree["posterior"][name].values.ravel().astype(float) for name in names], axis=1)
    width = np.atleast_2d(np.cov(draws.T))
    numerical = log_z.numerical * np.sqrt(np.diag(width))
    if log_z.pool is None:
        return dict(zip(names, numerical.tolist(), strict=True)), float(log_z.numerical)
    some = draws[:: max(1, len(draws) // FELT)]
    errors = mean_errors(log_z.pool, count, some, np.full(len(some), 1 / len(some)))
    shift = float(np.hypot(mean_shift(errors, width), log_z.numerical))
    return dict(zip(names, np.hypot(errors[: len(names)], numerical).tolist(), strict=True)), shift


def _by_pseudolikelihood(model, data, priors: dict, corrected: bool, run: dict) -> tuple[xr.DataTree, dict, list[str]]:
    if len(priors) > MAX_DIMENSIONS:
        mend = "normalizer='exchange' takes more."
        raise ArgumentError("priors", f"at most {MAX_DIMENSIONS} couplings", str(len(priors)), mend)
    model.check().raise_if_violated()
    _require_positive(model, priors)
    names, facts, complaints = list(priors), {"approximation": APPROXIMATION}, []
    likelihood = PseudoLikelihood(model, names, data)
    own = likelihood.mode()
    cost, scale = likelihood.around(own)
    centre, to_z = own.theta, np.linalg.inv(scale)
    if corrected:
        other, noise, complaints = simulated_likelihood(model, names, data, own.theta, run["seed"])
        centre, to_z = other.theta, to_z @ affine_map(own, other)
        facts = {"approximation": f"{APPROXIMATION}, {CORRECTED}", "normalizer_shift": noise}
        if noise > NOTICED:
            complaints = [
                *complaints,
                f"the simulation that corrects the pseudo-likelihood may have moved the posterior by {noise:.2g} of its "
                "standard deviations. normalizer='surface' is more accurate.",
            ]

    def log_likelihood(theta):
        return -cost(jnp.asarray(to_z, theta.dtype) @ (theta - jnp.asarray(centre, theta.dtype)))

    tree = sample(_posterior(priors, log_likelihood), **run)
    if corrected:
        widths = {name: float(tree["posterior"][name].values.astype(float).std()) for name in names}
        facts["normalizer_error"] = {name: noise * width for name, width in widths.items()}
    return tree, facts, [*complaints, *_improper(model, tree, names)]


def _require_positive(model, priors: dict) -> None:
    """With couplings of the highest power below zero a site has no density."""
    highest = model.structure.highest_power or 4
    for name in [form.name for form in model.forms if form.power == highest and form.name in priors]:
        low = getattr(priors[name].support, "lower_bound", None)
        if low is None or low < 0:
            mend = "Use HalfNormal, or Uniform from 0 on."
            raise ArgumentError(f"prior of {name!r}", "a distribution of positive numbers", repr(priors[name]), mend)


def _improper(model, tree: xr.DataTree, names) -> list[str]:
    """A complaint, where every site has a density given the rest, but all together have none."""
    draws = np.stack([tree["posterior"][name].values.ravel() for name in names], axis=1)
    some = draws[:: max(1, len(draws) // CHECKED)]
    bad = sum(not model.replace(**dict(zip(names, map(float, t), strict=True))).check().is_normalizable for t in some)
    return [f"{bad} of {len(some)} draws make no density (Z is infinite): use narrower priors."] if bad else []


def _by_exchange(model, data, priors: dict, num_auxiliary: int, run: dict) -> tuple[xr.DataTree, dict, list[str]]:
    model.check().raise_if_violated()
    _require_positive(model, priors)
    names = list(priors)
    total = np.array([t.sum() for t in _statistics(model, data, names)])
    posterior = _posterior(priors, lambda theta: -jnp.asarray(total, theta.dtype) @ theta)
    constrain, seed = compile_model(posterior).constrain, run["seed"]
    kernel = exchange(
        model, names, data, lambda position: {name: constrain(position)[name] for name in names},
        num_auxiliary=num_auxiliary, tuning=tuned(model, data, seed),
    )  # fmt: skip
    tree = sample(posterior, kernel=kernel, **run)
    # these are of the density without log Z
    for group, unknown in (("sample_stats", ["lp", "schwinger_dyson"]), ("streamed", ["schwinger_dyson"])):
        tree[group] = xr.DataTree(tree[group].to_dataset().drop_vars(unknown))
    del tree["schwinger_dyson"]
    there = model.replace(**{name: float(tree["posterior"][name].values.mean()) for name in names})
    tau = auxiliary_tau(there, names, data, seed)
    complaint = (
        f"auxiliary chains of {num_auxiliary} iterations are {num_auxiliary / tau:.2g} autocorrelation times long, so the "
        "posterior is biased towards where the auxiliary fields still resemble the data: too narrow or too wide. Increase "
        "num_auxiliary."
    )
    facts = {"num_auxiliary": num_auxiliary, "auxiliary_tau": tau}
    complaints = [complaint] if num_auxiliary < LONG * tau else []
    return tree, facts, [*complaints, *_improper(model, tree, names)]


def _checked(model, data, priors) -> np.ndarray:
    """The data as an array; model and priors are what they should be."""
    if not isinstance(model, MarkovRandomField):
        raise ArgumentError("model", "a MarkovRandomField", type(model).__name__, "Build one with phi4ppl.phi4(…).")
    data = aligned_fields("data", data, model.lattice, MISSING_FIELDS, samples=1)
    if data.ndim != 1 + len(model.field_shape) or data.shape[1:] != model.field_shape or not len(data):
        expected = f"fields of shape (num_fields, {', '.join(map(str, model.field_shape))})"
        raise ArgumentError("data", expected, f"shape {data.shape}", "One field needs a leading axis: field[None].")
    if not isinstance(priors, dict) or not priors:
        raise ArgumentError("priors", "a dict of NumPyro distributions by the names of couplings", repr(priors))
    for name, prior in priors.items():
        if name not in model.couplings or np.ndim(model.couplings[name]) != 0:
            known = ", ".join(repr(n) for n, v in model.couplings.items() if np.ndim(v) == 0)
            raise ArgumentError("priors", f"homogeneous couplings of the model: {known or 'it has none'}", repr(name))
        require_prior(name, prior)
    return data


def require_prior(name: str, prior) -> None:
    """Refuse what is no density of one number: couplings move over an interval, not between points."""
    what = f"prior of {name!r}"
    if not isinstance(prior, Distribution) or prior.shape() != ():
        raise ArgumentError(what, "a NumPyro distribution of one number", repr(prior))
    if isinstance(prior, Delta) or prior.support.is_discrete:
        mend = "A coupling without prior stays as it is: model.replace(…) sets it."
        raise ArgumentError(what, "a distribution with a density", type(prior).__name__, mend)
    low, high = (getattr(prior.support, end, None) for end in ("lower_bound", "upper_bound"))
    if low is not None and high is not None and not low < high:
        raise ArgumentError(what, "low < high", f"({float(low):.6g}, {float(high):.6g})")


def _box(priors: dict) -> dict[str, tuple[float, float]]:
    """The intervals on which the priors live."""
    if len(priors) > MAX_DIMENSIONS:
        mend = "normalizer='exchange' takes more."
        raise ArgumentError("priors", f"at most {MAX_DIMENSIONS} couplings", str(len(priors)), mend)
    box = {}
    for name, prior in priors.items():
        ends = [getattr(prior.support, end, None) for end in ("lower_bound", "upper_bound")]
        if any(end is None for end in ends) or not np.all(np.isfinite(ends)):
            mend = (
                "log Z is computed on it: use Uniform, or TruncatedNormal with low and high (or normalizer='exchange')."
            )
            raise ArgumentError(f"prior of {name!r}", "a distribution on a finite interval", repr(prior), mend)
        box[name] = (float(ends[0]), float(ends[1]))
    return box


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
