"""Pictures of couplings before and after the data, and of predicted fields beside the data."""

from __future__ import annotations

import jax
import numpy as np
from matplotlib.figure import Figure

from ..analysis.observables import NAMES
from .predictive_check import PredictiveCheck

__all__ = ["couplings_figure", "predictive_figure"]

BINS, WIDER = 40, 1.0  # of a histogram; range of a posterior by which its panel reaches beyond it on either side
COLUMNS = 3


def _panels(number: int, height: float):
    columns = min(COLUMNS, number)
    rows = -(-number // columns)
    figure = Figure(figsize=(3.5 * columns, height * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[number:]:
        axes.set_visible(False)
    return figure, panels[:number]


def couplings_figure(priors: dict, draws: dict[str, np.ndarray], weights=None) -> Figure:
    """Prior and posterior density of every coupling, each in a panel around the posterior.

    Parameters
    ----------
    priors : dict
        NumPyro distributions by coupling.
    draws : dict
        Posterior draws by coupling, of any shape.
    weights : array, optional
        Weights of the draws.
    """
    figure, panels = _panels(len(priors), 2.7)
    for axes, (name, prior) in zip(panels, priors.items(), strict=True):
        values = np.asarray(draws[name], float).ravel()
        low, high = _range(prior, values, weights)
        bins = np.linspace(low, high, 2 * BINS)
        filled = {"histtype": "stepfilled", "color": "C0", "alpha": 0.75, "label": "posterior"}
        axes.hist(values, bins=bins, weights=weights, density=True, **filled)
        grid = np.linspace(low, high, 400)
        axes.plot(grid, _density(prior, grid), color="C1", lw=1.6, label="prior")
        axes.set(xlabel=name, yticks=[], xlim=(low, high))
        axes.set_ylim(bottom=0)
    panels[0].set_ylabel("probability density")
    panels[0].legend(fontsize=8)
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
    figure, panels = _panels(len(first.observed), 2.6)
    for axes, (name, observed) in zip(panels, first.observed.items(), strict=True):
        predicted = {label: check.replicated[name].ravel() for label, check in checks.items()}
        every = np.concatenate([observed, *predicted.values()])
        low, high = np.quantile(every, [0.001, 0.999])
        bins = np.linspace(min(low, observed.min()), max(high, observed.max()), BINS)
        axes.hist(observed, bins=bins[::2], density=True, color="0.75", label="data")
        for k, (label, values) in enumerate(predicted.items()):
            axes.hist(values, bins=bins, density=True, histtype="step", lw=1.4, color=f"C{k}", label=label)
        axes.set(xlabel=name.replace("_", " "), yticks=[])
        axes.set_title(NAMES[name].split(" over ")[0], fontsize=8)
    panels[0].legend(fontsize=8)
    return figure
