"""Where modes of machines condense: closed forms of Mattis weights, and means that appear beyond the critical scale."""

from __future__ import annotations

import numpy as np
import pytest
from raising import raises

import phi4ppl as p4
from phi4ppl.networks import (
    BernoulliUnits,
    GaussianUnits,
    Phi4Units,
    RestrictedBoltzmannMachine,
    SpinUnits,
    critical_scales,
)  # fmt: skip

NV, NH = 12, 8
PATTERN, OTHER = np.resize([1.0, 1.0, -1.0], NV), np.resize([1.0, -1.0], NH)
MATTIS = np.outer(PATTERN, OTHER) / np.sqrt(NV * NH)
GRID = np.linspace(-6, 6, 6001)


def units(kind: str, n: int):
    return {
        "spin": lambda: SpinUnits(np.zeros(n)), "binary": lambda: BernoulliUnits(np.zeros(n)),
        "gaussian": lambda: GaussianUnits(np.zeros(n), np.full(n, 0.7)),
        "phi4": lambda: Phi4Units(np.zeros(n), np.full(n, -1.0), np.full(n, 0.5)),
    }[kind]()  # fmt: skip


def variance(kind: str) -> float:
    """By quadrature on a grid for φ⁴ units, by hand for the others."""
    if kind != "phi4":
        return {"spin": 1.0, "binary": 0.25, "gaussian": 1 / 1.4}[kind]
    weight = np.exp(GRID**2 - 0.5 * GRID**4)
    return weight @ GRID**2 / weight.sum()


@pytest.mark.parametrize(("visible", "hidden"), [("spin", "spin"), ("binary", "binary"), ("phi4", "binary"), ("phi4", "phi4"),
                                                 ("gaussian", "gaussian"), ("gaussian", "spin")])  # fmt: skip
def test_one_pattern_condenses_at_the_closed_form(visible, hidden):
    """w²_c = 1/(D_v D_h): 1 for ±1 units, 16 (w_c = 4) for {0, 1} units, and integrals of φ⁴."""
    found = critical_scales(RestrictedBoltzmannMachine(units(visible, NV), units(hidden, NH), MATTIS))
    assert found.scales[0] == pytest.approx(1 / np.sqrt(variance(visible) * variance(hidden)), rel=1e-5)
    assert np.isinf(found.scales[1:]).all()
    assert abs(found.visible[:, 0] @ PATTERN) / np.sqrt(NV) == pytest.approx(1, rel=1e-6)
    assert abs(found.hidden[:, 0] @ OTHER) / np.sqrt(NH) == pytest.approx(1, rel=1e-6)


def test_two_gaussian_layers_condense_where_z_becomes_infinite():
    rng = np.random.default_rng(0)
    layers = GaussianUnits(np.zeros(5), rng.uniform(0.5, 2, 5)), GaussianUnits(np.zeros(3), rng.uniform(0.5, 2, 3))
    machine = RestrictedBoltzmannMachine(*layers, rng.normal(0, 0.1, (5, 3)))
    limit = critical_scales(machine).scales[0]
    assert limit == pytest.approx(1 / float(machine.coupling_strength()), rel=1e-5)
    RestrictedBoltzmannMachine(*layers, 0.999 * limit * machine.weights)
    with raises("hammersley_clifford.not_normalizable"):
        RestrictedBoltzmannMachine(*layers, 1.001 * limit * machine.weights)


@pytest.mark.parametrize("kind", ["spin", "phi4"])
def test_the_self_consistent_means_appear_at_the_critical_scale(kind):
    """⟨v⟩ = f(w⟨h⟩), ⟨h⟩ = f(wᵀ⟨v⟩) by iteration: 0 one percent below, and not one percent above. A variance that is 20 % off
    would put the transition outside."""
    layers = units(kind, NV), units(kind, NH)
    critical = critical_scales(RestrictedBoltzmannMachine(*layers, MATTIS)).scales[0]
    for factor, condensed in ((0.99, False), (1.01, True)):
        machine = RestrictedBoltzmannMachine(*layers, factor * critical * MATTIS)
        v = 0.3 * PATTERN
        for _ in range(600):
            v = np.asarray(machine.visible_mean(machine.hidden_mean(v)))
        assert (np.abs(v).max() > 0.05) == condensed
        assert critical_scales(machine).num_condensed == condensed


def test_what_has_no_modes_is_refused():
    with raises("argument.machine", "a RestrictedBoltzmannMachine"):
        critical_scales(p4.gaussian(p4.lattice.chain(3), w=0.1, a=1.0))
    with raises("argument.machine.zero", "not all 0"):
        critical_scales(RestrictedBoltzmannMachine(units("spin", 2), units("spin", 2), np.zeros((2, 2))))
