"""Homogeneous φ⁴ theory on the periodic square lattice, at its critical couplings.

S = −w Σ_⟨ij⟩ φ_i φ_j + a Σ φ_i² + b Σ φ_i⁴. With w = 1 and b = 0.175 (κ = 1, λ = 0.7 in `phi4_lagrangian`) the infinite
lattice is critical at a = 1.52425: smaller a breaks the symmetry φ → −φ, larger a restores it. Correlation times grow with
``size``; at 16 and more ask for more draws.
"""

import phi4ppl as p4


def build(size=8, w=1.0, a=1.52425, b=0.175):
    return p4.phi4(p4.lattice.square(size), w=w, a=a, b=b)
