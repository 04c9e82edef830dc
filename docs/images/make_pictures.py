"""Pictures of the documentation that no example draws: `python docs/images/make_pictures.py [NAMES]`.

* hero.png: what the library is for, three panels (first page and README).
* lattices.png: the graphs of all constructors (declare.md).
* fields.png: the last fields and the traces of the run of quickstart.md.
* mass.png: effective masses and the fit of analysis.md.
* renormalization.png: fields, couplings and exponents by level (renormalization.md).
* inverse_renormalization.png: one field on its way up (inverse_renormalization.md).
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
from sklearn.datasets import load_digits

import phi4ppl as p4
from phi4ppl.cli.model_files import load_model_file

FOLDER = Path(__file__).parent
CHAIN_COLORS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7"]  # Okabe–Ito
plt.rcParams.update({"font.size": 11, "axes.titlesize": 12})


def clean(ax, title):
    ax.set(xticks=[], yticks=[], title=title)


def critical_field(ax):
    """One draw of the φ⁴ field at its critical couplings, 256×256 sites."""
    model = p4.phi4(p4.lattice.square(256), w=1.0, a=1.52425, b=0.175)
    tree = p4.sample(
        model, num_warmup=400, num_samples=10, num_chains=1, seed=7, progress=False
    )
    phi = tree["posterior"]["phi"].values[0, -1]
    ax.imshow(phi, cmap="RdBu_r", vmin=-2.2, vmax=2.2, interpolation="nearest")
    clean(ax, "a φ⁴ field at its critical point, 256×256")


def risk_map(ax, figure):
    """Posterior mean of the relative risk of lip cancer in the counties of Scotland."""
    shipped = load_model_file("scotland_lip_cancer")
    tree = p4.sample(
        shipped.model, num_warmup=1000, num_samples=1000, seed=5, progress=False
    )
    mean = tree["posterior"]["relative_risk"].values.reshape(-1, 56).mean(axis=0)
    edges, at = (
        tree["constant_data"]["edges"].values,
        tree["constant_data"]["positions"].values,
    )
    ax.plot(
        *np.insert(at[edges], 2, np.nan, axis=1).reshape(-1, 2).T,
        color="0.75",
        lw=0.9,
        zorder=1,
    )
    style = {
        "cmap": "RdBu_r",
        "vmin": -2.3,
        "vmax": 2.3,
        "edgecolors": "0.2",
        "lw": 0.5,
        "zorder": 2,
    }
    dots = ax.scatter(*at.T, c=np.log2(mean), s=110, **style)
    bar = figure.colorbar(
        dots,
        ax=ax,
        location="bottom",
        shrink=0.7,
        aspect=30,
        pad=0.01,
        ticks=[-2, -1, 0, 1, 2],
    )
    bar.ax.set_xticklabels(["¼", "½", "1", "2", "4"])
    clean(ax, "relative risk of lip cancer, counties of Scotland")
    ax.set_frame_on(False)


def restored_digit(ax):
    """A digit with noise and holes, and its posterior mean under a φ⁴ prior learned from other digits."""
    rng = np.random.default_rng(0)
    images, labels = load_digits(return_X_y=True)
    zeros = images[labels == 0].reshape(-1, 8, 8) / 8 - 1
    zeros = zeros + 0.2 * rng.normal(size=zeros.shape)
    lattice = p4.lattice.square(8, periodic=False, diagonals=True)
    family = p4.phi4(
        lattice, w={"nn": 0.1, "diagonal": 0.1}, a=1.0, b=0.3, r=0.0
    ).inhomogeneous()
    prior = p4.fit_likelihood(family, zeros[:130], method="pseudolikelihood").model
    digit, sigma = zeros[130], 0.3
    y, seen = digit + sigma * rng.normal(size=(8, 8)), rng.random((8, 8)) > 1 / 3
    weight, c = np.where(seen, sigma**-2, 0.0), prior.couplings
    field = prior.replace(
        a=c["a"] + weight.ravel() / 2, r=c["r"] - (weight * y).ravel()
    )  # still a φ⁴ field
    tree = p4.sample(
        field,
        kernel="local_hmc",
        num_warmup=300,
        num_samples=500,
        seed=1,
        progress=False,
    )
    restored = tree["posterior"]["phi"].mean(("chain", "draw")).values
    gap = np.full((2, 8), np.nan)
    shown = np.vstack([np.where(seen, y, np.nan), gap, restored])
    colors = plt.get_cmap("gray_r").with_extremes(bad="#9ecae1")
    ax.imshow(shown, cmap=colors, vmin=-1.2, vmax=1.2)
    ax.axhspan(7.5, 9.5, color="white")
    ax.text(3.5, 8.5, "restored", ha="center", va="center", fontsize=12)
    clean(ax, "a digit with holes")
    ax.set_frame_on(False)


def hero():
    figure, axes = plt.subplots(
        1, 3, figsize=(11.5, 4.7), width_ratios=[1, 1.1, 0.5], layout="constrained"
    )
    critical_field(axes[0])
    risk_map(axes[1], figure)
    restored_digit(axes[2])
    for ax in axes:
        ax.set_anchor("N")
    figure.savefig(FOLDER / "hero.png", dpi=130)


def lattices():
    """The sheet of graphs; edges around a periodic boundary are not drawn."""
    L = p4.lattice
    shown = {
        "square(5)": L.square(5),
        "square(5, diagonals=True)": L.square(5, diagonals=True),
        "triangular(4)": L.triangular(4),
        "chain(8)": L.chain(8),
        "hypercubic((3, 3, 3))": L.hypercubic((3, 3, 3)),
        "complete(6)": L.complete(6),
        "bipartite(4, 3)": L.bipartite(4, 3),
        "from_networkx(karate club)": L.from_networkx(nx.karate_club_graph()),
    }
    figure, axes = plt.subplots(2, 4, figsize=(12, 6.2), layout="constrained")
    for ax, (name, lattice) in zip(axes.flat, shown.items(), strict=True):
        lattice.draw(ax=ax)
        ax.set_title(name, fontsize=11)
        ax.set_xlabel("")
        ax.set_frame_on(False)
        ax.margins(0.08)
    figure.savefig(FOLDER / "lattices.png", dpi=130)


def fields():
    """The run of the quickstart: the last field of every chain, and the trace of |m|."""
    model = p4.phi4(p4.lattice.square(8), w=1.0, a=1.9, b=0.175)
    tree = p4.sample(
        model, num_warmup=500, num_samples=1000, seed=2, progress=False
    )
    figure = plt.figure(figsize=(10, 4.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.25, 1])
    axes = top.subplots(1, 4)
    for chain, ax in enumerate(axes):
        phi = tree["posterior"]["phi"].values[chain, -1]
        image = ax.imshow(phi, cmap="RdBu_r", vmin=-2, vmax=2)
        clean(ax, f"chain {chain}: last field")
    top.colorbar(image, ax=axes, label="φ", shrink=0.9)
    trace, histogram = bottom.subplots(1, 2, width_ratios=[3, 1], sharey=True)
    m = tree["posterior"]["abs_magnetization"].values
    for chain, color in enumerate(CHAIN_COLORS):
        trace.plot(m[chain, :200], color=color, lw=1, alpha=0.8)
        histogram.hist(
            m[chain],
            bins=30,
            orientation="horizontal",
            histtype="step",
            color=color,
            lw=1.2,
        )
    trace.set(
        xlabel="draw (the first 200)", ylabel="|m|", ylim=(0, None), xlim=(0, 199)
    )
    histogram.set(xlabel="draws per bin", title="all 1000 draws")
    figure.savefig(FOLDER / "fields.png", dpi=130)


def mass():
    """The run of analysis.md: effective masses, the fit, and its windows."""
    model = p4.phi4(p4.lattice.square(16), w=1.0, a=1.6, b=0.175)
    tree = p4.sample(
        model,
        num_samples=2000,
        seed=1,
        keep_field=False,
        observables=["time_slice_correlator"],
        progress=False,
    )
    fit = p4.analysis.fit_mass(p4.analysis.time_slice_correlator(tree))
    figure = p4.analysis.plot_mass(p4.analysis.effective_mass(tree), fit)
    figure.savefig(FOLDER / "mass.png", dpi=144)


def renormalization(run=None):
    """Fields, couplings and exponents by level of 4,000 critical fields of 64² (renormalization.md)."""
    rg = p4.renormalization
    if run is None:
        model = p4.phi4(p4.lattice.square(64), w=0.680602, a=-1.0, b=1.0)
        settings = {"num_warmup": 200, "num_samples": 1000, "thinning": 8}
        run = p4.sample(model, seed=1, progress=False, **settings)
    averages = rg.block(run, "average", eta=0.25, levels=3)
    figure = plt.figure(figsize=(9.6, 5.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.25))
    for ax, fields in zip(top.subplots(1, 4), averages.fields, strict=True):
        ax.imshow(fields[0, -1], cmap="RdBu_r", vmin=-2, vmax=2)
        clean(ax, f"{fields.shape[2]}²")
    left, middle, right = bottom.subplots(1, 3)
    still = rg.flow(run, "bell_wilson", eta=0.25, levels=3, check=False)
    basis = ("w", "a", "b", "c")
    away = rg.flow(averages, basis=basis, levels=3, check=False)
    for ax, found, title in (
        (left, still, "Bell–Wilson"),
        (middle, away, "averages"),
    ):
        for name, color, marker in zip(
            found.basis, CHAIN_COLORS, "os^D", strict=False
        ):
            errors = np.nan_to_num(found.errors[name])
            style = {"fmt": f"{marker}-", "color": color, "ms": 5, "capsize": 2}
            ax.errorbar(
                range(4), found.couplings[name], errors, label=name, **style
            )
        ax.set(xticks=range(4), xlabel="level", title=title, ylabel="coupling")
        ax.legend(frameon=False, ncols=2)
    exponents = rg.monte_carlo_rg(run, levels=3)
    for step, color, marker in zip((1, 2), CHAIN_COLORS, "os", strict=False):
        rows = [row for row in exponents.table("even", 0.0) if row.step == step]
        label = f"{rows[0].sides[0]}² → {rows[0].sides[1]}²"
        values, errors = [row.exponent for row in rows], [row.error for row in rows]
        style = {"fmt": f"{marker}-", "color": color, "ms": 5, "capsize": 2}
        right.errorbar(
            np.arange(1, 8) + 0.1 * step, values, errors, label=label, **style
        )
    right.axhline(1, color="0.55", lw=1)
    right.set(xlabel="operators kept", ylabel="$y_t$", title="exponent (exact: 1)")
    right.legend(frameon=False)
    for ax in (left, middle, right):
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(FOLDER / "renormalization.png", dpi=144)


def inverse_renormalization():
    """One field of a cascade at four of its sizes (inverse_renormalization.md)."""

    def model(side):
        return p4.phi4(p4.lattice.square(side), w=0.680602, a=-1.0, b=1.0)

    lift = p4.renormalization.exact_conditional_field(model(8), alpha=10.7)
    found = p4.renormalization.cascade(
        model,
        start=8,
        levels=6,
        fields=20,
        lift=lift,
        sweeps=32,
        kernel="local_hmc",
        keep_fields=True,
        seed=3,
    )
    # small lattices are nearly all of one sign: the one of the smallest magnetization
    chosen = np.argmin(np.abs(found.levels[0].fields.mean(axis=(1, 2))))
    figure, axes = plt.subplots(1, 4, figsize=(12, 3.3), layout="constrained")
    for ax, level in zip(axes, found.levels[::2], strict=True):
        ax.imshow(
            level.fields[chosen],
            cmap="RdBu_r",
            vmin=-1.6,
            vmax=1.6,
            interpolation="nearest",
        )
        clean(ax, f"{level.side}²")
    figure.savefig(FOLDER / "inverse_renormalization.png", dpi=130)


PICTURES = {
    "hero": hero,
    "lattices": lattices,
    "fields": fields,
    "mass": mass,
    "renormalization": renormalization,
    "inverse_renormalization": inverse_renormalization,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or PICTURES:
        PICTURES[name]()
