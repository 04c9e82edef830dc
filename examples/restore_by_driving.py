"""A noisy picture becomes calm: a field driven to it, and smoothed on the way.

The fixed point is α (α + βL)⁻¹ of the noisy picture, its low-pass filter. The
checks: the mean follows its closed form, and of the noise of variance σ² remains
σ² ⟨(α/(α + βλ))²⟩, a mean over the modes λ of L.
"""

import os

import numpy as np

import phi4ppl as p4

tiny = os.environ.get("PHI4PPL_TINY") == "1"
size, sigma, alpha, beta = 32 if tiny else 64, 0.4, 1.0, 1.0
x, y = np.indices((size, size)) * 2 * np.pi / size
clean = np.cos(x) + np.sin(y)
noisy = clean + sigma * np.random.default_rng(0).normal(size=clean.shape)

lattice = p4.lattice.square(size)
process = p4.dynamics.DriveTo(lattice, noisy, strength=alpha, smoothing=beta)
tree = p4.dynamics.evolve(process, np.zeros_like(noisy), time=12, every=0.25)
group = tree["evolution"]
law = process.mean_at(group["time"].values)
assert np.allclose(group["magnetization"].values[0], law, atol=1e-5)

k = 2 * np.pi * np.fft.fftfreq(size)
modes = 4 * np.sin(k[:, None] / 2) ** 2 + 4 * np.sin(k / 2) ** 2
left = (alpha / (alpha + beta * modes)) ** 2
restored = group["phi"].values[0, -1]
error = np.mean((restored - clean) ** 2)
bias = (beta * modes[1, 0] / (alpha + beta * modes[1, 0])) ** 2 * np.mean(clean**2)
predicted = sigma**2 * left.mean() + bias
spread = sigma**2 * np.sqrt(2 * np.mean(left**2)) / size
print(f"mean square error {np.mean((noisy - clean) ** 2):.4f} before")
print(f"{error:.4f} after; expected {predicted:.4f} ± {spread:.4f}")
assert abs(error - predicted) < 4.5 * spread + 1e-4

p4.dynamics.plot(tree).savefig("restore_by_driving.png", dpi=120)
p4.dynamics.animate(tree, "restore_by_driving.gif", max_frames=10 if tiny else 49)
