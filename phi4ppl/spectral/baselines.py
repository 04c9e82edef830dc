"""A spectrum beside that of a standard kernel on the same points, with the same trace."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import ArgumentError
from ..errors.arguments import one_of
from . import effective_ranks as ranks_of
from .dense_spectra import dense_spectrum
from .gram import KERNELS, Gram, named_kernel
from .large import lanczos_spectrum
from .spectrum_result import Spectrum

__all__ = ["Baseline", "compare_baseline"]

ALIKE = 0.05  # of the logarithm of the ratio of two ranks, below which nobody cares
NUM_ERRORS = 2
BASELINES = KERNELS[:-1]


@dataclass(frozen=True)
class Baseline:
    """A standard kernel at the median distance, and how the source compares with it.

    Attributes
    ----------
    name : str
    spectrum : Spectrum
        Scaled to the trace of the source.
    ratio, error : float
        log of the entropy rank of the source over that of the baseline, on the same points and sub-samples; where only some
        eigenvalues are known, log of the shares of the trace that they leave.
    """

    name: str
    spectrum: Spectrum
    ratio: float
    error: float

    @property
    def outcome(self) -> str:
        """``"faster"``, ``"slower"`` or ``"alike"``: how the source's spectrum decays."""
        if abs(self.ratio) <= max(NUM_ERRORS * self.error, ALIKE):
            return "alike"
        return "slower" if self.ratio > 0 else "faster"

    def __str__(self) -> str:
        words = {"faster": "faster than", "slower": "more slowly than", "alike": "like"}
        rank = f"log ratio of entropy ranks {self.ratio:+.3f} ± {self.error:.3f}"
        if not self.spectrum.complete:
            rank = f"log ratio of what the leading eigenvalues leave {self.ratio:+.3f} ± {self.error:.3f}"
        return f"The spectrum decays {words[self.outcome]} that of the {self.name} baseline ({rank})."


def compare_baseline(spectrum: Spectrum, name: str = "rbf") -> Baseline:
    """A baseline on the points of a spectrum.

    Parameters
    ----------
    spectrum : Spectrum
        Of a kernel with points, or of a matrix with ``points=``.
    name : str
        ``"rbf"``, ``"laplace"``, ``"matern"`` (ν = 3/2) or ``"polynomial"`` (degree 3), at the median distance.

    Raises
    ------
    ArgumentError
        If the spectrum has no points.

    Examples
    --------
    >>> import numpy as np, phi4ppl as p4
    >>> x = np.random.default_rng(0).normal(size=(150, 2))
    >>> p4.spectral.compare_baseline(p4.spectral.spectrum("laplace", x), "rbf").outcome
    'slower'
    """
    name = one_of("baseline", name, BASELINES)
    if not isinstance(spectrum, Spectrum):
        raise ArgumentError("spectrum", "a Spectrum", f"a {type(spectrum).__name__}", "Make one by spectrum(…).")
    points = getattr(spectrum.gram, "inputs", None)
    if points is None:
        fix = "Give them beside the matrix: spectrum(matrix, points)."
        raise ArgumentError("baseline", "a spectrum with points", "one without", fix, reason="points")
    plain = named_kernel(name, points)
    scale = spectrum.trace / float(Gram(points=points, function=plain).diagonal().sum())

    def kernel(x, y):
        return np.asarray(scale, x.dtype) * plain(x, y)

    kernel.single = getattr(plain, "single", False)  # type: ignore[attr-defined]
    gram, label = Gram(points=points, function=kernel), f"{name} baseline"
    if spectrum.complete:
        found = dense_spectrum(gram, label, spectrum.sampled, 0.0, spectrum.seed, None)
        return Baseline(name, found, *_of_ranks(spectrum, found))
    found = lanczos_spectrum(gram, label, len(spectrum.eigenvalues), spectrum.sampled, spectrum.seed, None)
    return Baseline(name, found, *_of_leading(spectrum, found))


def _of_ranks(one: Spectrum, other: Spectrum) -> tuple[float, float]:
    ratio = float(np.log(one.plain_ranks["entropy_rank"] / other.plain_ranks["entropy_rank"]))
    if one.replicas is None or other.replicas is None:
        return ratio, 0.0
    ranks = [
        [np.log(ranks_of.entropy_rank(r)) for r in ranks_of.resolved(each.replicas, each.epsilon, each.num_points)]
        for each in (one, other)
    ]
    return ratio, float(np.sqrt(one.replica_factor * np.var(np.subtract(ranks[0], ranks[1]))))


def _of_leading(one: Spectrum, other: Spectrum) -> tuple[float, float]:
    def rest(values, trace):
        return np.log(np.maximum(1 - np.sum(values, axis=-1) / trace, 1e-12))

    ratio = float(rest(one.eigenvalues, one.trace) - rest(other.eigenvalues, other.trace))
    if one.replicas is None or other.replicas is None:
        return ratio, 0.0
    each = rest(one.replicas, one.trace) - rest(other.replicas, other.trace)
    return ratio, float(np.sqrt(one.replica_factor * np.var(each)))
