"""Is a posterior of couplings right? Calibrate it, with log Z and without.

Couplings w are drawn from their prior and fields are simulated at each. The rank
of the true w among draws of the posterior is uniform if the posterior is right
(S. Talts et al., arXiv:1804.06788). Dropping log Z(w), the classic mistake, fails.
"""

import os

import jax
import matplotlib.pyplot as plt
import numpy as np

import phi4ppl as p4

repeats, num_fields, num_draws = (
    (20 if os.environ.get("PHI4PPL_TINY") == "1" else 300),
    20,
    99,
)
ring = p4.phi4(p4.lattice.chain(8), w=0.8, a=1.4, b=0.2)
surface = p4.PartitionSurface(ring, {"w": (0.4, 1.1)})
grid = np.linspace(0.4, 1.1, 141)
log_z = np.asarray(jax.vmap(lambda w: surface.log_partition({"w": w}))(grid))
rng = np.random.default_rng(0)


def rank(w, statistic, log_z):
    """Ranks of ``w`` among draws of the posterior under a uniform prior.

    They come from its distribution function on the grid.
    """
    log_p = -statistic * grid - num_fields * log_z
    density = np.exp(log_p - log_p.max())
    cumulative = np.cumsum(density)
    draws = np.interp(rng.random(num_draws), cumulative / cumulative[-1], grid)
    return np.sum(draws < w)


ranks = {"with log Z from a PartitionSurface": [], "without log Z": []}
for repeat in range(repeats):
    w = rng.uniform(0.4, 1.1)
    run = p4.sample(
        ring.replace(w=w),
        num_warmup=100,
        num_samples=10,
        num_chains=num_fields,
        seed=repeat,
        progress=False,
    )
    fields = run["posterior"]["phi"].values[
        :, -1
    ]  # one field a chain: they are independent
    statistic = float(np.sum(ring.statistics(fields)["w"]))
    for name, normalizer in zip(ranks, (log_z, np.zeros_like(grid)), strict=True):
        ranks[name].append(rank(w, statistic, normalizer))

figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
low, high = np.array([-2, 2]) * np.sqrt(0.09 * repeats) + repeats / 10
for ax, (name, values) in zip(axes, ranks.items(), strict=True):
    counts = np.bincount(np.asarray(values) // 10, minlength=10)
    chi2 = np.sum((counts - repeats / 10) ** 2) / (repeats / 10)
    print(f"{name}: χ² = {chi2:.1f} for 9 degrees of freedom")
    ax.bar(
        10 * np.arange(10) + 5,
        counts,
        width=9,
        color="C0" if "with " in name else "C3",
    )
    ax.axhspan(low, high, color="0.8", zorder=0)
    ax.set_title(f"{name} (χ²/9 = {chi2 / 9:.1f})", fontsize=10)
    ax.set_xlabel("rank of the true w among 99 draws")
axes[0].set_ylabel("repeats")
figure.savefig("calibrated_couplings.png", dpi=120)
