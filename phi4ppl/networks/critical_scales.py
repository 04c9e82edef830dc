"""Where the modes of a machine condense as its weights grow: the mean-field answer, exact for one pattern and many units."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import call_checked
from .machine import RestrictedBoltzmannMachine
from .units import Units

__all__ = ["CriticalScales", "critical_scales"]


@call_checked
@dataclass(frozen=True, repr=False)
class CriticalScales:
    """Scales of the weights at which the modes of a machine condense, in ascending order.

    Attributes
    ----------
    scales : array, shape ``(num_modes,)``
        s_α: with the weights s_α w the mode α becomes unstable. Below 1 it has condensed at the present weights. A mode
        without weight has an infinite one.
    visible, hidden : arrays, shapes ``(num_visible, num_modes)`` and ``(num_hidden, num_modes)``
        Its direction in either layer, of length 1 (the singular vectors of D_v^½ w D_h^½).
    """

    scales: np.ndarray
    visible: np.ndarray
    hidden: np.ndarray

    @property
    def num_condensed(self) -> int:
        """Modes that have condensed at the present weights."""
        return int(np.count_nonzero(self.scales < 1))

    def __str__(self) -> str:
        shown = ", ".join(f"{s:.4g}" for s in self.scales[:4]) + (", …" if len(self.scales) > 4 else "")
        return (
            f"modes condense at {shown} times the weights; {self.num_condensed} of {len(self.scales)} have (mean field)"
        )

    __repr__ = __str__


@call_checked
def critical_scales(machine: RestrictedBoltzmannMachine) -> CriticalScales:
    """The scales of the weights at which modes condense, in mean field.

    With D the variance of a unit without its weights, ⟨v⟩ = D_v w ⟨h⟩ and ⟨h⟩ = D_h wᵀ⟨v⟩ to first order in deviations, so that
    the mode α of the weights s w condenses where

        s σ_α(D_v^½ w D_h^½) = 1.

    D = 1 for spins ±1, ¼ for units {0, 1}, 1/(2a) for Gaussian units; for φ⁴ units it is a ratio of one-dimensional
    integrals. For weights w_ij = w ξ_i η_j/√(N_v N_h) of one pattern of ±1 (Mattis) it is the limit of large machines:
    w² D_v D_h = 1. Machines of many patterns, and finite ones, shift it; for two Gaussian layers it is the limit of
    normalizability, exactly.

    Parameters
    ----------
    machine : RestrictedBoltzmannMachine
        Of any units. The linear terms are taken as they are: a transition is sharp where the units are balanced around their
        means, as even units are, or units {0, 1} whose linear terms are half the sum of their weights.

    Raises
    ------
    ArgumentError
        If there is no machine, or all weights are 0.

    Examples
    --------
    >>> import numpy as np
    >>> from phi4ppl.networks import RestrictedBoltzmannMachine, SpinUnits, critical_scales
    >>> layer, pattern = SpinUnits(np.zeros(9)), np.resize([1.0, -1.0], 9)
    >>> critical_scales(RestrictedBoltzmannMachine(layer, layer, 0.5 * np.outer(pattern, pattern) / 9)).scales[0].round(4)
    2.0
    """
    if not isinstance(machine, RestrictedBoltzmannMachine):
        raise ArgumentError("machine", "a RestrictedBoltzmannMachine", type(machine).__name__)
    weights = np.asarray(machine.weights, float)
    if not weights.any():
        raise ArgumentError("machine", "weights that are not all 0", "zeros", reason="zero")
    before, after = (np.sqrt(_variances(units)) for units in (machine.visible, machine.hidden))
    left, strengths, right = np.linalg.svd(before[:, None] * weights * after, full_matrices=False)
    with np.errstate(divide="ignore"):
        scales = np.where(strengths > 1e-7 * strengths[0], 1 / strengths, np.inf)
    return CriticalScales(scales, left, right.T)


def _variances(units: Units) -> np.ndarray:
    """Var φ of every unit without its weights: the derivative of its mean with respect to a field, at 0."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda coupling: jnp.asarray(coupling, float), units)
        zero = jnp.zeros(units.size)
        return np.asarray(jax.jvp(wide.mean, (zero,), (jnp.ones_like(zero),))[1], float)
