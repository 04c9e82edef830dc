"""Random numbers for sweeps over large fields, at half the cost: both words that Threefry makes of a counter are used.

`jax.random` throws one of the two away, so that its numbers do not depend on how an array is spread over devices; the numbers
here are made for one chain at a time, whose field is whole.
"""

from __future__ import annotations

import math

import jax
import jax.extend.random
import jax.numpy as jnp

__all__ = ["normal", "random_bits", "spare_uniform", "uniform"]


def random_bits(key, shape):
    """Independent 32-bit words, of Threefry-2x32 (J. K. Salmon et al., SC11) if the key is one of its."""
    data, number = jax.random.key_data(key), math.prod(shape)
    if data.shape != (2,) or number % 2:
        return jax.random.bits(key, shape)
    return jax.extend.random.threefry_2x32(data, jnp.arange(number, dtype=jnp.uint32)).reshape(shape)


def uniform(bits, dtype=jnp.float32):
    """Numbers in [0, 1), multiples of 2⁻²⁴, from the upper 24 of 32 bits."""
    return (bits >> 8).astype(dtype) * 2.0**-24


def spare_uniform(bits, dtype=jnp.float32):
    """256 evenly spaced numbers in [0, 1] from the lower 8 bits, which `uniform` and `normal` leave unused."""
    return (bits & 255).astype(dtype) / 255


def normal(bits, dtype=jnp.float32):
    """Standard normal numbers from the upper 23 of 32 bits."""
    centred = ((bits >> 9).astype(dtype) + 0.5) * 2.0**-22 - 1
    return math.sqrt(2) * jax.lax.erf_inv(centred)
