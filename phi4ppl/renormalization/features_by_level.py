"""Features by level: do machines trained on blocked images learn the blocked features of machines trained on the images?

A machine couples its hidden unit j to the pixels by −Σ_i w_ij v_i h_j. If pixels are near their block means v'_x, this is
−Σ_x (Σ_{i∈x} w_ij) v'_x h_j: the feature of the coarse machine would be the block sum of the fine one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, positive_int, seed_within
from ..errors.streams import stream_rng
from ..reports.numbers import value_with_error
from .blocking import block
from .blocks_of_sites import regular

__all__ = ["FeatureOverlap", "blocked_features", "compare_features"]

MIN_SEEDS = 2


@call_checked
@dataclass(frozen=True, repr=False)
class FeatureOverlap:
    """How alike the blocked features of fine machines and the features of coarse ones are; see `compare_features`.

    Attributes
    ----------
    by_seed : dict
        ``"blocked"``, ``"shuffled"``, ``"turned"`` and ``"other seed"`` → overlaps, an array of one number a seed.
    matches : tuple of int arrays
        By seed: of every blocked feature the number of the coarse feature that is most like it.
    """

    by_seed: dict[str, np.ndarray]
    matches: tuple[np.ndarray, ...]

    def value(self, name: str = "blocked") -> tuple[float, float]:
        """Mean over seeds and its standard error."""
        return _mean(self.by_seed[name])

    def excess(self, over: str = "turned") -> tuple[float, float]:
        """The overlap less that of a baseline, seed by seed, with its standard error."""
        return _mean(self.by_seed["blocked"] - self.by_seed[over])

    def __str__(self) -> str:
        words = {
            "blocked": "blocked features with those of the coarse machine",
            "shuffled": "the same, pixels shuffled",
            "turned": "the same, turned or mirrored",
            "other seed": "two coarse machines of different seeds",
        }
        lines = [f"features by level, {len(self.matches)} seeds"]
        lines += [f"  {value_with_error(*self.value(name)):>10}  {text}" for name, text in words.items()]
        text = " and ".join(f"{value_with_error(*self.excess(name))} ({name})" for name in ("shuffled", "turned"))
        return "\n".join([*lines, f"  above the baselines by {text}"])

    __repr__ = __str__


@call_checked
def blocked_features(machine, shape: tuple[int, ...], *, levels: int = 1) -> np.ndarray:
    """Features of a machine as fields, averaged over blocks: shape ``(num_hidden, *coarse_shape)``.

    Parameters
    ----------
    machine : fitted machine of `phi4ppl.networks`, or its weights, shape ``(num_visible, num_hidden)``
    shape : tuple of int
        Of an image.
    levels : int, default 1
        How many times to block; sides are halved each time.
    """
    weights = _weights_of("machine", machine)
    if len(weights) != np.prod(shape):
        raise ArgumentError("shape", f"{len(weights)} pixels", f"{tuple(shape)}", reason="shape")
    fields = weights.T.reshape(-1, *shape)
    return block(fields, "average", lattice=regular(tuple(shape), False), levels=levels)[levels][0]


@call_checked
def compare_features(
    fine: Sequence, coarse: Sequence, shape: tuple[int, ...], *, levels: int = 1, shuffles: int = 100, seed: int = 0
) -> FeatureOverlap:
    """Overlap of the blocked features of fine machines with the features of machines trained on blocked images.

    With u_j the blocked features of one machine and w_k the features of the other, the overlap is ::

        Σ_j |u_j|² max_k |cos(u_j, w_k)| / Σ_j |u_j|²,

    1 if every feature has its like, up to scale and sign; weak features count little. Some overlap comes by itself, with many
    features of few pixels, and with smooth ones. So the same number is found with the pixels of all u_j shuffled in one way,
    and with all u_j turned by a quarter or mirrored, which leaves them as smooth as they were; and with the w_k of a coarse
    machine of another seed in place of u_j, as a ceiling.

    Parameters
    ----------
    fine, coarse : sequences of fitted machines of `phi4ppl.networks`, or of weights ``(num_visible, num_hidden)``
        One of each a seed, of two seeds or more: errors are those over seeds.
    shape : tuple of int
        Of an image of the fine machines.
    levels : int, default 1
        How often the images of the coarse machines were blocked.
    shuffles : int, default 100
        Over which the baseline is averaged.
    seed : int
        Of the shuffles.

    Raises
    ------
    ArgumentError
        If numbers of machines or of pixels do not fit.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> rng = np.random.default_rng(0)
    >>> fine = [rng.normal(size=(64, 5)) for _ in range(3)]
    >>> coarse = [p4.renormalization.blocked_features(w, (8, 8)).reshape(5, 16).T for w in fine]
    >>> found = p4.renormalization.compare_features(fine, coarse, (8, 8))
    >>> round(found.value()[0], 6), bool(found.value("shuffled")[0] < 0.6)
    (1.0, True)
    """
    if len(fine) != len(coarse) or len(fine) < MIN_SEEDS:
        fix = "Train machines of several seeds: without them the overlap has no error."
        got = f"{len(fine)} and {len(coarse)}"
        raise ArgumentError("coarse", f"as many machines as fine ones, {MIN_SEEDS} or more", got, fix, reason="count")
    shuffles, rng = positive_int("shuffles", shuffles), stream_rng(seed_within(seed), "shuffles")
    blocked = [blocked_features(each, shape, levels=levels) for each in fine]
    sites = int(np.prod(blocked[0].shape[1:]))
    features = [_weights_of("coarse", each).T for each in coarse]
    if any(each.shape[1] != sites for each in features):
        got = f"{[each.shape[1] for each in features]}"
        raise ArgumentError("coarse", f"machines of {sites} pixels, images blocked {levels} times", got, reason="shape")
    rows: dict[str, list[float]] = {"blocked": [], "shuffled": [], "turned": [], "other seed": []}
    matches = []
    for k, (own, theirs) in enumerate(zip(blocked, features, strict=True)):
        flat = own.reshape(len(own), -1)
        value, match = _overlap(flat, theirs)
        matches.append(match)
        rows["blocked"].append(value)
        orders = [rng.permutation(sites) for _ in range(shuffles)]
        rows["shuffled"].append(float(np.mean([_overlap(flat[:, order], theirs)[0] for order in orders])))
        rows["turned"].append(float(np.mean([_overlap(each, theirs)[0] for each in _turned(own)])))
        rows["other seed"].append(_overlap(features[k - 1], theirs)[0])
    return FeatureOverlap({name: np.array(each) for name, each in rows.items()}, tuple(matches))


def _overlap(own: np.ndarray, theirs: np.ndarray) -> tuple[float, np.ndarray]:
    """The overlap of the docstring, and k of the largest cosine for every j."""
    norms, others = np.linalg.norm(own, axis=1), np.linalg.norm(theirs, axis=1)
    cosines = np.abs(own @ theirs.T) / np.maximum(norms[:, None] * others, np.finfo(float).tiny)
    return float(norms**2 @ cosines.max(axis=1) / np.sum(norms**2)), cosines.argmax(axis=1)


def _turned(fields: np.ndarray) -> list[np.ndarray]:
    """All images of the fields under reflections and exchanges of axes of equal length, but the identity, as rows."""
    axes, shape = range(fields.ndim - 1), fields.shape[1:]
    found = []
    for order in itertools.permutations(axes):
        for flips in itertools.product((False, True), repeat=fields.ndim - 1):
            if (order == tuple(axes) and not any(flips)) or tuple(shape[k] for k in order) != shape:
                continue
            image = fields.transpose(0, *(1 + k for k in order))
            image = np.flip(image, tuple(1 + k for k, flip in enumerate(flips) if flip))
            found.append(image.reshape(len(fields), -1))
    return found


def _weights_of(name: str, machine) -> np.ndarray:
    machine = getattr(machine, "machine_", machine)
    weights = finite_array(name, getattr(machine, "weights", machine))
    if weights.ndim != 2:
        raise ArgumentError(name, "a fitted machine, or weights (num_visible, num_hidden)", f"shape {weights.shape}")
    return weights.astype(float)


def _mean(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
