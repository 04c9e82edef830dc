"""Checks, with witnesses, whether a model or a black-box action is a Markov random field on a graph.

The Hammersley–Clifford theorem: a strictly positive density is Markov with respect to a graph if and only if it is a
product of positive functions of the maximal cliques, p = Π_c ψ_c(φ_c)/Z with ψ_c = exp(−S_c).
"""

from .check import check_action, check_terms, normalizability_of
from .factorization import CliquePotentials
from .report import HammersleyCliffordReport, Violation

__all__ = ["CliquePotentials", "HammersleyCliffordReport", "Violation", "check_action", "check_terms",
           "normalizability_of"]  # fmt: skip
