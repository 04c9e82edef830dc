"""Kernel matrices as blocks of rows: of a stored matrix, or of a kernel function and points, which are never all in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from scipy.spatial.distance import cdist, pdist

from ..errors import ArgumentError
from ..errors.arguments import finite_array, one_of
from .matrices import require_scale, told, words_of

__all__ = ["KERNELS", "Gram", "gram_of", "median_distance", "named_kernel", "points_of"]

BLOCK_NUMBERS = 4_000_000  # entries of a kernel at once, in each thread
CACHED_NUMBERS = 500_000  # of single precision, which stay in the cache
MAX_PAIRS_OF = 2000  # points among which the median distance is taken


def _matern(r):
    return (1 + np.sqrt(3.0).astype(r.dtype) * r) * np.exp(-np.sqrt(3.0).astype(r.dtype) * r)


RADIAL: dict[str, Callable] = {
    "rbf": lambda r: np.exp(-(r**2) / 2),
    "laplace": lambda r: np.exp(-r),
    "matern": _matern,
}
KERNELS = (*RADIAL, "polynomial", "linear")
DEGREE = 3  # of the polynomial kernel


def points_of(points) -> np.ndarray:
    """Points as an array of shape ``(num_points, num_features)`` of float64."""
    values = finite_array("points", points).astype(float)
    if values.ndim == 0 or len(values) < 2:
        raise ArgumentError(
            "points", "at least two points, along the first axis", f"shape {values.shape}", reason="shape"
        )
    return values.reshape(len(values), -1)


def median_distance(points: np.ndarray) -> float:
    """The median distance of two different points, of evenly spaced ones where there are many."""
    some = points[:: -(-len(points) // MAX_PAIRS_OF)]
    distance = float(np.median(pdist(some)))
    if not distance > 0:
        raise ArgumentError("points", "points most of which differ", "more than half of the pairs at distance 0")
    return distance


def named_kernel(name: str, points: np.ndarray) -> Callable:
    """A function of two blocks of points: a kernel of `KERNELS` at the median distance of ``points``.

    ``rbf`` is exp(−r²/2), ``laplace`` exp(−r), ``matern`` (ν = 3/2) (1 + √3 r) exp(−√3 r), with r the distance in units of the
    median; ``polynomial`` (1 + x·y/s²)³ with s the median distance, and ``linear`` x·y.
    """
    one_of("kernel", name, KERNELS)
    if name == "linear":
        return lambda x, y: x @ y.T
    scale = median_distance(points)
    if name == "polynomial":
        return lambda x, y: (1 + x @ y.T / np.asarray(scale**2, x.dtype)) ** DEGREE
    radial = RADIAL[name]

    def kernel(x, y):
        if x.dtype == np.float32:  # of large products: speed matters more than the last digits of short distances
            x, y = x / np.float32(scale), y / np.float32(scale)
            squares = x @ (-2 * y.T)
            squares += (x * x).sum(axis=1)[:, None]
            squares += (y * y).sum(axis=1)[None, :]
            np.maximum(squares, 0, out=squares)
            if name == "rbf":
                squares *= np.float32(-0.5)
                return np.exp(squares, out=squares)
            return radial(np.sqrt(squares, out=squares))
        return radial(cdist(x, y) / scale)

    kernel.single = True  # type: ignore[attr-defined]  # it computes in the precision of its arguments
    return kernel


class Gram:
    """A positive semidefinite matrix by blocks of rows.

    Attributes
    ----------
    num_points : int
    matrix : array or None
        If it is stored.
    points : array or None
        On which the kernel function is evaluated.
    epsilon : float
        Relative precision of its entries.
    inputs : array or None
        The points that a baseline sees: those of the kernel, or the inputs of the model that makes features of them.
    """

    def __init__(self, matrix=None, points=None, function: Callable | None = None, epsilon: float | None = None):
        self.matrix, self.points, self._function = matrix, points, function
        self.num_points = len(points if matrix is None else matrix)
        self.inputs = points
        self.epsilon = float(np.finfo(float).eps) if epsilon is None else epsilon

    def block(self, rows, columns) -> np.ndarray:
        """Entries of some rows and columns."""
        if self.matrix is not None:
            return self.matrix[np.ix_(rows, columns)]
        return np.asarray(self._entries(self.points[rows], self.points[columns]), float)

    def _entries(self, x, y) -> np.ndarray:
        with told("source", "a kernel of any two blocks of points"):
            found = np.asarray(self._function(x, y))
        if found.shape != (len(x), len(y)):
            expected = f"K of shape {(len(x), len(y))} of {len(x)} and {len(y)} points"
            raise ArgumentError("source", expected, f"shape {found.shape}", reason="returns")
        return found

    def full(self) -> np.ndarray:
        """All entries, in double precision, symmetric to the last bit."""
        if self.matrix is None:
            every = np.arange(self.num_points)
            step = max(1, BLOCK_NUMBERS // self.num_points)
            parts = [self.block(every[k : k + step], every) for k in range(0, self.num_points, step)]
            found = finite_array("kernel", np.concatenate(parts))
            _require_symmetric(found, self.epsilon)
            require_scale("kernel", np.abs(found).max())
            self.matrix = (found + found.T) / 2
        return self.matrix

    def diagonal(self) -> np.ndarray:
        """K(x, x) of all points."""
        if self.matrix is not None:
            return np.diag(self.matrix).astype(float)
        step = 64
        parts = [
            np.diag(self.block(rows, rows))
            for rows in (np.arange(k, min(k + step, self.num_points)) for k in range(0, self.num_points, step))
        ]
        return finite_array("kernel", np.concatenate(parts))

    def times(self, vectors: np.ndarray) -> np.ndarray:
        """K V by blocks of rows, one thread a core; nothing as large as K is ever in memory."""
        if self.matrix is not None:
            return self.matrix @ vectors
        single = getattr(self._function, "single", False)
        points = np.ascontiguousarray(self.points - self.points.mean(axis=0), np.float32) if single else self.points
        factor = vectors.astype(points.dtype)
        step = max(1, (CACHED_NUMBERS if single else BLOCK_NUMBERS) // self.num_points)

        def rows(start: int) -> np.ndarray:
            return self._entries(points[start : start + step], points) @ factor

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            return np.concatenate(list(pool.map(rows, range(0, self.num_points, step)))).astype(float)


def _require_symmetric(matrix: np.ndarray, epsilon: float) -> None:
    difference, largest = np.abs(matrix - matrix.T).max(), np.abs(matrix).max()
    if difference > 1000 * epsilon * largest:
        got = f"one that differs from its transpose by {difference / largest:.2g} of its largest entry"
        raise ArgumentError("kernel", "a symmetric function of two points", got, reason="symmetric")


def gram_of(kernel: Callable | str, points) -> Gram:
    """The matrix of a kernel on points: a name of `KERNELS`, a function of two blocks of points, or one of two points.

    Functions of blocks return K of shape ``(len(x), len(y))``, as scikit-learn's do. Others are vectorized, in double
    precision.
    """
    points = points_of(points)
    if isinstance(kernel, str):
        return Gram(points=points, function=named_kernel(kernel, points))
    some = points[np.arange(2 * points.shape[1] + 3) % len(points)]
    x, y = (
        some[: points.shape[1] + 2],
        some[: points.shape[1] + 1],
    )  # no product of these shapes has the right one by chance
    of_blocks = "another shape"
    try:
        found = np.asarray(kernel(x, y))
        blocks = found.shape == (len(x), len(y))
    except Exception as error:  # of any kind: a function of two points does not know what to do with blocks
        blocks, of_blocks = False, words_of(error)
    if blocks and np.iscomplexobj(found):
        raise ArgumentError("source", "a real kernel", "complex values", "Take the real part if that is meant.")
    if blocks:
        exact = found.dtype if found.dtype.kind == "f" else float
        return Gram(points=points, function=kernel, epsilon=float(np.finfo(exact).eps))
    pairs = jax.jit(jax.vmap(jax.vmap(kernel, (None, 0)), (0, None)))

    def function(x, y):
        with jax.enable_x64(True):
            return np.asarray(pairs(x, y))

    expected = "a function of two blocks of points, or a JAX function of two points"
    with told("source", expected, f"Of two blocks it gave {of_blocks}."):
        found = function(x, y)
    if found.shape != (len(x), len(y)):
        expected = "K of shape (len(x), len(y)) of two blocks of points, or one number of two points"
        raise ArgumentError("source", expected, f"shape {found.shape[2:]} of two points", reason="returns")
    return Gram(points=points, function=function, epsilon=float(np.finfo(found.dtype).eps))
