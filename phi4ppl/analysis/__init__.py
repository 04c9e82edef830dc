"""Fields and series become numbers with errors: observables, the Γ-method, derived quantities, and MBAR.

Arrays come in; values with standard errors go out. Read `gamma_method` first.
"""

from .derived import derive
from .derived_result import Derived, Part
from .gamma_method import GammaEstimate, gamma_method, normalized_autocorrelation
from .mbar import MbarSolution, log_mixture, overlap_matrix, solve_mbar
from .named import quantity_names

__all__ = [
    "Derived",
    "GammaEstimate",
    "MbarSolution",
    "Part",
    "derive",
    "gamma_method",
    "log_mixture",
    "normalized_autocorrelation",
    "overlap_matrix",
    "quantity_names",
    "solve_mbar",
]
