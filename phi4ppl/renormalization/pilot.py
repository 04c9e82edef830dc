"""Short runs of two sizes that find where U₄ and ξ/L cross, and the window of couplings that is worth sampling at each size."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..analysis.named import QUANTITIES
from ..errors import ArgumentError
from ..errors.streams import stream_seed
from ..results.ensemble_run import sample_ensemble

__all__ = ["Window", "window_around_crossing"]

# of U₄ on either side of the crossing: a polynomial of degree four is exact there within errors, and couplings overlap
SPREAD = 0.035
FLATTEST, STEEPEST = 0.5, 2.5  # 1/ν, which two noisy slopes cannot fix


class Window(NamedTuple):
    """Couplings worth sampling: ``number`` of them around ``center``, of half-width ``half`` at ``size`` and shrinking.

    The half-width is at least ``least``: a third of how far the center moved last. Crossings approach the critical point by a
    factor of four or more from one pair of sizes to the next, so that it lies no farther than that.
    """

    center: float
    half: float
    size: int
    inverse_nu: float
    number: int
    least: float = 0.0

    def at(self, size: int) -> np.ndarray:
        half = max(self.half * (self.size / size) ** self.inverse_nu, self.least)
        return self.center + half * np.linspace(-1, 1, self.number)

    def moved(self, one: tuple[np.ndarray, np.ndarray], two: tuple[np.ndarray, np.ndarray]) -> Window:
        """Around where ξ/L of the two largest sizes so far cross: small sizes cross away from the critical point.

        Each of them is couplings and values, almost a straight line in its window. Far outside the second window a crossing is
        not believed.
        """
        (slope, level), (steep, other) = (np.polyfit(y - self.center, v, 1) for y, v in (one, two))
        reach = float(np.ptp(two[0]))
        shift = float(np.clip((level - other) / (steep - slope), -reach, reach))
        return self._replace(center=self.center + shift, least=abs(shift) / 3)


def window_around_crossing(
    models: dict, name: str, values: np.ndarray, records: dict, *, seed: int, **settings
) -> Window:
    """Couplings around the critical one, as many as ``values``, from two short runs of the two smallest sizes.

    The first run finds where U₄ crosses; the second one, in a window around it, where ξ/L does. Curves of small lattices cross
    away from the critical point, U₄ farther than ξ/L, and a window off center needs scaling functions of a higher degree. The
    half-width is that in which U₄ changes by 0.035, from its slopes at the two sizes, which also give the power of L.

    Raises
    ------
    ArgumentError
        If the two do not cross between the first and the last of ``values``.
    """
    one, two = sorted(models)[:2]

    def curves(size: int, couplings: np.ndarray, stage: str):
        # with the observables of the runs that follow: one program serves all
        run = {"seed": stream_seed(seed, stage, size), "keep_field": False, "observables": records[size]}
        tree = sample_ensemble(models[size], {name: couplings}, **run, **settings)
        return _dimensionless(tree, models[size].lattice)

    cumulants = [curves(size, values, "pilot")[0] for size in (one, two)]
    apart = cumulants[1] - cumulants[0]
    crossing = np.flatnonzero(apart[:-1] * apart[1:] <= 0)
    slopes = np.diff(apart) / np.diff(values)
    if not len(crossing):
        got = f"curves of sizes {one} and {two} that do not cross there"
        fix = "Search a wider range, or give a function from the size to its couplings."
        raise ArgumentError("vary", f"a range of {name} with the critical coupling", got, fix, reason="no_crossing")
    k = crossing[np.argmax(np.abs(slopes[crossing]))]  # far from the crossing the curves agree, but for noise
    center = values[k] - apart[k] / slopes[k] if slopes[k] else values[k]
    near, far = (abs(np.diff(u)[k] / np.diff(values)[k]) for u in cumulants)
    window = _window(float(center), near, far, (one, two), values)
    points = {size: window.at(size) for size in (one, two)}
    found = {size: curves(size, points[size], "around") for size in points}
    near, far = (abs(np.polyfit(points[size] - window.center, found[size][0], 1)[0]) for size in points)
    window = _window(window.center, near, far, (one, two), values)
    if all(np.all(np.isfinite(ratio)) for _, ratio in found.values()):
        window = window.moved(*((points[size], found[size][1]) for size in points))._replace(least=0.0)
    return window


def _window(center: float, near: float, far: float, sizes: tuple[int, int], values: np.ndarray) -> Window:
    """From the slopes of U₄ at two sizes."""
    one, two = sizes
    inverse_nu = float(np.clip(np.log(max(far, 1e-9) / max(near, 1e-9)) / np.log(two / one), FLATTEST, STEEPEST))
    return Window(center, min(SPREAD / max(near, 1e-9), float(np.ptp(values))), one, inverse_nu, len(values))


def _dimensionless(tree, lattice) -> tuple[np.ndarray, np.ndarray]:
    """U₄ and ξ/L at each coupling; the second is NaN where noise hides the correlation length."""
    draws = {
        key: tree["posterior"][key].transpose("chain", "draw", "member").values.astype(float)
        for key in ("magnetization", "smallest_momentum")
    }
    means = {
        "m2": (draws["magnetization"] ** 2).mean(axis=(0, 1)),
        "m4": (draws["magnetization"] ** 4).mean(axis=(0, 1)),
    }
    means["smallest_momentum"] = draws["smallest_momentum"].mean(axis=(0, 1))
    cumulant, ratio = (QUANTITIES[name].function for name in ("binder_cumulant", "correlation_length_ratio"))
    return np.asarray(cumulant(means, lattice), float), np.asarray(ratio(means, lattice), float)
