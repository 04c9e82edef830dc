"""Cumulants of samples without bias, connected four-point functions, and whether the samples are Gaussian.

Of n independent samples, with central moments m, multivariate k-statistics (R. A. Fisher, 1929) are

    k_ab = n m_ab/(n − 1),  k_abc = n² m_abc/((n − 1)(n − 2)),
    k_abcd = n² [(n + 1) m_abcd − (n − 1)(m_ab m_cd + m_ac m_bd + m_ad m_bc)]/((n − 1)(n − 2)(n − 3)),

whose means are the cumulants exactly. By Wick's theorem all but the second vanish for a Gaussian.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from .._typing import Labeled
from ..errors import ArgumentError
from ..errors.arguments import call_checked, finite_array, seed_within
from ..errors.streams import stream_rng
from ..reports.card import card
from .activations import as_array, require_moderate
from .leave_out import Measured, aligned, groups_of, measured, require_examples

__all__ = ["Cumulants", "cumulants"]

MIN_SAMPLES = 40
NUM_GROUPS = 50
MAX_COMPONENTS = 16
MAX_QUADRUPLES = 24
NUM_GAUSSIANS = 399  # sets of Gaussian samples that a verdict compares with
SIMULATED = 500  # samples in each, at most: what is compared hardly depends on their number
AT_ONCE = 1 << 19  # numbers of simulated samples
LEVEL = 0.01  # of the verdict, over both orders
STILL = 1e-9  # relative spread of a component that is constant
HEAD = ("component", "mean", "variance", "skewness", "excess kurtosis")


@call_checked
@dataclass(frozen=True, repr=False, eq=False)
class Cumulants:
    """Cumulants of the components of some samples; see `phi4ppl.lens.cumulants`. Pairs are values with standard errors.

    Attributes
    ----------
    label : str
    num_samples : int
    components : int array
        Which components of a sample, flattened, are measured.
    mean, variance : pairs of arrays, shape ``(components,)``
        First and second cumulant.
    skewness, kurtosis : pairs of arrays, shape ``(components,)``
        k₃/k₂^{3/2} and k₄/k₂²: the latter is the excess kurtosis.
    quadruples : int array, shape ``(Q, 4)``
        Components a, b, c, d, by number among all components of a sample.
    connected : pair of arrays, shape ``(Q,)``
        Connected four-point functions ⟨abcd⟩_c = k_abcd.
    normalized : pair of arrays, shape ``(Q,)``
        The same over the four standard deviations.
    average : dict
        ``"skewness"`` and ``"kurtosis"`` averaged over the components, and ``"connected"``, the normalized ones averaged over
        the quadruples, as `Measured`.
    p_values : dict
        Of order 3 and of order 4: share of Gaussian samples of this covariance with as large a mean square of all cumulants
        of that order, normalized. At order 3 it must be as rare among the samples with random signs: tails alone make no
        skewness.
    """

    label: str
    num_samples: int
    components: np.ndarray
    mean: tuple[np.ndarray, np.ndarray]
    variance: tuple[np.ndarray, np.ndarray]
    skewness: tuple[np.ndarray, np.ndarray]
    kurtosis: tuple[np.ndarray, np.ndarray]
    quadruples: np.ndarray
    connected: tuple[np.ndarray, np.ndarray]
    normalized: tuple[np.ndarray, np.ndarray]
    average: dict[str, Measured]
    p_values: dict[int, float]

    @property
    def order(self) -> int | None:
        """The lowest order of which the cumulants differ from those of a Gaussian, 3 or 4; None if neither does."""
        return next((order for order, p in self.p_values.items() if p <= LEVEL / 2), None)

    @property
    def is_gaussian(self) -> bool:
        """Whether the samples are Gaussian within errors, up to fourth order."""
        return self.order is None

    def verdict(self) -> str:
        shown = f"excess kurtosis {self.average['kurtosis']}"
        if self.is_gaussian:
            return f"Gaussian within errors up to order 4: {shown}"
        return f"not Gaussian, from order {self.order} on (p = {self.p_values[self.order]:.3f}): {shown}"

    def rows(self) -> list[tuple[str, ...]]:
        """Cells of a table, a row a component."""
        columns = (self.mean, self.variance, self.skewness, self.kurtosis)
        return [
            (str(c), *(str(Measured(float(v[k]), float(e[k]))) for v, e in columns))
            for k, c in enumerate(self.components)
        ]

    def __str__(self) -> str:
        lines = [f"cumulants of {self.label}, {self.num_samples} samples", *aligned([HEAD, *self.rows()])]
        if len(self.quadruples):
            largest = int(np.argmax(np.abs(self.normalized[0])))
            found = Measured(*(float(each[largest]) for each in self.normalized))
            where = ", ".join(map(str, self.quadruples[largest]))
            lines.append(
                f"  {len(self.quadruples)} connected four-point functions: mean {self.average['connected']}, "
                f"largest {found} at ({where})"
            )
        return "\n".join([*lines, f"  {self.verdict()}"])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        title = f"Cumulants of {self.label}, {self.num_samples} samples"
        return card(title, HEAD, self.rows(), good=self.is_gaussian, outcome=self.verdict())


@call_checked
def cumulants(samples: Labeled, *, quadruples: Labeled = None, label: str = "samples", seed: int = 0) -> Cumulants:
    """Cumulants of independent samples up to fourth order, their connected four-point functions, and whether they are Gaussian.

    Parameters
    ----------
    samples : array_like, shape ``(n, …)``
        Outputs of a network for n draws of its weights, features of n examples, or n independent fields.
    quadruples : int array, shape ``(Q, 4)``, optional
        Components, by number in a flattened sample, of connected four-point functions; by default up to 24 of those measured,
        half of them of the form (a, a, b, b).
    label : str
    seed : int
        Of the choice of components where there are more than 16, of groups of samples, and of Gaussian samples.

    Returns
    -------
    Cumulants

    Raises
    ------
    ArgumentError
        If there are fewer than 40 samples, or no component changes.

    Notes
    -----
    Errors leave out one of 50 groups of samples at a time. The verdict compares the mean square of all normalized cumulants of
    one order with that of 399 sets of Gaussian samples of the same covariance: it is wrong for one Gaussian in 100 at most.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> x = np.random.default_rng(0).normal(size=(2000, 2))
    >>> p4.lens.cumulants(x).is_gaussian, p4.lens.cumulants(x**3).order
    (True, 4)
    """
    seed = seed_within(seed)
    values = finite_array("samples", samples).astype(float)
    if not values.ndim:
        raise ArgumentError("samples", "samples along the first axis", "one number", reason="shape")
    require_examples(len(values), MIN_SAMPLES, "samples")
    require_moderate("samples", values)
    flat = values.reshape(len(values), -1)
    asked = None if quadruples is None else _quadruples(quadruples, flat.shape[1])
    spread = flat.std(axis=0)
    live = np.flatnonzero(spread > STILL * np.maximum(np.abs(flat).max(axis=0), 1e-300))
    if not len(live):
        raise ArgumentError("samples", "components that change", "the same values in every sample", reason="constant")
    rng = stream_rng(seed, "components")
    chosen = live if len(live) <= MAX_COMPONENTS else np.sort(rng.permutation(live)[:MAX_COMPONENTS])
    own = asked if asked is not None else _chosen(chosen, rng)
    return _measure(flat, chosen, own, label, seed)


def _quadruples(given, number: int) -> np.ndarray:
    array = as_array("quadruples", given)
    if (
        array.ndim != 2
        or array.shape[1] != 4
        or array.dtype.kind not in "iu"
        or not (0 <= array).all()
        or (array >= number).any()
    ):
        got = f"shape {array.shape} of {array.dtype}"
        raise ArgumentError("quadruples", f"whole numbers from 0 to {number - 1}, shape (Q, 4)", got, reason="shape")
    return array


def _chosen(components: np.ndarray, rng) -> np.ndarray:
    """Half of them pairs of pairs, half of four different components, as far as there are any."""
    pairs = [(a, a, b, b) for a, b in itertools.combinations(components, 2)]
    fours = list(itertools.islice(itertools.combinations(rng.permutation(components), 4), MAX_QUADRUPLES // 2))
    some = rng.permutation(len(pairs))[: MAX_QUADRUPLES // 2]
    return np.array([*(pairs[k] for k in some), *fours], int).reshape(-1, 4)


def _measure(flat: np.ndarray, chosen, quadruples, label: str, seed: int) -> Cumulants:
    group = groups_of(len(flat), seed, NUM_GROUPS)
    used, place = np.unique(np.concatenate([chosen, quadruples.reshape(-1)]), return_inverse=True)
    own, four = place[: len(chosen)], place[len(chosen) :].reshape(-1, 4)
    columns = flat[:, used] - flat[:, used].mean(axis=0)

    def statistic(rows):
        second = _k(rows, own, own)
        skewness, kurtosis, connected, normalized = _normalized(rows, own, four)
        means = [skewness.mean(), kurtosis.mean(), normalized.mean() if len(four) else 0.0]
        return np.concatenate([rows[:, own].mean(axis=0), second, skewness, kurtosis, connected, normalized, means])

    found = measured(statistic, group, columns)
    c, q = len(own), len(four)
    parts = [np.split(each, np.cumsum([c, c, c, c, q, q])) for each in found]
    mean, variance, skewness, kurtosis, connected, normalized, averages = zip(*parts, strict=True)
    names = ("skewness", "kurtosis", "connected")
    average = {name: Measured(float(averages[0][k]), float(averages[1][k])) for k, name in enumerate(names)}
    mean = (mean[0] + flat[:, chosen].mean(axis=0), mean[1])
    p_values = _against_gaussians(columns, own, four, seed)
    return Cumulants(
        label, len(flat), chosen, mean, variance, skewness, kurtosis, quadruples, connected, normalized, average, p_values
    )  # fmt: skip


def _k(rows, *indices):
    """k-statistics of two to four lists of columns, one for each entry of the lists; ``rows`` are ``(…, sample, column)``."""
    n = rows.shape[-2]
    rows = rows - rows.mean(axis=-2, keepdims=True)
    parts = [rows[..., index] for index in indices]
    if len(parts) == 2:
        return (parts[0] * parts[1]).sum(axis=-2) / (n - 1)
    if len(parts) == 3:
        return n * (parts[0] * parts[1] * parts[2]).sum(axis=-2) / ((n - 1) * (n - 2))
    a, b, c, d = parts
    ab, cd = a * b, c * d
    pairs = ab.mean(axis=-2) * cd.mean(axis=-2)
    pairs += (a * c).mean(axis=-2) * (b * d).mean(axis=-2) + (a * d).mean(axis=-2) * (b * c).mean(axis=-2)
    return n**2 * ((n + 1) * (ab * cd).mean(axis=-2) - (n - 1) * pairs) / ((n - 1) * (n - 2) * (n - 3))


def _normalized(rows, own, four):
    """Skewness and excess kurtosis of components, and connected four-point functions, plain and normalized."""
    second = _k(rows, own, own)
    skewness = _k(rows, own, own, own) / second**1.5
    kurtosis = _k(rows, own, own, own, own) / second**2
    if not len(four):
        return skewness, kurtosis, np.zeros((*rows.shape[:-2], 0)), np.zeros((*rows.shape[:-2], 0))
    connected = _k(rows, *four.T)
    scale = np.sqrt(np.prod(rows.var(axis=-2, ddof=1)[..., four], axis=-1))
    return skewness, kurtosis, connected, connected / np.where(scale > 0, scale, 1.0)


def _against_gaussians(columns: np.ndarray, own, four, seed: int) -> dict[int, float]:
    """p-values of the mean square of cumulants of order 3 and of order 4, by Gaussian samples of the same covariance."""

    def sizes(rows) -> np.ndarray:
        n = rows.shape[-2]
        skewness, kurtosis, _, normalized = _normalized(rows, own, four)
        third = 6 * n * (n - 1) / ((n - 2) * (n + 1) * (n + 3))  # variances for Gaussians
        fourth = 24 * n * (n - 1) ** 2 / ((n - 3) * (n - 2) * (n + 3) * (n + 5))
        every = np.concatenate([kurtosis, normalized], axis=-1)
        return np.stack([(skewness**2).mean(axis=-1) / third, (every**2).mean(axis=-1) / fourth], axis=-1)

    here, rng = sizes(columns), stream_rng(seed, "Gaussian samples")
    number = min(len(columns), SIMULATED)
    scale = columns.std(axis=0)
    values, vectors = np.linalg.eigh(np.cov((columns / np.where(scale > 0, scale, 1.0)).T).reshape(len(scale), -1))
    root = (vectors * np.sqrt(np.maximum(values, 0.0))).T
    some, above = columns[rng.permutation(len(columns))[:number]], np.zeros(3, int)
    step, left = max(1, AT_ONCE // (number * (len(scale) + len(four)))), NUM_GAUSSIANS
    while left:
        batch = min(step, left)
        drawn = sizes(rng.normal(size=(batch, number, len(values))) @ root)
        signed = sizes(some * rng.choice([-1.0, 1.0], (batch, number, 1)))
        above += np.array([*(drawn >= here).sum(axis=0), (signed[:, 0] >= here[0]).sum()])
        left -= batch
    third, fourth = max(above[0], above[2]), above[1]
    return {order: float((1 + k) / (1 + NUM_GAUSSIANS)) for order, k in ((3, third), (4, fourth))}
