"""One estimator for three steps: correct, extrapolate, continue.

A nearest-neighbor φ⁴ field learns the action A₄ = A − g' Σ φφ over diagonal
neighbors at g' = 1. Its samples are then reweighted to other g', and to
A₄ + i g₅ Σ φ² with g₅ = 0.15, which cannot be sampled.
"""

import os

import jax.numpy as jnp
import numpy as np

import phi4ppl as p4

tiny = os.environ.get("PHI4PPL_TINY") == "1"
lattice = p4.lattice.square(4, diagonals=True)
target = p4.phi4(lattice, w={"nn": 1.0, "diagonal": 1.0}, a=1.52425, b=0.175)
family = p4.phi4(lattice, w={"nn": 1.0}, a=1.5, b=0.175)

fit = p4.fit_variational(
    family,
    target,
    fields_per_step=4000 if tiny else 16_000,
    num_fields=16_000 if tiny else 200_000,
    log_partition_method=None,
)
print(fit)  # the mass comes out negative

observables = {
    "magnetization²": lambda phi: jnp.mean(phi) ** 2,
    "phi2": lambda phi: jnp.mean(phi**2),
}
print(
    p4.reweight(fit.samples, fit.model, target, observables)
)  # first step: at the target itself

grid = np.linspace(0.8, 1.2, 9 if tiny else 17)
real = p4.scan_reweighting(
    fit.samples, fit.model, lambda g: target.replace(w_diagonal=g), grid
)
turned = p4.scan_reweighting(
    fit.samples,
    fit.model,
    lambda g: (
        lambda phi: (
            target.replace(w_diagonal=g).energy(phi) + 0.15j * (phi**2).sum()
        )
    ),
    grid,
)
print(f"g₅ = 0:    {real}\ng₅ = 0.15: {turned}")

curves = {
    "g₅ = 0": real.estimate(observables, outside="warn"),
    "g₅ = 0.15": turned.estimate(observables, outside="warn"),
}
figure = p4.plot_scans(curves, "phi2", coupling="g'")
figure.savefig("reweight_to_complex.png", dpi=120)
