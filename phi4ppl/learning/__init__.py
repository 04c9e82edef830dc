"""Learning: choose the couplings of a field so that it becomes another theory, or reproduces data."""

from .history import FitStatus, plot_history
from .likelihood import LikelihoodFit, fit_likelihood, held_out_score
from .variational import fit_variational
from .variational_result import VariationalFit

__all__ = [
    "FitStatus",
    "LikelihoodFit",
    "VariationalFit",
    "fit_likelihood",
    "fit_variational",
    "held_out_score",
    "plot_history",
]
