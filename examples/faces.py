"""Olivetti faces: a machine of 4096 φ⁴ pixels.

Its weights, samples, reconstructions and completions.

python examples/faces.py --data FILE.npz    an array "faces" of shape
                                            (400, 64, 64), of any gray levels
python examples/faces.py                    the same images by scikit-learn's
                                            loader, over the network
"""

import argparse
import os
import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import fetch_olivetti_faces

from phi4ppl import networks

parser = argparse.ArgumentParser()
parser.add_argument("--data", help="an .npz file with an array named faces")
tiny = os.environ.get("PHI4PPL_TINY") == "1"
hidden, epochs, sweeps = (4, 1, 2) if tiny else (200, 200, 200)

path = parser.parse_args().data
if path is not None:
    faces = np.load(path)["faces"]
elif tiny:  # something to run on without a file and without the network
    faces = np.random.default_rng(0).random((40, 8, 8))
else:
    faces = fetch_olivetti_faces().images
size = faces.shape[1]
faces = faces.reshape(len(faces), -1) / faces.max()

# ten images a person, in order: the last four persons are not trained on
number = len(faces) // 10
test, train = faces[-number:], faces[:-number]
train = np.concatenate(
    [train, train.reshape(-1, size, size)[:, :, ::-1].reshape(train.shape)]
)

begin = time.perf_counter()
machine = networks.Phi4RBM(
    hidden, n_epochs=epochs, batch_size=90, learning_rate=0.002, random_state=0
)
machine.fit(train)
print(
    f"trained on {len(train)} images with {hidden} hidden units in "
    f"{time.perf_counter() - begin:.0f} s"
)


def error(guess, where):
    """Root-mean-square distance to the test images, with its error over images."""
    square = ((guess - test)[:, where] ** 2).mean(axis=1)
    root = np.sqrt(square.mean())
    return f"{root:.4f} ± {square.std() / np.sqrt(len(test)) / (2 * root):.4f}"


known = np.arange(size * size) % size < size // 2  # the left half
draws = machine.complete(test, known, n_draws=4 if tiny else 20, n_sweeps=sweeps)
reconstructed = machine.reconstruct(test)
print(
    f"gray levels from 0 to 1, {len(test)} images of persons not trained on, "
    "root-mean-square errors:"
)
print(
    "mean face "
    f"{error(np.broadcast_to(train.mean(axis=0), test.shape), ~known)} "
    "on the right half"
)
print(f"completions {error(draws.mean(axis=0), ~known)} on the right half")
print(f"reconstructions {error(reconstructed, slice(None))} on all pixels")

shown = np.arange(8) * len(test) // 8
strongest = np.argsort(-np.linalg.norm(machine.machine_.weights, axis=0))
weights = np.asarray(machine.machine_.weights).T[np.resize(strongest, 8)]
pictures = {
    "weights of hidden units": weights / np.abs(weights).max(axis=1, keepdims=True),
    "samples": machine.sample(8, n_sweeps=sweeps),
    "test images": test[shown],
    "reconstructions": reconstructed[shown],
    "given": np.where(known, test[shown], np.nan),
    "mean of completions": draws.mean(axis=0)[shown],
    "a completion": draws[0, shown],
}
figure = plt.figure(figsize=(8, 8), layout="constrained")
for part, (name, images) in zip(
    figure.subfigures(len(pictures)), pictures.items(), strict=True
):
    part.suptitle(name, x=0.01, ha="left", fontsize=9)
    signed = name.startswith("weights")
    for ax, picture in zip(part.subplots(1, 8), images, strict=True):
        ax.imshow(
            picture.reshape(size, size),
            vmin=-signed,
            vmax=1,
            cmap="RdBu_r" if signed else "gray",
        )
        ax.set(xticks=[], yticks=[])
figure.savefig("faces.png", dpi=70)
