"""Functions as JAX traces them, which find their compiled programs again in a later call."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax.extend.core import jaxpr_as_fun

from .identity import jaxpr_digest, jaxprs

__all__ = ["Traced"]

RULES = ("jvp_jaxpr_fun", "jvp_jaxpr_thunk", "fwd_jaxpr_thunk", "bwd")  # of functions with derivatives of their own


class Traced:
    """What a function computes at present, for arguments of given shapes and dtypes.

    It equals another one if both do the same operations with the same constants. So it is a key of a cache of compiled
    programs that can be trusted: a function that reads a value which has changed since is another one, and a new function of
    the same content is the same. The user's function itself is not kept alive.

    Parameters
    ----------
    function : callable
    arguments : arrays or jax.ShapeDtypeStruct
    differentiable : bool
        Whether its derivatives count as well: rules of ``jax.custom_jvp`` and ``jax.custom_vjp`` then make it equal to none.
    """

    coupling_free = True  # constants and all: a program that records it depends on no coupling of the model

    def __init__(self, function: Callable, *arguments, differentiable: bool = False):
        self._closed, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
        self._tree = jax.tree.structure(shape)
        called = ("callback", *RULES) if differentiable else ("callback",)
        # Python functions that JAX calls back are the same only if they are one object; this jaxpr keeps them alive
        parts = [e.params[n] for part in jaxprs(self._closed) for e in part.jaxpr.eqns for n in called if n in e.params]
        self._key = jaxpr_digest(self._closed), self._tree, tuple(map(id, parts))

    def __call__(self, *arguments):
        return jax.tree.unflatten(self._tree, jaxpr_as_fun(self._closed)(*jax.tree.leaves(arguments)))

    def __eq__(self, other) -> bool:
        return isinstance(other, Traced) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)
