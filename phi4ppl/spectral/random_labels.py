"""Random labels: the training curve that the tangent kernel predicts, beside the one that is measured."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import call_checked, positive_int, seed_within
from ..errors.streams import stream_rng
from ..reports.numbers import value_with_error
from .matrices import eigensystem, one_number
from .tangent import Form, network_of, ntk

__all__ = ["RandomLabelTest", "random_label_test"]

ERRORS = 3.0  # of the mean over labels, by which the curves may differ
SHARE = 0.05  # of the first loss that counts as nothing


@dataclass(frozen=True)
class RandomLabelTest:
    """Losses before each step, and after the last: shape ``(steps + 1,)``; ``measured`` and its ``errors`` are over labels.

    ``deviation`` is the largest mean difference of the two curves over the first loss, at step ``worst``, with its error.
    """

    predicted: np.ndarray
    measured: np.ndarray
    errors: np.ndarray
    deviation: float
    deviation_error: float
    worst: int
    step_size: float
    num_labels: int
    diverged: bool

    @property
    def linear(self) -> bool:
        """Whether the network trains as its tangent kernel at the start says."""
        return not self.diverged and abs(self.deviation) <= max(ERRORS * self.deviation_error, SHARE)

    @property
    def fitted_share(self) -> float:
        """1 − (last loss)/(first loss): how much of the random labels the network has learned by heart."""
        return float(1 - self.measured[-1] / self.measured[0])

    def __str__(self) -> str:
        last = value_with_error(self.measured[-1], self.errors[-1])
        verdict = (
            "training diverged: take a smaller step_size"
            if self.diverged
            else "the tangent kernel predicts training here"
            if self.linear
            else "training is NOT that of the tangent kernel: features move"
        )
        return "\n".join([
            f"random labels, {self.num_labels} draws, {len(self.predicted) - 1} steps of {self.step_size:.3g}",
            f"  loss from {self.measured[0]:.3g} to {last}, predicted {self.predicted[-1]:.4g}",
            f"  largest difference, over the first loss: {value_with_error(self.deviation, self.deviation_error)} at step "
            f"{self.worst}",
            f"  {100 * self.fitted_share:.0f} % of the labels learned by heart; {verdict}",
        ])  # fmt: skip


@functools.partial(jax.jit, static_argnums=(0, 6))
def _train(form: Form, parameters, fixed, x, labels, step_size, num_steps):
    """Losses of gradient descent."""

    def loss(moving):
        return 0.5 * jnp.mean(jnp.sum((form(moving, fixed, x) - labels) ** 2, axis=1))

    def step(moving, _):
        value, slope = jax.value_and_grad(loss)(moving)
        return [m - step_size * s for m, s in zip(moving, slope, strict=True)], value

    last, losses = jax.lax.scan(step, parameters, length=num_steps)
    return jnp.append(losses, loss(last))


@call_checked
def random_label_test(
    apply: Callable,
    params,
    x,
    *,
    num_steps: int = 100,
    step_size: float | None = None,
    num_labels: int = 5,
    seed: int = 0,
    memory_limit: int | None = None,
) -> RandomLabelTest:
    """Train on random labels ±1 by gradient descent, and compare the loss with what the tangent kernel predicts.

    Parameters
    ----------
    apply, params, x
        As in `ntk`.
    num_steps : int
        T.
    step_size : float, optional
        η, by default n/λ₁, half of where the linear theory diverges.
    num_labels : int
        Draws of the labels, each trained from ``params``.
    seed : int
    memory_limit : int, optional
        As in `ntk`.

    Returns
    -------
    RandomLabelTest

    Raises
    ------
    ArgumentError
    MemoryLimitError

    Notes
    -----
    The loss is ``(1/2n) Σ |f(x) − y|²``. With λ_i, u_i of the joint tangent kernel and r₀ = f − y at the start, gradient
    descent on the linearized network has the loss (1/2n) Σ_i (1 − ηλ_i/n)^(2t) (u_i·r₀)² after t steps. Modes of small λ_i are
    learned
    late or never, whatever the labels. Source: J. Lee et al., arXiv:1902.06720; random labels: C. Zhang et al.,
    arXiv:1611.03530.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from phi4ppl.spectral.random_labels import random_label_test
    >>> x = jax.random.normal(jax.random.key(0), (20, 5))
    >>> found = random_label_test(lambda w, x: x @ w, jnp.zeros(5), x, num_steps=10)  # linear: the prediction is exact
    >>> found.linear, abs(found.deviation) < 1e-5
    (True, True)
    """
    positive_int("num_steps", num_steps), positive_int("num_labels", num_labels, minimum=2), seed_within(seed)
    network = network_of(apply, params, x)
    values, vectors = eigensystem("ntk", ntk(apply, params, x, outputs="joint", memory_limit=memory_limit))
    number = len(network.x)
    if values[0] == 0:
        raise ArgumentError("params", "parameters on which the outputs depend", "a tangent kernel of 0", reason="zero")
    eta = number / values[0] if step_size is None else one_number("step_size", step_size)
    if eta <= 0:
        raise ArgumentError("step_size", "a positive number", repr(step_size))
    start = np.asarray(network.form(network.parameters, network.fixed, network.x), float)
    rng, curves, predictions = stream_rng(seed, "labels"), [], []
    factors = (1 - eta * values / number) ** (2 * np.arange(num_steps + 1)[:, None])
    form, *rest = network
    for _ in range(num_labels):
        labels = rng.choice([-1.0, 1.0], start.shape)
        residual = vectors.T @ (start - labels).ravel()
        predictions.append(factors @ residual**2 / (2 * number))
        curves.append(np.asarray(_train(form, *rest, jnp.asarray(labels, network.dtype), eta, num_steps), float))
    return _judged(np.array(predictions), np.array(curves), eta)


def _judged(predictions: np.ndarray, curves: np.ndarray, eta: float) -> RandomLabelTest:
    number = len(curves)
    diverged = not np.isfinite(curves).all() or bool((curves[:, -1] > curves[:, 0]).any())
    with np.errstate(invalid="ignore", over="ignore"):
        differences = (curves - predictions) / curves[:, :1]
        mean, error = differences.mean(axis=0), differences.std(axis=0, ddof=1) / np.sqrt(number)
        spread = curves.std(axis=0, ddof=1) / np.sqrt(number)
    worst = int(np.argmax(np.where(np.isfinite(mean), np.abs(mean), np.inf)))
    return RandomLabelTest(
        predictions.mean(axis=0), curves.mean(axis=0), spread, float(mean[worst]), float(error[worst]), worst, eta, number,
        diverged,
    )  # fmt: skip
