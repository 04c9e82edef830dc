"""Errors and warnings are matched by their code, attributes and single words or numbers, so that sentences may be rewritten."""

from __future__ import annotations

import re
from contextlib import contextmanager
from fnmatch import fnmatchcase

import pytest

from phi4ppl.errors import Phi4pplError, Phi4pplWarning


@contextmanager
def raises(code: str, *says: str, **attributes):
    """As `pytest.raises`, for an error of this library with ``code``, in which ``*`` stands for anything.

    Its message contains every word or number of ``says`` as a whole, and its ``attributes``, such as ``name`` and ``got`` of an
    `ArgumentError`, have the values given.
    """
    __tracebackhide__ = True
    with pytest.raises(Phi4pplError) as caught:
        yield caught
    assert_found(caught.value, code, says, attributes)


@contextmanager
def warns(code: str, *says: str):
    """As `pytest.warns`, for a warning of this library with ``code`` whose message contains every word of ``says``."""
    __tracebackhide__ = True
    with pytest.warns(Phi4pplWarning) as caught:
        yield caught
    found = [
        (warning.message.code, str(warning.message))
        for warning in caught
        if isinstance(warning.message, Phi4pplWarning)
    ]
    assert any(code == issued and not missing(says, message) for issued, message in found), found


def assert_found(error: Phi4pplError, code: str, says, attributes) -> None:
    """Compare an error with what a test expects of it."""
    __tracebackhide__ = True
    assert fnmatchcase(error.code, code), f"{error.code!r}, not {code!r}: {error}"
    for name, value in attributes.items():
        assert getattr(error, name) == value, f"{name} is {getattr(error, name)!r}: {error}"
    assert not missing(says, str(error)), f"{missing(says, str(error))} not in: {error}"


def missing(says, message: str) -> list[str]:
    """Texts that a message lacks as whole words or numbers: 1 is not in 12 or 0.1, nor size in resized."""
    found = []
    for text in says:
        start = r"(?<![\w.])" if text[0].isdigit() else r"(?<!\w)" if text[0].isalpha() else ""
        end = r"(?!\w|\.\d)" if text[-1].isalnum() else ""
        if not re.search(start + re.escape(text) + end, message):
            found.append(text)
    return found
