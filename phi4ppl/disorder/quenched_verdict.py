"""Whether the chains of every realisation can be trusted: few checks over all of them, which name those that fail."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.special import fdtrc, stdtrit
from scipy.stats import chi2

from ..analysis.gamma_method import GammaEstimate, gamma_method
from ..errors.arguments import call_checked
from ..results.settings import metadata
from ..results.verdict import FALSE_ALARM, MIN_SIGN_CHANGES, Check
from .realizations import Overlaps

__all__ = ["QuenchedVerdict", "verdict_of"]

_MIN_REPLICA_Q = 1e-3  # below it the Γ-method takes the error from the means of the replicas
MIN_TAUS = 20  # draws of a replica, in autocorrelation times
WATCHED_SITES = 16
MIN_REALIZATIONS = 10
SHOWN = 8  # numbers of realisations in a message


@call_checked
@dataclass(frozen=True)
class QuenchedVerdict:
    """The result of the checks of a quenched run.

    Attributes
    ----------
    passed : bool
    checks : tuple of Check
    failed : tuple of int
        Realisations whose chains fail a check. They stay in all averages: leaving them out would favor couplings that are easy
        to sample.
    """

    checks: tuple[Check, ...]
    failed: tuple[int, ...]
    number: int

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence for each check that failed."""
        return tuple(f"{c.name}: {c.value} ({c.threshold}). {c.advice}" for c in self.checks if not c.passed)

    @property
    def outcome(self) -> str:
        if self.passed:
            return f"PASSED: no sign of trouble in {self.number} realisations"
        names = ", ".join(c.name for c in self.checks if not c.passed)
        which = f"; realisations {_listed(self.failed)} of {self.number}" if self.failed else ""
        return f"FAILED: {names}{which}"

    def __str__(self) -> str:
        return "\n".join([f"Chains {self.outcome}", *map(str, self.checks)])

    __repr__ = __str__


def verdict_of(tree: xr.DataTree, overlaps: Overlaps | None) -> QuenchedVerdict:
    """Check all realisations at once.

    * Replicas agree, and no replica is stuck: for scalar observables and 16 sites of the field.
    * A replica has at least 20 autocorrelation times (less their error) of the slowest of them.
    * ⟨φ ∂S/∂φ⟩ = 1 in every realisation.
    * No drift: the second half of the draws has the disorder averages of the first.
    * Of even models: the magnetization changes sign at least 10 times in every replica.

    Of a correct sampler whose chains are long enough, each of the tests fails with a probability of about 1e-4 for all
    realisations together.
    """
    watched, names = _watched(tree)
    found = gamma_method(watched)
    statistics = tree["sample_stats"]["schwinger_dyson"].transpose("chain", "draw", "realization").values
    checks = [
        _agreement(found, names, watched),
        _length(found, names, watched.shape[1]),
        _identity(gamma_method(statistics)),
    ]
    bad = [where for _, where in checks]
    checks_found = [check for check, _ in checks]
    if metadata(tree)["settings"]["even"]:
        check, where = _sign_changes(tree)
        checks_found.append(check)
        bad.append(where)
    checks_found.append(_drift(tree, overlaps))
    number = watched.shape[2]
    checks_found.append(
        Check("realisations", number >= MIN_REALIZATIONS, str(number), f"at least {MIN_REALIZATIONS}",
              "Errors are those of a mean over realisations: draw more (num_realizations).")
    )  # fmt: skip
    failed = tuple(int(k) for k in np.flatnonzero(np.any(bad, axis=0)))
    return QuenchedVerdict(tuple(checks_found), failed, number)


def _listed(numbers) -> str:
    shown = ", ".join(str(int(k)) for k in numbers[:SHOWN])
    return f"{shown}{f', … ({len(numbers)} in all)' if len(numbers) > SHOWN else ''}"


def _watched(tree: xr.DataTree) -> tuple[np.ndarray, list[str]]:
    """Series of shape ``(replicas, draws, realisations, quantities)``, and what they are."""
    data = tree["posterior"].dataset
    parts = {
        str(name): data[name].transpose("chain", "draw", "realization").values
        for name in data.data_vars
        if set(data[name].dims) == {"chain", "draw", "realization"}
    }
    if "phi" in data:
        fields = data["phi"].transpose("chain", "draw", "realization", ...).values
        flat = fields.reshape(*fields.shape[:3], -1)
        for site in np.unique(np.linspace(0, flat.shape[3] - 1, WATCHED_SITES).astype(int)):
            parts[f"phi at site {site}"] = flat[..., site]
    return np.stack(list(parts.values()), axis=-1), list(parts)


def _freedom(found: GammaEstimate, total: int) -> np.ndarray:
    """Degrees of freedom of the variance that the Γ-method finds, from the length of its window."""
    return np.maximum(total / (2 * (found.window + 0.5)), 1.0)


def _worst(values: np.ndarray, names: list[str], smallest: bool) -> tuple[float, str]:
    at = np.unravel_index(np.argmin(values) if smallest else np.argmax(values), values.shape)
    return float(values[at]), f"realisation {at[0]}, {names[at[1]]}"


def _agreement(found: GammaEstimate, names: list[str], watched) -> tuple[Check, np.ndarray]:
    replicas, draws = watched.shape[:2]
    spread = chi2.isf(np.maximum(found.replica_q, 1e-300), replicas - 1) / (replicas - 1)
    q = np.where(np.isnan(found.replica_q), 0.0, fdtrc(replicas - 1, _freedom(found, replicas * draws), spread))
    q = np.where((watched == watched[:, :1]).all(axis=1).any(axis=0), 0.0, q)  # a replica that never moves
    limit = FALSE_ALARM / q.size
    worst, where = _worst(q, names, True)
    bad = np.asarray((q < limit).any(axis=1))
    listed = f"not in {_listed(np.flatnonzero(bad))}: " if bad.any() else ""
    value = f"{listed}p = {worst:.2g} ({where})"
    advice = (
        "Replicas of one realisation sit in different valleys, or do not move. Their products are not ⟨O⟩², and the averages "
        "are wrong by an unknown amount: run longer (num_warmup, num_samples), or take kernel='tempering'."
    )
    return Check("replicas agree", not bad.any(), value, f"p at least {limit:.1g}", advice), bad


def _length(found: GammaEstimate, names: list[str], draws: int) -> tuple[Check, np.ndarray]:
    # τ less its error: of thousands of estimates some come out large by chance. Where replicas disagree, τ is that of the
    # disagreement, which has a check of its own.
    apart = found.replica_q < _MIN_REPLICA_Q
    taus = np.where(apart, np.inf, draws / np.maximum(found.tau_int - found.tau_int_error, 0.5))
    worst, where = _worst(taus, names, True)
    bad = np.asarray((taus < MIN_TAUS).any(axis=1))
    more = int(np.ceil(1.5 * draws * MIN_TAUS / worst / 100) * 100)
    listed = f"not in {_listed(np.flatnonzero(bad))}: " if bad.any() else ""
    advice = f"Draw longer: num_samples={more}, or thinning for the same memory. More realisations do not help here."
    check = Check(
        "length", not bad.any(), f"{listed}{worst:.3g} tau_int ({where})", f"at least {MIN_TAUS} tau_int", advice
    )
    return check, bad


def _identity(found: GammaEstimate) -> tuple[Check, np.ndarray]:
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.nan_to_num((found.mean - 1) / found.error, nan=np.inf)
    total = found.effective_sample_size * 2 * found.tau_int
    bound = -stdtrit(_freedom(found, np.nan_to_num(total, nan=1.0)), FALSE_ALARM / z.size / 2)
    bad = np.abs(z) > bound
    at = int(np.argmax(np.abs(z) / bound))
    listed = f"not in {_listed(np.flatnonzero(bad))}: " if bad.any() else ""
    advice = "⟨φ ∂S/∂φ⟩ = 1 holds for every correct sampler: the chains have not converged, or the kernel is wrong."
    value = f"{listed}z = {z[at]:+.2f} (realisation {at})"
    return Check("Schwinger-Dyson", not bad.any(), value, f"1 within {bound[at]:.1f} errors", advice), bad


def _sign_changes(tree: xr.DataTree) -> tuple[Check, np.ndarray]:
    sign = np.sign(tree["posterior"]["magnetization"].transpose("chain", "draw", "realization").values)
    changes = (sign[:, 1:] * sign[:, :-1] < 0).sum(axis=1).min(axis=0)
    bad = changes < MIN_SIGN_CHANGES
    listed = f"not in {_listed(np.flatnonzero(bad))}: " if bad.any() else ""
    value = f"{listed}{changes.min()} (realisation {int(np.argmin(changes))})"
    advice = "The model is even, but a replica stays on one side: odd averages and the overlap are wrong. Run longer."
    return Check("sign changes", not bad.any(), value, f"at least {MIN_SIGN_CHANGES} in every replica", advice), bad


def _drift(tree: xr.DataTree, overlaps: Overlaps | None) -> Check:
    """Disorder averages of the two halves of the draws: realisations are independent, so this is a t-test."""
    data = tree["posterior"].dataset
    series = {
        str(n): data[n].transpose("chain", "draw", "realization").values
        for n in data.data_vars
        if set(data[n].dims) == {"chain", "draw", "realization"}
    }
    if overlaps is not None:
        series["q2"] = overlaps.q**2
    half = next(iter(series.values())).shape[1] // 2
    z, number = {}, 1
    for name, values in series.items():
        change = (values[:, half:].mean(axis=1, dtype=float) - values[:, :half].mean(axis=1, dtype=float)).mean(axis=0)
        number = len(change)
        z[name] = float(change.mean() / (change.std(ddof=1) / np.sqrt(number))) if np.ptp(change) > 0 else 0.0
    bound = float(-stdtrit(max(number - 1, 1), FALSE_ALARM / len(z) / 2))
    name = max(z, key=lambda each: abs(z[each]))
    return Check(
        "no drift", abs(z[name]) <= bound, f"z = {z[name]:+.2f} ({name})", f"within {bound:.1f} errors",
        "Averages over the realisations still change with time: the warm-up was too short (num_warmup).",
    )  # fmt: skip
