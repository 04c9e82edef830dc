"""Seeds are of 32 bits everywhere, and every purpose of a run has a stream of its own."""

from __future__ import annotations

import inspect
import itertools
import re
from pathlib import Path

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from raising import raises

import phi4ppl as p4
from phi4ppl.errors.streams import stream_key, stream_rng, stream_seed
from phi4ppl.inference import predictive_check
from phi4ppl.networks import BernoulliUnits, RestrictedBoltzmannMachine, annealed, train
from phi4ppl.partition import annealing, integration
from phi4ppl.partition.coupling_path import path_to
from phi4ppl.sampling.engine import Engine

PACKAGE = Path(p4.__file__).parent
RING = p4.lattice.chain(4)
MODEL = p4.gaussian(RING, w=0.5, a=1.0)
DATA = np.random.default_rng(0).normal(size=(20, 4))
BITS = np.array([[0.0, 1.0], [1.0, 1.0]])
MACHINE = RestrictedBoltzmannMachine(BernoulliUnits(np.zeros(2)), BernoulliUnits(np.zeros(2)), np.zeros((2, 2)))
PRIORS = {"w": dist.Uniform(0.1, 0.6)}


def square(size):
    return p4.phi4(p4.lattice.square(size), a=-1.0, b=1.0)


NAMES = ("pool", "mode search", "integration", "annealing", "average")


@pytest.fixture(scope="module")
def comparison():
    return p4.compare({"one": MODEL}, DATA)


CALLS = {
    "sample": lambda seed: p4.sample(MODEL, seed=seed),
    "sample_ensemble": lambda seed: p4.sample_ensemble(MODEL, {"w": [0.1, 0.2]}, seed=seed),
    "log_partition": lambda seed: p4.log_partition(MODEL, seed=seed),
    "PartitionSurface": lambda seed: p4.PartitionSurface(MODEL, {"w": (0.1, 0.5)}, seed=seed),
    "fit_likelihood": lambda seed: p4.fit_likelihood(MODEL, DATA, seed=seed),
    "fit_variational": lambda seed: p4.fit_variational(MODEL, MODEL, seed=seed),
    "infer_couplings": lambda seed: p4.infer_couplings(MODEL, DATA, PRIORS, seed=seed),
    "laplace": lambda seed: p4.laplace(lambda: None, seed=seed),
    "compare": lambda seed: p4.compare({"one": MODEL}, DATA, seed=seed),
    "predictive_check": lambda seed: predictive_check([MODEL], DATA, seed=seed),
    "finite_size_scaling": lambda seed: p4.finite_size_scaling(square, sizes=(4, 6), vary={"w": [0.6, 0.7]}, seed=seed),
    "check_action": lambda seed: p4.check_action(MODEL.energy, RING, seed=seed),
    "train": lambda seed: train(MACHINE, BITS, seed=seed),
    "annealed": lambda seed: annealed(MACHINE, seed=seed),
    "machine.log_partition": lambda seed: MACHINE.log_partition(seed=seed),
}


@pytest.mark.parametrize("seed", [2**32, -1, 0.5])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_seeds_that_jax_would_truncate_are_refused(call, seed):
    with raises("argument.seed*"):
        call(seed)


def test_average_refuses_them_too(comparison):
    with raises("argument.seed.too_large", "4294967295", "got 4294967296"):
        p4.average(comparison, seed=2**32)


def test_every_function_with_a_seed_is_asked():
    """Of the root's names: the list above must not fall behind."""
    public = {name: getattr(p4, name) for name in p4.__all__}
    functions = {name: f for name, f in public.items() if inspect.isfunction(f) or name == "PartitionSurface"}
    seeded = {name for name, function in functions.items() if "seed" in inspect.signature(function).parameters}
    assert len(seeded) > 6 and seeded <= {*CALLS, "average"}


def test_streams_of_neighboring_seeds_and_of_purposes_differ():
    pairs = list(itertools.product(range(5), NAMES))
    keys = {tuple(np.asarray(jax.random.key_data(stream_key(*pair)))) for pair in pairs}
    numbers = {stream_rng(*pair).integers(2**63) for pair in pairs}
    seeds = {stream_seed(*pair) for pair in pairs}
    assert len(keys) == len(numbers) == len(seeds) == len(pairs)
    assert stream_seed(7, "pool", 1) not in (stream_seed(7, "pool"), stream_seed(7, "pool", 2))


def test_streams_are_the_same_in_every_process():
    assert stream_seed(3, "pool") == 3799461714
    assert stream_rng(3, "pool", 1).integers(100, size=3).tolist() == [22, 82, 13]


@pytest.mark.compile_quickly
def test_chains_of_the_pool_are_not_those_of_the_next_mode_search():
    """As `compare` makes them; ``seed + 1`` for the pool made them the same fields."""

    def fields(seed, purpose):
        return Engine(MODEL, kernel="local_hmc", num_chains=8, key=stream_key(seed, purpose)).fields

    assert np.all(fields(0, "pool") == fields(0, "pool"))
    assert not np.any(fields(0, "pool") == fields(1, "mode search"))


@pytest.mark.compile_quickly
def test_two_ways_to_log_z_start_from_different_fields(monkeypatch):
    """What integration and annealing draw first, and the keys of their first chains."""
    path, starts, keys = path_to(p4.phi4(RING, w=0.8, a=1.4, b=0.2)), [], []

    class Drawn(Exception):
        pass

    def stop(models, change, start, *, key, **rest):
        starts.append(np.asarray(start))
        keys.append(np.asarray(jax.random.key_data(key)))
        raise Drawn

    monkeypatch.setattr(integration, "sample_energies", stop)
    monkeypatch.setattr(annealing, "sample_energies", stop)
    with pytest.raises(Drawn):
        integration.integrate(path, num_warmup=50, num_samples=50, num_chains=4, seed=1, progress=False)
    with pytest.raises(Drawn):
        annealing.anneal(path, num_warmup=50, num_steps=50, num_walkers=4, seed=1, progress=False)
    assert not np.isin(starts[0].ravel(), starts[1].ravel()).any()
    assert not np.array_equal(*keys)


ARITHMETIC = re.compile(r"""(?<!`)\b_?seed\b["'\])()]*\s[+*^-]\s|\s[+*^-]\s(self\.)?_?seed\b""")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_seed_is_derived_by_arithmetic(path):
    assert [line for line in path.read_text(encoding="utf-8").splitlines() if ARITHMETIC.search(line)] == []


@pytest.mark.parametrize(
    "line",
    [
        "Engine(m, seed=seed + 1)",
        "key(seed + 1_000_003 * done)",
        'settings["seed"] + len(x)',
        "key(self._seed() + 2)",
        "key(3 * seed)",
    ],
)
def test_planted_arithmetic_is_found(line):
    assert ARITHMETIC.search(line)
