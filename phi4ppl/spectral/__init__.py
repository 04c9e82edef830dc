"""Spectra: how many features a kernel, a network or a field really has.

Kernels, operators and runs come in; eigenvalues with errors, effective ranks and laws of decay go out. Read `spectra` first, then
`spectrum_result`.
"""

from .baselines import Baseline, compare_baseline
from .decay import Decay, fit_decay
from .regularizers import entropy_rank, participation_ratio, stable_rank
from .spectra import spectrum
from .spectrum_result import Spectrum

__all__ = [
    "Baseline",
    "Decay",
    "Spectrum",
    "compare_baseline",
    "entropy_rank",
    "fit_decay",
    "participation_ratio",
    "spectrum",
    "stable_rank",
]
