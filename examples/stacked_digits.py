"""Two machines on top of each other on handwritten digits.

The bound and the features of every depth, and samples.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from phi4ppl import networks

tiny = os.environ.get("PHI4PPL_TINY") == "1"
sizes, epochs, draws = ((4, 3), 1, 2) if tiny else ((64, 64), 60, 50)

# gray levels 0, …, 16 are spread over [0, 17), so that a density is meant
X, y = load_digits(return_X_y=True)
X = X + np.random.default_rng(0).random(X.shape)
train, test, y_train, y_test = train_test_split(
    X, y, test_size=0.25, random_state=0, stratify=y
)
train, y_train = (train[:200], y_train[:200]) if tiny else (train, y_train)

settings = {"n_epochs": epochs, "n_annealing_steps": 20 if tiny else 400}
lower, upper = (
    networks.Phi4BernoulliRBM(sizes[0], **settings),
    networks.BernoulliBernoulliRBM(sizes[1], **settings),
)
stack = networks.DeepPhi4Network([lower, upper], n_draws=draws, random_state=0).fit(
    train
)

print(
    "| depth | bound on the test log density, nats | ± of the bound "
    "| accuracy of a linear classifier, % |"
)
print("|---|---|---|---|")
for bound in stack.bounds(test):
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    classifier.fit(stack.transform(train, depth=bound.depth), y_train)
    share = classifier.score(stack.transform(test, depth=bound.depth), y_test)
    accuracy = (
        f"{100 * share:.1f} ± {100 * np.sqrt(share * (1 - share) / len(test)):.1f}"
    )
    print(
        f"| {bound.depth} | {bound.value:.2f} ± {bound.spread:.2f} "
        f"| {bound.error:.2f} | {accuracy} |"
    )

pictures = {
    "test images": test[:12],
    "up and down again": stack.sample(1, n_sweeps=0, start=test[:12])[0],
    "after 20 sweeps of the top": stack.sample(1, n_sweeps=20, start=test[:12])[0],
    "samples": stack.sample(12, n_sweeps=10 if tiny else 1000),
}
figure = plt.figure(figsize=(9, 3.4), layout="constrained")
for part, (name, images) in zip(
    figure.subfigures(len(pictures)), pictures.items(), strict=True
):
    part.suptitle(name, x=0.01, ha="left", fontsize=9)
    for ax, picture in zip(part.subplots(1, 12), images, strict=True):
        ax.imshow(picture.reshape(8, 8), vmin=0, vmax=17, cmap="gray_r")
        ax.set(xticks=[], yticks=[])
figure.savefig("stacked_digits.png", dpi=100)
