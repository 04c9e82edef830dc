"""Fields that move, as ratios within one run, on one core: against force evaluations, sweeps, py-pde and diffrax.

    python tests/benchmarks/moving_fields.py [flow langevin allen_cahn sde] [--rounds 5]

`flow`: a step of `GradientFlow` on 256² in evaluations of the force. `langevin`: steps of `Langevin` on 512² against sweeps of
the kernel ``local_hmc``, by site. `allen_cahn`: the classical Runge–Kutta method on 256² against py-pde with numba and with
JAX, at the same step size. `sde`: Euler–Maruyama steps of φ⁴ on 64² against diffrax. Programs that are compared take turns;
figures are medians with the range of the rounds, in processor time. Compilation is not counted. Needs numba, py-pde, diffrax.
"""

from __future__ import annotations

import argparse
import os
import time

if __name__ == "__main__":  # one core; must be said before JAX starts
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"
    os.environ["NUMBA_NUM_THREADS"] = "1"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import jax
import jax.numpy as jnp
import numpy as np

import phi4ppl as p4
from phi4ppl.dynamics import Drift, GradientFlow, Langevin, evolve, laplacian
from phi4ppl.energy.functions import energy

CRITICAL = {"w": 1.0, "a": 1.52425, "b": 0.175}


def random_field(size: int, width: float = 0.1) -> np.ndarray:
    return width * np.random.default_rng(0).normal(size=(size, size))


def force(model, phi):
    """∂S/∂φ, the one that all processes use."""
    return jax.grad(lambda p: energy(model, p))(phi)


def per_unit(function, units: float) -> float:
    """Processor seconds by unit of one call, whose program is compiled already."""
    began = time.process_time()
    function()
    return (time.process_time() - began) / units


def in_turn(programs: dict, rounds: int) -> dict[str, np.ndarray]:
    """Processor seconds by unit, one a round, of programs ``(function, units)`` by name that take turns."""
    for function, _ in programs.values():
        function()  # compiles
    found = {name: [] for name in programs}
    for _ in range(rounds):
        for name, (function, units) in programs.items():
            found[name].append(per_unit(function, units))
    return {name: np.array(values) for name, values in found.items()}


def shown(values) -> str:
    return f"{np.median(values):.3g} ({np.min(values):.3g}–{np.max(values):.3g})"


def moving(process, start, **settings):
    """`evolve` without a line of progress and without fields, until all is done."""
    return evolve(process, start, keep_field=False, progress=False, **settings)


def flow(rounds: int, size: int = 256) -> list[str]:
    """A step of the gradient flow in evaluations of the force."""
    model = p4.phi4(p4.lattice.square(size), w=1.0, a=1.5, b=0.25)
    start, process = random_field(size), GradientFlow(model)
    settings = {"time": 40.0, "every": 20.0}
    number = int(moving(process, start, **settings)["evolution"]["evaluations"].values[0, -1])

    @jax.jit
    def forces(model, phi):
        # as in a fused loop of steps: the next one is at another field
        return jax.lax.fori_loop(0, number, lambda _, x: x - 1e-9 * force(model, x), phi)

    field = jnp.asarray(start, jnp.float32)
    seconds = in_turn(
        {
            "step": (lambda: moving(process, start, **settings), number / 3),
            "force": (lambda: forces(model, field).block_until_ready(), number),
        },
        rounds,
    )
    return [
        f"| `GradientFlow`, a step with its 3 forces, in bare forces | {shown(seconds['step'] / seconds['force'])} | 3 |"
    ]


def langevin(rounds: int, size: int = 512, steps: int = 64) -> list[str]:
    """Langevin steps against sweeps of single sites, which take a few leapfrog steps each."""
    from phi4ppl.kernels.local_hmc import LocalSteps
    from phi4ppl.sampling.engine import Engine

    model = p4.phi4(p4.lattice.square(size), **CRITICAL)
    start, programs = random_field(size, 1.0), {}
    engine = Engine(model, kernel="local_hmc", num_chains=1, key=jax.random.key(0), start=start[None], keep_field=False)
    engine.use(LocalSteps(jnp.asarray(0.5)))
    programs["sweep"] = (lambda: engine.draw(model, 1, steps, burn_in=False), steps)
    for step in ("euler", "exponential", "mala"):
        process = Langevin(model, step)
        programs[step] = (
            lambda p=process: moving(p, start, time=0.05 * steps, step_size=0.05, every=0.05 * steps),
            steps,
        )
    seconds = in_turn(programs, rounds)
    return [
        f"| `Langevin`, {step}, in sweeps of `local_hmc` | {shown(seconds[step] / seconds['sweep'])} | at most 2 |"
        for step in programs
        if step != "sweep"
    ]


def allen_cahn(rounds: int, size: int = 256, steps: int = 1500, step_size: float = 0.1) -> list[str]:
    """u_t = Δu + u − u³ by the classical Runge–Kutta method, in three programs that agree."""
    import pde
    from pde.solvers import RungeKuttaSolver

    start, square = random_field(size), p4.lattice.square(size)
    minus = laplacian(square)
    process = Drift(square, lambda u, t: u - u**3 - minus(u))
    end = steps * step_size
    settings = {"time": end, "step_size": step_size, "every": end}
    programs = {"ours": (lambda: moving(process, start, **settings), steps)}
    final = {"ours": evolve(process, start, progress=False, **settings)["evolution"]["phi"].values[0, -1]}
    grid = pde.CartesianGrid([[0, size]] * 2, size, periodic=True)
    for backend in ("numba", "jax"):
        state = pde.ScalarField(grid, start)
        stepper = RungeKuttaSolver(pde.AllenCahnPDE(), backend=backend).make_stepper(state, dt=step_size)

        def run(stepper=stepper, state=state):
            moved = state.copy()
            stepper(moved, 0.0, end)
            return moved.data

        programs[backend] = (run, steps)
        final[backend] = np.asarray(run())
    for backend in ("numba", "jax"):
        apart = np.abs(final[backend] - final["ours"]).max()
        assert apart < 1e-3, f"{backend}: fields differ by {apart}"
    seconds = in_turn(programs, rounds)
    return [
        f"| py-pde with {backend}, in steps of `Drift` | {shown(seconds[backend] / seconds['ours'])} | at least 5 |"
        for backend in ("numba", "jax")
    ]


def sde(rounds: int, size: int = 64, steps: int = 5000, step_size: float = 0.01) -> list[str]:
    """Euler–Maruyama steps of Langevin dynamics; diffrax with both of its Brownian motions."""
    import diffrax
    import lineax

    model = p4.phi4(p4.lattice.square(size), **CRITICAL)
    start, end = random_field(size, 1.0), steps * step_size
    field = jnp.asarray(start.reshape(-1), jnp.float32)
    settings = {"time": end, "step_size": step_size, "every": end}
    programs = {"ours": (lambda: moving(Langevin(model), start, **settings), steps)}
    shape = jax.ShapeDtypeStruct(field.shape, field.dtype)
    motions = {
        "VirtualBrownianTree": lambda key: diffrax.VirtualBrownianTree(
            0.0, end, tol=step_size / 2, shape=shape, key=key
        ),
        "UnsafeBrownianPath": lambda key: diffrax.UnsafeBrownianPath(shape=shape, key=key),
    }
    for name, motion in motions.items():

        @jax.jit
        def solve(phi, key, motion=motion):
            strength = lineax.DiagonalLinearOperator(jnp.full(phi.shape, np.sqrt(2.0), phi.dtype))
            noise = diffrax.ControlTerm(lambda t, y, a: strength, motion(key))
            drift = diffrax.ODETerm(lambda t, y, a: -force(model, y.reshape(size, size)).reshape(-1))
            terms = diffrax.MultiTerm(drift, noise)
            found = diffrax.diffeqsolve(
                terms, diffrax.Euler(), 0.0, end, step_size, phi, max_steps=steps + 2,
                adjoint=diffrax.DirectAdjoint() if name == "UnsafeBrownianPath" else diffrax.RecursiveCheckpointAdjoint(),  # noqa: B023
            )  # fmt: skip
            return found.ys[-1]

        programs[name] = (lambda solve=solve: solve(field, jax.random.key(1)).block_until_ready(), steps)
    seconds = in_turn(programs, rounds)
    return [
        f"| diffrax with {name}, in steps of `Langevin` | {shown(seconds[name] / seconds['ours'])} | at least 20 |"
        for name in motions
    ]


PARTS = {"flow": flow, "langevin": langevin, "allen_cahn": allen_cahn, "sde": sde}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print("| what | ratio | asked for |\n|---|---|---|", flush=True)
    for part in arguments.parts or PARTS:
        print("\n".join(PARTS[part](arguments.rounds)), flush=True)


if __name__ == "__main__":
    main()
