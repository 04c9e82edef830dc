"""log Z of several ensembles from samples of all of them (multistate Bennett acceptance ratio)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from .._typing import (
    ArrayLike,
    BlockOfSample,
    Energies,
    Overlaps,
    PerDraw,
    PerEnsemble,
    PerSample,
    PerTarget,
    Ratios,
    SumsWithoutBlock,
)
from ..errors import ArgumentError
from ..errors.arguments import finite_array

__all__ = [
    "MbarSolution",
    "log_mixture",
    "overlap_matrix",
    "ratios_without_each",
    "shares_of",
    "solve_mbar",
    "sums_without_each",
]

MAX_STEPS = 200
MAX_CHORD_STEPS = 30
IN_CACHE = 2**18  # numbers that one step of a loop over samples works on
TOLERANCE = 1e-10  # on the fraction of samples that the equations leave unexplained
CHORD_TOLERANCE = 1e-12


class MbarSolution(NamedTuple):
    """``log_partition`` of every ensemble relative to the first, and ``log_mixture`` at every sample; see `log_mixture`."""

    log_partition: PerEnsemble
    log_mixture: PerSample


def log_mixture(energies: Energies, counts: ArrayLike, log_partition: PerEnsemble) -> PerSample:
    """log Σ_k N_k exp(−S_k(φ_n))/Z_k at every sample: the density that the pooled samples come from, times N.

    Parameters
    ----------
    energies : array, shape (num_ensembles, num_samples)
        S_k(φ_n), up to a number that depends on n only.
    counts : array, shape (num_ensembles,)
        N_k, effective or actual; zero for an ensemble without samples.
    log_partition : array, shape (num_ensembles,)
    """
    sampled = np.asarray(counts) > 0
    offset = np.log(np.asarray(counts, float)[sampled]) - np.asarray(log_partition)[sampled]
    return logsumexp(offset[:, None] - np.asarray(energies)[sampled], axis=0)


def solve_mbar(
    energies: Energies, counts: ArrayLike, start: PerEnsemble | None = None, *, weights: ArrayLike | None = None
) -> MbarSolution:
    """Solve Z_k = Σ_n exp(−S_k(φ_n)) / Σ_l N_l exp(−S_l(φ_n))/Z_l for all log Z_k, up to the common constant.

    The solution maximizes Σ_k N_k ζ_k − Σ_n log Σ_l N_l exp(ζ_l − S_l(φ_n)), ζ = −log Z, a concave function: Newton
    steps, damped where they do not climb.

    Parameters
    ----------
    energies : array, shape (num_ensembles, num_samples)
        S_k(φ_n) of the pooled samples, in the order of their ensembles or any other; up to a number for each sample.
    counts : array, shape (num_ensembles,)
        N_k, how many of the samples come from ensemble k; their sum is the (weighted) number of samples.
    start : array, shape (num_ensembles,), optional
        log Z to start from.
    weights : array, shape (num_samples,), optional
        How often each sample counts; all once by default. Zero leaves it out (jackknife).

    Returns
    -------
    MbarSolution

    Raises
    ------
    ArgumentError
        For wrong shapes, non-finite energies, counts that do not add up, or ensembles so far apart that the equations do
        not converge.

    Notes
    -----
    M. R. Shirts and J. D. Chodera, J. Chem. Phys. 129 (2008) 124105; for lattice actions the multi-histogram method of
    A. M. Ferrenberg and R. H. Swendsen, Phys. Rev. Lett. 63 (1989) 1195, without histograms.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)  # two Gaussians, Z_2/Z_1 = 1/2
    >>> x = np.concatenate([rng.normal(0, 1, 4000), rng.normal(0, 0.5, 4000)])
    >>> solution = solve_mbar(np.stack([x**2 / 2, 2 * x**2]), [4000, 4000])
    >>> bool(abs(solution.log_partition[1] - np.log(0.5)) < 0.05)
    True
    """
    energies = finite_array("energies", energies)
    counts = finite_array("counts", counts)
    if energies.ndim != 2 or counts.shape != energies.shape[:1]:
        expected = "energies of shape (num_ensembles, num_samples) and as many counts as ensembles"
        raise ArgumentError("energies", expected, f"{energies.shape} and {counts.shape}")
    each = np.ones(energies.shape[1]) if weights is None else np.asarray(weights, float)
    if np.any(counts < 0) or not np.isclose(counts.sum(), each.sum()) or counts[0] <= 0:
        expected = f"numbers that add up to the {each.sum():g} samples, the first above zero"
        raise ArgumentError("counts", expected, str(counts.tolist()))
    zeta = -np.asarray(np.zeros(len(counts)) if start is None else start, float)
    active = np.flatnonzero(counts > 0)
    zeta[active] = _newton(energies[active], counts[active], zeta[active], each)
    mixture = log_mixture(energies, counts, -zeta)
    with np.errstate(divide="ignore"):
        log_partition = logsumexp(np.log(each) - energies - mixture, axis=1)
    log_partition -= log_partition[0]
    return MbarSolution(log_partition, log_mixture(energies, counts, log_partition))


def _newton(energies, counts, zeta, each):
    def parts(zeta):
        terms = np.log(counts)[:, None] + zeta[:, None] - energies
        top = terms.max(axis=0)
        shares = np.exp(terms - top)
        total = shares.sum(axis=0)
        return each @ (top + np.log(total)) - counts @ zeta, shares / total

    value, shares = parts(zeta)
    damping = 0.0
    for _ in range(MAX_STEPS):
        gradient = shares @ each - counts
        if np.abs(gradient).sum() <= TOLERANCE * counts.sum():
            return zeta - zeta[0]
        hessian = np.diag(shares @ each) - (shares * each) @ shares.T
        # a little of the diagonal keeps ensembles apart from each other from making it singular
        curved = hessian[1:, 1:] + (1e-12 + damping) * np.diag(counts[1:])
        step = np.append(0.0, np.linalg.solve(curved, -gradient[1:]))
        new_value, new_shares = parts(zeta + step)
        if np.isfinite(new_value) and new_value <= value + 1e-13 * abs(value):
            zeta, value, shares = zeta + step, new_value, new_shares
            damping = damping / 10 if damping > 1e-10 else 0.0
        elif damping > 1e6:
            break
        else:
            damping = max(10 * damping, 1e-8)
    if np.abs(shares @ each - counts).sum() <= 1e-6 * counts.sum():
        return zeta - zeta[0]
    fix = "Add ensembles between them, or use longer runs."
    raise ArgumentError(
        "energies", "ensembles that overlap", "samples that never visit each other's region", fix, reason="overlap"
    )


def overlap_matrix(energies: Energies, counts: ArrayLike, solution: MbarSolution) -> Overlaps:
    """O_kl, the probability that a sample of ensemble k is taken for one of l; rows add up to one.

    Neighbors of a chain of ensembles should share 0.03 or more; a block of zeros cuts the ensembles into sets whose
    log Z relative to each other is unknown.
    """
    log_weights = -np.asarray(energies) - solution.log_partition[:, None] - solution.log_mixture
    weights = np.exp(log_weights)
    return weights @ (weights * np.asarray(counts, float)[:, None]).T


def shares_of(energies: Energies, counts: ArrayLike, solution: MbarSolution) -> Energies:
    """s_k(n) = N_k exp(−S_k(φ_n))/(Z_k D(φ_n)), D the mixture: the probability that sample n comes from ensemble k."""
    log_counts = np.log(np.asarray(counts, float)) - solution.log_partition
    return np.exp(log_counts[:, None] - np.asarray(energies) - solution.log_mixture)


def ratios_without_each(shares: Energies, counts: PerEnsemble, block: BlockOfSample, ensemble: int) -> Ratios:
    """a_bk such that the mixture without block b of one ensemble is D_b(φ_n) = D(φ_n) Σ_k a_bk s_k(n).

    a_bk = (N_bk/N_k) Z_k/Z_bk, where N_b are the counts and Z_b solves the equations of `solve_mbar` without that block. All
    blocks are solved at once, from the solution for all samples. Newton steps keep the curvature of the start, which is
    nearly that of the end, so that a step takes two products of matrices.

    Parameters
    ----------
    shares : array, shape (num_ensembles, num_samples)
        See `shares_of`.
    counts : array, shape (num_ensembles,)
    block : int array, shape (num_samples,)
        The block of each sample of the ensemble, −1 for the samples of others.
    ensemble : int
        Whose blocks these are.

    Returns
    -------
    array, shape (num_blocks, num_ensembles)
        NaN for blocks without which the steps do not converge.
    """
    number, own = int(block.max()) + 1, shares[:, block >= 0]
    left = np.tile(np.asarray(counts, float), (number, 1))
    left[:, ensemble] -= np.bincount(block[block >= 0], minlength=number)
    parts = [own[:, block[block >= 0] == b] for b in range(number)]
    inside = np.stack([np.diag(part.sum(axis=1)) - part @ part.T for part in parts])
    curvature = np.diag(shares.sum(axis=1)) - shares @ shares.T - inside + 1e-12 * np.diag(counts)
    inverse = np.linalg.inv(curvature[:, 1:, 1:])
    each, logs = np.ones((shares.shape[1], 1)), np.zeros_like(left)
    for _ in range(MAX_CHORD_STEPS):
        ratios = left / counts * np.exp(logs)
        gradient = ratios * sums_without_each(shares, ratios, block, each, shares.T)[:, 0] - left
        unexplained = np.abs(gradient).sum(axis=1) / left.sum(axis=1)
        if not np.any(unexplained > CHORD_TOLERANCE):
            break
        logs[:, 1:] -= np.einsum("bkl,bl->bk", inverse, gradient[:, 1:])
    return np.where((unexplained <= TOLERANCE)[:, None], ratios, np.nan)


def sums_without_each(
    shares: Energies, ratios: Ratios, block: BlockOfSample, weights: PerTarget, table: PerDraw
) -> SumsWithoutBlock:
    """Σ_n w_t(n) x_j(n)/Σ_k a_bk s_k(n) over the samples outside block b; see `ratios_without_each`.

    Parameters
    ----------
    weights : array, shape (num_samples, num_targets)
        Real or complex.
    table : array, shape (num_samples, num_columns)

    Returns
    -------
    array, shape (num_blocks, num_targets, num_columns)
    """
    shape = (len(ratios), weights.shape[1], table.shape[1])
    total = np.zeros((shape[0], shape[1] * shape[2]), np.result_type(weights, table))
    step = max(1, IN_CACHE // max(total.shape))
    for start in range(0, len(block), step):
        here = slice(start, start + step)
        inverse = 1 / (ratios @ shares[:, here])
        inside = np.flatnonzero(block[here] >= 0)
        inverse[block[here][inside], inside] = 0
        columns = (weights[here, :, None] * table[here, None, :]).reshape(len(inverse.T), -1)
        total.view(float)[:] += inverse @ columns.view(float)
    return total.reshape(shape)
