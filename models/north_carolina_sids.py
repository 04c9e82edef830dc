"""Sudden infant deaths in the 100 counties of North Carolina, 1974–78, under a BYM2 prior on the map of the counties.

N. A. C. Cressie and N. H. Chan, J. Am. Stat. Assoc. 84 (1989) 393, with the prior of A. Riebler et al., Stat. Methods Med.
Res. 25 (2016) 1145. Counts and outlines: see data/README.md.

    deaths_i ~ Poisson(expected_i · relative_risk_i)
    log relative_risk_i = level + beta · (x_i − mean x) + scale · (√share · spatial_i + √(1 − share) · local_i)

expected_i are the births in the county times the rate of the whole state, and x_i is the share of nonwhite births, over 0.1.
"""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import phi4ppl as p4

MAP = Path(__file__).parent / "data" / "north_carolina_sids.geojson"


def counties():
    """Columns of the table (county, births, deaths, nonwhite_births) as a dict, and the map of the counties."""
    rows = [feature["properties"] for feature in json.loads(MAP.read_text(encoding="utf-8"))["features"]]
    table = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return table, p4.lattice.from_geometry(MAP, label="county")


def build(beta_scale=1.0, effect_scale=1.0):
    table, lattice = counties()
    expected = table["births"] * table["deaths"].sum() / table["births"].sum()
    x = 10 * table["nonwhite_births"] / table["births"]
    x = x - x.mean()

    def model():
        level = numpyro.sample("level", dist.Normal(0, 1))
        beta = numpyro.sample("beta", dist.Normal(0, beta_scale))
        scale = numpyro.sample("scale", dist.HalfNormal(effect_scale))
        share = numpyro.sample("share", dist.Uniform(0, 1))
        log_risk = level + beta * x + p4.bym2("effect", lattice, scale=scale, share=share)
        numpyro.deterministic("relative_risk", jnp.exp(log_risk))
        with numpyro.plate("county", lattice.num_sites):
            numpyro.sample("deaths", dist.Poisson(expected * jnp.exp(log_risk)), obs=table["deaths"])

    return model
