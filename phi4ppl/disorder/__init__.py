"""Quenched disorder and external fields: averages over random couplings, hysteresis, magnetization curves.

A model and distributions of its couplings come in; averages with errors over realisations go out. Read `quenched` first, then
`realizations`; `response` for external fields.
"""

from .annealed import Annealed
from .budget import Budget
from .hysteresis import Hysteresis
from .quenched import quenched
from .quenched_result import Quenched
from .quenched_verdict import QuenchedVerdict
from .response import LinearResponse, Response, response
from .saved import from_run

__all__ = [
    "Annealed",
    "Budget",
    "Hysteresis",
    "LinearResponse",
    "Quenched",
    "QuenchedVerdict",
    "Response",
    "from_run",
    "quenched",
    "response",
]
