"""Homogeneous φ⁴ theory on the periodic triangular lattice, where the maximal cliques are triangles.

S = −w Σ_⟨ij⟩ φ_i φ_j + a Σ φ_i² + b Σ φ_i⁴ with six neighbors a site. The defaults lie on the symmetric side. A negative w
frustrates every triangle.
"""

import phi4ppl as p4


def build(size=8, w=1.0, a=2.9, b=0.175):
    return p4.phi4(p4.lattice.triangular(size), w=w, a=a, b=b)
