"""Single sites: their terms as one-dimensional densities in double precision."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from ..._typing import FlatFields
from ...model.field import MarkovRandomField
from ...model.statistic import Statistic
from .trapezoid import log_trapezoid

__all__ = ["IndependentSites", "SiteEnergies", "evaluate"]

SCAN = 1e-2 * np.sinh(np.linspace(-14, 14, 4001))  # ±6000, dense near zero: where the fields of a site may be
DEPTH = 45.0  # exp(−45) = 3e-20: what is further above the minimum of an energy does not count
POINTS = 1025
MAX_POINTS = 2**17
ROWS = 2**22  # numbers worked on at once


def evaluate(statistic, *fields) -> np.ndarray:
    """A statistic of one clique at arrays of fields (of one shape), in double precision regardless of the user's setting."""
    if isinstance(statistic, Statistic):  # plain arithmetic: without a compiler in between
        return np.asarray(statistic(*(np.asarray(x, float) for x in fields)))
    with jax.enable_x64(True):
        flat = [jnp.asarray(np.ravel(x), jnp.float64) for x in fields]
        return np.asarray(jax.vmap(statistic)(*flat), float).reshape(np.shape(fields[0]))


class SiteEnergies:
    """s_i(x): the terms of single sites, for the different rows of couplings that occur.

    Attributes
    ----------
    rows : array, shape (num_rows, num_terms)
        Different sets of couplings of the one-site terms, and of ``extra`` columns.
    row_of : int array, shape (num_sites,)
    """

    def __init__(self, model: MarkovRandomField, curvature=None):
        """``curvature`` (one number per site) adds −½ curvature_i x² to the energy of every site."""
        n = model.lattice.num_sites
        self.statistics, columns = [], []
        for form, value in model.interactions:
            if form.cliques.shape[1] == 1:
                column = np.zeros(n)
                np.add.at(column, form.cliques[:, 0], np.broadcast_to(np.asarray(value, float), len(form.cliques)))
                columns.append(column)
                self.statistics.append(form.statistic)
        if curvature is not None:
            columns.append(np.asarray(curvature, float))
            self.statistics.append(lambda x: -0.5 * x * x)
        table = np.stack(columns, axis=1) if columns else np.zeros((n, 0))
        self.rows, row_of = np.unique(table, axis=0, return_inverse=True)
        self.row_of = row_of.reshape(-1)

    def __call__(self, x, rows=slice(None)) -> np.ndarray:
        """Energies at ``x`` of shape (num_rows, points), or (1, points) for the same points in all rows."""
        couplings = self.rows[rows]
        total = np.zeros((len(couplings), x.shape[1]))
        for k, statistic in enumerate(self.statistics):
            total += couplings[:, k, None] * evaluate(statistic, x)
        return total

    def support(self, depth: float = DEPTH) -> tuple[np.ndarray, np.ndarray]:
        """Interval of every row outside which the energy is ``depth`` above its minimum; infinite if there is none."""
        low, high = np.empty(len(self.rows)), np.empty(len(self.rows))
        step = max(1, ROWS // len(SCAN))
        for start in range(0, len(self.rows), step):
            part = slice(start, start + step)
            energy = self(SCAN[None], part)
            inside = energy - energy.min(axis=1, keepdims=True) < depth
            first, last = inside.argmax(axis=1), len(SCAN) - 1 - inside[:, ::-1].argmax(axis=1)
            low[part] = np.where(first == 0, -np.inf, SCAN[np.maximum(first - 1, 0)])
            high[part] = np.where(last == len(SCAN) - 1, np.inf, SCAN[np.minimum(last + 1, len(SCAN) - 1)])
        return low, high


@dataclass(frozen=True)
class IndependentSites:
    """p_0(φ) = Π_i exp(−s_i(φ_i))/z_i by one-dimensional quadrature: its normalizer, and independent draws.

    Attributes
    ----------
    log_partition : float
        Σ_i log z_i.
    error : float
        A bound on its error of discretization and rounding.
    low, step : arrays, shape (num_rows,)
        First node and spacing of every row's grid.
    cumulative : array, shape (num_rows, points)
        Distribution function at the nodes.
    row_of : int array, shape (num_sites,)
    """

    log_partition: float
    error: float
    low: np.ndarray
    step: np.ndarray
    cumulative: np.ndarray
    row_of: np.ndarray

    @classmethod
    def of(cls, model: MarkovRandomField) -> IndependentSites | None:
        """The terms of single sites of a model; None if they alone are not normalizable."""
        energies = SiteEnergies(model)
        low, high = energies.support()
        if not np.all(np.isfinite(low) & np.isfinite(high)):
            return None
        points = POINTS
        while True:
            x = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, points)
            energy = np.concatenate([energies(x[k : k + 1], slice(k, k + 1)) for k in range(len(x))])
            lowest = energy.min(axis=1, keepdims=True)
            weight, step = np.exp(lowest - energy), (high - low) / (points - 1)
            # the fine grid is far better than the coarse one, from which ``difference`` is
            log_z, difference, _ = log_trapezoid(-energy, np.log(step), (1,))
            if difference.max() < 1e-12 or points >= MAX_POINTS:
                break
            points = 2 * points - 1
        counts = np.bincount(energies.row_of, minlength=len(x))
        masses = (weight[:, 1:] + weight[:, :-1]) / 2
        cumulative = np.concatenate([np.zeros((len(x), 1)), np.cumsum(masses, axis=1)], axis=1)
        error = float(counts @ difference + 1e-15 * (counts @ (1 + np.abs(log_z))))
        cumulative /= cumulative[:, -1:]
        return cls(float(counts @ log_z), error, low, step, cumulative, energies.row_of)

    def draw(self, rng: np.random.Generator, number: int) -> FlatFields:
        """Independent draws, shape (number, num_sites), by linear interpolation of the distribution function."""
        uniform = rng.random((number, len(self.row_of)))
        phi = np.empty_like(uniform)
        nodes = np.arange(self.cumulative.shape[1])
        for row in range(len(self.low)):
            mine = self.row_of == row
            place = np.interp(uniform[:, mine], self.cumulative[row], nodes)
            phi[:, mine] = self.low[row] + self.step[row] * place
        return phi
