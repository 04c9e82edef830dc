"""Fields of disease mapping: proper CAR, Leroux and BYM2 priors on any graph, with islands and several components.

Sources: J. Besag, J. York and A. Mollié, Ann. Inst. Stat. Math. 43 (1991) 1; B. G. Leroux, X. Lei and N. Breslow, in
Statistical Models in Epidemiology (Springer, 2000) 179; A. Riebler, S. H. Sørbye, D. Simpson and H. Rue, Stat. Methods Med.
Res. 25 (2016) 1145; A. Freni-Sterrantino, M. Ventrucci and H. Rue, Spat. Spatio-temporal Epidemiol. 26 (2018) 25.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.scipy.linalg import solve_triangular
from numpyro import distributions as dist

from ..energy.exact.gaussian import DENSE_LIMIT
from ..errors import ArgumentError
from ..errors.arguments import call_checked
from ..lattice.frozen import Lattice
from ..model.families import gaussian
from ..model.term import is_concrete
from .gibbs_field import GibbsField

__all__ = ["IntrinsicField", "bym2", "leroux", "proper_car", "scaling_factors"]


class _Components(NamedTuple):
    """Connected components of a graph: the number of that of every site, and their sizes."""

    of_site: np.ndarray
    sizes: np.ndarray

    @property
    def is_island(self) -> np.ndarray:
        """Of every site."""
        return self.sizes[self.of_site] == 1


@functools.lru_cache(maxsize=16)
def _components(lattice: Lattice) -> _Components:
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    n, edges = lattice.num_sites, lattice.edges
    graph = csr_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(n, n))
    _, of_site = connected_components(graph, directed=False)
    return _Components(of_site, np.bincount(of_site))


def _dense(lattice: Lattice) -> tuple[np.ndarray, np.ndarray]:
    """Adjacency matrix and degrees."""
    if lattice.num_sites > DENSE_LIMIT:
        got, fix = str(lattice.num_sites), "Eigenvalues of dense matrices of this size take too long."
        raise ArgumentError("lattice", f"at most {DENSE_LIMIT} sites", got, fix, reason="too_large")
    adjacency = np.zeros((lattice.num_sites,) * 2)
    adjacency[lattice.edges[:, 0], lattice.edges[:, 1]] = 1
    return adjacency + adjacency.T, lattice.degree.astype(float)


@functools.lru_cache(maxsize=16)
def _laplacian_eigenvalues(lattice: Lattice) -> np.ndarray:
    adjacency, degree = _dense(lattice)
    return np.maximum(np.linalg.eigvalsh(np.diag(degree) - adjacency), 0.0)


@functools.lru_cache(maxsize=16)
def _normalized_eigenvalues(lattice: Lattice) -> np.ndarray:
    """Eigenvalues of D^(−1/2) A D^(−1/2); zero for islands."""
    adjacency, degree = _dense(lattice)
    root = np.sqrt(np.maximum(degree, 1))
    return np.linalg.eigvalsh(adjacency / np.outer(root, root))


@functools.lru_cache(maxsize=16)
def _scaling(lattice: Lattice) -> np.ndarray:
    adjacency, degree = _dense(lattice)
    laplacian, components = np.diag(degree) - adjacency, _components(lattice)
    factors = np.ones(lattice.num_sites)
    for number in np.flatnonzero(components.sizes > 1):
        sites = np.flatnonzero(components.of_site == number)
        inverse = np.linalg.inv(laplacian[np.ix_(sites, sites)] + 1 / len(sites))  # the mean has eigenvalue one
        factors[sites] = np.exp(np.mean(np.log(np.diag(inverse) - 1 / len(sites))))
    return factors


@call_checked
def scaling_factors(lattice: Lattice) -> np.ndarray:
    """Geometric means of the variances of the intrinsic field, component by component, for every site its component's.

    The intrinsic field of unit precision, S = Σ_⟨ij⟩ (φ_i − φ_j)²/2 with zero mean on every component, has the generalized
    inverse of the Laplacian as covariance. Multiplying the precision of every component by its factor makes the geometric
    mean of its variances one, so that a scale means the same on any graph (Riebler et al. 2016). Islands have 1.

    Returns
    -------
    array, shape (num_sites,)

    Raises
    ------
    ArgumentError
        For more than 4096 sites.

    Examples
    --------
    >>> import networkx as nx, phi4ppl as p4
    >>> graph = nx.Graph([("a", "b"), ("c", "d"), ("d", "e")])
    >>> graph.add_node("island")
    >>> p4.scaling_factors(p4.lattice.from_networkx(graph)).round(4)
    array([0.25  , 0.25  , 0.4093, 0.4093, 0.4093, 1.    ])
    """
    return _scaling(_require_lattice(lattice)).copy()


@call_checked
def proper_car(lattice: Lattice, *, alpha: float | jax.Array, precision: float | jax.Array = 1.0) -> GibbsField:
    """Proper conditional autoregression, precision matrix τ(D − αA) with adjacency A and degrees D.

    S = τ [Σ_i d_i φ_i²/2 − α Σ_⟨ij⟩ φ_i φ_j]: given the rest, φ_i is normal with mean α times that of its neighbors and
    variance 1/(τ d_i). An island is normal with variance 1/τ. log Z is exact, from eigenvalues computed once for a graph, so
    both parameters may be random.

    Parameters
    ----------
    lattice : Lattice
        Of up to 4096 sites.
    alpha : float
        Above −1 and below 1; at 1 the field is intrinsic.
    precision : float
        τ > 0.

    Returns
    -------
    GibbsField
        Event shape ``lattice.field_shape``.

    Raises
    ------
    ArgumentError
        For parameters out of range, as far as they are numbers, and lattices with antiperiodic axes.

    Examples
    --------
    >>> import jax.numpy as jnp, phi4ppl as p4
    >>> field = p4.proper_car(p4.lattice.chain(2, periodic=False), alpha=0.5, precision=1.0)
    >>> round(float(field.log_prob(jnp.array([1.0, 0.0]))), 4)  # −log 2π + log(1 − ¼)/2 − ½
    -2.4817
    """
    _require_range("alpha", alpha, -1.0, 1.0)
    _require_range("precision", precision, 0.0, np.inf)
    degree = np.maximum(_require_lattice(lattice).degree, 1)
    eigenvalues, constant = _normalized_eigenvalues(lattice), np.log(degree).sum()
    model = gaussian(lattice, w=precision * alpha, a=precision * degree / 2)

    def log_partition(couplings):
        log_det = constant + lattice.num_sites * jnp.log(precision) + jnp.sum(jnp.log1p(-alpha * eigenvalues))
        return (lattice.num_sites * np.log(2 * np.pi) - log_det) / 2

    return GibbsField(model, log_partition=log_partition)


@call_checked
def leroux(lattice: Lattice, *, rho: float | jax.Array, precision: float | jax.Array = 1.0) -> GibbsField:
    """Leroux field, precision matrix τ[ρ(D − A) + (1 − ρ)1]: independent sites at ρ = 0, the intrinsic field at ρ = 1.

    S = τ [ρ Σ_⟨ij⟩ (φ_i − φ_j)²/2 + (1 − ρ) Σ_i φ_i²/2]. An island is normal with variance 1/(τ(1 − ρ)), as the formula says.
    log Z is exact, from eigenvalues computed once for a graph, so both parameters may be random.

    Parameters
    ----------
    lattice : Lattice
        Of up to 4096 sites.
    rho : float
        From 0 to below 1.
    precision : float
        τ > 0.

    Returns
    -------
    GibbsField
        Event shape ``lattice.field_shape``.

    Raises
    ------
    ArgumentError
        For parameters out of range, as far as they are numbers, and lattices with antiperiodic axes.

    Examples
    --------
    >>> import jax.numpy as jnp, phi4ppl as p4
    >>> field = p4.leroux(p4.lattice.chain(2, periodic=False), rho=0.5)
    >>> round(float(field.log_prob(jnp.array([1.0, 0.0]))), 4)  # −log 2π + log(¾)/2 − ½
    -2.4817
    """
    _require_range("rho", rho, 0.0, 1.0, closed="low")
    _require_range("precision", precision, 0.0, np.inf)
    eigenvalues = _laplacian_eigenvalues(_require_lattice(lattice))
    model = gaussian(lattice, w=precision * rho, a=precision * (rho * lattice.degree + 1 - rho) / 2)

    def log_partition(couplings):
        log_det = lattice.num_sites * jnp.log(precision) + jnp.sum(jnp.log1p(rho * (eigenvalues - 1)))
        return (lattice.num_sites * np.log(2 * np.pi) - log_det) / 2

    return GibbsField(model, log_partition=log_partition)


@dataclass(frozen=True)
class _IntrinsicLogZ:
    """log Z of an `IntrinsicField`, which has no free couplings; equal on equal lattices, as structure that JAX compares."""

    lattice: Lattice

    def __call__(self, couplings) -> float:
        return _intrinsic_log_z(self.lattice)


class IntrinsicField(GibbsField):
    """The scaled intrinsic field of `bym2`, with a normal distribution of its own for the mean of every component.

    φ = u + Σ_c m_c 1_c with the intrinsic field u, of zero mean on every component and geometric mean one of its variances,
    and independent m_c ~ N(0, 1/n_c), n_c sites. `deviations` takes the means off again: they only make the density of φ
    proper and normalized. Islands are standard normal, and keep their value.
    """

    def __init__(self, lattice: Lattice, *, validate_args=None):
        factors, islands = _scaling(_require_lattice(lattice)), _components(lattice).is_island
        degree = lattice.degree.astype(float)
        model = gaussian(lattice, w=factors[lattice.edges[:, 0]], a=(factors * degree + islands) / 2)
        super().__init__(model, log_partition=_IntrinsicLogZ(lattice), validate_args=validate_args)

    def _log_prob(self, value):
        means, sizes = self._means(value)
        return super()._log_prob(value) - jnp.sum(means**2 * sizes, axis=-1) / 2

    def _means(self, value) -> tuple[jax.Array, np.ndarray]:
        """Means over the components of more than one site, shape (…, components), and their sizes."""
        components, shape = _components(self.model.lattice), self.model.field_shape
        flat = jnp.asarray(value).reshape(*jnp.shape(value)[: jnp.ndim(value) - len(shape)], -1)
        kept = np.flatnonzero(components.sizes > 1)
        averages = (components.of_site[:, None] == kept) / components.sizes[kept]
        return flat @ jnp.asarray(averages, flat.dtype), components.sizes[kept]

    def deviations(self, value) -> jax.Array:
        """φ less the mean of its component; islands as they are."""
        components = _components(self.model.lattice)
        kept = np.flatnonzero(components.sizes > 1)
        spread = (kept[:, None] == components.of_site).astype(float)
        means = self._means(value)[0]
        return value - (means @ jnp.asarray(spread, means.dtype)).reshape(jnp.shape(value))

    def sample(self, key, sample_shape=()):
        """Exact draws: of the intrinsic field plus its means, by a dense factor."""
        factor = np.linalg.cholesky(_intrinsic_precision(self.model.lattice)).T
        white = jax.random.normal(key, (self.model.lattice.num_sites, math.prod(sample_shape)))
        field = solve_triangular(jnp.asarray(factor, white.dtype), white, lower=False)
        return field.T.reshape(*sample_shape, *self.event_shape)


def _intrinsic_precision(lattice: Lattice) -> np.ndarray:
    """The scaled Laplacian, with eigenvalue one for the mean of every component."""
    adjacency, degree = _dense(lattice)
    components = _components(lattice)
    same = components.of_site[:, None] == components.of_site
    return _scaling(lattice)[:, None] * (np.diag(degree) - adjacency) + same / components.sizes[components.of_site]


@functools.lru_cache(maxsize=16)
def _intrinsic_log_z(lattice: Lattice) -> float:
    log_det = np.linalg.slogdet(_intrinsic_precision(lattice))[1]
    return float((lattice.num_sites * np.log(2 * np.pi) - log_det) / 2)


@call_checked
def bym2(name: str, lattice: Lattice, *, scale: float | jax.Array, share: float | jax.Array) -> jax.Array:
    """The BYM2 effect of areas, σ(√ψ u + √(1 − ψ) v), inside a NumPyro model.

    u is the intrinsic field, scaled so that the geometric mean of its variances is one on every connected component, with
    zero mean there; v_i are standard normal. So σ is the standard deviation of a typical area, and ψ the share of its variance
    that is spatial, on any graph. On an island u_i is standard normal too: it has variance σ² as every other area
    (Freni-Sterrantino et al. 2018). The effect has no level of its own: the model needs an intercept.

    Parameters
    ----------
    name : str
        Of the effect, a deterministic site; its latent sites are ``name_spatial`` (an `IntrinsicField`) and ``name_local``.
    lattice : Lattice
        Of up to 4096 sites.
    scale : float
        σ > 0, usually a sample site.
    share : float
        ψ from 0 to 1, usually a sample site.

    Returns
    -------
    array of shape ``lattice.field_shape``

    Raises
    ------
    ArgumentError
        For parameters out of range, as far as they are numbers, and lattices with antiperiodic axes.

    Examples
    --------
    >>> import numpyro, numpyro.distributions as dist, phi4ppl as p4
    >>> areas = p4.lattice.chain(5, periodic=False)
    >>> def model(cases, expected):
    ...     level = numpyro.sample("level", dist.Normal(0.0, 1.0))
    ...     scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    ...     share = numpyro.sample("share", dist.Uniform(0.0, 1.0))
    ...     effect = p4.bym2("effect", areas, scale=scale, share=share)
    ...     numpyro.sample("cases", dist.Poisson(expected * jnp.exp(level + effect)).to_event(1), obs=cases)
    """
    if not isinstance(name, str) or not name:
        raise ArgumentError("name", "the name of the effect", repr(name))
    _require_range("scale", scale, 0.0, np.inf)
    _require_range("share", share, 0.0, 1.0, closed="low high")
    prior = IntrinsicField(lattice)
    spatial = prior.deviations(numpyro.sample(f"{name}_spatial", prior))
    shape = lattice.field_shape
    local = numpyro.sample(f"{name}_local", dist.Normal(0.0, 1.0).expand(shape).to_event(len(shape)))
    return numpyro.deterministic(name, scale * (jnp.sqrt(share) * spatial + jnp.sqrt(1 - share) * local))


def _require_lattice(lattice) -> Lattice:
    if not isinstance(lattice, Lattice):
        expected, fix = "a Lattice", "Make one with phi4ppl.lattice.from_networkx(graph)."
        raise ArgumentError("lattice", expected, type(lattice).__name__, fix)
    if lattice.sign_kinds:  # (φ_i + φ_j)² across the boundary: another Laplacian
        expected, got = "a lattice without antiperiodic axes", repr(lattice)
        raise ArgumentError("lattice", expected, got, "Use phi4ppl.gaussian with GibbsField.", reason="antiperiodic")
    return lattice


def _require_range(name: str, value, low: float, high: float, *, closed: str = "") -> None:
    """Reject numbers outside an interval, which has the ends that ``closed`` names; random values are left to their priors."""
    if np.ndim(value) != 0:
        raise ArgumentError(name, "one number", f"shape {np.shape(value)}", reason="shape")
    if not is_concrete(value):
        return
    left, right = "from" if "low" in closed else "above", "to" if "high" in closed else "and below"
    expected = f"a number above {low:g}" if high == np.inf else f"a number {left} {low:g} {right} {high:g}"
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ArgumentError(name, expected, repr(value)) from error
    inside = (low <= number if "low" in closed else low < number) and (
        number <= high if "high" in closed else number < high
    )
    if not inside:
        raise ArgumentError(name, expected, f"{number:g}", reason="range")
