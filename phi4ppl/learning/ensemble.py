"""Markov chains that persist while the couplings change: the model expectations of all fits that sample."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ArgumentError, SamplingError
from ..kernels.adaptation import schedule
from ..kernels.choose import resolve
from ..kernels.symmetry import flipped
from ..model.field import MarkovRandomField
from ..numpyro_plugin.numpyro_model import compile as compile_model
from ..sampling.memory import record_bytes
from ..sampling.program import cached_program, like

__all__ = ["Ensemble"]

BUFFER_BYTES = 64_000_000
MOST_ITERATIONS = 500  # in one call of the compiled program
PLAN_LENGTH = 4096
EVEN = ("hopping", "mass", "quartic")


class Ensemble:
    """Chains of one kernel whose couplings are arguments of one compiled program: new couplings do not recompile it.

    A sign-flip move is mixed in, with its own accept step; couplings that make the model even or not may come later.

    Parameters
    ----------
    model : MarkovRandomField
        Its terms are those of all models to come.
    kernel : str or Kernel
    num_chains : int
    key : JAX random key
    start : array, optional
        Fields to start from, shape ``(num_chains, *field_shape)``; by default random ones of both signs.
    """

    def __init__(self, model: MarkovRandomField, *, kernel="auto", num_chains: int, key, start=None):
        compiled = compile_model(model)
        self.signature = compiled.signature
        self.kernel, self.kernel_reason = resolve(kernel, compiled)
        even = all(form.built_in in EVEN for form in model._forms)
        self._program = cached_program(compiled.signature, self.kernel, (), ("phi",), True, even)
        self.num_chains, self._key, self._calls = num_chains, key, 0
        if start is None:
            start = compiled.initial_position(jax.random.split(self._next_key(), num_chains))
            positive = jnp.arange(num_chains).reshape(-1, *[1] * (start.ndim - 1)) % 2 == 0
            start = jnp.where(positive, start, flipped(start, None))
        start = jnp.asarray(start, jnp.result_type(float))
        if start.shape != (num_chains, *model.field_shape):
            raise ArgumentError("start", f"shape {(num_chains, *model.field_shape)}", f"shape {start.shape}")
        self._chains = self._program.begin(self._parameters(model), start)
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), self._chains)
        record = self._program.record_of(self._parameters(model), one)
        self._capacity = int(np.clip(BUFFER_BYTES // max(1, num_chains * record_bytes(record)), 1, MOST_ITERATIONS))
        room = (num_chains, self._capacity)
        self._buffer = jax.tree.map(lambda s: jnp.zeros((*room, *s.shape), s.dtype), record)
        self._plan = jnp.zeros((PLAN_LENGTH, 2), int)

    def _next_key(self):
        self._calls += 1
        return jax.random.fold_in(self._key, self._calls)

    def _parameters(self, model: MarkovRandomField):
        if (model.lattice, model._forms) != self.signature:
            raise ArgumentError("model", "the terms that the chains were made for", repr(model))
        return jax.tree.map(jnp.asarray, model._values)

    @property
    def fields(self) -> np.ndarray:
        """Where the chains are, shape ``(num_chains, *field_shape)``."""
        return np.asarray(self._chains.state.position)

    def warm_up(self, model: MarkovRandomField, num_iterations: int) -> None:
        """Move the chains to the model's equilibrium and adapt the kernel to it, from where they are."""
        parameters = self._parameters(model)
        self._chains = self._program.begin(parameters, self._chains.state.position)
        plan = schedule(num_iterations)
        self._plan = jnp.asarray(np.pad(plan, ((0, -num_iterations % PLAN_LENGTH), (0, 0))))
        self._run(parameters, num_iterations, 1, True)
        tuning = jax.vmap(self.kernel.adaptation.final)(self._chains.adaptation)
        self._chains = self._chains._replace(tuning=like(tuning, self._chains.tuning))

    def draw(self, model: MarkovRandomField, num_draws: int, thinning: int = 1) -> np.ndarray:
        """The next fields of every chain, shape ``(num_chains, num_draws, *field_shape)``.

        Raises
        ------
        SamplingError
            If a chain runs into a field where the action is not finite.
        """
        parameters = self._parameters(model)
        fresh = self._program.begin(parameters, self._chains.state.position)  # densities at the new couplings
        self._chains = fresh._replace(adaptation=self._chains.adaptation, tuning=self._chains.tuning)
        return self._run(parameters, num_draws, thinning, False)

    def _run(self, parameters, num_draws: int, thinning: int, warming: bool) -> np.ndarray | None:
        keys = jax.random.split(self._next_key(), self.num_chains)
        block = max(1, self._capacity // thinning)
        drawn = []
        for first in range(0, num_draws, block):
            count = min(block, num_draws - first)
            self._chains, self._buffer = self._program.advance(
                parameters,
                self._chains,
                keys,
                first * thinning,
                count * thinning,
                thinning,
                self._buffer,
                self._plan,
                warming,
            )
            state = self._chains.state
            if not all(np.isfinite(np.asarray(x)).all() for x in (state.logdensity, state.logdensity_grad)):
                raise SamplingError("a chain left the region where the action is finite; see model.check().")
            if not warming:
                drawn.append(np.array(self._buffer.values["phi"][:, :count]))
        return None if warming else np.concatenate(drawn, axis=1)
