"""Mean field of a machine: where the modes of its weights condense.

Around a state (μ, λ) of the two layers, in which μ_i is the mean of unit i in the field of λ and the other way round, a small
change of the visible means comes back through the hidden layer as δμ → D_v W D_h Wᵀ δμ. D_v and D_h are the variances of single
units in that state. The state is stable as long as all singular values σ_α of D_v^½ W D_h^½ are below 1.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import brentq, root

from ..errors import ArgumentError, SamplingError
from ..errors.arguments import call_checked
from ..model.pytree import replaced
from .machine import RestrictedBoltzmannMachine

__all__ = ["MeanField", "critical_scale", "heated", "mean_field", "scaled", "strengths_around"]

SMALLEST = 1e-12  # singular value below which a mode counts as absent
TOLERANCE = {32: 1e-4, 64: 1e-8}  # of the self-consistent means, by the bits of the number


@call_checked
class MeanField(NamedTuple):
    """The mean-field state of a machine and its modes.

    Attributes
    ----------
    visible_mean, hidden_mean : arrays, shape (visible.size,) and (hidden.size,)
        μ and λ.
    visible_variance, hidden_variance : arrays of the same shapes
        Of single units in the fields of the other layer, the diagonals of D_v and D_h.
    strengths : array, shape (modes,)
        Singular values of D_v^½ W D_h^½, largest first. Mode α condenses where σ_α reaches 1.
    """

    visible_mean: np.ndarray
    hidden_mean: np.ndarray
    visible_variance: np.ndarray
    hidden_variance: np.ndarray
    strengths: np.ndarray

    @property
    def critical_scales(self) -> np.ndarray:
        """Factors of the weights at which the modes condense, 1/σ_α."""
        return 1 / np.maximum(self.strengths, SMALLEST)


@call_checked
def mean_field(machine: RestrictedBoltzmannMachine, around=None) -> MeanField:
    """The symmetric mean-field state μ = ⟨v⟩_{Wλ}, λ = ⟨h⟩_{Wᵀμ}, and the singular values that decide its stability.

    Parameters
    ----------
    machine : RestrictedBoltzmannMachine
    around : tuple of arrays, optional
        μ and λ, for example the means of data; by default they are solved for, from the middle of each unit: 0 of real units
        and of spins, ½ of units 0 and 1. For even units the solution is zero.

    Returns
    -------
    MeanField

    Raises
    ------
    SamplingError
        If no state is found; give ``around``.

    Notes
    -----
    For a single pattern, w_ij = s ξ_i ζ_j/(N_v N_h)^½, mean field is exact as both layers grow. For a fixed
    number of patterns σ₁ = 1 is exact too. Random weights of full rank have corrections that do not vanish.
    """
    _require_machine(machine)
    middle = [np.full(layer.size, np.mean(layer.states or (0.0,))) for layer in (machine.visible, machine.hidden)]
    if around is None:
        below, above = _solved(machine, middle)
    else:
        below, above = (np.asarray(part, float) for part in around)
        if [below.shape, above.shape] != [part.shape for part in middle]:
            expected = f"means of shapes {middle[0].shape} and {middle[1].shape}"
            raise ArgumentError("around", expected, f"{below.shape} and {above.shape}", reason="shape")
    return MeanField(below, above, *_modes(machine, below, above))


@call_checked
def critical_scale(machine: RestrictedBoltzmannMachine, *, around=None) -> float:
    """The factor of the weights at which the first mode of a machine condenses in mean field, s_c = 1/σ₁.

    σ₁ is the largest singular value of D_v^½ W D_h^½, D the variances of single units without the other layer's fluctuations:
    1 of spins, ¼ of units 0 and 1 without bias, 1/(2a) of Gaussian units, ⟨φ²⟩ of φ⁴ units, a ratio of two integrals
    (`phi4ppl.quartic.moments`). A machine is past its transition if the result is below 1.

    Parameters
    ----------
    machine, around
        As in `mean_field`. Of units with means, the weights are scaled around these: see `scaled`.

    Returns
    -------
    float

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from phi4ppl.networks import RestrictedBoltzmannMachine, SpinUnits, critical_scale
    >>> spins = SpinUnits(jnp.zeros(50))
    >>> critical_scale(RestrictedBoltzmannMachine(spins, spins, jnp.full((50, 50), 0.5 / 50)))
    2.0
    """
    return float(mean_field(machine, around).critical_scales[0])


def strengths_around(machine: RestrictedBoltzmannMachine, v) -> np.ndarray:
    """σ_α with the means of data for μ and λ = ⟨h⟩_{Wᵀμ}: no equation to solve, for every epoch of a training."""
    below = np.mean(np.asarray(v, float), axis=0)
    above = _of_layer(machine.hidden, "mean", below @ np.asarray(machine.weights, float))
    return _modes(machine, below, above)[2]


def scaled(machine: RestrictedBoltzmannMachine, scale: float, state: MeanField) -> RestrictedBoltzmannMachine:
    """The machine at s times its weights, S = −s (v − μ)ᵀW(h − λ) + …, so that (μ, λ) is its mean-field state at every s.

    Between even units μ and λ vanish, and W becomes sW. Units 0 and 1 would be drawn to one side by sW alone.
    """
    w = machine.weights
    below, above = (jnp.asarray(part, w.dtype) for part in (state.visible_mean, state.hidden_mean))
    visible = replaced(machine.visible, linear=machine.visible.linear + (scale - 1) * (w @ above))
    hidden = replaced(machine.hidden, linear=machine.hidden.linear + (scale - 1) * (below @ w))
    return replaced(machine, visible=visible, hidden=hidden, weights=scale * w)


def heated(machine: RestrictedBoltzmannMachine, beta: float) -> RestrictedBoltzmannMachine:
    """The machine of the action βS: the action is linear in the couplings, so that each of them is multiplied by β."""
    return jax.tree.map(lambda coupling: beta * coupling, machine)


def where_critical(strength, low: float, high: float) -> float:
    """Where a function of the axis, the strength of a mode, is 1; nan if it does not cross 1 between the ends."""
    ends = [strength(low) - 1, strength(high) - 1]
    if not np.all(np.isfinite(ends)) or ends[0] * ends[1] > 0:
        return float("nan")
    return float(brentq(lambda x: strength(x) - 1, low, high, xtol=1e-6 * (high - low)))


def _require_machine(machine) -> None:
    if not isinstance(machine, RestrictedBoltzmannMachine):
        raise ArgumentError("machine", "a RestrictedBoltzmannMachine", type(machine).__name__)


def _modes(machine, below, above) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Variances of both layers in the fields of λ and μ, and σ_α from the smaller of the two Gram matrices."""
    w = np.asarray(machine.weights, float)
    visible, hidden = (
        _of_layer(machine.visible, "variance", w @ above),
        _of_layer(machine.hidden, "variance", below @ w),
    )
    matrix = np.sqrt(visible)[:, None] * w * np.sqrt(hidden)[None]
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return visible, hidden, np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[::-1], 0))


def _of_layer(units, name: str, field) -> np.ndarray:
    """A method of the units in a field, in double precision where JAX has it."""
    return np.asarray(getattr(units, name)(jnp.asarray(field, units.linear.dtype)), float)


def _solved(machine, start) -> tuple[np.ndarray, np.ndarray]:
    """μ and λ, from the equations for the smaller layer, of which the other one follows."""
    swapped = machine.visible.size > machine.hidden.size
    side, start = (machine.transposed, start[1]) if swapped else (machine, start[0])
    w = np.asarray(side.weights, float)

    def mismatch(mean):
        return _of_layer(side.visible, "mean", w @ _of_layer(side.hidden, "mean", mean @ w)) - mean

    def slope(mean):
        above = _of_layer(side.hidden, "variance", mean @ w)
        below = _of_layer(side.visible, "variance", w @ _of_layer(side.hidden, "mean", mean @ w))
        return below[:, None] * (w * above[None]) @ w.T - np.eye(len(mean))

    tolerance, found = TOLERANCE[jnp.finfo(side.weights.dtype).bits], start
    if np.max(np.abs(mismatch(start))) > tolerance:
        found = root(mismatch, start, jac=slope, method="hybr", options={"xtol": tolerance / 10}).x
    if not np.max(np.abs(mismatch(found))) <= 10 * tolerance * max(1.0, float(np.max(np.abs(found)))):
        text = "no mean-field state was found from the middle of the units. Give means of the layers, such as those of data."
        raise SamplingError("mean_field", text)
    other = _of_layer(side.hidden, "mean", found @ w)
    return (other, found) if swapped else (found, other)
