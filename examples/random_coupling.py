"""A random coupling needs log Z.

The library refuses without it, and is exact with it. Data: forty Gaussian fields
drawn with w = 0.8. The posterior of w from MCMC is compared with quadrature, and
with the wrong posterior that leaving out 1/Z(w) would give.
"""

import os

import jax
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist

import phi4ppl as p4

draws = 150 if os.environ.get("PHI4PPL_TINY") == "1" else 1000
lattice, copies = p4.lattice.square(4), 40
data = p4.GibbsField(p4.gaussian(lattice, w=0.8, a=2.5)).sample(
    jax.random.key(0), (copies,)
)


def model(log_z_known):
    w = numpyro.sample("w", dist.Uniform(0.0, 1.2))
    field = p4.gaussian(lattice, w=w, a=2.5)
    log_z = (
        (
            lambda couplings: p4.exact.gaussian_log_partition(
                field.replace(**couplings)
            )
        )
        if log_z_known
        else None
    )
    with numpyro.plate("copies", copies):
        numpyro.sample("phi", p4.GibbsField(field, log_partition=log_z), obs=data)


try:
    p4.sample(model, False)
except p4.errors.DoublyIntractableError as error:
    print(f"refused: {error}\n")

tree = p4.sample(model, True, num_warmup=500, num_samples=draws, seed=4)
w = p4.estimate(tree, "w").loc["w"]

grid = np.linspace(0, 1.2, 2401)
adjacency = np.eye(16) * 5 - np.asarray(
    p4.exact.gaussian_precision(p4.gaussian(lattice, w=1.0, a=2.5)), float
)
log_det = np.log(5 - np.outer(grid, np.linalg.eigvalsh(adjacency))).sum(axis=1)
pairs = -float(
    p4.gaussian(lattice, w=1.0, a=2.5).statistics(data)["w"].sum()
)  # Σ φ_i φ_j over edges and copies


def normalized(log_density):
    density = np.exp(log_density - log_density.max())
    return density / (density.sum() * (grid[1] - grid[0]))


right, wrong = (
    normalized(grid * pairs + copies * log_det / 2),
    normalized(grid * pairs),
)
mean_right, mean_wrong = (
    (grid * p).sum() * (grid[1] - grid[0]) for p in (right, wrong)
)
print(
    f"⟨w | data⟩: {w['mean']:.4f} ± {w['error']:.4f} (Monte Carlo) sampled, "
    f"posterior sd {w['sd']:.4f}"
)
print(f"            {mean_right:.4f} exact, {mean_wrong:.4f} without 1/Z")

figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
ax.hist(
    tree["posterior"]["w"].values.ravel(),
    bins=40,
    density=True,
    color="0.8",
    label="sampled",
)
ax.plot(grid, right, label="exact posterior")
ax.plot(grid, wrong, "--", label="without 1/Z(w): wrong")
ax.set(
    xlabel="coupling w (the data were drawn at w = 0.8)",
    ylabel="density",
    ylim=(0, 1.6 * right.max()),
    xlim=(0.2, 1.2),
)
ax.legend(loc="upper left")
figure.savefig("random_coupling.png", dpi=120)
