"""Run by test_types in a process of its own: calls every function with shapes in its signature under jaxtyping's import hook.

Prints as JSON the functions that were not called, and which of the planted faults were caught. Imported by anything else, as
by pytest in search of doctests, it leaves the package without the hook: modules are imported once in a process.
"""

from __future__ import annotations

import json

from jaxtyping import TypeCheckError, install_import_hook

with install_import_hook("phi4ppl" if __name__ == "__main__" else [], "shape_checker.check"):
    import jax
    import jax.numpy as jnp
    import numpy as np
    import shape_checker

    import phi4ppl as p4
    from phi4ppl.analysis import mbar
    from phi4ppl.analysis.blocks import blocks_for, jackknife_bias, jackknife_error
    from phi4ppl.analysis.gamma_method import normalized_autocorrelation
    from phi4ppl.energy import functions
    from phi4ppl.energy.exact.gaussian import log_gaussian_integral
    from phi4ppl.energy.exact.independent_sites import IndependentSites
    from phi4ppl.inference import weights
    from phi4ppl.kernels import noise
    from phi4ppl.kernels.bonds import EdgeBonds, bonds_of, labels_of
    from phi4ppl.kernels.chessboard import chessboard, join, split
    from phi4ppl.kernels.metrics import spectrum
    from phi4ppl.kernels.target import target_of
    from phi4ppl.learning.score_matching import hyvarinen_scores
    from phi4ppl.learning.tail_average import TailAverage
    from phi4ppl.model.coupling_vector import CouplingVector, statistics_matrix
    from phi4ppl.networks import block_gibbs, gradients
    from phi4ppl.partition.annealing import combine_directions
    from phi4ppl.partition.chebyshev import Interpolant
    from phi4ppl.partition.pool import Pool
    from phi4ppl.reweighting.energies import as_samples, evaluate

KEY, RNG = jax.random.key(0), np.random.default_rng(0)
MODEL = p4.phi4(p4.lattice.square(4), w=0.5, a=1.0, b=0.2)
GAUSSIAN = p4.gaussian(p4.lattice.chain(3), w=0.2, a=1.0, r=0.5)
PHI = jax.random.normal(KEY, (4, 4))
FIELDS = np.asarray(jax.random.normal(KEY, (2, 20, 4, 4)))
THETA = np.array([0.5, 1.0, 0.2])


def fields_and_energies() -> None:
    functions.energy(MODEL, PHI), functions.energy_change(MODEL, PHI, -PHI), functions.log_density(MODEL, PHI)
    jax.grad(functions.energy, argnums=1)(MODEL, PHI)
    jax.vmap(functions.energy, (None, 0))(MODEL, FIELDS[0])
    MODEL.energy(FIELDS), MODEL.statistics(FIELDS)
    p4.exact.gaussian_mean(GAUSSIAN), p4.exact.gaussian_log_partition(GAUSSIAN)
    log_gaussian_integral(p4.exact.gaussian_precision(GAUSSIAN), jnp.ones(3))
    IndependentSites.of(MODEL).draw(RNG, 5)
    p4.quartic.log_normalizer(jnp.array([0.0, 1.0]), -2.0, 0.5), p4.quartic.draw(KEY, 0.0, 1.0, 0.2, shape=(3, 2))
    vector = CouplingVector.of(MODEL)
    vector.stack(vector.unflatten(vector.flatten(MODEL.couplings)))
    as_samples("samples", FIELDS, MODEL.lattice), evaluate(MODEL.energy, FIELDS[0])
    evaluate(jnp.square, FIELDS[0])
    hyvarinen_scores(vector, FIELDS[0].reshape(20, 16).astype(float), THETA)


def kernels() -> None:
    words = noise.random_words(KEY, 2, (3, 4))
    noise.normal(*words), noise.uniform(words[0]), noise.spare_uniform(words[1])
    spectrum(MODEL.lattice).apply(jnp.ones(()), PHI)
    target = target_of(MODEL)
    board = chessboard(target, PHI.dtype)
    black, white = split(PHI)
    assert np.array_equal(join(black, white), PHI)
    board.energy(0, black), board.pull(0, white)
    graph = bonds_of(target)
    labels_of(graph, jnp.stack([graph.set(KEY, PHI)]).astype(jnp.int32), (4, 4))
    EdgeBonds(MODEL.lattice.edges, jnp.asarray(0.5)).set(KEY, PHI)


def series_and_weights() -> None:
    series = RNG.normal(size=(2, 400, 3))
    normalized_autocorrelation(series, 2)
    blocks = blocks_for(series)
    jackknife_error(blocks, blocks.sums(series.reshape(800, 3)))
    jackknife_error(blocks, blocks.sums(series.reshape(800, 3)[:, 0] * 1j))
    jackknife_bias(blocks, blocks.sums(series.reshape(800, 3)), np.zeros(3))
    x = np.concatenate([RNG.normal(0, 1, 400), RNG.normal(0, 0.5, 400)])
    energies = np.stack([x**2 / 2, 2 * x**2])
    mbar.overlap_matrix(energies, [400, 400], mbar.solve_mbar(energies, [400, 400]))
    gaussians = [p4.gaussian(p4.lattice.chain(1), w=0, a=a) for a in (0.5, 2.0)]
    pooled = p4.combine_ensembles([x[:400].reshape(2, 200, 1), x[400:].reshape(2, 200, 1)], gaussians)
    pooled.reweight(gaussians[0].replace(a=1.0), {"m2": lambda phi: phi**2})
    assert pooled.log_partition_error[1] > 0
    combine_directions(RNG.normal(size=20), RNG.normal(size=30))
    statistics = [statistics_matrix(MODEL, part).reshape(1, 20, 3) for part in FIELDS]
    pool = Pool(np.stack([THETA, 1.1 * THETA]), statistics)
    pool.overlap(pool.couplings), pool.log_partition(THETA)
    line = Interpolant(lambda thetas: thetas[:, 0] ** 2, [0.0], [1.0])
    line(jnp.array([0.5]))
    elpd = RNG.normal(size=(10, 2))
    weights.evidence_weights([0.0, 1.0], [0.5, 0.5]), weights.pseudo_bma_weights(elpd, num_resamples=5)
    weights.bootstrap_errors(elpd, num_resamples=2)
    TailAverage(2, 0.5).add(2, THETA)


def machines() -> None:
    phi4 = p4.networks.Phi4Units([0.0, 0.1], [0.5, -0.5], [0.1, 0.3])
    gaussian = p4.networks.GaussianUnits([0.0, 0.1], [0.5, 0.5])
    v, samples = jnp.array([0.2, -1.0]), jnp.ones((4, 2))
    phi4.log_normalizer(v)
    for visible, hidden, method in (
        (phi4, p4.networks.BernoulliUnits([0.1]), "score_matching"),
        (phi4, p4.networks.SpinUnits([0.1]), "persistent_cd"),
        (gaussian, gaussian, "exact"),
    ):
        machine = p4.networks.RestrictedBoltzmannMachine(visible, hidden, 0.1 * np.ones((2, hidden.size)))
        (
            machine.gibbs(KEY, samples),
            machine.energy(v, machine.hidden_mean(v)),
            machine.visible_mean(jnp.ones(hidden.size)),
            visible.variance(v),
            hidden.variance(jnp.ones(hidden.size)),
        )
        block_gibbs.advance(machine, KEY, jnp.ones((2, 3, 2)), 1)
        gradients.objective(method, machine, samples, samples)
    machine.coupling_strength(), machine.log_prob(v), p4.networks.VisibleMarginal(machine).log_prob(v)
    block_gibbs.gaussian_draws(machine, KEY, jnp.ones((2, 3, 2)))


def planted_faults() -> dict[str, bool]:
    """Calls with arrays of wrong shapes or kinds, most of which NumPy and JAX would let through."""
    units = p4.networks.GaussianUnits([0.0, 0.1], [0.5, 0.5])
    machine = p4.networks.RestrictedBoltzmannMachine(units, p4.networks.SpinUnits([0.1]), np.ones((2, 1)))
    faults = {
        "a list of fields": lambda: chessboard(target_of(MODEL), PHI.dtype).energy(0, [PHI]),
        "two shapes": lambda: functions.energy_change(MODEL, PHI, jnp.ones(16)),
        "whole numbers": lambda: functions.energy(MODEL, jnp.ones((4, 4), int)),
        "axes exchanged": lambda: mbar.log_mixture(np.ones((3, 2)), [1, 1, 1], np.zeros(2)),
        "words to be broadcast": lambda: noise.normal(
            *noise.random_words(KEY, 1, (3,)), *noise.random_words(KEY, 1, (1,))
        ),
        "a missing axis": lambda: combine_directions(np.ones((2, 3)), np.ones(3)),
        "one sample": lambda: gradients.score_objective(machine, jnp.ones(2)),
    }
    caught = {}
    for name, fault in faults.items():
        try:
            fault()
        except TypeCheckError:
            caught[name] = True
        else:
            caught[name] = False
    return caught


if __name__ == "__main__":
    jax.config.update("jax_disable_most_optimizations", True)  # each program runs once
    fields_and_energies()
    kernels()
    series_and_weights()
    machines()
    abstract = {
        f"{p4.networks.Phi4Units.__module__}.Units.{name}" for name in ("draw", "log_normalizer", "mean", "variance")
    }
    uncalled = sorted(shape_checker.SHAPED - shape_checker.CALLED - abstract)
    print(json.dumps({"number": len(shape_checker.SHAPED), "uncalled": uncalled, "caught": planted_faults()}))
