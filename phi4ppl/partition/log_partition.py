"""`log_partition`: one call for several methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np

from ..energy.exact.exact_log_z import exact_log_partition
from ..errors import ArgumentError, Phi4pplWarning, warn
from ..errors.arguments import call_checked, seed_within
from ..model.field import MarkovRandomField
from ..reports.numbers import value_with_error
from .annealing import anneal
from .coupling_path import Path, path_to
from .integration import integrate
from .log_z_methods import SMC, Annealing, Auto, Exact, Integration, PopulationAnnealing, Tempering, method_of
from .partition_estimate import PartitionEstimate
from .population import anneal_populations
from .rungs import climb
from .smc import temper

__all__ = ["log_partition"]

NUM_WARMUP = 300
AGREE = 3  # standard errors


@call_checked
def log_partition(
    model: MarkovRandomField, *,
    method: str | Auto | Integration | Annealing | SMC | PopulationAnnealing | Tempering = "auto", seed: int = 0,
    progress: bool | None = None,
) -> PartitionEstimate:  # fmt: skip
    """log Z of a field or of a machine, Z = ∫ exp(−S(φ; θ)) dφ with the Lebesgue measure on all sites, with its error.

    Parameters
    ----------
    model : MarkovRandomField or RestrictedBoltzmannMachine
        A machine has its own methods, see `phi4ppl.networks.RestrictedBoltzmannMachine.log_partition`; those below are for
        fields.
    method : str or method object
        ``"exact"``: Gaussian fields by determinant; any other model whose graph is small or narrow (chains, trees, strips) by
        eliminating sites on quadrature nodes, which on a strip is its transfer matrix.
        ``"integration"``: log Z = log Z_0 − ∫₀¹ ⟨Σ_t θ_t T_t⟩_λ dλ, t over the terms of several sites, which enter S_λ with
        λθ_t; Z_0 of the independent sites left at λ = 0 is a product of one-dimensional integrals.
        ``"ais"``: annealed importance sampling along the same path in both directions, forward from independent draws and
        backward from draws of the model; their averages bracket log Z.
        ``"smc"``: BlackJAX's adaptive tempered sequential Monte Carlo along the same path.
        ``"population"``: population annealing along the same path, a check of the others that needs no chains in equilibrium.
        ``"tempering"``: multistate reweighting of the rungs of parallel tempering on the same path, for models with modes that
        chains at fixed λ do not leave.
        ``"auto"``: exact where that takes no more than a few seconds; else by integration and by annealing, averaged. If they
        differ by more than three standard errors, a warning says so and the error is widened to cover both.
        The objects `Integration`, `Annealing`, `SMC`, `PopulationAnnealing`, `Tempering` and `Auto` of `phi4ppl.partition`
        say how much work is done, as ``Auto(num_samples=4000, num_steps=4000)``.
    seed : int
    progress : bool, optional
        Show a progress bar on standard error; by default only in a terminal.

    Returns
    -------
    PartitionEstimate
        ``value``, ``error`` (one standard error, quadrature errors included), ``method``, and how it came about (with
        ``parts``, one per method, and ``bracket``); ``print`` it.

    Warns
    -----
    UserWarning
        If there is a reason to distrust the number; the result lists all reasons.

    Raises
    ------
    HammersleyCliffordError
        If the model is not normalizable: Z is infinite.
    ArgumentError
        If ``"exact"`` is asked for and would take too long, and for arguments out of range.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> result = p4.log_partition(p4.phi4(p4.lattice.chain(8), w=0.8, a=1.4, b=0.2))
    >>> result.method, round(result.value, 8)
    ('exact', 3.00172532)
    """
    if callable(getattr(model, "log_partition", None)):  # a machine of phi4ppl.networks
        return model.log_partition(method=method, seed=seed)  # type: ignore[attr-defined]
    if not isinstance(model, MarkovRandomField):
        raise ArgumentError("model", "a MarkovRandomField", type(model).__name__, "Build one with phi4ppl.phi4(…).")
    method, seed = method_of(method), seed_within(seed)
    model.check().raise_if_violated()
    if isinstance(method, Auto | Exact):
        result = exact_log_partition(model)
        if result is not None:
            return PartitionEstimate(result.value, result.error, "exact", result.how)
        if isinstance(method, Exact):
            got = f"{model!r}, whose graph is too wide for the memory of a few seconds' sum"
            fix = "method='integration' takes any model."
            raise ArgumentError("model", "a Gaussian field, or a small or narrow graph", got, fix, reason="too_large")
    result = _sampled(path_to(model), method, seed, progress)
    for text in result.warnings:
        warn(Phi4pplWarning("log_partition.doubtful", f"log_partition: {text}"))
    return result


def _sampled(
    path: Path, method: Auto | Integration | Annealing | SMC | PopulationAnnealing | Tempering, seed: int, progress
) -> PartitionEstimate:
    shared = {"num_warmup": NUM_WARMUP, "seed": seed, "progress": progress}
    if path.is_constant:
        how = f"{len(path.sites.row_of)} independent sites by one-dimensional quadrature"
        return PartitionEstimate(path.sites.log_partition, path.sites.error, method.name, how)
    if isinstance(method, Auto):
        annealed = anneal(path, **asdict(method.annealing), **shared)
        return agreement(integrate(path, **asdict(method.integration), **shared), annealed)
    runs: dict[type, Callable] = {
        SMC: temper, Integration: integrate, Annealing: anneal, PopulationAnnealing: anneal_populations, Tempering: climb,
    }  # fmt: skip
    run = runs[type(method)]
    return run(path, **asdict(method), **shared)


def agreement(one: PartitionEstimate, other: PartitionEstimate) -> PartitionEstimate:
    """Two independent estimates as one: their weighted mean if they agree, a widened error and a warning if they do not."""
    gap, spread = abs(one.value - other.value), float(np.hypot(one.error, other.error))
    texts = tuple(f"{part.method}: {text}" for part in (one, other) for text in part.warnings)
    if gap <= AGREE * spread:
        weights = np.array([other.error**2, one.error**2]) / spread**2
        value = float(weights @ [one.value, other.value])
        error = one.error * other.error / spread * max(1.0, gap / spread)
        how = f"weighted mean of {one.method} and {other.method}, which agree within {gap / spread:.1f} standard errors"
    else:
        value, error = (one.value + other.value) / 2, gap / 2 + max(one.error, other.error)
        how = f"{one.method} and {other.method} DISAGREE by {gap / spread:.1f} standard errors; the error covers both"
        texts = (
            f"{one.method} ({value_with_error(one.value, one.error)}) and "
            f"{other.method} ({value_with_error(other.value, other.error)}) "
            "disagree, so one of them is wrong: chains may not mix, or annealing is too fast. Increase num_samples and "
            "num_steps. phi4ppl.diagnose of a run of phi4ppl.sample shows whether chains mix.",
            *texts,
        )
    return PartitionEstimate(value, float(error), "auto", how, parts=(one, other), warnings=texts)
