"""What a model computes, layer by layer. Every function of this package reads models through `layers`.

A model is a function ``apply(params, x) -> {"layer": values, …}``: values have one row an example, layers come in the order in
which they are computed, and the last is the output. A list of functions, each of the values before it, is such a model as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from .._typing import Labeled
from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, present
from ..renormalization.blocking import fields_of
from ..results.independent_fields import independent_step
from ..spectral.matrices import told

__all__ = [
    "as_array", "channels_of", "examples", "layers", "num_examples", "reader", "require_moderate", "with_space",
]  # fmt: skip

LARGEST = 1e70  # whose fourth power can be summed
EXPECTED = "a function apply(params, x) that returns a dict of arrays, or a list of functions of one argument"
ADAPT = "Models of other libraries: apply, params = phi4ppl.lens.read(model)."


def reader(apply, params=None) -> Callable[[Any], dict[str, Any]]:
    """A function from examples to the values of every layer, in order; it can be differentiated and compiled if ``apply`` can.

    Parameters
    ----------
    apply : callable, or a list of callables or of ``(name, callable)``
        As of `layers`.
    params : pytree, optional

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> import numpy as np
    >>> from phi4ppl.lens.activations import reader
    >>> read = reader([("square", np.square), ("sum", lambda h: h.sum(axis=1))])
    >>> {name: values.shape for name, values in read(np.ones((5, 3))).items()}
    {'square': (5, 3), 'sum': (5,)}
    """
    if isinstance(apply, list | tuple):
        named = _named(apply)
        if params is not None:
            fix = "Functions of a list keep their own parameters: functools.partial(layer, weights)."
            raise ArgumentError("params", "None beside a list of layers", f"a {type(params).__name__}", fix, "unused")
        return lambda x: _in_turn(named, x)
    if not callable(apply):
        raise ArgumentError("apply", EXPECTED, f"a {type(apply).__name__}", ADAPT)

    def read(x) -> dict[str, Any]:
        with told("apply", EXPECTED, ADAPT):
            found = apply(params, x)
        if hasattr(found, "shape"):
            return {"output": found}
        if not isinstance(found, Mapping) or not found:
            got = f"a {type(found).__name__}" if found is None or not isinstance(found, Mapping) else "an empty dict"
            raise ArgumentError("apply", EXPECTED, got, ADAPT, reason="returns")
        return {str(name): values for name, values in found.items()}

    return read


def _named(given) -> list[tuple[str, Callable]]:
    """Layers with their names; those without one are numbered."""
    found: dict[str, Callable] = {}
    for k, layer in enumerate(given):
        name, function = (
            layer if isinstance(layer, tuple) and len(layer) == 2 and isinstance(layer[0], str) else (None, layer)
        )
        if not callable(function):
            raise ArgumentError(
                f"apply[{k}]", "a function, or a pair of a name and a function", f"a {type(layer).__name__}"
            )
        own = getattr(function, "__name__", type(function).__name__)
        name = name or (f"layer {k}" if own == "<lambda>" else f"{k} {own}")
        if name in found:
            raise ArgumentError(f"apply[{k}]", "a name of its own for every layer", f"{name!r} twice", reason="name")
        found[name] = function
    if not found:
        raise ArgumentError("apply", "at least one layer", "an empty list")
    return list(found.items())


def _in_turn(named, x) -> dict[str, Any]:
    found = {}
    for name, function in named:
        with told("apply", f"a layer {name!r} that takes what comes before it"):
            x = function(x)
        found[name] = x
    return found


def examples(data: Labeled, name: str = "data"):
    """Data as models take them: arrays as they are, runs as fields thinned to one draw in 2 τ_int, tables as numbers.

    A dict or tuple of arrays (graphs, for example) stays one; the first axis of each of them counts the examples.

    Raises
    ------
    ArgumentError
        If the data have no examples, or numbers are missing or infinite.

    Examples
    --------
    >>> from phi4ppl.lens.activations import examples
    >>> examples([[1.0, 2.0]]).shape
    (1, 2)
    """
    if hasattr(data, "children") or hasattr(getattr(data, "tree", None), "children"):
        fields = fields_of(data)[0]
        return fields[:, :: independent_step(fields)].reshape(-1, *fields.shape[2:])
    if isinstance(data, tuple | Mapping):
        num_examples(data, name)
        return data
    values = as_array(name, present(name, data))
    if values.dtype.kind not in "iu":
        values = finite_array(name, values)
    num_examples(values, name)
    return values


def as_array(name: str, value) -> np.ndarray:
    """``value`` as an array, or `ArgumentError` for lists of different lengths."""
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ArgumentError(name, "an array", "lists of different lengths", reason="shape") from error


def require_moderate(name: str, values: np.ndarray) -> None:
    """Raise `ArgumentError` if fourth powers of the values would over- or underflow."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest != 0 and not 1 / LARGEST <= largest <= LARGEST:
        expected = f"values whose largest is between {1 / LARGEST:g} and {LARGEST:g}"
        raise ArgumentError(name, expected, f"{largest:.3g}", "Change the units.", reason="scale")


def num_examples(data, name: str = "data") -> int:
    """The number of examples: the length of the first axis of all arrays in ``data``.

    Raises
    ------
    ArgumentError
    """
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(data)]
    sizes = {shape[0] if shape else 0 for shape in shapes}
    if len(sizes) != 1 or 0 in sizes:
        got = ", ".join(f"shape {shape}" for shape in shapes[:4]) or "nothing"
        raise ArgumentError(name, "arrays whose first axis counts the examples", got, reason="shape")
    return int(sizes.pop())


@call_checked
def layers(apply, params, x: Labeled) -> dict[str, np.ndarray]:
    """The values of every layer of a model on some examples, in the order of the layers.

    Parameters
    ----------
    apply : callable, or a list of callables or of ``(name, callable)``
        ``apply(params, x)`` returns a dict from the name of a layer to its values, of shape ``(n, …)``, the last the output (or
        one array, the output). A list of functions: each takes the values of the one before it.
    params : pytree
        Passed on to ``apply``; None beside a list.
    x : array_like, shape ``(n, …)``
        The examples; or a dict or tuple of arrays with one row an example, or the DataTree of a run.

    Returns
    -------
    dict of float64 arrays, each of shape ``(n, …)``

    Raises
    ------
    ArgumentError
        If a layer has not one row an example, or values that are missing, infinite, above 1e70 or no numbers.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> def apply(params, x):
    ...     hidden = np.tanh(x @ params["w"])
    ...     return {"hidden": hidden, "output": hidden.sum(axis=1)}
    >>> found = p4.lens.layers(apply, {"w": np.ones((3, 4))}, np.zeros((2, 3)))
    >>> {name: values.shape for name, values in found.items()}
    {'hidden': (2, 4), 'output': (2,)}
    """
    x = examples(x, "x")
    number, found = num_examples(x, "x"), {}
    for name, values in reader(apply, params)(x).items():
        array = finite_array(
            f"layer {name!r}", values, "Read it in evaluation mode, on examples that the model knows."
        ).astype(float)
        if not array.ndim or len(array) != number:
            expected = f"one row for each of {number} examples"
            raise ArgumentError(f"layer {name!r}", expected, f"shape {array.shape}", reason="shape")
        require_moderate(f"layer {name!r}", array)
        found[name] = array
    return found


CHANNELS = ("auto", "last", "first", None)


def channels_of(apply, channels: str | None) -> str | None:
    """Which axis of layers with more than two axes counts channels: what is asked for, or what the adapter says, or the last.

    Raises
    ------
    ArgumentError
    """
    if channels not in CHANNELS:
        expected, fix = (
            "one of 'auto', 'last', 'first', None",
            "None: every axis is one of space, as of a lattice field.",
        )
        raise ArgumentError("channels", expected, repr(channels), fix)
    return getattr(apply, "channels", "last") if channels == "auto" else channels


def with_space(values: np.ndarray, channels: str | None) -> np.ndarray:
    """Values of a layer with axes ``(example, *space, mode)``.

    Examples
    --------
    >>> import numpy as np
    >>> from phi4ppl.lens.activations import with_space
    >>> images = np.zeros((5, 3, 8, 8))
    >>> [with_space(images, channels).shape for channels in ("last", "first", None)]
    [(5, 3, 8, 8), (5, 8, 8, 3), (5, 3, 8, 8, 1)]
    """
    if channels is None or values.ndim == 1:
        return values[..., None]
    return np.moveaxis(values, 1, -1) if channels == "first" and values.ndim > 2 else values
