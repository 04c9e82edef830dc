"""Cost of one leapfrog step per site, against loops written by hand in numba, one thread, float32.

    python tests/benchmarks/leapfrog.py [--rounds 15] [--out leapfrog.md]

prints two tables in Markdown. Every round times all programs of a case one after the other, so that a slow spell of the
machine hits them alike; a ratio is taken within its round, and tables give the median and the range of its middle half.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path

if __name__ == "__main__":  # one thread; must be said before JAX starts
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import jax
import jax.numpy as jnp
import networkx as nx
import numba
import numpy as np

import phi4ppl as p4
from phi4ppl.energy.functions import energy

SIZES = (32, 64, 128, 256, 512)
GRAPH_SIZES = (1024, 16384, 131072)
STEPS = 100
COUPLINGS = tuple(map(np.float32, (1.0, 1.9, 0.175)))
STEP_SIZE = np.float32(1e-3)
SITES_A_TIMING = 200_000  # a timing takes at least this many sites × STEPS
PROGRAMS = ("numba", "numba, peeled", "force", "force and energy")


@numba.njit(fastmath=True)
def square_loop(w, a, b, x, p, step, steps):
    """A plain loop over sites; neighbors across the boundary by a choice at every site."""
    n, m = x.shape
    for _ in range(steps):
        for i in range(n):
            up, down = (i + 1 if i + 1 < n else 0), (i - 1 if i > 0 else n - 1)
            for j in range(m):
                right, left = (j + 1 if j + 1 < m else 0), (j - 1 if j > 0 else m - 1)
                v = x[i, j]
                around = x[up, j] + x[down, j] + x[i, right] + x[i, left]
                p[i, j] -= step * (v * (2 * a + 4 * b * v * v) - w * around)
        for i in range(n):
            for j in range(m):
                x[i, j] += step * p[i, j]


@numba.njit(fastmath=True)
def square_loop_peeled(w, a, b, x, p, step, steps):
    """The same with the first and the last column apart, so that the compiler can vectorize the rest."""
    n, m = x.shape
    two, four = np.float32(2) * a, np.float32(4) * b
    for _ in range(steps):
        for i in range(n):
            r, q, u, d = x[i], p[i], x[i + 1 if i + 1 < n else 0], x[i - 1 if i > 0 else n - 1]
            for j in range(1, m - 1):
                q[j] -= step * (r[j] * (two + four * r[j] * r[j]) - w * (u[j] + d[j] + r[j + 1] + r[j - 1]))
            for j in (0, m - 1):
                around = u[j] + d[j] + r[j + 1 if j + 1 < m else 0] + r[j - 1 if j > 0 else m - 1]
                q[j] -= step * (r[j] * (two + four * r[j] * r[j]) - w * around)
        for i in range(n):
            for j in range(m):
                x[i, j] += step * p[i, j]


@numba.njit(fastmath=True)
def graph_loop(w, a, b, neighbors, x, p, step, steps):
    """A plain loop over sites and their neighbor lists, an array of shape ``(sites, degree)``."""
    for _ in range(steps):
        for i in range(neighbors.shape[0]):
            around = np.float32(0)
            for k in range(neighbors.shape[1]):
                around += x[neighbors[i, k]]
            p[i] -= step * (x[i] * (2 * a + 4 * b * x[i] * x[i]) - w * around)
        for i in range(len(x)):
            x[i] += step * p[i]


def compiled_leapfrog(model, with_energy: bool):
    """``leapfrog(x, p, repeats)`` with the compiled force, or with the energy of every step as samplers ask for it."""
    both, float32_model = jax.value_and_grad(energy, argnums=1), jax.tree.map(jnp.float32, model)

    @jax.jit
    def run(model, x, p, step):
        def leap(_, state):
            x, p, latest = state
            value, force = both(model, x)
            p = p - step * force
            return x + step * p, p, value if with_energy else latest

        return jax.lax.fori_loop(0, STEPS, leap, (x, p, jnp.float32(0)))

    def leapfrog(x, p, repeats):
        for _ in range(repeats):
            result = run(float32_model, x, p, STEP_SIZE)
        return jax.block_until_ready(result)

    return leapfrog


def case(lattice) -> tuple[dict, int]:
    """Programs by name, each a function without arguments, and the number of site updates of one call."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=lattice.field_shape).astype(np.float32)
    p = rng.normal(size=lattice.field_shape).astype(np.float32)
    w, a, b = map(float, COUPLINGS)
    model = p4.phi4(lattice, w=w, a=a, b=b)
    repeats = max(1, SITES_A_TIMING // lattice.num_sites)
    if lattice.shape is None:
        neighbors = np.stack([lattice.neighbors(i) for i in range(lattice.num_sites)])
        loops = {"numba": lambda x, p, n: graph_loop(*COUPLINGS, neighbors, x, p, STEP_SIZE, n)}
    else:
        loops = {"numba": lambda x, p, n: square_loop(*COUPLINGS, x, p, STEP_SIZE, n)}
        loops["numba, peeled"] = lambda x, p, n: square_loop_peeled(*COUPLINGS, x, p, STEP_SIZE, n)
    ours = {name: compiled_leapfrog(model, name == PROGRAMS[3]) for name in PROGRAMS[2:]}
    _require_same_result(loops, ours, x, p)
    field = jnp.asarray(x), jnp.asarray(p)
    programs = {k: lambda f=f: f(x.copy(), p.copy(), STEPS * repeats) for k, f in loops.items()}
    programs |= {k: lambda f=f: f(*field, repeats) for k, f in ours.items()}
    return programs, STEPS * repeats * lattice.num_sites


def _require_same_result(loops, ours, x, p):
    """A benchmark of programs that compute different things says nothing."""
    ends = []
    for loop in loops.values():
        ends.append((x.copy(), p.copy()))
        loop(*ends[-1], STEPS)
    ends += [leapfrog(jnp.asarray(x), jnp.asarray(p), 1)[:2] for leapfrog in ours.values()]
    for end in ends[1:]:
        for one, other in zip(ends[0], end, strict=True):
            np.testing.assert_allclose(np.asarray(one), np.asarray(other), atol=1e-4)


def measure(programs: dict, updates: int, rounds: int) -> dict[str, np.ndarray]:
    """Nanoseconds a site of every program in every round."""
    times = {name: np.zeros(rounds) for name in programs}
    for program in programs.values():
        program()
    for k in range(rounds):
        for name, program in programs.items():
            start = time.perf_counter()
            program()
            times[name][k] = (time.perf_counter() - start) / updates * 1e9
    return times


def lattices() -> dict:
    found = {f"square, L = {n}": p4.lattice.square(n) for n in SIZES}
    for n in GRAPH_SIZES:
        found[f"4-regular graph of {n}"] = p4.lattice.from_networkx(nx.random_regular_graph(4, n, seed=0))
    return found


def _spread(values) -> str:
    low, middle, high = np.percentile(values, (25, 50, 75))
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"


def table(measured: dict[str, dict[str, np.ndarray]]) -> str:
    """Two tables in Markdown: nanoseconds a site and step; and ratios to the loops."""
    lines = [f"| ns per site and step | {' | '.join(PROGRAMS)} |", "|---" * 5 + "|"]
    for name, times in measured.items():
        lines.append(f"| {name} | " + " | ".join(_spread(times[k]) if k in times else "" for k in PROGRAMS) + " |")
    pairs = [(ours, loop) for ours in PROGRAMS[2:] for loop in PROGRAMS[:2]]
    lines += ["", f"| ratio | {' | '.join(f'{a} / {b}' for a, b in pairs)} |", "|---" * 5 + "|"]
    for name, times in measured.items():
        cells = [_spread(times[a] / times[b]) if b in times else "" for a, b in pairs]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    arguments = parser.parse_args()
    measured = {name: measure(*case(lattice), arguments.rounds) for name, lattice in lattices().items()}
    versions = f"jax {jax.__version__}, numba {numba.__version__}, Python {platform.python_version()}"
    text = f"{table(measured)}\nOne thread of {platform.machine()}, float32, {versions}, {arguments.rounds} rounds.\n"
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
