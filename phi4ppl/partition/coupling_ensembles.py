"""Energies of many ensembles at once: the same terms at different couplings, in one compiled program."""

from __future__ import annotations

import jax

from ..kernels.kernel import Kernel
from ..model.field import MarkovRandomField
from ..sampling.engine import Engine
from ..sampling.program import term_energies
from ..sampling.progress import Progress

__all__ = ["sample_energies"]


def sample_energies(
    models: MarkovRandomField, measured: MarkovRandomField, start: jax.Array, *, num_warmup: int, num_samples: int, key,
    kernel: str | Kernel = "auto", progress: Progress | None = None,
):  # fmt: skip
    """Warm up chains of every ensemble and draw from them.

    Parameters
    ----------
    models : MarkovRandomField
        The models, with a leading axis of ensembles in their couplings.
    measured : MarkovRandomField
        Of the same structure, without that axis; its energy is recorded term by term.
    start : array, shape (ensembles, chains, *field_shape)

    Returns
    -------
    energies : array, shape (ensembles, chains, draws, terms), float64
    engine : Engine
        The engine with the present chains and the tuning of their kernels.
    """
    members, chains = start.shape[:2]
    engine = Engine(
        models, kernel=kernel, num_chains=chains, key=key, start=start, num_members=members, keep_field=False,
        observables=(("energies", term_energies),),
    )  # fmt: skip
    engine.warm_up(models, num_warmup, progress=progress)
    draws = engine.draw(models, num_samples, measured=measured, progress=progress)
    return draws.observables["energies"].astype(float), engine
