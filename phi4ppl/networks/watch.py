"""Watching a training: whether the likelihood of the data falls, gradients explode, or chains stop sampling the data's modes.

The likelihood needs log Z, so it is measured now and then: after 50 updates, after twice as many, and so on, and at the end.
The best state so far is kept, and is what a training that got worse returns.

Annealing brackets log Z. Its lower end is a bound that holds for machines with modes that no chain finds, too: by Markov's
inequality it is too high by t nats with a probability below exp(−t). So the upper end of the likelihood of the state in
question is compared with the lower end of the best one.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import stream_seed
from .gradients import both_gaussian, exact_log_partition, needs_chains, summed_side
from .machine import RestrictedBoltzmannMachine
from .normalizer import annealed

__all__ = ["Kept", "Watch", "first_watch", "objection", "watched"]

FIRST_CHECK = 50  # updates before the first measurement; the others after twice as many each
MIN_UPDATES = 20  # below, there is no training to judge
ROWS = 2000  # of the data, evenly spread, on which two states are compared
CHAINS, STEPS, FINE_STEPS = 64, 100, 1000  # of annealing, and its steps where the first answer is not clear
NOTHING = 0.01  # nats, within which two states are as good as each other
SLACK = 0.3  # nats by which the likelihood may fall, beyond what is uncertain
CLEAR = 10.0  # uncertainties, beyond which a fall is not measured again with more steps
EXPLOSION = 100.0  # gradient norm in units of that of the first epoch, or of one
# Difference of means of chains and data, in deviations of the data and in standard errors. 73 of 100 chains in one of two
# equal blobs are 4.2 errors off. Of healthy trainings with 64 units 0.4 % exceed 4 by chance.
OFF, OFF_SIGMAS = 0.3, 4.0
COLLAPSED = 0.02  # variance of the chains in units of that of the data
MIN_CHAINS = 10  # whose variance says something


class Kept(NamedTuple):
    """A state that may have to be returned, with log Z of its machine once that is measured; the error covers the bracket."""

    machine: RestrictedBoltzmannMachine
    optimizer: tuple
    chains: jax.Array
    hot: jax.Array
    epoch: jax.Array
    log_z: jax.Array
    error: jax.Array


class Watch(NamedTuple):
    """What is known of a training besides its state: updates so far and at the next measurement, the first norm, the best."""

    updates: jax.Array
    due: jax.Array
    norm: jax.Array
    best: Kept


def first_watch(parts: tuple) -> Watch:
    """The watch over a training that begins with this machine, memory of Adam, chains and hot chains."""
    nan = jnp.asarray(jnp.nan, parts[0].weights.dtype)
    whole = jnp.asarray(0, jnp.int32)
    return Watch(whole, whole + FIRST_CHECK, nan, Kept(*parts, whole, nan, nan))


def watched(watch: Watch, parts: tuple, epoch: int, data, updates: int, norm: float) -> tuple[Watch, bool]:
    """The watch after an epoch, and whether the likelihood was measured.

    Parameters
    ----------
    parts : tuple
        Machine, memory of Adam, chains and hot chains after the epoch.
    updates : int
        In this epoch.
    norm : float
        Mean norm of the gradient in this epoch.
    """
    updates = int(watch.updates) + updates
    first = watch.norm if np.isfinite(watch.norm) else jnp.asarray(norm, watch.norm.dtype)
    watch = watch._replace(updates=jnp.asarray(updates, jnp.int32), norm=first)
    if updates < watch.due:
        return watch, False
    now, best, rows = _measured(_kept(parts, epoch)), _measured(watch.best), _rows(data)
    # by the lower end of the likelihood: a large error stands for modes that chains do not find
    gain, error = -_fall(now, best, rows), float(best.error) - float(now.error)
    return watch._replace(due=jnp.asarray(2 * updates, jnp.int32), best=now if gain + error > 0 else best), True


def objection(watch: Watch, parts: tuple, epoch: int, data, method: str, norm: float) -> tuple[str | None, Kept | None]:
    """What is wrong with the state that a training ends in, None if nothing; and the better state, None if it is the last.

    Parameters
    ----------
    norm : float
        Mean norm of the gradient in the last epoch, nan where there was none.
    """
    if watch.updates < MIN_UPDATES:
        return None, None
    now, best = _measured(_kept(parts, epoch)), _measured(watch.best)
    rows = _rows(data)
    fall, error = _fall(now, best, rows), float(now.error + best.error)
    if SLACK < fall < SLACK + CLEAR * error:
        now, best = (_measured(state, FINE_STEPS, again=True) for state in (now, best))
        fall, error = _fall(now, best, rows), float(now.error + best.error)
    problems = []
    if not fall <= SLACK + error:
        size = f"by {fall:.3g} ± {error:.1g} nats" if np.isfinite(fall) else "beyond what can be measured"
        problems.append(
            f"the likelihood of the data has fallen {size} since epoch {int(best.epoch)}. Use a smaller learning_rate, a "
            "schedule that decays, or fewer epochs"
        )
    if norm > EXPLOSION * max(float(watch.norm), 1.0):
        problems.append(
            f"the norm of the gradient has grown to {norm:.3g}. Use a smaller learning_rate, or standardise the data"
        )
    if needs_chains(now.machine, method) and method == "persistent_cd":
        problems += _of_chains(np.asarray(now.chains, float), np.asarray(data, float))
    if not problems:
        return None, None
    better = best if int(best.epoch) != epoch and not fall <= max(error, NOTHING) else None
    return f"training has not converged: {'; '.join(problems)}.", better


def _of_chains(chains, data) -> list[str]:
    """What is wrong with persistent chains, judged by means and variances of single units.

    Chains are independent of each other given the couplings, so their mean has the error of as many independent draws as
    there are chains, but of no more than the rows that they started from.
    """
    wide = data.std(axis=0) > 1e-3 * data.std(axis=0).max()
    if not wide.any() or len(data) < 2 or len(chains) < 2:
        return []
    spread = data.std(axis=0)[wide]
    off = (chains.mean(axis=0) - data.mean(axis=0))[wide] / spread
    share = chains.var(axis=0)[wide] / spread**2
    error = np.sqrt(np.maximum(share, 1) / min(len(chains), len(data)) + 1 / len(data))
    if np.any((np.abs(off) > OFF) & (np.abs(off) > OFF_SIGMAS * error)):
        worst = np.argmax(np.abs(off) / error)
        return [
            f"chains are stuck in a part of the data: their mean of unit {np.flatnonzero(wide)[worst]} is off by "
            f"{abs(off[worst]):.2g} standard deviations, {abs(off[worst]) / error[worst]:.1f} standard errors. {_TEMPER}"
        ]
    if share.mean() < COLLAPSED and min(len(chains), len(data)) >= MIN_CHAINS:
        return [f"chains have collapsed: their variance is {share.mean():.2g} of that of the data. {_TEMPER}"]
    return []


_TEMPER = "Temper them: n_levels=8 of an estimator, num_levels=8 of train"


def _kept(parts, epoch) -> Kept:
    nan = jnp.asarray(jnp.nan, parts[0].weights.dtype)
    return Kept(*parts, jnp.asarray(epoch, jnp.int32), nan, nan)


def _rows(data):
    return data[:: -(-len(data) // ROWS)]


def _measured(state: Kept, steps: int = STEPS, again: bool = False) -> Kept:
    """The state with log Z of its machine, exact where a layer can be summed; infinite where it cannot be measured."""
    machine = state.machine
    if not again and np.isfinite(state.log_z):
        return state
    side = summed_side(machine)
    if both_gaussian(machine) or (side is not None and side.hidden.states is not None):
        log_z, error = _exact(machine), 0.0
    else:
        seed = stream_seed(int(state.epoch), "watch")
        found = annealed(machine, start=state.chains, num_chains=CHAINS, num_steps=steps, seed=seed)
        log_z = found.value
        # the two ends may come in the wrong order where chains up and down have found different modes
        error = max(found.error, *(abs(end - log_z) for end in found.bracket)) if np.isfinite(log_z) else np.inf
    dtype = state.log_z.dtype
    return state._replace(log_z=jnp.asarray(log_z, dtype), error=jnp.asarray(error, dtype))


def _fall(now: Kept, best: Kept, rows) -> float:
    """⟨log p⟩ of the data under the best state less that under the other, in nats."""
    change = float(_mean_free_energy(now.machine, rows)) - float(_mean_free_energy(best.machine, rows))
    return change + float(now.log_z) - float(best.log_z)


@jax.jit
def _mean_free_energy(machine, v):
    return jnp.mean(machine.free_energy(v))


@jax.jit
def _exact(machine):
    return exact_log_partition(machine)
