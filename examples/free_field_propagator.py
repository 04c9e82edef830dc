"""The two-point function of the Gaussian free field.

Samples are compared with the inverse of the precision matrix.
"""

import os

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import phi4ppl as p4

draws = 200 if os.environ.get("PHI4PPL_TINY") == "1" else 2000
size = 16
model = p4.gaussian(p4.lattice.square(size), w=1.0, a=2.2)


def propagator(phi):
    """G(x) = ⟨φ(s) φ(s + x)⟩ along both axes, averaged over all sites s."""
    shifts = range(size // 2 + 1)
    return jnp.stack(
        [
            jnp.mean(
                phi * (jnp.roll(phi, x, axis=0) + jnp.roll(phi, x, axis=1)) / 2
            )
            for x in shifts
        ]
    )


tree = p4.sample(
    model,
    num_warmup=500,
    num_samples=draws,
    observables={"propagator": propagator},
    keep_field=False,
    seed=6,
)
table = p4.estimate(tree, "propagator")
covariance = np.linalg.inv(np.asarray(p4.exact.gaussian_precision(model), float))
exact = covariance[0].reshape(size, size)[0, : size // 2 + 1]

print("distance  sampled           exact     deviation in errors")
for x, (mean, error) in enumerate(zip(table["mean"], table["error"], strict=True)):
    print(
        f"{x:>8}  {mean:.5f} ± {error:.5f}  {exact[x]:.5f}  "
        f"{(mean - exact[x]) / error:+.1f}"
    )
print(
    "The rows are averages over the same draws, so their deviations are strongly "
    "correlated."
)

figure, (ax, below) = plt.subplots(
    2,
    1,
    figsize=(5.5, 4.8),
    sharex=True,
    height_ratios=(3, 1),
    layout="constrained",
)
x = np.arange(size // 2 + 1)
ax.semilogy(x, exact, color="0.5", label="exact: inverse of the precision matrix")
ax.errorbar(
    x, table["mean"], table["error"], fmt="o", ms=4, capsize=3, label="sampled"
)
ax.set_ylabel("G(x) = ⟨φ₀ φₓ⟩")
ax.legend()
below.axhline(0, color="0.5")
below.errorbar(
    x, (table["mean"] - exact) / table["error"], 1, fmt="o", ms=4, capsize=3
)
below.set(xlabel="distance x", ylabel="deviation\nin errors", ylim=(-3, 3))
figure.savefig("free_field_propagator.png", dpi=120)
