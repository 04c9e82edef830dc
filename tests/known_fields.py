"""Fields drawn at known couplings, shared by the tests of fits; by a sampler of their own, in NumPy."""

from __future__ import annotations

import functools

import numpy as np

import phi4ppl as p4

TRUE = {"w": 0.5, "a": 1.0, "b": 0.25}
MAX_CHAINS = 20_000
FIRST, BETWEEN = 150, 20  # sweeps; the field forgets itself in about three


@functools.lru_cache
def true_model():
    return p4.phi4(p4.lattice.square(8), **TRUE)


@functools.lru_cache
def independent_fields(number: int, seed: int = 1) -> np.ndarray:
    """Fields of the homogeneous model on the periodic 8×8 lattice, shape ``(number, 8, 8)``; up to 20,000 of own chains."""
    rng = np.random.default_rng(seed)
    chains = min(number, MAX_CHAINS)
    phi = rng.normal(0, 0.6, size=(8, 8, chains))
    drawn = []
    for draw in range(-(-number // chains)):
        for _ in range(BETWEEN if draw else FIRST):
            _sweep(rng, phi)
        drawn.append(np.moveaxis(phi, 2, 0).copy())
    return np.concatenate(drawn)[:number]


def _sweep(rng, phi) -> None:
    """Metropolis on the two colors of the checkerboard."""
    color = np.indices((8, 8)).sum(axis=0) % 2
    for turn in (0, 1):
        neighbors = sum(np.roll(phi, shift, axis) for axis in (0, 1) for shift in (1, -1))[color == turn]
        old = phi[color == turn]
        new = old + rng.uniform(-1.5, 1.5, size=old.shape)
        one, two = old * old, new * new
        change = (two - one) * (TRUE["a"] + TRUE["b"] * (one + two)) - TRUE["w"] * neighbors * (new - old)
        phi[color == turn] = np.where(rng.random(old.shape) < np.exp(-np.maximum(change, 0)), new, old)


def pulls(fit, true: dict = TRUE) -> dict:
    """(estimate − truth)/error of homogeneous couplings."""
    return {name: (float(fit.model.couplings[name]) - true[name]) / float(fit.standard_errors[name]) for name in true}
