"""Whether the chains at whose ends fields are drawn were long enough, seen while they run."""

from __future__ import annotations

import functools
import math
import threading

import jax
import jax.numpy as jnp
import numpy as np

from ..energy.frustration import ruggedness
from ..energy.functions import energy
from ..errors import Phi4pplWarning, calling_line, warn
from ..errors.streams import stream_rng
from ..lattice.coloring import colors
from ..model.field import MarkovRandomField, Structure
from ..model.term import is_concrete

__all__ = ["DrawCheck"]

ENOUGH = 20  # autocorrelation times in a chain
FEWEST = 40  # sweeps of a chain that can be judged
RECORDS = 100  # of a chain
WATCHED = 64  # chains of one call
SLACK = 0.25  # of the memory of one chain, whose standard error is some 0.2 where the memory is 1/e
LOOKS = 16  # calls in which random couplings are examined for frustration
ITERATIONS, NOISE = 10, 0.1  # of the power iteration, and in the vector that it starts from
WATCHES = ("energy", "order parameter")


class DrawCheck:
    """Watches the chains of one compiled program, and warns once if their draws cannot be trusted.

    The memory ρ of a chain is the autocorrelation, at a lag of a twentieth of its sweeps, of the energy and of the order
    parameter |v·φ|, v being the leading eigenvector of the matrix w (constant in a ferromagnet). One decay exp(−t/τ) leaves
    ρ > 1/e where the sweeps are fewer than 20 τ. Deviations are from the mean of all chains of a call, so that chains that
    are stuck in different places have memory. A program that draws one field at a time, with other couplings each time, as
    `numpyro.infer.Predictive` does, is judged by the average of ρ over its calls so far. The bound is a little above 1/e, by
    the noise of so many chains: of AR(1) chains of 40 τ, 0.1 % are told singly and none in 1,250 calls of 16; of 10 τ,
    26 % singly, 80 % in calls of 4, and all in calls of 16.

    Frustrated couplings, where single chains get stuck without any sign of it, are recognized by `ruggedness`.

    Parameters
    ----------
    structure : Structure
        Of the models that are drawn.
    num_sweeps : int
        From 40 on; shorter chains are not judged by their memory.
    """

    def __init__(self, structure: Structure, num_sweeps: int):
        self.structure, self.num_sweeps, self._line = structure, num_sweeps, calling_line("jax", "numpyro")
        self._memory, self._chains, self._looks, self._told = np.zeros(len(WATCHES)), 0, 0, False
        self._lock = threading.Lock()  # programs on several devices call back from threads of their own

    @property
    def stride(self) -> int:
        """Sweeps from one record to the next, a divisor of their number: 100 records, or a few more, are enough."""
        return next(k for k in range(max(1, self.num_sweeps // RECORDS), 0, -1) if self.num_sweeps % k == 0)

    def watch(self, model: MarkovRandomField):
        """A function of fields, shape (number, num_sites), to record now and then: shape (watched chains, watches)."""
        pattern = _leading_pattern(model)
        of_fields = jax.vmap(lambda field: energy(model, field.reshape(model.field_shape)))

        def watched(phi):
            some = phi[:WATCHED]
            return jnp.stack([of_fields(some), jnp.abs(some @ pattern)], axis=1)

        return watched

    def judge(self, model: MarkovRandomField, series) -> None:
        """Of the records, shape (records, watched chains, watches); in a JAX trace the warning comes when the program runs."""
        known = all(map(is_concrete, model.couplings.values()))
        if known:
            self._look(model)
        couplings = () if known else tuple(value for _, value in model.interactions)
        lag = self.num_sweeps // (ENOUGH * self.stride)
        memory = _memory(series, lag) if self.num_sweeps >= FEWEST else jnp.zeros(len(WATCHES))
        if known and is_concrete(memory):
            self._hear(series.shape[1], memory)
        else:
            jax.debug.callback(functools.partial(self._hear, series.shape[1]), memory, *couplings)

    def _hear(self, chains: int, memory, *couplings) -> None:
        with self._lock:
            if couplings and self._looks < LOOKS:
                self._looks += 1
                self._look(self.structure.at(map(np.asarray, couplings)))
            total = self._chains + chains
            self._memory = (self._chains * self._memory + chains * np.asarray(memory, float)) / total
            self._chains = total
            worst = int(np.argmax(self._memory))
            if self._memory[worst] > math.exp(-1) + SLACK / math.sqrt(total):
                self._warn(
                    "short_chains",
                    f"the {WATCHES[worst]} of its chains of {self.num_sweeps} sweeps has an autocorrelation of "
                    f"{self._memory[worst]:.2f} over a twentieth of them, and so they are fewer than about {ENOUGH} "
                    f"autocorrelation times: the fields are biased. Use GibbsField(…, num_sweeps={4 * self.num_sweeps}), "
                    "or phi4ppl.sample for the field by itself.",
                )

    def _look(self, model: MarkovRandomField) -> None:
        if (rugged := ruggedness(model)) is not None:
            self._warn(
                "frustrated",
                f"its couplings are frustrated: no signs of φ satisfy more than about {1 - rugged[1]:.0%} of the edges. Single "
                "chains get stuck, however long, and the fields are biased. phi4ppl.sample draws the field by itself with "
                "tempering; Predictive takes such draws as posterior_samples.",
            )

    def _warn(self, code: str, text: str) -> None:
        if not self._told:
            self._told = True
            lattice = self.structure.lattice
            warn(Phi4pplWarning(f"gibbs_field.{code}", f"GibbsField.sample on {lattice!r}: {text}"), self._line)


def _memory(series, lag: int):
    """ρ of every watch over the last three quarters, corrected for the mean that is subtracted, as if τ were the lag."""
    records, chains, _ = series.shape
    last = series[records // 4 :]
    away = last - last.mean(axis=(0, 1), keepdims=True)
    products, square = (away[:-lag] * away[lag:]).mean(axis=(0, 1)), (away**2).mean(axis=(0, 1))
    found = jnp.where(square > 0, products / jnp.where(square > 0, square, 1.0), 0.0)
    lost = min(1.0, 2 * lag / (len(last) * chains))
    return found * (1 - lost) + lost


def _leading_pattern(model: MarkovRandomField):
    """The unit vector v of the largest eigenvalue of w, about: what orders first; constant without hopping terms.

    The power iteration starts from the constant, the staggered and a random field.
    """
    number = model.lattice.num_sites
    start = jnp.ones(number)
    hopping = model.select(lambda form: form.is_hopping)
    if hopping.forms:
        total = jnp.zeros(number)
        for form, value in hopping.interactions:
            size = jnp.broadcast_to(jnp.abs(jnp.asarray(value, total.dtype)), len(form.cliques))
            total = total.at[form.cliques[:, 0]].add(size).at[form.cliques[:, 1]].add(size)
        pull = jax.grad(lambda v: -energy(hopping, v.reshape(model.field_shape)))

        def step(_, v):
            v = pull(v) + total.max() * v
            return v / (jnp.linalg.norm(v) + 1e-30)

        staggered = np.where(colors(model.lattice, hopping.forms) % 2, -1.0, 1.0)
        noise = NOISE * stream_rng(0, "pattern").normal(size=number)
        start += jnp.asarray(staggered + noise, start.dtype)
        start = jax.lax.fori_loop(0, ITERATIONS, step, start)
    return start / jnp.linalg.norm(start)
