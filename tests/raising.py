"""Errors and warnings are matched by their code, attributes and single words or numbers, so that sentences may be rewritten."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from phi4ppl.errors import Phi4pplError, Phi4pplWarning


@contextmanager
def raises(code: str, *says: str, **attributes):
    """As `pytest.raises`, for an error of this library with ``code``.

    Its message contains every text of ``says``, and its ``attributes``, such as ``name`` and ``got`` of an `ArgumentError`,
    have the values given.
    """
    __tracebackhide__ = True
    with pytest.raises(Phi4pplError) as caught:
        yield caught
    assert_found(caught.value, code, says, attributes)


@contextmanager
def warns(code: str, *says: str):
    """As `pytest.warns`, for a warning of this library with ``code`` whose message contains every text of ``says``."""
    __tracebackhide__ = True
    with pytest.warns(Phi4pplWarning) as caught:
        yield caught
    found = [
        (warning.message.code, str(warning.message))
        for warning in caught
        if isinstance(warning.message, Phi4pplWarning)
    ]
    assert any(code == issued and all(text in message for text in says) for issued, message in found), found


def assert_found(error: Phi4pplError, code: str, says, attributes) -> None:
    """Compare an error with what a test expects of it."""
    __tracebackhide__ = True
    assert error.code == code, f"{error.code!r}, not {code!r}: {error}"
    for name, value in attributes.items():
        assert getattr(error, name) == value, f"{name} is {getattr(error, name)!r}: {error}"
    missing = [text for text in says if text not in str(error)]
    assert not missing, f"{missing} not in: {error}"
