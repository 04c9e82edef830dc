"""Spectra: how many features a kernel, a network or a field really has.

Kernels, operators and runs come in; eigenvalues with errors, effective ranks and laws of decay go out.
Read `spectra` first, then `spectrum_result`.
"""

from .baselines import Baseline, compare_baseline
from .decay import Decay, fit_decay
from .field_modes import MomentumExponent, field_spectrum, momentum_exponent
from .gram import Gram
from .regularizers import entropy_rank, participation_ratio, stable_rank
from .spectra import spectrum
from .spectral_page import SpectralReport, report
from .spectral_verdict import Finding
from .spectrum_result import Spectrum

__all__ = [
    "Baseline",
    "Decay",
    "Finding",
    "Gram",
    "MomentumExponent",
    "SpectralReport",
    "Spectrum",
    "compare_baseline",
    "entropy_rank",
    "field_spectrum",
    "fit_decay",
    "momentum_exponent",
    "participation_ratio",
    "report",
    "spectrum",
    "stable_rank",
]
