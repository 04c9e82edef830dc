"""The identity of a run: digests and settings that determine its numbers, compared when it is resumed from a checkpoint."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from importlib.metadata import version

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from .._version import __version__
from ..energy.compiled import CompiledModel

__all__ = [
    "array_digest", "function_digest", "jaxpr_digest", "jaxprs", "model_identity", "observed", "version_identity",
]  # fmt: skip

ADDRESS = re.compile(r"0x[0-9a-f]+")  # of functions, in the text of a jaxpr: another one in every process


def model_identity(compiled: CompiledModel, observables: tuple, position) -> dict[str, str]:
    """Digests of the model and of what is measured, by name; ``position`` is one position, or its shapes and dtypes."""
    identity = {}
    for name, field in compiled.fields.items():
        suffix = "" if compiled.model is not None else f" of {name}"
        identity[f"lattice{suffix}"] = field.lattice.digest
        identity[f"terms{suffix}"] = array_digest({form.name: form.cliques for form in field.forms})
    if compiled.model is not None:
        identity["couplings"] = array_digest(compiled.model.couplings)
    identity["density"] = function_digest(compiled.potential_fn, position)
    model = compiled.model
    identity["observables"] = {
        name: function_digest(lambda phi, f=f: observed(f, model, phi), position) for name, f in observables
    }
    return identity


def observed(function, model, position):
    """What an observable measures; one that needs the couplings has a function ``of_model(model, position)``."""
    of_model = getattr(function, "of_model", None)
    return function(position) if of_model is None else of_model(model, position)


def version_identity() -> dict[str, str]:
    """Versions of what computes, and the kind of device: others round differently."""
    names = ("jax", "jaxlib", "blackjax")
    return {"phi4ppl": __version__, **{name: version(name) for name in names}, "device": jax.default_backend()}


def array_digest(tree) -> str:
    """Digest of the names, dtypes, shapes and bits of all leaves."""
    digest = hashlib.blake2b(digest_size=16)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        _add(digest, leaf, jax.tree_util.keystr(path))
    return digest.hexdigest()


def function_digest(function, *arguments) -> str:
    """Digest of what a function computes, as JAX traces it: operations, and the constants that it has been given.

    Code that computes the same in the same steps has the same digest, in every process.
    """
    return jaxpr_digest(jax.make_jaxpr(function)(*arguments))


def jaxpr_digest(closed: ClosedJaxpr) -> str:
    """Digest of a traced function."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(ADDRESS.sub("", str(closed.jaxpr)).encode())
    for constant in _constants(closed):
        _add(digest, constant, "constant")
    return digest.hexdigest()


def _constants(closed: ClosedJaxpr) -> Iterator:
    """The values that a function closes over, and those of the functions that it calls: text shows only array shapes."""
    for part in jaxprs(closed):
        yield from part.consts


def jaxprs(closed: ClosedJaxpr) -> Iterator[ClosedJaxpr]:
    """A traced function, and those inside it."""
    yield closed
    for equation in closed.jaxpr.eqns:
        for part in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: isinstance(x, Jaxpr | ClosedJaxpr)
        ):
            if isinstance(part, ClosedJaxpr | Jaxpr):
                yield from jaxprs(part if isinstance(part, ClosedJaxpr) else ClosedJaxpr(part, []))


def _add(digest, leaf, name: str) -> None:
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    digest.update(f"{name} {array.dtype} {array.shape} ".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
