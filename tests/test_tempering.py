"""Parallel tempering and Houdayer's moves: exactness, ladders, frustrated couplings, and log Z of models with several modes.

Unless said otherwise, the scores of one comparison are one test of level 1e-4 (`exact_runs.rejected`), with fixed keys, and a
sampled log Z must lie within four of its errors, which a right method fails with probability 6e-5.
"""

from __future__ import annotations

import functools
import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact_runs import rejected
from invariance import exact_draws, invariance_scores, mapped
from raising import raises

import phi4ppl as p4
from phi4ppl.analysis.gamma_method import gamma_method
from phi4ppl.kernels.choose import resolve
from phi4ppl.kernels.tempering.fresh_sites import fresh_sites, site_tables
from phi4ppl.kernels.tempering.ladder import exchange, respaced
from phi4ppl.kernels.tempering.ladder_pilot import BETAS, _rejections, pilot_of
from phi4ppl.kernels.tempering.replica_clusters import exchange_clusters
from phi4ppl.partition.population import systematic
from phi4ppl.sampling import target_of

pytestmark = pytest.mark.compile_quickly


def frustrated():
    """Four sites, all connected; three of the four triangles have a negative product of signs."""
    return p4.phi4(p4.lattice.complete(4), w=np.array([0.5, -0.4, 0.6, 0.5, 0.4, -0.6]), a=0.2, b=0.2)


def spin_glass(side: int, seed: int, w=2.0, a=1.52425, b=0.175):
    lattice = p4.lattice.square(side)
    return p4.phi4(lattice, w=w * np.random.default_rng(seed).choice([-1, 1], len(lattice.edges)), a=a, b=b)


# --- exchanges

BETA = np.array([1.0, 0.6, 0.3])
V = np.array([0.0, 1.5, -1.0])  # of three fields that take the rungs in any order


def law_of_orders():
    """Stationary probability of every order of the three fields on the rungs, ∝ exp(−Σ_k β_k V_k)."""
    orders = np.array(list(itertools.permutations(range(3))))
    weight = np.exp(-(V[orders] * BETA).sum(axis=1))
    return orders, weight / weight.sum()


def counts_after(beta, number=20_000):
    """How often every order follows from orders drawn from their law."""
    orders, law = law_of_orders()
    start = orders[np.random.default_rng(3).choice(6, number, p=law)]

    def one(key, order):
        origin, _, _ = exchange(key, jnp.asarray(V)[order][:, None], jnp.asarray(beta), key_parity(key), 3)
        return order[origin[:, 0]]

    after = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(5), number), jnp.asarray(start)))
    return np.array([(after == order).all(axis=1).sum() for order in orders]), law * number


def key_parity(key):
    return jax.random.bernoulli(jax.random.fold_in(key, 9))


@pytest.mark.parametrize(
    ("beta", "right"), [(BETA, True), (-BETA, False), (BETA[::-1].copy(), False), (0 * BETA, False)],
    ids=["right", "wrong sign", "rungs upside down", "no temperatures"],
)  # fmt: skip
def test_rounds_of_exchanges_keep_the_law_of_all_orders(beta, right):
    """By enumeration of the six orders: z-scores of their counts, at level 1e-4 together."""
    found, expected = counts_after(beta)
    scores = {
        str(k): (n - m) / np.sqrt(m * (1 - m / 20_000)) for k, (n, m) in enumerate(zip(found, expected, strict=True))
    }
    assert bool(rejected(scores)) != right, scores


def test_rungs_at_equal_rejection():
    """A barrier Λ(β) = 4(1 − β²) is cut into equal parts; the ends stay where they are."""
    beta = jnp.linspace(1, 0.2, 9)
    for _ in range(30):
        beta = respaced(beta, 4 * (beta[:-1] ** 2 - beta[1:] ** 2))
    assert beta[0] == 1 and float(beta[-1]) == pytest.approx(0.2)
    np.testing.assert_allclose(np.diff(np.asarray(beta) ** 2), -0.96 / 8, rtol=0.02)


def test_the_barrier_of_gaussian_energies():
    """½ E|V − V′| = σ/√π for normal V: Λ = σ Δβ/√π. False alarm below 1e-4: 2 % are six errors of the mean difference."""
    draws = np.random.default_rng(0).normal(5.0, 3.0, (11, 20_000))
    found = _rejections(draws, np.linspace(1, 0, 11)).sum()
    assert found == pytest.approx(3 / np.sqrt(np.pi), rel=0.02)


# --- Houdayer's move

FAULTS = {
    "right": lambda total: total,
    "always": lambda total: 0 * total,
    "wrong sign": lambda total: -total,
    "half of the boundary": lambda total: total / 2,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_exchanged_clusters_keep_both_replicas_exact(fault, monkeypatch):
    """From independent exact draws of a frustrated model; the same for three wrong costs of an exchange."""
    module, model = importlib.import_module("phi4ppl.kernels.tempering.replica_clusters"), frustrated()
    target, drawn = target_of(p4.compile(model)), exact_draws(model, 60_000)
    first, second, fresh = drawn[:20_000], drawn[20_000:40_000], drawn[40_000:]
    sigmoid = jax.nn.sigmoid
    monkeypatch.setattr(module.jax.nn, "sigmoid", lambda x: sigmoid(-FAULTS[fault](-x)))
    pairs = np.stack([first, second], axis=1)
    one, other, share = mapped(lambda key, pair: exchange_clusters(target, key, pair[0], pair[1]), pairs)
    one, other = np.asarray(one, float), np.asarray(other, float)
    np.testing.assert_allclose(abs(one) + abs(other), abs(first) + abs(second), atol=1e-5)
    np.testing.assert_array_equal(one * other < 0, (first * second).astype(np.float32) < 0)
    moved = (np.abs(one - first) > 1e-6).any(axis=1).mean()
    assert 0.2 < moved < 0.9 and 0 <= float(share.min()) and float(share.max()) <= 1
    # the pair is what stays exact: each replica, and products of both
    scores = {f"first {k}": v for k, v in invariance_scores(model, first, one, fresh).items()}
    scores |= {f"second {k}": v for k, v in invariance_scores(model, second, other, fresh).items()}
    np.testing.assert_allclose(one * other, first * second, atol=1e-4)  # overlaps do not change
    assert bool(rejected(scores)) == (fault != "right"), rejected(scores)


@pytest.mark.parametrize("fault", [False, True], ids=["right", "taken for even"])
def test_exchanged_clusters_see_a_source(fault, monkeypatch):
    """With a source, −b is not as good as b: sums of both replicas stay, and each replica stays exact."""
    model = p4.phi4(p4.lattice.complete(4), w=np.array([0.5, -0.4, 0.6, 0.5, 0.4, -0.6]), a=0.2, b=0.2, r=0.4)
    if fault:
        module = importlib.import_module("phi4ppl.kernels.tempering.replica_clusters")
        monkeypatch.setattr(module, "_is_even", lambda model: True)
    target, drawn = target_of(p4.compile(model)), exact_draws(model, 60_000)
    first, second, fresh = drawn[:20_000], drawn[20_000:40_000], drawn[40_000:]
    pairs = np.stack([first, second], axis=1)
    one, other, _ = mapped(lambda key, pair: exchange_clusters(target, key, pair[0], pair[1]), pairs)
    one, other = np.asarray(one, float), np.asarray(other, float)
    assert np.allclose(one + other, first + second, atol=1e-5) != fault
    scores = {f"first {k}": v for k, v in invariance_scores(model, first, one, fresh).items()}
    scores |= {f"second {k}": v for k, v in invariance_scores(model, second, other, fresh).items()}
    assert bool(rejected(scores)) == fault, rejected(scores)


def test_exchanges_of_ising_spins_cost_nothing():
    """Where |φ| = 1 the sum of the two energies stays as it is, for any signs of w and any field of signs."""
    model, rng = spin_glass(4, 0), np.random.default_rng(1)
    pairs = rng.choice([-1.0, 1.0], (200, 2, 4, 4))
    target = target_of(p4.compile(model))
    one, other, _ = mapped(lambda key, pair: exchange_clusters(target, key, pair[0], pair[1]), pairs)
    energy = jax.vmap(model.energy)
    before = energy(jnp.asarray(pairs[:, 0])) + energy(jnp.asarray(pairs[:, 1]))
    np.testing.assert_allclose(energy(one) + energy(other), before, atol=1e-3)
    assert np.any(np.asarray(one) != pairs[:, 0])


# --- independent sites


@pytest.mark.parametrize("fault", [0.0, 0.3], ids=["right", "another source"])
def test_fresh_sites_come_from_their_density(fault):
    """Two wells of a barrier of 8 and a source, from one well: after six moves, moments by a sum over a grid.

    The planted fault is a density with another source.
    """
    model = p4.phi4(p4.lattice.chain(2), w=0.0, a=-8.0, b=2.0, r=0.3)
    target = target_of(p4.compile(model))
    tables = site_tables(target, jnp.float32)

    def walk(key, phi):
        for k in range(6):
            phi = fresh_sites(target, tables, jax.random.fold_in(key, k), phi)
        return phi

    drawn = np.asarray(mapped(walk, np.full((10_000, 2), 1.4)), float).reshape(-1)
    grid = np.linspace(-4, 4, 8001)
    weight = np.exp(-(-8 * grid**2 + 2 * grid**4 + (0.3 + fault) * grid) - 8)
    weight /= weight.sum()
    scores = {}
    for k in (1, 2, 3, 4):
        values = drawn**k
        scores[f"φ^{k}"] = (values.mean() - (weight * grid**k).sum()) / (values.std() / np.sqrt(values.size))
    assert bool(rejected(scores)) == (fault != 0), scores


# --- whole runs


RUNS = [p4.sampling.tempering(4, path="interactions"), p4.sampling.houdayer(3)]


@pytest.mark.parametrize("kernel", RUNS, ids=lambda kernel: kernel.name)
def test_runs_of_a_frustrated_model_are_exact(kernel):
    """Means over runs against independent exact draws, with the errors of both."""
    model = frustrated()
    tree = p4.sample(model, kernel=kernel, num_warmup=300, num_samples=2000, progress=False, seed=4)
    phi, exact = tree["posterior"]["phi"].values, exact_draws(model, 100_000, seed=9)
    edges = model.lattice.edges
    scores = {}
    for name, f in {"φ²": lambda x: x**2, "φφ'": lambda x: x[..., edges[:, 0]] * x[..., edges[:, 1]]}.items():
        values, wanted = f(phi), f(exact)
        error = gamma_method(values).error
        noise = wanted.std(axis=0) / np.sqrt(len(wanted))
        for k, z in enumerate((values.mean(axis=(0, 1)) - wanted.mean(axis=0)) / np.hypot(error, noise)):
            scores[f"{name} {k}"] = z
    assert not rejected(scores)
    trips = tree["sample_stats"]["round_trips"].sum("draw").values
    assert (trips > 100).all()
    checks = {check.name: check for check in p4.diagnose(tree).checks}
    assert checks["round trips"].passed and "barrier" in checks["round trips"].value


def test_the_verdict_fails_without_round_trips():
    model = p4.phi4(p4.lattice.chain(3), w=0.5, a=1.0, b=0.2)
    tree = p4.sample(model, kernel=p4.sampling.tempering(3), num_warmup=100, num_samples=100, progress=False)
    tree["sample_stats"]["round_trips"][:] = 0
    check = next(check for check in p4.diagnose(tree).checks if check.name == "round trips")
    assert not check.passed and check.value.startswith("0 (chain 0)")


def test_a_pilot_chooses_path_and_rungs():
    wells = p4.phi4(p4.lattice.chain(3), w=0.1, a=-8.0, b=2.0)  # barriers of single sites, hardly any coupling
    found = pilot_of([p4.compile(wells)], None)
    assert found.path == "interactions" and found.num_rungs == 3 and "independent sites" in str(found)
    assert BETAS["temperature"][0] == BETAS["interactions"][0] == 1
    lattice = p4.lattice.chain(2, periodic=False)
    pull = p4.Term("pull", lattice.edges, lambda x, y: x**4 + y**4, coupling=1.0)
    tied = p4.MarkovRandomField(lattice, [pull])
    with raises("argument.path.unsuited", "temperature"):
        pilot_of([p4.compile(tied)], "interactions")
    with raises("argument.path.choice"):
        p4.sampling.tempering(path="up")


def test_members_of_an_ensemble_share_the_ladder_of_the_hardest():
    easy, hard = (p4.compile(spin_glass(4, 1, w=w)) for w in (0.5, 2.0))
    assert resolve("auto", easy)[0].name != "tempering"
    alone, _ = resolve("auto", hard)
    together, why = resolve("auto", easy, others=[hard])
    assert together.name == "tempering" and why.startswith("frustration") and why.endswith("in the hardest of 2 models")
    assert together.adaptation.ladder == alone.adaptation.ladder
    assert resolve("tempering", easy)[0].adaptation.ladder.num_rungs < alone.adaptation.ladder.num_rungs


# --- spin glasses


def ground_energy(model) -> int:
    """Least −Σ_ij sign(w_ij) σ_i σ_j of a square torus by transfer matrices of minima and sums."""
    side = model.lattice.shape[0]
    sign = np.sign(np.asarray(model.couplings["w"]))
    right, down = np.zeros((side, side)), np.zeros((side, side))
    for (i, j), w in zip(model.lattice.edges, sign, strict=True):
        (x, y), (u, v) = divmod(int(i), side), divmod(int(j), side)
        if x == u:
            right[x, y if (y + 1) % side == v else v] += w
        else:
            down[x if (x + 1) % side == u else u, y] += w
    spins = 1 - 2 * ((np.arange(2**side)[:, None] >> np.arange(side)) & 1)
    total = None
    for x in range(side):
        row = -(right[x] * spins * np.roll(spins, -1, axis=1)).sum(axis=1)
        step = row[:, None] - (spins * down[x]) @ spins.T
        total = step if total is None else np.stack([(line[:, None] + step).min(axis=0) for line in total])
    return int(np.diagonal(total).min())


def test_transfer_matrices_find_the_ground_state_of_all_fields_of_signs():
    """By enumeration of the 65,536 fields of signs of a 4 × 4 torus."""
    spins = 1 - 2 * ((np.arange(2**16)[:, None] >> np.arange(16)) & 1)
    for seed in range(3):
        model = spin_glass(4, seed)
        (first, second), sign = model.lattice.edges.T, np.sign(np.asarray(model.couplings["w"]))
        energy = -(spins[:, first] * spins[:, second]) @ sign
        assert ground_energy(model) == energy.min() < -16


GROUND = [-82, -84, -90, -94, -96, -96, -88, -92, -90, -96]  # of seeds 0 to 9 on 8 × 8, from all fields of signs


def test_ground_states_by_transfer_matrix():
    assert [ground_energy(spin_glass(8, seed)) for seed in range(3)] == GROUND[:3]


@pytest.mark.slow
def test_tempering_finds_the_ground_states_of_the_ising_limit():
    """|φ| ≈ 1 by a barrier of 20 per site: no draw of signs lies below the exact ground state, and every realization finds it.

    Draws on the coldest rung are ground states with a probability of more than a tenth: 2 × 200 of them all miss with one far
    below 1e-6. Bonds of another seed are the planted fault.
    """
    models = [spin_glass(8, seed, w=1.6, a=-40.0, b=20.0) for seed in range(10)]
    couplings = {"w": np.stack([np.asarray(model.couplings["w"]) for model in models])}
    run = {"num_warmup": 100, "num_samples": 200, "num_chains": 2, "progress": False, "kernel": "tempering"}
    tree = p4.sample_ensemble(models[0], couplings, **run)
    phi = tree["posterior"]["phi"].values
    assert 0.9 < np.abs(phi).mean() < 1.1
    spins = np.sign(phi).reshape(*phi.shape[:3], -1)
    edges = models[0].lattice.edges
    aligned = spins[..., edges[:, 0]] * spins[..., edges[:, 1]]
    lowest = -np.einsum("cdme,me->cdm", aligned, np.sign(couplings["w"])).max(axis=(0, 1))
    assert lowest.tolist() == GROUND
    other = -np.einsum("cdme,me->cdm", aligned, np.sign(np.roll(couplings["w"], 1, axis=0))).max(axis=(0, 1))
    assert (other > GROUND).all()


def oddness(overlap):
    """z-scores of P(q) − P(−q) in eight bins, from the overlaps q of pairs of chains, shape (pairs, draws)."""
    borders = np.linspace(0, 1.01, 9)
    here = [(overlap > low) & (overlap <= high) for low, high in itertools.pairwise(borders)]
    there = [(-overlap > low) & (-overlap <= high) for low, high in itertools.pairwise(borders)]
    found = gamma_method(np.stack(here, axis=-1) * 1.0 - np.stack(there, axis=-1))
    return {f"bin {k}": m / e for k, (m, e) in enumerate(zip(found.mean, found.error, strict=True)) if e > 0}


def overlaps(tree):
    signs = np.sign(tree["posterior"]["phi"].values)
    return (signs[0::2] * signs[1::2]).mean(axis=(2, 3))


def test_overlaps_of_two_replicas_are_even():
    """P(q) of chains 0 and 1, and 2 and 3; fields of one sign of φ at the first site are the planted fault."""
    tree = p4.sample(spin_glass(4, 1), num_warmup=200, num_samples=1500, seed=3, progress=False)
    settings = p4.settings(tree)
    assert settings["kernel"] == "tempering"
    assert settings["kernel_reason"].startswith("frustration") and "copies; the barrier" in settings["kernel_reason"]
    assert not rejected(oddness(overlaps(tree)))
    phi = tree["posterior"]["phi"]
    tree["posterior"]["phi"] = phi * np.sign(phi[:, :, :1, :1]).values
    assert rejected(oddness(overlaps(tree)))


@pytest.mark.slow
@pytest.mark.parametrize(("side", "seed"), [*((8, seed) for seed in range(10)), (16, 0), (16, 1)])
def test_spin_glasses_pass_their_verdict(side, seed):
    """As `phi4ppl.sample` runs them unasked."""
    tree = p4.sample(spin_glass(side, seed), seed=1, progress=False)
    assert p4.settings(tree)["kernel"] == "tempering"
    report = p4.diagnose(tree)
    assert report.passed, str(report)
    assert not rejected(oddness(overlaps(tree)))


# --- log Z of models with several modes


def cosines():
    """A ring of three sites, each in a washboard −2.5 cos 4φ with several wells, with hopping between neighbors."""
    lattice = p4.lattice.chain(3)
    sites = np.arange(3)[:, None]
    washboard = p4.Term("washboard", sites, lambda x: -jnp.cos(4 * x), 2.5)
    return p4.MarkovRandomField(lattice, [*p4.phi4(lattice, w=0.4, a=0.5, b=0.02).terms, washboard])


def three_phases():
    """φ⁶ on a ring of eight sites where a phase around zero and two outer ones coexist."""
    return p4.phi4(p4.lattice.chain(8), w=0.7, a=3.7, b=-3.0, c=0.75)


METHODS = {
    "tempering": p4.partition.Tempering(num_samples=1000),
    "population": p4.partition.PopulationAnnealing(num_steps=200, population=2000),
    "ais": p4.partition.Annealing(num_steps=6000),
}


@functools.cache
def exact_log_z(make) -> float:
    return p4.log_partition(make(), method="exact").value


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", [cosines, three_phases])
def test_log_z_of_models_with_several_modes(make, method):
    """Exact by summing out sites on quadrature nodes. An error of the reference of one tenth must be seen."""
    found = p4.log_partition(make(), method=METHODS[method], seed=2)
    assert found.method == method and found.error < 0.03
    assert abs(found.value - exact_log_z(make)) < 4 * found.error
    assert not abs(found.value - exact_log_z(make) - 0.1) < 3 * found.error


def test_systematic_resampling_keeps_shares():
    """Every copy number is its share × number rounded up or down, and right on average over the offset."""
    share = jnp.asarray([0.5, 0.0, 0.13, 0.07, 0.3])
    offsets = (jnp.arange(400) + 0.5) / 400
    chosen = np.asarray(jax.vmap(lambda u: systematic(u, share))(offsets))
    counts = np.stack([(chosen == k).sum(axis=1) for k in range(5)], axis=1)
    wanted = 5 * np.asarray(share)
    assert ((counts >= np.floor(wanted - 1e-4)) & (counts <= np.ceil(wanted + 1e-4))).all()
    np.testing.assert_allclose(counts.mean(axis=0), wanted, atol=0.01)
