"""φ⁴ theory on the square lattice from its Lagrangian couplings: stiffness κ, mass μ², interaction λ.

S = Σ_⟨ij⟩ (κ/2)(φ_i − φ_j)² + Σ_i [(μ²/2) φ_i² + (λ/4) φ_i⁴]. The defaults are the critical point μ² = −0.9515(2) at κ = 1,
λ = 0.7, the same action as `phi4_square`: w = κ, a = (μ² + 4κ)/2, b = λ/4.
"""

import phi4ppl as p4


def build(size=8, kappa=1.0, mu_squared=-0.9515, lam=0.7):
    return p4.phi4_from_lagrangian(p4.lattice.square(size), kappa=kappa, mu_squared=mu_squared, lam=lam)
