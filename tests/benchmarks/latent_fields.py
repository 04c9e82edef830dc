"""Worst effective samples a second of fields under counts, as ratios within one run, on one core.

    python tests/benchmarks/latent_fields.py square:32 map:3000 square:64 [--rounds 3] [--draws 500] [--slow-draws 200]

A Gaussian field (w = 1, mass² 0.01) times a scale, plus an intercept, under Poisson counts: on a periodic square lattice, or
on the Delaunay graph of random points. Compared are `auto`, `nuts` (which `auto` was before it looked at the curvature),
NumPyro's NUTS with the scale inside the field (centered) and on the field whitened by its Cholesky factor, and nutpie on the
density that `nuts` samples, if it is installed. The smallest bulk effective sample size of intercept, scale and field counts,
and the processor time of the draws alone; compilation, the search for the mode and warm-up are reported apart. Methods whose
trees are deep make fewer draws, of which all that count is the rate.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

if __name__ == "__main__":  # one core; must be said before JAX starts
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import arviz_stats
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import scipy.spatial
import xarray as xr
from jax.flatten_util import ravel_pytree
from numpyro.infer import MCMC, NUTS

import phi4ppl as p4

CHAINS = 4


def graph(name: str):
    kind, _, size = name.partition(":")
    if kind == "square":
        return p4.lattice.square(int(size))
    import networkx

    points = np.random.default_rng(0).uniform(size=(int(size), 2))
    triangles = scipy.spatial.Delaunay(points).simplices
    pairs = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [0, 2]]])
    return p4.lattice.from_networkx(networkx.Graph(np.unique(np.sort(pairs, axis=1), axis=0).tolist()))


def parts(lattice):
    """The model as this library writes it, centered and whitened for NumPyro, and its counts."""
    field = p4.gaussian(lattice, w=1.0, a=(np.asarray(lattice.degree) + 0.01) / 2)
    shape, size = field.field_shape, lattice.num_sites
    upper = np.linalg.cholesky(np.asarray(p4.exact.gaussian_precision(field), float)).T
    root = np.linalg.inv(upper)
    random = np.random.default_rng(1)
    y = random.poisson(np.exp(0.5 + 0.7 * root @ random.normal(size=size))).reshape(shape)
    root = jnp.asarray(root, jnp.float32)

    def level_and_scale():
        return numpyro.sample("level", dist.Normal(0, 2)), numpyro.sample("scale", dist.HalfNormal(1))

    def ours():
        level, scale = level_and_scale()
        phi = numpyro.sample("phi", p4.GibbsField(field))
        numpyro.sample("y", dist.Poisson(jnp.exp(level + scale * phi)), obs=y)

    def centered():
        level, scale = level_and_scale()
        phi = numpyro.sample("phi", dist.ImproperUniform(dist.constraints.real, (), shape))
        numpyro.factor("field", -field.energy(phi / scale) - size * jnp.log(scale))
        numpyro.sample("y", dist.Poisson(jnp.exp(level + phi)), obs=y)

    def whitened():
        level, scale = level_and_scale()
        white = numpyro.sample("white", dist.Normal(0, 1).expand([size]).to_event(1))
        phi = numpyro.deterministic("phi", (root @ white).reshape(shape))
        numpyro.sample("y", dist.Poisson(jnp.exp(level + scale * phi)), obs=y)

    return ours, centered, whitened


def worst(draws: dict) -> float:
    """The smallest bulk effective sample size."""
    flat = {
        name: (("chain", "draw", name + "_axis"), np.reshape(v, (*np.shape(v)[:2], -1))) for name, v in draws.items()
    }
    found = arviz_stats.ess(xr.Dataset({n: v for n, v in flat.items() if n in ("level", "scale", "phi")}))
    return min(float(v.min()) for v in found.data_vars.values())


def of_library(model, kernel, draws, seed):
    began, clock = time.process_time(), time.perf_counter()
    tree = p4.sample(
        model, kernel=kernel, num_warmup=draws, num_samples=draws, num_chains=CHAINS, seed=seed, progress=False
    )
    whole, facts = time.process_time() - began, p4.settings(tree)
    share = whole / (time.perf_counter() - clock)  # of the core
    seconds = share * (facts["seconds"] - facts["seconds_warmup"])
    found = {name: tree["posterior"][name].values for name in ("level", "scale", "phi")}
    return found, seconds, whole - seconds, float(tree["sample_stats"]["n_steps"].sum())


def of_numpyro(model, draws, seed):
    began = time.process_time()
    mcmc = MCMC(
        NUTS(model),
        num_warmup=draws,
        num_samples=draws,
        num_chains=CHAINS,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.warmup(jax.random.key(seed), extra_fields=("num_steps",))
    mcmc.run(jax.random.key(seed + 1), extra_fields=("num_steps",))  # compiles
    before = time.process_time()
    mcmc.run(jax.random.key(seed + 2), extra_fields=("num_steps",))
    jax.block_until_ready(mcmc.get_samples())
    seconds = time.process_time() - before
    return (
        mcmc.get_samples(group_by_chain=True),
        seconds,
        before - began,
        float(mcmc.get_extra_fields()["num_steps"].sum()),
    )


def of_nutpie(model, draws, seed, low_rank):
    import nutpie
    from nutpie.compiled_pyfunc import from_pyfunc

    compiled = p4.compile(model)
    start, unravel = ravel_pytree(compiled.initial_position(jax.random.key(seed)))
    both = jax.jit(jax.value_and_grad(lambda x: compiled.logdensity_fn(unravel(x))))

    def density(x):
        value, slope = both(jnp.asarray(x, start.dtype))
        return float(value), np.asarray(slope, np.float64)

    def expand(seed1, seed2, chain):
        return lambda x: {"x": np.asarray(x, np.float64)}

    density(np.asarray(start))
    wrapped = from_pyfunc(
        start.size, lambda: density, expand, [np.dtype("float64")], [(start.size,)], ["x"],
        make_initial_point_fn=lambda _: np.asarray(start, np.float64),
    )  # fmt: skip
    began = time.process_time()
    trace = nutpie.sample(
        wrapped, draws=draws, tune=draws, chains=CHAINS, cores=1, seed=seed, progress_bar=False,
        low_rank_modified_mass_matrix=low_rank,
    )  # fmt: skip
    whole = time.process_time() - began
    steps, warm = (float(np.asarray(g["n_steps"]).sum()) for g in (trace.sample_stats, trace.warmup_sample_stats))
    seconds = whole * steps / (steps + warm)  # every gradient takes the same time
    values = jax.vmap(jax.vmap(lambda x: compiled.constrain(unravel(x))))(
        jnp.asarray(trace.posterior["x"].values, start.dtype)
    )
    return {name: np.asarray(v) for name, v in values.items()}, seconds, whole - seconds, steps


def methods(lattice) -> dict:
    ours, centered, whitened = parts(lattice)
    found = {
        "auto": lambda draws, seed: of_library(ours, "auto", draws, seed),
        "nuts": lambda draws, seed: of_library(ours, "nuts", draws, seed),
        "NumPyro NUTS, centered": lambda draws, seed: of_numpyro(centered, draws, seed),
        "NumPyro NUTS, whitened": lambda draws, seed: of_numpyro(whitened, draws, seed),
    }
    try:
        import nutpie  # noqa: F401
    except ImportError:
        return found
    return found | {
        "nutpie": lambda draws, seed: of_nutpie(ours, draws, seed, False),
        "nutpie, low rank": lambda draws, seed: of_nutpie(ours, draws, seed, True),
    }


def spread(values) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g}–{max(values):.3g})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("graphs", nargs="+", help="square:SIDE or map:AREAS")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--slow-draws", type=int, default=200, help="of nuts, NumPyro and nutpie")
    parser.add_argument("--methods", default="", help="names to take, separated by semicolons")
    options = parser.parse_args()
    jax.config.update("jax_numpy_rank_promotion", "allow")
    for name in options.graphs:
        rates, table = {}, {}
        chosen = {
            k: v for k, v in methods(graph(name)).items() if not options.methods or k in options.methods.split(";")
        }
        for seed in range(options.rounds):
            for method, run in chosen.items():
                number = options.draws if method == "auto" else options.slow_draws
                draws, seconds, before, steps = run(number, seed)
                effective = worst(draws)
                rates.setdefault(method, []).append(effective / seconds)
                table.setdefault(method, []).append((effective, steps / effective, before))
                print(
                    name,
                    method,
                    seed,
                    f"{effective:.0f} {seconds:.2f} s {steps / effective:.0f} {before:.1f} s",
                    flush=True,
                )
        head = (name, "worst ESS", "a second", "gradients for one", "s before the draws", "`auto` is faster by")
        print(f"\n| {' | '.join(head)} |\n{'|--' * len(head)}|")
        for method, rows in table.items():
            columns = [spread(column) for column in zip(*rows, strict=True)]
            ratio = spread([a / b for a, b in zip(rates["auto"], rates[method], strict=True)])
            print(f"| {method} | {columns[0]} | {spread(rates[method])} | {columns[1]} | {columns[2]} | {ratio} |")


if __name__ == "__main__":
    main()
