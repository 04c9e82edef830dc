"""Round trips of ``tempering`` by processor time, against parallel tempering as phi4ppl 0.1 did it before, and Houdayer's move.

    python tests/benchmarks/round_trips.py [old] [houdayer] [percolation]

The spin glasses are φ⁴ with w = ±2 on the square lattice (or on others for ``percolation``), one realization a seed. The old
scheme made one sweep of every copy and exchanged the even or the odd pairs once, then did the same again; its eight rungs were
spaced so that neighbors exchange in 40 % of the tries, wherever that ended. "Of the same length" is the old scheme with as many
rungs as it needs to end as hot as ``tempering`` does. Times are those of the additional draws of a long run over a short one.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from arviz_stats.base import array_stats

import phi4ppl as p4
from phi4ppl.kernels.choose import resolve
from phi4ppl.kernels.kernel import Kernel
from phi4ppl.kernels.local_hmc import LOCAL_HMC
from phi4ppl.kernels.tempering.copies import LadderTuning
from phi4ppl.kernels.tempering.ladder import at, partners
from phi4ppl.kernels.tempering.tempering_kernel import _kernel

SEEDS = range(5)
CHAINS, WARMUP = 4, 1000
EXCHANGED, FIRST_SPACING = 0.4, 0.1  # of the old scheme: target of exchanges, spacing of log β


def spin_glass(seed: int, lattice=None):
    lattice = lattice or p4.lattice.square(8)
    signs = np.random.default_rng(seed).choice([-1, 1], len(lattice.edges))
    # a site has the same field of its neighbors on every lattice
    return p4.phi4(lattice, w=4.0 * signs * np.sqrt(lattice.num_sites / 2 / len(lattice.edges)), a=1.52425, b=0.175)


# --- the old scheme


class Copies(NamedTuple):
    position: Any
    logdensity: Any
    logdensity_grad: Any
    copies: Any
    acceptance: Any
    exchange: Any
    odd: Any
    been: Any


class Info(NamedTuple):
    acceptance_rate: Any
    diverging: Any
    n_steps: Any
    exchange_rate: Any
    inverse_temperature: Any
    round_trips: Any


def build(num_rungs: int, target, tuning):
    from blackjax.base import SamplingAlgorithm

    beta = tuning.inverse_temperature

    def init(position, key=None):
        copies = jnp.broadcast_to(position, (num_rungs, *position.shape))
        zeros = jnp.zeros_like(beta[1:])
        return Copies(position, *target.init(position), copies, 0 * copies, zeros, jnp.zeros((), bool), beta < 0)

    def move(key, position, beta, inner):
        algorithm = LOCAL_HMC.build(at(target, beta, "temperature"), inner)
        state, info = algorithm.step(key, algorithm.init(position))
        return state, LOCAL_HMC.statistics(info)

    def step(key, state):
        move_key, exchange_key = jax.random.split(key)
        copies = state.copies.at[0].set(state.position)
        moved, did = jax.vmap(move)(jax.random.split(move_key, num_rungs), copies, beta, tuning.inner)
        copies = moved.position
        gain = (beta[:-1] - beta[1:]) * jax.vmap(target.energy_change)(copies[:-1], copies[1:])
        rate = jnp.exp(jnp.minimum(gain, 0))
        turn = jnp.arange(num_rungs - 1) % 2 == state.odd
        source = partners(turn & (jax.random.uniform(exchange_key, rate.shape, rate.dtype) < rate))
        copies, been = copies[source], state.been.at[-1].set(True)[source]
        info = Info(
            did["acceptance_rate"][0],
            jnp.any(did["diverging"]),
            jnp.sum(did["n_steps"]),
            rate,
            beta,
            been[0].astype(int),
        )
        after = copies[0], *target.init(copies[0]), copies, moved.acceptance, rate, ~state.odd, been.at[0].set(False)
        return Copies(*after), info

    return SamplingAlgorithm(init, step)


class Spacings(NamedTuple):
    inner: Any
    log_spacing: Any
    count: Any


class Seen(NamedTuple):
    position: Any
    acceptance: Any


@dataclass(frozen=True)
class Adaptation:
    """Spacings of log β by Robbins and Monro."""

    num_rungs: int

    def begin(self, target, position):
        inner = LOCAL_HMC.adaptation.begin(target, position)
        inner = jax.tree.map(lambda x: jnp.broadcast_to(x, (self.num_rungs, *jnp.shape(x))), inner)
        return Spacings(inner, jnp.full(self.num_rungs - 1, math.log(FIRST_SPACING), position.dtype), jnp.zeros(()))

    def update(self, target, state, stage, is_window_end, chain_state, statistics):
        def update_copy(inner, beta, position, acceptance):
            here, did = at(target, beta, "temperature"), {"acceptance_rate": jnp.mean(acceptance)}
            return LOCAL_HMC.adaptation.update(here, inner, stage, is_window_end, Seen(position, acceptance), did)

        beta = self.tuning(state).inverse_temperature
        inner = jax.vmap(update_copy)(state.inner, beta, chain_state.copies, chain_state.acceptance)
        move = (chain_state.exchange - EXCHANGED) * (1 + state.count) ** -0.6
        return Spacings(inner, jnp.clip(state.log_spacing + move, math.log(1e-4), math.log(2.0)), state.count + 1)

    def tuning(self, state):
        return self._tuning(state, "tuning")

    def final(self, state):
        return self._tuning(state, "final")

    def _tuning(self, state, which):
        steps = jnp.append(0.0, jnp.cumsum(jnp.exp(state.log_spacing)))
        return LadderTuning(jax.vmap(getattr(LOCAL_HMC.adaptation, which))(state.inner), jnp.exp(-steps), None)


@functools.cache
def old_tempering(num_rungs: int) -> Kernel:
    make = functools.partial(build, num_rungs)
    return Kernel("old_tempering", "the old scheme", make, lambda info: info._asdict(), Adaptation(num_rungs))


# --- measurements


def run(model, kernel, draws: int):
    began = time.process_time()
    tree = p4.sample(
        model, kernel=kernel, num_warmup=WARMUP, num_samples=draws, num_chains=CHAINS, seed=1, progress=False,
        keep_field=False, observables={"abs_m": lambda phi: abs(phi.mean())},
    )  # fmt: skip
    return tree, time.process_time() - began


class Rate(NamedTuple):
    trips: float
    rungs: int
    hottest: float
    barrier: float
    share: Any = None  # of sites in the largest cluster


def rates(model, kernel, short: int, long: int) -> Rate:
    """Round trips by second of processor time."""
    run(model, kernel, short), run(model, kernel, long)  # compile
    (first, early), (tree, late) = run(model, kernel, short), run(model, kernel, long)
    count = [int(each["sample_stats"]["round_trips"].sum()) for each in (first, tree)]
    beta = tree["sample_stats"]["inverse_temperature"].values[0, -1]
    share = tree["sample_stats"].get("exchanged_share")
    share = None if share is None else share.mean(("chain", "draw")).values
    barrier = float((1 - tree["sample_stats"]["exchange_rate"].mean(("chain", "draw"))).sum())
    return Rate((count[1] - count[0]) / (late - early), len(beta), float(beta[-1]), barrier, share)


def summary(values) -> str:
    low, middle, high = np.quantile(values, [0, 0.5, 1])
    return f"{middle:.3g} ({low:.3g}–{high:.3g})"


def line(seed, name, rate: Rate) -> None:
    print(
        f"{seed:3d}  {name:24s} {rate.rungs:3d} rungs to β = {rate.hottest:.2f}: {rate.trips:7.1f} per second",
        flush=True,
    )


def old(seeds=SEEDS) -> None:
    ratios: dict[str, list] = {}
    for seed in seeds:
        model = spin_glass(seed)
        new = rates(model, "tempering", 100, 1100)
        line(seed, "tempering", new)
        for name, rungs in {"old": 8, "old, of the same length": round(new.barrier / (1 - EXCHANGED)) + 1}.items():
            before = rates(model, old_tempering(rungs), 1000, 9000)
            line(seed, name, before)
            ratios.setdefault(name, []).append(new.trips / before.trips)
    for name, values in ratios.items():
        print(f"tempering / {name:26s} {summary(values)}")


def of_rounds(name: str, model, rounds: int) -> Kernel:
    """The kernel of a name with so few rounds in an iteration that draws depend on each other."""
    fitted, _ = resolve(name, p4.compile(model))
    return _kernel(dataclasses.replace(fitted.adaptation.ladder, rounds=rounds), None)


def slowest_bond(model, kernel, draws: int) -> float:
    """Independent draws by second of the product of fields φ_i φ_j of neighbors that decorrelates most slowly."""
    sides = model.lattice.edges.T
    bonds = {"bonds": lambda phi: phi.reshape(-1)[sides[0]] * phi.reshape(-1)[sides[1]]}
    times = []
    for number in (draws // 10, draws, draws // 10, draws):  # the first two compile
        began = time.process_time()
        tree = p4.sample(
            model, kernel=kernel, num_warmup=WARMUP, num_samples=number, num_chains=CHAINS, seed=1, progress=False,
            keep_field=False, observables=bonds,
        )  # fmt: skip
        times.append(time.process_time() - began)
    worst = array_stats.ess(tree["posterior"]["bonds"].values, method="bulk", chain_axis=0, draw_axis=1).min()
    return float(worst) * 0.9 / (times[3] - times[2])


def houdayer(seeds=SEEDS) -> None:
    ratios = []
    for seed in seeds:
        model = spin_glass(seed)
        one, two = (slowest_bond(model, of_rounds(name, model, 2), 5000) for name in ("tempering", "houdayer"))
        print(f"{seed:3d}  slowest bond: tempering {one:7.1f} per second, houdayer {two:7.1f} per second", flush=True)
        ratios.append(two / one)
    print(f"houdayer / tempering, slowest bond: {summary(ratios)}")


def percolation() -> None:
    lattices = {
        "square, 8²": p4.lattice.square(8), "square, 16²": p4.lattice.square(16), "cubic, 4³": p4.lattice.hypercubic((4, 4, 4)),
        "cubic, 6³": p4.lattice.hypercubic((6, 6, 6)), "complete, 64": p4.lattice.complete(64),
    }  # fmt: skip
    for name, lattice in lattices.items():
        tree, _ = run(spin_glass(1, lattice), p4.sampling.houdayer(8, path="temperature"), 300)
        stats = tree["sample_stats"]
        share = stats["exchanged_share"].mean(("chain", "draw")).values
        beta = stats["inverse_temperature"].values[0, -1]
        print(f"{name:14s} β     " + " ".join(f"{b:5.2f}" for b in beta))
        print(f"{'':14s} share " + " ".join(f"{s:5.2f}" for s in share), flush=True)


if __name__ == "__main__":
    for what in sys.argv[1:] or ["old", "houdayer", "percolation"]:
        {"old": old, "houdayer": houdayer, "percolation": percolation}[what]()
