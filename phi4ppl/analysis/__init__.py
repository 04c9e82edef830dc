"""Fields and series become numbers with errors: observables, the Γ-method, derived quantities, and MBAR.

Arrays come in; values with standard errors go out. Read `gamma_method` first.
"""

from .collapse import Collapse, collapse
from .crossings import Crossings, find_crossings
from .derived import derive
from .derived_result import Derived, Part
from .gamma_method import GammaEstimate, gamma_method, normalized_autocorrelation
from .least_squares import LeastSquares, aic_weights, correlated_fit
from .mbar import MbarSolution, log_mixture, overlap_matrix, solve_mbar
from .scaling_fit import POWERS, ScalingFit, ScalingFits, fit_scaling, scan_fits
from .scaling_plots import plot_scaling
from .scaling_table import ScalingTable, from_table

__all__ = [
    "Collapse",
    "Crossings",
    "Derived",
    "GammaEstimate",
    "LeastSquares",
    "MbarSolution",
    "POWERS",
    "Part",
    "ScalingFit",
    "ScalingFits",
    "ScalingTable",
    "aic_weights",
    "collapse",
    "correlated_fit",
    "derive",
    "find_crossings",
    "fit_scaling",
    "from_table",
    "gamma_method",
    "log_mixture",
    "normalized_autocorrelation",
    "overlap_matrix",
    "plot_scaling",
    "scan_fits",
    "solve_mbar",
]
