"""Features as kernels: arrays, hidden layers of scikit-learn's networks, transformers, and the machines of this library."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array
from .matrices import told

__all__ = ["features_of", "kernel_from_features", "makes_features"]

FIT = "Fit it first, on inputs of the same columns."
ACTIVATIONS: dict[str, Callable] = {
    "identity": lambda z: z,
    "logistic": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
}


def makes_features(source) -> bool:
    """Whether it is an estimator or a machine that `features_of` can ask."""
    return any(hasattr(source, name) for name in ("transform", "hidden_mean", "coefs_"))


@call_checked
def features_of(source, x, *, layer: int = -1) -> np.ndarray:
    """What a fitted model makes of its inputs, as an array of shape ``(n, features)``.

    Parameters
    ----------
    source : callable, RestrictedBoltzmannMachine, or a fitted scikit-learn estimator
        The hidden means of a machine; a hidden layer of ``MLPClassifier`` and ``MLPRegressor``; what a transformer or a
        pipeline of transformers (φ⁴ machines and stacks of them are such) makes; the values of a function of ``x``.
    x : array, shape ``(n, …)``
    layer : int
        Which hidden layer, of ``MLPClassifier`` and ``MLPRegressor``.

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> import numpy as np
    >>> from phi4ppl.spectral.features import features_of
    >>> features_of(lambda x: x**2, np.array([[1.0, 2.0]]))
    array([[1., 4.]])
    """
    if hasattr(source, "coefs_") and hasattr(source, "activation"):
        found = _hidden_layer(source, x, layer)
    elif hasattr(source, "transform"):
        with told("source", "a fitted transformer that takes x", FIT):
            found = source.transform(x)
    elif hasattr(source, "hidden_mean"):
        with told("x", "inputs that the machine takes"):
            found = source.hidden_mean(np.asarray(x))
    elif callable(source):
        with told("source", "a function that makes features of x"):
            found = source(x)
    else:
        expected = "a fitted estimator with transform, a multilayer perceptron, a machine or a function"
        raise ArgumentError("source", expected, f"a {type(source).__name__}", FIT)
    return _flat("features", found.toarray() if hasattr(found, "toarray") else found)


def _hidden_layer(source, x, layer: int) -> np.ndarray:
    hidden = len(source.coefs_) - 1
    if not -hidden <= layer < hidden:
        raise ArgumentError("layer", f"one of {hidden} hidden layers, from 0", repr(layer), reason="choice")
    values, act = finite_array("x", x).astype(float), ACTIVATIONS[source.activation]
    if values.ndim != 2 or values.shape[1] != len(source.coefs_[0]):
        raise ArgumentError("x", f"shape (n, {len(source.coefs_[0])})", f"shape {values.shape}", FIT, reason="shape")
    for weights, bias in list(zip(source.coefs_, source.intercepts_, strict=True))[: layer % hidden + 1]:
        values = act(values @ weights + bias)
    return values


def _flat(name: str, value) -> np.ndarray:
    array = finite_array(name, value).astype(float)
    if array.ndim < 1 or not len(array):
        raise ArgumentError(name, "features of at least one point", f"shape {array.shape}", reason="shape")
    return array.reshape(len(array), -1)


@call_checked
def kernel_from_features(features, x=None, *, layer: int = -1) -> np.ndarray:
    """K = F Fᵀ of features F, shape ``(n, n)``, in double precision: positive semidefinite to its rounding.

    Parameters
    ----------
    features : array, shape ``(n, …)``, or a source of them as in `features_of`
    x : array, shape ``(n, …)``, optional
        Inputs of the source.
    layer : int
        As in `features_of`.

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> from phi4ppl.spectral.features import kernel_from_features
    >>> kernel_from_features([[1.0, 0.0], [1.0, 2.0]])
    array([[1., 1.],
           [1., 5.]])
    """
    found = _flat("features", features) if x is None else features_of(features, x, layer=layer)
    return found @ found.T
