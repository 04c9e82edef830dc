"""Spectra of matrices that do not fit in memory: Lanczos on products with blocks of rows, Nyström, random features.

Never shown are eigenvalues of a sub-matrix scaled by n/m: those of 500 points are some 50 % too high for the top 20 of 4,000.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import numpy as np
import scipy.linalg
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from ..errors import ArgumentError, MissingPackageError
from ..errors.arguments import finite_array, positive_int
from ..errors.streams import stream_rng, stream_seed
from .gram import BLOCK_NUMBERS, Gram, median_distance
from .matrices import require_bytes
from .spectrum_result import Spectrum
from .subsamples import LARGEST, pair_ratio, subset_spectra

__all__ = ["approximate_spectrum", "lanczos_spectrum", "operator_spectrum", "square_norm"]

TOLERANCE = 1e-5  # of eigenvectors; eigenvalues are better by its square
NUM_PROBES = 8
NUM_RUNS = 4  # sets of landmarks or random features
FEWER = "Ask for fewer eigenvalues or features, or raise max_memory."


def square_norm(times, vectors: np.ndarray, values: np.ndarray, seed: int) -> tuple[float, float]:
    """‖K‖²_F = Σλ² and its error, without a decomposition (M. F. Hutchinson, Commun. Stat. Simul. 18 (1989) 1059).

    The share of known eigenvectors is exact. On the rest it is the mean of ‖Kz‖² over random signs z.
    """
    random = stream_rng(seed, "probes")
    probes = random.choice([-1.0, 1.0], size=(len(vectors), NUM_PROBES))
    probes -= vectors @ (vectors.T @ probes)
    images = times(probes)
    least = float((np.sum(probes * images, axis=0) / np.maximum(np.sum(probes**2, axis=0), 1e-300)).min())
    if least < -TOLERANCE * np.abs(values).max():
        raise _negative(least, np.abs(values).max())
    squares = np.sum(images**2, axis=0)
    return float(np.sum(values**2) + squares.mean()), float(squares.std(ddof=1) / np.sqrt(NUM_PROBES))


def _largest(times, size: int, number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues, descending, with vectors, by ARPACK."""
    if not number < size:
        raise ArgumentError(
            "num_eigenvalues", f"fewer than the {size} of the matrix", str(number), "Take method='dense'."
        )

    def multiply(vectors):
        found = finite_array("source", times(np.asarray(vectors).reshape(size, -1))).astype(float)
        if found.size != np.size(vectors):
            got = f"shape {found.shape} from {np.shape(vectors)}"
            raise ArgumentError("source", f"an operator on vectors of length {size}", got, reason="returns")
        return found.reshape(np.shape(vectors))

    operator = LinearOperator((size, size), matvec=multiply, matmat=multiply, dtype=float)
    start = stream_rng(seed, "first vector").normal(size=size)
    _require_symmetric(multiply, start, stream_rng(seed, "symmetry").normal(size=size))
    try:  # by magnitude: a negative eigenvalue as large as these is found, not passed over
        values, vectors = eigsh(operator, number, v0=start, which="LM", tol=TOLERANCE, ncv=min(size, 2 * number + 1))
    except ArpackNoConvergence as error:
        got = f"{len(error.eigenvalues)} that converged"
        raise ArgumentError("num_eigenvalues", "eigenvalues apart from each other", got, "Ask for fewer.") from error
    order = np.argsort(values)[::-1]
    if values.min() < -TOLERANCE * np.abs(values).max():
        raise _negative(values.min(), np.abs(values).max())
    return np.maximum(values[order], 0.0), vectors[:, order]


def _require_symmetric(times, u: np.ndarray, v: np.ndarray) -> None:
    """Raise `ArgumentError` if the operator is zero, or u·Kv differs from v·Ku."""
    left, right = times(u), times(v)
    if not left.any():
        raise ArgumentError("source", "a positive semidefinite operator", "one that makes 0 of a random vector")
    difference = abs(v @ left - u @ right) / (np.linalg.norm(left) * np.linalg.norm(v))
    if difference > TOLERANCE:
        got = f"one with u·Kv and v·Ku apart by {difference:.1g} of |Ku| |v|"
        raise ArgumentError("source", "a symmetric operator or kernel", got, reason="symmetric")


def _negative(value: float, largest: float) -> ArgumentError:
    got = f"vᵀKv/vᵀv = {value:.3g} of a vector v, where the largest eigenvalue is {largest:.3g} in size"
    return ArgumentError("source", "a positive semidefinite matrix or operator", got, reason="negative")


def lanczos_spectrum(gram: Gram, label: str, number: int, sampled: bool, seed: int, limit: int | None) -> Spectrum:
    """The largest eigenvalues of a kernel on many points, with sampling errors from sub-samples."""
    n = gram.num_points
    width = 2 * number + 1
    blocks = 4 * 8 * BLOCK_NUMBERS * (os.cpu_count() or 1)
    needed = 8 * n * (3 * width + 4 * NUM_PROBES) + blocks + 4 * 8 * LARGEST**2
    require_bytes(needed, limit, f"{number} eigenvalues of {n} points by Lanczos", FEWER)
    values, vectors = _largest(gram.times, n, number, seed)
    norm = square_norm(gram.times, vectors, values, seed)
    diagonal = gram.diagonal()
    trace, itself = float(diagonal.sum()), float(np.sum(diagonal**2))
    errors, ratio, replicas, factor = np.zeros(number), None, None, 1.0
    if sampled:
        replicas, factor = subset_spectra(gram, seed)
        replicas = replicas[:, :number]
        errors = np.sqrt(factor * np.var(replicas, axis=0))
        ratio = _unbiased(gram, trace**2 - itself, norm[0] - itself, norm[1], seed)
    probes = f"Σλ² = {norm[0]:.6g} ± {norm[1]:.1g} by {NUM_PROBES} random probes"
    note = f"the largest {number} of {n} eigenvalues, by Lanczos; {probes}."
    return Spectrum(
        values,
        errors,
        trace,
        n,
        label,
        vectors,
        norm,
        ratio,
        replicas,
        factor,
        sampled,
        1e-7,
        (note,),
        gram=gram,
        seed=seed,
    )


def _unbiased(gram: Gram, traces: float, squares: float, error: float, seed: int) -> tuple[float, float]:
    """The participation ratio from pairs: of all points by the probes; how it varies with the points, by one sub-sample."""
    some = stream_rng(seed, "pairs").choice(gram.num_points, min(LARGEST, gram.num_points), replace=False)
    _, spread = pair_ratio(gram.block(some, some), seed)
    value = traces / squares
    return value, float(np.hypot(spread * np.sqrt(len(some) / gram.num_points), value * error / squares))


def operator_spectrum(source, size, trace, number: int, sampled: bool, seed: int, limit: int | None) -> Spectrum:
    """The largest eigenvalues of an operator v ↦ Kv; its trace, where it is not given, by random probes."""
    shape = getattr(source, "shape", None)
    if shape is not None and (len(shape) != 2 or shape[0] != shape[1] or size not in (None, shape[0])):
        got = f"shape {tuple(shape)}" + ("" if size is None else f" and size={size}")
        raise ArgumentError("source", "a square operator of its size", got, reason="shape")
    n = positive_int("size", shape[0] if shape is not None else size, minimum=3, fix="It is the length of v.")
    apply = source.matvec if hasattr(source, "matvec") else source

    def times(vectors):
        each = [finite_array("source", apply(v)).reshape(-1) for v in np.asarray(vectors).reshape(n, -1).T]
        return np.stack(each, axis=1).astype(float)

    if sampled:
        raise ArgumentError(
            "sampled", "False for an operator", "True", "It cannot be sub-sampled: give kernel and points."
        )
    require_bytes(8.0 * n * (3 * (2 * number + 1) + 4 * NUM_PROBES), limit, f"{number} eigenvalues of size {n}", FEWER)
    values, vectors = _largest(times, n, min(number, n - 1), seed)
    norm = square_norm(times, vectors, values, seed)
    notes = [f"the largest {len(values)} of {n} eigenvalues, by Lanczos."]
    spread = 0.0
    if trace is not None:
        trace, known = float(finite_array("trace", trace)), float(values.sum())
        if trace < (1 - TOLERANCE) * known:
            raise ArgumentError("trace", f"at least the sum of the eigenvalues found, {known:.6g}", f"{trace:.6g}")
    else:
        probes = stream_rng(seed, "trace").choice([-1.0, 1.0], size=(n, NUM_PROBES))
        probes -= vectors @ (vectors.T @ probes)
        each = np.sum(probes * times(probes), axis=0)
        trace, spread = float(values.sum() + each.mean()), float(each.std(ddof=1) / np.sqrt(NUM_PROBES))
        notes.append(f"trace {trace:.6g} ± {spread:.1g} by {NUM_PROBES} random probes.")
    return Spectrum(
        values,
        np.zeros(len(values)),
        float(trace),
        n,
        "operator",
        vectors,
        norm,
        sampled=False,
        notes=tuple(notes),
        seed=seed,
        trace_error=spread,
    )


def approximate_spectrum(gram, label, source, method, number, features, seed, limit) -> Spectrum:
    """Leading eigenvalues from ``features`` landmarks or random features; their error is what half as many change."""
    n = gram.num_points
    require_bytes(8 * (3 * n * features + 6 * features**2), limit, f"{features} features of {n} points", FEWER)
    if features > n:
        raise ArgumentError("num_features", f"at most the {n} points", str(features), "Take method='dense'.")
    if number > features // 2:
        raise ArgumentError("num_eigenvalues", f"at most half of the {features} features", str(number))
    solve = _nystrom if method == "nystrom" else _random_features(source)
    full = np.array([solve(gram, features, stream_seed(seed, "features", run))[:number] for run in range(NUM_RUNS)])
    half = np.array([solve(gram, features // 2, stream_seed(seed, "half", run))[:number] for run in range(NUM_RUNS)])
    values = full.mean(axis=0)
    own = np.maximum(full.std(axis=0, ddof=1), np.abs(values - half.mean(axis=0)))
    replicas, factor = subset_spectra(gram, seed)
    replicas = replicas[:, :number]
    what = "landmarks (Nyström, C W⁻¹ Cᵀ)" if method == "nystrom" else "random Fourier features"
    note = (
        f"approximate: {features} {what}; errors contain what {features // 2} of them change, "
        f"at most {float(np.max(own[values > 0] / values[values > 0])):.1%} of a value."
    )
    return Spectrum(
        values, np.hypot(own, np.sqrt(factor * np.var(replicas, axis=0))), float(gram.diagonal().sum()), n, label,
        replicas=replicas, replica_factor=factor, notes=(note,), gram=gram, seed=seed,
    )  # fmt: skip


def _nystrom(gram: Gram, number: int, seed: int) -> np.ndarray:
    every = np.arange(gram.num_points)
    some = np.sort(stream_rng(seed, "landmarks").choice(every, number, replace=False))
    columns, core = gram.block(every, some), gram.block(some, some)
    values, vectors = scipy.linalg.eigh((core + core.T) / 2)
    good = values > number * gram.epsilon * values[-1]
    features = columns @ (vectors[:, good] / np.sqrt(values[good]))
    found = np.linalg.eigvalsh(features.T @ features)[::-1]
    return np.pad(found, (0, number - len(found)))  # a kernel with fewer features than landmarks


def _random_features(source):
    if source != "rbf":
        raise ArgumentError(
            "method", "'nystrom' or 'lanczos' for this kernel", "'random_features'", "These are of 'rbf' only."
        )
    if find_spec("sklearn") is None:
        raise MissingPackageError(
            "sklearn", "random features need scikit-learn, which is not installed: pip install scikit-learn."
        )
    from sklearn.kernel_approximation import RBFSampler

    def solve(gram: Gram, number: int, seed: int) -> np.ndarray:
        gamma = 1 / (2 * median_distance(gram.points) ** 2)
        features = RBFSampler(gamma=gamma, n_components=number, random_state=seed).fit_transform(gram.points)
        return np.linalg.eigvalsh(features.T @ features)[::-1]

    return solve
