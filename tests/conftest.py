"""Settings and fixtures shared by all tests.

JAX is strict here: adding arrays of different rank is an error, and every test must leave the JAX
configuration as it was. Tests marked ``compile_quickly`` have programs that compile for much longer than they run: XLA is
asked for little optimization there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

os.environ["MPLBACKEND"] = "Agg"

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

# Fixed examples and no database: the same verdict on every run. No deadline: the first example compiles.
hypothesis.settings.register_profile("phi4ppl", deadline=None, derandomize=True, database=None, max_examples=25)
hypothesis.settings.load_profile("phi4ppl")

WATCHED_SETTINGS = ("jax_enable_x64", "jax_numpy_rank_promotion", "jax_debug_nans", "jax_disable_jit")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Compile quickly, or as a user would: before any fixture is set up, and not with programs of the other kind."""
    marker = item.get_closest_marker("compile_quickly")
    quick = marker is not None and marker.args != (False,)
    if jax.config.read("jax_disable_most_optimizations") != quick:
        jax.clear_caches()
        jax.config.update("jax_disable_most_optimizations", quick)
    return (yield)


@pytest.fixture(autouse=True)
def configuration_restored(request):
    """Fail a test that leaves JAX configured differently; allow rank promotion where a test is marked so."""
    before = {name: getattr(jax.config, name) for name in WATCHED_SETTINGS}
    allowed = request.node.get_closest_marker("rank_promotion") is not None
    with jax.numpy_rank_promotion("allow" if allowed else "raise"):
        yield
    assert {name: getattr(jax.config, name) for name in WATCHED_SETTINGS} == before


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def reference() -> dict[str, dict]:
    """Exact reference cases by name; see ``tests/data/README.md``."""
    path = Path(__file__).parent / "data" / "reference.json"
    return {case["name"]: case for case in json.loads(path.read_text(encoding="utf-8"))["cases"]}


@pytest.fixture(scope="session")
def run_python():
    """Run this Python in a fresh process that sees the same ``phi4ppl`` as the tests.

    ``run_python(arguments, cwd=…, **environment)`` returns the finished process, or fails the test with its
    output.
    """
    import phi4ppl

    package_parent = str(Path(phi4ppl.__file__).parents[1])

    def run(arguments, *, cwd, **environment) -> subprocess.CompletedProcess:
        search_path = os.pathsep.join(filter(None, [package_parent, os.environ.get("PYTHONPATH")]))
        finished = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": search_path, **environment},
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        if finished.returncode != 0:
            pytest.fail(
                f"{' '.join(map(str, arguments))} exited with {finished.returncode}\n"
                f"{finished.stdout[-4000:]}\n{finished.stderr[-8000:]}",
                pytrace=False,
            )
        return finished

    return run
