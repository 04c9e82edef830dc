"""Finite-size scaling of a family of models: runs, curves with error bands, fits.

Along one coupling y the action is S₀ + y T, so that a draw enters by three numbers: T, the magnetization m, and the structure
factor F at the smallest momentum. Fields are not kept. All couplings of one size are pooled (`combine_ensembles`), and each
observable becomes a curve along y with the covariance of its points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from .._typing import ArrayLike
from ..analysis.collapse import collapse
from ..analysis.crossings import find_crossings
from ..analysis.named import QUANTITIES
from ..analysis.scaling_fit import OMEGA, Omega
from ..analysis.scaling_scan import scan_fits
from ..analysis.scaling_table import ScalingTable
from ..analysis.two_point import two_point
from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, positive_int, seed_within
from ..errors.streams import stream_seed
from ..kernels.kernel import Kernel
from ..model.field import MarkovRandomField
from ..results.ensemble_run import sample_ensemble
from ..reweighting.scan import scan_reweighting
from ..sampling.progress import Progress
from .finite_size_result import FiniteSizeScaling
from .pilot import Window, window_around_crossing

__all__ = ["finite_size_scaling", "scaling_observables"]

DIMENSIONLESS = ("binder_cumulant", "correlation_length_ratio")
OBSERVABLES = (*DIMENSIONLESS, "susceptibility", "abs_m")
MOMENTS = {  # of a draw (T, m, F)
    "m2": lambda draw: draw[1] ** 2,
    "m4": lambda draw: draw[1] ** 4,
    "abs_m": lambda draw: jnp.abs(draw[1]),
    "smallest_momentum": lambda draw: draw[2],
}
SHORTER = 4  # times fewer draws in the search for the crossing


@call_checked
def scaling_observables(model: MarkovRandomField, vary: str) -> dict[str, Callable]:
    """What a run has to record for `finite_size_scaling`: pass it as ``observables=`` of `sample_ensemble`.

    ``action_of_NAME`` is T of the coupling NAME, the action being S₀ + y T; ``smallest_momentum`` is
    ``F = |Σ_x φ_x e^{−ikx}|²/V`` at k = 2π/L along an axis, averaged over axes.

    Raises
    ------
    ArgumentError
        If the coupling is not one number of a term, or the lattice is not periodic with equal sides.

    Examples
    --------
    >>> import jax.numpy as jnp, phi4ppl as p4
    >>> model = p4.phi4(p4.lattice.square(4), w=0.68, a=-1.0, b=1.0)
    >>> record = p4.renormalization.scaling_observables(model, "w")
    >>> float(record["action_of_w"](jnp.ones((4, 4))))
    -32.0
    """
    if not isinstance(model, MarkovRandomField):
        fix = "A NumPyro model has no lattice to scale."
        raise ArgumentError("model", "a MarkovRandomField", type(model).__name__, fix, reason="type")
    if vary not in model.couplings:
        raise ArgumentError("vary", f"one of {', '.join(model.couplings)}", repr(vary), reason="name")
    if np.ndim(model.couplings[vary]):
        raise ArgumentError("vary", "a coupling that is one number", f"{vary!r}, an array", reason="array")
    lattice, shape = model.lattice, model.field_shape
    closed = lattice.offsets is not None and all(np.ravel(lattice.periodic)) and not lattice.sign_kinds
    if not closed or len(set(shape)) > 1 or shape[0] < 3:
        fix = "Build it with phi4ppl.lattice.square(L) or hypercubic((L, L, L))."
        raise ArgumentError("model", "a periodic lattice with equal sides", repr(lattice), fix, reason="lattice")
    alone = model.select(lambda form: form.name == vary).replace(**{vary: 1.0})
    action = lambda phi: alone.energy(phi)  # noqa: E731
    action.coupling_free = True  # type: ignore[attr-defined]  # one program serves all couplings
    return {f"action_of_{vary}": action, "smallest_momentum": two_point("smallest_momentum", lattice).measure}


@call_checked
def finite_size_scaling(
    model_of_size: Callable, *, sizes: Iterable[int], vary: Mapping, runs: Mapping | None = None, num_warmup: int = 500,
    num_samples: int = 2000, num_chains: int = 4, kernel: Kernel | str = "auto", seed: int = 0,
    degrees: tuple[int, ...] = (3, 4), corrections: tuple[int, ...] = (0, 1, 2, 3), omega: Omega = OMEGA,
    progress: bool | None = None,
) -> FiniteSizeScaling:  # fmt: skip
    """The critical coupling and exponents of a family of models, from runs at several sizes and couplings.

    For every size one call of `sample_ensemble`, and U₄, ξ/L, χ = V⟨m²⟩ and the mean of ``|m|`` as curves along the coupling,
    from the draws of all couplings together. Then crossings of U₄ and ξ/L, fits of all four with every smallest size, without
    and with corrections to scaling, their average, and a collapse of U₄; see `phi4ppl.analysis.fit_scaling`.

    Parameters
    ----------
    model_of_size : callable
        ``model_of_size(L)``: the model on a periodic lattice of side L.
    sizes : iterable of ints
        Two sizes or more; three for fits with several smallest sizes.
    vary : dict
        The name of one coupling → a range to search, in ascending order, such as ``np.linspace(0.6, 0.8, 7)``. Short runs
        of the two smallest sizes find where U₄ and ξ/L cross, and each size is sampled at as many couplings in a window that
        shrinks like L^{−1/ν}, around where ξ/L of the two sizes before crosses. Or a function from L to the couplings of that
        size, such as ``lambda L: 0.68 + np.linspace(-0.15, 0.15, 5) / L``; neighboring ones have to overlap.
    runs : dict, optional
        L → tree of `sample_ensemble`, with the field or with `scaling_observables` recorded. Sizes without a tree are sampled.
    num_warmup, num_samples, num_chains, kernel, progress
        As in `phi4ppl.sample_ensemble`.
    seed : int, default 0
        Every size has a stream of its own.
    degrees, corrections, omega
        As in `phi4ppl.analysis.scan_fits`. ω is fitted, with a prior, unless it is a number.

    Returns
    -------
    FiniteSizeScaling
        ``print`` it for the values; ``plot_scaling()`` and ``to_html(path)`` show curves, fits and collapse.

    Raises
    ------
    ArgumentError
        If the coupling or the lattice does not suit, or a tree does not belong to its size.
    OverlapError
        If the couplings of one size do not overlap.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> found = p4.finite_size_scaling(
    ...     lambda L: p4.phi4(p4.lattice.square(L), w=0.68, a=-1.0, b=1.0), sizes=(4, 6), num_warmup=100, num_samples=500,
    ...     vary={"w": lambda L: 0.68 + np.linspace(-0.3, 0.3, 4) / L}, seed=1, degrees=(2,), corrections=(0,),
    ... )
    >>> crossing = found.crossings["correlation_length_ratio"]
    >>> bool(abs(crossing.position[0] - 0.6806) < 0.03)  # of sizes 4 and 6
    True
    """
    sizes = sorted({positive_int("sizes", size, minimum=3) for size in sizes})
    if len(sizes) < 2:
        raise ArgumentError("sizes", "at least two different ones", f"{sizes}", reason="count")
    if not isinstance(vary, Mapping) or len(vary) != 1:
        fix = "For example {'w': np.linspace(0.66, 0.70, 5)}."
        raise ArgumentError("vary", "a dict of one coupling", repr(vary)[:80], fix)
    (name, wanted), seed, runs = next(iter(vary.items())), seed_within(seed), dict(runs or {})
    models = {size: model_of_size(size) for size in sizes}
    records = {size: scaling_observables(model, name) for size, model in models.items()}
    for size, model in models.items():
        if model.field_shape[0] != size:
            fix = "model_of_size(L) has to build the lattice of side L."
            raise ArgumentError("model_of_size", f"a lattice of side {size}", repr(model.lattice), fix, reason="size")
    chains = {"num_warmup": num_warmup, "num_chains": num_chains, "kernel": kernel, "progress": progress}
    if not callable(wanted) and not set(sizes) <= set(runs):
        with Progress(None, progress) as bar:
            bar.message(f"sizes {sizes[0]} and {sizes[1]}: where the curves cross")
        shorter = {"num_samples": max(100, num_samples // SHORTER)} | chains
        wanted = window_around_crossing(models, name, _couplings(wanted, sizes[0]), records, seed=seed, **shorter)
    points, parts, warnings = {}, {}, []
    for size in sizes:
        if isinstance(wanted, Window) and len(parts) > 1:
            last = (list(parts)[-2], list(parts)[-1])
            cumulants, ratios = (tuple((points[each], parts[each][0][what]) for each in last) for what in DIMENSIONLESS)
            wanted = wanted.moved(*ratios).scaled(last, *cumulants)
        points[size] = _couplings(_points(runs, wanted, size, name), size)
        if size not in runs:
            with Progress(None, progress) as bar:
                bar.message(f"size {size}: {len(points[size])} couplings")
            runs[size] = sample_ensemble(
                models[size], {name: points[size]}, num_samples=num_samples, observables=records[size], keep_field=False,
                seed=stream_seed(seed, "size", size), **chains,
            )  # fmt: skip
        parts[size] = _curves(runs[size], models[size], points[size], records[size], size)
        warnings += [f"Size {size}: {text}" for text in parts[size][2]]
    table = _joined(parts, points, name)
    fits = scan_fits(table, degrees=degrees, corrections=corrections, omega=omega)
    crossings = {each: find_crossings(table, each, degree=int(np.max(degrees))) for each in DIMENSIONLESS}
    collapsed = collapse(table, DIMENSIONLESS[0], smallest=fits.best.smallest, start=fits.best.values[f"{name}_c"])
    return FiniteSizeScaling(table, crossings, fits, collapsed, runs, models, tuple(warnings))


def _couplings(values: ArrayLike, size: int) -> np.ndarray:
    values = finite_array(f"vary at size {size}", values)
    if values.ndim != 1 or len(values) < 2 or np.any(np.diff(values) <= 0):
        raise ArgumentError("vary", "two couplings or more in ascending order", repr(values)[:80], reason="order")
    return values


def _points(runs: Mapping, wanted, size: int, name: str) -> ArrayLike:
    """Couplings of a size: those of its tree of `sample_ensemble`, or the wanted ones."""
    if size not in runs:
        return wanted.at(size) if isinstance(wanted, Window) else wanted(size)
    tree = runs[size]
    constant = tree["constant_data"] if "constant_data" in getattr(tree, "children", ()) else {}
    if f"coupling_{name}" not in constant:
        fix = f"Sample it with p4.sample_ensemble(model, {{{name!r}: couplings}}, …)."
        raise ArgumentError(
            f"runs[{size}]", f"a tree of several couplings {name}", type(tree).__name__, fix, reason="tree"
        )
    return constant[f"coupling_{name}"].values.astype(float)


def _draws(tree: xr.DataTree, model, record, size: int) -> np.ndarray:
    """(T, m, F) of every draw, shape (chains, draws, members, 3); T less its mean, which changes no weights."""
    posterior = tree["posterior"]
    if "phi" in posterior and not set(record) <= set(posterior.data_vars):
        fields = posterior["phi"].transpose("chain", "draw", "member", ...).values
        if fields.shape[3:] != model.field_shape:
            raise ArgumentError(
                f"runs[{size}]", f"fields of shape {model.field_shape}", f"shape {fields.shape[3:]}", reason="shape"
            )
        flat = jnp.asarray(fields.reshape(-1, *model.field_shape))
        columns = [np.asarray(jax.lax.map(f, flat, batch_size=256)).reshape(fields.shape[:3]) for f in record.values()]
        columns.insert(1, fields.mean(axis=tuple(range(3, fields.ndim))))
    else:
        missing = [each for each in (*record, "magnetization") if each not in posterior]
        if missing:
            fix = "Sample with observables=phi4ppl.renormalization.scaling_observables(model, name), or keep the field."
            raise ArgumentError(f"runs[{size}]", f"a record of {missing[0]!r}", "none", fix, reason="record")
        action, momentum = record
        columns = [
            posterior[each].transpose("chain", "draw", "member").values for each in (action, "magnetization", momentum)
        ]
    draws = np.stack(columns, axis=-1).astype(float)
    draws[..., 0] -= draws[..., 0].mean()
    return draws


def _curves(tree, model, couplings, record, size: int):
    """Values of every observable along the couplings, their covariance, and warnings."""
    draws = _draws(tree, model, record, size)
    quantities = {each: partial(QUANTITIES[each].function, lattice=model.lattice) for each in OBSERVABLES}
    ensembles = [draws[:, :, k] for k in range(len(couplings))]
    sources = [lambda draw, y=y: y * draw[0] for y in couplings]
    scan = scan_reweighting(ensembles, sources, lambda y: lambda draw: y * draw[0], couplings)
    found = scan.derive(quantities, MOMENTS, outside="warn")
    poor = couplings[~found.weights["supported"].values]
    warnings = [f"{len(poor)} couplings have too few independent draws. Draw more."] * bool(len(poor))
    return {each: found[each].value for each in quantities}, found.covariance(*quantities), warnings


def _joined(parts: Mapping, points: Mapping, name: str) -> ScalingTable:
    """One table of all sizes: observables one after the other, rows by size."""
    sizes = np.concatenate([np.full(len(points[size]), float(size)) for size in parts])
    names = list(next(iter(parts.values()))[0])
    values = {each: np.concatenate([part[0][each] for part in parts.values()]) for each in names}
    covariance, first = np.zeros((len(names) * len(sizes),) * 2), 0
    for size, (_, own, _) in parts.items():
        count = len(points[size])
        places = np.concatenate([k * len(sizes) + first + np.arange(count) for k in range(len(names))])
        covariance[np.ix_(places, places)] = own
        first += count
    return ScalingTable(sizes, np.concatenate([points[size] for size in parts]), values, covariance, name)
