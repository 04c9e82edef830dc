"""The reports of ``phi4ppl infer`` and ``phi4ppl compare``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..reports.html import Fact, Picture, Row, Table, facts_table, png_of, write_page
from ..reports.numbers import rounded, value_with_error
from ..results.estimates import estimate
from ..results.figures import figures
from ..results.run_page import checks_part, estimates_part, provenance_table
from ..results.settings import metadata
from ..results.verdict import MAX_LOG_Z, ConvergenceReport, diagnose
from ..sampling.memory import size_in_words
from .compare import SCHEMES, Comparison
from .pictures import couplings_figure, joint_figure, predictive_figure
from .posterior import Posterior
from .predictive_check import PredictiveCheck

__all__ = ["summary", "write_comparison", "write_inference"]

EXTREME = 0.01  # p-values nearer to 0 or 1 are marked
WITHIN = (0.03, 0.97)  # of a posterior
KEYS = 3
MC_ERROR = (
    "The standard deviation is what the data leave open. The MC error is that of the mean, from the number of draws: more "
    "draws make it smaller."
)
CALIBRATION = (
    "Not run. Simulation-based calibration (couplings from the prior, fields simulated at each, ranks of the true couplings "
    "among draws of their posterior) takes hundreds of posteriors: the documentation page “Posteriors of couplings” shows it "
    "for a ring, with and without log Z."
)
SCORES = (
    "Log evidence: how probable the data were before they were seen. elpd: the log score of leave-one-out predictions. The "
    "error in parentheses, in units of the last digits, is one standard error; that of log Z counts once for every field. "
    "k̂ below 0.7 is good: above, the elpd cannot be trusted."
)
DELTA = " Δelpd: elpd less that of the best model, with the error of the difference."
PREDICTIVE_HEAD = ("", "data", "predicted ± sd", "p", "spread: data", "spread: predicted", "p")
DENSITIES = "Prior and posterior of the couplings"


def write_inference(
    posterior: Posterior, check: PredictiveCheck, path, verdict: ConvergenceReport | None = None,
    words: Callable[[str], str] = str,
) -> Path:  # fmt: skip
    """Write the report of `phi4ppl.infer_couplings` to ``path``.

    Parameters
    ----------
    posterior : Posterior
    check : PredictiveCheck
    verdict : ConvergenceReport, optional
        By default that of `phi4ppl.diagnose`.
    words : callable, optional
        Puts warnings into other words.
    """
    facts, verdict = metadata(posterior), verdict or diagnose(posterior)
    settings, model, priors = facts["settings"], posterior.problem.model, posterior.problem.priors  # type: ignore[union-attr]
    draws, count = dict(zip(posterior.names, posterior.draws.T, strict=True)), posterior.problem.count
    size = size_in_words(settings["num_chains"], settings["num_samples"])
    estimates = estimate(posterior, list(priors))
    couplings = _couplings(priors, draws, dict(estimates["error"]))
    heading = f"Couplings of a field on {model.lattice.name}"
    content = {
        "title": f"{heading}: {verdict.verdict} · phi4ppl infer",
        "heading": heading,
        "lines": [
            model.describe().splitlines()[0],
            f"{count} fields, normalizer {settings['normalizer']}, {size}, seed {settings['seed']}",
        ],
        "outcome": "passed" if verdict.passed and not posterior.warnings else "failed",
        "verdict": verdict.verdict,
        "keys": [
            Fact(f"{row.cells[0]}: mean ± standard deviation", f"{row.cells[2]} ± {row.cells[3]}", f"94 %: {row.cells[4]}")
            for row in couplings.rows[:KEYS]
        ] + _log_z(settings),
        "warnings": [f"WARNING: {words(text)}" for text in posterior.warnings],
        "couplings": couplings,
        "couplings_mean": MC_ERROR,
        "densities": Picture(DENSITIES, (png_of(couplings_figure({"posterior": (priors, draws, None)})),)),
        "joint": Picture("Draws of the posterior, two couplings at a time", (png_of(joint_figure(draws)),))
        if len(draws) > 1 else None,
        "predictive": _predictive({"posterior": check}, count),
        "checks": checks_part(verdict),
        "estimates": estimates_part(estimates),
        "pictures": list(figures(posterior.tree).values()),
        "calibration": CALIBRATION,
        "model": model.describe(),
        "facts": provenance_table(facts),
    }  # fmt: skip
    return write_page(path, "infer", content)


def write_comparison(result: Comparison, checks: dict[str, PredictiveCheck], path, facts: dict) -> Path:
    """Write the report of `phi4ppl.compare` to ``path``.

    Parameters
    ----------
    result : Comparison
    checks : dict
        `PredictiveCheck` by model.
    facts : dict
        For the table of provenance.
    """
    several = len(result.table) > 1
    decision = "passed" if result.agreed else "undecided" if several else "neutral"
    models, drawn = [], {}
    for name, posterior in result.posteriors.items():
        own, table = posterior.problem.priors, None  # type: ignore[union-attr]
        if own:
            weights = np.exp(posterior.log_weights)
            draws = dict(zip(posterior.names, posterior.draws.T, strict=True))
            drawn[name] = own, draws, weights
            table = _couplings(own, draws, dict(zip(posterior.names, posterior.mean_errors, strict=True)), weights)
        models.append({"name": name, "couplings": table, "description": posterior.model.describe()})
    content = {
        "title": f"{' or '.join(result.table.index)}: {result.why} · phi4ppl compare",
        "heading": f"Which model for these fields: {', '.join(result.table.index)}?" if several
        else f"Scores of {result.table.index[0]}",
        "lines": [f"{len(result.data)} fields", *result.notes],
        "outcome": "failed" if result.warnings else decision,
        "verdict": result.why,
        "warnings": [f"WARNING: {text}" for text in result.warnings],
        "several": several,
        "scores": _side_by_side(result),
        "scores_mean": SCORES + (DELTA if several else ""),
        "weights": Picture("Predictive scores, and weights of the models", (png_of(result.plot()),)) if several else None,
        "models": models,
        "couplings_mean": MC_ERROR,
        "densities": Picture(DENSITIES, (png_of(couplings_figure(drawn)),)) if drawn else None,
        "predictive": _predictive(checks, len(result.data)),
        "calibration": CALIBRATION,
        "facts": facts_table(facts),
    }  # fmt: skip
    return write_page(path, "compare", content)


def _log_z(settings: dict) -> list[Fact]:
    """How far the error of log Z may move a posterior mean, where log Z was estimated."""
    if not any(settings.get("normalizer_error", {}).values()):
        return []
    shift = f"{settings['normalizer_shift']:.2g} sd"
    return [Fact("error of log Z", shift, f"so far it may shift a mean; at most {MAX_LOG_Z} sd is good")]


def _side_by_side(result: Comparison) -> Table:
    """Scores, and for several models what compares them: differences and weights."""
    several = len(result.table) > 1
    head = ["", "log evidence", "elpd", *(["Δelpd"] if several else []), "largest k̂"]
    head += ["evidence weight", "stacking", "pseudo-BMA+"] if several else []
    columns = ["log_evidence", "elpd", "elpd_difference"][: 2 + several]
    rows = []
    for name, row in result.table.iterrows():
        scores = [_score(row[c], row[f"{c}_error"]) for c in columns]
        k = f"{row['max_pareto_k']:.2f}" if np.isfinite(row["max_pareto_k"]) else "–"
        weights = [_weight(row[f"{s}_weight"], row[f"{s}_error"]) for s in SCHEMES if several]
        rows.append(Row((str(name), *scores, k, *weights)))
    return Table(tuple(head), rows)


def _score(value: float, error: float) -> str:
    """Nats to three places at most, though the error may be that of rounding alone."""
    return f"{value:.3f}" if error < 1e-3 else value_with_error(value, error)


def _weight(value: float, error: float) -> str:
    """A weight to three places at most: more would say nothing of a share."""
    return value_with_error(value, error) if error >= 0.01 else f"{value:.3f}"


def summary(values, weights=None) -> dict[str, float]:
    """Mean, standard deviation and the 94 % interval between quantiles of draws, which may have weights."""
    values = np.asarray(values, float).ravel()
    share = np.full(len(values), 1 / len(values)) if weights is None else weights / np.sum(weights)
    mean, order = share @ values, np.argsort(values)
    places = np.cumsum(share[order])
    if weights is None:  # as numpy.quantile, and so as estimate
        places = np.linspace(0, 1, len(values))
    low, high = np.interp(WITHIN, places, values[order])
    return {
        "mean": float(mean),
        "sd": float(np.sqrt(share @ (values - mean) ** 2)),
        "low": float(low),
        "high": float(high),
    }


def _couplings(priors: dict, draws: dict, errors: dict, weights=None) -> Table:
    rows = []
    for name, prior in priors.items():
        found = summary(draws[name], weights)
        mean, sd, low, high = (rounded(found[key], found["sd"]) for key in ("mean", "sd", "low", "high"))
        rows.append(Row((name, _prior_text(prior), mean, sd, f"{low} to {high}", f"{errors[name]:.2g}")))
    return Table(
        ("", "prior", "posterior mean", "standard deviation", "94 % interval", "MC error of the mean"), rows, texts=2
    )


def _prior_text(prior) -> str:
    values = ((name, getattr(prior, name, None)) for name in prior.arg_constraints)
    return f"{type(prior).__name__}({', '.join(f'{n}={float(v):.4g}' for n, v in values if np.ndim(v) == 0 and v is not None)})"


def _predictive(checks: dict[str, PredictiveCheck], count: int) -> dict:
    """A table for every model, and a picture of all."""
    first = next(iter(checks.values()))
    size, replicates = len(next(iter(first.observed.values()))), len(next(iter(first.replicated.values())))
    which = "of the data" if size == count else f"of {size} evenly spaced fields of the {count} given"
    tables = {}
    for name, check in checks.items():
        rows = []
        for observable, row in check.table.iterrows():
            strange = any(min(row[p], 1 - row[p]) < EXTREME for p in ("p", "p_spread"))
            sd = row["predicted_sd"]
            cells = (
                str(observable), rounded(row["data"], sd), f"{rounded(row['predicted'], sd)} ± {rounded(sd, sd)}",
                f"{row['p']:.3f}", f"{row['data_spread']:.3g}", f"{row['predicted_spread']:.3g}", f"{row['p_spread']:.3f}",
            )  # fmt: skip
            rows.append(Row(cells, "fail" if strange else ""))
        tables[name] = Table(PREDICTIVE_HEAD, rows)
    meaning = (
        f"Means over fields and spread between fields {which}, and of {replicates} replicated data sets of that size. "
        f"p: the share of these with a larger value. Colored: below {EXTREME} or above {1 - EXTREME}, the model does not make "
        "such fields. Statistics that the couplings multiply agree by construction."
    )
    picture = Picture("Observables of single fields: data, and predicted", (png_of(predictive_figure(checks)),))
    return {"tables": tables, "meaning": meaning, "picture": picture}
