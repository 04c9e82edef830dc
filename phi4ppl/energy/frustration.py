"""How rugged the signs of w make a landscape, from the couplings alone.

Signs s of φ satisfy an edge where w_ij s_i s_j > 0. A model is frustrated if no signs satisfy all of its edges. That alone does
not hold chains back: what does is the energy of a site in the field of its neighbors, and how many edges no signs satisfy.
"""

from __future__ import annotations

import numpy as np
from numpy.polynomial import polynomial

__all__ = ["least_square", "local_energy", "ruggedness", "signs_compete", "unsatisfied_share"]

# Single chains of ± couplings on 8 × 8 pass their verdict at h φ² = 7, fail it now and then at 12 and always at 25; with a
# tenth of w unsatisfied they pass at 25.
RUGGED = 10.0  # see `local_energy`
UNSATISFIED = 0.12  # see `unsatisfied_share`

# mean field of neighbors over (Σ_j w_ij²)^½ in ground states of ± couplings: 1.4 on the square lattice, 1.53 where all sites
# are neighbors (G. Parisi, J. Phys. A 13 (1980) L115)
SPREAD = 1.5
STEPS = 50  # of the power iteration


def edges_of(model) -> tuple[np.ndarray, np.ndarray]:
    """Edges with w ≠ 0 and their w."""
    hopping = [(form.cliques, value) for form, value in model.interactions if form.is_hopping]
    if not hopping:
        return np.empty((0, 2), int), np.empty(0)
    edges = np.concatenate([cliques for cliques, _ in hopping])
    w = np.concatenate([np.broadcast_to(np.asarray(value, float), len(cliques)) for cliques, value in hopping])
    return edges[w != 0], w[w != 0]


def ruggedness(model) -> tuple[float, float] | None:
    """`local_energy` and `unsatisfied_share` of a model whose single chains get stuck; None for any other."""
    if not signs_compete(model):
        return None
    energy, share = local_energy(model), unsatisfied_share(model)
    return (energy, share) if energy > RUGGED and share > UNSATISFIED else None


def signs_compete(model) -> bool:
    """Whether no signs of φ make w_ij φ_i φ_j > 0 on every edge (frustration): a cycle with Π sign w < 0.

    In two copies of the graph where negative w cross over, such signs cut every component in two (F. Harary, Michigan Math.
    J. 2 (1953) 143).
    """
    (edges, w), number = edges_of(model), model.lattice.num_sites
    if (w > 0).all():
        return False

    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    def components(edges, size):
        ones = np.ones(len(edges))
        return connected_components(coo_array((ones, edges.T), shape=(size, size)), directed=False)[0]

    crossed = np.stack([edges[:, 0], edges[:, 1] + number * (w < 0)], axis=1)
    back = np.stack([edges[:, 0] + number, edges[:, 1] + number * (w > 0)], axis=1)
    return components(np.concatenate([crossed, back]), 2 * number) < 2 * components(edges, number)


def unsatisfied_share(model) -> float:
    """Share of Σ |w| on edges that good signs of φ do not satisfy.

    The signs follow the edges of a spanning tree and are then smoothed by a power iteration of w, so that an edge of the wrong
    sign on the tree does not turn a whole branch. The best signs may satisfy more.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import breadth_first_order, connected_components

    (edges, w), number = edges_of(model), model.lattice.num_sites
    if not len(w):
        return 0.0
    matrix = csr_matrix((np.tile(w, 2), np.concatenate([edges, edges[:, ::-1]]).T), shape=(number, number))
    graph = abs(matrix)
    signs, parts = np.ones(number), connected_components(graph, directed=False)[1]
    roots, sizes = np.unique(parts, return_index=True, return_counts=True)[1:]
    for root in roots[sizes > 1]:
        order, before = breadth_first_order(graph, root, directed=False)
        along = np.where(np.asarray(matrix[order[1:], before[order[1:]]]).ravel() < 0, -1, 1)
        for site, sign in zip(order[1:], along, strict=True):
            signs[site] = sign * signs[before[site]]
    x, shift = signs, np.asarray(graph.sum(axis=1)).ravel()
    for _ in range(STEPS):
        x = matrix @ x + shift * x
        x /= np.abs(x).max()
    against = [np.abs(w[w * s[edges[:, 0]] * s[edges[:, 1]] < 0]).sum() for s in (signs, np.where(x < 0, -1, 1))]
    return float(min(against) / np.abs(w).sum())


def local_energy(model) -> float:
    """h φ², h the field per φ that neighbors make at an average site: least S of −½ h φ² and the terms of single sites.

    h = min(Σ_j |w_ij|, 1.5 (Σ_j w_ij²)^½): where signs compete, the fields of many neighbors add up at random.
    """
    (edges, w), number = edges_of(model), model.lattice.num_sites
    square, total = np.zeros(number), np.zeros(number)
    for sites in edges.T:
        np.add.at(square, sites, w**2)
        np.add.at(total, sites, np.abs(w))
    h = float(np.minimum(total, SPREAD * np.sqrt(square)).mean())
    return h * least_square(model, h / 2)


def least_square(model, hopping: float) -> float:
    """φ² at the minimum over constant fields of −hopping φ² and the mean terms of single sites; 0 if that is at φ = 0."""
    action = np.zeros(1)  # S of a site as a polynomial in x = φ²
    for form, value in model.interactions:
        if form.power and form.power % 2 == 0:
            mean = np.sum(np.broadcast_to(np.asarray(value, float), len(form.cliques))) / model.lattice.num_sites
            action = polynomial.polyadd(action, mean * np.eye(form.power // 2 + 1)[-1])
    action = polynomial.polytrim(polynomial.polyadd(action, [0.0, -hopping]))
    if len(action) < 3 or action[-1] <= 0:
        return 0.0
    flat = polynomial.polyroots(polynomial.polyder(action))
    places = np.append(0.0, flat.real[(np.abs(flat.imag) < 1e-9) & (flat.real > 0)])
    return float(places[np.argmin(polynomial.polyval(places, action))])
