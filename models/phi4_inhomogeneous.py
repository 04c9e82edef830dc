"""Inhomogeneous φ⁴ theory on the square lattice: an own coupling for every edge and every site, from a fixed seed.

Hopping and mass are normal around ``w`` and ``a`` with standard deviation ``spread``; the quartic coupling is log-normal
around ``b``, hence positive, so that Z is finite whatever the others are. This is the form that learning starts from.
"""

import numpy as np

import phi4ppl as p4


def build(size=8, w=1.0, a=1.7, b=0.175, spread=0.2, seed=0):
    lattice = p4.lattice.square(size)
    rng = np.random.default_rng(seed)
    hopping = w + spread * rng.standard_normal(lattice.num_edges)
    mass = a + spread * rng.standard_normal(lattice.num_sites)
    quartic = b * np.exp(spread * rng.standard_normal(lattice.num_sites))
    return p4.phi4(lattice, w=hopping, a=mass, b=quartic)
