"""The posterior of a NumPyro model near its mode: a sparse Hessian of the latent fields, and the Laplace marginal.

Latent sites are of two kinds. Real ones, fields and their intercepts and effects, are x; constrained ones, scales and the like,
are θ. Given θ the posterior of x is close to a normal one, N(x*(θ), H(θ)⁻¹), with x* the mode and H the Hessian of −log p. With
it p(θ | y) ∝ p(x, θ, y)/p(x | θ, y) at x = x* (L. Tierney and J. B. Kadane, J. Am. Stat. Assoc. 81 (1986) 82; H. Rue,
S. Martino and N. Chopin, J. R. Stat. Soc. B 71 (2009) 319).

Densities are computed in the precision of the run, as NumPyro's cannot be traced in another; matrices in double precision.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax.flatten_util import ravel_pytree
from scipy import sparse

from ..energy.compiled import CompiledModel
from ..errors import SamplingError
from ..errors.arguments import call_checked
from ..lattice.coloring import greedy_colors
from .factors import Factors, factors_of

__all__ = ["OTHERWISE", "Curvature", "Mode", "curvature_of", "factorized"]

MAX_HYPERPARAMETERS = 8
MAX_DENSE = 2000  # latent variables whose Hessian is found column by column where its graph is not known
MAX_NEWTON = 50
DECREASE = 1e-6  # of −log p that one more Newton step would bring: then the mode is found
OTHERWISE = "Use phi4ppl.sample(…, kernel='nuts')."
NEAR = 1.0  # squared standard deviations from the mode, within which −log p need not be seen to decrease
NUM_STARTS, FAR = 2, 3.0  # standard deviations from the mode, from where it is searched for again, on both sides
LARGE = 20_000  # latent variables above which once has to do
PROBE = 1e3  # roundings by which two products with the Hessian that are the same may differ


@dataclass(frozen=True)
class Mode:
    """x*(θ), the potential −log p there, H and its factors."""

    x: np.ndarray
    potential: float
    hessian: sparse.csc_matrix
    factors: Factors

    @property
    def log_marginal(self) -> float:
        """log ∫ exp(−(potential + ½ δᵀHδ)) dδ, that of p(θ, y) by Laplace."""
        return -self.potential - self.factors.log_det / 2 + len(self.x) * np.log(2 * np.pi) / 2


class _Probes(NamedTuple):
    """Vectors of zeros and ones, and for every entry of H that may differ from zero the product and the place that hold it."""

    seeds: np.ndarray  # (products, n)
    rows: np.ndarray
    columns: np.ndarray
    product: np.ndarray
    place: np.ndarray

    @classmethod
    def of(cls, pattern: sparse.csc_matrix, groups: list[np.ndarray], wide: np.ndarray) -> _Probes:
        n = pattern.shape[0]
        seeds, color = np.zeros((len(groups), n)), np.empty(n, int)
        for k, group in enumerate(groups):
            seeds[k, group], color[group] = 1.0, k
        rows, columns = pattern.nonzero()
        turned = np.isin(rows, wide)  # such rows get something of every column: read by symmetry
        return cls(seeds, rows, columns, np.where(turned, color[rows], color[columns]), np.where(turned, columns, rows))

    def matrix(self, products: np.ndarray) -> sparse.csc_matrix:
        n = self.seeds.shape[1]
        found = sparse.csc_matrix((products[self.product, self.place], (self.rows, self.columns)), shape=(n, n))
        return ((found + found.T) / 2).tocsc()


@dataclass
class Curvature:
    """Mode and curvature of a compiled NumPyro model.

    Attributes
    ----------
    compiled : CompiledModel
    hyper : tuple of str
        Names of the latent sites that θ consists of.
    latent : tuple of str
        Those of x.
    """

    compiled: CompiledModel
    hyper: tuple[str, ...]
    latent: tuple[str, ...]
    template: dict
    _probes: _Probes | None = field(default=None, repr=False)

    @functools.cached_property
    def sizes(self) -> dict[str, int]:
        return {name: int(np.size(value)) for name, value in self.template.items()}

    @property
    def num_hyper(self) -> int:
        return sum(self.sizes[name] for name in self.hyper)

    @property
    def num_latent(self) -> int:
        return sum(self.sizes[name] for name in self.latent)

    def position(self, theta, x) -> dict:
        """The position that kernels move, of θ and x."""
        found, values = {}, {self.hyper: theta, self.latent: x}
        for names, flat in values.items():
            start = 0
            for name in names:
                found[name] = jnp.reshape(flat[start : start + self.sizes[name]], np.shape(self.template[name]))
                start += self.sizes[name]
        return {name: found[name] for name in self.template}

    def order(self) -> np.ndarray:
        """Places in concatenate([θ, x]) of the entries of a position, as `jax.flatten_util.ravel_pytree` orders them."""
        places = np.arange(self.num_hyper + self.num_latent)
        return np.asarray(ravel_pytree(self.position(places[: self.num_hyper], places[self.num_hyper :]))[0], int)

    @functools.cached_property
    def _functions(self):
        def potential(theta, x):
            return self.compiled.potential_fn(self.position(theta, x))

        def slope(theta, x):
            return jax.grad(potential, argnums=1)(theta, x)

        def product(theta, x, vectors):
            return jax.vmap(lambda v: jax.jvp(lambda y: slope(theta, y), (x,), (v,))[1])(vectors)

        value_and_slope = jax.value_and_grad(potential, argnums=1)
        of_many = jax.jit(jax.vmap(value_and_slope, (None, 0)))
        return jax.jit(value_and_slope), jax.jit(product), of_many

    def value_and_slope(self, theta, x) -> tuple[float, np.ndarray]:
        """−log p(x, θ, y) up to a constant, and its gradient in x."""
        value, slope = self._functions[0](*_arrays(theta, x))
        return float(value), np.asarray(slope, float)

    def values_and_slopes(self, theta, xs) -> tuple[np.ndarray, np.ndarray]:
        """The same at every row of ``xs``."""
        values, slopes = self._functions[2](*_arrays(theta, xs))
        return np.asarray(values, float), np.asarray(slopes, float)

    def products(self, theta, x, vectors) -> np.ndarray:
        """H V of the rows of ``vectors``."""
        return np.asarray(self._functions[1](*_arrays(theta, x, vectors)), float)

    def hessian(self, theta, x) -> sparse.csc_matrix:
        """H in x, from one product for each color of its graph."""
        if self._probes is None:
            self._probes = self._found(theta, x)
        return self._probes.matrix(self.products(theta, x, self._probes.seeds))

    def _found(self, theta, x) -> _Probes:
        """Where H may differ from zero, and vectors whose products with it tell its entries apart.

        Assumed are the cliques of every field, equal places of sites of equal size, and scalars with everything; products
        with random vectors decide whether that is all. Where it is not, every column is its own group.
        """
        n, wide = self.num_latent, self._wide()
        pattern = self._assumed(wide)
        groups = [np.array([k]) for k in wide]
        groups += [np.flatnonzero(of) for of in _told_apart(pattern, wide)]
        found = _Probes.of(pattern, groups, wide)
        random = np.random.default_rng(0).normal(size=(2, n))
        products = self.products(theta, x, random)
        away = found.matrix(self.products(theta, x, found.seeds)) @ random.T - products.T
        if np.abs(away).max() < PROBE * _epsilon() * np.abs(products).max():
            return found
        if n > MAX_DENSE:
            raise SamplingError(
                "no_curvature",
                f"the {n} latent variables interact beyond the cliques of their fields, and a dense Hessian is taken up to "
                f"{MAX_DENSE}. {OTHERWISE}",
            )
        return _Probes.of(sparse.csc_matrix(np.ones((n, n))), [np.array([k]) for k in range(n)], wide)

    def _wide(self) -> np.ndarray:
        """Places in x of scalars, which may interact with everything."""
        start, wide = 0, []
        for name in self.latent:
            if self.sizes[name] == 1:
                wide.append(start)
            start += self.sizes[name]
        return np.array(wide, int)

    def _assumed(self, wide: np.ndarray) -> sparse.csc_matrix:
        n, start, starts = self.num_latent, 0, {}
        for name in self.latent:
            starts[name] = start
            start += self.sizes[name]
        pairs = [np.stack([np.arange(n)] * 2)]
        for name, model in self.compiled.fields.items():
            if name not in starts or self.sizes[name] != model.lattice.num_sites:
                continue  # copies of a field under a plate: left to the probes
            for form in model.forms:
                for i, j in itertools.combinations(range(form.cliques.shape[1]), 2):
                    pairs.append(starts[name] + form.cliques[:, [i, j]].T)
        for one, two in itertools.combinations(self.latent, 2):
            if self.sizes[one] == self.sizes[two] > 1:
                each = np.arange(self.sizes[one])
                pairs.append(np.stack([starts[one] + each, starts[two] + each]))
        for k in wide:
            pairs.append(np.stack([np.full(n, k), np.arange(n)]))
        rows, columns = np.concatenate(pairs, axis=1)
        ones = np.ones(2 * len(rows))
        both = sparse.csc_matrix((ones, (np.r_[rows, columns], np.r_[columns, rows])), shape=(n, n))
        both.data[:] = 1.0
        return both

    @call_checked
    def mode(self, theta, start=None) -> Mode:
        """The mode of x given θ by Newton's method with a line search.

        Raises
        ------
        SamplingError
            If there is none within 50 steps, or H is not positive definite there.
        """
        x = np.zeros(self.num_latent) if start is None else np.asarray(start, float)
        value, slope = self.value_and_slope(theta, x)
        for _ in range(MAX_NEWTON):
            hessian = self.hessian(theta, x)
            factors = factorized(hessian)
            step = -factors.solve(slope)
            gain = -float(slope @ step)
            if gain < 2 * max(DECREASE, 10 * _epsilon() * abs(value)):
                return Mode(x, value, hessian, factors)
            x, value, slope = self._along(theta, x, value, slope, step, gain)
        raise SamplingError(
            "no_mode", f"Newton's method found no mode of the latent fields in {MAX_NEWTON} steps. {OTHERWISE}"
        )

    def _along(self, theta, x, value, slope, step, gain):
        """A step that lowers −log p, the whole one if it does; near the mode, where rounding hides that, the whole one."""
        for length in 0.5 ** np.arange(20):
            there = self.value_and_slope(theta, x + length * step)
            if np.isfinite(there[0]) and there[0] <= value - 1e-4 * length * gain + 10 * _epsilon() * abs(value):
                return x + length * step, *there
        there = self.value_and_slope(theta, x + step)
        if gain < NEAR and np.isfinite(there[0]):
            return x + step, *there
        raise SamplingError(
            "no_mode", f"no step along Newton's direction lowers the potential of the fields. {OTHERWISE}"
        )

    def doubt(self, theta, mode: Mode) -> str:
        """Why there may be modes of x beside this one; empty if Newton's method returns to it from far away on all sides."""
        noise = np.random.default_rng(0).normal(size=(1 if self.num_latent > LARGE else NUM_STARTS, self.num_latent))
        noise *= FAR * np.sqrt(self.num_latent) / np.linalg.norm(noise, axis=1, keepdims=True)
        away = mode.factors.draw(noise)
        starts = [-mode.x, *(mode.x + away), *(mode.x - away)]
        for start in starts:
            try:
                found = self.mode(theta, start)
            except SamplingError:
                return "the posterior of the fields is not log-concave: it may have other modes"
            away = found.x - mode.x
            if away @ (mode.hessian @ away) > 1.0:
                return "the posterior of the fields has several modes"
        return ""

    @functools.cached_property
    def peak(self) -> tuple[np.ndarray, np.ndarray, Mode]:
        """θ at the maximum of its Laplace marginal, the covariance of θ there, and the mode of x."""
        start = {"x": np.zeros(self.num_latent)}

        def negative(theta):
            found = self.mode(theta, start["x"])
            start["x"] = found.x
            return -found.log_marginal

        if not self.hyper:
            return np.zeros(0), np.zeros((0, 0)), self.mode(np.zeros(0))
        first = np.zeros(self.num_hyper)
        noise = _epsilon() * max(1.0, abs(negative(first)))
        options = {"gtol": 0.1, "eps": max(1e-4, noise ** (1 / 3))}
        theta = scipy.optimize.minimize(negative, first, method="BFGS", options=options).x
        precision = _second_differences(negative, theta, max(0.05, noise**0.25))
        values, vectors = np.linalg.eigh(precision)
        if not values.min() > 0:
            raise SamplingError(
                "no_mode",
                "the Laplace marginal of the constrained variables has no maximum, or none that is seen in this precision "
                f"(JAX_ENABLE_X64=1 sets float64). {OTHERWISE}",
            )
        return theta, vectors @ np.diag(1 / values) @ vectors.T, self.mode(theta, start["x"])

    def joint_precision(self) -> sparse.csc_matrix:
        """Precision of (θ, x) near the peak: x given θ is N(x* + J(θ − θ*), H⁻¹), θ is N(θ*, Σ).

        It is that of a normal law whose marginal of θ is the Laplace one: the Hessian of −log p at the joint mode would be
        another, since a field with a free scale has its joint mode at scale 0.
        """
        theta, covariance, mode = self.peak
        if not self.hyper:
            return mode.hessian
        columns = []
        for k, width in enumerate(np.sqrt(np.diag(covariance))):
            step = np.eye(len(theta))[k] * width / 2
            columns.append((self.mode(theta + step, mode.x).x - self.mode(theta - step, mode.x).x) / width)
        slopes = np.stack(columns, axis=1)
        cross = mode.hessian @ slopes
        corner = np.linalg.inv(covariance) + slopes.T @ cross
        blocks = [[sparse.csc_matrix(corner), sparse.csc_matrix(-cross.T)], [sparse.csc_matrix(-cross), mode.hessian]]
        return sparse.bmat(blocks, format="csc")


def _arrays(*values):
    return (jnp.asarray(value, jnp.result_type(float)) for value in values)


def _epsilon() -> float:
    """Of the precision of the run."""
    return float(jnp.finfo(jnp.result_type(float)).eps)


def factorized(hessian: sparse.csc_matrix) -> Factors:
    """The factors of H; an error if it is not positive definite."""
    factors = factors_of(hessian)
    if factors is None:
        text = "the Hessian of the latent fields is not positive definite on the way to their mode: the posterior has"
        raise SamplingError(
            "no_mode", f"{text} several modes, or directions that neither prior nor data fix. {OTHERWISE}"
        )
    return factors


def _told_apart(pattern: sparse.csc_matrix, wide: np.ndarray) -> list[np.ndarray]:
    """Masks of columns of one color: no two of them share a row, but for the rows of ``wide``, which are known by symmetry."""
    n = pattern.shape[0]
    narrow = np.setdiff1d(np.arange(n), wide)
    inner = pattern[narrow][:, narrow].tocsr()
    inner.setdiag(0)
    inner.eliminate_zeros()
    color = greedy_colors(inner.indptr, inner.indices, distance=2)
    masks = []
    for k in range(color.max(initial=-1) + 1):
        mask = np.zeros(n, bool)
        mask[narrow[color == k]] = True
        masks.append(mask)
    return masks


def _second_differences(function, at: np.ndarray, step: float) -> np.ndarray:
    """The Hessian of a function of few variables."""
    n, unit = len(at), np.eye(len(at)) * step
    here = function(at)
    plus, minus = [function(at + e) for e in unit], [function(at - e) for e in unit]
    found = np.empty((n, n))
    for i in range(n):
        found[i, i] = (plus[i] - 2 * here + minus[i]) / step**2
        for j in range(i):
            mixed = function(at + unit[i] + unit[j]) - plus[i] - plus[j] + here
            mixed += function(at - unit[i] - unit[j]) - minus[i] - minus[j] + here
            found[i, j] = found[j, i] = mixed / (2 * step**2)
    return found


@call_checked
def curvature_of(compiled: CompiledModel) -> Curvature:
    """The curvature of a compiled NumPyro model.

    Raises
    ------
    SamplingError
        If it has more than eight constrained latent variables, or no others.
    """
    template = compiled.initial_position(jax.random.key(0))
    constrained = compiled.constrain(template)
    real = tuple(
        name
        for name, value in template.items()
        if np.shape(constrained[name]) == np.shape(value) and np.array_equal(constrained[name], value)
    )
    found = Curvature(compiled, tuple(name for name in template if name not in real), real, template)
    if not real:
        raise SamplingError("no_curvature", f"all latent variables are constrained, and there is no field. {OTHERWISE}")
    if found.num_hyper > MAX_HYPERPARAMETERS:
        raise SamplingError(
            "no_curvature",
            f"the model has {found.num_hyper} constrained latent variables, and {MAX_HYPERPARAMETERS} can be treated apart "
            f"from its fields. {OTHERWISE}",
        )
    return found
