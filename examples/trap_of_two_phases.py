"""The trap of two phases: everything looks perfect, and the answer is wrong.

R̂ = 1.00, a large effective sample size and no divergence. φ⁴ theory on 12×12 deep
in the broken phase: the model is even, so ⟨m⟩ = 0, but a chain started at positive
field stays there.
"""

import os

import matplotlib.pyplot as plt
import xarray as xr

import phi4ppl as p4

draws = 200 if os.environ.get("PHI4PPL_TINY") == "1" else 1000
model = p4.phi4(p4.lattice.square(12), w=1.0, a=1.2, b=0.175)


def run(symmetry_moves):
    settings = {
        "num_warmup": draws,
        "num_samples": draws,
        "kernel": "nuts",
        "seed": 3,
    }
    return p4.sample(model, symmetry_moves=symmetry_moves, **settings)


def show(title, tree):
    m = p4.estimate(tree, "magnetization").loc["magnetization"]
    print(
        f"\n{title}: ⟨m⟩ = {m['mean']:+.4f} ± {m['error']:.4f} (exact: 0)\n"
        f"{p4.diagnose(tree)}"
    )


without, with_moves = run(symmetry_moves=False), run(symmetry_moves=True)

# Chains 0 and 2 started at positive field. By themselves they look perfect; only
# the count of sign changes objects.
one_side = without.copy()
for group in ("posterior", "sample_stats"):
    one_side[group] = xr.DataTree(without[group].to_dataset().isel(chain=[0, 2]))
show("No sign moves, chains that started on one side", one_side)
show("No sign moves, starts on both sides (the library's own)", without)
show("With the exact sign move (the default)", with_moves)

figure, axes = plt.subplots(
    2, 1, figsize=(7, 4.5), sharex=True, sharey=True, layout="constrained"
)
titles = (
    "Without sign moves: every chain stays where it started",
    "With sign moves: every chain visits both phases",
)
for ax, tree, title in zip(axes, (without, with_moves), titles, strict=True):
    ax.axhline(0, color="0.7", lw=0.8)
    for chain, series in enumerate(tree["posterior"]["magnetization"].values):
        ax.plot(series[:200], ".", ms=3, label=f"chain {chain}")
    ax.set_title(title, fontsize=10)
    ax.set_ylabel("magnetization m")
axes[1].set_xlabel("draw")
axes[0].legend(loc="center right", fontsize=8, framealpha=1)
figure.savefig("trap_of_two_phases.png", dpi=120)
