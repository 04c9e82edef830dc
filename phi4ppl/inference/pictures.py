"""Pictures of couplings before and after the data, and of predicted fields beside the data."""

from __future__ import annotations

import itertools

import jax
import numpy as np
from matplotlib.figure import Figure

from ..analysis.observables import NAMES
from ..reports.style import LINE_STYLES, OKABE_ITO, panels
from .predictive_check import PredictiveCheck

__all__ = ["couplings_figure", "joint_figure", "predictive_figure"]

MAX_PAIRS, MAX_POINTS = 6, 2000  # of couplings, and of draws in the panel of each
BINS, WIDER = 40, 1.0  # of a histogram; range of a posterior by which its panel reaches beyond it on either side


def couplings_figure(models: dict[str, tuple]) -> Figure:
    """Prior (lines) and posterior (filled) density of every coupling, each in a panel around the posteriors of all models.

    Parameters
    ----------
    models : dict
        By label: NumPyro distributions by coupling, posterior draws by coupling (of any shape), and their weights or None.
    """
    names = list(dict.fromkeys(name for priors, _, _ in models.values() for name in priors))
    figure, places = panels(len(names), height=2.7)
    for axes, name in zip(places, names, strict=True):
        own = {
            label: (priors[name], np.asarray(draws[name], float).ravel(), weights)
            for label, (priors, draws, weights) in models.items() if name in priors
        }  # fmt: skip
        ranges = [_range(*of) for of in own.values()]
        low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
        grid, bins = np.linspace(low, high, 400), np.linspace(low, high, 2 * BINS)
        for label, (prior, values, weights) in own.items():
            k = list(models).index(label)
            color, dash = OKABE_ITO[k % len(OKABE_ITO)], LINE_STYLES[(k + 1) % len(LINE_STYLES)]
            shown = label if len(models) == 1 else f"posterior, {label}"
            filled = {"histtype": "stepfilled", "color": color, "alpha": 0.6, "label": shown}
            axes.hist(values, bins=bins, weights=weights, density=True, **filled)
            prior_label = "prior" if len(models) == 1 else f"prior, {label}"
            axes.plot(
                grid, _density(prior, grid), color="black" if len(models) == 1 else color, ls=dash, label=prior_label
            )
        axes.set(xlabel=name.replace("$", r"\$"), yticks=[], xlim=(low, high))
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=7, frameon=False)
    places[0].set_ylabel("probability density")
    return figure


def joint_figure(draws: dict[str, np.ndarray]) -> Figure:
    """Draws of every two couplings against each other, with their correlation; a panel a pair, at most six."""
    pairs = list(itertools.combinations(draws, 2))[:MAX_PAIRS]
    figure, places = panels(len(pairs), height=3.0)
    for axes, pair in zip(places, pairs, strict=True):
        x, y = (np.asarray(draws[name], float).ravel() for name in pair)
        step = -(-len(x) // MAX_POINTS)
        axes.plot(x[::step], y[::step], ".", ms=2.5, alpha=0.5, color=OKABE_ITO[0])
        axes.set(xlabel=pair[0].replace("$", r"\$"), ylabel=pair[1].replace("$", r"\$"))
        axes.set_title(f"correlation {np.corrcoef(x, y)[0, 1]:.2f}", fontsize=8)
    return figure


def _range(prior, values, weights) -> tuple[float, float]:
    order = np.argsort(values)
    total = np.cumsum((np.ones(len(values)) if weights is None else weights)[order])
    low, high = np.interp([0.001, 0.999], total / total[-1], values[order])
    low, high = low - WIDER * (high - low), high + WIDER * (high - low)
    drawn = np.asarray(prior.sample(jax.random.key(0), (4000,)), float)  # a panel ends where the prior does
    margin = 0.05 * (high - low)
    return max(low, drawn.min() - margin), min(high, drawn.max() + margin)


def _density(prior, grid) -> np.ndarray:
    inside = np.asarray(prior.support(grid))
    density = np.zeros(len(grid))
    density[inside] = np.exp(np.asarray(prior.log_prob(grid[inside]), float))
    return density


def predictive_figure(checks: dict[str, PredictiveCheck]) -> Figure:
    """Histograms of observables over fields, of the data and as each model predicts them, by name of the model."""
    first = next(iter(checks.values()))
    figure, places = panels(len(first.observed), height=2.6)
    for axes, (name, observed) in zip(places, first.observed.items(), strict=True):
        predicted = {label: check.replicated[name].ravel() for label, check in checks.items()}
        every = np.concatenate([observed, *predicted.values()])
        low, high = np.quantile(every, [0.001, 0.999])
        bins = np.linspace(min(low, observed.min()), max(high, observed.max()), BINS)
        axes.hist(observed, bins=bins[::2], density=True, color="0.8", label="data")
        for k, (label, values) in enumerate(predicted.items()):
            line = {"color": OKABE_ITO[k % len(OKABE_ITO)], "ls": LINE_STYLES[k % len(LINE_STYLES)], "lw": 1.4}
            axes.hist(values, bins=bins, density=True, histtype="step", label=label, **line)
        axes.set(xlabel=name.replace("_", " "), yticks=[])
        axes.set_title(NAMES[name].split(" over ")[0], fontsize=8)
    places[0].set_ylabel("density over fields")
    places[0].legend(fontsize=7, frameon=False)
    return figure
