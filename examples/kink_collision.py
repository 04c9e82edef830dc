"""A kink and an antikink collide: waves of φ⁴ on a line, with a film.

V = b(φ² − 1)². A kink at speed v weighs (4/3)√(2b) / √(1 − v²). Below v = 0.26 the
pair is captured, above it bounces off. The check: the energy, which is kept.
"""

import os

import numpy as np

import phi4ppl as p4

tiny = os.environ.get("PHI4PPL_TINY") == "1"
h, b, v = 0.25, 0.25, 0.4  # spacing, coupling, speed of each
sites = 240 if tiny else 480
x = (np.arange(sites) - sites / 2) * h
lattice = p4.lattice.chain(sites)
# S = Σ ½ (φ' − φ)²/h² + b (φ² − 1)², up to a constant; the energy is h times it
model = p4.phi4(lattice, w=1 / h**2, a=1 / h**2 - 2 * b, b=b)

gamma, steep, apart = 1 / np.sqrt(1 - v**2), np.sqrt(2 * b), 8.0
left, right = steep * gamma * (x + apart), steep * gamma * (x - apart)
start = np.tanh(left) - np.tanh(right) - 1
momentum = -v * gamma * steep * (np.cosh(left) ** -2 + np.cosh(right) ** -2)

process = p4.dynamics.Hamiltonian(model, momentum=momentum)
tree = p4.dynamics.evolve(
    process, start, time=10.0 if tiny else 60.0, step_size=0.05, every=0.5
)
energy = (tree["evolution"]["energy"].values[0] + b * sites) * h
mass = 4 / 3 * np.sqrt(2 * b)
print(f"energy of the pair {energy[0]:.4f}; two kinks: {2 * gamma * mass:.4f}")
print(f"it changed by {np.ptp(energy):.4f} at most")
assert abs(energy[0] - 2 * gamma * mass) < 0.01 and np.ptp(energy) < 0.01

p4.dynamics.plot(tree).savefig("kink_collision.png", dpi=120)
p4.dynamics.animate(tree, "kink_collision.gif", max_frames=10 if tiny else 60)
