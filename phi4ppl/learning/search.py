"""The state of a variational fit: couplings, the chains at them, and A − S and T at their draws."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ..analysis.gamma_method import gamma_method
from ..errors import ArgumentError
from ..errors.arguments import positive_int
from ..errors.streams import stream_key
from ..model.coupling_vector import CouplingVector, statistics_matrix
from ..model.field import MarkovRandomField
from ..reweighting.energies import difference
from ..sampling.engine import Engine
from ..sampling.traced import Traced
from .history import History

__all__ = ["Search", "correlation_of"]

NUM_CHAINS = 8
MAX_NUMBERS = 50_000_000  # of one step's statistics
WARMUP_FIRST, WARMUP_LATER = 300, 100
MAX_IMPROVEMENT = 0.1  # predicted nats, above which the chains must equilibrate again
MAX_HALVINGS = 20
KEPT_QUARTIC = 0.2


@functools.lru_cache(maxsize=16)
def _of_fields(function: Traced) -> Callable:
    """A function of a model and of many fields, which another fit to the same target finds compiled."""
    return jax.jit(jax.vmap(function, in_axes=(None, 0)))


class Search:
    """Couplings under way, the chains at them, and A − S and T at their draws."""

    def __init__(self, model, target, fields_per_step, method, kernel, initial, seed):
        self.vector, self.target = CouplingVector.of(model), target
        self.theta = self.vector.flatten(model.couplings)
        self.history = History(self.vector, None if initial is None else initial.history)
        size = self.vector.size
        usual = 256 if method == "gradient" else max(1000, min(max(4000, 4 * size), MAX_NUMBERS // size))
        samples = positive_int("fields_per_step", usual if fields_per_step is None else fields_per_step, minimum=16)
        self.draws = max(2, samples // NUM_CHAINS)
        start = None if initial is None else initial.samples[:NUM_CHAINS, -1]
        done = 0 if initial is None else initial.history.sizes["step"]
        # a fit that is continued must not draw the same numbers again
        key = stream_key(seed, "variational fit", done)
        self.ensemble = Engine(model, kernel=kernel, num_chains=NUM_CHAINS, key=key, start=start)
        self.is_warm, self.notes = False, []
        like = jax.tree.map(jnp.asarray, self.model), jax.ShapeDtypeStruct(model.field_shape, jnp.result_type(float))
        self._excess = _of_fields(Traced(lambda model, phi: difference(target, model)(phi), *like))

    @property
    def model(self) -> MarkovRandomField:
        return self.vector.model(self.theta)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def draw(self, draws: int, moved: float) -> tuple[np.ndarray, np.ndarray]:
        """Fields at the present couplings, (chains, draws, *lattice), and A − S at each, (chains, draws).

        ``moved`` is the improvement in nats that the last change of the couplings was to bring.
        """
        model = self.model
        if not self.is_warm or moved > MAX_IMPROVEMENT:
            self.ensemble.warm_up(model, WARMUP_LATER if self.is_warm else WARMUP_FIRST)
            self.is_warm = True
        fields = self.ensemble.draw(model, draws).fields
        flat = fields.reshape(-1, *model.field_shape)
        excess = np.asarray(self._excess(jax.tree.map(jnp.asarray, model), flat))
        if np.iscomplexobj(excess):
            raise ArgumentError(
                "target", "a real action", "a complex one", "phi4ppl.reweight takes complex targets.", reason="complex"
            )
        if not np.all(np.isfinite(excess)):
            raise ArgumentError(
                "target", "an action that is finite on samples of the model", "one that is not", reason="finite"
            )
        return fields, excess.astype(float).reshape(fields.shape[:2])

    def statistics(self, fields) -> np.ndarray:
        return statistics_matrix(self.vector.template, fields.reshape(-1, *self.vector.template.field_shape))

    def move(self, step: np.ndarray) -> float | None:
        """Change the couplings by as much of ``step`` as keeps the action bounded: the share taken, None if there is none."""
        share, highest = 1.0, self.vector.template.structure.highest_power
        for form in self.vector.template.forms:
            part = self.vector.slices[form.name]
            old, change = self.theta[part], step[part]
            if form.power == highest and np.any(falls := (old > 0) & (change < 0)):
                share = min(share, float(np.min((1 - KEPT_QUARTIC) * old[falls] / -change[falls])))
        for _ in range(MAX_HALVINGS):
            theta = self.theta + share * step
            if not np.all(np.isfinite(theta)):
                return None
            if _is_normalizable(self.vector.model(theta)):
                break
            share /= 2
        else:
            return None
        if share < 1:
            self.note("Steps were shortened, so that quartic couplings stay positive and the action bounded.")
        self.theta = theta
        return share


def _is_normalizable(model: MarkovRandomField) -> bool:
    """Quickly where positive quartic couplings at all sites settle it, by the full check otherwise."""
    for form, value in model.interactions:
        everywhere = len(np.unique(form.cliques)) == model.lattice.num_sites
        is_highest = form.power == model.structure.highest_power and model.structure.is_built_in
        if is_highest and everywhere and np.all(np.asarray(value) > 0):
            return True
    return model.check().is_normalizable


def correlation_of(series) -> float:
    """2 τ_int of a series of shape (chains, draws): draws for one that is independent."""
    if series.shape[1] < 8 or not np.ptp(series):
        return 1.0
    return max(1.0, 2 * float(gamma_method(series).tau_int))
