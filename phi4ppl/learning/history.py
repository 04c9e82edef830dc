"""The history of a fit, step by step, and its status as a help text."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from ..errors import ArgumentError
from ..errors.arguments import call_checked
from ..model.coupling_vector import CouplingVector
from ..model.field import MarkovRandomField
from ..reports.numbers import value_with_error
from ..reports.style import OKABE_ITO, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FitStatus", "History", "coupling_rows", "plot_history"]

MAX_COUPLINGS = 300  # recorded one by one; of more, mean and spread of every term
MAX_LINES = 12
DETAILS = ("damping", "draws", "newton_decrement", "noise", "noise_over_error", "rank", "residual", "share")
UNITS = {"improvement": "nats", "noise": "nats", "residual": "nats²", "variance": "nats²", "couplings": "value"}


class FitStatus(Enum):
    """How a fit ended; ``str(status)`` explains what happened and what to do about it.

    Examples
    --------
    >>> from phi4ppl.learning import FitStatus
    >>> FitStatus.INTERRUPTED.converged
    False
    """

    CONVERGED = "Converged."
    MAX_STEPS = (
        "The maximum number of steps was reached before convergence. Look at the history: if it still falls, continue the fit "
        "from this result; if it fluctuates, use more samples per step or smaller steps."
    )
    INTERRUPTED = "Interrupted by Ctrl-C: this is the state reached so far. Continue the fit from this result."
    DIVERGED = (
        "Diverged: the last step led to numbers that are not finite, and the couplings before it are returned. Use smaller "
        "steps, more damping, or a start nearer to the solution."
    )
    NOT_NORMALIZABLE = (
        "The fitted action is not bounded below, so exp(−S) is not a density: the data do not determine the growth of S at "
        "large fields. Use more data, more regularization, or a family without the term in question (such as the Gaussian)."
    )

    @property
    def converged(self) -> bool:
        return self is FitStatus.CONVERGED

    def __str__(self) -> str:
        return self.value


def coupling_rows(model: MarkovRandomField, errors: dict | None) -> list[tuple[str, str]]:
    """Names of couplings and what they are, with their errors; of many numbers the average, spread and typical error."""
    rows = []
    for name, value in model.couplings.items():
        error = np.full(np.shape(value), np.nan) if errors is None else np.asarray(errors[name], float)
        if np.ndim(value) == 0:
            rows.append(
                (name, f"{float(value):.6g}" if errors is None else value_with_error(float(value), float(error)))
            )
            continue
        known = error[np.isfinite(error)]
        typical = f", error {np.sqrt(np.mean(known**2)):.2g}" if known.size else ""
        mean, spread = float(np.mean(value)), float(np.std(value))
        rows.append((name, f"{len(value)} numbers, {mean:.4g} on average, spread {spread:.2g}{typical}"))
    return rows


class History:
    """Numbers of every step of a fit, collected into an xarray Dataset.

    Parameters
    ----------
    vector : CouplingVector
        The couplings that are fitted. Up to 300 of them are recorded one by one (``couplings``, dimensions ``step`` and
        ``coupling``); of more, mean and standard deviation of every term (``mean_w``, ``spread_w``).
    previous : xarray.Dataset, optional
        History of the fit that is continued.
    """

    def __init__(self, vector: CouplingVector, previous: xr.Dataset | None = None):
        self.vector, self.previous, self.records = vector, previous, []

    def add(self, theta, numbers: dict) -> None:
        """One step: the couplings after it, and numbers by name (the same names at every step)."""
        theta = np.asarray(theta, float)
        record = {name: float(value) for name, value in numbers.items()}
        if self.vector.size <= MAX_COUPLINGS:
            record["couplings"] = theta.copy()  # type: ignore[assignment]
        else:
            for name, part in self.vector.slices.items():
                record[f"mean_{name}"] = float(theta[part].mean())
                if self.vector.is_inhomogeneous(name):
                    record[f"spread_{name}"] = float(theta[part].std())
        self.records.append(record)

    def __len__(self) -> int:
        return len(self.records) + (0 if self.previous is None else self.previous.sizes["step"])

    def dataset(self) -> xr.Dataset:
        """All steps so far, numbered from 1, those of the fit that was continued first."""
        names = self.records[0] if self.records else {}
        data = {
            name: (
                ("step", "coupling") if name == "couplings" else ("step",),
                np.array([r[name] for r in self.records]),
            )
            for name in names
        }
        coords = {"coupling": list(self.vector.names)} if "couplings" in data else {}
        new = xr.Dataset(data, coords=coords)
        if self.previous is not None:
            earlier = self.previous.drop_vars("step")
            new = xr.concat([earlier, new], dim="step", join="outer") if self.records else earlier
        return new.assign_coords(step=np.arange(1, len(self) + 1))


@call_checked
def plot_history(history: xr.Dataset, *, details: bool = False) -> Figure:
    """Draw the history of a fit: one panel per number, logarithmic where all of its values are positive.

    Parameters
    ----------
    history : xarray.Dataset
        ``.history`` of a fit.
    details : bool
        Whether to draw also the numbers that tell how steps were chosen (damping, noise, rank, share, …), and numbers that
        never change. By default there are what the fit makes smaller, and the couplings.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArgumentError
        If there is no step to draw.
    """
    from matplotlib.ticker import MaxNLocator

    if not isinstance(history, xr.Dataset) or not history.sizes.get("step"):
        got = type(history).__name__ if not isinstance(history, xr.Dataset) else "no steps"
        raise ArgumentError("history", "the history of a fit, with at least one step", got)
    names = sorted(history.data_vars, key=lambda name: name == "couplings")
    if not details:
        names = [name for name in names if name == "couplings" or _informative(history[name], name)] or names
    columns = min(3, len(names))
    figure, places = panels(len(names), width=4.0, height=2.9, columns=columns, sharex=True)
    for axes, name in zip(places, names, strict=True):
        _panel(axes, history[name], str(name))
    for axes in places[max(0, len(names) - columns) :]:
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(labelbottom=True)
    return figure


def _informative(values: xr.DataArray, name: str) -> bool:
    return name not in DETAILS and (len(values) == 1 or bool(np.ptp(values.values) != 0))


def _panel(axes, values: xr.DataArray, name: str) -> None:
    steps, lines = values["step"].values, values.values
    few = lines.ndim == 1 or lines.shape[1] <= MAX_LINES
    marker = "." if len(steps) <= 60 else None
    color = None if lines.ndim == 2 and few else OKABE_ITO[0]
    drawn = axes.plot(steps, lines, marker=marker, lw=1.1 if few else 0.6, color=color, alpha=1 if few else 0.4)
    if lines.ndim == 2 and few:
        labels = [str(label) for label in values["coupling"].values]
        axes.legend(drawn, labels, fontsize=7, frameon=False, ncols=1 + (len(drawn) > 6))
    finite = lines[np.isfinite(lines)]
    if name != "couplings" and finite.size and finite.min() > 0 and finite.max() > 3 * finite.min():
        axes.set_yscale("log")
    axes.set_title(name.replace("_", " "), fontsize=9)
    axes.set_ylabel(UNITS.get(name, ""), fontsize=8)
