"""The cascade against ``kernel="auto"`` from a cold start, at 32², where clusters do not help or do not exist.

    python tests/benchmarks/without_clusters.py [MODEL …]

What is compared is processor time by independent field: fields of a cascade from 8² to 32² are independent of each other, a
chain has N/(2 τ_int) of them. Both see the model as ``auto`` does. Couplings of the first two models are near their critical
points, where U₄ of 8², 16² and 32² cross.
"""

from __future__ import annotations

import math
import sys
import time

import numpy as np

import phi4ppl as p4
from phi4ppl.analysis.gamma_method import gamma_method
from phi4ppl.reports.numbers import value_with_error

SIDE, START, FIELDS = 32, 8, 300
CHAINS, DRAWS, APART, WARMUP = 8, 500, 8, 300


def four_fields(phi_1, phi_2, phi_3, phi_4):
    return phi_1 * phi_2 * phi_3 * phi_4


def plaquette(side: int, w: float = 1.085):
    """The shipped plaquette model, its hopping increased to the critical point."""
    lattice = p4.lattice.square(side, diagonals=True)
    terms = p4.phi4(lattice, w={"nn": w, "diagonal": w / 2}, a=2.7, b=0.3).terms
    return p4.MarkovRandomField(
        lattice, [*terms, p4.Term("g", p4.lattice.plaquettes(lattice), four_fields, coupling=0.1)]
    )


def frustrated(side: int, w: float = 0.985):
    """Neighbors pull, diagonal neighbors push: no field satisfies both."""
    lattice = p4.lattice.square(side, diagonals=True)
    return p4.phi4(lattice, w={"nn": w, "diagonal": -0.25 * w}, a=-1.0, b=1.0)


def a4(side: int):
    """The action A₄ of the literature, in its ordered phase."""
    return p4.phi4(p4.lattice.square(side, diagonals=True), w={"nn": 1.0, "diagonal": 1.0}, a=1.52425, b=0.175)


MODELS = {"plaquette": (plaquette, None), "frustrated": (frustrated, None), "a4": (a4, 0.0)}


def chain(model, seed: int = 1):
    """Means with errors, and processor seconds by independent field with errors, of S/V and V m²."""
    volume = model.lattice.num_sites
    began = time.process_time()
    observables = {"s": lambda phi: model.energy(phi) / volume, "m2": lambda phi: volume * phi.mean() ** 2}
    tree = p4.sample(
        model, num_warmup=WARMUP, num_samples=DRAWS, num_chains=CHAINS, thinning=APART, observables=observables,
        keep_field=False, seed=seed, progress=False,
    )  # fmt: skip
    seconds = time.process_time() - began
    found = {}
    for name in observables:
        each = gamma_method(tree["posterior"][name].transpose("chain", "draw").values[..., None])
        mean, noise, tau, error = (
            float(np.ravel(x)[0]) for x in (each.mean, each.error, each.tau_int, each.tau_int_error)
        )
        cost = seconds * 2 * tau / (CHAINS * DRAWS)
        found[name] = (mean, noise, tau * APART, cost, cost * error / tau)
    return found, seconds, tree["posterior"].attrs.get("kernel", "")


def main(*names: str) -> None:
    for name in names or MODELS:
        build, eta = MODELS[name]
        found, seconds, kernel = chain(build(SIDE))
        began = time.process_time()
        up = p4.renormalization.cascade(
            build, START, int(math.log2(SIDE // START)), fields=FIELDS, eta=eta, seed=2, progress=False
        )
        all_of_it, own = time.process_time() - began, sum(level.seconds for level in up.levels)
        after = up.levels[-1].corrected.after
        print(f"{name}: auto took {seconds:.0f} s ({kernel})")
        print(up)
        print(f"  cascade: {all_of_it:.0f} s, {own:.0f} s without training: {1e3 * all_of_it / FIELDS:.0f} ms a field")
        for of, observable in (("s", "energy_density"), ("m2", "susceptibility")):
            value, error, tau, cost, cost_error = found[of]
            mine, own_error = after.pair(observable)
            apart = (mine - value) / math.hypot(error, own_error)
            print(
                f"  {observable}: auto {value_with_error(value, error)}, cascade {value_with_error(mine, own_error)} "
                f"({apart:+.1f}); auto tau {tau:.0f} sweeps, {1e3 * cost:.0f}({1e3 * cost_error:.0f}) ms an independent field",
                flush=True,
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
