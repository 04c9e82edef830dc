"""Three priors for one map, compared by leave-one-out.

Intrinsic Gaussian, proper Gaussian and φ⁴ fields under the lip cancer counts. Every
coupling that has a prior comes with its log Z: a power for the intrinsic field, a
determinant for the proper one, a `PartitionSurface` for φ⁴.
"""

import os
import runpy
import warnings

import arviz_stats
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist

import phi4ppl as p4
from phi4ppl.cli.model_files import shipped_models
from phi4ppl.model.term import hopping, mass, quartic

warnings.filterwarnings(
    "ignore", message="Estimated shape parameter"
)  # k̂ is printed below
tiny = os.environ.get("PHI4PPL_TINY") == "1"
settings = (
    {"num_warmup": 100, "num_samples": 50, "num_chains": 2, "kernel": "hmc"}
    if tiny
    else {"num_samples": 2000}
)

table, lattice = runpy.run_path(str(shipped_models()["scotland_lip_cancer"]))[
    "counties"
]()
observed, expected = table["observed"].astype(int), table["expected"]
x = (table["percent_agriculture"] - table["percent_agriculture"].mean()) / 10
half, number, sites = (
    lattice.degree / 2,
    lattice.num_sites,
    np.arange(lattice.num_sites)[:, None],
)


def counts(field):
    beta = numpyro.sample("beta", dist.Normal(0, 1))
    risk = numpyro.deterministic("risk", jnp.exp(beta * x + field))
    with numpyro.plate("counties", number):
        numpyro.sample("observed", dist.Poisson(expected * risk), obs=observed)


def intrinsic():
    # S = Σ (φ_i − φ_j)²/(2 scale²); its mean is the level, with a flat prior
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    prior = p4.gaussian(lattice, w=scale**-2, a=scale**-2 * half)
    counts(
        numpyro.sample(
            "field",
            p4.GibbsField(
                prior, log_partition=lambda c: -(number - 1) / 2 * jnp.log(c["w"])
            ),
        )
    )


def proper():  # S = Σ (φ_i − φ_j)²/2 + μ² Σ φ_i²/2, and the field times scale
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    mu_squared = numpyro.sample("mu_squared", dist.HalfNormal(1.0))
    prior = p4.gaussian(lattice, w=1.0, a=half + mu_squared / 2)
    exact = p4.GibbsField(
        prior, log_partition=lambda c: p4.exact.gaussian_log_partition(prior)
    )
    counts(scale * numpyro.sample("field", exact))


terms = [
    p4.Term("w", lattice.edges, hopping),
    p4.Term("a", sites, mass, half),
    p4.Term("b", sites, quartic, 0.25),
]
family = p4.MarkovRandomField(
    lattice, [*terms, p4.Term("half_mu_squared", sites, mass, 0.0)]
)
size = {"num_samples": 100, "num_chains": 2} if tiny else {}
surface = p4.PartitionSurface(
    family,
    {"half_mu_squared": (-0.2, 0.0) if tiny else (-1.0, 1.0)},
    seed=1,
    **size,
)


def phi4():  # the same with + Σ φ_i⁴/4, and μ² of either sign
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    half_mu_squared = numpyro.sample(
        "half_mu_squared", dist.Uniform(*surface.region["half_mu_squared"])
    )
    prior = family.replace(half_mu_squared=half_mu_squared)
    counts(
        scale * numpyro.sample("field", p4.GibbsField(prior, log_partition=surface))
    )


scores, plain, risks = {}, {}, {}
for model in (phi4,) if tiny else (intrinsic, proper, phi4):
    tree, name = p4.sample(model, seed=5, **settings), model.__name__
    print(f"\n{name}: {str(p4.diagnose(tree)).splitlines()[0]}")
    print(
        p4.estimate(
            tree,
            [
                v
                for v in ("beta", "scale", "mu_squared", "half_mu_squared")
                if v in tree["posterior"]
            ],
        )
    )
    plain[name] = p4.loo(tree)
    scores[name] = p4.loo(p4.integrated_log_likelihood(tree, model))
    for how, score in (
        ("own site integrated out", scores[name]),
        ("as sampled", plain[name]),
    ):
        bad = int((score.pareto_k > 0.7).sum())
        print(
            f"elpd_loo, {how}: {score.elpd:.2f} ± {score.se:.2f}, "
            f"k̂ > 0.7 for {bad} of {number} counties"
        )
    risks[name] = tree["posterior"]["risk"].values.reshape(-1, number).mean(axis=0)
names = list(scores)
print(
    f"\ndifference of elpd_loo to the {names[0]} field, "
    "± standard error over counties"
)
for name in names[1:]:
    apart = (scores[name].elpd_i - scores[names[0]].elpd_i).values
    print(f"{name}: {apart.sum():+.2f} ± {np.sqrt(number) * apart.std():.2f}")
if not tiny:
    print(
        arviz_stats.compare(scores)[
            ["rank", "elpd", "p", "elpd_diff", "dse", "weight"]
        ]
    )

edges, at = lattice.edges, lattice.positions
figure, axes = plt.subplots(2, 2, figsize=(8.5, 7), layout="constrained")
panels = {
    f"relative risk, {name.replace('phi4', 'φ⁴')}": np.log2(risks[name])
    for name in names
}
panels["elpd of a county: φ⁴ minus intrinsic"] = (
    scores["phi4"].elpd_i - scores[names[0]].elpd_i
).values
for ax, (title, values) in zip(axes.flat, panels.items(), strict=True):
    ax.plot(
        *np.insert(at[edges], 2, np.nan, axis=1).reshape(-1, 2).T,
        color="0.8",
        lw=0.7,
        zorder=1,
    )
    size = 2.3 if title[0] == "r" else np.abs(values).max()
    dots = ax.scatter(
        *at.T,
        c=values,
        cmap="RdBu_r",
        vmin=-size,
        vmax=size,
        s=45,
        edgecolors="0.3",
        lw=0.4,
        zorder=2,
    )
    bar = figure.colorbar(dots, ax=ax, orientation="horizontal", shrink=0.8)
    if title[0] == "r":
        bar.set_ticks([-2, -1, 0, 1, 2], labels=["¼", "½", "1", "2", "4"])
    ax.set_title(title, fontsize=10)
    ax.set(xticks=[], yticks=[])
    ax.set_frame_on(False)
figure.savefig("lip_cancer_fields.png", dpi=110)
