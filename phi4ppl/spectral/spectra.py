"""Spectra of kernels and operators: `spectrum`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .._typing import Labeled
from ..errors import ArgumentError
from ..errors.arguments import call_checked, one_of, positive_int, seed_within
from .baselines import compare_baseline
from .dense_spectra import dense_spectrum
from .effective_ranks import EPSILON
from .features import features_of, makes_features
from .gram import KERNELS, Gram, gram_of, points_of
from .matrices import kernel_matrix, one_number, told
from .spectrum_result import Spectrum

__all__ = ["spectrum"]

METHODS = ("auto", "dense", "lanczos", "nystrom", "random_features")
MAX_DENSE = 4000  # points whose matrix is decomposed unasked
NUM_LARGE = 20  # eigenvalues of larger ones


@call_checked
def spectrum(
    source: Labeled | Callable | str,
    points: Labeled = None,
    *,
    size: int | None = None,
    trace: float | None = None,
    num_eigenvalues: int | None = None,
    method: str = "auto",
    num_features: int | None = None,
    sampled: bool | None = None,
    jitter: float = 0.0,
    baseline: str | None = None,
    seed: int = 0,
    max_memory: int | None = None,
) -> Spectrum:
    """The spectrum of a kernel matrix, a kernel function, a linear operator, or the covariance of a sampled field.

    ``K v_i = λ_i v_i`` with λ₁ ≥ λ₂ ≥ … ≥ 0, of a positive semidefinite K of shape (n, n). λ_i/n estimates the i-th
    eigenvalue of the kernel as an integral operator over the distribution of the points.

    Parameters
    ----------
    source : array, callable, str, or DataTree
        A matrix K; a kernel as a function of two blocks of points (scikit-learn's kernels are), as a JAX function of
        two points, or one of ``"rbf"``, ``"laplace"``, ``"matern"``, ``"polynomial"`` at the median distance and
        ``"linear"``; a φ⁴ network or a fitted scikit-learn estimator that makes features of the points, see
        `features_of`; an operator ``v ↦ Kv`` with its ``size``; the tree of a run, see `field_spectrum`.
    points : array_like, shape ``(n, …)``, optional
        Of a kernel function or of features. Beside a matrix they are for baselines.
    size : int, optional
        n, of an operator. A `scipy.sparse.linalg.LinearOperator` has its own.
    trace : float, optional
        Of an operator, where it is known; it is estimated otherwise.
    num_eigenvalues : int, optional
        How many, of ``"lanczos"``, ``"nystrom"`` and ``"random_features"``: 20.
    method : str
        ``"dense"``: all of them, the default up to 4,000 points. ``"lanczos"``: the largest, by Krylov methods on
        products with blocks of rows (scipy's LOBPCG for kernels, ARPACK for operators and stored
        matrices). ``"nystrom"`` and (of ``"rbf"``) ``"random_features"``: approximate, by scikit-learn, with an error
        from more features.
    num_features : int, optional
        Of the latter two: 500.
    sampled : bool, optional
        Whether the points are a sample of more, the default but for operators. Errors and the unbiased participation
        ratio are for that. False: the matrix is all there is.
    jitter : float
        Added to the diagonal, in units of the mean of the diagonal.
    baseline : str, optional
        A standard kernel on the same points, to be drawn and told beside the source: see `compare_baseline`.
    seed : int
        Of sub-samples and random probes.
    max_memory : int, optional
        Bytes; by default 80 % of what is free.

    Returns
    -------
    Spectrum

    Raises
    ------
    ArgumentError
        If the matrix is not symmetric, or has an eigenvalue below −n ε λ₁; if points are missing.
    MemoryLimitError
        If more would be needed than allowed; nothing has been computed then.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> x = np.random.default_rng(0).normal(size=400)
    >>> found = p4.spectral.spectrum(lambda x, y: np.exp(-((x - y.T) ** 2) / 2), x)
    >>> value, error = found.ranks["trace_over_max"]
    >>> bool(abs(value - (1 + 5**0.5) / 2) < 4 * error)  # the golden ratio
    True
    """
    found = _spectrum(
        source,
        points,
        size,
        trace,
        num_eigenvalues,
        method,
        num_features,
        sampled,
        jitter,
        seed_within(seed),
        max_memory,
    )
    return found if baseline is None else replace(found, baseline=compare_baseline(found, baseline))


def _spectrum(
    source, points, size, trace, num_eigenvalues, method, num_features, sampled, jitter, seed, max_memory
) -> Spectrum:
    method = one_of("method", method, METHODS)
    if hasattr(source, "children") or hasattr(getattr(source, "tree", None), "children"):
        from .field_modes import field_spectrum

        _refuse(
            "a run", points=points, size=size, trace=trace, num_eigenvalues=num_eigenvalues, num_features=num_features
        )
        _refuse("a run", jitter=jitter or None, method=None if method == "auto" else method, sampled=sampled)
        return field_spectrum(source, max_memory=max_memory)
    jitter = one_number("jitter", jitter)
    if not isinstance(sampled, bool | None):
        raise ArgumentError("sampled", "True, False or None", repr(sampled))
    trace = None if trace is None else one_number("trace", trace)
    if num_eigenvalues is not None:
        positive_int("num_eigenvalues", num_eigenvalues)
    if num_features is not None and method not in ("nystrom", "random_features"):
        _refuse(f"method={method!r}", num_features=num_features)
    if jitter < 0:
        raise ArgumentError("jitter", "a number of at least 0, in units of the mean of the diagonal", repr(jitter))
    if _is_operator(source, points, size):
        from .large import operator_spectrum

        _refuse("an operator", points=points, jitter=jitter or None)
        _refuse("an operator", method=None if method in ("auto", "lanczos") else method)
        with told("source", "an operator that makes Kv of a vector v of length size"):
            return operator_spectrum(source, size, trace, num_eigenvalues or NUM_LARGE, bool(sampled), seed, max_memory)
    _refuse("a matrix or a kernel of points", size=size, trace=trace)
    gram, label = _gram(source, points)
    sampled = True if sampled is None else bool(sampled)
    if method == "auto":
        method = "dense" if gram.matrix is not None or gram.num_points <= MAX_DENSE else "lanczos"
    if method == "dense":
        return dense_spectrum(gram, label, sampled, jitter, seed, max_memory)
    if jitter:
        raise ArgumentError("jitter", "0 where no matrix is decomposed", repr(jitter), "Take method='dense'.")
    from .large import approximate_spectrum, lanczos_spectrum

    number = num_eigenvalues or min(NUM_LARGE, gram.num_points - 1)
    if method == "lanczos":
        return lanczos_spectrum(gram, label, number, sampled, seed, max_memory)
    features = positive_int("num_features", num_features or min(500, gram.num_points // 2), minimum=4)
    return approximate_spectrum(gram, label, source, method, number, features, seed, max_memory)


def _refuse(what: str, **given) -> None:
    """Raise `ArgumentError` for what is given but has no meaning here: it would be ignored."""
    for name, value in given.items():
        if value is not None:
            raise ArgumentError(
                name, f"no {name} for {what}", f"a {type(value).__name__}", "Leave it out.", reason="unused"
            )


def _is_operator(source, points, size) -> bool:
    if hasattr(source, "matvec"):
        return True
    return callable(source) and points is None and size is not None


def _gram(source, points) -> tuple[Gram, str]:
    if makes_features(source):
        if points is None:
            raise ArgumentError("points", "points of which the model makes features", "none", reason="missing")
        features = features_of(source, points)
        found = Gram(points=features, function=lambda x, y: x @ y.T)
        found.inputs = points_of(points)
        return found, f"features of {type(source).__name__}"
    if callable(source) or isinstance(source, str):
        if points is None:
            known = (
                f"one of {', '.join(map(repr, KERNELS))}, or a function" if isinstance(source, str) else "a function"
            )
            fix = "Of an operator v ↦ Kv give its size."
            raise ArgumentError("points", f"points for the kernel ({known})", "none", fix, reason="missing")
        name = source if isinstance(source, str) else getattr(source, "__name__", type(source).__name__)
        return gram_of(source, points), "kernel" if name == "<lambda>" else f"{name} kernel"
    given = np.asarray(source)
    matrix = kernel_matrix("source", source)
    found = Gram(matrix, epsilon=float(np.finfo(given.dtype).eps) if given.dtype.kind == "f" else EPSILON)
    if points is not None:
        found.inputs = points_of(points)
        if len(found.inputs) != len(matrix):
            got = f"{len(found.inputs)} points beside a matrix of {len(matrix)} rows"
            raise ArgumentError("points", "one point a row of the matrix", got, reason="shape")
    return found, "kernel matrix"
