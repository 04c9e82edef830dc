"""Two representations of the same examples: centered kernel alignment without bias, and what a linear probe reads of labels."""

from __future__ import annotations

import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, seed_within
from ..errors.streams import stream_rng
from .activations import as_array, require_moderate
from .leave_out import Measured, groups_of, measured, require_examples

__all__ = ["alignment", "aligned_kernels", "label_columns", "linear_kernel", "probe"]

MIN_EXAMPLES = 40
FOLDS = 5
RIDGES = np.geomspace(1e-8, 1e2, 21)  # over the mean of the diagonal of the kernel
MAX_CLASSES = 50


def linear_kernel(values: np.ndarray) -> np.ndarray:
    """F Fᵀ of centered features, shape ``(n, n)``."""
    flat = values.reshape(len(values), -1)
    flat = flat - flat.mean(axis=0)
    return flat @ flat.T


@call_checked
def alignment(one, two, *, seed: int = 0) -> Measured:
    """Centered alignment (CKA) of two sets of features of the same examples, from unbiased estimates, with its error.

    It is ``h(K, L)/(h(K, K) h(L, L))^½`` with K = F Fᵀ and h the unbiased estimate of the Hilbert–Schmidt independence
    criterion: for many examples ‖C_fg‖²/(‖C_ff‖ ‖C_gg‖) of covariance matrices C. It is 1 for features that are equal up to a
    rotation and a factor, and 0 for independent ones, whatever their number; the plain estimate then tends to 1.

    Parameters
    ----------
    one, two : array_like, shape ``(n, …)``
        Features, or labels as columns, of at least 40 examples.
    seed : int
        Of groups of examples.

    Returns
    -------
    Measured

    Raises
    ------
    ArgumentError

    Notes
    -----
    The estimate can be slightly negative. Sources: L. Song et al., J. Mach. Learn. Res. 13, 1393 (2012); S. Kornblith et al.,
    arXiv:1905.00414. Errors leave out one of 20 groups of examples at a time.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> x, y = np.random.default_rng(0).normal(size=(2, 100, 200))
    >>> p4.lens.alignment(x, 3 * x).value, bool(abs(p4.lens.alignment(x, y).value) < 0.1)
    (1.0, True)
    """
    arrays = [finite_array(name, each).astype(float) for name, each in (("one", one), ("two", two))]
    for name, each in zip(("one", "two"), arrays, strict=True):
        require_examples(len(each) if each.ndim else 0, MIN_EXAMPLES, name)
        require_moderate(name, each)
    if len(arrays[0]) != len(arrays[1]):
        raise ArgumentError("two", f"{len(arrays[0])} examples, as one", f"{len(arrays[1])}", reason="shape")
    kernels = [linear_kernel(each) for each in arrays]
    return aligned_kernels(kernels[0], kernels[1], groups_of(len(kernels[0]), seed_within(seed)))


def aligned_kernels(one: np.ndarray, two: np.ndarray, group: np.ndarray) -> Measured:
    """Alignment of two kernels of the same examples; nan where one of them is constant."""

    def statistic(index):
        kernels = [kernel[np.ix_(index, index)] for kernel in (one, two)]
        product = _independence(kernels[0], kernels[0]) * _independence(kernels[1], kernels[1])
        return _independence(kernels[0], kernels[1]) / np.sqrt(product) if product > 0 else np.nan

    return Measured(*map(float, measured(statistic, group, np.arange(len(one)))))


def _independence(one: np.ndarray, two: np.ndarray) -> float:
    """The unbiased estimate of the Hilbert–Schmidt independence criterion."""
    n = len(one)
    one, two = one - np.diag(np.diag(one)), two - np.diag(np.diag(two))
    rows = one.sum(axis=1), two.sum(axis=1)
    total = (one * two).sum() + rows[0].sum() * rows[1].sum() / ((n - 1) * (n - 2)) - 2 * (rows[0] @ rows[1]) / (n - 2)
    return float(total / (n * (n - 3)))


def label_columns(labels, number: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Labels as columns, shape ``(number, …)``, and classes as whole numbers where they are such.

    Raises
    ------
    ArgumentError
    """
    values = as_array("labels", labels)
    if values.ndim != 1 or len(values) != number:
        raise ArgumentError(
            "labels", f"one label for each of {number} examples", f"shape {values.shape}", reason="shape"
        )
    if values.dtype.kind not in "OUSbiu":
        values = finite_array("labels", values)
    names, classes = np.unique(values, return_inverse=True)
    if len(names) < 2:
        raise ArgumentError("labels", "labels that differ", f"{names[0]!s} for every example", reason="constant")
    if values.dtype.kind in "OUSb" or (
        len(names) <= MAX_CLASSES and np.array_equal(values, np.rint(values.astype(float)))
    ):
        return (classes[:, None] == np.arange(len(names))).astype(float), classes
    return values.astype(float)[:, None], None


def probe(values: np.ndarray, columns: np.ndarray, classes: np.ndarray | None, seed: int) -> Measured:
    """What ridge regression on the features reads of labels that it has not seen: accuracy, or R² of real labels.

    Predictions are those of five folds. In each, the ridge is the one with the smallest leave-one-out error.
    """
    n = len(values)
    features = values.reshape(n, -1)
    if features.shape[1] > n:  # the same kernel from n features
        found, vectors = np.linalg.eigh(linear_kernel(features))
        features = vectors * np.sqrt(np.maximum(found, 0.0))
    fold = stream_rng(seed, "folds").permutation(np.arange(n) % FOLDS)
    predicted = np.empty_like(columns)
    for k in range(FOLDS):
        train, test = fold != k, fold == k
        center, mean = features[train].mean(axis=0), columns[train].mean(axis=0)
        left, scales, right = np.linalg.svd(features[train] - center, full_matrices=False)
        size = max(float((scales**2).sum()) / len(left), 1e-300)
        turned = left.T @ (columns[train] - mean)
        best = min((_left_out(left, scales**2, turned, columns[train] - mean, r * size), r * size) for r in RIDGES)[1]
        weights = right.T @ (turned * (scales / (scales**2 + best))[:, None])
        predicted[test] = (features[test] - center) @ weights + mean
    if classes is not None:
        right_ones = (predicted.argmax(axis=1) == classes).astype(float)
        return Measured(float(right_ones.mean()), float(right_ones.std(ddof=1) / np.sqrt(n)))
    return Measured(*map(float, measured(_determination, groups_of(n, seed), predicted, columns)))


def _left_out(left, squares, turned, columns, ridge: float) -> float:
    """Squared leave-one-out residuals of ridge regression, from one decomposition of the features."""
    shrink = squares / (squares + ridge)
    leverage = (left**2) @ shrink + 1 / len(left)
    residual = columns - left @ (turned * shrink[:, None])
    return float(((residual / np.maximum(1 - leverage, 1e-12)[:, None]) ** 2).sum())


def _determination(predicted, columns) -> float:
    return 1 - ((predicted - columns) ** 2).sum() / ((columns - columns.mean(axis=0)) ** 2).sum()
