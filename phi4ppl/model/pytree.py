"""Frozen dataclasses as JAX pytrees, for classes whose constructor checks its arguments.

``jax.tree_util.register_dataclass`` rebuilds by calling the constructor, which would refuse what JAX puts in place of
couplings: gradients, steps, masks, axes of ``vmap`` and None. Here nothing is called to rebuild.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar, cast

import jax

T = TypeVar("T")


def register_checked(cls):
    """Register a frozen dataclass as a pytree of its fields; those with the metadata ``static`` are hashed, not traced."""
    static = tuple(field.name for field in fields(cls) if field.metadata.get("static"))
    parts = tuple(field.name for field in fields(cls) if field.name not in static)
    jax.tree_util.register_pytree_node(
        cls,
        lambda node: (tuple(getattr(node, name) for name in parts), tuple(getattr(node, name) for name in static)),
        lambda fixed, leaves: rebuilt(cls, **dict(zip(static + parts, (*fixed, *leaves), strict=True))),
    )
    return cls


def rebuilt(cls: type[T], **values) -> T:
    """An instance of ``cls`` with these fields, unchecked."""
    node = object.__new__(cls)
    vars(node).update(values)
    return node


def replaced(node: T, **values) -> T:
    """A copy with other values of some fields, unchecked; `dataclasses.replace` checks."""
    return rebuilt(type(node), **{field.name: getattr(node, field.name) for field in fields(cast(Any, node))} | values)
