"""Fields and series become numbers with errors: observables, the Γ-method, derived quantities, correlators, and MBAR.

Arrays come in; values with standard errors go out. Read `gamma_method` first.
"""

from .collapse import Collapse, collapse
from .correlator_fit import MassFit, WindowFit, fit_mass
from .correlator_plots import plot_correlation, plot_mass, plot_structure_factor
from .correlators import Correlator, correlation_function, effective_mass, structure_factor, time_slice_correlator
from .crossings import Crossings, find_crossings
from .derived import derive
from .derived_result import Derived, Part
from .gamma_method import GammaEstimate, gamma_method, normalized_autocorrelation
from .least_squares import LeastSquares, aic_weights, correlated_fit
from .mbar import MbarSolution, log_mixture, overlap_matrix, solve_mbar
from .named import quantity_names
from .scaling_fit import ScalingFit, fit_scaling
from .scaling_plots import plot_scaling
from .scaling_scan import ScalingFits, scan_fits
from .scaling_table import ScalingTable, from_table

__all__ = [
    "Collapse",
    "Correlator",
    "Crossings",
    "Derived",
    "GammaEstimate",
    "LeastSquares",
    "MassFit",
    "MbarSolution",
    "Part",
    "ScalingFit",
    "ScalingFits",
    "ScalingTable",
    "WindowFit",
    "aic_weights",
    "collapse",
    "correlated_fit",
    "correlation_function",
    "derive",
    "effective_mass",
    "find_crossings",
    "fit_mass",
    "fit_scaling",
    "from_table",
    "gamma_method",
    "log_mixture",
    "normalized_autocorrelation",
    "overlap_matrix",
    "plot_correlation",
    "plot_mass",
    "plot_scaling",
    "plot_structure_factor",
    "quantity_names",
    "scan_fits",
    "solve_mbar",
    "structure_factor",
    "time_slice_correlator",
]
