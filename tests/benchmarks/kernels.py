"""Effective samples a second of the kernels, as ratios within one run, on one core.

    python tests/benchmarks/kernels.py nuts wolff dynamics spectrum models dense [--out FOLDER]

Each part prints one table in Markdown: `nuts` against NumPyro's NUTS on an edge list, `wolff` against the C program beside this
file (needs a C compiler), `dynamics` autocorrelation times against the size of the lattice (with a picture), `spectrum` the
gradients that a power spectrum costs, `models` the automatic choice against NUTS on every shipped model, `dense` gradients for
an effective sample on dense graphs. Couplings are critical, w = 1, a = 1.52425, b = 0.175, unless said otherwise. Compilation
and warm-up are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":  # one core; must be said before JAX starts
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS

import phi4ppl as p4
from phi4ppl.analysis.gamma_method import gamma_method
from phi4ppl.cli.model_files import load_model_file, shipped_models
from phi4ppl.kernels.local_hmc import LocalSteps
from phi4ppl.sampling import get_kernel, target_of

HERE = Path(__file__).parent
CRITICAL = {"w": 1.0, "a": 1.52425, "b": 0.175}
ROUNDS = 3  # of every timing; tables give the median and the range


def effective_per_second(series, seconds) -> tuple[float, float]:
    """Effective samples a second and their relative error, of series of shape (chains, draws)."""
    gamma = gamma_method(np.asarray(series, float))
    return np.size(series) / (2 * gamma.tau_int) / seconds, gamma.tau_int_error / gamma.tau_int


def ours(model, kernel, num_samples, seed=0, num_warmup=500, num_chains=4) -> dict:
    """Effective samples a second of |m| and φ², with their relative errors, and τ_int."""
    keep = {"num_warmup": num_warmup, "num_chains": num_chains, "kernel": kernel, "keep_field": False}
    p4.sample(model, num_samples=20, **keep)  # compiles
    tree = p4.sample(model, num_samples=num_samples, seed=seed, **keep)
    settings = json.loads(tree.attrs["phi4ppl"])["settings"]
    seconds = settings["seconds"] - settings["seconds_warmup"]
    found = {"kernel": settings["kernel"], "seconds": seconds, "tree": tree}
    for name in ("abs_magnetization", "phi_squared"):
        series = tree["posterior"][name].values
        found[name] = effective_per_second(series, seconds)
        found["tau", name] = gamma_method(series.astype(float))
    return found


def numpyro_nuts(size, num_warmup, num_samples, form, seed=0) -> dict:
    """What a user without this library writes: S over a list of edges, in a NumPyro model or as a potential function."""
    edges = p4.lattice.square(size).edges

    def potential(phi):
        hopping = jnp.sum(phi[edges[:, 0]] * phi[edges[:, 1]])
        return -CRITICAL["w"] * hopping + CRITICAL["a"] * jnp.sum(phi**2) + CRITICAL["b"] * jnp.sum(phi**4)

    def model():
        phi = numpyro.sample("phi", dist.ImproperUniform(dist.constraints.real_vector, (), (size * size,)))
        numpyro.factor("S", -potential(phi))

    kernel = NUTS(model) if form == "model" else NUTS(potential_fn=potential)
    mcmc = MCMC(
        kernel, num_warmup=num_warmup, num_samples=num_samples, num_chains=4,
        chain_method="sequential", progress_bar=False,
    )  # fmt: skip
    start = 0.5 * jax.random.normal(jax.random.key(seed), (4, size * size))
    start = {"phi": start} if form == "model" else start
    mcmc.warmup(jax.random.key(seed), init_params=start, collect_warmup=False)
    mcmc.run(jax.random.key(seed + 1))  # compiles the sampling; continues from here
    mcmc.post_warmup_state = mcmc.last_state
    began = time.perf_counter()
    mcmc.run(jax.random.key(seed + 2))
    phi = jax.block_until_ready(mcmc.get_samples(group_by_chain=True))
    seconds = time.perf_counter() - began
    phi = phi["phi"] if form == "model" else phi
    return {
        "abs_magnetization": effective_per_second(np.abs(np.mean(phi, axis=-1)), seconds),
        "phi_squared": effective_per_second(np.mean(np.square(phi), axis=-1), seconds),
    }


def against_nuts() -> str:
    lines = [
        "| L | of | `auto`, a second | NumPyro NUTS as | a second | ratio |",
        "|--|--|--|--|--|--|",
    ]
    for size, draws, warmup, nuts_draws in ((32, 20_000, 1000, 8000), (64, 8000, 1000, 3000)):
        model = p4.phi4(p4.lattice.square(size), **CRITICAL)
        runs = [ours(model, "auto", draws, seed) for seed in range(ROUNDS)]
        for form in ("model", "potential_fn"):
            others = [numpyro_nuts(size, warmup, nuts_draws, form, seed) for seed in range(ROUNDS)]
            for name, words in (("abs_magnetization", "\\|m\\|"), ("phi_squared", "φ²")):
                mine, theirs = ([run[name][0] for run in some] for some in (runs, others))
                cell = f"{np.median(mine):.0f} ({min(mine):.0f}–{max(mine):.0f})"
                other = f"{np.median(theirs):.2g} ({min(theirs):.2g}–{max(theirs):.2g})"
                ratios = np.median(mine) / np.array(theirs)
                ratio = f"{np.median(ratios):.0f} ({min(ratios):.0f}–{max(ratios):.0f})"
                lines.append(f"| {size} | {words} | {cell} | `{form}` | {other} | {ratio} |")
    return "\n".join(lines)


def wolff(size, updates, clusters, sweeps) -> dict:
    """The C program, compiled here; one chain, which is all the same to effective samples a second."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "wolff"
        flags = ["-O3", "-march=native", "-ffast-math", "-o", str(program), str(HERE / "wolff.c"), "-lm"]
        subprocess.run(["cc", *flags], check=True)
        arguments = [size, updates, updates // 20, clusters, sweeps, 1]
        done = subprocess.run([program, *map(str, arguments)], check=True, capture_output=True, text=True)
    series, seconds = np.array(done.stdout.split(), float).reshape(-1, 2), float(done.stderr)
    names = ("abs_magnetization", "phi_squared")
    return {name: effective_per_second(series[None, :, k], seconds) for k, name in enumerate(names)}


def against_wolff() -> str:
    lines = [
        "| L | of | `auto`, a second | C program, a second | ratio |",
        "|--|--|--|--|--|",
    ]
    for size, draws, updates in ((32, 20_000, 100_000), (64, 8000, 40_000), (128, 4000, 12_000)):
        model = p4.phi4(p4.lattice.square(size), **CRITICAL)
        rounds = [(ours(model, "auto", draws, seed), wolff(size, updates, 1, 1)) for seed in range(ROUNDS)]
        for name, words in (("abs_magnetization", "\\|m\\|"), ("phi_squared", "φ²")):
            mine, other = ([pair[k][name][0] for pair in rounds] for k in (0, 1))
            ratio = np.array(mine) / np.array(other)
            cells = (f"{np.median(x):.0f} ({min(x):.0f}–{max(x):.0f})" for x in (mine, other))
            ratio = f"{np.median(ratio):.1f} ({min(ratio):.1f}–{max(ratio):.1f})"
            lines.append(f"| {size} | {words} | {' | '.join(cells)} | {ratio} |")
    return "\n".join(lines)


DYNAMICS = {  # draws for L = 16, 32, 64, 128; a kernel that is too slow for a size has none
    "cluster": (8000, 8000, 8000, 8000),
    "hmc_fourier": (3000, 2000, 800),
    "hmc": (3000, 2500, 1200),
    "local_hmc": (12000, 12000, 16000),
    "nuts": (2500, 1500),
}


def dynamics(out: Path) -> str:
    """τ_int of |m| in draws, and in gradients, with the exponent z of τ ∝ L^z fitted to all sizes of a kernel."""
    found = {}
    for kernel, lengths in DYNAMICS.items():
        for size, draws in zip((16, 32, 64, 128), lengths, strict=False):
            model = p4.phi4(p4.lattice.square(size), **CRITICAL)
            run = ours(model, kernel, draws, seed=3)
            tau = run["tau", "abs_magnetization"]
            steps = float(run["tree"]["sample_stats"]["n_steps"].mean())
            found.setdefault(kernel, []).append((size, tau.tau_int, tau.tau_int_error, steps, run["phi_squared"][0]))
            print(kernel, size, f"{tau.tau_int:.1f} ± {tau.tau_int_error:.1f}, {steps:.0f} gradients", file=sys.stderr)
    lines = ["| kernel | L = 16 | 32 | 64 | 128 | exponent z |", "|--|--|--|--|--|--|"]
    for kernel, rows in found.items():
        size, tau, error, *_ = np.array(rows).T
        design, weight = np.stack([np.ones_like(size), np.log(size)], axis=1), tau / error
        covariance = np.linalg.inv((design * weight[:, None] ** 2).T @ design)
        exponent = (covariance @ (design * weight[:, None] ** 2).T @ np.log(tau))[1]
        cells = [f"{t:.1f} ± {e:.1f}" for t, e in zip(tau, error, strict=True)] + ["–"] * (4 - len(tau))
        lines.append(f"| `{kernel}` | {' | '.join(cells)} | {exponent:.2f} ± {covariance[1, 1] ** 0.5:.2f} |")
    _picture(found, out / "kernels.png")
    return "\n".join(lines)


def _picture(found: dict, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained", sharex=True)
    for kernel, rows in found.items():
        size, tau, error, steps, _ = np.array(rows).T
        for ax, factor in zip(axes, (np.ones_like(steps), 2 * steps), strict=True):
            ax.errorbar(size, factor * tau, factor * error, marker="o", capsize=3, label=kernel)
    axes[0].set(ylabel="τ_int of |m| in draws", title="Autocorrelation")
    axes[1].set(ylabel="gradients for one effective sample of |m|", title="Cost")
    for ax in axes:
        ax.set(xscale="log", yscale="log", xlabel="L", xticks=(16, 32, 64, 128), xticklabels=("16", "32", "64", "128"))
        ax.minorticks_off()
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def gradients_for_spectrum(size, num_chains, reference_sweeps, threshold=0.01, most=200) -> tuple[int, float, float]:
    """Gradients until the squared error of ⟨|φ_k|²⟩, in units of its variance and averaged over modes, is below 0.01.

    w = 2, a = 0, b = 4.25 (1 + 4/L). Averaged over chains; each starts in equilibrium and is its own estimate. The truth is the
    mean over all chains of a long run. Returns gradients, the error there, and the seconds for one effective sample.
    """
    model = p4.phi4(p4.lattice.square(size), w=2.0, a=0.0, b=4.25 * (1 + 4 / size))
    target, kernel = target_of(p4.compile(model)), get_kernel("cluster")
    tree = p4.sample(model, kernel="cluster", num_warmup=400, num_samples=20, num_chains=2)
    step_size = jnp.full((size, size), tree["sample_stats"]["step_size"].values.mean(), jnp.float32)
    algorithm = kernel.build(target, LocalSteps(step_size))

    def power(phi):
        return jnp.abs(jnp.fft.fft2(phi, norm="ortho")) ** 2

    def sweep(states, key):
        states, info = jax.vmap(algorithm.step)(jax.random.split(key, num_chains), states)
        return states, info.n_steps

    @jax.jit
    def long_run(states, key):
        def body(carry, key):
            states, first, second = carry
            states, _ = sweep(states, key)
            spectrum = jax.vmap(power)(states.position)
            return (states, first + spectrum.mean(0), second + jnp.mean(spectrum**2, axis=0)), None

        zero = jnp.zeros((size, size))
        return jax.lax.scan(body, (states, zero, zero), jax.random.split(key, reference_sweeps))[0]

    @jax.jit
    def errors(states, key, mean, variance):
        def body(carry, key):
            states, total, number = carry
            states, steps = sweep(states, key)
            total = total + jax.vmap(power)(states.position)
            error = jnp.mean((total / (number + 1) - mean) ** 2 / variance)
            return (states, total, number + 1), (error, steps.mean())

        start = (states, jnp.zeros((num_chains, size, size)), 0)
        return jax.lax.scan(body, start, jax.random.split(key, most))[1]

    start = jnp.resize(jnp.asarray(tree["posterior"]["phi"].values[:, -1]), (num_chains, size, size))
    states = jax.vmap(algorithm.init)(start)
    states, *_ = long_run(states, jax.random.key(1))
    states, first, second = long_run(states, jax.random.key(2))
    mean = first / reference_sweeps
    error, steps = errors(states, jax.random.key(3), mean, second / reference_sweeps - mean**2)
    needed = int(np.argmax(np.asarray(error) < threshold)) + 1
    return needed * int(steps[0]), float(error[needed - 1]), needed


def spectrum() -> str:
    lines = ["| L | gradients | draws | squared error there | best exact entry of the comparison | NUTS there |"]
    lines.append("|--|--|--|--|--|--|")
    for size, chains, sweeps, best, nuts in ((64, 16, 1500, "4,900", "32,000"), (256, 4, 400, "7,400", "74,000")):
        gradients, error, draws = gradients_for_spectrum(size, chains, sweeps)
        lines.append(f"| {size} | {gradients} | {draws} | {error:.4f} | {best} | {nuts} |")
    return "\n".join(lines)


def _slowest(name: str, kernel: str, seed: int) -> tuple[float, str]:
    """Effective samples a second of the slowest scalar variable, and the kernel that ran."""
    model = load_model_file(name).model
    p4.sample(model, num_warmup=500, num_samples=20, kernel=kernel)  # compiles
    tree = p4.sample(model, num_warmup=500, num_samples=4000, kernel=kernel, seed=seed)
    settings = json.loads(tree.attrs["phi4ppl"])["settings"]
    smallest = p4.estimate(tree)["effective_sample_size"].min()
    return smallest / (settings["seconds"] - settings["seconds_warmup"]), settings["kernel"]


def models() -> str:
    """The smallest effective sample size a second over the scalar variables, `auto` against BlackJAX's NUTS."""
    lines = ["| model | `auto` takes | effective samples a second | `nuts` | ratio |", "|--|--|--|--|--|"]
    for name in sorted(shipped_models()):
        rates, chosen = {"auto": [], "nuts": []}, ""
        for seed in range(ROUNDS):
            for kernel in rates:
                rate, took = _slowest(name, kernel, seed)
                rates[kernel].append(rate)
                chosen = took if kernel == "auto" else chosen
        ratio = np.array(rates["auto"]) / np.array(rates["nuts"])
        cells = (f"{np.median(rates[k]):.0f}" for k in ("auto", "nuts"))
        lines.append(
            f"| {name} | `{chosen}` | {' | '.join(cells)} | {np.median(ratio):.1f} ({min(ratio):.1f}–{max(ratio):.1f}) |"
        )
    return "\n".join(lines)


def dense() -> str:
    """Gradients for an effective sample on graphs that sweeps are too slow for, and on lattices."""
    lattice = p4.lattice
    cases = {
        "complete, 24 sites": p4.phi4(lattice.complete(24), w=0.05, a=1.0, b=0.2),
        "complete, 64 sites": p4.phi4(lattice.complete(64), w=0.02, a=1.0, b=0.2),
        "square, L = 32, disordered": p4.phi4(lattice.square(32), w=1.0, a=1.8, b=0.175),
        "square, L = 16, critical": p4.phi4(lattice.square(16), **CRITICAL),
    }
    lines = ["| model | chains | of | `chees` | `hmc` | `nuts` |", "|--|--|--|--|--|--|"]
    for name, model in cases.items():
        for num_chains, draws in ((4, 3000), (32, 600)):
            runs = [ours(model, kernel, draws, 1, 600, num_chains) for kernel in ("chees", "hmc", "nuts")]
            for observable, words in (("abs_magnetization", "\\|m\\|"), ("phi_squared", "φ²")):
                cells = []
                for run in runs:
                    steps, tau = run["tree"]["sample_stats"]["n_steps"].values.mean(), run["tau", observable]
                    cells.append(f"{2 * steps * tau.tau_int:.3g} ± {2 * steps * tau.tau_int_error:.1g}")
                lines.append(f"| {name} | {num_chains} | {words} | {' | '.join(cells)} |")
    return "\n".join(lines)


PARTS = {
    "nuts": lambda out: against_nuts(), "wolff": lambda out: against_wolff(), "dynamics": dynamics,
    "spectrum": lambda out: spectrum(), "models": lambda out: models(),
    "dense": lambda out: dense(),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the tables and the picture")
    arguments = parser.parse_args()
    for part in arguments.parts:
        table = PARTS[part](arguments.out)
        print(f"\n## {part}\n\n{table}", flush=True)
        (arguments.out / f"{part}.md").write_text(table + "\n")


if __name__ == "__main__":
    main()
