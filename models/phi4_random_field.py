"""Random-field φ⁴ theory: one fixed draw (quenched disorder) of a Gaussian source at every site.

S = −w Σ_⟨ij⟩ φ_i φ_j + a Σ φ_i² + b Σ φ_i⁴ + Σ r_i φ_i with r_i normal of standard deviation ``strength``, drawn once from
``seed``. Averages over the disorder are averages over runs with different seeds. The source breaks φ → −φ, so sign moves
are off; deep in the broken phase chains can stick in one of many valleys.
"""

import numpy as np

import phi4ppl as p4


def build(size=8, w=1.0, a=1.8, b=0.175, strength=0.5, seed=0):
    lattice = p4.lattice.square(size)
    source = strength * np.random.default_rng(seed).standard_normal(lattice.num_sites)
    return p4.phi4(lattice, w=w, a=a, b=b, r=source)
