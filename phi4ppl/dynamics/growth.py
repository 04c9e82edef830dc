"""Domains that grow, and walkers that come back: sizes, exponents with errors, and return probabilities of runs of `evolve`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from ..analysis.least_squares import correlated_fit
from ..analysis.walls import WALLS
from ..errors import ArgumentError, Phi4pplWarning, warn
from ..errors.arguments import call_checked
from ..reports.numbers import value_with_error
from ..results.evolution_tree import GROUP
from ..results.settings import metadata

__all__ = ["Growth", "count_domains", "domain_size", "growth_exponent", "return_probability"]

MIN_REPLICAS = 4
MIN_RECORDS = 8
NUMBER = 24  # of the records that are fitted, evenly spaced in the logarithm of time
DRIFT = 3.0  # errors of their difference by which the exponent of late times may differ, unless it is within its own


@call_checked
def domain_size(tree: xr.DataTree) -> xr.DataArray:
    """V/A, the volume over the extent of the walls between the signs, at every time: the size of a domain up to a factor.

    A is the recorded ``interface_length`` or, on graphs and lines, ``wall_edges``. Replicas without a wall have an infinite
    size.

    Parameters
    ----------
    tree : DataTree
        Of `evolve` with ``observables=["interface_length"]`` or ``["wall_edges"]``.

    Returns
    -------
    DataArray of dimensions ``(replica, time)``

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> square = p4.lattice.square(32)
    >>> stripes = np.broadcast_to(np.sin(2 * np.pi * (np.arange(32) + 0.5) / 16), (32, 32))
    >>> process = p4.dynamics.Diffusion(square)
    >>> tree = p4.dynamics.evolve(process, stripes, time=1, every=0.5, observables=["interface_length"])
    >>> p4.dynamics.domain_size(tree).values.round(4)
    array([[8., 8., 8.]])
    """
    group = _group("tree", tree)
    names = [name for name in reversed(WALLS) if name in group]
    if not names:
        fix = "Evolve with observables=['interface_length'], or ['wall_edges'] on lines and graphs."
        raise ArgumentError("tree", f"a run with {' or '.join(WALLS)}", ", ".join(map(str, group)), fix, "walls")
    walls = group[names[0]].astype(float)
    return (metadata(tree)["lattice"]["num_sites"] / walls.where(walls > 0)).fillna(np.inf).rename("domain_size")


@call_checked
def count_domains(tree: xr.DataTree) -> xr.Dataset:
    """The number of domains, connected sets of sites of one sign (φ > 0, or not), and the share of the largest one.

    Parameters
    ----------
    tree : DataTree
        Of `evolve` on any lattice or graph, with the field.

    Returns
    -------
    Dataset of ``number`` and ``largest`` with dimensions ``(replica, time)``

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> ring = p4.lattice.chain(12)
    >>> start = np.where(np.isin(np.arange(12), [2, 3, 4, 8]), 1.0, -1.0)
    >>> tree = p4.dynamics.evolve(p4.dynamics.Diffusion(ring), start, time=1e-3, every=1e-3)
    >>> found = p4.dynamics.count_domains(tree).isel(replica=0, time=0)
    >>> int(found["number"]), round(float(found["largest"]), 3)
    (4, 0.417)
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    phi = _fields("tree", tree)
    edges = tree["constant_data"]["edges"].values if "edges" in tree["constant_data"] else np.zeros((0, 2), int)
    up = phi.values.reshape(*phi.shape[:2], -1) > 0
    number, largest = np.empty(phi.shape[:2], int), np.empty(phi.shape[:2])
    for place in np.ndindex(phi.shape[:2]):
        inside = edges[up[place][edges[:, 0]] == up[place][edges[:, 1]]]
        graph = csr_array((np.ones(len(inside)), tuple(inside.T)), shape=(up.shape[-1],) * 2)
        number[place], labels = connected_components(graph, directed=False)
        largest[place] = np.bincount(labels).max() / up.shape[-1]
    axes, coords = ("replica", "time"), {"time": phi["time"], "replica": phi["replica"]}
    return xr.Dataset({"number": (axes, number), "largest": (axes, largest)}, coords)


@dataclass(frozen=True, repr=False)
class Growth:
    """A fit of R(t) = A (t + t₀)^n.

    Attributes
    ----------
    exponent, error : float
        n, with its standard error by a jackknife over replicas.
    offset, offset_error : float
        t₀.
    late_exponent, late_error : float
        n of the second half of the times in logarithm, with the same t₀.
    window : tuple of float
        Times of the fit.
    warnings : tuple of str
        Where the exponent still moves within the window.
    """

    exponent: float
    error: float
    offset: float
    offset_error: float
    late_exponent: float
    late_error: float
    window: tuple[float, float]
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        n, t0, late = (
            value_with_error(*pair)
            for pair in (
                (self.exponent, self.error),
                (self.offset, self.offset_error),
                (self.late_exponent, self.late_error),
            )
        )
        first, last = self.window
        text = f"R ∝ (t + {t0})^n from t = {first:g} to {last:g}: n = {n}, {late} late"
        return "\n".join([text, *(f"  NOT RELIABLE: {each}" for each in self.warnings)])

    __repr__ = __str__


@call_checked
def growth_exponent(size: xr.DataArray, *, first: float, last: float | None = None) -> Growth:
    """The exponent n of R(t) = A (t + t₀)^n, with the error that replicas have of each other.

    Curved walls move by their curvature, so that R² grows linearly, from a start that is forgotten as t₀/t: n = ½ where the
    order is not conserved (S. M. Allen and J. W. Cahn, Acta Metall. 27 (1979) 1085), ⅓ where it is (I. M. Lifshitz and V. V.
    Slyozov, J. Phys. Chem. Solids 19 (1961) 35). A straight line through logarithms takes the t₀ for a smaller exponent.

    Parameters
    ----------
    size : DataArray of dimensions (replica, time)
        Of `domain_size`, or any other length; at least 4 replicas.
    first, last : float
        Times of the fit. Begin where walls are thin compared with domains, and end before domains see the size of the lattice.

    Returns
    -------
    Growth
        Times of one replica are not independent of each other: errors are those of a jackknife over replicas, of the whole fit.

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4, xarray as xr
    >>> t = np.arange(1.0, 101.0)
    >>> noise = 1 + 0.01 * np.random.default_rng(0).normal(size=(8, 1)) + 0 * t
    >>> size = xr.DataArray(2 * (t + 5) ** 0.5 * noise, dims=("replica", "time"), coords={"time": t})
    >>> fit = p4.dynamics.growth_exponent(size, first=5)
    >>> bool(abs(fit.exponent - 0.5) < 1e-3), bool(abs(fit.offset - 5) < 0.05)
    (True, True)
    """
    if not isinstance(size, xr.DataArray) or set(size.dims) != {"replica", "time"}:
        raise ArgumentError("size", "a DataArray of dimensions (replica, time)", type(size).__name__)
    size = size.transpose("replica", "time").sel(time=slice(first, last))
    times, values = size["time"].values.astype(float), size.values.astype(float)
    if len(values) < MIN_REPLICAS:
        raise ArgumentError("size", f"at least {MIN_REPLICAS} replicas", str(len(values)), reason="replicas")
    if len(times) < MIN_RECORDS or times[0] <= 0:
        got = f"{len(times)} records" if len(times) < MIN_RECORDS else f"time {times[0]:g}"
        raise ArgumentError("first", f"at least {MIN_RECORDS} records at times above 0", got, reason="records")
    if not np.isfinite(values).all() or not (values > 0).all():
        fix = "A domain has taken the whole lattice: end earlier (last), or evolve a larger one."
        raise ArgumentError("size", "finite positive lengths in the window", "others", fix, reason="finite")
    spaced = np.geomspace(times[0], times[-1], min(NUMBER, len(times)))
    chosen = np.unique(np.abs(times[:, None] - spaced).argmin(axis=0))
    times, values = times[chosen], values[:, chosen]
    whole = _fit(times, values)
    without = np.array([_fit(times, np.delete(values, k, axis=0)) for k in range(len(values))])
    errors = np.sqrt((len(values) - 1) * np.var(without, axis=0))
    n, offset, late = (float(x) for x in whole)
    apart, spread = late - n, float(np.sqrt((len(values) - 1) * np.var(without[:, 2] - without[:, 0])))
    warnings = ()
    if abs(apart) > max(DRIFT * spread, errors[0]):
        text = (
            f"the exponent moves within the window, by {value_with_error(apart, spread)}: begin later, or end earlier."
        )
        warnings = (text,)
        warn(Phi4pplWarning("evolution.growth", text, {"change": apart, "error": spread}))
    return Growth(
        n, float(errors[0]), offset, float(errors[1]), late, float(errors[2]), (times[0], times[-1]), warnings
    )


def _fit(times: np.ndarray, values: np.ndarray) -> tuple[float, float, float]:
    """n and t₀ of the mean over replicas, and n of late times at this t₀."""
    y = np.log(values.mean(axis=0))
    unit = np.eye(len(times))  # what is common to all times moves A alone; the jackknife knows the rest

    def curve(p):
        return p[0] + p[1] * np.log(times + times[0] * np.expm1(p[2]))

    found = correlated_fit(curve, y, unit, np.array([y[0] - 0.5 * np.log(times[0]), 0.5, 0.1])).parameters
    offset = times[0] * np.expm1(found[2])
    late = times >= np.sqrt(times[0] * times[-1])
    return found[1], offset, np.polyfit(np.log(times[late] + offset), y[late], 1)[0]


@call_checked
def return_probability(tree: xr.DataTree) -> xr.Dataset:
    """P(t) = Σ φ_i(0) φ_i(t) / Σ φ_i(0)², the probability to be back at the start after a time t.

    From one site that is 1 it is that of a walker from there, (e^(−tL))_ii of a diffusion; from independent random signs its
    mean over replicas is the mean over all starts, Tr e^(−tL)/N, with an error.

    Parameters
    ----------
    tree : DataTree
        Of `evolve`, with the field.

    Returns
    -------
    Dataset of ``value`` and ``error`` along ``time``
        The error is that of the mean over replicas, and nan for a single one.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> square = p4.lattice.square(40)
    >>> tree = p4.dynamics.evolve(p4.dynamics.Diffusion(square), np.eye(1600)[0].reshape(40, 40), time=1, every=1)
    >>> float(p4.dynamics.return_probability(tree)["value"][-1].round(6))  # (e^(−2) I₀(2))²
    0.095177
    """
    phi = _fields("tree", tree)
    start, sites = phi.isel(time=0), [axis for axis in phi.dims if axis not in ("replica", "time")]
    squares = (start**2).sum(sites)
    if not bool((squares > 0).all()):
        raise ArgumentError("tree", "starts that are not 0 everywhere", "one that is", reason="zero")
    back = (phi * start).sum(sites) / squares
    error = back.std("replica", ddof=1) / np.sqrt(back.sizes["replica"]) if back.sizes["replica"] > 1 else np.nan
    return xr.Dataset({"value": back.mean("replica"), "error": error * xr.ones_like(back.mean("replica"))})


def _group(name: str, tree) -> xr.DataTree:
    if not isinstance(tree, xr.DataTree) or GROUP not in tree.children:
        raise ArgumentError(name, "the result of phi4ppl.dynamics.evolve", type(tree).__name__)
    return tree[GROUP]


def _fields(name: str, tree) -> xr.DataArray:
    group = _group(name, tree)
    if "phi" not in group or np.iscomplexobj(group["phi"]):
        raise ArgumentError(name, "a run with real fields", "another one", "Evolve with keep_field=True.", "field")
    return group["phi"].transpose("replica", "time", ...).astype(float)
