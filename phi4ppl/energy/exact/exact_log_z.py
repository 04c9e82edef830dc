"""log Z without sampling: Gaussian fields by determinant, others by eliminating sites on a grid of quadrature nodes."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from ...model.coupling_vector import CouplingVector
from ...model.field import MarkovRandomField
from ..factors import factors_of
from .elimination import cheapest_order, elimination_order, log_sum
from .gaussian import DENSE_LIMIT, log_gaussian_integral, sparse_gaussian
from .independent_sites import SiteEnergies, evaluate

__all__ = ["ExactFamily", "ExactLogZ", "exact_log_partition"]

SMALL = 1000  # sites up to which a Gaussian field is a dense matrix
FEW = 64  # entries a row of a sparse one
DEPTH = 32.0  # exp(−32) = 1e-14: what the box may cut off
SPACINGS = tuple(1.5 * 0.8**k for k in range(14))  # of the nodes, in standard deviations of a site given the rest
ENOUGH = 1e-10  # difference of two grids at which no finer one is tried
TOO_MUCH = 1e-3  # relative error above which no answer is returned
MAX_TABLE = 3e7  # numbers of all factors together
IN_CACHE = 2e6  # numbers worked on at once, where many log Z are computed
GUESS = 5.0  # half width of the first box where the energy of a site gives none
MAX_ENLARGEMENTS = 8
OVERHEAD = 5e6  # multiplications that take as long as what one sum does besides
TYPICAL = 5  # of SPACINGS, that of the grid that is fine enough, about


class ExactLogZ(NamedTuple):
    """log Z, a bound on its rounding and discretization, and how it was found, in one line."""

    value: float
    error: float
    how: str


def exact_log_partition(model: MarkovRandomField) -> ExactLogZ | None:
    """log Z of a normalizable model, or None where that would take more than a few seconds."""
    if all(form.is_gaussian for form in model.forms):
        return _gaussian(model)
    return _by_elimination(model)


def _gaussian(model: MarkovRandomField) -> ExactLogZ | None:
    """(N/2) log 2π − ½ log det Q + ½ rᵀQ⁻¹r in double precision, dense or sparse."""
    n, (precision, linear) = model.lattice.num_sites, sparse_gaussian(model)
    if precision.nnz <= FEW * n and n > SMALL:
        factors = factors_of(precision)
        if factors is None:
            return None
        value = (n * np.log(2 * np.pi) - factors.log_det + linear @ factors.solve(linear)) / 2
    elif n <= DENSE_LIMIT:
        value = log_gaussian_integral(precision.toarray(), linear, np)
    else:
        return None
    rounding = 1e-14 * (n + abs(value))
    return ExactLogZ(float(value), float(rounding), f"determinant of the {n}×{n} precision matrix")


def _by_elimination(model: MarkovRandomField) -> ExactLogZ | None:
    found = ExactFamily(model, []).eliminated(np.zeros((1, 0)))
    if found is None:
        return None
    (value,), error = found
    n = model.lattice.num_sites
    how = f"sum over the quadrature nodes of all {n} sites, one site eliminated after the other"
    return ExactLogZ(float(value), float(error), how)


class ExactFamily:
    """log Z of models that differ in a few homogeneous couplings, for many values of these at once.

    Attributes
    ----------
    names : list of str
    scopes : list of tuple of int
        Sites of the terms of several sites.
    """

    def __init__(self, model: MarkovRandomField, names: list[str]):
        self.model, self.names, self._vector = model, list(names), CouplingVector.of(model, names)
        self.scopes = [tuple(c) for f in model.forms if f.cliques.shape[1] > 1 for c in f.cliques.tolist()]
        self.is_gaussian = all(form.is_gaussian for form in model.forms)

    def at(self, theta) -> MarkovRandomField:
        return self._vector.model(theta)

    def operations(self, thetas) -> float | None:
        """Multiplications, about, of one log Z at couplings like these, shape (points, couplings); None for too many."""
        n = self.model.lattice.num_sites
        if self.is_gaussian:
            return OVERHEAD + (float(n) ** 3 if n <= DENSE_LIMIT else 100 * float(n) ** 1.5)
        if elimination_order(n, self.scopes, 8) is None:
            return None
        low, high, width = self._box(thetas)
        if elimination_order(n, self.scopes, _number(low, high, width, SPACINGS[1])) is None:
            return None
        order, cost = cheapest_order(n, self.scopes, _number(low, high, width, SPACINGS[TYPICAL]))
        return OVERHEAD + 2 * cost if order is not None else None

    def log_partition(self, thetas) -> tuple[np.ndarray, float] | None:
        """log Z at every row of ``thetas`` and the largest error, or None if one of them takes more than a few seconds."""
        if not self.is_gaussian and len(thetas) > 1 and (self.operations(thetas) or np.inf) < 4 * OVERHEAD:
            return self.eliminated(np.asarray(thetas, float))
        values, error = np.empty(len(thetas)), 0.0
        for k, theta in enumerate(thetas):
            found = exact_log_partition(self.at(theta))
            if found is None:
                return None
            values[k], error = found.value, max(error, found.error)
        return values, error

    def eliminated(self, thetas) -> tuple[np.ndarray, float] | None:
        """The trapezoidal rule at every site, in a box that holds all the densities, on finer and finer grids."""
        n = self.model.lattice.num_sites
        if elimination_order(n, self.scopes, 8) is None:
            return None
        low, high, width = self._box(thetas)
        found: list[np.ndarray] = []
        for spacing in SPACINGS:
            points = _number(low, high, width, spacing)
            if not found and elimination_order(n, self.scopes, _number(low, high, width, SPACINGS[1])) is None:
                return None  # it takes two grids to know an error
            value = self._on_grid(thetas, _nodes(low, high, points))
            if not found:  # the coarsest grid is cheap: make sure of the box there
                for _ in range(MAX_ENLARGEMENTS):
                    if value is None:
                        break
                    if np.abs(value - self._on_grid(thetas, _inner(_nodes(low, high, points)))).max() < ENOUGH:
                        break
                    low, high = low - 0.15 * (high - low), high + 0.15 * (high - low)
                    points = int(np.ceil(1.3 * points))
                    value = self._on_grid(thetas, _nodes(low, high, points))
                else:
                    return None
            if value is None:
                break
            found.append(value)
            if len(found) > 1 and np.abs(found[-1] - found[-2]).max() < ENOUGH:
                break
        if len(found) < 2 or (difference := np.abs(found[-1] - found[-2]).max()) > TOO_MUCH:
            return None
        return found[-1], float(difference + ENOUGH + 1e-14 * (n + np.abs(found[-1]).max()))

    def _box(self, thetas) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A box that holds the densities at the corners of the smallest box of ``thetas``, and the least width."""
        thetas = np.asarray(thetas, float)
        ends = zip(thetas.min(axis=0), thetas.max(axis=0), strict=True)
        boxes = [_box(self.at(corner)) for corner in itertools.product(*map(np.unique, ends))]
        low, high, width = (np.stack(parts) for parts in zip(*boxes, strict=True))
        return low.min(axis=0), high.max(axis=0), width.min(axis=0)

    def _on_grid(self, thetas, nodes) -> np.ndarray | None:
        """log of the sum over all ``nodes`` (num_sites, points), with the spacings as weights; None if it takes too long."""
        n, points = nodes.shape
        order = elimination_order(n, self.scopes, points)
        forms = self.model.forms
        table = sum(len(f.cliques) * float(points) ** f.cliques.shape[1] for f in forms)
        if order is None or table > MAX_TABLE:
            return None
        statistics = [_statistic(form, nodes) for form in forms]
        widest = max((len(scope) for scope in self.scopes), default=1)
        step = max(1, int(IN_CACHE / max(table, float(points) ** (widest + 1))))
        parts = [thetas[k : k + step] for k in range(0, len(thetas), step)]
        return np.concatenate([log_sum(self._factors(part, statistics, nodes), order) for part in parts])

    def _factors(self, thetas, statistics, nodes) -> list:
        n, points = nodes.shape
        log_weight = np.repeat(np.log(nodes[:, 1] - nodes[:, 0])[None, :, None], len(thetas), axis=0)
        log_weight = np.broadcast_to(log_weight, (len(thetas), n, points)).copy()
        factors: dict[tuple[int, ...], np.ndarray] = {}
        for (form, value), statistic in zip(self.model.interactions, statistics, strict=True):
            fixed = np.broadcast_to(np.asarray(value, float), (len(thetas), len(form.cliques)))
            column = thetas[:, [self.names.index(form.name)]] if form.name in self.names else fixed
            coupling = np.broadcast_to(column, fixed.shape)
            for k, clique in enumerate(form.cliques.tolist()):
                axes = np.argsort(clique)
                energy = coupling[:, k].reshape(-1, *[1] * len(clique)) * statistic[k].transpose(axes)
                if len(clique) == 1:
                    log_weight[:, clique[0]] -= energy
                else:
                    scope = tuple(clique[m] for m in axes)
                    factors[scope] = factors.get(scope, 0.0) - energy
        # the weight of a site is shared by its factors, so that none of them grows without bound
        shares = np.bincount([i for scope in factors for i in scope], minlength=n)
        for scope in factors:
            for axis, i in enumerate(scope):
                shape = [points if k == axis else 1 for k in range(len(scope))]
                factors[scope] = factors[scope] + (log_weight[:, i] / shares[i]).reshape(-1, *shape)
        factors |= {(i,): log_weight[:, i] for i in np.flatnonzero(shares == 0).tolist()}
        return list(factors.items())


def _statistic(form, nodes) -> np.ndarray:
    """The statistic of a term at all nodes of the sites of each of its cliques, shape (cliques, points, …)."""
    size, points = form.cliques.shape[1], nodes.shape[1]
    fields = [
        nodes[form.cliques[:, m]].reshape(-1, *[points if k == m else 1 for k in range(size)]) for m in range(size)
    ]
    return evaluate(form.statistic, *np.broadcast_arrays(*fields))


def _number(low, high, width, spacing: float) -> int:
    return int(np.ceil(np.max((high - low) / (spacing * width)))) + 1


def _nodes(low, high, points: int) -> np.ndarray:
    return low[:, None] + (high - low)[:, None] * np.linspace(0, 1, points)


def _inner(nodes) -> np.ndarray:
    """The same grid without a twelfth of its nodes at either end."""
    cut = 1 + nodes.shape[1] // 12
    return nodes[:, cut:-cut]


def _box(model: MarkovRandomField) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower and upper ends of the fields of every site, and the width of its density given the other sites.

    From −w φ_i φ_j ≥ −|w|(φ_i² + φ_j²)/2, Σ_i u_i(φ_i) ≤ S with u_i(x) = s_i(x) − ½ Σ_j |w_ij| x²: where u_i confines, its
    low values are the box. Otherwise the box is a guess, which `_by_elimination` enlarges.
    """
    pull = np.zeros(model.lattice.num_sites)
    for form, value in model.interactions:
        if form.is_hopping:
            for sites in form.cliques.T:
                np.add.at(pull, sites, np.abs(np.broadcast_to(np.asarray(value, float), len(form.cliques))))
    energies = SiteEnergies(model, pull)
    low, high = energies.support(DEPTH)
    low, high = np.where(np.isfinite(low), low, -GUESS), np.where(np.isfinite(high), high, GUESS)
    x = _nodes(low, high, 401)
    u = np.concatenate([energies(x[k : k + 1], slice(k, k + 1)) for k in range(len(x))])
    lowest = np.clip(u.argmin(axis=1), 1, 399)[:, None]
    around = [np.take_along_axis(u, lowest + shift, axis=1)[:, 0] for shift in (-1, 0, 1)]
    curvature = (around[0] - 2 * around[1] + around[2]) / (x[:, 1] - x[:, 0]) ** 2 + energies.rows[:, -1]
    width = np.where(curvature > 0, 1 / np.sqrt(np.maximum(curvature, 1e-300)), np.inf)
    width = np.minimum(width, (high - low) / 12)
    return low[energies.row_of], high[energies.row_of], width[energies.row_of]
