"""Block Gibbs chains at many points of an axis, one program for all of them, and what they say about each mode.

A point is a machine with its mean-field state and the singular vectors of its weights. A draw enters by the projections
m_α = u_α·(v − μ)/N_v^½ and z_α·(h − λ)/N_h^½ and by dS/dx, the derivative of the action along the axis.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..analysis.derived import derive
from ..analysis.gamma_method import gamma_method
from .block_gibbs import sweep
from .machine import RestrictedBoltzmannMachine
from .mean_field import MeanField

__all__ = ["Points", "Series", "as_points", "hysteresis", "measured", "sampled"]

SIDES = ("visible", "hidden")
ORDERED = 1.0  # root mean square of h − λ in the states that chains start from
QUANTITIES = {
    "magnetization": lambda m: m["abs_m"],
    "susceptibility": lambda m: m["m2"] - m["abs_m"] ** 2,
    "full_susceptibility": lambda m: m["m2"],
    "binder_cumulant": lambda m: 1 - m["m4"] / (3 * m["m2"] ** 2),
}
CURVATURE = {"curvature": lambda m: m["x2"] - m["x"] ** 2}


class Points(NamedTuple):
    """Machines of one shape along an axis, stacked: every array has a leading axis of points.

    ``slopes`` have the couplings of dS/dx. ``visible``, ``hidden``: means μ and λ; ``left``, ``right``: singular vectors over
    N^½, shape (point, unit, mode).
    """

    machines: RestrictedBoltzmannMachine
    slopes: RestrictedBoltzmannMachine
    visible: jax.Array
    hidden: jax.Array
    left: jax.Array
    right: jax.Array


class Series(NamedTuple):
    """Draws of all chains: ``modes`` by layer, shape (chain, draw, point, mode); ``slope`` is dS/dx, (chain, draw, point).

    ``size`` is the number of units that m is a mean over, by layer.
    """

    modes: dict[str, np.ndarray]
    slope: np.ndarray
    size: dict[str, int]


def as_points(machines: list, slopes: list, states: list[MeanField], num_modes: int) -> tuple[Points, np.ndarray]:
    """The points, and the singular values of their weights, shape (point, mode)."""
    left, right, values = [], [], []
    for machine in machines:
        u, found, z = np.linalg.svd(np.asarray(machine.weights, float), full_matrices=False)
        u, z, found = u[:, :num_modes], z[:num_modes].T, found[:num_modes]
        if left:  # the sign of a mode is that of the point before
            turn = np.where(np.sum(u * left[-1], axis=0) < 0, -1.0, 1.0)
            u, z = u * turn, z * turn
        for vectors, new in ((left, u), (right, z), (values, found)):
            vectors.append(new)
    dtype = machines[0].weights.dtype
    stacked = [jax.tree.map(lambda *leaves: jnp.stack(leaves), *each) for each in (machines, slopes)]
    means = [np.stack([getattr(state, f"{side}_mean") for state in states]) for side in SIDES]
    shares = [np.stack(vectors) / np.sqrt(vectors[0].shape[0]) for vectors in (left, right)]
    return Points(*stacked, *(jnp.asarray(array, dtype) for array in (*means, *shares))), np.stack(values)


def sampled(points: Points, key, num_chains: int, num_warmup: int, num_draws: int) -> tuple[Series, np.ndarray]:
    """Draws of block Gibbs chains at every point, one after each sweep, and the visible states that chains end in.

    Half of the chains start with the first mode up, the others with it down.
    """
    below, above = (part.shape[-2] for part in (points.left, points.right))
    start, visible, hidden, slope = _sampled(points, key, num_chains, num_warmup, num_draws)
    modes = {
        side: np.moveaxis(np.asarray(part, float), (0, 2), (1, 0))
        for side, part in zip(SIDES, (visible, hidden), strict=True)
    }
    series = Series(
        modes, np.moveaxis(np.asarray(slope, float), (0, 2), (1, 0)), dict(zip(SIDES, (below, above), strict=True))
    )
    return series, np.asarray(start)


@functools.partial(jax.jit, static_argnames=("num_chains", "num_warmup", "num_draws"))
def _sampled(points, key, num_chains, num_warmup, num_draws):
    size, sign = points.right.shape[1], np.where(np.arange(num_chains) % 2 == 0, ORDERED, -ORDERED)
    h = points.hidden[:, None] + size * sign[None, :, None] * points.right[:, None, :, 0]

    def draw(states, number):
        v, h = states
        v, h = jax.vmap(sweep)(points.machines, jax.random.split(jax.random.fold_in(key, number), len(h)), h)
        below = jnp.einsum("pcv,pvm->pcm", v - points.visible[:, None], points.left)
        above = jnp.einsum("pch,phm->pcm", h - points.hidden[:, None], points.right)
        slope = jax.vmap(lambda machine, v, h: machine.energy(v, h))(points.slopes, v, h)
        return (v, h), (below, above, slope)

    start = jnp.zeros((*h.shape[:2], points.visible.shape[1]), h.dtype), h.astype(points.right.dtype)
    (v, _), seen = jax.lax.scan(draw, start, jnp.arange(num_warmup + num_draws))
    return v, *(part[num_warmup:] for part in seen)


def hysteresis(points: Points, key, num_chains: int, sweeps: int) -> tuple[np.ndarray, np.ndarray]:
    """⟨|m₁|⟩ of every chain as the machine is driven up the axis and down again, ``sweeps`` sweeps a point.

    Each point continues from the states of the one before. Two arrays of shape (chain, point), both in the order of the axis.
    """
    order = np.concatenate([np.arange(len(points.visible)), np.arange(len(points.visible))[::-1]])
    found = np.asarray(_driven(jax.tree.map(lambda leaf: leaf[order], points), key, num_chains, sweeps), float)
    half = len(order) // 2
    return found[:half].T, found[half:][::-1].T


@functools.partial(jax.jit, static_argnames="num_chains")
def _driven(points, key, num_chains, sweeps):
    def visit(carry, point):
        h, number = carry

        def visited(step, state):
            h, total = state
            v, h = sweep(point.machines, jax.random.fold_in(jax.random.fold_in(key, number), step), h)
            return h, total + jnp.abs((v - point.visible[None]) @ point.left[:, 0])

        h, total = jax.lax.fori_loop(0, sweeps, visited, (h, jnp.zeros(num_chains, h.dtype)))
        return (h, number + 1), total / sweeps

    start = jnp.broadcast_to(points.hidden[0], (num_chains, points.hidden.shape[1]))
    return jax.lax.scan(visit, (start, 0), points)[1]


def measured(series: Series) -> dict[str, tuple]:
    """Quantities of every point and mode as (axes, values, errors, reliable), by name.

    Errors are those of `phi4ppl.analysis.derive`, except of ``symmetry_breaking``, whose error is over chains.
    """
    found: dict[str, tuple] = {}
    both = np.stack(list(series.modes.values()), axis=2)  # (chain, draw, layer, point, mode)
    unit = np.sqrt(np.mean(both**2, axis=(0, 1)))
    square = np.array([series.size[side] for side in series.modes], float)[:, None, None] * unit**2
    m = both / unit  # of the order of one: quotients of tiny means would underflow
    # no constants in the functions, so that runs of one shape share their programs
    parts = derive({"abs_m": np.abs(m), "m2": m**2, "m4": m**4}, QUANTITIES)
    factors = {"magnetization": unit, "susceptibility": square, "full_susceptibility": square, "binder_cumulant": 1.0}
    for name, part in parts.items():
        value, error = part.value * factors[name], part.error * factors[name]
        for k, side in enumerate(series.modes):
            label = name if side == "visible" else f"hidden_{name}"
            found[label] = (("point", "mode"), value[k], error[k], part.reliable[k])
    m = series.modes["visible"]
    time = gamma_method(m)
    found["relaxation_time"] = (("point", "mode"), time.tau_int, time.tau_int_error, time.reliable)
    broken, error = _broken(m)
    found["symmetry_breaking"] = (("point", "mode"), broken, error, np.ones(broken.shape, bool))
    slope = series.slope - series.slope.mean(axis=(0, 1))
    curved = derive({"x": slope, "x2": slope**2}, CURVATURE)["curvature"]
    found["curvature"] = (("point",), curved.value, curved.error, curved.reliable)
    mean = gamma_method(series.slope)
    found["slope"] = (("point",), mean.mean, mean.error, mean.reliable)
    return found


def _broken(m) -> tuple[np.ndarray, np.ndarray]:
    """Mean over chains of (mean of m in a chain)², over ⟨m²⟩: 0 where chains cross between the signs, 1 where none does."""
    shares = np.mean(m, axis=1) ** 2 / np.mean(m**2, axis=(0, 1))
    error = shares.std(axis=0, ddof=1) / np.sqrt(len(shares)) if len(shares) > 1 else np.full(shares.shape[1:], np.nan)
    return shares.mean(axis=0), error


def susceptibilities_without_each(series: Series) -> np.ndarray:
    """The susceptibility of the first visible mode without one chain each, shape (chain, point), for a jackknife."""
    m = series.modes["visible"][..., 0]
    size, number = series.size["visible"], len(m)
    first, second = np.mean(np.abs(m), axis=1), np.mean(m**2, axis=1)
    without = [(part.sum(axis=0) - part) / (number - 1) for part in (first, second)]
    return size * (without[1] - without[0] ** 2)
