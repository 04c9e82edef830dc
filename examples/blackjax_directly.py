"""The compiled model is an ordinary BlackJAX log density.

Warm up and run NUTS by hand, and compare with quadrature.
"""

import os

import blackjax
import jax
import jax.numpy as jnp
import numpy as np

import phi4ppl as p4
from phi4ppl.analysis.gamma_method import gamma_method

draws = 200 if os.environ.get("PHI4PPL_TINY") == "1" else 2000
model = p4.phi4(p4.lattice.chain(4), w=0.8, a=1.4, b=0.2)
compiled = p4.compile(model)
print(f"{compiled.num_dimensions} dimensions, layout {compiled.layout}")


def one_chain(key, start):
    warm_key, draw_key = jax.random.split(key)
    warmup = blackjax.window_adaptation(blackjax.nuts, compiled.logdensity_fn)
    (state, tuned), _ = warmup.run(warm_key, start, 500)
    nuts = blackjax.nuts(compiled.logdensity_fn, **tuned)

    def step(state, key):
        state, _ = nuts.step(key, state)
        return state, state.position

    return jax.lax.scan(step, state, jax.random.split(draw_key, draws))[1]


start_key, chain_key = jax.random.split(jax.random.key(0))
starts = compiled.initial_position(jax.random.split(start_key, 4))
fields = np.asarray(
    jax.jit(jax.vmap(one_chain))(jax.random.split(chain_key, 4), starts)
)  # (chain, draw, site)

exact = p4.exact.quadrature(
    model,
    {"φ²": lambda phi: jnp.mean(phi**2), "φ⁴": lambda phi: jnp.mean(phi**4)},
    half_width=5.0,
    points=48,
)
for name, power in (("φ²", 2), ("φ⁴", 4)):
    result = gamma_method((fields**power).mean(axis=2))
    print(
        f"⟨{name}⟩ = {result.mean:.4f} ± {result.error:.4f}, "
        f"exact {exact[name]:.4f}, τ_int = {result.tau_int:.2f}"
    )
