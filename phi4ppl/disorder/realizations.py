"""What each realisation of the couplings gives: thermal averages, products of replicas, overlaps; an array entry a realisation.

Two replicas a ≠ b of one realisation are independent, so that ⟨Ō_a Ō_b⟩ = ⟨O⟩² whatever the length of the chains, while the
square of one mean is too large by its thermal variance.
"""

from __future__ import annotations

import hashlib
import itertools
from typing import NamedTuple

import numpy as np
import xarray as xr

from ..analysis.blocks import Blocks, Replicas
from ..analysis.two_point import TWO_POINT, two_point
from ..lattice.frozen import Lattice

__all__ = [
    "Overlaps",
    "PRODUCT",
    "SQUARED",
    "correlations_of",
    "jackknifed",
    "overlaps_of",
    "primaries_of",
    "product_of_pairs",
    "thermal_means",
]

PRODUCT, SQUARED = "_product", "_squared"  # behind the name of O: ⟨O⟩² from pairs of replicas, and ⟨O²⟩
AT_ONCE = 4_000_000  # numbers of fields that are multiplied in one piece


class Overlaps(NamedTuple):
    """Overlaps of all pairs of replicas, shape ``(num_pairs, num_draws, num_realizations)``.

    Attributes
    ----------
    q : array
        (1/V) Σ_i φ_i^a φ_i^b.
    link : array or None
        (1/E) Σ_⟨ij⟩ φ_i^a φ_j^a φ_i^b φ_j^b, of graphs with edges.
    """

    q: np.ndarray
    link: np.ndarray | None


def series_of(tree: xr.DataTree) -> dict[str, np.ndarray]:
    """Observables by name, shape ``(replicas, draws, realisations, …)``; the field is left out."""
    data = tree["posterior"].dataset
    names = [name for name in data.data_vars if name != "phi"]
    return {str(name): data[name].transpose("chain", "draw", "realization", ...).values for name in names}


def thermal_means(tree: xr.DataTree) -> dict[str, np.ndarray]:
    """Ō by name, shape ``(num_realizations, num_replicas, …)``, in double precision."""
    return {n: np.moveaxis(v.mean(axis=1, dtype=float), 1, 0) for n, v in series_of(tree).items()}


def product_of_pairs(means: np.ndarray) -> np.ndarray:
    """The mean of Ō_a Ō_b over pairs a ≠ b; ``means`` has replicas on its second axis."""
    number = means.shape[1]
    return (means.sum(axis=1) ** 2 - (means**2).sum(axis=1)) / (number * (number - 1))


def primaries_of(tree: xr.DataTree, overlaps: Overlaps | None) -> dict[str, np.ndarray]:
    """By name, with one entry a realisation: O, O_product, O_squared; q, abs_q, q2, q4, link_overlap, link_overlap2."""
    found = {}
    for name, values in series_of(tree).items():
        means = np.moveaxis(values.mean(axis=1, dtype=float), 1, 0)
        found[name], found[name + PRODUCT] = means.mean(axis=1), product_of_pairs(means)
        found[name + SQUARED] = np.mean(np.square(values, dtype=float), axis=(0, 1))
    if overlaps is not None:
        for name, power in (("q", 1), ("q2", 2), ("q4", 4)):
            found[name] = (overlaps.q**power).mean(axis=(0, 1))
        found["abs_q"] = np.abs(overlaps.q).mean(axis=(0, 1))
        if overlaps.link is not None:
            found["link_overlap"] = overlaps.link.mean(axis=(0, 1))
            found["link_overlap2"] = (overlaps.link**2).mean(axis=(0, 1))
    return found


def overlaps_of(fields: np.ndarray, lattice: Lattice) -> Overlaps:
    """Overlaps of fields of shape ``(replicas, draws, realisations, *field_shape)``."""
    flat = fields.reshape(*fields.shape[:3], -1)
    pairs = list(itertools.combinations(range(len(flat)), 2))
    step = max(1, AT_ONCE // max(1, flat.shape[2] * max(flat.shape[3], lattice.num_edges)))
    q, link = np.empty((len(pairs), *flat.shape[1:3])), None
    if lattice.num_edges:
        link, (i, j) = np.empty_like(q), lattice.edges.T
    for first in range(0, flat.shape[1], step):
        part = flat[:, first : first + step].astype(float)
        at = slice(first, first + part.shape[1])
        bonds = part[..., i] * part[..., j] if link is not None else None
        for k, (a, b) in enumerate(pairs):
            q[k, at] = np.einsum("drx,drx->dr", part[a], part[b]) / lattice.num_sites
            if link is not None:
                link[k, at] = np.einsum("drx,drx->dr", bonds[a], bonds[b]) / lattice.num_edges
    return Overlaps(q, link)


def correlations_of(fields: np.ndarray, lattice: Lattice, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Connected and disconnected parts of the two-point function ``name`` of every realisation, ``(realisations, …)``.

    A two-point function C is quadratic in the field, so that its part between two replicas follows from it by polarization:
    C(φ^a, φ^b) = C((φ^a + φ^b)/2) − C((φ^a − φ^b)/2), whose mean is disconnected; C((φ^a − φ^b)/√2) has the connected mean.
    """
    import jax

    measure = jax.jit(jax.vmap(two_point(name, lattice).measure))
    connected, disconnected = [], []
    for k in range(fields.shape[2]):
        sums = [0.0, 0.0]
        pairs = list(itertools.combinations(range(len(fields)), 2))
        for a, b in pairs:
            one, other = fields[a, :, k].astype(float), fields[b, :, k].astype(float)
            apart = np.asarray(measure((one - other) / 2), float).mean(axis=0)
            together = np.asarray(measure((one + other) / 2), float).mean(axis=0)
            sums = [sums[0] + 2 * apart, sums[1] + together - apart]
        connected.append(sums[0] / len(pairs))
        disconnected.append(sums[1] / len(pairs))
    return np.stack(connected), np.stack(disconnected)


def jackknifed(primaries: dict[str, np.ndarray], reliable: bool = True) -> Replicas:
    """Means over realisations with those without one realisation each, for `phi4ppl.analysis.derive`.

    Realisations are independent, and each one's number has its thermal noise in it: so has their spread.
    """
    number = len(next(iter(primaries.values())))
    means = {name: values.mean(axis=0) for name, values in primaries.items()}
    without = {name: (number * means[name] - values) / (number - 1) for name, values in primaries.items()}
    digest = hashlib.blake2b(digest_size=16)
    for values in primaries.values():
        digest.update(np.ascontiguousarray(values).tobytes())
    return Replicas(means, ((Blocks(np.arange(number), 1.0, 0.5), without),), reliable, digest.hexdigest())


CORRELATIONS = tuple(name for name in TWO_POINT if not name.startswith("improved"))
