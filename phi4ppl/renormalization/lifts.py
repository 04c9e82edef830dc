"""Lifts: proposals for a field of twice the size given a coarse one. They are approximations; `correction` makes them exact.

With s = 2^{(d−2+η)/2} a coarse field is compared with s times the block means of the fine one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from .._typing import ArrayLike
from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, positive_int, seed_within
from ..errors.streams import stream_rng

__all__ = [
    "Bicubic",
    "Copy",
    "FunctionLift",
    "Lift",
    "TransposedConvolution",
    "block_means",
    "interleaved",
    "scale_of",
    "train_transposed_convolution",
]

BATCH = 64  # pairs a step of training
RATE = 0.02


def scale_of(eta: float, dimension: int) -> float:
    """s = 2^{(d−2+η)/2}, by which block means are multiplied."""
    return 2.0 ** ((dimension - 2 + eta) / 2)


def interleaved(parts, dimension: int):
    """Fields ``(n, 2X, 2Y, …)`` of their 2^d sublattices, ``parts[corner]`` of shape ``(n, X, Y, …)``."""
    corners = list(itertools.product((0, 1), repeat=dimension))
    stacked = jnp.stack([parts[corner] for corner in corners], axis=-1)
    n, *shape = stacked.shape[:-1]
    split = stacked.reshape(n, *shape, *(2,) * dimension)
    order = [0, *itertools.chain(*((1 + k, 1 + dimension + k) for k in range(dimension)))]
    return split.transpose(order).reshape(n, *(2 * side for side in shape))


@dataclass(frozen=True)
class Lift:
    """What all lifts have.

    Attributes
    ----------
    name : str
    has_density : bool
        Whether ``log_density(fine, coarse)`` is known, up to a constant.
    """

    name = "lift"
    has_density = False

    def __call__(self, key: jax.Array, coarse: jax.Array) -> jax.Array:
        """Fine fields ``(n, 2X, 2Y, …)`` of coarse ones ``(n, X, Y, …)``."""
        raise NotImplementedError


@call_checked
@dataclass(frozen=True)
class Copy(Lift):
    """φ = φ'/s on the whole block: the baseline that a learned lift has to beat. It is not random.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, phi4ppl as p4
    >>> lift = p4.renormalization.Copy(eta=0.25)
    >>> lift(jax.random.key(0), jnp.ones((1, 2, 2))).round(4).tolist()[0][0]  # 2^(−1/8)
    [0.917, 0.917, 0.917, 0.917]
    """

    eta: float = 0.25
    name = "copy"

    def __call__(self, key, coarse):
        fine = coarse / scale_of(self.eta, coarse.ndim - 1)
        for axis in range(1, coarse.ndim):
            fine = jnp.repeat(fine, 2, axis)
        return fine


@call_checked
@dataclass(frozen=True)
class Bicubic(Lift):
    """φ by cubic interpolation of φ'/s along every axis (R. Keys, 1981; open boundaries): the baseline for images.

    Parameters
    ----------
    eta : float
    rounds : int, default 0
        How often what the block means lack, φ'/s − φ̄, is interpolated and added: block means become those that were given.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, phi4ppl as p4
    >>> ramp = jnp.broadcast_to(2.0 * jnp.arange(6) + 0.5, (1, 6, 6))  # the block means of 0, 1, 2, …
    >>> fine = p4.renormalization.Bicubic(eta=0.0)(jax.random.key(0), ramp)
    >>> [round(value, 3) for value in fine[0, 0, 4:8].tolist()]
    [4.0, 5.0, 6.0, 7.0]
    """

    eta: float = 0.25
    rounds: int = 0
    name = "bicubic"

    def __call__(self, key, coarse):
        means = coarse / scale_of(self.eta, coarse.ndim - 1)
        fine = _cubic(means)
        for _ in range(self.rounds):
            fine = fine + _cubic(means - block_means(fine))
        return fine


def _cubic(coarse):
    return jax.image.resize(coarse, (len(coarse), *(2 * n for n in coarse.shape[1:])), "cubic")


def block_means(fine):
    """Means of blocks of 2^d sites: ``(n, 2X, 2Y, …)`` → ``(n, X, Y, …)``."""
    split = fine.reshape(len(fine), *itertools.chain(*((n // 2, 2) for n in fine.shape[1:])))
    return split.mean(axis=tuple(range(2, split.ndim, 2)))


@call_checked
@dataclass(frozen=True)
class FunctionLift(Lift):
    """Any JAX function ``function(key, coarse) -> fine`` of one field, with or without ``log_density_of(fine, coarse)``."""

    function: Callable = field(default=lambda key, coarse: coarse)
    log_density_of: Callable | None = None
    name = "function"

    @property
    def has_density(self) -> bool:  # type: ignore[override]
        return self.log_density_of is not None

    def __call__(self, key, coarse):
        wanted = tuple(2 * side for side in coarse.shape[1:])
        fine = jax.vmap(self.function)(jax.random.split(key, len(coarse)), coarse)
        if getattr(fine, "shape", None) != (len(coarse), *wanted):
            got = f"shape {getattr(fine, 'shape', (None,))[1:]}"
            raise ArgumentError("lift", f"a function that returns one field of shape {wanted}", got, reason="returns")
        return fine

    def log_density(self, fine, coarse):
        """log q(φ | φ') of every field."""
        return jax.vmap(self.log_density_of)(fine, coarse)


@call_checked
@dataclass(frozen=True, eq=False)
class TransposedConvolution(Lift):
    """φ at corner c of block x is Σ_δ W[c, δ] φ'(x + δ), δ ∈ {−1, 0, 1}^d: a transposed convolution of stride 2.

    The published construction (D. Bachtis, G. Aarts, F. Di Renzo and B. Lucini, Phys. Rev. Lett. 128 (2022) 081603). It has no
    noise, so that what blocking forgets is missing in its fields.

    Attributes
    ----------
    weights : array, shape ``(2,)*d + (3,)*d``
    """

    weights: np.ndarray
    name = "transposed_convolution"

    def __call__(self, key, coarse):
        return _transposed(jnp.asarray(self.weights, coarse.dtype), coarse)


def _transposed(weights, coarse):
    dimension = coarse.ndim - 1
    axes = tuple(range(1, coarse.ndim))
    shifts = list(itertools.product((-1, 0, 1), repeat=dimension))
    moved = [jnp.roll(coarse, [-k for k in shift], axes) for shift in shifts]
    parts = {}
    for corner in itertools.product((0, 1), repeat=dimension):
        parts[corner] = sum(
            weights[(*corner, *(k + 1 for k in shift))] * x for shift, x in zip(shifts, moved, strict=True)
        )
    return interleaved(parts, dimension)


def as_pairs(coarse: ArrayLike, fine: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Pairs for training, ``(n, X, Y, …)`` and ``(n, 2X, 2Y, …)``."""
    coarse, fine = finite_array("coarse", coarse), finite_array("fine", fine)
    if coarse.ndim < 2 or fine.shape != (len(coarse), *(2 * side for side in coarse.shape[1:])):
        expected = f"shape (n, 2X, 2Y, …) beside coarse fields of shape {coarse.shape}"
        raise ArgumentError("fine", expected, f"shape {fine.shape}", reason="shape")
    return coarse, fine


@call_checked
def train_transposed_convolution(
    coarse: ArrayLike, fine: ArrayLike, *, steps: int = 400, seed: int = 0
) -> TransposedConvolution:
    """The transposed convolution of least squared error on pairs (blocked, original), by Adam.

    Parameters
    ----------
    coarse, fine : arrays, shape ``(n, X, Y, …)`` and ``(n, 2X, 2Y, …)``
    steps : int
        Each with 64 pairs.
    seed : int

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> coarse = np.random.default_rng(0).normal(size=(64, 4, 4))
    >>> lift = p4.renormalization.train_transposed_convolution(coarse, np.repeat(np.repeat(coarse, 2, 1), 2, 2), steps=200)
    >>> lift.weights.shape, bool(np.allclose(lift.weights[:, :, 1, 1], 1, atol=0.01))  # copies
    ((2, 2, 3, 3), True)
    """
    import optax

    coarse, fine = as_pairs(coarse, fine)
    steps, dimension = positive_int("steps", steps), coarse.ndim - 1
    rng, coarse, fine = stream_rng(seed_within(seed), "pairs"), jnp.asarray(coarse, float), jnp.asarray(fine, float)
    weights = jnp.zeros((*(2,) * dimension, *(3,) * dimension)).at[(..., *(1,) * dimension)].set(1.0)
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, steps))

    @jax.jit
    def step(weights, state, rows):
        def loss(weights):
            return jnp.mean((_transposed(weights, coarse[rows]) - fine[rows]) ** 2)

        updates, state = optimizer.update(jax.grad(loss)(weights), state)
        return optax.apply_updates(weights, updates), state

    state = optimizer.init(weights)
    for _ in range(steps):
        weights, state = step(weights, state, jnp.asarray(rng.integers(0, len(coarse), min(BATCH, len(coarse)))))
    return TransposedConvolution(np.asarray(weights))
