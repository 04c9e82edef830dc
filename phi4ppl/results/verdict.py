"""The verdict on a run: checks with thresholds, values and advice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import ndtri, stdtrit

from ..analysis.gamma_method import gamma_method
from ..errors import ArgumentError
from ..errors.arguments import call_checked
from ..reports.card import card
from ..reports.numbers import value_with_error
from ..sampling.memory import size_in_words
from .contents import element_names, facts_of, holds_run, scalar_names, series, statistics_of
from .estimates import EstimateTable, estimate
from .settings import tree_of
from .tails import MORE_DRAWS, weight_checks

__all__ = ["Check", "ConvergenceReport", "diagnose"]

MAX_RHAT = 1.01
MIN_ESS_PER_CHAIN = 100
MAX_MCSE = 0.1  # of a standard deviation
MIN_BFMI = 0.3
MAX_SATURATION = 0.01
MIN_EXCHANGE = 0.1
MIN_ROUND_TRIPS = 10
MAX_LOG_Z = 0.05  # posterior standard deviations
MIN_SIGN_CHANGES = 10
FALSE_ALARM = 1e-4  # of each of the two Schwinger–Dyson checks, for a correct sampler
WATCHED_SITES = 64


@dataclass(frozen=True)
class Check:
    """One line of the verdict."""

    name: str
    passed: bool
    value: str
    threshold: str
    advice: str = ""

    def __str__(self) -> str:
        line = f"  {'pass' if self.passed else 'FAIL'}  {self.name:<24} {self.value:<34} ({self.threshold})"
        return line if self.passed else f"{line}\n        → {self.advice}"


@call_checked
@dataclass(frozen=True, repr=False)
class ConvergenceReport:
    """The result of `diagnose`.

    Attributes
    ----------
    passed : bool
        Whether every check passed.
    checks : tuple of Check
        Each with name, value, threshold and, if it failed, advice.
    verdict : str
        The outcome in one line, which also states whether the run is incomplete.
    estimates : EstimateTable
        The table of `phi4ppl.estimate`. All its rows are reliable if every check passed.
    warnings : tuple of str
        What could not be checked, and why.
    """

    checks: tuple[Check, ...]
    tree: xr.DataTree = field(compare=False)
    estimates: EstimateTable = field(compare=False)
    warnings: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def verdict(self) -> str:
        settings = facts_of(self.tree)["settings"]
        failed = [c.name for c in self.checks if not c.passed]
        outcome = "PASSED: no sign of trouble" if self.passed else f"FAILED: {', '.join(failed)}"
        if "approximation" in settings:
            outcome += f"; APPROXIMATE: {settings['approximation']}"
        if settings.get("interrupted"):
            whole = "INTERRUPTED"
        elif settings.get("incomplete"):
            whole = "INCOMPLETE (still running, or stopped)"
        else:
            return outcome
        asked = settings["num_samples_asked"]
        return f"{outcome}; {whole} after {settings['num_samples']} of {asked} draws per chain"

    @property
    def run(self) -> str:
        """What was run, and what the tree holds of it, in words."""
        facts, sizes = facts_of(self.tree), self.tree["posterior"].sizes
        held, settings = size_in_words(sizes["chain"], sizes["draw"]), facts["settings"]
        if "pareto_k" in settings:
            return f"{sizes['draw']} independent draws by {settings['kernel']}: {settings['kernel_reason']}"
        if "kernel" not in settings:
            return f"{held}; not made by phi4ppl, so kernel, warm-up and thinning are not known"
        thinning = f" of {settings['thinning']} iterations" if settings["thinning"] > 1 else ""
        whole = size_in_words(settings["num_chains"], settings["num_samples"])
        how = f"after {settings['num_warmup']} of warm-up, kernel {settings['kernel']} ({settings['kernel_reason']})"
        if holds_run(self.tree, facts):
            return f"{whole}{thinning} {how}"
        return f"{held}, not the whole run as it was made: {whole}{thinning} {how}"

    def __str__(self) -> str:
        warnings = (f"  note  {text}" for text in self.warnings)
        return "\n".join([f"Convergence {self.verdict}", self.run, *map(str, self.checks), *warnings])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [
            (c.name, "pass" if c.passed else "FAIL", c.value, c.threshold, c.advice * (not c.passed))
            for c in self.checks
        ]
        head = ("check", "", "value", "threshold", "advice")
        return card(
            self.run, head, rows, good=self.passed, outcome=f"Convergence {self.verdict}", warnings=self.warnings
        )

    def to_html(self, path, *, name: str | None = None):
        """Write one self-contained HTML file (tables, plots, maps of graph and fields), and return the path.

        Parameters
        ----------
        path : str or path
        name : str, optional
            Of the model, for the heading.
        """
        from .run_page import write_html  # matplotlib and plots only when a report is written

        return write_html(self, path, name)


@call_checked
def diagnose(tree: xr.DataTree) -> ConvergenceReport:
    """Check a run: R̂, effective sample sizes, energies, divergences, sign changes, and the Schwinger–Dyson identity.

    The checks cover all scalar variables and, for each field that was kept, up to 64 evenly spaced sites. They apply to the
    draws in the tree: of a part of a run that part. Of a tree that something else made, such as ArviZ from a run of
    NumPyro's own MCMC, the checks are those for which it has the groups, and the report notes what is missing.

    * R̂ (rank-normalized, split) at most 1.01; bulk and tail effective sample size at least 100 per chain; Monte Carlo
      standard error at most 10 % of the standard deviation; every row of the table of estimates ``reliable``.
    * No divergences; E-BFMI at least 0.3 for kernels with momenta; at most 1 % of NUTS trees cut at their maximal depth; at
      least 10 % of exchanges accepted between neighboring copies in parallel tempering, and 10 round trips of copies per
      chain, from the coldest rung to the hottest one and back.
    * Models even under φ → −φ: at least 10 changes of sign of the magnetization in every chain. Chains that all sit in one
      of two phases have R̂ = 1 and large effective sample sizes; only the sign shows it.
    * Posteriors of couplings: the error of log Z moves no mean by more than 0.05 posterior standard deviations.
    * Posteriors of `phi4ppl.laplace`, instead of R̂ and divergences: Pareto k̂ of the weights at most 0.7, and no warning of
      other modes.
    * ⟨φ_i ∂S/∂φ_i⟩ = 1, exactly, at every site, for any correct sampler of any proper model: on average over sites, and
      at the worst site (Bonferroni); each has a false-alarm rate of 1e-4.

    Parameters
    ----------
    tree : xarray.DataTree or Posterior
        From `phi4ppl.sample`, `phi4ppl.infer_couplings` or `phi4ppl.laplace`, or any with a group ``posterior`` of dimensions
        chain and draw.

    Returns
    -------
    ConvergenceReport

    Raises
    ------
    ArgumentError
        If the tree has no such group, no variable to check, or fewer than 10 draws per chain.

    Notes
    -----
    Sources: A. Vehtari et al., Bayesian Analysis 16 (2021) 667 (R̂, effective sample sizes and their thresholds);
    M. Betancourt, arXiv:1604.00695 (E-BFMI); U. Wolff, Comput. Phys. Commun. 156 (2004) 143 (errors).

    Examples
    --------
    >>> import phi4ppl as p4
    >>> model = p4.phi4(p4.lattice.chain(4), w=0.8, a=1.4, b=0.2)
    >>> report = p4.diagnose(p4.sample(model))
    >>> report.passed
    True
    """
    tree = tree_of(tree)
    facts = facts_of(tree)
    if "members" in facts["settings"] and "member" in tree["posterior"].dims:
        raise ArgumentError(
            "tree", "one member of an ensemble", "all of them", "Select one: tree.isel(member=0).", reason="ensemble"
        )
    if tree["posterior"].sizes["draw"] < 10:
        raise ArgumentError(
            "tree", "at least 10 draws per chain", str(tree["posterior"].sizes["draw"]), reason="too_short"
        )
    watched, statistics, table = _watched(tree, facts), statistics_of(tree), estimate(tree)
    if not watched:
        raise ArgumentError("tree", "a real variable of the posterior with draws", "none", reason="no_variable")
    fix, notes = _fixes(facts["settings"], statistics), []
    independent = "pareto_k" in facts["settings"]
    checks = [*_mixing(watched, fix, independent), _reliability(table)]
    checks += [Check(*row) for row in weight_checks(facts["settings"])] if independent else _dynamics(statistics, fix)
    if facts["settings"]["even"]:
        checks += _sign_changes(tree, facts)
    checks += [*_schwinger_dyson(tree, statistics, facts, notes), *_log_z(tree, facts["settings"])]
    if "diverging" not in statistics and not independent:
        notes.append("divergences are not checked: the tree has no sample_stats that record them")
    draws, taken = (tuple(map(group.sizes.get, ("chain", "draw"))) for group in (tree["posterior"], statistics))
    if None not in taken and taken != draws:
        notes.append(
            f"sample_stats holds {size_in_words(*taken)}, others than the posterior: the checks of the sampler "
            "are of those"
        )
    return ConvergenceReport(tuple(checks), tree, table, tuple(notes))


def _watched(tree: xr.DataTree, facts: dict) -> dict[str, np.ndarray]:
    """Series of shape (chain, draw) by name: scalars, and some sites of every kept field."""
    chosen = {}
    for name in dict.fromkeys([*scalar_names(tree, facts), *(f for f in facts["fields"] if f in tree["posterior"])]):
        values, names = series(tree, name), element_names(tree["posterior"][name])
        elements = list(np.ndindex(values.shape[2:]))
        if name in facts["fields"]:
            keep = np.unique(np.linspace(0, len(elements) - 1, min(len(elements), WATCHED_SITES)).astype(int))
            elements, names = [elements[k] for k in keep], [names[k] for k in keep]
        chosen |= {label: values[(..., *element)] for label, element in zip(names, elements, strict=True)}
    return chosen


class _Fixes(NamedTuple):
    """Advice that depends on what was sampled, and how."""

    disagree: str
    slow: str
    diverge: str
    thinning: int


def _fixes(settings: dict, statistics) -> _Fixes:
    kernel, field = settings.get("kernel"), settings["layout"] != "numpyro"
    if "inverse_temperature" in statistics:
        more = 3 * statistics["inverse_temperature"].shape[-1] // 2
        move = f"Hotter copies cross more barriers: try more of them, kernel=phi4ppl.sampling.tempering({more})."
    else:
        stuck = "different phases or in competing signs of w" if field else "different modes"
        move = f"Chains stuck in {stuck} need a kernel that moves between them: try kernel='tempering'."
    asked = (
        field and settings.get("kernel_reason") == "asked for" and kernel not in ("cluster", "tempering", "houdayer")
    )
    return _Fixes(
        "Chains disagree or drift: run longer (num_samples, num_warmup), and look at the trace of this variable. "
        + move,
        " kernel='auto' may need fewer." if asked else "",
        "warm up longer, or use kernel='local_hmc', which moves one site at a time"
        if field
        else "reparametrize (non-centered scales), warm up longer, or use stronger priors",
        settings["thinning"],
    )


def _mixing(watched: dict[str, np.ndarray], fix: _Fixes, independent: bool) -> list[Check]:
    import arviz_stats  # slow to import

    names = np.array(list(watched))
    data = xr.Dataset({"v": (("chain", "draw", "name"), np.stack(list(watched.values()), axis=-1).astype(float))})
    num_chains, num_draws = data.sizes["chain"], data.sizes["draw"]
    moving = data["v"].std(dim=("chain", "draw")).values > 0
    if not moving.all():
        name = names[~moving][0]
        stuck = Check("movement", False, f"{name} never changes", "every watched value moves",
                      "The kernel rejects every step, or this is a constant of the model: see acceptance_rate.")  # fmt: skip
        if not moving.any():
            return [stuck]
        names, data = names[moving], data.isel(name=np.flatnonzero(moving))

    def worst(values, largest):
        values = np.where(np.isfinite(values), values, np.inf if largest else -np.inf)
        at = int(np.argmax(values) if largest else np.argmin(values))
        return values[at], names[at]

    rhat, rhat_name = worst(arviz_stats.rhat(data)["v"].values, True)
    alone = "One chain cannot disagree with another: use num_chains=4."
    found = f"{rhat:.4f} ({rhat_name})" if num_chains > 1 else "one chain only"
    need = MIN_ESS_PER_CHAIN * num_chains
    checks = [] if moving.all() else [stuck]
    if not independent:
        advice = fix.disagree if num_chains > 1 else alone
        checks.append(Check("R-hat", bool(rhat <= MAX_RHAT), found, f"at most {MAX_RHAT}", advice))
    for kind in ("bulk", "tail"):
        ess, ess_name = worst(arviz_stats.ess(data, method=kind)["v"].values, False)
        factor = max(2, int(np.ceil(1.5 * need / max(ess, 1))))
        checks.append(
            Check(f"{kind} ESS", bool(ess >= need), f"{ess:.0f} of {num_chains * num_draws} ({ess_name})",
                  f"at least {need}", f"Too few independent draws: about {factor} times as many draws are needed "
                  + (MORE_DRAWS if independent else f"(num_samples={factor * num_draws}, or "
                     f"thinning={factor * fix.thinning} for the same memory).{fix.slow}"))
        )  # fmt: skip
    ratio = arviz_stats.mcse(data)["v"].values / data["v"].std(dim=("chain", "draw")).values
    mcse, mcse_name = worst(ratio, True)
    checks.append(
        Check("MCSE / sd", bool(mcse <= MAX_MCSE), f"{mcse:.3f} ({mcse_name})", f"at most {MAX_MCSE}",
              "The Monte Carlo error of the mean is this fraction of the standard deviation: run longer.")
    )  # fmt: skip
    return checks


def _reliability(table: pd.DataFrame) -> Check:
    """Whether the errors of the table that the verdict shows can be trusted."""
    bad = [str(name) for name in table.index[~table["reliable"].to_numpy(bool)]]
    few = f"{', '.join(bad[:3])}{', …' if len(bad) > 3 else ''}"
    return Check(
        "reliable estimates", not bad, f"{len(table) - len(bad)} of {len(table)}" + (f" (not {few})" if bad else ""),
        "all", "The Monte Carlo errors of these means should not be trusted: the chains are too short for their tau_int, or "
        "disagree. Run longer, and look at their traces.",
    )  # fmt: skip


def _dynamics(statistics: xr.Dataset, fix: _Fixes) -> list[Check]:
    checks = []
    if "diverging" in statistics:
        diverging = int(statistics["diverging"].values.sum())
        checks.append(
            Check("divergences", diverging == 0, f"{diverging} of {statistics['diverging'].size}", "none",
                  f"The step was too long for some region: {fix.diverge}. Divergent regions are under-sampled, so the means "
                  "are biased.")
        )  # fmt: skip
    if "energy" in statistics.data_vars:  # of kernels with momenta
        import arviz_stats

        bfmi = np.atleast_1d(arviz_stats.bfmi(statistics["energy"].transpose("chain", "draw").values))
        found = f"{bfmi.min():.2f} (chain {int(bfmi.argmin())})"
        checks.append(
            Check("E-BFMI", bool(bfmi.min() >= MIN_BFMI), found, f"at least {MIN_BFMI}", "Energies change too slowly, "
                  "because of heavy tails or scales that differ by orders of magnitude. Warm up longer or reparametrize.")
        )  # fmt: skip
    if "exchange_rate" in statistics.data_vars:
        rates = statistics["exchange_rate"].transpose("chain", "draw", "pair").values.mean(axis=1)
        chain, pair = np.unravel_index(np.argmin(rates), rates.shape)
        found = f"{rates.min():.2f} (chain {chain}, copies {pair} and {pair + 1})"
        checks.append(
            Check("exchange rates", bool(rates.min() >= MIN_EXCHANGE), found, f"at least {MIN_EXCHANGE}", "Neighboring "
                  "temperatures rarely exchange: use more rungs (phi4ppl.sampling.tempering(12)) or a longer warm-up.")
        )  # fmt: skip
        if "round_trips" in statistics:
            trips = statistics["round_trips"].transpose("chain", "draw").values.sum(axis=1)
            found = f"{trips.min()} (chain {int(trips.argmin())}), barrier Λ = {(1 - rates).sum(axis=1).mean():.1f}"
            checks.append(
                Check("round trips", bool(trips.min() >= MIN_ROUND_TRIPS), found, f"at least {MIN_ROUND_TRIPS} in every chain",
                      "Copies rarely reach the hottest rung and come back, so hot ones bring nothing new: run longer, or warm "
                      "up longer so that the rungs settle.")
            )  # fmt: skip
    cut = next((name for name in ("reached_max_treedepth", "reached_max_tree_depth") if name in statistics), None)
    if cut is not None:
        share = float(statistics[cut].values.mean())
        checks.append(
            Check("tree depth", share <= MAX_SATURATION, f"{share:.1%} of trees cut", f"at most {MAX_SATURATION:.0%}",
                  "Trajectories are cut before they turn around, which is slow. Warm up longer so that scales are learned.")
        )  # fmt: skip
    return checks


def _sign_changes(tree: xr.DataTree, facts: dict) -> list[Check]:
    own, statistics = "magnetization" in tree["posterior"].data_vars, statistics_of(tree)
    if not own and "field_mean" not in statistics:
        return []
    mean = tree["posterior"]["magnetization"] if own else statistics["field_mean"]
    sign = np.sign(mean.transpose("chain", "draw").values)
    changes = (sign[:, 1:] * sign[:, :-1] < 0).sum(axis=1)
    fewest = int(changes.min())
    if fewest >= (sign.shape[1] - 1) / 5:  # a kernel that changes signs freely does so in half of the draws
        advice = "Signs change freely, but the chains are too short to confirm it: run longer."
    elif facts["settings"]["sign_moves"]:
        advice = "The model is even but its sign moves are rarely accepted: check that every custom term is even."
    else:
        advice = (
            "The model is even, so ⟨φ⟩ = 0, but this chain stays on one side: every odd average is wrong, and R-hat cannot "
            "see it when all chains sit on the same side. Sample with symmetry_moves=True (the default)."
        )
    value = f"{fewest} (chain {int(changes.argmin())})"
    need = f"at least {MIN_SIGN_CHANGES} in every chain"
    return [Check("sign changes", fewest >= MIN_SIGN_CHANGES, value, need, advice)]


def _schwinger_dyson(tree: xr.DataTree, statistics: xr.Dataset, facts: dict, notes: list[str]) -> list[Check]:
    if "schwinger_dyson" not in statistics:  # of a kernel that never knows the gradient of its density
        return []
    advice = (
        "⟨φ ∂S/∂φ⟩ = 1 holds for every correct sampler of a proper density. The chains have not converged, the kernel is "
        "wrong, or S is not the action that was sampled."
    )
    whole = gamma_method(statistics["schwinger_dyson"].transpose("chain", "draw").values)
    z = float((whole.mean - 1) / whole.error) if whole.error > 0 else np.inf
    bound = -ndtri(FALSE_ALARM / 2)
    value = f"{value_with_error(float(whole.mean), float(whole.error))}, z = {z:+.2f}"
    checks = [Check("Schwinger-Dyson, mean", abs(z) <= bound, value, f"1 within {bound:.1f} errors", advice)]
    if "schwinger_dyson" not in tree.children:
        return checks
    if facts.get("draws") is None or "lp" not in statistics or not holds_run(tree, facts):
        notes.append(
            "Schwinger-Dyson at single sites is not checked: its block means are of the whole run, and the tree "
            + ("does not say which draws those were" if facts.get("draws") is None else "does not hold all its draws")
        )
        return checks
    variable = tree["schwinger_dyson"]["block_means"]
    blocks, names = variable.values, element_names(variable.rename({"sd_chain": "chain", "sd_block": "draw"}))
    if blocks.shape[1] >= 8:
        sites = gamma_method(blocks)
        # blocks are few: their autocorrelation may only make the error larger than that of independent blocks
        independent = blocks.std(axis=(0, 1), ddof=1) / np.sqrt(blocks.shape[0] * blocks.shape[1])
        error = np.maximum(sites.error, independent)
        z = np.divide(sites.mean - 1, error, out=np.full(error.shape, np.inf), where=error > 0)
        at = np.unravel_index(np.argmax(np.abs(z)), z.shape)
        bound = -float(stdtrit(blocks.shape[0] * (blocks.shape[1] - 1), FALSE_ALARM / z.size / 2))
        where = names[int(np.argmax(np.abs(z)))].removeprefix(str(variable.name))
        value = f"{value_with_error(sites.mean[at], error[at])} at {where}, z = {z[at]:+.2f}"
        checks.append(
            Check("Schwinger-Dyson, sites", abs(z[at]) <= bound, value, f"1 within {bound:.1f} errors", advice)
        )
    return checks


def _log_z(tree: xr.DataTree, settings: dict) -> list[Check]:
    """Of a posterior of couplings: whether log Z is known well enough."""
    errors = {n: e for n, e in settings.get("normalizer_error", {}).items() if n in tree["posterior"].data_vars}
    if not errors:
        return []
    shift = settings["normalizer_shift"]
    advice = (
        "The errors of the couplings include the error of log Z, which is large: use normalizer='surface' or 'exact', or pass "
        "a PartitionSurface with more num_samples over a smaller box."
    )
    worst = max(errors, key=lambda n: errors[n] / series(tree, n).std())
    value = f"{shift:.2g} sd ({worst})"
    return [Check("log Z", shift <= MAX_LOG_Z, value, f"at most {MAX_LOG_Z} sd of the posterior", advice)]
