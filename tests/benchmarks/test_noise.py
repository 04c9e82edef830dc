"""Do the random numbers of `phi4ppl.kernels.noise` still pay? Ratios within one run: ``pytest tests/benchmarks``.

That they are the same bits as JAX's Threefry, and that `finished` changes none, is held by tests/test_sweeps.py.
"""

import time

import jax
import jax.numpy as jnp
import pytest

import phi4ppl as p4
from phi4ppl.kernels import local_hmc
from phi4ppl.kernels.target import target_of

SIDE, SWEEPS, ROUNDS = 256, 20, 15
MIN_GAIN = 1.05  # of time per sweep; below it the code by hand has to go


def words_of_jax(key, count, shape):
    return list(jax.random.bits(key, (count, *shape), jnp.uint32))


VARIANTS = {  # what stands in for ours
    "ours": {},
    "numbers computed where they are used": {"finished": lambda numbers: numbers},
    "words of jax.random.bits": {"random_words": words_of_jax},
}


def compiled_sweeps(replaced: dict):
    """A compiled function of a key and a field, with some functions of the module replaced while it is traced."""
    model = p4.phi4(p4.lattice.square(SIDE), w=1.0, a=1.52425, b=0.175)
    target = target_of(p4.compile(model))
    phi, key = jnp.ones((SIDE, SIDE)), jax.random.key(0)
    with pytest.MonkeyPatch.context() as patch:
        for name, function in replaced.items():
            patch.setattr(local_hmc, name, function)
        jax.clear_caches()
        return jax.jit(lambda key, phi: local_hmc.sweeps(target, key, phi, 0.3, SWEEPS)).lower(key, phi).compile()


def seconds(program, number: int) -> float:
    start = time.process_time()
    jax.block_until_ready(program(jax.random.key(number), jnp.ones((SIDE, SIDE))))
    return time.process_time() - start


def test_random_numbers_by_hand_pay(capsys):
    programs = {name: compiled_sweeps(replaced) for name, replaced in VARIANTS.items()}
    times = {name: [] for name in programs}
    for number in range(ROUNDS):  # in turns, so that a busy machine slows all of them
        for name, program in programs.items():
            times[name].append(seconds(program, number))
    best = {name: min(found) for name, found in times.items()}
    gains = {name: best[name] / best["ours"] for name in best}
    with capsys.disabled():
        print("\nCPU time of a sweep, ours = 1: " + ", ".join(f"{name} {gain:.2f}" for name, gain in gains.items()))
    assert all(gain > MIN_GAIN for name, gain in gains.items() if name != "ours"), gains
