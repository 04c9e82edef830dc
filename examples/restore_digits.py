"""Digits with noise or holes, restored under φ⁴ and Gaussian priors.

The priors were learned from other digits. Pixels seen with Gaussian noise of width
σ leave a φ⁴ prior a φ⁴ field: exp(−S) Π_i exp(−(y_i − φ_i)²/2σ²) has a_i + 1/(2σ²)
and r_i − y_i/σ² where pixel i is seen. So fields are restored by the kernels for
fields; the first one also as a NumPyro model.
"""

import os

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from sklearn.datasets import load_digits

import phi4ppl as p4

tiny = os.environ.get("PHI4PPL_TINY") == "1"
num_test = 2 if tiny else 24
run = (
    {"num_warmup": 100, "num_samples": 100, "num_chains": 2}
    if tiny
    else {"num_warmup": 300, "num_samples": 500}
)
longer = run if tiny else {"num_warmup": 1000, "num_samples": 2000}
rng = np.random.default_rng(0)

images, labels = load_digits(return_X_y=True)
zeros = images[labels == 0].reshape(-1, 8, 8) / 8 - 1
zeros = zeros + 0.2 * rng.normal(
    size=zeros.shape
)  # gray levels are few: a density needs a spread
train, test = zeros[:130], zeros[130 : 130 + num_test]

lattice = p4.lattice.square(8, periodic=False, diagonals=True)
w = {"nn": 0.1, "diagonal": 0.1}
linear = p4.Term("r", np.arange(64)[:, None], p4.terms.source, 0.0)
families = {
    "φ⁴": p4.phi4(lattice, w=w, a=1.0, b=0.3, r=0.0).inhomogeneous(),
    "Gaussian": p4.MarkovRandomField(
        lattice, [*p4.gaussian(lattice, w=w, a=1.0).terms, linear]
    ).inhomogeneous(),
    "homogeneous φ⁴": p4.phi4(lattice, w=w, a=1.0, b=0.3, r=0.0),
}
priors = {
    name: p4.fit_likelihood(family, train, method="pseudolikelihood").model
    for name, family in families.items()
}


def posterior(prior, y, seen, sigma):
    """The field of all pixels given the seen ones."""
    c, weight = prior.couplings, np.where(seen, sigma**-2, 0.0)
    site = {"a": c["a"] + weight.ravel() / 2, "r": c["r"] - (weight * y).ravel()}
    return prior.inhomogeneous("a", "r").replace(**site)


def restore(prior, y, seen, sigma, seed):
    """Posterior draws (n, 8, 8), exact ones of a Gaussian field."""
    field = posterior(prior, y, seen, sigma)
    if "b" not in field.couplings:
        factor = np.linalg.cholesky(
            np.asarray(p4.exact.gaussian_precision(field), float)
        )
        mean = np.linalg.solve(
            factor @ factor.T, -np.asarray(field.couplings["r"], float)
        )
        return (
            mean + np.linalg.solve(factor.T, rng.normal(size=(64, 2000))).T
        ).reshape(-1, 8, 8)
    tree = p4.sample(field, kernel="local_hmc", seed=seed, progress=False, **run)
    return tree["posterior"]["phi"].values.reshape(-1, 8, 8)


def mean_error(values):
    return f"{np.mean(values):.3f} ± {np.std(values) / np.sqrt(len(values)):.3f}"


tasks = {
    "noise of width 0.5": (0.5, 0.0),
    "a third of the pixels missing": (0.1, 1 / 3),
}
shown = {}
for task, (sigma, hole) in tasks.items():
    noisy = test + sigma * rng.normal(size=test.shape)
    seen = rng.random(test.shape) >= hole
    asked = ~seen if hole else seen  # the pixels to be judged by
    print(
        f"\n{task}: root mean square error over {num_test} digits, "
        "coverage of central 90 % intervals"
    )
    baseline = [
        np.where(s, y, train.mean(axis=0)) - t
        for y, s, t in zip(noisy, seen, test, strict=True)
    ]
    errors = [
        np.sqrt((b[k] ** 2).mean()) for b, k in zip(baseline, asked, strict=True)
    ]
    print(
        f"{'mean of training digits' if hole else 'noisy digits':24}"
        f"{mean_error(errors)}"
    )
    for name, prior in priors.items():
        errors, covered, kept = [], [], []
        for k, (y, s, t) in enumerate(zip(noisy, seen, test, strict=True)):
            draws = restore(prior, y, s, sigma, seed=k)
            low, high = np.quantile(draws, [0.05, 0.95], axis=0)
            errors.append(np.sqrt(((draws.mean(axis=0) - t)[asked[k]] ** 2).mean()))
            covered.append(((low < t) & (t < high))[asked[k]].mean())
            kept.append((draws.mean(axis=0), draws.std(axis=0)))
        print(f"{name:24}{mean_error(errors)}   {mean_error(covered)}")
        shown[task, name] = errors, kept, np.where(seen, noisy, np.nan)
    best, other = (np.array(shown[task, name][0]) for name in ("φ⁴", "Gaussian"))
    print(f"φ⁴ less Gaussian, digit by digit: {mean_error(best - other)}")


# the first digit with holes as a NumPyro model, against the exact posterior and
# that of the field
sigma, y, seen = tasks[task][0], noisy[0], seen[0]


def model(prior):
    phi = numpyro.sample("phi", p4.GibbsField(prior))
    with numpyro.handlers.mask(mask=seen):
        numpyro.sample("pixels", dist.Normal(phi, sigma), obs=jnp.asarray(y))


print(f"\nas NumPyro models, {task}:")
for name in ("Gaussian",) if tiny else ("φ⁴", "Gaussian"):
    tree = p4.sample(model, priors[name], seed=1, progress=False, **longer)
    found = p4.estimate(tree, "phi")
    field = posterior(priors[name], y, seen, sigma)
    if name == "Gaussian":
        other = np.linalg.solve(
            p4.exact.gaussian_precision(field), -field.couplings["r"]
        )
        error = found["error"].values
    else:
        again = p4.estimate(
            p4.sample(field, kernel="local_hmc", seed=2, progress=False, **run),
            "phi",
        )
        other, error = (
            again["mean"].values,
            np.hypot(found["error"], again["error"]).values,
        )
    print(f"{name:10}{str(p4.diagnose(tree)).splitlines()[0]}")
    print(
        "          largest difference of a mean from "
        f"{'exact' if name == 'Gaussian' else 'the field kernel'}: ",
        end="",
    )
    print(
        f"{np.abs((found['mean'].values - other) / error).max():.1f} errors, "
        "of 64 pixels"
    )

figure, axes = plt.subplots(4, 5, figsize=(7.2, 6), layout="constrained")
for line, (task, k) in zip(
    axes, [(task, k) for task in tasks for k in (0, 1)], strict=True
):
    (mean, spread), (gauss, _) = (
        shown[task, name][1][k] for name in ("φ⁴", "Gaussian")
    )
    panels = {
        "truth": test[k],
        "seen": shown[task, "φ⁴"][2][k],
        "φ⁴: mean": mean,
        "φ⁴: sd": spread,
        "Gaussian: mean": gauss,
    }
    for ax, (title, values) in zip(line, panels.items(), strict=True):
        low, high = (0, 0.6) if title == "φ⁴: sd" else (-1.2, 1.2)
        ax.imshow(
            values,
            cmap="viridis" if title == "φ⁴: sd" else "gray_r",
            vmin=low,
            vmax=high,
        )
        ax.set(xticks=[], yticks=[], facecolor="#9ecae1")
        if ax in axes[0]:
            ax.set_title(title, fontsize=10)
figure.savefig("restore_digits.png", dpi=110)
