"""How many correcting sweeps the fields of each lift need: S/V and χ at 64² after k sweeps of single sites, paired.

    python tests/benchmarks/correcting_sweeps.py [FIELDS]

All lifts get the same equilibrium fields of 32² at (w, a, b) = (0.680602, −1, 1), the critical point, and are learned on pairs
of 8² and 16² as in a cascade. S/V and χ of the coarse fields are control variates, which take out what these have by chance:
long waves are the same at both sizes. The values to be reached are those of 8,000 direct fields by an independent program.
"""

from __future__ import annotations

import math
import sys
import time

import jax
import numpy as np

import phi4ppl as p4
from phi4ppl.reports.numbers import value_with_error
from phi4ppl.results.correction import by_sweeps, measure

NAMES = ("energy_density", "susceptibility")
FINE = {"energy_density": (-0.54946, 0.00038), "susceptibility": (1228.0, 6.0)}  # of 64²
COARSE = {"energy_density": (-0.5543, 0.0006), "susceptibility": (365.1, 1.9)}  # of 32²
ALL_SWEEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128)
LIFTS = ("copy", "transposed_convolution", "conditional_flow", "conditional_field")
WITHIN = 2.0  # errors
APART = 10  # iterations between coarse fields of a chain, several autocorrelation times


def critical(side: int):
    return p4.phi4(p4.lattice.square(side), w=0.680602, a=-1.0, b=1.0)


def adjusted(fine, coarse, name: str) -> tuple[float, float]:
    """An observable of the fine fields as it were if the coarse ones had their exact S/V and χ, with its error."""
    moves = np.stack([coarse.influence[each] for each in NAMES])
    slopes = np.linalg.lstsq(moves.T, fine.influence[name], rcond=None)[0]
    rest = fine.influence[name] - slopes @ moves
    value = fine.values[name]
    variance = np.var(rest, ddof=3) / len(rest)
    for slope, each in zip(slopes, NAMES, strict=True):
        value -= slope * (coarse.values[each] - COARSE[each][0])
        variance += (slope * COARSE[each][1]) ** 2
    return float(value), math.sqrt(variance)


def needed(found: dict[int, float]) -> str:
    """The smallest number of sweeps at which the deviation is within two errors, and twice as many as well."""
    ks = sorted(found)
    good = [k for k, more in zip(ks, [*ks[1:], ks[-1]], strict=True) if max(abs(found[k]), abs(found[more])) <= WITHIN]
    return str(good[0]) if good else f"> {ks[-1]}"


def main(number: int = 1500) -> None:
    chains = {"num_chains": 100, "num_warmup": 100, "num_samples": max(8, number // 100), "thinning": APART}
    tree = p4.sample(critical(32), seed=1, progress=False, **chains)
    start = tree["posterior"]["phi"].transpose("draw", "chain", ...).values.reshape(-1, 32, 32)
    number, coarse, model = len(start), measure(critical(32), start), critical(64)
    print(f"{number} fields of 32²:", *(value_with_error(*coarse.pair(name)) for name in NAMES), flush=True)
    for lift_name in LIFTS:
        up = p4.renormalization.InverseRenormalization(critical, lift_name, sweeps=1, kernel="local_hmc", seed=2)
        up.lifted(up.start(8, 20).fields)  # learns on pairs of 8² and 16²
        lift, began = up._trained(8), time.process_time()
        parts = np.array_split(start, max(1, number // 250))
        fields = np.concatenate([np.asarray(lift(jax.random.key(k), part)) for k, part in enumerate(parts)])
        away, done, now = {name: {} for name in NAMES}, 0, measure(model, fields)
        for k in ALL_SWEEPS:
            if k:
                step = {"step_size": up._made["step_size"], "kernel": "local_hmc"}
                corrected = by_sweeps(model, fields, **step, sweeps=k - done, seed=k)
                fields, now, done = corrected.fields, corrected.after, k
            cells = []
            for name in NAMES:
                value, error = adjusted(now, coarse, name)
                away[name][k] = (value - FINE[name][0]) / math.hypot(error, FINE[name][1])
                cells.append(f"{value_with_error(value, error):>14s} ({away[name][k]:+.1f})")
            print(f"{lift_name:24s} {k:4d}", *cells, flush=True)
        seconds = time.process_time() - began
        print(
            f"{lift_name}: S/V {needed(away[NAMES[0]])}, χ {needed(away[NAMES[1]])} sweeps; {seconds:.0f} s", flush=True
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
