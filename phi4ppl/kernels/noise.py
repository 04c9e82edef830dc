"""Random numbers for sweeps over large fields, at a third of the cost.

Both words that Threefry makes of a counter are used: `jax.random` throws one away, so that its numbers do not depend on how an
array is spread over devices, but the numbers here are made for one chain at a time, whose field is whole. And the twenty rounds
are written out, so that the compiler makes them where they are used; JAX's primitive is a loop over whole arrays on the CPU.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from .._typing import Drawn, Words

__all__ = ["finished", "normal", "random_words", "spare_uniform", "uniform"]

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def random_words(key: jax.Array, count: int, shape: tuple[int, ...]) -> list[Words]:
    """``count`` arrays of independent 32-bit words, of Threefry-2x32 if the key is one of its."""
    data = jax.random.key_data(key)
    if data.shape != (2,):
        return list(jax.random.bits(key, (count, *shape), jnp.uint32))  # by default 64 bits in double precision
    number = math.prod(shape)
    words: list[jax.Array] = []
    site = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = jnp.uint32(math.prod(shape[axis + 1 :]))
        site += stride * jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    for pair in range((count + 1) // 2):
        words += threefry(data, site + jnp.uint32(2 * pair * number), site + jnp.uint32((2 * pair + 1) * number))
    return words[:count]


def threefry(key: jax.Array, first: Words, second: Words) -> tuple[Words, Words]:
    """Threefry-2x32 with twenty rounds, of two arrays of counters (J. K. Salmon et al., SC11)."""
    keys = key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(PARITY)
    first, second = first + keys[0], second + keys[1]
    for group in range(5):
        for turn in ROTATIONS[group % 2]:
            first = first + second
            second = first ^ ((second << turn) | (second >> (32 - turn)))
        first = first + keys[(group + 1) % 3]
        second = second + keys[(group + 2) % 3] + jnp.uint32(group + 1)
    return first, second


def finished(numbers: jax.Array) -> jax.Array:
    """The same numbers, but XLA computes them before they are used; on the CPU it would otherwise recompute them for every use.

    No pass of the compiler looks through two rounds of a loop; they cost less than a tenth of a nanosecond per number.
    """
    kind = jnp.dtype(f"uint{8 * numbers.dtype.itemsize}")
    bits = jax.lax.bitcast_convert_type(numbers, kind)
    bits = jax.lax.fori_loop(0, 2, lambda k, now: now ^ (k >> 1).astype(kind), bits)
    return jax.lax.bitcast_convert_type(bits, numbers.dtype)


def uniform(bits: Words, dtype=jnp.float32) -> Drawn:
    """Numbers in [0, 1), multiples of 2⁻²⁴, from the upper 24 of 32 bits."""
    return (bits >> 8).astype(dtype) * 2.0**-24


def spare_uniform(bits: Words, dtype=jnp.float32) -> Drawn:
    """256 evenly spaced numbers in [0, 1] from the lower 8 bits, which `uniform` leaves unused."""
    return (bits & 255).astype(dtype) / 255


def normal(first: Words, second: Words, dtype=jnp.float32) -> Drawn:
    """Standard normal numbers √(−2 ln u) sin x from the upper 24 bits of two words: 0 < u ≤ 1, −π/2 < x < π/2.

    Half of the method of G. E. P. Box and M. E. Muller, Ann. Math. Stat. 29 (1958) 610, at a third of the cost of the inverse
    error function. The series of the sine is exact to 1e-9.
    """
    u, v = ((bits >> 8).astype(dtype) * 2.0**-24 + 2.0**-25 for bits in (first, second))
    x = math.pi * (v - 0.5)
    series = jnp.zeros_like(x)
    for k in range(6, -1, -1):
        series = series * (x * x) + (-1) ** k / math.factorial(2 * k + 1)
    return jnp.sqrt(-2 * jnp.log(u)) * x * series
