"""`response`: how a field answers to an external one, at once or in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .._typing import ArrayLike, Labeled
from ..analysis.derived import derive
from ..analysis.derived_result import Part
from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, seed_within
from ..errors.streams import stream_seed
from ..kernels.kernel import Kernel
from ..lattice.labels import field_dims
from ..model.field import MarkovRandomField
from ..networks.machine import RestrictedBoltzmannMachine
from ..reports.style import OKABE_ITO, panels
from ..results.ensemble_run import sample_ensemble
from ..results.run import sample
from ..reweighting.scan import scan_reweighting
from ..reweighting.scan_derived import ScanDerived
from .hysteresis import Hysteresis, driven_loop
from .machine_source import MachineSource, gibbs_fields
from .sources import EXTERNAL, Source, source_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LinearResponse", "Response", "response"]

AXES = {"visible": "visible unit", "hidden": "hidden feature, in order", "response": "site"}


@call_checked
@dataclass(frozen=True, repr=False)
class LinearResponse:
    """χ = ∂⟨m⟩/∂h in two ways.

    Attributes
    ----------
    fluctuations : Part
        V(⟨m²⟩ − ⟨m⟩²) at h.
    difference : Part
        (⟨m⟩ at h + δ − ⟨m⟩ at h − δ)/(2δ), of independent runs; its error of order δ² is not in its statistical one.
    z : float
        Their difference in units of its error.
    field, step : float
        h and δ.
    """

    fluctuations: Part
    difference: Part
    z: float
    field: float
    step: float

    def __str__(self) -> str:
        return (
            f"χ at h = {self.field:g}: {self.fluctuations} from fluctuations, {self.difference} from differences over "
            f"±{self.step:g} (z = {self.z:+.2f})"
        )

    __repr__ = __str__


@call_checked
def response(
    model: MarkovRandomField | RestrictedBoltzmannMachine, source: Labeled = None, *, layer: str | None = None
) -> Response:
    """The response of a model to the field h conjugate to a pattern ξ: S_h(φ) = S(φ) − h Σ_i ξ_i φ_i.

    With m = (1/V) Σ_i ξ_i φ_i and V the number of sites where ξ is not 0, a positive h raises ⟨m⟩:
    χ = ∂⟨m⟩/∂h = V(⟨m²⟩ − ⟨m⟩²).

    Parameters
    ----------
    model : MarkovRandomField or RestrictedBoltzmannMachine
        A machine with binary units is sampled by block Gibbs sweeps of both layers, one of real units as a field.
    source : array_like, optional
        ξ, one number a site: a digit, a mode of the lattice, a stored pattern. By default 1 everywhere.
    layer : str, optional
        Of a machine: ``"visible"`` (the default) or ``"hidden"``, the units that feel the field.

    Returns
    -------
    Response
        ``hysteresis``, ``curve``, ``susceptibility``, ``local``.

    Raises
    ------
    ArgumentError
        For a pattern of another shape or of zeros.
    HammersleyCliffordError
        If the model is not normalizable.

    Examples
    --------
    >>> import phi4ppl as p4
    >>> model = p4.gaussian(p4.lattice.chain(4), w=0.5, a=1.0)  # χ = 1/(2a − 2w) = 1
    >>> found = p4.disorder.response(model).susceptibility(seed=1, num_samples=2000)
    >>> bool(abs(found.fluctuations.value - 1) < 4 * found.fluctuations.error), bool(abs(found.z) < 4)
    (True, True)
    """
    return Response(source_of(model, source, layer))


def _conjugate(field):
    """−h V m as an action of the one number V m."""
    return lambda total: -field * total[0]


@call_checked
class Response:
    """A model with an external field; see `response`.

    Attributes
    ----------
    source : Source or MachineSource
    """

    def __init__(self, source: Source | MachineSource):
        self.source = source

    def at(self, field: float) -> MarkovRandomField | RestrictedBoltzmannMachine:
        """The model at the field h: with the term ``external_field``, or the machine with shifted linear couplings."""
        return self.source.at(field)

    def susceptibility(
        self, field: float = 0.0, *, step: float | None = None, num_samples: int = 4000, num_warmup: int = 1000,
        num_chains: int = 4, kernel: Kernel | str = "auto", seed: int = 0, progress: bool | None = None,
    ) -> LinearResponse:  # fmt: skip
        """χ from the fluctuations at h, beside finite differences: three fields in one program.

        Parameters
        ----------
        field : float
            h.
        step : float, optional
            δ of the differences. By default ¼ of the spread that h has of itself, 1/(V σ_m), from a short run.
        num_samples, num_warmup, num_chains, kernel, seed, progress
            As in `phi4ppl.sample_ensemble`; a machine with binary units has sweeps of block Gibbs in place of a kernel.
        """
        field, seed = float(finite_array("field", field)), seed_within(seed)
        shared: dict = {"num_warmup": num_warmup, "num_chains": num_chains, "kernel": kernel, "progress": progress}
        if step is None:
            pilot = self._magnetizations([field] * 3, num_samples=200, seed=stream_seed(seed, "pilot"), **shared)
            if not pilot.std() > 0:
                fix = "The field may be so strong that nothing moves."
                raise ArgumentError(
                    "step", "a number, because m does not vary in a short run", "None", fix, reason="pilot"
                )
            step = 0.25 / (self.source.volume * float(pilot.std()))
        if finite_array("step", step).shape != () or not step > 0:
            raise ArgumentError("step", "a positive number", repr(step))
        m = self._magnetizations([field - step, field, field + step], num_samples=num_samples, seed=seed, **shared)
        runs = {label: {"m": m[k], "m2": m[k] ** 2} for k, label in enumerate(("below", "here", "above"))}
        volume = self.source.volume
        found = derive(runs, {
            "fluctuations": lambda r: volume * (r["here"]["m2"] - r["here"]["m"] ** 2),
            "difference": lambda r: (r["above"]["m"] - r["below"]["m"]) / (2 * step),
        })  # fmt: skip
        one, other = found["fluctuations"], found["difference"]
        z = float((one.value - other.value) / np.hypot(one.error, other.error))
        return LinearResponse(one, other, z, field, float(step))

    def _magnetizations(self, fields, *, progress: bool | None, **options) -> np.ndarray:
        """Draws of m, shape ``(len(fields), chain, draw)``."""
        if isinstance(self.source, MachineSource):
            return gibbs_fields(self.source, fields, **options).astype(float) @ self.source.pattern / self.source.volume
        tree = sample_ensemble(
            self.source.model, {EXTERNAL: self.source.couplings_at(fields)}, observables={"m": self.source.magnetization},
            keep_field=False, progress=progress, **options,
        )  # fmt: skip
        return tree["posterior"]["m"].transpose("member", "chain", "draw").values.astype(float)

    def _fields(self, field: float, *, progress: bool | None, **options) -> np.ndarray:
        """Draws of the field, shape ``(chain, draw, *field_shape)``."""
        if isinstance(self.source, MachineSource):
            return gibbs_fields(self.source, [field], **options)[0]
        dims, _ = field_dims(self.source.model.lattice)
        tree = sample(self.source.at(field), progress=progress, **options)
        return tree["posterior"]["phi"].transpose("chain", "draw", *dims).values

    def curve(
        self, values: ArrayLike, *, field: float | None = None, outside: str = "raise", num_samples: int = 4000,
        num_warmup: int = 1000, num_chains: int = 4, kernel: Kernel | str = "auto", seed: int = 0,
        progress: bool | None = None,
    ) -> ScanDerived:  # fmt: skip
        """Magnetization curve ⟨m⟩(h) and χ(h), by reweighting one run.

        Parameters
        ----------
        values : array_like
            Fields h in ascending order.
        field : float, optional
            Where the run is made; by default in the middle of them.
        outside : str
            What to do with fields that the draws do not reach: ``"raise"``, ``"omit"`` or ``"warn"``.
        num_samples, num_warmup, num_chains, kernel, seed, progress
            As in `phi4ppl.sample`.

        Returns
        -------
        ScanDerived
            ``found["m"]`` and ``found["susceptibility"]`` with errors, covariances and the effective sample sizes;
            ``found.dataset()`` is for `phi4ppl.plot_scans`.

        Raises
        ------
        OverlapError
            If the weights leave too few effective draws at a field.
        """
        values, seed = finite_array("values", values), seed_within(seed)
        if values.ndim != 1 or len(values) < 2 or np.any(np.diff(values) <= 0):
            raise ArgumentError("values", "two fields or more in ascending order", repr(values)[:80], reason="shape")
        middle = float((np.max(values) + np.min(values)) / 2 if field is None else finite_array("field", field))
        options: dict[str, Any] = {"num_samples": num_samples, "num_warmup": num_warmup, "num_chains": num_chains}
        options |= {"kernel": kernel, "seed": seed, "progress": progress}
        volume = self.source.volume
        if isinstance(self.source, MachineSource):  # only m is needed: S depends on h through −h V m
            totals = volume * self._magnetizations([middle], **options)[0, :, :, None]
            scan = scan_reweighting(totals, _conjugate(middle), _conjugate, values)
            m = lambda total: total[0] / volume  # noqa: E731
        else:
            model, m = self.at(middle), self.source.magnetization
            scan = scan_reweighting(self._fields(middle, **options), model, self.at, values)
        return scan.derive(
            {"m": lambda r: r["m"] * 1.0, "susceptibility": lambda r: volume * (r["m2"] - r["m"] ** 2)},
            {"m": m, "m2": lambda phi: m(phi) ** 2}, outside=outside,
        )  # fmt: skip

    def hysteresis(
        self, amplitude: float, rate: float, *, num_steps: int = 50, num_replicas: int = 16, num_warmup: int = 500,
        kernel: Kernel | str | None = None, couplings: dict | None = None, seed: int = 0, progress: bool | None = None,
    ) -> Hysteresis:  # fmt: skip
        """The field goes from H to −H and back, at a stated rate.

        Parameters
        ----------
        amplitude : float
            H.
        rate : float
            Change of h per iteration of the kernel. A step of h, 2H/num_steps, has that many iterations, rounded.
        num_steps : int
            Of each branch.
        num_replicas : int
            Independent loops (of each realisation), which give the error.
        num_warmup : int
            Iterations at H before the loop begins.
        kernel : str or Kernel, optional
            A local one: the loop belongs to its dynamics. By default ``"local_hmc"``, which moves one site at a time. A machine
            with binary units has block Gibbs sweeps, one an iteration.
        couplings : dict of arrays, optional
            Realisations of other couplings, as ``quenched(...).couplings``: a loop of each, and errors over them.
        seed, progress
        """
        return driven_loop(
            self.source, amplitude, rate, num_steps=num_steps, num_replicas=num_replicas, num_warmup=num_warmup,
            kernel=kernel, couplings=couplings, seed=seed_within(seed), progress=progress,
        )  # fmt: skip

    def local(
        self, field: float = 0.0, *, num_samples: int = 4000, num_warmup: int = 1000, num_chains: int = 4,
        kernel: Kernel | str = "auto", seed: int = 0, progress: bool | None = None,
    ) -> xr.Dataset:  # fmt: skip
        """How every site, or unit, answers: ∂⟨φ_j⟩/∂h = V(⟨φ_j m⟩ − ⟨φ_j⟩⟨m⟩).

        Returns
        -------
        Dataset
            ``response`` and ``error`` over the lattice; of a machine ``visible`` and ``hidden`` with ``visible_error`` and
            ``hidden_error``, the second being the response of its features. `plot_local` draws it.
        """
        phi = self._fields(
            float(finite_array("field", field)), num_samples=num_samples, num_warmup=num_warmup, num_chains=num_chains,
            kernel=kernel, seed=seed_within(seed), progress=progress,
        )  # fmt: skip
        volume, flat = self.source.volume, phi.reshape(*phi.shape[:2], -1).astype(float)
        m = flat @ self.source.pattern / volume
        found = derive(
            {"phi": flat, "m": m, "phi_m": flat * m[..., None]},
            {"response": lambda r: volume * (r["phi_m"] - r["phi"] * r["m"])},
        )["response"]
        visible = self.source.num_visible
        if visible is None:
            assert isinstance(self.source, Source)
            dims, coords = field_dims(self.source.model.lattice)
            shape = self.source.model.field_shape
            return xr.Dataset(
                {"response": (dims, found.value.reshape(shape)), "error": (dims, found.error.reshape(shape))}, coords
            )
        parts = {"visible": slice(None, visible), "hidden": slice(visible, None)}
        data = {name: (f"{name}_unit", found.value[part]) for name, part in parts.items()}
        data |= {f"{name}_error": (f"{name}_unit", found.error[part]) for name, part in parts.items()}
        return xr.Dataset(data)

    def plot_local(self, found: xr.Dataset) -> Figure:
        """What `local` found: of a machine both layers, the hidden features in order of their response; else by site."""
        names = [n for n in ("visible", "hidden", "response") if n in found]
        figure, axes = panels(len(names), width=4.2, height=3.0)
        for axis, name in zip(axes, names, strict=True):
            values = found[name].values.reshape(-1)
            error = found["error" if name == "response" else f"{name}_error"].values.reshape(-1)
            order = np.argsort(values) if name == "hidden" else np.arange(len(values))
            places = np.arange(len(values))
            axis.errorbar(places, values[order], error[order], fmt="o", ms=3, capsize=2, color=OKABE_ITO[0])
            axis.axhline(0, color="0.8", lw=0.8, zorder=0)
            axis.set_xlabel(AXES[name])
            axis.set_ylabel("∂⟨φ⟩/∂h")
            if name == "hidden" and len(values) <= 20:
                axis.set_xticks(np.arange(len(values)), [str(k) for k in order], fontsize=7)
        return figure
