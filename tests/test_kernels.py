"""Every kernel of the registry: its contract, a single step from exact draws, and whole runs against exact values.

A kernel that is added to the registry is found by these tests. False alarms: every comparison (one call of `rejected`) has
level 1e-4, shared among its quantities; some 80 of them are made, at most 1 % for all together. Keys are fixed.
"""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from exact_runs import model_of, rejected, run_case, scores_of_run, z_scores
from invariance import (
    MODELS,
    energy_of,
    exact_draws,
    fixed_tuning,
    functions_of,
    invariance_scores,
    model_and_draws,
    states_after,
)
from raising import raises

import phi4ppl as p4
from phi4ppl.kernels.choose import choose
from phi4ppl.sampling import Kernel, get_kernel, register, target_of, tempering

pytestmark = pytest.mark.compile_quickly

NAMES = [
    name for name in p4.kernels() if name not in ("auto", "nuts_curvature")
]  # this is of NumPyro models: test_latent_nuts
REVERSIBLE = ("nuts", "hmc", "mclmc", "chees")  # one momentum for the whole field; sweeps take the colors in one order
ONE_DIMENSION = ["adjusted_mclmc", "adjusted_mclmc_fourier"]
FIELDS = ["nuts_fourier", "hmc_fourier", "adjusted_mclmc_fourier", "local_hmc", "cluster"]
STATISTICS = {"acceptance_rate", "diverging", "n_steps"}


# --- the contract


def one_step(kernel, model):
    """A chain's state after begin, one step and one update of the warm-up, as it would be run, for ``jax.eval_shape``."""
    compiled = p4.compile(model)
    target = target_of(compiled)

    def walk(key):
        position = compiled.initial_position(key)
        adaptation = kernel.adaptation.begin(target, position)
        tuning = kernel.adaptation.tuning(adaptation)
        algorithm = kernel.build(target, tuning)
        state = algorithm.init(position)
        new, info = algorithm.step(key, state)
        statistics = kernel.statistics(info)
        stage, end = jnp.asarray(1), jnp.asarray(0)
        updated = kernel.adaptation.update(target, adaptation, stage, end, new, statistics)
        tunings = tuning, kernel.adaptation.tuning(updated), kernel.adaptation.final(updated)
        return position, (state, new), (adaptation, updated), tunings, statistics

    return jax.eval_shape(walk, jax.random.key(0))


@pytest.mark.parametrize("model", ["open chain", "torus", "own terms"])
@pytest.mark.parametrize("name", NAMES)
def test_states_keep_their_shapes_and_the_precision_of_the_field(name, model, x64):
    for dtype in (jnp.float64, jnp.float32):
        with jax.enable_x64(dtype == jnp.float64):
            field, kernel = MODELS[model](), get_kernel(name)
            if kernel.objection(p4.compile(field)) is not None:
                return
            position, states, adaptations, tunings, statistics = one_step(kernel, field)
            assert position.dtype == dtype and position.shape == field.field_shape
            for pair in (states, adaptations, tunings[:2], tunings[1:]):
                first, second = (jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in pair)
                assert first == second
            for tree in (states, adaptations, tunings):
                numbers = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
                assert {leaf.dtype for leaf in numbers} == {jnp.dtype(dtype)}
            state = states[1]
            assert state.position.shape == state.logdensity_grad.shape == field.field_shape
            assert state.logdensity.shape == ()
            assert statistics.keys() >= STATISTICS
            assert all(statistics[key].shape == () for key in STATISTICS)
            assert statistics["diverging"].dtype == bool and jnp.issubdtype(statistics["n_steps"].dtype, jnp.integer)
            assert statistics["acceptance_rate"].dtype == dtype
            # momenta drawn from a normal distribution have an energy to record, and nothing else has
            assert ("energy" in statistics) == name.startswith(("nuts", "hmc", "chees"))


@pytest.mark.parametrize("model", [*MODELS, "numpyro"])
def test_a_kernel_that_does_not_suit_a_model_says_why(model):
    field = (lambda: numpyro.sample("x", dist.Normal())) if model == "numpyro" else MODELS[model]()
    compiled, refused = p4.compile(field), []
    for name in NAMES:
        if (reason := get_kernel(name).objection(compiled)) is not None:
            refused.append(name)
            with raises("argument.kernel.unsuited", "auto", got=f"{name!r}, which {reason}"):
                p4.sample(field, kernel=name)
    expected = {
        "one site": ONE_DIMENSION + ["cluster"],
        "own terms": ["cluster"],
        "numpyro": FIELDS + ["adjusted_mclmc"],
    }
    assert set(expected.get(model, [])) <= set(refused)
    assert model in expected or not refused
    chosen, reason = p4.sampling.resolve("auto", compiled)
    assert chosen.objection(compiled) is None and reason


def test_unknown_kernels_and_names_taken_twice_are_refused():
    with raises("argument.kernel.choice", "'auto'", "'nuts'", "'gibbs'"):
        get_kernel("gibbs")
    with raises("argument.kernel"):
        register("hmc")
    for name in ("auto", "hmc"):
        hmc = get_kernel("hmc")
        with raises("argument.kernel.name", got=repr(name)):
            register(Kernel(name, "", hmc.build, hmc.statistics))


def plaquette_model():
    lattice = p4.lattice.square(4, diagonals=True)
    term = p4.Term("g", p4.lattice.plaquettes(lattice), lambda p, q, r, s: p * q * r * s, 0.1)
    return p4.MarkovRandomField(lattice, [*p4.phi4(lattice, w={"nn": 1.0}, a=2.0, b=0.2).terms, term])


def square_of_signs(turned):
    """Signs of w that those of the field can follow, but for the edges ``turned`` round once more."""
    lattice = p4.lattice.square(4)
    w = np.where(np.isin(np.arange(16), [3, 4, 9]), -1.0, 1.0)[lattice.edges].prod(axis=1)
    w[turned] *= -1
    return p4.phi4(lattice, w=w, a=2.5, b=0.2)


def spin_glass(strength, negative=0.5):
    lattice = p4.lattice.square(4)
    signs = np.where(np.random.default_rng(0).random(len(lattice.edges)) < negative, -1.0, 1.0)
    return p4.phi4(lattice, w=strength * signs, a=1.52425, b=0.175)


CHOICES = {
    "critical square": (lambda: p4.phi4(p4.lattice.square(8), a=1.52425, b=0.175), "cluster", "long waves"),
    "a graph of both signs": (lambda: MODELS["graph"](), "cluster", "long waves"),
    "with a source": (lambda: p4.phi4(p4.lattice.square(8), a=1.9, b=0.175, r=0.3), "cluster", "long waves"),
    "one edge of the wrong sign": (lambda: square_of_signs([0]), "cluster", "signs of w compete"),
    "weak spin glass": (lambda: spin_glass(1.2), "cluster", "signs of w compete"),
    "spin glass": (lambda: spin_glass(2.0), "tempering", "frustration"),
    "one strong bond of the wrong sign": (lambda: spin_glass(2.0, 0.01), "local_hmc", "ordered phase"),
    "signs that fields can follow": (lambda: square_of_signs([]), "cluster", "long waves"),
    "antiferromagnet": (lambda: p4.phi4(p4.lattice.square(4), w=-1.0, a=2.5, b=0.2), "cluster", "long waves"),
    "antiferromagnet of odd side": (
        lambda: p4.phi4(p4.lattice.square(5), w=-1.0, a=2.5, b=0.2),
        "cluster",
        "signs of w compete",
    ),
    "deep antiferromagnet of odd side": (
        lambda: p4.phi4(p4.lattice.square(5), w=-2.0, a=1.5, b=0.175),
        "tempering",
        "h φ² = 26",
    ),
    "plaquettes": (plaquette_model, "local_hmc", "custom term 'g'"),
    "no edges": (lambda: MODELS["one site"](), "local_hmc", "no hopping"),
    "hopping of nothing": (lambda: p4.phi4(p4.lattice.square(3), w=0.0, a=1.0, b=0.2), "local_hmc", "no hopping"),
    "complete": (lambda: p4.phi4(p4.lattice.complete(30), w=0.1, a=2.0, b=0.2), "chees", "30 colors"),
    "deep wells": (lambda: p4.phi4(p4.lattice.square(8), a=-8.0, b=0.5), "local_hmc", "ordered phase"),
    "deep antiferromagnet": (
        lambda: p4.phi4(p4.lattice.square(8), w=-1.0, a=0.0, b=0.175),
        "local_hmc",
        "ordered phase",
    ),
}


@pytest.mark.parametrize("case", CHOICES)
def test_auto_takes_a_kernel_that_suits_and_says_why(case):
    make, expected, words = CHOICES[case]
    name, reason = choose(p4.compile(make()))
    assert name == expected and words in reason
    if name != "tempering":  # which is fitted to the model by a pilot: in test_tempering.py
        assert p4.sampling.resolve("auto", p4.compile(make())) == (get_kernel(name), reason)
    assert p4.sampling.resolve("hmc", p4.compile(make())) == (get_kernel("hmc"), "asked for")


# --- one step from exact draws


def step_cases():
    for name in NAMES:
        if name in ("tempering", "houdayer"):  # their copies have other distributions: below
            continue
        models = {
            "local_hmc": list(MODELS), "cluster": ["open chain", "graph", "gaussian"], "nuts": ["graph"],
            "nuts_fourier": ["open chain"], "hmc": ["own terms"],
        }  # fmt: skip
        yield from ((name, model) for model in models.get(name, ["graph"]))


@pytest.mark.parametrize(("name", "model"), step_cases())
def test_a_step_from_exact_draws_leads_to_exact_draws(name, model):
    field, before, fresh = model_and_draws(model)
    if get_kernel(name).objection(p4.compile(field)) is not None:
        pytest.skip(f"{name} refuses this model, as another test shows")
    state, statistics = states_after(field, get_kernel(name), before)
    after = np.asarray(state.position)
    assert not rejected(invariance_scores(field, before, after, fresh, reversible=name.startswith(REVERSIBLE)))
    assert np.mean(np.abs(after - before)) > 0.2 * before.std()  # it moves
    assert 0.2 < float(statistics["acceptance_rate"].mean()) < 0.98  # and accept/reject has work to do
    density = jax.vmap(target_of(p4.compile(field)).init)(state.position)
    for found, expected in zip((state.logdensity, state.logdensity_grad), density, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_the_energies_of_the_test_fields_are_those_of_the_library(x64):
    """The exact draws know the models from their terms alone; here both sides are compared once."""
    for name, make in MODELS.items():
        model = make()
        phi = np.random.default_rng(1).normal(size=(20, *model.field_shape))
        np.testing.assert_allclose(energy_of(model, phi), model.energy(phi), rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("name", ["open chain", "graph", "own terms", "two hoppings"])
def test_exact_draws_have_the_moments_of_a_sum_over_a_grid(name):
    """An independent check of the draws themselves: ⟨f⟩ by importance sampling from wide Gaussians, to 5 errors."""
    model, draws, _ = model_and_draws(name)
    rng = np.random.default_rng(2)
    center, width = draws.mean(axis=0), 1.5 * draws.std(axis=0)
    points = center + width * rng.standard_normal((400_000, *model.field_shape))
    log_ratio = ((points - center) ** 2 / width**2 / 2).sum(axis=-1) - energy_of(model, points)
    weight = np.exp(log_ratio - log_ratio.max())
    weight /= weight.mean()
    wanted, found = functions_of(model, points), functions_of(model, draws)
    for f, values in found.items():
        exact = np.mean(weight * wanted[f])
        error = np.hypot(
            values.std() / np.sqrt(len(values)), np.std(weight * (wanted[f] - exact)) / np.sqrt(len(points))
        )
        assert abs(values.mean() - exact) < 5 * error, f


# --- parallel tempering: every copy has its own distribution

RUNGS = 4
RIGHT = "right"
EXCHANGES = {
    RIGHT: lambda gain, difference: gain,
    "forgets the temperatures": lambda gain, difference: difference,
    "always exchanges": lambda gain, difference: 0 * gain,
    "wrong sign": lambda gain, difference: -gain,
}


@functools.cache
def ladder(model_name: str):
    """Tuning, models at every temperature, and exact draws of all of them, to start from and to compare with."""
    tuning = fixed_tuning(tempering(RUNGS), MODELS[model_name]())
    model = MODELS[model_name]()
    at_beta = [
        model.replace(**{name: np.asarray(value) * beta for name, value in model.couplings.items()})
        for beta in np.asarray(tuning.inverse_temperature, float)
    ]
    begin = np.stack([exact_draws(copy, 20_000, seed=k) for k, copy in enumerate(at_beta)], axis=1)
    return model, tuning, at_beta, begin, [exact_draws(copy, 20_000, seed=100 + k) for k, copy in enumerate(at_beta)]


def exchange(number, key, tempered, beta, odd, rounds):
    """One of ``EXCHANGES``, by its number."""
    difference = tempered[:-1, 0] - tempered[1:, 0]
    log_ratio = jax.lax.switch(number, list(EXCHANGES.values()), (beta[:-1] - beta[1:]) * difference, difference)
    used = jnp.exp(jnp.minimum(log_ratio, 0))
    swap = (jnp.arange(RUNGS - 1) % 2 == odd) & (jax.random.uniform(key, (RUNGS - 1,)) < used)
    order = jnp.arange(RUNGS)
    for k in range(RUNGS - 1):
        order = jnp.where(swap[k], order.at[k].set(order[k + 1]).at[k + 1].set(order[k]), order)
    return order[:, None], used[:, None], ~odd


@functools.cache
def two_steps(model_name: str, choose: bool = False):
    """Two steps (even and odd pairs), all copies having begun at exact draws of their own: a function of an exchange.

    Its argument is a number among ``EXCHANGES``, so that one compiled program serves all of them; nothing unless
    ``choose``: the exchange is then the library's.
    """
    module = importlib.import_module("phi4ppl.kernels.tempering.copies")  # the package has a function of that name
    model, tuning, _, begin, _ = ladder(model_name)
    target = target_of(p4.compile(model))

    def walk(key, copies, number):
        with pytest.MonkeyPatch.context() as patch:
            if choose:
                patch.setattr(module, "exchange", functools.partial(exchange, number))
            algorithm = tempering(RUNGS).build(target, tuning)
            state = algorithm.init(copies[0])._replace(copies=copies[:, None])
            for k in range(2):
                state, info = algorithm.step(jax.random.fold_in(key, k), state)
        return state.copies[:, 0], state.position, info.exchange_rate

    keys = jax.random.split(jax.random.key(4), len(begin))
    run = jax.jit(jax.vmap(walk, in_axes=(0, 0, None)))
    return functools.partial(run, keys, jnp.asarray(begin, jnp.float32))


def ladder_scores(model_name: str, result):
    """Scores of every copy."""
    copies, position, rate = result
    np.testing.assert_array_equal(copies[:, 0], position)
    _, _, at_beta, begin, fresh = ladder(model_name)
    scores = {}
    for k, copy in enumerate(at_beta):
        one = invariance_scores(copy, begin[:, k], np.asarray(copies[:, k]), fresh[k])
        scores |= {f"copy {k}, {name}": value for name, value in one.items()}
    return scores, np.asarray(rate)


def test_copies_of_all_temperatures_keep_their_distributions():
    scores, rate = ladder_scores("own terms", two_steps("own terms")(None))
    assert not rejected(scores)
    assert np.all((rate > 0) & (rate <= 1)) and rate.mean() < 0.98


def test_a_ladder_that_forgets_the_target_rung_is_rejected():
    """The second rung in place of the first."""
    copies, _, _ = two_steps("open chain", choose=True)(list(EXCHANGES).index(RIGHT))
    _, _, at_beta, begin, fresh = ladder("open chain")
    assert rejected(invariance_scores(at_beta[0], begin[:, 0], np.asarray(copies[:, 1]), fresh[0]))


@pytest.mark.parametrize("name", EXCHANGES)
def test_a_wrong_exchange_is_rejected(name):
    steps = two_steps("open chain", choose=True)
    scores, _ = ladder_scores("open chain", steps(list(EXCHANGES).index(name)))
    assert bool(rejected(scores)) == (name != RIGHT), rejected(scores)


# --- whole runs against exact values

LONG_TESTED = ("nuts", "hmc")  # with all the cases there are, in test_sampling_exact.py


SLOW = pytest.mark.slow
SLOW_TORUS = (
    "nuts_fourier",
    "adjusted_mclmc_fourier",
    "nuts_dense",
    "nuts_low_rank",
    "tempering",
    "houdayer",
)  # compile long; other tests have them


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=SLOW if name in SLOW_TORUS else ()) for name in NAMES if name not in LONG_TESTED],
)
def test_a_torus_at_three_couplings_is_exact_and_repeats_bit_for_bit(reference, name):
    """From the symmetric to the broken phase, by one compiled program."""
    for k, a in enumerate(("1.2", "1.52425", "1.9")):
        case = reference[f"square_L3_w1_a{a}_b0.175"]
        model, tree = run_case(case, name, seed=21 + k)
        assert not rejected(scores_of_run(case, model, tree))
    stats = tree["sample_stats"]
    assert set(stats.data_vars) >= STATISTICS | {"lp", "schwinger_dyson", "step_size"}
    assert tree["posterior"]["phi"].dtype == stats["lp"].dtype == np.float32
    # steps in white coordinates are so long that the tails of φ⁴ see an unstable one now and then, which is rejected
    assert stats["diverging"].mean() <= (1e-3 if name in ("nuts_dense", "nuts_low_rank") else 0)
    rate, wanted = stats["acceptance_rate"].values.mean(axis=1), get_kernel(name).adaptation
    if hasattr(wanted, "target_acceptance"):  # dual averaging with few steps ends above the target, as in Stan
        wanted = wanted.target_acceptance
        assert wanted - 0.04 < rate.min() and rate.mean() < (1 + wanted) / 2 + 0.03
    assert np.all(stats["n_steps"] > 0)
    repeated = [run_case(case, name, seed, num_samples=20)[1]["posterior"]["phi"].values for seed in (31, 31, 32)]
    np.testing.assert_array_equal(repeated[0], repeated[1])
    assert not np.any(repeated[0] == repeated[2])


SEEN_WITH_SOURCES = ("local_hmc", "adjusted_mclmc", "tempering")  # in whole runs of other odd models below


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=SLOW if name in SEEN_WITH_SOURCES else ())
        for name in NAMES
        if name not in (*LONG_TESTED, "nuts_fourier")
    ],
)
def test_an_open_chain_with_sources_is_exact(reference, name):
    case = reference["chain_open_N5_inhomogeneous"]
    model, tree = run_case(case, name, seed=25)
    assert not rejected(scores_of_run(case, model, tree))


@pytest.mark.parametrize("name", ["local_hmc", "tempering"])
def test_one_site_in_a_double_well_with_a_source_is_exact(reference, name):
    case = reference["single_a-2.0_b0.25_r0.1"]
    model, tree = run_case(case, name, seed=25, thinning=1 if name == "tempering" else 10)
    assert not rejected(scores_of_run(case, model, tree))


@pytest.mark.parametrize("name", ["local_hmc", "adjusted_mclmc"])
def test_a_term_of_three_sites_is_exact(reference, name):
    case = reference["toy4_threebody"]
    model, tree = run_case(case, name, seed=26)
    assert not rejected(scores_of_run(case, model, tree))


def test_a_metropolis_run_of_another_coupling_is_rejected(reference):
    """Planted fault: two per cent in the mass."""
    case = reference["square_L3_w1_a1.9_b0.175"]
    model = model_of(case).replace(a=1.9 * 1.02)
    tree = p4.sample(model, num_warmup=500, num_samples=4000, kernel="local_hmc", seed=27)
    assert rejected(scores_of_run(case, model, tree))


@pytest.mark.slow
@pytest.mark.rank_promotion
@pytest.mark.parametrize("name", ["adjusted_mclmc", "tempering"])
def test_numpyro_models_are_exact(name):
    """Positions that are dictionaries: x normal, y log-normal, z uniform, with known moments."""

    def model():
        numpyro.sample("x", dist.Normal(jnp.array([1.0, -2.0]), 0.5).to_event(1))
        numpyro.sample("y", dist.LogNormal(0.2, 0.4))
        numpyro.sample("z", dist.Uniform(0, 3))

    tree = p4.sample(model, num_warmup=500, num_samples=3000, kernel=name, seed=28)["posterior"]
    x, y, z = (tree[key].values for key in "xyz")
    series = {
        "x0": x[..., 0],
        "x1": x[..., 1],
        "x0²": x[..., 0] ** 2,
        "log y": np.log(y),
        "z": z,
        "z²": z**2,
        "xy": x[..., 0] * np.log(y),
    }
    exact = {"x0": 1.0, "x1": -2.0, "x0²": 1.25, "log y": 0.2, "z": 1.5, "z²": 3.0, "xy": 0.2}
    assert not rejected(z_scores(series, exact))
