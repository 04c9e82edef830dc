"""log Z of a machine: exactly where one layer is small, binary or Gaussian, by two-sided annealing otherwise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import brentq
from scipy.special import logsumexp

from ..energy.exact.gaussian import log_gaussian_integral
from ..energy.exact.trapezoid import log_trapezoid
from ..errors import ArgumentError
from ..errors.arguments import call_checked, one_of, seed_within
from ..errors.streams import stream_key
from ..model.pytree import replaced
from ..partition.annealing import one_sided
from ..partition.partition_estimate import PartitionEstimate
from .units import GaussianUnits

__all__ = ["annealed", "is_summable", "log_partition"]

MAX_BINARY = 20
MAX_REAL = 2
DEPTH = 40.0  # the box of a quadrature ends where the density has fallen by exp(−40)
NODES = {1: 2001, 2: 401}
BATCH = 2**14


def log_partition(machine, *, method: str, seed: int) -> PartitionEstimate:
    """See `RestrictedBoltzmannMachine.log_partition`."""
    one_of("method", method, ("auto", "gaussian", "enumeration", "quadrature", "annealing"))
    seed = seed_within(seed)
    binary, real, possible = _possible(machine)
    if method == "auto":
        method = next(name for name, can in possible.items() if can)
    if not possible[method]:
        need = {
            "gaussian": "two Gaussian layers",
            "enumeration": f"a binary layer of at most {MAX_BINARY} units",
            "quadrature": f"a real layer of at most {MAX_REAL} units",
        }[method]
        raise ArgumentError(
            "method",
            f"a machine with {need} for {method!r}",
            repr(machine),
            "Use method='annealing'.",
            reason="machine",
        )
    if method == "annealing":
        return annealed(machine, seed=seed)
    rounding = float(jnp.finfo(machine.weights.dtype).eps)
    if method == "gaussian":
        value = _gaussian(machine)
    else:
        side = min(binary if method == "enumeration" else real, key=lambda side: side.hidden.size)
        value, coarse = (_summed(side), 0.0) if method == "enumeration" else _integrated(side)
        error = float(np.hypot(coarse, rounding * abs(value)))
        return PartitionEstimate(value, error, method, "the other layer in closed form")
    return PartitionEstimate(value, rounding * abs(value), method, "determinant")


def _possible(machine):
    """The machine and its transpose where the hidden layer can be summed; where integrated; which methods can be used."""
    sides = machine, machine.transposed
    binary = [side for side in sides if side.hidden.states is not None and side.hidden.size <= MAX_BINARY]
    real = [side for side in sides if side.hidden.states is None and side.hidden.size <= MAX_REAL]
    both_gaussian = all(isinstance(layer, GaussianUnits) for layer in (machine.visible, machine.hidden))
    possible = {"gaussian": both_gaussian, "enumeration": bool(binary), "quadrature": bool(real), "annealing": True}
    return binary, real, possible


def is_summable(machine) -> bool:
    """Whether log Z of the machine is found without annealing."""
    return any(can for name, can in _possible(machine)[2].items() if name != "annealing")


def _gaussian(machine) -> float:
    """By a determinant in double precision."""
    v, h = machine.visible, machine.hidden
    precision = np.diag(2 * np.concatenate([np.asarray(v.quadratic, float), np.asarray(h.quadratic, float)]))
    w = np.asarray(machine.weights, float)
    precision[: v.size, v.size :], precision[v.size :, : v.size] = -w, -w.T
    linear = np.concatenate([np.asarray(v.linear, float), np.asarray(h.linear, float)])
    return float(log_gaussian_integral(precision, linear, np))


def _log_weights(side, h):
    """log of the marginal exp(−F(h)) of many states of the hidden layer, in batches."""
    free_energy = jax.jit(lambda side, h: side.transposed.free_energy(h))
    dtype = side.weights.dtype
    parts = [
        np.asarray(free_energy(side, jnp.asarray(h[k : k + BATCH], dtype)), float) for k in range(0, len(h), BATCH)
    ]
    return -np.concatenate(parts)


def _summed(side) -> float:
    low, high = side.hidden.states
    number = side.hidden.size
    total = -np.inf
    for start in range(0, 2**number, BATCH):
        states = np.arange(start, min(start + BATCH, 2**number))
        bits = (states[:, None] >> np.arange(number)) & 1
        total = np.logaddexp(total, logsumexp(_log_weights(side, np.where(bits, high, low))))
    return float(total)


def _integrated(side) -> tuple[float, float]:
    """The trapezoidal rule over the hidden layer, in a box that is enlarged until the density vanishes at its edge.

    With the change when every other node is left out.
    """
    number = side.hidden.size
    half_width = 4.0
    for _ in range(12):
        axis = np.linspace(-half_width, half_width, NODES[number])
        grid = np.stack(np.meshgrid(*[axis] * number, indexing="ij"), axis=-1)
        log_weight = _log_weights(side, grid.reshape(-1, number)).reshape(grid.shape[:-1])
        value, difference, ends = log_trapezoid(log_weight, number * np.log(axis[1] - axis[0]), tuple(range(number)))
        if -ends > DEPTH:
            break
        half_width *= 1.5
    if not (-ends > DEPTH and difference < 1e-4):
        got = f"a change of {difference:.1e} when every other node is left out, at a half width of {half_width:g}"
        raise ArgumentError(
            "method", "a density that quadrature resolves", got, "Use method='annealing'.", reason="unresolved"
        )
    return float(value), float(difference)


@call_checked
def annealed(machine, *, start=None, num_chains: int = 128, num_steps: int = 1000, seed: int = 0) -> PartitionEstimate:
    """log Z by annealed importance sampling in both directions, combined by Bennett's acceptance ratio.

    The path multiplies the weights by β from 0, where log Z is a sum over single units, to 1. Chains going up start from exact
    draws at β = 0; chains going down from ``start``, or from where chains going up have ended, after as many sweeps again.

    Parameters
    ----------
    start : array, shape (n, visible.size), optional
        Visible states near equilibrium, for example the persistent chains of training; otherwise ends of an annealing.
    num_chains, num_steps : int

    Returns
    -------
    PartitionEstimate
        ``bracket`` holds the two one-sided estimates, less and plus two of their errors: going up tends to end below
        log Z, going down above.

    Notes
    -----
    R. M. Neal, Stat. Comput. 11, 125 (2001); C. H. Bennett, J. Comput. Phys. 22, 245 (1976). The error joins Bennett's and half
    the distance between the two one-sided estimates, which sees what a variance cannot.
    """
    seed = seed_within(seed)
    field = jnp.zeros((num_chains, machine.visible.size), machine.weights.dtype)
    _, free = _walk(_scaled(machine, 0), stream_key(seed, "free units"), field, 1, 0)
    up, ends = _walk(machine, stream_key(seed, "up"), free, num_steps, 1)
    if start is None:
        start = ends
    start = jnp.asarray(start, machine.weights.dtype)[jnp.arange(num_chains) % len(start)]
    _, start = _walk(machine, stream_key(seed, "equilibrium"), start, num_steps, 0)
    down, _ = _walk(machine, stream_key(seed, "down"), start, num_steps, -1)
    base = float(_uncoupled(machine))
    up, down = np.asarray(up, float), np.asarray(down, float)
    (lower, lower_error), (minus_upper, upper_error) = one_sided(-up), one_sided(down)
    upper, (value, error) = -minus_upper, _bennett(up, down)
    bracket = base + lower - 2 * lower_error, base + upper + 2 * upper_error
    how = f"{num_chains} chain{'s' if num_chains != 1 else ''} up and down in {num_steps} steps"
    return PartitionEstimate(base + value, float(np.hypot(error, (upper - lower) / 2)), "annealing", how, bracket)


def _bennett(up, down) -> tuple[float, float]:
    """The c with Σ f(c − w_up) = Σ f(w_down − c), f(x) = 1/(1 + eˣ), for works of equally many chains, and its error."""

    def fermi(x):
        return 1 / (1 + np.exp(np.clip(x, -700, 700)))

    def balance(c):
        return fermi(c - up).sum() - fermi(down - c).sum()

    low, high = min(up.min(), down.min()) - 1, max(up.max(), down.max()) + 1
    if not np.isfinite(low + high):  # works of a machine that has diverged
        return np.nan, np.inf
    c = brentq(balance, low, high)
    # delta method; the slope is that of the two sums at c
    parts = [fermi(c - up), fermi(down - c)]
    slope = sum((p * (1 - p)).sum() for p in parts)
    return float(c), float(np.sqrt(sum(len(p) * p.var() for p in parts)) / max(slope, 1e-300))


def _scaled(machine, beta):
    return replaced(machine, weights=beta * machine.weights)


@jax.jit
def _uncoupled(machine):
    """log Z at weights of zero."""
    layers = machine.visible, machine.hidden
    return sum(jnp.sum(layer.log_normalizer(jnp.zeros(layer.size, machine.weights.dtype))) for layer in layers)


@jax.jit
def _walk(machine, key, v, num_steps, direction):
    """log weights of every chain in the direction of growing β, and where the chains end.

    Directions are 1 for up, −1 for down, and 0 for sweeps at β = 1, one program for all three.
    """

    def step(k, state):
        v, log_weight = state
        low, high = jnp.where(direction == 0, 1, k / num_steps), jnp.where(direction == 0, 1, (k + 1) / num_steps)
        scale = jnp.stack([low, high]).astype(v.dtype)[:, None, None]

        def work(v):
            below, above = jnp.sum(machine.hidden.log_normalizer(scale * (v @ machine.weights)[None]), axis=-1)
            return above - below

        work = jax.lax.cond(direction == 0, lambda v: jnp.zeros(v.shape[:-1], v.dtype), work, v)
        beta = jnp.where(direction == 1, high, low).astype(v.dtype)
        return _scaled(machine, beta).gibbs(jax.random.fold_in(key, k), v, 1), log_weight + work

    def turn(k, state):
        return step(jnp.where(direction == 1, k, num_steps - 1 - k).astype(v.dtype), state)

    v, log_weight = jax.lax.fori_loop(0, num_steps, turn, (v, jnp.zeros(v.shape[:-1], v.dtype)))
    return log_weight, v
