"""What a variational fit gives back: the bound with its error, how far the target is, and whether the fit is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from ..autocorrelation import gamma_method
from ..errors import OverlapError, call_checked, positive_int
from ..model import MarkovRandomField
from ..partition import log_partition
from ..reweighting import reweight
from ..reweighting.energies import difference, evaluate
from .history import FitStatus, plot_history
from .natural import regress

if TYPE_CHECKING:
    from .variational import _Search

__all__ = ["VariationalFit", "finished"]

FINAL_SAMPLES = 8000
NEAR = 1e-3  # nats that may be left to gain in a converged fit, beyond what is noise


@call_checked
@dataclass(frozen=True)
class VariationalFit:
    """A field fitted to a known action; see `fit_variational`.

    Attributes
    ----------
    model : MarkovRandomField
        At the fitted couplings.
    standard_errors : dict or None
        Monte Carlo errors of the couplings, from the steps that were averaged; None if none were.
    bound, bound_error : float
        𝓕 = ⟨A − S⟩ − log Z ≥ −log Z_A, with the error of the average and of log Z.
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
    notes : tuple of str
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
    notes: tuple[str, ...] = ()

    @property
    def converged(self) -> bool:
        return self.status.converged

    def plot(self):
        """The history as a matplotlib figure."""
        return plot_history(self.history)

    def __str__(self) -> str:
        lines = [f"{self.model}", f"  {self.status}"]
        for name, value, error in (
            ("bound 𝓕 ≥ −log Z of the target", self.bound, self.bound_error),
            ("−log Z of the target, reweighted", self.free_energy, self.free_energy_error),
            ("Kullback–Leibler divergence", self.kl_divergence, self.kl_error),
        ):
            lines.append(f"  {name}: {value:.6g} ± {error:.2g}" if np.isfinite(value) else f"  {name}: not available")
        lines.append(f"  {self.history.sizes['step']} steps; another would lower the bound by {self.remaining:.2g}")
        return "\n".join(lines + [f"  {note}" for note in self.notes])


def finished(search: _Search, moves, status: FitStatus, num_samples, method: str | None, seed: int) -> VariationalFit:
    """Average the couplings, draw from the model there, and compute all that is said of it."""
    errors = moves.settle()
    number = positive_int("num_samples", FINAL_SAMPLES if num_samples is None else num_samples, minimum=80)
    fields, _ = search.draw(max(10, number // search.ensemble.num_chains), np.inf)
    model = search.model
    excess = evaluate(difference(search.target, model), fields.reshape(-1, *model.field_shape))
    excess = excess.reshape(fields.shape[:2])
    average = gamma_method(excess)
    remaining = _remaining(search, fields, excess, float(np.max(average.tau_int)))
    if status in (FitStatus.CONVERGED, FitStatus.MAX_STEPS):
        status = FitStatus.CONVERGED if remaining <= NEAR else FitStatus.MAX_STEPS
    ratio = _ratio(search, fields, model)
    kl = kl_error = log_ratio = ratio_error = np.nan
    if ratio is not None:
        log_ratio, ratio_error = ratio.log_partition_ratio, ratio.log_partition_ratio_error
        kl = float(average.mean) + log_ratio
        # both terms fluctuate together: near the target their sum is far better known than either
        kl_error = float(gamma_method(excess + np.exp(-excess - log_ratio)).error)
    bound = bound_error = free = free_error = np.nan
    if method is not None:
        normaliser = log_partition(model, method=method, seed=seed)
        bound, bound_error = float(average.mean) - normaliser.value, float(np.hypot(average.error, normaliser.error))
        free, free_error = -normaliser.value - log_ratio, float(np.hypot(normaliser.error, ratio_error))
    return VariationalFit(
        model=model, standard_errors=None if errors is None else search.vector.unflatten(errors),
        bound=bound, bound_error=bound_error, free_energy=free, free_energy_error=free_error,
        kl_divergence=kl, kl_error=kl_error, remaining=remaining, status=status, history=search.history.dataset(),
        samples=fields, notes=tuple(search.notes),
    )  # fmt: skip


def _ratio(search: _Search, fields, model):
    """The target reweighted from the fitted model; None where they hardly overlap."""
    try:
        return reweight(fields, model, search.target)
    except OverlapError as error:
        search.note(f"The divergence from the target is not available: {error}")
        return None


def _remaining(search: _Search, fields, excess, tau: float) -> float:
    """Improvement that is left, less what noise alone would show."""
    most = max(1, search.draws) if excess.size * search.vector.size > 5e7 else excess.shape[1]
    some, values = fields[:, :most], excess[:, :most].reshape(-1)
    found = regress(search.statistics(some), values)
    noise = found.rank * found.residual * max(1.0, 2 * tau) / 2 / max(len(values) - found.rank, 1)
    spread = noise * np.sqrt(2 / max(found.rank, 1))
    return max(0.0, found.improvement - noise - 3 * spread)
