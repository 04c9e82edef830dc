"""A Python that has imported the libraries and runs each program in a fork of itself: ``python warm_interpreter.py``.

Every line of its input is one program: ``{"script", "cwd", "environment", "output"}`` in JSON. The answer, once that program
has ended, is a line with its exit status and its CPU seconds. A fork begins with the libraries' modules and nothing else: a
namespace of its own, no JAX backend, no array, its own folder and environment. What one program changes no other sees.
"""

import gc
import importlib
import json
import os
import runpy
import sys
import threading
import traceback

# Slow to import. No part of phi4ppl that a program would have to import by itself, and not BlackJAX: importing it starts
# JAX's backend, whose threads do not survive a fork.
LIBRARIES = ["arviz_base", "arviz_plots", "arviz_stats", "jax", "jax.scipy", "matplotlib.pyplot", "networkx", "numpyro",
             "optax", "pandas", "scipy.optimize", "scipy.stats", "xarray", "phi4ppl"]  # fmt: skip


def next_program() -> dict:
    """The program that this process, a fork, is to run; the process that forks answers requests until its input ends."""
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        process = os.fork()
        if process == 0:
            return request
        _, status, used = os.wait4(process, 0)
        print(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, flush=True)
    sys.exit()


def run(script: str) -> None:
    """Run it as Python does, and end without taking the modules apart one by one, which takes longer than most programs."""
    status = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        print(end, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.current_thread():
            thread.join()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    for name in LIBRARIES:
        importlib.import_module(name)
    assert not sys.modules["jax._src.xla_bridge"]._backends, "an import has started JAX's backend"
    gc.freeze()  # a fork does not copy what it never looks at
    program = next_program()
    with open(program["output"], "wb") as output, open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ.update(program["environment"])
    os.chdir(program["cwd"])
    sys.argv[:] = [program["script"]]
    sys.path[0] = os.path.dirname(program["script"])
    run(program["script"])
