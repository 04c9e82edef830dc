"""Training: gradient descent with Adam that stays normalizable, with a log and a state that can be resumed."""

from __future__ import annotations

import contextlib
import functools
import math
import numbers
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ArgumentError, Phi4pplWarning, SamplingError, warn
from ..errors.arguments import call_checked, finite_array, positive_int, seed_within
from ..errors.streams import stream_key
from ..lattice.labels import aligned_units
from ..model.pytree import replaced
from ..sampling.interrupt import Interrupts
from ..sampling.progress import Progress
from .block_gibbs import advance, gaussian_draws
from .gradients import (  # fmt: skip
    METHODS,
    both_gaussian,
    centered,
    free_couplings,
    from_centered,
    needs_chains,
    objective,
    require_method,
    to_centered,
)
from .machine import RestrictedBoltzmannMachine
from .training_file import TrainingFile
from .training_log import Epoch, look, num_condensed
from .units import GaussianUnits, Phi4Units
from .watch import Watch, first_watch, objection, watched

if TYPE_CHECKING:
    import optax

__all__ = ["METHODS", "TrainingState", "first_state", "judged", "normalizable", "train"]

SMALLEST = {"quartic": 1e-5, "quadratic": 1e-2}  # of φ⁴ and of Gaussian units: below, Z would be close to infinite
STRONGEST = 0.99999  # coupling strength of two Gaussian layers, infinite Z at 1; single precision resolves 1e-6


@call_checked
class TrainingState(NamedTuple):
    """All that the numbers of the following epochs depend on; a JAX pytree.

    ``chains`` are visible states of the machine, ``hot`` those of their copies at smaller weights, level by level; ``watch``
    holds the best state so far.
    """

    machine: RestrictedBoltzmannMachine
    optimizer: tuple
    chains: jax.Array
    hot: jax.Array
    watch: Watch
    epoch: int


class Settings(NamedTuple):
    """The settings of an epoch that are fixed at compile time."""

    method: str
    sweeps: int
    batch_size: int
    optimizer: optax.GradientTransformation
    centering: bool


@call_checked
def train(
    machine: RestrictedBoltzmannMachine, data, *, epochs: int = 50, method: str = "persistent_cd", sweeps: int = 1,
    batch_size: int = 100, num_chains: int = 100, num_levels: int = 1, learning_rate=0.005, weight_decay: float = 0.0,
    centering: bool = True, validation=None, likelihood_every: int | None = None, checkpoint=None, seed: int = 0,
    state: TrainingState | None = None, on_epoch: Callable[[Epoch, TrainingState], None] | None = None,
    progress: bool | None = None,
) -> tuple[TrainingState, list[Epoch]]:  # fmt: skip
    """Train a machine by stochastic gradient ascent of its likelihood, ∂ log p/∂θ = ⟨∂F/∂θ⟩_chains − ⟨∂F/∂θ⟩_data.

    Parameters
    ----------
    machine : RestrictedBoltzmannMachine
        Where to start.
    data : array or DataFrame, shape (n, visible.size)
        Labels of the columns of a DataFrame have to be the numbers of the units, in any order. Missing values are rejected.
    epochs : int
        Passes through the data; with ``state``, further passes.
    method : str
        ``"persistent_cd"``: chains continue from one update to the next; with two Gaussian layers, whose mean is known in
        closed form, they are independent draws, and updates do not need them. ``"contrastive_divergence"``: they start at
        the data. ``"score_matching"``: no chains and no Z, but the slopes of log p(v); real visible units only.
        ``"exact"``: all of Z in every update, for a binary layer of at most 14 units, a real one of at most two, or two
        Gaussian layers.
    sweeps : int
        Sweeps of block Gibbs sampling per update.
    batch_size, num_chains : int
        Data per update, and persistent chains.
    num_levels : int
        With more than one, parallel tempering of the persistent chains: copies of each at weights βw, β from 0 to 1 in equal
        steps, exchange states after every sweep, so that they cross between modes.
    learning_rate : float or optax schedule
        Of Adam; a schedule is given the number of the update.
    weight_decay : float
        Weights shrink by ``weight_decay * learning_rate`` an update.
    centering : bool
        Whether steps are taken in S = −(v − μ)ᵀw(h − λ) + …, μ and λ the means over the batch: the same maximum,
        but weights do not drift with the linear couplings.
    validation : array, shape (m, visible.size), optional
    likelihood_every : int, optional
        Epochs from one record of ``log_likelihood`` to the next, each with log Z exact where it can be, annealed otherwise.
    checkpoint : path-like, optional
        A directory that the training is written to about every ten seconds and at its end. Repeating the call resumes from
        it, to the same numbers bit for bit; ``epochs`` may be more.
    seed : int
    state : TrainingState, optional
        Go on from there, to the same numbers bit for bit as without the interruption (same data, settings and seed). The
        machine is that of the state; ``machine`` has to be like it.
    on_epoch : callable, optional
        Called with every `Epoch` and state, for custom logs.
    progress : bool, optional
        Show a progress bar on standard error; by default only in a terminal.

    Returns
    -------
    TrainingState, list of Epoch
        After Ctrl-C what there is so far, with a warning. After a `TrainingWarning` the best state that was compared, and
        the records of all epochs.

    Raises
    ------
    SamplingError
        If a coupling or the gradient becomes non-finite; its attribute ``state`` is the last good state.
    CheckpointError
        If the directory holds something else than this training, or is damaged.
    ArgumentError

    Notes
    -----
    Z stays finite by projection after every update: quartic couplings of φ⁴ units stay above 1e-5, quadratic ones of Gaussian
    units above 0.01, and with two Gaussian layers the singular values behind `coupling_strength` are cut off at 0.99999.

    Where a singular value of the weights crosses its critical value in mean field (`Epoch.strength`), the progress output gains
    a line that stays, and `Epoch.condensed` grows: the machine passes a phase transition. `phases` measures it.

    A `TrainingWarning` means that the likelihood of the data has fallen by more than 0.3 nats beyond its uncertainty, that the
    norm of the gradient has grown a hundredfold, or that persistent chains are stuck or have collapsed, and what to change.

    Examples
    --------
    >>> import numpy as np
    >>> from phi4ppl.networks import BernoulliUnits, GaussianUnits, RestrictedBoltzmannMachine, train
    >>> data = np.random.default_rng(0).normal(1.0, 0.5, (200, 1))
    >>> start = RestrictedBoltzmannMachine(GaussianUnits([0.0], [0.5]), BernoulliUnits([0.0]), [[0.1]])
    >>> state, history = train(start, data, epochs=2)
    >>> state.epoch, len(history)
    (2, 2)
    """
    if not isinstance(machine, RestrictedBoltzmannMachine):
        raise ArgumentError("machine", "a RestrictedBoltzmannMachine", type(machine).__name__)
    require_method(machine, method)
    counts = {"epochs": epochs, "sweeps": sweeps, "batch_size": batch_size, "num_chains": num_chains}
    every = 1 if likelihood_every is None else likelihood_every
    for name, value in (counts | {"num_levels": num_levels, "likelihood_every": every}).items():
        positive_int(name, value)
    if num_levels > 1 and method != "persistent_cd":
        raise ArgumentError(
            "num_levels", f"1 with {method!r}", str(num_levels), "Only persistent chains are tempered.", reason="unused"
        )
    seed = seed_within(seed)
    data = _matrix("data", data, machine)
    validation = None if validation is None else _matrix("validation", validation, machine)
    settings = Settings(
        method, sweeps, min(batch_size, len(data)), _optimizer(learning_rate, weight_decay), bool(centering)
    )
    key = stream_key(seed, "training")
    if state is None:
        start = jax.random.permutation(jax.random.fold_in(key, 0), data)[jnp.arange(num_chains) % len(data)]
        state = first_state(machine, start, learning_rate, weight_decay, num_levels)
    else:
        _require_same(state, machine, num_levels, num_chains if method == "persistent_cd" else None, settings.optimizer)
    last, history = state.epoch + epochs, []
    with Progress(None, progress) as bar, Interrupts() as interrupts, contextlib.ExitStack() as stack:
        bar.message("compiling the training …")
        file = None
        if checkpoint is not None:
            values = {
                "method": method, "sweeps": sweeps, "batch_size": batch_size, "centering": bool(centering),
                "weight_decay": weight_decay, "likelihood_every": likelihood_every, "seed": seed,
            }  # fmt: skip
            file = stack.enter_context(TrainingFile(checkpoint, state, (data, validation), values, learning_rate))
            state, history = file.state, file.history
        measured, condensed = False, num_condensed(state.machine, data)
        while state.epoch < last and not interrupts.asked:
            new, norm, exchange = _epoch(state, data, jax.random.fold_in(key, state.epoch + 1), settings)
            _require_finite(new, state, norm)
            watch, measured = watched(new.watch, new[:4], new.epoch, data, len(data) // settings.batch_size, norm)
            new = new._replace(watch=watch)
            likelihood_now = likelihood_every is not None and new.epoch % likelihood_every == 0
            record = look(state, new, data, validation, likelihood_now, seed)
            record = record._replace(gradient_norm=norm, exchange=exchange)
            condensed = _tell_of_transition(bar, condensed, record)
            state = new
            history.append(record)
            if file is not None:
                file.keep(state, history)
            if on_epoch is not None:
                on_epoch(record, state)
            _tell(bar, record, last)
    if state.epoch < last:
        text = f"interrupted: training stopped after epoch {state.epoch} of {last}."
        warn(Phi4pplWarning("training.interrupted", text, {"epoch": state.epoch, "epochs": last}))
    elif epochs > 1 or measured:
        state = judged(state, data, method, history[-1].gradient_norm if history else np.nan)
    return state, history


def judged(state: TrainingState, data, method: str, norm: float = np.nan) -> TrainingState:
    """The state that a training ends in, or after a warning the best one, if the training has not converged.

    Parameters
    ----------
    data : array, shape (n, visible.size)
    method : str
        As in `train`.
    norm : float
        Norm of the gradient in the last epoch.
    """
    problem, best = objection(state.watch, state[:4], state.epoch, data, method, norm)
    if problem is not None:
        from .training_warning import TrainingWarning  # imports scikit-learn where that is installed

        which = "last state" if best is None else f"state of epoch {int(best.epoch)}"
        warn(TrainingWarning(problem, f"The {which} is returned, the best of those compared."))
    return state if best is None else TrainingState(*best[:4], state.watch, int(best.epoch))


def first_state(
    machine: RestrictedBoltzmannMachine, chains, learning_rate=0.005, weight_decay: float = 0.0, num_levels: int = 1
) -> TrainingState:
    """The state in which the training of a machine begins, with chains at these visible states on all levels."""
    hot = jnp.broadcast_to(chains, (num_levels - 1, *jnp.shape(chains)))
    parts = machine, _optimizer(learning_rate, weight_decay).init(machine), jnp.asarray(chains), hot
    return TrainingState(*parts, first_watch(parts), 0)


def _require_same(state, machine, num_levels, num_chains, optimizer) -> None:
    """Reject a state of another training: its machine and chains would silently be used instead."""
    if not isinstance(state, TrainingState):
        raise ArgumentError("state", "a TrainingState, as train returns it", type(state).__name__)
    if repr(state.machine) != repr(machine):
        fix = "Training resumes from the machine in the state; pass one like it, such as state.machine."
        raise ArgumentError("machine", f"{state.machine!r}, as in the state", repr(machine), fix, reason="state")
    if len(state.hot) != num_levels - 1:
        raise ArgumentError("num_levels", f"{len(state.hot) + 1}, as in the state", str(num_levels), reason="state")
    if num_chains not in (None, len(state.chains)):
        raise ArgumentError("num_chains", f"{len(state.chains)}, as in the state", str(num_chains), reason="state")
    if jax.tree.structure(jax.eval_shape(optimizer.init, machine)) != jax.tree.structure(state.optimizer):  # type: ignore[operator]
        fix = (
            "The memory of Adam counts updates for a schedule only; optax.constant_schedule is a number as a schedule."
        )
        raise ArgumentError(
            "learning_rate", "a number or a schedule, whichever it was in the state", "the other", fix, reason="state"
        )


def _require_finite(new: TrainingState, state: TrainingState, norm: float) -> None:
    # where a gradient overflows, Adam divides by infinity: the couplings stay finite, and stay where they are
    what = "a coupling" if np.isfinite(norm) else "the gradient"
    if np.isfinite(norm) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(new.machine)):
        return
    error = SamplingError(
        "diverged",
        f"training diverged in epoch {new.epoch}: {what} is not finite. Likely causes: a learning rate that is too "
        "large, or data that are not standardized. The attribute 'state' of this error is the last good state.",
    )
    error.state = state  # type: ignore[attr-defined]
    raise error


def _tell(bar: Progress, record: Epoch, last: int) -> None:
    if bar.is_due or record.number == last:
        text = f"epoch {record.number} of {last} · reconstruction {record.reconstruction:.3g}"
        if np.isfinite(record.free_energy_gap):
            text += f" · free-energy gap {record.free_energy_gap:.3g}"
        bar.message(text)


def _tell_of_transition(bar: Progress, before: int, record: Epoch) -> int:
    """One line where more modes are past their mean-field transition than before; and how many there are now."""
    now = int(record.condensed)
    if now > before:
        modes = f"mode {now}" if now == before + 1 else f"modes {before + 1} to {now}"
        bar.note(
            f"epoch {record.number} · transition: {modes} of the weights condensed in mean field "
            f"(largest singular value {record.strength:.3g}, critical at 1)"
        )
    return now


def _matrix(name, value, machine):
    array = finite_array(name, aligned_units(name, value, machine.visible.size))
    if array.ndim != 2 or array.shape[1] != machine.visible.size or not len(array):
        raise ArgumentError(
            name, f"an array of shape (n, {machine.visible.size})", f"shape {array.shape}", reason="shape"
        )
    return jnp.asarray(array, machine.weights.dtype)


def _optimizer(learning_rate, weight_decay) -> optax.GradientTransformation:
    if not callable(learning_rate) and not (
        isinstance(learning_rate, numbers.Real) and 0 < float(learning_rate) < math.inf
    ):
        raise ArgumentError("learning_rate", "a positive number or an optax schedule", repr(learning_rate))
    if not (isinstance(weight_decay, numbers.Real) and 0 <= float(weight_decay) < math.inf):
        raise ArgumentError("weight_decay", "a number of at least 0", repr(weight_decay))
    return _adam(learning_rate, float(weight_decay))


@functools.lru_cache(maxsize=16)  # one object per setting, so that resuming does not recompile
def _adam(learning_rate, weight_decay):
    import optax

    def only_weights(tree):
        none = jax.tree.map(lambda _: False, tree)
        return replaced(none, weights=True)

    return optax.adamw(learning_rate, b1=0.5, weight_decay=weight_decay, mask=only_weights)


def _epoch(state: TrainingState, data, key, settings: Settings):
    parts, norm, exchange = _pass(state[:4], data, key, settings)
    return TrainingState(*parts, state.watch, state.epoch + 1), float(norm), float(exchange)  # type: ignore[call-arg]


@functools.partial(jax.jit, static_argnames="settings")
def _pass(parts, data, key, settings: Settings):
    order = jax.random.permutation(jax.random.fold_in(key, 0), len(data))
    size = settings.batch_size
    batches = order[: len(data) // size * size].reshape(-1, size)

    def update(carry, batch):
        machine, memory, chains, hot, number = carry
        batch, exchange = data[batch], jnp.nan
        moved = batch
        if needs_chains(machine, settings.method):
            start = batch if settings.method == "contrastive_divergence" else chains
            levels = jnp.concatenate([hot, start[None]]) if len(hot) else start[None]
            levels, exchange = advance(machine, jax.random.fold_in(key, number), levels, settings.sweeps)
            hot, moved = hot if settings.method == "contrastive_divergence" else levels[:-1], levels[-1]
        gradient = jax.grad(lambda machine: objective(settings.method, machine, batch, moved))(machine)
        norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))
        offsets = centered(machine, batch) if settings.centering else None
        gradient = free_couplings(to_centered(gradient, offsets) if settings.centering else gradient)
        step, memory = settings.optimizer.update(gradient, memory, machine)
        step = from_centered(step, offsets) if settings.centering else step
        machine = normalizable(jax.tree.map(jnp.add, machine, step))
        chains = moved if settings.method == "persistent_cd" and needs_chains(machine, settings.method) else chains
        return (machine, memory, chains, hot, number + 1), (norm, exchange)

    carry, (norms, exchanges) = jax.lax.scan(update, (*parts, 1), batches)
    machine, memory, chains, hot, _ = carry
    if settings.method == "persistent_cd" and both_gaussian(machine):
        levels = gaussian_draws(
            machine, jax.random.fold_in(key, len(batches) + 1), jnp.concatenate([hot, chains[None]])
        )
        hot, chains = levels[:-1], levels[-1]
    return (machine, memory, chains, hot), jnp.mean(norms), jnp.mean(exchanges)


def normalizable(machine: RestrictedBoltzmannMachine) -> RestrictedBoltzmannMachine:
    """The machine with the nearest couplings at which Z is safely finite."""

    def bounded(units):
        name = {Phi4Units: "quartic", GaussianUnits: "quadratic"}.get(type(units))
        return units if name is None else replaced(units, **{name: jnp.maximum(getattr(units, name), SMALLEST[name])})

    machine = replaced(machine, visible=bounded(machine.visible), hidden=bounded(machine.hidden))
    return replaced(machine, weights=_weakened(machine)) if both_gaussian(machine) else machine


def _weakened(machine):
    """Weights between Gaussian layers with the singular values of w_ij / (4 a_i m_j)^½ cut off at `STRONGEST`, one by one.

    A common factor would push all directions back for the sake of one, against the gradient, again and again.
    """
    scale = jnp.sqrt(2 * machine.visible.quadratic)[:, None] * jnp.sqrt(2 * machine.hidden.quadratic)[None]
    left, strengths, right = jnp.linalg.svd(machine.weights / scale, full_matrices=False)
    cut = (left * jnp.minimum(strengths, STRONGEST)[None]) @ right * scale
    return jnp.where(strengths[0] > STRONGEST, cut, machine.weights)
