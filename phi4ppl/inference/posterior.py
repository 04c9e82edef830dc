"""The posterior of couplings: draws as a DataTree, and the evidence where log Z is known."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from ..errors import ArgumentError
from ..errors.arguments import call_checked
from ..model.field import MarkovRandomField
from ..reports.card import card
from ..reports.numbers import value_with_error
from ..results.estimates import estimate
from ..results.settings import settings
from ..results.tails import MAX_PARETO_K
from ..sampling.memory import size_in_words
from .coupling_problem import CouplingProblem
from .latent_problem import LatentProblem

__all__ = ["Posterior"]

CANNOT_COMPARE = "normalizer='auto', 'exact' or 'surface' of phi4ppl.infer_couplings knows it."


@call_checked
@dataclass(frozen=True, eq=False, repr=False)
class Posterior:
    """Draws from p(θ | data) of one model, and its evidence p(data) = ∫ Π_n p(φ_n | θ) p(θ) dθ.

    It can be used like its tree: ``posterior["posterior"]``, ``posterior.posterior``, ``posterior.attrs`` and all else that a
    DataTree has. `phi4ppl.estimate`, `phi4ppl.diagnose` and `phi4ppl.save_run` take it; ArviZ takes ``posterior.tree``.

    Attributes
    ----------
    tree : xarray.DataTree
        Draws of equal weight in the group ``posterior``, as from `phi4ppl.sample`; of `compare` resampled by their weights.
    log_evidence, log_evidence_error : float or None
        log p(data) and its standard error, which has that of log Z times the number of fields; None where log Z is not known.
    warnings : tuple of str
        Reasons to doubt the result.
    problem : CouplingProblem or LatentProblem
        ``problem.data``; of couplings also ``problem.model`` and ``problem.priors``.
    draws : array, shape (num_draws, num_couplings)
        Couplings in the order of ``names``: those of the tree, or of `compare` an importance sample. Of `laplace` all latent
        variables, unconstrained.
    log_weights : array, shape (num_draws,)
        Log weights of the draws; their exponentials add up to one.
    log_partition : array, shape (num_draws,), or None
        log Z at the draws.
    pareto_k : float or None
        k̂ of the weights of `laplace`; above 0.7 the posterior is only approximate.
    """

    problem: CouplingProblem | LatentProblem
    tree: xr.DataTree
    draws: np.ndarray
    log_weights: np.ndarray
    log_partition: np.ndarray | None = None
    log_evidence: float | None = None
    log_evidence_error: float | None = None
    warnings: tuple[str, ...] = ()
    _mean_errors: np.ndarray | None = field(default=None)
    pareto_k: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The couplings that vary, none for a fixed model."""
        return self.problem.names

    @property
    def notes(self) -> tuple[str, ...]:
        """What was cut of the priors, where Z is infinite, and how data were thinned."""
        return tuple(settings(self.tree).get("notes", ()))

    @property
    def shown(self) -> list[str]:
        """What tables show: the couplings, and the parameters that they are made of; not those of single cliques."""
        draws = self.tree["posterior"].data_vars
        own = [str(name) for name, values in draws.items() if values.ndim == 2]
        return list(self.names) if set(own) <= set(self.names) and len(own) == len(self.names) else own

    @property
    def model(self) -> MarkovRandomField:
        """The model at the posterior mean."""
        return self.problem.at(np.exp(self.log_weights) @ self.draws)

    def at(self, draw: int) -> MarkovRandomField:
        """The model at one draw of the couplings."""
        return self.problem.at(self.draws[draw])

    def choose(self, number: int, rng: np.random.Generator) -> list[MarkovRandomField]:
        """The model at ``number`` draws of equal weight."""
        return [self.at(k) for k in rng.choice(len(self.draws), number, p=np.exp(self.log_weights))]

    @property
    def log_likelihood(self) -> np.ndarray:
        """log p(φ_n | θ_s), or of a datum given all latent sites, normalized, shape (num_draws, num_data)."""
        if self.log_partition is None and isinstance(self.problem, CouplingProblem):
            raise ArgumentError(
                "posterior", "one with log Z at its draws", "one without", CANNOT_COMPARE, reason="no_log_z"
            )
        return self.problem.log_likelihood(self.draws, self.log_partition)

    @property
    def mean_errors(self) -> np.ndarray:
        """Standard errors of the means of the couplings, of the sample and of log Z, shape (num_couplings,)."""
        if self._mean_errors is not None:
            return self._mean_errors
        return estimate(self.tree, list(self.names))["error"].to_numpy()

    def __getitem__(self, name):
        return self.tree[name]

    def __getattr__(self, name):
        if name == "tree" or name.startswith("__"):  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.tree, name)

    def __str__(self) -> str:
        sizes = self.tree["posterior"].sizes
        lines = [f"Posterior of {self.problem.title}, {size_in_words(sizes['chain'], sizes['draw'])}"]
        if self.names:
            columns = ["mean", "sd", "3%", "97%", "error"]
            lines.append(str(estimate(self.tree, self.shown)[columns]))
        if self.log_evidence is not None:
            lines.append(f"log evidence {value_with_error(self.log_evidence, self.log_evidence_error)}")
        if self.pareto_k is not None:
            verdict = "exact up to the errors" if self.pareto_k <= MAX_PARETO_K else "only approximate"
            lines.append(f"Pareto k̂ {self.pareto_k:.2f}: {verdict}")
        return "\n".join([*lines, *(f"WARNING: {text}" for text in self.warnings)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        table = estimate(self.tree, self.shown)._repr_html_() if self.names else ""
        rows = []
        if self.log_evidence is not None:
            rows = [("log evidence", value_with_error(self.log_evidence, self.log_evidence_error))]
        if self.pareto_k is not None:
            rows.append(("Pareto k̂", f"{self.pareto_k:.2f}"))
        return card(f"Posterior of {self.problem.title}", (), rows, warnings=self.warnings) + table
