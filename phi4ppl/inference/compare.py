"""Comparison of models by evidence and by prediction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .._typing import Labeled
from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, positive_int, seed_within
from ..errors.streams import stream_rng
from ..lattice.labels import MISSING_FIELDS, aligned_fields, is_labeled
from ..model.field import MarkovRandomField
from ..reports.card import card
from ..reports.numbers import value_with_error
from ..reports.style import GRAY, OKABE_ITO, panels
from ..results.independent_fields import independent_fields
from ..results.leave_one_out import leave_one_out
from ..results.settings import settings
from ..results.tails import MAX_PARETO_K
from .importance import posterior_by_importance
from .latent_problem import LatentProblem
from .posterior import CANNOT_COMPARE, Posterior
from .region import cut_problem
from .weights import bootstrap_errors, evidence_weights, pseudo_bma_weights, stacking_weights

__all__ = ["Comparison", "compare"]

SCHEMES = ("evidence", "stacking", "pseudo_bma")
CLEAR, SURE = 0.9, 2  # a scheme has decided when a weight less so many of its errors is at least that
TITLES = {"evidence": "evidence", "stacking": "stacking", "pseudo_bma": "pseudo-BMA+"}


@call_checked
@dataclass(frozen=True, repr=False)
class Comparison:
    """Models side by side; see `compare`.

    Attributes
    ----------
    table : pandas.DataFrame
        One row per model, best elpd first: ``log_evidence``, ``elpd`` (leave-one-out log score of all data) and
        ``elpd_difference`` to the best, each with ``…_error``; ``max_pareto_k``; and the weights ``evidence_weight``,
        ``stacking_weight``, ``pseudo_bma_weight`` with ``evidence_error``, ``stacking_error``, ``pseudo_bma_error``.
    why : str
        Whether the schemes decide, and why they agree or differ, in one line.
    warnings : tuple of str
        Reasons to doubt these numbers.
    notes : tuple of str
        What was cut of priors, where Z is infinite, and how data were thinned.
    posteriors : dict
        `Posterior` of every model: draws of its couplings and pointwise log-likelihoods.
    elpd : pandas.DataFrame
        log p(φ_n | all other data), one row per field and one column per model.
    data : array, shape ``(num_data, *lattice)``
    """

    table: pd.DataFrame
    why: str
    warnings: tuple[str, ...]
    posteriors: dict[str, Posterior]
    elpd: pd.DataFrame
    data: np.ndarray
    notes: tuple[str, ...] = ()

    def weights(self, scheme: str = "stacking") -> dict[str, float]:
        """Weights of the models by ``"evidence"``, ``"stacking"`` or ``"pseudo_bma"``; they add up to one."""
        if scheme not in SCHEMES:
            raise ArgumentError("scheme", "one of " + ", ".join(map(repr, SCHEMES)), repr(scheme))
        return self.table[f"{scheme}_weight"].to_dict()

    @property
    def decisions(self) -> dict[str, str | None]:
        """The model that each scheme decides for: its weight less two errors is at least 0.9. None where no weight is."""
        return _decisions(self.table)

    @property
    def agreed(self) -> bool:
        """Whether there are several models, and all schemes decide for the same one."""
        return len(self.table) > 1 and len(set(self.decisions.values())) == 1 and None not in self.decisions.values()

    def __str__(self) -> str:
        head, rows = self._shown()
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in (head, *rows)]
        remarks = [*(f"Note: {text}" for text in self.notes), *(f"WARNING: {text}" for text in self.warnings)]
        return "\n".join([*lines, self.why, *remarks])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        outcome = " ".join([self.why, *(f"Note: {text}." for text in self.notes)])
        return card("Comparison of models", *self._shown(), outcome=outcome, warnings=self.warnings)

    def _shown(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Titles and cells of the table: scores, and of several models differences and weights."""
        columns = {"log evidence": ("log_evidence", "log_evidence_error"), "elpd": ("elpd", "elpd_error")}
        if len(self.table) > 1:
            columns["difference"] = ("elpd_difference", "elpd_difference_error")
            columns |= {f"weight: {TITLES[s]}": (f"{s}_weight", f"{s}_error") for s in SCHEMES}
        rows = [
            (str(name), *(value_with_error(row[value], row[error]) for value, error in columns.values()))
            for name, row in self.table.iterrows()
        ]
        return ("model", *columns), rows

    def plot(self):
        """elpd differences and weights as a matplotlib figure."""
        figure, (left, right) = panels(2, width=4.25, height=1.6 + 0.45 * len(self.table))
        right.sharey(left)
        places = np.arange(len(self.table))[::-1]
        error = self.table["elpd_difference_error"]
        left.errorbar(self.table["elpd_difference"], places, xerr=error, fmt="o", capsize=3, color=OKABE_ITO[0])
        left.axvline(0, color=GRAY, lw=0.8)
        left.set_yticks(places, self.table.index)
        left.set_xlabel("Δelpd: elpd less that of the best model")
        for k, scheme in enumerate(SCHEMES):
            weight, error = self.table[f"{scheme}_weight"], self.table[f"{scheme}_error"]
            inside = np.stack([np.minimum(error, weight), np.minimum(error, 1 - weight)])  # a share is from 0 to 1
            right.barh(
                places + 0.25 * (1 - k), weight, 0.22, xerr=np.maximum(inside, 0), label=scheme.replace("_", "-"),
                color=OKABE_ITO[k], error_kw={"lw": 0.8, "capsize": 2},
            )  # fmt: skip
        right.set_xlim(0, 1.05)
        right.set_xlabel("weight")
        right.tick_params(labelleft=False)
        figure.legend(*right.get_legend_handles_labels(), loc="outside upper right", ncols=3, fontsize=8, frameon=False)
        return figure


@call_checked
def compare(
    models: dict[str, MarkovRandomField | Posterior], data: Labeled | None = None, priors: dict | None = None, *,
    prior_weights: dict | None = None, num_draws: int = 4000, seed: int = 0, progress: bool | None = None,
) -> Comparison:  # fmt: skip
    """Compare models of the same fields by evidence and by prediction.

    The evidence Z_m = p(data | m) = ∫ Π_n p(φ_n | θ) p(θ) dθ asks how probable the data were before they were seen; the
    expected log predictive density Σ_n log p(φ_n | all other data) asks how well the model predicts after they were. Both need
    log Z of the field as a function of its couplings, which comes from ensembles at the mode of the posterior and around it.

    Parameters
    ----------
    models : dict
        Name → MarkovRandomField; or → Posterior from `infer_couplings`, given the same data and with log Z known. Graphs and
        terms may differ; the number of sites is that of the data, whose order of sites holds for all. A single model gets its
        scores, and weights of 1. Or all are posteriors from `laplace`, of the same observed values.
    data : array of shape ``(num_data, *lattice)``, or labeled as for `fit_likelihood`
        Independent fields, or the DataTree of `phi4ppl.sample`, which is thinned to one draw in 2 τ_int of every chain; a
        printed line reports it. Labels must be the nodes of every model, in the same order in all of them. Posteriors of
        `laplace` have their own data.
    priors : dict, optional
        Coupling → NumPyro distribution, for all models that have the coupling; or model → such a dict. Couplings without a
        prior are fixed at the model's; those with one must be homogeneous and few. What priors have where Z is infinite is cut
        as in `infer_couplings`, and ``notes`` of the result say how much that was. Without priors all models are fixed.
    prior_weights : dict, optional
        Prior probabilities of the models, equal by default.
    num_draws : int
        Draws of an importance sample of the couplings of each model that is not a Posterior.
    seed : int
    progress : bool, optional

    Returns
    -------
    Comparison

    Raises
    ------
    ArgumentError, HammersleyCliffordError, OverlapError

    Notes
    -----
    Where priors were cut, the evidence is that of the remaining prior, normalized: ∫ Π_n p(φ_n | θ) p(θ) dθ over the couplings
    with finite Z, divided by ∫ p(θ) dθ over the same region. Elsewhere the model does not exist. To count that part as
    couplings of likelihood 0 instead, add the log of the share that was kept. ``log_evidence`` of `infer_couplings` follows
    the same convention.

    Leave-one-out: A. Vehtari, A. Gelman, J. Gabry, Stat. Comput. 27 (2017) 1413. Stacking and pseudo-BMA+: Y. Yao et al.,
    Bayesian Anal. 13 (2018) 917. Errors of elpd are those of another data set of this size; to them comes the error of
    log Z times the number of fields, which all fields of a model share.

    Examples
    --------
    >>> import jax, numpyro.distributions as dist, phi4ppl as p4
    >>> ring = p4.lattice.chain(6)
    >>> data = p4.GibbsField(p4.gaussian(ring, w=0.8, a=1.0)).sample(jax.random.key(0), (100,))
    >>> models = {"coupled": p4.gaussian(ring, w=0.8, a=1.0), "independent": p4.gaussian(ring, w=0.0, a=1.0)}
    >>> result = p4.compare(models, data)
    >>> result.weights("evidence")["coupled"] > 0.99
    True
    """
    if isinstance(models, dict) and any(map(_is_latent, models.values())):
        observed = _same_observations(models, data, priors)
        return _compared(models, _prior_weights(models, prior_weights), observed, seed_within(seed))  # type: ignore[arg-type]
    given, (models, fields) = models, _checked(models, data)
    prior = _prior_weights(models, prior_weights)
    num_draws, seed = positive_int("num_draws", num_draws, minimum=100), seed_within(seed)
    flat, run = fields.reshape(len(fields), -1), {"num_draws": num_draws, "seed": seed, "progress": progress}
    posteriors = {name: _of_these_data(name, p, flat) for name, p in given.items() if isinstance(p, Posterior)}
    own = _priors_by_model({name: model for name, model in models.items() if name not in posteriors}, priors)
    problems = {name: cut_problem(models[name], flat, own[name], repr(name)) for name in own}  # type: ignore[arg-type]
    posteriors |= {name: posterior_by_importance(*problem, **run) for name, problem in problems.items()}  # type: ignore[arg-type]
    posteriors = {name: posteriors[name] for name in models}
    return _compared(posteriors, prior, fields, seed)


def _compared(posteriors: dict[str, Posterior], prior: np.ndarray, fields, seed: int) -> Comparison:
    names, rng = list(posteriors), stream_rng(seed, "comparison")
    held_out = {name: leave_one_out(p.log_likelihood, p.log_weights) for name, p in posteriors.items()}
    pointwise = np.stack([held_out[name].elpd for name in names], axis=1)
    count = len(pointwise)
    evidence = np.array([posteriors[name].log_evidence for name in names])
    doubt = np.array([posteriors[name].log_evidence_error for name in names])
    normalizer = np.array([count * _log_z_error(posteriors[name]) for name in names])
    best = int(pointwise.sum(axis=0).argmax())
    apart = pointwise - pointwise[:, [best]]
    stacked, bma = stacking_weights(pointwise), pseudo_bma_weights(pointwise, seed, shared=normalizer / count)
    table = pd.DataFrame(
        {
            "log_evidence": evidence, "log_evidence_error": doubt,
            "elpd": pointwise.sum(axis=0),
            "elpd_error": np.hypot(np.sqrt(count) * pointwise.std(axis=0), normalizer),
            "elpd_difference": apart.sum(axis=0),
            "elpd_difference_error": np.where(
                np.arange(len(names)) == best, 0.0,
                np.sqrt(count * apart.var(axis=0) + normalizer**2 + normalizer[best] ** 2),
            ),
            "max_pareto_k": [held_out[name].pareto_k.max() for name in names],
            "evidence_weight": evidence_weights(evidence, prior),
            "evidence_error": evidence_weights(evidence + doubt * rng.normal(size=(4000, len(names))), prior).std(axis=0),
            "stacking_weight": stacked, "stacking_error": bootstrap_errors(pointwise, seed, shared=normalizer / count),
            "pseudo_bma_weight": bma[0], "pseudo_bma_error": bma[1],
        },
        index=pd.Index(names, name="model"),
    )  # fmt: skip
    warnings = tuple(_warnings(posteriors, held_out))
    table = table.sort_values("elpd", ascending=False)
    notes = tuple(f"{n}: {text}" for n, p in posteriors.items() for text in p.notes)
    return Comparison(table, _why(table), warnings, posteriors, pd.DataFrame(pointwise, columns=names), fields, notes)


def _log_z_error(posterior: Posterior) -> float:
    """Error of log Z of one field: nearly all of the error of the evidence, which has it once a field."""
    return 0.0 if _is_latent(posterior) else posterior.log_evidence_error / posterior.log_likelihood.shape[1]


def _warnings(posteriors, held_out):
    for name, posterior in posteriors.items():
        yield from (f"{name}: {text}" for text in posterior.warnings)
        bad = int((held_out[name].pareto_k > MAX_PARETO_K).sum())
        if bad:
            yield f"{name}: k̂ > {MAX_PARETO_K} for {bad} {posterior.problem.counted}, whose elpd cannot be trusted."


def _decisions(table: pd.DataFrame) -> dict[str, str | None]:
    decided = {}
    for scheme in SCHEMES:
        name = table[f"{scheme}_weight"].idxmax()
        sure = table.loc[name, f"{scheme}_weight"] - SURE * table.loc[name, f"{scheme}_error"]
        decided[scheme] = name if sure >= CLEAR else None
    return decided


def _why(table: pd.DataFrame) -> str:
    if len(table) == 1:
        return f"One model, {table.index[0]}: these are its scores; there is no other model to compare."
    decided = _decisions(table)
    open_ = [scheme for scheme, name in decided.items() if name is None]
    if not open_:
        return _all_decided(decided)
    said = [f"{TITLES[scheme]} ({_leaders(table, scheme)})" for scheme in open_]
    sentences = [f"Undecided by {', '.join(said)}."]
    if rest := [f"{TITLES[scheme]} decides for {name}" for scheme, name in decided.items() if name is not None]:
        sentences.append(f"{', '.join(rest)}.")
    if gap := _small_gap(table):
        sentences.append(gap)
    elif open_ == ["stacking"]:
        sentences.append(
            "Stacking seeks the best mixture, and gives weight to models that predict some fields better, even if they are "
            "worse overall."
        )
    else:
        sentences.append("More fields would distinguish the models if one of them is better.")
    text = " ".join(sentences)
    return text[0].upper() + text[1:]


def _leaders(table: pd.DataFrame, scheme: str) -> str:
    """The two largest weights of a scheme, with their errors."""
    first = table.sort_values(f"{scheme}_weight", ascending=False).iloc[:2]
    weights = [
        f"{name} {value_with_error(row[f'{scheme}_weight'], row[f'{scheme}_error'])}" for name, row in first.iterrows()
    ]
    return ", ".join(weights)


def _small_gap(table: pd.DataFrame) -> str:
    """The error of the evidence, if it prevents a decision."""
    top = table["log_evidence"].sort_values(ascending=False).index[:2]
    gap = float(table.loc[top[0], "log_evidence"] - table.loc[top[1], "log_evidence"])
    doubt = float(np.hypot(*table.loc[list(top), "log_evidence_error"]))
    if gap >= SURE * doubt:
        return ""
    return (
        f"The evidence does not decide: {top[0]} is ahead of {top[1]} by {value_with_error(gap, doubt)} nats. The error is "
        "that of log Z times the number of fields; weights by prediction contain it too."
    )


def _all_decided(decided: dict[str, str]) -> str:
    by_evidence, by_stacking, by_bma = (decided[scheme] for scheme in SCHEMES)
    if by_evidence == by_stacking == by_bma:
        return f"All three agree on {by_evidence}: most probable before the data, and the best predictor after them."
    prediction = by_stacking if by_stacking == by_bma else f"by stacking {by_stacking}, by pseudo-BMA+ {by_bma}"
    return (
        f"Evidence prefers {by_evidence}, prediction {prediction}: evidence averages over the prior and charges for "
        "couplings that it spreads out; leave-one-out scores apply after the couplings have been learned."
    )


def _checked(given, data) -> tuple[dict, np.ndarray]:
    """Models by name, and the fields."""
    if not isinstance(given, dict) or not given:
        raise ArgumentError("models", "a dict of models by name", repr(given)[:100])
    models = {}
    for name, model in given.items():
        models[name] = model.problem.model if isinstance(model, Posterior) else model
        if not isinstance(name, str) or not isinstance(models[name], MarkovRandomField):
            raise ArgumentError(f"models[{name!r}]", "a name and a MarkovRandomField", type(model).__name__)
        if model is models[name]:
            model.check().raise_if_violated()
    data, note = independent_fields(data, *models.values())
    if note:
        print(note)
    fields = _aligned(models, data)
    sites = {name: model.lattice.num_sites for name, model in models.items()}
    size = int(np.prod(fields.shape[1:])) if fields.ndim > 1 else 0
    wrong = [name for name, count in sites.items() if count != size]
    if wrong or len(fields) < 5:
        expected = f"at least 5 fields of {sites[wrong[0]]} sites ({wrong[0]!r})" if wrong else "at least 5 fields"
        raise ArgumentError("data", expected, f"shape {fields.shape}", "The first axis counts fields.", reason="shape")
    return models, fields.astype(float)


def _aligned(models: dict, data) -> np.ndarray:
    """The data in the order of sites of the first model, which labels must show to be that of all."""
    fields, *others = (
        aligned_fields("data", data, model.lattice, MISSING_FIELDS, samples=1)
        for model in (models.values() if is_labeled(data) else list(models.values())[:1])
    )
    for name, other in zip(list(models)[1:], others, strict=False):
        if not np.array_equal(fields.reshape(len(fields), -1), other.reshape(len(other), -1)):
            fix = (
                "Build the graphs from one list of nodes, or pass an array without labels, in an order that suits all."
            )
            raise ArgumentError(
                "models", "the same nodes in the same order", f"another order in {name!r}", fix, reason="order"
            )
    return fields


def _of_these_data(name: str, posterior: Posterior, flat: np.ndarray) -> Posterior:
    if posterior.log_evidence is None:
        raise ArgumentError(
            f"models[{name!r}]", "a Posterior with known log Z", "one without", CANNOT_COMPARE, reason="no_log_z"
        )
    if not np.array_equal(posterior.problem.data.reshape(posterior.problem.count, -1), flat):  # type: ignore[union-attr]
        raise ArgumentError(f"models[{name!r}]", "a Posterior given the same data", "one given others", reason="data")
    return posterior


def _is_latent(model) -> bool:
    return isinstance(model, Posterior) and isinstance(model.problem, LatentProblem)


def _same_observations(models: dict, data, priors) -> np.ndarray:
    """The observed values of posteriors of `laplace`, which have to be the same."""
    for name, given in (("data", data), ("priors", priors)):
        if given is not None:
            raise ArgumentError(name, "None for posteriors of NumPyro models", type(given).__name__, reason="unused")
    observed = {}
    for name, posterior in models.items():
        who = f"models[{name!r}]"
        if not _is_latent(posterior):
            raise ArgumentError(
                who, "a Posterior of phi4ppl.laplace, as others are", type(posterior).__name__, reason="mixed"
            )
        if posterior.log_evidence is None:
            reason = settings(posterior.tree)["log_evidence_reason"]
            raise ArgumentError(who, "a Posterior with log evidence", f"one without: {reason}", reason="no_evidence")
        observed[name] = np.concatenate([values.ravel() for values in posterior.problem.data.values()])
    first, *others = observed.values()
    if len(first) < 5:
        raise ArgumentError("models", "posteriors of at least 5 data", str(len(first)), reason="shape")
    for name, other in zip(list(models)[1:], others, strict=True):
        if not np.array_equal(first, other):
            raise ArgumentError(
                f"models[{name!r}]", "a Posterior given the same data", "one given others", reason="data"
            )
    return first


def _priors_by_model(models: dict, priors) -> dict[str, dict]:
    priors = {} if priors is None else priors
    if not isinstance(priors, dict):
        raise ArgumentError("priors", "a dict of NumPyro distributions by coupling", type(priors).__name__)
    if priors and all(isinstance(p, dict) for p in priors.values()):
        if unknown := sorted(set(priors) - set(models)):
            raise ArgumentError("priors", "names of the models", repr(unknown[0]), reason="models")
        return {name: priors.get(name, {}) for name in models}
    known = {c for model in models.values() for c in model.couplings}
    if unknown := [c for c in priors if c not in known]:
        raise ArgumentError("priors", f"couplings among {', '.join(sorted(known))}", repr(unknown[0]), reason="name")
    return {name: {c: p for c, p in priors.items() if c in model.couplings} for name, model in models.items()}


def _prior_weights(models: dict, given) -> np.ndarray:
    if given is None:
        return np.full(len(models), 1 / len(models))
    if not isinstance(given, dict) or set(given) != set(models):
        raise ArgumentError("prior_weights", f"a number for each of {', '.join(models)}", repr(given))
    weights = finite_array("prior_weights", [given[name] for name in models])
    if np.any(weights <= 0):
        raise ArgumentError(
            "prior_weights", "positive numbers", repr(given), "Omit a model that is impossible.", reason="positive"
        )
    return weights / weights.sum()
