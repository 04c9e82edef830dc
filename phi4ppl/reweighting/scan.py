"""Reweighting along a coupling: first the range that the samples support, then the observables inside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from .._typing import ArrayLike, Labeled
from ..analysis.derived import derive
from ..errors import ArgumentError, OverlapError
from ..errors.arguments import call_checked, finite_array, one_of
from ..model.field import MarkovRandomField
from ..reports.style import OKABE_ITO, panels
from .energies import as_action, difference, evaluate
from .ensembles import Ensembles, combine_ensembles
from .scan_derived import ScanDerived, along

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ReweightingScan", "plot_scans", "scan_reweighting"]

OUTSIDE = ("raise", "omit", "warn")
MARKERS = ("o", "s", "^", "D")


@call_checked
def scan_reweighting(
    samples: Labeled, source: MarkovRandomField | Callable, family: Callable, values: ArrayLike
) -> ReweightingScan:
    """How far along a coupling samples can be reweighted, found from the weights alone.

    Parameters
    ----------
    samples, source
        As in `reweight`; lists of them for several ensembles, as in `combine_ensembles`.
    family : callable
        ``family(g)``: the action at coupling g, a model or a function of one field, for example
        ``lambda g: model.replace(w_diagonal=g)``. It is called once, with a traced g.
    values : array, shape (num_values,)
        The couplings g, in ascending order.

    Returns
    -------
    ReweightingScan
        ``print`` it to see the range; ``estimate`` returns the observables.

    Raises
    ------
    ArgumentError, OverlapError

    Examples
    --------
    >>> import jax, numpy as np, phi4ppl as p4
    >>> model = p4.gaussian(p4.lattice.chain(16), w=0, a=1.0)
    >>> phi = jax.random.normal(jax.random.key(0), (4, 2000, 16)) * 0.5**0.5
    >>> scan = p4.scan_reweighting(phi, model, lambda a: model.replace(a=a), np.linspace(0.5, 2.0, 16))
    >>> print(scan)
    8000 samples support couplings from 0.6 to 2 (of 0.5 to 2)
    """
    values = finite_array("values", values)
    if values.ndim != 1 or not len(values) or np.any(np.diff(values) <= 0):
        raise ArgumentError("values", "couplings in ascending order, shape (num_values,)", repr(values)[:100])
    if not callable(family):
        raise ArgumentError("family", "a function from a coupling to an action", type(family).__name__)
    several = isinstance(samples, (list, tuple)) and isinstance(source, (list, tuple))
    ensembles = combine_ensembles(*((samples, source) if several else ([samples], [source])))
    return ReweightingScan(ensembles, family, values)


class ReweightingScan:
    """See `scan_reweighting`.

    Attributes
    ----------
    values : array
        The couplings.
    weights : xarray.Dataset
        Over ``coupling``: ``effective_sample_size``, ``overlap``, ``pareto_k``, ``average_phase`` (its modulus),
        ``log_partition_ratio`` and ``supported``.
    supported : tuple of two floats, or None
        The range around the best coupling inside which samples can be trusted.
    """

    def __init__(self, ensembles: Ensembles, family: Callable, values: np.ndarray):
        self._ensembles, self.values = ensembles, values
        base = ensembles.sources[0]
        try:
            first = family(jnp.asarray(values[0]))
            as_action("family(g)", first, ensembles._shape)
            along = jax.vmap(lambda g, phi: difference(family(g), base)(phi), in_axes=(0, None))
            points = jnp.asarray(values)
            exponents = -evaluate(lambda phi: along(points, phi), ensembles._fields)
        except jax.errors.ConcretizationTypeError as error:
            fix = "Use jax.numpy on the coupling, and model.replace(name=g)."
            raise ArgumentError(
                "family", "a function that JAX can trace", type(error).__name__, fix, reason="raises"
            ) from error
        if not np.all(np.isfinite(exponents)):
            raise ArgumentError("family", "actions that are finite on all samples", "one that is not", reason="finite")
        self._exponents = exponents
        results = ensembles._weighted(exponents, {}).results()
        self.weights = xr.Dataset(
            {
                name: ("coupling", np.array([getattr(r, name) for r in results]))
                for name in ("effective_sample_size", "overlap", "pareto_k", "log_partition_ratio", "reliable")
            }
            | {"average_phase": ("coupling", np.array([abs(r.average_phase) for r in results]))},
            {"coupling": values},
        ).rename(reliable="supported")
        self._warnings = [" ".join(r.warnings) for r in results]
        self.supported = self._range()

    def _range(self) -> tuple[float, float] | None:
        inside = self.weights["supported"].values
        best = int(np.argmax(np.where(inside, self.weights["effective_sample_size"].values, -1)))
        if not inside[best]:
            return None
        low, high = best, best
        while low > 0 and inside[low - 1]:
            low -= 1
        while high < len(inside) - 1 and inside[high + 1]:
            high += 1
        return float(self.values[low]), float(self.values[high])

    def __str__(self) -> str:
        number, (first, last) = self._ensembles._fields.shape[0], self.values[[0, -1]]
        if self.supported is None:
            return f"{number} samples support none of the couplings from {first:g} to {last:g}: {self._warnings[0]}"
        low, high = self.supported
        return f"{number} samples support couplings from {low:.4g} to {high:.4g} (of {first:.4g} to {last:.4g})"

    __repr__ = __str__

    def estimate(self, observables: dict[str, Callable], *, outside: str = "raise") -> xr.Dataset:
        """Observables along the coupling.

        Parameters
        ----------
        observables : dict of callables
            As in `reweight`.
        outside : str
            What to do with couplings outside the supported range: ``"raise"``, ``"omit"`` (they are omitted) or ``"warn"``
            (they are computed, and ``supported`` marks which).

        Returns
        -------
        xarray.Dataset
            `weights`, and NAME and NAME_error for every observable, over ``coupling``.
        """
        chosen = self._chosen(outside)
        values = self._ensembles._measured(self._ensembles._checked(observables))
        results = self._ensembles._weighted(self._exponents[:, chosen], values).results()
        data = self.weights.isel(coupling=chosen)
        for name in values:
            dims = ("coupling", *(f"{name}_dim_{k}" for k in range(values[name].ndim - 1)))
            data[name] = dims, np.array([r.mean[name] for r in results])
            data[f"{name}_error"] = dims, np.array([r.error[name] for r in results])
        return data

    def derive(
        self, quantities: dict[str, Callable], observables: dict[str, Callable], *, outside: str = "raise"
    ) -> ScanDerived:
        """Functions of the means along the coupling, with errors, biases, and the covariance of all of them.

        Means of one pool fluctuate together, at one coupling and along it. Errors and covariances come from jackknife replicas
        of all means at once, in which the log Z of the ensembles are solved for anew.

        Parameters
        ----------
        quantities : dict of callables
            JAX functions of the means ``m`` at one coupling, as for `phi4ppl.analysis.derive`: ``m["m2"]`` is the mean of the
            observable ``m2``, ``m["log_partition_ratio"]`` is log Z relative to the first source.
        observables : dict of callables
            As in `reweight`.
        outside : str
            As in `estimate`.

        Returns
        -------
        ScanDerived

        Raises
        ------
        ArgumentError, OverlapError

        Examples
        --------
        >>> import jax, numpy as np, phi4ppl as p4
        >>> model = p4.gaussian(p4.lattice.chain(1), w=0, a=1.0)
        >>> phi = jax.random.normal(jax.random.key(0), (4, 2000, 1)) * 0.5**0.5
        >>> scan = p4.scan_reweighting(phi, model, lambda a: model.replace(a=a), np.linspace(0.9, 1.2, 4))
        >>> moments = {"m2": lambda f: f[0] ** 2, "m4": lambda f: f[0] ** 4}
        >>> found = scan.derive({"U4": lambda m: 1 - m["m4"] / (3 * m["m2"] ** 2)}, moments)
        >>> found["U4"].value.shape, found.covariance("U4").shape
        ((4,), (4, 4))
        >>> bool(np.all(np.abs(found["U4"].value) < 3 * found["U4"].error))
        True
        """
        chosen = self._chosen(outside)
        weights = self.weights.isel(coupling=chosen)
        values = self._ensembles._measured(self._ensembles._checked(observables))
        replicas = self._ensembles._weighted(self._exponents[:, chosen], values).replicas(weights["supported"].values)
        if isinstance(quantities, dict):
            quantities = {name: along(function) for name, function in quantities.items()}
        return ScanDerived(derive(replicas, quantities), weights)

    def _chosen(self, outside: str) -> np.ndarray:
        """Which couplings are computed."""
        one_of("outside", outside, OUTSIDE)
        low, high = self.supported or (np.inf, -np.inf)
        inside = (self.values >= low) & (self.values <= high)
        if not inside.all() and outside == "raise" or not inside.any():
            worst = self._warnings[int(np.argmin(inside))]
            raise OverlapError("outside_support", f"{self}. Outside: {worst} outside='omit' omits those couplings.")
        return np.flatnonzero(inside) if outside == "omit" else np.arange(len(self.values))


@call_checked
def plot_scans(scans: dict[str, xr.Dataset], name: str, *, coupling: str = "coupling") -> Figure:
    """One observable along a coupling with its errors, one line for each of ``scans``.

    ``scans`` are results of `ReweightingScan.estimate` by label, or of ``ReweightingScan.derive(...).dataset()``.

    Returns the matplotlib figure; imaginary parts get a second panel. Couplings outside the supported range are drawn hollow.
    """
    missing = [label for label, data in scans.items() if name not in data]
    if missing or not scans:
        raise ArgumentError(
            "name", "an observable of all scans", f"{name!r}, which is missing from {missing}", reason="name"
        )
    is_complex = any(np.iscomplexobj(data[name].values) for data in scans.values())
    figure, axes = panels(1 + is_complex, width=6.4, height=3.2 if is_complex else 4.0, columns=1, sharex=True)
    for number, (label, data) in enumerate(scans.items()):
        color = OKABE_ITO[number % len(OKABE_ITO)]
        for axis, part in zip(axes, (np.real, np.imag), strict=False):
            mean, error = part(data[name].values), part(data[f"{name}_error"].values)
            if part is np.imag and not np.iscomplexobj(data[name].values):
                continue
            for trusted, face in ((True, color), (False, "none")):
                here = data["supported"].values == trusted
                if here.any():
                    shown = label if trusted else f"{label} (not supported)"
                    axis.errorbar(
                        data["coupling"].values[here], mean[here], error[here], fmt=MARKERS[number % len(MARKERS)], ms=4,
                        capsize=2, color=color, mfc=face, label=shown,
                    )  # fmt: skip
    for axis, part in zip(axes, ("Re " if is_complex else "", "Im "), strict=False):
        axis.set_ylabel(part + next(iter(scans.values()))[name].attrs.get("long_name", f"⟨{name}⟩"))
        axis.legend(frameon=False)
    axes[-1].set_xlabel(coupling)
    return figure
