"""Spectra of matrices that do not fit in memory: Krylov methods on products with blocks of rows, Nyström, random features.

Never shown are eigenvalues of a sub-matrix scaled by n/m: those of 500 points are some 50 % too high for the top 20 of 4,000.
"""

from __future__ import annotations

import os
import warnings
from importlib.util import find_spec

import numpy as np
import scipy.linalg
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh, lobpcg

from ..errors import ArgumentError, MissingPackageError
from ..errors.arguments import finite_array, positive_int
from ..errors.streams import stream_rng, stream_seed
from .gram import BLOCK_NUMBERS, Gram, median_distance
from .matrices import require_bytes
from .spectrum_result import Spectrum
from .subsamples import LARGEST, eigenvalue_errors, pair_ratio, subset_spectra

__all__ = ["approximate_spectrum", "lanczos_spectrum", "operator_spectrum", "square_norm"]

TOLERANCE = 1e-5  # of eigenvectors; eigenvalues are better by its square
NUM_LANDMARKS = 1000  # whose Nyström vectors are where the iteration begins
NUM_GUARDS = 10  # vectors beyond those that are asked for: the gap to the rest sets the speed
MAX_PRODUCTS = 100
RESIDUAL = 1e-4  # ‖Kv − λv‖ in units of the least eigenvalue that is asked for; eigenvalues are better by its square
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
        raise _too_many(number, size)

    def multiply(vectors):
        found = finite_array("source", times(np.asarray(vectors).reshape(size, -1))).astype(float)
        if found.size != np.size(vectors):
            got = f"shape {found.shape} from {np.shape(vectors)}"
            raise ArgumentError("source", f"an operator on vectors of length {size}", got, reason="returns")
        return found.reshape(np.shape(vectors))

    operator = LinearOperator((size, size), matvec=multiply, matmat=multiply, dtype=float)
    start = _require_symmetric(multiply, size, seed)
    try:  # by magnitude: a negative eigenvalue as large as these is found, not passed over
        values, vectors = eigsh(operator, number, v0=start, which="LM", tol=TOLERANCE, ncv=min(size, 2 * number + 1))
    except ArpackNoConvergence as error:
        raise _not_converged(f"{len(error.eigenvalues)} that converged") from error
    order = np.argsort(values)[::-1]
    if values.min() < -TOLERANCE * np.abs(values).max():
        raise _negative(values.min(), np.abs(values).max())
    return np.maximum(values[order], 0.0), vectors[:, order]


def _leading(gram: Gram, number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues of a kernel function, descending, with vectors: LOBPCG from the vectors of Nyström.

    A product with a block of 30 vectors costs twice one with a single vector, since the entries of K are what is dear; smooth
    kernels need two products, where ARPACK needs a hundred.
    """
    size = gram.num_points
    _require_symmetric(gram.times, size, seed)
    start, nystrom = _nystrom_vectors(gram, number, seed)

    def multiply(vectors):
        return finite_array("source", gram.times(np.asarray(vectors).reshape(size, -1)))

    operator = LinearOperator((size, size), matvec=multiply, matmat=multiply, dtype=float)
    tolerance = RESIDUAL * nystrom[number - 1]
    with warnings.catch_warnings():  # that the tolerance was not reached: looked at below
        warnings.simplefilter("ignore", UserWarning)
        values, vectors, history = lobpcg(
            operator, start, largest=True, tol=tolerance, maxiter=MAX_PRODUCTS, retResidualNormsHistory=True
        )
    left = np.max(np.asarray(history[-1])[:number], initial=0.0)
    if left > max(tolerance, 1e-6 * values[0]):  # the products are of single precision
        raise _not_converged(f"a residual of {left:.2g} after {MAX_PRODUCTS} products")
    return np.maximum(values[:number], 0.0), vectors[:, :number]


def _nystrom_vectors(gram: Gram, number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal vectors near the leading eigenvectors, from landmarks, and estimates of their eigenvalues."""
    size = gram.num_points
    features = _nystrom_features(gram, min(size, NUM_LANDMARKS), seed)
    values, vectors = scipy.linalg.eigh(features.T @ features)
    width = min(number + NUM_GUARDS, size)
    found = features @ vectors[:, ::-1][:, :width]
    missing = width - found.shape[1]  # a kernel with fewer features than vectors
    found = np.hstack([found, stream_rng(seed, "first vectors").normal(size=(size, missing))])
    return np.linalg.qr(found)[0], np.pad(np.maximum(values[::-1], 0.0), (0, max(missing, 0)))


def _too_many(number: int, size: int) -> ArgumentError:
    return ArgumentError("num_eigenvalues", f"fewer than the {size} of the matrix", str(number), "Take method='dense'.")


def _not_converged(got: str) -> ArgumentError:
    return ArgumentError("num_eigenvalues", "eigenvalues apart from each other", got, "Ask for fewer.")


def _require_symmetric(times, size: int, seed: int) -> np.ndarray:
    """A random vector; raise `ArgumentError` if the operator is zero, or u·Kv differs from v·Ku."""
    u, v = stream_rng(seed, "first vector").normal(size=size), stream_rng(seed, "symmetry").normal(size=size)
    left, right = times(np.stack([u, v], axis=1)).T
    if not left.any():
        raise ArgumentError("source", "a positive semidefinite operator", "one that makes 0 of a random vector")
    difference = abs(v @ left - u @ right) / (np.linalg.norm(left) * np.linalg.norm(v))
    if difference > TOLERANCE:
        got = f"one with u·Kv and v·Ku apart by {difference:.1g} of |Ku| |v|"
        raise ArgumentError("source", "a symmetric operator or kernel", got, reason="symmetric")
    return u


def _negative(value: float, largest: float) -> ArgumentError:
    got = f"vᵀKv/vᵀv = {value:.3g} of a vector v, where the largest eigenvalue is {largest:.3g} in size"
    return ArgumentError("source", "a positive semidefinite matrix or operator", got, reason="negative")


def lanczos_spectrum(gram: Gram, label: str, number: int, sampled: bool, seed: int, limit: int | None) -> Spectrum:
    """The largest eigenvalues of a kernel on many points, by iteration, with sampling errors from sub-samples."""
    n = gram.num_points
    if not number < n:
        raise _too_many(number, n)
    blocks = 4 * 8 * BLOCK_NUMBERS * (os.cpu_count() or 1)
    needed = 8 * n * (10 * (number + NUM_GUARDS) + 2 * NUM_LANDMARKS) + blocks + 4 * 8 * LARGEST**2
    require_bytes(needed, limit, f"{number} eigenvalues of {n} points by iteration", FEWER)
    if gram.matrix is None:
        values, vectors = _leading(gram, number, seed)
    else:  # a stored matrix may be negative anywhere; ARPACK finds eigenvalues of either sign
        values, vectors = _largest(gram.times, n, number, seed)
    norm = square_norm(gram.times, vectors, values, seed)
    diagonal = gram.diagonal()
    trace, itself = float(diagonal.sum()), float(np.sum(diagonal**2))
    errors, ratio, replicas, factor = np.zeros(number), None, None, 1.0
    if sampled:
        replicas, factor = subset_spectra(gram, seed)
        replicas = replicas[:, :number]
        errors, _ = eigenvalue_errors(values, replicas, factor)
        ratio = _unbiased(gram, trace**2 - itself, norm[0] - itself, norm[1], seed)
    probes = f"Σλ² = {norm[0]:.6g} ± {norm[1]:.1g} by {NUM_PROBES} random probes"
    method = "LOBPCG" if gram.matrix is None else "Lanczos"
    note = f"the largest {number} of {n} eigenvalues, by {method}; {probes}."
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
    change = np.abs(values - half.mean(axis=0)) / (np.sqrt(2) - 1)  # equal eigenvalues are split by O(1/√features)
    own = np.hypot(full.std(axis=0, ddof=1), change)
    replicas, factor = subset_spectra(gram, seed)
    replicas = replicas[:, :number]
    what = "landmarks (Nyström, C W⁻¹ Cᵀ)" if method == "nystrom" else "random Fourier features"
    note = (
        f"approximate: {features} {what}; errors contain what {features // 2} of them change, "
        f"at most {float(np.max(own[values > 0] / values[values > 0])):.1%} of a value."
    )
    return Spectrum(
        values, np.hypot(own, eigenvalue_errors(values, replicas, factor)[0]), float(gram.diagonal().sum()), n, label,
        replicas=replicas, replica_factor=factor, notes=(note,), gram=gram, seed=seed,
    )  # fmt: skip


def _nystrom_features(gram: Gram, number: int, seed: int) -> np.ndarray:
    """F with F Fᵀ = C W⁻¹ Cᵀ of random landmarks. Negative eigenvalues of W are, by interlacing, such of K."""
    every = np.arange(gram.num_points)
    some = np.sort(stream_rng(seed, "landmarks").choice(every, number, replace=False))
    columns, core = gram.block(every, some), gram.block(some, some)
    values, vectors = scipy.linalg.eigh((core + core.T) / 2)
    noise = number * gram.epsilon * np.abs(values).max()
    if values[0] < -max(noise, TOLERANCE * np.abs(values).max()):
        raise _negative(values[0], np.abs(values).max())
    good = values > noise
    return columns @ (vectors[:, good] / np.sqrt(values[good]))


def _nystrom(gram: Gram, number: int, seed: int) -> np.ndarray:
    features = _nystrom_features(gram, number, seed)
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
