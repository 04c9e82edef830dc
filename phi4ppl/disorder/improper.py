"""Which share of the realisations has no finite Z, found before anything is sampled."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
import numpyro.distributions as dist
from scipy import stats

from ..errors import HammersleyCliffordError
from ..model.field import MarkovRandomField
from ..model.hammersley_clifford.normalizability import from_built_in_terms
from .draws import draw_couplings

__all__ = ["Improper", "improper_probability", "require_proper"]

NUM_TRIED = 500  # realisations drawn for a probability that no formula gives
NEGLIGIBLE = 1e-12  # probability of an improper realisation below which it is taken for rounding
JUST_BELOW = -1e-30  # a distribution function here is the probability of a negative coupling, without the value 0


class Improper(NamedTuple):
    """The probability that one realisation is not normalizable.

    Attributes
    ----------
    probability : float
    error : float
        0 where the probability, or its bound, is exact.
    how : str
    reason : str
        What goes wrong, in words.
    at_least : bool
        Whether the probability is a lower bound.
    """

    probability: float
    error: float
    how: str
    reason: str = ""
    at_least: bool = False

    def __str__(self) -> str:
        number = f"{self.probability:.3g}"
        number = f"at least {number}" if self.at_least else number
        return number if self.error == 0 or self.probability == 0 else f"{number} ± {self.error:.2g}"


class Part(NamedTuple):
    """Probabilities by clique, and whether the cliques are independent."""

    shares: np.ndarray
    independent: bool

    @property
    def one_or_more(self) -> float:
        """The probability that one clique or more is bad; a lower bound where they are not independent."""
        if not self.independent:
            return float(self.shares.max())
        return float(-np.expm1(np.sum(np.log1p(-np.minimum(self.shares, 1 - 1e-16)))))


def require_proper(model: MarkovRandomField, disorder, drawn: dict, seed: int) -> Improper:
    """Refuse a distribution with realisations that are not normalizable, with their probability.

    Raises
    ------
    HammersleyCliffordError
        If the probability is not 0 (to `NEGLIGIBLE`), or one of the realisations drawn is not normalizable.
    """
    built_in = model.structure.is_built_in
    found = improper_probability(model, disorder, seed) if built_in else _counted(model, drawn)
    if found.probability <= NEGLIGIBLE and built_in:
        again = _counted(model, drawn)
        found = again if again.probability > 0 else found
    p, number = found.probability, len(next(iter(drawn.values())))
    if p <= NEGLIGIBLE:
        return found
    any_of = -np.expm1(number * np.log1p(-min(p, 1 - 1e-16)))
    least = "at least " if found.at_least else ""
    raise HammersleyCliffordError(
        "realization",
        f"The disorder has realisations without a finite Z: each with probability {found} ({found.how}), so one or more of "
        f"{number} with probability {least}{any_of:.3g}. {found.reason} Averages over them do not exist. Take distributions "
        "that stay on one side, such as LogNormal, HalfNormal, Uniform or TruncatedNormal(loc, scale, low=…).",
    )


def improper_probability(model: MarkovRandomField, disorder, seed: int = 0) -> Improper:
    """The probability that a realisation is not normalizable.

    Exact where the highest power of the field decides and its coupling is fixed, or drawn independently from distributions
    whose distribution function NumPyro knows: 1 − Π_i (1 − P(θ_i < 0)). Otherwise an exact lower bound where there is one
    above 0, from the marginals of correlated couplings or from single sites and edges of a quadratic form, or a count of 500
    draws where that is larger.
    """
    found = None
    if model.structure.is_built_in and isinstance(disorder, dict):
        found = _exact(model, disorder) or _bounded(model, disorder)
        if found is not None and not found.at_least:
            return found
    counted = _counted(model, draw_couplings(model, disorder, NUM_TRIED, seed, "normalizability"))
    return counted if found is None or counted.probability - 3 * counted.error > found.probability else found


def _counted(model: MarkovRandomField, drawn: dict) -> Improper:
    """From the realisations drawn."""
    number, first, bad = len(next(iter(drawn.values()))), "", 0
    for k in range(number):
        proper, reason = _verdict(model, {name: values[k] for name, values in drawn.items()})
        first = first or ("" if proper else f"The first of them: {reason}.")
        bad += not proper
    if not bad:
        return Improper(0.0, 1 / number, f"none of {number} realisations: below {3 / number:.2g} at 95 %")
    p = bad / number
    return Improper(p, float(np.sqrt(p * (1 - p) / number)) or 1 / number, f"{bad} of {number} realisations", first)


def _verdict(model: MarkovRandomField, couplings: dict) -> tuple[bool, str]:
    one = model.replace(**couplings)
    if one.structure.is_built_in:
        return from_built_in_terms(one.lattice, one.forms, list(one.couplings.values()))[:2]
    report = one.check()
    return report.is_normalizable, report.normalizable_reason


# --- in closed form


def _exact(model: MarkovRandomField, disorder: dict) -> Improper | None:
    """From the couplings of the highest power, if they decide alone."""
    top = model.structure.highest_power
    form = _only_site_form(model, top) if top else None
    if form is None:
        return None
    if form.name not in disorder:
        positive = np.all(np.asarray(model.couplings[form.name]) > 0)
        return Improper(0.0, 0.0, f"every {form.name} is positive") if positive else None
    part = _below(disorder[form.name], 0.0, len(form.cliques))
    if part is None:
        return None
    reason = f"Where {form.name} is negative, S falls to −∞: with probability {part.shares.max():.3g} at a site."
    if part.independent or part.one_or_more == 0:
        return Improper(part.one_or_more, 0.0, f"exact, from the distribution of {form.name}", reason)
    how = f"that of one site, from the marginal distributions of {form.name}"
    return Improper(part.one_or_more, 0.0, how, reason, True) if part.one_or_more > NEGLIGIBLE else None


def _bounded(model: MarkovRandomField, disorder: dict) -> Improper | None:
    """A lower bound of a quadratic form: single sites with a < 0, and edges with w² > 4 a_i a_j."""
    form = None if model.structure.highest_power else _only_site_form(model, 2)
    if form is None:
        return None
    name, found = form.name, []
    if name in disorder:
        part = _below(disorder[name], 0.0, len(form.cliques))
        reason = f"Where {name} is negative, S falls to −∞."
        found += [(part, f"from the distribution of {name} at single sites", reason)]
    else:
        a = np.broadcast_to(np.asarray(model.couplings[name], float), len(form.cliques))[np.argsort(form.cliques[:, 0])]
        for hopping in (each for each in model.forms if each.is_hopping and each.name in disorder):
            if len([each for each in model.forms if each.is_hopping]) > 1 or np.any(a <= 0):
                continue  # terms on the same edge would add up
            limit = 2 * np.sqrt(a[hopping.cliques[:, 0]] * a[hopping.cliques[:, 1]])
            reason = f"Where {hopping.name}² > 4 {name}_i {name}_j on an edge, S falls to −∞."
            part = _beyond(disorder[hopping.name], limit)
            found += [(part, f"from the distribution of {hopping.name} on single edges", reason)]
    sure = [(part.one_or_more, how, reason) for part, how, reason in found if part is not None]
    probability, how, reason = max(sure, default=(0.0, "", ""))
    return Improper(probability, 0.0, how, reason, True) if probability > NEGLIGIBLE else None


def _only_site_form(model: MarkovRandomField, power: int):
    """The one term of this power, if every site has it."""
    forms = [form for form in model.forms if form.power == power]
    whole = len(forms) == 1 and sorted(forms[0].cliques[:, 0]) == list(range(model.lattice.num_sites))
    return forms[0] if whole else None


def _below(source, limit, number: int) -> Part | None:
    """P(θ < limit) by clique; None where it is not known, or where θ = limit has a probability."""
    while isinstance(source, dist.Independent | dist.ExpandedDistribution):
        source = source.base_dist
    if not isinstance(source, dist.Distribution):
        return None
    joint = len(source.event_shape) > 0
    with jax.numpy_rank_promotion("allow"):
        shares = _of_marginals(source, limit) if joint else _of_one(source, limit)
    if shares is None or not np.isfinite(shares).all():
        return None
    return Part(np.broadcast_to(np.reshape(shares, -1), number), not joint)


def _beyond(source, limit: np.ndarray) -> Part | None:
    """P(|θ| > limit) by clique."""
    parts = [_below(source, bound, len(limit)) for bound in (-limit, limit)]
    if any(part is None for part in parts):
        return None
    low, up_to = parts
    return Part(np.clip(low.shares + 1 - up_to.shares, 0.0, 1.0), low.independent)


def _of_marginals(source, limit) -> np.ndarray | None:
    if isinstance(source, dist.MultivariateNormal | dist.LowRankMultivariateNormal):
        return stats.norm.cdf((limit - np.asarray(source.loc, float)) / np.sqrt(np.asarray(source.variance, float)))
    if isinstance(source, dist.MultivariateStudentT):
        scale = np.sqrt(np.sum(np.asarray(source.scale_tril, float) ** 2, axis=-1))
        return stats.t.cdf((limit - np.asarray(source.loc, float)) / scale, np.asarray(source.df, float)[..., None])
    return None


def _of_one(source, limit) -> np.ndarray | None:
    """P(θ < limit) of a number, where θ = limit has no probability."""
    if isinstance(source, dist.MixtureSameFamily | dist.MixtureGeneral):
        parts = getattr(source, "component_distributions", None)
        if parts is None:
            shares = _of_one(source.component_distribution, np.asarray(limit)[..., None])
        else:
            each = [_of_one(part, limit) for part in parts]
            shares = None if any(part is None for part in each) else np.stack(np.broadcast_arrays(*each), axis=-1)
        return None if shares is None else np.sum(np.asarray(source.mixing_distribution.probs, float) * shares, axis=-1)
    if isinstance(source, dist.Delta):
        value = np.asarray(source.v, float)
        return None if np.any(value == limit) else (value < limit).astype(float)
    if source.is_discrete:
        return None
    lowest = getattr(source.support, "lower_bound", None)
    if lowest is not None and np.all(np.asarray(lowest) >= limit):
        return np.zeros(1)
    try:
        with jax.enable_x64(True):
            points = np.asarray(limit, float)
            below, up_to = (np.asarray(source.cdf(x), float) for x in (points + JUST_BELOW, points))
    except (NotImplementedError, AttributeError, TypeError, ValueError):
        return None
    return None if np.isnan(below).any() or (up_to - below > NEGLIGIBLE).any() else np.maximum(below, 0.0)
