"""Is Z finite? Exactly for the built-in terms, by search for a direction without growth otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...errors.streams import stream_rng
from ...lattice.frozen import Lattice

__all__ = ["Search", "Verdict", "from_built_in_terms"]

DENSE_LIMIT = 1500
RADIUS = 30.0
NUM_STEPS = 150
NUM_RANDOM = 6
OVERFLOW = 1e300  # stands for S = +∞ at large fields: the density vanishes there


class Verdict(NamedTuple):
    is_normalizable: bool
    reason: str
    null_directions: tuple[str, ...] = ()


def from_built_in_terms(lattice: Lattice, forms, values) -> Verdict:
    """Exact answer for S = φᵀAφ + Σ_k Σ_i b_ki φ_i^k + Σ r φ with even powers k > 2.

    Normalizable if and only if, at every site, the highest power whose coupling is not 0 has a positive one, and A, restricted
    to the sites without such powers, is positive definite.
    """
    from scipy import sparse

    n = lattice.num_sites
    higher, linear = {}, np.zeros(n)
    quadratic = sparse.csr_matrix((n, n))
    precision = 1e-12
    for form, value in zip(forms, values, strict=True):
        theta = np.broadcast_to(np.asarray(value, float), (len(form.cliques),))
        if np.asarray(value).dtype == np.float32:
            precision = 1e-6
        first, last = form.cliques[:, 0], form.cliques[:, -1]
        if form.built_in.degree > 2:
            np.add.at(higher.setdefault(form.built_in, np.zeros(n)), first, theta)
        elif form.power == 1:
            np.add.at(linear, first, theta)
        else:
            half = -theta / 2 if form.is_hopping else theta / 2
            part = sparse.coo_matrix((half, (first, last)), shape=(n, n))
            quadratic = quadratic + (part + part.T).tocsr()
    top = np.zeros(n)  # the coupling of the highest power at every site
    falling = sorted(higher, key=lambda statistic: -statistic.degree)
    for statistic in reversed(falling):
        top = np.where(higher[statistic] == 0, top, higher[statistic])
    if (top < 0).any():
        site = int(np.argmin(top))
        name = next(statistic.name for statistic in falling if higher[statistic][site])
        return Verdict(False, f"the {name} coupling is negative ({top[site]:.4g}) at site {site}: S → −∞ there")
    names = " or ".join(statistic.name for statistic in reversed(falling)) or "quartic"
    flat = np.flatnonzero(top == 0)
    if len(flat) == 0:
        return Verdict(True, f"{names} coupling positive at every site (smallest {top.min():.4g})")
    rest = "" if len(flat) == n else f" on the {len(flat)} sites without {names} term"
    return _quadratic_verdict(quadratic, flat, linear, rest, precision)


def _quadratic_verdict(quadratic, flat, linear, rest: str, precision: float) -> Verdict:
    from scipy import linalg, sparse

    block = quadratic[flat][:, flat].tocsc()
    diagonal = block.diagonal()
    margin = diagonal - (np.asarray(abs(block).sum(axis=1)).ravel() - np.abs(diagonal))
    size = max(float(abs(block).max()), 1e-300)
    epsilon = precision * size * max(1, len(flat)) ** 0.5
    if margin.min() > precision * size:
        return Verdict(True, f"quadratic form{rest} positive definite (diagonally dominant by {margin.min():.4g})")
    if len(flat) <= DENSE_LIMIT:
        eigenvalues, vectors = linalg.eigh(block.toarray())
        lowest = eigenvalues[0]
        null = vectors[:, np.abs(eigenvalues) <= epsilon].T
        if lowest > epsilon:
            return Verdict(True, f"quadratic form{rest} positive definite (lowest eigenvalue {lowest:.4g})")
        if lowest < -epsilon:
            reason = (
                f"quadratic form{rest} has the negative eigenvalue {lowest:.4g} and nothing of higher order holds it"
            )
            return Verdict(False, reason)
    else:
        if _is_positive_definite(block - epsilon * sparse.eye(len(flat), format="csc")):
            return Verdict(True, f"quadratic form{rest} positive definite (sparse factorization)")
        if not _is_positive_definite(block + epsilon * sparse.eye(len(flat), format="csc")):
            return Verdict(False, f"quadratic form{rest} is not positive and nothing of higher order holds it")
        null = _constant_on_components(block, epsilon)
    pieces = _constant_on_components(block, epsilon)
    null = pieces if len(pieces) == len(null) else null
    names = tuple(_name_direction(v, flat, quadratic.shape[0]) for v in null) or ("a field that is not constant",)
    elsewhere = np.setdiff1d(np.arange(quadratic.shape[0]), flat)
    tilted = any(abs(v @ linear[flat]) > epsilon for v in null)
    coupled = any(np.abs(quadratic[flat].T @ v)[elsewhere].sum() > epsilon for v in null)
    if tilted or coupled:
        return Verdict(False, f"S is unbounded below along {names[0]}")
    reason = (
        f"improper (intrinsic): S does not change along {'; '.join(names[:3])}. Use it as a prior whose likelihood "
    )
    return Verdict(False, reason + "fixes that direction, or raise the mass coupling a", names)


def _is_positive_definite(matrix) -> bool:
    from scipy.sparse.linalg import splu

    try:
        factor = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    except RuntimeError:  # exactly singular
        return False
    return bool((factor.U.diagonal() > 0).all() and np.array_equal(factor.perm_r, factor.perm_c))


def _constant_on_components(block, epsilon: float) -> np.ndarray:
    """Indicators of those connected pieces along whose constant field the form vanishes."""
    from scipy.sparse.csgraph import connected_components

    number, label = connected_components(block, directed=False)
    indicators = [(label == k).astype(float) for k in range(number)] if number <= 1000 else []
    return np.array([v for v in indicators if np.abs(block @ v).max() <= epsilon]).reshape(-1, block.shape[0])


def _name_direction(vector, flat, num_sites: int) -> str:
    on = np.flatnonzero(np.abs(vector) > 1e-8 * np.abs(vector).max())
    if np.ptp(vector[on]) < 1e-8 * np.abs(vector).max():
        where = "of all sites" if len(on) == num_sites else f"of the {len(on)} sites {_shorten(flat[on])}"
        return f"the constant field {where}"
    return f"a direction that varies over the {len(on)} sites {_shorten(flat[on])}"


def _shorten(sites) -> str:
    shown = ", ".join(str(int(s)) for s in sites[:4])
    return f"({shown}{', …' if len(sites) > 4 else ''})"


class Search:
    """A search of the sphere |φ| = R√N for a direction in which S falls or stays flat: descent from a spread of starts.

    A growing S in every direction found is evidence, not proof; a direction without growth is a witness. The action is a
    function of couplings and a flat field, and is compiled once for all couplings.
    """

    def __init__(self, action: Callable, lattice: Lattice, seed: int):
        self._lattice = lattice
        starts = _spread(lattice, seed)
        self._starts = jnp.asarray(starts, jnp.result_type(float))

        def descend(values, u):
            def step(u, size):
                gradient = jax.grad(action, argnums=1)(values, RADIUS * u)
                gradient = jnp.nan_to_num(gradient) / (jnp.sqrt(jnp.mean(gradient**2)) + 1e-30)
                u = u - size * gradient
                return u / jnp.sqrt(jnp.mean(u**2)), None

            return jax.lax.scan(step, u, jnp.geomspace(0.5, 0.01, NUM_STEPS).astype(u.dtype))[0]

        def along(values, sizes, direction):
            return jax.lax.map(lambda t: action(values, t * direction), sizes)

        def grow(values, starts):
            directions = jnp.concatenate([starts, jax.lax.map(lambda u: descend(values, u), starts)])
            sizes = jnp.array([0.0, 1.0, RADIUS, 4 * RADIUS], starts.dtype)
            return directions, jax.lax.map(lambda u: along(values, sizes, u), directions)

        self._grow = jax.jit(grow)

    def __call__(self, values) -> Verdict:
        directions, actions = self._grow(values, self._starts)
        actions = np.nan_to_num(np.asarray(actions, float), nan=np.nan, posinf=OVERFLOW, neginf=-np.inf)
        return self._judged(directions, actions)

    def _judged(self, directions, values: np.ndarray) -> Verdict:
        """From S at fields of several sizes along every direction, shape (directions, sizes)."""
        n, number = self._lattice.num_sites, len(self._starts)
        if not np.isfinite(values).all():
            return Verdict(False, f"S is not a number, or −∞, at fields of size up to {4 * RADIUS:g}")
        change = values[:, 1:] - values[:, :1]
        near, far = change[:, 1], change[:, 2]
        typical = np.median(np.abs(change[number - NUM_RANDOM : number]), axis=0)
        flat = (np.abs(change) <= 1e-6 * np.where(typical > 0, typical, 1.0)).all(axis=1)
        worst = int(np.argmin(far))
        worst = int(np.argmax(flat)) if flat[worst] else worst
        name = _name_direction(np.round(np.asarray(directions[worst], float), 4), np.arange(n), n)
        if flat[worst]:
            return Verdict(False, f"improper (intrinsic): S does not change along {name}", (name,))
        if far[worst] <= 0:
            return Verdict(False, f"S falls to {far[worst]:.3g} along {name}")
        if ((far < 1.5 * near) & (near < OVERFLOW)).any():
            return Verdict(False, f"growth of S could not be shown: it levels off along {name}")
        return Verdict(True, f"S grows in all {len(directions)} directions searched (numerical evidence, not proof)")


def _spread(lattice: Lattice, seed: int) -> np.ndarray:
    """Directions of unit size per site: constant, alternating, single sites, random."""
    n = lattice.num_sites
    rng = stream_rng(seed, "normalizability")
    alternating = np.array([(-1.0) ** (sum(label) if isinstance(label, tuple) and all(
        isinstance(x, (int, np.integer)) for x in label) else k) for k, label in enumerate(lattice.nodes)])  # fmt: skip
    chosen = np.unique(np.concatenate([[0, n - 1], rng.integers(0, n, 4)]))
    single = np.sqrt(n) * (np.arange(n) == chosen[:, None])
    starts = np.concatenate([np.ones((1, n)), alternating[None], single, rng.standard_normal((NUM_RANDOM, n))])
    return starts / np.sqrt((starts**2).mean(axis=1, keepdims=True))
