"""The list of tests that CI makes in turn is true, and the parts are all of them."""

import pytest
import rotation
from rotation import function_of, in_share, is_rotated, share_of, unknown


def test_every_entry_is_a_test(pytestconfig):
    collected = pytestconfig.stash[rotation.COLLECTED]
    files = {nodeid.partition("::")[0] for nodeid in collected}
    listed = {name: name.partition("::")[0] for name in rotation.listed()}
    assert [name for name, file in listed.items() if not (rotation.LIST.parents[1] / file).is_file()] == []
    assert unknown([name for name, file in listed.items() if file in files], collected) == []


def test_planted_entry_without_a_test_is_found():
    assert unknown(["tests/a.py::x", "tests/a.py::y[1]", "tests/a.py::y[3]"], ["tests/a.py::x[1]", "tests/a.py::y[1]"]) == [
        "tests/a.py::y[3]"
    ]  # fmt: skip


def test_parts_are_disjoint_and_complete_and_functions_stay_together():
    nodeids = sorted(rotation.listed()) + [f"tests/test_a.py::test_b[{k}]" for k in range(5)]
    parts = [[n for n in nodeids if in_share(n, k, 12)] for k in range(12)]
    assert sorted(sum(parts, [])) == sorted(nodeids)
    assert all(parts)
    assert len({k for k in range(12) for n in parts[k] if n.startswith("tests/test_a.py")}) == 1


def test_parameters_are_all_meant_or_one():
    names = frozenset(["tests/a.py::x", "tests/a.py::y[1-a]"])
    assert is_rotated("tests/a.py::x[1]", names) and is_rotated("tests/a.py::y[1-a]", names)
    assert not is_rotated("tests/a.py::y[2-a]", names) and not is_rotated("tests/a.py::xx", names)
    assert function_of("phi4ppl/a.py::phi4ppl.a.f") == "phi4ppl/a.py::phi4ppl.a.f"


def test_share_counts_on_beyond_the_number_of_parts():
    assert share_of("5/12") == (5, 12) and share_of("29/12") == (5, 12)
    for wrong in ("5", "a/3", "3/0", "-1/3"):
        with pytest.raises(ValueError, match="expected K/N"):
            share_of(wrong)
