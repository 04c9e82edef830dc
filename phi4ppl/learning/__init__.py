"""Learning: choose the couplings of a field so that it becomes another theory, or reproduces data."""

from .history import FitStatus, plot_history
from .likelihood import LikelihoodFit, fit_likelihood, held_out_score

__all__ = ["FitStatus", "LikelihoodFit", "fit_likelihood", "held_out_score", "plot_history"]
