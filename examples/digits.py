"""Handwritten digits: φ⁴ machines beside binary and Gaussian ones.

One table compares them as features and as densities.
"""

import os
import time

import matplotlib.pyplot as plt
import numpy as np
from optax import cosine_decay_schedule
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from phi4ppl import networks

tiny = os.environ.get("PHI4PPL_TINY") == "1"
hidden, epochs, steps, splits = (4, 1, 20, 1) if tiny else (64, 600, 1000, 3)
kinds = networks.GaussianBernoulliRBM, networks.Phi4BernoulliRBM, networks.Phi4RBM


def images(split):
    """Gray levels 0, …, 16 spread over [0, 17), so that densities are meaningful.

    No level of a pixel is impossible: each pixel has a random one in one training
    image. For accuracies, and for tests of any kind, images are as they are.
    """
    rng = np.random.default_rng(split)
    X, y = load_digits(return_X_y=True)
    X = X + rng.random(X.shape)
    seen, test, y_seen, y_test = train_test_split(
        X, y, test_size=0.25, random_state=split, stratify=y
    )
    seen, y_seen = (seen[:200], y_seen[:200]) if tiny else (seen, y_seen)
    train = seen.copy()
    train[rng.integers(len(train), size=64), np.arange(64)] = 17 * rng.random(64)
    return train, seen, test, y_seen, y_test


accuracies, densities, errors, seconds = {}, {}, {}, {}
for split in range(splits):
    train, seen, test, y_seen, y_test = images(split)

    def accuracy(features):
        classifier = make_pipeline(
            StandardScaler(), LogisticRegression(max_iter=2000)
        )
        return classifier.fit(features(seen), y_seen).score(features(test), y_test)  # noqa: B023

    accuracies["pixels", split] = accuracy(lambda x: x)
    binary = BernoulliRBM(
        hidden, learning_rate=0.05, n_iter=min(epochs, 100), random_state=split
    ).fit(seen / 17)
    accuracies["scikit-learn's BernoulliRBM", split] = accuracy(
        lambda x, binary=binary: binary.transform(x / 17)
    )
    for name, data in (
        ("Gaussian, full covariance", train),
        ("the same, images as they are", seen),
    ):
        densities[name, split] = multivariate_normal(
            data.mean(axis=0), np.cov(data.T)
        ).logpdf(test)
    schedule = cosine_decay_schedule(0.01, epochs * (len(train) // 100), 0.02)
    for kind in kinds[::2] if tiny else kinds:
        machine = kind(
            hidden,
            n_epochs=epochs,
            learning_rate=schedule,
            weight_decay=0.1,
            n_annealing_steps=steps,
            random_state=split,
        )
        start = time.process_time()
        machine.fit(train)
        name = kind.__name__
        seconds[name, split] = time.process_time() - start
        accuracies[name, split] = accuracy(machine.transform)
        densities[name, split] = machine.score_samples(test)
        errors[name, split] = machine.log_partition().error

print(f"Means over {splits} splits; ± is the error of one of them.\n")
print(
    "| model | accuracy, % | log density, nats: mean | median "
    "| minus Gaussian–Bernoulli | minus Gaussian | ± of log Z | CPU s |"
)
print("|---|---|---|---|---|---|---|---|")


def over_splits(table, name):
    return np.array([table.get((name, split), np.nan) for split in range(splits)])


def difference(name, other, split):
    """Mean over test images and its error, that of log Z included."""
    change = densities[name, split] - densities[other, split]
    known = [errors.get((which, split), 0.0) for which in (name, other)]
    return change.mean(), np.hypot(
        change.std() / np.sqrt(len(change)), np.hypot(*known)
    )


def told(values, digits=1):
    mean, error = np.mean(values, axis=0)
    return f"{mean:+.{digits}f} ± {error:.{digits}f}"


names = dict.fromkeys(name for name, _ in [*accuracies, *densities])
for name in names:
    share = over_splits(accuracies, name).mean()
    cells = [
        ""
        if np.isnan(share)
        else f"{100 * share:.1f} ± "
        f"{100 * np.sqrt(share * (1 - share) / len(test)):.1f}"
    ]
    if (name, 0) in densities:
        found = np.array([densities[name, split] for split in range(splits)])
        cells += [
            f"{found.mean():.1f} ± "
            f"{found.std(axis=1).mean() / np.sqrt(len(test)):.1f}",
            f"{np.median(found):.1f}",
        ]
        for other in ("GaussianBernoulliRBM", "Gaussian, full covariance"):
            cells.append(
                ""
                if name == other
                else told(
                    [difference(name, other, split) for split in range(splits)]
                )
            )
    if (name, 0) in seconds:
        cells += [
            f"{over_splits(errors, name).mean():.2f}",
            f"{over_splits(seconds, name).mean():.0f}",
        ]
    print("|", " | ".join([name, *cells, *[""] * (7 - len(cells))]), "|")
for name in (kind.__name__ for kind in kinds[2 if tiny else 1 :]):
    each = (
        difference(name, "GaussianBernoulliRBM", split) for split in range(splits)
    )
    print(
        f"{name} less GaussianBernoulliRBM, split by split:",
        ", ".join(f"{d:+.1f} ± {e:.1f}" for d, e in each),
    )

figure, axes = plt.subplots(4, 12, figsize=(9, 3.4), layout="constrained")
strongest = np.argsort(-np.abs(np.asarray(machine.machine_.weights)).sum(axis=0))
pictures = {
    "weights": np.resize(
        np.asarray(machine.machine_.weights).T[strongest], (12, 64)
    ),
    "test images": test[:12],
    "reconstructions": machine.reconstruct(test[:12]),
    "samples": machine.sample(12, n_sweeps=10 if tiny else 1000),
}
for line, (name, rows) in zip(axes, pictures.items(), strict=True):
    line[0].set_title(name, loc="left", fontsize=9)
    for ax, image in zip(line, rows, strict=True):
        size = np.abs(image).max() if name == "weights" else 17
        low, colors = (-size, "RdBu_r") if name == "weights" else (0, "gray_r")
        ax.imshow(image.reshape(8, 8), vmin=low, vmax=size, cmap=colors)
        ax.set(xticks=[], yticks=[])
figure.savefig("digits.png", dpi=110)
