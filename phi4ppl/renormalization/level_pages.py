"""The pages of renormalization and of its inverse: exponents, couplings and checks by level, and pictures of one field."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..model.field import MarkovRandomField
from ..reports.html import Fact, Picture, Row, Table, facts_table, png_of, write_page
from ..reports.numbers import value_with_error
from ..results.maps import single_fields
from .blocking import Blocked
from .blocks_of_sites import lattice_like
from .cascade_result import SHOWN, Cascade
from .flow_result import Flow
from .monte_carlo_rg_result import EXPONENT, MonteCarloRG

__all__ = [
    "basis_doubts",
    "couplings_by_level",
    "exponent_rows",
    "level_rows",
    "write_cascade",
    "write_renormalization",
]

MEANING = {
    "y_t": "thermal", "nu": "1/y_t", "y_h": "magnetic", "eta": "d + 2 − 2 y_h",
    "gamma/nu": "the power of L that χ grows by", "beta/nu": "the power of L that ⟨|m|⟩ falls by",
}  # fmt: skip
SYMBOLS = {"y_t": "y_t", "nu": "ν", "y_h": "y_h", "eta": "η", "gamma/nu": "γ/ν", "beta/nu": "β/ν"}
GIVEN_BACK = 5.0  # errors
STATISTICAL = "Errors are standard errors in units of the last digits, and know autocorrelation."
EXPONENTS_ARE = f"{STATISTICAL} They do not know of operators that are left out: compare levels, and operators kept."
INDEPENDENT = (
    "Before: as the lift proposes the fields. After: corrected by an exact kernel of the model. ⟨φ∂S⟩ is ⟨φ ∂S/∂φ⟩, which is "
    "1 for fields of this action. Errors are standard errors of independent fields, in units of the last digits."
)
TURNED = "Clusters of the correction may turn islands over."
LIFTS_ARE = (
    "Slope: the size of long waves of the proposal over that of the coarse field, 1 if it is kept. Correlation: of the blocked "
    "proposal with the coarse field; noise of the blocking lowers it. η: from χ of a level and the one before. Seconds are "
    "those of processors."
)


def exponent_rows(found: MonteCarloRG) -> list[dict]:
    """All rows of the exponents, for a file."""
    return [
        {"exponent": EXPONENT[row.sector], "from": row.sides[0], "to": row.sides[1], "operators": len(row.names),
         "cut": row.cut, "rank": row.rank, "condition": row.condition, "value": row.exponent, "error": row.error,
         "bias": row.bias}
        for row in found.rows
    ]  # fmt: skip


def couplings_by_level(found: Flow) -> list[dict]:
    """Couplings with errors at every level, for a file."""
    rows: list[dict] = []
    for level, lattice in enumerate(found.blocked.lattices):
        row: dict = {"level": level, "L": lattice.field_shape[0]}
        for name in found.basis:
            row |= {name: found.couplings[name][level], f"{name}_error": found.errors[name][level]}
        rows.append(row)
    return rows


def basis_doubts(found: Flow, model: MarkovRandomField) -> tuple[str, ...]:
    """Whether level 0 is the model that was sampled: terms that the basis lacks, and couplings that are not given back."""
    lacking = [name for name in model.couplings if name not in found.basis]
    basis = ", ".join(found.basis)
    if lacking:
        return (
            f"The model has terms that are not among {basis}: {', '.join(lacking)}. The couplings of no level have them.",
        )
    far = []
    for name, values in found.couplings.items():
        value, error, given = values[0], found.errors[name][0], float(np.mean(model.couplings.get(name, 0.0)))
        if abs(value - given) > GIVEN_BACK * error:
            far.append(f"{name} = {value_with_error(value, error)} for {given:g}")
    if not far:
        return ()
    return (
        f"Level 0 does not give back the model: {', '.join(far)}. The terms {basis} of a cubic lattice are others.",
    )


def level_rows(found: Cascade) -> list[dict]:
    """Observables before and after the correction at every level, for a file."""
    rows: list[dict] = []
    for level in found.levels:
        for stage, summary in (("before", level.corrected.before), ("after", level.corrected.after)):
            if stage == "after" or level.back is not None:
                row: dict = {"L": level.side, "stage": stage}
                for name, value in summary.values.items():
                    row |= {name: value, f"{name}_error": summary.errors[name]}
                rows.append(row | {"sweeps": level.corrected.sweeps if stage == "after" else 0})
    return rows


def write_renormalization(
    exponents: MonteCarloRG,
    couplings: Flow,
    path,
    model: MarkovRandomField,
    facts: dict | None = None,
    heading: str | None = None,
    words: Callable[[str], str] = str,
) -> Path:
    """Write the page of `monte_carlo_rg` and `flow` of one run; ``words`` translates advice."""
    blocked = exponents.blocked
    chains, draws = blocked[0].shape[:2]
    heading = heading or "Renormalization"
    flow_warnings = (*basis_doubts(couplings, model), *couplings.warnings)
    told = (("the exponents", exponents.warnings), ("the flow", flow_warnings))
    doubtful = [what for what, warnings in told if warnings]
    drawn = (blocked,) if couplings.blocked is blocked else (couplings.blocked, blocked)
    content = {
        "title": f"{heading} · phi4ppl renormalize",
        "heading": heading,
        "lines": [model.describe().splitlines()[0], f"{chains * draws} fields, {_sides(blocked)}"],
        "outcome": "failed" if doubtful else "passed",
        "verdict": f"There are warnings about {' and '.join(doubtful)}"
        if doubtful
        else "Nothing speaks against these values",
        "keys": [
            Fact(SYMBOLS[name], value_with_error(value, exponents.errors[name]), MEANING[name])
            for name, value in exponents.values.items()
        ]
        + [
            Fact(SYMBOLS[name], f"{value:.6g}", "an input of the rule") for name, (value, _) in exponents.inputs.items()
        ],
        "exponents": _exponents(exponents, words),
        "flow": _flow(couplings, couplings.blocked is blocked, model) | {"warnings": list(map(words, flow_warnings))},
        "pictures": [fields_by_level(each, model) for each in drawn],
        "model": model.describe(),
        "facts": facts_table(facts or {}),
    }
    return write_page(path, "renormalize", content)


def _sides(blocked: Blocked) -> str:
    return " → ".join(str(lattice.field_shape[0]) for lattice in blocked.lattices)


def _rules(blocked: Blocked) -> str:
    shown = [repr(rule).removesuffix("()") for rule in blocked.rules]
    first = [rule for k, rule in enumerate(shown) if k == 0 or rule != shown[k - 1]]
    often = "once" if blocked.levels == 1 else f"{blocked.levels} times"
    return f"Blocked {often} by {', then '.join(first)}."


def _exponents(found: MonteCarloRG, words) -> dict:
    best = [
        Row((SYMBOLS[name], value_with_error(choice.row.exponent, choice.row.error), choice.reason))
        for name, choice in found.best.items()
    ]
    best += [
        Row((SYMBOLS[name], f"{value:.6g}", "an input, not measured")) for name, (value, _) in found.inputs.items()
    ]
    rows = [
        Row((SYMBOLS[EXPONENT[row.sector]], f"{row.sides[0]} → {row.sides[1]}", str(len(row.names)), f"{row.cut:g}",
             f"{row.condition:.2g}", value_with_error(row.exponent, row.error), f"{row.bias:.1g}"))
        for row in found.rows
    ]  # fmt: skip
    return {
        "rules": _rules(found.blocked),
        "warnings": [words(text) for text in found.warnings],
        "best": Table(("", "value", "recommended, and why"), best, texts=3),
        "errors_are": EXPONENTS_ARE,
        "picture": Picture(
            "Exponents by the number of operators kept; the recommended ones have a ring", (png_of(found.plot()),)
        ),
        "rows": Table(("", "sides", "operators", "cut", "condition of B", "value", "bias"), rows, texts=2),
    }


def _flow(found: Flow, shared: bool, model: MarkovRandomField) -> dict:
    given = (f"{np.mean(model.couplings[name]):.6g}" if name in model.couplings else "" for name in found.basis)
    rows, scores = [Row(("model", "", *given, "", ""))], found.z_scores
    for level, lattice in enumerate(found.blocked.lattices):
        worst = max(scores[level].items(), key=lambda pair: abs(pair[1]), default=None)
        cells = (value_with_error(found.couplings[name][level], found.errors[name][level]) for name in found.basis)
        moved = f"{found.speed[level - 1]:.3f}" if level else ""
        z = "not compared" if worst is None else f"{worst[1]:.1f} ({worst[0]})"
        rows.append(Row((str(level), f"{lattice.field_shape[0]}", *cells, moved, z)))
    tables = [
        {"name": f"Level {level}", "table": _comparison(compared)}
        for level, compared in enumerate(found.comparisons) if compared
    ]  # fmt: skip
    why = "" if shared else " The rules of the exponents make spins, which have no density to be fitted."
    return {
        "rules": _rules(found.blocked) + why,
        "levels": Table(("level", "L", *found.basis, "change", "largest z"), rows),
        "errors_are": (
            f"{STATISTICAL} Change: of all couplings from the level before, relative to their length. z: by how many errors "
            "operators outside of the basis differ between the blocked fields and the fitted model, sampled again."
        ),
        "picture": Picture("Couplings from level to level", (png_of(found.plot()),)),
        "comparisons": tables,
    }  # fmt: skip


def _comparison(compared: dict) -> Table:
    rows = []
    for name, each in compared.items():
        pairs = ((each.data, each.data_error), (each.model, each.model_error))
        rows.append(Row((name, *(value_with_error(*pair) for pair in pairs), f"{each.z:.1f}")))
    return Table(("", "blocked fields", "fitted model", "z"), rows)


def fields_by_level(blocked: Blocked, model: MarkovRandomField) -> Picture:
    """The last field of the first chain at every level."""
    shown = []
    for level, (fields, lattice) in enumerate(zip(blocked.fields, blocked.lattices, strict=True)):
        name = "sampled" if not level else blocked.rules[level - 1].name
        shape = lattice.field_shape
        shown.append((f"{_size(shape)}, {name}", fields[0, -1], model.lattice if not level else lattice))
    return single_fields(f"The last field of the first chain. {_rules(blocked)}", "φ", shown)


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def write_cascade(
    found: Cascade,
    path,
    model: MarkovRandomField,
    facts: dict | None = None,
    heading: str | None = None,
    words: Callable[[str], str] = str,
) -> Path:
    """Write the page of a `Cascade` whose fields of all levels were kept; ``model`` is that of the last."""
    first, last = found.levels[0], found.levels[-1]
    heading = heading or "Inverse renormalization"
    exponents = found.exponents()
    content = {
        "title": f"{heading} · phi4ppl cascade",
        "heading": heading,
        "lines": [
            model.describe().splitlines()[0],
            f"{last.number} independent fields, {' → '.join(str(level.side) for level in found.levels)}, by {last.lift}",
        ],
        "outcome": "passed" if found.passed else "failed",
        "verdict": found.verdict[0].upper() + found.verdict[1:],
        "keys": [Fact(SYMBOLS[name], value_with_error(*pair), MEANING[name]) for name, pair in exponents.items()]
        + [
            Fact(f"{SHOWN[name]} at {last.side}", value_with_error(*last.corrected.after.pair(name)))
            for name in ("susceptibility", "binder_cumulant")
        ],
        "warnings": [words(text) for text in found.warnings],
        "levels": Table(Cascade._HEAD, [Row(cells, _kind(cells)) for cells in found._rows()], texts=2),
        "errors_are": INDEPENDENT,
        "lifts": _lifts(found),
        "lifts_are": LIFTS_ARE,
        "picture": single_fields(
            f"One field on its way from {first.side} to {last.side}, corrected at every level. {TURNED}", "φ",
            [(_size(level.shape), level.fields[-1], lattice_like(model.lattice, level.shape)) for level in found.levels],
        ),
        "model": model.describe(),
        "facts": facts_table(facts or {}),
    }  # fmt: skip
    return write_page(path, "cascade", content)


def _kind(cells: tuple[str, ...]) -> str:
    return "follows" if cells[1] == "before" else ""


def _lifts(found: Cascade) -> Table:
    rows = []
    for k, level in enumerate(found.levels):
        if level.back is not None:
            figures = (f"{level.back.slope:.3f}", f"{level.back.correlation:.3f}")
            each = level.seconds / level.number
            rows.append(
                Row(
                    (
                        str(level.side),
                        *figures,
                        value_with_error(*found.eta_between(k)),
                        f"{level.eta:g}",
                        f"{each:.2g}",
                    )
                )
            )
    head = ("L", "slope", "correlation", "η of the fields", "η of the lift", "seconds per field")
    return Table(head, rows)
