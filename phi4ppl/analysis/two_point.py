"""Two-point functions of one field: by momentum, by distance, between time slices, by graph distance and Laplacian mode.

On a torus of V sites, A = V/T of them in each of T time slices, with φ̂(k) = Σ_x φ(x) e^{−ikx} and φ̄(t) the mean over a slice:

* structure factor ``S(k) = |φ̂(k)|²/V``, averaged over shells of k̂ = (Σ_μ 4 sin²(k_μ/2))^½, on the triangular lattice
  k̂ = (⅔ Σ_e 4 sin²(k·e/2))^½ with its three bonds e: so that k̂ → k at long wavelengths, in units of one bond;
* correlation function G(r) = V⁻¹ Σ_x φ(x) φ(x + r), by FFT;
* time-slice correlator C(t) = A T⁻¹ Σ_s φ̄(s) φ̄(s + t), so that Σ_t C(t) = Σ_r G(r) = S(0) = V m².

All are quadratic in the field, so that each field is measured by itself, and means over draws are the two-point functions.
Along an open axis the sums run over the pairs that exist. Equal lattices have the same functions: programs are found again.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ArgumentError
from ..lattice.frozen import Lattice
from ..lattice.labels import field_dims
from .cluster_estimators import averaged_over_signs, improved

__all__ = ["TWO_POINT", "TwoPoint", "dims_of", "two_point"]

MAX_SITES = 1024  # of graphs whose pairs of sites, or eigenvectors, are listed


class TwoPoint(NamedTuple):
    """A function of one field, and where its values stand.

    Attributes
    ----------
    measure : callable
        Of one field of shape ``lattice.field_shape``.
    dims : tuple of str
        Names of the axes of what it returns.
    points : tuple of arrays
        The coordinate along each of them.
    period : int or None
        Of the coordinate, for distances along periodic axes.
    """

    measure: Callable
    dims: tuple[str, ...] = ()
    points: tuple[np.ndarray, ...] = ()
    period: int | None = None


def two_point(name: str, lattice: Lattice) -> TwoPoint:
    """The two-point function ``name``, one of `TWO_POINT`, on a lattice.

    Raises
    ------
    ArgumentError
        If it is not defined on this lattice.
    """
    return _made(name, lattice, lattice.name)  # equal graphs may differ in the signs of their edges, which names tell


def dims_of(names, lattice: Lattice) -> tuple[dict[str, list[str]], dict[str, np.ndarray]]:
    """Dimensions of the named two-point functions by name, and coordinates along them."""
    found = {name: two_point(name, lattice) for name in names}
    coords = {d: x for each in found.values() for d, x in zip(each.dims, each.points, strict=True)}
    return {name: list(each.dims) for name, each in found.items() if each.dims}, coords


@functools.lru_cache(maxsize=256)
def _made(name: str, lattice: Lattice, words: str) -> TwoPoint:
    made = TWO_POINT[name][1](lattice)
    made.measure.coupling_free = True  # type: ignore[attr-defined]  # programs that record only these are shared by all couplings
    return made


# --- regular lattices


def _require_grid(what: str, lattice: Lattice, *, periodic: bool = False) -> tuple[int, ...]:
    """The shape of a regular lattice on which ``what`` is defined."""
    fix = "On any graph there are graph_distance_correlation and laplacian_mode_correlation."
    regular = lattice.shape is not None and lattice.periodic is not None
    if not regular or "antiperiodic" in lattice.name:
        raise ArgumentError(what, "a regular lattice, open or periodic", lattice.name, fix, reason="lattice")
    if periodic and not all(lattice.periodic):
        raise ArgumentError(what, "a lattice that is periodic along all axes", lattice.name, fix, reason="open")
    return lattice.shape


def _main_axes(lattice: Lattice) -> tuple[int, ...]:
    """The longest axes, along which masses and correlation lengths are measured: periodic ones, if some of these are."""
    shape, periodic = lattice.shape or (), lattice.periodic or ()
    axes = [k for k, n in enumerate(shape) if n == max(shape)]
    return tuple(k for k in axes if periodic[k]) or tuple(axes)


def _shells(distance: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shell of every element, by multiples of ``width``; mean distance and number of elements of each."""
    _, shell = np.unique(np.rint(distance.reshape(-1) / width - 1e-9), return_inverse=True)
    count = np.bincount(shell)
    return shell, np.bincount(shell, distance.reshape(-1)) / count, count


def _is_triangular(lattice: Lattice) -> bool:
    return lattice.layout_hint == "triangular"


def lattice_momenta(lattice: Lattice) -> np.ndarray:
    """k̂ of every momentum of a torus, in the order of an FFT."""
    phases = np.meshgrid(*(2 * np.pi * np.arange(n) / n for n in lattice.shape or ()), indexing="ij")
    bonds, scale = ([*phases, sum(phases)], 2 / 3) if _is_triangular(lattice) else (phases, 1.0)
    return np.sqrt(scale * sum(4 * np.sin(phase / 2) ** 2 for phase in bonds))


def smallest_lattice_momentum(lattice: Lattice) -> float:
    """k̂ of the wave along one of the longest axes."""
    axis = _main_axes(lattice)[0]
    momenta = lattice_momenta(lattice)
    return float(momenta[tuple(int(k == axis) for k in range(momenta.ndim))])


def momentum_shells(lattice: Lattice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shell of every momentum, k̂ of the shells, and their sizes; they are π/L wide, L being the longest side."""
    return _shells(lattice_momenta(lattice), np.pi / max(lattice.shape or (1,)))


def _structure_factor(lattice: Lattice) -> TwoPoint:
    _require_grid("structure_factor", lattice, periodic=True)
    shell, momenta, count = momentum_shells(lattice)

    def structure_factor(phi):
        power = _power(jnp.fft.fftn(phi)) / phi.size
        return jax.ops.segment_sum(power.reshape(-1), shell, len(count)) / jnp.asarray(count, phi.dtype)

    return TwoPoint(structure_factor, ("momentum",), (momenta,))


def _smallest_momentum(lattice: Lattice) -> TwoPoint:
    shape = _require_grid("smallest_momentum", lattice, periodic=True)
    axes = _main_axes(lattice)
    phase = 2 * np.pi * np.arange(max(shape)) / max(shape)

    def smallest_momentum(phi):
        waves = jnp.asarray(np.stack([np.cos(phase), np.sin(phase)]), phi.dtype)
        sums = [waves @ phi.sum(axis=tuple(k for k in range(phi.ndim) if k != axis)) for axis in axes]
        return sum(jnp.sum(s**2) for s in sums) / (len(axes) * phi.size)

    return TwoPoint(smallest_momentum)


def _power(wave):
    return wave.real**2 + wave.imag**2


def _pairs(phi, shape: tuple[int, ...], periodic: tuple[bool, ...]):
    """Σ_x φ(x) φ(x + r) over the pairs that exist, for all r: zeros keep open axes from wrapping around."""
    padded = [n if p else 2 * n for n, p in zip(shape, periodic, strict=True)]
    power = _power(jnp.fft.rfftn(phi, padded))
    return jnp.fft.irfftn(power.astype(jnp.result_type(phi.dtype, jnp.complex64)), padded)


def _number_of_pairs(shape: tuple[int, ...], periodic: tuple[bool, ...]) -> np.ndarray:
    """How many pairs `_pairs` sums over: fewer at distance on an open axis, where negative shifts are in the second half."""
    counts = [
        np.full(n, n) if p else np.r_[n - np.arange(n), 0, np.arange(1, n)]
        for n, p in zip(shape, periodic, strict=True)
    ]
    return functools.reduce(np.multiply.outer, counts)


def _distances(lattice: Lattice) -> np.ndarray:
    """Length of the shortest path straight across the lattice, by place in what `_pairs` returns."""
    shape, periodic = lattice.shape or (), lattice.periodic or ()
    padded = [n if p else 2 * n for n, p in zip(shape, periodic, strict=True)]
    shifts = [np.where(2 * np.arange(n) > n, np.arange(n) - n, np.arange(n)) for n in padded]
    images = [(0, n, -n) if p else (0,) for n, p in zip(shape, periodic, strict=True)]
    squares = []
    for image in itertools.product(*images):
        moved = np.meshgrid(*(s + i for s, i in zip(shifts, image, strict=True)), indexing="ij")
        oblique = moved[0] * moved[1] if _is_triangular(lattice) else 0  # axes at 120 degrees
        squares.append(sum(m**2 for m in moved) - oblique)
    return np.sqrt(np.min(squares, axis=0))


def _correlation_function(lattice: Lattice) -> TwoPoint:
    shape = _require_grid("correlation_function", lattice)
    periodic = lattice.periodic
    inside = tuple(slice(n) for n in shape)
    count = _number_of_pairs(shape, periodic)[inside]

    def correlation_function(phi):
        return _pairs(phi, shape, periodic)[inside] / jnp.asarray(count, phi.dtype)

    dims = tuple(f"{name}_shift" for name in field_dims(lattice)[0])
    return TwoPoint(correlation_function, dims, tuple(np.arange(n) for n in shape))


def _axis_correlation_function(lattice: Lattice) -> TwoPoint:
    shape = _require_grid("axis_correlation_function", lattice)
    axes, periodic = _main_axes(lattice), lattice.periodic
    n, wraps = max(shape), periodic[axes[0]]
    distances = np.arange(n // 2 + 1 if wraps else n)
    count = _number_of_pairs(shape, periodic)
    places = [tuple(slice(len(distances)) if k == axis else 0 for k in range(len(shape))) for axis in axes]

    def axis_correlation_function(phi):
        mean = _pairs(phi, shape, periodic)
        return sum(mean[at] / jnp.asarray(count[at], phi.dtype) for at in places) / len(axes)

    return TwoPoint(axis_correlation_function, ("distance",), (distances,), n if wraps else None)


def _radial_correlation_function(lattice: Lattice) -> TwoPoint:
    shape = _require_grid("radial_correlation_function", lattice)
    periodic = lattice.periodic
    count = _number_of_pairs(shape, periodic)
    some = np.flatnonzero(count.reshape(-1)).astype(np.int32)  # at a distance that occurs
    shell, radii, _ = _shells(_distances(lattice).reshape(-1)[some], 1.0)
    pairs = np.bincount(shell, count.reshape(-1)[some])

    def radial_correlation_function(phi):
        sums = _pairs(phi, shape, periodic).reshape(-1)[some]
        return jax.ops.segment_sum(sums, shell, len(radii)) / jnp.asarray(pairs, phi.dtype)

    return TwoPoint(radial_correlation_function, ("radius",), (radii,))


def _time_slice_correlator(lattice: Lattice) -> TwoPoint:
    shape = _require_grid("time_slice_correlator", lattice)
    axes = _main_axes(lattice)
    n, wraps = max(shape), lattice.periodic[axes[0]]
    times = np.arange(n // 2 + 1 if wraps else n)
    count = np.full(len(times), n) if wraps else n - times

    def time_slice_correlator(phi):
        area = phi.size // n
        slices = [phi.mean(axis=tuple(k for k in range(phi.ndim) if k != axis)) for axis in axes]
        sums = sum(_pairs(s, (n,), (wraps,)) for s in slices)[: len(times)]
        return area * sums / jnp.asarray(len(axes) * count, phi.dtype)

    return TwoPoint(time_slice_correlator, ("time",), (times,), n if wraps else None)


# --- any graph


def _require_small(what: str, lattice: Lattice) -> None:
    if lattice.num_sites > MAX_SITES:
        fix = "On a regular lattice take structure_factor and axis_correlation_function."
        raise ArgumentError(what, f"at most {MAX_SITES} sites", str(lattice.num_sites), fix, reason="too_large")


def _graph_distance_correlation(lattice: Lattice) -> TwoPoint:
    _require_small("graph_distance_correlation", lattice)
    from scipy.sparse.csgraph import shortest_path

    steps = shortest_path(_adjacency(lattice), unweighted=True, directed=False).reshape(-1)
    some = np.flatnonzero(np.isfinite(steps)).astype(np.int32)  # pairs in one component
    distances, shell = np.unique(steps[some].astype(int), return_inverse=True)
    count = np.bincount(shell)

    def graph_distance_correlation(phi):
        flat = phi.reshape(-1)
        products = (flat[:, None] * flat[None, :]).reshape(-1)[some]
        return jax.ops.segment_sum(products, shell, len(count)) / jnp.asarray(count, phi.dtype)

    return TwoPoint(graph_distance_correlation, ("graph_distance",), (distances,))


def _laplacian_mode_correlation(lattice: Lattice) -> TwoPoint:
    _require_small("laplacian_mode_correlation", lattice)
    adjacency = _adjacency(lattice).toarray()
    values, vectors = np.linalg.eigh(np.diag(adjacency.sum(axis=0)) - adjacency)
    starts = np.flatnonzero(np.diff(values, prepend=-np.inf) > 1e-8 * max(1.0, values[-1]))  # of degenerate ones
    count = np.diff([*starts, len(values)])
    shell = np.repeat(np.arange(len(starts)), count)

    def laplacian_mode_correlation(phi):
        power = (phi.reshape(-1) @ jnp.asarray(vectors, phi.dtype)) ** 2
        return jax.ops.segment_sum(power, shell, len(count)) / jnp.asarray(count, phi.dtype)

    means = np.add.reduceat(values, starts) / count
    return TwoPoint(laplacian_mode_correlation, ("eigenvalue",), (np.where(np.abs(means) < 1e-9, 0.0, means),))


# --- averages over the signs of clusters


def _improved(name: str, lattice: Lattice) -> TwoPoint:
    if name in ("m2", "m4"):
        return TwoPoint(improved(lattice, averaged_over_signs(name, lattice)))
    _require_grid(f"improved_{name}", lattice, periodic=True)
    plain = two_point(name, lattice)
    return plain._replace(measure=improved(lattice, averaged_over_signs(name, lattice, _main_axes(lattice))))


def _adjacency(lattice: Lattice):
    from scipy.sparse import csr_array

    i, j = lattice.edges.T
    ones = np.ones(2 * len(i))
    return csr_array((ones, (np.r_[i, j], np.r_[j, i])), shape=(lattice.num_sites,) * 2)


TWO_POINT: dict[str, tuple[str, Callable[[Lattice], TwoPoint]]] = {
    "structure_factor": ("S(k) = |Σ_x φ(x) e^{−ikx}|²/V, averaged over shells of k̂", _structure_factor),
    "smallest_momentum": ("S(2π/L), averaged over the longest axes", _smallest_momentum),
    "correlation_function": ("G(r) = (1/V) Σ_x φ(x) φ(x + r) for every r", _correlation_function),
    "axis_correlation_function": ("G(r) along the longest axes", _axis_correlation_function),
    "radial_correlation_function": ("G(r), averaged over shells of |r|", _radial_correlation_function),
    "time_slice_correlator": ("C(t) = Σ_x G(t, x), of the longest axes", _time_slice_correlator),
    "graph_distance_correlation": ("mean of φ_i φ_j over pairs at graph distance d", _graph_distance_correlation),
    "laplacian_mode_correlation": ("(u·φ)², averaged over the eigenvectors u of one eigenvalue of the graph Laplacian",
                                   _laplacian_mode_correlation),
    **{f"improved_{name}": (f"{what}, averaged over the signs of clusters", functools.partial(_improved, name))
       for name, what in {"m2": "m²", "m4": "m⁴", "smallest_momentum": "S(2π/L)",
                          "axis_correlation_function": "G(r) along the longest axes"}.items()},
}  # fmt: skip
"""Two-point functions by name: the formula, and what makes them on a lattice."""
