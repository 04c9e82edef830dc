"""Domains grow after a quench: gradient flow of φ⁴ from noise, with a film.

From infinite temperature to zero: walls cost energy, and curved ones move. The
excess energy is the length of the walls and falls as t^(−1/2): domains grow as
t^(1/2).
"""

import os

import numpy as np

import phi4ppl as p4

tiny = os.environ.get("PHI4PPL_TINY") == "1"
size, replicas, time = (32, 2, 20.0) if tiny else (256, 4, 160.0)
lattice = p4.lattice.square(size)
model = p4.phi4(lattice, w=1.0, a=1.5, b=0.25)  # minima at ±1, S = −V/4 there
start = 0.1 * np.random.default_rng(1).normal(size=(replicas, size, size))

process = p4.dynamics.GradientFlow(model, tolerance=1e-3)
tree = p4.dynamics.evolve(process, start, time=time, every=time / 64)
group = tree["evolution"]
t, energy = group["time"].values, group["energy"].values / size**2 + 0.25
assert np.all(np.diff(energy, axis=1) < 1e-6)

late = t >= time / 8
slopes = [-np.polyfit(np.log(t[late]), np.log(e[late]), 1)[0] for e in energy]
mean, error = np.mean(slopes), np.std(slopes, ddof=1) / np.sqrt(replicas)
print(f"growth exponent {mean:.3f} ± {error:.3f}; the law is 1/2")
assert tiny or abs(mean - 0.5) < 0.08

p4.dynamics.plot(tree).savefig("phase_ordering.png", dpi=120)
p4.dynamics.animate(tree, "phase_ordering.gif", max_frames=10 if tiny else 33)
