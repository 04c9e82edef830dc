"""The objective of training and its gradient: by chains, by score matching, or exactly.

The likelihood has ∂ log p/∂θ = ⟨∂F/∂θ⟩ over the machine less ⟨∂F/∂θ⟩ over data. Chains stand for the first mean, or log Z is
summed. Score matching needs neither: its objective is that of A. Hyvärinen, J. Mach. Learn. Res. 6, 695 (2005), for p(v).

With two Gaussian layers log Z is a determinant, so persistent chains are not needed for the first mean: close to the bound on
the coupling strength they would lag behind the couplings by many updates, and the loop of the two is unstable.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from .._typing import JointPrecision, Scalar, UnitCouplings, VisibleSamples
from ..energy.exact.gaussian import log_gaussian_integral
from ..errors import ArgumentError
from ..errors.arguments import one_of
from ..model.pytree import replaced
from .machine import RestrictedBoltzmannMachine
from .units import GaussianUnits

__all__ = [
    "METHODS", "both_gaussian", "centered", "exact_log_partition", "exact_objective", "free_couplings", "from_centered",
    "needs_chains", "objective", "require_method", "score_objective", "summed_side", "to_centered",
]  # fmt: skip

METHODS = ("persistent_cd", "contrastive_divergence", "score_matching", "exact")
MAX_BINARY = 14  # units of a layer whose states are summed in every update
MAX_REAL = 2
DEPTH = 40.0  # the box of a quadrature ends where the density has fallen by exp(−40)
NODES = {1: 801, 2: 101}
COARSE = 41  # nodes on which the box is looked for

Offsets = tuple[jax.Array, jax.Array]


def require_method(machine: RestrictedBoltzmannMachine, method: str) -> None:
    """Reject a method that is not for this machine."""
    one_of("method", method, METHODS)
    if method == "score_matching" and machine.visible.states is not None:
        got = f"{type(machine.visible).__name__}, whose density has no derivatives"
        raise ArgumentError(
            "method", "real visible units for 'score_matching'", got, "Use 'persistent_cd'.", reason="units"
        )
    if method == "exact" and summed_side(machine) is None and not both_gaussian(machine):
        need = f"a binary layer of at most {MAX_BINARY} units, a real one of at most {MAX_REAL}, or two Gaussian layers"
        raise ArgumentError("method", f"for 'exact' {need}", repr(machine), "Use 'persistent_cd'.", reason="too_large")


def objective(method: str, machine: RestrictedBoltzmannMachine, v: VisibleSamples, chains: jax.Array) -> Scalar:
    """The function whose gradient an update descends; with chains only its gradient is meaningful."""
    if method == "score_matching":
        return score_objective(machine, v)
    if needs_chains(machine, method):
        return jnp.mean(machine.free_energy(v)) - jnp.mean(machine.free_energy(chains))
    return exact_objective(machine, v)


def needs_chains(machine: RestrictedBoltzmannMachine, method: str) -> bool:
    """Whether updates estimate the mean over the machine from chains."""
    return method == "contrastive_divergence" or (method == "persistent_cd" and not both_gaussian(machine))


def free_couplings(gradient: RestrictedBoltzmannMachine) -> RestrictedBoltzmannMachine:
    """The gradient without the couplings of Gaussian hidden units below Gaussian visible ones, which p(v) does not need.

    Units of another scale, h → ch, change weights and couplings and leave p(v) as it is, and so do units around another
    mean. Left free, both drift along with the noise: weights and a shrink until a step of fixed size is a large one.
    """
    if not both_gaussian(gradient):
        return gradient
    none = jax.tree.map(jnp.zeros_like, gradient.hidden)
    return replaced(gradient, hidden=none)


def score_objective(machine: RestrictedBoltzmannMachine, v: VisibleSamples) -> Scalar:
    """⟨Σ_i ½ψ_i² + ∂ψ_i/∂v_i⟩ over data, ψ = ∂ log p(v)/∂v = −∂S_visible/∂v + w⟨h | v⟩, whose slope has the variances of h."""

    def along(function, place):  # functions of one unit each: with a tangent of ones their slopes
        return jax.jvp(function, (place,), (jnp.ones_like(place),))

    force, curve = along(jax.grad(lambda v: jnp.sum(machine.visible.energy(v))), v)
    mean, variance = along(machine.hidden.mean, v @ machine.weights)
    score = mean @ machine.weights.T - force
    return jnp.mean(jnp.sum(score**2 / 2 - curve, axis=-1) + jnp.sum(variance @ machine.weights.T**2, axis=-1))


# --- exactly


def exact_objective(machine: RestrictedBoltzmannMachine, v: VisibleSamples) -> Scalar:
    """−⟨log p(v)⟩ over data with all of log Z; of the machines that `require_method` lets through."""
    return jnp.mean(machine.free_energy(v)) + exact_log_partition(machine)


def exact_log_partition(machine: RestrictedBoltzmannMachine) -> Scalar:
    """log Z of the same machines, in a form that can be compiled and differentiated."""
    side = summed_side(machine)
    if side is None:
        return log_gaussian_integral(*quadratic_form(machine))
    if side.hidden.states is None:
        return _integrated_log_partition(side)
    low, high = side.hidden.states
    states = np.arange(2**side.hidden.size)[:, None] >> np.arange(side.hidden.size) & 1
    return logsumexp(_log_weight(side, np.where(states, high, low)))


def both_gaussian(machine: RestrictedBoltzmannMachine) -> bool:
    """Whether p(v) is a Gaussian."""
    return all(isinstance(layer, GaussianUnits) for layer in (machine.visible, machine.hidden))


def summed_side(machine: RestrictedBoltzmannMachine) -> RestrictedBoltzmannMachine | None:
    """The machine with its layer of few states as the hidden one, binary before real; None if there is no such layer."""
    for binary, largest in ((True, MAX_BINARY), (False, MAX_REAL)):
        sides = [
            side
            for side in (machine, machine.transposed)
            if (side.hidden.states is not None) == binary and side.hidden.size <= largest
        ]
        if sides and not both_gaussian(machine):
            return min(sides, key=lambda side: side.hidden.size)
    return None


def _log_weight(side, h):
    return -side.transposed.free_energy(jnp.asarray(h, side.weights.dtype))


def quadratic_form(machine: RestrictedBoltzmannMachine) -> tuple[JointPrecision, UnitCouplings]:
    """Q and l of the action ½ xᵀQx + lᵀx of both layers, x = (v, h), where these are Gaussian."""
    v, h, w = machine.visible, machine.hidden, machine.weights
    above = jnp.concatenate([jnp.diag(2 * v.quadratic), -w], axis=1)  # type: ignore[attr-defined]
    precision = jnp.concatenate([above, jnp.concatenate([-w.T, jnp.diag(2 * h.quadratic)], axis=1)])  # type: ignore[attr-defined]
    return precision, jnp.concatenate([v.linear, h.linear])


def _integrated_log_partition(side):
    """The trapezoidal rule in a box at whose faces the density vanishes; the box is not differentiated."""
    number = side.hidden.size

    def grid(half_width, nodes):
        axis = half_width * jnp.linspace(-1, 1, nodes, dtype=side.weights.dtype)
        return jnp.stack(jnp.meshgrid(*[axis] * number, indexing="ij"), axis=-1).reshape(-1, number)

    face = np.zeros((COARSE,) * number, bool)
    for axis in range(number):
        np.moveaxis(face, axis, 0)[[0, -1]] = True
    face = face.reshape(-1)
    fixed = jax.lax.stop_gradient(side)

    def too_small(half_width):
        log_weight = _log_weight(fixed, grid(half_width, COARSE))
        return jnp.max(log_weight) - jnp.max(log_weight[face]) < DEPTH

    start = jnp.asarray(3.0, side.weights.dtype)
    half_width = jax.lax.while_loop(lambda x: too_small(x) & (x < 1e4), lambda x: 1.3 * x, start)
    step = 2 * half_width / (NODES[number] - 1)
    return logsumexp(_log_weight(side, grid(half_width, NODES[number]))) + number * jnp.log(step)


# --- centering


def centered(machine: RestrictedBoltzmannMachine, v) -> Offsets:
    """Means of the visible and of the hidden layer over data, which S(v, h) = −(v − μ)ᵀw(h − λ) + … is written around.

    K. Cho, T. Raiko and A. Ilin, Neural Comput. 25, 805 (2013); J. Melchior et al., J. Mach. Learn. Res. 17, 99 (2016).
    """
    return jnp.mean(v, axis=0), jnp.mean(machine.hidden_mean(v), axis=0)


def to_centered(gradient: RestrictedBoltzmannMachine, offsets: Offsets) -> RestrictedBoltzmannMachine:
    """Of derivatives by (w, r, s), those at fixed linear couplings of the centered form: r = r̃ + wλ and s = s̃ + wᵀμ."""
    below, above = offsets
    weights = gradient.weights + jnp.outer(gradient.visible.linear, above) + jnp.outer(below, gradient.hidden.linear)
    return _with(gradient, weights, gradient.visible.linear, gradient.hidden.linear)


def from_centered(step: RestrictedBoltzmannMachine, offsets: Offsets) -> RestrictedBoltzmannMachine:
    """A step of the couplings of the centered form as one of the machine's own."""
    below, above = offsets
    visible = step.visible.linear + step.weights @ above
    return _with(step, step.weights, visible, step.hidden.linear + below @ step.weights)


def _with(machine, weights, visible_linear, hidden_linear):
    visible, hidden = replaced(machine.visible, linear=visible_linear), replaced(machine.hidden, linear=hidden_linear)
    return replaced(machine, visible=visible, hidden=hidden, weights=weights)
