"""Kernel matrices as they are given: checked, symmetric, in double precision, with their eigenvalues in descending order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ..errors import ArgumentError, MemoryLimitError, Phi4pplError
from ..errors.arguments import finite_array
from ..sampling.memory import FRACTION, available_bytes, readable

__all__ = [
    "centered",
    "checked_targets",
    "eigensystem",
    "kernel_matrix",
    "one_number",
    "require_bytes",
    "told",
    "words_of",
]

LARGEST = 1e100  # entries of kernels and targets, whose squares must not overflow
IN_BYTES = "For 2 GB 2e9."
ASYMMETRY = 100  # roundings of the largest entry, by which a kernel may differ from its transpose


def words_of(error: Exception) -> str:
    """Kind and first line of an error of someone else."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0].rstrip('.')}"


@contextmanager
def told(name: str, expected: str, fix: str = "") -> Iterator[None]:
    """Raise whatever a function or an estimator of the user raises as `ArgumentError`, with what was expected of it."""
    try:
        yield
    except Phi4pplError:
        raise
    except Exception as error:  # the user should read whatever the function raises
        raise ArgumentError(name, expected, words_of(error), fix, reason="raises") from error


def one_number(name: str, value, fix: str = "") -> float:
    """A finite number, or `ArgumentError`."""
    found = finite_array(name, value, fix)
    if found.ndim:
        raise ArgumentError(name, "one number", f"shape {found.shape}", fix, reason="shape")
    return float(found)


def kernel_matrix(name: str, kernel) -> np.ndarray:
    """A kernel matrix as a symmetric array of float64: from an array, or from an object with all its eigenvalues and vectors.

    Raises
    ------
    ArgumentError
        If it is not square, not symmetric, or a spectrum without vectors or with only some of them.
    """
    if hasattr(kernel, "eigenvalues"):
        values, vectors = np.asarray(kernel.eigenvalues, float), getattr(kernel, "vectors", None)
        if vectors is None or np.shape(vectors) != (len(values), len(values)):
            shape = "none" if vectors is None else f"vectors of shape {np.shape(vectors)}"
            raise ArgumentError(name, "all eigenvectors", shape, "Give the kernel matrix itself.", reason="vectors")
        vectors = np.asarray(vectors, float)
        return (vectors * values) @ vectors.T
    if not hasattr(kernel, "__array__") and not isinstance(kernel, list | tuple):
        raise ArgumentError(name, "a kernel matrix", f"a {type(kernel).__name__}", "Give an array of shape (n, n).")
    matrix = finite_array(name, kernel)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise ArgumentError(name, "a square matrix", f"shape {matrix.shape}", reason="shape")
    difference, largest = np.abs(matrix - matrix.T).max(), np.abs(matrix).max()
    if difference > ASYMMETRY * np.finfo(matrix.dtype).eps * largest:
        got = f"one that differs from its transpose by {difference / largest:.2g} of its largest entry"
        raise ArgumentError(name, "a symmetric matrix", got, reason="symmetric")
    require_scale(name, largest)
    matrix = matrix.astype(float)
    return (matrix + matrix.T) / 2


def require_scale(name: str, largest: float) -> None:
    """Raise `ArgumentError` if squares of the entries would over- or underflow, so that errors come out as inf or nan."""
    largest = float(largest)
    if largest != 0 and not 1 / LARGEST <= largest <= LARGEST:
        expected = f"entries whose largest is between {1 / LARGEST:g} and {LARGEST:g}"
        raise ArgumentError(name, expected, f"{largest:.3g}", "Change the units.", reason="scale")


def eigensystem(name: str, kernel) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of a positive semidefinite kernel in descending order, those within rounding of zero set to it, and vectors.

    Raises
    ------
    ArgumentError
        If an eigenvalue is below −n ε λ₁, with ε of the precision in which the kernel is given.
    """
    if hasattr(kernel, "eigenvalues") and np.shape(getattr(kernel, "vectors", None)) == (len(kernel.eigenvalues),) * 2:
        values, vectors, precision = np.asarray(kernel.eigenvalues, float), np.asarray(kernel.vectors, float), float
    else:
        matrix = kernel_matrix(name, kernel)
        precision = getattr(kernel, "dtype", float)
        values, vectors = np.linalg.eigh(matrix)
        values, vectors = values[::-1], vectors[:, ::-1]
    precision = precision if np.issubdtype(precision, np.floating) else float
    if values[-1] < -len(values) * np.finfo(precision).eps * max(values[0], 0.0):
        got = f"the eigenvalue {values[-1]:.3g} where the largest is {values[0]:.3g}"
        fix = "Is it a kernel of one set of points, without noise, in enough digits?"
        raise ArgumentError(name, "a positive semidefinite matrix", got, fix, reason="negative")
    return np.maximum(values, 0.0), vectors


def checked_targets(targets, number: int, name: str = "targets") -> np.ndarray:
    """Targets as an array of shape ``(number, outputs)``.

    Raises
    ------
    ArgumentError
    """
    values = finite_array(name, targets, "Encode classes as columns of 0 and 1.").astype(float)
    if values.ndim not in (1, 2) or len(values) != number:
        expected = f"shape ({number},) or ({number}, outputs)"
        raise ArgumentError(name, expected, f"shape {values.shape}", reason="shape")
    return values.reshape(number, -1)


def centered(kernel: np.ndarray) -> np.ndarray:
    """H K H with H = 1 − 11ᵀ/n: the kernel of features from which their means are taken."""
    rows = kernel.mean(axis=0)
    return kernel - rows[:, None] - rows[None, :] + rows.mean()


def require_bytes(needed: float, limit: int | None, what: str, fix: str, name: str = "max_memory") -> int:
    """The limit in bytes, by default a fraction of the memory that is free.

    Raises
    ------
    MemoryLimitError
        If more is needed; nothing has been computed then.
    """
    if limit is None:
        limit = int(FRACTION * available_bytes())
    elif isinstance(limit, bool | str) or not one_number(name, limit, IN_BYTES) > 0:
        raise ArgumentError(name, "a positive number of bytes", repr(limit), IN_BYTES)
    if needed > limit:
        limit = int(limit)
        message = f"{what} needs {readable(needed)}, but the limit is {readable(limit)}. {fix}"
        raise MemoryLimitError("too_small", message, {"needed_bytes": int(needed), "limit_bytes": limit})
    return int(limit)
