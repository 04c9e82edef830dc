"""A gray-scale picture as the equilibrium configuration of a φ⁴ field.

It is fitted by score matching and drawn back by sampling. One picture says nothing
about its own spread, so it comes as 500 copies with noise of width 0.05. Every edge
and site gets its own coupling: 16,257 of them on the 64×64 pixels of a face, from
one sparse linear solve.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import fetch_olivetti_faces, load_digits

import phi4ppl as p4

tiny = os.environ.get("PHI4PPL_TINY") == "1"
picture = (
    load_digits().images[3] / 16 if tiny else fetch_olivetti_faces().images[0]
)  # the faces are downloaded once
picture = 2 * picture - 1
rng = np.random.default_rng(0)
data = picture + 0.05 * rng.normal(size=(500, *picture.shape))

lattice = p4.lattice.square(*picture.shape, periodic=False)
family = p4.phi4(lattice, a=1.0, b=0.1, r=0.0).inhomogeneous("w", "a", "r")
fit = p4.fit_likelihood(family, data)
print(fit)

settings = {
    "num_warmup": 300,
    "num_samples": 50,
    "num_chains": 2,
    "thinning": 4,
    "kernel": "local_hmc",
    "seed": 1,
}
tree = p4.sample(fit.model, **settings)
fields = tree["posterior"]["phi"].values.reshape(-1, *picture.shape)
correlation = [
    np.corrcoef(field.ravel(), picture.ravel())[0, 1] for field in fields
]
print(
    f"correlation of {len(fields)} sampled fields with it: "
    f"{np.mean(correlation):.3f}, at least {min(correlation):.3f}"
)

hopping = np.zeros(
    lattice.num_sites
)  # Σ_j w_ij, what ties a pixel to its neighbors
np.add.at(hopping, lattice.edges.ravel(), np.repeat(fit.model.couplings["w"], 2))
panels = {
    "the picture": picture,
    "one noisy copy": data[0],
    "a sampled field": fields[-1],
    "mean of sampled fields": fields.mean(axis=0),
    "source r": fit.model.couplings["r"].reshape(picture.shape),
    "Σ w of a pixel": hopping.reshape(picture.shape),
}
figure, axes = plt.subplots(1, 6, figsize=(13, 2.6), layout="constrained")
for ax, (title, values) in zip(axes, panels.items(), strict=True):
    ax.imshow(values, cmap="gray" if title[0] != "s" else "gray_r")
    ax.set(title=title, xticks=[], yticks=[])
figure.savefig("picture_as_field.png", dpi=110)
