"""Statistics conjugate to a few homogeneous couplings, simulated at several values of these."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from ..energy.exact.independent_sites import IndependentSites
from ..errors import stream_key, stream_rng
from ..model.field import MarkovRandomField
from .coupling_ensembles import Family

__all__ = ["NUM_WARMUP", "simulate"]

NUM_WARMUP = 300


def simulate(
    family: Family, model: MarkovRandomField, names, thetas, *, num_chains: int, num_samples: int, seed: int, stream: tuple,
    num_warmup: int = NUM_WARMUP,
) -> np.ndarray:  # fmt: skip
    """Draws of one ensemble for every row of ``thetas``, all in one program.

    Parameters
    ----------
    family : Family
        Of the model.
    model : MarkovRandomField
        Other couplings stay as they are.
    names : list of str
        The couplings in the columns of ``thetas``.
    seed : int
    stream : tuple
        Names and numbers that tell apart calls with one seed.

    Returns
    -------
    array, shape (ensembles, chains, draws, couplings)
        The statistics in the order of ``names``.
    """
    thetas, dtype = np.atleast_2d(np.asarray(thetas, float)), jnp.result_type(float)
    rng, key = stream_rng(seed, *stream), stream_key(seed, *stream)
    chosen = [form.name in names for form in model._forms]
    order = [list(names).index(form.name) for form in model._forms if form.name in names]
    starts = []
    for theta in thetas:
        sites = IndependentSites.of(model.replace(**dict(zip(names, theta.tolist(), strict=True))))
        count = model.lattice.num_sites
        starts.append(rng.standard_normal((num_chains, count)) if sites is None else sites.draw(rng, num_chains))
    values = []
    for form, value in zip(model._forms, model._values, strict=True):
        own = thetas[:, list(names).index(form.name)] if form.name in names else [np.asarray(value)] * len(thetas)
        values.append(jnp.asarray(np.asarray(own), dtype))
    draws = family.sample(
        tuple(values), tuple(1.0 if mine else 0.0 for mine in chosen),
        jnp.asarray(np.reshape(starts, (len(thetas), num_chains, *model.field_shape)), dtype),
        num_warmup=num_warmup, num_samples=num_samples, key=key,
    )  # fmt: skip
    return draws.energies[..., chosen][..., np.argsort(order)]
