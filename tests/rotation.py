"""Tests that take seconds each: every run of CI makes a part of them, in turn.

``rotated.txt`` lists them by the id that pytest gives them, without the parameters where all parameters are meant. They are
marked ``rotated`` and left out by default. ``--share K/N`` keeps, of the tests that are selected otherwise, one part in N:
``.ci/run`` counts K up from commit to commit, so that N successive runs make all of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

import pytest

COLLECTED = pytest.StashKey[list[str]]()  # ids of all tests of this run, those that are left out too
LIST = Path(__file__).parent / "rotated.txt"


def listed() -> frozenset[str]:
    return frozenset(LIST.read_text(encoding="utf-8").splitlines())


def function_of(nodeid: str) -> str:
    """The id without parameters."""
    return nodeid.partition("[")[0]


def is_rotated(nodeid: str, names: frozenset[str]) -> bool:
    return nodeid in names or function_of(nodeid) in names


def share_of(text: str) -> tuple[int, int]:
    """K and N of ``K/N``; K may be any count, of which the remainder is taken."""
    first, _, last = text.partition("/")
    if not (first.isdigit() and last.isdigit() and int(last) > 0):
        raise ValueError(f"--share {text}: expected K/N with whole numbers, for example 3/12")
    return int(first) % int(last), int(last)


def in_share(nodeid: str, part: int, parts: int) -> bool:
    """Whether a test belongs to a part; those of one function share programs and stay together, pages do not."""
    name = nodeid if "test_shown_code" in nodeid else function_of(nodeid)
    return zlib.crc32(name.encode()) % parts == part


def unknown(names: Iterable[str], nodeids: Iterable[str]) -> list[str]:
    """Entries of the list that no test has."""
    nodeids = set(nodeids)
    known = nodeids | set(map(function_of, nodeids))
    return sorted(set(names) - known)
