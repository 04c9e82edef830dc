"""Expectations and log Z at actions that were not sampled: real or complex, from one ensemble or from several."""

from .ensembles import Ensembles, combine_ensembles, reweight
from .mbar import MbarSolution, log_mixture, overlap_matrix, solve_mbar
from .result import Divergence, Reweighted
from .scan import ReweightingScan, plot_scans, scan_reweighting

__all__ = [
    "Divergence",
    "Ensembles",
    "MbarSolution",
    "Reweighted",
    "ReweightingScan",
    "combine_ensembles",
    "log_mixture",
    "overlap_matrix",
    "plot_scans",
    "reweight",
    "scan_reweighting",
    "solve_mbar",
]
