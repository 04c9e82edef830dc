"""A custom term: four fields around a plaquette.

On which graph is it allowed, and does the sampler get it right? The answer is
checked by an exact identity. S = S₂ + S₄ has parts of degree two and four in φ, so
by Euler's theorem Σ φ_i ∂S/∂φ_i = 2 S₂ + 4 S₄, and the Schwinger–Dyson equation
makes its average the number of sites.
"""

import os

import phi4ppl as p4

draws = 200 if os.environ.get("PHI4PPL_TINY") == "1" else 2000


def four_fields(phi_1, phi_2, phi_3, phi_4):
    """The statistic of one plaquette; the library maps it over all of them."""
    return phi_1 * phi_2 * phi_3 * phi_4


def declare(lattice):
    pairs_and_sites = p4.phi4(lattice, w=1.0, a=3.0, b=0.3)
    plaquette = p4.Term(
        "g", p4.lattice.plaquettes(lattice), four_fields, coupling=0.1
    )
    return p4.MarkovRandomField(lattice, [*pairs_and_sites.terms, plaquette])


# Without diagonals the corners of a plaquette are not all neighbors, so this is not
# a Markov random field on the graph.
try:
    declare(p4.lattice.square(6))
except p4.errors.HammersleyCliffordError as error:
    print(f"refused: {error}\n")

model = declare(p4.lattice.square(6, diagonals=True))
print(model.describe())
print(model.check())


def two_s2_plus_four_s4(phi):
    parts = {
        name: model.couplings[name] * t for name, t in model.statistics(phi).items()
    }
    return 2 * (parts["w"] + parts["a"]) + 4 * (parts["b"] + parts["g"])


own = {
    "plaquette": lambda phi: model.statistics(phi)["g"] / 36,
    "euler": two_s2_plus_four_s4,
}
tree = p4.sample(
    model, num_warmup=draws // 2, num_samples=draws, observables=own, seed=2
)
table = p4.estimate(tree)
print(
    f"⟨φ₁φ₂φ₃φ₄⟩ around a plaquette: {table.loc['plaquette', 'mean']:.4f} ± "
    f"{table.loc['plaquette', 'error']:.4f}"
)
print(
    f"2⟨S₂⟩ + 4⟨S₄⟩: {table.loc['euler', 'mean']:.2f} ± "
    f"{table.loc['euler', 'error']:.2f} (exact: 36)"
)
print(p4.diagnose(tree))
