"""Expectations and log Z at actions that were not sampled: real or complex, from one ensemble or from several.

Draws and two actions come in; means with errors at the other action go out. Read `ensembles` first, then `scan`.
"""

from ..analysis.mbar import MbarSolution, log_mixture, overlap_matrix, solve_mbar
from .ensembles import Ensembles, combine_ensembles, reweight
from .reweighted import Divergence, Reweighted
from .scan import ReweightingScan, plot_scans, scan_reweighting
from .scan_derived import ScanDerived

__all__ = [
    "Divergence",
    "Ensembles",
    "MbarSolution",
    "Reweighted",
    "ReweightingScan",
    "ScanDerived",
    "combine_ensembles",
    "log_mixture",
    "overlap_matrix",
    "plot_scans",
    "reweight",
    "scan_reweighting",
    "solve_mbar",
]
