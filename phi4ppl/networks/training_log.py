"""The log of training: what is recorded after every pass through the data, and a picture of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ..errors import ArgumentError
from ..errors.arguments import call_checked
from ..errors.streams import stream_seed
from ..learning.history import plot_history
from ..reports.style import OKABE_ITO
from .mean_field import strengths_around
from .normalizer import annealed, is_summable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Epoch", "look", "num_condensed", "plot_training"]

ROWS = 1000  # of the data that are looked at, where there is no validation
FLIPPED_ROWS = 200
STEPS = 300  # of annealing


@call_checked
class Epoch(NamedTuple):
    """What is recorded after every pass through the data; nan stands for what was not measured.

    Attributes
    ----------
    number : int
        Number of the pass, from 1.
    reconstruction : float
        Mean squared distance between data and ⟨v | ⟨h | v⟩⟩.
    pseudo_likelihood : float
        ⟨Σ_i log p(v_i | all other v)⟩ over at most 200 rows of the data, in nats; binary visible units only.
    free_energy_gap : float
        ⟨F⟩ of the validation data less ⟨F⟩ of as many training data; it grows when the machine overfits.
    log_likelihood, log_likelihood_error : float
        ⟨log p⟩ of the validation data (of training data without), in nats, and the error that log Z gives it.
    gradient_norm : float
        Of all couplings together, the mean over the batches.
    chain_change : float
        Mean squared change of the chains in one epoch, in units of their variance: 2 where they have forgotten everything.
    exchange : float
        Share of the exchanges between levels of tempering that were accepted.
    strength : float
        σ₁, the largest singular value of D_v^½ W D_h^½ around the means of at most 1000 rows of the data: in mean field the
        first mode of the weights condenses where it reaches 1; see `critical_scale`.
    condensed : float
        How many of these singular values are at least 1.
    """

    number: int
    reconstruction: float
    pseudo_likelihood: float
    free_energy_gap: float
    log_likelihood: float
    log_likelihood_error: float
    gradient_norm: float
    chain_change: float
    exchange: float
    strength: float = np.nan
    condensed: float = np.nan


def look(old, new, data, validation, likelihood: bool, seed: int) -> Epoch:
    """The record of the epoch between two states, except for quantities that only its updates know."""
    machine = new.machine
    some = data[: ROWS if validation is None else len(validation)]
    reconstruction, energy = map(float, _averages(machine, some))
    other = np.nan if validation is None else float(_averages(machine, validation)[1])
    pseudo = np.nan if machine.visible.states is None else float(pseudo_likelihood(machine, some[:FLIPPED_ROWS]))
    log_likelihood = error = np.nan
    if likelihood:
        start = {"start": new.chains, "num_steps": STEPS, "seed": stream_seed(seed, "log likelihood", new.epoch)}
        log_z = machine.log_partition() if is_summable(machine) else annealed(machine, **start)
        log_likelihood, error = -(energy if validation is None else other) - log_z.value, log_z.error
    still = new.chains is old.chains or bool(jnp.all(new.chains == old.chains))
    spread = jnp.mean(jnp.var(new.chains, axis=0))
    change = np.nan if still else float(jnp.mean((new.chains - old.chains) ** 2) / spread)
    strengths = strengths_around(machine, data[:ROWS])
    return Epoch(
        new.epoch, reconstruction, pseudo, other - energy, log_likelihood, error, np.nan, change, np.nan,
        float(strengths[0]), float(np.sum(strengths >= 1)),
    )  # fmt: skip


def num_condensed(machine, data) -> int:
    """How many modes are past their mean-field transition around the means of the data."""
    return int(np.sum(strengths_around(machine, data[:ROWS]) >= 1))


@jax.jit
def _averages(machine, v):
    again = machine.visible_mean(machine.hidden_mean(v))
    return jnp.mean((v - again) ** 2), jnp.mean(machine.free_energy(v))


@jax.jit
def pseudo_likelihood(machine, v):
    """⟨Σ_i log p(v_i | others)⟩, p = 1/(1 + exp(F(v) − F(v′))), v′ with unit i in its other state; data between are rounded."""
    low, high = machine.visible.states
    v = jnp.where(v > (low + high) / 2, high, low).astype(v.dtype)
    field = v @ machine.weights

    def of_unit(unit):
        linear, row, now = unit
        change = low + high - 2 * now
        there = machine.hidden.log_normalizer(field + change[:, None] * row[None])
        gain = jnp.sum(there - machine.hidden.log_normalizer(field), axis=-1) - linear * change
        return -jnp.mean(jax.nn.softplus(gain))

    return jnp.sum(jax.lax.map(of_unit, (machine.visible.linear, machine.weights, v.T)))


@call_checked
def plot_training(history: list[Epoch]) -> Figure:
    """Draw the log of a training: one panel for every number that was recorded, against the epoch.

    Parameters
    ----------
    history : list of Epoch
        As `train` returns it.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArgumentError
        If there is no epoch to draw.
    """
    if not history or not all(isinstance(record, Epoch) for record in history):
        raise ArgumentError("history", "a list of at least one Epoch, as train returns it", repr(history)[:80])
    columns = dict(zip(Epoch._fields, np.array(history, float).T, strict=True))
    steps, errors = columns.pop("number"), columns.pop("log_likelihood_error")
    measured = {name: ("step", values) for name, values in columns.items() if np.isfinite(values).any()}
    figure = plot_history(xr.Dataset(measured, coords={"step": steps}), details=True)
    for axes, (_, values) in zip(figure.axes, measured.values(), strict=False):
        if not np.isfinite(values).all():  # points of their own, which a line does not show
            axes.lines[0].set_marker("o")
        if values is columns["log_likelihood"]:
            axes.errorbar(steps, values, errors, fmt="none", ecolor=OKABE_ITO[0])
            axes.set_ylabel("nats, of the validation data", fontsize=8)
    for axes in figure.axes:
        if axes.get_xlabel():
            axes.set_xlabel("epoch")
    return figure
