"""Couplings drawn from distributions: one array per name, a realisation a row."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import numpyro.distributions as dist
from numpyro import handlers

from ..errors import ArgumentError
from ..errors.streams import stream_key
from ..model.field import MarkovRandomField

__all__ = ["draw_couplings", "names_of", "require_disorder"]

EXAMPLE = "For example {'r': numpyro.distributions.Normal(0, 0.5)}."
DECLARE = "Declare the term with some coupling, such as r=0: a draw replaces it."


def require_disorder(model: MarkovRandomField, disorder) -> None:
    """Raise `ArgumentError` unless every name is a coupling and every value draws numbers of its shape."""
    if not isinstance(model, MarkovRandomField):
        raise ArgumentError("model", "a MarkovRandomField", type(model).__name__, "Build one with phi4ppl.phi4(…).")
    if callable(disorder) and not isinstance(disorder, dist.Distribution):
        _sites(model, disorder)
        return
    if not isinstance(disorder, dict) or not disorder:
        expected = "a dict of distributions by name of a coupling, or a NumPyro model without arguments"
        raise ArgumentError("disorder", expected, repr(disorder)[:80], EXAMPLE)
    for name, source in disorder.items():
        if name not in model.couplings:
            if isinstance(name, tuple):
                fix = "To draw several terms together, pass a NumPyro model: a function with a site for each term."
                raise ArgumentError("disorder", "one name per distribution", repr(name), fix, reason="name")
            raise ArgumentError(
                "disorder", f"names among {', '.join(model.couplings)}", repr(name), DECLARE, reason="name"
            )
        if not isinstance(source, dist.Distribution) and not callable(source):
            raise ArgumentError(
                f"disorder {name!r}", "a NumPyro distribution or a function key → array", repr(source)[:80], EXAMPLE
            )


def names_of(model: MarkovRandomField, disorder) -> list[str]:
    """The couplings that are drawn."""
    return list(disorder) if isinstance(disorder, dict) else list(_sites(model, disorder))


def draw_couplings(model: MarkovRandomField, disorder, number: int, seed: int, stream: str) -> dict:
    """Arrays of shape ``(number, num_cliques)`` by name, or ``(number,)`` where a function gives one number."""
    if not isinstance(disorder, dict):
        return _drawn_together(model, disorder, number, stream_key(seed, stream))
    return {
        name: _drawn(model, name, source, number, stream_key(seed, stream, name)) for name, source in disorder.items()
    }


def _shapes_of(model: MarkovRandomField, name: str) -> list[tuple[int, ...]]:
    cliques = len(next(form for form in model.forms if form.name == name).cliques)
    both = [(cliques,)] + ([model.field_shape] if cliques == model.lattice.num_sites else [])
    return list(dict.fromkeys(both))


def _drawn(model: MarkovRandomField, name: str, source, number: int, key) -> np.ndarray:
    shapes = _shapes_of(model, name)
    cliques = shapes[0][0]
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
    return _rows(what, values)


def _rows(what: str, values: np.ndarray) -> np.ndarray:
    """One realisation a row, all of it finite."""
    if not np.isfinite(values).all():
        share = np.mean(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
        raise ArgumentError(what, "finite couplings", f"others in {share:.0%} of the realisations", reason="finite")
    return values.reshape(len(values), -1) if values.ndim > 1 else values


def _from_function(what: str, source: Callable, keys, shapes) -> np.ndarray:
    try:
        values = np.stack([np.asarray(source(key), float) for key in keys])
    except Exception as error:  # whatever a user's function raises is the user's to read
        raise ArgumentError(what, "a function key → array", _in_words(error), reason="raises") from error
    if values.shape[1:] not in [(), *shapes]:
        expected = f"one number, or an array of shape {' or '.join(map(str, shapes))}"
        raise ArgumentError(what, f"a function that returns {expected}", f"shape {values.shape[1:]}", reason="returns")
    return values


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


# --- a NumPyro model that draws several terms


def _sites(model: MarkovRandomField, disorder: Callable) -> dict:
    """Shapes of the couplings that a NumPyro model draws, by name, each of them checked."""
    trace = _called(lambda: handlers.trace(handlers.seed(disorder, 0)).get_trace())
    found = {}
    for name, site in trace.items():
        if site["type"] == "param" or (site["type"] == "sample" and site["is_observed"]):
            fix = "Couplings are drawn from a prior; for couplings given data see phi4ppl.infer_couplings."
            raise ArgumentError(
                "disorder", "a NumPyro model without data or parameters", repr(name), fix, reason="observed"
            )
        if site["type"] not in ("sample", "deterministic"):
            continue
        if name in model.couplings:
            shape, allowed = np.shape(site["value"]), [(), *_shapes_of(model, name)]
            if shape not in allowed:
                expected = f"a site of one of the shapes {', '.join(map(str, allowed))}"
                fix = "Use .expand([n]), a plate, or numpyro.deterministic."
                raise ArgumentError(f"disorder {name!r}", expected, f"shape {shape}", fix, reason="shape")
            found[name] = shape
        elif site["type"] == "deterministic":
            raise ArgumentError(
                "disorder", f"names among {', '.join(model.couplings)}", repr(name), DECLARE, reason="name"
            )
    if not found:
        expected = f"a NumPyro model with sites among {', '.join(model.couplings)}"
        raise ArgumentError("disorder", expected, f"sites {', '.join(trace) or '(none)'}", DECLARE, reason="name")
    return found


def _drawn_together(model: MarkovRandomField, disorder: Callable, number: int, key) -> dict:
    names = _sites(model, disorder)

    def one(key):
        trace = handlers.trace(handlers.seed(disorder, key)).get_trace()
        return {name: trace[name]["value"] for name in names}

    drawn = _called(lambda: jax.vmap(one)(jax.random.split(key, number)))
    return {name: _rows(f"disorder {name!r}", np.asarray(drawn[name], float)) for name in names}


def _called(function: Callable):
    """The result of a user's NumPyro model, or `ArgumentError` with what it raised."""
    try:
        with jax.numpy_rank_promotion("allow"):
            return function()
    except Exception as error:  # whatever a user's function raises is the user's to read
        fix = "It takes no arguments, and uses jax.numpy on what it draws."
        raise ArgumentError(
            "disorder", "a NumPyro model that can be run", _in_words(error), fix, reason="raises"
        ) from error
