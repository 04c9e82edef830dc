"""Population annealing along the path, from independent sites to the model, with its free energy."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ..errors.streams import stream_key, stream_rng
from ..kernels.kernel import Kernel
from ..kernels.symmetry import is_even
from ..kernels.target import target_of
from ..model.field import Structure
from ..sampling.program import term_energies, transition
from ..sampling.progress import Progress
from .annealing import CHUNK, PILOT, PILOT_DRAWS, one_sided, schedule, tuning_along
from .coupling_ensembles import sample_energies
from .coupling_path import Path
from .partition_estimate import PartitionEstimate

__all__ = ["anneal_populations", "systematic"]

POPULATIONS = 8
PER_FAMILY = 100  # fields of a population for every field of an average family, below which it warns


def anneal_populations(
    path: Path, *, num_warmup: int, num_steps: int, population: int, seed: int, progress: bool | None
) -> PartitionEstimate:
    """log Z from independent populations that are resampled on their way from λ = 0 to 1; their spread is the error.

    At every step from λ to λ' the fields φ_r have weights exp(−(λ' − λ) V(φ_r)), V = dS/dλ. The population is resampled in
    proportion to them, and every field then moves by one iteration of the kernel at λ'. With R fields,

        log(Z/Z_0) = Σ_steps log [ R⁻¹ Σ_r exp(−(λ' − λ) V(φ_r)) ],

    of which Z/Z_0 has no bias. Fields of one ancestor make a family; ρ = R Σ_f (share of family f)² is the mean number of
    fields that share an ancestor. Sources: K. Hukushima and Y. Iba, AIP Conf. Proc. 690 (2003) 200; W. Wang, J. Machta and
    H. G. Katzgraber, Phys. Rev. E 92 (2015) 063307 (families).
    """
    key, rng = stream_key(seed, "population"), stream_rng(seed, "population")
    num_steps = CHUNK * -(-num_steps // CHUNK)
    with Progress(num_warmup + PILOT_DRAWS + num_steps, progress) as bar:
        bar.message("compiling the annealing of populations …")
        energies, pilot = sample_energies(
            path.models(PILOT), path.change, path.draw(rng, (len(PILOT), 16)), num_warmup=num_warmup,
            num_samples=PILOT_DRAWS, key=jax.random.fold_in(key, 0), progress=bar,
        )  # fmt: skip
        lambdas = schedule(energies, num_steps)
        tuning = tuning_along(pilot, lambdas)
        fields = path.draw(rng, (POPULATIONS, population))
        measured = jax.tree.map(lambda m: jnp.asarray(m, fields.dtype), path.change)
        family = jnp.broadcast_to(jnp.arange(population), (POPULATIONS, population))
        keys, total = jax.random.split(jax.random.fold_in(key, 1), POPULATIONS), np.zeros(POPULATIONS)
        make = _program if path.model.structure.is_built_in else _program.__wrapped__
        annealing = make(path.model.structure, pilot.kernel, is_even(path.model))
        for first in range(0, num_steps, CHUNK):
            part = slice(first + 1, first + 1 + CHUNK)
            gaps = jnp.asarray(np.diff(lambdas[first : first + CHUNK + 1]), fields.dtype)
            local = jax.tree.map(lambda leaf: leaf[part], tuning)  # noqa: B023
            chunk_keys = jax.vmap(lambda k: jax.random.fold_in(k, first))(keys)  # noqa: B023
            fields, family, gains = annealing(
                fields, family, chunk_keys, path.models(lambdas[part]), measured, local, gaps
            )
            total += np.asarray(gains, float).sum(axis=1)
            bar.advance(CHUNK, "population annealing", None, None)
    value, error = one_sided(-total)
    rho = max(population * np.sum((np.bincount(row) / population) ** 2) for row in np.asarray(family))
    how = f"{POPULATIONS} populations × {population} fields × {num_steps} steps; families of ρ = {rho:.3g} fields"
    warnings: tuple[str, ...] = ()
    if population < PER_FAMILY * rho:
        warnings = (
            f"only {population / rho:.2g} families of fields are left of a population, fewer than {PER_FAMILY}: modes may have "
            "been lost. Increase population or num_steps.",
        )
    z_0 = path.sites
    return PartitionEstimate(z_0.log_partition + value, error + z_0.error, "population", how, warnings=warnings)


@functools.lru_cache(maxsize=8)
def _program(structure: Structure, kernel: Kernel, flip_signs: bool):
    """``(fields, family, key, models, measured, tuning, gaps)``: a chunk of steps of every population."""

    def anneal(fields, family, key, models, measured, tuning, gaps):
        number = len(fields)

        def body(carry, inputs):
            (fields, family), (k, model, local, gap) = carry, inputs
            choose, move = jax.random.split(jax.random.fold_in(key, k))
            log_weight = -gap * jax.vmap(lambda phi: term_energies(measured, phi).sum())(fields)
            gain = jax.nn.logsumexp(log_weight) - jnp.log(number)
            source = systematic(jax.random.uniform(choose), jax.nn.softmax(log_weight))

            def moved(key, phi):
                state = kernel.build(target_of(model), local).init(phi)
                return transition(kernel, model, local, key, state, flip_signs).position

            fields = jax.vmap(moved)(jax.random.split(move, number), fields[source])
            return (fields, family[source]), gain

        steps = jnp.arange(len(gaps)), models, tuning, gaps
        (fields, family), gains = jax.lax.scan(body, (fields, family), steps)
        return fields, family, gains

    return jax.jit(jax.vmap(anneal, (0, 0, 0, None, None, None, None)))


def systematic(offset, share):
    """Which ones go on, each about ``share`` × number times: systematic resampling with one random offset in [0, 1).

    The expected number of copies of each is its share times the number, and its copies are that number rounded up or down.
    """
    number = len(share)
    places = (jnp.arange(number) + offset) / number
    return jnp.minimum(jnp.searchsorted(jnp.cumsum(share), places, side="right"), number - 1)
