"""Training: gradients of the likelihood of a machine by Gibbs chains, kept normalizable, in steps that can be gone on from."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ArgumentError, SamplingError, finite_array, one_of, positive_int
from .machine import RestrictedBoltzmannMachine
from .units import GaussianUnits, Phi4Units

if TYPE_CHECKING:
    import optax

__all__ = ["Epoch", "TrainingState", "train"]

METHODS = ("persistent_cd", "contrastive_divergence")
SMALLEST = {"quartic": 1e-5, "quadratic": 1e-2}  # of φ⁴ and of Gaussian units: below, Z would be close to infinite
STRONGEST = 0.98  # coupling strength of two Gaussian layers, infinite Z at 1


class Epoch(NamedTuple):
    """What is recorded after every pass through the data.

    ``reconstruction`` is the mean squared distance between data and ⟨v | ⟨h | v⟩⟩; ``free_energy_gap`` is ⟨F⟩ of the
    validation data less ⟨F⟩ of as many training data (nan without validation), and grows when the machine learns by heart;
    ``gradient_norm`` is that of the last batch; ``chain_change`` is the mean squared change of the chains in one epoch, in
    units of their variance, 2 where they have forgotten everything.
    """

    number: int
    reconstruction: float
    free_energy_gap: float
    gradient_norm: float
    chain_change: float


class TrainingState(NamedTuple):
    """All that the numbers of the following epochs depend on; a JAX pytree."""

    machine: RestrictedBoltzmannMachine
    optimizer: tuple
    chains: jax.Array
    epoch: int


def train(
    machine: RestrictedBoltzmannMachine, data, *, epochs: int = 50, method: str = "persistent_cd", sweeps: int = 1,
    batch_size: int = 100, num_chains: int = 100, learning_rate=0.005, weight_decay: float = 0.0, validation=None,
    seed: int = 0, state: TrainingState | None = None, on_epoch: Callable[[Epoch, TrainingState], None] | None = None,
) -> tuple[TrainingState, list[Epoch]]:  # fmt: skip
    """Train a machine by stochastic gradient ascent of its likelihood, ∂ log p/∂θ = ⟨∂F/∂θ⟩_chains − ⟨∂F/∂θ⟩_data.

    Parameters
    ----------
    machine : RestrictedBoltzmannMachine
        Where to start.
    data : array, shape (n, visible.size)
    epochs : int
        Passes through the data; with ``state``, further passes.
    method : str
        ``"persistent_cd"``: chains go on from update to update. ``"contrastive_divergence"``: they start at the data each time.
    sweeps : int
        Sweeps of block Gibbs sampling an update.
    batch_size, num_chains : int
        Data an update, and persistent chains.
    learning_rate : float or optax schedule
        Of Adam.
    weight_decay : float
        Weights shrink by ``weight_decay * learning_rate`` an update.
    validation : array, shape (m, visible.size), optional
    state : TrainingState, optional
        Go on from there, to the same numbers bit for bit as without the interruption (same data, settings and seed).
    on_epoch : callable, optional
        Called with every `Epoch` and state, for own logs and checkpoints.

    Returns
    -------
    TrainingState, list of Epoch

    Raises
    ------
    SamplingError
        If a coupling becomes non-finite; its attribute ``state`` is the last good state.
    ArgumentError

    Notes
    -----
    Z stays finite by projection after every update: quartic couplings of φ⁴ units stay above 1e-5, quadratic ones of Gaussian
    units above 0.01, and with two Gaussian layers the weights are scaled so that `coupling_strength` stays below 0.98.

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
    one_of("method", method, METHODS)
    for name, value in (("epochs", epochs), ("sweeps", sweeps), ("batch_size", batch_size), ("num_chains", num_chains)):
        positive_int(name, value)
    data = _matrix("data", data, machine)
    validation = None if validation is None else _matrix("validation", validation, machine)
    batch_size = min(batch_size, len(data))
    optimizer = _optimizer(learning_rate, weight_decay)
    key = jax.random.key(seed)
    if state is None:
        start = jax.random.permutation(jax.random.fold_in(key, 0), data)[jnp.arange(num_chains) % len(data)]
        state = TrainingState(machine, optimizer.init(machine), start, 0)
    history = []
    for _ in range(epochs):
        number = state.epoch + 1
        new, norm = _epoch(state, data, jax.random.fold_in(key, number), optimizer, method, sweeps, batch_size)
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(new.machine)):
            error = SamplingError(
                f"training diverged in epoch {number}: a coupling is not finite. Likely causes: a learning rate that is too "
                "large, or data that are not standardised. The attribute 'state' of this error is the last good state."
            )
            error.state = state
            raise error
        record = _record(state, new, float(norm), data, validation)
        state = new
        history.append(record)
        if on_epoch is not None:
            on_epoch(record, state)
    return state, history


def _matrix(name, value, machine):
    array = finite_array(name, value)
    if array.ndim != 2 or array.shape[1] != machine.visible.size or not len(array):
        raise ArgumentError(name, f"an array of shape (n, {machine.visible.size})", f"shape {array.shape}")
    return jnp.asarray(array, machine.weights.dtype)


def _optimizer(learning_rate, weight_decay) -> optax.GradientTransformation:
    if not callable(learning_rate) and not (isinstance(learning_rate, int | float) and learning_rate > 0):
        raise ArgumentError("learning_rate", "a positive number or an optax schedule", repr(learning_rate))
    if not (isinstance(weight_decay, int | float) and 0 <= weight_decay < math.inf):
        raise ArgumentError("weight_decay", "a number of at least 0", repr(weight_decay))

    return adam(learning_rate, weight_decay)


@functools.lru_cache(maxsize=16)  # one object a setting, so that going on compiles nothing
def adam(learning_rate, weight_decay):
    import optax

    def only_weights(tree):
        none = jax.tree.map(lambda _: False, tree)
        return RestrictedBoltzmannMachine.tree_unflatten(None, (none.visible, none.hidden, True))

    return optax.adamw(learning_rate, b1=0.5, weight_decay=weight_decay, mask=only_weights)


def _record(old, new, norm, data, validation) -> Epoch:
    some = data[: 1000 if validation is None else len(validation)]
    reconstruction, energy = map(float, _look(new.machine, some))
    gap = np.nan if validation is None else float(_look(new.machine, validation)[1]) - energy
    change = float(jnp.mean((new.chains - old.chains) ** 2) / jnp.mean(jnp.var(new.chains, axis=0)))
    return Epoch(new.epoch, reconstruction, gap, norm, change)


@jax.jit
def _look(machine, v):
    again = machine.visible_mean(machine.hidden_mean(v))
    return jnp.mean((v - again) ** 2), jnp.mean(machine.free_energy(v))


@functools.partial(jax.jit, static_argnames=("optimizer", "method", "sweeps", "batch_size"))
def _pass(state: TrainingState, data, key, optimizer, method, sweeps, batch_size):
    order = jax.random.permutation(jax.random.fold_in(key, 0), len(data))
    batches = order[: len(data) // batch_size * batch_size].reshape(-1, batch_size)

    def difference(machine, batch, chains):
        return jnp.mean(machine.free_energy(batch)) - jnp.mean(machine.free_energy(chains))

    def update(carry, batch):
        machine, memory, chains, number = carry
        batch = data[batch]
        start = chains if method == "persistent_cd" else batch
        moved = machine.gibbs(jax.random.fold_in(key, number), start, sweeps)
        gradient = jax.grad(difference)(machine, batch, moved)
        step, memory = optimizer.update(gradient, memory, machine)
        machine = normalizable(jax.tree.map(jnp.add, machine, step))
        chains = moved if method == "persistent_cd" else chains
        norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))
        return (machine, memory, chains, number + 1), norm

    carry, norms = jax.lax.scan(update, (state.machine, state.optimizer, state.chains, 1), batches)
    return carry[:3], norms[-1]


def _epoch(state: TrainingState, *settings):
    (machine, memory, chains), norm = _pass(state._replace(epoch=0), *settings)
    return TrainingState(machine, memory, chains, state.epoch + 1), norm


def normalizable(machine: RestrictedBoltzmannMachine) -> RestrictedBoltzmannMachine:
    """The machine with the nearest couplings at which Z is safely finite."""

    def bounded(units):
        name = {Phi4Units: "quartic", GaussianUnits: "quadratic"}.get(type(units))
        values = {field: getattr(units, field) for field in units.fields}
        if name is not None:
            values[name] = jnp.maximum(values[name], SMALLEST[name])
        return type(units).tree_unflatten(None, values.values())

    visible, hidden = bounded(machine.visible), bounded(machine.hidden)
    machine = RestrictedBoltzmannMachine.tree_unflatten(None, (visible, hidden, machine.weights))
    if isinstance(visible, GaussianUnits) and isinstance(hidden, GaussianUnits):
        shrink = jnp.minimum(1, STRONGEST / machine.coupling_strength())
        machine = RestrictedBoltzmannMachine.tree_unflatten(None, (visible, hidden, shrink * machine.weights))
    return machine
