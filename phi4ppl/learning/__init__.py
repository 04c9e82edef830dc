"""Learning: choose the couplings of a field so that it becomes another theory, or reproduces data.

A model with a target action or data comes in; a fitted model with standard errors goes out. Read `likelihood` first, then
`variational`.
"""

from .history import FitStatus, plot_history
from .likelihood import HeldOutScore, LikelihoodFit, fit_likelihood, held_out_score
from .methods import MaximumLikelihood, PersistentCD, PseudoLikelihood, ScoreMatching
from .variational import fit_variational
from .variational_result import VariationalFit

__all__ = [
    "FitStatus",
    "HeldOutScore",
    "LikelihoodFit",
    "MaximumLikelihood",
    "PersistentCD",
    "PseudoLikelihood",
    "ScoreMatching",
    "VariationalFit",
    "fit_likelihood",
    "fit_variational",
    "held_out_score",
    "plot_history",
]
