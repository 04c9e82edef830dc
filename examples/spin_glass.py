"""A spin glass: bonds of random signs, and how much two of its fields agree.

The overlap of two independent fields is q = Σ_i s_i s'_i / V, s the signs of φ. In
an ordered phase P(q) has two peaks, in a disordered one a peak at 0. Here several
valleys of the action share the weight; where they lie differs from one draw of the
bonds to the next. Because S is even, so is P(q).
"""

import os

import matplotlib.pyplot as plt
import numpy as np

import phi4ppl as p4

tiny = os.environ.get("PHI4PPL_TINY") == "1"
side, draws = (4, 200) if tiny else (8, 1000)
lattice = p4.lattice.square(side)
signs = np.random.default_rng(1).choice([-1, 1], len(lattice.edges))
model = p4.phi4(lattice, w=2.0 * signs, a=1.52425, b=0.175)

tree = p4.sample(model, num_warmup=draws, num_samples=draws)
print(p4.settings(tree)["kernel_reason"])
print(p4.diagnose(tree))

s = np.sign(tree["posterior"]["phi"].values).reshape(4, draws, side**2)
q = (s[0::2] * s[1::2]).mean(axis=-1)  # two pairs of independent chains
borders = 1.01 * np.linspace(-1, 1, 18)
inside = (q[..., None] >= borders[:-1]) & (q[..., None] < borders[1:])
p_of_q = p4.analysis.gamma_method(inside / np.diff(borders))
odd = p4.analysis.gamma_method(inside[..., :8] * 1.0 - inside[..., :-9:-1])
seen = odd.error > 0
z = odd.mean[seen] / odd.error[seen]
print(f"P(q) - P(-q) in units of its error: {np.round(z, 1)}")
assert tiny or np.abs(z).max() < 4

figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
phi = tree["posterior"]["phi"].values[0, -1]
axes[0].imshow(phi, cmap="RdBu", vmin=-np.abs(phi).max(), vmax=np.abs(phi).max())
axes[0].set(title="a draw of φ", xticks=[], yticks=[])
axes[1].errorbar(
    (borders[1:] + borders[:-1]) / 2, p_of_q.mean, p_of_q.error, fmt="o-", capsize=2
)
axes[1].set(
    title="overlap of two fields with the same bonds",
    xlabel="q",
    ylabel="P(q)",
    ylim=(0, None),
)
figure.savefig("spin_glass.png", dpi=120)
