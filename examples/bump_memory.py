"""A bump of activity remembers a stimulus: the neural field of Amari, with a film.

A stimulus of half a time unit leaves a bump that stays where it was put. Its width
D solves D e^(−D) = 0.3 for the kernel (1 − |x|) e^(−|x|): 1.7813370.
"""

import os

import numpy as np

import phi4ppl as p4

tiny = os.environ.get("PHI4PPL_TINY") == "1"
h, sites = 0.05, 400
x = (np.arange(sites) - sites / 2) * h
ring = p4.lattice.chain(sites)


def kernel(r):
    return (1 - r) * np.exp(-r)


places, found = (-4.03,) if tiny else (-4.03, 0.0, 5.48), []
for place in places:
    stimulus = 3.0 * np.exp(-((x - place) ** 2))

    def drive(t, stimulus=stimulus):
        return stimulus * (t < 0.5)

    process = p4.dynamics.NeuralField(ring, kernel, 0.3, spacing=h, drive=drive)
    tree = p4.dynamics.evolve(process, np.zeros(sites), time=30, every=0.5)
    u = tree["evolution"]["phi"].values[0, -1]
    share = np.asarray(process.firing(u))
    center, width = (share * x).sum() / share.sum(), share.sum() * h
    print(f"stimulus at {place:5.2f}: bump at {center:5.2f}, {width:.3f} wide")
    assert abs(center - place) < 0.06 and abs(width - 1.781) < 0.01

p4.dynamics.plot(tree).savefig("bump_memory.png", dpi=120)
p4.dynamics.animate(tree, "bump_memory.gif", max_frames=10 if tiny else 60)
