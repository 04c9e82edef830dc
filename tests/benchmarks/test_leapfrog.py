"""The leapfrog benchmark under pytest-benchmark: ``pytest tests/benchmarks``. It prints ratios and asserts no timing."""

import numpy as np
import pytest

pytest.importorskip("numba", reason="benchmarks need the extra 'bench'")
pytest.importorskip("pytest_benchmark", reason="benchmarks need the extra 'bench'")

from leapfrog import PROGRAMS, case, lattices, table  # noqa: E402  (this folder is on the path; numba comes first)

CASES = lattices()
MEASURED = {}


@pytest.fixture(scope="module", params=CASES)
def programs(request):
    return request.param, *case(CASES[request.param])


@pytest.mark.parametrize("program", PROGRAMS)
def test_leapfrog(benchmark, programs, program):
    name, functions, updates = programs
    if program not in functions:
        pytest.skip("the neighbors of a graph have no border to peel off")
    benchmark.group = name
    benchmark.pedantic(functions[program], rounds=9, warmup_rounds=1)
    MEASURED.setdefault(name, {})[program] = np.array(benchmark.stats.stats.data) / updates * 1e9


def test_ratios(capsys):
    """Not a test: the table of ratios, printed after the timings."""
    complete = {name: times for name, times in MEASURED.items() if {"numba", *PROGRAMS[2:]} <= set(times)}
    with capsys.disabled():
        print("\n" + table(complete))
