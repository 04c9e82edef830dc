"""The reports of ``phi4ppl infer`` and ``phi4ppl compare``."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..reports.html import (
    advice,
    checks_table,
    estimates_table,
    numbers,
    picture,
    png_of,
    rows_table,
    verdict_line,
    write_page,
)
from ..results.estimates import estimate
from ..results.figures import figures
from ..results.settings import metadata
from ..results.verdict import ConvergenceReport, diagnose
from ..sampling.memory import size_in_words
from .compare import SCHEMES, Comparison
from .pictures import couplings_figure, predictive_figure
from .posterior import Posterior
from .predictive_check import PredictiveCheck

__all__ = ["summary", "write_comparison", "write_inference"]

EXTREME = 0.01  # p-values nearer to 0 or 1 are marked
WITHIN = (0.03, 0.97)  # of a posterior
MC_ERROR = (
    "The standard deviation is what the data leave open. The MC error is that of the mean, from the number of draws: more "
    "draws make it smaller."
)
CALIBRATION = (
    "<p>Not run. Simulation-based calibration (couplings from the prior, fields simulated at each, ranks of the true couplings "
    "among draws of their posterior) takes hundreds of posteriors: the documentation page “Partition functions” shows it for a "
    "ring, with and without log Z.</p>"
)


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
    settings, model, priors = facts["settings"], posterior.problem.model, posterior.problem.priors
    draws, count = dict(zip(posterior.names, posterior.draws.T, strict=True)), posterior.problem.count
    head = (
        f"<p>{html.escape(model.describe().splitlines()[0])}<br>{count} fields, normalizer {settings['normalizer']}, "
        f"{size_in_words(settings['num_chains'], settings['num_samples'])}, seed {settings['seed']}</p>"
    )
    parts = ["<h1>phi4ppl infer: couplings given fields</h1>", head]
    estimates = estimate(posterior, list(priors))
    parts.append(verdict_line(verdict.passed and not posterior.warnings, verdict.verdict))
    parts += [_warning(words(text)) for text in posterior.warnings]
    parts += [
        "<h2>Couplings</h2>", _couplings(priors, draws, dict(estimates["error"])), f"<p>{MC_ERROR}</p>",
        picture("Prior and posterior of the couplings", png_of(couplings_figure(priors, draws))),
        *_predictive({"posterior": check}, count),
        "<h2>Calibration</h2>", CALIBRATION,
        "<h2>Convergence</h2>", checks_table(verdict.checks), "<h3>Estimates</h3>",
        estimates_table(estimates),
    ]  # fmt: skip
    parts += [picture(title, png) for title, png in figures(posterior.tree).values()]
    parts += ["<h2>Model</h2>", f"<pre>{html.escape(model.describe())}</pre>", "<h2>Provenance</h2>"]
    parts.append(rows_table(settings | facts["versions"] | {k: facts[k] for k in ("python", "machine", "created")}))
    return write_page(path, "phi4ppl infer", parts)


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
    parts = ["<h1>phi4ppl compare: which model for these fields?</h1>", f"<p>{len(result.data)} fields</p>"]
    several = len(result.table) > 1
    outcome = False if result.warnings else True if result.agreed else None
    banner = verdict_line(outcome, result.why) if several or result.warnings else _neutral(result.why)
    parts += [banner, *map(_warning, result.warnings)]
    parts += [
        "<h2>Models side by side</h2>" if several else "<h2>Scores</h2>", _side_by_side(result),
        "<p>Log evidence: how probable the data were before they were seen. elpd: the log score of leave-one-out predictions. "
        "Each ± one standard error; that of log Z counts once for every field.</p>",
    ]  # fmt: skip
    if several:
        parts.append(picture("Predictive scores, and weights of the models", png_of(result.plot())))
    for name, posterior in result.posteriors.items():
        if own := posterior.problem.priors:
            weights = np.exp(posterior.log_weights)
            draws = dict(zip(posterior.names, posterior.draws.T, strict=True))
            errors = dict(zip(posterior.names, posterior.mean_errors, strict=True))
            parts += [f"<h2>Couplings of {html.escape(name)}</h2>", _couplings(own, draws, errors, weights)]
            parts.append(f"<p>{MC_ERROR} It includes the error of log Z.</p>")
            parts.append(picture("Prior and posterior", png_of(couplings_figure(own, draws, weights))))
    parts += [*_predictive(checks, len(result.data)), "<h2>Calibration</h2>", CALIBRATION, "<h2>Models</h2>"]
    for name, posterior in result.posteriors.items():
        parts.append(f"<pre>{html.escape(f'{name}: {posterior.model.describe()}')}</pre>")
    return write_page(path, "phi4ppl compare", [*parts, "<h2>Provenance</h2>", rows_table(facts)])


def _neutral(text: str) -> str:
    """One line where there is nothing to decide."""
    return f"<p class='verdict neutral'>{html.escape(text)}</p>"


def _warning(text: str) -> str:
    return advice(f"WARNING: {text}")


def _side_by_side(result: Comparison) -> str:
    """Scores, and for several models what compares them: differences and weights."""
    several = len(result.table) > 1
    head = ["", "log evidence", "elpd", *(["less the best"] if several else []), "largest k̂"]
    head += ["evidence weight", "stacking", "pseudo-BMA+"] if several else []
    columns = ["log_evidence", "elpd", "elpd_difference"][: 2 + several]
    rows = ["<tr>" + "".join(f"<th>{h}</th>" for h in head) + "</tr>"]
    for name, row in result.table.iterrows():
        scores = [f"{row[c]:.1f} ± {row[f'{c}_error']:.1f}" for c in columns]
        k = f"{row['max_pareto_k']:.2f}" if np.isfinite(row["max_pareto_k"]) else "–"
        weights = [f"{row[f'{s}_weight']:.3f} ± {row[f'{s}_error']:.3f}" for s in SCHEMES if several]
        rows.append(f"<tr><td>{html.escape(str(name))}</td>{numbers(*scores, k, *weights)}</tr>")
    return f"<table>{''.join(rows)}</table>"


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


def _couplings(priors: dict, draws: dict, errors: dict, weights=None) -> str:
    head = ("", "prior", "posterior mean", "standard deviation", "94 % interval", "MC error of the mean")
    rows = ["<tr>" + "".join(f"<th>{h}</th>" for h in head) + "</tr>"]
    for name, prior in priors.items():
        found = summary(draws[name], weights)
        interval = f"{found['low']:.4g} to {found['high']:.4g}"
        cells = numbers(f"{found['mean']:.4g}", f"{found['sd']:.2g}", interval, f"{errors[name]:.2g}")
        rows.append(f"<tr><td>{html.escape(name)}</td><td>{html.escape(_prior_text(prior))}</td>{cells}</tr>")
    return f"<table>{''.join(rows)}</table>"


def _prior_text(prior) -> str:
    values = ((name, getattr(prior, name, None)) for name in prior.arg_constraints)
    return f"{type(prior).__name__}({', '.join(f'{n}={float(v):.4g}' for n, v in values if np.ndim(v) == 0 and v is not None)})"


def _predictive(checks: dict[str, PredictiveCheck], count: int) -> list[str]:
    """A table for every model, and a picture of all."""
    first = next(iter(checks.values()))
    size, replicates = len(next(iter(first.observed.values()))), len(next(iter(first.replicated.values())))
    which = "of the data" if size == count else f"of {size} evenly spaced fields of the {count} given"
    head = (
        "<tr><th></th><th>data</th><th>predicted</th><th>p</th><th>spread: data</th><th>predicted</th><th>p</th></tr>"
    )
    parts = ["<h2>Posterior predictive checks</h2>"]
    for name, check in checks.items():
        rows = [head]
        for observable, row in check.table.iterrows():
            strange = any(min(row[p], 1 - row[p]) < EXTREME for p in ("p", "p_spread"))
            cells = numbers(
                f"{row['data']:.4g}", f"{row['predicted']:.4g} ± {row['predicted_sd']:.2g}", f"{row['p']:.3f}",
                f"{row['data_spread']:.4g}", f"{row['predicted_spread']:.4g}", f"{row['p_spread']:.3f}",
            )  # fmt: skip
            rows.append(
                f"<tr class='{'fail' if strange else 'pass'}'><td>{html.escape(str(observable))}</td>{cells}</tr>"
            )
        parts += [f"<h3>{html.escape(name)}</h3>" if len(checks) > 1 else "", f"<table>{''.join(rows)}</table>"]
    parts.append(
        f"<p>Means over fields and spread between fields {which}, and of {replicates} replicated data sets of that size. "
        f"p: the share of these with a larger value. Coloured: below {EXTREME} or above {1 - EXTREME}, the model does not make "
        "such fields. Statistics that the couplings multiply agree by construction.</p>"
    )
    return [*parts, picture("Observables of single fields: data, and predicted", png_of(predictive_figure(checks)))]
