"""Settings and fixtures shared by all tests.

JAX is strict here: adding arrays of different rank is an error, and every test must leave the JAX
configuration as it was. Tests marked ``compile_quickly``, and the doctests, have programs that compile for much longer than
they run: XLA is asked for little optimization there (``quick_compile``).

All processes of a run (pytest's workers and whatever they start) share compiled programs through JAX's persistent cache, in
a folder that lives as long as the run, or in ``JAX_COMPILATION_CACHE_DIR`` where that is set.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["MPLBACKEND"] = "Agg"

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # the first process; the others inherit its environment
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="phi4ppl-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault(
    "TF_CPP_MIN_LOG_LEVEL", "3"
)  # jaxlib 0.10.1 names harmless features of the processor with every program
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")  # lines of Python in programs that nobody reads

import cpu_budget
import hypothesis
import jax
import pytest
import quick_compile
import rotation

quick_compile.install()
jax.config.update("jax_numpy_rank_promotion", "raise")

# Fixed examples and no database: the same verdict on every run. No deadline: the first example compiles.
hypothesis.settings.register_profile("phi4ppl", deadline=None, derandomize=True, database=None, max_examples=25)
hypothesis.settings.load_profile("phi4ppl")

WATCHED_SETTINGS = ("jax_enable_x64", "jax_numpy_rank_promotion", "jax_debug_nans", "jax_disable_jit")


ROTATED = rotation.listed()


def pytest_addoption(parser):
    parser.addoption("--share", metavar="K/N", type=rotation.share_of, help="one part in N of the selected tests")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config, items):
    """Mark what is made in turn, doctests too, before -m selects; then leave out the tests of other parts."""
    config.stash[rotation.COLLECTED] = [item.nodeid for item in items]
    for item in items:
        if rotation.is_rotated(item.nodeid, ROTATED):
            item.add_marker("rotated")
    yield
    if share := config.getoption("--share"):
        kept = [item for item in items if rotation.in_share(item.nodeid, *share)]
        config.hook.pytest_deselected(items=[item for item in items if not rotation.in_share(item.nodeid, *share)])
        items[:] = kept


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Compile quickly, or as a user would: before any fixture is set up, and not with programs of the other kind."""
    marker = item.get_closest_marker("compile_quickly")
    quick_compile.switch(isinstance(item, pytest.DoctestItem) if marker is None else marker.args != (False,))
    before = cpu_budget.now()
    try:
        return (yield)
    finally:
        cpu_budget.seconds[cpu_budget.file_of(item.nodeid)] += cpu_budget.now() - before


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """A worker of pytest-xdist has ended."""
    cpu_budget.seconds.update(getattr(node, "workeroutput", {}).get("cpu_seconds", {}))


def pytest_sessionfinish(session):
    """Workers hand over what they have spent; the first process compares it with the budget."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["cpu_seconds"] = dict(cpu_budget.seconds)
    elif told := cpu_budget.finish(cpu_budget.seconds, os.environ.get("PHI4PPL_TEST_BUDGET")):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print("", "More CPU time than tests/budget.json allows:", *told, sep="\n")


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


def python_environment(more: dict[str, str]) -> dict[str, str]:
    """The environment of a Python that sees the same ``phi4ppl`` as the tests."""
    import phi4ppl

    package_parent = str(Path(phi4ppl.__file__).parents[1])
    search_path = os.pathsep.join(filter(None, [package_parent, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": search_path, **more}


@pytest.fixture(scope="session")
def run_python():
    """Run this Python in a fresh process that sees the same ``phi4ppl`` as the tests.

    ``run_python(arguments, cwd=…, **environment)`` returns the finished process, or fails the test with its
    output.
    """

    def run(arguments, *, cwd, **environment) -> subprocess.CompletedProcess:
        finished = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env=python_environment(environment),
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


@pytest.fixture(scope="session")
def run_warm(run_python, tmp_path_factory):
    """Run a script as ``run_python`` does, in a fork of a Python that has imported the libraries: see ``warm_interpreter``.

    Its environment is that of this process, with little optimization by XLA. Where nothing can be forked, ``run_python``.
    """
    quickly = quick_compile.environment()
    if not hasattr(os, "fork"):
        yield lambda script, *, cwd, **environment: run_python([script], cwd=cwd, **quickly, **environment)
        return
    command = [sys.executable, Path(__file__).parent / "warm_interpreter.py"]
    output = tmp_path_factory.mktemp("warm") / "output"
    with subprocess.Popen(
        command, env=python_environment(quickly), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as interpreter:

        def run(script, *, cwd, **environment):
            asked = {"script": str(script), "cwd": str(cwd), "environment": environment, "output": str(output)}
            print(json.dumps(asked), file=interpreter.stdin, flush=True)
            status, seconds = interpreter.stdout.readline().split()
            cpu_budget.elsewhere += float(seconds)
            if status != "0":
                shown = output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""
                pytest.fail(f"{script} exited with {status}\n{shown[-12000:]}", pytrace=False)

        yield run
        before = cpu_budget.now()
        interpreter.stdin.close()
        interpreter.wait()
        cpu_budget.elsewhere -= cpu_budget.now() - before  # its programs have been counted
