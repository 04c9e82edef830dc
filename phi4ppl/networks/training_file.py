"""A training on disk: a checkpoint directory that holds the last state whose writing was completed, and the log."""

from __future__ import annotations

import time
from importlib.metadata import version

import jax
import jax.numpy as jnp

from ..sampling.checkpoint import Store, pack, unpack
from ..sampling.identity import array_digest, version_identity
from .training_log import Epoch

__all__ = ["TrainingFile"]

SECONDS = 10.0  # from one writing to the next
RATES = (0, 1, 10, 100, 1000, 10_000)  # updates at which a schedule is looked at, to know it again


class TrainingFile:
    """A directory that one training writes to, as a context; on leaving it the last state is written.

    Parameters
    ----------
    path : path-like
        A directory that does not exist yet, or is empty, or holds a state of the very same training.
    state : TrainingState
        Where the training begins.
    arrays : tuple
        Data that the training depends on.
    settings : dict
        Numbers that it depends on, by name, apart from how many epochs it takes.
    learning_rate : float or optax schedule

    Attributes
    ----------
    state : TrainingState
        The state to resume from: that of the directory, or the initial one.
    history : list of Epoch
        Records of the epochs before that.

    Raises
    ------
    CheckpointError
        If the directory is another training's or no checkpoint at all, or damaged, or in use. Nothing in it is changed.
    """

    def __init__(self, path, state, arrays: tuple, settings: dict, learning_rate):
        rates = [float(learning_rate(k)) for k in RATES] if callable(learning_rate) else float(learning_rate)
        identity = {
            "kind": "training", "units": repr(state.machine), "start": array_digest(tuple(state)),
            "data": array_digest(arrays), "settings": settings, "learning_rate": rates, "optax": version("optax"),
        }  # fmt: skip
        self.store = Store(path, identity | version_identity(), ({"kind": "training"}, {}))
        self.state, self.history = state, []
        saved = self.store.saved
        if saved is not None:
            try:
                parts = unpack(tuple(state[:-1]), saved.state, saved.path)
            except BaseException:
                self.store.close()
                raise
            self.state = type(state)(*jax.tree.map(jnp.asarray, parts), saved.progress["epoch"])
            self.history = [Epoch(*record) for record in saved.progress["history"]]
        self.written, self.written_at = self.state.epoch, time.monotonic()

    def keep(self, state, history: list[Epoch]) -> None:
        """Take note of the state after an epoch, and write it if the last writing was long ago."""
        self.state, self.history = state, history
        if time.monotonic() - self.written_at >= SECONDS:
            self._write()

    def _write(self) -> None:
        progress = {"epoch": self.state.epoch, "history": [list(record) for record in self.history]}
        self.store.save(progress, pack(tuple(self.state[:-1])), 0, 0, {})
        self.written, self.written_at = self.state.epoch, time.monotonic()

    def __enter__(self) -> TrainingFile:
        return self

    def __exit__(self, *_) -> None:
        try:
            if self.state.epoch > self.written:
                self._write()
        finally:
            self.store.close()
