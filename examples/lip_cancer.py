"""Lip cancer in Scotland: relative risks of 56 counties, with errors.

The model is shipped with the library; the results are a table and a map.
"""

import os

import matplotlib.pyplot as plt
import numpy as np

import phi4ppl as p4
from phi4ppl.cli.model_files import load_model_file

draws = 100 if os.environ.get("PHI4PPL_TINY") == "1" else 2000

shipped = load_model_file("scotland_lip_cancer")
print(shipped.summary)
tree = p4.sample(
    shipped.model, num_warmup=max(100, draws // 2), num_samples=draws, seed=5
)
print(p4.diagnose(tree))

posterior = tree["posterior"]
print(p4.estimate(tree, ["beta", "scale", "share"]))

risk = posterior["relative_risk"].values.reshape(-1, 56)
mean, spread = risk.mean(axis=0), risk.std(axis=0)
monte_carlo = p4.estimate(tree, "relative_risk")["error"].values
order = np.argsort(-mean)
print("\ncounty  relative risk  posterior sd     MC error  P(risk > 1)")
for i in [*order[:6], *order[-6:]]:
    print(
        f"{i + 1:>6}  {mean[i]:13.2f}  {spread[i]:12.2f}  {monte_carlo[i]:11.3f}  "
        f"{(risk[:, i] > 1).mean():11.2f}"
    )

edges, at = (
    tree["constant_data"]["edges"].values,
    tree["constant_data"]["positions"].values,
)
figure, ax = plt.subplots(figsize=(6.5, 5.2), layout="constrained")
ax.plot(
    *np.insert(at[edges], 2, np.nan, axis=1).reshape(-1, 2).T,
    color="0.75",
    lw=0.8,
    zorder=1,
)
color, size = np.log2(mean), 70 + 5 * (mean / spread) ** 2
dots = ax.scatter(
    *at.T,
    c=color,
    s=size,
    cmap="RdBu_r",
    vmin=-2.3,
    vmax=2.3,
    edgecolors="0.2",
    lw=0.5,
    zorder=2,
)
for i in range(56):
    ink = "white" if abs(color[i]) > 1.3 else "black"
    ax.annotate(
        str(i + 1), at[i], ha="center", va="center", fontsize=7, color=ink, zorder=3
    )
bar = figure.colorbar(
    dots,
    ax=ax,
    shrink=0.8,
    ticks=[-2, -1, 0, 1, 2],
    label="relative risk, posterior mean",
)
bar.ax.set_yticklabels(["¼", "½", "1", "2", "4"])
ax.set(
    xticks=[], yticks=[], title="Counties of Scotland; larger dots are better known"
)
ax.set_frame_on(False)
figure.savefig("lip_cancer.png", dpi=120)
