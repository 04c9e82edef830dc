"""The report of a run as one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from ..reports.html import Fact, Row, Table, facts_table, write_page
from ..reports.numbers import rounded, value_with_error
from .contents import facts_of
from .correlations import correlations_part
from .figures import SYMBOLS, figures

__all__ = ["checks_part", "estimates_part", "write_html"]

MAX_ROWS = 12  # of an array that is shown unfolded
KEYS = 3
KEY_NAMES = ("abs_magnetization", "energy_density")
MEANING = (
    "mean(error): the error, in units of the last digits, is one Monte Carlo standard error, how well this run knows the mean. "
    "Standard deviation and interval: how far the quantity itself spreads. τ_int: ½ for independent draws. Not reliable: "
    "chains too short for their τ_int, or in disagreement."
)
CAUSES = {  # failures that bring others with them, the deepest first
    "movement": "A value never moves: nothing else can be judged before it does.",
    "divergences": "Trajectories diverge: draws miss a region, and every other number may be wrong because of it.",
    "exchange rates": "The temperatures are not connected: cold copies hear nothing from hot ones.",
    "sign changes": "Chains stay in one of two opposite phases: other failures may follow from this.",
    "E-BFMI": "Energies change too slowly: chains are slow for this reason.",
    "tree depth": "Paths are cut before they turn: chains are slow for this reason.",
    "R-hat": "Chains disagree: effective sample sizes and errors mean little before they agree.",
}


def write_html(report, path, name: str | None = None) -> Path:
    """Write the report of `phi4ppl.diagnose` to ``path``; ``name`` is that of the model, for the heading."""
    tree = report.tree
    facts = facts_of(tree)
    known = "model" in facts
    settings, model = facts["settings"], facts["model"] if known else ""
    how = report.run
    if known:
        how += f", seed {settings['seed']}, {settings['dtype']}, {settings['seconds']:.1f} s"
    what = model.splitlines()[0] if known else "Draws that were not made by phi4ppl"
    heading = name or (_field_name(facts) if known else what)
    content = {
        "title": f"{heading}: {report.verdict} · phi4ppl run",
        "heading": heading,
        "lines": [line for line in (what, _couplings(tree, facts), how) if line and line != heading],
        "outcome": "passed" if report.passed else "failed",
        "verdict": report.verdict,
        "keys": _keys(report.estimates, bool(facts.get("couplings"))),
        "checks": checks_part(report),
        "estimates": estimates_part(report.estimates),
        "correlations": correlations_part(tree),
        "pictures": list(figures(tree).values()),
        "model": model,
        "field_checks": [f"{n}: {text}" if len(facts["checks"]) > 1 else text for n, text in facts["checks"].items()],
        "facts": provenance_table(facts) if known else None,
    }
    return write_page(path, "run", content)


def provenance_table(facts: dict) -> Table:
    return facts_table(facts["settings"] | facts["versions"] | {k: facts[k] for k in ("python", "machine", "created")})


def _field_name(facts: dict) -> str:
    lattices = [field["lattice"] for field in facts["fields"].values()]
    return f"Field on {lattices[0]}" if facts.get("couplings") and lattices else "NumPyro model"


def _couplings(tree: xr.DataTree, facts: dict) -> str:
    """Names and values; of couplings that differ from clique to clique their range."""
    shown = []
    for name, value in facts.get("couplings", {}).items():
        if isinstance(value, str):
            values = tree["constant_data"][f"coupling_{name}"].values
            value = f"{values.min():.4g} … {values.max():.4g}" if values.size else "none"
        shown.append(f"{name} = {value:.6g}" if isinstance(value, float) else f"{name} = {value}")
    return ", ".join(shown)


def _keys(table: pd.DataFrame, is_field: bool) -> list[Fact]:
    """The three numbers that matter: of a field |m|, the energy, and the slowest observable; else leading parameters."""
    if not is_field:
        leading = [name for name in table.index if "[" not in str(name)] or list(table.index)
        return [_parameter(str(name), table.loc[name]) for name in leading[:KEYS]]
    rows = [(name, table.loc[name]) for name in KEY_NAMES if name in table.index]
    keys = [Fact(SYMBOLS[n], value_with_error(row["mean"], row["error"]), "Monte Carlo error") for n, row in rows]
    if not len(table) or table["tau_int"].isna().all():
        return keys
    slowest = table["tau_int"].idxmax()
    row = table.loc[slowest]
    remark = f"{SYMBOLS.get(slowest, slowest)}: {row['effective_sample_size']:.0f} effective draws"
    return [*keys, Fact("slowest τ_int", value_with_error(row["tau_int"], row["tau_int_error"]), remark)]


def _parameter(name: str, row: pd.Series) -> Fact:
    interval = f"94 %: {_interval(row)}; mean known to ± {row['error']:.2g}"
    return Fact(f"{name}: mean ± standard deviation", _mean_and_sd(row), interval)


def _mean_and_sd(row: pd.Series) -> str:
    return f"{rounded(row['mean'], row['sd'])} ± {rounded(row['sd'], row['sd'])}"


def _interval(row: pd.Series) -> str:
    return f"{rounded(row['3%'], row['sd'])} to {rounded(row['97%'], row['sd'])}"


def checks_part(report) -> dict:
    """The checks of a verdict for a template: folded where all passed, and else the failures by their causes."""
    failed = [check for check in report.checks if not check.passed]
    order = list(CAUSES)
    failed.sort(key=lambda check: order.index(check.name) if check.name in order else len(order))
    rows = []
    cause = CAUSES.get(failed[0].name, "") if failed else ""
    first = failed[0].name if cause and len(failed) > 1 else None
    for check in [*failed, *(check for check in report.checks if check.passed)]:
        kind = "" if check.passed else "fail" if first in (None, check.name) else "fail follows"
        mark = f"{'✓' if check.passed else '✗'} {check.name}"
        rows.append(Row((mark, check.value, check.threshold), kind, "" if check.passed else check.advice))
    return {
        "folded": not failed,
        "cause": f"Fix {first} first. {cause}" if first else cause,
        "table": Table(("check", "value", "threshold"), rows, texts=3),
        "notes": report.warnings,
    }


def estimates_part(table: pd.DataFrame) -> dict:
    """The table of `phi4ppl.estimate` for a template: arrays of many elements are folded, each in a table of its own."""
    names = [str(name).partition("[")[0] for name in table.index]
    long = [name for name in dict.fromkeys(names) if names.count(name) > MAX_ROWS]
    arrays = []
    for name in long:
        rows = table[[n == name for n in names]]
        bad = int((~rows["reliable"].to_numpy(bool)).sum())
        remark = f"{len(rows)} elements, means from {rows['mean'].min():.3g} to {rows['mean'].max():.3g}"
        remark += f", {bad} not reliable" if bad else ""
        arrays.append({"name": name, "remark": remark, "table": _estimates(rows)})
    short = _estimates(table[[n not in long for n in names]])
    return {"table": short, "arrays": arrays, "notes": [*table.attrs.get("warnings", ()), MEANING]}


def _estimates(table: pd.DataFrame) -> Table:
    head = ("", "mean(error)", "standard deviation", "94 % interval", "τ_int", "effective draws", "")
    rows = []
    for name, row in table.iterrows():
        symbol = SYMBOLS.get(str(name))
        cells = (
            f"{name}  {symbol}" if symbol else str(name), value_with_error(row["mean"], row["error"]),
            rounded(row["sd"], row["sd"]), _interval(row), value_with_error(row["tau_int"], row["tau_int_error"]),
            f"{row['effective_sample_size']:.0f}" if np.isfinite(row["effective_sample_size"]) else "–",
            "" if row["reliable"] else "not reliable",
        )  # fmt: skip
        rows.append(Row(cells, "" if row["reliable"] else "fail"))
    return Table(head, rows)
