"""Posteriors of couplings given fields, with the normalizer of the likelihood at every coupling."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import numpyro
import xarray as xr
from numpyro.distributions import Distribution

from .._typing import Labeled
from ..errors import ArgumentError, OverlapError, Phi4pplWarning, warn
from ..errors.arguments import call_checked, one_of, positive_int, seed_within
from ..lattice.labels import MISSING_FIELDS, aligned_fields
from ..model.field import MarkovRandomField
from ..numpyro_plugin.numpyro_model import compile as compile_model
from ..partition.surface import PartitionSurface
from ..results.independent_fields import independent_fields
from ..results.run import sample
from ..results.settings import add_settings
from ..results.tails import MAX_PARETO_K
from .corrected_pseudolikelihood import PseudoLikelihood, affine_map, simulated_likelihood
from .coupling_problem import CouplingProblem
from .determinants import Determinants
from .exchange import auxiliary_tau, exchange, tuned
from .importance import importance_sample
from .log_z import MAX_SHIFT, Chebyshev, Interpolated, SurfaceOnBox, Unaffordable, mean_errors, mean_shift
from .posterior import Posterior
from .prior_models import PriorModelProblem
from .region import cut_problem, fits_its_priors, located, widened

__all__ = ["infer_couplings"]

NORMALIZERS = ("auto", "surface", "exact", "exchange", "pseudolikelihood", "pseudolikelihood_uncorrected")
LONG = 10  # autocorrelation times that an auxiliary chain should run for
EVIDENCE_DRAWS = 4000  # of the importance sample that gives the evidence
FELT = 300  # draws that stand for the posterior where the error of log Z is carried to its means
APPROXIMATION = "the pseudo-likelihood stands in place of the likelihood"
CORRECTED = "with mode and curvature of the likelihood from a simulation"
MAX_EXTENSIONS = 3  # of the box on which log Z is known
BEYOND = 0.002  # of the draws that may lie outside it unsaid
NOTICED = 0.25  # posterior standard deviations by which the noise of a correction may move the posterior unsaid


@call_checked
def infer_couplings(
    model: MarkovRandomField, data: Labeled, priors: dict[str, Distribution] | Callable, *,
    normalizer: PartitionSurface | Callable | str = "auto", num_auxiliary: int = 50,
    num_warmup: int = 500, num_samples: int = 1000, num_chains: int = 4, seed: int = 0, progress: bool | None = None,
) -> Posterior:  # fmt: skip
    """The posterior of couplings, p(θ | φ_1 … φ_n) ∝ p(θ) Π_i exp(−S(φ_i; θ))/Z(θ).

    S is linear in θ, so the data enter through the means of the statistics conjugate to θ, and log Z as a function of θ is all
    that is hard.

    Parameters
    ----------
    model : MarkovRandomField
        Couplings without prior stay as they are.
    data : array of shape ``(num_fields, *model.field_shape)``, or labeled as for `fit_likelihood`
        Independent fields, or the DataTree of `phi4ppl.sample`, which is thinned to one draw in 2 τ_int of every chain
        (``notes`` in `phi4ppl.settings` say so).
    priors : dict or callable
        NumPyro distributions of one number by the names of homogeneous couplings (``Normal``, ``HalfNormal``, ``LogNormal``,
        ``Gamma``, ``Uniform``, …): one to three, or any number with ``"exchange"``. Or a NumPyro model of all of them, which
        returns their dict: hierarchical priors, and with ``"exchange"`` also couplings of single sites and edges as functions
        of few parameters, ``{"a": intercept + slope * covariate}``. What priors have where Z is infinite, such as negative
        couplings of the highest power, is cut, and the rest normalized; ``notes`` of the settings say how much that was.
    normalizer : str or PartitionSurface
        ``"auto"``: ``"exact"`` where that takes no more than a few minutes, else ``"surface"``;
        ``"exact"``: log Z by ``log_partition(method="exact")`` at Chebyshev nodes and their interpolation, with as many nodes
        as the posterior needs, where the graph is small or narrow enough or the field Gaussian; for several couplings of a
        Gaussian field whose priors reach where Z is infinite, at every step instead, by eigenvalues of the precision;
        ``"surface"``: a `PartitionSurface` over the box of the priors, or for priors without ends over nine standard deviations
        around the mode, extended where the posterior reaches beyond, and, of one coupling, ending shortly before infinite Z,
        where the posterior vanishes; then more ensembles where the posterior lives, until the
        error of log Z moves no posterior mean by more than 0.05 standard deviations, or the simulation reaches its limit. An
        existing `PartitionSurface` that covers the box of the priors is used as it is; under priors without ends it is
        extended if need be;
        ``"exchange"``: no log Z. For every proposal all fields are followed to auxiliary fields at the proposed couplings
        (`phi4ppl.inference.exchange`), which takes any number of homogeneous couplings, with priors that keep quartic
        couplings from 0 on, and long;
        ``"pseudolikelihood"``: an approximation, marked as such: densities of single sites given the rest in place of the
        likelihood, moved and stretched to the mode and the curvature that the likelihood has by a short simulation
        (L. Bouranis, N. Friel, F. Maire, J. Comput. Graph. Stat. 27 (2018) 516);
        ``"pseudolikelihood_uncorrected"``: without that simulation, off by a standard deviation or so in place and width.
    num_auxiliary : int
        Iterations of the sampler from each field to its auxiliary field, for ``"exchange"``. The posterior has a bias that
        falls like exp(−num_auxiliary/τ).
    num_warmup : int, default 500
        Iterations of warm-up per chain of the couplings, which are sampled by NUTS, and by random walks for ``"exchange"``.
    num_samples : int, default 1000
        Kept draws per chain.
    num_chains : int, default 4
    seed : int, default 0
    progress : bool, optional
        Draw a line of progress on standard error; by default only on a terminal.

    Returns
    -------
    Posterior
        Its ``tree`` is as from `phi4ppl.sample`, with the couplings in ``posterior``; ``log_evidence`` is known where log Z
        is, from an importance sample, and is that of the priors as they are after cutting. The settings in the metadata
        have ``normalizer``, and ``normalizer_how``, the source of log Z; ``normalizer_error``, the standard error that log
        Z gives to the posterior mean of each coupling, which is part of the errors of `phi4ppl.estimate`;
        ``normalizer_shift``, the largest of these errors along any coupling or principal axis, in posterior standard
        deviations, which `phi4ppl.diagnose` checks; and ``log_evidence`` with its error. For ``"exchange"`` instead
        ``num_auxiliary`` and ``auxiliary_tau``, the autocorrelation time τ of those chains; and ``approximation``, a line
        that `phi4ppl.diagnose` repeats, where the pseudo-likelihood was taken.

    Warns
    -----
    UserWarning
        If that shift is more than 0.05, auxiliary chains are shorter than ten autocorrelation times, or the most probable
        couplings were not found; ``warnings`` of the result, and in the settings, repeat it.

    Raises
    ------
    ArgumentError
        For priors that have no density or lie at negative couplings of the highest power, posteriors of several couplings so
        near to infinite Z that no box around them is free of it, where log Z is not exact, data of the wrong shape, with
        missing values or other labels, models for which ``"exact"`` would take too long, and fields whose pseudo-likelihood
        has no maximum.
    OverlapError
        If a surface does not cover priors that end.

    Examples
    --------
    >>> import numpy as np, numpyro.distributions as dist, phi4ppl as p4
    >>> ring = p4.phi4(p4.lattice.chain(8), w=0.8, a=1.4, b=0.2)
    >>> fields = p4.sample(ring, num_warmup=100, num_samples=10, thinning=10)["posterior"]["phi"].values.reshape(-1, 8)
    >>> found = p4.infer_couplings(ring, fields, {"w": dist.Uniform(0.4, 1.2)}, normalizer="exact", num_samples=500)
    >>> bool(abs(found["posterior"]["w"].values.mean() - 0.8) < 0.4)
    True
    """
    num_auxiliary = positive_int("num_auxiliary", num_auxiliary)
    by_name = not isinstance(normalizer, PartitionSurface) and one_of("normalizer", normalizer, NORMALIZERS)
    if isinstance(model, MarkovRandomField):
        data, note = independent_fields(data, model)
    problem, notes = _checked(model, data, priors)
    notes = ([note] if note else []) + notes
    run = {"num_warmup": num_warmup, "num_samples": num_samples, "num_chains": num_chains, "seed": seed_within(seed)}
    run |= {"progress": progress}
    if by_name == "exchange":
        tree, facts, complaints, *known = _by_exchange(problem, num_auxiliary, run)
    elif by_name and by_name.startswith("pseudolikelihood"):
        tree, facts, complaints, *known = _by_pseudolikelihood(problem, by_name == "pseudolikelihood", run)
    else:
        tree, facts, complaints, *known = _by_log_partition(problem, normalizer, run)
    add_settings(tree, {"normalizer": by_name} | facts | {"warnings": complaints, "notes": notes})
    for complaint in complaints:
        warn(Phi4pplWarning("infer_couplings.doubtful", f"infer_couplings: {complaint}"))
    draws = _draws(tree, problem.names)
    even = np.full(len(draws), -np.log(len(draws)))
    return Posterior(problem, tree, draws, even, *known, warnings=tuple(complaints))  # type: ignore[misc]


def _draws(tree: xr.DataTree, names) -> np.ndarray:
    """The couplings of all chains, shape (num_draws, num_couplings)."""
    values = [tree["posterior"][name].values.astype(float) for name in names]
    return np.concatenate([each.reshape(each.shape[0] * each.shape[1], -1) for each in values], axis=1)


def _numpyro_model(problem: CouplingProblem, log_likelihood: Callable) -> Callable:
    def posterior():
        values = problem.sampled()
        theta = problem.vector.stack({name: jnp.asarray(value) for name, value in values.items()})
        numpyro.factor("likelihood", log_likelihood(theta))

    return posterior


def _by_log_partition(problem: CouplingProblem, normalizer, run: dict) -> tuple:
    """With log Z exact or from a surface: draws, facts for the metadata, complaints, log Z at the draws, and the evidence."""
    log_z = _placed_log_z(problem, normalizer, run)
    problem, likelihood = log_z.problem, log_z.likelihood
    _require_spread(likelihood.covariance)
    tree = sample(_numpyro_model(problem, lambda theta: -likelihood.cost(theta) - problem.wall(theta)), **run)
    errors, shift = _carried(log_z, tree)
    complaints = _beyond(problem, _draws(tree, problem.names))
    evidence = {"log_evidence": None, "log_evidence_error": None}
    if not isinstance(problem, PriorModelProblem):  # the density of the couplings by themselves is known
        around = importance_sample(problem, log_z, likelihood.mean, likelihood.covariance, EVIDENCE_DRAWS, run["seed"])
        evidence = {"log_evidence": around.log_evidence, "log_evidence_error": around.log_evidence_error}
        if (k := around.pareto_k) > MAX_PARETO_K:
            complaints.append(
                f"log_evidence should not be trusted: the posterior is not Gaussian (Pareto k̂ = {k:.2f})."
            )
    facts = {
        "normalizer": log_z.name, "normalizer_how": log_z.how, "normalizer_shift": shift, "normalizer_error": errors,
    }  # fmt: skip
    if shift > MAX_SHIFT:
        own = isinstance(normalizer, PartitionSurface)
        fix = (
            "normalizer='surface' samples until the shift is smaller, or pass a PartitionSurface with more num_samples."
            if own
            else "Use fewer fields, or pass a PartitionSurface with more num_samples over a smaller box as normalizer."
        )
        reason = f": {log_z.stopped}" if log_z.stopped else ""
        complaints.append(
            f"the error of log Z may have moved the posterior by {shift:.2g} of its standard deviations, more than "
            f"{MAX_SHIFT:g}{reason}. The errors of the couplings include it. {fix}"
        )
    return tree, facts | evidence, complaints, log_z(_draws(tree, problem.names))[0], *evidence.values()


def _require_spread(covariance) -> None:
    """Reject posteriors that lie in one point: data far from what any coupling of the priors gives."""
    if not (np.all(np.isfinite(covariance)) and np.linalg.eigvalsh(covariance)[0] > 0):
        fix = "Check the units of the fields: rescale them, or start from couplings that fit them (phi4ppl.fit_likelihood)."
        expected, got = "fields of the size that the model produces", "a posterior in one point of the priors"
        raise ArgumentError("data", expected, got, fix, reason="degenerate")


def _placed_log_z(problem: CouplingProblem, normalizer, run: dict) -> Interpolated | Determinants:
    """log Z from the source that ``normalizer`` names, over a box that the posterior does not reach the faces of."""
    if isinstance(normalizer, PartitionSurface):
        problem = _on_surface(normalizer, problem)
    else:
        problem.require_few()
        if normalizer != "surface" and len(problem.names) > 1 and not fits_its_priors(problem):
            with contextlib.suppress(Unaffordable):
                return Determinants(problem)
        problem = located(problem, run["seed"])
    log_z = _log_z(problem, normalizer, run)
    for _ in range(MAX_EXTENSIONS):
        wider = widened(problem, log_z.likelihood)
        if wider is None:
            break
        problem = wider
        if log_z.surface is None:
            log_z = _log_z(problem, normalizer, run)
        else:
            surface = log_z.surface.extend(_as_region(problem), progress=run["progress"])
            refine = not isinstance(normalizer, PartitionSurface)
            log_z = SurfaceOnBox(problem, surface, refine=refine, seed=run["seed"], progress=run["progress"])
    return log_z


def _as_region(problem: CouplingProblem) -> dict[str, tuple[float, float]]:
    return dict(zip(problem.names, zip(*(ends.tolist() for ends in problem.box), strict=True), strict=True))


def _beyond(problem: CouplingProblem, draws: np.ndarray) -> list[str]:
    """A complaint, if draws lie where log Z is extrapolated."""
    low, high = problem.box
    slack = 0.01 * (high - low)
    share = float(np.mean(np.any((draws < low - slack) | (draws > high + slack), axis=1)))
    if share < BEYOND:
        return []
    box = ", ".join(f"{name} in [{a:.4g}, {b:.4g}]" for name, (a, b) in _as_region(problem).items())
    return [
        f"{share:.1%} of the draws lie outside {box}, on which log Z is known. Use more fields, priors that end, or "
        "normalizer='exchange'."
    ]


def _log_z(problem: CouplingProblem, normalizer, run: dict) -> Interpolated:
    """log Z on the box of the problem."""
    options, beside = {"seed": run["seed"], "progress": run["progress"]}, ""
    if isinstance(normalizer, PartitionSurface):
        return SurfaceOnBox(problem, normalizer, refine=False, **options)
    if normalizer != "surface":
        try:
            return Chebyshev(problem)
        except Unaffordable as refusal:
            if normalizer == "exact":
                fix = "normalizer='surface' takes any model."
                if refusal.args[0] == "priors":
                    fix = "Narrow the priors, or use normalizer='surface'."
                name, expected, got = refusal.args
                raise ArgumentError(name, expected, got, fix, reason="too_large") from None
            beside = "; exact values would take too long"
    surface = PartitionSurface(problem.model, _as_region(problem), num_chains=max(2, run["num_chains"]), **options)
    found = SurfaceOnBox(problem, surface, refine=True, **options)
    found.how += beside
    return found


def _carried(log_z: Interpolated | Determinants, tree: xr.DataTree) -> tuple[dict[str, float], float]:
    """Standard errors that log Z gives to the means of the couplings, and the largest in posterior standard deviations."""
    names = log_z.problem.names
    draws = _draws(tree, names)
    width = np.atleast_2d(np.cov(draws.T))
    some = draws[:: max(1, len(draws) // FELT)]
    errors = mean_errors(log_z.pool, log_z.problem.count, some, np.full(len(some), 1 / len(some)))
    shift = float(np.hypot(mean_shift(errors, width), log_z.numerical))
    errors = np.hypot(errors[: len(names)], log_z.numerical * np.sqrt(np.diag(width)))
    return dict(zip(names, errors.tolist(), strict=True)), shift


def _by_pseudolikelihood(problem: CouplingProblem, corrected: bool, run: dict) -> tuple:
    problem.require_few()
    problem.model.check().raise_if_violated()
    likelihood, facts, complaints = PseudoLikelihood(problem), {"approximation": APPROXIMATION}, []
    own = likelihood.mode()
    cost, scale = likelihood.around(own)
    center, to_z = own.theta, np.linalg.inv(scale)
    if corrected:
        other, noise, warned = simulated_likelihood(problem, own.theta, run["seed"])
        center, to_z = other.theta, to_z @ affine_map(own, other)
        facts = {"approximation": f"{APPROXIMATION}, {CORRECTED}", "normalizer_shift": noise}
        complaints += warned
        if noise > NOTICED:
            complaints.append(
                f"the simulation that corrects the pseudo-likelihood may have moved the posterior by {noise:.2g} of its "
                "standard deviations. normalizer='surface' is more accurate."
            )

    def log_likelihood(theta):
        return -cost(jnp.asarray(to_z, theta.dtype) @ (theta - jnp.asarray(center, theta.dtype)))

    tree = sample(_numpyro_model(problem, log_likelihood), **run)
    draws = _draws(tree, problem.names)
    if corrected:
        facts["normalizer_error"] = dict(zip(problem.names, (noise * draws.std(axis=0)).tolist(), strict=True))  # type: ignore[assignment]
    return tree, facts, complaints + problem.improper(draws)


def _by_exchange(problem: CouplingProblem, num_auxiliary: int, run: dict) -> tuple:
    model, data, names, seed = problem.model, problem.data, list(problem.names), run["seed"]
    model.check().raise_if_violated()
    total = problem.statistics.sum(axis=0)
    posterior = _numpyro_model(problem, lambda theta: -jnp.asarray(total, theta.dtype) @ theta)
    constrain = compile_model(posterior).constrain
    kernel = exchange(
        model, names, data, lambda position: {name: constrain(position)[name] for name in names},
        num_auxiliary=num_auxiliary, tuning=tuned(model, data, seed),
    )  # fmt: skip
    tree = sample(posterior, kernel=kernel, **run)
    # these are of the density without log Z
    for group, unknown in (("sample_stats", ["lp", "schwinger_dyson"]), ("streamed", ["schwinger_dyson"])):
        tree[group] = xr.DataTree(tree[group].to_dataset().drop_vars(unknown))
    del tree["schwinger_dyson"]
    draws = _draws(tree, names)
    tau = auxiliary_tau(problem.at(draws.mean(axis=0)), names, data, seed)
    complaint = (
        f"auxiliary chains of {num_auxiliary} iterations are {num_auxiliary / tau:.2g} autocorrelation times long, so the "
        "posterior is biased, because the auxiliary fields still resemble the data: it is too narrow or too wide. Increase "
        "num_auxiliary."
    )
    complaints = [complaint] if num_auxiliary < LONG * tau else []
    return tree, {"num_auxiliary": num_auxiliary, "auxiliary_tau": tau}, complaints + problem.improper(draws)


def _checked(model, data, priors) -> tuple[CouplingProblem, list[str]]:
    """The problem, after checks of model, data and priors, and notes on what was cut of the priors."""
    if not isinstance(model, MarkovRandomField):
        raise ArgumentError("model", "a MarkovRandomField", type(model).__name__, "Build one with phi4ppl.phi4(…).")
    data = aligned_fields("data", data, model.lattice, MISSING_FIELDS, samples=1)
    if data.ndim != 1 + len(model.field_shape) or data.shape[1:] != model.field_shape or not len(data):
        expected = f"fields of shape (num_fields, {', '.join(map(str, model.field_shape))})"
        raise ArgumentError(
            "data", expected, f"shape {data.shape}", "One field needs a leading axis: field[None].", reason="shape"
        )
    if callable(priors) and not isinstance(priors, Distribution):
        problem = PriorModelProblem(model, data, priors)
        share = problem.cut_share
        return problem, [f"about {share:.2g} of the prior has no density (Z is infinite), and was cut"] if share else []
    if not isinstance(priors, dict) or not priors:
        expected = (
            "a dict of NumPyro distributions by the names of couplings, or a NumPyro model that returns couplings"
        )
        raise ArgumentError("priors", expected, repr(priors))
    for name, prior in priors.items():
        if not isinstance(prior, Distribution):
            raise ArgumentError(f"prior of {name!r}", "a NumPyro distribution of one number", repr(prior))
    return cut_problem(model, data, priors)


def _on_surface(surface: PartitionSurface, problem: CouplingProblem) -> CouplingProblem:
    """The problem on the box of a surface that covers its priors, or of one that may be extended where they have no ends."""
    problem.require_few()
    surface.check_model(problem.model)
    others = {name: value for name, value in problem.model.couplings.items() if name not in problem.names}
    if set(surface.region) != set(problem.names):
        expected = f"a PartitionSurface over {', '.join(map(repr, problem.names))}"
        raise ArgumentError("normalizer", expected, repr(surface))
    surface.log_partition(others | {name: sum(ends) / 2 for name, ends in surface.region.items()})  # rejects others
    box = np.array(problem.ends).T
    for k, name in enumerate(problem.names):
        (low, high), (left, right) = box[k], surface.region[name]
        slack = 1e-6 * (right - left)
        if np.all(np.isfinite(box)) and (low < left - slack or high > right + slack):
            raise OverlapError(
                "prior",
                f"the prior of {name!r} covers [{low:.6g}, {high:.6g}], more than the PartitionSurface's "
                f"[{left:.6g}, {right:.6g}]. Narrow the prior, or "
                f"call surface.extend({{{name!r}: ({low:.6g}, {high:.6g})}}).",
                {"prior_low": low, "prior_high": high, "low": left, "high": right},
            )
        box[k] = max(low, left), min(high, right)
    return problem.within(*box.T)
