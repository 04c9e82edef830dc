"""Values that a library hands over by the names of its modules, put in the order in which they are computed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from importlib import import_module

import jax

from ...errors import MissingPackageError

__all__ = ["OUTPUT", "in_order", "named_values", "required"]

OUTPUT = "output"


def required(package: str, function: str):
    """The package, or `MissingPackageError`."""
    try:
        return import_module(package)
    except ImportError as error:
        name = package.partition(".")[0]
        message = f"phi4ppl.lens.{function} needs {name}, which is not installed. Install it with pip install {name}."
        raise MissingPackageError(name, message) from error


def named_values(tree: Mapping, path: tuple = ()) -> dict[str, list]:
    """Arrays by dotted path of a nested dict of outputs of methods; "__call__" itself has no name."""
    found: dict[str, list] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= named_values(value, (*path, str(key)))
            continue
        here = path if key == "__call__" else (*path, str(key))
        found[".".join(here) or OUTPUT] = [leaf for leaf in jax.tree.leaves(value) if hasattr(leaf, "shape")]
    return found


def in_order(run: Callable, x) -> dict:
    """Layers in the order in which they are computed, the output last.

    ``run(x)`` returns ``{name: [array, …]}``, among them `OUTPUT`; a module that is called several times has several
    values. What is no array of one row an example is left out, and so is a module that hands on the value of one inside it, or
    whose value is the output.
    """
    names: list[tuple[str, int]] = []

    def flat(x):
        found = run(x)
        names[:] = [(name, k) for name, values in found.items() for k in range(len(values))]
        return list(itertools.chain.from_iterable(found.values()))

    number = len(jax.tree.leaves(x)[0])
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), x)
    program = jax.make_jaxpr(flat)(shapes).jaxpr
    place = {id(var): k for k, equation in enumerate(program.eqns) for var in equation.outvars}
    made = [place.get(id(var), -1) for var in program.outvars]
    values = run(x)
    output = names.index((OUTPUT, 0))
    order = sorted(range(len(names)), key=lambda k: (k == output, made[k], -names[k][0].count(".")))
    found, seen = {}, set()
    for k in order:
        (name, call), var = names[k], program.outvars[k]
        value = values[name][call]
        if k != output:
            hands_on = any(inner.startswith(f"{name}.") for inner, same in seen if same == id(var))
            if hands_on or var is program.outvars[output] or not value.ndim or len(value) != number:
                continue
        seen.add((name, id(var)))
        found[name if call == 0 else f"{name} #{call + 1}"] = value
    return found
