"""Images twice as large: a conditional field against bicubic interpolation.

Held-out digits, patches of photographs and, with a file, faces.

python examples/enlarge_images.py                     digits and photographs, which
                                                      come with scikit-learn
python examples/enlarge_images.py --data FILE.npz     also an array "faces" of shape
                                                      (400, 64, 64), ten a person
Gray levels are from 0 to 1; --noise is that of a pixel of the small image.
"""

import argparse
import os

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits, load_sample_images

import phi4ppl as p4

rg = p4.renormalization
tiny = os.environ.get("PHI4PPL_TINY") == "1"
parser = argparse.ArgumentParser()
parser.add_argument("--data", help="an .npz file with an array named faces")
parser.add_argument("--noise", type=float, default=0.01, help="of a coarse pixel")
path, noise = parser.parse_args().data, parser.parse_args().noise
rng = np.random.default_rng(0)
patch = 16 if tiny else 32


def patches(photo):
    """Gray levels in squares, and the strip that each square is from."""
    rows, columns = (n // patch for n in photo.shape)
    cut = photo[: rows * patch, : columns * patch]
    cut = cut.reshape(rows, patch, columns, patch).transpose(2, 0, 1, 3)
    return cut.reshape(-1, patch, patch), np.repeat(np.arange(columns), rows)


# images to train on, images held out, and groups of these that may be alike
digits = load_digits().images
digits = (digits + rng.random(digits.shape)) / 17  # few gray levels, spread
sets = {"digits": (digits[:1300], digits[1300:], None)}
photos = [photo.mean(axis=2) / 255 for photo in load_sample_images().images]
left = [patches(photo[:, :320])[0] for photo in photos]
right = [patches(photo[:, 320:]) for photo in photos]
strips = np.concatenate([1000 * k + strip for k, (_, strip) in enumerate(right)])
sets["photographs"] = (
    np.concatenate(left),
    np.concatenate([images for images, _ in right]),
    strips,
)
if path is not None:
    faces = np.load(path)["faces"]
    faces = (faces + rng.random(faces.shape)) / 256
    sets["faces"] = (faces[:300], faces[300:], np.arange(100) // 10)


def blocked(images, seed):
    """Means of two by two pixels, with noise."""
    lattice = p4.lattice.square(*images.shape[1:], periodic=False)
    rule = rg.BellWilson(alpha=noise**-2)
    return rg.block(images, rule, lattice=lattice, seed=seed)[1][0]


shown = {}
for name, (train, test, groups) in sets.items():
    if tiny:
        train, test = train[:100], test[:20]
        groups = None if groups is None else groups[:20] + np.arange(20) // 10
    settings = {"eta": 0.0, "sweeps": 64, "periodic": False, "subtract_mean": True}
    settings["gaussian"] = True  # the conditional mean is then exact
    lift = rg.train_conditional_field(blocked(train, 1), train, **settings)
    coarse = blocked(test, 2)
    ways = {
        "conditional field": lift,
        "bicubic, means restored": rg.Bicubic(eta=0.0, rounds=5),
        "bicubic": rg.Bicubic(eta=0.0),
        "copy": rg.Copy(eta=0.0),
    }
    found = rg.held_out_errors(ways, coarse, test, groups=groups, peak=1.0)
    print(f"\n{name}: {found}")
    for other in ("bicubic, means restored", "bicubic"):
        gain, error = found.difference(other, "conditional field")
        share = 100 / found.rows[other].mse
        print(
            f"  conditional field against {other}: "
            f"{share * gain:.1f} ± {share * error:.1f} % less"
        )
    k = len(test) // 3
    panels = {"given": coarse, **found.estimates, "truth": test}
    shown[name] = {way: images[k] for way, images in panels.items()}

figure, axes = plt.subplots(
    len(shown), 7, figsize=(11, 1.75 * len(shown)), layout="constrained"
)
for line, (name, panels) in zip(axes, shown.items(), strict=True):
    low, high = (0, 1) if name == "digits" else np.quantile(panels["truth"], [0, 1])
    colors = "gray_r" if name == "digits" else "gray"
    for ax, (way, image) in zip(line, panels.items(), strict=True):
        ax.imshow(image, vmin=low, vmax=high, cmap=colors)
        ax.set(xticks=[], yticks=[])
        if name == "digits":
            title = way.replace("conditional field", "mean of field", 1)
            title = title.replace("mean of field, one draw", "one draw")
            ax.set_title(title.replace(", means", ",\nmeans"), fontsize=9)
    line[0].set_ylabel(name)
figure.savefig("enlarge_images.png", dpi=110)
