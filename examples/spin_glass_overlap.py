"""From bonds of random signs to P(q): a spin glass at two strengths of its bonds.

Forty draws of the signs, two replicas each. With weak bonds the replicas know nothing
of each other and P(q) is a peak at 0. With strong ones they share valleys: P(q) is
wide, its shape changes from draw to draw, and the link overlap grows.
"""

import os

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro.distributions as dist

import phi4ppl as p4

tiny = os.environ.get("PHI4PPL_TINY") == "1"
side, number, draws = (4, 12, 100) if tiny else (6, 40, 1000)
model = p4.phi4(p4.lattice.square(side), w=1.0, a=1.52425, b=0.175)


def glass(strength):
    """Averages over draws of the signs of bonds ±strength."""
    fair = dist.Categorical(probs=jnp.array([0.5, 0.5]))
    signs = dist.MixtureSameFamily(fair, dist.Delta(jnp.array([-strength, strength])))
    return p4.disorder.quenched(
        model,
        {"w": signs},
        num_realizations=number,
        num_warmup=draws,
        num_samples=draws,
        kernel="tempering" if strength > 1 else "local_hmc",
        seed=1,
    )


results = {strength: glass(strength) for strength in (0.8, 2.0)}
for strength, result in results.items():
    print(f"bonds ±{strength}\n{result}\n")

figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
for k, (strength, result) in enumerate(results.items()):
    found = result.overlap_distribution(30)
    q, density, error = (found[name].values for name in ("q", "density", "error"))
    axes[0].plot(q, density, color=f"C{k}", label=f"bonds ±{strength}")
    axes[0].fill_between(q, density - error, density + error, color=f"C{k}", alpha=0.3)
    odd = density - density[::-1]  # S is even, and so is P(q)
    each = found["by_realization"].values
    spread = (each - each[:, ::-1]).std(axis=0, ddof=1) / np.sqrt(number)
    z = np.abs(odd / np.where(spread > 0, spread, np.inf)).max()
    print(f"±{strength}: largest |P(q) - P(-q)| in units of its error {z:.1f}")
    links = result.overlaps.link.ravel()
    axes[2].hist(links, 40, density=True, histtype="step", color=f"C{k}")
for own in results[2.0].overlap_distribution(30)["by_realization"].values[:6]:
    axes[1].plot(q, own, lw=1)
axes[0].set(xlabel="overlap q", ylabel="P(q)", ylim=(0, None))
axes[0].legend(frameon=False)
axes[1].set(xlabel="overlap q", title="six draws of the bonds, ±2", ylim=(0, None))
axes[2].set(xlabel="link overlap", ylabel="density")
figure.savefig("spin_glass_overlap.png", dpi=120)
