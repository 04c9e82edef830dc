"""Gaussian free field on the periodic square lattice, which has every answer in closed form.

S = −w Σ_⟨ij⟩ φ_i φ_j + a Σ φ_i², precision matrix Q = 2a − wA (A: adjacency); proper where a > 2 |w|. Its covariance is
the inverse of `phi4ppl.exact.gaussian_precision` and its log Z is `phi4ppl.exact.gaussian_log_partition`.
"""

import phi4ppl as p4


def build(size=8, w=1.0, a=2.5):
    return p4.gaussian(p4.lattice.square(size), w=w, a=a)
