"""``phi4ppl evolve``: a field in time, by a model's dynamics or by any process; results in one folder, and a film."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import ArgumentError
from .field_files import load_fields
from .model_files import field_of, load_model_file
from .outcome import result_folder
from .status import INTERRUPTED, PASSED

__all__ = ["PROCESSES", "evolve"]

RECORD, EVOLUTION, PICTURE = "evolution.json", "evolution.nc", "evolution.png"
QUENCH = 0.1  # standard deviation of the random field that a run starts from by default
PROCESSES = {"gradient-flow": "GradientFlow", "hamiltonian": "Hamiltonian", "langevin": "Langevin"}


def evolve(arguments) -> int:
    """Move a field in time, and write the fields, a picture and a film."""
    from .. import dynamics
    from ..dynamics.film import film_path
    from ..results.datatree import save_run
    from ..results.settings import metadata

    file = load_model_file(arguments.model, arguments.set, (dynamics.Process,))
    results = result_folder(arguments, "evolve", Path("evolutions") / file.name, RECORD, (EVOLUTION, PICTURE))
    film = None if arguments.film is None else film_path("--film", arguments.film)
    process = _process(arguments, file)
    print(f"{file.name}: {file.summary}", flush=True)
    tree = dynamics.evolve(
        process, _start(arguments, file, process), time=arguments.time, step_size=arguments.step_size,
        every=arguments.every, num_replicas=arguments.replicas, seed=arguments.seed, checkpoint=arguments.checkpoint,
        progress=False if arguments.quiet else None,
    )  # fmt: skip
    facts = metadata(tree)["settings"]
    group = tree["evolution"]
    print(f"process: {facts['process']}, {group.sizes['time'] - 1} records to time {float(group['time'][-1]):g}, "
          f"step size {facts['step_size']:.6g}")  # fmt: skip
    if isinstance(process, dynamics.Langevin) and not process.is_exact:
        print(f"  step {process.step!r}: averages have an error of its size; --step mala has none")
    for name in ("energy", "acceptance_rate", "magnetization", "phi_squared"):
        if name in group:
            first, last = group[name].values[:, [0, -1]].mean(axis=0)
            print(f"  {name}: {first:.6g} → {last:.6g}")
    saved = results.add(EVOLUTION, lambda path: save_run(tree, path))
    results.add(PICTURE, lambda path: dynamics.plot(tree).savefig(path, dpi=120, format="png"))
    if film is not None:
        print(f"film:    {dynamics.animate(tree, film)}")
    results.finish({"model": str(file.path), "settings": file.parameters} | facts, finished=not facts["interrupted"])
    print(f"fields:  {saved}   (phi4ppl.load_run reads them)\nresults: {results.path}")
    return INTERRUPTED if facts["interrupted"] else PASSED


def _process(arguments, file):
    """The process in the file, or that of its model by the name of ``--process``."""
    from .. import dynamics

    own = isinstance(file.model, dynamics.Process)
    name = None if own else arguments.process or next(iter(PROCESSES))
    if own and arguments.process is not None:
        expected = f"a model; {file.path.name} has a process of its own"
        raise ArgumentError("--process", expected, repr(arguments.process), reason="conflict")
    if arguments.step is not None and name != "langevin":
        raise ArgumentError("--step", "--process langevin beside it", repr(arguments.step), reason="conflict")
    if own:
        return file.model
    if name not in PROCESSES:
        raise ArgumentError("--process", f"one of {', '.join(PROCESSES)}", repr(name), reason="choice")
    settings = {} if arguments.step is None else {"step": arguments.step}
    return getattr(dynamics, PROCESSES[name])(field_of(file), **settings)


def _start(arguments, file, process):
    """The start in a file, that of the model file, or a small random field of both signs, as after a quench."""
    if arguments.start is not None:
        model = getattr(process, "model", None)
        if model is None:
            return np.load(arguments.start)
        return load_fields(arguments.start, model)[0]
    if file.start is not None:
        return file.start
    rng = np.random.default_rng(arguments.seed)
    return QUENCH * rng.normal(size=(arguments.replicas or 1, *process.lattice.field_shape))
