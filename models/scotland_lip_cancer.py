"""Lip cancer in the 56 counties of Scotland, 1975–80: Poisson counts over an intrinsic Gaussian field on the county map.

The model of J. Besag, J. York and A. Mollié, Ann. Inst. Stat. Math. 43 (1991) 1, with the scales of A. Riebler et al., Stat.
Methods Med. Res. 25 (2016) 1145. Counts and map: D. Clayton and J. Kaldor, Biometrics 43 (1987) 671; see data/README.md.

    observed_i ~ Poisson(expected_i · relative_risk_i)
    log relative_risk_i = beta · (x_i − mean x) + spatial_i + county_scale · county_i

x is the percentage of the work force in agriculture, fishing and forestry, over 10; county_i are independent standard
normals. spatial is the intrinsic field, density ∝ exp(−Σ_⟨ij⟩ (spatial_i − spatial_j)²/(2 spatial_scale²)): it is flat along
its mean, which is therefore the intercept with a flat prior; the counts make the posterior proper. ``scale`` is the standard
deviation of the two effects together in a typical county, and ``share`` the part of its square that is spatial.
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
    """The table of counties (fields county, observed, expected, percent_agriculture) and their graph."""
    table = np.genfromtxt(DATA / "scotland_lip_cancer.csv", delimiter=",", names=True)
    edges = np.genfromtxt(DATA / "scotland_lip_cancer_edges.csv", delimiter=",", skip_header=1, dtype=int)
    graph = nx.Graph(edges.tolist(), name="counties of Scotland")
    return table, p4.lattice.from_networkx(graph)


def build(beta_scale=1.0, effect_scale=1.0):
    table, lattice = counties()
    observed, expected = table["observed"].astype(int), table["expected"]
    x = table["percent_agriculture"] / 10
    x = x - x.mean()
    unit = p4.gaussian(lattice, w=1.0, a=lattice.degree / 2)
    laplacian = np.asarray(p4.exact.gaussian_precision(unit), float)
    typical = float(np.exp(np.log(np.diag(np.linalg.pinv(laplacian, hermitian=True))).mean() / 2))
    unit_log_partition = float(p4.exact.gaussian_log_partition(unit, intrinsic=True))

    def log_partition(couplings):  # of fields of zero mean: N − 1 directions, each with a factor w^(−1/2)
        return unit_log_partition - (lattice.num_sites - 1) / 2 * jnp.log(couplings["w"])

    def model():
        beta = numpyro.sample("beta", dist.Normal(0, beta_scale))
        scale = numpyro.sample("scale", dist.HalfNormal(effect_scale))
        share = numpyro.sample("share", dist.Uniform(0, 1))
        spatial_scale = numpyro.deterministic("spatial_scale", scale * jnp.sqrt(share) / typical)
        county_scale = numpyro.deterministic("county_scale", scale * jnp.sqrt(1 - share))
        # The counts pin the field down by half: so half of its scale is inside, as the precision w = 1/spatial_scale, and
        # half outside, as √spatial_scale. That mixes better than all of it inside, or outside.
        # Only deviations from the mean are multiplied. In √spatial_scale · field the flat mean would be stretched too, and
        # its Jacobian would put a hidden power 1/√spatial_scale on the prior (1/spatial_scale, improper, if all the scale
        # were outside).
        w = 1 / spatial_scale
        prior = p4.gaussian(lattice, w=w, a=w * lattice.degree / 2)
        field = numpyro.sample("field", p4.GibbsField(prior, log_partition=log_partition))
        spatial = field.mean() + jnp.sqrt(spatial_scale) * (field - field.mean())
        with numpyro.plate("counties", lattice.num_sites):
            county = numpyro.sample("county", dist.Normal(0, 1))
            log_risk = beta * x + spatial + county_scale * county
            numpyro.deterministic("relative_risk", jnp.exp(log_risk))
            numpyro.sample("observed", dist.Poisson(expected * jnp.exp(log_risk)), obs=observed)

    return model
