"""One cluster of a square lattice, found 32 sites at a time: rows of sites are words of bits, which bonds fill by shifts.

A field of R × C sites is cut into blocks that fit into words. *Across*, a word is a row of a block and its bits are columns;
*down*, a word is a column and its bits are rows. Along its words a set of sites spreads through all bonds in log₂ 32 steps.
Then the blocks are transposed, and it spreads along the other axis, until nothing changes.

Source of spreading by doubled steps: P. M. Kogge and H. S. Stone, IEEE Trans. Comput. C-22 (1973) 786.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..lattice.frozen import Lattice
from .noise import finished

__all__ = ["Blocks", "blocks_of", "large_cluster"]

LONGEST, SHORTEST = 32, 8  # bits of a word; in shorter ones it does not pay
TRIES = 6
MAX_BLOCKS = 4  # along an axis: a cluster enters the next block once a round; beyond, labels cost less
ACROSS, DOWN = 2, 1  # axes of arrays of words: (num_fields, blocks down, blocks across, words of a block)


class Blocks(NamedTuple):
    """Rows and columns of a block."""

    rows: int
    columns: int


def blocks_of(lattice: Lattice, offsets) -> Blocks | None:
    """Blocks for a square lattice with bonds between nearest neighbours only; None for any other."""
    if set(offsets) != {(0, 1), (1, 0)}:
        return None
    lengths = [next((k for k in range(LONGEST, SHORTEST - 1, -1) if n % k == 0), n) for n in lattice.shape]
    fitting = all(k <= LONGEST and n <= MAX_BLOCKS * k for n, k in zip(lattice.shape, lengths, strict=True))
    return Blocks(*lengths) if fitting and min(lengths) >= SHORTEST else None


def large_cluster(blocks: Blocks, across, down, chosen, anywhere, enough):
    """One cluster of each of several fields: a mask of shape ``(num_fields, R, C)``, and its number of sites.

    The cluster of a site with four bonds, of which large clusters have most. If that has not ``enough`` sites (at least one),
    the cluster of another one, up to ``TRIES`` times. ``across``, ``down``: the bonds to the next site of the row and of the
    column, in the shape of the mask, all bits or none; ``chosen``: two random words a field, which choose the site;
    ``anywhere``: whether among all sites.
    """
    across = _transposed(_packed(blocks, across), blocks.rows)
    down = _packed(blocks, down)
    upright = _transposed(down & _behind(down, blocks.rows, DOWN), blocks.rows)
    crossings = across & _behind(across, blocks.columns, ACROSS) & upright
    crossings = jnp.where(_by_field(anywhere), _all_bits(blocks.columns), crossings)

    def spread(carry):
        words, _ = carry
        wide = _transposed(_filled(words, across, blocks.columns, ACROSS), blocks.columns)
        new = _transposed(_filled(wide, down, blocks.rows, DOWN), blocks.rows)
        return new, jnp.any(new != words)

    def search(carry):
        best, sizes, seen, tries = carry
        seed = jnp.where(_by_field(sizes < enough), _one_of(crossings & ~seen, blocks.columns, chosen + tries), 0)
        words, _ = jax.lax.while_loop(lambda carry: carry[1], spread, (seed, jnp.array(True)))
        found = jax.lax.population_count(words).astype(jnp.int32).sum(axis=(1, 2, 3))
        better = _by_field(found > sizes)
        return jnp.where(better, words, best), jnp.maximum(found, sizes), seen | words, tries + 1

    def unfinished(carry):
        _, sizes, _, tries = carry
        return jnp.any(sizes < enough) & (tries < TRIES)

    nothing = jnp.zeros_like(across)
    start = nothing, jnp.zeros(len(across), jnp.int32), nothing, jnp.uint32(0)
    words, sizes, *_ = jax.lax.while_loop(unfinished, search, start)
    return _unpacked(blocks, words), sizes


def _by_field(values):
    return values[:, None, None, None]


def _packed(blocks: Blocks, field):
    """Words down the columns of the blocks, from a field of all bits or none."""
    num_fields, rows, columns = field.shape
    lines = field.astype(jnp.uint32).reshape(num_fields, -1, blocks.rows, columns)
    words = _union(lines & _bits(blocks.rows).reshape(1, 1, -1, 1), axis=2)
    return words.reshape(num_fields, rows // blocks.rows, -1, blocks.columns)


def _unpacked(blocks: Blocks, words):
    """A field of truth values from words along the rows of the blocks."""
    bits = words.swapaxes(2, 3)[..., None] & _bits(blocks.columns).reshape(1, 1, 1, 1, -1)
    num_fields, down, rows, across, columns = bits.shape
    return (bits != 0).reshape(num_fields, down * rows, across * columns)


def _transposed(words, length: int):
    """From words of ``length`` bits, ``length`` words: bit k of word i becomes bit i of word k."""
    old, new = _bits(words.shape[-1]).reshape(1, 1, 1, -1, 1), _bits(length).reshape(1, 1, 1, 1, -1)
    return _union(jnp.where(words[..., None] & new != 0, old, jnp.uint32(0)), axis=3)


def _union(words, axis: int):
    """Of words that have no bit in common: as a sum, since XLA knows no union over the devices of a spread lattice on CPUs."""
    return jnp.sum(words, axis, dtype=jnp.uint32)


def _bits(length: int):
    return jnp.uint32(1) << jnp.arange(length, dtype=jnp.uint32)


def _all_bits(length: int):
    return jnp.uint32(2**length - 1)


def _behind(bonds, length: int, axis: int):
    """The bond of every site with the one before it, from the bonds with the next ones."""
    return (bonds << 1 & _all_bits(length)) | _rolled(bonds >> (length - 1), 1, axis)


def _rolled(words, by: int, axis: int):
    if words.shape[axis] == 2:
        return jax.lax.rev(words, (axis,))  # the same, without joining slices
    return jnp.roll(words, by, axis) if words.shape[axis] > 2 else words


def _filled(words, bonds, length: int, axis: int):
    """All sites that bonds along the words lead to, and the first ones in the blocks on either side."""
    end = bonds >> (length - 1)  # the bond with the next block
    words |= _rolled(end & words >> (length - 1), 1, axis)
    words |= (end & _rolled(words, -1, axis)) << (length - 1)
    ahead = bonds & _all_bits(length - 1)
    behind = ahead << 1
    step = 1
    while step < length:
        words |= (behind & words << step) | (ahead & words >> step)
        behind &= behind << step
        ahead &= ahead >> step
        step *= 2
    return finished(words) if words.shape[axis] > 2 else words


def _one_of(words, length: int, chosen):
    """One of the bits that are set in all words of a field, or any where none is."""
    flat = words.reshape(len(words), -1)
    number = jnp.arange(flat.shape[1], dtype=jnp.uint32)
    some = flat != 0
    nearest = (number[None] - chosen[:, :1]) % flat.shape[1] + jnp.where(some, 0, flat.shape[1]).astype(jnp.uint32)
    flat = jnp.where(some.any(axis=1, keepdims=True), flat, _all_bits(length))
    later = flat & (_all_bits(length) << chosen[:, 1:] % length)
    bits = jnp.where(later != 0, later, flat)
    lowest = bits & (~bits + 1)
    return jnp.where(nearest == nearest.min(axis=1, keepdims=True), lowest, 0).reshape(words.shape)
