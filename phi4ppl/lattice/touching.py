"""Areas of a map that touch or overlap where their outlines have no common corner: their neighbors would be missed."""

from __future__ import annotations

import numpy as np

__all__ = ["loose_pairs"]

BATCH = 1_000_000  # distances of corners to sides at once


def loose_pairs(
    shapes: list[list[np.ndarray]], edges: np.ndarray, close: float, *, may_meet: bool
) -> list[tuple[int, int]]:
    """Pairs of areas, none of ``edges``, of which one has a corner on a side of the other, or inside it.

    With ``may_meet`` corners that both have do not count: areas may meet there and have no side in common.

    Parameters
    ----------
    shapes : list of outlines
        By area, shape (num_corners, 2) each.
    edges : int array, shape (num_edges, 2)
    close : float
        Distance below which a corner is on a side.
    """
    points = [np.concatenate(rings) for rings in shapes]
    low, high = np.array([p.min(axis=0) for p in points]) - close, np.array([p.max(axis=0) for p in points]) + close
    known, found = set(map(tuple, edges.tolist())), []
    order = np.argsort(low[:, 0], kind="stable")
    ends = np.searchsorted(low[order, 0], high[order, 0], side="right")
    for place, i in enumerate(order.tolist()):
        near = order[place + 1 : ends[place]]
        for j in near[(low[near, 1] <= high[i, 1]) & (high[near, 1] >= low[i, 1])].tolist():
            pair = (min(i, j), max(i, j))
            if pair not in known and (
                _reaches(points[i], shapes[j], points[j], close, may_meet)
                or _reaches(points[j], shapes[i], points[i], close, may_meet)
            ):
                found.append(pair)
    return sorted(found)


def _reaches(points, rings: list[np.ndarray], corners, close: float, may_meet: bool) -> bool:
    """Whether one of the points lies on an outline or inside it."""
    inside = np.all((points >= corners.min(axis=0) - close) & (points <= corners.max(axis=0) + close), axis=1)
    points = points[inside]
    if not len(points):
        return False
    start, end = np.concatenate(rings), np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    low, high = np.minimum(start, end), np.maximum(start, end)
    near = (high[:, 1] >= points[:, 1].min() - close) & (low[:, 1] <= points[:, 1].max() + close)
    near &= high[:, 0] >= points[:, 0].min() - close  # of rays to the right
    start, end = start[near], end[near]
    size = max(1, BATCH // max(1, len(start)))
    return any(_any_on(points[k : k + size], start, end, close, may_meet) for k in range(0, len(points), size))


def _any_on(points: np.ndarray, start: np.ndarray, end: np.ndarray, close: float, may_meet: bool) -> bool:
    along, away = end - start, points[:, None] - start
    length = np.maximum(np.sum(along**2, axis=-1), 1e-300)
    share = np.clip(np.sum(away * along, axis=-1) / length, 0.0, 1.0)
    distance = np.sum((away - share[..., None] * along) ** 2, axis=-1)
    corner = may_meet & np.any(np.sum(away**2, axis=-1) <= close**2, axis=1)
    on = np.any(distance <= close**2, axis=1)
    x, y = points[:, :1], points[:, 1:]
    rise = np.where(along[:, 1] == 0, 1.0, along[:, 1])
    crossing = ((start[:, 1] > y) != (end[:, 1] > y)) & (x < start[:, 0] + (y - start[:, 1]) / rise * along[:, 0])
    return bool(np.any(~corner & (on | (crossing.sum(axis=1) % 2 == 1))))
