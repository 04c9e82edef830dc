"""Kinks of a field on a line: where φ changes sign, followed from record to record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from ..errors import ArgumentError
from ..errors.arguments import call_checked
from .process import positive
from .snapshots import recorded_field

__all__ = ["Kink", "Kinks", "track_kinks"]


@dataclass(frozen=True)
class Kink:
    """One place where the field changes sign, followed in time.

    Attributes
    ----------
    charge : int
        +1 where φ rises with x (a kink), −1 where it falls (an antikink).
    times, positions : array
        Positions in units of sites, linear between two sites. Around a ring they go on past its length: differences are
        distances.
    """

    charge: int
    times: np.ndarray
    positions: np.ndarray

    @property
    def velocity(self) -> float:
        """The slope of a straight line through the positions; nan for a single one."""
        if len(self.times) < 2:
            return float("nan")
        return float(np.polyfit(self.times, self.positions, 1)[0])

    def between(self, first: float, last: float) -> Kink:
        """The part between two times."""
        kept = (self.times >= first) & (self.times <= last)
        return Kink(self.charge, self.times[kept], self.positions[kept])


@dataclass(frozen=True, repr=False)
class Kinks:
    """All kinks of one replica.

    Attributes
    ----------
    tracks : tuple of Kink
        In the order in which they appear, and from left to right.
    times, count : array
        The number of kinks and antikinks at every time.
    """

    tracks: tuple[Kink, ...]
    times: np.ndarray
    count: np.ndarray

    def __len__(self) -> int:
        return len(self.tracks)

    def __iter__(self):
        return iter(self.tracks)

    def __getitem__(self, place: int) -> Kink:
        return self.tracks[place]

    @property
    def whole(self) -> tuple[Kink, ...]:
        """Those that are there from the first record to the last."""
        return tuple(kink for kink in self.tracks if len(kink.times) == len(self.times))

    def __repr__(self) -> str:
        first, last = self.count[[0, -1]]
        return f"Kinks({first} at time {self.times[0]:g}, {last} at {self.times[-1]:g}, {len(self)} tracks)"


@call_checked
def track_kinks(tree: xr.DataTree, *, replica: int = 0, max_shift: float | None = None) -> Kinks:
    """Find the kinks of a one-dimensional field at every time, and follow each of them.

    A kink is a change of sign between two neighbors, φ(x) ≤ 0 < φ(x + 1) or the other way around; it stands where the straight
    line between the two values is 0. From one record to the next, kinks of one charge are matched so that they move as little
    as possible in total; what would move by more than ``max_shift`` ends, and another one begins.

    Parameters
    ----------
    tree : DataTree
        Of `evolve` on a chain or a ring, with the field.
    replica : int, default 0
    max_shift : float, optional
        In sites, between two records. By default half of the mean distance of kinks, and at least 2: record often enough that
        they move by less.

    Raises
    ------
    ArgumentError
        If there is no field, or it is not one-dimensional.

    Examples
    --------
    >>> import jax.numpy as jnp, numpy as np, phi4ppl as p4
    >>> line, x = p4.lattice.chain(64, periodic=False), np.arange(64)
    >>> moving = p4.dynamics.Drift(line, lambda phi, t: -0.25 * jnp.gradient(phi))  # φ(x − t/4)
    >>> kinks = p4.dynamics.track_kinks(p4.dynamics.evolve(moving, np.tanh((x - 20.3) / 4), time=40, every=4, step_size=0.5))
    >>> kinks, kinks[0].charge, float(kinks[0].positions[0].round(2))
    (Kinks(1 at time 0, 1 at 40, 1 tracks), 1, 20.3)
    >>> round(kinks[0].velocity, 2)
    0.25
    """
    shown = recorded_field(tree, replica)
    if not shown.is_line:
        raise ArgumentError("tree", "a one-dimensional field", shown.lattice.name, "In two dimensions see domain_size.")
    length = shown.fields.shape[1] if shown.lattice.periodic[0] else None
    found = [_crossings(field, length) for field in shown.fields]
    if max_shift is None:
        most = max(len(places) for places, _ in found)
        max_shift = max(2.0, shown.fields.shape[1] / (2 * max(most, 1)))
    else:
        max_shift = float(positive("max_shift", max_shift))
    tracks: list[tuple[int, list, list]] = []
    ends: list[int] = []  # the track of every kink of the last record
    for time, (places, charges) in zip(shown.times, found, strict=True):
        before = [(tracks[k][2][-1], tracks[k][0]) for k in ends]
        matches = _matches(before, places, charges, length, max_shift)
        following = []
        for place, charge, match in zip(places, charges, matches, strict=True):
            if match is None:
                tracks.append((int(charge), [], []))
                following.append(len(tracks) - 1)
            else:
                last = tracks[ends[match]][2][-1]
                place = last + _apart(place, last, length)
                following.append(ends[match])
            tracks[following[-1]][1].append(time)
            tracks[following[-1]][2].append(place)
        ends = following
    kinks = tuple(Kink(charge, np.array(times), np.array(places)) for charge, times, places in tracks)
    return Kinks(kinks, shown.times, np.array([len(places) for places, _ in found]))


def _crossings(field: np.ndarray, length: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Places and charges of the changes of sign, from left to right."""
    field = field.astype(float)
    left, right = (field[:-1], field[1:]) if length is None else (field, np.roll(field, -1))
    at = np.flatnonzero((left > 0) != (right > 0))
    return at + left[at] / (left[at] - right[at]), np.where(right[at] > 0, 1, -1)


def _apart(new, old, length: int | None):
    """The distance from old to new, the short way around a ring."""
    distance = new - old
    return distance if length is None else (distance + length / 2) % length - length / 2


def _matches(before: list, places: np.ndarray, charges: np.ndarray, length, max_shift: float) -> list[int | None]:
    """For every kink the one before it that it continues, or None."""
    from scipy.optimize import linear_sum_assignment

    found: list[int | None] = [None] * len(places)
    if not before or not len(places):
        return found
    old, old_charges = (np.array(part) for part in zip(*before, strict=True))
    for charge in (1, -1):
        rows, columns = np.flatnonzero(old_charges == charge), np.flatnonzero(charges == charge)
        if not len(rows) or not len(columns):
            continue
        distance = np.abs(_apart(places[columns][None], old[rows][:, None], length))
        # a pair that is too far apart costs more than any number of allowed ones, so that these are matched first
        cost = np.where(distance <= max_shift, distance, 1e6 + distance)
        for row, column in zip(*linear_sum_assignment(cost), strict=True):
            if distance[row, column] <= max_shift:
                found[columns[column]] = int(rows[row])
    return found
