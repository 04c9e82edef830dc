"""Lip cancer in Scotland under the BYM2 prior: a scaled intrinsic field and independent effects share one variance.

A. Riebler et al., Stat. Methods Med. Res. 25 (2016) 1145. Counts and map as in scotland_lip_cancer; see data/README.md.

    observed_i ~ Poisson(expected_i · relative_risk_i)
    log relative_risk_i = level + beta · (x_i − mean x) + scale · (√share · spatial_i + √(1 − share) · local_i)

x is the percentage of the work force in agriculture, fishing and forestry, over 10. With ``disconnected=True`` the counties of
Orkney, Shetland and the Western Isles (6, 8 and 11) have no neighbors.
"""

from pathlib import Path

import jax.numpy as jnp
import networkx as nx
import numpy as np
import numpyro
import numpyro.distributions as dist

import phi4ppl as p4

DATA = Path(__file__).parent / "data"
ISLANDS = (6, 8, 11)


def counties(disconnected=False):
    """The table of counties and their graph."""
    table = np.genfromtxt(DATA / "scotland_lip_cancer.csv", delimiter=",", names=True)
    edges = np.genfromtxt(DATA / "scotland_lip_cancer_edges.csv", delimiter=",", skip_header=1, dtype=int)
    graph = nx.Graph(edges.tolist(), name="counties of Scotland")
    if disconnected:
        graph.remove_edges_from(list(graph.edges(ISLANDS)))
    return table, p4.lattice.from_networkx(graph)


def build(beta_scale=1.0, effect_scale=1.0, disconnected=False):
    table, lattice = counties(disconnected)
    observed, expected = table["observed"].astype(int), table["expected"]
    x = table["percent_agriculture"] / 10
    x = x - x.mean()

    def model():
        level = numpyro.sample("level", dist.Normal(0, 1))
        beta = numpyro.sample("beta", dist.Normal(0, beta_scale))
        scale = numpyro.sample("scale", dist.HalfNormal(effect_scale))
        share = numpyro.sample("share", dist.Uniform(0, 1))
        effect = p4.bym2("effect", lattice, scale=scale, share=share)
        log_risk = level + beta * x + effect
        numpyro.deterministic("relative_risk", jnp.exp(log_risk))
        with numpyro.plate("counties", lattice.num_sites):
            numpyro.sample("observed", dist.Poisson(expected * jnp.exp(log_risk)), obs=observed)

    return model
