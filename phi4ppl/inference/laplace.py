"""`laplace`: the posterior of a NumPyro model with latent fields without Markov chains, with its error."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from scipy.special import logsumexp

from ..errors import ArgumentError, Phi4pplWarning, SamplingError, warn
from ..errors.arguments import arguments_by_name, call_checked, positive_int, seed_within
from ..errors.streams import stream_rng
from ..numpyro_plugin.curvature import Curvature, curvature_of
from ..numpyro_plugin.numpyro_model import compile as compile_model
from ..results.datatree import frame_of
from ..results.independent_tree import independent_tree
from ..results.predictive_groups import predictions_of
from ..results.tails import MAX_PARETO_K, pareto_k
from ..sampling.memory import require_memory
from ..sampling.progress import Progress
from .importance import resampled
from .laplace_nodes import Annealing, Node, Weighted, annealing_for, nodes_of
from .latent_problem import LatentProblem
from .posterior import Posterior

__all__ = ["laplace"]

SIZES = (
    (500, 128, 4096),
    (5_000, 128, 2048),
    (50_000, 64, 2048),
    (np.inf, 16, 512),
)  # nodes and draws up to so many latent variables
PATIENCE = 2.0  # seconds before progress is shown
MIN_SHARE = 0.1  # effective draws of all draws, below which weights are annealed
MAX_WORK, MIN_DRAWS = 1e11, 256  # multiplications that annealing may take, and the fewest draws that are worth it
EQUAL = 0.1  # log weights that differ by less have no tail but that of their rounding
MAX_LOST = 0.01  # share of the weight that nodes without a mode might have had


@call_checked
def laplace(
    model: Callable, *args: Any, num_draws: int | None = None, seed: int = 0, anneal: bool | None = None,
    progress: bool | None = None, model_kwargs: dict | None = None, coords: dict | None = None, dims: dict | None = None,
    predictive: bool = False,
) -> Posterior:  # fmt: skip
    """Posterior of a NumPyro model with latent fields by nested Laplace approximations, corrected by importance weights.

    Real latent sites x (fields, intercepts, effects) given the constrained ones θ (scales, correlations) have nearly a normal
    law N(x*(θ), H(θ)⁻¹), with x* the mode and H the sparse Hessian of −log p(x, θ, y). Then

        p(θ | y) ∝ p(x, θ, y)/p(x | θ, y) ≈ p(x*, θ, y) (2π)^{n/2} det H^{−1/2}

    is integrated over θ on a randomly shifted grid around its peak, and x is drawn from the normal laws at its nodes. All
    draws are weighted with the ratio of exact and approximate density: where Pareto k̂ of the weights is below 0.7 the
    result is exact up to its Monte Carlo error, and where it is not a warning says so. If plain weights do not do, draws are
    annealed from the normal law to the posterior at fixed θ, whose weights vary less.

    Parameters
    ----------
    model : callable
        A NumPyro model function, called with ``*args`` and ``**model_kwargs``, with at most eight constrained latent variables.
    num_draws : int, optional
        Draws that are weighted; the tree has as many of equal weight as they are worth. By default 4096 up to
        500 latent variables, 512 of more than 50,000, and 2048 between.
    seed : int
    anneal : bool, optional
        True: anneal in any case; False: only plain weights. By default what the weights need, and the size of the model allows.
    progress : bool, optional
        Show what is being done on standard error if it takes more than two seconds; by default only on a terminal.
    model_kwargs : dict, optional
    coords, dims : dict, optional
    predictive : bool, default False
        As of `phi4ppl.sample`: with ``predictive`` the tree has ``posterior_predictive``, ``prior``, ``prior_predictive`` and
        ``log_prior`` too.

    Returns
    -------
    Posterior
        ``tree`` with the groups of a run of `phi4ppl.sample` (``posterior``, ``log_likelihood``, ``observed_data``,
        ``constant_data``, and what ``predictive`` adds; one chain of independent draws), ``log_evidence`` with its error,
        ``pareto_k``, ``warnings``. Its settings also have ``log_evidence_laplace``, that of the approximation alone, and
        ``num_anneal``, the steps of annealing. `phi4ppl.compare` takes such posteriors of the same data. log evidence is None
        where k̂ is too large, or log Z of a field is not known; the settings say why (``log_evidence_reason``).

    Raises
    ------
    SamplingError
        If Newton's method finds no mode, or there is no field to approximate: `phi4ppl.sample` needs none.
    ArgumentError, DiscreteLatentError, DoublyIntractableError, MemoryLimitError

    Warns
    -----
    UserWarning
        If k̂ exceeds 0.7, or Newton's method finds other modes, which weights cannot see.

    Notes
    -----
    L. Tierney and J. B. Kadane, J. Am. Stat. Assoc. 81 (1986) 82; H. Rue, S. Martino and N. Chopin, J. R. Stat. Soc. B 71
    (2009) 319; A. Vehtari et al., J. Mach. Learn. Res. 25 (2024) 72 (Pareto k̂).

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro, numpyro.distributions as dist, phi4ppl as p4
    >>> def model(y):
    ...     level = numpyro.sample("level", dist.Normal(0, 2))
    ...     phi = numpyro.sample("phi", p4.GibbsField(p4.gaussian(p4.lattice.chain(6), w=0.8, a=1.0)))
    ...     numpyro.sample("y", dist.Poisson(jnp.exp(level + phi)), obs=y)
    >>> found = p4.laplace(model, jnp.array([3, 5, 2, 0, 1, 4]))
    >>> found.pareto_k < 0.7, round(found.log_evidence, 1)
    (True, -13.5)
    """
    seed = seed_within(seed)
    num_draws = None if num_draws is None else positive_int("num_draws", num_draws, minimum=100)
    for name, flag, usual in (
        ("anneal", anneal, None),
        ("progress", progress, None),
        ("predictive", predictive, False),
    ):
        if flag is not usual and not isinstance(flag, bool):
            raise ArgumentError(name, "True, False or None" if usual is None else "True or False", repr(flag))
    began, kwargs = time.perf_counter(), arguments_by_name("model_kwargs", model_kwargs)
    compiled = compile_model(model, *args, **kwargs)
    if compiled.model is not None:
        raise ArgumentError(
            "model", "a NumPyro model function", type(model).__name__,
            "Draws of a field by itself: phi4ppl.sample; its log Z: phi4ppl.log_partition.",
        )  # fmt: skip
    curvature = curvature_of(compiled)
    num_nodes, usual = next(sizes for limit, *sizes in SIZES if curvature.num_latent <= limit)
    num_draws = num_draws or usual
    problem = LatentProblem(compiled, curvature.template, model, args, kwargs)
    require_memory(problem.shapes, 1, num_draws, advice="Request fewer draws with num_draws.")
    predictions = predictions_of(compiled, model, args, kwargs, 1, num_draws) if predictive else None
    with Progress(None, progress) as line:
        curvature.notify = lambda text: _say(line, text, began)
        sample = _sample(curvature, num_nodes, num_draws, seed, anneal)
        theta, _, mode = curvature.peak
        curvature.notify("search for other modes")
        warnings = tuple(_warnings(sample, curvature.doubt(theta, mode)))
    log_evidence, error, reason = _evidence(sample, problem)
    unknown = problem.log_normalizer is None
    checks = {name: str(field.check()) for name, field in compiled.fields.items()}
    facts = {
        "kernel": "laplace", "kernel_reason": _how(sample, curvature), "seed": seed, "pareto_k": sample.pareto_k,
        "num_anneal": sample.num_anneal, "log_evidence": log_evidence, "log_evidence_error": error,
        "log_evidence_laplace": None if unknown else sample.log_evidence_laplace - problem.log_normalizer,
        "log_evidence_reason": reason, "warnings": list(warnings),
    }  # fmt: skip
    frame = frame_of(compiled, checks, facts, dims, coords, (model, args, kwargs))
    flat = sample.draws[:, curvature.order()]
    even = flat[resampled(np.exp(sample.log_weights), seed)]
    values, likelihood, density = problem.records(even)
    tree = independent_tree(values, likelihood, {"lp": density}, frame, {"seconds": time.perf_counter() - began})
    tree = tree if predictions is None else predictions.add_to(tree, frame, seed)
    for text in warnings:
        warn(Phi4pplWarning("laplace.doubtful", f"laplace: {text}"))
    return Posterior(
        problem, tree, flat, sample.log_weights, None, log_evidence, error, warnings, pareto_k=sample.pareto_k
    )


def _say(line: Progress, text: str, began: float) -> None:
    if line.is_due and time.perf_counter() - began > PATIENCE:
        line.message(f"laplace: {text}")


@dataclass(frozen=True)
class _Sample:
    """Draws (θ, x) at nodes, one row each, and log p(x, θ, y)/q of each, shape (num_nodes, num_draws of a node)."""

    draws: np.ndarray
    node_weights: np.ndarray  # log p(θ, y)/q(θ) by Laplace, (num_nodes,)
    log_ratios: np.ndarray  # of the exact to the approximate density of x, relative to it
    lost: float
    num_anneal: int

    @property
    def exact(self) -> np.ndarray:
        return self.node_weights[:, None] + self.log_ratios

    @functools.cached_property
    def pareto_k(self) -> float:
        """k̂ of the weights of all draws; where those of a node are nearly equal, of one weight a node."""
        same = np.isfinite(self.log_ratios).all() and np.ptp(self.log_ratios) < EQUAL
        return _tail(self.node_weights if same else self.exact.ravel())

    @property
    def trusted(self) -> bool:
        return self.pareto_k <= MAX_PARETO_K

    @property
    def log_weights(self) -> np.ndarray:
        """Of all draws: exact ones where they can be trusted, otherwise those of the Laplace approximation."""
        used = self.exact if self.trusted else np.broadcast_to(self.node_weights[:, None], self.log_ratios.shape)
        return (used - logsumexp(used)).ravel()

    @property
    def log_evidence_laplace(self) -> float:
        return float(logsumexp(self.node_weights) - np.log(len(self.node_weights)))

    @property
    def log_evidence(self) -> tuple[float, float]:
        """log of the mean weight, and its error from the spread of the nodes, or of the draws if there is one node."""
        scale = self.exact.max()
        means = np.exp(self.exact - scale)
        means = means.mean(axis=1) if len(means) > 1 else means[0]
        error = means.std(ddof=1) / np.sqrt(len(means)) / means.mean()
        return float(np.log(means.mean()) + scale), float(error)

    @property
    def share(self) -> float:
        """Effective number of draws over their number."""
        weights = np.exp(self.exact - logsumexp(self.exact))
        return 1 / np.sum(weights**2) / weights.size


def _tail(log_weights: np.ndarray) -> float:
    """k̂; −inf for weights that are nearly equal, inf where a tenth of them is 0."""
    finite = log_weights[np.isfinite(log_weights)]
    if len(finite) < 0.9 * len(log_weights):
        return np.inf
    return pareto_k(finite) if np.ptp(finite) > EQUAL else -np.inf


def _sample(curvature: Curvature, num_nodes: int, num_draws: int, seed: int, anneal: bool | None) -> _Sample:
    number = 1 << (min(num_nodes, num_draws // 4).bit_length() - 1) if curvature.num_hyper else 1
    nodes = nodes_of(curvature, number, stream_rng(seed, "laplace nodes"))
    each, lost = -(-num_draws // number), _lost(nodes)
    nodes = [node for node in nodes if node.mode is not None]
    found = None
    if anneal is not True:
        found = _weigh(curvature, nodes, each, Annealing(), stream_rng(seed, "laplace draws"), lost)
        if anneal is False or (found.trusted and found.share > MIN_SHARE):
            return found
    best = max(nodes, key=lambda node: node.mode.log_marginal)
    most = np.inf if anneal else MAX_WORK / (2 * best.mode.factors.size * min(MIN_DRAWS, num_draws))
    annealing = annealing_for(curvature, best, stream_rng(seed, "laplace annealing"), most)
    if annealing is None:
        return found
    if not anneal:  # of large fields fewer draws
        each = min(each, -(-int(MIN_DRAWS * most / annealing.num_solves) // number))
    return _weigh(curvature, nodes, each, annealing, stream_rng(seed, "laplace draws"), lost)


def _weigh(curvature: Curvature, nodes: list[Node], each: int, annealing: Annealing, rng, lost: float) -> _Sample:
    dtype = np.result_type(jax.numpy.result_type(float))
    draws, ratios = np.empty((len(nodes), each, curvature.num_hyper + curvature.num_latent), dtype), []
    for k, node in enumerate(nodes):
        curvature.notify(f"draws at value {k + 1} of {len(nodes)}{f', {annealing}' if annealing.num_steps else ''}")
        found: Weighted = annealing(curvature, node, each, rng)
        draws[k, :, : curvature.num_hyper], draws[k, :, curvature.num_hyper :] = node.theta, found.x
        ratios.append(found.log_ratios)
    weights = np.array([node.log_weight for node in nodes])
    return _Sample(draws.reshape(len(nodes) * each, -1), weights, np.stack(ratios), lost, annealing.num_steps)


def _lost(nodes: list[Node]) -> float:
    """Share of the nodes at which Newton's method found no mode."""
    lost = sum(node.mode is None for node in nodes) / len(nodes)
    if lost == 1.0:
        raise SamplingError(
            "no_mode", "no mode of the latent fields was found around the peak. Use phi4ppl.sample(…, kernel='nuts')."
        )
    return lost


def _evidence(sample: _Sample, problem: LatentProblem) -> tuple[float | None, float | None, str]:
    if not sample.trusted:
        return None, None, f"k̂ of the weights is {sample.pareto_k:.2f}"
    if problem.log_normalizer is None:
        return None, None, problem.unknown
    value, error = sample.log_evidence
    return value - problem.log_normalizer, error, ""


def _how(sample: _Sample, curvature: Curvature) -> str:
    steps = f"annealed in {sample.num_anneal} steps" if sample.num_anneal else "with importance weights"
    what = f"at {len(sample.node_weights)} values of {', '.join(curvature.hyper)}, " if curvature.hyper else ""
    return f"normal laws of {', '.join(curvature.latent)} {what}{steps}"


def _warnings(sample: _Sample, doubt: str):
    if not sample.trusted:
        yield (
            f"Pareto k̂ of the weights is {sample.pareto_k:.2f}, above {MAX_PARETO_K}: the posterior is not close to the normal "
            "laws, by how much is not known, and the draws are those of the approximation. Use phi4ppl.sample."
        )
    if doubt:
        yield f"{doubt}, of which weights know nothing. Compare with phi4ppl.sample."
    if sample.lost > MAX_LOST:
        yield f"no mode was found at {sample.lost:.0%} of the values of the hyperparameters, which are left out."
