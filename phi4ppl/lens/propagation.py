"""A small perturbation of the input on its way through the layers: susceptibility by layer, and a map over the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from .._typing import Labeled
from ..analysis.blocks import Blocks, jackknife_error
from ..errors import ArgumentError
from ..errors.arguments import call_checked, positive_int, seed_within
from ..errors.streams import stream_key
from ..reports.card import card
from ..reports.numbers import value_with_error
from ..reports.style import OKABE_ITO, SEQUENTIAL, panels
from ..spectral.matrices import told
from .activations import examples, reader
from .attribution import DIFFERENTIABLE, pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Propagation", "propagation"]

HEAD = ("layer", "susceptibility", "growth since the input")
FEW = 5  # examples, for errors


@dataclass(frozen=True, repr=False, eq=False)
class Propagation:
    """What `propagation` finds; arrays have one entry a layer.

    Attributes
    ----------
    names : tuple of str
    susceptibility, susceptibility_error : arrays, shape ``(layers,)``
        Mean squared change of a unit of the layer, over that of the layer before (or the input).
    growth, growth_error : arrays, shape ``(layers,)``
        The same since the input.
    maps : dict of arrays, shape ``input``
        Of each layer, the mean squared change of a unit for a unit change of each input.
    num_examples : int
    """

    names: tuple[str, ...]
    susceptibility: np.ndarray
    susceptibility_error: np.ndarray
    growth: np.ndarray
    growth_error: np.ndarray
    maps: dict[str, np.ndarray]
    num_examples: int

    def rows(self) -> list[tuple[str, ...]]:
        """Cells of a table, one row a layer."""
        return [
            (name, *(value_with_error(*pair) for pair in pairs))
            for name, *pairs in zip(
                self.names, zip(self.susceptibility, self.susceptibility_error, strict=True),
                zip(self.growth, self.growth_error, strict=True), strict=True,
            )
        ]  # fmt: skip

    def __str__(self) -> str:
        rows = [HEAD, *self.rows()]
        widths = [max(len(row[k]) for row in rows) for k in range(3)]
        lines = ["  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([f"small perturbations of {self.num_examples} examples", *lines])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return card("Propagation of a small perturbation", HEAD, self.rows())

    def plot(self) -> Figure:
        """Growth by layer, and the map of each layer over the input."""
        figure, places = panels(1 + len(self.names), columns=4, width=2.6, height=2.4)
        steps = np.arange(1, len(self.names) + 1)
        places[0].errorbar(steps, self.growth, self.growth_error, color=OKABE_ITO[0], marker="o", ms=3, lw=1)
        places[0].set_yscale("log")
        places[0].set_xticks(steps)
        places[0].set_xlabel("layer", fontsize=8)
        places[0].set_title("growth since the input", fontsize=9)
        for axes, name in zip(places[1:], self.names, strict=True):
            values = self.maps[name]
            if (picture := pixels(values)) is not None:
                axes.imshow(picture, cmap=SEQUENTIAL, vmin=0)
                axes.set_xticks([]), axes.set_yticks([])
            else:
                axes.bar(np.arange(values.size), np.ravel(values), color=OKABE_ITO[0])
            axes.set_title(name, fontsize=9)
        return figure


@call_checked
def propagation(apply, params, data: Labeled, *, num_directions: int = 16, seed: int = 0) -> Propagation:
    """Follow small perturbations of the input, in random directions, through all layers.

    Parameters
    ----------
    apply, params
        The model, as in `layers`, of JAX functions.
    data : array, shape ``(n, …)``
        At least 5 examples around which the input is perturbed.
    num_directions : int
        Normal directions of the input for the susceptibilities, and as many of each layer for its map.
    seed : int

    Returns
    -------
    Propagation
        Errors are over examples: other examples, not other weights.

    Raises
    ------
    ArgumentError

    Notes
    -----
    ``χ_l = (⟨|δh_l|²⟩/N_l)/(⟨|δh_{l−1}|²⟩/N_{l−1})``, N_l units, with the exact derivative. With independent weights of
    variance σ_w²/N_{l−1}, a ReLU layer has χ = σ_w²/2 on average over the weights, at any width: 1 at He initialization, the
    border between perturbations that die out and that grow (order and chaos).

    Source: S. S. Schoenholz, J. Gilmer, S. Ganguli and J. Sohl-Dickstein, arXiv:1611.01232.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> found = p4.lens.propagation([("half", lambda x: x / 2), ("sum", lambda h: h.sum(axis=1))], None, np.ones((6, 3)))
    >>> float(found.susceptibility[0])
    0.25
    """
    positive_int("num_directions", num_directions), seed_within(seed)
    given = examples(data)
    if not hasattr(given, "shape"):
        raise ArgumentError("data", "one array", f"a {type(given).__name__} of arrays", reason="shape")
    x = jnp.asarray(given, jnp.result_type(float))
    if len(x) < FEW:
        raise ArgumentError(
            "data", f"at least {FEW} examples", str(len(x)), "Errors are over examples.", reason="small"
        )
    model, key = reader(apply, params), stream_key(seed, "lens", "propagation")
    squares, maps, names = [], {}, tuple(model(x))

    def read(x):  # transformations of JAX sort the keys of a dict
        return list(model(x).values())

    with told("apply", DIFFERENTIABLE):
        for k in range(num_directions):
            v = jax.random.normal(jax.random.fold_in(key, k), x.shape, x.dtype)
            _, change = jax.jvp(read, (x,), (v,))
            squares.append([_per_example(each) for each in (v, *change)])
        values, back = jax.vjp(read, x)
        for number, name in enumerate(names):
            own = jax.random.fold_in(jax.random.fold_in(key, num_directions), number)
            maps[name] = _map(values, back, number, own, num_directions)
    size = np.mean(np.array(squares, float), axis=0)  # (layer, example)
    without = (size.sum(axis=1, keepdims=True) - size) / (size.shape[1] - 1)
    blocks = Blocks(np.arange(size.shape[1]), 1.0, 0.5)
    found = []
    with np.errstate(invalid="ignore", divide="ignore"):
        for before in (slice(None, -1), slice(0, 1)):
            ratio = size[1:].mean(axis=1) / size[before].mean(axis=1)
            found += [ratio, jackknife_error(blocks, (without[1:] / without[before]).T)]
    return Propagation(names, *found, maps, len(x))  # type: ignore[call-arg]


def _per_example(change) -> np.ndarray:
    """Mean squared change of a unit, of each example."""
    return np.asarray(jnp.mean(jnp.reshape(change, (len(change), -1)) ** 2, axis=1), float)


def _map(values: list, back, layer: int, key, number: int) -> np.ndarray:
    """⟨(Jᵀu)²⟩ over normal u and examples, over the number of units: the mean over units of squared derivatives."""
    total: float | np.ndarray = 0.0
    for k in range(number):
        seen = [jnp.zeros_like(each) for each in values]
        seen[layer] = jax.random.normal(jax.random.fold_in(key, k), values[layer].shape, values[layer].dtype)
        (slope,) = back(seen)
        total = total + np.mean(np.asarray(slope, float) ** 2, axis=0)
    return total * len(values[layer]) / max(values[layer].size, 1) / number
