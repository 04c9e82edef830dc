"""Random streams: independent keys, generators and seeds for the named purposes of one run."""

from __future__ import annotations

import functools
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import jax


def stream_key(seed: int, *names: str | int) -> jax.Array:
    """The random key of one purpose of a run: the seed's key with the names folded in, one after the other.

    Purposes need names. ``seed + 1`` for the second would be the first of the next seed, so that a repeat with another seed
    would not be independent.

    Examples
    --------
    >>> from phi4ppl.errors.streams import stream_key
    >>> bool((stream_key(0, "pool") == stream_key(1, "mode search")).all())
    False
    """
    import jax

    return functools.reduce(jax.random.fold_in, _numbers(names), jax.random.key(seed))


def stream_rng(seed: int, *names: str | int) -> np.random.Generator:
    """The NumPy generator of one purpose of a run, as `stream_key`."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=_numbers(names)))


def stream_seed(seed: int, *names: str | int) -> int:
    """The seed of one purpose of a run, for functions that take a seed."""
    return int(np.random.SeedSequence(seed, spawn_key=_numbers(names)).generate_state(1)[0])


def _numbers(names) -> tuple[int, ...]:
    """Numbers of 32 bits; those of texts are the same in every process, which hash() is not."""
    return tuple(zlib.crc32(name.encode()) if isinstance(name, str) else int(name) for name in names)
