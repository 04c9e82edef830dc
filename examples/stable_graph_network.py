"""An unstable graph network: spectral normalization and weight averaging.

Molecule-like graphs with a made-up solubility. Ten networks are trained from
other random starts, then ten whose couplings are bounded, and the last
weights are compared with the average over the end of the training.
"""

import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from scipy import stats

import phi4ppl as p4

tiny = os.environ.get("PHI4PPL_TINY") == "1"
seeds, steps, tail = (3, 40, 4) if tiny else (10, 600, 20)
atoms, width, depth, train = 10, 16, 6, 200
gain = 1.6  # of the first weights: perturbations grow from the start


def molecules(number, rng):
    """Trees of ten atoms with up to two rings: kinds, bonds, solubility."""
    kinds = rng.choice(3, size=(number, atoms), p=[0.6, 0.2, 0.2])
    bonds = np.zeros((number, atoms, atoms))
    for k in range(number):
        for i in range(1, atoms):
            j = rng.integers(max(0, i - 3), i)
            bonds[k, i, j] = bonds[k, j, i] = 1
        for i, j in rng.integers(0, atoms, size=(rng.integers(3), 2)):
            bonds[k, i, j] = bonds[k, j, i] = float(i != j)
    pull = np.array([0.0, 0.5, 1.0])[kinds]
    polar = np.abs(pull[:, :, None] - pull[:, None]) * bonds
    rings = bonds.sum(axis=(1, 2)) / 2 - atoms + 1
    y = polar.sum(axis=(1, 2)) / 4 - 0.7 * rings + 0.3 * pull.sum(axis=1)
    y = y + 0.1 * rng.normal(size=number)
    return np.eye(3)[kinds], bonds, (y - 0.5) / 1.2


def bounded(w, limit):
    """W, scaled down to spectral norm ``limit`` where it is above."""
    norm = jnp.linalg.norm(jax.lax.stop_gradient(w), 2)
    return w * jnp.minimum(1.0, limit / norm)


def network(limit):
    """Message passing: each atom adds what its neighbors send."""

    def apply(params, x):
        weights, bonds = params
        h = x @ weights["in"]
        values = {}
        for k in range(depth):
            own, sent = weights["own"][k], weights["sent"][k]
            if limit is not None:
                own, sent = bounded(own, limit), bounded(sent, limit)
            h = jax.nn.relu(h @ own + bonds @ h @ sent)
            values[f"layer {k + 1}"] = h
        values["output"] = h.mean(axis=1) @ weights["out"]
        return values

    return apply


def start(key):
    keys = jax.random.split(key, 4)
    normal = jax.random.normal
    return {
        "in": normal(keys[0], (3, width)) / 3**0.5,
        "own": gain * normal(keys[1], (depth, width, width)) / width**0.5,
        "sent": gain * normal(keys[2], (depth, width, width)) / width**0.5,
        "out": normal(keys[3], (width,)) / width,
    }


def trained(key, apply, data):
    """Weights after every 1/``tail`` of the last third, by Adam."""
    x, bonds, y = data
    optimizer = optax.adam(0.01)

    def loss(weights, rows):
        made = apply((weights, bonds[rows]), x[rows])["output"]
        return jnp.mean((made - y[rows]) ** 2)

    def step(carry, k):
        weights, state = carry
        own = jax.random.fold_in(key, k)
        rows = jax.random.choice(own, train, (20,), replace=False)
        slope = jax.grad(loss)(weights, rows)
        moves, state = optimizer.update(slope, state)
        return (optax.apply_updates(weights, moves), state), None

    weights = start(key)
    carry = weights, optimizer.init(weights)
    first = 2 * steps // 3
    carry, _ = jax.lax.scan(step, carry, jnp.arange(first))
    every = (steps - first) // tail
    kept = []
    for k in range(tail):
        at = first + k * every + jnp.arange(every)
        carry, _ = jax.lax.scan(step, carry, at)
        kept.append(carry[0])
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *kept)


rng = np.random.default_rng(0)
data = [jnp.asarray(part, jnp.float32) for part in molecules(train, rng)]
x, bonds, y = molecules(300, rng)
x, bonds = (jnp.asarray(part, jnp.float32) for part in (x, bonds))


def spread(errors):
    """Standard deviation over seeds, and its standard error."""
    value = errors.std(ddof=1)
    without = [np.delete(errors, k).std(ddof=1) for k in range(len(errors))]
    scatter = (len(errors) - 1) * np.var(without)
    return value, np.sqrt(scatter)


keys = jax.random.split(jax.random.key(0), seeds)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
found = {}
for name, limit in (("plain", None), ("bounded", 0.8)):
    apply = network(limit)
    tails = jax.jit(jax.vmap(lambda key, a=apply: trained(key, a, data)))(keys)
    last, averaged = [], []
    for k in range(seeds):
        members = [
            jax.tree.map(lambda leaf, k=k, t=t: leaf[k, t], tails)
            for t in range(tail)
        ]
        made = p4.lens.average(
            lambda weights, x, a=apply: a((weights, bonds), x), members, x
        )
        final = np.asarray(apply((members[-1], bonds), x)["output"])
        last.append(np.sqrt(np.mean((final - y) ** 2)))
        averaged.append(np.sqrt(np.mean((made.of_average - y) ** 2)))
    found[f"{name}, last weights"] = np.array(last)
    found[f"{name}, averaged"] = np.array(averaged)
    growth = p4.lens.propagation(apply, (members[-1], bonds), x)
    print(f"{name}: a perturbation grows by a factor of", end=" ")
    print(f"{growth.growth[-2] ** 0.5:.3g} in six layers (last network)")
    layers = np.arange(1, depth + 1)
    axes[1].plot(layers, growth.growth[:-1] ** 0.5, "o-", label=name)

print("\n" + " " * 22 + f"error           spread over {seeds} seeds")
for place, (name, errors) in enumerate(found.items()):
    mean, error = errors.mean(), errors.std(ddof=1) / np.sqrt(seeds)
    wide, unsure = spread(errors)
    print(f"{name:22}{mean:.3f} ± {error:.3f}   {wide:.3f} ± {unsure:.3f}")
    axes[0].plot(np.full(seeds, place), errors, "o", ms=4, alpha=0.6)
first, *_, best = (errors.var(ddof=1) for errors in found.values())
chance = stats.f.sf(first / best, seeds - 1, seeds - 1)
print(
    f"\nequal spreads have a ratio of {np.sqrt(first / best):.3g} or more", end=""
)
print(f" between first and last row with probability {chance:.2g}")

names = [name.replace(", ", "\n") for name in found]
axes[0].set_xticks(range(len(names)), names, fontsize=8)
axes[0].set(ylabel="error on other molecules", ylim=(0, None))
axes[1].set(xlabel="layer", ylabel="growth of a perturbation", yscale="log")
axes[1].legend()
figure.savefig("stable_graph_network.png", dpi=110)
