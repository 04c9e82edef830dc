"""Do fields drawn at likely couplings look like the data? Posterior predictive checks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from ..analysis.observables import standard_observables
from ..errors import ArgumentError
from ..errors.arguments import seed_within
from ..errors.streams import stream_key, stream_rng
from ..lattice.labels import MISSING_FIELDS, aligned_fields
from ..model.field import MarkovRandomField
from ..reweighting.energies import evaluate
from ..sampling.engine import Engine

__all__ = ["PredictiveCheck", "fields_of", "predictive_check"]

NUM_CHAINS, WARMUP, THINNING = 8, 200, 5
REPLICATES, MAX_MODELS, MAX_FIELDS = 200, 20, 100


class PredictiveCheck(NamedTuple):
    """Data beside replicated data sets.

    Attributes
    ----------
    table : pandas.DataFrame
        A row an observable. ``data``: mean over the fields; ``predicted`` and ``predicted_sd``: mean and standard deviation of
        that mean over replicated data sets; ``p``: the share of them whose mean is at least that of the data. The same of the
        standard deviation between fields: ``data_spread``, ``predicted_spread``, ``p_spread``. Values of p near 0 or 1 say that
        the model does not make such fields.
    observed : dict
        Observables of the fields of the data that were compared, shape ``(num_fields,)``.
    replicated : dict
        Of the replicated data sets, shape ``(num_replicates, num_fields)``.
    """

    table: pd.DataFrame
    observed: dict[str, np.ndarray]
    replicated: dict[str, np.ndarray]


def fields_of(models: list[MarkovRandomField], each: int, seed: int) -> np.ndarray:
    """``each`` fields of every model, shape ``(num_models, each, *field_shape)``; models of one family, close to each other."""
    ensemble = Engine(models[0], num_chains=NUM_CHAINS, key=stream_key(seed, "predicted fields"))
    ensemble.warm_up(models[0], WARMUP)
    rng, number, drawn = stream_rng(seed, "predicted fields"), -(-each // NUM_CHAINS), []
    for model in models:
        fields = ensemble.draw(model, number, THINNING).fields.reshape(-1, *model.field_shape)
        drawn.append(fields[rng.permutation(len(fields))[:each]])
    return np.stack(drawn)


def predictive_check(
    models: list[MarkovRandomField], data, *, like: MarkovRandomField | None = None, seed: int = 0
) -> PredictiveCheck:
    """Compare data with data sets of the same size, drawn from models at draws of the posterior of their couplings.

    Parameters
    ----------
    models : list of MarkovRandomField
        One family at different couplings, equally likely; 20 of them, evenly spaced, are used.
    data : array of shape ``(num_fields, *field_shape)``, or labeled as for `fit_likelihood`
        Of more than 100 fields, 100 evenly spaced ones.
    like : MarkovRandomField, optional
        The model whose graph says which sites are neighbors, by default that of ``models``: the same for all that are to be
        compared with each other.
    seed : int

    Returns
    -------
    PredictiveCheck
        Of 200 replicated data sets.

    Notes
    -----
    X.-L. Meng, Ann. Stat. 22 (1994) 1142. Observables that were fitted agree by construction: the sufficient statistics of the
    couplings, such as ⟨φ²⟩ of a mass, have p near ½. Others and all spreads can disagree.

    Examples
    --------
    >>> import jax, phi4ppl as p4
    >>> from phi4ppl.inference import predictive_check
    >>> truth = p4.gaussian(p4.lattice.chain(6), w=0.8, a=1.0)
    >>> data = p4.GibbsField(truth).sample(jax.random.key(0), (50,))
    >>> check = predictive_check([truth.replace(w=0.0)], data)
    >>> bool(check.table.loc["neighbor_correlation", "p"] < 0.02)
    True
    """
    seed = seed_within(seed)
    data = aligned_fields("data", data, models[0].lattice, MISSING_FIELDS, samples=1).astype(float)
    shape = models[0].field_shape
    if data.shape[1:] != shape or len(data) < 2:
        raise ArgumentError("data", f"at least two fields of shape {shape}", f"shape {data.shape}", reason="shape")
    data = data[np.linspace(0, len(data) - 1, min(len(data), MAX_FIELDS)).round().astype(int)]
    count = min(MAX_MODELS, len(models))
    some = [models[k] for k in np.linspace(0, len(models) - 1, count).round().astype(int)]
    copies = -(-REPLICATES // count)
    fields = fields_of(some, copies * len(data), seed).reshape(-1, len(data), *shape)
    like = models[0] if like is None else like
    measured = {name: f for name, f in standard_observables(like).items() if name != "energy_density"}

    def values(fields) -> dict[str, np.ndarray]:
        flat = np.asarray(fields).reshape(-1, *like.field_shape)
        return {name: evaluate(f, flat) for name, f in measured.items()}

    observed = values(data)
    replicated = {name: v.reshape(-1, len(data)) for name, v in values(fields).items()}
    rows = {name: _row(observed[name], replicated[name]) for name in observed}
    return PredictiveCheck(pd.DataFrame.from_dict(rows, orient="index"), observed, replicated)


def _row(observed: np.ndarray, replicated: np.ndarray) -> dict[str, float]:
    mean, spread = replicated.mean(axis=1), replicated.std(axis=1)
    return {
        "data": observed.mean(), "predicted": mean.mean(), "predicted_sd": mean.std(),
        "p": _share_above(mean, observed.mean()), "data_spread": observed.std(), "predicted_spread": spread.mean(),
        "p_spread": _share_above(spread, observed.std()),
    }  # fmt: skip


def _share_above(replicated: np.ndarray, observed: float) -> float:
    """With the data counted as one of the replicated sets, so that no finite number of them gives p = 0."""
    return (1 + np.sum(replicated >= observed)) / (1 + len(replicated))
