"""Fields that move: processes on lattices and graphs, evolved in time by the loops of sampling, drawn and filmed.

A process and a field come in; a `DataTree` with a dimension ``time``, pictures and films go out. Read `process` first.
"""

from .complex_langevin import ComplexLangevin
from .diffusion import Diffusion
from .driven import Driven, WorkEstimate, free_energy_difference
from .evolve import evolve
from .langevin import Langevin, free_variance
from .process import Process, process
from .stationary import Extrapolated, extrapolate, time_averages

__all__ = [
    "ComplexLangevin",
    "Diffusion",
    "Driven",
    "Extrapolated",
    "Langevin",
    "Process",
    "WorkEstimate",
    "evolve",
    "extrapolate",
    "free_energy_difference",
    "free_variance",
    "process",
    "time_averages",
]
