"""Two data sets in one model: how far apart they are in every layer, and which modes have moved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from ..errors import ArgumentError
from ..errors.arguments import call_checked
from ..errors.streams import stream_rng
from ..reports.card import card
from .activations import with_space
from .leave_out import NUM_GROUPS, Measured, aligned, groups_of, measured

__all__ = ["LayerShift", "Shift", "compared", "discrepancy"]

MAX_EXAMPLES = 500  # of each set, whose distances are taken
NUM_PERMUTATIONS = 999
LEVEL = 0.01  # of the whole test, over all layers
HEAD = ("layer", "distance", "p", "", "shift of the modes")


@dataclass(frozen=True, eq=False)
class LayerShift:
    """The distance of two data sets in one layer.

    Attributes
    ----------
    name : str
    distance : Measured
        Unbiased squared maximum mean discrepancy, at most 2; around 0, of either sign, for data that are alike.
    p_value : float
        Share of permutations of the examples among the sets with so large a distance.
    differs : bool
        Whether it is significant at 1 % over all layers (S. Holm, Scand. J. Stat. 6, 65 (1979)).
    shift : pair of arrays, shape ``(modes,)``
        Change of the mean of every mode, in units of its fluctuation in the first set, with errors.
    """

    name: str
    distance: Measured
    p_value: float
    differs: bool
    shift: tuple[np.ndarray, np.ndarray]

    def row(self) -> tuple[str, ...]:
        largest = Measured(*(float(each[np.nanargmax(np.abs(self.shift[0]))]) for each in self.shift))
        words = "differs" if self.differs else "alike"
        return (self.name, str(self.distance), f"{self.p_value:.3f}", words, f"at most {largest}")


@call_checked
@dataclass(frozen=True, repr=False, eq=False)
class Shift:
    """Two data sets compared in every layer; see `phi4ppl.lens.occupation`. ``layers`` are by name."""

    layers: dict[str, LayerShift]

    def __getitem__(self, name: str) -> LayerShift:
        return self.layers[name]

    @property
    def differs(self) -> bool:
        """Whether the data sets differ in any layer."""
        return any(each.differs for each in self.layers.values())

    @property
    def first(self) -> str | None:
        """The first layer in which they differ."""
        return next((name for name, each in self.layers.items() if each.differs), None)

    @property
    def largest(self) -> str:
        """The layer in which they are farthest apart."""
        return max(self.layers, key=lambda name: self.layers[name].distance.value)

    def outcome(self) -> str:
        if not self.differs:
            return "The two data sets are alike in every layer."
        return f"The two data sets differ, first in layer {self.first!r}, most in {self.largest!r}."

    def __str__(self) -> str:
        rows = [HEAD, *(each.row() for each in self.layers.values())]
        return "\n".join(["two data sets:", *aligned(rows), f"  {self.outcome()}"])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [each.row() for each in self.layers.values()]
        return card("Two data sets", HEAD, rows, good=not self.differs, outcome=self.outcome())


def compared(ours: dict, theirs: dict, channels: str | None, seed: int) -> Shift:
    """The distance of two sets of examples in every layer, as `layers` returns them."""
    found = {}
    for name, one in ours.items():
        two = theirs[name]
        if one.shape[1:] != two.shape[1:]:
            got = f"shape {two.shape[1:]} of layer {name!r}"
            raise ArgumentError("other", f"shape {one.shape[1:]} of layer {name!r}, as of data", got, reason="shape")
        found[name] = (*discrepancy(one, two, seed), _moved(one, two, channels, seed))
    order = sorted(found, key=lambda name: found[name][1])
    significant, rejected = True, {}
    for rank, name in enumerate(order):
        significant = significant and found[name][1] * (len(order) - rank) <= LEVEL
        rejected[name] = significant
    return Shift({n: LayerShift(n, d, p, rejected[n], shift) for n, (d, p, shift) in found.items()})


def discrepancy(one: np.ndarray, two: np.ndarray, seed: int) -> tuple[Measured, float]:
    """The unbiased squared maximum mean discrepancy of two samples and the p-value of a permutation test.

    Examples
    --------
    >>> import numpy as np
    >>> from phi4ppl.lens.domain_shift import discrepancy
    >>> x, y = np.random.default_rng(0).normal(size=(2, 100, 3))
    >>> discrepancy(x, y + 1.0, 0)[1], discrepancy(x, y, 0)[1] > 0.05
    (0.001, True)
    """
    rng = stream_rng(seed, "examples compared")
    parts = []
    for each in (one, two):
        flat = each.reshape(len(each), -1)
        some = np.sort(rng.permutation(len(flat))[:MAX_EXAMPLES])
        parts.append(flat[some])
    points = np.concatenate(parts)
    if np.ptp(points, axis=0).max() <= 1e-12 * max(float(np.abs(points).max()), 1e-300):
        return Measured(0.0, 0.0), 1.0  # the layer is constant
    squares = cdist(points, points, "sqeuclidean")
    kernel = np.exp(
        squares / (-2 * np.median(squares[squares > 0]))
    )  # of different values: a layer may have few of them
    np.fill_diagonal(kernel, 0.0)
    ours = np.zeros((len(points), 1))
    ours[: len(parts[0])] = 1.0

    def distance(kernel, labels):
        n, m = labels.sum(axis=0), (1 - labels).sum(axis=0)
        inside = kernel @ labels
        rows = kernel.sum(axis=1)[:, None]
        same = (labels * inside).sum(axis=0)
        across = ((1 - labels) * inside).sum(axis=0)
        rest = ((1 - labels) * (rows - inside)).sum(axis=0)
        return same / (n * (n - 1)) + rest / (m * (m - 1)) - 2 * across / (n * m)

    value = float(distance(kernel, ours)[0])
    labels = np.stack([rng.permutation(ours[:, 0]) for _ in range(NUM_PERMUTATIONS)], axis=1)
    p_value = (1 + int((distance(kernel, labels) >= value).sum())) / (1 + NUM_PERMUTATIONS)
    group = np.concatenate([groups_of(len(part), seed, NUM_GROUPS) for part in parts])

    def of_some(index):
        return distance(kernel[np.ix_(index, index)], ours[index])[0]

    _, error = measured(of_some, group, np.arange(len(points)))
    return Measured(value, float(error)), p_value


def _moved(one: np.ndarray, two: np.ndarray, channels: str | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Change of the mean of every mode in units of its fluctuation in the first set."""
    first, second = (with_space(each, channels) for each in (one, two))
    axes = tuple(range(1, first.ndim - 1))
    means = [each.mean(axis=axes) for each in (first, second)]
    spread = first.std(axis=(0, *axes))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = (means[1].mean(axis=0) - means[0].mean(axis=0)) / spread
        error = np.sqrt(sum(each.var(axis=0, ddof=1) / len(each) for each in means)) / spread
    return np.where(spread > 0, value, 0.0), np.where(spread > 0, error, 0.0)
