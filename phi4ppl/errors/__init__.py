"""Exceptions and warnings with stable codes, checks of arguments, and random streams of checked seeds.

Values of users come in; usable ones, or errors, go out. Read this file first.

Every message says what is wrong, what was expected, what was given, and how to fix it. Sentences may change between versions;
programs and tests match on the ``code`` of an error instead, a dotted lower-case name of two or three parts:

* the *class* of the error, such as ``argument``, ``graph`` or ``overlap`` (the attribute ``slug`` of the class);
* the *subject*: for an `ArgumentError` the argument (``argument.nx``, and ``argument.args`` for ``args[0]``), for every other
  error the reason (``graph.directed``, ``checkpoint.damaged``);
* for an `ArgumentError`, a *reason* where one argument can be wrong in several ways. Without one, the value is not of the kind
  that the function takes. Many arguments share these reasons: ``shape``, ``finite`` (a number is missing or infinite),
  ``choice`` (not one of a fixed list), ``name`` (no such coupling, site or dimension), ``state`` (not as in the run that is
  resumed), ``unused`` (without effect, given the other arguments), ``returns`` and ``raises`` (of a function that was passed).

Numbers that a message states are in ``values``, a read-only mapping. Warnings are of the category `Phi4pplWarning`, and have a
``code`` and ``values`` too.

Examples
--------
>>> import phi4ppl as p4
>>> try:
...     p4.lattice.square(-3, 4)
... except ArgumentError as error:
...     print(error.code, error.got)
argument.nx -3
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Mapping
from types import MappingProxyType

__all__ = [
    "ArgumentError",
    "CallError",
    "CheckpointError",
    "DiscreteLatentError",
    "DoublyIntractableError",
    "DrawNotAvailableError",
    "EvolutionError",
    "GraphError",
    "HammersleyCliffordError",
    "MemoryLimitError",
    "MissingPackageError",
    "ModelFileError",
    "OverlapError",
    "Phi4pplError",
    "Phi4pplWarning",
    "ResultFileError",
    "SamplingError",
    "SingleFactorError",
]


class Phi4pplError(Exception):
    """Base class of every error that this library raises on purpose.

    Parameters
    ----------
    reason : str
        The last part of the code, after the ``slug`` of the class.
    message : str
        What is wrong, what was expected, what was given, and how to fix it.
    values : mapping, optional
        Numbers that the message states, by name.
    """

    slug = "error"

    def __init__(self, reason: str, message: str, values: Mapping | None = None):
        super().__init__(message)
        self.code = f"{self.slug}.{reason}" if reason else self.slug
        self.values = MappingProxyType(dict(values or {}))

    def __reduce__(self):
        state = {k: v for k, v in vars(self).items() if k != "values"}
        return _restored, (type(self), self.args, state, dict(self.values))


def _restored(kind, args, state, values):
    """An unpickled error: the arguments of the constructors differ, so that none of them is called."""
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(state, values=MappingProxyType(values))
    return error


class ArgumentError(Phi4pplError, ValueError):
    """An argument is not what the function can use.

    Parameters
    ----------
    name : str
        The argument.
    expected, got : str
        What the function can use, and what it was given.
    fix : str, optional
        What to do about it.
    reason : str, optional
        The last part of the code, for an argument that can be wrong in several ways.
    values : mapping, optional
        Numbers that the message states, by name.

    Examples
    --------
    >>> error = ArgumentError("nx", "a positive integer", "-3", "Give the number of sites along x.")
    >>> print(error)
    nx: expected a positive integer, got -3. Give the number of sites along x.
    >>> error.code, error.name, error.got
    ('argument.nx', 'nx', '-3')
    """

    slug = "argument"

    def __init__(
        self, name: str, expected: str, got: str, fix: str = "", reason: str = "", values: Mapping | None = None
    ):
        bare = re.sub(r"'[^']*'", "", name)  # without the names that users choose
        word = re.search(r"[A-Za-z_]\w*", bare)
        subject = "file" if re.search(r"[/\\]|\.\w+$", bare) else word.group() if word else "value"
        message = f"{name}: expected {expected}, got {got}." + (f" {fix}" if fix else "")
        super().__init__(f"{subject}.{reason}" if reason else subject, message, values)
        self.name, self.expected, self.got, self.fix = name, expected, got, fix


class CallError(Phi4pplError, TypeError):
    """A function was called with an argument that it does not have, or without one that it needs; the message names it."""

    slug = "call"


class GraphError(Phi4pplError, ValueError):
    """The graph cannot carry a Markov random field: it is directed, empty, or has self-loops or parallel edges."""

    slug = "graph"


class HammersleyCliffordError(Phi4pplError, ValueError):
    """A model or an action is not a Markov random field on its graph."""

    slug = "hammersley_clifford"


class DoublyIntractableError(Phi4pplError, ValueError):
    """A coupling is random, but log Z as a function of that coupling is unknown."""

    slug = "doubly_intractable"


class DiscreteLatentError(Phi4pplError, ValueError):
    """A NumPyro model has discrete latent sites, which gradient-based kernels cannot move."""

    slug = "discrete_latent"


class SingleFactorError(Phi4pplError, ValueError):
    """Data cannot be left out one by one, because their log likelihood is one number for all of them."""

    slug = "single_factor"


class DrawNotAvailableError(Phi4pplError, NotImplementedError):
    """An exact independent draw from this distribution is not available."""

    slug = "draw_not_available"


class SamplingError(Phi4pplError, RuntimeError):
    """Sampling cannot start or continue; the message says why."""

    slug = "sampling"


class EvolutionError(Phi4pplError, RuntimeError):
    """A field that moves has run away, or has broken a law of its process; the message says when, and what to change."""

    slug = "evolution"


class OverlapError(Phi4pplError, ValueError):
    """Samples of one action carry too little information about another; the message states how little."""

    slug = "overlap"


class MemoryLimitError(Phi4pplError, MemoryError):
    """A run would need more memory than is available; nothing has been computed."""

    slug = "memory"


class CheckpointError(Phi4pplError):
    """A checkpoint cannot be written or resumed; the files on disk are unchanged.

    Parameters
    ----------
    path : path-like
        The file or directory.
    problem : str
        What is wrong with it, as the rest of a sentence.
    fix : str
        What to do about it.
    reason : str
        The last part of the code.

    Examples
    --------
    >>> error = CheckpointError("run/head.ckpt", "is damaged", "Remove the directory to start over.", "damaged")
    >>> print(error)
    checkpoint run/head.ckpt is damaged. Remove the directory to start over.
    >>> error.code
    'checkpoint.damaged'
    """

    slug = "checkpoint"

    def __init__(self, path, problem: str, fix: str, reason: str):
        super().__init__(reason, f"checkpoint {path} {problem}. {fix}")
        self.path, self.problem, self.fix = path, problem, fix


class MissingPackageError(Phi4pplError, ImportError):
    """An optional package is needed; the message says which one and how to install it."""

    slug = "missing_package"


class ModelFileError(Phi4pplError):
    """A model file, or a file given together with one, cannot be used; the message names the file and the reason."""

    slug = "model_file"


class ResultFileError(Phi4pplError):
    """The results of a command would overwrite a file that it did not write; nothing has been computed or written."""

    slug = "result_file"


class Phi4pplWarning(UserWarning):
    """The category of warnings of this library.

    Parameters
    ----------
    code : str
        A stable dotted name, such as ``sampling.interrupted``.
    message : str
        What is wrong and how to fix it.
    values : mapping, optional
        Numbers that the message states, by name.
    """

    def __init__(self, code: str, message: str, values: Mapping | None = None):
        super().__init__(message)
        self.code, self.values = code, MappingProxyType(dict(values or {}))


PACKAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")


def calling_line(*between: str) -> tuple[str, int]:
    """File and line that called this package, however many of its frames and of the packages ``between`` lie between."""
    skipped = (PACKAGE, *(os.path.dirname(sys.modules[name].__file__ or "") for name in between if name in sys.modules))
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(skipped):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def warn(warning: Warning, line: tuple[str, int] | None = None) -> None:
    """Issue a warning at the line that called this package, however many of its frames lie between.

    ``skip_file_prefixes`` of Python 3.12 does the same. What runs later, in a compiled program, gives the ``line``.
    """
    if line is not None:
        warnings.warn_explicit(warning, None, *line)
        return
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(warning, stacklevel=level)
