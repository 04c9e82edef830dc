"""The eight steps on one page: what was measured, with errors, in the words of both fields, and what to test next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .._typing import Labeled, PathLike
from ..errors import ArgumentError
from ..errors.arguments import call_checked, seed_within
from ..reports.card import card
from ..reports.html import Fact, Row, Table, facts_table, write_page
from ..reports.numbers import value_with_error
from ..spectral.spectral_verdict import Finding
from .activations import examples, num_examples
from .correspondences import CORRESPONDENCES
from .hypotheses import hypotheses
from .learning_coefficient import LearningCoefficient
from .leave_out import aligned
from .report_steps import Asked, Step, steps_of

__all__ = ["LensReport", "report"]

LIMITS = (
    "Rules have the thresholds that are printed, and what they suggest is to be tested, not believed. The words of "
    "field theory name "
    "measurements here; the table of correspondences says where they are more than names."
)
ERRORS = "Errors are standard errors in units of the last digits, over examples: other examples, not other trainings. "
"Intervals have 95 %."


@call_checked
class LensReport:
    """What `report` finds: ``steps`` with their ``results``, and ``findings``; prints as text.

    Attributes
    ----------
    steps : tuple of Step
        Each with ``title``, ``results`` by name, ``tables``, and ``missing``: what was not measured, and why.
    findings : tuple of Finding
        ``text`` (what was measured), ``rule``, and ``advice``: the test to run next.
    results : dict
        The results of all steps by name, such as ``occupation``: what the functions of `phi4ppl.lens` return.
    """

    def __init__(self, steps: list[Step], facts: dict):
        self.steps, self.facts = tuple(steps), facts
        self.results: dict[str, Any] = {name: value for step in steps for name, value in step.results.items()}
        self.findings: tuple[Finding, ...] = tuple(hypotheses(self.results))

    @property
    def passed(self) -> bool:
        """Whether no finding is a reason to act."""
        return not any(finding.concern for finding in self.findings)

    def __str__(self) -> str:
        lines = []
        for number, step in enumerate(self.steps, start=1):
            lines.append(f"{number}. {step.title}")
            for table in step.tables:
                rows = (
                    [table.head, *(row.cells for row in table.rows)]
                    if table.head
                    else [row.cells for row in table.rows]
                )
                lines += aligned(rows) if rows else []
            lines += [f"  not measured: {text}" for text in step.missing]
        lines.append("What to test next")
        lines += [f"  {each.text} Test: {each.advice} (rule: {each.rule})" for each in self.findings]
        return "\n".join([*lines, LIMITS])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [(each.text, each.advice) for each in self.findings]
        outcome = "no finding is a reason to act" if self.passed else "findings that are reasons to act"
        return card("Lens", ("measured", "test to run next"), rows, good=self.passed, outcome=outcome)

    def to_html(self, path: PathLike, *, heading: str | None = None, facts: dict | None = None) -> Path:
        """Write one self-contained page."""
        heading = heading or "A model read as a field theory"
        content = {
            "title": f"{heading} · phi4ppl lens",
            "heading": heading,
            "lines": [f"{self.facts['examples']} examples, {self.facts['layers']} layers"],
            "outcome": "passed" if self.passed else "failed",
            "verdict": self.findings[0].text,
            "keys": self._keys(),
            "steps": [{"number": k, "step": step} for k, step in enumerate(self.steps, start=1)],
            "findings": Table(
                ("measured", "rule", "test to run "
                "next"), [Row((f.text, f.rule, f.advice)) for f in self.findings], texts=3
            ),
            "limits": LIMITS,
            "errors_are": ERRORS,
            "correspondences": Table(
                ("field theory", "machine learning", "", "where"), [Row(tuple(each)) for each in CORRESPONDENCES], texts=4
            ),
            "facts": facts_table(self.facts | (facts or {})),
        }  # fmt: skip
        return write_page(path, "lens", content)

    def _keys(self) -> list[Fact]:
        found = []
        if (moved := self.results.get("propagation")) is not None:
            number = value_with_error(float(moved.growth[-1]), float(moved.growth_error[-1]))
            found.append(Fact("growth of a perturbation", number, "mean square, from input to output"))
        if (occupied := self.results.get("occupation")) is not None:
            last = list(occupied.layers.values())[-1]
            found.append(
                Fact("modes of the last layer", str(last.participation), f"of {last.num_modes} that carry its variance")
            )
        if (flow := self.results.get("renormalization")) is not None:
            last = list(flow.layers.values())[-1]
            if last.probe is not None:
                found.append(Fact("linear probe", str(last.probe), f"of the label, in layer {last.name!r}"))
        if (shares := self.results.get("attribution")) is not None:
            found.append(Fact("completeness gap", f"{shares.largest_gap:.2g}", "of integrated gradients, at most"))
        return found


@call_checked
def report(
    apply, params, data: Labeled, *, labels: Labeled = None, other: Labeled = None, transformations=None,
    symmetry: str | Callable = "invariant", training=None, members=None, coefficient: LearningCoefficient | None = None,
    output: int | Callable | None = None, path: PathLike | None = None, seed: int = 0,
) -> LensReport:  # fmt: skip
    """Read a trained model in eight steps: field and vacuum, occupation, symmetry, Wick's theorem, renormalization "
    "by layers,
    transitions in training, response, averages.

    Steps whose ingredients are not given say so, and so do measurements that the model does not allow, such as derivatives of
    a model that JAX cannot trace.

    Parameters
    ----------
    apply, params
        The model, as in `layers`.
    data : array, shape ``(n, …)``
        At least 40 independent examples.
    labels : array, shape ``(n,)``, optional
        Classes or real values, for `renormalization`.
    other : array, shape ``(m, …)``, optional
        A second data set, for `occupation`.
    transformations, symmetry
        Of the input, and what the output is to be under them, as ``output`` of `equivariance`; by default the sign and a
        reflection, as probes.
    training : dict, list of Epoch, Phases or Transitions, optional
        Curves of the training, for `transitions`.
    members : list of pytrees, optional
        Parameters at several times or of several trainings, for `average`.
    coefficient : LearningCoefficient, optional
        Of `local_learning_coefficient`.
    output : int or callable, optional
        As of `attribution`; by default the unit that varies most.
    path : path-like, optional
        Of a page to write.
    seed : int

    Returns
    -------
    LensReport
        ``print`` it; ``to_html`` writes the page, ``results`` has what the steps measured.

    Raises
    ------
    ArgumentError
        As of `layers`.

    Examples
    --------
    >>> import jax.numpy as jnp, numpy as np, phi4ppl as p4
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
    >>> found = p4.lens.report([("half", lambda x: x / 2), ("sum", lambda h: h.sum(axis=1))], None, x)
    >>> [step.title for step in found.steps][:3], round(float(found.results["propagation"].susceptibility[0]), 3)
    (['Field and vacuum', 'Occupation numbers', 'Symmetry'], 0.25)
    """
    seed_within(seed)
    if coefficient is not None and not isinstance(coefficient, LearningCoefficient):
        fix = "It is the result of phi4ppl.lens.local_learning_coefficient."
        raise ArgumentError("coefficient", "a LearningCoefficient", f"a {type(coefficient).__name__}", fix)
    number = num_examples(examples(data))
    asked = Asked(
        apply, params, data, labels, other, transformations, symmetry, training, members, coefficient, output, seed
    )
    steps = steps_of(asked)
    made = LensReport(steps, {"examples": number, "layers": len(steps[0].results["layers"]), "seed": seed})
    if path is not None:
        made.to_html(path)
    return made
