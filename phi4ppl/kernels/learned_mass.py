"""NUTS with a dense mass matrix, or one of low rank beside a diagonal, learned from draws and gradients in warm-up.

Nothing about the model is needed. With C the covariance of draws x and B that of the gradients ∇log p(x), the inverse mass
matrix M⁻¹ of least Fisher divergence solves M⁻¹ B M⁻¹ = C: the geometric mean of C and B⁻¹. Where p is normal it is the exact
covariance Σ as soon as the draws span all dimensions, however they are correlated, because then B = Σ⁻¹ C Σ⁻¹; C itself is
still far from Σ then. A ridge holds it back before that.

All chains share one estimate, from the draws of all of them about the mean of each: chains that have not yet met do not
widen it.

Source: A. Seyboldt, E. L. Carlson and B. Carpenter, Preconditioning Hamiltonian Monte Carlo by minimizing Fisher divergence,
arXiv:2603.18845 (2026). BlackJAX has an estimate of low rank after the same source. It keeps the directions of largest |λ − 1|,
among which a single stiff direction (λ near 0) loses against many that are slightly wide, and leaves the scale of all
others to the diagonal. Regressions on correlated covariates need both: the estimate here keeps both ends of the spectrum and
fits the scale of the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import solve_triangular

from ..energy.compiled import CompiledModel
from .adaptation import WindowAdaptation, all_chains
from .gradient import nuts, nuts_statistics
from .kernel import Kernel, any_model
from .metrics import Factored
from .target import Target

__all__ = [
    "KERNELS",
    "MAX_DENSE",
    "LearnedMass",
    "Spikes",
    "Triangle",
    "dense",
    "geometric_mean",
    "low_rank",
]

MAX_DENSE = 512  # variables: a gradient costs two products with a matrix of all pairs, a window an eigenvalue problem
NUM_DIRECTIONS = 32  # the widest, and as many stiffest
NUM_KEPT = 128  # draws of every chain, at least
DRAWS_PER_DIRECTION = 4  # of every chain, so that one chain alone is enough
SMALLEST_RIDGE = 1e-6  # in units of scaled coordinates: what single precision resolves


class Triangle(NamedTuple):
    """A covariance C Cᵀ with a lower triangular C: a `Factor`."""

    factor: jax.Array

    def whiten(self, flat):
        return solve_triangular(self.factor, flat, lower=True)

    def color(self, white):
        return self.factor @ white

    def pull(self, slope):
        return slope @ self.factor

    def push(self, slope):
        return solve_triangular(self.factor, slope, lower=True, trans=1)


class Spikes(NamedTuple):
    """A covariance C Cᵀ with C = D (1 + U (S − 1) Uᵀ): a `Factor`."""

    scale: jax.Array  # D, shape (d,)
    vectors: jax.Array  # U, orthonormal but for columns that are 0, shape (d, k)
    deviations: jax.Array  # S, shape (k,)

    def _white(self, flat, factor):
        return flat + self.vectors @ ((factor - 1) * (flat @ self.vectors))

    def whiten(self, flat):
        return self._white(flat / self.scale, 1 / self.deviations)

    def color(self, white):
        return self.scale * self._white(white, self.deviations)

    def pull(self, slope):
        return self._white(self.scale * slope, self.deviations)

    def push(self, slope):
        return self._white(slope, 1 / self.deviations) / self.scale


@dataclass(frozen=True)
class LearnedMass:
    """An estimate of the mass matrix from a window of draws and gradients of all chains.

    Attributes
    ----------
    unit : callable
        ``unit(flat)``: the factor of the identity, to begin with.
    kept : callable
        ``kept(size)``: how many draws of a chain a window keeps, of so many variables; the last ones.
    factor : callable
        ``factor(draws, gradients, number)``, of arrays ``(rows, size)`` about their means: products ``draws.T @ draws`` and
        ``gradients.T @ gradients`` are covariances of ``number`` draws (further rows are 0).
    """

    unit: Callable[[jax.Array], Any]
    kept: Callable[[int], int]
    factor: Callable[[jax.Array, jax.Array, jax.Array], Any]

    def begin(self, target: Target, position) -> _Window:
        flat, _ = ravel_pytree(position)
        empty = jnp.zeros((self.kept(flat.size), flat.size), flat.dtype)
        return _Window(self.unit(flat), empty, empty, jnp.zeros((), int))

    def update(self, target: Target, state: _Window, position, gradient) -> _Window:
        place = state.number % len(state.draws)
        return state._replace(
            draws=state.draws.at[place].set(ravel_pytree(position)[0]),
            gradients=state.gradients.at[place].set(ravel_pytree(gradient)[0]),
            number=state.number + 1,
        )

    def close(self, target: Target, state: _Window) -> _Window:
        """The factor of this window; that of the one before where draws that do not move, or too few of them, give none."""
        size = len(state.draws)
        used = (jnp.arange(size) < state.number)[:, None]
        kept = used.sum()

        def about_mean(rows):
            return jnp.where(used, rows - jnp.where(used, rows, 0).sum(axis=0, keepdims=True) / kept, 0)

        total = all_chains(kept).sum()

        def pooled(rows):
            return all_chains(about_mean(rows)).reshape(-1, rows.shape[1]) / jnp.sqrt(total)

        factor = self.factor(pooled(state.draws), pooled(state.gradients), total)
        moved = all_chains(jnp.any(used & (state.draws != state.draws[:1]), axis=0)).any(axis=0)
        checks = [moved, *(jnp.isfinite(leaf) for leaf in jax.tree.leaves(factor))]
        good = jnp.all(jnp.stack([jnp.all(check) for check in checks]))
        factor = jax.tree.map(lambda new, old: jnp.where(good, new, old).astype(old.dtype), factor, state.factor)
        return state._replace(factor=factor, number=jnp.zeros_like(state.number))

    def value(self, state: _Window) -> Factored:
        return Factored(state.factor)


class _Window(NamedTuple):
    """The last draws of a window with their gradients, how many there were, and the factor that is in use."""

    factor: Any
    draws: jax.Array
    gradients: jax.Array
    number: jax.Array


def ridge(number, size):
    """What is added to both covariances in units of their scale: 1 up to two draws a dimension, soon next to nothing."""
    return jnp.clip((2 * size / number) ** 8, SMALLEST_RIDGE, 1)


def geometric_mean(covariance, of_gradients):
    """A factor W, W Wᵀ = G, of the solution G of G B G = C: the geometric mean of C and B⁻¹, of positive matrices C and B.

    Examples
    --------
    >>> root = geometric_mean(jnp.diag(jnp.array([4.0, 9.0])), jnp.diag(jnp.array([1.0, 4.0])))
    >>> jnp.round(root @ root.T, 4)
    Array([[2. , 0. ],
           [0. , 1.5]], dtype=float32)
    """
    root = jnp.linalg.cholesky(covariance)
    values, vectors = jnp.linalg.eigh(root.T @ of_gradients @ root)
    values = jnp.maximum(values, jnp.finfo(values.dtype).eps * values[-1])
    return root @ (vectors * values[None] ** -0.25)


def _scaled(draws, gradients):
    """The diagonal of least Fisher divergence, σ² = (⟨x²⟩/⟨g²⟩)^½, and draws and gradients in its coordinates."""
    scale = ((draws**2).sum(axis=0) / (gradients**2).sum(axis=0)) ** 0.25
    return scale, draws / scale[None], gradients * scale[None]


def dense(draws, gradients, number) -> Triangle:
    """The factor of all coordinates; arguments as for `LearnedMass.factor`."""
    scale, draws, gradients = _scaled(draws, gradients)
    unit = ridge(number, scale.size) * jnp.eye(scale.size)
    root = geometric_mean(draws.T @ draws + unit, gradients.T @ gradients + unit)
    lower = jnp.linalg.qr(root.T, mode="r").T  # triangular, and of the same product
    return Triangle(scale[:, None] * lower * jnp.sign(jnp.diag(lower))[None])


def low_rank(draws, gradients, number) -> Spikes:
    """The factor of the widest and the stiffest directions beside a diagonal; arguments as for `LearnedMass.factor`.

    In scaled coordinates it is the geometric mean on the space of the widest directions of the draws and of the gradients,
    and a multiple of the identity on the rest.
    """
    scale, draws, gradients = _scaled(draws, gradients)
    size, rest = scale.size, jnp.ones((), scale.dtype)
    if size <= 2 * NUM_DIRECTIONS:
        basis, used = jnp.eye(size, dtype=scale.dtype), size
    else:
        both = jnp.stack([_widest(draws), _widest(gradients)], axis=2).reshape(size, -1)
        used = jnp.minimum(2 * NUM_DIRECTIONS, number // DRAWS_PER_DIRECTION)
        basis = jnp.where(jnp.arange(both.shape[1])[None] < used, jnp.linalg.qr(both)[0], 0)
        outside = [jnp.sum((rows - rows @ basis @ basis.T) ** 2) for rows in (draws, gradients)]
        rest = jnp.sqrt(outside[0] / outside[1])
    draws, gradients = draws @ basis, gradients @ basis
    unit = ridge(number, used) * jnp.eye(basis.shape[1])
    root = geometric_mean(draws.T @ draws + rest * unit, gradients.T @ gradients + unit / rest)
    vectors, deviations, _ = jnp.linalg.svd(root)
    return Spikes(scale * jnp.sqrt(rest), basis @ vectors, deviations / jnp.sqrt(rest))


def _widest(rows):
    """The directions in which rows vary most, as columns from the widest one on."""
    small = rows.T @ rows if rows.shape[1] <= rows.shape[0] else rows @ rows.T
    values, vectors = (part[..., : -NUM_DIRECTIONS - 1 : -1] for part in jnp.linalg.eigh(small))
    if rows.shape[1] <= rows.shape[0]:
        return vectors
    return rows.T @ (vectors / jnp.sqrt(jnp.maximum(values, SMALLEST_RIDGE * values[0]))[None])


def _few_enough(compiled: CompiledModel) -> str | None:
    if compiled.num_dimensions <= MAX_DENSE:
        return None
    return (
        f"has a matrix of all pairs of variables, of which there may be {MAX_DENSE}, and this model has "
        f"{compiled.num_dimensions} (kernel='nuts_low_rank' learns the directions that matter most)"
    )


DENSE = LearnedMass(
    lambda flat: Triangle(jnp.eye(flat.size, dtype=flat.dtype)),
    lambda size: max(NUM_KEPT, DRAWS_PER_DIRECTION * size),
    dense,
)
LOW_RANK = LearnedMass(
    lambda flat: Spikes(
        jnp.ones_like(flat),
        jnp.zeros((flat.size, min(2 * NUM_DIRECTIONS, flat.size)), flat.dtype),
        jnp.ones(min(2 * NUM_DIRECTIONS, flat.size), flat.dtype),
    ),
    lambda size: NUM_KEPT if size > 2 * NUM_DIRECTIONS else max(NUM_KEPT, DRAWS_PER_DIRECTION * size),
    low_rank,
)
LEARNED = "learned in warm-up from draws and gradients of all chains"
KERNELS = [
    Kernel("nuts_dense", f"nuts with a dense mass matrix, {LEARNED}", nuts, nuts_statistics,
           WindowAdaptation(mass=DENSE), _few_enough),
    Kernel("nuts_low_rank", f"nuts with a diagonal mass matrix but for the widest and stiffest directions, {LEARNED}", nuts,
           nuts_statistics, WindowAdaptation(mass=LOW_RANK), any_model),
]  # fmt: skip
