"""Densities of one site given the rest, p(x | rest) ∝ exp(−Σ_k θ_k t_k(x)): normalisers, means and covariances of the t_k.

t_k(x) is the sum of T_c over the cliques c of a slot (site, coupling k), with the field x at the site and the data elsewhere.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..energy import onesite as quartic
from .local import CHUNK, LocalStructure

__all__ = ["Conditional", "Grid", "Powers", "conditional_of"]

BLOCK = 1 << 16  # densities worked on at once
POWERS = 1, 2, 4  # of the densities that `phi4ppl.quartic` knows

START_NODES, MAX_NODES = 192, 3072
MAX_AT_ENDS = 1e-7  # of the height of a density
MAX_DIFFERENCE = 1e-4  # of log z between all nodes and every second one


class Conditional(NamedTuple):
    """By slot or site and sample.

    ``observed`` and ``mean`` are t_k at the data and its expectation, shape ``(num_slots, num_samples)``; ``log_normalizer``
    has shape ``(num_sites, num_samples)``; ``covariance`` are blocks of Σ over samples, see `LocalStructure.products`.
    """

    observed: np.ndarray
    mean: np.ndarray
    log_normalizer: np.ndarray
    covariance: list[np.ndarray]


def conditional_of(structure: LocalStructure, data) -> Powers | Grid:
    """The densities of single sites, by the quickest way there is."""
    known = all(form.is_hopping or form.power in POWERS for form in structure.terms)
    return Powers(structure) if known else Grid(structure, data)


class Powers:
    """Of hopping terms and powers up to the fourth, t_k = c_k x^p: the density exp(−(lx + qx² + kx⁴)).

    `phi4ppl.quartic` knows it, in the precision of JAX.
    """

    def __init__(self, structure: LocalStructure):
        self.structure = structure
        power = {}
        for form in structure.terms:
            part = structure.vector.slices[form.name]
            power |= dict.fromkeys(range(part.start, part.stop), form.power or 1)
        self.power = np.array([power[k] for k in structure.coupling])
        self.chunk = max(1, CHUNK // structure.num_slots)

    def forget(self) -> None:
        """Nothing is remembered."""

    def refined(self) -> bool:
        """Never: the nodes follow the densities."""
        return False

    def log_normalizer(self, fields, theta) -> np.ndarray:
        """That of a `Conditional` alone, in a fiftieth of the time."""
        linear, quadratic, fourth = self._couplings(*self._factors(fields), theta)[1]
        if _no_density(quadratic, fourth):
            return np.full_like(linear, np.inf)
        return _in_blocks(_log_normalizer, linear, quadratic, fourth)[0]

    def _factors(self, fields) -> tuple[np.ndarray, np.ndarray]:
        """The fields, sites first, and c_k by slot and sample."""
        structure, columns = self.structure, np.ascontiguousarray(fields.T)
        found = []
        for form in structure.terms:
            for position in range(form.cliques.shape[1]):
                other = form.cliques[:, 1 - position] if form.is_hopping else None
                found.append(np.ones((len(form.cliques), len(fields))) if other is None else -columns[other])
        return columns, structure.by_slot(np.concatenate(found))

    def _couplings(self, columns, factor, theta):
        """t_k at the data, and l, q and k of every site and sample."""
        structure = self.structure
        observed = factor * columns[structure.site] ** self.power[:, None]
        weighted = factor * theta[structure.coupling, None]
        return observed, [structure.on_sites(weighted * (self.power == p)[:, None]) for p in POWERS]

    def __call__(self, fields, theta) -> Conditional:
        structure, (columns, factor) = self.structure, self._factors(fields)
        observed, (linear, quadratic, fourth) = self._couplings(columns, factor, theta)
        if _no_density(quadratic, fourth):
            zero = np.zeros_like(factor)
            return Conditional(zero, zero, np.full_like(linear, np.inf), structure.products(zero))
        log_normalizer, means, covariances = _in_blocks(_moments, linear, quadratic, fourth)
        place = np.searchsorted(POWERS, self.power)
        mean = factor * means[place, structure.site]
        blocks = []
        for slots in structure.slot_groups():
            here = place[slots]
            spread = covariances[here[:, :, None], here[:, None, :], structure.site[slots[:, :1]][:, :, None]]
            blocks.append(np.einsum("sqn,srn,sqrn->sqr", factor[slots], factor[slots], spread, optimize=True))
        return Conditional(observed, mean, log_normalizer, blocks)


def _no_density(quadratic, fourth) -> bool:
    return bool((fourth < 0).any() or ((fourth == 0) & (quadratic <= 0)).any())


def _in_blocks(function, linear, quadratic, fourth):
    """The results of ``function``, each with leading axes of its own and the shape of the couplings."""
    shape, size = linear.shape, linear.size
    flat = np.stack([value.ravel() for value in (linear, quadratic, fourth)])
    block = min(BLOCK, 1 << (size - 1).bit_length())
    padded = np.concatenate([flat, np.ones((3, -size % block))], axis=1)  # one program for all pieces
    pieces = [function(*jnp.asarray(padded[:, k : k + block])) for k in range(0, size, block)]
    parts = (np.concatenate([np.asarray(p, float) for p in part], axis=-1) for part in zip(*pieces, strict=True))
    return [part[..., :size].reshape(*part.shape[:-1], *shape) for part in parts]


@jax.jit
def _log_normalizer(linear, quadratic, fourth):
    return (quartic.log_normalizer(linear, quadratic, fourth),)


@jax.jit
def _moments(linear, quadratic, fourth):
    """log z, the means of x, x² and x⁴, ``(3, *shape)``, and their covariances, ``(3, 3, *shape)``."""

    def means(*couplings):
        return jnp.stack(quartic.moments(*couplings))

    couplings = (linear, quadratic, fourth)
    covariances = []
    for k in range(3):
        tangents = tuple(jnp.ones_like(c) if j == k else jnp.zeros_like(c) for j, c in enumerate(couplings))
        value, slope = jax.jvp(means, couplings, tangents)
        covariances.append(-slope)
    return quartic.log_normalizer(*couplings), value, jnp.stack(covariances)


class Grid:
    """Quadrature by the trapezoidal rule on equidistant nodes, for any statistics; around the data of every site.

    The nodes of a site reach beyond its data on both sides, by ``margin`` times their spread.
    """

    def __init__(self, structure: LocalStructure, data):
        self.structure, self.num_nodes, self.margin = structure, START_NODES, 1.0
        low, high = data.min(axis=0), data.max(axis=0)
        # few samples say little about their range
        self.middle, self.spread = (low + high) / 2, np.maximum(high - low, 4 * data.std(axis=0).mean())
        self.at_ends, self.difference = 0.0, 0.0

    @property
    def chunk(self) -> int:
        """Samples worked on at once."""
        return max(1, 4 * CHUNK // (self.structure.num_slots * self.num_nodes))

    def refined(self) -> bool:
        """Make the grid wider or finer if the densities of the last pass ask for it; False if it was good enough."""
        wide, fine = self.at_ends > MAX_AT_ENDS, self.difference > MAX_DIFFERENCE
        if not (wide or fine) or self.num_nodes >= MAX_NODES:
            return False
        self.margin = 2 * self.margin + 0.5 if wide else self.margin
        self.num_nodes *= 2
        return True

    def forget(self) -> None:
        """Begin a new pass over the data, in which the worst of the densities is noted."""
        self.at_ends, self.difference = 0.0, 0.0

    def log_normalizer(self, fields, theta) -> np.ndarray:
        """That of a `Conditional` alone."""
        return self(fields, theta).log_normalizer

    def __call__(self, fields, theta) -> Conditional:
        structure, shape = self.structure, (len(fields), self.num_nodes)
        half = (0.5 + self.margin) * self.spread
        nodes = self.middle[:, None] + half[:, None] * np.linspace(-1, 1, self.num_nodes)
        values, observed = self._statistics(np.ascontiguousarray(fields.T), nodes)
        weighted = values * theta[structure.coupling, None]
        log_density = -structure.on_sites(weighted).reshape(-1, *shape)
        top = log_density.max(axis=2, keepdims=True)
        density = np.exp(log_density - top)
        step = 2 * half / (self.num_nodes - 1)
        total = density.sum(axis=2, keepdims=True)
        log_normalizer = (top + np.log(total))[:, :, 0] + np.log(step)[:, None]
        self.at_ends = max(self.at_ends, float(density[:, :, [0, -1]].max()))
        coarse = 2 * density[:, :, ::2].sum(axis=2) / total[:, :, 0]
        self.difference = max(self.difference, float(np.abs(np.log(np.maximum(coarse, 1e-300))).max()))
        density /= total
        values = values.reshape(-1, *shape)
        mean = np.einsum("lng,lng->ln", values, density[structure.site])
        return Conditional(observed, mean, log_normalizer, self._covariance(values, mean, density))

    def _statistics(self, columns, nodes):
        """t of every slot at the nodes, ``(num_slots, samples · nodes)``, and at the data."""
        at_nodes, at_data = [], []
        for form in self.structure.terms:
            inside = [jnp.asarray(columns[column]) for column in form.cliques.T]
            for position in range(form.cliques.shape[1]):
                trial = jnp.asarray(nodes[form.cliques[:, position]])
                found = np.asarray(_at_nodes(form.statistic, position)(trial, *inside), float)
                at_nodes.append(found.reshape(len(found), -1))
                at_data.append(np.asarray(_at_data(form.statistic)(*inside), float))
        return self.structure.by_slot(np.concatenate(at_nodes)), self.structure.by_slot(np.concatenate(at_data))

    def _covariance(self, values, mean, density) -> list[np.ndarray]:
        blocks = []
        for slots in self.structure.slot_groups():
            away = values[slots] - mean[slots][..., None]
            away = away.reshape(*slots.shape, -1)
            weight = density[self.structure.site[slots[:, 0]]].reshape(len(slots), 1, -1)
            blocks.append((away * weight) @ away.transpose(0, 2, 1))
        return blocks


@functools.lru_cache(maxsize=64)
def _at_nodes(statistic, position: int):
    """``(trial (C, G), *fields (C, n)) -> (C, n, G)``: one field of every clique replaced by the nodes of its site."""

    def of_one(node, *fields):
        return statistic(*fields[:position], node, *fields[position + 1 :])

    def of_clique(trial, *fields):
        return jax.vmap(lambda *f: jax.vmap(lambda node: of_one(node, *f))(trial))(*fields)

    return jax.jit(jax.vmap(of_clique))


@functools.lru_cache(maxsize=64)
def _at_data(statistic):
    return jax.jit(jax.vmap(jax.vmap(statistic)))
