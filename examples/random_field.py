"""A random field in two dimensions: averages over disorder, P(q), and hysteresis.

Every site has its own source, drawn once. Sixty such systems are sampled at once
with two replicas each; then an external field drives twelve of them back and forth.
"""

import os

import numpyro.distributions as dist

import phi4ppl as p4

tiny = os.environ.get("PHI4PPL_TINY") == "1"
number, draws, size = (12, 200, 4) if tiny else (60, 1000, 8)
model = p4.phi4(p4.lattice.square(size), w=1.0, a=1.6, b=0.25, r=0.0)

result = p4.disorder.quenched(
    model,
    {"r": dist.Normal(0, 0.5)},
    num_realizations=number,
    num_warmup=draws // 2,
    num_samples=draws,
    seed=1,
)
print(result)
print(result.budget("magnetization"))

# The part of the susceptibility that the disorder makes is the larger one.
parts = result.susceptibilities
print(f"connected {parts['connected']}, disconnected {parts['disconnected']}")
result.plot().savefig("random_field.png", dpi=120)

# Deeper in the ordered phase the field lags behind an external one.
ordered = p4.phi4(p4.lattice.square(size), w=1.0, a=1.3, b=0.25, r=0.0)
some = {"r": result.couplings["r"][:12]}
loop = p4.disorder.response(ordered).hysteresis(
    1.0, 0.02, num_steps=20, num_replicas=4, couplings=some, seed=2
)
print(loop)
loop.plot().savefig("random_field_hysteresis.png", dpi=120)
