"""A short run of two sizes that finds where U₄ crosses, and the window of couplings that is worth sampling at each size."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..errors import ArgumentError
from ..errors.streams import stream_seed
from ..results.ensemble_run import sample_ensemble

__all__ = ["Window", "window_around_crossing"]

SPREAD = 0.035  # of U₄ on either side of the crossing: scaling functions are cubic there, and couplings overlap
FLATTEST, STEEPEST = 0.5, 2.5  # 1/ν, which two noisy slopes cannot fix


class Window(NamedTuple):
    """Couplings worth sampling: ``number`` of them around ``center``, of half-width ``half`` at ``size`` and shrinking.

    The half-width is at least ``least``: half of how far the center moved last, so that windows of successive sizes overlap.
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
        return self._replace(center=self.center + shift, least=abs(shift) / 2)


def window_around_crossing(
    models: dict, name: str, values: np.ndarray, records: dict, *, seed: int, **settings
) -> Window:
    """Couplings around the crossing of U₄ of the two smallest sizes, as many as ``values``.

    The half-width is that in which U₄ changes by 0.035, from its slopes at the two sizes, which also give the power of L.

    Raises
    ------
    ArgumentError
        If the two do not cross between the first and the last of ``values``.
    """
    one, two = sorted(models)[:2]
    cumulants = []
    for size in (one, two):
        tree = sample_ensemble(  # with the records of the run that follows, whose program is then compiled
            models[size],
            {name: values},
            seed=stream_seed(seed, "pilot", size),
            keep_field=False,
            observables=records[size],
            **settings,
        )
        m2 = tree["posterior"]["magnetization"].transpose("chain", "draw", "member").values.astype(float) ** 2
        cumulants.append(1 - (m2**2).mean(axis=(0, 1)) / (3 * m2.mean(axis=(0, 1)) ** 2))
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
    inverse_nu = float(np.clip(np.log(max(far, 1e-9) / max(near, 1e-9)) / np.log(two / one), FLATTEST, STEEPEST))
    half = min(SPREAD / max(near, 1e-9), np.ptp(values))
    return Window(float(center), float(half), one, inverse_nu, len(values))
