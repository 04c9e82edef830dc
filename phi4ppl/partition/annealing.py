"""Annealed importance sampling along the path, from independent sites to the model and back."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from .._typing import OtherWalkers, Walkers
from ..analysis.gamma_method import gamma_method
from ..errors.streams import stream_key, stream_rng
from ..kernels.kernel import Kernel
from ..kernels.symmetry import is_even
from ..kernels.target import target_of
from ..model.field import Structure
from ..sampling.engine import Engine
from ..sampling.program import term_energies, transition
from ..sampling.progress import Progress
from .coupling_ensembles import sample_energies
from .coupling_path import Path
from .partition_estimate import PartitionEstimate

__all__ = ["PILOT", "PILOT_DRAWS", "anneal", "combine_directions", "one_sided", "schedule", "tuning_along"]

PILOT = np.linspace(0, 1, 5)  # where the speed of the path and the tuning of the kernel are measured
PILOT_DRAWS = 100
CHUNK = 50  # steps of one call to the device
SLOWEST = 0.2  # least density of steps, relative to their mean density


def anneal(
    path: Path, *, num_warmup: int, num_steps: int, num_walkers: int, seed: int, progress: bool | None
) -> PartitionEstimate:
    """log Z from walkers that are annealed from λ = 0 to 1, and from others that are annealed from 1 to 0.

    Forward, Z/Z_0 = ⟨exp(−W)⟩ with W = Σ_k (λ_{k+1} − λ_k) dS/dλ(φ_k), φ_0 independent draws; backward Z_0/Z = ⟨exp(W')⟩,
    from draws of the model. Their logarithms are biased down and up (R. M. Neal, Stat. Comput. 11 (2001) 125; R. B. Grosse,
    S. Ancha and D. M. Roy, NeurIPS 2016). The two are averaged, so that the biases cancel to leading order. Bennett's
    acceptance ratio is not used: it needs the backward kernel to be the time reversal of the forward one, and sweeps through
    the colors of a lattice are not.
    """
    key, rng = stream_key(seed, "annealing"), stream_rng(seed, "annealing")
    num_steps = CHUNK * -(-num_steps // CHUNK)
    with Progress(num_warmup + PILOT_DRAWS + 2 * num_steps, progress) as bar:
        bar.message("compiling the annealing …")
        start = path.draw(rng, (len(PILOT), num_walkers))
        energies, pilot = sample_energies(
            path.models(PILOT), path.change, start, num_warmup=num_warmup, num_samples=PILOT_DRAWS,
            key=jax.random.fold_in(key, 0), progress=bar,
        )  # fmt: skip
        lambdas = schedule(energies, num_steps)
        forward = _work(path, pilot, lambdas, path.draw(rng, (num_walkers,)), jax.random.fold_in(key, 1), bar)
        back = _work(path, pilot, lambdas[::-1], jnp.asarray(pilot.fields[-1]), jax.random.fold_in(key, 2), bar)
    value, error, bracket, warnings = combine_directions(forward, -back)
    z_0 = path.sites.log_partition
    how = f"2 × {num_walkers} walkers × {num_steps} steps; work spreads by {np.std(forward):.2g} and {np.std(back):.2g}"
    bracket = (z_0 + bracket[0], z_0 + bracket[1])
    return PartitionEstimate(z_0 + value, error + path.sites.error, "ais", how, bracket, warnings=warnings)


def schedule(energies: np.ndarray, num_steps: int) -> np.ndarray:
    """λ of all steps, denser where dS/dλ fluctuates more and more slowly: in proportion to √(variance × τ_int)."""
    slope = np.moveaxis(energies.sum(axis=3), 0, 2)
    fine = np.linspace(0, 1, 1001)
    density = np.interp(fine, PILOT, gamma_method(slope).error)  # error² of a mean is 2τ_int × variance / draws
    density = np.maximum(density, SLOWEST * density.mean())
    passed = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return np.interp(np.linspace(0, passed[-1], num_steps + 1), passed, fine)


def tuning_along(pilot: Engine, lambdas):
    """The tuning of the pilot's kernel at each λ: that of the nearest ensemble of the pilot, averaged over its chains."""
    nearest = np.abs(lambdas[:, None] - PILOT).argmin(axis=1)
    return jax.tree.map(lambda leaf: leaf.mean(axis=1)[nearest], pilot.tuning)


def _work(path: Path, pilot: Engine, lambdas, positions, key, bar: Progress) -> np.ndarray:
    """Σ_k (λ_{k+1} − λ_k) dS/dλ(φ_k) of every walker along ``lambdas``, where φ_{k+1} comes from φ_k by the kernel at λ_{k+1}.

    Going back from a draw of the model, φ_0 is as good as another draw after one more iteration at λ = 1.
    """
    measured = jax.tree.map(lambda m: jnp.asarray(m, positions.dtype), path.change)
    tuning = tuning_along(pilot, lambdas)
    keys, work = jax.random.split(key, len(positions)), np.zeros(len(positions))
    make = _program if path.model.structure.is_built_in else _program.__wrapped__
    annealing = make(path.model.structure, pilot.kernel, is_even(path.model))
    for first in range(0, len(lambdas) - 1, CHUNK):
        part = slice(first + 1, first + 1 + CHUNK)
        models, local = path.models(lambdas[part]), jax.tree.map(lambda leaf: leaf[part], tuning)  # noqa: B023
        chunk_keys = jax.vmap(lambda k: jax.random.fold_in(k, first))(keys)  # noqa: B023
        positions, energies = annealing(positions, chunk_keys, models, measured, local)
        work += np.asarray(energies, float).sum(axis=2) @ np.diff(lambdas[first : first + CHUNK + 1])
        bar.advance(CHUNK, "forward" if lambdas[0] == 0 else "backward", None, None)
    return work


@functools.lru_cache(maxsize=8)
def _program(structure: Structure, kernel: Kernel, flip_signs: bool):
    """``(positions, keys, models, measured, tuning)``: one iteration of every walker at each of the models in turn.

    Returns the fields, and the energies before each of the iterations.
    """

    def anneal(position, key, models, measured, tuning):
        def body(position, inputs):
            k, model, tuning = inputs
            energies = term_energies(measured, position)
            state = kernel.build(target_of(model), tuning).init(position)
            state = transition(kernel, model, tuning, jax.random.fold_in(key, k), state, flip_signs)
            return state.position, energies

        return jax.lax.scan(body, position, (jnp.arange(len(jax.tree.leaves(models)[0])), models, tuning))

    return jax.jit(jax.vmap(anneal, (0, 0, None, None, None)))


def one_sided(work: Walkers) -> tuple[float, float]:
    """log of the mean of exp(−W), and its standard error."""
    weights = np.exp(work.min() - work)
    value = logsumexp(-work) - np.log(len(work))
    return float(value), float(np.std(weights, ddof=1) / np.mean(weights) / np.sqrt(len(work)))


def combine_directions(
    forward: Walkers, back: OtherWalkers
) -> tuple[float, float, tuple[float, float], tuple[str, ...]]:
    """log(Z/Z_0) from W forward and W backward (of the protocol run backward, with its own sign), error, bracket, warnings."""
    (low, low_error), (minus_high, high_error) = one_sided(forward), one_sided(-back)
    high, error, warnings = -minus_high, np.hypot(low_error, high_error), ()
    gap = abs(high - low)
    if gap > 3 * error:
        warnings = (
            f"forward and backward annealing differ by {gap:.2g}, where {error:.2g} is expected by chance: the walkers fall "
            "behind the path, or chains of the model do not mix. Increase num_steps.",
        )
    bracket = (low - 2 * low_error, high + 2 * high_error)
    return (low + high) / 2, float(max(error / 2, gap / 2 if warnings else 0)), bracket, warnings
