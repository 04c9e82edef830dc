"""From measurements to hypotheses: what a number suggests, the rule behind it, and the experiment that would refute "
"it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..reports.numbers import value_with_error
from ..spectral.spectral_verdict import Finding

__all__ = ["hypotheses"]

ERRORS = 2.0  # by which a number has to pass a threshold
DEAD, FEW_MODES, GROWN, SHRUNK, HALF = 0.1, 1 / 8, 10.0, 0.1, 0.5
UNTOLD = "No rule of this page finds anything that calls for a test."


def hypotheses(results: dict[str, Any]) -> list[Finding]:
    """Everything that the rules find, reasons to act first; never empty."""
    found: list[Finding] = []
    for name, rule in RULES.items():
        if results.get(name) is not None:
            found += rule(results[name])
    if not found:
        return [Finding(UNTOLD, "all rules of this page", "Measure what is missing above.", False)]
    return sorted(found, key=lambda each: not each.concern)


def _occupation(found) -> Iterator[Finding]:
    for layer in found.layers.values():
        share, error = layer.dead
        if share - ERRORS * error > DEAD:
            yield Finding(
                f"{value_with_error(share, error)} of the units of layer {layer.name!r} are dead.",
                f"dead share above {DEAD:g} by two errors",
                "Remove them: the output must not change. Then train again with a smaller learning rate or leaky "
                "units, over ten "
                "seeds: does the share fall by more than its error?",
            )
        number, error = layer.participation
        if layer.num_modes >= 8 and number + ERRORS * error < FEW_MODES * layer.num_modes:
            kept = int(np.ceil(2 * number))
            yield Finding(
                f"The variance of layer {layer.name!r} is that of {value_with_error(number, error)} modes out of "
                f"{layer.num_modes}.",
                f"participation below {FEW_MODES:g} of the modes by two errors",
                f"Project this layer on its {kept} leading principal components: does the score stay within its "
                f"error? If "
                "it does, the other modes can go.",
                False,
            )
    if found.shift is not None and found.shift.differs:
        layer = found.shift[found.shift.first]
        yield Finding(
            f"The two data sets differ, first in layer {layer.name!r}: distance {layer.distance}, p = "
            f"{layer.p_value:.3f}.",
            "permutation test at 1 % over all layers",
            "Normalize each example before this layer (instance normalization), measure again: does the distance "
            "vanish, and does "
            "the score on the other set rise?",
        )


def _equivariance(found) -> Iterator[Finding]:
    for name, measured in found.outcome.items():
        if not found.holds[name]:
            yield Finding(
                f"Under {name} the output changes by {measured} of its fluctuation.",
                f"output not {found.asked} within rounding",
                "If the task has this symmetry: average the output over it, or train on transformed examples, and "
                "compare the "
                "scores on examples that are transformed.",
                False,
            )


def _wick(found) -> Iterator[Finding]:
    if not found.layers:
        return
    name, last = list(found.layers.items())[-1]
    if not last.is_gaussian:
        yield Finding(
            f"Layer {name!r} is not Gaussian over the examples, from order {last.order} on (p = "
            f"{last.p_values[last.order]:.3f}); mean "
            f"excess kurtosis {last.average['kurtosis']}.",
            "cumulants against Gaussian samples of the same covariance, at 1 %",
            "Is it the data or the network? Feed Gaussian inputs of the same covariance, and an ensemble of random "
            "weights "
            "(over='params') of twice the width: does the excess kurtosis halve?",
            False,
        )


def _renormalization(found) -> Iterator[Finding]:
    scales = [each for each in found.layers.values() if each.probe is not None]
    if len(scales) < 2:
        return
    best = max(scales, key=lambda each: each.probe.value)
    last = scales[-1]
    gap, error = best.probe.value - last.probe.value, float(np.hypot(best.probe.error, last.probe.error))
    if gap > ERRORS * error:
        yield Finding(
            f"A linear probe reads the label better from {best.name!r}, {best.probe}, than from {last.name!r}, "
            f"{last.probe}.",
            "difference above two errors",
            f"Read the output from {best.name!r}, with a new linear layer trained on held-out splits: does the score "
            f"rise?",
            False,
        )


def _transitions(found) -> Iterator[Finding]:
    for curve in found.values():
        for one in curve.breaks:
            low, high = one.interval
            yield Finding(
                f"{curve.name} has a {one.kind} at {found.axis} {one.value:.4g}, between {low:.4g} and {high:.4g} (p "
                f"≤ {one.p:.2g}).",
                f"false-alarm rate {found.false_alarm:g} over all curves",
                "Train ten more seeds and record more often there: is it inside this interval in most of them, and "
                "does it get "
                "sharper with size? Stop just before and just after: what changed in the layers?",
                False,
            )


def _coefficient(found) -> Iterator[Finding]:
    half = found.num_parameters / 2
    if not found.reliable:
        yield Finding(
            f"The local learning coefficient {value_with_error(found.value, found.error)} cannot be trusted.",
            "a check of the chains failed, or it is negative", "Run longer chains, or localize more.",
        )  # fmt: skip
    elif found.value + ERRORS * found.error < half / 2:
        yield Finding(
            f"λ = {value_with_error(found.value, found.error)} where a regular model of {found.num_parameters} "
            f"parameters has {half:g}.",
            "below a quarter of the number of parameters by two errors",
            "The minimum is singular: prune weights along flat directions until the loss rises by its error. Does λ "
            "stay?",
            False,
        )


def _propagation(found) -> Iterator[Finding]:
    growth, error = float(found.growth[-1]), float(found.growth_error[-1])
    worst = int(np.nanargmax(found.susceptibility))
    if growth - ERRORS * error > GROWN:
        yield Finding(
            f"Mean squares of perturbations grow by {value_with_error(growth, error)} from the input to the output, "
            f"most in layer "
            f"{found.names[worst]!r}, by {value_with_error(found.susceptibility[worst], found.susceptibility_error[worst])}.",
            f"growth above {GROWN:g} by two errors",
            f"Bound the weights of {found.names[worst]!r} (spectral normalization) and train ten seeds with and "
            f"without: does the "
            "spread of the scores fall?",
        )
    elif growth + ERRORS * error < SHRUNK:
        yield Finding(
            f"Perturbations of the input die out: mean squares fall to {value_with_error(growth, error)}.",
            f"growth below {SHRUNK:g} by two errors",
            "Start from weights of variance 2/width, or add skip connections: does the training get faster?",
            False,
        )


def _attribution(found) -> Iterator[Finding]:
    if not found.complete:
        yield Finding(
            f"Integrated gradients do not add up: the gap is {found.largest_gap:.2g}.", "gap above 1 % of the typical "
            "change",
            "Take more nodes (num_nodes), and read the shares only once the gap is small.",
        )  # fmt: skip
        return
    mean = np.sort(np.ravel(found.mean_share[0]))[::-1]
    if mean.sum() > 0 and mean.size >= 8:
        number = int(np.searchsorted(np.cumsum(mean), HALF * mean.sum())) + 1
        if number <= mean.size // 8:
            yield Finding(
                f"{number} of {mean.size} inputs hold half of the absolute shares.", "at most an eighth of the inputs "
                "hold half",
                "Set these inputs to zero, and as many random others: does the output change as the shares say, and "
                "the other "
                "way round?",
                False,
            )  # fmt: skip


def _average(found) -> Iterator[Finding]:
    if not found.agree:
        yield Finding(
            f"The weight average is {found.distance:.3g} spreads from the average of the outputs.", "distance above 1",
            "Average the outputs instead. If the members are of one training, average over a shorter stretch: does "
            "the distance fall "
            "as its square?",
        )  # fmt: skip


RULES: dict[str, Callable[[Any], Iterator[Finding]]] = {
    "occupation": _occupation, "equivariance": _equivariance, "wick": _wick, "renormalization": _renormalization,
    "transitions": _transitions, "coefficient": _coefficient, "propagation": _propagation, "attribution": _attribution,
    "average": _average,
}  # fmt: skip
