"""Which pairs of sites does an action couple? Answered from a few Hessian-vector products, using the graph's sparsity."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...errors.streams import stream_rng
from ...lattice.coloring import greedy_colors
from ...lattice.frozen import Lattice
from .report import Violation

__all__ = ["Probe", "find_violations"]

SCALES = (0.3, 1.0, 1.0, 2.0)  # fields at which the Hessian is probed: standard normal times each of these in turn
NUM_FIELDS = (4, 64)  # at least and at most; as many as NUM_NUMBERS allows, since an interaction may hide from some
NUM_NUMBERS = 2**14
NUM_PROBES = 4  # vectors a color: three random ones, and a constant one that adds up weak couplings to many sites
MAX_ROWS = 32  # suspicious rows of the Hessian that are written out in full, per field
MAX_VIOLATIONS = 100


class Probe(NamedTuple):
    violations: tuple[Violation, ...]
    num_products: int
    tolerance: float
    finite: bool


def find_violations(action: Callable, lattice: Lattice, seed: int) -> Probe:
    """Find pairs without an edge whose mixed second derivative does not vanish.

    Sites are colored so that two sites of one color are neither adjacent nor share a neighbor. If the Hessian H has
    the pattern of the graph, (H v)_k for a vector v on one color is then one single entry of H times one entry of v; any
    other dependence on v betrays an entry outside the pattern. Rows in which it shows are written out to name the pair.
    """
    rng = stream_rng(seed, "neighborhoods")
    colors = greedy_colors(*lattice._neighbor_lists, distance=2)
    product = jax.jit(jax.vmap(lambda phi, v: jax.jvp(jax.grad(action), (phi,), (v,))[1], in_axes=(None, 0)))
    value, dtype = jax.jit(action), jnp.result_type(float)
    relative = 1e-5 if dtype == jnp.float32 else 1e-10
    strengths: dict[tuple[int, int], float] = {}
    num_products, tolerance = 0, 0.0
    num_fields = int(np.clip(NUM_NUMBERS // lattice.num_sites, *NUM_FIELDS))
    for scale in np.resize(SCALES, num_fields):
        phi = jnp.asarray(scale * rng.standard_normal(lattice.num_sites), dtype)
        if not np.isfinite(value(phi)):
            return Probe((), num_products, tolerance, False)
        residual, largest, typical, used = _residuals(product, phi, lattice, colors, rng)
        num_products += used
        if not np.all(np.isfinite(residual)):
            return Probe((), num_products, tolerance, False)
        tolerance = max(tolerance, relative * typical)
        # rounding errors of a row grow with its largest entry
        excess = residual / (relative * np.maximum(typical, largest))
        rows = np.argsort(-excess)[:MAX_ROWS]
        rows = rows[excess[rows] > 1]
        num_products += len(rows)
        for row in rows:
            unit = np.zeros((1, lattice.num_sites))
            unit[0, row] = 1.0
            entries = np.abs(np.asarray(product(phi, jnp.asarray(unit, dtype))[0], float))
            entries[lattice.neighbors(row)] = 0.0
            entries[row] = 0.0
            # a row whose many weak entries only show together is named by its largest entry
            for other in np.flatnonzero((entries > 0) & (entries >= min(relative * typical, entries.max()))):
                pair = (int(min(row, other)), int(max(row, other)))
                strengths[pair] = max(strengths.get(pair, 0.0), float(entries[other]))
    ranked = sorted(strengths.items(), key=lambda item: (-item[1], item[0]))[:MAX_VIOLATIONS]
    named = tuple(Violation(p, s, (lattice.nodes[p[0]], lattice.nodes[p[1]])) for p, s in ranked)
    return Probe(named, num_products, tolerance, True)


def _residuals(product, phi, lattice: Lattice, colors: np.ndarray, rng):
    """How far each row of the Hessian is from the graph's pattern, its largest entry, and the typical size of these."""
    num_sites, num_colors = lattice.num_sites, int(colors.max()) + 1
    batch = max(1, min(64, 2**22 // (num_sites * NUM_PROBES)))
    residual, largest = np.zeros(num_sites), np.zeros(num_sites)
    i, j = lattice.edges[:, 0], lattice.edges[:, 1]
    for start in range(0, num_colors, batch):
        group = range(start, min(start + batch, num_colors))
        vectors = rng.standard_normal((len(group), NUM_PROBES, num_sites))
        vectors[:, -1] = 1.0
        vectors *= colors == np.array(group)[:, None, None]
        padded = np.zeros((batch, NUM_PROBES, num_sites))  # one shape, one compilation
        padded[: len(group)] = vectors
        images = np.asarray(product(phi, jnp.asarray(padded.reshape(-1, num_sites), phi.dtype)), float)
        images = images.reshape(batch, NUM_PROBES, num_sites)
        for number, color in enumerate(group):
            partner = np.full(num_sites, -1)
            own = np.flatnonzero(colors == color)
            partner[own] = own
            partner[j[colors[i] == color]] = i[colors[i] == color]
            partner[i[colors[j] == color]] = j[colors[j] == color]
            v = np.where(partner >= 0, vectors[number][:, partner], 0.0)
            v = np.asarray(v, phi.dtype).astype(float)  # what the action really saw
            norm = np.maximum((v**2).sum(axis=0), 1e-300)
            entry = (images[number] * v).sum(axis=0) / norm
            residual = np.maximum(residual, np.abs(images[number] - entry * v).max(axis=0))
            largest = np.maximum(largest, np.abs(entry))
    typical = float(np.median(largest)) or float(largest.max()) or float(residual.max()) or 1.0
    return residual, largest, typical, num_colors * NUM_PROBES
