"""Renormalization by layers: what every layer keeps of the input and of the label, and what blocking keeps of the field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._typing import Labeled
from ..errors import ArgumentError
from ..errors.arguments import call_checked, positive_int, seed_within
from ..errors.streams import stream_rng
from ..renormalization.blocking import block
from ..renormalization.blocks_of_sites import regular
from ..reports.card import card
from ..spectral.spectra import spectrum
from .activations import channels_of, examples, layers, num_examples, require_moderate, with_space
from .alignment import MIN_EXAMPLES, aligned_kernels, label_columns, linear_kernel, probe
from .cumulants import Cumulants, cumulants
from .leave_out import Measured, aligned, groups_of, require_examples
from .occupation import correlation_length

__all__ = ["LayerFlow", "LayerScale", "renormalization"]

INPUT = "input"
HEAD = (
    "layer",
    "size",
    "participation",
    "entropy rank",
    "with input",
    "with previous",
    "with label",
    "probe",
    "kurtosis",
    "",
    "ξ",
)


@dataclass(frozen=True, eq=False)
class LayerScale:
    """One layer, or one level of blocking.

    Attributes
    ----------
    name : str
    size : int
        Numbers in the layer for one example.
    participation, entropy_rank : Measured
        Effective dimensions of the centered features, from `phi4ppl.spectral`.
    with_input, with_previous : Measured
        Centered alignment with the input, and with the layer before; see `phi4ppl.lens.alignment`.
    with_label : Measured or None
    probe : Measured or None
        Accuracy of a linear probe on examples that it has not seen, or R² of real labels.
    cumulants : Cumulants or None
        Whether it is Gaussian; None where it is constant.
    correlation_length : Measured or None
        In sites of the layer; None without space.
    """

    name: str
    size: int
    participation: Measured
    entropy_rank: Measured
    with_input: Measured
    with_previous: Measured
    with_label: Measured | None
    probe: Measured | None
    cumulants: Cumulants | None
    correlation_length: Measured | None

    def row(self) -> tuple[str, ...]:
        kurtosis = None if self.cumulants is None else self.cumulants.average["kurtosis"]
        order = None if self.cumulants is None else self.cumulants.order
        words = "constant" if self.cumulants is None else "Gaussian" if order is None else f"not Gaussian ({order})"
        numbers = (
            self.participation,
            self.entropy_rank,
            self.with_input,
            self.with_previous,
            self.with_label,
            self.probe,
            kurtosis,
        )
        cells = ["-" if each is None else str(each) for each in numbers]
        return (self.name, str(self.size), *cells, words, str(self.correlation_length or "-"))


@call_checked
@dataclass(frozen=True, repr=False, eq=False)
class LayerFlow:
    """What `renormalization` returns: a `LayerScale` of the input, of every layer, and of every level of blocking, by name.

    Attributes
    ----------
    layers, blocked : dict of LayerScale
    similarity : float array, shape ``(levels, layers)``
        Centered alignment of each blocked input with each layer.
    num_examples : int
        Whose kernels are compared.
    chance : float or None
        Share of the most frequent class, which a probe reaches without features; None for real labels.
    """

    layers: dict[str, LayerScale]
    blocked: dict[str, LayerScale]
    similarity: np.ndarray
    num_examples: int
    chance: float | None = None

    def __getitem__(self, name: str) -> LayerScale:
        return (self.layers | self.blocked)[name]

    def nearest(self) -> dict[str, str]:
        """The layer that is most aligned with each level of blocking."""
        names = list(self.layers)
        return {level: names[int(np.nanargmax(row))] for level, row in zip(self.blocked, self.similarity, strict=True)}

    def _rows(self) -> list[tuple[str, ...]]:
        return [each.row() for each in (*self.layers.values(), *self.blocked.values())]

    def _words(self) -> list[str]:
        found = [f"{level} is most like layer {layer!r}" for level, layer in self.nearest().items()]
        return [*found, *([f"a probe without features reaches {self.chance:.3f}"] if self.chance is not None else [])]

    def __str__(self) -> str:
        lines = [f"renormalization by {len(self.layers) - 1} layers, {self.num_examples} examples"]
        return "\n".join([*lines, *aligned([HEAD, *self._rows()]), *(f"  {text}" for text in self._words())])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        title = f"Renormalization by layers, {self.num_examples} examples"
        return card(title, HEAD, self._rows(), outcome="; ".join(self._words()))


@call_checked
def renormalization(
    apply,
    params,
    data: Labeled,
    *,
    labels: Labeled = None,
    levels: int = 0,
    max_examples: int = 300,
    channels: str | None = "auto",
    seed: int = 0,
) -> LayerFlow:
    """What every layer keeps, as of a flow of coarse-graining: dimension, likeness to the input and to the label, Gaussianity.

    Parameters
    ----------
    apply, params
        The model, as of `layers`.
    data : array_like, shape ``(n, …)``
        Independent examples, at least 40.
    labels : array_like, shape ``(n,)``, optional
        Classes, or real values.
    levels : int
        How many times to block the input by averages over 2×2 sites, beside the layers: `phi4ppl.renormalization.block`.
    max_examples : int
        Whose kernels are compared; the time grows as its cube.
    channels : str or None
        As of `occupation`.
    seed : int
        Of the choice of examples, of groups and of folds.

    Returns
    -------
    LayerFlow

    Raises
    ------
    ArgumentError
        If there are fewer than 40 examples, or the input cannot be blocked so often.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> x = np.random.default_rng(0).normal(size=(200, 6))
    >>> found = p4.lens.renormalization([("half", lambda x: x[:, :3])], None, x, labels=x[:, 0] > 0)
    >>> found["half"].size, bool(abs(found["half"].with_input.value - 0.5**0.5) < 0.1), found["half"].probe.value > 0.9
    (3, True, True)
    """
    seed, axis = seed_within(seed), channels_of(apply, channels)
    levels, data = positive_int("levels", levels, minimum=0), examples(data)
    number = num_examples(data)
    require_examples(number, MIN_EXAMPLES)
    positive_int("max_examples", max_examples, minimum=MIN_EXAMPLES)
    columns, classes = (None, None) if labels is None else label_columns(labels, number)
    values = layers(apply, params, data)
    blocks = _blocked(data, levels, axis) if levels else {}
    some = np.sort(stream_rng(seed, "examples").permutation(number)[:max_examples])
    if hasattr(data, "shape"):
        require_moderate("data", data)
    few = _Examples(some, columns, classes, seed)
    first = {INPUT: np.asarray(data, float)} if hasattr(data, "shape") else {INPUT: next(iter(values.values()))}
    if any(np.array_equal(v, first[INPUT]) for v in list(values.values())[:1] if v.shape == first[INPUT].shape):
        values.pop(next(iter(values)))  # a first layer that hands on the input
    found = few.flow(first | values, axis, None)
    coarse = few.flow(blocks, None if next(iter(blocks.values()), np.zeros(1)).ndim < 4 else axis, first[INPUT])
    kernels = {name: linear_kernel(v[some]) for name, v in (first | values | blocks).items()}
    similarity = [[aligned_kernels(kernels[b], kernels[n], few.group).value for n in found] for b in coarse]
    chance = None if classes is None else float(np.bincount(classes).max() / len(classes))
    return LayerFlow(found, coarse, np.array(similarity).reshape(len(coarse), len(found)), len(some), chance)


class _Examples:
    """The examples whose kernels are compared, with their labels."""

    def __init__(self, some, columns, classes, seed: int):
        self.some, self.seed, self.group = some, seed, groups_of(len(some), seed)
        self.columns = None if columns is None else columns[some]
        self.classes = None if classes is None else classes[some]
        self.label = None if columns is None else linear_kernel(self.columns)

    def flow(self, values: dict[str, np.ndarray], channels, base) -> dict[str, LayerScale]:
        """Every array measured; alignment is with ``base`` or the first of them, and with the one before."""
        found, top, before = {}, None if base is None else linear_kernel(base[self.some]), None
        for name, array in values.items():
            kernel = linear_kernel(array[self.some])
            top = kernel if top is None else top
            found[name] = self._scale(name, array, kernel, top, top if before is None else before, channels)
            before = kernel
        return found

    def _scale(self, name, array, kernel, top, before, channels) -> LayerScale:
        spread = float(np.trace(kernel)) > 1e-18 * max(float(np.abs(array).max()) ** 2, 1e-300) * array[0].size * len(
            kernel
        )
        ranks = spectrum(kernel, seed=self.seed).ranks if spread else {}
        none = (float("nan"), float("nan"))
        axes = with_space(array, channels)
        label = None if self.label is None else aligned_kernels(kernel, self.label, self.group)
        read = None if self.columns is None else probe(array[self.some], self.columns, self.classes, self.seed)
        return LayerScale(
            name=name, size=int(array[0].size), participation=Measured(*ranks.get("participation_ratio", none)),
            entropy_rank=Measured(*ranks.get("entropy_rank", none)), with_input=aligned_kernels(kernel, top, self.group),
            with_previous=aligned_kernels(kernel, before, self.group), with_label=label, probe=read,
            cumulants=cumulants(array, label=f"layer {name!r}", seed=self.seed) if spread else None,
            correlation_length=correlation_length(axes, groups_of(len(axes), self.seed)) if axes.ndim > 2 and spread else None,
        )  # fmt: skip


def _blocked(data, levels: int, channels: str | None) -> dict[str, np.ndarray]:
    """Inputs blocked by averages, every channel by itself."""
    if not hasattr(data, "shape") or data.ndim < 2:
        raise ArgumentError("levels", "0 for data without axes of space", str(levels), reason="shape")
    maps = with_space(np.asarray(data, float), None if data.ndim < 4 else channels)
    space, each = maps.shape[1:-1], np.moveaxis(maps, -1, 1)
    fields = block(each.reshape(1, -1, *space), "average", levels=levels, lattice=regular(space, True))
    found = {}
    for level in range(1, levels + 1):
        coarse = np.moveaxis(fields[level].reshape(*each.shape[:2], *fields[level].shape[2:]), 1, -1)
        found[f"blocked {level}"] = coarse[..., 0] if coarse.shape[-1] == 1 else coarse
    return found
