"""Handwritten digits: φ⁴ machines beside binary and Gaussian ones, as features and as densities, in one table."""

import os

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from phi4ppl import networks

tiny = os.environ.get("PHI4PPL_TINY") == "1"
hidden, epochs, steps = (4, 1, 20) if tiny else (64, 60, 400)

# grey levels 0, …, 16 are spread over [0, 17), so that a density is meant
X, y = load_digits(return_X_y=True)
X = X + np.random.default_rng(0).random(X.shape)
train, test, y_train, y_test = train_test_split(X, y, test_size=0.25, random_state=0, stratify=y)
train, y_train = (train[:200], y_train[:200]) if tiny else (train, y_train)


def accuracy(features):
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(features(train), y_train)
    share = classifier.score(features(test), y_test)
    return f"{100 * share:.1f} ± {100 * np.sqrt(share * (1 - share) / len(test)):.1f}"


def row(name, accurate, log_density=None, error=0.0):
    density = (
        ""
        if log_density is None
        else f"{log_density.mean():.1f} ± {log_density.std() / np.sqrt(len(test)):.1f} | {np.median(log_density):.1f}"
    )
    density = density or " | "
    print(f"| {name} | {accurate} | {density} | {error:.2f} |", flush=True)


print("| model | accuracy, % | test log density, nats: mean | median | ± of log Z |\n|---|---|---|---|---|")
row("pixels", accuracy(lambda x: x))
binary = BernoulliRBM(hidden, learning_rate=0.05, n_iter=max(1, epochs // 2), random_state=0).fit(train / 17)
row("scikit-learn's BernoulliRBM", accuracy(lambda x: binary.transform(x / 17)))
normal = multivariate_normal(train.mean(axis=0), np.cov(train.T))
row("Gaussian, full covariance", "", normal.logpdf(test))
kinds = networks.GaussianBernoulliRBM, networks.Phi4BernoulliRBM, networks.Phi4RBM
for kind in kinds[-1:] if tiny else kinds:
    machine = kind(hidden, n_epochs=epochs, n_annealing_steps=steps, random_state=0).fit(train)
    row(kind.__name__, accuracy(machine.transform), machine.score_samples(test), machine.log_partition().error)

figure, axes = plt.subplots(4, 12, figsize=(9, 3.4), layout="constrained")
strongest = np.argsort(-np.abs(np.asarray(machine.machine_.weights)).sum(axis=0))
pictures = {
    "weights": np.resize(np.asarray(machine.machine_.weights).T[strongest], (12, 64)),
    "test images": test[:12],
    "reconstructions": machine.reconstruct(test[:12]),
    "samples": machine.sample(12, n_sweeps=10 if tiny else 1000),
}
for line, (name, images) in zip(axes, pictures.items(), strict=True):
    line[0].set_title(name, loc="left", fontsize=9)
    for ax, image in zip(line, images, strict=True):
        size = np.abs(image).max() if name == "weights" else 17
        low, colors = (-size, "RdBu_r") if name == "weights" else (0, "gray_r")
        ax.imshow(image.reshape(8, 8), vmin=low, vmax=size, cmap=colors)
        ax.set(xticks=[], yticks=[])
figure.savefig("digits.png", dpi=110)
