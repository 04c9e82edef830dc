"""Posteriors of couplings given fields, fields predicted from them, comparison of models and averages over them.

Data and priors come in; posteriors, evidences and weights go out. Read `coupling_problem` and `posterior` first,
then `couplings`, `log_z`, `laplace` and `compare`.
"""

from .average import average
from .compare import Comparison, compare
from .coupling_problem import CouplingProblem
from .couplings import infer_couplings
from .laplace import laplace
from .latent_problem import LatentProblem
from .posterior import Posterior
from .predictive_check import PredictiveCheck, predictive_check

__all__ = [
    "Comparison",
    "CouplingProblem",
    "LatentProblem",
    "Posterior",
    "PredictiveCheck",
    "average",
    "compare",
    "infer_couplings",
    "laplace",
    "predictive_check",
]
