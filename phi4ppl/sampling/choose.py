"""``kernel="auto"``: look at the model, take a kernel, and say why."""

from __future__ import annotations

import numpy as np

from ..errors import ArgumentError
from ..potential import CompiledModel
from .colouring import colours
from .kernels import Kernel, get_kernel

__all__ = ["choose", "resolve"]

MAX_COLOURS = 16  # a sweep costs a force for every colour


def choose(compiled: CompiledModel) -> tuple[str, str]:
    """Name of the kernel for a model, and the reason in words."""
    model = compiled.model
    if model is None:
        return "nuts", "a NumPyro model has no graph to exploit"
    terms = list(zip(model._forms, model._values, strict=True))
    num_colours = int(colours(model.lattice, model._forms).max()) + 1
    if num_colours > MAX_COLOURS:
        return "hmc", f"the sites need {num_colours} colours, too many for sweeps"
    own = [form.name for form, _ in terms if not form.built_in and form.cliques.shape[1] > 1]
    if own:
        return "metropolis", f"clusters cannot cross the own term {own[0]!r} of several sites, sweeps can"
    if not any(form.built_in == "hopping" and np.any(np.asarray(value)) for form, value in terms):
        return "metropolis", "no hopping term ties the sites, so sweeps move each on its own"
    return "cluster", "clusters over the hopping terms move long waves, sweeps the short ones"


def resolve(kernel: str | Kernel, compiled: CompiledModel) -> tuple[Kernel, str]:
    """The kernel that will run, and why.

    Raises
    ------
    ArgumentError
        If there is no kernel of that name, or it cannot sample this model.
    """
    name, reason = choose(compiled) if kernel == "auto" else (kernel, "asked for")
    kernel = get_kernel(name)
    objection = kernel.objection(compiled)
    if objection is not None:
        mend = "kernel='auto' finds one that suits the model."
        raise ArgumentError("kernel", "one that can sample this model", f"{kernel.name!r}, which {objection}", mend)
    return kernel, reason
