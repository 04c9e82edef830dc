"""Couplings drawn from distributions: one array per name, a realisation a row; what is not normalizable is found first."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import numpyro.distributions as dist

from ..errors import ArgumentError, HammersleyCliffordError
from ..errors.streams import stream_key
from ..model.field import MarkovRandomField
from ..model.hammersley_clifford.normalizability import from_built_in_terms

__all__ = ["Improper", "draw_couplings", "improper_probability", "require_disorder", "require_proper"]

NUM_TRIED = 500  # realisations drawn for a probability that no formula gives
NEGLIGIBLE = 1e-12  # probability of an improper realisation below which it is taken for rounding
JUST_BELOW = -1e-30  # a distribution function here is the probability of a negative coupling, without the value 0


class Improper(NamedTuple):
    """The probability that one realisation is not normalizable.

    Attributes
    ----------
    probability : float
    error : float
        0 where the probability is exact.
    how : str
    reason : str
        What goes wrong, in words.
    """

    probability: float
    error: float
    how: str
    reason: str = ""


def require_disorder(model: MarkovRandomField, disorder: dict) -> None:
    """Raise `ArgumentError` unless every name is a coupling and every value draws numbers of its shape."""
    if not isinstance(model, MarkovRandomField):
        raise ArgumentError("model", "a MarkovRandomField", type(model).__name__, "Build one with phi4ppl.phi4(…).")
    example = "For example {'r': numpyro.distributions.Normal(0, 0.5)}."
    if not isinstance(disorder, dict) or not disorder:
        raise ArgumentError("disorder", "a dict of distributions by name of a coupling", repr(disorder)[:80], example)
    for name, source in disorder.items():
        if name not in model.couplings:
            fix = "Declare the term with some coupling, such as r=0: a draw replaces it."
            raise ArgumentError("disorder", f"names among {', '.join(model.couplings)}", repr(name), fix, reason="name")
        if not isinstance(source, dist.Distribution) and not callable(source):
            raise ArgumentError(
                f"disorder {name!r}", "a NumPyro distribution or a function key → array", repr(source)[:80], example
            )


def draw_couplings(model: MarkovRandomField, disorder: dict, number: int, seed: int, stream: str) -> dict:
    """Arrays of shape ``(number, num_cliques)`` by name, or ``(number,)`` where a function gives one number."""
    return {
        name: _drawn(model, name, source, number, stream_key(seed, stream, name)) for name, source in disorder.items()
    }


def _drawn(model: MarkovRandomField, name: str, source, number: int, key) -> np.ndarray:
    cliques = len(next(form for form in model.forms if form.name == name).cliques)
    shapes = [(cliques,)] + ([model.field_shape] if cliques == model.lattice.num_sites else [])
    what = f"disorder {name!r}"
    if isinstance(source, dist.Distribution):
        shape = source.batch_shape + source.event_shape
        if shape not in [(), *shapes]:
            fix = "A batch draws cliques independently, an event (MultivariateNormal) draws them together."
            expected = f"one of the shapes {', '.join(map(str, [(), *shapes]))}"
            raise ArgumentError(what, f"a distribution of {expected}", f"shape {shape}", fix, reason="shape")
        with jax.numpy_rank_promotion("allow"):  # distributions of NumPyro broadcast
            values = np.asarray(source.sample(key, (number, cliques) if shape == () else (number,)), float)
    else:
        values = _from_function(what, source, jax.random.split(key, number), shapes)
    if not np.isfinite(values).all():
        share = np.mean(~np.isfinite(values.reshape(number, -1)).all(axis=1))
        raise ArgumentError(what, "finite couplings", f"others in {share:.0%} of the realisations", reason="finite")
    return values.reshape(number, -1) if values.ndim > 1 else values


def _from_function(what: str, source: Callable, keys, shapes) -> np.ndarray:
    try:
        values = np.stack([np.asarray(source(key), float) for key in keys])
    except Exception as error:  # whatever a user's function raises is the user's to read
        got = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
        raise ArgumentError(what, "a function key → array", got, reason="raises") from error
    if values.shape[1:] not in [(), *shapes]:
        expected = f"one number, or an array of shape {' or '.join(map(str, shapes))}"
        raise ArgumentError(what, f"a function that returns {expected}", f"shape {values.shape[1:]}", reason="returns")
    return values


# --- normalizability


def require_proper(model: MarkovRandomField, disorder: dict, drawn: dict, seed: int) -> Improper:
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
    share = f"{p:.3g}" if found.error == 0 else f"{p:.3g} ± {found.error:.2g}"
    any_of = -np.expm1(number * np.log1p(-min(p, 1 - 1e-16)))
    raise HammersleyCliffordError(
        "realization",
        f"The disorder has realisations without a finite Z: each with probability {share} ({found.how}), so one or more of "
        f"{number} with probability {any_of:.3g}. {found.reason} Averages over them do not exist. Take distributions that "
        "stay on one side, such as LogNormal, HalfNormal, Uniform or TruncatedNormal(loc, scale, low=…).",
    )


def improper_probability(model: MarkovRandomField, disorder: dict, seed: int = 0) -> Improper:
    """The probability that a realisation is not normalizable.

    Exact where the highest power of the field decides and its coupling is fixed, or drawn independently from distributions
    whose distribution function NumPyro knows: 1 − Π_i (1 − P(θ_i < 0)). Otherwise from 500 draws.
    """
    exact = _exact(model, disorder) if model.structure.is_built_in else None
    return exact or _counted(model, draw_couplings(model, disorder, NUM_TRIED, seed, "normalizability"))


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


def _exact(model: MarkovRandomField, disorder: dict) -> Improper | None:
    """From the couplings of the highest power, if they decide alone."""
    top = model.structure.highest_power
    forms = [form for form in model.forms if form.power == top] if top else []
    if len(forms) != 1 or sorted(forms[0].cliques[:, 0]) != list(range(model.lattice.num_sites)):
        return None
    name, number = forms[0].name, len(forms[0].cliques)
    if name not in disorder:
        positive = np.all(np.asarray(model.couplings[name]) > 0)
        return Improper(0.0, 0.0, f"every {name} is positive") if positive else None
    below = _share_below_zero(disorder[name])
    if below is None:
        return None
    below = np.broadcast_to(below.reshape(-1), number)
    probability = float(-np.expm1(np.sum(np.log1p(-np.minimum(below, 1 - 1e-16)))))
    reason = f"Where {name} is negative, S falls to −∞: with probability {below.max():.3g} at a site."
    return Improper(probability, 0.0, f"exact, from the distribution of {name}", reason)


def _share_below_zero(source) -> np.ndarray | None:
    """P(θ < 0) of independent draws; None where it is not known, or where θ = 0 has a probability."""
    while isinstance(source, dist.Independent):
        source = source.base_dist
    if not isinstance(source, dist.Distribution) or source.event_shape or source.is_discrete:
        return None
    lowest = getattr(source.support, "lower_bound", None)
    if lowest is not None and np.all(np.asarray(lowest) >= 0):
        return np.zeros(1)
    try:
        with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
            below, up_to = (np.asarray(source.cdf(np.float64(x)), float) for x in (JUST_BELOW, 0.0))
    except (NotImplementedError, AttributeError, TypeError, ValueError):
        return None
    if np.isnan(below).any() or (up_to - below > NEGLIGIBLE).any():
        return None
    return np.maximum(below, 0.0)
