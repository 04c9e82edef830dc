"""Colored sweeps: colorings, random numbers, overrelaxation, step sizes of sites, and sweeps that are wrong.

False alarms: every comparison has level 1e-4, shared among its quantities; about 30 are made. Keys are fixed.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from exact_runs import rejected
from invariance import (
    MODELS,
    exact_draws,
    fixed_tuning,
    invariance_scores,
    mapped,
    model_and_draws,
    score,
)
from scipy import stats

import phi4ppl as p4
from phi4ppl.kernels import local_hmc as sites
from phi4ppl.kernels.chessboard import Chessboard, chessboard, join, split
from phi4ppl.kernels.local_hmc import overrelaxable, overrelaxation, sweeps
from phi4ppl.kernels.noise import finished, normal, random_words, uniform
from phi4ppl.lattice.coloring import colors
from phi4ppl.sampling import get_kernel, target_of

pytestmark = pytest.mark.compile_quickly

# --- colorings


def coloring(model):
    color = colors(model.lattice, model.forms)
    assert color.shape == (model.lattice.num_sites,)
    assert sorted(set(color.tolist())) == list(range(color.max() + 1))
    for form in model.forms:
        for clique in form.cliques:
            assert len(set(color[clique].tolist())) == len(clique)
    return color.max() + 1


@pytest.mark.parametrize(
    ("lattice", "at_most"),
    [
        (p4.lattice.square(4, 6), 2),
        (p4.lattice.square(64), 2),
        (p4.lattice.square(2), 2),
        (p4.lattice.square(5, periodic=False), 2),
        (p4.lattice.square(3), 3),
        (p4.lattice.square(5), 4),
        (p4.lattice.square(5, 7), 4),
        (p4.lattice.square(4, 5), 4),
        (p4.lattice.square(4, diagonals=True), 4),
        (p4.lattice.square(5, 4, diagonals=True), 9),
        (p4.lattice.square(5, periodic=False, diagonals=True), 4),
        (p4.lattice.triangular(6), 4),
        (p4.lattice.triangular(5), 7),
        (p4.lattice.hypercubic((4, 4, 4)), 2),
        (p4.lattice.hypercubic((3, 3, 3)), 3),
        (p4.lattice.hypercubic((3, 4, 5)), 5),
        (p4.lattice.hypercubic((2, 2, 2, 4)), 2),
        (p4.lattice.chain(7), 3),
        (p4.lattice.chain(8), 2),
        (p4.lattice.chain(1), 1),
        (p4.lattice.complete(9), 9),
        (p4.lattice.bipartite(5, 9), 2),
        (p4.lattice.from_networkx(nx.star_graph(50)), 2),
        (p4.lattice.from_networkx(nx.empty_graph(4)), 1),
        (p4.lattice.from_networkx(nx.disjoint_union(nx.cycle_graph(5), nx.path_graph(4))), 3),
    ],
    ids=lambda x: getattr(x, "name", x),
)
def test_colorings_are_proper_and_of_few_colors(lattice, at_most):
    assert coloring(p4.phi4(lattice, w=1.0, a=1.0, b=0.2)) <= at_most


@pytest.mark.parametrize("seed", range(6))
def test_colorings_of_random_graphs_need_no_more_than_the_largest_degree_and_one(seed):
    graph = nx.gnm_random_graph(40, [10, 40, 80, 160, 300, 700][seed], seed=seed)
    lattice = p4.lattice.from_networkx(graph)
    assert coloring(p4.phi4(lattice, w=1.0, a=1.0, b=0.2)) <= lattice.degree.max() + 1


def test_only_terms_ask_for_colors():
    """Edges that no term uses are no constraint; sites of one clique of an own term are."""
    lattice = p4.lattice.square(4, diagonals=True)
    first = p4.phi4(lattice, w={"nn": 1.0}, a=1.0, b=0.2)
    assert coloring(first) == 2
    assert coloring(p4.gaussian(p4.lattice.from_networkx(nx.empty_graph(3)), w=1.0, a=1.0)) == 1
    term = p4.Term("g", p4.lattice.plaquettes(lattice), lambda p, q, r, s: p * q * r * s, 0.1)
    assert coloring(p4.MarkovRandomField(lattice, [*first.terms, term])) == 4
    assert coloring(MODELS["own terms"]()) == 4


# --- random numbers


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_uniform_and_normal_numbers_have_their_distributions(dtype, x64):
    bits = random_words(jax.random.key(3), 3, (200_000,))
    assert bits[0].dtype == jnp.uint32
    u, z = np.asarray(uniform(bits[0], dtype), float), np.asarray(normal(*bits[1:], dtype), float)
    assert uniform(bits[0], dtype).dtype == normal(*bits[1:], dtype).dtype == dtype
    assert u.min() >= 0 and u.max() < 1 and np.isfinite(z).all()
    scores = {"mean": score(u - 0.5), "square": score(u**2 - 1 / 3)}
    scores |= {f"normal^{k}": score(z**k - m) for k, m in ((1, 0), (2, 1), (3, 0), (4, 3))}
    scores |= {"neighbors": score((u[1:] - 0.5) * (u[:-1] - 0.5)), "neighboring normals": score(z[1:] * z[:-1])}
    scores |= {"both": score((u - 0.5) * z), "both, squared": score((u - 0.5) * (z**2 - 1))}
    for name, values, law in (("uniform", u, stats.uniform), ("normal", z, stats.norm)):
        scores |= {f"law of {name}": float(stats.norm.isf(stats.kstest(values, law.cdf).pvalue / 2))}
    assert not rejected(scores)
    narrow = z * 0.99  # planted fault: one per cent
    assert rejected(
        {"law": float(stats.norm.isf(stats.kstest(narrow, stats.norm.cdf).pvalue / 2)), "2": score(narrow**2 - 1)}
    )


def test_extreme_words_give_finite_numbers():
    bits = jnp.array([0, 2**32 - 1, 2**31, 255, 511], jnp.uint32)
    for dtype in (jnp.float32,):
        z = normal(bits[:, None], bits[None], dtype)
        assert np.isfinite(z).all() and np.abs(z[0]).max() > 5.8
        np.testing.assert_allclose(z[:, 0], -z[:, 1], rtol=1e-6)
        assert float(uniform(bits, dtype)[0]) == 0 and float(uniform(bits, dtype)[1]) < 1


@pytest.mark.parametrize("shape", [(4, 5), (3, 5), (2, 3, 4), (1,), (2,)])
def test_words_are_those_of_threefry(shape):
    """JAX's own Threefry of the counters 0, 1, …: word k of site i comes from counter i of block k."""
    key, number = jax.random.key(7), int(np.prod(shape))
    words = random_words(key, 5, shape)
    assert len(words) == 5 and all(word.shape == shape for word in words)
    for pair in range(2):
        counters = jnp.arange(2 * pair * number, 2 * (pair + 1) * number, dtype=jnp.uint32)
        expected = jax.extend.random.threefry_2x32(jax.random.key_data(key), counters).reshape(2, *shape)
        np.testing.assert_array_equal(np.stack(words[2 * pair : 2 * pair + 2]), expected)
    flat = np.concatenate([np.ravel(word) for word in words])
    assert len(np.unique(flat)) == flat.size
    assert not np.array_equal(words[0], random_words(jax.random.key(8), 1, shape)[0])


@pytest.mark.parametrize("double", [False, True])
def test_other_generators_of_jax_work_too(double):
    """In double precision they make 64 bits unless asked for 32: uniform numbers beyond 1, and all steps rejected."""
    with jax.enable_x64(double):
        words = random_words(jax.random.key(0, impl="rbg"), 2, (4,))
        assert len(words) == 2 and words[0].dtype == jnp.uint32 and len(np.unique(np.stack(words))) == 8
        assert float(uniform(words[0]).max()) < 1


@pytest.mark.parametrize("dtype", [jnp.uint32, jnp.int32, jnp.float32, jnp.float64])
def test_finished_numbers_are_the_same_numbers(dtype, x64):
    values = jnp.asarray([0, 1, 3, 255, 7e4], dtype)
    done = jax.jit(finished)(values)
    assert done.dtype == dtype
    np.testing.assert_array_equal(done, values)


# --- overrelaxation

GAUSSIAN = {
    "torus": lambda: MODELS["gaussian"](),
    "graph": lambda: MODELS["gaussian graph"](),
    "odd torus with sources": lambda: with_source(p4.gaussian(p4.lattice.square(3), w=0.8, a=2.0), 0.7),
}


def with_source(model, r):
    from phi4ppl.model.term import source

    term = p4.Term("r", np.arange(model.lattice.num_sites)[:, None], source, r)
    return p4.MarkovRandomField(model.lattice, [*model.terms, term])


@pytest.mark.parametrize("name", GAUSSIAN)
def test_overrelaxation_keeps_the_energy_and_the_distribution(name):
    model = GAUSSIAN[name]()
    target = target_of(p4.compile(model))
    assert overrelaxable(model.forms)
    draws = exact_draws(model, 40_000)
    before, fresh = draws[:20_000], draws[20_000:]
    after = np.asarray(mapped(lambda key, phi: overrelaxation(target, phi), before))
    change = model.energy(after) - model.energy(before.astype(np.float32))
    assert np.abs(change).max() < 1e-3
    assert np.abs(after - before).mean() > 0.3
    scores = invariance_scores(model, before, after, fresh)
    scores.pop("S")  # changes by rounding only
    assert not rejected(scores)


@pytest.mark.parametrize("wrong", [{"w": 0.7}, {"a": 2.2}, {"r": 0.5}])
def test_overrelaxation_about_a_wrong_center_is_rejected(wrong):
    model = GAUSSIAN["odd torus with sources"]()
    draws = exact_draws(model, 40_000)
    target = target_of(model.replace(**wrong))
    after = np.asarray(mapped(lambda key, phi: overrelaxation(target, phi), draws[:20_000]))
    assert rejected(invariance_scores(model, draws[:20_000], after, draws[20_000:]))


def test_overrelaxation_is_only_made_where_it_is_exact():
    suits = {"gaussian", "gaussian graph"}
    assert {name for name, make in MODELS.items() if overrelaxable(make().forms)} == suits
    isolated = with_source(p4.gaussian(p4.lattice.chain(1), w=1.0, a=1.0), 0.3)
    assert not overrelaxable(isolated.forms)


# --- sweeps with planted faults


def sweep_by_loops(model, tuning, fault=None):
    """A sweep written as a loop over the sites in order; right as it stands, wrong with a ``fault``."""
    values = {form.name: jnp.broadcast_to(jnp.asarray(value, jnp.float32), len(form.cliques))
              for form, value in model.interactions}  # fmt: skip
    edges = np.asarray(model.lattice.edges)

    def step(key, phi):
        kept = phi
        for i in range(model.lattice.num_sites):
            momentum_key, accept_key = jax.random.split(jax.random.fold_in(key, i))
            seen = kept if fault == "pull from before the sweep" else phi
            pull = -values["r"][i]
            for (j, k), w in zip(edges, values["w"], strict=True):
                if i in (j, k):
                    pull += w * seen[int(j + k - i)]
            slope = lambda x: pull - 2 * values["a"][i] * x - 4 * values["b"][i] * x**3  # noqa: B023, E731
            energy = lambda x: values["a"][i] * x**2 + values["b"][i] * x**4 - pull * x  # noqa: B023, E731
            x, p = phi[i], jax.random.normal(momentum_key)
            old = energy(x) + (0 if fault == "no kinetic energy" else p**2 / 2)
            p = p + (1.0 if fault == "a whole first step" else 0.5) * tuning[i] * slope(x)
            for k in range(3):
                x = x + tuning[i] * p
                p = p + (tuning[i] if k < 2 else tuning[i] / 2) * slope(x)
            new = energy(x) + (0 if fault == "no kinetic energy" else p**2 / 2)
            take = jnp.log(jax.random.uniform(accept_key)) < old - new
            phi = phi.at[i].set(jnp.where(take, x, phi[i]))
        return phi

    return step


@pytest.mark.parametrize("fault", [None, "no kinetic energy", "pull from before the sweep", "a whole first step"])
def test_a_sweep_by_loops_is_exact_and_wrong_ones_are_rejected(fault):
    model, before, fresh = model_and_draws("open chain")
    tuning = jnp.asarray(before.std(axis=0) * np.array([0.6, 0.9, 0.7, 0.8]), jnp.float32)
    after = np.asarray(mapped(sweep_by_loops(model, tuning, fault), before))
    assert bool(rejected(invariance_scores(model, before, after, fresh))) == (fault is not None)


@functools.cache
def even_torus():
    """A chessboard whose couplings all differ, with draws to start from and to compare with."""
    rng, lattice = np.random.default_rng(8), p4.lattice.square(4)
    sites = {"a": rng.uniform(0.2, 0.6, 16), "b": rng.uniform(0.2, 0.4, 16), "r": rng.normal(scale=0.3, size=16)}
    model = p4.phi4(lattice, w=rng.uniform(0.05, 0.25, 32) * rng.choice([-1, 1], 32), **sites)
    draws = exact_draws(model, 40_000)
    return model, draws[:20_000], draws[20_000:]


def scores_of_sweep(name, number=1):
    model, before, fresh = even_torus() if name == "even torus" else model_and_draws(name)
    target = target_of(p4.compile(model))
    steps = fixed_tuning(get_kernel("local_hmc"), model, before.std(axis=0)).step_size
    after, acceptance = mapped(lambda key, phi: sweeps(target, key, phi, steps, number), before)
    assert acceptance.shape == after.shape and np.all((acceptance >= 0) & (acceptance <= 1))
    return invariance_scores(model, before, np.asarray(after), fresh)


def test_neighbors_of_one_color_are_rejected(monkeypatch):
    assert not rejected(scores_of_sweep("open chain"))
    monkeypatch.setattr(sites, "colors", lambda lattice, forms: np.zeros(lattice.num_sites, np.int32))
    assert rejected(scores_of_sweep("open chain"))


@pytest.mark.parametrize("name", ["open chain", "own terms", "even torus"])
def test_sweeps_that_go_on_with_their_momenta_are_exact(name, monkeypatch):
    assert not rejected(scores_of_sweep(name, number=3))
    monkeypatch.setattr(sites, "normal", lambda *words: 1.2 * normal(*words))
    assert rejected(scores_of_sweep(name, number=3))


def test_momenta_that_a_rejection_does_not_turn_round_are_rejected(monkeypatch):
    right, wrong = "jnp.where(moves, p, -momentum)", "jnp.where(moves, p, momentum)"
    source = inspect.getsource(sites._trajectory)
    assert source.count(right) == 1
    names = vars(sites).copy()
    exec(source.replace(right, wrong), names)
    monkeypatch.setattr(sites, "_trajectory", names["_trajectory"])
    assert not rejected(scores_of_sweep("open chain", number=1))  # one sweep does not use what is left of them
    assert rejected(scores_of_sweep("open chain", number=3))


def test_momenta_of_another_width_than_the_kinetic_energy_are_rejected(monkeypatch):
    monkeypatch.setattr(sites, "normal", lambda *words: 1.1 * normal(*words))
    assert rejected(scores_of_sweep("open chain"))


def test_acceptance_by_numbers_that_the_momenta_depend_on_is_rejected(monkeypatch):
    monkeypatch.setattr(jax.random, "fold_in", lambda key, number: key)
    assert rejected(scores_of_sweep("open chain"))


def test_a_term_without_its_force_or_energy_is_rejected(monkeypatch):
    assert not rejected(scores_of_sweep("own terms"))
    monkeypatch.setattr(sites, "_clique_terms", lambda target: [])
    assert rejected(scores_of_sweep("own terms"))


# --- chessboards

BOARDS = [
    p4.lattice.square(4),
    p4.lattice.square(6, 4),
    p4.lattice.square(4, 10),
    p4.lattice.square(6, 5, periodic=False),
    p4.lattice.hypercubic((4, 6, 4)),
]


@pytest.mark.parametrize("lattice", BOARDS, ids=lambda x: f"{x.name} {x.shape}")
@pytest.mark.parametrize("uniform", [True, False])
def test_pulls_on_a_chessboard_are_those_of_the_edges(lattice, uniform):
    """Against a matrix of the couplings; the pulls of the other color are wrong."""
    rng, size = np.random.default_rng(2), lattice.num_sites
    w = 0.7 if uniform else rng.normal(size=lattice.num_edges)
    matrix = np.zeros((size, size))
    matrix[tuple(lattice.edges.T)] = w
    matrix += matrix.T
    phi = rng.normal(size=lattice.field_shape).astype(np.float32)
    expected = split(jnp.asarray((matrix @ phi.reshape(-1)).reshape(phi.shape)))
    board = chessboard(target_of(p4.compile(p4.phi4(lattice, w=w, a=1.0, b=0.2))), phi.dtype)
    halves = split(jnp.asarray(phi))
    np.testing.assert_array_equal(join(*halves), phi)
    color = split(jnp.asarray(np.indices(lattice.shape).sum(axis=0) % 2))
    for k in range(2):
        assert (np.asarray(color[k]) == k).all()
        np.testing.assert_allclose(board.pull(k, halves[1 - k]), expected[k], atol=2e-5)
        if not uniform or lattice.shape[0] > 4:  # of two pairs of rows, the one before is the one behind
            assert np.abs(board.pull(1 - k, halves[1 - k]) - expected[k]).max() > 0.1


def test_terms_on_a_chessboard_keep_to_their_sites():
    model = even_torus()[0]
    target = target_of(p4.compile(model))
    phi = jnp.asarray(even_torus()[1][0], jnp.float32)
    board = chessboard(target, phi.dtype)
    energy = [board.energy(k, half) for k, half in enumerate(split(phi))]
    np.testing.assert_allclose(join(*energy), sites.site_energy(target)(phi), rtol=1e-5)


@pytest.mark.parametrize(
    "lattice",
    [
        p4.lattice.square(5),
        p4.lattice.square(4, 5),
        p4.lattice.square(2),
        p4.lattice.square(5, 4, periodic=False),
        p4.lattice.square(4, diagonals=True),
        p4.lattice.triangular(4),
        p4.lattice.chain(8),
        p4.lattice.from_networkx(nx.cycle_graph(4)),
    ],
    ids=lambda x: f"{x.name} {x.shape}",
)
def test_other_lattices_are_no_chessboards(lattice):
    assert chessboard(target_of(p4.compile(p4.phi4(lattice, w=0.5, a=1.0, b=0.2))), jnp.float32) is None


def test_terms_of_several_sites_or_of_some_sites_only_are_swept_by_mask():
    lattice = p4.lattice.square(4)
    terms = p4.phi4(lattice, w=0.5, a=1.0, b=0.2).terms
    several = p4.Term("g", lattice.edges[:5], lambda x, y: jnp.sin(x * y), 0.1)
    some = p4.Term("c", [[2], [7]], lambda x: jnp.cos(3 * x), 0.7)
    every = p4.Term("c", np.arange(16)[:, None], lambda x: jnp.cos(3 * x), np.linspace(0, 1, 16))
    for own, fits in ((several, False), (some, False), (every, True)):
        target = target_of(p4.compile(p4.MarkovRandomField(lattice, [*terms, own])))
        assert (chessboard(target, jnp.float32) is not None) == fits


def test_sweeps_with_the_neighbors_of_the_other_color_are_rejected(monkeypatch):
    right = Chessboard.neighbors
    monkeypatch.setattr(Chessboard, "neighbors", lambda self, color, other: right(self, 1 - color, other))
    assert rejected(scores_of_sweep("even torus"))


# --- warm-up


def test_every_site_reaches_the_target_acceptance():
    """Sites whose widths differ by a factor of twenty: each finds its own step size, whatever its neighbors need."""
    rng = np.random.default_rng(1)
    lattice = p4.lattice.square(4)
    a = np.geomspace(0.3, 100, 16)[rng.permutation(16)]
    model = p4.phi4(lattice, w=0.2, a=a, b=0.2 * a, r=rng.normal(size=16))
    kernel = get_kernel("local_hmc")
    target = target_of(p4.compile(model))

    def walk(key, phi):
        adaptation = kernel.adaptation.begin(target, phi)
        state = kernel.build(target, kernel.adaptation.tuning(adaptation)).init(phi)

        def warm(carry, key):
            state, adaptation = carry
            state, info = kernel.build(target, kernel.adaptation.tuning(adaptation)).step(key, state)
            zero = jnp.asarray(0)
            new = kernel.adaptation.update(target, adaptation, zero, zero, state, kernel.statistics(info))
            return (state, new), None

        keys = jax.random.split(key, 1001)
        (state, adaptation), _ = jax.lax.scan(warm, (state, adaptation), keys[:500])
        algorithm = kernel.build(target, kernel.adaptation.final(adaptation))

        def draw(state, key):
            state, info = algorithm.step(key, state)
            return state, info.acceptance

        return kernel.adaptation.final(adaptation).step_size, jax.lax.scan(draw, state, keys[501:])[1].mean(axis=0)

    steps, acceptance = mapped(walk, np.zeros((8, 4, 4)))
    wanted = sites.TARGET_ACCEPTANCE
    assert np.abs(np.asarray(acceptance).mean(axis=0) - wanted).max() < 0.03
    assert np.abs(np.asarray(acceptance) - wanted).max() < 0.05
    order = np.argsort(a)
    mean = np.asarray(steps).mean(axis=0).reshape(-1)[order]
    assert mean[0] > 8 * mean[-1]
