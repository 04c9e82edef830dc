"""Fields of one model whose couplings change: an `Engine` as fits use it."""

from __future__ import annotations

import numpy as np

from ..model.field import MarkovRandomField
from ..sampling.engine import Engine

__all__ = ["Ensemble"]


class Ensemble(Engine):
    """An `Engine` whose draws are the fields themselves."""

    def __init__(self, model: MarkovRandomField, *, kernel="auto", num_chains: int, key, start=None):
        super().__init__(model, kernel=kernel, num_chains=num_chains, key=key, start=start)

    def draw(self, model: MarkovRandomField, num_draws: int, thinning: int = 1, *, burn_in: bool = True) -> np.ndarray:
        """The next fields of every chain, shape ``(num_chains, num_draws, *field_shape)``."""
        return super().draw(model, num_draws, thinning, burn_in=burn_in).fields
