"""Tables in .csv files: names and rows as text, read without pandas, which changes names that occur twice."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

__all__ = ["column_of", "number_of", "read_table", "without_counters"]

MISSING_TEXTS = ("", "na", "n/a", "nan", "null", "none", "<na>")
TRUTH = {"true": 1.0, "false": 0.0}


def read_table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]], str]:
    """The first line, the others with their numbers, and what was done: a first column without a name is left out.

    Raises
    ------
    ValueError
        If there are no rows, commas do not separate the columns, or a row is longer or shorter than the first one.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file)
        names = next(lines, [])
        rows = [(lines.line_num, row) for row in lines if row]
    if not names or not rows:
        raise ValueError("a table without rows of numbers below a row of names")
    if separator := next((s for s in ";\t" if s in "".join(rows[0][1])), None):
        raise ValueError(
            f"columns are separated by {separator!r}; a .csv table has commas between columns, and points in numbers"
        )
    for number, row in rows:
        if len(row) != len(names):
            raise ValueError(f"{len(row)} columns in line {number}, and {len(names)} in the first line")
    if len(names) > 1 and not names[0].strip():
        note = f"{path}: the first column has no name and is left out."
        return names[1:], [(number, row[1:]) for number, row in rows], note
    return names, rows, ""


def number_of(line: int, text: str) -> float:
    """A number, or nan for one that is missing; ValueError for anything else."""
    text = text.strip()
    if text.lower() in MISSING_TEXTS:
        return np.nan
    try:
        return float(text if "_" not in text else "")
    except ValueError:
        raise ValueError(f"{text!r} in line {line} is not a number") from None


def column_of(texts: list[str]) -> np.ndarray:
    """A column as numbers, with 1 and 0 for true and false; as words, None for missing ones, if it has any other word."""
    try:
        return np.array([_number_or_truth(text) for text in texts])
    except ValueError:
        words = [text.strip() for text in texts]
        return np.array([None if word.lower() in MISSING_TEXTS else word for word in words], dtype=object)


def _number_or_truth(text: str) -> float:
    truth = TRUTH.get(text.strip().lower())
    return number_of(0, text) if truth is None else truth


def without_counters(path: Path, table: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str]:
    """Columns without those that number the rows from 0 or 1, and a note about these; the last column stays."""
    rows = np.arange(len(next(iter(table.values()))))
    counters = [name for name, column in table.items() if column.dtype.kind == "f" and _counts(column, rows)]
    if not counters or len(counters) == len(table):
        return table, ""
    plural = "columns number" if len(counters) > 1 else "column numbers"
    note = (
        f"{path}: the {plural} the rows, and {'are' if len(counters) > 1 else 'is'} left out: {', '.join(counters)}. "
        "Points in a .npz file are taken as they are."
    )
    return {name: column for name, column in table.items() if name not in counters}, note


def _counts(column: np.ndarray, rows: np.ndarray) -> bool:
    return len(rows) > 2 and (np.array_equal(column, rows) or np.array_equal(column, rows + 1))
