"""Statistics conjugate to a few homogeneous couplings, simulated at several values of these."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from ..energy.exact.independent_sites import IndependentSites
from ..errors.streams import stream_key, stream_rng
from ..model.coupling_vector import CouplingVector
from ..model.field import MarkovRandomField
from .coupling_ensembles import sample_energies

__all__ = ["NUM_WARMUP", "simulate"]

NUM_WARMUP = 300


def simulate(
    model: MarkovRandomField, names, thetas, *, num_chains: int, num_samples: int, seed: int, stream: tuple,
    num_warmup: int = NUM_WARMUP,
) -> np.ndarray:  # fmt: skip
    """Draws of one ensemble for every row of ``thetas``, all in one program.

    Parameters
    ----------
    model : MarkovRandomField
        Other couplings stay as they are.
    names : list of str
        The couplings in the columns of ``thetas``.
    seed : int
    stream : tuple
        Names and numbers that distinguish calls with the same seed.

    Returns
    -------
    array, shape (ensembles, chains, draws, couplings)
        The statistics in the order of ``names``.
    """
    thetas, dtype = np.atleast_2d(np.asarray(thetas, float)), jnp.result_type(float)
    rng, key = stream_rng(seed, *stream), stream_key(seed, *stream)
    chosen = [form.name in names for form in model.forms]
    order = [list(names).index(form.name) for form in model.forms if form.name in names]
    starts = []
    for theta in thetas:
        sites = IndependentSites.of(CouplingVector.of(model, names).model(theta))
        count = model.lattice.num_sites
        starts.append(rng.standard_normal((num_chains, count)) if sites is None else sites.draw(rng, num_chains))
    columns = {name: thetas[:, k] for k, name in enumerate(names)}
    models = model.structure.at(
        columns[name] if name in columns else np.stack([np.asarray(value)] * len(thetas))
        for name, value in model.couplings.items()
    )
    energies, _ = sample_energies(
        models, model.structure.at(map(float, chosen)),
        jnp.asarray(np.reshape(starts, (len(thetas), num_chains, *model.field_shape)), dtype),
        num_warmup=num_warmup, num_samples=num_samples, key=key,
    )  # fmt: skip
    return np.ascontiguousarray(energies[..., chosen][..., np.argsort(order)])
