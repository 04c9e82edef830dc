"""The lower halves of handwritten digits from the upper ones.

A fitted machine serves as a prior, by block Gibbs sampling and in NumPyro.
"""

import os

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
from numpyro.distributions import ImproperUniform, constraints
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import phi4ppl as p4
from phi4ppl.networks import VisibleMarginal

tiny = os.environ.get("PHI4PPL_TINY") == "1"
hidden, epochs, number, sweeps, samples = (
    (4, 1, 12, 5, 20) if tiny else (64, 60, 100, 100, 1000)
)

# gray levels 0, …, 16 are spread over [0, 17), so that a density is meant
X = load_digits().data
X = X + np.random.default_rng(0).random(X.shape)
train, test = train_test_split(
    X, test_size=0.25, random_state=0, stratify=load_digits().target
)
test = test[:12] if tiny else test
known = np.arange(64) < 32

machine = p4.networks.Phi4BernoulliRBM(hidden, n_epochs=epochs, random_state=0).fit(
    train
)
draws = machine.complete(test, known, n_draws=number, n_sweeps=sweeps)

# the conditional mean of a Gaussian with the moments of the training images
mean, covariance = train.mean(axis=0), np.cov(train.T)
slope = np.linalg.solve(
    covariance[np.ix_(known, known)], covariance[np.ix_(known, ~known)]
)
gaussian = test.copy()
gaussian[:, ~known] = mean[~known] + (test - mean)[:, known] @ slope

print("| lower half from | root-mean-square error, gray levels |\n|---|---|")
guesses = {
    "mean image": np.where(known, test, mean),
    "Gaussian, conditional mean": gaussian,
    "Phi4BernoulliRBM, mean of completions": draws.mean(axis=0),
}
square = {
    name: ((guess - test)[:, ~known] ** 2).mean(axis=1)
    for name, guess in guesses.items()
}
for name, errors in square.items():
    root = np.sqrt(errors.mean())
    print(
        f"| {name} | {root:.3f} ± "
        f"{errors.std() / np.sqrt(len(test)) / (2 * root):.3f} |"
    )
gain = (
    square["Gaussian, conditional mean"]
    - square["Phi4BernoulliRBM, mean of completions"]
)
print(
    "\nsquare errors, Gaussian minus Phi4BernoulliRBM: "
    f"{gain.mean():.2f} ± {gain.std() / np.sqrt(len(test)):.2f}"
)

# the first image again, as a NumPyro model: hidden units are integrated out, and
# NUTS moves the unknown pixels
prior = VisibleMarginal(machine.machine_)
given = (test[0] - machine.mean_)[known] / machine.scale_[known]


def image():
    rest = numpyro.sample(
        "rest", ImproperUniform(constraints.real_vector, (), (32,))
    )
    numpyro.factor(
        "prior",
        prior.log_prob(jnp.concatenate([jnp.asarray(given, rest.dtype), rest])),
    )


tree = p4.sample(image, kernel="nuts", num_warmup=samples, num_samples=samples)
table = p4.estimate(tree, "rest")
gibbs = (
    machine.complete(test[:1], known, n_draws=10 * number, n_sweeps=sweeps)
    - machine.mean_
) / machine.scale_
gibbs = gibbs[:, 0, ~known]
error = np.hypot(table["error"], gibbs.std(axis=0) / np.sqrt(len(gibbs)))
score = np.abs(table["mean"] - gibbs.mean(axis=0)) / error
print(
    "NUTS and block Gibbs, means of 32 pixels: largest distance "
    f"{score.max():.1f} errors, median {score.median():.1f}"
)

figure = plt.figure(figsize=(9, 4.9), layout="constrained")
pictures = {
    "test images": test[:12],
    "given": np.where(known, test[:12], np.nan),
    "mean of completions": draws.mean(axis=0)[:12],
    "a completion": draws[0, :12],
    "another": draws[1, :12],
    "Gaussian, conditional mean": gaussian[:12],
}
for part, (name, images) in zip(
    figure.subfigures(len(pictures)), pictures.items(), strict=True
):
    part.suptitle(name, x=0.01, ha="left", fontsize=9)
    for ax, picture in zip(part.subplots(1, 12), images, strict=True):
        ax.imshow(picture.reshape(8, 8), vmin=0, vmax=17, cmap="gray_r")
        ax.set(xticks=[], yticks=[])
figure.savefig("complete_digits.png", dpi=100)
