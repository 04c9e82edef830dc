"""Models of built-in terms on disk."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..errors import ArgumentError
from ..lattice.frozen import Lattice
from .array_file import read_arrays, write_arrays
from .term import BUILT_IN, Term

__all__ = ["arrays_of_terms", "read_terms", "terms_of_arrays", "write_terms"]

FORMAT = "phi4ppl-model-1"


def write_terms(path, lattice: Lattice, terms: tuple[Term, ...]) -> Path:
    """Write a lattice and its terms; reject user-defined statistics and labels that are not Python literals."""
    return write_arrays(path, *arrays_of_terms(lattice, terms))


def arrays_of_terms(lattice: Lattice, terms: tuple[Term, ...]) -> tuple[dict, dict[str, np.ndarray]]:
    """A lattice and its terms as a header for JSON and arrays by name; rejects what `write_terms` rejects."""
    for term in terms:
        if term.form.built_in is None:
            raise ArgumentError(
                f"term {term.name!r}", "a built-in statistic", f"{term.statistic!r}",
                "Code is not written to disk: keep models with custom terms as a model file (see docs/declare).",
             reason="not_built_in")  # fmt: skip
    labels = None if lattice._nodes is None else [repr(n) for n in lattice.nodes]
    for label, text in zip(lattice.nodes if labels else (), labels or (), strict=True):
        try:
            same = ast.literal_eval(text) == label
        except (ValueError, SyntaxError):
            same = False
        if not same:
            raise ArgumentError(
                "lattice", "labels that are numbers, strings or tuples", text, "Relabel the graph.", reason="labels"
            )
    header = {
        "format": FORMAT,
        "name": lattice.name, "num_sites": lattice.num_sites, "shape": lattice.shape, "kinds": lattice.kinds,
        "periodic": lattice.periodic, "offsets": lattice.offsets, "layout_hint": lattice.layout_hint, "nodes": labels,
        "terms": [[t.name, t.form.built_in.name] for t in terms],
    }  # fmt: skip
    arrays = {"edges": lattice.edges, "edge_kinds": lattice._edge_kinds}
    if lattice._positions is not None:
        arrays["positions"] = np.asarray(lattice._positions, float)
    for number, term in enumerate(terms):
        arrays[f"cliques_{number}"] = term.cliques
        arrays[f"coupling_{number}"] = np.asarray(term.coupling)
    return header, arrays


def read_terms(path) -> tuple[Lattice, list[Term]]:
    """Read what `write_terms` wrote; reject anything else with the reason."""
    return terms_of_arrays(*read_arrays(path, FORMAT, "model.save"))


def terms_of_arrays(header: dict, arrays: dict[str, np.ndarray]) -> tuple[Lattice, list[Term]]:
    """The reverse of `arrays_of_terms`."""
    tuples: Callable = lambda value: tuple(map(tuples, value)) if isinstance(value, list) else value  # noqa: E731
    offsets = header["offsets"] and {kind: tuples(o) for kind, o in header["offsets"].items()}
    lattice = Lattice(
        name=header["name"], num_sites=header["num_sites"], edges=arrays["edges"], edge_kinds=arrays["edge_kinds"],
        kinds=header["kinds"], shape=tuples(header["shape"]), periodic=tuples(header["periodic"]), offsets=offsets,
        layout_hint=header["layout_hint"], positions=arrays.get("positions"),
        nodes=None if header["nodes"] is None else tuple(ast.literal_eval(t) for t in header["nodes"]),
    )  # fmt: skip
    terms = [
        Term(name, arrays[f"cliques_{number}"], BUILT_IN[statistic], arrays[f"coupling_{number}"])
        for number, (name, statistic) in enumerate(header["terms"])
    ]
    return lattice, terms
