"""Exceptions, argument checks, and random streams of checked seeds.

Every message has the same four parts: what is wrong, what was expected, what was given, and how to mend it.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import numbers
import os
import sys
import types
import warnings
import zlib
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np

__all__ = [
    "ArgumentError",
    "CallError",
    "CheckpointError",
    "DiscreteLatentError",
    "DoublyIntractableError",
    "DrawNotAvailableError",
    "GraphError",
    "HammersleyCliffordError",
    "MemoryLimitError",
    "MissingPackageError",
    "ModelFileError",
    "OverlapError",
    "Phi4pplError",
    "ResultFileError",
    "SamplingError",
    "SingleFactorError",
]

MAX_SEED = 2**32 - 1


class Phi4pplError(Exception):
    """Base class of every error that this library raises on purpose."""


class ArgumentError(Phi4pplError, ValueError):
    """An argument is not what the function can use.

    Parameters
    ----------
    name : str
        The argument.
    expected, got : str
        What the function can use, and what it was given.
    mend : str, optional
        What to do about it.

    Examples
    --------
    >>> print(ArgumentError("nx", "a positive integer", "-3", "Give the number of sites along x."))
    nx: expected a positive integer, got -3. Give the number of sites along x.
    """

    def __init__(self, name: str, expected: str, got: str, mend: str = ""):
        super().__init__(f"{name}: expected {expected}, got {got}." + (f" {mend}" if mend else ""))


class CallError(Phi4pplError, TypeError):
    """A function was called with arguments that it does not have, or without one that it needs; the message names them."""


class GraphError(Phi4pplError, ValueError):
    """The graph cannot carry a Markov random field (directed, self-loops, empty, …)."""


class HammersleyCliffordError(Phi4pplError, ValueError):
    """A model or an action is not a Markov random field on its graph."""


class DoublyIntractableError(Phi4pplError, ValueError):
    """A coupling is random, but log Z as a function of that coupling is unknown."""


class DiscreteLatentError(Phi4pplError, ValueError):
    """A NumPyro model has discrete latent sites, which gradient-based kernels cannot move."""


class SingleFactorError(Phi4pplError, ValueError):
    """Data cannot be left out one by one: their log likelihood is one number for all of them."""


class DrawNotAvailableError(Phi4pplError, NotImplementedError):
    """An exact independent draw from this distribution is not available."""


class SamplingError(Phi4pplError, RuntimeError):
    """Sampling cannot start or go on; the message says why."""


class OverlapError(Phi4pplError, ValueError):
    """Samples of one action say too little about another; the message says how little."""


class MemoryLimitError(Phi4pplError, MemoryError):
    """A run would need more memory than there is; nothing has been computed."""


class CheckpointError(Phi4pplError):
    """A checkpoint cannot be written, or cannot be gone on from; what is on the disk has been left as it was.

    Parameters
    ----------
    path : path-like
        The file or directory.
    problem : str
        What is the matter with it, as the rest of a sentence.
    mend : str
        What to do about it.

    Examples
    --------
    >>> print(CheckpointError("run/head.ckpt", "is damaged", "Remove the directory to start anew."))
    checkpoint run/head.ckpt is damaged. Remove the directory to start anew.
    """

    def __init__(self, path, problem: str, mend: str):
        super().__init__(f"checkpoint {path} {problem}. {mend}")


class MissingPackageError(Phi4pplError, ImportError):
    """An optional package is needed; the message says which and how to get it."""


class ModelFileError(Phi4pplError):
    """A model file cannot be used; the message names the file and the reason."""


class ResultFileError(Phi4pplError):
    """Results of a command would replace a file that is not its own; nothing has been computed or written."""


PACKAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")


def warn(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """Issue a warning at the line that called this package, however many of its frames lie between.

    ``skip_file_prefixes`` of Python 3.12 does the same.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


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
            raise CallError(message) from (error.__cause__ or None)

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


def positive_int(name: str, value, *, minimum: int = 1, mend: str = "") -> int:
    """Return ``value`` as an int, or raise `ArgumentError` if it is not an integer of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
        raise ArgumentError(name, f"an integer of at least {minimum}", repr(value), mend)
    return int(value)


def seed_within(value) -> int:
    """Return ``value`` as a seed, or raise `ArgumentError`: JAX silently truncates seeds to 32 bits, a run of another seed."""
    seed = positive_int("seed", value, minimum=0)
    if seed > MAX_SEED:
        raise ArgumentError("seed", f"an integer of at most {MAX_SEED}", repr(value))
    return seed


def stream_key(seed: int, *names: str | int) -> jax.Array:
    """The random key of one purpose of a run: the seed's key with the names folded in, one after the other.

    Purposes need names. ``seed + 1`` for the second would be the first of the next seed, so that a repeat with another seed
    would not be independent.

    Examples
    --------
    >>> from phi4ppl.errors import stream_key
    >>> bool((stream_key(0, "pool") == stream_key(1, "mode search")).all())
    False
    """
    return functools.reduce(jax.random.fold_in, _numbers(names), jax.random.key(seed))


def stream_rng(seed: int, *names: str | int) -> np.random.Generator:
    """The NumPy generator of one purpose of a run, as `stream_key`."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=_numbers(names)))


def stream_seed(seed: int, *names: str | int) -> int:
    """The seed of one purpose of a run, for functions that take a seed."""
    return int(np.random.SeedSequence(seed, spawn_key=_numbers(names)).generate_state(1)[0])


def _numbers(names) -> tuple[int, ...]:
    """Numbers of 32 bits; those of texts are the same in every process, which hash() is not."""
    return tuple(zlib.crc32(name.encode()) if isinstance(name, str) else int(name) for name in names)


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
        raise ArgumentError(name, "a file that can be written", got, "Give another name.") from error


def one_of(name: str, value, choices) -> str:
    """Return ``value`` if it is one of ``choices``, or raise `ArgumentError` naming them all."""
    if value not in tuple(choices):
        raise ArgumentError(name, "one of " + ", ".join(repr(c) for c in choices), repr(value))
    return value


def finite_array(name: str, value, mend: str = "") -> np.ndarray:
    """Return ``value`` as a float NumPy array, or raise `ArgumentError` if it is not numeric, real and finite.

    Masked entries of numpy.ma, NA of pandas, None and NaN mean the same thing: missing, and are refused.
    """
    value = present(name, value, mend)
    try:
        array = np.asarray(value)
        refuse_missing_objects(name, array, mend)
        if array.dtype.kind not in "fiub" and not np.issubdtype(array.dtype, np.floating):
            # extension floats (bfloat16) have kind 'V'; everything else that is not a real number is refused
            if "float" not in str(array.dtype):
                raise TypeError
        array = array.astype(np.result_type(array.dtype, np.float32) if array.dtype.kind == "f" else float)
    except ArgumentError:
        raise
    except (TypeError, ValueError) as error:
        if isinstance(value, complex) or getattr(getattr(value, "dtype", None), "kind", "") == "c":
            mend = "Give its real and its imaginary part one at a time."
        shown = repr(value)
        shown = shown if len(shown) <= 120 else f"{shown[:120]}…"
        raise ArgumentError(name, "a real number or an array of them", shown, mend) from error
    if not np.all(np.isfinite(array)):
        where = np.argwhere(~np.isfinite(np.atleast_1d(array)))[0]
        number = np.atleast_1d(array)[tuple(where)]
        got = f"{number} at index {tuple(int(i) for i in where)}"
        raise ArgumentError(name, "finite numbers", got, mend or (LEAVE_OUT if np.isnan(number) else ""))
    return array


MISSING_TYPES = ("NoneType", "NAType", "NaTType")  # None by itself is no number at all
LEAVE_OUT = "A missing value has no number: leave it out, or fill it in."


def present(name: str, value, mend: str = ""):
    """Return a masked array or a pandas object, or a list of them, as plain arrays; anything else as it is.

    Raises
    ------
    ArgumentError
        If an entry is missing (masked, or NA), a column of a table has no numbers, or the table is of another library.
    """
    if isinstance(value, list | tuple) and any(map(_wraps_numbers, value)):
        return [present(f"{name}[{k}]", part, mend) for k, part in enumerate(value)]
    if isinstance(value, np.ma.MaskedArray):
        refuse_missing(name, np.ma.getmaskarray(value), mend, "a masked value")
        return np.asarray(value)
    if is_pandas(value):
        refuse_missing(name, np.asarray(value.isna()), mend)
        return pandas_numbers(name, value)
    package = type(value).__module__.partition(".")[0]
    if package != "xarray" and (hasattr(value, "__dataframe__") or hasattr(value, "__arrow_c_stream__")):
        kind = f"{package}.{type(value).__name__}"
        raise ArgumentError(name, "an array or a table of pandas or xarray", f"a {kind}", "Convert it by to_pandas().")
    return value


def is_pandas(value) -> bool:
    """Whether ``value`` is a Series, DataFrame, Index or extension array of pandas."""
    return type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "to_numpy")


def pandas_numbers(name: str, value) -> np.ndarray:
    """The numbers of a pandas object as an array, missing ones as NaN; texts, dates and categories are refused."""
    from pandas.api.types import is_numeric_dtype

    by_column = getattr(value, "dtypes", None)
    dtypes = by_column.items() if hasattr(by_column, "items") else [(getattr(value, "name", None), value.dtype)]
    for label, dtype in dtypes:
        if not is_numeric_dtype(dtype):
            what = f"dtype {dtype}" + ("" if label is None else f" of {label!r}")
            raise ArgumentError(name, "numbers", what, "Convert it with pandas.to_numeric, or leave it out.")
    plain = value.to_numpy()
    return value.to_numpy(dtype=float, na_value=np.nan) if plain.dtype == object else plain


def refuse_missing(name: str, missing, mend: str = "", what: str = "a missing value") -> None:
    """Raise `ArgumentError` at the first true entry of ``missing``."""
    if np.any(missing):
        where = tuple(int(i) for i in np.argwhere(np.atleast_1d(missing))[0])
        raise ArgumentError(name, "finite numbers", f"{what} at index {where}", mend or LEAVE_OUT)


def _wraps_numbers(value) -> bool:
    return isinstance(value, list | tuple | np.ma.MaskedArray) or is_pandas(value)


def refuse_missing_objects(name: str, array: np.ndarray, mend: str = "") -> None:
    """Raise `ArgumentError` if an array of objects has None, NaN, or NA or NaT of pandas."""
    if array.dtype != object:
        return
    missing = [
        type(v).__name__ in MISSING_TYPES[not array.ndim :] or (isinstance(v, float) and v != v) for v in array.flat
    ]
    refuse_missing(name, np.array(missing, bool).reshape(array.shape), mend)
