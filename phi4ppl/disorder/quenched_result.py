"""What `quenched` returns: averages over the disorder with errors, overlaps, a verdict, and where the error comes from."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
import pandas as pd
import xarray as xr

from .._typing import PathLike
from ..analysis.derived import derive
from ..analysis.derived_result import Derived
from ..analysis.gamma_method import gamma_method
from ..analysis.two_point import two_point
from ..errors import ArgumentError
from ..errors.arguments import call_checked, one_of, positive_int
from ..model.field import MarkovRandomField
from ..reports.card import card
from ..reports.numbers import value_with_error
from ..results.settings import metadata
from .annealed import Annealed, annealed_averages, log_z_of
from .budget import Budget, budget_of
from .improper import Improper
from .quenched_verdict import MIN_TAUS, QuenchedVerdict, verdict_of
from .realizations import (
    CORRELATIONS,
    PRODUCT,
    SQUARED,
    Overlaps,
    correlations_of,
    jackknifed,
    overlaps_of,
    primaries_of,
    thermal_means,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Quenched"]

MIN_SIGNIFICANCE = 4  # errors by which a mean differs from 0 that something is divided by
OVERLAP_RANGE = (0.001, 0.999)  # quantiles of q: where 0 lies between them, P(q) has both signs


@call_checked
class Quenched:
    """Averages over the couplings, [·], of thermal averages, ⟨·⟩; see `quenched`.

    Attributes
    ----------
    tree : DataTree
        The draws: ``posterior`` with dimensions ``chain`` (the replicas), ``draw``, ``realization`` and those of the lattice.
        ``phi4ppl.diagnose(result.tree.isel(realization=3))`` is the full verdict on one realisation.
    couplings : dict of arrays
        What was drawn, ``(num_realizations, num_cliques)`` or ``(num_realizations,)``.
    realizations : dict of arrays
        What each realisation gives, its first axis: by the name of each observable O ``O`` = ⟨O⟩, ``O_product`` = ⟨O⟩² from
        pairs of replicas, ``O_squared`` = ⟨O²⟩; ``q``, ``abs_q``, ``q2``, ``q4`` and ``link_overlap``.
    verdict : QuenchedVerdict
        ``passed``, and the realisations that ``failed``.
    """

    def __init__(self, model: MarkovRandomField, couplings: dict, tree: xr.DataTree, improper: Improper):
        self.model, self.couplings, self.tree, self.improper = model, couplings, tree, improper
        self.overlaps: Overlaps | None = None if self._fields is None else overlaps_of(self._fields, model.lattice)
        self.realizations = primaries_of(tree, self.overlaps)
        self.verdict: QuenchedVerdict = verdict_of(tree, self.overlaps)

    @property
    def _fields(self) -> np.ndarray | None:
        """(replicas, draws, realisations, *field_shape)."""
        data = self.tree["posterior"].dataset
        return data["phi"].transpose("chain", "draw", "realization", ...).values if "phi" in data else None

    @property
    def num_realizations(self) -> int:
        return self.tree["posterior"].sizes["realization"]

    @property
    def num_replicas(self) -> int:
        return self.tree["posterior"].sizes["chain"]

    @property
    def passed(self) -> bool:
        return self.verdict.passed

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.verdict.warnings

    @property
    def observables(self) -> list[str]:
        """Names of the scalar observables."""
        return [n for n, v in self.realizations.items() if n + PRODUCT in self.realizations and v.ndim == 1]

    def models(self) -> list[MarkovRandomField]:
        """The model of every realisation."""
        return [
            self.model.replace(**{name: values[k] for name, values in self.couplings.items()})
            for k in range(self.num_realizations)
        ]

    # --- averages

    def derive(self, quantities: dict[str, Callable]) -> Derived:
        """Functions of disorder averages, with errors over realisations, which contain the thermal noise, and biases.

        Parameters
        ----------
        quantities : dict of callables
            JAX functions of the means ``m`` of `realizations`: ``m["magnetization"]`` is [⟨m⟩], ``m["magnetization_product"]``
            [⟨m⟩²] and ``m["magnetization_squared"]`` [⟨m²⟩].

        Returns
        -------
        Derived
            Errors by leaving out one realisation at a time. ``value − bias`` is corrected for the curvature of the function.
        """
        return derive(jackknifed(self.realizations, self.passed), quantities)

    @cached_property
    def averages(self) -> pd.DataFrame:
        """[⟨O⟩], [⟨O⟩²] and [⟨O²⟩] of every scalar observable, and R_O = ([⟨O⟩²] − [⟨O⟩]²)/[⟨O⟩]², each with its error.

        O is self-averaging where R_O falls as 1/V, and not where it has a limit (A. Aharony and A. B. Harris, Phys. Rev. Lett.
        77 (1996) 3700). Its bias of order 1/R is subtracted; it is NaN where [⟨O⟩] is 0 within 4 errors.
        """
        quantities: dict[str, Callable] = {}
        for name in self.observables:
            quantities[f"{name} mean"] = lambda m, n=name: m[n] * 1.0
            quantities[f"{name} product"] = lambda m, n=name: m[n + PRODUCT] * 1.0
            quantities[f"{name} square"] = lambda m, n=name: m[n + SQUARED] * 1.0
            quantities[f"{name} ratio"] = lambda m, n=name: m[n + PRODUCT] / m[n] ** 2 - 1
        found = self.derive(quantities)
        rows = {}
        for name in self.observables:
            row = {}
            titles = (("mean", "[<O>]"), ("product", "[<O>^2]"), ("square", "[<O^2>]"), ("ratio", "R_O"))
            for kind, title in titles:
                part = found[f"{name} {kind}"]
                row[title], row[f"{title} error"] = float(part.value - part.bias), float(part.error)
            if abs(row["[<O>]"]) < MIN_SIGNIFICANCE * row["[<O>] error"]:
                row["R_O"] = row["R_O error"] = np.nan
            rows[name] = row
        return pd.DataFrame.from_dict(rows, orient="index")

    @cached_property
    def susceptibilities(self) -> Derived:
        """``connected`` = V([⟨m²⟩] − [⟨m⟩²]) and ``disconnected`` = V([⟨m⟩²] − [⟨m⟩]²).

        In a random field the second diverges faster; their sum is V times the whole variance of the magnetization.
        """
        volume = self.model.lattice.num_sites
        return self.derive({
            "connected": lambda m: volume * (m["magnetization_squared"] - m["magnetization_product"]),
            "disconnected": lambda m: volume * (m["magnetization_product"] - m["magnetization"] ** 2),
        })  # fmt: skip

    @cached_property
    def overlap(self) -> Derived:
        """``q`` = [⟨q⟩], ``abs_q``, ``q2``, the Binder ratio ``binder`` = ½(3 − [⟨q⁴⟩]/[⟨q²⟩]²), and the ``link`` overlap.

        q = (1/V) Σ_i φ_i^a φ_i^b of two replicas. The Binder ratio goes to 0 where q is a Gaussian around 0, and to 1 where
        its size has one value.
        """
        self._require_overlaps()
        quantities: dict[str, Callable] = {
            "q": lambda m: m["q"] * 1.0, "abs_q": lambda m: m["abs_q"] * 1.0, "q2": lambda m: m["q2"] * 1.0,
            "binder": lambda m: (3 - m["q4"] / m["q2"] ** 2) / 2,
        }  # fmt: skip
        if "link_overlap" in self.realizations:
            quantities["link"] = lambda m: m["link_overlap"] * 1.0
        return self.derive(quantities)

    def _require_overlaps(self) -> Overlaps:
        if self.overlaps is None:
            fix = "Run quenched(..., overlaps=True), which keeps the fields."
            raise ArgumentError("overlaps", "a run with fields", "one without", fix, reason="fields")
        return self.overlaps

    def overlap_distribution(self, num_bins: int = 40) -> xr.Dataset:
        """P(q), averaged over realisations, pairs of replicas and draws.

        Returns
        -------
        Dataset
            ``density`` and ``error`` (over realisations) at the middles ``q`` of bins symmetric about 0 where q takes both
            signs; each realisation's own P_J(q) is ``by_realization``.
        """
        q = self._require_overlaps().q
        num_bins = positive_int("num_bins", num_bins, minimum=2)
        low, high = q.min(), q.max()
        if np.quantile(q, OVERLAP_RANGE[0]) < 0 < np.quantile(q, OVERLAP_RANGE[1]):
            low, high = -max(-low, high), max(-low, high)
        edges = np.linspace(low, high + 1e-12 * max(1.0, abs(high)), num_bins + 1)
        each = np.stack([np.histogram(q[:, :, k], edges, density=True)[0] for k in range(q.shape[2])])
        error = each.std(axis=0, ddof=1) / np.sqrt(len(each))
        return xr.Dataset(
            {
                "density": ("q", each.mean(axis=0)),
                "error": ("q", error),
                "by_realization": (("realization", "q"), each),
            },
            {"q": (edges[1:] + edges[:-1]) / 2},
        )

    def correlations(self, name: str = "correlation_function") -> xr.Dataset:
        """A two-point function, split: ``connected`` [⟨φφ⟩ − ⟨φ⟩⟨φ⟩] and ``disconnected`` [⟨φ⟩⟨φ⟩], with errors.

        Parameters
        ----------
        name : str
            ``"correlation_function"``, ``"structure_factor"``, ``"graph_distance_correlation"`` …: any two-point function of
            `phi4ppl.analysis.quantity_names` without clusters. The products ⟨φ⟩⟨φ⟩ come from different replicas and have no
            bias.
        """
        self._require_overlaps()
        one_of("name", name, CORRELATIONS)
        lattice = self.model.lattice
        made = two_point(name, lattice)
        with jax.enable_x64(True):
            parts = correlations_of(self._fields, lattice, name)
        data: dict = {}
        for label, values in zip(("connected", "disconnected"), parts, strict=True):
            data[label] = made.dims, values.mean(axis=0)
            data[f"{label}_error"] = made.dims, values.std(axis=0, ddof=1) / np.sqrt(len(values))
        return xr.Dataset(data, dict(zip(made.dims, made.points, strict=True)))

    # --- beside them

    def budget(self, name: str = "magnetization") -> Budget:
        """Where the error of [⟨O⟩] comes from, and how many draws a realisation should have; see `Budget`."""
        one_of("name", name, tuple(self.observables))
        made = metadata(self.tree)["settings"]
        series = self.tree["posterior"][name].transpose("chain", "draw", "realization").values
        least = max(10, int(np.ceil(MIN_TAUS * np.median(gamma_method(series).tau_int))))
        means = thermal_means(self.tree)[name]
        return budget_of(name, means, made["num_warmup"], made["num_samples"], made["thinning"], least)

    def annealed(self, method="auto", *, seed: int = 0) -> Annealed:
        """Averages in which realisations count with their Z, [Z⟨O⟩]/[Z], and both free energies.

        Parameters
        ----------
        method : str or array
            Of log Z: ``"exact"``, ``"reweighting"`` (log Z ratios from the draws of all realisations, which have to overlap),
            any method of `phi4ppl.log_partition` (one run a realisation), or the numbers themselves. ``"auto"`` is exact where
            that takes seconds, else by reweighting.
        seed : int

        Raises
        ------
        OverlapError
            If the realisations are too different for reweighting; ``method="integration"`` needs no overlap.
        """
        log_z, error, absolute = log_z_of(self.models(), self._fields, method, seed)
        return annealed_averages(self.realizations, self.observables, log_z, error, absolute)

    def plot(self) -> Figure:
        """P(q), or the observables of the realisations where no fields were kept, and how they spread."""
        from .quenched_page import plot_quenched

        return plot_quenched(self)

    def to_html(self, path: PathLike, *, name: str | None = None, facts: dict | None = None) -> Path:
        """Write one self-contained page: verdict, averages, P(q), the budget."""
        from .quenched_page import write_quenched

        return write_quenched(self, path, name, facts or {})

    # --- shown

    def rows(self) -> list[tuple[str, ...]]:
        """The table of averages as text."""
        found = []
        for name, row in self.averages.iterrows():
            cells = [
                "–" if np.isnan(row[title]) else value_with_error(row[title], row[f"{title} error"])
                for title in ("[<O>]", "[<O>^2]", "[<O^2>]", "R_O")
            ]
            found.append((str(name), *cells))
        return found

    def numbers(self) -> list[tuple[str, str, str]]:
        """Susceptibilities and overlaps: name, value, meaning."""
        found = self.susceptibilities
        rows = [
            ("connected susceptibility", str(found["connected"]), "V([⟨m²⟩] − [⟨m⟩²])"),
            ("disconnected susceptibility", str(found["disconnected"]), "V([⟨m⟩²] − [⟨m⟩]²)"),
        ]
        if self.overlaps is not None:
            overlap = self.overlap
            rows += [
                ("overlap q", str(overlap["q"]), "(1/V) Σ φᵃφᵇ of two replicas"),
                ("|q|", str(overlap["abs_q"]), ""),
                ("Binder ratio of q", str(overlap["binder"]), "½(3 − [⟨q⁴⟩]/[⟨q²⟩]²)"),
            ]
            rows += [("link overlap", str(overlap["link"]), "over the edges")] if "link" in overlap else []
        return rows

    def __str__(self) -> str:
        made = metadata(self.tree)["settings"]
        head = (
            f"{self.num_realizations} realisations of {', '.join(self.couplings)}, {self.num_replicas} replicas each of "
            f"{made['num_samples']} draws (kernel {made['kernel']})"
        )
        frame = pd.DataFrame(
            [r[1:] for r in self.rows()], [r[0] for r in self.rows()], ["[<O>]", "[<O>^2]", "[<O^2>]", "R_O"]
        )
        numbers = [f"{name:<28} {value:<16} {meaning}".rstrip() for name, value, meaning in self.numbers()]
        return "\n".join([head, frame.to_string(), *numbers, str(self.verdict)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = ("", "[⟨O⟩]", "[⟨O⟩²]", "[⟨O²⟩]", "R_O")
        title = f"{self.num_realizations} realisations × {self.num_replicas} replicas"
        return card(title, head, self.rows(), good=self.passed, outcome=self.verdict.outcome, warnings=self.warnings)
