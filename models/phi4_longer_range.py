"""φ⁴ theory with hopping to nearest and diagonal neighbors: the longer-range action A₄ of the literature at g = 1.

A₄ = −Σ_nn φ_i φ_j − g Σ_diagonal φ_i φ_j + a Σ φ_i² + b Σ φ_i⁴, the target that D. Bachtis, G. Aarts and B. Lucini, Phys.
Rev. D 103, 074510 (2021), learn with a nearest-neighbor theory. At g = 1 it is deep in the broken phase; g = 0 is
`phi4_square`.
"""

import phi4ppl as p4


def build(size=8, w=1.0, g=1.0, a=1.52425, b=0.175):
    lattice = p4.lattice.square(size, diagonals=True)
    return p4.phi4(lattice, w={"nn": w, "diagonal": g}, a=a, b=b)
