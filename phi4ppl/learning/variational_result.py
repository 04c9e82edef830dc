"""The result of a variational fit: the bound with its error, the distance to the target, and whether the fit is done."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.special import chdtri

from ..analysis.gamma_method import gamma_method
from ..errors import ArgumentError, OverlapError
from ..errors.arguments import call_checked, positive_int
from ..model.coupling_vector import sign_notes
from ..model.field import MarkovRandomField
from ..partition.log_partition import log_partition
from ..reports.card import card
from ..reports.numbers import value_with_error
from ..reweighting.energies import difference, evaluate
from ..reweighting.ensembles import combine_ensembles
from ..reweighting.reweighted import Divergence
from .history import FitStatus, coupling_rows, plot_history
from .natural import regress
from .search import Search, correlation_of

__all__ = ["VariationalFit", "finished"]

FINAL_FIELDS = 8000
WARMUP_FLATTER, FLATTER_DRAWS = 100, 2000
MAX_FLATTENED, SHIFT = 0.6, 1.2  # 1 − β at most, and the shift of ⟨S⟩ in its standard deviations
MIN_CARRIERS = 20
ROUNDING = 1e-5
FEW = (
    "The error of the {} is not available: {:.0f} draws carry its variance, and {} are needed. Use more num_fields, or a "
    "family whose tails are nearer to the target's."
)
SADDLE = (
    "The bound has a saddle at these couplings, not a minimum: it falls to more than one side, as where the target breaks a "
    "symmetry that the model still has. Start on either side of it, for example with a source."
)
FALSE_ALARM = 1e-4  # probability of an improvement by noise that is taken for one that is left
NEAR = 1e-3  # nats that may be left to gain in a converged fit, beyond what is noise


@call_checked
@dataclass(frozen=True, repr=False)
class VariationalFit:
    """A field fitted to a known action; see `fit_variational`.

    Attributes
    ----------
    model : MarkovRandomField
        At the fitted couplings.
    standard_errors : dict or None
        Monte Carlo errors of the couplings, from the steps that were averaged; None if there were none; ``warnings`` then give
        the reason.
    bound, bound_error : float
        𝓕 = ⟨A − S⟩ − log Z ≥ −log Z_A, with the error of the average and of log Z. Averages are over draws of the model
        pooled with draws of a flatter one, which visit the tails; an error that few draws carry is nan, with a note.
    free_energy, free_energy_error : float
        −log Z_A of the target, by reweighting: 𝓕 less the Kullback–Leibler divergence. nan where the overlap is too small.
    kl_divergence, kl_error : float
        KL(p ‖ exp(−A)/Z_A) = ⟨A − S⟩ + log ⟨exp(S − A)⟩, nan where the overlap is too small.
    remaining : float
        Nats by which another natural step would lower the bound, as far as more than noise; small at the fixed point, where
        A − S has no correlation with any statistic.
    status : FitStatus
    converged : bool
    history : xarray.Dataset
        Over ``step``: the couplings; ``share`` of the step that was taken; for the natural method ``improvement`` (nats that
        the step was to bring), ``noise`` (of it), ``residual`` (variance of A − S that no coupling explains), ``damping`` and
        ``rank``; for the gradient ``gradient_norm`` and ``variance`` (of A − S).
    samples : array, shape ``(chains, draws, *lattice)``
        Draws of the fitted model, for `phi4ppl.reweight`.
    warnings : tuple of str
        What was done that one should know: damping, shortened steps, poor overlap.
    """

    model: MarkovRandomField
    standard_errors: dict | None
    bound: float
    bound_error: float
    free_energy: float
    free_energy_error: float
    kl_divergence: float
    kl_error: float
    remaining: float
    status: FitStatus
    history: xr.Dataset
    samples: np.ndarray
    warnings: tuple[str, ...] = ()

    @property
    def converged(self) -> bool:
        return self.status.converged

    def plot(self, *, details: bool = False):
        """Draw the history as a matplotlib figure; see `plot_history`."""
        return plot_history(self.history, details=details)

    @property
    def _distances(self) -> list[tuple[str, str]]:
        """Bound, free energy and divergence with their errors, in words."""
        numbers = (
            ("bound 𝓕 ≥ −log Z of the target", self.bound, self.bound_error),
            ("−log Z of the target, reweighted", self.free_energy, self.free_energy_error),
            ("Kullback–Leibler divergence", self.kl_divergence, self.kl_error),
        )
        return [(n, value_with_error(v, e) if np.isfinite(v) else "not available") for n, v, e in numbers]

    def __str__(self) -> str:
        lines = [f"{self.model}", f"  {self.status}", *(f"  {name}: {text}" for name, text in self._distances)]
        lines.append(f"  {self.history.sizes['step']} steps; another would lower the bound by {self.remaining:.2g}")
        return "\n".join(lines + [f"  {text}" for text in self.warnings])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [*coupling_rows(self.model, self.standard_errors), *self._distances]
        outcome = str(self.status)
        return card("Variational fit", (), rows, good=self.converged, outcome=outcome, warnings=self.warnings)


def finished(search: Search, moves, status: FitStatus, num_fields, method: str | None, seed: int) -> VariationalFit:
    """Average the couplings, draw from the model there, and compute all that is said of it."""
    errors = moves.settle()
    number = positive_int("num_fields", FINAL_FIELDS if num_fields is None else num_fields, minimum=80)
    fields, _ = search.draw(max(10, number // search.ensemble.num_chains), np.inf)
    model = search.model
    excess = evaluate(difference(search.target, model), fields.reshape(-1, *model.field_shape))
    excess = excess.reshape(fields.shape[:2])
    remaining = _remaining(search, fields, excess)
    if status in (FitStatus.CONVERGED, FitStatus.MAX_STEPS):
        status = FitStatus.CONVERGED if remaining <= NEAR else FitStatus.MAX_STEPS
    mean, mean_error, kl, kl_error, log_ratio, ratio_error = _compared(search, fields, excess)
    bound = bound_error = free = free_error = np.nan
    if method is not None:
        normalizer = log_partition(model, method=method, seed=seed)
        bound, bound_error = mean - normalizer.value, float(np.hypot(mean_error, normalizer.error))
        free, free_error = -normalizer.value - log_ratio, float(np.hypot(normalizer.error, ratio_error))
    if errors is None:
        search.note(moves.why_no_errors)
    for text in sign_notes(model):
        search.note(text)
    return VariationalFit(
        model=model, standard_errors=None if errors is None else search.vector.unflatten(errors),
        bound=bound, bound_error=bound_error, free_energy=free, free_energy_error=free_error,
        kl_divergence=kl, kl_error=kl_error, remaining=remaining, status=status, history=search.history.dataset(),
        samples=fields, warnings=tuple(search.notes),
    )  # fmt: skip


def _compared(search: Search, fields, excess) -> tuple[float, ...]:
    """⟨A − S⟩, the divergence and log Z_A/Z, each with its error; nan where model and target hardly overlap."""
    try:
        found = _divergence(search, fields)
    except OverlapError as error:
        search.note(f"The divergence from the target is not available: {error}")
        average = gamma_method(excess)
        return float(average.mean), float(average.error), np.nan, np.nan, np.nan, np.nan
    kl_error, excess_error = found.error, found.excess_error
    if found.carriers < MIN_CARRIERS and np.abs(found.value) > ROUNDING:
        kl_error = np.nan
        search.note(FEW.format("divergence", found.carriers, MIN_CARRIERS))
    if found.excess_carriers < MIN_CARRIERS and np.ptp(excess) > ROUNDING:
        excess_error = np.nan
        search.note(FEW.format("bound", found.excess_carriers, MIN_CARRIERS))
    return (
        found.excess, excess_error, found.value, kl_error, found.log_partition_ratio, found.log_partition_ratio_error,
    )  # fmt: skip


def _divergence(search: Search, fields) -> Divergence:
    """From draws of the model, and half as many of p^β: rare fields at which A − S is large may have most of the variance."""
    model = search.model
    action = search.statistics(fields[:, : min(100, search.draws)]) @ search.theta
    flatter = 1 - min(MAX_FLATTENED, SHIFT / max(float(np.std(action)), 1e-9))
    wide = search.vector.model(flatter * search.theta)
    search.ensemble.warm_up(wide, WARMUP_FLATTER)
    draws = search.ensemble.draw(wide, max(FLATTER_DRAWS // len(fields), fields.shape[1] // 2)).fields
    try:
        return combine_ensembles([fields, draws], [model, wide]).divergence(search.target)
    except (OverlapError, ArgumentError):  # the target may be finite on draws of the model only
        return combine_ensembles([fields], [model]).divergence(search.target)


def _remaining(search: Search, fields, excess) -> float:
    """Improvement that is left, less what noise alone would show."""
    most = max(1, search.draws) if excess.size * search.vector.size > 5e7 else excess.shape[1]
    some, values = fields[:, :most], excess[:, :most]
    found = regress(search.statistics(some), values.reshape(-1), correlation_of(values))
    # the improvement by noise alone is distributed as χ² of so many directions
    most_by_noise = found.noise * chdtri(max(found.rank, 1), FALSE_ALARM) / max(found.rank, 1)
    if found.lowest < 0:
        search.note(SADDLE)
    return max(0.0, found.improvement - float(most_by_noise))
