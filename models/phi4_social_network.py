"""φ⁴ opinions on Zachary's karate club, pulled to opposite sides at its two leaders.

φ_i is the opinion of member i: S = Σ_⟨ij⟩ (κ/2)(φ_i − φ_j)² + Σ_i [(μ²/2) φ_i² + (λ/4) φ_i⁴] + Σ_i r_i φ_i, where friends
agree (κ), everyone takes sides (μ² < 0, λ > 0), and the source r is −``pull`` at the instructor (node 0) and +``pull`` at
the officer (node 33). The signs of ⟨φ_i⟩ foretell how the club split. The graph comes with networkx; W. W. Zachary,
J. Anthropol. Res. 33 (1977) 452.
"""

import networkx as nx
import numpy as np

import phi4ppl as p4


def build(kappa=0.5, mu_squared=-0.5, lam=0.7, pull=5.0):
    lattice = p4.lattice.from_networkx(nx.karate_club_graph())
    source = np.zeros(lattice.num_sites)
    source[[lattice.nodes.index(0), lattice.nodes.index(33)]] = -pull, pull
    return p4.phi4(lattice, w=kappa, a=(mu_squared + kappa * lattice.degree) / 2, b=lam / 4, r=source)
