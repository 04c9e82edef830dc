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

    def scaled(
        self, sizes: tuple[int, int], one: tuple[np.ndarray, np.ndarray], two: tuple[np.ndarray, np.ndarray]
    ) -> Window:
        """As wide as U₄ of two sizes says, each of them couplings and values: by its slopes at the center.

        A straight line would not do: in a window that is too wide it is too flat, and the next window too wide again.
        """
        near, far = (_slope(y - self.center, u) for y, u in (one, two))
        inverse_nu = float(np.clip(np.log(far / near) / np.log(sizes[1] / sizes[0]), FLATTEST, STEEPEST))
        widest = max(float(np.ptp(two[0])) / 2, self.half * (self.size / sizes[1]) ** inverse_nu)
        return self._replace(half=float(min(SPREAD / far, widest)), size=sizes[1], inverse_nu=inverse_nu)

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
    """Couplings around the critical one, as many as ``values``, from three short runs of the two smallest sizes.

    The first run finds where U₄ crosses, the others where ξ/L does and how wide a window has to be. Curves of small lattices
    cross away from the critical point, U₄ farther than ξ/L, and a window off center needs scaling functions of a higher degree.
    The half-width is that in which U₄ changes by 0.035, from its slopes at the two sizes, which also give the power of L.

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
    level = np.mean([(u[:-1] + u[1:]) / 2 for u in cumulants], axis=0)
    ordered = level > np.max(level) / 2  # where U₄ is near 0 curves cross by noise
    crossing = np.flatnonzero((apart[:-1] * apart[1:] <= 0) & ordered)
    slopes = np.diff(apart) / np.diff(values)
    if not len(crossing):
        got = f"curves of sizes {one} and {two} that do not cross there"
        fix = "Search a wider range, or give a function from the size to its couplings."
        raise ArgumentError("vary", f"a range of {name} with the critical coupling", got, fix, reason="no_crossing")
    k = crossing[np.argmax(np.abs(slopes[crossing]))]  # far from the crossing the curves agree, but for noise
    center = values[k] - apart[k] / slopes[k] if slopes[k] else values[k]
    near, far = (max(abs(np.diff(u)[k] / np.diff(values)[k]), 1e-9) for u in cumulants)
    inverse_nu = float(np.clip(np.log(far / near) / np.log(two / one), FLATTEST, STEEPEST))
    window = Window(float(center), min(SPREAD / near, float(np.ptp(values))), one, inverse_nu, len(values))
    for stage in ("around", "near"):  # slopes between two of ``values`` are too flat, and a wide window is off center
        points = {size: window.at(size) for size in (one, two)}
        found = {size: curves(size, points[size], stage) for size in points}
        finite = all(np.all(np.isfinite(ratio)) for _, ratio in found.values())
        if finite:
            window = window.moved(*((points[size], found[size][1]) for size in points))._replace(least=0.0)
        window = window.scaled((one, two), *((points[size], found[size][0]) for size in points))
    return window


def _slope(away: np.ndarray, values: np.ndarray) -> float:
    """At 0, from a polynomial of degree three, or of as many as there are points."""
    return max(abs(float(np.polyfit(away, values, min(3, len(away) - 1))[-2])), 1e-9)


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
