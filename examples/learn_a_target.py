"""Inhomogeneous φ⁴ learns the homogeneous critical theory, without data.

The bound 𝓕 = ⟨A − S⟩ + F falls by natural gradient in a step or two, because the
natural step is a regression of the target on the statistics. The covariance
gradient takes hundreds of epochs to get there.
"""

import os

import matplotlib.pyplot as plt
import numpy as np

import phi4ppl as p4

tiny = os.environ.get("PHI4PPL_TINY") == "1"
lattice = p4.lattice.square(2 if tiny else 8)
target = p4.phi4(lattice, w=1.0, a=1.52425, b=0.175)

rng = np.random.default_rng(0)
w, a = rng.uniform(-1, 1, lattice.num_edges), rng.uniform(-1, 1, lattice.num_sites)
start = p4.phi4(lattice, w=w, a=a, b=rng.uniform(0.1, 1, lattice.num_sites))


def furthest(history):
    """The largest distance of a coupling from the target's, after every step."""
    exact = np.concatenate(
        [np.full(len(w), 1.0), np.full(len(a), 1.52425), np.full(len(a), 0.175)]
    )
    return np.abs(history["couplings"].values - exact).max(axis=1)


fits = {}
for method, steps in (("natural", 20), ("gradient", 40 if tiny else 3000)):
    normalizer = "auto" if method == "natural" else None
    fits[method] = p4.fit_variational(
        start,
        target,
        method=method,
        num_steps=steps,
        log_partition_method=normalizer,
    )
    print(f"{method}: {fits[method]}\n")
fit = fits["natural"]
print(
    f"bound {fit.bound:.3f} ± {fit.bound_error:.3f}, "
    f"divergence {fit.kl_divergence:.1e}"
)

figure, ax = plt.subplots(figsize=(6.4, 4), layout="constrained")
for method, result in fits.items():
    values = furthest(result.history)
    ax.loglog(
        np.arange(1, len(values) + 1),
        values,
        marker="o" if method == "natural" else None,
        label=method,
    )
ax.axhline(1e-3, color="0.7", lw=0.8)
ax.set_xlabel("epoch")
ax.set_ylabel("largest error of a coupling")
ax.set_title(
    f"{fit.history['couplings'].sizes['coupling']} couplings "
    "from random starts to the target",
    fontsize=10,
)
ax.legend()
figure.savefig("learn_a_target.png", dpi=120)
