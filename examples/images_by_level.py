"""Images by level: couplings fitted to blocked images, and features of φ⁴ machines.

Digits at 8×8, 4×4 and 2×2 pixels. Are the features of the coarse machine the
blocked ones of the fine machine?

python examples/images_by_level.py --data FILE.npz    also couplings of an array
                                                      "faces" (400, 64, 64)
"""

import argparse
import os

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import phi4ppl as p4

rg = p4.renormalization
tiny = os.environ.get("PHI4PPL_TINY") == "1"
parser = argparse.ArgumentParser()
parser.add_argument("--data", help="an .npz file with an array named faces")
path = parser.parse_args().data
hidden, epochs, seeds = (4, 1, 2) if tiny else (16, 100, 3)

digits = load_digits().images[: 200 if tiny else None]
rng = np.random.default_rng(0)
digits = (digits + rng.random(digits.shape)) / 17  # few gray levels, spread
lattice = p4.lattice.square(8, periodic=False)
levels = rg.block(digits, "average", lattice=lattice, levels=2)


def couplings_by_level(images, levels, *further):
    """Differences from the mean image, in units of their spread."""
    images = (images - images.mean(axis=0)) / (images - images.mean(axis=0)).std()
    return rg.flow(
        images,
        "average",
        basis=("w", "a", "e_1", "e_2", *further),
        levels=levels,
        lattice=p4.lattice.square(*images.shape[1:], periodic=False),
        subtract_mean=True,
        method="score_matching" if tiny else "maximum_likelihood",
        check=not tiny,
    )


print("digits:", couplings_by_level(digits, 1))
if path is not None:
    faces = np.load(path)["faces"] / 256
    square = p4.lattice.square(64, periodic=False)
    faces = rg.block(faces, "average", lattice=square, levels=2)[2][0]
    print("faces from 16×16 pixels on:", couplings_by_level(faces, 2, "b"))

machines = [
    [
        p4.networks.Phi4RBM(
            hidden,
            n_epochs=epochs,
            learning_rate=0.01,
            n_annealing_steps=10,
            random_state=seed,
        ).fit(levels[level][0].reshape(len(digits), -1))
        for seed in range(seeds)
    ]
    for level in range(3)
]
overlaps = {}
for fine, coarse in ((0, 1), (1, 2), (0, 2)):
    shape = levels[fine].shape[2:]
    found = rg.compare_features(
        machines[fine], machines[coarse], shape, levels=coarse - fine
    )
    overlaps[fine, coarse] = found
    sides = 8 >> fine, 8 >> coarse
    print("from {0}×{0} to {1}×{1} pixels:".format(*sides), found)

own = np.asarray(machines[0][0].machine_.weights).T.reshape(-1, 8, 8)
strongest = np.argsort(-np.linalg.norm(own.reshape(len(own), -1), axis=1))[:10]
coarse = np.asarray(machines[1][0].machine_.weights).T.reshape(-1, 4, 4)
blocked = rg.blocked_features(machines[0][0], (8, 8))
like = coarse[overlaps[0, 1].matches[0]]
like = like * np.sign(np.sum(like * blocked, axis=(1, 2)))[:, None, None]
lines = {
    "features of the machine of 8×8 pixels": own,
    "the same, blocked": blocked,
    "the most alike of the machine of 4×4 pixels, up to sign": like,
}
figure = plt.figure(figsize=(9, 3.4), layout="constrained")
for part, (title, fields) in zip(
    figure.subfigures(len(lines)), lines.items(), strict=True
):
    part.suptitle(title, x=0.01, ha="left", fontsize=9)
    for ax, field in zip(
        part.subplots(1, len(strongest)), fields[strongest], strict=True
    ):
        size = np.abs(field).max()
        ax.imshow(field, cmap="RdBu_r", vmin=-size, vmax=size)
        ax.set(xticks=[], yticks=[])
figure.savefig("images_by_level.png", dpi=110)
