"""φ⁴ theory on the square lattice with both diagonals, and an own term on the cliques of four: the plaquettes.

S = −Σ_nn w φφ − Σ_diagonal w_diagonal φφ + a Σ φ² + b Σ φ⁴ + g Σ_plaquettes φ_1 φ_2 φ_3 φ_4. Each site lies in four
plaquettes and 4 |φ_1 φ_2 φ_3 φ_4| ≤ φ_1⁴ + φ_2⁴ + φ_3⁴ + φ_4⁴, so Z is finite wherever |g| < b.
"""

import phi4ppl as p4


def four_fields(phi_1, phi_2, phi_3, phi_4):
    return phi_1 * phi_2 * phi_3 * phi_4


def build(size=8, w=1.0, w_diagonal=0.5, a=2.7, b=0.3, g=0.1):
    lattice = p4.lattice.square(size, diagonals=True)
    pairs_and_sites = p4.phi4(lattice, w={"nn": w, "diagonal": w_diagonal}, a=a, b=b)
    plaquette = p4.Term("g", p4.lattice.plaquettes(lattice), four_fields, coupling=g)
    return p4.MarkovRandomField(lattice, [*pairs_and_sites.terms, plaquette])
