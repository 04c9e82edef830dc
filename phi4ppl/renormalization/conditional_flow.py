"""A lift with a density: the details of every block, one after the other, Gaussian given the coarse field around it.

In an orthonormal basis of a block with the constant in front, φ = (φ'/s, d_1, …, d_{2^d−1}), d_k is normal with a mean and a
width that small networks make of the coarse field on the 3^d blocks around and of d_1 … d_{k−1}: an autoregressive affine flow
of independent blocks. Means are odd and widths even under a change of all signs.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._typing import ArrayLike
from ..errors.arguments import call_checked, positive_int, seed_within
from ..errors.streams import stream_key, stream_rng
from .lifts import BATCH, Lift, as_pairs, interleaved, scale_of

__all__ = ["ConditionalFlow", "train_conditional_flow"]

HIDDEN = 24
RATE = 0.01


@call_checked
@dataclass(frozen=True, eq=False)
class ConditionalFlow(Lift):
    """The flow of the module; blocks of its fields have the mean φ'/s exactly."""

    parameters: Any
    eta: float = 0.25
    name = "conditional_flow"
    has_density = True

    def __call__(self, key, coarse):
        dimension = coarse.ndim - 1
        around, basis = _around(coarse), _basis(dimension)
        noise = jax.random.normal(key, (len(self.parameters), *coarse.shape), coarse.dtype)
        details: list = []
        for own, white in zip(self.parameters, noise, strict=True):
            mean, log_width = _network(own, jnp.stack([*around, *details], axis=-1))
            details.append(mean + jnp.exp(log_width) * white)
        first = coarse / scale_of(self.eta, dimension) * 2 ** (dimension / 2)
        corners = jnp.tensordot(jnp.asarray(basis.T, coarse.dtype), jnp.stack([first, *details]), axes=1)
        return interleaved(dict(zip(itertools.product((0, 1), repeat=dimension), corners, strict=True)), dimension)

    def log_density_of_blocks(self, fine, coarse):
        """log q of the details of every block, shape of the coarse fields; ``fine`` has block means φ'/s."""
        return _log_density(self.parameters, fine, coarse)

    def log_density(self, fine, coarse):
        """log q(φ | φ') of every field."""
        found = self.log_density_of_blocks(fine, coarse)
        return found.reshape(len(found), -1).sum(axis=1)


@call_checked
def train_conditional_flow(
    coarse: ArrayLike, fine: ArrayLike, *, eta: float = 0.25, steps: int = 600, seed: int = 0
) -> ConditionalFlow:
    """The flow of maximum likelihood on pairs (blocked by averages, original), by Adam with 64 pairs a step."""
    import optax

    coarse, fine = as_pairs(coarse, fine)
    steps, dimension = positive_int("steps", steps), coarse.ndim - 1
    rng, key = stream_rng(seed_within(seed), "pairs"), stream_key(seed, "flow")
    coarse, fine = jnp.asarray(coarse, float), jnp.asarray(fine, float)
    parameters = []
    for k in range(2**dimension - 1):
        inputs, own = 3**dimension + k, jax.random.split(jax.random.fold_in(key, k), 2)
        hidden = jax.random.normal(own[0], (inputs + 1, HIDDEN)) / np.sqrt(inputs + 1)
        parameters.append((hidden, jax.random.normal(own[1], (HIDDEN + 1, 2)) * 0.01, jnp.zeros(inputs)))
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, steps))

    @jax.jit
    def step(parameters, state, rows):
        slope = jax.grad(lambda p: -jnp.mean(_log_density(p, fine[rows], coarse[rows])))(parameters)
        updates, state = optimizer.update(slope, state)
        return optax.apply_updates(parameters, updates), state

    state = optimizer.init(parameters)
    for _ in range(steps):
        rows = jnp.asarray(rng.integers(0, len(coarse), min(BATCH, len(coarse))))
        parameters, state = step(parameters, state, rows)
    return ConditionalFlow(parameters, eta)


def _log_density(parameters, fine, coarse):
    dimension = coarse.ndim - 1
    corners = [
        fine[(slice(None), *(slice(k, None, 2) for k in corner))]
        for corner in itertools.product((0, 1), repeat=dimension)
    ]
    details = jnp.tensordot(jnp.asarray(_basis(dimension)[1:], fine.dtype), jnp.stack(corners), axes=1)
    around, total = _around(coarse), jnp.zeros_like(coarse)
    for k, own in enumerate(parameters):
        mean, log_width = _network(own, jnp.stack([*around, *details[:k]], axis=-1))
        total = total - 0.5 * ((details[k] - mean) * jnp.exp(-log_width)) ** 2 - log_width
    return total


def _network(own, inputs):
    """Mean and log width; a linear part, and one hidden layer at the inputs and at their negatives."""
    hidden, out, linear = own

    def layer(x):
        ones = jnp.ones_like(x[..., :1])
        inside = jnp.tanh(jnp.concatenate([x, ones], axis=-1) @ hidden)
        return jnp.concatenate([inside, ones], axis=-1) @ out

    there, back = layer(inputs), layer(-inputs)
    return inputs @ linear + there[..., 0] - back[..., 0], there[..., 1] + back[..., 1]


def _around(coarse) -> list:
    """The coarse field at the 3^d blocks around every block."""
    axes = tuple(range(1, coarse.ndim))
    return [jnp.roll(coarse, [-k for k in step], axes) for step in itertools.product((-1, 0, 1), repeat=len(axes))]


@functools.lru_cache(maxsize=4)
def _basis(dimension: int) -> np.ndarray:
    """Orthonormal functions on the corners of a block (rows), products of signs; the first is constant."""
    signs = np.array([[1.0, 1.0], [1.0, -1.0]]) / np.sqrt(2)
    found = np.ones((1, 1))
    for _ in range(dimension):
        found = np.kron(found, signs)
    return found
