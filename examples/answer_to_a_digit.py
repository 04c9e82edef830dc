"""How hidden features of a φ⁴ machine answer to a field with the shape of a digit.

A machine learns digits. A weak external field h ξ then acts on its visible units,
ξ being the mean picture of a 3. The linear response of all units follows from their
fluctuations without the field, and two runs with the field confirm its sum.
"""

import os

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import phi4ppl as p4
from phi4ppl.networks import Phi4Units, RestrictedBoltzmannMachine, train

tiny = os.environ.get("PHI4PPL_TINY") == "1"
rows, epochs, draws = (100, 1, 50) if tiny else (1797, 8, 1000)

digits = load_digits()
pictures = digits.data[:rows] / 16
pictures = (pictures - pictures.mean(axis=0)) / (pictures.std(axis=0) + 0.1)
units = [
    Phi4Units(np.zeros(n), np.full(n, 0.4), np.full(n, 0.02)) for n in (64, 16)
]
weights = np.random.default_rng(0).normal(0, 0.005, (64, 16))
start = RestrictedBoltzmannMachine(*units, weights)
learned, _ = train(start, pictures, epochs=epochs, learning_rate=3e-3)
machine = learned.machine

three = pictures[digits.target[:rows] == 3].mean(axis=0)
response = p4.disorder.response(machine, three, layer="visible")
effort = {"num_samples": draws, "num_warmup": max(20, draws // 2), "seed": 1}
found = response.local(**effort)

# ξ · ∂⟨v⟩/∂h = V χ, and χ is also a difference of two runs.
volume = np.count_nonzero(three)
total = float(three @ found["visible"].values) / volume
print(f"sum of the local responses {total:.3f}")
print(response.susceptibility(**effort))

hidden, error = found["hidden"].values, found["hidden_error"].values
order = np.argsort(hidden)
features = np.asarray(machine.weights).T[order]


def show(axes, picture, title):
    top = np.abs(picture).max()
    axes.imshow(picture.reshape(8, 8), cmap="RdBu_r", vmin=-top, vmax=top)
    axes.set_title(title, fontsize=8)
    axes.set(xticks=[], yticks=[])


figure = Figure(figsize=(10, 5), layout="constrained")
above, below = figure.subfigures(2, 1)
left, middle, right = above.subplots(1, 3, width_ratios=(1, 1, 2.5))
show(left, three, "external field ξ")
show(middle, found["visible"].values, "visible units, ∂⟨v⟩/∂h")
right.errorbar(np.arange(16), hidden[order], error[order], fmt="o", ms=4, capsize=2)
right.axhline(0, color="0.8", lw=0.8, zorder=0)
right.set_xticks(np.arange(16), [str(k) for k in order])
right.set(xlabel="hidden feature", ylabel="response of its mean")
for axes, number, feature in zip(
    below.subplots(2, 8).flat, order, features, strict=True
):
    show(axes, feature, f"feature {number}")
figure.savefig("answer_to_a_digit.png", dpi=120)
