"""Quantities by name against quadrature: susceptibilities, cumulants, the specific heat and moments of three coupled sites."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import phi4ppl as p4
from phi4ppl.analysis import derive, quantity_names

MODEL = p4.phi4(p4.lattice.chain(3), w=0.7, a=0.4, b=0.3)
MOMENTS = {
    "abs_m": lambda phi: jnp.abs(phi.mean()),
    "m2": lambda phi: phi.mean() ** 2,
    "m4": lambda phi: phi.mean() ** 4,
    "m6": lambda phi: phi.mean() ** 6,
    "e": lambda phi: MODEL.energy(phi) / 3,
    "e2": lambda phi: (MODEL.energy(phi) / 3) ** 2,
    "F": lambda phi: jnp.abs(jnp.sum(phi * np.exp(2j * np.pi * np.arange(3) / 3))) ** 2 / 3,
}


@pytest.fixture(scope="module")
def exact() -> dict[str, float]:
    m = p4.exact.quadrature(MODEL, MOMENTS, points=80)
    return {name: m[name] for name in ("abs_m", "m2", "m4", "m6", "e", "e2")} | {
        "m": 0.0,
        "susceptibility": 3 * m["m2"],
        "connected_susceptibility": 3 * (m["m2"] - m["abs_m"] ** 2),
        "disconnected_susceptibility": 3 * m["abs_m"] ** 2,
        "binder_cumulant": 1 - m["m4"] / 3 / m["m2"] ** 2,
        "specific_heat": 3 * (m["e2"] - m["e"] ** 2),
        "second_moment_correlation_length": np.sqrt(3 * m["m2"] / m["F"] - 1) / np.sqrt(3),
        "correlation_length_ratio": np.sqrt(3 * m["m2"] / m["F"] - 1) / np.sqrt(3) / 3,
        "improved_susceptibility": 3 * m["m2"],
        "improved_binder_cumulant": 1 - m["m4"] / 3 / m["m2"] ** 2,
        "improved_second_moment_correlation_length": np.sqrt(3 * m["m2"] / m["F"] - 1) / np.sqrt(3),
    }


@pytest.fixture(scope="module")
def tree():
    names = ["improved_binder_cumulant", "improved_second_moment_correlation_length"]
    return p4.sample(MODEL, num_warmup=300, num_samples=5000, seed=2, observables=names)


def test_all_by_name(tree, exact):
    """Seventeen quantities within four errors (false alarm 1e-3); a wrong normalization, V for V − 1, is ten errors away."""
    assert exact.keys() <= quantity_names().keys()
    found = derive(tree, list(exact))
    for name, value in exact.items():
        assert abs(found[name].value - value) < 4 * found[name].error, name
        assert found[name].reliable and (name == "m" or found[name].error < 0.05 * abs(value)), name
    for name in ("susceptibility", "specific_heat", "connected_susceptibility"):
        assert abs(found[name].value * 2 / 3 - exact[name]) > 10 * found[name].error


def test_names_and_functions_together(tree, exact):
    def ratio(m):
        return m["m4"] / m["m2"] ** 2

    found = derive(tree, ["binder_cumulant", ratio])
    assert found["ratio"].value == pytest.approx(3 * (1 - found["binder_cumulant"].value))
    assert derive(tree, "binder_cumulant").covariance()[0, 0] == pytest.approx(found.covariance()[0, 0])
    both = derive({"one": tree, "two": tree.isel(draw=slice(2500))}, {"U": "binder_cumulant"})
    assert set(both) == {"U[one]", "U[two]"} and both["U[two]"].error > both["U[one]"].error
