"""Monte Carlo renormalization against the exact renormalization of the Ising chain, and the Ising class in two dimensions.

Decimation of the Ising chain is exact: tanh K' = tanh² K, and at h = 0 the derivatives are ∂K'/∂K = tanh 2K and
∂h'/∂h = 1 + tanh 2K, on any ring with an even number of spins.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from raising import raises

import phi4ppl as p4
from phi4ppl.renormalization import Average, block, monte_carlo_rg, operator, standard_operators
from phi4ppl.renormalization.operators import measure_operators

pytestmark = pytest.mark.compile_quickly

K, SIDE = 0.6, 16
CHAIN = {"operators": ["1", "field"], "lattice": p4.lattice.chain(SIDE), "levels": 1}


def rings(number: int, seed: int, side: int = SIDE, repeat: int = 1) -> np.ndarray:
    """Independent rings of Ising spins, shape (2, number, side): domain walls are independent but for their parity."""
    rng = np.random.default_rng(seed)
    wall = 1 / (1 + np.exp(2 * K))
    walls = rng.random((6 * number, side)) < wall
    walls = walls[walls.sum(axis=1) % 2 == 0][: 2 * number]
    first = rng.choice([-1.0, 1.0], size=(len(walls), 1))
    spins = first * np.cumprod(np.where(walls, -1.0, 1.0), axis=1)
    return np.repeat(spins.reshape(2, number, side), repeat, axis=1)


@pytest.fixture(scope="module")
def chain():
    return monte_carlo_rg(rings(4000, 1), "decimate", **CHAIN)


def test_operators_written_out():
    phi = np.random.default_rng(0).normal(size=(1, 3, 6, 6))
    roll = lambda x, y: np.roll(phi, (-x, -y), axis=(2, 3))  # noqa: E731
    expected = {
        "1": phi * (roll(1, 0) + roll(0, 1)),
        "sqrt5": phi * sum(roll(x, y) for x, y in ((1, 2), (2, 1), (1, -2), (2, -1))),
        "plaquette": phi * roll(1, 0) * roll(0, 1) * roll(1, 1),
        "diamond": roll(1, 0) * roll(-1, 0) * roll(0, 1) * roll(0, -1),
        "corner": phi * sum(roll(x, 0) * roll(0, y) for x in (-1, 1) for y in (-1, 1)),
        "row": phi * (roll(1, 0) * roll(-1, 0) + roll(0, 1) * roll(0, -1)),
        "diagonal": phi * (roll(1, 1) * roll(-1, -1) + roll(1, -1) * roll(-1, 1)),
        "phi4": phi**4, "phi3": phi**3,
    }  # fmt: skip
    known = {each.name: each for each in standard_operators(2)}
    values = measure_operators(phi, tuple(known[name] for name in expected))
    for k, (name, summand) in enumerate(expected.items()):
        assert values[..., k] == pytest.approx(summand.sum(axis=(2, 3)), rel=1e-12), name
        assert known[name].is_even == (name not in ("corner", "row", "diagonal", "phi3"))
    assert [len(operator("o", [(0, 0, 0), v], 3).clusters) for v in ((1, 0, 0), (1, 1, 0), (2, 1, 0))] == [3, 6, 12]
    assert len([o for o in standard_operators(2, spins=True) if o.is_even]) == 7


def test_eigenvalues_of_the_ising_chain(chain):
    """Each of the two is outside four standard errors once in 16,000 seeds. Draws of the levels in another order, which are
    not paired, are 20 errors away."""
    exact = {"even": np.tanh(2 * K), "odd": 1 + np.tanh(2 * K)}
    for row in chain.rows:
        assert abs(row.exponent - np.log2(exact[row.sector])) < 4 * row.error, row
        assert row.error < 0.05
    found = block(rings(4000, 1), "decimate", lattice=p4.lattice.chain(SIDE))
    shuffled = found[1][:, np.random.default_rng(0).permutation(4000)]
    unpaired = type(found)((found[0], shuffled), found.lattices, found.rules, found.blocks, 0)
    assert np.isnan(monte_carlo_rg(unpaired, operators=["1"]).rows[0].exponent) or (
        abs(monte_carlo_rg(unpaired, operators=["1"]).rows[0].exponent - np.log2(exact["even"])) > 1
    )


def test_errors_are_those_of_repeated_data_sets():
    """The spread of 60 values has a standard error of 9 %: outside 40 % less than once in 10,000 choices of seeds."""
    found = [monte_carlo_rg(rings(500, 100 + k), "decimate", **CHAIN) for k in range(60)]
    for name in ("y_t", "y_h"):
        spread = np.std([each.values[name] for each in found])
        error = np.mean([each.errors[name] for each in found])
        assert abs(error / spread - 1) < 0.4, name


def test_the_jackknife_knows_autocorrelation(chain):
    """Every draw four times: the error is that of the draws without repetition, where a naive one is half of it."""
    repeated = monte_carlo_rg(rings(4000, 1, repeat=4), "decimate", **CHAIN)
    for name in ("y_t", "y_h"):
        assert repeated.values[name] == pytest.approx(chain.values[name], abs=1e-9)
        assert 0.75 < repeated.errors[name] / chain.errors[name] < 1.35, name


def test_matching_two_chains_is_the_ratio_of_exact_derivatives():
    """Rings of 32 spins decimated once against rings of 16: λ = (dE/dK)(K') tanh 2K / (dE/dK)(K), E the energy of a ring.

    Each number is outside four standard errors once in 16,000 seeds.
    """

    def energy(k):  # Σ ⟨ss'⟩ of a ring
        t = np.tanh(k)
        return SIDE * (t + t ** (SIDE - 1)) / (1 + t**SIDE)

    decimated = np.arctanh(np.tanh(K) ** 2)
    slope = lambda k: (energy(k + 1e-5) - energy(k - 1e-5)) / 2e-5  # noqa: E731
    lam = slope(decimated) * np.tanh(2 * K) / slope(K)
    large, small = rings(4000, 3, 2 * SIDE), rings(4000, 4)
    found = monte_carlo_rg(
        large, "decimate", operators=["1"], levels=1, lattice=p4.lattice.chain(2 * SIDE), second=small
    ).matching
    y, error = found.best("y_t")
    assert found.side == SIDE and abs(y - np.log2(lam)) < 4 * error < 0.3
    shift = (energy(decimated) - energy(K)) / (slope(decimated) * np.tanh(2 * K) - slope(K))
    distance, error = found.best("distance")
    assert abs(distance - shift) < 4 * error


def test_linear_rules_make_the_odd_eigenvalue_an_input():
    phi = np.random.default_rng(2).normal(size=(2, 200, 8, 8))
    for rule, lam in ((Average(eta=0.25), 2 ** ((2 + 2 - 0.25) / 2)), ("average", 4.0), ("kernel", 4.0)):
        found = monte_carlo_rg(phi, rule, levels=1, operators=["1", "phi2", "field", "phi3"])
        odd = found.table("odd")
        assert len(odd) >= 2 and max(abs(row.eigenvalue - lam) for row in odd if row.rank == len(row.names)) < 1e-9
        assert "y_h" not in found.values and "eta" not in found.values and "y_t" in found.values
        value, message = found.inputs["y_h"]
        assert value == pytest.approx(np.log2(lam), abs=1e-12) and "input" in message and "identically" in message
        assert message in found.warnings and not found.reliable and "INPUT y_h" in str(found)
    mean = lambda phi: phi.reshape(4, 2, 4, 2).mean(axis=(1, 3))  # noqa: E731
    assert "y_h" in monte_carlo_rg(phi, mean, levels=1, operators=["field"]).inputs


def test_functions_and_clusters_of_users_are_operators(chain):
    given = {"energy": lambda phi: jnp.sum(phi * jnp.roll(phi, 1)), "m": [(0,)]}
    found = monte_carlo_rg(rings(4000, 1), "decimate", operators=given, lattice=CHAIN["lattice"], levels=1)
    assert found.values == pytest.approx(chain.values, rel=1e-9)


def test_what_it_refuses():
    phi = np.random.default_rng(0).normal(size=(2, 100, 16, 16))
    with raises("argument.levels.kind"):
        monte_carlo_rg(phi, "sign", levels=1)
    with raises("argument.levels.small", "4"):
        monte_carlo_rg(phi, ("sign", "majority"), levels=2)
    with raises("argument.run.count"):
        monte_carlo_rg(phi[:, :20], levels=2)
    with raises("argument.operators.name"):
        monte_carlo_rg(phi, levels=2, operators=["nn"])
    with raises("argument.operator.returns"):
        monte_carlo_rg(phi, levels=2, operators={"mixed": lambda phi: (phi + phi**2).sum()})
    with raises("argument.operators.lattice"):
        monte_carlo_rg(phi, "average", levels=1, lattice=p4.lattice.square(16, periodic=False))
    with raises("argument.cuts"):
        monte_carlo_rg(phi, levels=2, cuts=[2.0])
    with raises("argument.second.shape"):
        monte_carlo_rg(phi, "average", levels=1, operators=["1"], second=phi)
    with raises("argument.run.partition"):
        square = p4.lattice.square(16)
        monte_carlo_rg(block(phi, "average", lattice=square, partition=np.arange(256) // 4))


@pytest.mark.slow
def test_exponents_of_the_ising_class():
    """Bounds of three to seven standard errors around 1 and 15/8, in which corrections of the first steps have to fit."""
    model = p4.phi4(p4.lattice.square(64), w=0.680602, a=-1.0, b=1.0)
    tree = p4.sample(model, num_warmup=200, num_samples=2000, num_chains=4, thinning=4, seed=1)
    small = p4.phi4(p4.lattice.square(32), w=0.680602, a=-1.0, b=1.0)
    second = p4.sample(small, num_warmup=200, num_samples=2000, num_chains=4, thinning=4, seed=2)
    found = monte_carlo_rg(tree, levels=3, second=second)
    for step, bound in ((1, 0.006), (2, 0.004)):
        t, h = ([row for row in found.table(s, 0.0) if row.step == step][-1] for s in ("even", "odd"))
        assert len(t.names) == 7 and abs(t.exponent - 1) < 0.03 and t.error < 0.02
        assert len(h.names) == 4 and abs(h.exponent - 1.875) < bound and h.error < 0.0015
    assert abs(found.values["eta"] - 0.25) < 0.01 and found.best["y_t"].row.sides == (16, 8)
    y_t, error = found.matching.best("y_t")
    assert abs(y_t - 1) < 4 * error and error < 0.06
    distance, error = found.matching.best("distance")
    assert abs(distance) < 4 * error and error < 0.0005


def test_operators_that_cannot_be_taken_are_refused_and_those_left_out_are_named():
    phi = np.random.default_rng(0).normal(size=(2, 200, 16, 16))
    for given in (1, "field"):
        with raises("argument.operators"):
            monte_carlo_rg(phi, operators=given)
    with raises("argument.operators.symmetries", "triangular"):
        monte_carlo_rg(phi, lattice=p4.lattice.triangular(16, 16))
    with raises("argument.operators.symmetries"):
        monte_carlo_rg(phi, lattice=p4.lattice.triangular(16, 16), operators=["1"])
    own = {"nn": lambda x: jnp.sum(x * (jnp.roll(x, 1, 0) + jnp.roll(x, 1, 1) + jnp.roll(jnp.roll(x, 1, 0), -1, 1)))}
    assert monte_carlo_rg(phi, lattice=p4.lattice.triangular(16, 16), operators=own).operators == ("nn",)
    spins = rings(500, 1)
    operators = {"1": [(0,), (1,)], "again": [(0,), (1,)], "constant": [(0,), (0,)]}
    found = monte_carlo_rg(spins, "decimate", operators=operators, lattice=p4.lattice.chain(SIDE), levels=1, cuts=[0.0])
    reason = found.best["y_t"].reason
    assert "without constant" in reason and "1 of their singular values" in reason
