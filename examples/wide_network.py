"""A wide network whose ensemble is the free lattice field: Wick's theorem at work.

Hidden units are waves of random momentum and phase. With momenta drawn from the
propagator 1/(m² + k̂²), the two-point function of the output over random weights is
that of the free field at every width; four-point functions need a large width.
"""

import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import phi4ppl as p4

draws = 2000 if os.environ.get("PHI4PPL_TINY") == "1" else 40_000
lattice = p4.lattice.square(6)
model = p4.gaussian(lattice, w=1.0, a=2.25)  # m² = 2a − 4 = 1/2
precision = np.asarray(p4.exact.gaussian_precision(model), float)
covariance = np.linalg.inv(precision)

wave = 2 * np.pi * np.arange(6) / 6
momenta = np.stack(np.meshgrid(wave, wave, indexing="ij"), axis=-1).reshape(-1, 2)
power = 1 / (0.5 + (4 * np.sin(momenta / 2) ** 2).sum(axis=1))
variance = power.mean()  # ⟨φ²⟩


def drawn(key, width):
    keys = jax.random.split(key, 3)
    chosen = jax.random.choice(
        keys[0], 36, (width,), p=jnp.asarray(power / power.sum())
    )
    phase = jax.random.uniform(keys[1], (width,), maxval=2 * np.pi)
    weights = jax.random.normal(keys[2], (width,))
    return {"k": jnp.asarray(momenta)[chosen], "phase": phase, "a": weights}


def apply(params, x):
    angle = x @ params["k"].T + params["phase"][None, :]
    waves = jnp.cos(angle) * (2 * variance / len(params["a"])) ** 0.5
    return {"field": waves @ params["a"]}


sites = np.stack(np.meshgrid(*2 * [np.arange(6.0)], indexing="ij"), -1).reshape(
    -1, 2
)
widths, kurtoses = (2, 4, 8, 16, 32, 64, 128), []
for width in widths:
    keys = jax.random.split(jax.random.key(width), draws)
    params = jax.vmap(lambda key, width=width: drawn(key, width))(keys)
    found = p4.lens.wick(apply, params, sites, over="params")["field"]
    value, error = found.average["kurtosis"]
    kurtoses.append((value, error))
    scaled = f"{width * value:6.2f} ± {width * error:.2f}"
    print(f"width {width:4}: width × kurtosis {scaled}; {found.verdict()}")

fields = np.asarray(jax.vmap(lambda own: apply(own, sites)["field"])(params), float)
pairs = (fields[:, :1] * fields).mean(axis=0)
spread = (fields[:, :1] * fields).std(axis=0) / draws**0.5
worst = np.abs((pairs - covariance[0]) / spread).max()
print(f"two-point function at width {width}: off by at most {worst:.1f} errors")

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
along = np.arange(4) * 6  # sites (r, 0)
left.errorbar(
    range(4), pairs[along], spread[along], fmt="o", label=f"width {width}"
)
left.plot(range(4), covariance[0][along], "-", label="free field, exact")
left.set(xlabel="distance r", ylabel="⟨φ(0) φ(r)⟩")
left.legend(frameon=False)
value, error = np.transpose(kurtoses)
right.errorbar(widths, value, error, fmt="o", label="excess kurtosis")
right.plot(widths, 1.5 / np.array(widths), "-", label="1.5/width")
right.set(xscale="log", xlabel="width")
right.legend(frameon=False)
figure.savefig("wide_network.png", dpi=150)
