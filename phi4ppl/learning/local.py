"""Which couplings act on which site: sums over sites of products of clique-wise derivatives, as sparse matrices.

A *slot* is a pair (site, coupling) where the coupling acts on the site: L of them. Everything that score matching and
pseudo-likelihood need of a model are numbers by slot and sample, ``(num_slots, num_samples)``: features come first, so that
the sums below run over contiguous rows.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from .._typing import FlatFields, PerSite, PerSlot
from ..model.coupling_vector import CouplingVector

__all__ = ["LocalStructure"]

CHUNK = 1 << 22  # numbers in one array by slot and sample


class LocalStructure:
    """The slots of a model, in the order of their sites.

    Attributes
    ----------
    site, coupling : int arrays, shape (num_slots,)
        Site of every slot, and place of its coupling in the vector θ.

    Examples
    --------
    On an open chain of three sites with θ = (w, a, b), every site has three slots. That of site 1 and w belongs to two edges,
    whose derivatives −φ_0 and −φ_2 are added; those of a and b are 2φ_i and 4φ_i³.

    >>> import phi4ppl as p4
    >>> model = p4.phi4(p4.lattice.chain(3, periodic=False), w=1.0, a=1.0, b=0.1)
    >>> structure = LocalStructure(CouplingVector.of(model))
    >>> structure.site.tolist(), structure.coupling.tolist()
    ([0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 1, 2, 0, 1, 2, 0, 1, 2])
    >>> slope, _ = structure.derivatives(np.array([[1.0, 2.0, 4.0]]))
    >>> slope.reshape(3, 3).tolist()  # sites by couplings
    [[-2.0, 2.0, 4.0], [-5.0, 4.0, 32.0], [-2.0, 8.0, 256.0]]
    """

    def __init__(self, vector: CouplingVector):
        self.vector, self.num_sites = vector, vector.template.lattice.num_sites
        self.terms = [term.form for term in vector.template.terms]
        sites, couplings = [], []
        for form in self.terms:
            part = vector.slices[form.name]
            wide = vector.is_inhomogeneous(form.name)
            number = np.arange(part.start, part.stop) if wide else np.full(len(form.cliques), part.start)
            for column in form.cliques.T:
                sites.append(column.astype(np.int64))
                couplings.append(number)
        sites, couplings = np.concatenate(sites), np.concatenate(couplings)
        pairs, slot = np.unique(sites * vector.size + couplings, return_inverse=True)
        self.site, self.coupling = pairs // vector.size, pairs % vector.size
        self.num_slots = len(pairs)
        every = np.arange(self.num_slots)
        # a coupling of several cliques at one site adds them up; most slots have one clique, and then this is a permutation
        self._to_slots = _ones(slot, np.arange(len(slot)), (self.num_slots, len(slot)))
        self._to_sites = _ones(self.site, every, (self.num_sites, self.num_slots))
        self._to_couplings = _ones(self.coupling, every, (vector.size, self.num_slots))
        counts = np.bincount(self.site, minlength=self.num_sites)
        starts = np.cumsum(counts) - counts
        self._groups = [(starts[counts == q][:, None] + np.arange(q)) for q in np.unique(counts[counts > 0])]

    def chunks(self, num_samples: int) -> list[slice]:
        """Samples in pieces of bounded memory; no piece has samples of both halves of the data."""
        size = max(1, CHUNK // self.num_slots)
        half = num_samples // 2
        parts = ((0, half), (half, num_samples))
        return [slice(s, min(s + size, stop)) for start, stop in parts for s in range(start, stop, size)]

    def by_slot(self, values) -> np.ndarray:
        """Sum numbers of (term, position in the clique, clique) over the cliques of a slot."""
        return self._to_slots @ values

    def on_sites(self, values: PerSlot) -> PerSite:
        """Σ over the slots of a site, shape ``(num_sites, num_samples)``."""
        return self._to_sites @ values

    def on_couplings(self, values) -> np.ndarray:
        """Σ over the slots of a coupling, shape ``(num_couplings, num_samples)``."""
        return self._to_couplings @ values

    def derivatives(self, fields: FlatFields) -> tuple[PerSlot, PerSlot]:
        """∂T_k/∂φ_i and ∂²T_k/∂φ_i² by slot (i, k) and sample; ``fields`` has shape ``(num_samples, num_sites)``."""
        columns = np.ascontiguousarray(fields.T)
        first, second = [], []
        for form in self.terms:
            for position in range(form.cliques.shape[1]):
                one, two = _derivatives(form, position, columns)
                first.append(one)
                second.append(two)
        return self.by_slot(np.concatenate(first)), self.by_slot(np.concatenate(second))

    def products(self, values) -> list[np.ndarray]:
        """Σ over samples of products of two slots of one site, in blocks of sites with equally many slots."""
        blocks = []
        for slots in self._groups:
            here = values[slots]
            blocks.append(here @ here.transpose(0, 2, 1))
        return blocks

    def matrix(self, blocks: list[np.ndarray]) -> sparse.csc_matrix:
        """Σ over sites of blocks like those of `products`, as a matrix of couplings."""
        rows, columns, data = [], [], []
        for slots, block in zip(self._groups, blocks, strict=True):
            number = self.coupling[slots]
            rows.append(np.broadcast_to(number[:, :, None], block.shape).ravel())
            columns.append(np.broadcast_to(number[:, None, :], block.shape).ravel())
            data.append(block.ravel())
        place = np.concatenate(rows), np.concatenate(columns)
        return sparse.coo_matrix((np.concatenate(data), place), shape=(self.vector.size,) * 2).tocsc()

    def neighbors(self) -> sparse.csr_matrix:
        """Which couplings act on a common site: a matrix of couplings with entries there, itself included."""
        return (self._to_couplings @ self._to_sites.T @ self._to_sites @ self._to_couplings.T).tocsr()

    def slot_groups(self) -> list[np.ndarray]:
        """Slots of sites with equally many of them, one array ``(num_sites_of_the_group, slots_a_site)`` each."""
        return self._groups


def _ones(rows, columns, shape) -> sparse.csr_matrix:
    return sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)


def _derivatives(form, position: int, columns) -> tuple[np.ndarray, np.ndarray]:
    """First and second derivative of every clique's statistic by the field at one position, shape (num_cliques, samples)."""
    if form.built_in:
        return form.built_in.derivatives(position, *(columns[column] for column in form.cliques.T))
    inside = tuple(jnp.asarray(columns[column]) for column in form.cliques.T)
    first, second = _own_derivatives(form.statistic, position)(*inside)
    return np.asarray(first, float), np.asarray(second, float)


@functools.lru_cache(maxsize=64)
def _own_derivatives(statistic, position: int):
    slope = jax.grad(statistic, argnums=position)
    both = lambda *phi: (slope(*phi), jax.grad(slope, argnums=position)(*phi))  # noqa: E731
    return jax.jit(jax.vmap(jax.vmap(both)))
