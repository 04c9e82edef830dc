"""A classifier of digits fails on another scanner: where, and what mends it.

Two convolutional networks, with and without instance normalization, learn digits
of one scanner. They are tested on another one, of less contrast and more light.
"""

import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

import phi4ppl as p4

tiny = os.environ.get("PHI4PPL_TINY") == "1"
steps, seeds = (20, 2) if tiny else (400, 10)
images, labels = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8, 1).astype(np.float32) / 16


def other_scanner(x):
    return 0.5 * x + 0.4


def first_params(key):
    keys = jax.random.split(key, 3)
    shapes = (3, 3, 1, 8), (3, 3, 8, 16), (256, 10)
    return [
        jax.random.normal(k, s) * (2 / np.prod(s[:-1])) ** 0.5
        for k, s in zip(keys, shapes, strict=True)
    ]


def convolved(x, weights):
    form = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, weights, (1, 1), "VALID", None, None, form
    )


def normalized(x):
    """Every channel of every image has mean 0 and variance 1."""
    middle = x - jnp.mean(x, axis=(1, 2), keepdims=True)
    return middle / jnp.sqrt(jnp.mean(middle**2, axis=(1, 2), keepdims=True) + 1e-6)


def plain(params, x):
    h = {"conv 1": convolved(x, params[0])}
    h["relu 1"] = jax.nn.relu(h["conv 1"])
    return rest(params, h)


def with_norm(params, x):
    h = {"conv 1": convolved(x, params[0])}
    h["norm 1"] = normalized(h["conv 1"])
    h["relu 1"] = jax.nn.relu(h["norm 1"])
    return rest(params, h)


def rest(params, h):
    h["conv 2"] = jax.nn.relu(convolved(h["relu 1"], params[1]))
    h["output"] = h["conv 2"].reshape(len(h["conv 2"]), -1) @ params[2]
    return h


def trained(apply, key, x, y):
    optimizer = optax.adam(3e-3)

    def loss(params):
        scores = apply(params, x)["output"]
        return optax.softmax_cross_entropy_with_integer_labels(scores, y).mean()

    def step(carry, _):
        params, state = carry
        moves, state = optimizer.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, moves), state), None

    params = first_params(key)
    start = params, optimizer.init(params)
    return jax.jit(lambda s: jax.lax.scan(step, s, length=steps))(start)[0][0]


def accuracy(apply, params, x, y):
    return float(
        (np.asarray(apply(params, x)["output"]).argmax(axis=1) == y).mean()
    )


networks = {"plain": plain, "instance normalization": with_norm}
scores, shifts = {name: [] for name in networks}, {}
for seed in range(seeds):
    order = np.random.default_rng(seed).permutation(len(images))
    train, ours, theirs = order[:900], order[900:1350], order[1350:]
    for name, apply in networks.items():
        params = trained(apply, jax.random.key(seed), images[train], labels[train])
        here = accuracy(apply, params, images[ours], labels[ours])
        there = accuracy(
            apply, params, other_scanner(images[theirs]), labels[theirs]
        )
        scores[name].append((here, there))
        if (
            seed == 0
        ):  # other digits of the same people, on each of the two scanners
            found = p4.lens.occupation(
                apply, params, images[ours], other=other_scanner(images[theirs])
            )
            print(f"{name}\n{found.shift}\n")
            shifts[name] = found.shift

print(f"{'accuracy':24}same scanner     other scanner")
for name, pairs in scores.items():
    mean, error = np.mean(pairs, axis=0), np.std(pairs, axis=0, ddof=1) / seeds**0.5
    shown = "  ".join(
        f"{m:.4f} ± {e:.4f}" for m, e in zip(mean, error, strict=True)
    )
    print(f"{name:24}{shown}")

figure, axes = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
for name, mark in (("plain", "o"), ("instance normalization", "s")):
    layers = shifts[name].layers
    value, error = np.transpose([each.distance for each in layers.values()])
    axes.errorbar(list(layers), value, error, fmt=f"{mark}-", capsize=3, label=name)
axes.axhline(0, color="0.6", lw=0.8)
axes.set_ylabel("distance of the two scanners")
axes.legend(frameon=False)
figure.savefig("two_scanners.png", dpi=150)
