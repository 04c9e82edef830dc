"""Fields and series become numbers with errors: observables, the Γ-method, blocks, and multistate reweighting (MBAR).

Arrays come in; values with standard errors go out. Read `gamma_method` first.
"""

from .gamma_method import GammaEstimate, gamma_method, normalized_autocorrelation
from .mbar import MbarSolution, log_mixture, overlap_matrix, solve_mbar

__all__ = [
    "GammaEstimate",
    "MbarSolution",
    "gamma_method",
    "log_mixture",
    "normalized_autocorrelation",
    "overlap_matrix",
    "solve_mbar",
]
