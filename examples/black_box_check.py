"""Is this black-box action a Markov random field on the square lattice?

A long-range coupling of size 0.001 reveals that it is not.
"""

import jax
import jax.numpy as jnp

import phi4ppl as p4

lattice = p4.lattice.square(32)


def local(phi):
    """φ⁴ theory with array operations; the library knows nothing about it."""
    neighbors = jnp.roll(phi, 1, axis=0) + jnp.roll(phi, 1, axis=1)
    return jnp.sum(-phi * neighbors + 1.52425 * phi**2 + 0.175 * phi**4)


def with_hidden_coupling(phi):
    return local(phi) + 0.001 * phi[3, 5] * phi[20, 17]


print(p4.check_action(local, lattice))
report = p4.check_action(with_hidden_coupling, lattice)
print(report)
for violation in report.violations:
    i, j = violation.sites
    print(
        f"found: {lattice.nodes[i]} and {lattice.nodes[j]} with strength "
        f"{violation.strength:.4g} (planted: 0.001)"
    )

# The theorem the other way round: a local action factorizes over the maximal
# cliques, exp(−S) = Π ψ_c.
small = p4.lattice.square(4)
potentials = p4.check_action(local, small).clique_potentials
phi = jax.random.normal(jax.random.key(0), small.shape)
print(f"{small.name}: {len(potentials)} potentials ψ_c > 0; at a random field")
print(f"Σ log ψ_c = {potentials.log_product(phi):.4f}, −S = {-local(phi):.4f}")
