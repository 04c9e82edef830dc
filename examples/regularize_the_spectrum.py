"""A network of few features, or of many: one term in the loss moves the spectrum.

The participation ratio tr(K)²/tr(K²) of the hidden features is made larger.
"""

import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import phi4ppl as p4

steps = 20 if os.environ.get("PHI4PPL_TINY") == "1" else 2000
width, points = 32, 100
x = jax.random.normal(jax.random.key(0), (points, 8))
y = jnp.sin(2 * x[:, 0]) + 0.3 * x[:, 1]


def hidden(params, x):
    return jnp.tanh(x @ params["w"] + params["b"][None, :])


def features_in_use(features):
    """The participation ratio of K = F Fᵀ, which is that of the smaller Fᵀ F."""
    return p4.spectral.participation_ratio(features.T @ features)


def loss(params, strength):
    features = hidden(params, x)
    fit = jnp.mean((features @ params["v"] - y) ** 2)
    return fit - strength * jnp.log(features_in_use(features)), fit


def trained(strength):
    one, two = jax.random.split(jax.random.key(1))
    params = {
        "w": 0.3 * jax.random.normal(one, (8, width)),
        "b": jnp.zeros(width),
        "v": jax.random.normal(two, (width,)) / width**0.5,
    }
    optimizer = optax.adam(0.01)

    def step(carry, _):
        params, state = carry
        slope, fit = jax.grad(loss, has_aux=True)(params, strength)
        moves, state = optimizer.update(slope, state)
        return (optax.apply_updates(params, moves), state), fit

    start = params, optimizer.init(params)
    (params, _), fits = jax.jit(lambda s: jax.lax.scan(step, s, length=steps))(
        start
    )
    return params, float(fits[-1])


figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
for strength, mark in ((0.0, "o"), (0.1, "s")):
    params, fit = trained(strength)
    features = hidden(params, x)
    kernel = p4.spectral.kernel_from_features(features)
    values = np.linalg.eigvalsh(kernel)[::-1][:width]
    ratio = float(features_in_use(features))
    print(f"strength {strength}: participation ratio {ratio:.2f}, fit {fit:.4f}")
    axes.plot(
        np.arange(1, width + 1), values / values.sum(), mark, ms=3,
        label=f"strength {strength}: participation ratio {ratio:.1f}",
    )  # fmt: skip
axes.set(xlabel="rank", ylabel="eigenvalue / trace", xscale="log", yscale="log")
axes.legend()
figure.savefig("regularize_the_spectrum.png", dpi=110)
