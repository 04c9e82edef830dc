"""What test_types gives to jaxtyping's import hook: beartype, for functions with shapes in their signature.

It notes which functions there are and which of them have been called.
"""

from __future__ import annotations

import functools
from typing import get_args

from beartype import beartype
from jaxtyping import AbstractArray

SHAPED: set[str] = set()
CALLED: set[str] = set()


def has_shapes(annotation) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return True
    return any(map(has_shapes, get_args(annotation)))


def check(function):
    """``function`` has the signature of one of the package, with evaluated annotations."""
    if not any(map(has_shapes, function.__annotations__.values())):
        return function
    name, checked = f"{function.__module__}.{function.__qualname__}", beartype(function)
    SHAPED.add(name)

    @functools.wraps(function)
    def noted(*args, **kwargs):
        CALLED.add(name)
        return checked(*args, **kwargs)

    return noted
