"""Clique potentials from an action, by Möbius inversion over the cliques of the graph."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import ArgumentError
from ...lattice.cliques import all_cliques
from ...lattice.frozen import Lattice

__all__ = ["CliquePotentials"]

MAX_CLIQUES = 20_000


class CliquePotentials:
    """Positive potentials ψ_c of the maximal cliques with Π_c ψ_c(φ_c) = exp(−S(φ)).

    With S_B the action at the fields of clique B and zero elsewhere, the interaction of clique A is
    ``Φ_A = Σ_{B ⊆ A} (−1)^{|A|−|B|} S_B``, and ``log ψ_c = −Σ_{A ⊆ c} Φ_A / n_A``, where n_A maximal cliques contain A: what a
    site or an edge carries is shared equally by the maximal cliques around it.

    Parameters
    ----------
    action : callable
        S of one flat field of shape ``(num_sites,)``.
    lattice : Lattice
        At most 20,000 cliques of all sizes.

    Notes
    -----
    The product equals exp(−S) for every field if and only if S is Markov on the lattice; `log_product` is what to
    compare with −S. Source: J. Besag, J. R. Stat. Soc. B 36 (1974) 192.
    """

    def __init__(self, action: Callable, lattice: Lattice):
        self.lattice = lattice
        self.cliques = lattice.maximal_cliques()
        subsets = all_cliques(lattice, MAX_CLIQUES)
        self._weights, self._masks = _mobius(subsets, self.cliques, lattice.num_sites)
        chunk = max(1, 2**24 // lattice.num_sites)
        masks = self._masks

        def restricted_actions(phi):
            parts = [masks[k : k + chunk] for k in range(0, len(masks), chunk)]
            return jnp.concatenate([jax.vmap(action)(jnp.where(part, phi, 0)) for part in parts])

        self._restricted_actions = jax.jit(restricted_actions)

    def __len__(self) -> int:
        return len(self.cliques)

    def __repr__(self) -> str:
        return f"CliquePotentials({len(self)} maximal cliques of {self.lattice.name})"

    def __getitem__(self, clique) -> Callable:
        """ψ_c as a function of the fields of its clique (in ascending order of site), by number or by sites."""
        number = self._number(clique)
        sites = np.array(self.cliques[number])

        def potential(phi_c):
            phi_c = np.asarray(phi_c)
            if phi_c.shape != (len(sites),):
                raise ArgumentError(
                    "phi_c", f"{len(sites)} fields, of sites {tuple(sites.tolist())}", str(phi_c.shape), reason="shape"
                )
            phi = np.zeros(self.lattice.num_sites, phi_c.dtype if phi_c.dtype.kind == "f" else float)
            phi[sites] = phi_c
            return float(np.exp(self.log_potentials(phi)[number]))

        return potential

    def _number(self, clique) -> int:
        if isinstance(clique, (int, np.integer)):
            if not -len(self.cliques) <= clique < len(self.cliques):
                raise ArgumentError("clique", f"a number below {len(self.cliques)}", str(clique), reason="choice")
            return int(clique)
        sites = tuple(sorted(int(i) for i in clique))
        if sites not in self.cliques:
            shown = ", ".join(map(str, self.cliques[:4]))
            raise ArgumentError("clique", f"a maximal clique ({shown}, …)", str(sites))
        return self.cliques.index(sites)

    def log_potentials(self, phi) -> np.ndarray:
        """log ψ_c(φ_c) of every maximal clique, shape ``(len(self),)``, for one field."""
        flat = jnp.asarray(phi, jnp.result_type(float, jnp.asarray(phi).dtype)).reshape(-1)
        if flat.shape != (self.lattice.num_sites,):
            got = f"shape {np.shape(phi)}"
            raise ArgumentError("phi", f"one field of {self.lattice.num_sites} numbers", got, reason="shape")
        return np.asarray(self._weights @ np.asarray(self._restricted_actions(flat), float))

    def log_product(self, phi) -> float:
        """Σ_c log ψ_c(φ_c), which equals −S(φ) exactly when the action is Markov on the lattice."""
        return float(self.log_potentials(phi).sum())


def _mobius(subsets, maximal, num_sites):
    """Weights W and masks M with log ψ = W @ S(M·φ)."""
    number = {subset: k for k, subset in enumerate(subsets)}
    containing = np.zeros(len(subsets))
    below = [[s for size in range(len(c) + 1) for s in combinations(c, size)] for c in maximal]
    for inside in below:
        containing[[number[s] for s in inside]] += 1
    rows, columns, weights = [], [], []
    for row, inside in enumerate(below):
        for outer in inside:
            for size in range(len(outer) + 1):
                for inner in combinations(outer, size):
                    rows.append(row)
                    columns.append(number[inner])
                    weights.append(-((-1) ** (len(outer) - size)) / containing[number[outer]])
    from scipy import sparse

    shape = (len(maximal), len(subsets))
    masks = np.zeros((len(subsets), num_sites), bool)
    for k, subset in enumerate(subsets):
        masks[k, list(subset)] = True
    return sparse.coo_matrix((weights, (rows, columns)), shape=shape).tocsr(), masks
