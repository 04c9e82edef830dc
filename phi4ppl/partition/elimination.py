"""Sum a product of factors over all sites by eliminating one site after the other."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

__all__ = ["elimination_order", "log_sum"]

MAX_OPERATIONS = 2e9
MAX_NUMBERS = 3e7  # of the largest intermediate: 240 MB


def elimination_order(num_sites: int, scopes: Sequence[tuple[int, ...]], points: int) -> list[int] | None:
    """The cheapest of a few orders, or None if all cost more than a few seconds.

    Eliminating site i costs ``points`` to the number of sites that then share a factor with it, itself included. Site by site
    along a strip this is its transfer matrix, on a tree belief propagation, on any other small graph what the graph allows.
    """
    neighbours: list[set[int]] = [set() for _ in range(num_sites)]
    for scope in scopes:
        for i in scope:
            neighbours[i].update(j for j in scope if j != i)
    best, best_cost = None, MAX_OPERATIONS
    for order in (None, list(range(num_sites)), _across(num_sites, neighbours)):
        found, cost = _simulate([set(s) for s in neighbours], order, points, best_cost)
        if found is not None and cost < best_cost:
            best, best_cost = found, cost
    return best


def _across(num_sites: int, neighbours) -> list[int]:
    """Sites by their distance from the first one of their component: along a strip, whatever its numbers."""
    order, seen = [], np.zeros(num_sites, bool)
    for start in range(num_sites):
        if seen[start]:
            continue
        seen[start], front = True, [start]
        while front:
            order += front
            following = sorted({j for i in front for j in neighbours[i] if not seen[j]})
            seen[following] = True
            front = following
    return order


def _simulate(neighbours, order, points: int, limit: float) -> tuple[list[int] | None, float]:
    """The order (for None: always a site with fewest neighbours) and its cost; None as soon as it exceeds the limits."""
    total, eliminated, done = 0.0, [], np.zeros(len(neighbours), bool)
    queue = [(len(s), i) for i, s in enumerate(neighbours)] if order is None else []
    heapq.heapify(queue)
    for turn in range(len(neighbours)):
        if order is not None:
            site = order[turn]
        else:
            degree, site = heapq.heappop(queue)
            while done[site] or degree != len(neighbours[site]):
                degree, site = heapq.heappop(queue)
        around = neighbours[site]
        total += float(points) ** (len(around) + 1)
        if total > limit or float(points) ** len(around) > MAX_NUMBERS:
            return None, np.inf
        for i in around:
            neighbours[i] |= around
            neighbours[i] -= {i, site}
            if order is None:
                heapq.heappush(queue, (len(neighbours[i]), i))
        done[site] = True
        eliminated.append(site)
    return eliminated, total


def log_sum(factors: list[tuple[tuple[int, ...], np.ndarray]], order: list[int]) -> float:
    """log Σ_x Π_f exp(log f(x_f)) over the nodes of all sites; ``factors`` are (sites, log of the factor, an axis a site)."""
    total = 0.0
    by_site: dict[int, dict[int, tuple[tuple[int, ...], np.ndarray]]] = {site: {} for site in order}
    for number, (sites, log_factor) in enumerate(factors):
        total += (largest := log_factor.max())
        for site in sites:
            by_site[site][number] = (sites, np.exp(log_factor - largest))
    number = len(factors)
    for site in order:
        bucket = by_site.pop(site)
        sites, factor = _sum_out(site, list(bucket.values()))
        for old, (scope, _) in bucket.items():
            for i in scope:
                if i != site:
                    del by_site[i][old]
        largest = factor.max()
        total += np.log(largest)
        for i in sites:
            by_site[i][number] = (sites, factor / largest)
        number += 1
    return float(total)


def _sum_out(site: int, bucket: list) -> tuple[tuple[int, ...], np.ndarray]:
    """Σ over one site of the product of its factors, without the whole product in memory: the last factor is contracted."""
    bucket = sorted(bucket, key=lambda entry: -entry[1].ndim)
    scope, product = bucket[0]
    inside = [entry for entry in bucket[1:] if set(entry[0]) <= set(scope)]
    for sites, factor in inside:
        product = product * _aligned(factor, sites, scope)
    rest = [entry for entry in bucket[1:] if not set(entry[0]) <= set(scope)]
    while rest:
        sites, factor = rest.pop(0)
        within = [k for k, (others, _) in enumerate(rest) if set(others) <= set(sites)]
        for k in reversed(within):
            others, inner = rest.pop(k)
            factor = factor * _aligned(inner, others, sites)
        last = not rest
        union = scope + tuple(i for i in sites if i not in scope)
        kept = tuple(i for i in union if not (last and i == site))
        local = {i: k for k, i in enumerate(union)}
        indices = [[local[i] for i in group] for group in (scope, sites, kept)]
        product = np.einsum(product, indices[0], factor, indices[1], indices[2], optimize=True)
        scope = kept
    if site in scope:
        axis = scope.index(site)
        scope, product = scope[:axis] + scope[axis + 1 :], product.sum(axis=axis)
    return scope, np.asarray(product)


def _aligned(factor, sites, scope):
    """A factor as one that broadcasts against an array with an axis for every site of ``scope``."""
    order = sorted(range(len(sites)), key=lambda k: scope.index(sites[k]))
    shape = [1] * len(scope)
    for k in order:
        shape[scope.index(sites[k])] = factor.shape[k]
    return factor.transpose(order).reshape(shape)
