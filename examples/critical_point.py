"""The critical point of φ⁴ theory on the square lattice, and its exponents.

Curves of four sizes along the hopping w, their fit, and their collapse.
"""

import os

import numpy as np

import phi4ppl as p4

tiny = os.environ.get("PHI4PPL_TINY") == "1"


def model_of_size(L):
    return p4.phi4(p4.lattice.square(L), w=0.68, a=-1.0, b=1.0)


found = p4.finite_size_scaling(
    model_of_size,
    sizes=(4, 6, 8) if tiny else (8, 16, 32, 64),
    vary={"w": np.linspace(0.6, 0.76, 5)},
    num_samples=400 if tiny else 16000,
    seed=3,
)
print(found)
print(found.fits)
found.plot_scaling().savefig("critical_point.png", dpi=100)
