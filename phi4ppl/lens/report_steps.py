"""The steps of the report: each measures one thing and says it in the words of both fields, or says why it was not "
"measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ..errors import ArgumentError
from ..reports.html import Picture, Row, Table, facts_table, png_of
from .activations import examples, layers, num_examples
from .attribution import attribution
from .averages import average, spectral_norms
from .equivariance import HEAD as SYMMETRY
from .equivariance import equivariance
from .layer_flow import HEAD as FLOW
from .layer_flow import renormalization
from .learning_coefficient import LearningCoefficient
from .occupation import HEAD as OCCUPATION
from .occupation import occupation
from .propagation import HEAD as PROPAGATION
from .propagation import propagation
from .transformations import Reflection, Sign
from .transitions import HEAD as TRANSITIONS
from .transitions import Transitions, transitions
from .wick import HEAD as WICK
from .wick import wick

__all__ = ["Asked", "Step", "steps_of"]

MOST_EXAMPLES = 2000  # for symmetries and cumulants
DERIVATIVES = 200  # examples at which derivatives are taken

WORDS = {
    "vacuum": (
        "Field and vacuum",
        "A configuration of the field is one example; layers are operators that act on it one after the other.",
        "What the model is, as it was read: inputs, layers, parameters.",
    ),
    "occupation": (
        "Occupation numbers",
        "Occupation of the modes of every layer above the vacuum, which here is the answer to zeros.",
        "Mean and spread of activations, silent and dead units, how many directions carry the variance (principal).",
    ),
    "symmetry": (
        "Symmetry",
        "How far every layer is from a singlet (invariance) and from carrying the representation (equivariance).",
        "Change of a layer when the input is transformed, in units of its fluctuation over the data; √2 if unrelated.",
    ),
    "wick": (
        "Wick's theorem",
        "Connected functions beyond the second: zero for a free (Gaussian) field.",
        "Skewness and excess kurtosis of units over the examples. Over draws of the weights: lens.wick(…, over='params').",
    ),
    "renormalization": (
        "Renormalization by layers",
        "What is left of the field from layer to layer: fewer modes, and which.",
        "Effective dimension, alignment with the input and the label, a linear probe with cross-validation.",
    ),
    "transitions": (
        "Transitions in training",
        "Kinks and jumps along the training as transitions, and the heat capacity of the minimum.",
        "Where curves change their course, with 95 % intervals; the local learning coefficient.",
    ),
    "response": (
        "Response",
        "Susceptibility of each layer: a small excitation of the input grows or dies out.",
        "Squared Jacobians by layer; integrated gradients from zero to the example, with the gap of their sum.",
    ),
    "averages": (
        "Averages and couplings",
        "An average over an ensemble, beside the mean field of its weights; the size of the couplings.",
        "Function-space and weight average with their spread; spectral norms, whose product bounds what layers can stretch.",
    ),
}  # the title of each step, and what it is in the words of either field


@dataclass(frozen=True)
class Asked:
    """What a report is asked to read; see `phi4ppl.lens.report`."""

    apply: Any
    params: Any
    data: Any
    labels: Any
    other: Any
    transformations: Any
    symmetry: Any
    training: Any
    members: Any
    coefficient: LearningCoefficient | None
    output: Any
    seed: int


@dataclass(frozen=True, repr=False, eq=False)
class Step:
    """One step: a title, what it is in the words of both fields, what was measured, and why something was not.

    ``results`` are the measurements themselves, by name, as the functions of `phi4ppl.lens` return them.
    """

    title: str
    field: str
    learning: str
    results: dict[str, Any]
    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...] = ()


def _table(head, rows, texts: int = 1) -> Table:
    return Table(tuple(head), [Row(tuple(map(str, row))) for row in rows], texts=texts)


def _picture(caption: str, found) -> Picture:
    return Picture(caption, (png_of(found.plot()),))


def _tried(function: Callable, *args, **options) -> tuple[Any, str]:
    """What a measurement returns, or None and why it cannot be made of this model."""
    try:
        return function(*args, **options), ""
    except ArgumentError as error:
        return None, str(error)


def _some(data, number: int):
    """The first ``number`` examples, spread evenly."""
    total = num_examples(data)
    rows = np.unique(np.linspace(0, total - 1, min(number, total)).astype(int))
    return jax.tree.map(lambda leaf: np.asarray(leaf)[rows], data)


def steps_of(asked: Asked) -> list[Step]:
    """All eight."""
    return [each(asked) for each in (
        _vacuum, _occupation, _symmetry, _wick, _renormalization, _transitions, _response, _averages)]  # fmt: skip


def _vacuum(asked: Asked) -> Step:
    data, found = examples(asked.data), layers(asked.apply, asked.params, _some(examples(asked.data), DERIVATIVES))
    shapes = [np.shape(leaf)[1:] for leaf in jax.tree.leaves(data)]
    rows = [("data", " and ".join(map(str, shapes)), f"{num_examples(data)} examples")]
    rows += [(name, str(values.shape[1:]), f"{values[0].size} units") for name, values in found.items()]
    numbers = [np.size(leaf) for leaf in jax.tree.leaves(asked.params)] if asked.params is not None else []
    rows += [("parameters", f"{len(numbers)} arrays", str(sum(numbers)))] if numbers else []
    return Step(*WORDS["vacuum"], {"layers": tuple(found)}, (_table(("", "shape", "size"), rows, 2),), (), ())


def _occupation(asked: Asked) -> Step:
    found, why = _tried(
        occupation, asked.apply, asked.params, asked.data, other=asked.other, vacuum="zeros", seed=asked.seed
    )
    tables = []
    if found is not None:
        tables.append(_table(OCCUPATION, [each.row() for each in found.layers.values()]))
        if found.shift is not None:
            rows = [each.row() for each in found.shift.layers.values()]
            tables.append(_table(("layer", "distance of the two data sets", "p", "", "shift of the modes"), rows))
    notes = () if found is None else found.notes
    missing = [why] if why else []
    if asked.other is None:
        missing.append(
            "Whether another data set excites the same modes: give other=, such as images of another scanner."
        )
    return Step(
        *WORDS["occupation"], {} if found is None else {"occupation": found}, tuple(tables), (), tuple(missing), notes
    )


def _symmetry(asked: Asked) -> Step:
    given = asked.transformations
    if given is None:
        shapes = [np.shape(leaf) for leaf in jax.tree.leaves(examples(asked.data))]
        given = [Sign(), Reflection(0)] if len(shapes) == 1 and len(shapes[0]) > 2 else [Sign()]
    few = _some(examples(asked.data), MOST_EXAMPLES)
    found, why = _tried(equivariance, asked.apply, asked.params, few, given, output=asked.symmetry, seed=asked.seed)
    tables = () if found is None else (_table(SYMMETRY, [each.row() for each in found.rows], 2),)
    missing = [why] if why else []
    if asked.transformations is None:
        missing.append(
            "Symmetries of the task: give transformations=, such as [lens.Translation((0.5, 0)), lens.Rotation(10)]."
        )
    return Step(
        *WORDS["symmetry"],
        {} if found is None else {"equivariance": found},
        tables,
        (),
        tuple(missing),
        () if found is None else found.notes,
    )


def _wick(asked: Asked) -> Step:
    few = _some(examples(asked.data), MOST_EXAMPLES)
    found, why = _tried(wick, asked.apply, asked.params, few, seed=asked.seed)
    tables = () if found is None else (_table(WICK, found.rows()),)
    return Step(*WORDS["wick"], {} if found is None else {"wick": found}, tables, (), (why,) if why else ())


def _renormalization(asked: Asked) -> Step:
    found, why = _tried(renormalization, asked.apply, asked.params, asked.data, labels=asked.labels, seed=asked.seed)
    tables = () if found is None else (_table(FLOW, [each.row() for each in found.layers.values()]),)
    missing = [why] if why else []
    if asked.labels is None:
        missing.append("What layers keep of the task: give labels=, classes or real values.")
    return Step(
        *WORDS["renormalization"], {} if found is None else {"renormalization": found}, tables, (), tuple(missing)
    )


def _transitions(asked: Asked) -> Step:
    results: dict[str, Any] = {}
    tables, pictures, missing = [], [], []
    if asked.training is None:
        missing.append(
            "The course of the training: give training=, a dict of curves or the log of phi4ppl.networks.train."
        )
    else:
        given = isinstance(asked.training, Transitions)
        found, why = (asked.training, "") if given else _tried(transitions, asked.training, seed=asked.seed)
        if found is None:
            missing.append(why)
        else:
            results["transitions"] = found
            tables.append(_table(TRANSITIONS, found.rows(), 2))
            caption = "Curves of the training; kinks and jumps are colored, passages gray"
            pictures.append(_picture(caption, found))
    if asked.coefficient is None:
        missing.append(
            "How singular the minimum is: give coefficient=, of lens.local_learning_coefficient, which runs chains of "
            "its own."
        )
    else:
        results["coefficient"] = asked.coefficient
        tables.append(_table((), asked.coefficient.rows(), 2))
    return Step(*WORDS["transitions"], results, tuple(tables), tuple(pictures), tuple(missing))


def _response(asked: Asked) -> Step:
    few = _some(examples(asked.data), DERIVATIVES)
    moved, why = _tried(propagation, asked.apply, asked.params, few, seed=asked.seed)
    results: dict[str, Any] = {}
    tables, pictures, missing = [], [], [why] if why else []
    if moved is not None:
        results["propagation"] = moved
        tables.append(_table(PROPAGATION, moved.rows()))
        caption = "A small perturbation on its way through the layers, and how sensitive each layer is to each input"
        pictures.append(_picture(caption, moved))
        output, name = _output(asked, few)
        shares, why = _tried(attribution, asked.apply, asked.params, few, output=output)
        missing += [f"Attribution: {why}"] if why else []
        if shares is not None:
            results["attribution"] = shares
            tables.append(_table(("input", "mean |share|", "error"), shares.rows()))
            facts = {
                "shares in": name,
                "completeness gap at most": f"{shares.largest_gap:.2g}",
                "nodes": shares.num_nodes,
            }
            tables.append(facts_table(facts))
            pictures.append(_picture("Shares of the first examples", shares))
    return Step(*WORDS["response"], results, tuple(tables), tuple(pictures), tuple(missing))


def _output(asked: Asked, few) -> tuple[Any, str]:
    """The unit of the output that attributions are of: the one that varies most, if none is asked for."""
    if asked.output is not None:
        return asked.output, f"output {asked.output}" if isinstance(asked.output, int) else "the given output"
    last = list(layers(asked.apply, asked.params, few).values())[-1]
    flat = last.reshape(len(last), -1)
    unit = int(np.argmax(flat.var(axis=0)))
    return unit, "the output" if flat.shape[1] == 1 else f"output {unit}, which varies most"


def _averages(asked: Asked) -> Step:
    results: dict[str, Any] = {}
    tables, pictures, missing = [], [], []
    if asked.members is not None:
        found, why = _tried(average, asked.apply, asked.members, asked.data)
        missing += [why] if why else []
        if found is not None:
            results["average"] = found
            tables.append(_table(("", "members", "weight average"), found.rows()))
            pictures.append(_picture("Weight average against function average, and spectral norms", found))
    else:
        missing.append("How far networks differ: give members=, parameters at several times or of several seeds.")
    norms, why = _tried(spectral_norms, asked.params)
    if norms and "average" not in results:
        results["norms"] = norms
        product = float(np.prod(list(norms.values())))
        rows = [*((name, f"{value:.4g}") for name, value in norms.items()), ("product", f"{product:.4g}")]
        tables.append(_table(("spectral norm", ""), rows))
    return Step(*WORDS["averages"], results, tuple(tables), tuple(pictures), tuple(missing))
