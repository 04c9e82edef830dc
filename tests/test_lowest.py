"""`tests/lowest.txt` pins what `pyproject.toml` allows at least, so that `.ci/run --lowest` tests the bounds themselves."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

pytestmark = pytest.mark.smoke

ROOT = Path(__file__).resolve().parents[1]


def lower_bounds(requirements: list[str]) -> dict[str, Version]:
    """Names and the versions after ``>=``."""
    bounds = {}
    for text in requirements:
        requirement = Requirement(text)
        for bound in requirement.specifier:
            if bound.operator == ">=":
                bounds[requirement.name] = Version(bound.version)
    return bounds


def pins(text: str) -> dict[str, Version]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return {name: Version(version) for line in lines if line for name, version in [line.split("==")]}


def test_lowest_versions_are_the_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = lower_bounds([*project["dependencies"], *project["optional-dependencies"]["sklearn"]])
    pinned = pins((ROOT / "tests" / "lowest.txt").read_text(encoding="utf-8"))
    assert pinned.pop("jaxlib") == pinned["jax"]
    assert pinned == bounds


def test_planted_difference_is_seen():
    assert lower_bounds(["a>=1.2", "b[x]>=3; python_version < '3.12'", "c<2"]) == {
        "a": Version("1.2"),
        "b": Version("3"),
    }
    assert pins("a==1.2.0\nb==3.1  # why\n") == {"a": Version("1.2"), "b": Version("3.1")}
