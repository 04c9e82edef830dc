"""Declarations: terms with couplings on the cliques of a lattice, checked against the Hammersley–Clifford theorem.

A lattice and terms come in; a `MarkovRandomField` goes out, a pytree whose leaves are the couplings. Read `field` first,
then `term`; `coupling_vector` views the couplings as one vector θ.
"""

from .families import gaussian, phi4, phi4_from_lagrangian
from .field import MarkovRandomField, Structure, load_model
from .hammersley_clifford import CliquePotentials, HammersleyCliffordReport, Violation, check_action
from .statistic import Statistic
from .term import Term, TermForm

__all__ = [
    "CliquePotentials",
    "HammersleyCliffordReport",
    "MarkovRandomField",
    "Statistic",
    "Structure",
    "Term",
    "TermForm",
    "Violation",
    "check_action",
    "gaussian",
    "load_model",
    "phi4",
    "phi4_from_lagrangian",
]
