"""Attention alone makes all tokens alike; skip connections keep them apart.

Random self-attention, eight layers of four heads, with and without skips.
"""

import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import phi4ppl as p4

tiny = os.environ.get("PHI4PPL_TINY") == "1"
inputs, layers, heads, tokens, width = 2 if tiny else 20, 8, 4, 32, 16


def run(key, skip):
    """Attention of each layer and head, and the tokens after each layer."""
    first, *keys = jax.random.split(key, layers + 1)
    state, attention, states = jax.random.normal(first, (tokens, width)), [], []
    for layer in keys:
        weights = jax.random.normal(layer, (3, heads, width, width)) / width**0.5
        q, k, v = jnp.einsum("td,phde->phte", state, weights)
        each = jax.nn.softmax(q @ jnp.swapaxes(k, 1, 2) / width**0.5, axis=-1)
        state = jnp.mean(each @ v, axis=0) + (state if skip else 0.0)
        attention.append(each)
        states.append(state)
    return jnp.stack(attention), jnp.stack(states)


keys = jax.random.split(jax.random.key(0), inputs)
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for skip, name in ((False, "no skips"), (True, "with skips")):
    attention, states = jax.jit(jax.vmap(lambda k, skip=skip: run(k, skip)))(keys)
    found = p4.spectral.attention_spectrum(attention, hidden=states)
    print(f"{name}: {found}")
    layer = np.arange(1, layers + 1)
    left.errorbar(
        layer, found.residuals, found.residual_errors, marker="o", ms=3, label=name
    )
    right.plot(layer, found.singular_values[:, 0, 0], marker="o", ms=3, label=name)
left.set(
    xlabel="layer",
    ylabel="distance from equal tokens",
    yscale="log",
    ylim=(1e-9, 2),
)
right.set(
    xlabel="layer", ylabel="largest singular value\nof A − 11ᵀ/T", yscale="log"
)
left.legend()
figure.savefig("attention_collapse.png", dpi=110)
