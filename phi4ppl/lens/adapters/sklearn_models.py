"""scikit-learn's multilayer perceptrons, layer by layer, and pipelines, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import ArgumentError
from ...errors.arguments import call_checked
from ...spectral.matrices import told
from .captured import OUTPUT

__all__ = ["from_sklearn"]

FIT = "Fit it first."
ACTIVATIONS: dict[str, Callable] = {
    "identity": lambda z: z,
    "logistic": jax.nn.sigmoid,
    "relu": jax.nn.relu,
    "softmax": lambda z: jax.nn.softmax(z, axis=-1),
    "tanh": jnp.tanh,
}
PREDICTIONS = ("predict_proba", "decision_function", "predict")


@call_checked
def from_sklearn(estimator) -> tuple[Callable, Any]:
    """A fitted scikit-learn estimator or pipeline as ``apply, params``.

    Layers of ``MLPClassifier`` and ``MLPRegressor`` are ``"hidden 1"``, …, of classifiers ``"logits"``, and ``"output"``
    (probabilities of the classes, or values). Steps of a pipeline are layers by their names; what its last step predicts is the
    output: ``predict_proba``, ``decision_function`` or ``predict``. A perceptron at the end of a pipeline is read by layers.

    Parameters
    ----------
    estimator : scikit-learn estimator or Pipeline

    Returns
    -------
    apply : callable
        Of a perceptron by itself a JAX function, with derivatives; steps of pipelines are functions of NumPy.
    params
        ``{"coefs": [...], "intercepts": [...]}`` of a perceptron, otherwise None.

    Raises
    ------
    ArgumentError
        If it is not fitted, or makes neither features nor predictions.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> from sklearn.neural_network import MLPRegressor
    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> model = MLPRegressor(hidden_layer_sizes=(8, 4), solver="lbfgs", random_state=0).fit(x, x[:, 0])
    >>> apply, params = p4.lens.from_sklearn(model)
    >>> {name: values.shape for name, values in p4.lens.layers(apply, params, x).items()}
    {'hidden 1': (50, 8), 'hidden 2': (50, 4), 'output': (50,)}
    """
    if hasattr(estimator, "coefs_"):
        return _perceptron(estimator)
    steps = list(estimator.steps) if hasattr(estimator, "steps") else [("", estimator)]
    steps = [(name, step) for name, step in steps if step is not None and step != "passthrough"]
    if not steps or not any(hasattr(steps[-1][1], name) for name in ("transform", *PREDICTIONS)):
        fix = "Perceptrons, transformers, predictors and pipelines of them are."
        raise ArgumentError("estimator", "a fitted scikit-learn estimator", f"a {type(estimator).__name__}", fix)

    def apply(params, x):
        found, x = {}, np.asarray(x)
        for k, (name, step) in enumerate(steps):
            last = k == len(steps) - 1
            with told("estimator", f"a fitted step {name or type(step).__name__!r} that takes x", FIT):
                if last and hasattr(step, "coefs_"):
                    inner, own = _perceptron(step)
                    return found | inner(own, jnp.asarray(x))
                x = _predicted(step, x) if last else _dense(step.transform(x))
            found[OUTPUT if last else name] = x
        return found

    return apply, None


def _dense(values):
    return values.toarray() if hasattr(values, "toarray") else np.asarray(values)


def _predicted(step, x):
    for name in PREDICTIONS if not hasattr(step, "transform") else ("transform",):
        if hasattr(step, name):
            return _dense(getattr(step, name)(x))
    raise AttributeError("neither transform nor predict")


def _perceptron(estimator) -> tuple[Callable, Any]:
    hidden, last = ACTIVATIONS[estimator.activation], estimator.out_activation_
    params = {"coefs": list(estimator.coefs_), "intercepts": list(estimator.intercepts_)}
    single = np.shape(estimator.coefs_[-1])[1] == 1

    def apply(params, x):
        found, x = {}, jnp.asarray(x, jnp.result_type(float))
        pairs = list(zip(params["coefs"], params["intercepts"], strict=True))
        for k, (weights, bias) in enumerate(pairs):
            z = x @ jnp.asarray(weights, x.dtype)
            z = z + jnp.broadcast_to(jnp.asarray(bias, x.dtype), z.shape)
            if k < len(pairs) - 1:
                x = found[f"hidden {k + 1}"] = hidden(z)
        z = z[:, 0] if single else z
        if last != "identity":
            found["logits"] = z
        found[OUTPUT] = ACTIVATIONS[last](z)
        return found

    return apply, params
