"""Checks of arguments and of calls: they return a usable value, or raise an error that says what to change."""

from __future__ import annotations

import difflib
import functools
import inspect
import numbers
import os
import types
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from . import ArgumentError, CallError

MAX_SEED = 2**32 - 1


def call_checked(thing):
    """Decorate a public function, or a class with its public methods: a wrong call raises `CallError` with the nearest name.

    A call that fits costs nothing but the frame; signature, docstring and pickling stay as they are.

    Examples
    --------
    >>> @call_checked
    ... def cube(edge, *, periodic=True): ...
    >>> cube(4, periodc=False)
    Traceback (most recent call last):
    phi4ppl.errors.CallError: cube: expected the arguments edge, periodic; got 'periodc'. Did you mean 'periodic'?
    """
    if not isinstance(thing, type):
        return _checked_function(thing)
    for name, value in list(vars(thing).items()):
        public = not name.startswith("_") or name in ("__init__", "__new__")
        if name in getattr(thing, "__annotations__", {}):  # the default of a field, which may be a function
            continue
        if public and isinstance(value, types.FunctionType):
            setattr(thing, name, _checked_function(value))
        elif public and isinstance(value, (classmethod, staticmethod)):
            setattr(thing, name, type(value)(_checked_function(value.__func__)))
    return thing


def _checked_function(function):
    @functools.wraps(function)
    def checked(*args, **kwargs):
        __tracebackhide__ = True
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            message = _wrong_call(function, args, kwargs)
            if message is None:  # an error of the function itself
                raise
            raise CallError("signature", message) from (error.__cause__ or None)

    return checked


def _wrong_call(function, args, kwargs) -> str | None:
    """What is wrong with a call, None if it fits the signature."""
    signature, name = inspect.signature(function), function.__qualname__
    try:
        signature.bind(*args, **kwargs)
        return None
    except TypeError as error:
        reason = str(error)
    parameters = dict(signature.parameters)
    if "." in name and "<locals>" not in name.split(".")[-2]:  # a method
        parameters.pop(next(iter(parameters), None), None)
    if function.__name__ in ("__init__", "__new__"):
        name = name.rpartition(".")[0]
        if args:
            name = (args[0] if isinstance(args[0], type) else type(args[0])).__name__
    starred = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}
    listed = ", ".join(starred.get(p.kind.name, "") + n for n, p in parameters.items()) or "none"
    named = [n for n, p in parameters.items() if p.kind.name in ("POSITIONAL_OR_KEYWORD", "KEYWORD_ONLY")]
    expected = f"{name}: expected the arguments {listed}"
    for given in kwargs:
        if given not in named:
            return f"{expected}; got {given!r}." + _advice_on(given, named)
    return f"{expected}; {reason}."


def _advice_on(given: str, named: list[str]) -> str:
    """What an unknown keyword argument may have been meant to be: the nearest name, or an argument of a NumPyro model."""
    lower = {name.lower(): name for name in reversed(named)}
    near = difflib.get_close_matches(given, named, n=1) or difflib.get_close_matches(given.lower(), lower, n=1)
    if near:
        return f" Did you mean {lower.get(near[0], near[0])!r}?"
    if "model_kwargs" in named:
        return f" Keyword arguments of a NumPyro model go in model_kwargs={{{given!r}: …}}."
    return ""


def positive_int(name: str, value, *, minimum: int = 1, fix: str = "") -> int:
    """Return ``value`` as an int, or raise `ArgumentError` if it is not an integer of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
        raise ArgumentError(name, f"an integer of at least {minimum}", repr(value), fix)
    return int(value)


def seed_within(value) -> int:
    """Return ``value`` as a seed, or raise `ArgumentError`: JAX silently truncates seeds to 32 bits, a run of another seed."""
    seed = positive_int("seed", value, minimum=0)
    if seed > MAX_SEED:
        raise ArgumentError("seed", f"an integer of at most {MAX_SEED}", repr(value), reason="too_large")
    return seed


def arguments_by_name(name: str, value) -> dict:
    """Return ``value``, or no arguments for None, or raise `ArgumentError` if it is no dict of arguments by name."""
    if value is not None and not (isinstance(value, dict) and all(isinstance(key, str) for key in value)):
        raise ArgumentError(name, "a dict of arguments of the NumPyro model by name", repr(value))
    return value or {}


def object_by_name(name: str, value, kinds: dict, example: str):
    """Return ``value`` if it is of one of the ``kinds``, or make one, with its defaults, from its name among them.

    ``example`` is such an object with an option, for the message of the `ArgumentError`.
    """
    if isinstance(value, tuple(kinds.values())):
        return value
    if isinstance(value, str) and value in kinds:
        return kinds[value]()
    where = example.partition("(")[0].rpartition(".")[0]
    expected = f"one of {', '.join(map(repr, kinds))}, or an object of {where}"
    raise ArgumentError(name, expected, repr(value), f"Options go into an object, such as {example}.")


def path_of(name: str, value) -> Path:
    """Return ``value`` as a path, or raise `ArgumentError` if it is none, or empty."""
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else ""
    if not isinstance(text, str) or not text or "\0" in text:
        raise ArgumentError(name, "the path of a file or directory", repr(value), "For example 'results'.")
    return Path(text)


@contextmanager
def writing(name: str, path: Path):
    """Turn a failure of the system to write ``path`` into an `ArgumentError`."""
    try:
        yield
    except OSError as error:
        got = f"{path} ({os.strerror(error.errno) if error.errno else error})"
        raise ArgumentError(
            name, "a file that can be written", got, "Choose another name.", reason="unwritable"
        ) from error


def one_of(name: str, value, choices) -> str:
    """Return ``value`` if it is one of ``choices``, or raise `ArgumentError` naming them all."""
    if value not in tuple(choices):
        raise ArgumentError(name, "one of " + ", ".join(repr(c) for c in choices), repr(value))
    return value


def finite_array(name: str, value, fix: str = "") -> np.ndarray:
    """Return ``value`` as a float NumPy array, or raise `ArgumentError` if it is not numeric, real and finite.

    Masked entries of numpy.ma, NA of pandas, None and NaN mean the same thing: missing, and are rejected.
    """
    value = present(name, value, fix)
    try:
        array = np.asarray(value)
        refuse_missing_objects(name, array, fix)
        if array.dtype.kind not in "fiub" and not np.issubdtype(array.dtype, np.floating):
            # extension floats (bfloat16) have kind 'V'; everything else that is not a real number is rejected
            if "float" not in str(array.dtype):
                raise TypeError
        array = array.astype(np.result_type(array.dtype, np.float32) if array.dtype.kind == "f" else float)
    except ArgumentError:
        raise
    except (TypeError, ValueError) as error:
        if isinstance(value, complex) or getattr(getattr(value, "dtype", None), "kind", "") == "c":
            fix = "Give its real and its imaginary part one at a time."
        shown = repr(value)
        shown = shown if len(shown) <= 120 else f"{shown[:120]}…"
        raise ArgumentError(name, "a real number or an array of them", shown, fix) from error
    if not np.all(np.isfinite(array)):
        where = np.argwhere(~np.isfinite(np.atleast_1d(array)))[0]
        number = np.atleast_1d(array)[tuple(where)]
        got = f"{number} at index {tuple(int(i) for i in where)}"
        raise ArgumentError(
            name, "finite numbers", got, fix or (LEAVE_OUT if np.isnan(number) else ""), reason="finite"
        )
    return array


MISSING_TYPES = ("NoneType", "NAType", "NaTType")  # None by itself is no number at all
LEAVE_OUT = "A missing value has no number: leave it out, or fill it in."


def present(name: str, value, fix: str = ""):
    """Return a masked array or a pandas object, or a list of them, as plain arrays; anything else as it is.

    Raises
    ------
    ArgumentError
        If an entry is missing (masked, or NA), a column of a table has no numbers, or the table is of another library.
    """
    if isinstance(value, list | tuple) and any(map(_wraps_numbers, value)):
        return [present(f"{name}[{k}]", part, fix) for k, part in enumerate(value)]
    if isinstance(value, np.ma.MaskedArray):
        refuse_missing(name, np.ma.getmaskarray(value), fix, "a masked value")
        return np.asarray(value)
    if is_pandas(value):
        refuse_missing(name, np.asarray(value.isna()), fix)
        return pandas_numbers(name, value)
    package = type(value).__module__.partition(".")[0]
    if package != "xarray" and (hasattr(value, "__dataframe__") or hasattr(value, "__arrow_c_stream__")):
        kind = f"{package}.{type(value).__name__}"
        raise ArgumentError(
            name, "an array or a table of pandas or xarray", f"a {kind}", "Convert it by to_pandas().", reason="library"
        )
    return value


def is_pandas(value) -> bool:
    """Whether ``value`` is a Series, DataFrame, Index or extension array of pandas."""
    return type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "to_numpy")


def pandas_numbers(name: str, value) -> np.ndarray:
    """The numbers of a pandas object as an array, missing ones as NaN; texts, dates and categories are rejected."""
    from pandas.api.types import is_numeric_dtype

    by_column = getattr(value, "dtypes", None)
    dtypes = by_column.items() if hasattr(by_column, "items") else [(getattr(value, "name", None), value.dtype)]
    for label, dtype in dtypes:
        if not is_numeric_dtype(dtype):
            what = f"dtype {dtype}" + ("" if label is None else f" of {label!r}")
            raise ArgumentError(
                name, "numbers", what, "Convert it with pandas.to_numeric, or leave it out.", reason="dtype"
            )
    plain = value.to_numpy()
    return value.to_numpy(dtype=float, na_value=np.nan) if plain.dtype == object else plain


def refuse_missing(name: str, missing, fix: str = "", what: str = "a missing value") -> None:
    """Raise `ArgumentError` at the first true entry of ``missing``."""
    if np.any(missing):
        where = tuple(int(i) for i in np.argwhere(np.atleast_1d(missing))[0])
        raise ArgumentError(name, "finite numbers", f"{what} at index {where}", fix or LEAVE_OUT, reason="finite")


def _wraps_numbers(value) -> bool:
    return isinstance(value, list | tuple | np.ma.MaskedArray) or is_pandas(value)


def refuse_missing_objects(name: str, array: np.ndarray, fix: str = "") -> None:
    """Raise `ArgumentError` if an array of objects has None, NaN, or NA or NaT of pandas."""
    if array.dtype != object:
        return
    missing = [
        type(v).__name__ in MISSING_TYPES[not array.ndim :] or (isinstance(v, float) and v != v) for v in array.flat
    ]
    refuse_missing(name, np.array(missing, bool).reshape(array.shape), fix)
