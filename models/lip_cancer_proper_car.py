"""Lip cancer in Scotland under a proper conditional autoregression, with its strength unknown.

J. Besag, J. R. Stat. Soc. B 36 (1974) 192. Counts and map as in scotland_lip_cancer; see data/README.md.

    observed_i ~ Poisson(expected_i · relative_risk_i)
    log relative_risk_i = level + beta · (x_i − mean x) + scale · field_i

The effect scale · field is normal with precision (D − alpha A) / scale², D the degrees and A the adjacency matrix. x is the
percentage of the work force in agriculture, fishing and forestry, over 10.
"""

from pathlib import Path

import jax.numpy as jnp
import networkx as nx
import numpy as np
import numpyro
import numpyro.distributions as dist

import phi4ppl as p4

DATA = Path(__file__).parent / "data"


def counties():
    """The table of counties and their graph."""
    table = np.genfromtxt(DATA / "scotland_lip_cancer.csv", delimiter=",", names=True)
    edges = np.genfromtxt(DATA / "scotland_lip_cancer_edges.csv", delimiter=",", skip_header=1, dtype=int)
    return table, p4.lattice.from_networkx(nx.Graph(edges.tolist(), name="counties of Scotland"))


def build(beta_scale=1.0, effect_scale=2.0):
    table, lattice = counties()
    observed, expected = table["observed"].astype(int), table["expected"]
    x = table["percent_agriculture"] / 10
    x = x - x.mean()

    def model():
        level = numpyro.sample("level", dist.Normal(0, 1))
        beta = numpyro.sample("beta", dist.Normal(0, beta_scale))
        scale = numpyro.sample("scale", dist.HalfNormal(effect_scale))
        alpha = numpyro.sample("alpha", dist.Uniform(0, 1))
        field = numpyro.sample("field", p4.proper_car(lattice, alpha=alpha, precision=1.0))
        log_risk = level + beta * x + scale * field
        numpyro.deterministic("relative_risk", jnp.exp(log_risk))
        with numpyro.plate("counties", lattice.num_sites):
            numpyro.sample("observed", dist.Poisson(expected * jnp.exp(log_risk)), obs=observed)

    return model
