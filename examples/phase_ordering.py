"""Domains grow after a quench: gradient flow of φ⁴ from noise, with a film.

From infinite temperature to zero: curved walls move by their curvature, so that the
square of the size of domains grows linearly, R = A (t + t₀)^n with n = 1/2.
"""

import os

import numpy as np

import phi4ppl as p4
from phi4ppl.dynamics import domain_size, evolve, growth_exponent

tiny = os.environ.get("PHI4PPL_TINY") == "1"
size, replicas, time = (32, 4, 20.0) if tiny else (384, 6, 150.0)
b = 0.2  # minima at ±1; walls are wide enough for the lattice not to pin them
lattice = p4.lattice.square(size)
model = p4.phi4(lattice, w=1.0, a=2 - 2 * b, b=b)
start = np.random.default_rng(1).normal(size=(replicas, size, size))

process = p4.dynamics.GradientFlow(model, tolerance=1e-3)
tree = evolve(
    process,
    start,
    time=time,
    every=time / 150,
    observables=["interface_length"],
    keep_field=False,
)
radius = domain_size(tree)
# exponents of early times are smaller: 0.42 from time 5
fit = growth_exponent(radius, first=time / 5)
print(f"{fit}\nthe law is 1/2")
assert tiny or abs(fit.exponent - 0.5) < 3 * fit.error < 0.12
# R² is a straight line
late = radius.sel(time=slice(time / 5, None)).mean("replica")
slope, _ = np.polyfit(late["time"], late**2, 1)
print(f"d(R²)/dt = {slope:.3f}")

# the picture and the film show a smaller lattice
small = p4.phi4(p4.lattice.square(min(size, 128)), w=1.0, a=2 - 2 * b, b=b)
start = start[0, : small.field_shape[0], : small.field_shape[1]]
process = p4.dynamics.GradientFlow(small, tolerance=1e-3)
shown = evolve(process, start, time=time, every=time / 64)
p4.dynamics.plot(shown).savefig("phase_ordering.png", dpi=120)
p4.dynamics.animate(shown, "phase_ordering.gif", max_frames=10 if tiny else 33)
