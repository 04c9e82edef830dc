"""Spectra: how many features a kernel, a network or a field really has.

Kernels, operators, networks and runs come in; eigenvalues with errors, effective ranks, laws of decay and learnable shares of
targets go out. Read `spectra` first, then `spectrum_result`; `tangent` for networks.
"""

from .attention import AttentionSpectrum, attention_spectrum, collapse_residual
from .baselines import Baseline, compare_baseline
from .comparison import KernelComparison, TargetAlignment, compare_kernels
from .decay import Decay, fit_decay
from .features import features_of, kernel_from_features
from .field_modes import MomentumExponent, field_spectrum, momentum_exponent
from .fock import FockWeights, fock_kernel, fock_rank, fock_weights
from .gram import Gram
from .learnability import Learnability, ModeLearnability, learnability, mode_learnability
from .random_labels import RandomLabelTest, random_label_test
from .regularizers import entropy_rank, participation_ratio, stable_rank
from .spectra import spectrum
from .spectral_page import SpectralReport, report
from .spectral_verdict import Finding
from .spectrum_result import Spectrum
from .tangent import TangentOperator, ntk

__all__ = [
    "AttentionSpectrum",
    "Baseline",
    "Decay",
    "Finding",
    "FockWeights",
    "Gram",
    "KernelComparison",
    "Learnability",
    "ModeLearnability",
    "MomentumExponent",
    "RandomLabelTest",
    "SpectralReport",
    "Spectrum",
    "TangentOperator",
    "TargetAlignment",
    "attention_spectrum",
    "collapse_residual",
    "compare_baseline",
    "compare_kernels",
    "entropy_rank",
    "features_of",
    "field_spectrum",
    "fit_decay",
    "fock_kernel",
    "fock_rank",
    "fock_weights",
    "kernel_from_features",
    "learnability",
    "mode_learnability",
    "momentum_exponent",
    "ntk",
    "participation_ratio",
    "random_label_test",
    "report",
    "spectrum",
    "stable_rank",
]
